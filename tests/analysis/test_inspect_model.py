import base64
import json
import re

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from typer.testing import CliRunner

from helpers.models import make_decoder, make_model, make_tokenizer
from longact_trl import measure_magnitudes, select_rows
from longact_trl.analysis.chosen_projections import choose_projections
from longact_trl.analysis.inspect.command import write
from longact_trl.analysis.inspect.inspection import inspect_model
from longact_trl.analysis.inspect.page import STEPS, page_data
from longact_trl.analysis.inspect.paper_layout import paper_pictures
from longact_trl.cli import app
from longact_trl.method.projections import find_projections
from longact_trl.pictures.heatmaps import layer_of


TEXTS = {"one": torch.arange(1, 41), "<!--<script></script>two": torch.arange(40, 0, -1)}


def flat(text: str) -> str:
    """Output without the console's line breaks."""
    return " ".join(text.split())


@pytest.fixture(scope="module")
def inspected(tmp_path_factory):
    model = make_model(num_hidden_layers=11)  # layer 10 must not stand before layer 2
    inspection = inspect_model(model, "a/model", TEXTS, find_projections(model, ("q", "k", "v")))
    output = tmp_path_factory.mktemp("inspect")
    write(inspection, output, layout="paper")
    return model, inspection, output


def test_the_numbers_are_those_of_training(inspected):
    model, inspection, output = inspected
    saved = load_file(output / "magnitudes.safetensors")
    for text, ids in TEXTS.items():
        for name, magnitude in measure_magnitudes(model, {"input_ids": ids[None]}, ("q", "k", "v")).items():
            assert torch.equal(saved[f"{text}/40/{name}"], magnitude)
    both = measure_magnitudes(model, {"input_ids": torch.stack(list(TEXTS.values()))})
    for name, magnitude in both.items():
        torch.testing.assert_close(inspection.mean()[name], magnitude, rtol=1e-6, atol=0)


def test_the_summary_of_every_projection(inspected):
    _, inspection, output = inspected
    summary = json.loads((output / "inspect.json").read_text())
    assert list(summary["projections"]) == list(inspection.mean())
    name, entry = list(summary["projections"].items())[4]
    one, two = (named[name] for named in inspection.whole().values())
    rows = [select_rows(m, 0.3) for m in (one, two)]
    assert list(entry["overlap_between_texts"].values()) == [((rows[0] & rows[1]).sum() / rows[0].sum()).item()]
    assert entry["overlap_with_whole_text"]["one"]["40"] == entry["rank_correlation_with_whole_text"]["one"]["40"] == 1
    assert list(entry["overlap_with_whole_text"]["one"]) == ["20", "40"]  # a quarter would be under 16 tokens
    matrix = torch.tensor(summary["overlap_between_layers"]["q"])
    assert matrix.shape == (11, 11) and torch.equal(matrix, matrix.T) and (matrix.diag() == 1).all()


def test_pictures_of_all_layers(inspected):
    output = inspected[-1]
    layers = sorted(file.name for file in (output / "layers").iterdir())
    assert layers == [f"layer_{number:02}.png" for number in range(11)]
    for file in ("overview.png", "statistics.png", "heatmaps.png", "layers/layer_10.png"):
        assert Image.open(output / file).width > 1000


def test_the_papers_layout(inspected):
    """Heads across and channels upwards, the first 8 and 64, each panel on a scale of its own from 0."""
    _, _, output = inspected
    for number in (1, 3, 4, 5):
        assert Image.open(output / f"paper_figure_{number}.png").width > 600
    magnitudes = {f"model.layers.{i}.self_attn.{kind}_proj": torch.rand(9, 80) + i for i in range(3) for kind in "qkv"}
    pictures = paper_pictures(magnitudes, "a/model", "ruler/cwe 1")
    axes = [axis for axis in pictures["paper_figure_1.png"].axes if axis.get_title(loc="left")]
    assert [axis.get_title(loc="left") for axis in axes] == ["Q, layer 1", "K, layer 1"]
    for axis, kind in zip(axes, "qk", strict=True):
        [image] = axis.images
        shown = magnitudes[f"model.layers.1.self_attn.{kind}_proj"][:8, :64]
        assert torch.equal(torch.tensor(image.get_array()), shown.T) and image.origin == "lower"
        assert image.get_clim() == (0, shown.max().item())
    assert "Representation of V" in pictures["paper_figure_5.png"].get_suptitle()
    only_v = {name: magnitude for name, magnitude in magnitudes.items() if name.endswith("v_proj")}
    assert list(paper_pictures(only_v, "a/model", "t")) == ["paper_figure_5.png"]


def test_the_page_holds_every_magnitude_and_nothing_from_elsewhere(inspected):
    _, inspection, output = inspected
    page = (output / "index.html").read_text()
    assert not re.search(r"(src|href)\s*=|https?://|url\(|import ", page.split("<script>")[0])
    assert page.count("</script>") == 1  # a text's name cannot end the script
    assert "<!--" not in page.split("const data = ")[1].split(";\n")[0]  # nor open one that ends nowhere
    assert "prefers-color-scheme: dark" in page
    assert page.count('class="sideways picture" tabindex="0"') == 2  # readable on a narrow screen
    data = json.loads(page.split("const data = ")[1].split(";\n")[0])
    assert data["overview"].startswith("data:image/png;base64,")
    assert len(data["panels"]) == 2 * 33
    for panel in data["panels"]:
        name = f"model.layers.{panel['layer']}.self_attn.{panel['kind'].lower()}_proj"
        magnitude = inspection.whole()[panel["text"]][name]
        steps = torch.frombuffer(bytearray(base64.b64decode(panel["magnitude"])), dtype=torch.uint16)
        logs = data["low"] + steps.float() / STEPS * (data["high"] - data["low"])
        torch.testing.assert_close(logs.exp(), magnitude.flatten(), rtol=3e-4, atol=0)
        selected = torch.frombuffer(bytearray(base64.b64decode(panel["selected"])), dtype=torch.uint8)
        assert torch.equal(selected.bool(), select_rows(magnitude, 0.3))


def test_projections_that_are_all_zero_have_a_page():
    model = make_model(num_hidden_layers=1)
    with torch.no_grad():
        model.model.layers[0].self_attn.q_proj.weight[:64] = 0
    inspection = inspect_model(model, "zeros", TEXTS, find_projections(model))
    assert page_data(inspection, inspection.summarise())["panels"]


@pytest.mark.parametrize("layers, chosen", [(None, "0123"), ("2", "2"), ("0,2-3", "023"), (" 1 , 1", "1")])
def test_layers(layers, chosen):
    projections = choose_projections(make_decoder("phi3", num_hidden_layers=4), ["q", "v"], layers)
    assert [layer_of(p.name) for p in projections] == [layer for layer in chosen for _ in "qv"]


@pytest.fixture(scope="module")
def no_weights(tmp_path_factory) -> str:
    """Whoever loads the weights of this folder fails otherwise than by the message that is expected."""
    folder = tmp_path_factory.mktemp("no_weights")
    config = make_model().config
    config.architectures = ["Qwen3ForCausalLM"]
    config.save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize(
    "command, message",
    [
        ("inspect MODEL --layers 0,7", "No layer 7: the model has layers 0 to 1"),
        ("inspect MODEL --layers first", "Cannot read layers 'first'. Write numbers and ranges"),
        ("inspect MODEL --projections q,o", "Unknown projections 'q,o'. Write some of q,k,v"),
        ("inspect MODEL --sparsity-ratio 1.5", "`sparsity_ratio` must be in (0, 1], got 1.5"),
        ("inspect MODEL --sparsity-ratio 0.01", "selects none of the 32 channels of a head"),
        ("inspect MODEL --length long", "Cannot read a length from 'long'"),
        ("inspect MODEL --length 4k", "--length 4k is more than the 256 tokens that"),
        ("inspect MODEL --text nowhere.txt", "Cannot read 'nowhere.txt' as UTF-8 text"),
        ("inspect MODEL --benchmark squad", "Unknown task 'squad'. Write needles, facts, longbench_v2 or ruler/NAME"),
        ("inspect MODEL --benchmark needles --text a.txt", "Write --text or --benchmark, not both"),
        ("inspect MODEL --after-norm --after-rope", "Write --after-norm or --after-rope, not both"),
        ("inspect MODEL --layout mine", "Unknown --layout 'mine'. Write ours or paper"),
        ("inspect no/such-model", "Cannot read 'no/such-model': neither a folder with a model here"),
        ("perturb MODEL --sparsity-ratio 0", "`sparsity_ratio` must be in (0, 1], got 0"),
        ("perturb MODEL --projections x", "Unknown projections 'x'"),
        ("perturb MODEL --task squad", "Unknown task 'squad'"),
        ("perturb MODEL --engine sglang", "Unknown engine 'sglang'. Write transformers or vllm"),
        ("perturb MODEL --case 66ec", "--case 66ec is a question of LongBench v2: add --task longbench_v2"),
        ("perturb MODEL --temperature -1", "--temperature must not be negative, got -1"),
        ("perturb MODEL --clamp mean", "Unknown --clamp 'mean'. Write sample or pooled"),
        ("perturb MODEL --num-prompts 0", "--num-prompts must be 1 or more, got 0"),
        ("perturb MODEL --text-length 4m", "Cannot read a length from '4m'"),
        ("drift MODEL MODEL", "holds neither model.safetensors nor model.safetensors.index.json"),
        ("drift MODEL no/such-model", "Cannot read 'no/such-model'"),
        ("drift MODEL MODEL --sparsity-ratio 2", "must be in (0, 1], got 2"),
        ("drift MODEL MODEL --magnitudes nowhere", "There is no 'nowhere'"),
    ],
)
def test_what_a_user_gets_wrong(no_weights, command, message):
    done = CliRunner().invoke(app, [no_weights if part == "MODEL" else part for part in command.split()])
    assert done.exit_code == 2
    assert message in flat(done.output), done.output


def test_questions_that_do_not_fit_the_window(tmp_path):
    make_model(max_position_embeddings=64).config.save_pretrained(tmp_path)
    make_tokenizer().save_pretrained(tmp_path)
    done = CliRunner().invoke(app, ["perturb", str(tmp_path)])
    assert done.exit_code == 2
    assert re.search(r"needles needs \d+ tokens, .* can read 64: lower --length", flat(done.output))


def test_inspecting_the_embedded_model(tmp_path):
    """The whole command on texts of its own: the tokenizer knows the words of one of the three."""
    from longact_trl.quickstart import MODEL

    options = ["--length", "64", "--layers", "1", "--projections", "k", "--after-norm", "--output", str(tmp_path)]
    done = CliRunner().invoke(app, ["inspect", str(MODEL), *options], catch_exceptions=False)
    assert done.exit_code == 0 and "64 tokens in facts" in flat(done.output)
    assert {key.split("/")[0] for key in load_file(tmp_path / "magnitudes.safetensors")} == {"facts"}
    summary = json.loads((tmp_path / "inspect.json").read_text())
    assert summary["site"] == "norm" and list(summary["projections"]) == ["model.layers.1.self_attn.k_proj"]
