"""
What a study takes and costs before it runs: hours of training as `longact check` counts them, and those of evaluation.

Evaluation is counted on one GPU, or on as many as `model_args` names, for prompts as long as they may be. The run's
other GPUs are held meanwhile, and paid for.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from rich.table import Table

from ..check.hours import HOUR, amount, empty_table, hours_of
from ..check.memory.plan import VLLM_WORKSPACE
from ..check.memory.shape import ModelShape
from ..check.subject import Subject, read_subject
from ..check.work import decode_bytes, decode_flops, prefill_flops
from ..evaluation.config import EvaluationConfig
from ..evaluation.protocols import longbench_v2
from ..models.reading import window_of
from ..settings.gpus import Gpu
from .checks import as_options
from .study_file import Run


QUESTIONS = 503
"""Of LongBench v2, the benchmark of the paper's Tables 4 to 6."""
VLLM_SHARE = 0.9
"""What vLLM takes of a GPU by itself."""
WIDTH = 2
"""Bytes of a weight, and of an element of K and V, in bfloat16."""


@dataclass(frozen=True)
class RunHours:
    """
    One run.

    Args:
        training (`float`, *optional*):
            Hours; 0 for an arm that is evaluated as it is, `None` where it is not known how many steps there are.
        evaluation (`float`, *optional*):
            Hours; `None` for benchmarks whose lengths are not known.
        gpus (`int`):
            GPUs that the run holds.
    """

    training: float | None
    evaluation: float | None
    gpus: int

    @property
    def gpu_hours(self) -> float:
        """Of what is known."""
        return ((self.training or 0.0) + (self.evaluation or 0.0)) * self.gpus


def hours_of_runs(runs: Iterable[Run], gpu: Gpu) -> dict[str, RunHours]:
    """
    What a run of each arm takes.

    Args:
        runs (`Iterable[Run]`):
            Runs; those of an arm are alike but for the seed.
        gpu (`Gpu`):
            What they run on.

    Returns:
        `dict[str, RunHours]`: By arm.

    Raises:
        `CannotCheck`: If they run on a CPU or their model has no formula.
        `ValueError`: If the configuration of an arm is wrong.
    """
    found: dict[str, RunHours] = {}
    known: dict[str, dict] = {}  # of a model: what was read of it
    for run in runs:
        if run.arm not in found:
            subject = _subject(run, gpu)
            subject.known |= known.get(subject.described_by, {})
            window, shape = window_of(subject.model_config), subject.shape
            known[subject.described_by] = {name: subject.known[name] for name in ("model_config", "shape")}
            training = 0.0 if run.untrained else hours_of(subject, gpu).hours
            found[run.arm] = RunHours(training, evaluation_hours(run, shape, window, gpu), subject.placement.ranks)
    return found


def _subject(run: Run, gpu: Gpu) -> Subject:
    train = {**run.study.train, **run.study.changes(run.arm)}
    config, launch = train.pop("config"), train.pop("accelerate_config")
    train.pop("recipe")
    if run.untrained:  # takes no other argument of the recipe
        train = {"model_name_or_path": train["model"]}
    return read_subject(config, as_options(train), None, gpu.memory, launch)


def evaluation_hours(run: Run, shape: ModelShape, window: int | None, gpu: Gpu) -> float | None:
    """
    Hours of an evaluation with vLLM.

    Args:
        run (`Run`):
            The run.
        shape (`ModelShape`):
            Its model.
        window (`int`, *optional*):
            Tokens that the model's config.json allows.
        gpu (`Gpu`):
            On what.

    Returns:
        `float` or `None`: `None` unless it is LongBench v2, with one turn.
    """
    config = evaluation_config(run)
    if config.benchmarks != ["longbench_v2"] or config.longbench_v2_cot:
        return None
    if config.yarn:
        window = int(config.yarn["factor"] * config.yarn["original_max_position_embeddings"])
    C = longbench_v2.MAX_NEW_TOKENS["answer"] + config.reasoning_tokens * (config.protocol == "reasoning")
    P = min((config.max_model_length or window or longbench_v2.MAX_PROMPT_TOKENS) - C, longbench_v2.MAX_PROMPT_TOKENS)
    together = config.model_args.get("tensor_parallel_size", 1)
    questions = (config.num_samples or QUESTIONS) / config.model_args.get("data_parallel_size", 1)
    cache = gpu.memory * 2**30 * VLLM_SHARE - WIDTH * shape.parameters / together - VLLM_WORKSPACE
    at_once = min(questions, max(cache * together / (WIDTH * shape.kv_elements * (P + C)), 1))
    size = decode_bytes(shape, P, C, questions, at_once, WIDTH)
    prefill, writing = questions * prefill_flops(shape, P), questions * decode_flops(shape, P, C)
    return (gpu.seconds(prefill / together) + gpu.seconds(writing / together, size / together)) / HOUR


def evaluation_config(run: Run) -> EvaluationConfig:
    """What `recipes/evaluate.py` is told."""
    known = EvaluationConfig.__dataclass_fields__
    settings = {name: value for name, value in run.settings["evaluate"].items() if name in known}
    return EvaluationConfig(**settings | {"model": run.untrained or str(run.folder / "model")})


def hours_table(runs: list[Run], found: dict[str, RunHours], gpu: Gpu, price: float | None = None) -> Table:
    """
    What is left of a study, for a terminal.

    Args:
        runs (`list[Run]`):
            Runs that are not finished.
        found (`dict[str, RunHours]`):
            From [`hours_of_runs`].
        gpu (`Gpu`):
            What was assumed.
        price (`float`, *optional*):
            Of a GPU for an hour, in any currency.

    Returns:
        `Table`: With what is assumed in its caption.
    """
    table = empty_table(
        gpu,
        "every prompt and completion as long as it may be, the run's GPUs held while one evaluates. See "
        "`longact check --config …` for the parts of an arm.",
    )
    columns = ("arm", "runs", "training", "evaluation", "GPU-hours") + ("price",) * (price is not None)
    for column in columns:
        table.add_column(column, justify="left" if column == "arm" else "right")
    total = 0.0
    for arm, hours in found.items():
        count = sum(run.arm == arm for run in runs)
        total += count * hours.gpu_hours
        cost = () if price is None else (amount(count * hours.gpu_hours * price),)
        each = _text(hours.training), _text(hours.evaluation), amount(count * hours.gpu_hours)
        table.add_row(arm, str(count), *each, *cost)
    cost = () if price is None else (amount(total * price),)
    table.add_row("all", str(len(runs)), "", "", amount(total), *cost, style="bold")
    return table


def _text(hours: float | None) -> str:
    return "unknown" if hours is None else f"{amount(hours)} h" if hours else "none"
