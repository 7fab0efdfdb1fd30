"""
How long a run takes and what it costs, by formula. No GPU has confirmed it: what is assumed is printed beside it.

Time is the larger of operations over a share of a GPU's peak and bytes over a share of its bandwidth: operations for
scoring and training, mostly bytes for writing completions token by token. All completions are taken to be as long as
they may be. Loading, saving, the optimizer, communication and what dynamic sampling generates again are left out.
"""

from dataclasses import dataclass
from statistics import fmean

from rich.table import Table

from ..data.mixture import expected_rows
from ..method.strategies import STRATEGIES
from ..settings.gpus import Gpu
from ..settings.paths import recipe_root
from ..settings.recipe_yaml import find_config
from ..training.config import LongActConfig
from .memory.plan import plan_memory
from .subject import Subject
from .verdict import CannotCheck
from .work import decode_bytes, decode_flops, pass_flops, prefill_flops


HOUR = 3600


@dataclass(frozen=True)
class Hours:
    """
    What a run takes.

    Args:
        parts (`dict[str, float]`):
            Seconds of an optimizer step by what they are spent on.
        steps (`int`, *optional*):
            Optimizer steps; `None` where it is not known how many prompts there are.
        gpus (`int`):
            GPUs that are busy, or held, meanwhile.
        counted (`str`):
            What lengths are taken.
    """

    parts: dict[str, float]
    steps: int | None
    gpus: int
    counted: str

    @property
    def step_seconds(self) -> float:
        return sum(self.parts.values())

    @property
    def hours(self) -> float | None:
        return None if self.steps is None else self.step_seconds * self.steps / HOUR

    @property
    def gpu_hours(self) -> float | None:
        return None if self.hours is None else self.hours * self.gpus


def hours_of(subject: Subject, gpu: Gpu) -> Hours:
    """
    What a run takes. Prompts that were measured are taken as they are, else all for as long as the window.

    Args:
        subject (`Subject`):
            The run.
        gpu (`Gpu`):
            What it trains on.

    Returns:
        `Hours`

    Raises:
        `CannotCheck`: If it runs on a CPU, whose peaks are not known, or the model has no formula.
    """
    if subject.on_cpu:
        raise CannotCheck("a CPU's peaks are not known: time a few steps")
    args, load = subject.args, subject.load()
    sequences = args.per_device_train_batch_size * args.gradient_accumulation_steps
    rows = _num_rows(subject)
    if subject.is_rl:
        lengths = _prompt_lengths(subject)
        each = [step_seconds(subject, gpu, P) for P in lengths]
        parts = {name: fmean(seconds[name] for seconds in each) for name in each[0]}
        few = " to ".join(f"{length:,}" for length in sorted({min(lengths), max(lengths)}))
        counted = f"prompts of {few} tokens, completions of {load.completion:,}"
        per_row = args.num_generations * args.num_iterations
    else:
        work = pass_flops(subject.shape, 0, sequences, load.completion, True, False, load.checkpointing)
        parts, per_row, counted = {"training": gpu.seconds(work)}, 1, f"sequences of {load.completion:,} tokens"
    steps = args.max_steps if args.max_steps > 0 else None
    if steps is None and rows is not None:
        steps = int(args.num_train_epochs * rows * per_row) // (subject.placement.ranks * sequences)
    return Hours(parts, steps, subject.placement.ranks, counted)


def step_seconds(subject: Subject, gpu: Gpu, P: int) -> dict[str, float]:
    """
    Seconds of an optimizer step of RL on a rank, by what they are spent on.

    Args:
        subject (`Subject`):
            The run.
        gpu (`Gpu`):
            What it trains on.
        P (`int`):
            Tokens of each prompt.

    Returns:
        `dict[str, float]`: Of `generation` unless vLLM servers do it, `scoring` where it is done, `training`.
    """
    args, shape, load = subject.args, subject.shape, subject.load()
    sequences = args.per_device_train_batch_size * args.gradient_accumulation_steps
    prompts = -(-sequences // load.group) if load.shared_prefix else sequences
    sizes = P, sequences / prompts, load.completion
    scoring, training = (
        prompts * gpu.seconds(pass_flops(subject.shape, *sizes, learns, load.shared_prefix, load.checkpointing))
        for learns in (False, True)
    )
    seconds = {}
    if not args.use_vllm or args.vllm_mode == "colocate":
        at_once, reads = load.generated, sequences
        if load.vllm_share:  # reads a prompt once, and writes what its cache holds
            kv_tokens = plan_memory(shape, subject.placement, load, subject.gpu_bytes).kv_tokens
            of_an_engine = load.vllm_ranks * args.generation_batch_size / subject.placement.ranks
            at_once = min(of_an_engine, max(kv_tokens / (P / load.group + load.completion), 1))
            reads = sequences / load.group
        size = decode_bytes(shape, P, load.completion, sequences, at_once, load.compute_bytes)
        generation = gpu.seconds(reads * prefill_flops(shape, P))
        generation += gpu.seconds(sequences * decode_flops(shape, P, load.completion), size)
        seconds["generation"] = generation / args.num_iterations
    if passes := scoring_passes(args):
        seconds["scoring"] = passes * scoring / args.num_iterations
    return seconds | {"training": training}


def scoring_passes(args: LongActConfig) -> int:
    """
    Forward passes over what was just generated: TRL's or, where it makes none, that for magnitudes or Clip-Cov, and a
    reference model's.

    Args:
        args (`LongActConfig`):
            Training arguments.

    Returns:
        `int`: How many.
    """
    trl = args.gradient_accumulation_steps % (args.steps_per_generation * args.num_iterations) != 0
    trl |= args.use_vllm and args.vllm_importance_sampling_correction
    measures = STRATEGIES[args.strategy].measures and args.saliency_source == "current_batch"
    return int(trl or measures or args.policy_loss != "vanilla") + (args.beta > 0)


def _prompt_lengths(subject: Subject) -> list[int]:
    measured, window = subject.known.get("prompt_lengths"), subject.window
    if not measured:
        return [subject.longest_prompt()]
    fit = [length for length in measured[0] if window is None or length <= window]
    if subject.args.prompt_length_policy == "truncate_middle":
        fit += [window] * (len(measured[0]) - len(fit))
    return fit or [window]


def _num_rows(subject: Subject) -> int | None:
    if subject.is_rl and subject.known.get("prompt_lengths"):
        return len(_prompt_lengths(subject))
    if subject.known.get("dataset"):
        return len(subject.known["dataset"][0])
    mixture = getattr(subject.script_args, "mixture", None)
    return expected_rows(find_config(mixture, recipe_root() / "recipes")) if mixture else None


def hours_table(hours: Hours, gpu: Gpu, price: float | None = None) -> Table:
    """
    What a run takes, for a terminal.

    Args:
        hours (`Hours`):
            The run's.
        gpu (`Gpu`):
            What was assumed.
        price (`float`, *optional*):
            Of a GPU for an hour, in any currency.

    Returns:
        `Table`: With what is assumed in its caption.
    """
    table = empty_table(
        gpu,
        f"{hours.counted}. Without loading, saving, the optimizer, communication, evaluation, and what dynamic "
        "sampling generates again.",
    )
    table.add_column("")
    table.add_column("minutes a step", justify="right")
    known = hours.steps is not None
    if known:
        table.add_column(f"hours of {hours.steps:,} steps", justify="right")
    for name, seconds in {**hours.parts, "together": hours.step_seconds}.items():
        run = [amount(seconds * hours.steps / HOUR)] if known else []
        table.add_row(name, amount(seconds / 60), *run, style="bold" if name == "together" else "")
    if known:
        gpus = f"{hours.gpus} GPU{'s' * (hours.gpus != 1)}"
        table.add_row(f"GPU-hours of {gpus}", "", amount(hours.gpu_hours), style="bold")
        if price is not None:
            table.add_row(f"price at {price:,g} for a GPU-hour", "", amount(hours.gpu_hours * price), style="bold")
    else:
        table.caption += " How many steps is not known: the data are not here, and no `max_steps` is set."
    return table


def amount(value: float) -> str:
    """Hours, minutes or money as people write them: a short run does not cost 0."""
    if 0 < value < 0.01:
        return "<0.01"
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def empty_table(gpu: Gpu, counted: str) -> Table:
    """A table of hours, whose caption says what is assumed of a GPU and what is counted."""
    caption = f"{gpu.assumption}, assumed and not measured; {counted}"
    return Table(title="Hours, by formula", caption=caption, title_justify="left", caption_justify="left")
