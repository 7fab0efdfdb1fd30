"""Whole runs with prompts shared, and when they are."""

import pytest
import torch
from transformers import (
    Gemma2Config,
    Gemma3Config,
    GptOssConfig,
    LlamaConfig,
    MambaConfig,
    MistralConfig,
    NemotronConfig,
    OPTConfig,
    Qwen3Config,
    Qwen3MoeConfig,
    TrainerCallback,
)
from trl import GRPOConfig, GRPOTrainer

from helpers.models import make_model
from helpers.trainers import make_args, make_prompts, make_trainer, spread_reward
from helpers.weights import assert_no_hooks, weights_of
from longact_trl import LongActConfig, LongActTrainer
from longact_trl.packing.attention import SUFFIX
from longact_trl.packing.obstacles import shares_prefixes
from longact_trl.training.shared_prefix import exchange_window


class Noting(LongActTrainer):
    """Notes the rows and prompts of each pass, and the rows of each optimizer step."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.passes, self.steps = [], {}

    def _get_per_token_logps_and_entropies(self, model, *args, **kwargs):
        kind = "reference" if model is self.ref_model else "train" if torch.is_grad_enabled() else "score"
        self.passes.append(kind if self.model.training else "evaluate")
        return super()._get_per_token_logps_and_entropies(model, *args, **kwargs)

    def _compute_loss(self, model, inputs):
        if self.model.training:
            rows = zip(inputs["prompt_ids"].tolist(), inputs["completion_ids"].tolist(), strict=True)
            self.steps.setdefault(self.state.global_step, []).append(list(rows))
        return super()._compute_loss(model, inputs)


SETTINGS = {
    "plain": {},
    "accumulation": {"gradient_accumulation_steps": 4},
    "two_steps_a_generation": {"gradient_accumulation_steps": 2, "steps_per_generation": 4, "loss_type": "grpo"},
    "two_generations_a_step": {"gradient_accumulation_steps": 4, "steps_per_generation": 2},
    "frozen_rows": {"update_rule": "frozen_rows", "gradient_accumulation_steps": 2, "num_iterations": 2},
    "clip_cov": {"policy_loss": "clip_cov", "clip_cov_ratio": 0.2, "clip_cov_lb": -1.0, "num_iterations": 2},
    "checkpointing": {"gradient_checkpointing": True},
    "reference": {"beta": 0.1, "gradient_accumulation_steps": 2, "steps_per_generation": 4},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_a_run_ends_at_the_same_weights(name, tmp_path, tiny_model, packed):
    """
    Within 1e-4 of how far they went, and float32's grain, under SGD: Adam divides by gradients that may be near zero.
    """
    settings = {"per_device_train_batch_size": 4, "num_generations": 8, "optim": "sgd", "learning_rate": 0.3}
    settings |= SETTINGS[name]
    settings |= {"gradient_accumulation_steps": settings.get("gradient_accumulation_steps", 2)}
    plain = make_trainer(tmp_path / "plain", tiny_model, Noting, shared_prefix="off", **settings)
    plain.train()
    assert not packed
    shared = make_trainer(tmp_path / "shared", tiny_model, Noting, shared_prefix="on", **settings)
    shared.train()
    assert packed and shared.passes == plain.passes
    for step, rows in plain.steps.items():  # the same rows in the same optimizer step, and the same magnitudes
        assert sorted(sum(shared.steps[step], [])) == sorted(sum(rows, []))
    for layer, magnitude in plain.mask_refresh.magnitudes.items():
        torch.testing.assert_close(shared.mask_refresh.magnitudes[layer], magnitude, rtol=1e-4, atol=0)
    start, expected = weights_of(make_model()), weights_of(plain.model)
    for weight, found in weights_of(shared.model).items():
        moved, grain = (expected[weight] - start[weight]).norm(), 1e-7 * start[weight].norm()
        assert moved > 0 and (found - expected[weight]).norm() <= 1e-4 * moved + grain, weight


def test_passes_are_shared_and_groups_stay_together(tmp_path, tiny_model, packed):
    """Scoring, reference and training: 2 groups of 8 in 4 micro-batches of 4, never two prompts in one."""
    settings = {"num_generations": 8, "gradient_accumulation_steps": 4, "num_iterations": 2, "beta": 0.1}
    trainer = make_trainer(tmp_path, tiny_model, Noting, max_steps=2, **settings)
    trainer.train()
    assert {"score", "reference", "train"} == set(trainer.passes)
    assert len(packed) == 4 + 4 + 8
    for layout in packed:
        assert len(layout.groups) == 1 and len(layout.groups[0].segments) == 4


def test_evaluation_and_generation_are_as_without(tmp_path, tiny_model, packed):
    """To the bit, also while training has the attention function registered."""
    logs, texts = {}, {}
    for mode in ("off", "on"):
        trainer = make_trainer(
            tmp_path / mode, tiny_model, shared_prefix=mode, learning_rate=0.0, eval_dataset=make_prompts(), seed=1,
            eval_strategy="steps", eval_steps=1, per_device_eval_batch_size=4, max_steps=1,
        )  # fmt: skip
        trainer.train()
        logs[mode] = next(log for log in trainer.state.log_history if "eval_loss" in log)
        texts[mode] = list(trainer._logs["completion"])
    assert packed
    timings = ("eval_runtime", "eval_samples_per_second", "eval_steps_per_second")
    assert {k: v for k, v in logs["on"].items() if k not in timings} == {
        k: v for k, v in logs["off"].items() if k not in timings
    }
    assert texts["on"] == texts["off"]


class Breaks(TrainerCallback):
    def on_step_end(self, args, state, control, model, **kwargs):
        assert model.config._attn_implementation == "sdpa" + SUFFIX
        raise RuntimeError("enough")


def test_the_attention_function_comes_off(tmp_path, tiny_model):
    trainer = make_trainer(tmp_path / "whole", tiny_model, save_strategy="steps", save_steps=1)
    trainer.train()
    assert trainer.model.config._attn_implementation == "sdpa"
    assert_no_hooks(trainer.model)
    assert SUFFIX not in (tmp_path / "whole" / "checkpoint-1" / "config.json").read_text()
    broken = make_trainer(tmp_path / "broken", tiny_model, callbacks=[Breaks()])
    with pytest.raises(RuntimeError, match="enough"):
        broken.train()
    assert broken.model.config._attn_implementation == "sdpa"


def test_without_two_rows_of_a_prompt_nothing_changes(tmp_path, tiny_model, packed):
    """To the bit: `auto` on a micro-batch of one row, and where groups lie across micro-batches."""
    settings = {"num_generations": 2, "per_device_train_batch_size": 1, "gradient_accumulation_steps": 2}
    stock = make_trainer(
        tmp_path / "stock", tiny_model, GRPOTrainer, config_class=GRPOConfig, epsilon_high=0.28, **settings
    )
    stock.train()
    ours = make_trainer(tmp_path / "ours", tiny_model, strategy="dense", **settings)
    ours.train()
    assert not packed
    expected = weights_of(stock.model)
    assert all(torch.equal(weight, expected[name]) for name, weight in weights_of(ours.model).items())


@pytest.mark.parametrize(
    "settings, window",
    [
        ({}, 1),
        ({"gradient_accumulation_steps": 4}, 4),
        ({"gradient_accumulation_steps": 2, "steps_per_generation": 6}, 2),
        ({"gradient_accumulation_steps": 6, "steps_per_generation": 4}, 2),
        ({"gradient_accumulation_steps": 4, "loss_type": "bnpo"}, 1),
        ({"gradient_accumulation_steps": 4, "entropy_coef": 0.1}, 1),
        ({"gradient_accumulation_steps": 4, "top_entropy_quantile": 0.2}, 1),
    ],
)
def test_rows_are_exchanged_only_where_it_shows_in_no_gradient(tmp_path, settings, window):
    assert exchange_window(make_args(tmp_path, **settings)) == window


@pytest.mark.parametrize(
    "config, settings, message",
    [
        (LlamaConfig(), {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 4}, "no two completions"),
        (LlamaConfig(), {"policy_loss": "kl_cov", "num_iterations": 2}, "has a kink at zero"),
        (LlamaConfig(), {"model_init_kwargs": {"attn_implementation": "eager"}}, "Write 'sdpa'"),
        (MistralConfig(sliding_window=64), {}, "`sliding_window`=64"),
        (Qwen3Config(use_sliding_window=True, max_window_layers=1), {}, "layers of sliding_attention"),
        (Gemma2Config(layer_types=["full_attention"] * 26, sliding_window=None), {}, "`attn_logit_softcapping`=50.0"),
        (LlamaConfig(attention_dropout=0.1), {}, "`attention_dropout`=0.1"),
        (GptOssConfig(), {}, "sliding_attention"),
        (Gemma3Config(), {}, "also reads images"),
        (Qwen3MoeConfig(), {}, "load-balancing loss"),
        (MambaConfig(), {}, "does not take its attention function"),
        (OPTConfig(), {}, "has no rotary positions"),
        (NemotronConfig(), {}, "reads its attention mask itself"),
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_what_it_refuses(tmp_path, config, settings, message):
    on, auto = (make_args(tmp_path, shared_prefix=mode, **settings) for mode in ("on", "auto"))
    with pytest.raises(ValueError, match=f"`shared_prefix='on'` cannot work: .*{message}"):
        shares_prefixes(config, on)
    assert not shares_prefixes(config, auto)


@pytest.mark.parametrize(
    "config",
    [LlamaConfig(), Qwen3Config(), MistralConfig(sliding_window=None), Qwen3MoeConfig(router_aux_loss_coef=0.0)],
)
def test_what_it_takes(tmp_path, config):
    assert shares_prefixes(config, make_args(tmp_path, shared_prefix="on"))
    assert not shares_prefixes(config, make_args(tmp_path, shared_prefix="off"))


def test_it_refuses_before_weights_are_loaded(tmp_path, no_weights):
    with pytest.raises(ValueError, match="`shared_prefix='on'` cannot work"):
        LongActTrainer(
            str(no_weights),
            spread_reward,
            make_args(tmp_path, shared_prefix="on", model_init_kwargs={"attn_implementation": "eager"}),
            make_prompts(),
        )
    with pytest.raises(ValueError, match="Unknown `shared_prefix` 'yes'. Write one of 'auto', 'on', 'off'"):
        LongActConfig(str(tmp_path), shared_prefix="yes")
