"""The fields that are read from sources are those that the classes have."""

import dataclasses
from enum import Enum
from typing import Any, get_args, get_type_hints

import pytest
from trl import GRPOConfig, ScriptArguments, SFTConfig

from longact_trl import LongActConfig
from longact_trl.evaluation.config import EvaluationConfig
from longact_trl.settings.argument_classes import declared_class
from longact_trl.settings.value_types import named_values
from longact_trl.training.cold_start import ColdStartArguments
from longact_trl.training.recipe_parts import RecipeArguments


OURS = [LongActConfig, RecipeArguments, ColdStartArguments, EvaluationConfig]


def plain(hint: Any) -> str:
    """A type without the module that an enumeration was read from; `Any` stands for what is not plain."""
    return str(hint).replace("longact_trl.settings.argument_classes.", "")


@pytest.mark.parametrize("cls", [GRPOConfig, SFTConfig, ScriptArguments, *OURS], ids=lambda cls: cls.__name__)
def test_the_source_says_what_the_class_has(cls):
    home = "trl" if cls.__module__.startswith("trl.") else cls.__module__
    declared = declared_class(home, cls.__name__)
    ours, theirs = ({f.name: f for f in dataclasses.fields(c) if f.init} for c in (declared, cls))
    assert list(ours) == list(theirs)
    read, real = get_type_hints(declared), get_type_hints(cls)
    for name, field in theirs.items():
        enums = [part for part in get_args(real[name]) if isinstance(part, type) and issubclass(part, Enum)]
        if enums:
            assert named_values(read[name]) == [member.value for member in enums[0]], name
        elif Any not in get_args(read[name]) and "DebugOption" not in plain(read[name]):
            assert plain(read[name]) == plain(real[name]), name
        default = ours[name].default
        assert default in (field.default, None), name  # a computed one is not known
        assert (default is dataclasses.MISSING) == (field.default is field.default_factory is dataclasses.MISSING), (
            name
        )


def test_a_source_that_is_not_there():
    for module, name in (("trl", "GRPOConfik"), ("trl.nowhere", "GRPOConfig"), ("no_such_package", "C")):
        with pytest.raises(LookupError):
            declared_class(module, name)
