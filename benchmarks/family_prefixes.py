"""Packed rows of a family against plain ones: log-probs, entropies and gradients, in micro-batches and chunks."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import zip_longest

import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map
from trl.trainer.utils import add_fused_lm_head

from longact_trl.packing.forward import forward_once, forward_stretch, keep_prefixes, packed_attention_in
from longact_trl.packing.recurrence import RECURRENCES
from longact_trl.packing.schedule import take_turns
from longact_trl.training.preflight import returns_scores


PROMPTS, ROWS = [12, 25, 40], [(0, 3), (2, 20), (1, 7), (0, 7), (2, 11), (1, 1), (0, 4)]
"""Lengths of prompts, and of each row its prompt and the length of its completion."""


WAYS = ((len(ROWS), None), (2, None), (3, 10))
"""Rows of a micro-batch, and tokens of a chunk."""


def shared_prefix_error(model: nn.Module, plain: nn.Module, ways: Sequence[tuple[int, int | None]] = WAYS) -> float:
    """
    Largest relative difference between the log-probs, entropies and gradients of packed rows and of plain ones.
    Where all rows are in one micro-batch there is a load-balancing loss, too, in models that have it.

    Args:
        model, plain (`nn.Module`):
            Two copies of a model.
        ways (`Sequence[tuple[int, int | None]]`, *optional*):
            Rows of a micro-batch, and tokens of a chunk.

    Returns:
        `float`: Of norms; gradients count against a ten-thousandth of the largest one at least.
    """
    generator = torch.Generator().manual_seed(0)
    width, longest = max(PROMPTS) + 4, max(length for _, length in ROWS) + 12  # others of the generation are longer
    texts = [torch.randint(3, 60, (length,), generator=generator) for length in PROMPTS]
    ids, mask = torch.zeros(2, len(ROWS), width + longest, dtype=torch.long)
    for row, (prompt, length) in enumerate(ROWS):
        start = width - PROMPTS[prompt]
        ids[row, start:width] = texts[prompt]
        ids[row, width : width + length] = torch.randint(3, 60, (length,), generator=generator)
        mask[row, start : width + length] = 1
    labels = ids.masked_fill(mask == 0, -100)
    labels[:, :width] = -100
    batch = {"input_ids": ids, "attention_mask": mask, "labels": labels}
    text = model.config.get_text_config()
    balanced = hasattr(text, "output_router_logits") and hasattr(text, "num_experts") and returns_scores(model)
    for each in (model, plain):
        add_fused_lm_head(each.train(), temperature=0.8, outputs=("log_probs", "entropy"))
    errors = []
    for rows, chunk in ways:
        others = {"fused_lm_head": True}
        if balanced and rows == len(ids):
            others["output_router_logits"] = True  # as TRL does for a load-balancing loss
        turns = take_turns(ids[:, :width], mask[:, :width], [len(x) for x in ids.split(rows)], True, chunk)
        with exact_recurrences_in(model):
            expected = _outputs(plain, plain, batch, others, len(ids))
            with packed_attention_in(model):
                found = _outputs(model, partial(forward_once, model, width), batch, others, rows, turns)
        assert found.keys() == expected.keys()
        size = max(value.norm() for value in expected.values())
        errors += [float((found[n] - e).norm() / e.norm().clamp(min=1e-4 * size)) for n, e in expected.items()]
    return max(errors)


@contextmanager
def exact_recurrences_in(model: nn.Module) -> Iterator[None]:
    """
    Let recurrences compute in float64. In transformers' float32 the gradient of a decay is off by up to 4e-4 on the
    plain path, which adds logarithms of decays over 64 tokens, and on the packed one by less.
    """
    file = sys.modules[type(model).__module__]
    usual = {name: getattr(file, name) for name in RECURRENCES if hasattr(file, name)}

    def exactly(function, *args, **kwargs):
        with _InDouble():
            result = function(*args, **kwargs)
        if isinstance(result, tuple):  # the state stays exact
            return result[0].to(args[0].dtype), result[1]
        return result.to(args[0].dtype)

    try:
        for name, function in usual.items():
            setattr(file, name, partial(exactly, function))
        yield
    finally:
        for name, function in usual.items():
            setattr(file, name, function)


class _InDouble(TorchFunctionMode):
    """Whatever asks for float32 gets float64."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is torch.Tensor.float:
            function = torch.Tensor.double
        args, kwargs = tree_map(lambda x: torch.float64 if x is torch.float32 else x, (args, kwargs or {}))
        return function(*args, **kwargs)


def _outputs(model: nn.Module, forward, batch, others: dict, rows: int, turns=()) -> dict[str, torch.Tensor]:
    """Of the rows in micro-batches, in the order of the rows, and the gradients of them all."""
    model.zero_grad()
    torch.manual_seed(7)
    shape = 2, len(ROWS), batch["labels"].size(1) - 1
    weights = torch.randn(shape, generator=torch.Generator().manual_seed(1)).split(rows, dim=1)
    parts = zip(*(x.split(rows) for x in batch.values()), strict=True)
    outputs = []
    for weight, part, turn in zip_longest(weights, parts, turns):
        if turn is not None:
            keep_prefixes(model, turn, model.device)
        output = forward(*[turn] * (turn is not None), **dict(zip(batch, part, strict=True)), **others)
        loss = (output.log_probs * weight[0] + output.entropy * weight[1]).sum()
        if output.aux_loss is not None:
            loss = loss + 3 * output.aux_loss
        loss.backward()
        for stretch in turn.after if turn is not None else ():
            forward_stretch(model, stretch, model.device).backward()
        outputs.append(output)
    results = {name: torch.cat([o[name] for o in outputs]).detach() for name in ("log_probs", "entropy")}
    if outputs[0].aux_loss is not None:
        results["aux_loss"] = outputs[0].aux_loss.detach()
    return results | {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
