"""What a study shows: each arm's score over seeds and samples, differences to the baseline, and what could be seen."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import NormalDist, mean, stdev

import torch

from ..evaluation.results import read_results
from ..evaluation.statistics import Interval, sign_flip_p
from ..training.checkpoints import TRAINER_STATE_NAME, newest_complete_checkpoint
from .execution import is_finished
from .study_file import Run, Study


NUM_RESAMPLES = 10_000
POWER = 0.8
LEVEL = 0.05


@dataclass
class Arm:
    """
    One arm.

    Args:
        seeds (`list[int]`):
            Seeds that are finished.
        scores (`list[float]`):
            Score of each seed, from 0 to 1.
        score (`Interval`):
            Their mean, with an interval over seeds and samples.
        difference (`Interval`, *optional*):
            To the arm that it is compared with, on the same seeds and samples; `None` for a baseline itself.
        p (`float`, *optional*):
            Two-sided p-value of that difference, signs flipped seed by seed, adjusted for the number of arms (Holm).
        detectable (`float`, *optional*):
            The smallest difference that would have been found in 80 % of such studies, at the 5 % level and by the
            spread of the differences between seeds; `None` for fewer than six, whose signs find nothing.
        tokens, seconds (`float`):
            Tokens that training saw and time that it took, means over seeds.
        rewards (`list[list[float]]`):
            Mean reward at each logged step, a curve a seed.
        steps (`list[int]`):
            The steps that were logged.
    """

    seeds: list[int]
    scores: list[float]
    score: Interval
    difference: Interval | None
    p: float | None
    detectable: float | None
    tokens: float
    seconds: float
    rewards: list[list[float]]
    steps: list[int]


def outcome_of(study: Study) -> dict[str, Arm]:
    """
    Evaluate what is finished.

    Args:
        study (`Study`):
            The study.

    Returns:
        `dict[str, Arm]`: By the name of the arm. Arms without a finished run are left out; differences are of seeds
        that both arms have.

    Raises:
        `ValueError`: If nothing is finished, or runs answered other questions than each other.
    """
    finished = [run for run in study.runs() if is_finished(run)]
    scores: dict[str, dict[int, list[torch.Tensor]]] = {}
    questions: list = []
    for run in finished:
        asked, scored = _answers_of(run)
        if asked != (questions := questions or asked):
            raise ValueError(
                f"{run.folder} answered other questions than {finished[0].folder}: evaluate one of them again."
            )
        for seed in study.seeds if run.untrained else [run.seed]:  # the same model beside each seed
            scores.setdefault(run.arm, {})[seed] = scored
    if not finished:
        raise ValueError(f"No run of {study.output_dir} is finished yet.")
    arms: dict[str, Arm] = {}
    for name, by_seed in scores.items():
        against = study.against(name)
        common = sorted(by_seed.keys() & scores.get(against, {}).keys())
        difference = p = detectable = None
        if name != against and common:
            ours, theirs = _stack(by_seed, common), _stack(scores[against], common)
            paired = [our - their for our, their in zip(ours, theirs, strict=True)]
            difference = crossed_bootstrap(paired)
            by_seed_difference = torch.stack([unit.mean(1) for unit in paired]).mean(0).tolist()
            p = sign_flip_p([by_seed_difference])
            detectable = detectable_difference(by_seed_difference)
        logs = [_log_of(run) for run in finished if run.arm == name]
        rewarded = [[(entry["step"], entry["reward"]) for entry in log if "reward" in entry] for log in logs]
        arms[name] = Arm(
            seeds=sorted(by_seed),
            scores=[mean(unit.mean().item() for unit in by_seed[seed]) for seed in sorted(by_seed)],
            score=crossed_bootstrap(_stack(by_seed, sorted(by_seed))),
            difference=difference,
            p=p,
            detectable=detectable,
            tokens=mean(max((entry.get("num_tokens", 0.0) for entry in log), default=0.0) for log in logs),
            seconds=mean(sum(entry.get("train_runtime", 0.0) for entry in log) or _step_seconds(log) for log in logs),
            rewards=[[reward for _, reward in curve] for curve in rewarded],
            steps=[step for step, _ in min(rewarded, key=len)],
        )
    for name, p in holm({name: arm.p for name, arm in arms.items() if arm.p is not None}).items():
        arms[name].p = p
    return arms


def crossed_bootstrap(units: Sequence[torch.Tensor]) -> Interval:
    """
    Mean of the units' means, with a 95 % bootstrap interval over seeds and samples at once. Both are drawn with
    replacement and independently, since every seed answers the same questions; that is on the wide side (Owen's
    pigeonhole bootstrap, arXiv:0708.1720).

    Args:
        units (`Sequence[torch.Tensor]`):
            Scores of each task, (seeds, samples). Seeds are the same in all.

    Returns:
        `Interval`
    """
    generator = torch.Generator().manual_seed(0)
    num_seeds = len(units[0])
    seeds = _shares(NUM_RESAMPLES, num_seeds, generator)
    resampled = torch.zeros(NUM_RESAMPLES, dtype=torch.float64)
    for unit in units:
        samples = _shares(NUM_RESAMPLES, unit.size(1), generator)
        resampled += ((seeds @ unit.double()) * samples).sum(1) / len(units)
    low, high = resampled.quantile(torch.tensor([LEVEL / 2, 1 - LEVEL / 2], dtype=torch.float64)).tolist()
    return Interval(mean(unit.double().mean().item() for unit in units), low, high)


def _shares(resamples: int, size: int, generator: torch.Generator) -> torch.Tensor:
    """How often each of `size` things is drawn, as a share: float64 (resamples, size)."""
    drawn = torch.randint(size, (resamples, size), generator=generator)
    ones = torch.ones(drawn.shape, dtype=torch.float64)
    return torch.zeros(resamples, size, dtype=torch.float64).scatter_add_(1, drawn, ones) / size


def detectable_difference(differences: Sequence[float]) -> float | None:
    """
    Smallest true difference that a study of this many seeds finds in 80 % of cases at the 5 % level, by the normal
    approximation: (z_0.975 + z_0.8) · s / √n.

    Args:
        differences (`Sequence[float]`):
            Difference of each seed.

    Returns:
        `float` or `None`: `None` where no difference between so many seeds has a p below 5 %.
    """
    if smallest_p(len(differences)) > LEVEL:
        return None
    quantiles = NormalDist().inv_cdf(1 - LEVEL / 2) + NormalDist().inv_cdf(POWER)
    return quantiles * stdev(differences) / math.sqrt(len(differences))


def smallest_p(num_seeds: int, num_differences: int = 1) -> float:
    """
    What the p-value of a study cannot fall below: all seeds agree, and so do all of their signs flipped.

    Args:
        num_seeds (`int`):
            Seeds of an arm.
        num_differences (`int`, *optional*, defaults to `1`):
            Differences that Holm's adjustment counts.

    Returns:
        `float`: At most 1.
    """
    return min(1.0, num_differences * 2.0 ** (1 - num_seeds))


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """
    P-values adjusted for their number: the smallest times n, the next times n - 1, …, never falling.

    Args:
        p_values (`Mapping[str, float]`):
            By name.

    Returns:
        `dict[str, float]`: By name, at most 1.
    """
    adjusted, highest = {}, 0.0
    for rank, name in enumerate(sorted(p_values, key=p_values.__getitem__)):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[name]))
        adjusted[name] = highest
    return adjusted


def as_json(study: Study, arms: Mapping[str, Arm]) -> dict:
    """Everything that a study shows, for machines: percent where the table has percent."""
    return {
        "title": study.title,
        "expected": study.expected,
        "decides": study.decides,
        "baseline": study.baseline,
        "arms": {name: asdict(arm) | _intervals(arm) for name, arm in arms.items()},
    }


def _intervals(arm: Arm) -> dict:
    return {name: getattr(arm, name) and getattr(arm, name)._asdict() for name in ("score", "difference")}


def _units(by_seed: Mapping[int, list[torch.Tensor]]) -> int:
    return len(next(iter(by_seed.values())))


def _stack(by_seed: Mapping[int, list[torch.Tensor]], seeds: Sequence[int]) -> list[torch.Tensor]:
    return [torch.stack([by_seed[seed][unit] for seed in seeds]) for unit in range(_units(by_seed))]


def _answers_of(run: Run) -> tuple[list, list[torch.Tensor]]:
    """By task, which questions were asked, and their scores. An answer without one earns 0: all models' questions are
    the same then."""
    samples = read_results(run.folder / "evaluation")["samples"]
    asked = [(name, [row["sample_id"] for row in rows]) for name, rows in samples.items()]
    scored = ([row["score"] or 0.0 for row in rows] for rows in samples.values())
    return asked, [torch.tensor(scores, dtype=torch.float64) for scores in scored]


def _log_of(run: Run) -> list[dict]:
    checkpoint = newest_complete_checkpoint(run.folder / "model")
    state = Path(checkpoint or run.folder / "model", TRAINER_STATE_NAME)
    return json.loads(state.read_text(encoding="utf-8"))["log_history"] if state.is_file() else []


def _step_seconds(log: Sequence[Mapping]) -> float:
    """Seconds of all steps, where each entry has the mean of those since the entry before."""
    seconds, before = 0.0, 0
    for entry in log:
        if "step_time" in entry:
            seconds += entry["step_time"] * (entry["step"] - before)
            before = entry["step"]
    return seconds
