"""What `longact inspect` and `longact perturb` are told, judged before torch or a model is loaded."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from ..evaluation.ruler import TASKS
from ..method.sparsity import check_sparsity_ratio
from ..settings.messages import did_you_mean
from ..settings.paths import check_here, recipe_root
from ..settings.recipe_yaml import find_config


KINDS = ("q", "k", "v")
LAYOUTS = ("ours", "paper")
CLAMPS = ("sample", "pooled")
ENGINES = ("transformers", "vllm")
RULER = "ruler/"
NEEDLES, FACTS, LONGBENCH_V2 = "needles", "facts", "longbench_v2"
TASK_NAMES = f"{NEEDLES}, {FACTS}, {LONGBENCH_V2} or {RULER}NAME"


def check_options(
    model: str,
    sparsity_ratio: float,
    kinds: str,
    layers: str | None = None,
    lengths: Sequence[str | None] = (),
    files: Sequence[Path] = (),
    layout: str = "ours",
    benchmark: str | None = None,
) -> None:
    """
    Check options by themselves.

    Args:
        model (`str`):
            Folder or Hub id.
        sparsity_ratio (`float`):
            λ.
        kinds (`str`):
            Some of `q,k,v`.
        layers (`str`, *optional*):
            Numbers and ranges, e.g. `"0,5,10-12"`.
        lengths (`Sequence[str | None]`, *optional*):
            Numbers of tokens as people write them.
        files (`Sequence[Path]`, *optional*):
            Texts to read.
        layout (`str`, *optional*, defaults to `"ours"`):
            Of pictures.
        benchmark (`str`, *optional*):
            Name of a task, e.g. `"ruler/cwe"`.

    Raises:
        `ValueError`: For the first that cannot be meant.
    """
    check_here("MODEL", model)
    check_sparsity_ratio(sparsity_ratio)
    check_kinds(kinds.split(","))
    parse_layers(layers)
    for length in lengths:
        if length is not None:
            parse_length(length)
    for file in files:
        if not file.is_file():
            raise ValueError(f"Cannot read {str(file)!r} as UTF-8 text: there is no such file.")
    check_choice("--layout", layout, LAYOUTS)
    if benchmark:
        check_task(benchmark)


def check_gradients(config: str | None, length: str | None, num_prompts: int) -> None:
    """`ValueError` for the first that `longact inspect --gradients` cannot do."""
    check_num_prompts(num_prompts)
    if config and length:
        raise ValueError("Write --length for synthetic prompts or --config for those of a recipe, not both.")
    if config:
        find_config(config, recipe_root() / "recipes")


def check_perturb(
    task: str,
    num_prompts: int | None,
    case: str | None,
    longbench_v2_data: str,
    reasoning_tokens: int,
    temperature: float | None,
    clamp: str,
    engine: str,
) -> None:
    """`ValueError` for the first that cannot be meant; what each is stands in `longact perturb --help`."""
    check_choice("engine", engine, ENGINES)
    check_choice("--clamp", clamp, CLAMPS)
    check_num_prompts(num_prompts)
    check_task(task)
    if case and task != LONGBENCH_V2:
        raise ValueError(f"--case {case} is a question of LongBench v2: add --task {LONGBENCH_V2}.")
    for name, value in (("reasoning-tokens", reasoning_tokens), ("temperature", temperature or 0)):
        if value < 0:
            raise ValueError(f"--{name} must not be negative, got {value}.")
    check_here("--longbench-v2-data", longbench_v2_data)


def check_num_prompts(num_prompts: int | None) -> None:
    """`ValueError` for less than one."""
    if num_prompts is not None and num_prompts < 1:
        raise ValueError(f"--num-prompts must be 1 or more, got {num_prompts}.")


def check_choice(name: str, value: str, choices: Collection[str]) -> None:
    """`ValueError` for what is none of the choices, with the nearest."""
    if value not in choices:
        hint = did_you_mean(value, choices, " Did you mean {}?")
        raise ValueError(f"Unknown {name} {value!r}. Write {' or '.join(choices)}.{hint}")


def check_task(task: str) -> None:
    """`ValueError` if there is no such task to ask questions of."""
    names = [RULER + name for name in TASKS]
    hint = did_you_mean(task, [NEEDLES, FACTS, LONGBENCH_V2, *names], " Did you mean {}?")
    if task.startswith(RULER) and task not in names:
        raise ValueError(f"RULER has no task {task!r}. Write one of {', '.join(names)}.{hint}")
    if task not in (NEEDLES, FACTS, LONGBENCH_V2, *names):
        raise ValueError(f"Unknown task {task!r}. Write {TASK_NAMES}.{hint}")


def check_magnitudes(file: Path | None) -> None:
    """`ValueError` if a file of magnitudes is not there."""
    if file is not None and not file.is_file():
        raise ValueError(f"There is no {str(file)!r}: write the magnitudes.safetensors of `longact inspect`.")


def refuse(options: Mapping[str, object], reason: str) -> None:
    """`ValueError` for the first of these options that was given (is true), with the reason."""
    for name, given in options.items():
        if given:
            raise ValueError(f"{name} {reason}. Leave it out.")


def refuse_both(options: Mapping[str, object]) -> None:
    """`ValueError` where all of these options were given."""
    if all(options.values()):
        raise ValueError(f"Write {' or '.join(options)}, not both.")


def check_kinds(kinds: Sequence[str]) -> None:
    """`ValueError` unless these are some of q, k and v."""
    if not kinds or set(kinds) - set(KINDS):
        raise ValueError(f"Unknown projections {','.join(kinds)!r}. Write some of {','.join(KINDS)}.")


def parse_layers(layers: str | None) -> dict[str, range] | None:
    """
    Numbers of layers as people write them.

    Args:
        layers (`str`, *optional*):
            Numbers and ranges, e.g. `"0,5,10-12"`.

    Returns:
        `dict[str, range]` or `None`: Each part and the layers it means; `None` where none are named.

    Raises:
        `ValueError`: If they cannot be read.
    """
    if layers is None:
        return None
    found = {}
    for part in layers.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdigit() or (dash and not last.isdigit()) or int(last or first) < int(first):
            raise ValueError(f"Cannot read layers {layers!r}. Write numbers and ranges, as in 0,5,10-12.")
        found[part.strip()] = range(int(first), int(last or first) + 1)
    return found


def parse_length(length: str) -> int:
    """
    A number of tokens as people write it.

    Args:
        length (`str`):
            `"4096"`, `"4k"` (1k is 1,024).

    Returns:
        `int`

    Raises:
        `ValueError`: If it is none.
    """
    number = length.lower().removesuffix("k")
    if not number.isdigit() or int(number) == 0:
        raise ValueError(f"Cannot read a length from {length!r}. Write tokens: 4096, or 4k.")
    return int(number) * (1024 if length.lower().endswith("k") else 1)
