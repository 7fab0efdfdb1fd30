"""Adapters of one's own, resumed beside others and beside TRL's frozen reference."""

from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file

from helpers.models import make_model
from helpers.resuming import SETTINGS, StopAt
from helpers.trainers import make_prompts, make_trainer, spread_reward
from helpers.weights import assert_same_weights


def adapted(seed: int, other: str | None = None, learning: str = "default") -> PeftModel:
    """A model with an adapter of one's own that has learned something already, and maybe another one."""
    torch.manual_seed(seed)
    config = LoraConfig(target_modules=["q_proj", "k_proj", "v_proj"], r=2, init_lora_weights=False)
    model = get_peft_model(make_model(), config)
    if other:
        model.add_adapter(other, config)
        model.set_adapter(learning)
    return model


def test_an_adapter_of_ones_own_with_a_reference(tmp_path):
    """TRL adds a frozen copy to it, and a checkpoint holds both: each is restored, and only one of them learns."""
    settings = {**SETTINGS, "beta": 0.1, "learning_rate": 1e-2, "steps_per_generation": 2}
    whole = make_trainer(tmp_path / "whole", adapted(0), **settings)
    whole.train()
    make_trainer(tmp_path / "parts", adapted(0), callbacks=[StopAt(3)], **settings).train()
    resumed = make_trainer(tmp_path / "parts", adapted(1), **settings)  # both must come from the checkpoint
    resumed.train(resume_from_checkpoint="auto")
    assert_same_weights(resumed.model, whole.model)
    before = dict(adapted(0).named_parameters())
    for name, param in resumed.model.named_parameters():
        of_reference, of_trained = ".ref." in name, ".default." in name
        assert param.requires_grad == of_trained
        start = before[name.replace(".ref.", ".default.")]
        assert torch.equal(param, start) == (not of_trained), name
        assert of_reference or of_trained or "lora" not in name


@pytest.mark.parametrize(("other", "learning", "beta"), [("fixed", "default", 0.0), ("policy", "policy", 0.1)])
def test_each_of_several_adapters_is_restored(tmp_path, other, learning, beta):
    """PEFT saves `default` at the top of a checkpoint and the others, TRL's `ref` among them, in folders below."""
    settings = {"max_steps": 2, "save_strategy": "steps", "save_steps": 1, "beta": beta, "learning_rate": 1e-2}
    whole = make_trainer(tmp_path, adapted(0, other, learning), **settings)
    whole.train()
    resumed = make_trainer(tmp_path, adapted(1, other, learning), **settings)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-1"))
    assert_same_weights(resumed.model, whole.model)
    started = dict(adapted(0, other, learning).named_parameters())
    for name, param in resumed.model.named_parameters():
        assert param.requires_grad == (f".{learning}." in name)
        assert name not in started or torch.equal(param, started[name]) == (not param.requires_grad), name


@pytest.mark.parametrize(("other", "learning"), [(None, "default"), ("policy", "policy")])
def test_the_best_model_at_the_end_is_the_best_adapter_beside_its_reference(tmp_path, other, learning):
    def worse_with_each_step(completions, trainer_state, **kwargs):
        return [reward - 10 * trainer_state.global_step for reward in spread_reward(completions)]

    options = {"beta": 0.1, "max_steps": 3, "save_strategy": "steps", "save_steps": 1}
    options |= {"eval_strategy": "steps", "eval_steps": 1, "per_device_eval_batch_size": 4}
    options |= {"load_best_model_at_end": True, "metric_for_best_model": "eval_reward"}
    options |= {"reward": worse_with_each_step, "eval_dataset": make_prompts().select([0])}
    trainer = make_trainer(tmp_path, adapted(0, other, learning), **options)
    trainer.train()
    assert Path(trainer.state.best_model_checkpoint).name == "checkpoint-1"
    file = f"{learning if other else ''}/adapter_model.safetensors"
    best, last = (load_file(f"{tmp_path}/checkpoint-{step}/{file}") for step in (1, 3))
    before, loaded = dict(adapted(0, other, learning).named_parameters()), dict(trainer.model.named_parameters())
    of_trained = {name: param for name, param in loaded.items() if f".{learning}." in name}
    assert len(of_trained) == len(best) == 12
    for name, param in of_trained.items():
        saved = name.replace(f".{learning}", "")
        assert torch.equal(param, best[saved]) and not torch.equal(best[saved], last[saved])
        frozen = name.replace(f".{learning}.", ".default.")  # whose copy TRL takes as the reference
        assert torch.equal(loaded[frozen.replace(".default.", ".ref.")], before[frozen])
    trainer.save_model(tmp_path / "saved")
    assert all(torch.equal(t, best[n]) for n, t in load_file(f"{tmp_path}/saved/{file}").items())


@pytest.mark.parametrize(
    ("name", "other", "named"), [("policy", None, "'policy', and"), ("default", "ref", "'ref', which")]
)
def test_a_reference_that_cannot_be_made_is_refused(tmp_path, name, other, named):
    config = LoraConfig(target_modules=["q_proj", "k_proj"], r=2)
    model = get_peft_model(make_model(), config, adapter_name=name)
    if other:
        model.add_adapter(other, config)
    with pytest.raises(ValueError, match=f"`beta`=0.1 needs a frozen copy of an adapter .*{named} "):
        make_trainer(tmp_path, model, beta=0.1)
    make_trainer(tmp_path, model, beta=0.0)
