"""A study of two arms, run for real: killed and continued, never repeated, and refused where an arm was changed."""

import contextlib
import datetime
import fcntl
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from longact_trl.cli import app
from longact_trl.evaluation.results import RESULTS
from longact_trl.settings.paths import MODEL
from longact_trl.settings.whole_files import write_json
from longact_trl.study.command import introduction
from longact_trl.study.execution import CLAIM, LOCK, LOG, claim, commands, execute, is_finished
from longact_trl.study.slurm import sbatch_line
from longact_trl.study.study_file import STUDIES, Run, read_devices, read_study


SMALL = {
    "title": "Massive and dense rows",
    "expected": "No difference after one step.",
    "decides": "Nothing.",
    "baseline": "dense",
    "seeds": 1,
    "train": {
        "recipe": "grpo_longact.py",
        "config": "quickstart.yaml",
        "accelerate_config": "cpu.yaml",
        "model_name_or_path": str(MODEL),
        "max_steps": 1,
        "logging_steps": 1,
    },
    "evaluate": {"config": "eval_tiny.yaml", "num_samples": 20},
    "arms": {"massive": {"strategy": "massive"}, "dense": {"strategy": "dense"}},
}


@pytest.fixture
def write(tmp_path):
    def write_study(**changes) -> str:
        content = {**SMALL, "output_dir": str(tmp_path / "runs"), **changes}
        file = tmp_path / "small.yaml"
        file.write_text(yaml.safe_dump({k: v for k, v in content.items() if v is not None}, sort_keys=False))
        return str(file)

    return write_study


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seeds": [1, 1]}, "`seeds` must be whole numbers, none of them negative and none of them twice"),
        *(
            ({"seeds": seeds}, r"`seeds` must be .* as in 5 for 0 to 4, or a list")
            for seeds in ([], 0, -1, True, "0-4")
        ),
        *(({"seeds": [seed]}, "`seeds` must be whole numbers") for seed in (True, -1, 2**32, 1.0)),
        *(
            ({"arms": {name: {}, "dense": {}}}, "An arm is called .*Write it in quotes")
            for name in (1, 0.3, True, datetime.date(2026, 1, 1))
        ),
        *(
            ({"arms": {name: {}, "dense": {}}}, "An arm cannot be called .*which names a folder")
            for name in ("", ".", "..", "a/b", "/tmp", "../x", "a|b", "[red]", "a\nb", "a\0", "-x", "x.", "x" * 101)
        ),
        ({"expected": ["a", "b"]}, "`expected` of the study must be a text"),
        ({"output_dir": 5}, "`output_dir` of the study must be a text"),
        ({"evaluate": {"config": None}}, "`config` of `evaluate` must be a text"),
        ({"evaluate": {"config": "eval_tiny.yaml", "num_sampels": 3}}, "`evaluate`: .*Did you mean `--num_samples`"),
        ({"evaluate": {"config": "eval_tiny.yaml", "label": "x"}}, "`label` is what the study gives each of its runs"),
        ({"train": SMALL["train"] | {"recipe": None}}, "`recipe` of `train` must be a text"),
        ({"train": SMALL["train"] | {"seed": 3}}, "`seed` is what the study gives each of its runs"),
        ({"arms": {"dense": {"output_dir": "x"}}}, "`output_dir` is .*remove it from the arm 'dense'"),
        ({"arms": {"dense": {"strategyy": "dense"}}}, "the arm 'dense': .*Did you mean `--strategy`"),
        ({"arms": {"dense": {}, "min": {"strategy": "mim"}}}, "the arm 'min': Unknown `strategy` 'mim'"),
        ({"arms": {"dense": {"recipe": "nix.py"}}}, "There is no recipe 'nix.py'"),
        ({"arms": {"dense": {"model": "x", "strategy": "min"}}}, "'dense' is evaluated as it is: write only `model`"),
        ({"baseline": "sparse"}, "`baseline` 'sparse' is none of the arms massive, dense"),
        ({"arms": ["massive"]}, "`arms` must be a dict"),
        ({"arms": {"dense": None}}, r"write `\{\}` for an arm that changes nothing"),
        ({"baselin": "dense"}, "unknown key `baselin`. Did you mean `baseline`?"),
        ({"decides": None}, "says nothing of decides"),
        ({"evaluate": {}}, "`evaluate` must name its config"),
        ({"train": SMALL["train"] | {"recipe": "grpo.py"}}, "There is no recipe .grpo.py."),
        (
            {"arms": {"dense": {"config": "qwen3_9b.yaml"}}},
            "There is no config .*qwen3_9b.yaml.*Did you mean qwen3_8b",
        ),
    ],
)
def test_what_is_wrong_with_a_study_is_said_before_it_starts(write, changes, message):
    with pytest.raises(ValueError, match=message):
        read_study(write(**changes))


def test_seeds_come_before_arms_and_commands_are_the_users(write):
    runs = read_study(write(seeds=[3, 5])).runs()
    assert [(run.seed, run.arm) for run in runs] == [(3, "massive"), (3, "dense"), (5, "massive"), (5, "dense")]
    training, evaluation = (" ".join(command) for command in commands(runs[1]))
    assert "recipes/grpo_longact.py --config quickstart.yaml" in training
    assert "--strategy dense --seed 3" in training and "--resume_from_checkpoint auto" in training
    assert f"--model {runs[1].folder / 'model'} --num_samples 20" in evaluation


def test_every_shipped_study_is_one():
    from longact_trl.settings.paths import recipe_root

    files = sorted((recipe_root() / STUDIES).glob("*.yaml"))
    assert {"tiny_table_5.yaml", "tiny_table_6.yaml"} <= {file.name for file in files}
    for file in files:
        study = read_study(file.name)
        trained = [run for run in study.runs() if not run.untrained]
        assert all(run.settings["train"]["seed"] == run.seed for run in trained), file
        assert len({run.claim for run in study.runs()}) == len(study.runs()), file  # no arm is another's twin


def test_a_folder_that_cannot_be_written_is_named(write, tmp_path):
    (tmp_path / "file").write_text("")
    done = CliRunner().invoke(app, ["study", write(), "--output", str(tmp_path / "file" / "runs")])
    message = " ".join(done.output.split())
    assert done.exit_code == 2 and "massive, seed 0:" in message and "cannot be written ([Errno 20]" in message


def test_names_that_people_write_are_names(write, tmp_path):
    arms = {"none": {}, "λ = 0.3": {"sparsity_ratio": 0.3}, "dense": {"strategy": "dense"}, "नमस्ते e\u0301-1.5": {}}
    study = read_study(write(arms=arms))
    assert [run.folder.parent.name for run in study.runs()] == list(arms)
    words = shlex.split(sbatch_line(study.runs()[1], 1))
    assert words[2] == "λ = 0.3-0" and words[8] == str(tmp_path / "runs" / "λ = 0.3" / "seed-0" / "slurm-%j.txt")


def test_an_arm_that_stands_there_twice_is_not_lost(write):
    file = Path(write())
    file.write_text(file.read_text().replace("  massive:\n", "  dense:\n"))
    with pytest.raises(ValueError, match="`dense` stands there twice"):
        read_study(str(file))


def test_a_gpu_takes_one_run_at_a_time():
    assert read_devices("0-3,4-7") == ["0,1,2,3", "4,5,6,7"]
    for twice in ("0-3,3-7", "0,0"):
        with pytest.raises(ValueError, match="stands twice"):
            read_devices(twice)


def test_a_study_whose_p_cannot_decide_says_so(write):
    three = read_study(write(seeds=3))
    assert "With 3 seeds no p can be below 0.25" in introduction(three, 0) and "from 6 seeds on" in introduction(
        three, 0
    )
    assert "no p" not in introduction(read_study(write(seeds=6)), 0)
    assert "no p" not in introduction(read_study(write(seeds=1, arms={"dense": {}})), 0)  # nothing to compare


def test_a_file_of_a_run_that_is_cut_off_is_named(write):
    file = write()
    massive, _ = read_study(file).runs()
    claim(massive)
    assert not is_finished(massive)
    for content in ("", '{"claim": "', "[]"):
        (massive.folder / CLAIM).write_text(content)
        done = CliRunner().invoke(app, ["study", file])
        message = " ".join(done.output.split())
        assert done.exit_code == 2 and "run.json" in message and "delete" in message, message


@pytest.mark.parametrize(
    ("arms", "is_at_it", "has_results", "message"),
    [
        ({"massive": {"strategy": "min"}, "dense": {}}, True, False, "massive, seed 0 still runs, started by another"),
        ({"massive": {"strategy": "min"}, "dense": {}}, False, True, r"made with other settings \(train.strategy\)"),
        (SMALL["arms"], False, True, None),
    ],
    ids=["goes on", "was another", "is finished"],
)
def test_of_two_that_start_together_one_takes_a_run(write, arms, is_at_it, has_results, message):
    """The other has looked whether the run is finished, and is then overtaken."""
    runs = read_study(write()).runs()[:1]
    overtaking = read_study(write(arms=arms)).runs()[0]
    assert overtaking.folder == runs[0].folder
    overtaking.folder.mkdir(parents=True)
    with (overtaking.folder / LOCK).open("w") as lock:

        def overtake(run: Run, what: str) -> None:
            if what == "runs":
                fcntl.flock(lock, fcntl.LOCK_EX if is_at_it else fcntl.LOCK_UN)
                claim(overtaking)
                if has_results:
                    write_json(overtaking.folder / "evaluation" / RESULTS, {"complete": True})

        with pytest.raises(ValueError, match=message) if message else contextlib.nullcontext():
            execute(runs, report=overtake)
    assert json.loads((runs[0].folder / CLAIM).read_text())["claim"] == overtaking.claim
    assert (runs[0].folder / LOG).read_text() == ""  # nothing was started


def test_killed_three_times_it_ends_with_the_same_numbers_and_a_changed_arm_is_refused(write, tmp_path):
    file = write(train=SMALL["train"] | {"max_steps": 2, "save_steps": 1})
    command = [sys.executable, "-m", "longact_trl.cli", "study", file]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    whole = subprocess.Popen(
        [*command, "--output", str(tmp_path / "whole")], env=environment, stdout=subprocess.PIPE, text=True
    )
    massive, dense = read_study(file).runs()
    points = [  # in a training behind its first checkpoint, in an evaluation, between two arms
        lambda: (massive.folder / "model" / "checkpoint-1" / "trainer_state.json").is_file(),
        lambda: (massive.folder / "trained").is_file(),
        lambda: is_finished(massive),
    ]
    for number, is_there in enumerate(points):
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, start_new_session=True)
        give_up = time.monotonic() + 600
        while not is_there():
            assert process.poll() is None and time.monotonic() < give_up, number
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert is_finished(massive) == (number == 2)
    assert not is_finished(dense)
    times = {path: path.stat().st_mtime_ns for path in massive.folder.rglob("*") if path.is_file()}

    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 runs are finished" in done.stdout and "2/2  dense, seed 0: finished" in done.stdout
    assert {path: path.stat().st_mtime_ns for path in times} == times  # nothing was repeated
    outcome = json.loads((tmp_path / "runs" / "study.json").read_text())["arms"]
    results = json.loads((massive.folder / "evaluation" / "results.json").read_text())
    assert 100 * outcome["massive"]["score"]["value"] == pytest.approx(results["units"][0]["score"])
    assert outcome["massive"]["difference"] is not None and outcome["dense"]["difference"] is None
    assert outcome["massive"]["tokens"] > 0 and len(outcome["massive"]["rewards"][0]) == 2
    assert (tmp_path / "runs" / "study.png").stat().st_size > 10_000

    assert whole.wait(600) == 0, whole.stdout.read()
    uninterrupted = json.loads((tmp_path / "whole" / "study.json").read_text())["arms"]
    for name, arm in outcome.items():
        assert arm | {"seconds": 0} == uninterrupted[name] | {"seconds": 0}
        weights = [tmp_path / folder / name / "seed-0" / "model" / "model.safetensors" for folder in ("runs", "whole")]
        assert weights[0].read_bytes() == weights[1].read_bytes()

    changed = write(train=SMALL["train"], arms=SMALL["arms"] | {"massive": {"strategy": "min"}})
    refused = CliRunner().invoke(app, ["study", changed])
    message = " ".join(refused.output.split())
    assert refused.exit_code == 2 and "was made with other settings (" in message and "train.strategy)" in message
