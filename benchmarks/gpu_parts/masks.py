"""What the masks cost: `LongActTrainer` beside TRL's `GRPOTrainer`, step by step in turns."""

import statistics
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack

import torch
from memory_plan import TOKENIZER, distinct_characters, prompts_of
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import GRPOConfig, GRPOTrainer
from turns import Clock

from longact_trl import LongActConfig, LongActTrainer

from .bench import Bench, config_of


TITLE = "Overhead of masks"
NOTE = (
    "Seconds of an optimizer step without generation, median over the turns so far; one generation serves two steps, "
    "so that both trainers score. Prompts are not shared. ratio: to TRL's."
)
ARMS = {"TRL": None, "LongAct": {}, "LongAct, row-sparse": {"row_sparse_gradients": "on"}}
PROMPT, GROUP, COMPLETION, TURNS = 4096, 8, 16, 3


class StepClock(TrainerCallback):
    """Added last, so that LongAct's own callback is inside."""

    def __init__(self, clock: Clock):
        self.clock = clock

    def on_step_begin(self, args, state, control, **kwargs):
        self.start = self.clock.now()

    def on_step_end(self, args, state, control, **kwargs):
        self.clock.seconds["step"] += self.clock.now() - self.start


def measure(bench: Bench) -> Iterator[dict]:
    """A row for each arm, after each turn."""
    with ExitStack() as folders:
        trainers = {}
        for arm, changes in ARMS.items():
            folder = folders.enter_context(tempfile.TemporaryDirectory())
            trainers[arm] = make_trainer(bench, folder, changes)
        seconds: dict[str, list[float]] = {arm: [] for arm in trainers}
        for turn in range(2 if bench.miniature else TURNS + 1):
            for arm in list(trainers)[:: 1 if turn % 2 else -1]:
                trainer, clock = trainers[arm]
                clock.seconds.clear()
                trainer.train()
                if turn:  # the first warms up
                    seconds[arm].append((clock.seconds["step"] - clock.seconds["generation"]) / trainer.args.max_steps)
            for arm, theirs in seconds.items() if turn else ():
                ratios = [ours / base for ours, base in zip(theirs, seconds["TRL"], strict=True)]
                row = {"arm": arm, "turns": turn, "seconds": statistics.median(theirs)}
                yield row | {"ratio": statistics.median(ratios)}


def make_trainer(bench: Bench, folder: str, changes: dict | None) -> tuple[GRPOTrainer, Clock]:
    """A trainer of a random Qwen3-0.6B, TRL's own where there are no `changes`."""
    tokenizer = AutoTokenizer.from_pretrained(TOKENIZER)
    length, completion = (16, 4) if bench.miniature else (PROMPT, COMPLETION)
    group = 2 if bench.miniature else GROUP
    settings = {
        "use_cpu": not bench.on_gpu,
        "bf16": bench.on_gpu,
        "per_device_train_batch_size": group,
        "num_generations": group,
        "steps_per_generation": 2,
        "max_completion_length": completion,
        "generation_kwargs": {"min_new_tokens": completion},
        "gradient_checkpointing": True,
        "max_steps": 2,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
    }
    torch.manual_seed(0)
    with bench.device:
        dtype = torch.bfloat16 if bench.on_gpu else torch.float32
        model = AutoModelForCausalLM.from_config(config_of(bench, "0.6B"), dtype=dtype)
    prompts = prompts_of(tokenizer, length, 8)
    if changes is None:
        args, trainer_class = GRPOConfig(folder, **settings), GRPOTrainer
    else:
        args, trainer_class = LongActConfig(folder, shared_prefix="off", **settings, **changes), LongActTrainer
    trainer = trainer_class(model, distinct_characters, args, prompts, processing_class=tokenizer)
    clock = Clock()
    trainer.add_callback(StepClock(clock))
    trainer._generate_single_turn = clock.around("generation", trainer._generate_single_turn)
    return trainer, clock
