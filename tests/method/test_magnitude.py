import copy

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from helpers.allocations import Allocations
from helpers.models import make_decoder, make_model
from helpers.trainers import make_prompts, make_trainer
from helpers.weights import assert_no_hooks
from longact_trl import LongActTrainer, MaskRefreshCallback, measure_magnitudes
from longact_trl.method.magnitude import CHUNK_TOKENS, MagnitudeObserver, _as_wide
from longact_trl.method.projections import Projection, find_projections


def make_batch(padding: str, length: int = 12, num_sequences: int = 4) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    mask = torch.ones(num_sequences, length, dtype=torch.long)
    for i in range(num_sequences):
        if padding == "left":
            mask[i, : 2 * i] = 0
        elif padding == "right":
            mask[i, length - 2 * i :] = 0
        elif padding == "holes":
            mask[i, i : 3 * i] = 0
            mask[i, -1] = i % 2
    return {"input_ids": torch.randint(1, 48, mask.shape, generator=generator), "attention_mask": mask}


def brute_force(model, batch) -> dict[str, torch.Tensor]:
    """Eq. 2 in float64, with hooks of its own."""
    outputs, handles = {}, []
    projections = find_projections(model, ("q", "k", "v"))
    for p in projections:
        handles.append(
            p.module.register_forward_hook(
                lambda module, args, output, p=p: outputs.__setitem__(p.name, output.detach()[..., p.rows].double())
            )
        )
    model(**batch)
    for handle in handles:
        handle.remove()
    mask = batch["attention_mask"].bool().unsqueeze(-1)
    return {
        p.name: outputs[p.name].masked_fill(~mask, 0).square().sum(1).sqrt().mean(0).view(p.num_heads, p.head_dim)
        for p in projections
    }


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("padding", ["none", "left", "right", "holes"])
@pytest.mark.parametrize("model_type", ["qwen3", "phi3"])
def test_against_a_brute_force_sum(model_type, padding, dtype):
    model, batch = make_decoder(model_type).to(dtype), make_batch(padding)
    measured, expected = measure_magnitudes(model, batch, ("q", "k", "v")), brute_force(model, batch)
    assert list(measured) == list(expected)
    for name, magnitude in measured.items():
        assert magnitude.dtype == torch.float32 and magnitude.device.type == "cpu"
        torch.testing.assert_close(magnitude.double(), expected[name], rtol=1e-6, atol=0)
    assert_no_hooks(model)


def test_no_mask_means_no_padding():
    model, batch = make_decoder("qwen3"), make_batch("none")
    with_mask = measure_magnitudes(model, batch)
    for name, magnitude in measure_magnitudes(model, {"input_ids": batch["input_ids"]}).items():
        assert torch.equal(magnitude, with_mask[name])


@pytest.mark.parametrize("padding", ["none", "left"])
def test_sequences_longer_than_a_chunk(padding):
    model, batch = make_decoder("qwen3"), make_batch(padding, length=2 * CHUNK_TOKENS + 77, num_sequences=2)
    expected = brute_force(model, batch)
    for name, magnitude in measure_magnitudes(model, batch).items():
        torch.testing.assert_close(magnitude.double(), expected[name], rtol=2e-6, atol=0)


def make_exact_model():
    """One layer whose Q and K copy channels of their input: no rounding of a matrix kernel depends on the batch."""
    model = make_decoder("qwen3", num_hidden_layers=1)
    with torch.no_grad():
        for p in find_projections(model):
            p.module.weight.copy_(torch.eye(48).repeat(2, 1)[: p.module.out_features])
    return model


def observe(model, batches) -> dict[str, torch.Tensor]:
    observer = MagnitudeObserver(find_projections(model))
    for batch in batches:
        with torch.no_grad(), observer.observe(model):
            model(**batch)
    return observer.compute()


def pick(batch, index) -> dict[str, torch.Tensor]:
    return {name: tensor[index] for name, tensor in batch.items()}


def test_neither_order_nor_micro_batches_show():
    model, batch = make_exact_model(), make_batch("left", num_sequences=6)
    expected = measure_magnitudes(model, batch)
    splits = [[[0, 1, 2], [3, 4, 5]], [[0], [1], [2], [3], [4], [5]], [[0, 1, 2, 3, 4], [5]], [[5, 2, 0], [4], [3, 1]]]
    for split in splits:
        measured = observe(model, [pick(batch, index) for index in split])
        for name in expected:
            assert torch.equal(measured[name], expected[name]), split


def test_a_reset_forgets():
    model, batch = make_decoder("qwen3"), make_batch("left")
    observer = MagnitudeObserver(find_projections(model))
    with torch.no_grad(), observer.observe(model):
        model(**make_batch("none"))
    observer.reset()
    with pytest.raises(ValueError, match="No sequence was observed"):
        observer.compute()
    with torch.no_grad(), observer.observe(model):
        model(**batch)
    expected = measure_magnitudes(model, batch)
    assert all(torch.equal(m, expected[name]) for name, m in observer.compute().items())


@pytest.mark.parametrize("backward_inside", [False, True], ids=["after", "inside"])
@pytest.mark.parametrize("use_reentrant", [False, True], ids=["non_reentrant", "reentrant"])
def test_recomputation_counts_once(use_reentrant, backward_inside):
    model, batch = make_decoder("qwen3").train(), make_batch("left")
    expected = measure_magnitudes(model, batch)
    model.gradient_checkpointing_enable({"use_reentrant": use_reentrant})
    observer = MagnitudeObserver(find_projections(model))
    with observer.observe(model):
        loss = model(**batch, labels=batch["input_ids"]).loss
        if backward_inside:
            loss.backward()
    if not backward_inside:
        loss.backward()
    assert model.model.layers[0].self_attn.q_proj.weight.grad.any()
    assert observer.num_sequences == 4
    for name, magnitude in observer.compute().items():
        assert torch.equal(magnitude, expected[name]), name


def test_hooks_go_when_a_forward_fails():
    model = make_decoder("qwen3")
    observer = MagnitudeObserver(find_projections(model))
    with pytest.raises(IndexError), observer.observe(model):
        model(input_ids=torch.tensor([[1, 2, 1000]]))
    assert_no_hooks(model)


def test_projections_that_never_ran_raise():
    """A copy of a model whose `forward` was patched, as TRL does, still runs the original's projections."""
    model, batch = make_decoder("qwen3"), make_batch("none")
    forward = model.forward
    model.forward = lambda **kwargs: forward(**kwargs)
    with pytest.raises(ValueError, match="layers.0.self_attn.q_proj never ran"):
        measure_magnitudes(copy.deepcopy(model), batch)


def test_a_sequence_of_padding_alone_raises():
    model, batch = make_decoder("qwen3"), make_batch("none")
    batch["attention_mask"][2] = 0
    with pytest.raises(ValueError, match="all padding"):
        measure_magnitudes(model, batch)
    assert_no_hooks(model)


def test_activations_are_neither_kept_nor_copied():
    model = make_decoder("qwen3", num_hidden_layers=1).bfloat16()
    length = 8 * CHUNK_TOKENS
    batch = make_batch("left", length=length, num_sequences=1)
    observer = MagnitudeObserver(find_projections(model))
    with torch.no_grad(), Allocations() as plain:
        model(**batch, logits_to_keep=1)
    with torch.no_grad(), Allocations() as observed, observer.observe(model):
        model(**batch, logits_to_keep=1)
    channels = 6 * 16
    extra = observed.made - plain.made
    assert extra  # the counter sees the observer at all
    assert max(numel for numel, _ in extra) == CHUNK_TOKENS * channels
    assert max(t.numel() for t in observer._sums.values()) == channels


# What a training run observes


class CountingRefresh(MaskRefreshCallback):
    def refresh(self) -> None:
        self.seen.append(self.observer.num_sequences)
        super().refresh()
        self.measured.append(self.magnitudes)


class CountingTrainer(LongActTrainer):
    """Notes how many sequences stand behind each refresh, and what went through the policy without gradient."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.remove_callback(self.mask_refresh)
        self.mask_refresh = CountingRefresh(self.args, self.model, self._metrics["train"])
        self.mask_refresh.seen, self.mask_refresh.measured = [], []
        self.add_callback(self.mask_refresh)
        self.scored = []

    def _get_per_token_logps_and_entropies(self, model, input_ids, attention_mask, *args, **kwargs):
        if self.model.training and not torch.is_grad_enabled():
            self.scored.append({"input_ids": input_ids, "attention_mask": attention_mask})
        return super()._get_per_token_logps_and_entropies(model, input_ids, attention_mask, *args, **kwargs)


@pytest.mark.parametrize("saliency_source", ["current_batch", "previous_step"])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"beta": 0.1},
        {"eval_strategy": "steps", "eval_steps": 1, "eval_on_start": True, "per_device_eval_batch_size": 4},
        {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": False}},
        {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": True}},
    ],
    ids=["plain", "reference", "evaluation", "checkpointing", "reentrant"],
)
def test_only_the_policy_on_training_sequences_is_observed(tmp_path, settings, saliency_source, tiny_model):
    kwargs = {"max_steps": 2, "gradient_accumulation_steps": 2, "saliency_source": saliency_source, **settings}
    eval_dataset = make_prompts().select(range(2))
    trainer = make_trainer(tmp_path, tiny_model, CountingTrainer, eval_dataset=eval_dataset, **kwargs)
    trainer.train()
    assert trainer.mask_refresh.seen == [8, 8]
    assert_no_hooks(trainer.model)


@pytest.mark.parametrize("settings", [{}, {"steps_per_generation": 2}], ids=["plain", "steps_per_generation"])
@pytest.mark.parametrize("start_from", ["base", "adapter"])
def test_the_adapter_switched_off_is_not_observed(tmp_path, start_from, settings):
    model, config = make_model(), LoraConfig(target_modules=["q_proj", "k_proj"], r=2, init_lora_weights=False)
    kwargs = {"beta": 0.1, "max_steps": 1, **settings}
    if start_from == "base":
        trainer = make_trainer(tmp_path, model, CountingTrainer, peft_config=config, **kwargs)
    else:  # TRL then keeps a frozen copy of the adapter as reference
        trainer = make_trainer(tmp_path, get_peft_model(model, config), CountingTrainer, **kwargs)
    if start_from == "adapter":  # let the policy differ from its copy
        for p in find_projections(trainer.model):
            p.module.lora_B["default"].weight.data.mul_(3)
    before = {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}
    trainer.train()
    trainer.model.load_state_dict(before)
    assert trainer.mask_refresh.seen[0] == 4 * settings.get("steps_per_generation", 1)
    expected = measure_magnitudes(trainer.model, trainer.scored[0])
    for name, magnitude in trainer.mask_refresh.measured[0].items():
        torch.testing.assert_close(magnitude, expected[name], rtol=1e-5, atol=0)


def test_measuring_by_hand_gives_what_training_used(tmp_path):
    settings = {"num_generations": 2, "max_steps": 1, "shared_prefix": "off"}
    trainer = make_trainer(tmp_path, trainer_class=CountingTrainer, **settings)
    trainer.train()
    [batch] = trainer.scored
    assert (batch["attention_mask"][:, 0] == 0).any()  # prompts of two lengths
    measured = measure_magnitudes(make_model(), batch)
    assert measured.keys() == trainer.mask_refresh.magnitudes.keys()
    for name, magnitude in trainer.mask_refresh.magnitudes.items():
        assert torch.equal(magnitude, measured[name]), name


class LastTokens(nn.Module):
    """As layers of Gemma 4 that read other layers' K and V: newer transformers run them on the last tokens only."""

    def __init__(self):
        super().__init__()
        self.embed, self.q_proj = nn.Embedding(16, 8), nn.Linear(8, 8, bias=False)

    def forward(self, input_ids, attention_mask):
        return self.q_proj(self.embed(input_ids)[:, -3:])


def test_tokens_that_a_layer_skips_count_nothing():
    model = LastTokens()
    ids, mask = torch.arange(10).view(2, 5), torch.tensor([[0, 1, 1, 1, 1], [0, 0, 0, 1, 1]])
    observer = MagnitudeObserver([Projection("q_proj", "q", model.q_proj, 2, 4)])
    with observer.observe(model), torch.no_grad():
        output = model(input_ids=ids, attention_mask=mask)
    expected = (output[0].norm(dim=0) + output[1, 1:].norm(dim=0)) / 2
    torch.testing.assert_close(observer.compute()["q_proj"].flatten(), expected)


def test_outputs_of_another_shape_stay_as_they_are():
    output = torch.randn(2, 3, 8)
    assert _as_wide(output, 3) is output
    heads = output[:, None]  # as DeepSeek's, (B, 1, S, C)
    assert _as_wide(heads, 3) is heads
