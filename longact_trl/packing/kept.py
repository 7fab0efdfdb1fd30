"""
K and V of a prompt's prefix that several forward passes attend to, and the gradients that reach them from there; of
recurrent layers, their states at its end.

A pass with the prefix in it writes K and V of each layer. Passes of other rows read them instead of forwarding the
prompt again, and their backward adds gK and gV here. The last backward takes the sum as part of the gradient of its
own K and V. No autograd graph reaches from one pass into another.

Shapes: n tokens, K key heads, D channels per head; kept as (n, K, D), so that a stretch of tokens is one piece of
memory.
"""

from itertools import count

import torch
from torch import nn


_numbers = count()


class KeptPrefix:
    """
    K, V, gK and gV of a prefix by attention module, and states by recurrent module, of one state of the weights.

    Args:
        ids (`torch.Tensor` of shape (n + 1,)):
            The prompt's tokens. The last, which is no part of the prefix, tells prompts of one prefix apart.
        columns (`torch.Tensor` of shape (n,)):
            The others' columns in the padded batch, which are their positions.
        offload (`bool`, *optional*, defaults to `False`):
            Keep everything in the host's memory, pinned where there is a GPU; a layer at a time comes to the device.
    """

    def __init__(self, ids: torch.Tensor, columns: torch.Tensor, offload: bool = False):
        self.ids, self.columns, self.offload = ids, columns, offload
        self.number = next(_numbers)  # names it after it is gone
        self.random_states: dict[int, list[torch.Tensor]] = {}  # before the pass that wrote the tokens from there on
        self._written: set[tuple[nn.Module, int]] = set()
        self._values: dict[nn.Module, tuple[torch.Tensor, torch.Tensor]] = {}
        self._grads: dict[nn.Module, tuple[torch.Tensor, torch.Tensor]] = {}
        self._states: dict[tuple, torch.Tensor] = {}  # of recurrent layers, after so many tokens
        self._state_grads: dict[tuple, torch.Tensor] = {}

    def __len__(self) -> int:
        return len(self.columns)

    @property
    def is_written(self) -> bool:
        """Whether a pass has begun to write K and V, or states."""
        return bool(self._values or self._states)

    def write(self, module: nn.Module, start: int, key: torch.Tensor, value: torch.Tensor) -> None:
        """
        Keep K and V (1, K, tokens, D) of the tokens from `start` on.

        Raises:
            `ValueError`: If they are there: the layer attends several times, each time with a K or V of its own.
        """
        if (module, start) in self._written:
            raise ValueError(
                f"{type(module).__name__} attends several times in a forward pass, and K and V of a prompt are kept "
                "once for each layer. Write `shared_prefix: 'off'`."
            )
        self._written.add((module, start))
        if module not in self._values:
            self._values[module] = tuple(self._empty(x) for x in (key, value))
        for kept, new in zip(self._values[module], (key, value), strict=True):
            kept[start : start + new.size(2)].copy_(new[0].transpose(0, 1), non_blocking=True)

    def read(self, module: nn.Module, stop: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        """K and V (1, K, stop, D) of the first tokens."""
        return tuple(_as_heads(kept[:stop].to(device, non_blocking=True)) for kept in self._values[module])

    def forget_values(self) -> None:
        """Free K and V and states: from here on the prefix is in the row."""
        self._values.clear()
        self._states.clear()

    def add_gradients(self, module: nn.Module, grads: tuple[torch.Tensor, torch.Tensor]) -> None:
        """Add gK and gV (1, K, tokens, D) of the first tokens."""
        if module not in self._grads:
            self._grads[module] = tuple(self._empty(x).zero_() for x in grads)
        for kept, new in zip(self._grads[module], grads, strict=True):
            first, new = kept[: new.size(2)], new[0].transpose(0, 1)
            if self.offload:  # the device adds; copies to and fro are in the order of its stream
                first.copy_(first.to(new.device, non_blocking=True) + new, non_blocking=True)
            else:
                first.add_(new)

    def gradients(
        self, module: nn.Module, start: int, stop: int, device: torch.device
    ) -> tuple[torch.Tensor, torch.Tensor] | None:
        """gK and gV (1, K, stop - start, D) of these tokens; `None` where no backward has reached them."""
        if module not in self._grads:
            return None
        return tuple(_as_heads(kept[start:stop].to(device, non_blocking=True)) for kept in self._grads[module])

    # Recurrent layers: one state stands for all tokens before it

    def write_state(self, key: tuple, stop: int, state: torch.Tensor) -> None:
        """Keep a layer's state (1, …) after the first `stop` tokens."""
        self._states[*key, stop] = self._copy(state)

    def read_state(self, key: tuple, stop: int, device: torch.device) -> torch.Tensor:
        """A layer's state (1, …) after the first `stop` tokens; not part of any graph."""
        return self._states[*key, stop].to(device, non_blocking=True).detach()

    def add_state_gradient(self, key: tuple, stop: int, grad: torch.Tensor) -> None:
        """Add the gradient (1, …) of that state."""
        before = self.state_gradient(key, stop, grad.device)
        self._state_grads[*key, stop] = self._copy(grad if before is None else before + grad)

    def state_gradient(self, key: tuple, stop: int, device: torch.device) -> torch.Tensor | None:
        """The gradient (1, …) of that state; `None` where no backward has reached it."""
        grad = self._state_grads.get((*key, stop))
        return None if grad is None else grad.to(device, non_blocking=True)

    def _copy(self, state: torch.Tensor) -> torch.Tensor:
        copy = (
            torch.empty_like(state, device="cpu", pin_memory=state.is_cuda)
            if self.offload
            else state.new_empty(state.shape)
        )
        return copy.copy_(state.detach(), non_blocking=True)

    def _empty(self, like: torch.Tensor) -> torch.Tensor:
        shape = (len(self), like.size(1), like.size(3))
        if self.offload:
            return torch.empty(shape, dtype=like.dtype, pin_memory=like.is_cuda)
        return like.new_empty(shape)


def _as_heads(tokens: torch.Tensor) -> torch.Tensor:
    return tokens.transpose(0, 1).unsqueeze(0)
