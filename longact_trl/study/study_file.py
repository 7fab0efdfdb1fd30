"""A study as it is written down before it runs: arms, seeds, commands, and what is expected of them."""

import hashlib
import json
from dataclasses import dataclass, fields
from pathlib import Path

from ..settings.messages import did_you_mean
from ..settings.paths import recipe_root
from ..settings.recipe_yaml import find_config, read_config
from .checks import check_decided, check_evaluation, check_name, check_seeds, check_texts, check_training


STUDIES = "studies"


@dataclass(frozen=True)
class Study:
    """
    A study.

    Args:
        title (`str`):
            What it is about, in a line.
        expected (`str`):
            What is expected, written before the first run.
        decides (`str`):
            Which comparison, by which test, decides whether it is so; written before the first run.
        baseline (`str`):
            Arm that all others are compared with.
        seeds (`list[int]`):
            Seeds of training, the same for each arm.
        train (`dict`):
            `recipe`, `config` and `accelerate_config`: names as in the commands of the README. Other keys are
            arguments of every run.
        evaluate (`dict`):
            `config` of `recipes/evaluate.py`. Other keys are its arguments.
        arms (`dict[str, dict]`):
            Name of an arm to what it changes: arguments of the recipe, or another `config`. `{model: FOLDER}` is
            evaluated as it is, which is the same for every seed. `against: ARM` compares it with another arm than the
            baseline.
        output_dir (`str`):
            Folder of all runs.
    """

    title: str
    expected: str
    decides: str
    baseline: str
    seeds: list[int]
    train: dict
    evaluate: dict
    arms: dict[str, dict]
    output_dir: str

    def __post_init__(self):
        for name, kind in (("train", dict), ("evaluate", dict), ("arms", dict)):
            if not isinstance(getattr(self, name), kind):
                raise ValueError(f"`{name}` must be a {kind.__name__}, got {getattr(self, name)!r}.")
        check_texts("the study", vars(self), ("title", "expected", "decides", "output_dir"))
        check_seeds(self.seeds)
        for name in self.arms:
            check_name(name)
        if not all(isinstance(changes, dict) for changes in self.arms.values()):
            raise ValueError("Each of `arms` holds `field: value` lines; write `{}` for an arm that changes nothing.")
        for name in [self.baseline, *map(self.against, self.arms)]:
            if name not in self.arms:
                raise ValueError(f"`baseline` {name!r} is none of the arms {', '.join(self.arms)}.")
        for name, needed in (("train", ("recipe", "config", "accelerate_config")), ("evaluate", ("config",))):
            if missing := [key for key in needed if key not in getattr(self, name)]:
                raise ValueError(f"`{name}` must name its {' and '.join(missing)}.")
            check_decided(f"`{name}`", getattr(self, name), name)
        check_texts("`evaluate`", self.evaluate, ("config",))
        check_evaluation(self.evaluate)
        check_training("`train`", self.train)
        for arm in self.arms:
            changes, of = self.changes(arm), f"the arm {arm!r}"
            if "model" not in changes:
                check_decided(of, changes, "train")
                check_training(of, {**self.train, **changes})
                continue
            check_texts(of, changes, ("model",))
            if len(changes) > 1:
                raise ValueError(f"{of} is evaluated as it is: write only `model`, or `model_name_or_path` to train.")

    def against(self, arm: str) -> str:
        """The arm that an arm is compared with."""
        return self.arms[arm].get("against", self.baseline)

    def changes(self, arm: str) -> dict:
        """What an arm changes in the commands."""
        return {name: value for name, value in self.arms[arm].items() if name != "against"}

    def runs(self) -> list["Run"]:
        """Seed by seed, all arms of one: a study that is stopped early compares as many seeds of each."""
        return [
            Run(self, arm, seed)
            for seed in self.seeds
            for arm, changes in self.arms.items()
            if "model" not in changes or seed == self.seeds[0]
        ]


@dataclass(frozen=True)
class Run:
    """One arm with one seed."""

    study: Study
    arm: str
    seed: int

    @property
    def folder(self) -> Path:
        """Holds `model`, `evaluation`, `run.json` and logs."""
        return Path(self.study.output_dir, self.arm, f"seed-{self.seed}")

    @property
    def untrained(self) -> str | None:
        """The model of an arm that is only evaluated."""
        return self.study.arms[self.arm].get("model")

    @property
    def settings(self) -> dict:
        """
        Everything that the numbers of a run depend on, as written: files are resolved, so that a change of a base
        configuration is a change of the run.
        """
        root = recipe_root()
        train = {**self.study.train, **self.study.changes(self.arm)}
        launch = find_config(train.pop("accelerate_config"), root / "accelerate_configs")
        config = read_config(find_config(train.pop("config"), root / "recipes"))
        evaluate = dict(self.study.evaluate)
        evaluation = read_config(find_config(evaluate.pop("config"), root / "recipes"))
        evaluate = {**evaluation, **evaluate}
        if self.untrained:
            return {"train": {"model": self.untrained}, "evaluate": evaluate}
        return {
            "launch": read_config(launch),
            "train": {**config, **train, "seed": self.seed},
            "evaluate": evaluate,
        }

    @property
    def claim(self) -> str:
        """Hash of the settings."""
        return hashlib.sha256(json.dumps(self.settings, sort_keys=True, default=str).encode()).hexdigest()


def read_study(file: str, output_dir: str | None = None) -> Study:
    """
    Read a study.

    Args:
        file (`str`):
            YAML file: a path, or a bare name in `studies/`.
        output_dir (`str`, *optional*):
            Folder of all runs; default what the file says, else `runs/study/NAME`.

    Returns:
        `Study`

    Raises:
        `ValueError`: If there is no such file, or it is no study; names the key and what to write instead.
    """
    path = find_config(file, recipe_root() / STUDIES)
    content = read_config(path)
    content["output_dir"] = output_dir or content.get("output_dir") or f"runs/study/{path.stem}"
    known = [field.name for field in fields(Study)]
    for key in content:
        if key not in known:
            hint = did_you_mean(str(key), known, "Did you mean `{}`?", f"A study has {', '.join(known)}.")
            raise ValueError(f"{path} has an unknown key `{key}`. {hint}")
    if missing := [name for name in known if name not in content]:
        raise ValueError(f"{path} says nothing of {', '.join(missing)}.")
    if type(content["seeds"]) is int and content["seeds"] > 0:
        content["seeds"] = list(range(content["seeds"]))
    try:
        return Study(**content)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def read_devices(devices: str | None) -> list[str] | None:
    """
    Groups of GPUs as people write them.

    Args:
        devices (`str`, *optional*):
            E.g. `"0-3,4-7"`.

    Returns:
        `list[str]` or `None`: Each as CUDA_VISIBLE_DEVICES has it: `"0,1,2,3"`.

    Raises:
        `ValueError`: If they cannot be read.
    """
    if not devices:
        return None
    groups: list[str] = []
    taken: set[int] = set()
    for group in devices.split(","):
        first, dash, last = group.strip().partition("-")
        if not first.isdigit() or (dash and not last.isdigit()) or int(last or first) < int(first):
            raise ValueError(f"Cannot read the devices {group!r}. Write groups of GPUs, as in 0-3,4-7.")
        numbers = range(int(first), int(last or first) + 1)
        if twice := taken.intersection(numbers):
            raise ValueError(f"GPU {min(twice)} stands twice in {devices!r}: each takes one run at a time.")
        taken.update(numbers)
        groups.append(",".join(map(str, numbers)))
    return groups
