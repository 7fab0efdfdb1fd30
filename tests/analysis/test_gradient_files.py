"""A measurement of gradients that is killed: what it leaves, and how it goes on."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from typer.testing import CliRunner

from longact_trl.analysis.gradients.command import digest_of_weights
from longact_trl.analysis.gradients.files import GradientFiles
from longact_trl.cli import app
from longact_trl.quickstart import MODEL


class Killed(Exception):
    pass


@pytest.fixture
def killed_after(monkeypatch):
    """`killed_after(n)`: from then on a measurement dies right behind what it has written the n-th time."""
    keep = GradientFiles.keep

    def after(writes: int) -> None:
        def keep_and_die(self, progress):
            nonlocal writes
            keep(self, progress)
            writes -= 1
            if writes == 0:
                raise Killed

        monkeypatch.setattr(GradientFiles, "keep", keep_and_die)

    return after


def run_command(output: Path, *options: str):
    line = ["inspect", str(MODEL), "--gradients", "--num-prompts", "4", "--length", "12", "--output", str(output)]
    return CliRunner().invoke(app, [*line, *options])


def test_a_killed_measurement_is_readable_and_ends_as_an_uninterrupted_one(tmp_path, killed_after):
    whole, torn = tmp_path / "whole", tmp_path / "torn"
    assert run_command(whole).exit_code == 0
    torn.mkdir()
    (torn / "gradients.png").write_text("of another measurement")

    killed_after(1)  # two batches are sampled, then both are followed
    assert isinstance(run_command(torn).exception, Killed)
    summary = json.loads((torn / "gradients.json").read_text())
    assert summary.pop("unfinished") == "1 of 2 batches sampled, 0 followed"
    expected = json.loads((whole / "gradients.json").read_text())
    assert summary["lengths"]["12"]["groups"] == 2 and summary["reward"] == expected["reward"]
    assert summary["share_by_layer"]["k"]["1"]["massive"] == expected["share_by_layer"]["k"]["1"]["massive"][:1]
    of_whole = load_file(whole / "gradients.safetensors")
    found = load_file(torn / "gradients.safetensors")
    first = {name for name in of_whole if name.split("/")[1] == "0"}
    assert first and all(torch.equal(found[name], of_whole[name]) for name in first)
    assert [file.name for file in torn.iterdir() if file.name not in ("gradients.json", "gradients.safetensors")] == []

    killed_after(2)
    assert isinstance((again := run_command(torn)).exception, Killed)
    assert "Goes on behind batch 1 of 2" in " ".join(again.output.split())
    summary = json.loads((torn / "gradients.json").read_text())
    assert summary["unfinished"] == "2 of 2 batches sampled, 1 followed"

    killed_after(0)  # never
    assert run_command(torn).exit_code == 0
    assert json.loads((torn / "gradients.json").read_text()) == expected
    found = load_file(torn / "gradients.safetensors")
    assert found.keys() == of_whole.keys() and all(torch.equal(found[name], of_whole[name]) for name in found)
    assert Image.open(torn / "gradients.png").size == Image.open(whole / "gradients.png").size


def test_an_unfinished_measurement_of_other_settings_is_not_gone_on_with(tmp_path, killed_after):
    killed_after(1)
    assert isinstance(run_command(tmp_path).exception, Killed)
    before = (tmp_path / "gradients.safetensors").read_bytes()
    for options, differs in (
        (["--sparsity-ratio", "0.2"], "sparsity_ratio: 0.3, now 0.2"),
        (["--num-prompts", "6"], "num_prompts: 4, now 6"),
    ):
        done = run_command(tmp_path, *options)
        assert done.exit_code == 2 and differs in (said := " ".join(done.output.split()))
        assert "repeat its command to go on with it, give another --output, or delete it" in said
    assert (tmp_path / "gradients.safetensors").read_bytes() == before

    with pytest.raises(ValueError, match="weights: '[0-9a-f]{16}', now '0000000000000000'"):
        GradientFiles(tmp_path, {}, 2).add({"weights": "0" * 16})
    (tmp_path / "gradients.safetensors").write_bytes(before[:100])
    assert "cannot be read" in " ".join(run_command(tmp_path).output.split())


def test_a_measurement_goes_on_with_another_number_of_threads():
    """Floating-point sums over the same weights differ by how they are cut."""
    sizes = torch.linspace(0, 1, 4000)[:, None] ** 4  # with sizes as different as of real weights
    weight = torch.randn(4000, 1000, generator=torch.Generator().manual_seed(0)) * sizes
    model, threads, digests = torch.nn.Linear(1000, 4000, bias=False), torch.get_num_threads(), set()
    with torch.no_grad():
        model.weight.copy_(weight)
    try:
        for number in (1, 2, 3, 8):
            torch.set_num_threads(number)
            digests.add(digest_of_weights(model))
    finally:
        torch.set_num_threads(threads)
    assert len(digests) == 1
    with torch.no_grad():
        model.weight[7, 5] += 1e-3
    assert digest_of_weights(model) not in digests
