"""
Trains a run that is killed again and again, in turn while it saves, trains and generates; prints how often in which.

Each attempt is a forked child that continues from the newest complete checkpoint. The parent has the imports, which
would take most of each attempt, and has not run a model.
"""

import os
import random
import signal
import sys
import time
import traceback
from multiprocessing import Value
from pathlib import Path

from helpers.models import make_model
from helpers.trainers import make_trainer
from longact_trl import LongActTrainer


OUT, KILLS, STEPS = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
PHASES = ["other", "save", "step", "generation"]
SETTINGS = {
    "max_steps": STEPS,
    "save_strategy": "steps",
    "save_steps": 1,
    "save_total_limit": 3,
    "steps_per_generation": 2,
}
phase = Value("i", 0)
entered = Value("i", 0)  # how often the phase in question was entered since the attempt began
wanted = Value("i", 0)


def during(name: str, method: str):
    def wrapped(self, *args, **kwargs):
        before, phase.value = phase.value, PHASES.index(name)
        entered.value += phase.value == wanted.value
        try:
            return getattr(super(Killed, self), method)(*args, **kwargs)
        finally:
            phase.value = before

    return wrapped


class Killed(LongActTrainer):
    _save_checkpoint = during("save", "_save_checkpoint")
    training_step = during("step", "training_step")
    _generate = during("generation", "_generate")


def attempt() -> None:
    trainer = make_trainer(OUT, make_model(), trainer_class=Killed, **SETTINGS)
    trainer.train(resume_from_checkpoint="auto")
    trainer.save_model(OUT / "final")


def start() -> int:
    phase.value = entered.value = 0
    child = os.fork()
    if not child:
        try:
            attempt()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return child


def kill(child: int, rng: random.Random, at_once: bool) -> int | None:
    """
    Kill in the wanted phase, the first to third time it comes; the phase it hit, `None` if the run ended first.
    Without `at_once` a moment later, when it may be in another: how long a phase lasts is the machine's affair.
    """
    times, delay = rng.randint(1, 3), rng.choice([0, 0.005, 0.02, 0.05])
    while os.waitpid(child, os.WNOHANG) == (0, 0):
        if phase.value == wanted.value and entered.value >= times:
            time.sleep(0 if at_once else delay)
            os.kill(child, signal.SIGSTOP)  # so that the phase that is looked at is the one that is killed
            if not os.WIFSTOPPED(os.waitpid(child, os.WUNTRACED)[1]):
                return None
            if phase.value == wanted.value or not at_once:
                os.kill(child, signal.SIGKILL)
                assert os.waitpid(child, 0)[1] == signal.SIGKILL
                return phase.value
            os.kill(child, signal.SIGCONT)
        time.sleep(0.0005)
    return None


if __name__ == "__main__":
    rng, hits = random.Random(0), dict.fromkeys(PHASES, 0)
    while sum(hits.values()) < KILLS:
        wanted.value = 1 + sum(hits.values()) % 3
        hit = kill(start(), rng, at_once=sum(hits.values()) // 3 % 2 == 0)  # half of each phase's kills
        assert hit is not None, f"it ended after {hits}"
        hits[PHASES[hit]] += 1
    assert os.waitpid(start(), 0)[1] == 0
    print("HITS", *(f"{name}={count}" for name, count in hits.items()), flush=True)
