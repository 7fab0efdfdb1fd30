"""What benchmarks have in common: clocks, memory, and variants that take turns in processes of their own."""

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from functools import wraps

import torch


class Clock:
    """Seconds inside named functions."""

    def __init__(self, cpu_time: bool = False):
        self.seconds = defaultdict(float)
        self._read = time.process_time if cpu_time else time.perf_counter

    def now(self) -> float:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return self._read()

    def around(self, name: str, function):
        @wraps(function)
        def timed(*args, **kwargs):
            start = self.now()
            try:
                return function(*args, **kwargs)
            finally:
                self.seconds[name] += self.now() - start

        return timed


def peak_memory() -> float:
    """GiB, since the process began."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**30 if sys.platform == "darwin" else 2**20)


class Worker:
    """A process that runs `serve`."""

    def __init__(self, variant: str):
        command = [sys.executable, *sys.argv, "--worker", variant]
        self.log = tempfile.TemporaryFile("w+")
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": self.log}
        self.process = subprocess.Popen(command, text=True, **pipes)
        self.answer()

    def turn(self, kind: str = "") -> dict[str, float]:
        print(kind, file=self.process.stdin, flush=True)
        return self.answer()

    def answer(self) -> dict[str, float]:
        line = self.process.stdout.readline()
        if not line:
            self.log.seek(0)
            raise RuntimeError(f"the run ended early:\n{self.log.read()[-4000:]}")
        return json.loads(line)

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()
