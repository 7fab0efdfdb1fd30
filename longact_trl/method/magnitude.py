"""Eq. 1–2: how strongly each channel of Q and K responds, measured while the model runs.

    M[h, d] = mean over sequences i of sqrt( sum over tokens s of Q[i, s, h, d]^2 )

Q and K are the outputs of the linear projections, before q_norm/k_norm and before RoPE.
Shapes: B batch, S sequence, H heads, D channels per head, C = H·D channels of a projection.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import nn

from .projections import Projection, find_projections


# Tokens squared at once. Bounds the float32 scratch memory to CHUNK_TOKENS × C whatever the sequence length.
CHUNK_TOKENS = 512

Magnitudes = dict[str, torch.Tensor]
"""Name of a projection to its magnitudes, float32 of shape (H, D), on the CPU."""


class MagnitudeObserver:
    """
    Accumulates Eq. 2 over forward passes. Only running sums of shape (C,) are kept, never activations.

    Sums over tokens are float32 whatever the model's dtype, sums over sequences float64, so the order of sequences
    and their split into micro-batches and ranks do not show in the result.

    Args:
        projections (`list[Projection]`):
            What to observe.
    """

    def __init__(self, projections: Sequence[Projection]):
        self.projections = list(projections)
        self.reset()

    def reset(self) -> None:
        """Forget everything observed so far."""
        self.num_sequences = 0
        self._sums: dict[str, torch.Tensor] = {}
        # Of prefixes that several passes share, by projection and prefix: which comes first is not known here.
        self._prefixes: dict[tuple[str, int], _KeptSquares] = defaultdict(_KeptSquares)

    @contextmanager
    def observe(self, model: nn.Module) -> Iterator[None]:
        """
        Observe every forward pass of `model` inside the context. Projections count only while `model.forward` runs,
        so the recomputation that gradient checkpointing does during backward is not counted a second time. All hooks
        are gone when the context ends.

        Args:
            model (`nn.Module`):
                The module whose `forward` receives `input_ids` (B, S) and `attention_mask` (B, S) as keywords, or
                packed rows and their layout as `shared_prefix`: the language model itself, unwrapped from DDP or
                DeepSpeed.
        """
        groups: list[_Group] = []  # while a forward pass runs
        num_tokens = 0  # of its rows

        def before_forward(module: nn.Module, args: tuple, kwargs: dict) -> None:
            nonlocal num_tokens
            num_tokens = kwargs["input_ids"].shape[-1]
            groups[:] = _groups(kwargs)
            self.num_sequences += sum(len(group.segments) for group in groups)

        def after_forward(module: nn.Module, args: tuple, output: object) -> None:
            groups.clear()

        def after_projection(projection: Projection):
            def hook(module: nn.Module, args: tuple, output: torch.Tensor) -> None:
                if groups:
                    self._add(projection, _as_wide(output.detach(), num_tokens), groups)

            return hook

        handles = []
        try:
            handles.append(model.register_forward_pre_hook(before_forward, with_kwargs=True))
            handles.append(model.register_forward_hook(after_forward, always_call=True))
            for projection in self.projections:
                for module in projection.modules:
                    handles.append(module.register_forward_hook(after_projection(projection)))
            yield
        finally:
            for handle in handles:
                handle.remove()

    @torch.no_grad()
    def _add(self, projection: Projection, output: torch.Tensor, groups: list["_Group"]) -> None:
        # Each projection by itself, whatever is observed beside it: other columns next to it give other last bits.
        rows = projection.rows
        window = rows if isinstance(rows, slice) else slice(min(rows).item(), max(rows).item() + 1)
        norms = [
            self._norms(projection.name, output[group.row, ..., window].flatten(0, -2), group)
            for group in groups
            if group.segments or group.kept is not None
        ]
        if norms:
            total = sum(norms) if isinstance(rows, slice) else sum(norms)[rows - window.start]
            self._sums[projection.name] = total + self._sums.get(projection.name, 0)

    def _norms(self, name: str, row: torch.Tensor, group: "_Group") -> torch.Tensor:
        """Sum over a group's sequences of their L2 norms over tokens, (S, C) in any dtype to float64 (C,)."""
        segments = [_sum_of_squares(row[segment]) for segment in group.segments]
        if group.kept is None:
            shared = _sum_of_squares(row[group.prefix])
        else:
            shared, segments = self._prefixes[name, group.kept.number].add(row[group.prefix], group, segments)
        zero = row.new_zeros(row.shape[-1], dtype=torch.float64)
        return sum(((shared + segment).sqrt().double() for segment in segments), zero)

    def compute(self) -> Magnitudes:
        """
        Reduce over all ranks and divide (Eq. 2). A collective where `torch.distributed` is initialised: call it on
        every rank. Ranks may have seen different numbers of sequences; all end with the same bits.

        Returns:
            `dict[str, torch.Tensor]`: Projection name to float32 magnitudes of shape (H, D) on the CPU.

        Raises:
            `ValueError`: If no rank has observed a sequence, or a projection took no part in the forward pass, or
                sequences were observed without the prefix that they share.
        """
        if any(squares.waiting for squares in self._prefixes.values()):
            raise ValueError("Sequences were observed whose prompt was not: observe every pass over it.")
        if self.num_sequences:
            for projection in self.projections:
                if projection.name not in self._sums:
                    raise ValueError(
                        f"{projection.name} never ran in the forward pass of the model. If the model is a deep copy, "
                        "its `forward` may still be the original's: load it anew instead."
                    )
        sizes = [p.num_heads * p.head_dim for p in self.projections]
        device = next(self.projections[0].module.parameters()).device
        empty = torch.zeros(sum(sizes), dtype=torch.float64, device=device)
        sums = torch.cat([self._sums[p.name] for p in self.projections]) if self._sums else empty
        totals = torch.cat([sums, sums.new_tensor([self.num_sequences])])
        sum_over_ranks(totals)
        sums, count = totals[:-1], totals[-1].item()
        if count == 0:
            raise ValueError("No sequence was observed: run the model inside `observe(model)` first.")
        means = (sums / count).float().cpu().split(sizes)
        return {p.name: m.view(p.num_heads, p.head_dim) for p, m in zip(self.projections, means, strict=True)}


def sum_over_ranks(tensor: torch.Tensor) -> torch.Tensor:
    """
    Sum over all ranks, in place.

    Args:
        tensor (`torch.Tensor`):
            This rank's part, on its training device.

    Returns:
        `torch.Tensor`: The same tensor, the same bits on every rank.
    """
    if dist.is_available() and dist.is_initialized():
        dist.all_reduce(tensor)
    return tensor


def channel_norms(sequence: torch.Tensor) -> torch.Tensor:
    """
    L2 norm over the tokens of one sequence, the inner part of Eq. 2.

    Args:
        sequence (`torch.Tensor` of shape (S, C)):
            Activations in any dtype, without padding.

    Returns:
        `torch.FloatTensor` of shape (C,): Summed in float32.
    """
    return _sum_of_squares(sequence).sqrt()


class _Group(NamedTuple):
    """Sequences that begin with the same tokens: where those are, and what follows in each. Padding is nowhere."""

    row: int  # of the batch
    prefix: slice
    segments: Sequence[slice | torch.Tensor]
    kept: Any = None  # what other passes share with it: has a number and a length
    seen: int = 0  # tokens of `kept` before the prefix


class _KeptSquares:
    """Sums of squares (C,) over a prefix that is shared by several passes, and the segments that wait for the last."""

    def __init__(self):
        self.parts: dict[int, torch.Tensor] = {}  # by first token
        self.num_tokens = 0
        self.waiting: list[torch.Tensor] = []

    def add(
        self, tokens: torch.Tensor, group: _Group, segments: list[torch.Tensor]
    ) -> tuple[torch.Tensor | None, list[torch.Tensor]]:
        """The whole prefix's sum, once it is known, and the segments' that it can now be added to."""
        if len(tokens) and group.seen not in self.parts:  # a second pass over it is no second measurement
            self.parts[group.seen] = _sum_of_squares(tokens)
            self.num_tokens += len(tokens)
        self.waiting += segments
        if self.num_tokens < len(group.kept):
            return None, []
        complete, self.waiting = self.waiting, []
        return sum(self.parts[start] for start in sorted(self.parts)), complete


def _sum_of_squares(tokens: torch.Tensor) -> torch.Tensor:
    # `vector_norm(dtype=float32)` would do, but copies the whole of a bfloat16 sequence on the CPU.
    return sum(chunk.float().square().sum(0) for chunk in tokens.split(CHUNK_TOKENS))


def _as_wide(output: torch.Tensor, num_tokens: int) -> torch.Tensor:
    """Zeros for the first tokens of each row where a layer skips them, as those of Gemma 4 without K and V do."""
    if output.dim() < 3 or (skipped := num_tokens - output.shape[1:-1].numel()) <= 0:
        return output
    return nn.functional.pad(output.flatten(1, -2), (0, 0, skipped, 0))


def _groups(kwargs: Mapping[str, Any]) -> list[_Group]:
    """The sequences of a forward pass: packed behind shared prompts, or each in a row of its own."""
    if "shared_prefix" in kwargs:
        return [
            _Group(0, group.prefix, group.segments, group.kept, group.seen) for group in kwargs["shared_prefix"].groups
        ]
    return [_Group(row, slice(0, 0), [tokens]) for row, tokens in enumerate(_real_tokens(kwargs))]


def _real_tokens(kwargs: Mapping[str, torch.Tensor]) -> list[slice | torch.Tensor]:
    """For each sequence of a batch, an index of its tokens without the padding: a slice (no copy) where it can be."""
    mask = kwargs.get("attention_mask")
    if mask is None:
        return [slice(None)] * len(kwargs["input_ids"])
    if mask.dim() != 2:
        raise ValueError(f"Expected an `attention_mask` of shape (B, S), got {tuple(mask.shape)}.")
    spans: list[slice | torch.Tensor] = []
    for row in mask.bool().cpu():
        tokens = row.nonzero().flatten()
        if tokens.numel() == 0:
            raise ValueError("A sequence of the batch is all padding: remove it before the forward pass.")
        first, last = tokens[0].item(), tokens[-1].item()
        spans.append(slice(first, last + 1) if last - first + 1 == tokens.numel() else tokens)
    return spans


def measure_magnitudes(
    model: nn.Module, batch: Mapping[str, torch.Tensor], kinds: Sequence[str] = ("q", "k")
) -> Magnitudes:
    """
    Magnitudes of one batch (LongAct, Eq. 2), the same numbers to the bit that training would use for it (with
    `shared_prefix`, which sums a prompt and its completions apart, to float32's rounding).

    Args:
        model (`nn.Module`):
            A causal language model, plain or wrapped by PEFT.
        batch (`Mapping[str, torch.Tensor]`):
            What a tokenizer returns: `input_ids` (B, S) and `attention_mask` (B, S), padded on either side.
        kinds (`Sequence[str]`, *optional*, defaults to `("q", "k")`):
            Which of `"q"`, `"k"` and `"v"` to measure.

    Returns:
        `dict[str, torch.Tensor]`: Projection name to float32 magnitudes of shape (H, D) on the CPU.

    Raises:
        `ValueError`: If the model's projections are not understood or a sequence is all padding.
    """
    observer = MagnitudeObserver(find_projections(model, kinds))
    with torch.no_grad(), observer.observe(model):
        # A tensor, since for a number newer transformers let layers skip all other tokens.
        last = torch.tensor([batch["input_ids"].shape[1] - 1], device=batch["input_ids"].device)
        model(input_ids=batch["input_ids"], attention_mask=batch.get("attention_mask"), logits_to_keep=last)
    return observer.compute()
