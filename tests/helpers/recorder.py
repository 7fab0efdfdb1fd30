"""What each optimizer step of a run had and did."""

import torch
from transformers import TrainerCallback

from longact_trl.method.gradients import row_parameters
from longact_trl.method.projections import find_projections

from .weights import weights_of


class StepRecorder(TrainerCallback):
    """Each optimizer step: the masks, the gradients as the optimizer gets them, the weights before and after."""

    def __init__(self):
        self.masks, self.grads, self.before, self.after = [], [], [], []
        self.trainer = None

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        self.masks.append(dict(self.trainer.mask_refresh.masks))
        self.grads.append({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})
        self.before.append(weights_of(model))

    def on_optimizer_step(self, args, state, control, model=None, **kwargs):
        self.after.append(weights_of(model))


def masks_by_parameter(recorder: StepRecorder) -> list[dict[str, torch.Tensor]]:
    """Each step's mask of each masked parameter, by the parameter's name."""
    model = recorder.trainer.model
    names = {param: name for name, param in model.named_parameters()}
    return [
        {names[param]: masks[p.name] for p in find_projections(model) for param in row_parameters(p.module)}
        for masks in recorder.masks
    ]
