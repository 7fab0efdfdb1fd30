"""
Scripts, each in a process forked from one that has imported TRL: the imports are most of a start.

    python -m helpers.forking    # waits for what `run_forked` asks for
"""

import contextlib
import gc
import json
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable
from functools import cache
from pathlib import Path

from .paths import ROOT


ALWAYS = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
"""Variables of all these processes: nothing is downloaded."""
STARTED_WITH = set(os.environ)


def forked(target: Callable, *args) -> int:
    """Call `target` in a forked process: its exit code, or minus the signal that ended it. No model has run before."""
    sys.stdout.flush()
    sys.stderr.flush()
    gc.freeze()  # what is imported is no garbage: each run collects several times
    child = os.fork()
    if child:
        gc.unfreeze()  # or what watches over its objects at exit believes them lost
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    code = 1
    try:
        target(*args)
        code = 0
    except SystemExit as end:
        code = 0 if end.code is None else end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def run_script(script: str, *arguments: str) -> None:
    """As `python script arguments` would; `-c` and a program for a script."""
    if script == "-c":
        sys.argv = ["-c", *arguments[1:]]
        exec(arguments[0], {"__name__": "__main__"})
        return
    sys.argv = [script, *arguments]
    sys.path.insert(0, os.path.dirname(os.path.abspath(script)))
    runpy.run_path(script, run_name="__main__")


@cache
def server() -> subprocess.Popen:
    """The process that has the imports."""
    command = [sys.executable, "-m", "helpers.forking"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=ROOT, env=os.environ | ALWAYS, **pipes)


def stop_server() -> None:
    if server.cache_info().currsize:
        server().communicate()


def run_forked(*command: str | Path, timeout: int, **environment: str) -> subprocess.CompletedProcess:
    """What `subprocess.run([sys.executable, *command])` returns, with additions to the environment."""
    with tempfile.TemporaryDirectory() as folder:
        job = [str(part) for part in command], timeout, os.environ | ALWAYS | environment, folder
        print(json.dumps(job), file=server().stdin, flush=True)
        code = int(server().stdout.readline())
        stdout, stderr = (Path(folder, name).read_text() for name in ("stdout", "stderr"))
    return subprocess.CompletedProcess(command, code, stdout, stderr)


def serve(command: list[str], timeout: int, environment: dict[str, str], folder: str) -> None:
    import datasets

    for number, name in enumerate([os.devnull, f"{folder}/stdout", f"{folder}/stderr"]):
        os.dup2(os.open(name, os.O_RDWR | os.O_CREAT), number)
    for name in STARTED_WITH - environment.keys():  # set by the test that was the first to ask
        os.environ.pop(name, None)
    os.environ |= environment
    datasets.config.HF_DATASETS_CACHE = f"{folder}/datasets"
    signal.alarm(timeout)
    run_script(*command)


if __name__ == "__main__":
    import longact_trl

    with contextlib.redirect_stdout(sys.stderr):  # stdout is for exit codes
        longact_trl.LongActTrainer  # noqa: B018 - imports TRL
    for line in sys.stdin:
        print(forked(serve, *json.loads(line)), flush=True)
