"""The published verdict against its scores."""

import json
import re

import numpy as np
import pytest

from longact_trl.evaluation.statistics import sign_flip_p
from longact_trl.settings.paths import recipe_root
from longact_trl.study.command import rounded
from longact_trl.study.outcome import holm


def test_the_verdicts_p_values_are_exact():
    """All signs of twenty seeds, by brute force, from the scores that are published."""
    docs = recipe_root() / "docs"
    text = (docs / "verdict.md").read_text()
    for study in json.loads((docs / "verdict.json").read_text()).values():
        right = {name: np.rint(900 * np.array(arm["scores"])) for name, arm in study["arms"].items()}  # of 900
        base = right.pop(study["baseline"])
        p = {}
        for name, counts in right.items():
            sums = np.zeros(1)
            for difference in counts - base:
                sums = np.concatenate([sums + difference, sums - difference])
            p[name] = (np.abs(sums) >= abs((counts - base).sum())).mean()
            assert sign_flip_p([((counts - base) / 900).tolist()]) == pytest.approx(p[name], abs=1e-12)
        for name, adjusted in holm(p).items():
            assert re.search(rf"^\| {name} \|.*\| {rounded(adjusted)} \|", text, re.MULTILINE), (name, adjusted)
