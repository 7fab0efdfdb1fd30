"""
What nobody reads of a prefix: everything in the last layer but K and V.

Nothing is predicted in a prefix, and no layer comes after the last. So its queries there attend to nothing, and what
comes after attention (the output projection, the MLP) runs on segments alone. The zeros that stand for the rest reach
no segment and no gradient.

Shapes: T packed tokens, S of them in segments.
"""

from dataclasses import replace
from typing import Any

import torch
from torch import nn

from .layout import PackedLayout
from .recurrence import recurrent_layers


def last_layer_of(decoder: nn.Module) -> nn.Module | None:
    """
    The layer behind which only hidden states of segments are read.

    Args:
        decoder (`nn.Module`):
            A text decoder of transformers.

    Returns:
        `nn.Module` or `None`: `None` where a layer is not one attention, or layers are not in a list of that name.
    """
    layers = getattr(decoder, "layers", ())
    if len(layers) != decoder.config.num_hidden_layers or recurrent_layers(layers[-1]):  # which need the whole prefix
        return None
    return layers[-1]


class LastLayer:
    """
    Lets the modules of a layer run on segments alone, once its attention has run, until its `handles` are removed.

    Args:
        layer (`nn.Module`):
            The last layer.
    """

    def __init__(self, layer: nn.Module):
        self._layout: PackedLayout | None = None
        self._attended = False
        self._cut: set[nn.Module] = set()  # modules that run on segments right now
        self.handles = [layer.register_forward_pre_hook(self._begin, with_kwargs=True)]
        for module in layer.modules():
            if module is not layer:
                self.handles.append(module.register_forward_pre_hook(self._only_segments, with_kwargs=True))
                self.handles.append(module.register_forward_hook(self._in_their_places))
        self.handles.append(layer.register_forward_hook(self._end, always_call=True))

    def _begin(self, layer: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict] | None:
        layout = kwargs.get("shared_prefix")
        if layout is None or layout.whole or not any(g.prefix.start < g.prefix.stop for g in layout.groups):
            return None
        if _recomputed_without_hooks(layer):
            return None
        self._layout = replace(layout, attended=self._on_attended)
        return args, {**kwargs, "shared_prefix": self._layout}

    def _on_attended(self) -> None:
        self._attended = True

    def _end(self, layer: nn.Module, args: tuple, output: Any) -> None:
        self._layout, self._attended = None, False
        self._cut.clear()  # where gradient checkpointing has recomputed enough, it leaves by an exception

    def _only_segments(self, module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict] | None:
        if not self._attended or self._cut:
            return None
        tokens = len(self._layout.rows)
        if not any(_is_packed(x, tokens) for x in args):
            return None
        self._cut.add(module)

        def cut(x: Any) -> Any:
            return self._layout.segments_of(x) if _is_packed(x, tokens) else x

        return tuple(map(cut, args)), {name: cut(x) for name, x in kwargs.items()}

    def _in_their_places(self, module: nn.Module, args: tuple, output: Any) -> Any:
        if module not in self._cut:
            return None
        self._cut.remove(module)
        if torch.is_tensor(output):
            return self._layout.spread(output)
        return self._layout.spread(output[0]), *output[1:]  # experts may give their scores with it


def _recomputed_without_hooks(layer: nn.Module) -> bool:
    """Whether gradient checkpointing runs a layer's `forward` again and not the layer, as newer transformers do."""
    checkpoints = getattr(layer, "gradient_checkpointing", False) and layer.training and torch.is_grad_enabled()
    return checkpoints and type(layer).__call__ is nn.Module.__call__


def _is_packed(x: Any, tokens: int) -> bool:
    return torch.is_tensor(x) and x.dim() == 3 and x.shape[:2] == (1, tokens)
