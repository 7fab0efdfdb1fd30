"""Eq. 10–11: masks onto gradients. Unselected rows of W_Q and W_K get a gradient of exactly zero.

| backend                  | where the gradient is masked                                                          |
|--------------------------|---------------------------------------------------------------------------------------|
| single, DDP, ZeRO-0…3    | `param.register_hook`: the full gradient of a micro-batch, before DeepSpeed reads it  |
| FSDP2                    | `register_post_accumulate_grad_hook`: the reduced gradient, sharded over rows         |

With `row_sparse`, a forward hook on the linear layer also keeps most of the masked rows from being computed.

Masks must be the same on every rank: the sum of differently masked gradients trains the union of the masks.
"""

from collections.abc import Mapping, Sequence
from functools import partial

import torch
from torch import nn
from torch.distributed.tensor import DTensor
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

from .gradient_norms import GradientNorms
from .projections import Projection, num_rows, row_dim
from .row_sparse import NotCopied, is_plain_linear, is_worthwhile, with_row_sparse_gradient


Masks = Mapping[str, torch.Tensor]
"""Name of a projection to its selected rows, bool of shape (H·D,), on the CPU."""


class GradientMasker:
    """
    Hooks that zero the gradient of unselected rows: of the weight, the bias, LoRA's B, DoRA's magnitude, whatever
    in a projection belongs to an output row and is trained. Before the first `set_masks`, no row is selected.

    Args:
        projections (`list[Projection]`):
            Projections to mask. In a module that makes more (V, the gate of an output), those rows stay as they are.
        row_sparse (`str`, *optional*, defaults to `"off"`):
            Whether a linear layer's weight gradient is computed in selected rows only: `"on"`, `"off"`, or `"auto"`,
            where that was measured to be faster.

    Raises:
        `ValueError`: If a projection has no trainable parameter.
    """

    def __init__(self, projections: Sequence[Projection], row_sparse: str = "off"):
        self.projections = list(projections)
        self.row_sparse = row_sparse
        self._handles: list[torch.utils.hooks.RemovableHandle] = []
        # By the module of a projection, which stands for all modules of the same weight:
        self._dropped: dict[nn.Module, torch.Tensor] = {}  # bool (rows of its output,), True = zero it
        self._computed: dict[nn.Module, torch.Tensor] = {}  # indices of the rows that are not dropped
        self._row_sparse: dict[nn.Module, bool] = {}  # whether all its gradients were, since the last step or masks
        self._modules = {p.module: p.modules for p in self.projections}
        self.norms = GradientNorms()
        for projection in self.projections:
            module = projection.module
            self._dropped.setdefault(module, torch.zeros(num_rows(module), dtype=torch.bool))[projection.rows] = True
            if not row_parameters(module):
                raise ValueError(
                    f"{projection.name} has no trainable parameter, so LongAct has nothing to mask. Unfreeze it, or, "
                    "for a quantised or LoRA-trained model, pass a `peft_config` whose `target_modules` include it."
                )

    def attach(self) -> None:
        """Register the hooks. Call it after the model was wrapped for distributed training."""
        self._computed.clear()  # the model may have moved to another device
        for module, modules in self._modules.items():
            for each in modules:
                if self.row_sparse != "off" and is_plain_linear(each):
                    # First among the hooks: DeepSpeed's, which follow, free the weight and wrap this output.
                    hook = NotCopied(partial(self._skip_rows, module))
                    self._handles.append(each.register_forward_hook(hook, prepend=True))
            for param, dim in self._parameters(module).items():
                self._dropped[module] = self._dropped[module].to(param.device)
                if isinstance(param, DTensor):
                    hook = self._mask_shard(module, dim)
                    self._handles.append(param.register_post_accumulate_grad_hook(hook))
                else:
                    self._handles.append(param.register_hook(self._mask_full(module, dim)))

    def _parameters(self, module: nn.Module) -> dict[nn.Parameter, int]:
        """Parameters of the modules that `module` stands for, each once, and the dimension that counts their rows."""
        return {
            # ZeRO-3 leaves of a parameter no more than its shape, elsewhere.
            param: row_dim(each) if len(getattr(param, "ds_shape", param.shape)) == 2 else 0
            for each in self._modules[module]
            for param in row_parameters(each)
        }

    def detach(self) -> None:
        """Remove all hooks."""
        while self._handles:
            self._handles.pop().remove()

    def set_masks(self, masks: Masks) -> dict[nn.Parameter, torch.Tensor]:
        """
        Use these masks from the next backward pass on.

        Args:
            masks (`dict[str, torch.BoolTensor]`):
                Projection name to selected rows (H·D,).

        Returns:
            `dict[nn.Parameter, torch.BoolTensor]`: For each masked parameter, the rows that were selected and no
                longer are, in the dimension of its rows: (rows of the module,), or (1, rows) where it is transposed.
        """
        before = {module: dropped.clone() for module, dropped in self._dropped.items()}
        for projection in self.projections:
            dropped = self._dropped[projection.module]
            dropped[projection.rows] = ~masks[projection.name].to(dropped.device)
        self._computed.clear()
        self._row_sparse.clear()
        return {
            param: (dropped & ~before[module]).view(*[1] * dim, -1)
            for module, dropped in self._dropped.items()
            for param, dim in self._parameters(module).items()
        }

    def pop_squared_norms(self) -> torch.Tensor:
        """
        Squared gradient norms since the last call on this rank, as [`GradientNorms.pop`] gives them. Call it when an
        optimizer step ends or is given up.
        """
        self._row_sparse.clear()
        return self.norms.pop(next(iter(self._dropped.values())).device)

    def _skip_rows(self, owner: nn.Module, module: nn.Module, args: tuple, output: torch.Tensor):
        if not output.requires_grad:
            return None
        if owner not in self._computed:
            self._computed[owner] = (~self._dropped[owner]).nonzero().flatten()
        rows = self._computed[owner]
        num_tokens = output.numel() // module.out_features
        share = rows.numel() / module.out_features
        row_sparse = is_worthwhile(self.row_sparse, output.device.type, num_tokens, share)
        self._row_sparse[owner] = row_sparse and self._row_sparse.get(owner, True)
        if not row_sparse:
            return None
        self.norms.skips_rows = True
        return with_row_sparse_gradient(output, args[0], module, rows)

    def _mask_full(self, module: nn.Module, dim: int):
        def hook(grad: torch.Tensor) -> torch.Tensor | None:
            if self._row_sparse.get(module):
                return None  # is masked already
            dropped = self._dropped[module]
            self.norms.add(grad.movedim(dim, 0), dropped)
            # masked_fill, not multiplication: NaN · 0 is NaN.
            return grad.masked_fill(_over_rows(dropped, grad, dim), 0)

        return hook

    def _mask_shard(self, module: nn.Module, dim: int):
        def hook(param: nn.Parameter) -> None:  # even if row-sparse here: other ranks may have had fewer tokens
            dropped = self._dropped[module]
            self.norms.add(param.grad.to_local().movedim(dim, 0), _local_part(param.grad, dropped, dim))
            zero_rows(param.grad, dropped, dim)

        return hook


def check_fsdp_version(version: str | int) -> None:
    """
    Check that FSDP leaves rows whole.

    Args:
        version (`str` or `int`):
            1 or 2.

    Raises:
        `ValueError`: If it is 1.
    """
    if str(version) == "1":
        raise ValueError(
            "FSDP1 flattens parameters, so rows cannot be masked. Use FSDP2 (`fsdp_version: 2` in the accelerate "
            "config, see accelerate_configs/fsdp2.yaml) or DeepSpeed ZeRO-3 (accelerate_configs/zero3.yaml)."
        )


def row_parameters(module: nn.Module) -> list[nn.Parameter]:
    """
    Trainable parameters of a projection whose first dimension is its output rows.

    Args:
        module (`nn.Module`):
            A linear module or the PEFT layer around it.

    Returns:
        `list[nn.Parameter]`: weight and bias, or LoRA's B and DoRA's magnitude. LoRA's A belongs to no single row.
    """
    return [p for name, p in module.named_parameters() if p.requires_grad and "lora_A" not in name]


def zero_rows(tensor: torch.Tensor, rows: torch.Tensor, dim: int = 0) -> None:
    """
    Set rows of a tensor to zero in place, on this rank's share of it.

    Args:
        tensor (`torch.Tensor` of shape (rows, ...)):
            Plain tensor, or a `DTensor` sharded over dimension 0.
        rows (`torch.BoolTensor` of shape (rows,)):
            `True` where a row becomes zero.
        dim (`int`, *optional*, defaults to `0`):
            Dimension of `tensor` that counts rows.
    """
    if isinstance(tensor, DTensor):
        rows, tensor = _local_part(tensor, rows, dim), tensor.to_local()
    tensor.masked_fill_(_over_rows(rows, tensor, dim), 0)


def _local_part(tensor: DTensor, rows: torch.Tensor, dim: int) -> torch.Tensor:
    shape, offset = compute_local_shape_and_global_offset(tensor.shape, tensor.device_mesh, tensor.placements)
    return rows[offset[dim] : offset[dim] + shape[dim]]


def _over_rows(rows: torch.Tensor, tensor: torch.Tensor, dim: int) -> torch.Tensor:
    return rows.to(tensor.device).view(*[1] * dim, -1, *[1] * (tensor.dim() - dim - 1))
