"""The parts of `benchmarks/gpu_report.py` in miniature, and that one that fails or is killed loses nothing."""

import json
import math
import subprocess
import sys
from importlib import import_module

import gpu_report
import pytest
import torch
from gpu_parts import report as reporting
from gpu_parts.bench import Bench
from gpu_parts.row_sparsity import entry

from helpers.paths import ROOT


CPU = Bench(torch.device("cpu"), miniature=True)


@pytest.fixture(scope="module")
def measured() -> dict[str, list[dict]]:
    torch.manual_seed(0)
    return {name: list(import_module(f"gpu_parts.{name}").measure(CPU)) for name in reporting.PARTS}


def test_every_part_measures_something_that_json_can_hold(measured):
    for name, rows in measured.items():
        assert rows, name
        values = [value for row in rows for value in row.values() if isinstance(value, float)]
        assert not [value for value in values if not math.isfinite(value)], name
        assert json.loads(json.dumps(rows)) == rows


def test_the_parts_end_within_eight_minutes():
    assert sum(reporting.PARTS.values()) <= 8 * 60 - 15  # the script's own start, and its pictures


def test_packed_attention_is_as_far_from_float32_as_math_is(measured):
    assert len(measured["windows"]) == 2
    for row in [*measured["attention"], *measured["windows"]]:
        for what in ("out", "dQ", "dK", "dV"):
            assert 0 < row[f"packed {what}"] < 0.02 and 0 < row[f"math {what}"] < 0.02


def test_packed_passes_are_as_far_from_float32_as_plain_ones(measured):
    plain, *packed, skipped = measured["parity"]
    assert "skipped" in skipped and plain["arm"] == "plain" and len(packed) == 3
    for row in packed:
        for what in ("log-prob mean", "gradient", "W_Q, W_K"):
            assert 0 < row[f"{what} to float32"] < 2 * plain[f"{what} to float32"]
            assert 0 < row[f"{what} to plain"] < 2 * plain[f"{what} to float32"]


def test_the_grid_has_a_bound_and_a_cpu_no_memory(measured):
    for row in measured["prefix_grid"]:
        assert row["bound"] > 1 and row["TRL seconds"] > 0 and row["peak GiB"] is None
    assert {row["arm"] for row in measured["memory_slope"]} == {"plain", "shared", "shared, chunks of 8"}


def test_plan_and_peak_are_of_one_size(measured):
    [row] = measured["plan"]
    assert 0.3 < row["ratio"] < 3
    assert [row["ratio"] for row in measured["masks"]][0] == 1 and len(measured["masks"]) == 3


@pytest.mark.parametrize(
    ("slower", "expected"),
    [
        ((), (512, 0.5)),
        ({(512, 0.5), (2048, 0.5)}, (512, 0.3)),
        ({(512, 0.3), (512, 0.5)}, (2048, 0.5)),
        ("all", None),
    ],
)
def test_the_entry_for_measured_is_slower_nowhere(slower, expected):
    cells = [(tokens, share) for tokens in (512, 2048, 8192) for share in (0.3, 0.5)]
    rows = [
        {"tokens": t, "λ": s, "masked": 1.0, "row-sparse": 1.1 if slower == "all" or (t, s) in slower else 0.9}
        for t, s in cells
    ]
    assert entry(rows) == expected


def test_what_does_not_fit_is_recorded_and_everything_else_is_an_error():
    def too_large():
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 80 GiB.")

    def broken():
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    assert CPU.attempt(too_large) == {"error": "out of memory"}
    with pytest.raises(RuntimeError, match="illegal memory access"):
        CPU.attempt(broken)


def test_a_part_that_fails_or_is_cut_short_is_recorded_and_the_others_go_on(monkeypatch, tmp_path, measured):
    """The parts' processes are replaced; what they write, and how they end, is not."""

    def run(command, timeout, **kwargs):
        part = command[command.index("--worker") + 1]
        if part == "plan":
            raise subprocess.TimeoutExpired(command, timeout)
        gpu_report.write(tmp_path, {"part": part, "title": part, "note": "A note."})
        for row in measured[part]:
            gpu_report.write(tmp_path, {"part": part, "row": row})
        if part == "parity":
            gpu_report.write(tmp_path, {"part": part, "said": "RuntimeError: CUDA error"})
            return subprocess.CompletedProcess(command, 1)
        gpu_report.write(tmp_path, {"part": part, "status": "done", "seconds": 1.0})
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(gpu_report.subprocess, "run", run)
    monkeypatch.setattr(sys, "argv", ["gpu_report.py", "--output", str(tmp_path)])
    gpu_report.main()
    with (tmp_path / reporting.ROWS).open("a") as file:
        file.write('{"part": "masks", "row": {"ar')  # a kill within a line
    report = reporting.write_report(tmp_path)
    status = {name: part["status"] for name, part in report["parts"].items()}
    assert status.pop("parity") == "failed" and status.pop("plan").startswith("out of time")
    assert set(status.values()) == {"done"} and len(status) == len(reporting.PARTS) - 2
    assert report["parts"]["parity"]["rows"] == measured["parity"]
    shown = (tmp_path / reporting.MARKDOWN).read_text()
    assert shown.startswith("# CPU") and reporting.NO_GPU in shown and "RuntimeError: CUDA error" in shown
    assert (tmp_path / reporting.PICTURE).stat().st_size > 10_000
    with pytest.raises(SystemExit, match="holds a report already"):
        gpu_report.main()


def test_the_script_runs_a_part_in_a_process_of_its_own(tmp_path):
    command = [sys.executable, ROOT / "benchmarks" / "gpu_report.py", "--miniature", "--output", tmp_path / "out"]
    done = subprocess.run([*command, "--parts", "attention"], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert "vLLM: skipped" in done.stdout and "DeepSpeed: skipped" in done.stdout and "packed dQ" in done.stdout
    report = json.loads((tmp_path / "out" / reporting.JSON).read_text())
    assert report["parts"]["attention"]["status"] == "done" and len(report["parts"]["attention"]["rows"]) == 1
    if not torch.cuda.is_available():
        assert reporting.NO_GPU in done.stdout and report["about"]["type"] == "cpu" and report["about"]["miniature"]
