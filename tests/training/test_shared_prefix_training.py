"""Whole runs with prompts shared."""

import pytest
import torch
from peft import LoraConfig
from transformers import TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from helpers.families import tiny_model as tiny_family
from helpers.models import make_model
from helpers.trainers import make_args, make_prompts, make_trainer
from helpers.weights import assert_no_hooks, weights_of
from longact_trl import LongActTrainer
from longact_trl.packing.attention import SUFFIX
from longact_trl.packing.schedule import take_turns
from longact_trl.training.shared_prefix import exchange_window, prompts_to_share


class Noting(LongActTrainer):
    """Notes the rows and prompts of each pass, and the rows of each optimizer step."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.passes, self.steps, self.lengths = [], {}, {}

    def _get_per_token_logps_and_entropies(self, model, *args, **kwargs):
        kind = "reference" if model is self.ref_model else "train" if torch.is_grad_enabled() else "score"
        self.passes.append(kind if self.model.training else "evaluate")
        return super()._get_per_token_logps_and_entropies(model, *args, **kwargs)

    def _compute_loss(self, model, inputs):
        if self.model.training:
            rows = zip(inputs["prompt_ids"].tolist(), inputs["completion_ids"].tolist(), strict=True)
            self.steps.setdefault(self.state.global_step, []).append(list(rows))
            for prompt, completion, mask in zip(
                inputs["prompt_ids"].tolist(),
                inputs["completion_ids"].tolist(),
                inputs["completion_mask"],
                strict=True,
            ):
                self.lengths[tuple(prompt), tuple(completion)] = int(mask.sum())
        return super()._compute_loss(model, inputs)


SETTINGS = {
    "plain": {},
    "accumulation": {"gradient_accumulation_steps": 4},
    "two_steps_a_generation": {"gradient_accumulation_steps": 2, "steps_per_generation": 4, "loss_type": "grpo"},
    "two_generations_a_step": {"gradient_accumulation_steps": 4, "steps_per_generation": 2},
    "frozen_rows": {"update_rule": "frozen_rows", "gradient_accumulation_steps": 2, "num_iterations": 2},
    "clip_cov": {"policy_loss": "clip_cov", "clip_cov_ratio": 0.2, "clip_cov_lb": -1.0, "num_iterations": 2},
    "checkpointing": {"gradient_checkpointing": True},
    "reentrant": {
        "gradient_checkpointing": True,
        "gradient_checkpointing_kwargs": {"use_reentrant": True},
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 4,
    },
    "one_row": {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 8},
    "one_row_in_chunks": {
        "per_device_train_batch_size": 1,
        "gradient_accumulation_steps": 8,
        "prefix_chunk_size": 3,
        "gradient_checkpointing": True,
    },
    "in_chunks": {"prefix_chunk_size": 4, "gradient_accumulation_steps": 4, "steps_per_generation": 2},
    "in_chunks_again": {"prefix_chunk_size": 4, "num_iterations": 2, "beta": 0.1, "prefix_offload": True},
    "steps_across_generations": {
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 3,
        "steps_per_generation": 4,
        "loss_type": "grpo",
        "max_steps": 4,
    },
    "one_step_goes_over_its_rows_twice": {
        "per_device_train_batch_size": 2,
        "num_generations": 4,
        "gradient_accumulation_steps": 4,
        "steps_per_generation": 2,
        "num_iterations": 2,
        "max_steps": 2,
    },
    "an_epoch_ends_within_a_step": {
        "per_device_train_batch_size": 10,
        "num_generations": 3,
        "gradient_accumulation_steps": 2,
        "steps_per_generation": 3,
        "prefix_offload": True,
        "max_steps": 4,
    },
    "a_stream_ends_within_a_step": {
        "train_dataset": make_prompts().select(range(7)).to_iterable_dataset(),
        "gradient_accumulation_steps": 8,
        "steps_per_generation": 6,
        "max_steps": 4,
    },
    "order_kept": {"loss_type": "bnpo", "per_device_train_batch_size": 2, "gradient_accumulation_steps": 4},
    "offload": {"prefix_offload": True, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 8},
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
    whole = {key: value for key, value in settings.items() if not key.startswith("prefix_")}
    plain = make_trainer(tmp_path / "plain", tiny_model, Noting, shared_prefix="off", **whole)
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


def test_a_recurrent_decoder_beside_a_vision_tower(tmp_path, packed):
    """As published: text alone, the towers' attention as it is."""
    settings = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4, "num_generations": 4}
    settings |= {"optim": "sgd", "learning_rate": 0.3, "max_steps": 1}
    ends, start = {}, weights_of(tiny_family("qwen3_5"))
    for mode in ("off", "on"):
        trainer = make_trainer(tmp_path / mode, tiny_family("qwen3_5"), shared_prefix=mode, **settings)
        trainer.train()
        assert bool(packed) == (mode == "on")
        ends[mode] = weights_of(trainer.model)
        assert trainer.model.config.text_config._attn_implementation == "sdpa"
    for weight, value in ends["off"].items():
        moved, grain = (value - start[weight]).norm(), 1e-7 * start[weight].norm()
        assert (ends["on"][weight] - value).norm() <= 1e-3 * moved + grain, weight


def test_rows_with_images_share_nothing():
    ids = torch.tensor([[5, 6, 7]] * 4)
    for beside, shared in (({}, True), ({"pixel_values": torch.zeros(4, 3, 8, 8)}, False)):
        turns = take_turns(*prompts_to_share(ids, torch.ones_like(ids), beside), [2, 2], training=True)
        assert bool(turns[0].kept) == shared


def test_passes_are_shared_and_groups_stay_together(tmp_path, tiny_model, packed):
    """Scoring, reference and training: 2 groups of 8 in 4 micro-batches of 4, never two prompts in one."""
    settings = {"num_generations": 8, "gradient_accumulation_steps": 4, "num_iterations": 2, "beta": 0.1}
    trainer = make_trainer(tmp_path, tiny_model, Noting, max_steps=2, **settings)
    trainer.train()
    assert {"score", "reference", "train"} == set(trainer.passes)
    assert len(packed) == 4 + 4 + 8
    for layout in packed:
        assert len(layout.groups) == 1 and len(layout.groups[0].segments) == 4


LORA = LoraConfig(target_modules=["q_proj", "k_proj"], r=2, lora_dropout=0.0)


class Tokens(TrainerCallback):
    """Counts what the model forwards in an optimizer step while it is trained, without and with gradient."""

    def on_train_begin(self, args, state, control, model, **kwargs):
        self.steps = []

        def count(module, args, kwargs):
            if "fused_lm_head" in kwargs:  # nothing else of a step does, generation neither
                self.steps[-1][torch.is_grad_enabled()] += kwargs["input_ids"].numel()

        self.handle = model.register_forward_pre_hook(count, with_kwargs=True)

    def on_step_begin(self, args, state, control, **kwargs):
        self.steps.append([0, 0])

    def on_train_end(self, args, state, control, **kwargs):
        self.handle.remove()


@pytest.mark.parametrize(
    "num_prompts, settings",
    [
        (1, {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 8}),
        (1, {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 8, "peft_config": LORA}),
        (1, {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4, "prefix_chunk_size": 5}),
        (2, {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 8}),
        (2, {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 8, "prefix_offload": True}),
    ],
)
def test_tokens_of_a_step(num_prompts, settings, tmp_path, tiny_model):
    """A prompt once in scoring, once with gradient, and for more than one prompt a rank once more in between."""
    counting = Tokens()
    trainer = make_trainer(tmp_path, tiny_model, Noting, callbacks=[counting], num_generations=8, **settings)
    trainer.train()
    assert len(counting.steps) == 3
    for (scored, trained), micro_batches in zip(counting.steps, trainer.steps.values(), strict=True):
        rows = [(tuple(prompt), tuple(completion)) for batch in micro_batches for prompt, completion in batch]
        prompts = [[token for token in prompt if token != 0] for prompt in dict.fromkeys(p for p, _ in rows)]
        assert len(rows) == 8 * num_prompts and len(prompts) == num_prompts
        once = sum(len(prompt) - 1 for prompt in prompts)
        segments = sum(1 + trainer.lengths[row] for row in rows)
        kept_anew = num_prompts > 1 and not settings.get("prefix_offload")
        assert (scored, trained) == (once * (1 + kept_anew) + segments, once + segments)


class StopsOnce(TrainerCallback):
    def on_substep_end(self, args, state, control, **kwargs):
        if not getattr(self, "stopped", False):
            self.stopped = True
            raise KeyboardInterrupt


def test_rows_stay_where_steps_begin_elsewhere_in_a_generation(tmp_path, tiny_model):
    """A stop after its first micro-batch: from there on, a step has rows of two generations."""
    settings = {"gradient_accumulation_steps": 2, "num_generations": 2, "learning_rate": 0.0}
    steps = {}
    for mode in ("off", "on"):
        trainer = make_trainer(
            tmp_path / mode, tiny_model, Noting, shared_prefix=mode, callbacks=[StopsOnce()], **settings
        )
        with pytest.raises(KeyboardInterrupt):
            trainer.train()
        trainer.train()
        steps[mode] = sorted(sum(trainer.steps[1], []))
    assert steps["on"] == steps["off"]


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


def test_switched_off_nothing_changes(tmp_path, tiny_model, packed):
    """To the bit."""
    settings = {"num_generations": 2, "per_device_train_batch_size": 1, "gradient_accumulation_steps": 2}
    stock = make_trainer(
        tmp_path / "stock", tiny_model, GRPOTrainer, config_class=GRPOConfig, epsilon_high=0.28, **settings
    )
    stock.train()
    ours = make_trainer(tmp_path / "ours", tiny_model, strategy="dense", shared_prefix="off", **settings)
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
