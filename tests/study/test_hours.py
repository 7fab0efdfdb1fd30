"""What a study would take, and the lines that Slurm gets."""

import fcntl
import os
import shlex
import subprocess
import sys

import pytest
import yaml
from typer.testing import CliRunner

from longact_trl.check.hours import hours_of
from longact_trl.check.subject import read_subject
from longact_trl.check.work import decode_bytes, prefill_flops
from longact_trl.cli import app
from longact_trl.settings.gpus import SHARE_OF_BANDWIDTH, SHARE_OF_FLOPS, gpu_named
from longact_trl.settings.paths import recipe_root
from longact_trl.study.execution import CLAIM, LOCK
from longact_trl.study.hours import hours_of_runs, hours_table
from longact_trl.study.slurm import check_gpus, sbatch_line
from longact_trl.study.study_file import read_study


@pytest.fixture
def table_5(offline_machine, tmp_path):
    return read_study("table_5.yaml", str(tmp_path / "runs"))


def test_hours_of_a_shipped_table_by_hand(table_5):
    gpu, runs = gpu_named("h100"), table_5.runs()
    found = hours_of_runs(runs, gpu)
    assert list(found) == list(table_5.arms)
    subject = read_subject("qwen3_8b.yaml", gpus=8)
    assert found["8b_massive"].training == pytest.approx(hours_of(subject, gpu).hours)
    assert found["8b_sft"].training == 0 and found["8b_sft"].evaluation == found["8b_dense"].evaluation
    # 503 prompts of 120,000 tokens, 128 + 4,096 new ones each, on one GPU.
    shape, tokens = subject.shape, 120_000 + 4_224
    cache = 0.9 * 80 * 2**30 - 2 * shape.parameters - 2 * 2**30
    at_once = cache / (2 * 36 * 2 * 8 * 128 * tokens)
    size = decode_bytes(shape, 120_000, 4_224, 503, at_once, 2)
    seconds = 503 * prefill_flops(shape, 120_000) / (989e12 * SHARE_OF_FLOPS) + size / (3.35e12 * SHARE_OF_BANDWIDTH)
    assert found["8b_massive"].evaluation == pytest.approx(seconds / 3600)
    # One run of a cold start, three seeds of every other arm, on eight GPUs.
    counts = {arm: 1 if arm.endswith("sft") else 3 for arm in found}
    total = sum(8 * counts[arm] * (hours.training + hours.evaluation) for arm, hours in found.items())
    columns = hours_table(runs, found, gpu, price=2.0).columns
    assert list(columns[4].cells)[-1] == f"{total:,.0f}" and list(columns[5].cells)[-1] == f"{2 * total:,.0f}"


def test_a_dry_run_ends_in_hours_and_touches_nothing(table_5, tmp_path):
    file = recipe_root() / "studies" / "table_5.yaml"
    options = ["--dry-run", "--gpu", "A100", "--price-per-gpu-hour", "1.5", "--output", str(tmp_path / "runs")]
    done = CliRunner().invoke(app, ["study", str(file), *options])
    assert done.exit_code == 0 and "GPU-hours" in done.output and "A100 at 40% of 312 TFLOP/s" in done.output
    assert not (tmp_path / "runs").exists()


def test_a_run_has_as_many_gpus_as_processes(table_5):
    check_gpus(table_5, 8)
    with pytest.raises(ValueError, match="zero3.yaml starts 8 processes, but a run is given 4 GPUs. Give each 8, or"):
        check_gpus(table_5, 4)
    done = CliRunner().invoke(app, ["study", "table_5.yaml", "--devices", "0-3,4-7"])
    assert done.exit_code == 2 and "starts 8 processes" in done.output


def test_lines_for_slurm_claim_their_folders(table_5):
    [run] = [run for run in table_5.runs() if (run.arm, run.seed) == ("8b_min", 42)]
    words = shlex.split(sbatch_line(run, 8))
    assert words[:7] == ["sbatch", "--job-name", "8b_min-42", "--nodes", "1", "--gpus-per-node", "8"]
    assert "recipes/grpo_longact.py" in words[-1] and "recipes/evaluate.py" in words[-1] and "srun" not in words[-1]
    assert "--main_process_port 0 " in words[-1]  # jobs that share a node start at the same moment
    done = CliRunner().invoke(app, ["study", "table_5.yaml", "--sbatch", "8", "--output", table_5.output_dir])
    assert done.exit_code == 0 and done.output.count("sbatch --job-name") == len(table_5.runs())
    assert all((run.folder / CLAIM).is_file() for run in table_5.runs())


def test_a_line_for_several_nodes_starts_a_launcher_on_each(tmp_path):
    """What Slurm would run is run, with commands that stand in for Slurm's and write down what they are given."""
    content = yaml.safe_load((recipe_root() / "studies" / "table_5.yaml").read_text())
    content["train"]["accelerate_config"] = "zero3_multinode.yaml"
    content["output_dir"] = str(tmp_path / "runs")
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(content))
    [run, *_] = [run for run in read_study(str(tmp_path / "study.yaml")).runs() if not run.untrained]
    words = shlex.split(sbatch_line(run, 32))
    assert words[3:9] == ["--nodes", "4", "--gpus-per-node", "8", "--ntasks-per-node", "1"]
    script = """
        scontrol() { echo node7; echo node8; }
        srun() { if [ "$2" = bash ]; then shift; SLURM_NODEID=3 "$@"; else echo "once: $*"; fi; }
    """
    script += words[-1].replace(sys.executable, "echo")
    run.folder.mkdir(parents=True)
    job = {"args": ["bash", "-c", script], "capture_output": True, "text": True}
    job["env"] = {"SLURM_JOB_NODELIST": "n", "SLURM_JOB_ID": "8128977", "PATH": os.environ["PATH"]}
    with (run.folder / LOCK).open("w") as lock:  # another `longact study` is at it
        fcntl.flock(lock, fcntl.LOCK_EX)
        refused = subprocess.run(**job)
    assert refused.returncode == 1 and "still runs" in refused.stderr and not refused.stdout
    done = subprocess.run(**job)
    assert done.returncode == 0, done.stderr
    training, evaluation = done.stdout.splitlines()
    assert training.startswith("-m accelerate.commands.launch --machine_rank 3 --main_process_ip node7")
    assert "--config_file" in training and "--main_process_port 30477" in training
    assert evaluation.startswith("once: --nodes 1 --ntasks 1") and "evaluate.py" in evaluation
