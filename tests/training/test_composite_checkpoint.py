"""Published checkpoints hold a vision tower beside the decoder: from such a folder to a trained one, and back."""

import pytest
import torch
from transformers import AutoConfig

from helpers.families import tiny_model
from helpers.models import make_tokenizer
from helpers.trainers import make_args, make_prompts, make_trainer, spread_reward
from longact_trl import LongActTrainer
from longact_trl.analysis.drift.row_drift import measure_drift
from longact_trl.method.projections import find_projections, row_dim
from longact_trl.models.reading import load_model, model_class_of


FAMILIES = ["qwen3_5", "qwen3_next", "qwen3_moe", "gpt_oss", "gemma3", "gemma4", "deepseek_v3"]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_folder_is_trained_saved_and_loaded_by_plain_transformers(family, tmp_path):
    tiny_model(family).save_pretrained(tmp_path / "base")
    make_tokenizer().save_pretrained(tmp_path / "base")
    trainer = LongActTrainer(
        str(tmp_path / "base"),
        spread_reward,
        make_args(tmp_path / "run", max_steps=2, num_generations=2),
        make_prompts(),
        processing_class=make_tokenizer(),
    )
    trainer.train()
    trainer.save_model(str(tmp_path / "trained"))
    before, after = (load(tmp_path / folder) for folder in ("base", "trained"))
    assert type(after) is type(before) is model_class_of(before.config)
    for p in trainer.mask_refresh.projections:
        name = p.name.partition(":")[0]
        old, new = (m.get_submodule(name).weight for m in (before, after))
        moved = (old != new).t() if row_dim(p.module) else old != new
        ever = trainer.mask_refresh.ever_selected[p.name]
        assert not moved[p.rows].any(1)[~ever].any() and moved[p.rows].any(), p.name
    names = [p.name for p in trainer.mask_refresh.projections]
    assert [p.name for p in find_projections(load_model(str(tmp_path / "base")))] == names
    drift = measure_drift(tmp_path / "base", tmp_path / "trained")
    assert list(drift) == names
    for name, rows in drift.items():
        assert rows.changed.any() and not (rows.changed.flatten() & ~trainer.mask_refresh.ever_selected[name]).any()
    frozen = {name: value for name, value in before.named_parameters() if "vision" in name or "visual" in name}
    assert all(torch.equal(value, after.get_parameter(name)) for name, value in frozen.items())


def load(folder):
    config = AutoConfig.from_pretrained(folder)
    return model_class_of(config).from_pretrained(folder)


@pytest.mark.parametrize("family", ["qwen3_moe", "qwen2_vl", "hrm_text"])
def test_a_run_goes_on_from_weights_that_are_saved_by_other_names(family, tmp_path):
    """Experts one by one, an older prefix, fused layers: Trainer itself would leave them as a new model has them."""

    def trainer_of(seed: int):
        settings = {"max_steps": 2, "save_strategy": "steps", "save_steps": 1, "num_generations": 2}
        return make_trainer(tmp_path / "run", tiny_model(family, seed), **settings)

    whole, parts = trainer_of(0), trainer_of(5)
    whole.train()
    checkpoint = str(tmp_path / "run" / "checkpoint-1")
    parts.train(resume_from_checkpoint=checkpoint)
    for name, weight in whole.model.named_parameters():
        assert torch.equal(weight, parts.model.get_parameter(name)), name
    parts.state.best_model_checkpoint = checkpoint
    parts._load_best_model()
    first = load(checkpoint).state_dict()
    assert all(torch.equal(weight, first[name]) for name, weight in parts.model.state_dict().items())
