"""What a measurement leaves in its folder: numbers after every batch, and all that it needs to go on from there."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ...evaluation.claims import changes
from ...settings.whole_files import whole_file, write_json
from .measurement import Measured, Progress, Step
from .picture import draw_gradients
from .policy import Rollouts
from .summary import summarise


NUMBERS, TENSORS, PICTURE = "gradients.json", "gradients.safetensors", "gradients.png"
UNFINISHED = "unfinished"
COUNTS = ("num_tokens", "num_groups", "num_varying", "reward", "completion_tokens")


class GradientFiles:
    """
    `gradients.json`, `gradients.safetensors` and `gradients.png` in a folder.

    While a measurement lasts, the tensors' file also holds its claim, its prompts and completions whose gradient is
    still to be followed, and the state of the random numbers; each file is replaced whole.

    Args:
        output (`Path`):
            Folder, made where it is missing.
        claim (`Mapping`):
            All that the measurement rests on; what JSON can hold.
        num_batches (`int`):
            Batches that are to be sampled.

    Raises:
        `ValueError`: If an unfinished measurement is there that cannot be read, or one with another claim; names what
            differs.
    """

    def __init__(self, output: Path, claim: Mapping, num_batches: int):
        self.output, self.num_batches, self.claim = output, num_batches, {}
        self._there = self._read()
        self.add(claim)

    def add(self, claim: Mapping) -> None:
        """More that the measurement rests on, which was not known before the model was loaded. Raises as above."""
        claim = json.loads(json.dumps(claim, default=str))
        self.claim |= claim
        there = self._there["claim"] if self._there else claim
        if differ := changes({name: there.get(name) for name in claim}, claim):
            raise ValueError(
                f"{self.output / TENSORS} holds an unfinished measurement with other settings ({'; '.join(differ)}): "
                "repeat its command to go on with it, give another --output, or delete it."
            )

    @property
    def reward(self) -> str | None:
        """By what an unfinished measurement there rewards."""
        return self._there["head"]["reward"] if self._there else None

    def begin(self, head: Mapping, device: torch.device) -> Progress:
        """
        Where the measurement begins: behind the last batch that is there.

        Args:
            head (`Mapping`):
                What stands at the head of the numbers: `model`, `prompts` and `reward`.
            device (`torch.device`):
                Where rollouts are wanted.

        Returns:
            `Progress`
        """
        self.head, progress = dict(head), Progress()
        self._of_another = [] if self._there else [self.output / PICTURE, self.output / NUMBERS]
        if not self._there:
            return progress
        for batch in self._there["batches"]:
            steps = [Step(**step) for step in batch.pop("steps")]
            progress.measured.append(Measured(**batch, magnitudes={}, steps=steps))
        groups: dict[int, dict[int, dict[str, torch.Tensor]]] = {n: {} for n in self._there["rollouts"]}
        with safe_open(self.output / TENSORS, "pt") as file:
            for key in file.keys():
                kind, rest = key.split("/", 1)
                if kind == "random":
                    progress.random[rest] = file.get_tensor(key)
                    continue
                number, part, name = rest.split("/", 2)
                batch = progress.measured[int(number)]
                if kind == "rollouts":
                    groups[int(number)].setdefault(int(part), {})[name] = file.get_tensor(key).to(device)
                else:
                    (batch.energy if kind == "energy" else batch.magnitudes)[name] = file.get_tensor(key)
        for batch in progress.measured:  # rows are drawn in the order of the projections, which the file has not
            for named in (batch.energy, batch.magnitudes):
                ordered = [(name, named.pop(name)) for name in self._there["projections"] if name in named]
                named.update(ordered)
        for number, by_group in groups.items():
            batch = progress.measured[number]
            progress.rollouts[number] = Rollouts(
                [by_group[group] for group in sorted(by_group)],
                batch.num_groups,
                batch.reward,
                batch.completion_tokens,
                batch.magnitudes,
            )
        return progress

    def keep(self, progress: Progress) -> None:
        """Write what there is so far, without the picture."""
        tensors = {f"random/{source}": state for source, state in progress.random.items()}
        for number, rollouts in progress.rollouts.items():
            for group, values in enumerate(rollouts.groups):
                for name, value in values.items():
                    if value is not None:
                        tensors[f"rollouts/{number}/{group}/{name}"] = value.clone()  # a scalar is that of all groups
        batches = [
            {name: getattr(batch, name) for name in COUNTS} | {"steps": [asdict(step) for step in batch.steps]}
            for batch in progress.measured
        ]
        kept = {"claim": self.claim, "head": self.head, "batches": batches, "rollouts": [*progress.rollouts]}
        kept["projections"] = max((list(batch.magnitudes) for batch in progress.measured), key=len)
        while self._of_another:
            self._of_another.pop().unlink(missing_ok=True)
        self._write_tensors(progress.measured, tensors, {UNFINISHED: json.dumps(kept)})
        if any(batch.energy for batch in progress.measured):
            followed = sum(bool(batch.steps) for batch in progress.measured)
            so_far = f"{len(progress.measured)} of {self.num_batches} batches sampled, {followed} followed"
            self._write_numbers({UNFINISHED: so_far, **self.head, **self._summarise(progress.measured)})

    def finish(self, measured: Sequence[Measured]) -> dict:
        """
        Write everything, the picture too, and nothing that an unfinished measurement needs.

        Args:
            measured (`Sequence[Measured]`):
                All batches, of which one at least has a gradient.

        Returns:
            `dict`: What `gradients.json` holds.
        """
        summary = self.head | self._summarise(measured)
        self._write_numbers(summary)
        name, lengths = Path(summary["model"]).name, summary["lengths"].values()
        groups, varying = (sum(length[what] for length in lengths) for what in ("groups", "groups_that_vary"))
        subtitle = (
            f"{summary['prompts']} prompts, rewarded by {summary['reward']}; {groups} groups, {varying} of them with "
            "a gradient. Bands and dots: RL batches."
        )
        title = f"{name}: where the policy gradient of W_Q and W_K is, λ = {summary['sparsity_ratio']}"
        with whole_file(self.output / PICTURE) as scratch:
            draw_gradients(summary, title, subtitle).savefig(scratch)
        self._write_tensors(measured, {}, None)
        return summary

    def discard(self) -> None:
        """Nothing of this measurement is of use."""
        (self.output / TENSORS).unlink(missing_ok=True)

    def _read(self) -> dict | None:
        file = self.output / TENSORS
        if not file.is_file():
            return None
        try:
            with safe_open(file, "pt") as tensors:
                kept = (tensors.metadata() or {}).get(UNFINISHED)
            return None if kept is None else json.loads(kept)
        except (SafetensorError, ValueError) as error:
            raise ValueError(f"{file} cannot be read ({error}): give another --output, or delete it.") from error

    def _summarise(self, measured: Sequence[Measured]) -> dict:
        return summarise(measured, self.claim["sparsity_ratio"])

    def _write_numbers(self, summary: dict) -> None:
        write_json(self.output / NUMBERS, summary)

    def _write_tensors(self, measured: Sequence[Measured], others: dict, metadata: dict[str, str] | None) -> None:
        tensors = dict(others)
        for number, batch in enumerate(measured):
            for name, energy in batch.energy.items():
                tensors[f"energy/{number}/{batch.num_tokens}/{name}"] = energy.contiguous()
                tensors[f"magnitude/{number}/{batch.num_tokens}/{name}"] = batch.magnitudes[name].contiguous()
        with whole_file(self.output / TENSORS) as scratch:
            save_file(tensors, scratch, metadata)
