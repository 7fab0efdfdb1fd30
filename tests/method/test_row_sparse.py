"""Row-sparse gradients against dense ones masked by hand: the same numbers for less work."""

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils.flop_counter import FlopCounterMode

from helpers.gradients import CHECKPOINTING, MASKED_PARAMETERS, accumulate, lora, mask_by_hand, random_masks
from helpers.models import make_decoder
from helpers.trainers import make_trainer
from helpers.weights import assert_no_hooks, weights_of
from longact_trl.method.gradients import GradientMasker
from longact_trl.method.magnitude import MagnitudeObserver
from longact_trl.method.projections import Projection, find_projections
from longact_trl.method.row_sparse import MEASURED, is_worthwhile


MIN_TOKENS = MEASURED["cpu"][0]
# Sums over tokens in another order: what is left of the norm of a gradient. Two bits of bfloat16's eight.
TOLERANCE = {torch.float32: 1e-6, torch.bfloat16: 2**-6}


def assert_equal_up_to_order(grad: torch.Tensor, expected: torch.Tensor, name: str = "", dtype=torch.float32) -> None:
    assert torch.equal(grad.any(-1), expected.any(-1)), name  # the same rows are exactly zero
    error = (grad.double() - expected.double()).norm() / expected.double().norm()
    assert error <= TOLERANCE[dtype], (name, error)


def attach(model: nn.Module, row_sparse: str = "on") -> tuple[GradientMasker, dict[str, torch.Tensor]]:
    masker = GradientMasker(find_projections(model), row_sparse)
    masks = random_masks(masker.projections)
    masker.set_masks(masks)
    masker.attach()
    return masker, masks


def make_linear(row_sparse: str = "on", bias: bool = True) -> tuple[nn.Linear, GradientMasker, torch.Tensor]:
    """A projection of 8 heads of 16 channels with its masker and its mask."""
    torch.manual_seed(0)
    linear = nn.Linear(24, 128, bias=bias)
    masker = GradientMasker([Projection("q", "q", linear, 8, 16)], row_sparse)
    mask = random_masks(masker.projections)["q"]
    masker.set_masks({"q": mask})
    masker.attach()
    return linear, masker, mask


def is_row_sparse(output: torch.Tensor) -> bool:
    return "RowSparse" in output.grad_fn.name()


# The same numbers


@pytest.mark.parametrize("checkpointing", CHECKPOINTING, ids=["no_checkpointing", "non_reentrant", "reentrant"])
@pytest.mark.parametrize("kind", ["qwen3", "qwen2", "phi3"])
def test_equals_a_dense_backward_masked_by_hand(kind, checkpointing):
    """Two accumulated micro-batches. All other gradients keep their bits, so dX and the forward pass do."""
    model, dense = make_decoder(kind), make_decoder(kind)
    masker, masks = attach(model)
    grads = accumulate(model, checkpointing)
    expected = mask_by_hand(dense, accumulate(dense, checkpointing), masks, MASKED_PARAMETERS[kind])
    for name, grad in grads.items():
        if any(projection in name for projection in ("q_proj", "k_proj", "qkv_proj")):
            assert_equal_up_to_order(grad, expected[name], name)
        else:
            assert torch.equal(grad, expected[name]), name
    assert masker.pop_squared_norms().isnan().all()  # so it was row-sparse


@pytest.mark.parametrize("autocast", [False, True])
def test_bfloat16(autocast):
    def grads_of(model):
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            return accumulate(model, num_batches=1)

    model, dense = make_decoder("qwen2"), make_decoder("qwen2")
    if not autocast:
        model, dense = model.bfloat16(), dense.bfloat16()
    _, masks = attach(model)
    grads, expected = grads_of(model), mask_by_hand(dense, grads_of(dense), masks, MASKED_PARAMETERS["qwen2"])
    for name, grad in grads.items():
        assert grad.dtype == expected[name].dtype
        if "q_proj" in name or "k_proj" in name:
            assert_equal_up_to_order(grad, expected[name], name, torch.bfloat16)
        else:
            assert torch.equal(grad, expected[name]), name


def test_the_forward_pass_keeps_its_bits_and_magnitudes_theirs():
    model, plain = make_decoder("qwen3").train(), make_decoder("qwen3").train()
    attach(model)
    ids = torch.randint(1, 48, (2, 10))
    logits, magnitudes = [], []
    for each in (model, plain):
        observer = MagnitudeObserver(find_projections(each))
        with observer.observe(each):
            logits.append(each(input_ids=ids).logits)
        magnitudes.append(observer.compute())
    assert torch.equal(*logits)
    assert all(torch.equal(magnitudes[0][name], magnitudes[1][name]) for name in magnitudes[1])


def test_a_frozen_bias_and_an_input_without_gradient():
    linear, _, mask = make_linear()
    linear.bias.requires_grad_(False)
    linear(torch.randn(30, 24)).square().sum().backward()
    assert torch.equal(linear.weight.grad.any(1), mask) and linear.bias.grad is None


def test_before_the_first_mask_no_row_is_computed():
    model = make_decoder("phi3")
    masker = GradientMasker(find_projections(model), "on")
    masker.attach()
    accumulate(model)
    v = find_projections(model, ("v",))[0]
    assert v.module.weight.grad[v.rows].any() and not v.module.weight.grad[: v.offset].any()


def test_not_a_number_does_not_get_through():
    linear, _, mask = make_linear()
    output = linear(torch.randn(2, 20, 24))
    output.backward(torch.ones_like(output).masked_fill(~mask, float("nan")))
    for param in linear.parameters():
        assert param.grad.isfinite().all()
        assert torch.equal(param.grad.unsqueeze(-1).any(-1).view(128, -1).any(1), mask)


def test_values_can_be_changed_in_place():
    """As after any linear layer; some attention layers scale their queries so."""
    linear, _, mask = make_linear()
    x = torch.randn(4, 24)
    output = linear(x)
    output *= 2
    output.view(4, 8, 16).mul_(3)
    output.sum().backward()
    torch.testing.assert_close(linear.weight.grad, torch.where(mask[:, None], 6 * x.sum(0), 0))


def test_the_weight_can_be_freed_until_the_backward_pass():
    """As ZeRO-3 does with what it gathered."""
    linear, _, mask = make_linear()
    x = torch.randn(10, 24, requires_grad=True)
    weight = linear.weight.detach().clone()
    output = linear(x)
    storage = StorageWeakRef(linear.weight.untyped_storage())
    linear.weight.data = torch.empty(0)
    assert storage.expired()
    linear.weight.data = weight
    output.sum().backward()
    torch.testing.assert_close(x.grad, weight.sum(0).expand(10, 24))
    torch.testing.assert_close(linear.weight.grad, torch.where(mask[:, None], x.detach().sum(0), 0))


# For less work


def test_counted_operations():
    linear, masker, mask = make_linear(bias=False)

    def count() -> int:
        x = torch.randn(50, 24, requires_grad=True)
        loss = linear(x).square().sum()
        with FlopCounterMode(display=False) as counter:
            loss.backward()
        return counter.get_total_flops()

    whole = 2 * 50 * 128 * 24
    assert count() == whole + 2 * 50 * mask.sum() * 24
    masker.detach()
    assert count() == 2 * whole


def test_auto_follows_the_measured_rule():
    linear, masker, mask = make_linear("auto")
    assert mask.float().mean() < 0.5
    assert is_row_sparse(linear(torch.randn(MIN_TOKENS, 24)))
    assert is_row_sparse(linear(torch.randn(2, MIN_TOKENS // 2, 24)))
    assert not is_row_sparse(linear(torch.randn(MIN_TOKENS - 1, 24)))
    masker.set_masks({"q": torch.ones(128, dtype=torch.bool)})
    assert not is_row_sparse(linear(torch.randn(MIN_TOKENS, 24)))
    assert not is_worthwhile("auto", "a device that was not measured", 10**6, 0.1)
    assert is_worthwhile("on", "cpu", 1, 1.0) and not is_worthwhile("off", "cpu", 10**6, 0.1)


@pytest.mark.parametrize("tokens", [(MIN_TOKENS, 10), (10, MIN_TOKENS)])
def test_row_sparse_and_dense_in_one_backward_pass(tokens):
    linear, _, mask = make_linear("auto")
    inputs = [torch.randn(n, 24) for n in tokens]
    outputs = [linear(x) for x in inputs]
    assert is_row_sparse(outputs[0]) != is_row_sparse(outputs[1])
    sum(output.sum() for output in outputs).backward()
    expected = torch.where(mask[:, None], sum(x.sum(0) for x in inputs), 0)
    assert_equal_up_to_order(linear.weight.grad, expected)


def test_a_mask_set_between_forward_and_backward_lets_no_old_row_through():
    linear, masker, mask = make_linear()
    output = linear(torch.randn(10, 24))
    other = random_masks(masker.projections, seed=1)["q"]
    masker.set_masks({"q": other})
    output.sum().backward()
    assert torch.equal(linear.weight.grad.any(1), mask & other)


# Where it is and where it is not


def test_lora_and_other_kinds_of_linear_layer_are_left_as_they_are():
    model, masked = lora(), lora()
    attach(model)
    attach(masked, "off")
    grads, expected = accumulate(model), accumulate(masked)
    assert all(torch.equal(grads[name], expected[name]) for name in expected)

    class Quantised(nn.Linear):
        pass

    linear = Quantised(24, 128)
    masker = GradientMasker([Projection("q", "q", linear, 8, 16)], "on")
    masker.attach()
    assert not is_row_sparse(linear(torch.randn(10, 24)))


def test_nothing_is_left_after_detaching():
    model, dense = make_decoder("qwen3"), make_decoder("qwen3")
    masker, _ = attach(model)
    accumulate(model)
    masker.detach()
    assert_no_hooks(model)
    model.zero_grad()
    grads, expected = accumulate(model), accumulate(dense)
    assert all(torch.equal(grads[name], expected[name]) for name in expected)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_copy_of_the_model_learns_in_all_rows(copied):
    linear, masker, mask = make_linear()
    other = copied(linear)
    for each in (other, linear):
        each(torch.randn(10, 24)).sum().backward()
    assert other.weight.grad.any(1).all()
    assert torch.equal(linear.weight.grad.any(1), mask)


def test_norms_of_rows_that_were_never_computed_are_not_known():
    linear, masker, _ = make_linear("auto")
    for num_tokens, known in ((10, True), (MIN_TOKENS, False), (10, True)):
        linear(torch.randn(num_tokens, 24)).sum().backward()
        assert masker.pop_squared_norms().isnan().any() != known


@pytest.mark.parametrize("update_rule", ["masked_gradient", "frozen_rows"])
def test_a_run_ends_where_it_would_with_dense_gradients(tmp_path, update_rule):
    settings = {"optim": "sgd", "gradient_accumulation_steps": 2, "num_generations": 2, "update_rule": update_rule}
    runs = {}
    for choice in ("on", "off"):
        runs[choice] = make_trainer(tmp_path, row_sparse_gradients=choice, **settings)
        runs[choice].train()
        assert_no_hooks(runs[choice].model)
    expected = weights_of(runs["off"].model)
    for name, weight in weights_of(runs["on"].model).items():
        torch.testing.assert_close(weight, expected[name], rtol=1e-5, atol=1e-7)
    logs = {choice: trainer.state.log_history[-2] for choice, trainer in runs.items()}
    assert set(logs["off"]) - set(logs["on"]) == {"longact/grad_norm_selected_share"}
