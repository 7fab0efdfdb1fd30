"""What must hold of a family's projections, whatever its attention looks like: each check compares with brute force.

Shapes: B rows, S tokens, H heads, D channels per head.
"""

import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import zip_longest

import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map
from trl.trainer.utils import add_fused_lm_head

from longact_trl.method.gradients import GradientMasker
from longact_trl.method.magnitude import measure_magnitudes
from longact_trl.method.masks import select_rows
from longact_trl.method.projections import Projection, find_projections, row_dim
from longact_trl.packing.forward import forward_once, forward_stretch, keep_prefixes, packed_attention_in
from longact_trl.packing.recurrence import RECURRENCES
from longact_trl.packing.schedule import take_turns
from longact_trl.training.preflight import returns_scores


def make_batch() -> dict[str, torch.Tensor]:
    """Three rows of 16 tokens, padded on the left."""
    ids = torch.randint(3, 60, (3, 16), generator=torch.Generator().manual_seed(3))
    mask = torch.ones_like(ids)
    for row, padding in enumerate((0, 5, 9)):
        mask[row, :padding] = ids[row, :padding] = 0
    return {"input_ids": ids, "attention_mask": mask}


# Which rows are Q's and K's


@torch.no_grad()
def check_rows(model: nn.Module) -> None:
    """
    Q meets K in a product and nowhere else. So where all queries are zero keys cannot matter, and the reverse; where
    one head's queries are zero, its own keys cannot.

    Raises:
        `AssertionError`: If rows of something else were taken for Q's or K's, or some of theirs were left out.
    """
    projections = find_projections(model)
    batch = make_batch()
    logits = _logits(model, batch)
    kinds = {kind: {p.name.rpartition(".")[0] for p in projections if p.kind == kind} for kind in "qk"}
    for still, moved in (("q", "k"), ("k", "q")):
        if not kinds["k"] or type(model).__name__ in MIXES_QK or (still == "k" and kinds["k"] != kinds["q"]):
            continue  # the rest of K makes V too, or is in other layers
        with _changed(projections, still, 0.0):
            silent = _logits(model, batch)
            with _changed(projections, moved, 1.7):
                assert torch.allclose(_logits(model, batch), silent, atol=1e-4), f"not all rows of {still} were found"
        with _changed(projections, moved, 1.7):
            assert type(model).__name__ in UNIT_QK or not torch.allclose(_logits(model, batch), logits, atol=1e-4)


@torch.no_grad()
def check_heads(model: nn.Module) -> None:
    """
    Where all queries but those of one head are zero, only that head's key head matters.

    Raises:
        `AssertionError`: If rows of one head were taken for another's.
    """
    projections, layers = find_projections(model), defaultdict(dict)
    for p in projections:
        layers[p.name.rpartition(".")[0]].setdefault(p.kind, p)
    batch = make_batch()
    for layer in layers.values():
        if layer.keys() != {"q", "k"} or type(model).__name__ in MIXES_QK | MIXES_HEADS:
            continue
        query, key = layer["q"], layer["k"]
        elsewhere = [p for p in projections if p is not query]
        if _normalises_heads_together(model.get_submodule(key.name.rpartition(".")[0]), key.head_dim):
            continue
        for head in {0, query.num_heads - 1}:
            own = head // (query.num_heads // key.num_heads)
            others = [h for h in range(query.num_heads) if h != head]
            with _changed([query], "q", 0.0, others), _changed(elsewhere, "q", 0.0):
                before = _logits(model, batch)
                with _changed([key], "k", 1.7, [h for h in range(key.num_heads) if h != own]):
                    assert torch.allclose(_logits(model, batch), before, atol=1e-4), f"{key.name}: not head {own}'s"


def _normalises_heads_together(attention: nn.Module, head_dim: int) -> bool:
    return any("norm" in n and "k" in n and p.numel() > head_dim for n, p in attention.named_parameters())


MIXES_QK = {"ZayaForCausalLM"}
"""Where Q and K meet before their product: a convolution over both."""
MIXES_HEADS = {"DiffLlamaForCausalLM", "DogeForCausalLM"}
"""Where a head attends with more than its own keys, or heads are normalised together."""
UNIT_QK = {"NanoChatForCausalLM"}


class _changed:
    """Rows of some heads times a factor, as long as the context lasts; 0 silences them, anything else is noise too."""

    def __init__(self, projections: list[Projection], kind: str, factor: float, heads: list[int] | None = None):
        self.projections, self.kind, self.factor, self.heads = projections, kind, factor, heads

    def __enter__(self):
        self.before = []
        generator = torch.Generator().manual_seed(8)
        for p in (p for p in self.projections if p.kind == self.kind):
            for name, param in p.module.named_parameters():
                self.before.append((param, param.detach().clone()))
                rows = param.t() if name == "weight" and row_dim(p.module) else param
                for head, part in enumerate(p.slices):
                    if self.heads is None or head in self.heads:
                        noise = torch.rand(rows[part].shape, generator=generator) if self.factor else 0.0
                        rows[part] = rows[part] * self.factor + noise

    def __exit__(self, *error):
        for param, value in reversed(self.before):
            param.copy_(value)


def _logits(model: nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    logits = model(**batch).logits
    return logits[batch["attention_mask"].bool()]


# Magnitudes


@torch.no_grad()
def check_magnitudes(model: nn.Module) -> None:
    """
    Magnitudes equal sums over every token of every run of every module, one channel at a time.

    Raises:
        `AssertionError`: If one does not.
    """
    projections, batch = find_projections(model), make_batch()
    outputs = defaultdict(list)
    hooks = [
        module.register_forward_hook(lambda module, args, output, name=p.name: outputs[name].append(output.double()))
        for p in projections
        for module in p.modules
    ]
    model(**batch)
    for hook in hooks:
        hook.remove()
    found = measure_magnitudes(model, batch)
    for p in projections:
        expected = torch.zeros(p.num_heads, p.head_dim, dtype=torch.double)
        for output in outputs[p.name]:
            for row, mask in zip(output.flatten(1, -2), batch["attention_mask"].bool(), strict=True):
                for head, part in enumerate(p.slices):
                    expected[head] += row[mask][:, part].square().sum(0).sqrt() / len(batch["input_ids"])
        assert torch.allclose(found[p.name].double(), expected, rtol=1e-5), p.name


# Masks


def check_masks(model: nn.Module, row_sparse: str) -> None:
    """
    Masked gradients equal dense ones whose unselected rows were zeroed by hand.

    Raises:
        `AssertionError`: If one does not.
    """
    projections = find_projections(model)
    generator = torch.Generator().manual_seed(5)
    masks = {p.name: select_rows(torch.rand(p.num_heads, p.head_dim, generator=generator), 0.3) for p in projections}
    expected = _gradients(model)
    names = {param: name for name, param in model.named_parameters()}
    learns = {name: torch.ones_like(gradient, dtype=torch.bool) for name, gradient in expected.items()}
    for p in projections:
        starts = [row for part in p.slices for row in range(part.start, part.stop)]
        for name, param in p.module.named_parameters():
            rows = learns[names[param]].t() if name == "weight" and row_dim(p.module) else learns[names[param]]
            for row, selected in zip(starts, masks[p.name].tolist(), strict=True):
                rows[row] = selected
    masker = GradientMasker(projections, row_sparse)
    masker.set_masks(masks)
    masker.attach()
    try:
        found = _gradients(model)
    finally:
        masker.detach()
    assert found.keys() == expected.keys()
    size = max(gradient.norm() for gradient in expected.values())
    for name, gradient in expected.items():
        assert not found[name][~learns[name]].any(), f"{name}: unselected rows have a gradient"
        assert torch.allclose(found[name], gradient * learns[name], rtol=1e-5, atol=1e-6 * float(size)), name
    for p in projections:
        weight = found[names[next(iter(p.module.parameters()))]]
        assert (weight.t() if row_dim(p.module) else weight)[p.rows].any(), f"{p.name} learns nothing"


def _gradients(model: nn.Module) -> dict[str, torch.Tensor]:
    batch = make_batch()
    model.zero_grad()
    torch.manual_seed(11)
    labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)[:, 1:]
    logits = model.train()(**batch).logits[:, :-1].float()
    nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten()).backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    model.eval()
    return gradients


# Shared prefixes

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
