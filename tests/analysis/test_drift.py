import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from helpers.forking import run_forked
from helpers.models import make_decoder, make_model
from helpers.trainers import make_trainer
from longact_trl.analysis.drift.row_drift import Drift, find_masks, in_massive_rows, measure_drift, outside_masks
from longact_trl.cli import app
from longact_trl.method.masks import select_rows
from longact_trl.method.projections import find_projections
from longact_trl.models.weight_files import INDEX
from longact_trl.settings.paths import CONFIG, MODEL, recipe_root


def save(model, folder, **kwargs) -> str:
    model.save_pretrained(folder, **kwargs)
    return str(folder)


def nudge(model, kind: str, layer: int, row: int, by: float = 1e-3):
    """Move one element of one row."""
    projection = [p for p in find_projections(model) if p.kind == kind][layer]
    with torch.no_grad():
        projection.module.weight[projection.offset + row, 3] += by


@pytest.mark.parametrize("shards", [False, True], ids=["one file", "shards"])
@pytest.mark.parametrize("model_type", ["qwen3", "qwen2", "phi3"])
def test_moved_rows_are_found_with_their_size(tmp_path, model_type, shards):
    size = {"max_shard_size": "20KB"} if shards else {}
    base = save(make_decoder(model_type), tmp_path / "base", **size)
    trained = make_decoder(model_type)
    nudge(trained, "q", 0, 7, by=0.5)
    nudge(trained, "k", 1, 2, by=-0.25)
    expected = {("q", "0", 7): 0.5, ("k", "1", 2): 0.25}
    if model_type == "qwen2":  # its projections have a bias, which belongs to the row
        with torch.no_grad():
            trained.model.layers[1].self_attn.q_proj.bias[5] += 2.0
        expected["q", "1", 5] = 2.0
    trained = save(trained, tmp_path / "trained", **size)
    assert (tmp_path / "base" / INDEX).is_file() == shards
    found = {}
    for projection, drift in zip(
        find_projections(make_decoder(model_type)), measure_drift(base, trained).values(), strict=True
    ):
        layer = projection.name.split(".")[2]
        assert torch.equal(drift.changed, drift.update_norm > 0)
        for row in drift.changed.flatten().nonzero().flatten().tolist():
            found[projection.kind, layer, row] = drift.update_norm.flatten()[row].item()
    assert found == pytest.approx(expected, rel=1e-5)


def test_saving_in_bfloat16_is_no_training(tmp_path):
    base = save(make_model(), tmp_path / "base")
    trained = save(make_model().bfloat16(), tmp_path / "trained")
    assert not any(drift.changed.any() for drift in measure_drift(base, trained).values())
    back = measure_drift(trained, base)  # from bfloat16 to float32, where finer steps are seen
    assert all(drift.changed.all() for drift in back.values())


def test_weights_that_moved_as_saved_and_in_bfloat16(tmp_path):
    """A large weight hides in bfloat16 what a small one shows."""
    base, trained = make_model(), make_model()
    for model in (base, trained):
        model.model.layers[0].self_attn.q_proj.weight.data[3, :4] = torch.tensor([1.0, 0.001, 1.0, 0.0001])
    # Rounded away beside 1; seen beside 0.001; seen if larger; seen by its bits, but not above the tolerance.
    trained.model.layers[0].self_attn.q_proj.weight.data[3, :4] += torch.tensor([1e-4, 1e-4, 0.1, 5e-6])
    drift = measure_drift(save(base, tmp_path / "base"), save(trained, tmp_path / "trained"))
    of_q = drift["model.layers.0.self_attn.q_proj"]
    assert of_q.row_size == 64
    assert of_q.moved.flatten().nonzero().tolist() == of_q.moved_bf16.flatten().nonzero().tolist() == [[3]]
    assert (of_q.moved.sum(), of_q.moved_bf16.sum()) == (4, 2)
    assert sum(d.moved.sum() for d in drift.values()) == 4


def test_relative_update_by_head(tmp_path):
    base, trained = make_model(), make_model()
    with torch.no_grad():
        trained.model.layers[0].self_attn.k_proj.weight[32:] *= 1.5
    drift = measure_drift(save(base, tmp_path / "base"), save(trained, tmp_path / "trained"))
    torch.testing.assert_close(
        drift["model.layers.0.self_attn.k_proj"].relative_update(), torch.tensor([0.0, 0.5]), rtol=1e-5, atol=0
    )


def test_another_architecture(tmp_path):
    base = save(make_model(), tmp_path / "base")
    wide = save(make_model(num_attention_heads=8), tmp_path / "wide")
    shallow = save(make_model(num_hidden_layers=1), tmp_path / "shallow")
    with pytest.raises(ValueError, match=r"q_proj.weight is \(128, 64\) in .*base, but \(256, 64\) in .*wide"):
        measure_drift(base, wide)
    with pytest.raises(ValueError, match="shallow has no weight model.layers.1.self_attn.q_proj.weight"):
        measure_drift(base, shallow)


def test_an_adapter_is_refused(tmp_path):
    base = save(make_model(), tmp_path / "base")
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text("{}")
    with pytest.raises(ValueError, match="is a PEFT adapter. Merge it first"):
        measure_drift(base, tmp_path / "adapter")


@pytest.mark.parametrize("update_rule", ["masked_gradient", "frozen_rows"])
def test_no_row_moves_outside_the_union_of_masks(tmp_path, update_rule):
    base = save(make_model(), tmp_path / "base")
    run = str(tmp_path / "run")
    trainer = make_trainer(run, make_model(), update_rule=update_rule, save_strategy="steps", save_steps=3)
    trainer.train()
    trainer.save_model(run)
    for trained in (run, f"{run}/checkpoint-3"):
        drift, masks = measure_drift(base, trained), find_masks(trained)
        assert masks.step == 3 and masks.settings["update_rule"] == update_rule
        assert not any(rows.any() for rows in outside_masks(drift, masks).values())
        assert 0 < sum(d.changed.sum() for d in drift.values()) <= sum(m.sum() for m in masks.ever_selected.values())
    # And a row that moved although no mask ever selected it is seen.
    name, ever = next((n, e) for n, e in masks.ever_selected.items() if not e.all() and "q_proj" in n)
    row = (~ever).nonzero()[0].item()
    nudge(trainer.model, "q", int(name.split(".")[2]), row)
    trainer.model.save_pretrained(run)
    outside = outside_masks(measure_drift(base, run), find_masks(run))
    assert {n: rows.flatten().nonzero().flatten().tolist() for n, rows in outside.items() if rows.any()} == {
        name: [row]
    }
    done = CliRunner().invoke(app, ["drift", base, run, "--weights-only", "--output", str(tmp_path / "out")])
    assert done.exit_code == 3 and "1 rows moved outside" in " ".join(done.output.split())


def test_what_lies_in_massive_rows():
    update = torch.tensor([[1.0, 3.0, 2.0, 0.0]])
    moved = torch.tensor([[1, 5, 2, 0]])
    drift = Drift(update > 0, update, torch.ones(1, 4), 8, moved, moved)
    found = in_massive_rows(drift, torch.tensor([[4.0, 1.0, 3.0, 2.0]]), 0.5)  # massive: channels 0 and 2
    # Of as many rows, 1 and 2 moved most.
    assert found == pytest.approx(
        {
            "changed_in_massive": 2 / 3,
            "update_energy_in_massive": 5 / 14,
            "most_moved_in_massive": 1 / 2,
            "weights_moved_bf16_in_massive": 3,
        }
    )
    # Where fewer moved at all, the others do not count.
    still = Drift(moved == 5, update * (moved == 5), torch.ones(1, 4), 8, moved, moved)
    assert in_massive_rows(still, torch.tensor([[4.0, 1.0, 3.0, 2.0]]), 0.5)["most_moved_in_massive"] == 0


def test_the_quickstart_under_frozen_rows(tmp_path):
    """Its own recipe, shortened, with momentum, decay, and masks that follow the activations; then the command."""
    root = recipe_root()
    run = [root / "recipes" / "grpo_longact.py", "--config", CONFIG]
    run += ["--model_name_or_path", str(MODEL), "--output_dir", str(tmp_path / "run"), "--update_rule", "frozen_rows"]
    run += ["--max_steps", "2", "--save_steps", "2", "--per_device_train_batch_size", "16", "--weight_decay", "0.1"]
    done = run_forked(*run, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]

    output = tmp_path / "drift"
    command = ["drift", str(MODEL), str(tmp_path / "run"), "--output", str(output)]
    done = CliRunner().invoke(app, command, catch_exceptions=False)
    assert done.exit_code == 0 and "No row moved outside the" in " ".join(done.output.split())
    summary = json.loads((output / "drift.json").read_text())
    assert summary["outside_masks"] == 0 and summary["masks"]["step"] == 2
    assert 0 < summary["changed"] <= summary["masks"]["rows_ever_selected"] < summary["rows"] == 768
    saved = load_file(output / "drift.safetensors")
    assert sum(int(t.sum()) for name, t in saved.items() if name.startswith("changed/")) == summary["changed"]
    for entry in summary["projections"].values():  # massive rows were trained, so they are where the change is
        assert entry["update_energy_in_massive"] > 0.3
    assert (output / "drift.png").stat().st_size > 10_000


def test_a_model_against_itself(tmp_path):
    done = CliRunner().invoke(
        app, ["drift", str(MODEL), str(MODEL), "--output", str(tmp_path)], catch_exceptions=False
    )
    assert done.exit_code == 0 and "0 of 768 rows of W_Q and W_K changed." in " ".join(done.output.split())
    assert "NaN" not in (tmp_path / "drift.json").read_text()


def test_magnitudes_that_inspect_wrote(tmp_path):
    base, output = save(make_model(), tmp_path / "base"), tmp_path / "drift"
    trained = make_model()
    nudge(trained, "q", 0, 7)
    magnitudes = {p.name: torch.rand(p.num_heads, p.head_dim) for p in find_projections(trained)}
    name = next(iter(magnitudes))
    magnitudes[name] = magnitudes[name].flatten().index_fill(0, torch.tensor(7), 2.0).view_as(magnitudes[name])
    tensors = {f"a text/{length}/{n}": m * length for n, m in magnitudes.items() for length in (8, 100)}
    save_file(tensors, tmp_path / "magnitudes.safetensors")
    options = ["--magnitudes", str(tmp_path / "magnitudes.safetensors"), "--output", str(output)]
    command = ["drift", base, save(trained, tmp_path / "trained"), *options]
    done = CliRunner().invoke(app, command, catch_exceptions=False)
    assert done.exit_code == 0 and "what masks allowed is not known" in " ".join(done.output.split())
    entry = json.loads((output / "drift.json").read_text())["projections"][name]
    assert select_rows(magnitudes[name], 0.3)[7] and entry["changed_in_massive"] == 1.0
    assert Path(output, "drift.png").is_file()
