"""What `benchmarks/families.py` checks, for tests."""

import sys

from .paths import ROOT


sys.path.insert(0, str(ROOT / "benchmarks"))

from family_checks import (  # noqa: E402, F401
    check_heads,
    check_magnitudes,
    check_masks,
    check_rows,
    exact_recurrences_in,
    shared_prefix_error,
)
from tiny_families import FAMILIES, tiny_config, tiny_model  # noqa: E402, F401
