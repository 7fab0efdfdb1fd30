"""Layers that are not alike: other heads, no K of their own, a head of K that all share, several attentions in one."""

import json

import pytest
import torch
from safetensors.torch import load_file

from helpers.families import tiny_config
from longact_trl.analysis.chosen_projections import choose_projections
from longact_trl.analysis.drift.command import draw_drift, drift_table
from longact_trl.analysis.drift.row_drift import Drift, summarise
from longact_trl.analysis.inspect.command import concentration_table, write
from longact_trl.analysis.inspect.inspection import Inspection
from longact_trl.method.projections import find_projections
from longact_trl.models.reading import skeleton_of
from longact_trl.pictures.heatmaps import kind_of, layer_of, shown_layers


FAMILIES = {  # from kind to the heads of its first layer's projection
    "gemma4_text": {"q": 4, "k": 2},
    "deepseek_v3": {"q": 4, "k": 4, "k_shared": 1},
    "longcat_flash": {"q": 4, "k": 4, "k_shared": 1},
}


@pytest.fixture(params=FAMILIES)
def family(request) -> str:
    return request.param


@pytest.fixture
def projections(family):
    return find_projections(skeleton_of(tiny_config(family)))


def magnitudes_of(projections, seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {p.name: torch.rand(p.num_heads, p.head_dim, generator=generator) + 0.1 for p in projections}


def test_every_projection_is_drawn_by_itself(family, projections):
    shown = shown_layers(magnitudes_of(projections, 0))
    assert [name for named in shown.values() for name in named.values()] == [p.name for p in projections]
    heads = {p.name: p.num_heads for p in projections}
    first = next(iter(shown.values()))
    assert {kind: heads[name] for kind, name in first.items()} == FAMILIES[family]


@pytest.mark.parametrize("family", ["gemma4_text", "deepseek_v3"], indirect=True)
def test_inspect_and_drift_show_them(projections, tmp_path):
    texts = {text: {40: magnitudes_of(projections, seed)} for seed, text in enumerate(("one", "two"))}
    inspection = Inspection("a/model", "projection", 0.3, texts)
    write(inspection, tmp_path, layout="paper")
    assert len(load_file(tmp_path / "magnitudes.safetensors")) == 2 * len(projections)
    summary = json.loads((tmp_path / "inspect.json").read_text())
    layers = {layer_of(p.name) for p in projections}
    assert concentration_table(summary).row_count == len(layers)
    moved = {p.name: torch.rand(p.num_heads, p.head_dim) for p in projections}
    drift = {}
    for name, values in moved.items():
        counts = (values > 0.5).long()
        drift[name] = Drift(values > 0.5, values * counts, values + 1, row_size=1, moved=counts, moved_bf16=counts)
    summary = {"base": "a", "trained": "b", **summarise(drift, None, texts["one"][40], 0.3)}
    assert drift_table(summary).row_count == len(layers)
    draw_drift(summary, drift).savefig(tmp_path / "drift.png")


def test_layers_are_chosen_by_their_number():
    names = {layer_of(p.name) for p in choose_projections(skeleton_of(tiny_config("longcat_flash")), "qk", "1")}
    assert names == {"1.0", "1.1"}
    assert layer_of("model.H_module.layers.3.self_attn.q_proj") == "H3"
    assert kind_of("model.layers.0.self_attn.kv_a_proj_with_mqa:k") == "k_shared"
