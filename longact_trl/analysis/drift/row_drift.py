"""Which rows of W_Q and W_K training moved, against what its masks allowed.

Both checkpoints are read weight by weight; no model is built. Shapes: H heads, D channels per head.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from ...method.masks import select_rows
from ...method.projections import Projection, find_projections, row_dim
from ...models.reading import load_skeleton
from ...models.weight_files import WeightFiles
from ...pictures.heatmaps import layer_of
from ...training.checkpoints import newest_complete_checkpoint
from ...training.mask_file import has_masks, load_masks


BF16_TOLERANCE = 1e-5
"""What arXiv:2505.11711 calls unchanged: two weights in bfloat16 that differ by no more. It finds that RL moves 5-30 %
of all weights by that measure, in which a small update of a large weight is rounded away."""


@dataclass
class Drift:
    """
    What training did to one projection, row by row.

    Args:
        changed (`torch.BoolTensor` of shape (H, D)):
            Whether any bit of the row, its bias included, differs.
        update_norm (`torch.FloatTensor` of shape (H, D)):
            L2 norm of the row's change.
        weight_norm (`torch.FloatTensor` of shape (H, D)):
            L2 norm of the row in the base model.
        row_size (`int`):
            Weights of a row, its bias included.
        moved, moved_bf16 (`torch.LongTensor` of shape (H, D)):
            How many of them differ: in any bit as saved, and in bfloat16 by more than `BF16_TOLERANCE`.
    """

    changed: torch.Tensor
    update_norm: torch.Tensor
    weight_norm: torch.Tensor
    row_size: int
    moved: torch.Tensor
    moved_bf16: torch.Tensor

    def relative_update(self) -> torch.Tensor:
        """Norm of each head's change relative to the norm of its weights, shape (H,)."""
        return self.update_norm.norm(dim=1) / self.weight_norm.norm(dim=1)


@dataclass
class TrainingMasks:
    """
    What a LongAct checkpoint says about its masks.

    Args:
        folder (`Path`):
            Checkpoint that was read.
        step (`int` or `None`):
            Its optimizer step.
        settings (`dict`):
            `strategy`, `sparsity_ratio`, `update_rule`, `saliency_source`, `num_refreshes`.
        ever_selected (`dict[str, torch.BoolTensor]`):
            Name of a projection to the union of its masks, shape (H·D,). Empty after dense training.
    """

    folder: Path
    step: int | None
    settings: dict
    ever_selected: dict[str, torch.Tensor]


def measure_drift(
    base: str | Path, trained: str | Path, progress: Callable[[list], Iterable] = iter
) -> dict[str, Drift]:
    """
    Compare the Q and K projections of two checkpoints.

    The base is cast to the trained model's dtype first, so that saving in another one does not count as training.

    Args:
        base (`str` or `Path`):
            Folder or Hub id of the model before training.
        trained (`str` or `Path`):
            The same after training: a plain checkpoint.
        progress (`Callable`, *optional*):
            Wraps the list of projections, e.g. `rich.progress.track`.

    Returns:
        `dict[str, Drift]`: By projection name, in layer order.

    Raises:
        `ValueError`: If one cannot be read, or they differ in architecture.
    """
    skeleton = load_skeleton(str(base))
    both = WeightFiles(base), WeightFiles(trained)
    tensors = [_tensors(files, skeleton) for files in both]
    return {p.name: _compare(p, *both, *tensors) for p in progress(find_projections(skeleton))}


def _tensors(files: WeightFiles, model: nn.Module) -> dict[nn.Parameter, str]:
    """Where each parameter is in the files, by whichever of its names they have it where modules share it."""
    parameters = dict(model.named_parameters(remove_duplicate=False))
    return {parameters[name]: tensor for name, tensor in files.names_of(model).items() if name in parameters}


def _compare(
    projection: Projection,
    before: WeightFiles,
    after: WeightFiles,
    old_tensors: Mapping[nn.Parameter, str],
    new_tensors: Mapping[nn.Parameter, str],
) -> Drift:
    update, weight, size, moved, moved_bf16 = 0, 0, 0, 0, 0
    for name, parameter in projection.module.named_parameters():
        for files, tensors in ((before, old_tensors), (after, new_tensors)):
            if parameter not in tensors:
                raise ValueError(
                    f"{files.name} has no weight {projection.name.partition(':')[0]}.{name}: its architecture is not "
                    "that of the other model, or its files hold the weight together with others."
                )
        shapes = before.shape(old_tensors[parameter]), after.shape(new_tensors[parameter])
        if shapes[0] != shapes[1]:
            raise ValueError(
                f"{projection.name.partition(':')[0]}.{name} is {shapes[0]} in {before.name}, but {shapes[1]} in "
                f"{after.name}."
            )
        old = _rows_of(projection, before.read(old_tensors[parameter]))
        new = _rows_of(projection, after.read(new_tensors[parameter]))
        shape = (projection.num_heads, projection.head_dim, -1)
        old, new = old.to(new.dtype).float().view(shape), new.float().view(shape)
        size += old.shape[-1]
        moved = moved + (old != new).sum(-1)
        moved_bf16 = moved_bf16 + ((new.bfloat16().float() - old.bfloat16().float()).abs() > BF16_TOLERANCE).sum(-1)
        update = update + (new - old).square().sum(-1)
        weight = weight + old.square().sum(-1)
    return Drift(moved > 0, update.sqrt(), weight.sqrt(), size, moved, moved_bf16)


def _rows_of(projection: Projection, tensor: torch.Tensor) -> torch.Tensor:
    return (tensor.t() if row_dim(projection.module) and tensor.dim() == 2 else tensor)[projection.rows]


def find_masks(trained: str | Path) -> TrainingMasks | None:
    """
    The masks beside a trained model: in its own `longact` folder, or in its newest complete checkpoint.

    Args:
        trained (`str` or `Path`):
            Folder of a checkpoint or of a run.

    Returns:
        `TrainingMasks` or `None`: `None` where there are none, as in a published model without its checkpoints.
    """
    for folder in (Path(trained), newest_complete_checkpoint(trained)):
        if folder and has_masks(folder):
            break
    else:
        return None
    saved = load_masks(folder)
    state = folder / "trainer_state.json"
    step = json.loads(state.read_text(encoding="utf-8"))["global_step"] if state.is_file() else None
    return TrainingMasks(folder, step, saved.settings, saved.ever_selected)


def outside_masks(drift: Mapping[str, Drift], masks: TrainingMasks) -> dict[str, torch.Tensor]:
    """
    Rows that moved although no mask of the run ever selected them. Under both update rules there should be none: such
    a row gets neither gradient nor momentum nor weight decay.

    Args:
        drift (`dict[str, Drift]`):
            As [`measure_drift`] returns it.
        masks (`TrainingMasks`):
            As [`find_masks`] returns it.

    Returns:
        `dict[str, torch.BoolTensor]`: By projection name, shape (H, D). Empty after dense training.

    Raises:
        `ValueError`: If the masks belong to another model.
    """
    if masks.ever_selected and masks.ever_selected.keys() != drift.keys():
        raise ValueError(f"{masks.folder} holds masks of another model's projections.")
    return {
        name: drift[name].changed & ~ever.view_as(drift[name].changed) for name, ever in masks.ever_selected.items()
    }


def in_massive_rows(drift: Drift, magnitude: torch.Tensor, sparsity_ratio: float) -> dict[str, float]:
    """
    How much of what moved lies in the base model's massive rows. Where training is blind to magnitude, each is λ.

    Args:
        drift (`Drift`):
            Of one projection, of which some row changed.
        magnitude (`torch.Tensor` of shape (H, D)):
            Its magnitudes in the base model (LongAct, Eq. 2).
        sparsity_ratio (`float`):
            λ, share of each head's channels that count as massive.

    Returns:
        `dict[str, float]`: Share of the changed rows, of the squared update, and of those λ of each head's rows that
        moved most; and how many weights that moved in bfloat16.
    """
    massive = select_rows(magnitude, sparsity_ratio).view_as(drift.changed)
    most = select_rows(drift.update_norm, sparsity_ratio).view_as(drift.changed) & drift.changed
    energy = drift.update_norm.square()
    return {
        "changed_in_massive": ((drift.changed & massive).sum() / drift.changed.sum()).item(),
        "update_energy_in_massive": (energy[massive].sum() / energy.sum()).item(),
        "most_moved_in_massive": ((most & massive).sum() / most.sum()).item(),
        "weights_moved_bf16_in_massive": int(drift.moved_bf16[massive].sum()),
    }


def summarise(
    drift: Mapping[str, Drift],
    masks: TrainingMasks | None,
    magnitudes: Mapping[str, torch.Tensor],
    sparsity_ratio: float,
) -> dict:
    """
    All numbers of a comparison, ready for JSON.

    Args:
        drift (`dict[str, Drift]`):
            As [`measure_drift`] returns it.
        masks (`TrainingMasks` or `None`):
            As [`find_masks`] returns it.
        magnitudes (`dict[str, torch.Tensor]`):
            Of the base model, by projection name; empty to leave the overlap with its massive rows out.
        sparsity_ratio (`float`):
            λ for that overlap.

    Returns:
        `dict`: `rows`, `changed`, `weights`, `weights_moved`, `weights_moved_bf16`, `outside_masks` (`None` where no
        masks are known), `masks`, and one entry a projection with its shares by head.
    """
    outside = outside_masks(drift, masks) if masks else {}
    projections = {}
    for name, d in drift.items():
        entry = {
            "layer": layer_of(name),
            "rows": d.changed.numel(),
            "changed": int(d.changed.sum()),
            "changed_share_by_head": d.changed.float().mean(1).tolist(),
            "update_norm_by_head": d.update_norm.norm(dim=1).tolist(),
            "relative_update_by_head": d.relative_update().tolist(),
            "relative_update": (d.update_norm.norm() / d.weight_norm.norm()).item(),
            "weights": d.changed.numel() * d.row_size,
            "weights_moved": int(d.moved.sum()),
            "weights_moved_bf16": int(d.moved_bf16.sum()),
        }
        if name in outside:
            entry["outside_masks"] = int(outside[name].sum())
        if name in magnitudes and d.changed.any():
            entry |= in_massive_rows(d, magnitudes[name], sparsity_ratio)
        projections[name] = entry
    known = (
        {
            "checkpoint": masks.folder.name,
            "step": masks.step,
            "rows_ever_selected": sum(int(m.sum()) for m in masks.ever_selected.values()),
            **masks.settings,
        }
        if masks
        else None
    )
    return {
        "rows": sum(e["rows"] for e in projections.values()),
        "changed": sum(e["changed"] for e in projections.values()),
        "weights": sum(e["weights"] for e in projections.values()),
        "weights_moved": sum(e["weights_moved"] for e in projections.values()),
        "weights_moved_bf16": sum(e["weights_moved_bf16"] for e in projections.values()),
        "outside_masks": sum(int(o.sum()) for o in outside.values()) if outside else None,
        "sparsity_ratio": sparsity_ratio,
        "masks": known,
        "projections": projections,
    }
