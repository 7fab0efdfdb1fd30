"""One forward of a prompt for its completions, against TRL's plain path on the same rows."""

from functools import partial

import pytest
import torch
from conftest import (
    assert_no_hooks,
    make_args,
    make_decoder,
    make_model,
    make_prompts,
    make_trainer,
    spread_reward,
    weights_of,
)
from peft import LoraConfig, get_peft_model
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import (
    Gemma2Config,
    Gemma3Config,
    GptOssConfig,
    LlamaConfig,
    MambaConfig,
    MistralConfig,
    Qwen3Config,
    Qwen3MoeConfig,
    TrainerCallback,
)
from trl import GRPOConfig, GRPOTrainer
from trl.trainer.utils import add_fused_lm_head

from longact_trl import LongActConfig, LongActTrainer, shared_prefix
from longact_trl.magnitude import MagnitudeObserver
from longact_trl.packing import Group, PackedLayout, plan, regroup
from longact_trl.prefix_attention import SUFFIX, _attend, _attend_backward, packed_attention
from longact_trl.projections import find_projections
from longact_trl.shared_prefix import exchange_window, forward_once, packed_attention_in, shares_prefixes


RTOL = 1e-5
"""Of a parameter's gradient, in its norm: float32 on either path."""

Rows = list[tuple[int, int]]
"""Which prompt each row has, and how many completion tokens."""

SHAPES = {
    "one_group": ([12], [(0, 7)] * 4),
    "ragged": ([12], [(0, 7), (0, 1), (0, 4), (0, 6)]),
    "two_groups": ([12, 5], [(0, 3), (0, 7), (1, 7), (1, 2)]),
    "mixed_up": ([9, 12, 4], [(2, 5), (0, 7), (1, 1), (0, 6), (2, 7), (0, 3)]),
    "one_alone": ([6, 12], [(0, 7), (1, 5), (1, 6)]),
    "all_masked": ([12, 7], [(0, 0), (0, 7), (1, 0), (1, 0)]),
    "one_token_prompt": ([1, 3], [(0, 4), (0, 7), (1, 2), (1, 1)]),
}


def make_batch(prompts: list[int], rows: Rows, vocab_size: int = 48) -> tuple[dict[str, torch.Tensor], int]:
    """Random prompts of these lengths, padded on the left, and completions, padded on the right."""
    generator = torch.Generator().manual_seed(0)
    P, C = max(prompts), max(length for _, length in rows)
    texts = [torch.randint(3, vocab_size, (length,), generator=generator) for length in prompts]
    ids, mask = torch.zeros(2, len(rows), P + C, dtype=torch.long)
    for row, (prompt, length) in enumerate(rows):
        start = P - prompts[prompt]
        ids[row, start:P] = texts[prompt]
        ids[row, P : P + length] = torch.randint(3, vocab_size, (length,), generator=generator)
        mask[row, start : P + length] = 1
    labels = ids.masked_fill(mask == 0, -100)
    labels[:, :P] = -100
    return {"input_ids": ids, "attention_mask": mask, "labels": labels, "fused_lm_head": True}, P


def with_head(model):
    add_fused_lm_head(model, temperature=0.8, outputs=("log_probs", "entropy"))
    return model.train()


def run(forward, model, batch) -> dict[str, torch.Tensor]:
    """Log-probs, entropies, and the gradient of every parameter from a random weighting of both."""
    model.zero_grad()
    output = forward(**batch)
    weights = torch.randn(2, *output.log_probs.shape, generator=torch.Generator().manual_seed(1))
    (output.log_probs * weights[0] + output.entropy * weights[1]).sum().backward()
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return {"log_probs": output.log_probs.detach(), "entropy": output.entropy.detach(), **found}


def compare(model, batch, prompt_length: int, rtol: float = RTOL) -> None:
    expected = run(model, model, batch)
    with packed_attention_in(model):
        found = run(partial(forward_once, model, prompt_length), model, batch)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert (found[name] - value).norm() <= rtol * value.norm(), name


@pytest.fixture(autouse=True)
def packed(monkeypatch) -> list[PackedLayout]:
    """Every layout that was planned: a test that compares the plain path with itself would be of no use."""
    layouts = []

    def noting(*args):
        layouts.append(plan(*args))
        return layouts[-1]

    monkeypatch.setattr(shared_prefix, "plan", noting)
    return layouts


MODELS = {
    "qwen3": {},  # q_norm, 6 query heads on 2 key heads
    "llama": {},
    "qwen2": {"num_key_value_heads": 6},  # bias, no grouped heads
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("model_type", MODELS)
def test_log_probs_entropies_and_gradients(model_type, shape, packed):
    batch, prompt_length = make_batch(*SHAPES[shape])
    compare(with_head(make_decoder(model_type, **MODELS[model_type])), batch, prompt_length)
    assert len(packed[-1].groups) < len(batch["input_ids"])
    num_tokens, num_rows = batch["attention_mask"].sum(), len(batch["input_ids"])
    repeated = sum(
        (len(group.segments) - 1) * group.prefix.stop for group in packed[-1].groups if group.prefix.start == 0
    )
    assert len(packed[-1].rows) <= num_tokens - repeated + num_rows


def test_a_prompt_longer_than_the_kernels_tiles():
    batch, prompt_length = make_batch([700, 515], [(0, 130), (0, 70), (1, 129), (1, 3)])
    compare(with_head(make_decoder("qwen3", max_position_embeddings=1024)), batch, prompt_length)


@pytest.mark.parametrize("reentrant", [True, False])
def test_gradient_checkpointing(reentrant, packed):
    model = with_head(make_decoder("qwen3"))
    model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    model.enable_input_require_grads()
    compare(model, *make_batch(*SHAPES["mixed_up"]))


def test_lora(packed):
    model = make_decoder("qwen3")
    add_fused_lm_head(model, outputs=("log_probs", "entropy"))
    model = get_peft_model(model, LoraConfig(target_modules=["q_proj", "k_proj", "v_proj"], init_lora_weights=False))
    compare(model.train(), *make_batch(*SHAPES["mixed_up"]))


@pytest.mark.parametrize("autocast", [True, False])
def test_bfloat16(autocast):
    """Both paths round. Ours is at most a quarter further from float32: 1.1 % of a gradient's norm, 1.0 % seen."""
    batch, prompt_length = make_batch(*SHAPES["mixed_up"])
    exact = make_decoder("qwen3")
    truth = run(with_head(exact), exact, batch)
    model = make_decoder("qwen3")
    model = with_head(model if autocast else model.bfloat16())

    def errors(forward) -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            found = run(forward, model, batch)
        return torch.stack([(found[n].float() - v).norm() / v.norm() for n, v in truth.items()])

    plain = errors(model)
    with packed_attention_in(model):
        ours = errors(partial(forward_once, model, prompt_length))
    assert ours.mean() <= 1.25 * plain.mean() and ours.max() <= 0.1


def test_magnitudes_count_a_shared_token_once_for_each_row(packed):
    """Eq. 2 over rows, as without packing; the prompt's last token, repeated in every segment, is one token."""
    model = with_head(make_decoder("qwen3"))
    batch, prompt_length = make_batch(*SHAPES["mixed_up"])
    expected, found = (MagnitudeObserver(find_projections(model, ("q", "k", "v"))) for _ in range(2))
    with torch.no_grad(), expected.observe(model):
        model(**batch)
    with torch.no_grad(), packed_attention_in(model), found.observe(model):
        forward_once(model, prompt_length, **batch)
    assert found.num_sequences == expected.num_sequences == len(batch["input_ids"])
    expected, found = expected.compute(), found.compute()
    for name, magnitude in expected.items():
        torch.testing.assert_close(found[name], magnitude, rtol=1e-5, atol=0)


class LargestTensor(TorchDispatchMode):
    numel = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        output = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(output):
            if isinstance(tensor, torch.Tensor):
                self.numel = max(self.numel, tensor.numel())
        return output


def test_no_tensor_grows_with_the_square_of_the_tokens_or_with_prompts_times_completions():
    sizes = {}
    for length in (256, 512):
        query, key, value = (torch.randn(1, heads, length + 4 * 8, 16, requires_grad=True) for heads in (4, 2, 2))
        segments = tuple(slice(length + 8 * i, length + 8 * (i + 1)) for i in range(4))
        layout = PackedLayout(torch.empty(0), torch.empty(0), (Group(slice(0, length), segments),))
        with LargestTensor() as largest:
            packed_attention(query, key, value, layout).sum().backward()
        assert largest.numel == query.numel()
        sizes[length] = largest.numel
    assert sizes[512] < 2 * sizes[256]


def test_the_kernels_of_a_gpu_take_the_same_calls():
    """Shapes and types only: without a GPU nothing is computed."""
    with torch.no_grad(), FakeTensorMode():
        query, key, value = (
            torch.empty(1, heads, tokens, 16, dtype=torch.bfloat16, device="cuda")
            for heads, tokens in ((4, 5), (2, 9), (2, 9))
        )
        out, lse = _attend(query, key, value, causal=False, scale=0.2)
        assert (out.shape, out.dtype, lse.shape, lse.dtype) == (query.shape, query.dtype, (1, 4, 5), torch.float32)
        grads = _attend_backward(out, query, key, value, out, lse, causal=False, scale=0.2)
        assert [grad.shape for grad in grads] == [query.shape, key.shape, value.shape]


def test_attention_that_does_not_know_the_layout_fails():
    """Rather than letting completions of a prompt see each other."""
    model = with_head(make_decoder("qwen3"))
    batch, prompt_length = make_batch(*SHAPES["one_group"])
    with packed_attention_in(model), pytest.raises(RuntimeError):
        model.config._attn_implementation = "sdpa"
        forward_once(model, prompt_length, **batch)


# In a trainer


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


def test_regrouping_keeps_rows_in_their_window():
    generator = torch.Generator().manual_seed(0)
    numbers = torch.arange(24).remainder(3)[torch.randperm(24, generator=generator)]
    batches = [
        {"prompt_ids": part[:, None] + 5, "prompt_mask": torch.ones(4, 1), "row": rows, "scalar": torch.tensor(7)}
        for part, rows in zip(numbers.split(4), torch.arange(24).split(4), strict=True)
    ]
    for window in (1, 2, 3, 6):
        found = regroup(batches, window)
        assert len(found) == 6 and all(batch["scalar"] == 7 for batch in found)
        for start in range(0, 6, window):
            rows = torch.cat([batch["row"] for batch in found[start : start + window]])
            assert sorted(rows.tolist()) == list(range(4 * start, 4 * (start + window)))
            together = torch.cat([batch["prompt_ids"] for batch in found[start : start + window]]).flatten() - 5
            assert torch.equal(together, numbers[rows])
            assert len(together.unique_consecutive()) == len(together.unique())


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
