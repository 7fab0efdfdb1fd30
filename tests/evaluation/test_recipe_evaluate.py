"""The recipe with the embedded model: killed and continued, two replicas, one command before and after training."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.forking import run_forked
from helpers.paths import ROOT
from longact_trl.evaluation.results import read_results


RECIPE = str(ROOT / "recipes" / "evaluate.py")
MODEL = str(ROOT / "longact_trl" / "assets" / "tiny_qwen3")
NUM_SAMPLES = 24
ARGS = ["--config", "eval_tiny.yaml", "--model", MODEL, "--num_samples", str(NUM_SAMPLES), "--batch_size", "2"]


def start(output_dir: Path, *launch: str) -> subprocess.Popen:
    command = [sys.executable, *launch, RECIPE, *ARGS, "--output_dir", str(output_dir)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command, cwd=ROOT, env=environment, **streams)


def evaluated(output_dir: Path, *more: str) -> dict:
    done = run_forked(RECIPE, *ARGS, "--output_dir", output_dir, *more, timeout=900)
    return results_of(done.returncode, done.stdout + done.stderr, output_dir)


def results_of(code: int, output: str, output_dir: Path) -> dict:
    assert code == 0, output[-4000:]
    assert f"longact report {output_dir}\n" in output  # in one line, to be copied
    return read_results(output_dir)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory) -> dict:
    return evaluated(tmp_path_factory.mktemp("uninterrupted"))


def journal_of(folder: Path) -> list[str]:
    """Keys of the requests that were answered, in order."""
    files = sorted((folder / "requests").glob("*.jsonl"))
    return [json.loads(line)["key"] for file in files for line in file.read_text().splitlines()]


def test_the_embedded_model_answers_some_questions(uninterrupted):
    [unit] = uninterrupted["units"]
    assert unit["num_samples"] == NUM_SAMPLES and 20 < unit["score"] < 90  # 53 on 300 questions
    assert uninterrupted["backend"] == "transformers" and uninterrupted["replicas"] == 1


KILLED = """
import os, runpy, signal, sys

from longact_trl.evaluation.journal import JournaledLM

generate, batches = JournaledLM._generate, []

def dies(self, requests):
    batches.append(requests)
    if len(batches) == 4:
        os.kill(os.getpid(), signal.SIGKILL)
    return generate(self, requests)

JournaledLM._generate = dies
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_killed_it_continues_and_repeats_nothing(uninterrupted, tmp_path):
    killed = run_forked("-c", KILLED, RECIPE, *ARGS, "--output_dir", tmp_path, timeout=900)
    assert killed.returncode == -signal.SIGKILL, (killed.stdout + killed.stderr)[-4000:]
    before = journal_of(tmp_path)
    assert len(before) == 6 and not (tmp_path / "results.json").exists()

    results = evaluated(tmp_path)
    after = journal_of(tmp_path)
    assert after[: len(before)] == before
    assert len(after) == len(set(after)) == NUM_SAMPLES
    assert results["samples"] == uninterrupted["samples"]


def test_two_replicas_score_as_one(uninterrupted, tmp_path):
    process = start(tmp_path, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
    output, _ = process.communicate(timeout=900)
    results = results_of(process.returncode, output, tmp_path)
    assert results["replicas"] == 2
    assert results["samples"] == uninterrupted["samples"] and results["scores"] == uninterrupted["scores"]
    assert [len(file.read_text().splitlines()) for file in sorted((tmp_path / "requests").glob("*"))] == [12, 12]


def stripped(samples: dict[str, list[dict]]) -> list[dict]:
    """vLLM decodes a response behind its prompt, and so leaves the space between the two in front of it."""
    texts = ("response", "prediction")
    return [row | {name: row[name].strip() for name in texts} for rows in samples.values() for row in rows]


def test_vllm_answers_as_transformers_does(uninterrupted, tmp_path):
    results = evaluated(tmp_path, "--backend", "vllm", "--model_args", '{"enforce_eager": true}')
    assert results["backend"] == "vllm" and results["dtype"] == uninterrupted["dtype"] == "float32"
    assert stripped(results["samples"]) == stripped(uninterrupted["samples"])
