"""What `benchmarks/families.py` checks, for tests."""

import sys

import pytest
import transformers
from transformers import PreTrainedModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

from .paths import ROOT


sys.path.insert(0, str(ROOT / "benchmarks"))

import tiny_families  # noqa: E402
from family_checks import (  # noqa: E402, F401
    check_heads,
    check_magnitudes,
    check_masks,
    check_rows,
)
from family_prefixes import exact_recurrences_in, shared_prefix_error  # noqa: E402, F401
from tiny_families import FAMILIES, tiny_config  # noqa: E402, F401


def tiny_model(family: str, seed: int = 0) -> PreTrainedModel:
    """Skips the test where this transformers does not have the family; the one that `make` installs has all."""
    if family.partition("@")[0] not in CONFIG_MAPPING_NAMES:
        pytest.skip(f"transformers {transformers.__version__} has no {family}")
    return tiny_families.tiny_model(family, seed)
