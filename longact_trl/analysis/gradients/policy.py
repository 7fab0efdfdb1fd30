"""The trainer as a measuring device: rollouts, rewards, advantages and policy loss are its own; no step is taken."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import torch
from trl.trainer.utils import split_tensor_dict

from ...method.gradients import row_parameters
from ...method.magnitude import MagnitudeObserver, Magnitudes
from ...method.projections import Projection, find_projections
from ...packing.forward import packed_attention_in
from ...packing.obstacles import shares_prefixes
from ...training.trainer import LongActTrainer


@dataclass
class Rollouts:
    """
    An RL batch as a training step would have it.

    Args:
        groups (`list[dict[str, torch.Tensor]]`):
            What the policy loss reads of each group whose rewards vary. The others have advantages of zero, hence no
            gradient.
        num_groups (`int`):
            Groups that were sampled.
        reward (`float`):
            Mean reward of all completions.
        num_tokens (`float`):
            Mean number of tokens of a completion.
        magnitudes (`dict[str, torch.Tensor]`):
            Of all sequences (LongAct, Eq. 2), what `saliency_source="current_batch"` selects by.
    """

    groups: list[dict[str, torch.Tensor]]
    num_groups: int
    reward: float
    num_tokens: float
    magnitudes: Magnitudes


class MeasuringTrainer(LongActTrainer):
    """
    [`LongActTrainer`] that samples batches and evaluates its policy loss on them, and never trains. Only W_Q and W_K
    require a gradient.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.projections: list[Projection] = find_projections(self.model)
        learns = {param for p in self.projections for param in row_parameters(p.module)}
        for param in self.model.parameters():
            param.requires_grad_(param in learns)
        self.learning = [param for param in self.model.parameters() if param in learns]
        self.model.train()
        self.current_gradient_accumulation_steps = self.args.gradient_accumulation_steps
        self._begin_step()

    @contextmanager
    def sharing_prefixes(self) -> Iterator[None]:
        """Inside, a prompt is forwarded once for its completions, where the model's attention allows it."""
        shares = shares_prefixes(self.model.config, self.args, self.model)
        with packed_attention_in(self.model) if shares else nullcontext():
            yield

    def sample(self, prompts: Sequence[dict]) -> Rollouts:
        """
        Sample a group of completions for each prompt, and reward them.

        Args:
            prompts (`Sequence[dict]`):
                Rows of the dataset.

        Returns:
            `Rollouts`: With the log-probs of the weights as they are now, from which the loss takes its ratios.
        """
        rows = [row for row in prompts for _ in range(self.num_generations)]
        inputs = self._generate_and_score_completions(rows)
        observer = MagnitudeObserver(self.projections)
        with observer.observe(self.model):
            inputs["old_per_token_logps"] = self._score(inputs)
        groups = split_tensor_dict(inputs, len(prompts))
        return Rollouts(
            [group for group in groups if group["advantages"].any()],
            len(groups),
            self._metrics["train"]["reward"][-1],
            inputs["completion_mask"].sum(1).float().mean().item(),
            observer.compute(),
        )

    def policy_loss(self, rollouts: Rollouts, backward: bool = False) -> float:
        """
        The trainer's loss on a batch, with the weights as they are now.

        Args:
            rollouts (`Rollouts`):
                As [`sample`] returns them.
            backward (`bool`, *optional*, defaults to `False`):
                Whether to leave its gradient in W_Q and W_K, in place of what was there.

        Returns:
            `float`: Zero at the weights that sampled the batch, since advantages of a group add up to zero, but for
                lengths that differ.
        """
        total = 0.0
        self.model.zero_grad()
        for group in rollouts.groups:
            with torch.set_grad_enabled(backward):
                if backward and self._packs:
                    sizes = [len(group["prompt_ids"])]
                    (self._turn,) = self._take_turns(group["prompt_ids"], group["prompt_mask"], sizes, training=True)
                    self._prompts = group["prompt_ids"]
                loss = self._loss_and_chunks(self.compute_loss, self.model, group)
                if backward:
                    loss.backward()
            total += loss.item()
        return total
