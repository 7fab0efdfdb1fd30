"""When masks are refreshed, logged, saved and restored."""

import math
import time
from collections import defaultdict
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState

from ..method.frozen_rows import clear_first_moment
from ..method.gradients import GradientMasker
from ..method.magnitude import MagnitudeObserver, sum_over_ranks
from ..method.masks import select_rows
from ..method.projections import find_projections
from ..method.sparsity import num_selected
from ..method.strategies import STRATEGIES
from .config import LongActConfig
from .mask_file import SavedMasks, has_masks, load_masks


class MaskRefreshCallback(TrainerCallback):
    """
    Keeps one mask per Q and K projection and refreshes it once per optimizer step.

    A step uses the newest evidence there is when its first backward pass starts:

    - the scoring pass over the completions just generated, where the step begins with a generation and
      `saliency_source="current_batch"`;
    - otherwise the training forward passes of the step before;
    - before any evidence, no row is selected: W_Q and W_K wait one step.

    Masks never change between the micro-batches of a step.

    Args:
        args (`LongActConfig`):
            Training arguments.
        model (`nn.Module`):
            Model to train, plain or wrapped by PEFT, before it is wrapped for distributed training.
        metrics (`dict[str, list[float]]`, *optional*):
            Where to append `longact/*` metrics, TRL's `trainer._metrics["train"]`.

    Raises:
        `ValueError`: If the model's projections are not understood or not trainable, or λ selects no channel.
    """

    def __init__(self, args: LongActConfig, model: nn.Module, metrics: dict[str, list[float]] | None = None):
        self.args = args
        self.model = model
        self.projections = find_projections(model)
        self.strategy = STRATEGIES[args.strategy]
        if self.strategy.masks:
            for projection in self.projections:
                num_selected(args.sparsity_ratio, projection.head_dim)
        self.observer = MagnitudeObserver(self.projections)
        masked = self.projections if self.strategy.masks else []
        self.masker = GradientMasker(masked, args.row_sparse_gradients)
        self.metrics = defaultdict(list) if metrics is None else metrics
        self.generator = torch.Generator().manual_seed(args.seed)
        self.magnitudes: dict[str, torch.Tensor] = {}
        self.masks: dict[str, torch.Tensor] = {}
        self.ever_selected: dict[str, torch.Tensor] = {}  # union of all masks so far
        self.churn: dict[str, float] = {}  # of each projection, between the last two masks
        self.num_refreshes = 0
        self._step_begins = False  # from the start of an optimizer step until its first backward pass
        self._optimizer: torch.optim.Optimizer | None = None

    # When

    def on_train_begin(self, args: LongActConfig, state: TrainerState, control: TrainerControl, **kwargs):
        self.observer.reset()  # of a step that an error has cut short
        if self.strategy.masks:
            self._optimizer = kwargs["optimizer"]
            self.masker.pop_squared_norms()
            self.masker.attach()
            if self.masks:  # restored from a checkpoint
                self.masker.set_masks(self.masks)

    def on_step_begin(self, args: LongActConfig, state: TrainerState, control: TrainerControl, **kwargs):
        self._step_begins = True

    def on_inputs_prepared(self) -> None:
        """For the trainer to call when the inputs of a micro-batch are ready and its forward pass has not begun."""
        needs_no_evidence = self.strategy.masks and not self.strategy.measures
        if self._step_begins and (self.observer.num_sequences or needs_no_evidence):
            self.refresh()
        self._step_begins = False

    def on_step_end(self, args: LongActConfig, state: TrainerState, control: TrainerControl, **kwargs):
        if self.strategy.masks:
            selected, total = sum_over_ranks(self.masker.pop_squared_norms()).sqrt().tolist()
            if not math.isnan(total):  # it is where rows were never computed
                self._log("grad_norm_selected_share", selected / total if total else float("nan"))
        if self.observer.num_sequences:
            self.refresh()
        if self.args.heatmap_steps and state.global_step % self.args.heatmap_steps == 0:
            self._log_heatmaps(state)

    def detach(self) -> None:
        """Remove all gradient hooks."""
        self.masker.detach()

    # On what

    def needs_scoring_pass(self) -> bool:
        """Whether the step that begins wants a forward pass over its new sequences, and none was observed yet."""
        return self._wants_scoring() and not self.observer.num_sequences

    def observe_scoring(self) -> AbstractContextManager[None]:
        """Context for a no-grad pass of the policy over sequences just generated."""
        return self.observer.observe(self.model) if self._wants_scoring() else nullcontext()

    def observe_training(self, next_step_generates: bool) -> AbstractContextManager[None]:
        """
        Context for a training forward pass. It is observed only if the next step will need it.

        Args:
            next_step_generates (`bool`):
                Whether the next optimizer step begins with a generation.
        """
        scoring_follows = next_step_generates and self.args.saliency_source == "current_batch"
        return nullcontext() if scoring_follows or not self.strategy.measures else self.observer.observe(self.model)

    def _wants_scoring(self) -> bool:
        return self._step_begins and self.strategy.measures and self.args.saliency_source == "current_batch"

    # What

    def refresh(self) -> None:
        """Select rows from what was observed since the last refresh (Eq. 8–10). Call it on every rank."""
        start = time.perf_counter()
        if self.strategy.measures:
            self.magnitudes = self.observer.compute()
            self.observer.reset()
        masks = {p.name: self._select(p) for p in self.projections}
        dropped = self.masker.set_masks(masks)
        if self.args.update_rule == "frozen_rows":
            for param, rows in dropped.items():
                if rows.any():
                    clear_first_moment(self._optimizer, param, rows)
        self._log_masks(masks)
        self.masks = masks
        self.ever_selected = {name: mask | self.ever_selected.get(name, mask) for name, mask in masks.items()}
        self.num_refreshes += 1
        self._log("refresh_seconds", time.perf_counter() - start)

    def _select(self, projection) -> torch.Tensor:
        magnitude = self.magnitudes.get(projection.name, torch.empty(projection.num_heads, projection.head_dim))
        try:
            return select_rows(magnitude, self.args.sparsity_ratio, self.args.strategy, self.generator)
        except ValueError as error:
            raise ValueError(f"{projection.name}: {error}") from error

    # Metrics

    def _log(self, name: str, value: float) -> None:
        self.metrics[f"longact/{name}"].append(value)

    def _log_masks(self, masks: dict[str, torch.Tensor]) -> None:
        for kind in sorted({p.kind for p in self.projections}, reverse=True):  # no K where all K's rows make V too
            rows = _cat(masks[p.name] for p in self.projections if p.kind == kind)
            self._log(f"density_{kind}", rows.float().mean().item())
        new = _cat(masks.values())
        if self.masks:
            self.churn = {name: churn_of(self.masks[name], mask) for name, mask in masks.items()}
            self._log("mask_churn", churn_of(_cat(self.masks.values()), new))
        if self.magnitudes:
            energy = _cat(self.magnitudes[name].flatten() for name in masks).square()
            self._log("energy_share", (energy[new].sum() / energy.sum()).item())

    def _log_heatmaps(self, state: TrainerState) -> None:
        trackers = {"wandb", "trackio"} & set(self.args.report_to)
        if trackers and state.is_world_process_zero and self.magnitudes:
            from ..pictures.heatmaps import log_heatmaps

            log_heatmaps(self.magnitudes, self.masks, self.churn, state.global_step, trackers)

    # State

    def save(self, checkpoint: str | Path) -> None:
        """
        Write masks, magnitudes, random generator and counter into a checkpoint. Call it on one rank.

        Args:
            checkpoint (`str` or `Path`):
                Checkpoint folder.
        """
        fields = ("strategy", "sparsity_ratio", "update_rule", "saliency_source")
        settings = {"num_refreshes": self.num_refreshes, **{f: getattr(self.args, f) for f in fields}}
        generator = self.generator.get_state()
        SavedMasks(settings, self.masks, self.ever_selected, self.magnitudes, generator).save(checkpoint)

    def load(self, checkpoint: str | Path) -> None:
        """
        Restore what `save` wrote.

        Args:
            checkpoint (`str` or `Path`):
                Checkpoint folder.

        Raises:
            `ValueError`: If the checkpoint belongs to a model with other projections.
        """
        if not has_masks(checkpoint):  # a plain GRPOTrainer's, continued with `strategy="dense"`
            return
        saved = load_masks(checkpoint)
        rows = {p.name: p.num_heads * p.head_dim for p in self.projections}
        saved_rows = {name: len(mask) for name, mask in saved.masks.items()}
        if saved_rows and saved_rows != rows:
            raise ValueError(
                f"{checkpoint} holds masks of {len(saved_rows)} projections with {sum(saved_rows.values())} rows, "
                f"this model has {len(rows)} with {sum(rows.values())}: it is the checkpoint of another model. Choose "
                "another `output_dir` or `resume_from_checkpoint`."
            )
        self.generator.set_state(saved.generator)
        # In the order of the projections, in which masks are laid end to end to count what changed.
        self.masks, self.ever_selected, self.magnitudes = (
            {name: named[name] for name in rows if name in named}
            for named in (saved.masks, saved.ever_selected, saved.magnitudes)
        )
        self.num_refreshes = saved.settings["num_refreshes"]


def churn_of(old: torch.Tensor, new: torch.Tensor) -> float:
    """Share of the rows selected by either of two masks, bool (R,), that only one of them selects."""
    return 1 - ((new & old).sum() / (new | old).sum()).item()


def _cat(tensors) -> torch.Tensor:
    return torch.cat(list(tensors))
