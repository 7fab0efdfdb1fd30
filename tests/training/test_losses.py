"""Clip-Cov and KL-Cov against float64 references written from the paper's formulas, token by token, gradients too."""

import math
from unittest.mock import patch

import pytest
import torch
from trl import GRPOTrainer

from helpers.losses import batch, reference_cov, settings, tokens_of
from helpers.trainers import make_trainer
from longact_trl.training.policy_losses import SELECTED, reweight_advantages, select_tokens, top_over_ranks


def select(data, args, generation=0):
    return select_tokens(data["old_per_token_logps"], data["advantages"], data["completion_mask"], args, generation)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("ratio", [1e-6, 0.02, 0.3, 1.0])
def test_kl_cov_selects_the_highest_covariances(seed, ratio):
    data = batch(seed)
    cov = reference_cov(data["old_per_token_logps"], data["advantages"], data["completion_mask"])
    number = max(1, int(len(cov) * ratio))
    selected, metrics = select(data, settings("kl_cov", kl_cov_ratio=ratio))
    assert tokens_of(selected) == set(sorted(cov, key=cov.get, reverse=True)[:number])
    assert metrics == {
        "kl_cov_share": pytest.approx(number / len(cov)),
        "cov_mean": pytest.approx(math.fsum(cov.values()) / len(cov)),
    }


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("bounds", [(0.0, 0.5), (0.2, 0.3), (-1.0, 0.0), (50.0, 60.0)])
def test_clip_cov_selects_within_its_bounds_only(seed, bounds):
    data = batch(seed)
    cov = reference_cov(data["old_per_token_logps"], data["advantages"], data["completion_mask"])
    between = {token for token, value in cov.items() if bounds[0] < value < bounds[1]}
    selected, metrics = select(data, settings("clip_cov", clip_cov_lb=bounds[0], clip_cov_ub=bounds[1]))
    chosen = tokens_of(selected)
    assert chosen <= between
    assert len(chosen) == min(len(between), int(0.1 * len(cov)))
    assert metrics["clip_cov_share"] == pytest.approx(len(chosen) / len(cov))


def test_the_bounds_of_clip_cov_are_open():
    """Advantages ±1 and log-probs 0 and -2 have covariances of exactly ±1."""
    advantages, logps = torch.tensor([1.0, -1.0]), torch.tensor([[0.0, -2.0], [0.0, -2.0]])
    mask = torch.ones(2, 2)
    for lower, upper, count in [(1.0, 5.0, 0), (0.5, 1.0, 0), (0.9, 1.1, 2)]:
        args = settings("clip_cov", clip_cov_ratio=1.0, clip_cov_lb=lower, clip_cov_ub=upper)
        assert select_tokens(logps, advantages, mask, args, 0)[0].sum() == count


def test_clip_cov_draws_evenly_anew_for_each_batch_and_again_for_the_same_seed():
    data = batch()
    args = settings("clip_cov", clip_cov_ratio=0.05)
    counts = sum(select(data, args, number)[0].long() for number in range(400))
    cov = reference_cov(data["old_per_token_logps"], data["advantages"], data["completion_mask"])
    between = [token for token, value in cov.items() if 0 < value < 0.5]
    expected = 400 * int(0.05 * len(cov)) / len(between)
    drawn = torch.tensor([counts[token].item() for token in between]).double()
    assert drawn.mean().item() == pytest.approx(expected)
    assert ((drawn - expected).abs() < 5 * math.sqrt(expected)).all()
    assert torch.equal(select(data, args, 7)[0], select(data, args, 7)[0])
    assert not torch.equal(select(data, args, 7)[0], select(data, args, 8)[0])
    assert not torch.equal(select(data, args)[0], select(data, settings("clip_cov", clip_cov_ratio=0.05, seed=1))[0])


@pytest.mark.parametrize("policy_loss", ["clip_cov", "kl_cov"])
def test_nothing_to_select_from(policy_loss):
    data = batch()
    data["completion_mask"].zero_()
    selected, metrics = select(data, settings(policy_loss))
    assert not selected.any()
    assert metrics == {f"{policy_loss}_share": 0.0, "cov_mean": 0.0}


def test_ties_break_towards_the_lower_index():
    assert top_over_ranks(torch.tensor([1.0, 2.0, 2.0, 2.0, -torch.inf]), 2).tolist() == [0, 1, 1, 0, 0]
    assert top_over_ranks(torch.tensor([1.0, -torch.inf]), 2).tolist() == [1, 0]
    assert top_over_ranks(torch.tensor([]), 3).tolist() == []


def reference_token_losses(data, policy_loss, selected, low, high, coef) -> torch.Tensor:
    """Per-token losses in float64 from the papers' formulas, zero in the padding; `data["logps"]` has the graph."""
    losses = torch.zeros_like(data["logps"])
    for i, t in data["completion_mask"].nonzero().tolist():
        advantage = data["advantages"][i]
        log_ratio = data["logps"][i, t] - data["old_per_token_logps"][i, t]
        ratio = log_ratio.exp()
        first, second = -advantage * ratio, -advantage * ratio.clamp(1 - low, 1 + high)
        if policy_loss == "kl_cov":
            loss = first + coef * log_ratio.abs() if selected[i, t] else first
        else:
            loss = torch.maximum(first, second)
            if policy_loss == "clip_cov" and selected[i, t] and not second > first:
                loss = loss * 0
        losses[i, t] = loss
    return losses


def reference_loss(losses, data, trainer) -> torch.Tensor:
    mask, accumulation = data["completion_mask"], trainer.args.gradient_accumulation_steps
    if trainer.loss_type == "grpo":
        return (losses.sum(1) / mask.sum(1).clamp(min=1)).mean() / accumulation
    if trainer.loss_type == "bnpo":
        return losses.sum() / mask.sum() / accumulation
    if trainer.loss_type == "dr_grpo":
        return losses.sum() / (len(mask) * trainer.max_completion_length) / accumulation
    # DAPO: the tokens of one optimizer step, of which a generation serves steps_per_generation / accumulation
    return losses.sum() / (data["num_items_in_batch"] * accumulation / trainer.args.steps_per_generation)


def loss_of(trainer, data) -> tuple[torch.Tensor, torch.Tensor]:
    """TRL's loss through our hooks, and its gradient in every log-prob, with the forward pass replaced."""
    logps = data["logps"].clone().requires_grad_()
    inputs = {name: value for name, value in data.items() if name != "logps"}
    with patch.object(
        GRPOTrainer,
        "_get_per_token_logps_and_entropies",
        lambda *args, **kwargs: (logps, torch.zeros_like(logps).detach(), None),
    ):
        loss = trainer._compute_loss(trainer.model, inputs)
    assert trainer._loss_inputs == {}
    return loss.detach(), torch.autograd.grad(loss, logps)[0]


@pytest.mark.parametrize("loss_type", ["grpo", "dapo", "bnpo", "dr_grpo"])
@pytest.mark.parametrize("policy_loss", ["vanilla", "clip_cov", "kl_cov"])
@pytest.mark.parametrize("epsilons", [(0.2, 0.28), (0.2, None), (1.0, 1.0)], ids=["higher", "symmetric", "wide"])
def test_losses_and_gradients(tmp_path, loss_type, policy_loss, epsilons):
    """Micro-batches of a generation that serves two optimizer steps of two micro-batches each."""
    ratios = {"clip_cov_ratio": 0.4, "clip_cov_lb": -1.0, "kl_cov_ratio": 0.3, "kl_cov_coef": 0.5}
    trainer = make_trainer(
        tmp_path,
        policy_loss=policy_loss,
        loss_type=loss_type,
        epsilon=epsilons[0],
        epsilon_high=epsilons[1],
        gradient_accumulation_steps=2,
        steps_per_generation=4,
        **ratios,
    )
    trainer.model.train()
    trainer.current_gradient_accumulation_steps = 2
    data = batch(3, rows=8)
    selected = torch.zeros_like(data["completion_mask"], dtype=torch.bool)
    if policy_loss != "vanilla":
        selected, _ = select(data, trainer.args)
        assert selected.sum() > 20
        data[SELECTED] = selected
    # TRL multiplies padding by 0, so what a real pass computes there is finite.
    padding = data["completion_mask"] == 0
    for name in ("logps", "old_per_token_logps"):
        data[name] = data[name].masked_fill(padding, -1.0)
    for start in range(0, 8, 2):
        micro = {k: v[start : start + 2] if v.dim() else v for k, v in data.items()}
        loss, gradient = loss_of(trainer, micro)
        exact = {k: v.double() if v.is_floating_point() else v for k, v in micro.items()}
        exact["logps"].requires_grad_()
        low, high = epsilons[0], epsilons[0] if epsilons[1] is None else epsilons[1]
        losses = reference_token_losses(exact, policy_loss, micro.get(SELECTED), low, high, coef=0.5)
        expected = reference_loss(losses, exact, trainer)
        torch.testing.assert_close(loss.double(), expected, rtol=1e-5, atol=1e-6)
        [expected_gradient] = torch.autograd.grad(expected, exact["logps"])
        torch.testing.assert_close(gradient.double(), expected_gradient, rtol=1e-4, atol=1e-7)
        if policy_loss == "clip_cov":
            assert (gradient[micro[SELECTED]] == 0).all()


def test_clip_cov_leaves_every_other_token_its_bits(tmp_path):
    trainer = make_trainer(tmp_path, policy_loss="clip_cov", clip_cov_lb=-1.0, clip_cov_ratio=0.4)
    trainer.model.train()
    trainer.current_gradient_accumulation_steps = 1
    data = batch(3)
    vanilla = {k: v for k, v in data.items() if k != SELECTED}
    data[SELECTED], _ = select(data, trainer.args)
    for name in ("logps", "old_per_token_logps"):
        data[name] = vanilla[name] = data[name].nan_to_num(-1.0)
    _, gradient = loss_of(trainer, data)
    _, whole = loss_of(trainer, vanilla)
    assert torch.equal(gradient, whole.masked_fill(data[SELECTED], 0))
    assert not torch.equal(gradient, whole)


def test_importance_sampling_weighs_the_penalty_too(tmp_path):
    """TRL multiplies the whole loss of a token by vLLM's correction, and KL-Cov's penalty is part of it."""
    trainer = make_trainer(tmp_path, policy_loss="kl_cov", kl_cov_ratio=0.3, steps_per_generation=2)
    trainer.model.train()
    trainer.current_gradient_accumulation_steps = 1
    trainer.use_vllm = trainer.vllm_importance_sampling_correction = True
    data = batch(4)
    data[SELECTED], _ = select(data, trainer.args)
    data["importance_sampling_ratio"] = torch.rand(data["logps"].shape, generator=torch.Generator().manual_seed(1))
    for name in ("logps", "old_per_token_logps"):
        data[name] = data[name].nan_to_num(-1.0)
    loss, _ = loss_of(trainer, data)
    exact = {k: v.double() if v.is_floating_point() else v for k, v in data.items()}
    losses = reference_token_losses(exact, "kl_cov", data[SELECTED], 0.2, 0.28, coef=1.0)
    expected = reference_loss(losses * exact["importance_sampling_ratio"], exact, trainer)
    torch.testing.assert_close(loss.double(), expected, rtol=1e-5, atol=1e-6)


def test_a_ratio_that_underflows_is_no_nan():
    logps = torch.tensor([[-200.0, -1.0]], requires_grad=True)
    inputs = {SELECTED: torch.tensor([[True, True]]), "advantages": torch.tensor([1.0])}
    inputs["old_per_token_logps"] = torch.tensor([[-1.0, -1.0]])
    advantages = reweight_advantages(inputs, logps, settings("kl_cov"))
    (advantages * (logps - inputs["old_per_token_logps"]).exp()).sum().backward()
    assert logps.grad.isfinite().all()
