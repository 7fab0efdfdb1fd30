"""longact check as a command, on what ships."""

import re

import pytest
import torch
from datasets.utils.logging import enable_progress_bar
from typer.testing import CliRunner

from helpers.recipes import RUNS
from longact_trl.check.command import check
from longact_trl.check.subject import read_subject
from longact_trl.check.verdict import FAIL, UNKNOWN, WARN
from longact_trl.cli import app


pytestmark = pytest.mark.usefixtures("offline_machine")

OFFLINE = {"end of turn", "rewards", "dataset", "gold answers", "prompt lengths"}
"""What no check can know of a model that is not here."""


@pytest.mark.parametrize("path", RUNS, ids=lambda p: p.stem)
def test_what_ships_passes(path, monkeypatch, clone):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)  # nobody is logged in to wandb here
    subject, verdicts = check(str(path))
    assert not [verdict for verdict in verdicts if verdict.status == FAIL]
    on_cpu = path.name in ("quickstart.yaml", "sft_tiny.yaml")
    unknown = {verdict.check for verdict in verdicts if verdict.status == UNKNOWN}
    assert unknown == (set() if on_cpu else {"end of turn", "dataset"} if not subject.is_rl else OFFLINE)
    assert next(v for v in verdicts if v.check == "memory").text.startswith("peak ")
    if not on_cpu:
        assert subject.shape.parameters == {"8": 8_190_735_360, "4": 4_022_468_096}[path.stem.split("qwen3_")[1][0]]


def run(*arguments: str) -> tuple[int, str]:
    """Exit code and output of `longact check`, with the lines of a cell joined."""
    done = CliRunner().invoke(app, ["check", *arguments])
    enable_progress_bar()
    return done.exit_code, re.sub(r"[│\s]+", " ", done.output)


def test_the_command(write):
    """Exit codes, the recipe's own overrides, and a report that a person can read."""
    code, shown = run("--config", write(), "--sparsity_ratio", "0.5")
    assert code == 0 and shown.endswith("18 pass ")
    assert "sparsity_ratio 0.5" in shown and "floor(0.5·32) = 16 channels" in shown
    bars = re.findall(r"[\d,]+ – [\d,]+ █* ?(\d+)", shown)
    assert len(bars) == 10 and sum(map(int, bars)) == 90
    assert "0 of 90 are longer than the window" in shown
    assert re.search(r"Memory of this machine in MiB, 16 × 1\d\d tokens", shown)
    assert re.search(r"peak \d+\.\d \d+\.\d", shown)
    assert "Hours: a CPU's peaks are not known: time a few steps" in shown
    code, shown = run("--config", write(), "--strategy", "biggest")
    assert code == 1 and "Unknown `strategy` 'biggest'" in shown
    code, shown = run(
        "--config", "qwen3_8b.yaml", "--accelerate-config", "ddp.yaml", "--report_to", "none", "--gpu", "a100"
    )
    assert code == 1 and "does not fit" in shown
    assert re.search(r"GPU-hours of 8 GPUs [\d.,]+ ", shown) and "A100 at 40% of 312 TFLOP/s" in shown
    assert "`--accelerate-config zero3.yaml` → 51.0 GiB" in shown


@pytest.mark.parametrize("gpu, status", [(True, FAIL), (False, WARN)])
def test_a_cold_start_that_is_missing_is_said_and_all_else_is_checked(tmp_path, monkeypatch, gpu, status):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: gpu)
    subject, verdicts = check("qwen3_8b.yaml")
    [start] = [verdict for verdict in verdicts if verdict.check == "starts from"]
    assert start.status == status and "There is no model in 'runs/sft_qwen3_8b'" in start.text
    assert "sft_cold_start.py --config sft_qwen3_8b.yaml`" in start.text and "Qwen/Qwen3-8B`." in start.text
    assert subject.described_by == "Qwen/Qwen3-8B-Base" and subject.window == 32768 - 4096
    assert next(v for v in verdicts if v.check == "model and λ").text.startswith("8.19B parameters; floor(λ·D) =")


@pytest.mark.parametrize("mode, shared", [("auto", True), ("off", False)])
def test_the_memory_plan_knows_whether_prompts_are_shared(mode, shared):
    assert read_subject("qwen3_8b.yaml", ["--shared_prefix", mode], 8).load().shared_prefix is shared
