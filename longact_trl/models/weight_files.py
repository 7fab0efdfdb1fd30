"""Single weights out of a checkpoint's safetensors files, without a model around them."""

import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key

from .naming import naming


SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"


class WeightFiles:
    """
    A checkpoint in a folder or on the Hub. Only the rows that are asked for are read, from the shard that has them.

    Args:
        model (`str` or `Path`):
            Folder or Hub id.

    Raises:
        `ValueError`: If there is neither, or its safetensors are missing or not whole.
    """

    def __init__(self, model: str | Path):
        self.name = str(model)
        self.folder = Path(model) if Path(model).is_dir() else _download(str(model))
        refuse_adapter(self.folder)
        check_weights(self.folder)
        if (self.folder / INDEX).is_file():
            self._file_of = _weight_map(self.folder)
        elif (self.folder / SINGLE).is_file():
            with safe_open(self.folder / SINGLE, "pt") as file:
                self._file_of = dict.fromkeys(file.keys(), SINGLE)
        else:
            raise ValueError(
                f"{self.name} holds neither {SINGLE} nor {INDEX}. Name the folder that `save_pretrained` wrote: for a "
                "training run its `output_dir` or one of its checkpoint-N folders."
            )

    @property
    def names(self) -> set[str]:
        """Of all tensors."""
        return set(self._file_of)

    def names_of(self, model: nn.Module) -> dict[str, str]:
        """
        What a model's parameters are called in these files, which need not be what the model calls them.

        Args:
            model (`PreTrainedModel`):
                The model, also without weights.

        Returns:
            `dict[str, str]`: Name of a parameter to that of its tensor. Parameters that transformers puts together
            of several tensors, or makes of a part of one, are not there.
        """
        mapping = get_model_conversion_mapping(model)
        renamings = [entry for entry in mapping if isinstance(entry, WeightRenaming)]
        converters = [entry for entry in mapping if isinstance(entry, WeightConverter)]
        parameters, found = model.state_dict(), {}
        for tensor in self._file_of:
            name, converted = rename_source_key(tensor, renamings, converters, model.base_model_prefix, parameters)
            if name not in parameters and tensor in parameters:
                name, converted = tensor, None
            if name in parameters and converted is None:
                found[name] = tensor
        return found

    def __contains__(self, tensor: str) -> bool:
        return tensor in self._file_of

    def shape(self, tensor: str) -> tuple[int, ...]:
        """Shape of a tensor. `ValueError` if there is none of that name."""
        with self._open(tensor) as file:
            return tuple(file.get_slice(tensor).get_shape())

    def read(self, tensor: str) -> torch.Tensor:
        """
        A tensor.

        Args:
            tensor (`str`):
                Its name in the files.

        Returns:
            `torch.Tensor`: In the dtype of the file.

        Raises:
            `ValueError`: If there is no such tensor.
        """
        with self._open(tensor) as file:
            return file.get_tensor(tensor)

    def _open(self, tensor: str):
        if tensor not in self:
            raise ValueError(f"{self.name} has no weight {tensor}: its architecture is not that of the other model.")
        return safe_open(self.folder / self._file_of[tensor], "pt")


def check_weights(folder: Path) -> None:
    """
    Check that the safetensors files of a folder are whole, of which nothing but their headers is read.

    Args:
        folder (`Path`):
            Folder of a model or an adapter.

    Raises:
        `ValueError`: If one is cut off, or the index of shards is, or names one that is not there; names the file.
    """
    for file in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(file, "pt"):
                pass
        except (SafetensorError, OSError) as error:
            raise ValueError(f"{file} cannot be read ({error}): was it cut off? Copy or download it again.") from error
    if (folder / INDEX).is_file() and not (folder / SINGLE).is_file():
        shards = sorted(set(_weight_map(folder).values()))
        if missing := [name for name in shards if not (folder / name).is_file()]:
            raise ValueError(f"{folder} has no {', '.join(missing)}, which its {INDEX} names: copy it, too.")


def _weight_map(folder: Path) -> dict[str, str]:
    try:
        found = json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"]
        return {str(tensor): str(file) for tensor, file in found.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        what = f"{type(error).__name__}: {error}"
        raise ValueError(f"{folder / INDEX} is no index of weights ({what}): copy or download it again.") from error


def refuse_adapter(model: str | Path) -> None:
    """`ValueError` for a folder that holds a PEFT adapter."""
    if Path(model, "adapter_config.json").is_file():
        raise ValueError(f"{model} is a PEFT adapter. Merge it first: `model.merge_and_unload().save_pretrained(…)`.")


def _download(model: str) -> Path:
    from huggingface_hub import snapshot_download

    patterns = ["*.json", "model*.safetensors", "longact/*"]
    patterns += ["checkpoint-*/longact/*", "checkpoint-*/trainer_state.json"]
    with naming(model):
        return Path(snapshot_download(model, allow_patterns=patterns))
