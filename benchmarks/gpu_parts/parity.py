"""Log-probs and gradients of packed passes in bfloat16 beside TRL's plain ones; both against plain ones in float32."""

from collections.abc import Iterator
from functools import partial

import torch
from shared_prefix import Shape, make_batch, micro_batches
from torch import nn
from transformers import AutoModelForCausalLM
from trl.models.utils import disable_gradient_checkpointing

from longact_trl.packing.forward import forward_once, forward_stretch, keep_prefixes, packed_attention_in
from longact_trl.packing.schedule import take_turns

from .bench import Bench, config_of, model_of, ready


TITLE = "Parity of packed passes"
NOTE = (
    "Distance of log-probs (highest and mean, nats) and of gradients (relative L2, of all weights and of W_Q and "
    "W_K). Packing is right where it is as far from float32 as the plain pass is. Qwen3 has random weights, rounded "
    "to bfloat16 in both; SmolLM2 its own."
)
SHAPE = Shape(2048, 4, 256)
TINY_SHAPE = Shape(24, 4, 6)
MODELS = (("0.6B", None), ("4B", 4), ("8B", 2))
ARMS = {"packed": (4, None), "packed, one row at a time": (1, None), "packed, in chunks": (2, 1)}
"""Rows of a micro-batch, and chunks of a prompt's quarters."""


def measure(bench: Bench) -> Iterator[dict]:
    """A row for each model and arm."""
    for size, layers in MODELS[:1] if bench.miniature else MODELS:
        name = "tiny" if bench.miniature else f"Qwen3-{size}" + (f", {layers} layers" if layers else "")
        yield from _guarded(bench, name, lambda size=size, layers=layers: _random(bench, size, layers))
    if bench.smollm2 is None:
        yield {"model": "SmolLM2-135M", "skipped": "its folder is not here: give --smollm2 FOLDER"}
    else:
        yield from _guarded(bench, "SmolLM2-135M", lambda: _pretrained(bench))


def _random(bench: Bench, size: str, layers: int | None) -> nn.Module:
    model = model_of(bench, config_of(bench, size, layers), torch.float32)
    return cast(cast(model, torch.bfloat16), torch.float32)  # weights that bfloat16 has


def _pretrained(bench: Bench) -> nn.Module:
    model = AutoModelForCausalLM.from_pretrained(bench.smollm2, dtype=torch.bfloat16, attn_implementation="sdpa")
    return ready(bench, cast(model, torch.float32))


def cast(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Weights and gradients in another type. Buffers stay: `model.bfloat16()` also rounds the frequencies of RoPE, and
    far into a prompt queries and keys are then turned by other angles."""
    for parameter in model.parameters():
        grad, parameter.grad = parameter.grad, None
        parameter.data = parameter.data.to(dtype)
        parameter.grad = None if grad is None else grad.to(dtype)
    return model


def _guarded(bench: Bench, name: str, make) -> Iterator[dict]:
    rows: Iterator[dict] = iter(())

    def begin() -> dict:
        nonlocal rows
        rows = compare(make(), TINY_SHAPE if bench.miniature else SHAPE)
        return next(rows)

    measure = begin
    while row := bench.attempt(measure):  # a row is written once it is there
        yield {"model": name} | row
        measure = partial(next, rows, {})
    bench.free()


def compare(model: nn.Module, shape: Shape) -> Iterator[dict]:
    """The plain pass and each packed one, in bfloat16, against the plain one in float32."""
    batch = make_batch(shape, model.config.vocab_size, model.device)
    generator = torch.Generator().manual_seed(1)
    weights = torch.randn(shape.G, 1, generator=generator).to(model.device) / (shape.G * shape.C)  # as of advantages
    exact = plain_pass(model, batch, weights, shape)
    cast(model, torch.bfloat16)
    plain = plain_pass(model, batch, weights, shape)
    yield {"arm": "plain"} | {f"{k} to float32": v for k, v in distances(plain, exact).items()}
    with packed_attention_in(model):
        for arm, (size, quarters) in ARMS.items():
            chunk = quarters and -(-shape.P // 4)
            packed = packed_pass(model, batch, weights, shape, min(size, shape.G), chunk)
            row = {"arm": arm} | {f"{k} to float32": v for k, v in distances(packed, exact).items()}
            yield row | {f"{k} to plain": v for k, v in distances(packed, plain).items()}


def take_gradients(model: nn.Module) -> dict[str, torch.Tensor]:
    """Gradients so far, in float32, and zero from here on."""
    found = {}
    for name, parameter in model.named_parameters():
        found[name] = parameter.grad.to(torch.float32, copy=True)
        parameter.grad.zero_()
    return found


def plain_pass(model: nn.Module, batch: dict, weights: torch.Tensor, shape: Shape) -> tuple[torch.Tensor, dict]:
    """TRL's pass, row by row: log-probs (G, C) and gradients."""
    found = []
    for part, weight in zip(micro_batches(batch, 1), weights, strict=True):
        log_probs = model(**part).log_probs[:, shape.P - 1 :]
        (log_probs.float() * weight).sum().backward()
        found.append(log_probs.detach().float())
    return torch.cat(found).cpu(), take_gradients(model)


def packed_pass(
    model: nn.Module, batch: dict, weights: torch.Tensor, shape: Shape, size: int, chunk: int | None
) -> tuple[torch.Tensor, dict]:
    """The same, as `SharedPrefixTrainer` calls it in micro-batches of `size` rows."""
    ids, mask = (batch[name][:, : shape.P] for name in ("input_ids", "attention_mask"))
    parts = micro_batches(batch, size)
    turns = take_turns(ids, mask, [len(part["input_ids"]) for part in parts], True, chunk)
    found = []
    for turn, part, weight in zip(turns, parts, weights.split(size), strict=True):
        keep_prefixes(model, turn, model.device)
        log_probs = forward_once(model, shape.P, turn, **part).log_probs[:, shape.P - 1 :]
        (log_probs.float() * weight).sum().backward()
        found.append(log_probs.detach().float())
        for stretch in turn.after:
            with disable_gradient_checkpointing(model, {"use_reentrant": False}):
                zero = forward_stretch(model, stretch, model.device)
            zero.backward()
    return torch.cat(found).cpu(), take_gradients(model)


def distances(ours: tuple, theirs: tuple) -> dict[str, float]:
    """Of log-probs and of gradients."""
    off = (ours[0] - theirs[0]).abs()
    found = {"log-prob max": float(off.max()), "log-prob mean": float(off.mean())}
    for what, wanted in (("gradient", ""), ("W_Q, W_K", ("q_proj.weight", "k_proj.weight"))):
        names = [name for name in theirs[1] if name.endswith(wanted)]
        difference = sum(_squares(ours[1][name] - theirs[1][name]) for name in names)
        total = sum(_squares(theirs[1][name]) for name in names)
        found[what] = (difference / total) ** 0.5
    return found


def _squares(x: torch.Tensor) -> float:
    return float(x.square().sum(dtype=torch.float64))
