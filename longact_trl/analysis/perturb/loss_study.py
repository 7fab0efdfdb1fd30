"""Loss of a text read with some channels of each head clamped, with intervals over its chunks.

The paper clamps the same channels (sec. 5) but takes no losses: this measure is ours.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import nn

from ...evaluation.statistics import Interval, paired_difference
from .calibration import STRATEGIES, calibrate
from .perturbation import perturb_activations


BATCH_SIZE = 4  # sequences whose logits are in memory at a time


@torch.no_grad()
def losses(model: nn.Module, sequences: Sequence[torch.Tensor]) -> list[float]:
    """
    Mean cross-entropy of each sequence's next tokens.

    Args:
        model (`PreTrainedModel`):
            A causal language model.
        sequences (`Sequence[torch.LongTensor]`):
            Token ids, each of shape (S,), all equally long.

    Returns:
        `list[float]`: In nats a token.
    """
    found = []
    for start in range(0, len(sequences), BATCH_SIZE):
        ids = torch.stack(list(sequences[start : start + BATCH_SIZE])).to(model.device)
        logits = model(input_ids=ids, use_cache=False).logits[:, :-1]
        of_token = nn.functional.cross_entropy(logits.flatten(0, 1).float(), ids[:, 1:].flatten(), reduction="none")
        found += of_token.view(len(ids), -1).mean(1).tolist()
    return found


@dataclass
class LossStudy:
    """
    Losses by text, condition and λ.

    Args:
        by_chunk (`dict[tuple[str, str, float], list[float]]`):
            Text, condition and λ to the loss of each chunk of the text; for `"random"` its mean over seeds, for
            `"none"` λ is 0.
    """

    by_chunk: dict[tuple[str, str, float], list[float]] = field(default_factory=dict)

    def mean(self, text: str, condition: str, sparsity_ratio: float) -> Interval:
        """Mean loss with a bootstrap interval over chunks, nats a token."""
        chunks = self.by_chunk[text, condition, 0.0 if condition == "none" else sparsity_ratio]
        return paired_difference([0.0] * len(chunks), chunks)

    def gap(self, text: str, lower: str, higher: str, sparsity_ratio: float) -> Interval:
        """Mean difference of two conditions on the same chunks, with a bootstrap interval."""
        keys = [(text, condition, 0.0 if condition == "none" else sparsity_ratio) for condition in (lower, higher)]
        return paired_difference(*(self.by_chunk[key] for key in keys))


def study_losses(
    model: nn.Module,
    texts: Mapping[str, Sequence[torch.Tensor]],
    kinds: Sequence[str],
    ratios: Sequence[float],
    main_ratio: float,
    num_seeds: int = 3,
    progress: Callable[[list], Iterable] = iter,
) -> LossStudy:
    """
    Loss of each text unperturbed and with its top, random and bottom channels clamped.

    Args:
        model (`PreTrainedModel`):
            A causal language model.
        texts (`dict[str, Sequence[torch.LongTensor]]`):
            Name to chunks, each of shape (S,).
        kinds (`Sequence[str]`):
            What is clamped: some of `"q"`, `"k"` and `"v"`.
        ratios (`Sequence[float]`):
            Every λ to measure.
        main_ratio (`float`):
            The λ at which random channels are drawn `num_seeds` times, at the others once.
        num_seeds (`int`, *optional*, defaults to `3`):
            See above.
        progress (`Callable`, *optional*):
            Wraps the list of measurements, e.g. `rich.progress.track`.

    Returns:
        `LossStudy`
    """
    study, calibrations = LossStudy(), {}
    todo = [(text, "none", 0.0) for text in texts]
    todo += [(text, condition, ratio) for ratio in ratios for condition in STRATEGIES for text in texts]
    for text, condition, ratio in progress(todo):
        if text not in calibrations:
            calibrations[text] = calibrate(model, texts[text], kinds)
        seeds = range(num_seeds if condition == "random" and ratio == main_ratio else 1)
        runs = []
        for seed in seeds:
            rows = calibrations[text].rows(condition, ratio, seed)
            with perturb_activations(model, rows, calibrations[text].clamp_values()):
                runs.append(losses(model, texts[text]))
        study.by_chunk[text, condition, ratio] = torch.tensor(runs).mean(0).tolist()
    return study
