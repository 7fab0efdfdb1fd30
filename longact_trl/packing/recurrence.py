"""
Recurrent layers over packed groups: the state after a prefix is where each of its segments begins.

The layers themselves run as they are. Two functions in them mix tokens, a short convolution and a recurrence, which
each model file of transformers looks up by name when it is called. While packed rows are forwarded, these names stand
for functions that call the file's own once for each prefix and once for all segments, side by side. What goes from
one to the other is the convolution's last inputs and the recurrence's final state, both differentiable. Where other
passes share a prefix, a `KeptPrefix` holds both, and the gradients that reach them from there.

Shapes: T packed tokens, C channels of the convolution, W its width.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence

from .layout import Group, PackedLayout


class Recurrence(NamedTuple):
    """
    How a recurrence is called.

    Args:
        tokens (`tuple[int | str, ...]`):
            Its arguments of shape (B, T, …), by position or name.
        initial (`str`):
            Name of the argument that is the state before the first token.
        wants_final (`str`):
            Name of the argument by which it also returns the state after the last.
        returns_pair (`bool`):
            Whether it returns outputs and `None` where that is not wanted, rather than outputs alone.
    """

    tokens: tuple[int | str, ...]
    initial: str
    wants_final: str
    returns_pair: bool


DELTA_RULE = Recurrence((0, 1, 2, "g", "beta"), "initial_state", "output_final_state", True)
RECURRENCES = {
    "torch_chunk_gated_delta_rule": DELTA_RULE,
    "chunk_kimi_delta_attention": DELTA_RULE,
    "mamba2_chunk_scan": Recurrence((0, 1, 3, 4), "initial_states", "return_final_states", False),
}
"""By their names in transformers' model files."""
CONVOLUTION = "causal_conv1d_fn"
FUSED = "mamba2_split_conv1d_scan_combined"
"""Convolution and recurrence in one kernel, or nothing where there is no such kernel."""


def knows_recurrence(model_class: type) -> bool:
    """Whether a model's file has a convolution and a recurrence of these."""
    file = sys.modules[model_class.__module__]
    return hasattr(file, CONVOLUTION) and any(hasattr(file, name) for name in RECURRENCES)


def recurrent_layers(module: nn.Module) -> list[nn.Module]:
    """The modules within one, or itself, that convolve and recur."""
    modules = (part for part in module.modules() if isinstance(getattr(part, "conv1d", None), nn.Conv1d))
    return [part for part in modules if knows_recurrence(type(part))]


@contextmanager
def packed_recurrence_in(*decoders: nn.Module) -> Iterator[None]:
    """
    Let recurrent layers pass states from prefixes to segments while the context lasts.

    Args:
        decoders (`nn.Module`):
            Models, with recurrent layers or without.
    """
    layers = [layer for decoder in decoders for layer in recurrent_layers(decoder)]
    files = {sys.modules[type(layer).__module__] for layer in layers}
    mixing = {CONVOLUTION: _convolve, FUSED: _unfused}
    mixing |= {name: partial(_recur, recurrence) for name, recurrence in RECURRENCES.items()}
    usual = [(file, name, getattr(file, name)) for file in files for name in mixing if hasattr(file, name)]
    packed: set[nn.Module] = set()  # decoders that forward packed rows right now
    handles = [layer.register_forward_pre_hook(partial(_say_who_calls, packed), with_kwargs=True) for layer in layers]
    handles += [layer.register_forward_hook(_check_calls, with_kwargs=True) for layer in layers]
    for decoder in decoders:
        handles.append(decoder.register_forward_pre_hook(partial(_begin, packed), with_kwargs=True))
        handles.append(decoder.register_forward_hook(partial(_end, packed), always_call=True))
    try:
        for file, name, function in usual:
            setattr(file, name, partial(mixing[name], function))
        yield
    finally:
        for handle in handles:
            handle.remove()
        for file, name, function in usual:
            setattr(file, name, function)


class _Call(NamedTuple):
    """One forward pass of a layer, and which of the functions it has called."""

    layer: nn.Module
    functions: set[str]


def _begin(packed: set[nn.Module], decoder: nn.Module, args: tuple, kwargs: dict) -> None:
    if "shared_prefix" in kwargs:
        packed.add(decoder)


def _end(packed: set[nn.Module], decoder: nn.Module, args: tuple, output: Any) -> None:
    packed.discard(decoder)


def _say_who_calls(packed: set[nn.Module], layer: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict] | None:
    """Both functions get the keyword arguments of their layer, the layout among them."""
    if "shared_prefix" in kwargs:
        return args, {**kwargs, "recurrent_call": _Call(layer, set())}
    if packed:  # as transformers 5.6 does not
        raise ValueError(
            f"{type(layer).__name__} is not told where a prompt's completions begin: this version of transformers "
            "keeps a model's keyword arguments from it. Write `shared_prefix: 'off'`."
        )
    return None


def _check_calls(layer: nn.Module, args: tuple, kwargs: dict, output: Any) -> None:
    """A kernel in place of the whole layer, such as transformers takes from the Hub, would mix rows."""
    if "shared_prefix" in kwargs and len(kwargs["recurrent_call"].functions) != 2:
        raise ValueError(
            f"{type(layer).__name__} mixes tokens by other functions than those of its file in transformers, and they "
            "do not know where a prompt's completions begin. Write `shared_prefix: 'off'`."
        )


def _unfused(usual: Callable, *args, shared_prefix: PackedLayout | None = None, recurrent_call=None, **kwargs):
    return usual(*args, **kwargs) if shared_prefix is None else None


def _convolve(
    usual: Callable,
    inputs: torch.Tensor,
    *args,
    shared_prefix: PackedLayout | None = None,
    recurrent_call: _Call | None = None,
    **kwargs,
) -> torch.Tensor:
    """A causal convolution (1, C, T) to (1, C, T): one call, over pieces that each begin with what came before."""
    if shared_prefix is None:
        return usual(inputs, *args, **kwargs)
    layout, layer = shared_prefix, recurrent_call.layer
    recurrent_call.functions.add(CONVOLUTION)
    key, width, pieces, ends = (layer, CONVOLUTION), layer.conv1d.kernel_size[0] - 1, [], []
    for group in layout.groups:
        before = _state_before(group, key, inputs)
        if before is None:
            before = inputs.new_zeros(1, inputs.size(1), width)
        if group.prefix.start < group.prefix.stop:
            pieces.append(torch.cat([before, inputs[..., group.prefix]], -1))
            before = pieces[-1][..., -width:]
            ends.append((group, before))
        pieces += [torch.cat([before, inputs[..., segment]], -1) for segment in group.segments]
    mixed = usual(torch.cat(pieces, -1), *args, **kwargs)
    mixed = [part[..., width:] for part in mixed.split([piece.size(-1) for piece in pieces], -1)]
    return _states_after(torch.cat(mixed, -1), layout, key, ends)


def _recur(
    recurrence: Recurrence,
    usual: Callable,
    *args,
    shared_prefix: PackedLayout | None = None,
    recurrent_call: _Call | None = None,
    **kwargs,
) -> Any:
    """A recurrence over packed tokens: a call for each prefix, and one for all segments, padded at their ends."""
    if shared_prefix is None:
        return usual(*args, **kwargs)
    recurrent_call.functions.add(recurrence.initial)
    arguments = dict(enumerate(args)) | kwargs

    def over(rows: list[slice], state: torch.Tensor | None, wants_final: bool):
        given = arguments | {recurrence.initial: state, recurrence.wants_final: wants_final}
        for name in recurrence.tokens:
            given[name] = pad_sequence([arguments[name][0, row] for row in rows], batch_first=True)
        named = {name: value for name, value in given.items() if isinstance(name, str)}
        result = usual(*(given[position] for position in range(len(args))), **named)
        return result if isinstance(result, tuple) else (result, None)

    layout, key, outputs, ends, states = shared_prefix, (recurrent_call.layer, recurrence.initial), {}, [], {}
    for group in layout.groups:
        state = _state_before(group, key, arguments[0])
        if group.prefix.start < group.prefix.stop:
            out, state = over([group.prefix], state, True)
            outputs[group.prefix.start] = out[0]
            ends.append((group, state))
        states |= {(segment.start, segment.stop): state for segment in group.segments}
    if states:
        rows = [slice(*row) for row in states]
        out = over(rows, _stack(list(states.values())), False)[0]
        outputs |= {row.start: part[: row.stop - row.start] for row, part in zip(rows, out, strict=True)}
    out = torch.cat([outputs[start] for start in sorted(outputs)]).unsqueeze(0)
    out = _states_after(out, layout, key, ends)
    return (out, None) if recurrence.returns_pair else out


def _stack(states: list[torch.Tensor | None]) -> torch.Tensor | None:
    """States (1, …) of rows side by side, zero where a row begins with nothing."""
    known = next((state for state in states if state is not None), None)
    if known is None:
        return None
    return torch.cat([torch.zeros_like(known) if state is None else state for state in states])


# States that go from one pass to another


def _state_before(group: Group, key: tuple, like: torch.Tensor) -> torch.Tensor | None:
    """The state that another pass has kept, whose gradient goes there."""
    if not group.seen:
        return None
    state = group.kept.read_state(key, group.seen, like.device)
    if torch.is_grad_enabled():
        state.requires_grad_().register_hook(partial(group.kept.add_state_gradient, key, group.seen))
    return state


def _states_after(out: torch.Tensor, layout: PackedLayout, key: tuple, ends: list) -> torch.Tensor:
    """`out`, through which the states after prefixes are kept, or get the gradients that other passes kept."""
    for group, state in ends:
        if group.kept is None:
            continue
        stop = group.seen + group.prefix.stop - group.prefix.start
        if layout.writes:
            group.kept.write_state(key, stop, state)
        else:
            out = _AddKeptGradient.apply(out, state, group.kept, key, stop)
    return out


class _AddKeptGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx, out, state, kept, key, stop):
        ctx.kept, ctx.key, ctx.stop = kept, key, stop
        return out.view_as(out)

    @staticmethod
    def backward(ctx, grad):
        return grad, ctx.kept.state_gradient(ctx.key, ctx.stop, grad.device), None, None, None
