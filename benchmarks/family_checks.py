"""What must hold of a family's projections, whatever its attention looks like: each check compares with brute force.

Shapes: B rows, S tokens, H heads, D channels per head.
"""

from collections import defaultdict

import torch
from torch import nn

from longact_trl.method.gradients import GradientMasker
from longact_trl.method.magnitude import measure_magnitudes
from longact_trl.method.masks import select_rows
from longact_trl.method.projections import Projection, find_projections, row_dim


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
