import copy

import pytest
import torch
from peft import LoraConfig

from helpers.models import make_model
from helpers.recorder import StepRecorder, masks_by_parameter
from helpers.trainers import make_args, make_trainer
from longact_trl.method.frozen_rows import clear_first_moment
from longact_trl.settings.choices import ROWWISE_OPTIMIZERS


def record(tmp_path, model=None, **kwargs) -> StepRecorder:
    recorder = StepRecorder()
    settings = {"weight_decay": 0.1, "learning_rate": 2e-2, "max_steps": 5, "optim": "adamw_torch"}
    trainer = make_trainer(tmp_path, model, callbacks=[recorder], **{**settings, **kwargs})
    recorder.trainer = trainer
    trainer.train()
    assert len(recorder.after) == trainer.args.max_steps
    return recorder


OPTIMIZERS = {
    "adamw_torch": {"optim": "adamw_torch"},
    "adamw_torch_fused": {"optim": "adamw_torch_fused"},
    "sgd": {"optim": "sgd"},
    "momentum": {"optim": "sgd", "optim_args": "momentum=0.9"},
}


@pytest.mark.parametrize("strategy", ["random", "massive"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_unselected_rows_keep_their_bits(tmp_path, optimizer, strategy):
    recorder = record(tmp_path, update_rule="frozen_rows", strategy=strategy, **OPTIMIZERS[optimizer])
    masks = masks_by_parameter(recorder)
    left = 0
    for step, (before, after) in enumerate(zip(recorder.before, recorder.after, strict=True)):
        for name, mask in masks[step].items():
            assert torch.equal(before[name][~mask], after[name][~mask]), (step, name)
            assert (before[name][mask] != after[name][mask]).any(1).all(), (step, name)
            left += int((masks[step - 1][name] & ~mask).sum()) if step else 0
    assert left > 50  # or the test would show nothing


def test_the_rows_of_an_adapter_keep_their_bits(tmp_path):
    config = LoraConfig(target_modules=["q_proj", "k_proj"], r=2, init_lora_weights=False, use_dora=True)
    recorder = record(tmp_path, peft_config=config, update_rule="frozen_rows", strategy="random")
    masks = masks_by_parameter(recorder)
    assert len(masks[0]) == 8  # two layers, Q and K, B and DoRA's magnitude
    for step, (before, after) in enumerate(zip(recorder.before, recorder.after, strict=True)):
        for name, mask in masks[step].items():
            assert torch.equal(before[name][~mask], after[name][~mask]), (step, name)


def make_reference(optimizer: str, model) -> torch.optim.Optimizer:
    """Torch's own optimizer with the parameter groups that LongAct documents, told by name."""
    decayed = [p for n, p in model.named_parameters() if not any(s in n for s in ("q_proj", "k_proj", "norm"))]
    others = [p for n, p in model.named_parameters() if any(s in n for s in ("q_proj", "k_proj", "norm"))]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    if optimizer.startswith("adamw"):
        return torch.optim.AdamW(groups, lr=2e-2, fused=optimizer.endswith("fused"))
    return torch.optim.SGD(groups, lr=2e-2, momentum=0.9 if optimizer == "momentum" else 0)


@pytest.mark.parametrize("update_rule", ["frozen_rows", "masked_gradient"])
@pytest.mark.parametrize("strategy", ["random", "massive"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_weight_moves_as_torch_would_move_it(tmp_path, optimizer, strategy, update_rule):
    """To the bit: torch's optimizer on a second model, fed with the gradients of the run, momentum cleared by hand."""
    recorder = record(tmp_path, update_rule=update_rule, strategy=strategy, **OPTIMIZERS[optimizer])
    masks = masks_by_parameter(recorder)
    model = make_model()
    reference = make_reference(optimizer, model)
    params = dict(model.named_parameters())
    for step, (grads, after) in enumerate(zip(recorder.grads, recorder.after, strict=True)):
        for name, mask in masks[step].items():
            if step and update_rule == "frozen_rows":
                left = masks[step - 1][name] & ~mask
                for key in {"exp_avg", "momentum_buffer"} & set(reference.state[params[name]]):
                    if reference.state[params[name]][key] is not None:
                        reference.state[params[name]][key][left] = 0
        for name, param in params.items():
            param.grad = grads[name].clone()
        reference.step()
        for name, param in params.items():
            assert torch.equal(param, after[name]), (step, name)


def test_masked_gradient_lets_momentum_move_rows_but_not_weight_decay(tmp_path):
    """Why `frozen_rows` exists. Rows that were never selected stay, although `weight_decay` is 0.1."""
    recorder = record(tmp_path, update_rule="masked_gradient", strategy="random")
    moved = stayed = 0
    union: dict[str, torch.Tensor] = {}
    for step, masks in enumerate(masks_by_parameter(recorder)):
        before, after = recorder.before[step], recorder.after[step]
        for name, mask in masks.items():
            changed = (before[name] != after[name]).any(1)
            seen = union.get(name, torch.zeros_like(mask))
            assert not recorder.grads[step][name][~mask].any()
            assert changed[seen & ~mask].all()  # zero gradient, and yet
            assert not changed[~seen & ~mask].any()
            moved += int((seen & ~mask).sum())
            stayed += int((~seen & ~mask).sum())
            union[name] = seen | mask
    assert moved > 100 and stayed > 100


@pytest.mark.parametrize(
    "optim", ["adafactor", "adamw_bnb_8bit", "adamw_8bit", "lion_8bit", "galore_adamw", "schedule_free_adamw"]
)
def test_an_optimizer_that_cannot_freeze_is_refused(tmp_path, optim):
    with pytest.raises(ValueError, match=rf"frozen_rows.*{optim}.*adamw_torch"):
        make_args(tmp_path, update_rule="frozen_rows", optim=optim)
    make_args(tmp_path, update_rule="masked_gradient", optim=optim)


def test_muon_by_name_is_refused(tmp_path):
    with pytest.raises(ValueError, match="muon"):
        make_args(tmp_path, update_rule="frozen_rows", optim="muon")


def test_every_optimizer_named_is_one_of_transformers(tmp_path):
    for optim in ROWWISE_OPTIMIZERS:
        assert make_args(tmp_path, update_rule="frozen_rows", optim=optim).optim == optim


def own_optimizer(tmp_path, make, **kwargs):
    model = make_model()
    settings = {"update_rule": "frozen_rows", "strategy": "random", **kwargs}
    return make_trainer(tmp_path, model, optimizers=(make(model), None), **settings)


def test_an_own_optimizer_that_mixes_rows_is_refused(tmp_path):
    def muon(model):
        return torch.optim.Muon([p for p in model.parameters() if p.dim() == 2], lr=1e-2, weight_decay=0)

    with pytest.raises(ValueError, match="frozen_rows.*Muon.*AdamW"):
        own_optimizer(tmp_path, muon)
    own_optimizer(tmp_path, muon, update_rule="masked_gradient")


def test_an_own_optimizer_that_decays_masked_rows_is_refused(tmp_path):
    for update_rule in ("frozen_rows", "masked_gradient"):
        with pytest.raises(ValueError, match="decays W_Q and W_K.*0.01"):
            own_optimizer(tmp_path, lambda model: torch.optim.AdamW(model.parameters()), update_rule=update_rule)
    own_optimizer(tmp_path, lambda model: torch.optim.AdamW(model.parameters()), strategy="dense")


def test_an_own_optimizer_freezes_rows_too(tmp_path):
    recorder, model = StepRecorder(), make_model()
    adam = torch.optim.Adam(model.parameters(), lr=1e-2)
    settings = {"update_rule": "frozen_rows", "strategy": "random", "max_steps": 3}
    trainer = make_trainer(tmp_path, model, optimizers=(adam, None), callbacks=[recorder], **settings)
    recorder.trainer = trainer
    trainer.train()
    for step, masks in enumerate(masks_by_parameter(recorder)):
        for name, mask in masks.items():
            assert torch.equal(recorder.before[step][name][~mask], recorder.after[step][name][~mask])


class HiddenAdamW(torch.optim.AdamW):
    """Keeps its moments under names of its own."""

    def step(self, closure=None):
        for group in self.param_groups:
            for param in group["params"]:
                self.state[param]["packed_moments"] = torch.zeros(1)


def test_an_own_optimizer_that_hides_its_state_is_refused(tmp_path):
    trainer = own_optimizer(tmp_path, lambda model: HiddenAdamW(model.parameters(), weight_decay=0))
    with pytest.raises(ValueError, match="HiddenAdamW hides its state"):
        trainer.train()


def test_clearing_touches_the_first_moment_of_the_given_rows_only():
    torch.manual_seed(0)
    param = torch.nn.Parameter(torch.randn(6, 3))
    adam = torch.optim.AdamW([param], lr=0.1)
    rows = torch.tensor([True, False, False, True, False, False])
    clear_first_moment(adam, param, rows)  # before the first step there is nothing to clear
    param.grad = torch.randn(6, 3)
    adam.step()
    state = copy.deepcopy(adam.state[param])
    clear_first_moment(adam, param, rows)
    assert not adam.state[param]["exp_avg"][rows].any()
    assert torch.equal(adam.state[param]["exp_avg"][~rows], state["exp_avg"][~rows])
    assert torch.equal(adam.state[param]["exp_avg_sq"], state["exp_avg_sq"])
    assert adam.state[param]["step"] == state["step"]
