"""What finished work rests on, by content: what may be believed when a run is continued, and what changed.

A run's claim is its configuration and the model as it is read: another one is refused, since no answer of the old one
would be an answer of the new. A unit's claim is its data and the code that made and scored them: where it changed, the
unit runs again, and only requests whose prompt is another are generated again.
"""

import hashlib
import json
import logging
import reprlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from functools import cache
from pathlib import Path

from .._version import __version__
from ..settings.installed import VLLM, installed
from ..settings.whole_files import write_json
from .backends import Model
from .benchmarks import BENCHMARKS, Unit
from .chat_template import DAY
from .config import EvaluationConfig
from .model_folders import digest_of
from .results import JOURNALS, SAMPLES


logger = logging.getLogger(__name__)

SETTINGS, UNITS = "run.json", "units.json"
# What may differ when a run is continued. Of these, only `batch_size` changes what is sampled, and nothing greedy.
FREE = ("label", "output_dir", "strict", "batch_size")
PLACES = ("model", "longbench_v2_data", "infinitebench_data", "ruler_sources")
"""Of these, what lies on this machine is claimed by its content, wherever it lies and however its path is written."""
ENGINE = ("lm-eval", "tokenizers", "torch", "transformers", *VLLM, "peft")
"""Packages that prompts go through to become answers."""
SCORING = ("rouge-score", "wonderwords")
"""Packages that make data or scores."""
ROOMS = ("evaluation", "rewards", "data")
"""Rooms of this package that make data, prompts or scores."""


def claim_run(folder: Path, config: EvaluationConfig, model: Model) -> None:
    """
    Make sure that what lies in the output folder was made with the same configuration and the same model.

    Args:
        folder (`Path`):
            The output folder.
        config (`EvaluationConfig`):
            The run.
        model (`Model`):
            Its model.

    Raises:
        `ValueError`: If it holds another run, or answers of nobody knows which; names what differs.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"output_dir={str(folder)!r} cannot be made ({error}): give another one.") from error
    settings = {name: value for name, value in asdict(config).items() if name not in FREE}
    settings |= {name: without_places(settings[name]) for name in PLACES}
    claim = settings | {"backend": model.backend, "dtype": model.dtype, "max_model_length": model.window}
    claim |= {"weight_files": model.weight_files, "model_files": model.files, "revisions": model.revisions}
    claim |= {"template_day": str(DAY), "versions": installed(ENGINE)}
    claim = json.loads(json.dumps(claim))
    file = folder / SETTINGS
    if not file.is_file():
        if left := [name for name in (UNITS, SAMPLES, JOURNALS) if (folder / name).exists()]:
            raise ValueError(
                f"{folder} holds {', '.join(left)} without the {SETTINGS} that says of which model and settings: give "
                "another `--output_dir`, or delete this one."
            )
        write_json(file, claim)
        return
    there = read_claim(file, "this folder")
    if differ := changes(there, claim):
        raise ValueError(
            f"{folder} holds a run with other settings ({'; '.join(differ)}): give another `--output_dir`, or delete "
            "this one."
        )


def without_places(value: object) -> object:
    """A setting with the word `here` for each path of this machine; ids of the Hub and other words as they are."""
    if isinstance(value, Mapping):
        return {name: without_places(inner) for name, inner in value.items()}
    return "here" if isinstance(value, str) and Path(value).expanduser().exists() else value


def claim_of(benchmark: str, task: str, config: EvaluationConfig) -> dict:
    """
    What the samples of a task rest on beside the run.

    Args:
        benchmark (`str`):
            Name of the benchmark.
        task (`str`):
            Its task.
        config (`EvaluationConfig`):
            The run.

    Returns:
        `dict`: `content` of its data, `code` of this package, `versions` of packages that make data or scores.

    Raises:
        `ValueError`: If the data cannot be read or used.
    """
    content = BENCHMARKS[benchmark].content(**asdict(config) | {"task": task})
    return {"content": content, "code": f"{__version__} {code()}", "versions": installed(SCORING)}


class UnitClaims:
    """
    The claims of finished units, in a file beside the run's.

    Args:
        folder (`Path`):
            The output folder.
    """

    def __init__(self, folder: Path):
        self.file = folder / UNITS
        self.claims = read_claim(self.file, "it") if self.file.is_file() else {}

    def holds(self, unit: Unit, claim: dict, samples: Path) -> bool:
        """Whether a unit's samples were made under this claim and are as they were; warns of what changed."""
        if not samples.is_file():
            return False
        there = self.claims.get(unit.name)
        there = there if isinstance(there, dict) else {}
        if differ := changes(there, claim | {"samples": digest_of(samples)}):
            logger.warning(
                f"{unit.name} runs again, since it was finished with other data or code: {'; '.join(differ)}."
            )
        return not differ

    def keep(self, unit: Unit, claim: dict, samples: Path) -> None:
        """Write down that a unit is finished, after its samples."""
        self.claims[unit.name] = claim | {"samples": digest_of(samples)}
        write_json(self.file, self.claims)


def changes(there: Mapping, now: Mapping) -> list[str]:
    """What differs between two claims, each as `name: old, now new`."""
    old, new = dict(_flat(there)), dict(_flat(now))
    differ = [name for name in sorted({*old, *new}) if old.get(name) != new.get(name)]
    return [f"{name}: {reprlib.repr(old.get(name))}, now {reprlib.repr(new.get(name))}" for name in differ]


def _flat(claim: Mapping, prefix: str = "") -> Iterator[tuple[str, object]]:
    for name, value in claim.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{name} ")
        else:
            yield f"{prefix}{name}", value


def read_claim(file: Path, gone: str) -> dict:
    """A claim on disk. `ValueError` if it is none; says what to delete."""
    remedy = f"delete {gone}, or give another output_dir."
    try:
        claim = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} cannot be read as JSON ({error}): {remedy}") from error
    if not isinstance(claim, dict):
        raise ValueError(f"{file} is no claim of a run: {remedy}")
    return claim


@cache
def code() -> str:
    """Digits of a SHA-256 over the files of this package that make data, prompts or scores."""
    package, digest = Path(__file__).parents[1], hashlib.sha256()
    for file in sorted(file for room in ROOMS for file in (package / room).rglob("*")):
        if file.is_file() and "__pycache__" not in file.parts:  # where Python puts files that come and go
            digest.update(f"{file.relative_to(package)}\n".encode() + file.read_bytes())
    return digest.hexdigest()[:16]
