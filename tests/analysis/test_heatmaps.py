import os
import subprocess
import sys

import pytest
import torch
from PIL import Image

from helpers.models import make_model
from helpers.trainers import make_trainer
from longact_trl.method.masks import select_rows
from longact_trl.method.projections import find_projections
from longact_trl.pictures.heatmaps import MAX_LAYERS, draw_heatmaps, render, shown_layers


def make_magnitudes(names_and_heads: dict[str, int], head_dim: int) -> dict[str, torch.Tensor]:
    """Log-normal magnitudes, with two massive channels in each head."""
    generator = torch.Generator().manual_seed(0)
    magnitudes = {}
    for name, num_heads in names_and_heads.items():
        magnitude = torch.randn(num_heads, head_dim, generator=generator).mul(0.5).exp()
        magnitude[:, ::13] *= 3
        magnitudes[name] = magnitude
    return magnitudes


def make_masks(magnitudes, strategy: str = "massive") -> dict[str, torch.Tensor]:
    return {name: select_rows(magnitude, 0.3, strategy) for name, magnitude in magnitudes.items()}


def separate(num_layers: int, num_heads: int, num_kv_heads: int) -> dict[str, int]:
    heads = {"q": num_heads, "k": num_kv_heads}
    return {f"model.layers.{i}.self_attn.{k}_proj": h for i in range(num_layers) for k, h in heads.items()}


def fused(num_layers: int) -> dict[str, int]:
    return {f"model.layers.{i}.self_attn.qkv_proj:{kind}": 4 for i in range(num_layers) for kind in "qk"}


def panels_of(figure) -> list:
    return [axis for axis in figure.axes if axis.images]


@pytest.mark.parametrize("strategy", ["massive", "min"])
@pytest.mark.parametrize(
    "names_and_heads, head_dim, layers",
    [
        (separate(36, 32, 8), 128, ["0", "7", "14", "21", "28", "35"]),  # Qwen3-8B
        (separate(2, 8, 4), 32, ["0", "1"]),
        (separate(1, 2, 1), 4, ["0"]),
        (fused(40), 96, ["0", "8", "16", "23", "31", "39"]),
    ],
    ids=["qwen3-8b", "two layers", "one layer", "fused"],
)
def test_panels_show_what_was_measured_and_selected(names_and_heads, head_dim, layers, strategy):
    magnitudes = make_magnitudes(names_and_heads, head_dim)
    masks = make_masks(magnitudes, strategy)
    figure = draw_heatmaps(magnitudes, masks)
    panels = panels_of(figure)
    names = [name for named in shown_layers(magnitudes).values() for name in (named["q"], named["k"])]
    assert [axis.get_title("left") for axis in panels] == [f"Layer {i} · {kind}" for i in layers for kind in "QK"]
    assert len(figure.axes) == len(panels) + 1  # and one colour bar
    for axis, name in zip(panels, names, strict=True):
        assert axis.images[0].get_array().shape == magnitudes[name].shape
        dots = axis.collections[-1].get_offsets()
        rows = [round(head) * head_dim + round(channel) for channel, head in dots.tolist()]
        assert rows == masks[name].nonzero().flatten().tolist()


def test_a_render_has_the_colours_of_the_magnitudes():
    magnitudes = make_magnitudes(separate(2, 8, 4), 32)
    image = render(draw_heatmaps(magnitudes, {}))
    assert image.format == "PNG" and image.width > 1000
    assert len(set(image.convert("RGB").resize((200, 100), Image.Resampling.NEAREST).getdata())) > 50


def test_names_of_a_real_model_are_understood():
    projections = find_projections(make_model(num_hidden_layers=MAX_LAYERS + 1))
    layers = shown_layers({p.name: torch.ones(p.num_heads, p.head_dim) for p in projections})
    assert len(layers) == MAX_LAYERS and all(list(named) == ["q", "k"] for named in layers.values())


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_constant_magnitudes_have_a_scale(value):
    render(draw_heatmaps({"model.layers.0.self_attn.q_proj": torch.full((2, 8), value)}, {}))


def test_nothing_measured():
    with pytest.raises(ValueError, match="nothing was measured yet"):
        draw_heatmaps({}, {})


def test_drawing_leaves_pyplot_alone():
    code = (
        "import sys, torch; from longact_trl.pictures.heatmaps import draw_heatmaps, render;"
        "assert 'matplotlib' not in sys.modules;"
        "render(draw_heatmaps({'layers.0.q_proj': torch.ones(2, 8)}, {}));"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def heatmap_files(folder) -> list:
    """Images of the size of a heatmap, anywhere below."""
    size = render(draw_heatmaps(make_magnitudes(separate(2, 4, 2), 32), {})).size
    return sorted(p for p in folder.rglob("*.png") if Image.open(p).size == size)


def test_wandb_receives_an_image_at_every_step(tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    monkeypatch.setenv("WANDB_SILENT", "true")
    trainer = make_trainer(tmp_path / "run", max_steps=2, heatmap_steps=1, report_to=["wandb"])
    try:
        trainer.train()
        # The last step's record is still open, so the summary is asked before the run is finished.
        assert wandb.run.summary["train/global_step"] == 2
        assert wandb.run.summary["longact/heatmap"]["format"] == "png"
        churn = [wandb.run.summary[f"longact/mask_churn/layer_{layer}"] for layer in (0, 1)]
        assert sum(churn) / 2 == pytest.approx(sum(trainer.mask_refresh.churn.values()) / 4) and sum(churn) > 0
    finally:
        wandb.finish()
    assert len(heatmap_files(tmp_path / "wandb")) == 2


def test_trackio_receives_an_image_at_every_step(tmp_path):
    pytest.importorskip("trackio")
    run = (  # in its own process: trackio reads TRACKIO_DIR when it is imported, which trl does
        "from helpers.trainers import make_trainer;"
        f"trainer = make_trainer({str(tmp_path / 'run')!r}, max_steps=2, heatmap_steps=1, report_to=['trackio']);"
        "trainer.train()"
    )
    env = {**os.environ, "TRACKIO_DIR": str(tmp_path / "trackio")}
    subprocess.run([sys.executable, "-c", run], check=True, env=env)
    assert len(heatmap_files(tmp_path / "trackio")) == 2
