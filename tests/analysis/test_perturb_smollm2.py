"""The paper's claim on a pretrained model: a head's strongest channels matter most, its weakest hardly."""

import pytest
from smollm2 import smollm2_135m

from longact_trl.analysis.perturb.loss_study import LossStudy, study_losses
from longact_trl.analysis.texts import BUILT_IN, built_in_texts
from longact_trl.models.reading import load_model, load_tokenizer


@pytest.fixture(scope="module")
def study() -> LossStudy:
    folder = str(smollm2_135m())
    chunks = {name: list(ids.split(64)) for name, ids in built_in_texts(load_tokenizer(folder), 256).items()}
    return study_losses(load_model(folder), chunks, ("q", "k"), [0.3], 0.3, num_seeds=1)


@pytest.mark.parametrize("text", BUILT_IN)
def test_top_above_random_above_bottom(study, text):
    """In nats a token, with the interval's lower end: margins of several tenths, not of noise."""
    assert study.gap(text, "random", "top", 0.3).low > 0.3
    assert study.gap(text, "bottom", "random", 0.3).low > 1.0
    assert study.gap(text, "none", "bottom", 0.3).value < study.gap(text, "bottom", "random", 0.3).value
