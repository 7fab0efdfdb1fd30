"""The parts of `benchmarks/gpu_report.py` in miniature, and that one that fails or is killed loses nothing."""

import json
import math
import subprocess
import sys
from importlib import import_module
from types import SimpleNamespace

import gpu_report
import pytest
import torch
from gpu_parts import parity
from gpu_parts import report as reporting
from gpu_parts.bench import Bench, config_of, model_of
from gpu_parts.row_sparsity import entry

from helpers.paths import ROOT


CPU = Bench(torch.device("cpu"), miniature=True)


@pytest.fixture(scope="module")
def measured() -> dict[str, list[dict]]:
    torch.manual_seed(0)
    return {name: list(import_module(f"gpu_parts.{name}").measure(CPU)) for name in reporting.PARTS}


def test_every_part_measures_something_that_json_can_hold(measured):
    for name, rows in measured.items():
        assert rows and not [row for row in rows if "error" in row], name
        values = [value for row in rows for value in row.values() if isinstance(value, float)]
        assert not [value for value in values if not math.isfinite(value)], name
        assert json.loads(json.dumps(rows)) == rows


def test_the_parts_end_within_eight_minutes():
    assert sum(reporting.PARTS.values()) <= gpu_report.SECONDS - 10 and gpu_report.SECONDS < 8 * 60


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


def test_what_does_not_fit_or_fails_is_recorded_and_what_spoils_the_gpu_ends_the_part():
    def too_large():
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 80 GiB.")

    def broken():
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    def unknown():
        raise NotImplementedError("no kernel for this")

    assert CPU.attempt(too_large) == {"error": "out of memory"}
    assert CPU.attempt(unknown) == {"error": "NotImplementedError: no kernel for this"}
    with pytest.raises(RuntimeError, match="illegal memory access"):
        CPU.attempt(broken)


def test_rows_before_a_cell_that_fails_stay(monkeypatch):
    """Of parity all arms of a model need its two plain passes; what they gave is written before the next arm fails."""
    monkeypatch.setattr(parity, "packed_pass", lambda *args: 1 / 0)
    plain, failed, skipped = parity.measure(CPU)
    assert plain["arm"] == "plain" and failed["error"].startswith("ZeroDivisionError") and "skipped" in skipped


def test_another_type_of_weights_leaves_the_angles_of_rope():
    model = model_of(CPU, config_of(CPU, "0.6B"), torch.float32)
    before = model.model.rotary_emb.inv_freq.clone()
    weight = model.lm_head.weight.detach().clone()
    parity.cast(parity.cast(model, torch.bfloat16), torch.float32)
    assert torch.equal(model.model.rotary_emb.inv_freq, before)
    assert torch.equal(model.lm_head.weight, weight.bfloat16().float()) and not torch.equal(
        model.lm_head.weight, weight
    )
    assert all(p.grad.dtype == p.dtype == torch.float32 for p in model.parameters())


def test_one_gpu_of_several_and_none_where_there_shall_be_none(monkeypatch):
    for visible, expected in ((None, "0"), ("3,4", "3"), ("", "")):
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        if visible is not None:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        assert gpu_report.environment()["CUDA_VISIBLE_DEVICES"] == expected


def test_what_a_part_leaves_of_its_time_goes_to_the_next(monkeypatch, tmp_path, capsys):
    """On a GPU, as far as this process knows: its parts take no time, and the last may take nearly all."""
    limits = {}

    def run(command, timeout=None, **kwargs):
        if "--about" in command:
            return subprocess.CompletedProcess(command, 0, json.dumps({"device": "X", "type": "cuda", "torch": "3"}))
        part = command[command.index("--worker") + 1]
        limits[part] = timeout
        assert float(command[command.index("--seconds") + 1]) == timeout
        row = {"arm": "a", "ratio": math.nan, "P": 1024, "peak GiB": math.inf}
        gpu_report.write(tmp_path / "out", {"part": part, "row": row})
        status = "2 failed" if part == "plan" else "done"
        gpu_report.write(tmp_path / "out", {"part": part, "status": status, "seconds": 1.0})
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(gpu_report.subprocess, "run", run)
    monkeypatch.setattr(sys, "argv", ["gpu_report.py", "--output", str(tmp_path / "out")])
    monkeypatch.setattr(gpu_report, "time", SimpleNamespace(monotonic=lambda: 0.0))  # nor does the report
    gpu_report.main()
    seconds = list(reporting.PARTS.values())
    for number, limit in enumerate(limits.values(), 1):
        assert limit == gpu_report.SECONDS - sum(seconds[number:])
    shown = capsys.readouterr().out
    assert "plan: 2 failed" in shown and "Every part ended" not in shown
    report = json.loads((tmp_path / "out" / reporting.JSON).read_text(), parse_constant=pytest.fail)
    assert report["parts"]["masks"]["rows"][0]["ratio"] == "nan"


def test_a_part_that_fails_or_is_cut_short_is_recorded_and_the_others_go_on(monkeypatch, tmp_path, measured):
    """The parts' processes are replaced; what they write, and how they end, is not."""

    real = subprocess.run

    def run(command, timeout=None, **kwargs):
        if "--about" in command:
            return real(command, **kwargs)
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
