"""FlexAttention over packed groups, uncompiled on a CPU, against what torch's own operations give (`blocks.py`)."""

import pytest
import torch
from torch import nn
from torch.nn.attention import flex_attention

from helpers.families import shared_prefix_error, tiny_model
from longact_trl.packing import attention
from longact_trl.packing.blocks import Scores
from longact_trl.packing.kept import KeptPrefix
from longact_trl.packing.layout import Group, PackedLayout


@pytest.fixture
def flex(monkeypatch):
    """On a CPU it has a backward pass in eager mode, and says that it has none."""
    monkeypatch.setattr(attention, "_by_flex_attention", lambda device, scores: True)
    monkeypatch.setattr(flex_attention, "_validate_device", lambda *args: None)
    monkeypatch.setattr(flex_attention, "_FLEX_ATTENTION_DISABLE_COMPILE_DEBUG", True)


def results(scores: Scores, writes: bool, ends: bool) -> dict[str, torch.Tensor]:
    """
    Two groups that share their prompts with other passes: the first reads 5 tokens and has 4 more in the row, the
    second reads all of its 6; and a prompt that stands alone.
    """
    generator, layer = torch.Generator().manual_seed(0), nn.Identity()

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    first, second = (KeptPrefix(torch.arange(n), torch.arange(3, 3 + n)) for n in (9, 6))
    first.write(layer, 0, random(1, 2, 5, 8), random(1, 2, 5, 8))
    second.write(layer, 0, random(1, 2, 6, 8), random(1, 2, 6, 8))
    if not writes:
        first.add_gradients(layer, (random(1, 2, 9, 8), random(1, 2, 9, 8)))
    groups = (
        Group(slice(0, 4), (slice(4, 7), slice(7, 9)), first, 5),
        Group(slice(9, 9), (slice(9, 13), slice(13, 14)), second, 6),
        Group(slice(14, 14), (slice(14, 20),)),
    )
    columns = torch.tensor([8, 9, 10, 11, 12, 13, 14, 12, 13, 9, 10, 11, 12, 9, 6, 7, 8, 9, 10, 11])
    layout = PackedLayout(columns, columns, groups, writes, attended=(lambda: None) if ends else None)
    of = {"query": random(1, 4, 20, 8), "key": random(1, 2, 20, 8), "value": random(1, 2, 20, 8), "sinks": random(4)}
    with torch.set_grad_enabled(not writes):
        leaves = {name: x.requires_grad_(not writes) for name, x in of.items()}
        query, key, value, sinks = leaves.values()
        out = attention.packed_attention(query, key, value, layout, scores, layer, sinks)
    if writes:
        return {"out": out, **dict(zip(("K", "V"), first.read(layer, 9, out.device), strict=True))}
    (out * random(*out.shape)).sum().backward()
    kept = (*first.gradients(layer, 0, 5, out.device), *second.gradients(layer, 0, 6, out.device))
    return {"out": out, **{n: x.grad for n, x in leaves.items()}, **dict(enumerate(kept))}


@pytest.mark.parametrize(
    "window, softcap, writes, ends",
    [(4, None, False, False), (4, 3.0, False, True), (None, 3.0, True, False)],
)
def test_outputs_and_gradients(window, softcap, writes, ends, request):
    scores = Scores(0.3, window, softcap)
    expected = results(scores, writes, ends)
    request.getfixturevalue("flex")
    found = results(scores, writes, ends)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, msg=lambda text, name=name: f"{name}: {text}")


def test_a_model_with_sinks_and_windows(flex):
    assert shared_prefix_error(tiny_model("gpt_oss"), tiny_model("gpt_oss")) < 1e-5
