"""Where the Q, K and V projections live in a model: which module, which of its output rows, which heads.

| attention                | modules                                | rows of Q and K                          |
|--------------------------|----------------------------------------|------------------------------------------|
| separate                 | `q_proj`, `k_proj` and other names     | all                                      |
| gated                    | `q_proj`                               | every other head_dim; between: the gate  |
| fused                    | `qkv_proj`, `query_key_value`, …       | blocks, or interleaved head by head      |
| latent (DeepSeek's MLA)  | `q_b_proj`, `kv_b_proj`, `kv_a_proj_…` | see docs/models.md                       |
| K makes V too            | `k_proj` without a `v_proj`            | Q's only: rows that make V train dense   |
| K and V of another layer | `q_proj` alone                         | Q's; K is measured where it is made      |

What shapes do not tell is in `attention_table.py`, a line for each class.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import nn

from .attention_layers import attention_layers, is_custom
from .attention_table import FUSED, GATED, HEAD_DIMS, NO_QUERIES, OUTPUTS, SEPARATE
from .tied_weights import check_tied_to_nothing_else


@dataclass(frozen=True)
class Projection:
    """
    One of the Q, K or V projections of an attention layer: its heads, each a slice of a module's output rows.

    Args:
        name (`str`):
            Dotted path in the model without PEFT's prefix, e.g. `"model.layers.0.self_attn.q_proj"`. A projection
            that is a part of a module, or has another name there, is told by a suffix: `"….qkv_proj:q"`.
        kind (`str`):
            `"q"`, `"k"` or `"v"`.
        module (`nn.Module`):
            The linear module, or the PEFT layer around it. Its output has shape (B, S, rows of the module).
        num_heads (`int`):
            Number of heads; K and V have fewer than Q under grouped-query attention.
        head_dim (`int`):
            Channels per head.
        offset (`int`, *optional*, defaults to `0`):
            First output row of the first head in `module`.
        starts (`tuple[int, ...]`, *optional*):
            First output row of each head, where heads do not stand side by side.
        tied (`tuple[nn.Module, ...]`, *optional*):
            Further modules that hold the same weight, as in Zamba, where several layers are one block.
    """

    name: str
    kind: str
    module: nn.Module
    num_heads: int
    head_dim: int
    offset: int = 0
    starts: tuple[int, ...] = ()
    tied: tuple[nn.Module, ...] = ()

    @property
    def modules(self) -> tuple[nn.Module, ...]:
        """All modules that hold this weight."""
        return (self.module, *self.tied)

    @property
    def slices(self) -> tuple[slice, ...]:
        """Output rows of each head in `module`."""
        starts = self.starts or range(self.offset, self.offset + self.num_heads * self.head_dim, self.head_dim)
        return tuple(slice(start, start + self.head_dim) for start in starts)

    @cached_property
    def rows(self) -> slice | torch.Tensor:
        """Output rows of `module` that belong to this projection, head by head: an index, a slice where it can be."""
        slices = self.slices
        if all(one.stop == following.start for one, following in zip(slices, slices[1:], strict=False)):
            return slice(slices[0].start, slices[-1].stop)
        return torch.tensor([row for head in slices for row in range(head.start, head.stop)], device="cpu")


def find_projections(model: nn.Module, kinds: Sequence[str] = ("q", "k")) -> list[Projection]:
    """
    Find the self-attention projections of a decoder by structure. Vision towers, encoders, cross-attention and
    recurrent layers have none.

    Args:
        model (`nn.Module`):
            A causal language model, also one that reads images, plain or wrapped by PEFT.
        kinds (`Sequence[str]`, *optional*, defaults to `("q", "k")`):
            Which of `"q"`, `"k"` and `"v"` to return. Rows that make K and V at once are neither.

    Returns:
        `list[Projection]`: In layer order, Q before K before V, each weight once.

    Raises:
        `ValueError`: If it is not known which rows of an attention layer are Q's or K's; names layer and reason.
    """
    found: dict[tuple, Projection] = {}
    layers = list(attention_layers(model))
    for name, attention in layers:
        for projection in _projections_of(name, attention):
            if projection.kind in kinds:
                key = (id(_weight_of(projection.module)), projection.kind, projection.offset, projection.starts)
                first = found.setdefault(key, projection)
                if projection.module not in first.modules:
                    found[key] = replace(first, tied=(*first.tied, projection.module))
    if not layers:
        raise ValueError(
            f"{type(model).__name__} has no attention layer, so there is no W_Q and no W_K: LongAct has nothing to "
            "mask. Train it with GRPOTrainer."
        )
    check_tied_to_nothing_else(model, {p.name: (_weight_of(p.module), p.modules) for p in found.values()})
    return list(found.values())


def modules_in_words(projections: Sequence[Projection]) -> str:
    """
    Where the rows of each kind are, in words.

    Args:
        projections (`Sequence[Projection]`):
            Of one model.

    Returns:
        `str`: Such as `"Q in q_b_proj, K in kv_b_proj and kv_a_proj_with_mqa"`.
    """
    modules: dict[str, dict[str, None]] = {}
    for p in projections:
        modules.setdefault(p.kind, {})[p.name.rpartition(".")[2].partition(":")[0]] = None
    return ", ".join(f"{kind.upper()} in {' and '.join(names)}" for kind, names in modules.items())


def _projections_of(name: str, attention: nn.Module) -> Iterator[Projection]:
    children = {n: _unwrapped(child) for n, child in attention.named_children()}
    classes = [base.__name__ for base in type(attention).__mro__]
    if reason := next((NO_QUERIES[c] for c in classes if c in NO_QUERIES), None):
        raise ValueError(f"LongAct needs the rows of W_Q and W_K, but {name} ({classes[0]}) {reason}.")
    if adapter := next((n for n, m in children.items() if "adapter" in n and [*m.parameters()]), None):
        raise ValueError(
            f"LongAct needs the rows of W_Q and W_K, but {name} ({classes[0]}) adds what {adapter} makes to its "
            "queries and keys."
        )
    if "kv_b_proj" in children:
        yield from _latent(name, attention, children)
        return
    for child, module in children.items():
        layout = next((FUSED[key] for key in (*((c, child) for c in classes), child) if key in FUSED), None)
        if layout and is_custom(attention) and not any((c, child) in FUSED for c in classes):
            raise ValueError(
                f"{name}.{child} ({classes[0]}) makes Q, K and V, and how custom code lays them out is not known. "
                "CONTRIBUTING.md says how a family is added."
            )
        if layout and (hasattr(module, "weight") or hasattr(module, "base_layer")):
            yield from _fused(f"{name}.{child}", attention, module, children, layout)
            return
        inside = dict(module.named_children()).keys()
        if "q_proj" not in children and {"q_proj", "k_proj"} <= inside:  # in a module of their own
            inner = {n: _unwrapped(c) for n, c in module.named_children()}
            yield from _separate(f"{name}.{child}", attention, children | inner, SEPARATE[0], classes)
            return
    for names in SEPARATE:
        if names[0] in children:
            yield from _separate(name, attention, children, names, classes)
            return
    raise ValueError(
        f"LongAct needs the Q and K projections of every attention layer and does not know those of {name} "
        f"({classes[0]}: {', '.join(children)}). CONTRIBUTING.md says how a family is added."
    )


def _separate(
    name: str, attention: nn.Module, children: Mapping[str, nn.Module], names: Sequence[str], classes: Sequence[str]
) -> Iterator[Projection]:
    query, key, value = (children.get(n) for n in names)
    head_dim = _head_dim(attention)
    if query is None or num_rows(query) % head_dim:
        raise _wrong_rows(f"{name}.{names[0]}", query, head_dim)
    key = children.get("kv_proj") if key is None else key
    if key is not None and num_rows(key) % head_dim:
        raise _wrong_rows(f"{name}.{names[1]}", key, head_dim)
    others = [n for n, m in children.items() if hasattr(m, "out_features") and n not in (*names, *OUTPUTS)]
    if key is None and others:  # else K is another layer's
        raise ValueError(
            f"{name} ({classes[0]}) has no {names[1]}, and whether {' or '.join(others)} makes keys is not known. "
            "CONTRIBUTING.md says how a family is added."
        )
    makes_value = key is not None and not any(n.startswith(names[2]) for n in children)
    value_dim = num_rows(value) * head_dim // num_rows(key) if value is not None and key is not None else head_dim
    heads, stride = num_rows(query) // head_dim, head_dim
    output, config = _output(children), getattr(attention, "config", None)
    if output is None and is_custom(attention) and heads != getattr(config, "num_attention_heads", None):
        raise ValueError(
            f"{name}.{names[0]} has {num_rows(query)} rows, and none of {', '.join(OUTPUTS)} tells how many of them "
            "are Q's. CONTRIBUTING.md says how a family is added."
        )
    if output is not None and (expected := _num_columns(output) // value_dim) != heads:
        if heads != 2 * expected or not set(classes) & GATED:
            raise ValueError(
                f"{name}.{names[0]} has {num_rows(query)} rows, but the output projection takes {expected} heads of "
                f"{value_dim} channels, and queries of {head_dim} channels would be {expected * head_dim} rows: it is "
                "not known which rows are Q's. CONTRIBUTING.md says how a family is added."
            )
        heads, stride = expected, 2 * head_dim  # of each head: the query, then the gate of its output
    yield _projection(name, "q", names[0], query, head_dim, range(0, heads * stride, stride))
    for kind, module, child, dim in (("k", key, names[1], head_dim), ("v", value, names[2], value_dim)):
        if module is not None and not makes_value:
            yield _projection(name, kind, child, module, dim, range(0, num_rows(module), dim))


def _fused(
    name: str, attention: nn.Module, module: nn.Module, children: Mapping[str, nn.Module], layout
) -> Iterator[Projection]:
    head_dim, rows = _head_dim(attention), num_rows(module)
    heads = _num_columns(_output(children)) // head_dim
    pairs, rest = divmod(rows - heads * head_dim, 2 * head_dim)
    if rest or pairs <= 0 or heads % pairs:
        raise ValueError(
            f"{name} has {rows} rows, but {heads} query heads of {head_dim} channels, as the output projection takes, "
            f"leave {rows - heads * head_dim} for keys and values, which is no whole number of heads."
        )
    path, _, child = name.rpartition(".")
    for kind, firsts in zip("qkv", layout(heads, pairs), strict=True):
        yield _projection(path, kind, child, module, head_dim, [first * head_dim for first in firsts])


def _latent(name: str, attention: nn.Module, children: Mapping[str, nn.Module]) -> Iterator[Projection]:
    """Multi-head latent attention (DeepSeek-V2, arXiv:2405.04434): a head of K is made in two places."""
    nope, rope, value_dim = (getattr(attention, n) for n in ("qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim"))
    heads, rest = divmod(num_rows(children["kv_b_proj"]), nope + value_dim)
    child = next((n for n in ("q_b_proj", "q_gate_proj", "q_proj") if n in children), None)
    query = children.get(child)
    stride = nope + rope + (value_dim if child == "q_gate_proj" else 0)  # there each query's gate follows it
    down = children.get("kv_a_proj_with_mqa")
    if rest or query is None or num_rows(query) != heads * stride or (rope and down is None):
        raise ValueError(
            f"{name} ({type(attention).__name__}: {', '.join(children)}) is a latent attention, but its rows are not "
            f"heads of {nope} + {rope} channels for keys and {value_dim} for values."
        )
    yield _projection(name, "q", child, query, nope + rope, range(0, heads * stride, stride))
    up, step = children["kv_b_proj"], nope + value_dim
    yield _projection(name, "k", "kv_b_proj", up, nope, range(0, heads * step, step))
    if rope:  # one head of rotated channels that all heads share
        yield _projection(name, "k", "kv_a_proj_with_mqa", down, rope, [num_rows(down) - rope])
    yield _projection(name, "v", "kv_b_proj", up, value_dim, range(nope, heads * step, step))


def _projection(
    path: str, kind: str, child: str, module: nn.Module, head_dim: int, starts: Sequence[int]
) -> Projection:
    name = f"{path}.{child}" if child == f"{kind}_proj" else f"{path}.{child}:{kind}"
    projection = Projection(name, kind, module, len(starts), head_dim, starts[0], tuple(starts))
    return replace(projection, starts=()) if isinstance(projection.rows, slice) else projection


def num_rows(module: nn.Module) -> int:
    """Output rows of a linear module, GPT-2's Conv1D or the PEFT layer around one."""
    return module.nf if hasattr(module, "nf") else module.out_features


def row_dim(module: nn.Module) -> int:
    """Dimension of a module's weight that counts output rows: 0, or 1 in GPT-2's Conv1D, which is transposed."""
    return int(hasattr(module, "nf"))


def _num_columns(module: nn.Module) -> int:
    return module.nx if hasattr(module, "nx") else module.in_features


def _output(children: Mapping[str, nn.Module]) -> nn.Module | None:
    return next((children[n] for n in OUTPUTS if n in children), None)


def _head_dim(attention: nn.Module) -> int:
    for name in HEAD_DIMS:
        if hasattr(attention, name):
            return getattr(attention, name)
    if hasattr(attention, "split_size"):
        return attention.split_size // attention.n_head  # GPT
    raise ValueError(
        f"LongAct needs to know how many channels a head has, and {type(attention).__name__} has none of "
        f"{', '.join(HEAD_DIMS)}. CONTRIBUTING.md says how a family is added."
    )


def _wrong_rows(name: str, module: nn.Module | None, head_dim: int) -> ValueError:
    rows = 0 if module is None else num_rows(module)
    return ValueError(f"{name} has {rows} rows, which is no multiple of its head_dim {head_dim}.")


def _unwrapped(module: nn.Module) -> nn.Module:
    """The linear layer inside one that only clips or names it (Gemma 4, Moshi)."""
    inner = getattr(module, "linear", None)
    return inner if isinstance(inner, nn.Module) and not hasattr(module, "weight") else module


def _weight_of(module: nn.Module) -> nn.Parameter:
    return getattr(module, "base_layer", module).weight
