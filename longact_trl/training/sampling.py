"""DAPO's dynamic sampling (arXiv:2503.14476, sec. 3.2): train on groups whose answers are neither all right nor wrong.

The other groups have no advantage. Each makes way for a group that varies, of another prompt and the same policy. All
of it happens between TRL's generation and TRL's scoring, so everything that follows (padding, log-probs, importance
ratios, advantages, `num_items_in_batch`, LongAct's magnitudes) is computed once, on the sequences that are trained on.

Sizes: G completions a group, B completions a rank, N = B · ranks / G groups. Over all ranks in order, completions
gG … gG + G - 1 are group g, so a group may span ranks.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from accelerate.utils import gather_object
from datasets import Dataset, IterableDataset
from transformers.utils import logging

from ..settings.whole_files import write_json
from .completion_groups import ANSWER_REWARD, answer_rewards, draw_prompts, reward_statistics, varying_groups
from .completion_tables import REASON, CompletionTablesTrainer
from .mask_file import STATE_DIR
from .watchdog import exits_when_it_hangs


SAMPLING_FILE = "sampling.json"

logger = logging.get_logger(__name__)


class DynamicSamplingTrainer(CompletionTablesTrainer):
    """
    [`~trl.GRPOTrainer`] that, with `dynamic_sampling=True`, replaces groups without a varying answer reward by groups
    of other prompts, sampled in up to `max_resamples` further generation batches.

    Which groups to replace follows from rewards that every rank knows, so all ranks generate equally often and keep
    equally many completions. Rewards, completion lengths and user metrics are logged as the first generation batch of
    a step has them: they describe the policy on the dataset, not what the filter left of it. The table of completions
    and everything else describe what is trained on.

    Raises:
        `ValueError`: If prompts cannot be drawn from the dataset, or groups not be exchanged.
    """

    def __init__(self, model, reward_funcs, args, train_dataset=None, *other, **kwargs):
        if args.dynamic_sampling:
            check_exchangeable(train_dataset, kwargs)
        super().__init__(model, reward_funcs, args, train_dataset, *other, **kwargs)
        self._prompts_drawn = 0  # from the stream of replacements, by all ranks together; a checkpoint keeps it
        self._inputs: list[dict[str, Any]] = []  # rows of the dataset behind the generation that runs
        self._known_rewards: torch.Tensor | None = None  # of the completions that `_generate` has returned
        self._first_rewards: torch.Tensor | None = None  # of the first generation batch, if others were mixed into it

    def _generate_and_score_completions(self, inputs):
        self._inputs, self._known_rewards, self._first_rewards = inputs, None, None
        output = super()._generate_and_score_completions(inputs)
        if self._first_rewards is not None:
            weights = self.reward_weights.to(self._first_rewards.device)
            for name, value in reward_statistics(self._first_rewards, weights, self.reward_func_names).items():
                self._metrics["train"][name][-1] = value
        return output

    def _generate(self, prompts):
        if not (self.args.dynamic_sampling and self.model.training):
            return super()._generate(prompts)
        self._thrown_away = []
        batch = self._generate_and_reward(prompts, self._inputs)
        varies = self._varies(batch)
        degenerate = (~varies).nonzero().flatten().tolist()
        if degenerate:
            self._first_rewards = batch.rewards.clone()
        to_replace, num_resamples = degenerate, 0
        while to_replace and num_resamples < self.args.max_resamples:
            num_resamples += 1
            inputs = self._draw_inputs(len(prompts))
            with _unlogged(self._metrics["train"], self._pending_metrics):
                candidates = self._generate_and_reward([row["prompt"] for row in inputs], inputs)
            varying = self._varies(candidates).nonzero().flatten().tolist()
            pairs = list(zip(to_replace, varying, strict=False))
            self._throw_away(batch, to_replace[: len(pairs)])
            self._throw_away(candidates, sorted(set(range(len(varies))) - {new for _, new in pairs}))
            self._replace(batch, candidates, pairs)
            to_replace = to_replace[len(pairs) :]
        if to_replace and self.accelerator.is_main_process:
            logger.warning(
                f"Dynamic sampling: after {num_resamples} resamples, {len(to_replace)} of {len(varies)} groups still "
                "have the same answer reward throughout. Training goes on with them. Where that happens often, the "
                "prompts are too easy or too hard for the model: filter them, or raise `num_generations`."
            )
        self._log_sampling(num_resamples, len(varies), len(degenerate), len(to_replace))

        prompts[:] = batch.columns["prompt"]  # TRL's own list, which it logs
        for column in sorted(name for name in batch.columns if name.startswith(EXTRA)):
            self._pending_extra_logs[column.removeprefix(EXTRA)] = batch.columns[column]
        self._known_rewards = batch.rewards
        return batch.generation._replace(**{f: batch.columns[f] for f in PER_COMPLETION if f in batch.columns})

    def _calculate_rewards(self, inputs, prompts, completions, completion_ids_list):
        if self._known_rewards is None:
            return self._call_rewards(inputs, prompts, completions, completion_ids_list)
        rewards, self._known_rewards = self._known_rewards, None
        return rewards

    def _call_rewards(self, *args):
        with exits_when_it_hangs("A reward function", self.args.ddp_timeout):
            return super()._calculate_rewards(*args)

    def _generate_and_reward(self, prompts: list, inputs: list[dict[str, Any]]) -> "_Batch":
        """One generation batch. A collective: every rank calls it equally often, with equally many prompts."""
        generation = _Generation(*super()._generate(prompts))
        if generation.images is not None:
            raise ValueError("`dynamic_sampling` exchanges text only, but these prompts have images.")
        rewards = self._call_rewards(inputs, prompts, generation.completions, generation.completion_ids)
        columns = {f: list(getattr(generation, f)) for f in PER_COMPLETION if getattr(generation, f) is not None}
        columns |= {EXTRA + name: values for name, values in self._pending_extra_logs.items()}
        self._pending_extra_logs.clear()
        return _Batch(generation, {"prompt": list(prompts), **columns}, rewards)

    def _varies(self, batch: "_Batch") -> torch.Tensor:
        weights = self.reward_weights.to(batch.rewards.device)
        answers = answer_rewards(batch.rewards, weights, self.reward_func_names)
        return varying_groups(answers, self.num_generations)

    def _draw_inputs(self, num_rows: int) -> list[dict[str, Any]]:
        """This rank's rows of a generation batch of replacement prompts, each prompt G times."""
        first = self.accelerator.process_index * num_rows
        num_prompts = self.accelerator.num_processes * num_rows // self.num_generations
        indices = draw_prompts(len(self.train_dataset), self.args.seed, self._prompts_drawn, num_prompts)
        self._prompts_drawn += num_prompts
        dataset = self._remove_unused_columns(self.train_dataset, description="Training")
        return [dataset[indices[row // self.num_generations]] for row in range(first, first + num_rows)]

    def _replace(self, batch: "_Batch", candidates: "_Batch", pairs: Sequence[tuple[int, int]]) -> None:
        """Put candidate group `new` into the place of group `old`, for all `pairs` of (old, new), on any ranks."""
        G, num_rows = self.num_generations, len(batch.columns["prompt"])
        first = self.accelerator.process_index * num_rows
        mine = range(first, first + num_rows)
        moves = {new * G + i: old * G + i for old, new in pairs for i in range(G)}
        sent = [
            (moves[row], {name: values[row - first] for name, values in candidates.columns.items()})
            for row in mine
            if row in moves
        ]
        for row, completion in gather_object(sent):
            if row in mine:
                for name in completion.keys() - batch.columns.keys():  # a column that only this reward call logged
                    batch.columns[name] = [None] * num_rows
                for name, values in batch.columns.items():
                    values[row - first] = completion.get(name)
        batch.rewards[list(moves.values())] = candidates.rewards[list(moves)]

    def _throw_away(self, batch: "_Batch", groups: Sequence[int]) -> None:
        """
        Note completions that are not trained on, and why, for the table. As many as are trained on at most: so hard a
        prompt that all fail takes `max_resamples` times as many. A collective.
        """
        G, num_rows = self.num_generations, len(batch.columns["prompt"])
        room = (len(batch.rewards) - len(self._thrown_away)) // G
        if not self.log_completions or not (groups := groups[:room]):
            return
        first = self.accelerator.process_index * num_rows
        mine = [row for row in range(first, first + num_rows) if row // G in groups]
        sent = [(row, {name: values[row - first] for name, values in batch.columns.items()}) for row in mine]
        weights = self.reward_weights.to(batch.rewards.device)
        answers = answer_rewards(batch.rewards, weights, self.reward_func_names).view(-1, G)
        varies = self._varies(batch)
        for row, completion in gather_object(sent):
            rewards = dict(zip(self.reward_func_names, batch.rewards[row].tolist(), strict=True))
            extra = {name.removeprefix(EXTRA): value for name, value in completion.items() if name.startswith(EXTRA)}
            group = row // G
            self._thrown_away.append(
                {
                    "step": self.state.global_step + 1,
                    "prompt": completion["prompt"],
                    "completion": completion["completions"],
                    **rewards,
                    **extra,
                    REASON: NO_PLACE if varies[group] else self._why_none_is_better(answers[group].tolist()),
                }
            )

    def _why_none_is_better(self, rewards: list[float]) -> str:
        name = ANSWER_REWARD if ANSWER_REWARD in self.reward_func_names else "the sum of all rewards"
        known = [reward for reward in rewards if reward == reward]
        return f"{name} is {known[0]:g} for all" if known else f"{name} is missing for all"

    def _log_sampling(self, num_resamples: int, num_groups: int, num_degenerate: int, num_left: int) -> None:
        values = {
            "sampling_rounds": 1 + num_resamples,
            "groups_thrown_away": num_resamples * num_groups,  # each resample samples as many as it can replace
            "groups_degenerate_left": num_left,
            "frac_groups_degenerate": num_degenerate / num_groups,
        }
        for name, value in values.items():
            self._metrics["train"][f"longact/{name}"].append(value)

    # State

    def _save_rng_state(self, output_dir):
        super()._save_rng_state(output_dir)
        if self.args.dynamic_sampling and self.accelerator.is_main_process:
            write_json(Path(output_dir, STATE_DIR, SAMPLING_FILE), {"prompts_drawn": self._prompts_drawn})

    def _load_optimizer_and_scheduler(self, checkpoint):
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None and (file := Path(checkpoint, STATE_DIR, SAMPLING_FILE)).is_file():
            self._prompts_drawn = json.loads(file.read_text(encoding="utf-8"))["prompts_drawn"]


class _Generation(NamedTuple):
    """What `GRPOTrainer._generate` returns."""

    prompt_ids: list[list[int]]
    completion_ids: list[list[int]]
    tool_mask: list[list[int]] | None
    completions: list
    logprobs: list[list[float]] | None
    extra_fields: dict[str, Any]
    images: list | None
    tool_images: list


PER_COMPLETION = ("prompt_ids", "completion_ids", "tool_mask", "completions", "logprobs")
"""Fields of a generation that move with a completion. The others are empty where there are no images."""

NO_PLACE = "sampled to replace another, and not needed"

EXTRA = "extra/"
"""Prefix of the columns that reward functions add to the table of completions (`log_extra`)."""


@dataclass
class _Batch:
    generation: _Generation
    columns: dict[str, list]  # each of length B: this rank's completions
    rewards: torch.Tensor  # (N·G, functions): all ranks' completions


def check_exchangeable(dataset: Dataset | IterableDataset | None, trainer_arguments: dict[str, Any]) -> None:
    """
    Check that another prompt's group can take the place of one.

    Args:
        dataset (`Dataset` or `IterableDataset`):
            Training dataset.
        trainer_arguments (`dict`):
            Keyword arguments of the trainer.

    Raises:
        `ValueError`: If the dataset is a stream or has images, or rollouts are not the trainer's own.
    """
    if not isinstance(dataset, Dataset):
        raise ValueError(
            f"`dynamic_sampling` draws prompts by index, which a {type(dataset).__name__} cannot give. Load the "
            "dataset without `streaming=True`, or set `dynamic_sampling=False`."
        )
    if images := {"image", "images"} & set(dataset.column_names):
        raise ValueError(f"`dynamic_sampling` exchanges text only, but the dataset has a column {images.pop()!r}.")
    for name in ("rollout_func", "environment_factory"):
        if trainer_arguments.get(name) is not None:
            raise ValueError(
                f"`dynamic_sampling` cannot exchange what a `{name}` rolled out: its state stays with the prompt it "
                "was made for. Set `dynamic_sampling=False`."
            )


@contextmanager
def _unlogged(*metrics: dict[str, list[float]]) -> Iterator[None]:
    """Takes back what is appended to `metrics` inside the context."""
    lengths = [{name: len(values) for name, values in each.items()} for each in metrics]
    yield
    for each, before in zip(metrics, lengths, strict=True):
        for name in list(each):
            del each[name][before.get(name, 0) :]
            if not each[name]:
                del each[name]
