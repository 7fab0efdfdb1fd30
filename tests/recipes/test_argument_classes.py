"""The fields that are read from sources are those that the classes have."""

import ast
import dataclasses
import inspect
from enum import Enum
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
import torch
from transformers.training_args import trainer_log_levels
from trl import GRPOConfig, GRPOTrainer, ScriptArguments, SFTConfig

from longact_trl import LongActConfig
from longact_trl.evaluation.config import EvaluationConfig
from longact_trl.settings.argument_classes import declared_class
from longact_trl.settings.choices import LOG_LEVELS, TEXTS_OF_GRPO
from longact_trl.settings.devices import gpu_is_missing
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


def test_what_trl_compares_a_text_with_is_what_may_be_written():
    source = ast.parse(Path(inspect.getsourcefile(GRPOTrainer)).read_text(encoding="utf-8"))
    compared: dict[str, set[str]] = {name: set() for name in TEXTS_OF_GRPO}
    for node in ast.walk(source):
        if isinstance(node, ast.Compare) and getattr(node.left, "attr", None) in compared:
            for constant in ast.walk(node.comparators[0]):
                if isinstance(constant, ast.Constant):
                    compared[node.left.attr].add(constant.value)
    assert compared.pop("vllm_mode") <= set(TEXTS_OF_GRPO["vllm_mode"])  # vLLM's other mode is what is left
    assert compared == {name: set(texts) for name, texts in TEXTS_OF_GRPO.items() if name in compared}
    assert set(trainer_log_levels) == set(LOG_LEVELS)


def test_a_gpu_is_missing_only_where_torch_has_none(monkeypatch):
    assert not (gpu_is_missing() and torch.cuda.is_available())
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert gpu_is_missing() == (not torch.version.hip and not torch.version.xpu)
