"""What a checkpoint says of a run's masks: the one place that knows the layout of `checkpoint-N/longact/masks.*`."""

import json
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from ..pictures.heatmaps import KINDS, kind_of
from ..settings.whole_files import write_json


STATE_DIR = "longact"
"""Folder of our own inside a checkpoint. A folder, because vLLM loads every `*.safetensors` beside the weights."""

SETTINGS, TENSORS = "masks.json", "masks.safetensors"
GROUPS = {"mask": "masks", "ever_selected": "ever_selected", "magnitude": "magnitudes"}
"""Prefix of a tensor's name in the file, and the field that holds it; behind the prefix stands the projection."""
GENERATOR = "generator"


@dataclass
class SavedMasks:
    """
    Masks as they are saved.

    Args:
        settings (`dict`):
            `strategy`, `sparsity_ratio`, `update_rule`, `saliency_source`, and `num_refreshes`.
        masks (`dict[str, torch.BoolTensor]`):
            Name of a projection to the rows selected last, shape (H·D,). Empty for `dense`.
        ever_selected (`dict[str, torch.BoolTensor]`):
            The union of all masks so far, likewise.
        magnitudes (`dict[str, torch.FloatTensor]`):
            Name of a projection to its magnitudes, shape (H, D). Empty where none are measured.
        generator (`torch.ByteTensor`, *optional*):
            State of the generator that `random` draws from.
    """

    settings: dict
    masks: dict[str, torch.Tensor] = field(default_factory=dict)
    ever_selected: dict[str, torch.Tensor] = field(default_factory=dict)
    magnitudes: dict[str, torch.Tensor] = field(default_factory=dict)
    generator: torch.Tensor | None = None

    def save(self, checkpoint: str | Path) -> None:
        """
        Write them into a checkpoint. Call it on one rank.

        Args:
            checkpoint (`str` or `Path`):
                Checkpoint folder.
        """
        folder = Path(checkpoint, STATE_DIR)
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {f"{group}/{name}": t for group, key in GROUPS.items() for name, t in getattr(self, key).items()}
        save_file({**tensors, GENERATOR: self.generator}, folder / TENSORS)
        write_json(folder / SETTINGS, self.settings)


def has_masks(checkpoint: str | Path) -> bool:
    """Whether a folder is a checkpoint of [`LongActTrainer`], dense ones included, with all that it saves of masks."""
    return all(Path(checkpoint, STATE_DIR, file).is_file() for file in (SETTINGS, TENSORS))


def load_masks(checkpoint: str | Path) -> SavedMasks:
    """
    Read what [`SavedMasks.save`] wrote.

    Args:
        checkpoint (`str` or `Path`):
            Checkpoint folder for which [`has_masks`] holds.

    Returns:
        `SavedMasks`: In layer order, Q before K.
    """
    tensors = load_file(Path(checkpoint, STATE_DIR, TENSORS))
    saved = SavedMasks(saved_settings(checkpoint), generator=tensors.pop(GENERATOR))
    for key in sorted(tensors, key=_in_layer_order):
        group, name = key.split("/", 1)
        getattr(saved, GROUPS[group])[name] = tensors[key]
    return saved


def _in_layer_order(name: str) -> tuple[list[int], int]:
    """A safetensors file is sorted by name, which puts layer 10 before layer 2 and K before Q."""
    return [int(part) for part in name.split(".") if part.isdigit()], list(KINDS).index(kind_of(name))


def saved_settings(checkpoint: str | Path) -> dict | None:
    """The settings alone, or `None` in a checkpoint that is not [`LongActTrainer`]'s."""
    file = Path(checkpoint, STATE_DIR, SETTINGS)
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None
