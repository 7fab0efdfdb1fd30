"""Runs of a study: what is finished is never repeated, what was cut short goes on."""

import fcntl
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Queue

from ..evaluation.claims import read_claim
from ..evaluation.results import RESULTS
from ..settings.paths import recipe_root, relative
from ..settings.recipe_yaml import find_config, read_config
from ..settings.whole_files import write_json
from .checks import as_options
from .study_file import Run


CLAIM, LOG, TRAINED, LOCK = "run.json", "log.txt", "trained", "lock"


def commands(run: Run) -> list[list[str]]:
    """
    What trains and evaluates a run: the commands that a user would type.

    Args:
        run (`Run`):
            The run.

    Returns:
        `list[list[str]]`: Arguments of the commands, evaluation last. All go on where they were stopped.
    """
    root = recipe_root()
    evaluate = dict(run.study.evaluate)
    evaluation = [sys.executable, relative(root / "recipes" / "evaluate.py"), "--config", evaluate.pop("config")]
    evaluation += ["--model", run.untrained or str(run.folder / "model")]
    arguments = {**evaluate, "output_dir": run.folder / "evaluation", "label": f"{run.arm}-seed-{run.seed}"}
    evaluation += as_options(arguments)
    if run.untrained:
        return [evaluation]
    train = {**run.study.train, **run.study.changes(run.arm)}
    launch = find_config(train.pop("accelerate_config"), root / "accelerate_configs")
    recipe, config = root / "recipes" / train.pop("recipe"), train.pop("config")
    arguments = {**train, "seed": run.seed, "output_dir": run.folder / "model", "resume_from_checkpoint": "auto"}
    training = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", relative(launch)]
    if int(read_config(launch).get("num_machines", 1)) == 1:
        training += ["--main_process_port", "0"]  # a free one: another run may start beside this one
    training += [relative(recipe), "--config", config, *as_options(arguments)]
    return [training, evaluation]


def is_finished(run: Run) -> bool:
    """
    Whether a run has its results.

    Args:
        run (`Run`):
            The run.

    Returns:
        `bool`

    Raises:
        `ValueError`: If what lies in its folder was made with other settings.
    """
    file = run.folder / CLAIM
    if not file.is_file():
        return False
    there = read_claim(file, f"{run.folder}, whose run is made again")
    if there["claim"] != run.claim:
        now = json.loads(json.dumps(run.settings, default=str))
        changed = [
            f"{part}.{name}"
            for part in now
            for name in sorted(now[part].keys() | there["settings"][part].keys())
            if now[part].get(name) != there["settings"][part].get(name)
        ]
        raise ValueError(
            f"{run.folder} was made with other settings ({', '.join(changed)}). Give the arm another name, undo the "
            "change, or write another `output_dir`."
        )
    results = run.folder / "evaluation" / RESULTS
    return results.is_file() and json.loads(results.read_text(encoding="utf-8"))["complete"]


def execute(
    runs: Sequence[Run], devices: Sequence[str | None] = (None,), report: Callable[[Run, str], None] = lambda *_: None
) -> None:
    """
    Bring runs to their end.

    Args:
        runs (`Sequence[Run]`):
            Runs, in the order in which they start.
        devices (`Sequence[str | None]`, *optional*):
            For each run that may go on at a time, its `CUDA_VISIBLE_DEVICES`; `None` leaves them as they are.
        report (`Callable`, *optional*):
            Told of each run what becomes of it: `"runs"`, `"finished"`, `"was finished"`.

    Raises:
        `ValueError`: If a folder holds a run of other settings, before any starts; or if a command fails, with the
            end of its log. Runs that go on beside it are finished first.
    """
    todo = []
    for run in runs:
        if is_finished(run):
            report(run, "was finished")
        else:
            todo.append(run)
    free: Queue[str | None] = Queue()
    for device in devices:
        free.put(device)
    failures: list[str] = []

    def bring_to_its_end(run: Run) -> None:
        if failures:
            return
        device = free.get()
        try:
            report(run, "runs")
            _run(run, device)
            report(run, "finished")
        except ValueError as error:
            failures.append(str(error))
        except OSError as error:  # a full disk, most of all
            again = "The same `longact study` goes on from there."
            failures.append(f"{run.arm}, seed {run.seed}: {run.folder} cannot be written ({error}). {again}")
        finally:
            free.put(device)

    with ThreadPoolExecutor(len(devices)) as pool:
        list(pool.map(bring_to_its_end, todo))
    if failures:
        raise ValueError(failures[0])


def claim(run: Run) -> None:
    """
    Write into a run's folder what its numbers depend on.

    Args:
        run (`Run`):
            The run.
    """
    write_json(run.folder / CLAIM, {"claim": run.claim, "settings": run.settings})


def _run(run: Run, device: str | None) -> None:
    run.folder.mkdir(parents=True, exist_ok=True)
    environment = os.environ | ({"CUDA_VISIBLE_DEVICES": device} if device is not None else {})
    with (run.folder / LOG).open("a", encoding="utf-8") as log, (run.folder / LOCK).open("w") as lock:
        try:
            # The commands inherit it: where this process is killed and they are not, they still hold it.
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ValueError(
                f"{run.arm}, seed {run.seed} still runs, started by another `longact study`, maybe a killed one. "
                "Wait for it, or stop its process."
            ) from error
        if is_finished(run):  # by another, since this one looked; or refused, if that one's settings are others
            return
        claim(run)
        *training, evaluation = commands(run)
        trained = run.folder / TRAINED
        for command in [evaluation] if trained.exists() else [*training, evaluation]:
            log.write(f"$ {shlex.join(command)}\n")
            log.flush()
            streams = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": subprocess.STDOUT}
            done = subprocess.run(command, env=environment, pass_fds=[lock.fileno()], **streams)
            if done.returncode:
                raise ValueError(
                    f"{run.arm}, seed {run.seed}: a command ended with exit code {done.returncode}. The end of "
                    f"{run.folder / LOG}:\n{_end_of(run.folder / LOG)}\nThe same `longact study` goes on from there."
                )
            trained.touch()


def _end_of(log: Path, lines: int = 12) -> str:
    return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])
