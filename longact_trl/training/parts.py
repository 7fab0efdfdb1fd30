"""Time and memory of the parts of an optimizer step: generation, rewards, scoring, training, the optimizer."""

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import torch
from transformers import TrainerCallback
from trl import GRPOTrainer


GENERATE, REWARD, SCORE, TRAIN, OPTIMIZER = PARTS = ("generate", "reward", "score", "train", "optimizer")
"""`generate` has the weights' way to vLLM in it; `train` is forward and backward, and DeepSpeed's optimizer."""
PROCESS = psutil.Process()
REST = "rest"
"""What a step does outside of them."""


class PartsCallback(TrainerCallback):
    """
    Measures the parts of each optimizer step, on each process; the main process's are logged.

    A part inside another, such as rewards that decide what is generated next, counts once, for itself. Logged are
    `longact/seconds_PART`, and `longact/gib_PART`: on a GPU the peak of what PyTorch allocated, else the memory of the
    process at the part's end.

    Args:
        metrics (`dict[str, list[float]]`):
            Where to append, TRL's `trainer._metrics["train"]`.
        device (`torch.device`):
            Where the model is.
    """

    def __init__(self, metrics: dict[str, list[float]], device: torch.device):
        self.metrics = metrics
        self.device = device
        self.seconds: dict[str, float] = defaultdict(float)
        self.gib: dict[str, float] = {}
        self._inside: list[str] = []  # the parts that have begun, innermost last; empty between steps
        self._since = 0.0

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Context for a part. Outside of an optimizer step, as in an evaluation, it measures nothing."""
        if not self._inside:
            yield
            return
        self._begin(name)
        try:
            yield
        finally:
            self._end()

    def on_step_begin(self, args, state, control, **kwargs):
        self.seconds.clear()
        self.gib.clear()
        self._inside = []
        self._begin(REST)

    def on_pre_optimizer_step(self, args, state, control, **kwargs):
        self._begin(OPTIMIZER)

    def on_optimizer_step(self, args, state, control, **kwargs):
        self._end()

    def on_step_end(self, args, state, control, **kwargs):
        self._end()
        for name in (*PARTS, REST):
            self.metrics[f"longact/seconds_{name}"].append(self.seconds[name])
            if name in self.gib and name != REST:
                self.metrics[f"longact/gib_{name}"].append(self.gib[name])

    def _begin(self, name: str) -> None:
        self._account()
        self._inside.append(name)

    def _end(self) -> None:
        self._account()
        self._inside.pop()

    def _account(self) -> None:
        """Put what was since the last call to the innermost part."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
            used = torch.cuda.max_memory_allocated(self.device)
            torch.cuda.reset_peak_memory_stats(self.device)
        else:
            used = PROCESS.memory_info().rss
        now = time.perf_counter()
        if self._inside:
            name = self._inside[-1]
            self.seconds[name] += now - self._since
            self.gib[name] = max(self.gib.get(name, 0.0), used / 2**30)
        self._since = now


class MeasuredTrainer(GRPOTrainer):
    """[`~trl.GRPOTrainer`] that logs the time and the memory of the parts of a step."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.parts = PartsCallback(self._metrics["train"], self.accelerator.device)
        self.add_callback(self.parts)

    def _generate(self, *args):
        with self.parts.part(GENERATE):
            return super()._generate(*args)

    def _calculate_rewards(self, *args):
        with self.parts.part(REWARD):
            return super()._calculate_rewards(*args)

    def training_step(self, *args, **kwargs):
        with self.parts.part(TRAIN):
            return super().training_step(*args, **kwargs)
