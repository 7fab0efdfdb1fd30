import copy

import pytest
import torch
from transformers import TrainerCallback

from helpers.gradients import CHECKPOINTING, MASKED_PARAMETERS, accumulate, lora, mask_by_hand, random_masks
from helpers.models import make_decoder, make_model
from helpers.trainers import make_trainer
from helpers.weights import assert_no_hooks
from longact_trl.method.gradients import GradientMasker, row_parameters, zero_rows
from longact_trl.method.projections import find_projections


MODELS = {
    "qwen3": lambda: make_decoder("qwen3"),
    "qwen2": lambda: make_decoder("qwen2"),
    "phi3": lambda: make_decoder("phi3"),
    "lora": lora,
    "lora_bias": lambda: lora("qwen2", lora_bias=True),
    "dora": lambda: lora(use_dora=True),
    "lora_and_bias": lambda: lora("qwen2", bias="all"),
}


@pytest.mark.parametrize("checkpointing", CHECKPOINTING, ids=["no_checkpointing", "non_reentrant", "reentrant"])
@pytest.mark.parametrize("kind", MODELS)
def test_equals_a_dense_backward_masked_by_hand(kind, checkpointing):
    masked, dense = MODELS[kind](), MODELS[kind]()
    projections = find_projections(masked)
    masks = random_masks(projections)
    masker = GradientMasker(projections)
    masker.attach()
    masker.set_masks(masks)
    grads = accumulate(masked, checkpointing)
    dense_grads = accumulate(dense, checkpointing)
    before = {name: grad.clone() for name, grad in dense_grads.items()}
    expected = mask_by_hand(dense, dense_grads, masks, MASKED_PARAMETERS[kind])
    assert grads.keys() == expected.keys()
    for name, grad in grads.items():
        assert torch.equal(grad, expected[name]), name
    changed = {name for name in grads if not torch.equal(grads[name], before[name])}
    assert len(changed) == len(MASKED_PARAMETERS[kind]) * len({p.module for p in projections})
    masker.detach()
    assert_no_hooks(masked)


@pytest.mark.parametrize("kind", MODELS)
def test_before_the_first_mask_no_row_is_selected(kind):
    model, dense = MODELS[kind](), MODELS[kind]()
    projections = find_projections(model)
    masker = GradientMasker(projections)
    masker.attach()
    grads = accumulate(model)
    nothing = {p.name: torch.zeros(p.num_heads * p.head_dim, dtype=torch.bool) for p in projections}
    expected = mask_by_hand(dense, accumulate(dense), nothing, MASKED_PARAMETERS[kind])
    for name, grad in grads.items():
        assert torch.equal(grad, expected[name]), name
    if kind == "phi3":
        v = find_projections(model, ("v",))[0]
        assert v.module.weight.grad[v.rows].any() and not v.module.weight.grad[: v.offset].any()


def test_not_a_number_does_not_get_through():
    model = make_decoder("qwen2")
    projections = find_projections(model)
    masks = random_masks(projections)

    def poison(rows):
        return lambda grad: grad.masked_fill(rows.view(-1, *[1] * (grad.dim() - 1)), float("nan"))

    handles = [param.register_hook(poison(~masks[p.name])) for p in projections for param in row_parameters(p.module)]
    masker = GradientMasker(projections)
    masker.attach()
    masker.set_masks(masks)
    accumulate(model)
    for p in projections:
        for param in row_parameters(p.module):
            assert param.grad.isfinite().all()
            assert not param.grad[~masks[p.name]].any()
            assert param.grad[masks[p.name]].any()
    for handle in handles:
        handle.remove()


def test_set_masks_returns_the_rows_that_left():
    model = make_decoder("phi3")
    projections = find_projections(model)
    masker = GradientMasker(projections)
    first, second = random_masks(projections, 1), random_masks(projections, 2)
    left = masker.set_masks(first)
    assert set(left) == {p.module.weight for p in projections}
    assert not any(rows.any() for rows in left.values())  # nothing was selected, so nothing left
    left = masker.set_masks(second)
    for p in projections:
        assert torch.equal(left[p.module.weight][p.rows], first[p.name] & ~second[p.name])
    v = find_projections(model, ("v",))[0]
    assert not left[v.module.weight][v.rows].any()
    assert not any(rows.any() for rows in masker.set_masks(second).values())


def test_masks_given_before_and_after_attaching_both_hold():
    model = make_decoder("qwen3")
    projections = find_projections(model)
    masker = GradientMasker(projections)
    for seed, attach in ((1, True), (2, False)):
        masks = random_masks(projections, seed)
        masker.set_masks(masks)
        if attach:
            masker.attach()
        model.zero_grad()
        accumulate(model, num_batches=1)
        for p in projections:
            assert torch.equal(p.module.weight.grad.any(1), masks[p.name])
    masker.detach()
    assert all(not p._backward_hooks for p in model.parameters())
    model.zero_grad()
    accumulate(model, num_batches=1)
    assert all(p.module.weight.grad.any(1).all() for p in projections)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_squared_norms_of_selected_and_all_rows(dtype):
    model, dense = make_decoder("qwen2").to(dtype), make_decoder("qwen2").to(dtype)
    projections = find_projections(model)
    masks = random_masks(projections)
    masker = GradientMasker(projections)
    masker.attach()
    masker.set_masks(masks)
    assert masker.pop_squared_norms().tolist() == [0, 0]
    accumulate(model, num_batches=1)
    accumulate(dense, num_batches=1)
    expected = torch.zeros(2, dtype=torch.float64)
    for p in find_projections(dense):
        for param in row_parameters(p.module):
            expected[0] += param.grad[masks[p.name]].double().square().sum()
            expected[1] += param.grad.double().square().sum()
    torch.testing.assert_close(masker.pop_squared_norms().double(), expected, rtol=1e-5, atol=0)
    assert masker.pop_squared_norms().tolist() == [0, 0]


def test_frozen_projections_raise():
    model = make_decoder("qwen3")
    model.model.layers[1].self_attn.k_proj.requires_grad_(False)
    with pytest.raises(ValueError, match="layers.1.self_attn.k_proj has no trainable parameter.*peft_config"):
        GradientMasker(find_projections(model))


def test_lora_a_belongs_to_no_row():
    model = lora(use_dora=True)
    for p in find_projections(model):
        parameters = row_parameters(p.module)
        assert all(len(param) == p.module.out_features for param in parameters)
        assert not any(param is p.module.lora_A["default"].weight for param in parameters)


def test_a_copy_of_the_model_has_no_hooks():
    model = make_decoder("qwen3")
    masker = GradientMasker(find_projections(model))
    masker.attach()
    assert_no_hooks(copy.deepcopy(model))
    masker.detach()


def test_zero_rows():
    rows = torch.tensor([True, False, True])
    for shape in ((3,), (3, 4), (3, 2, 2)):
        tensor = torch.ones(shape)
        zero_rows(tensor, rows)
        assert tensor.flatten(1 if len(shape) > 1 else 0).any() and not tensor[rows].any() and tensor[1].all()


class GradientRecorder(TrainerCallback):
    """Gradients as the optimizer gets them: masked and clipped."""

    def __init__(self):
        self.norms = []
        self.model = None

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        self.model = model
        grads = [p.grad for p in model.parameters() if p.grad is not None]
        self.norms.append(torch.stack([g.double().square().sum() for g in grads]).sum().sqrt().item())
        self.selected = {p.name: p.module.weight.grad.any(1) for p in find_projections(model)}


@pytest.mark.parametrize("accumulation", [1, 2])
def test_the_clip_norm_sees_masked_gradients(tmp_path, accumulation):
    settings = {"gradient_accumulation_steps": accumulation, "max_steps": 2}
    recorder = GradientRecorder()
    trainer = make_trainer(tmp_path, callbacks=[recorder], max_grad_norm=1e9, **settings)
    trainer.train()
    logged = [log["grad_norm"] for log in trainer.state.log_history if "grad_norm" in log]
    assert logged == pytest.approx(recorder.norms, rel=1e-6)
    shares = [rows.float().mean().item() for rows in recorder.selected.values()]
    assert all(share <= 9 / 32 for share in shares)
    clipped = GradientRecorder()
    make_trainer(tmp_path, make_model(), callbacks=[clipped], max_grad_norm=0.5, **settings).train()
    assert clipped.norms == pytest.approx([0.5, 0.5], rel=1e-5)
