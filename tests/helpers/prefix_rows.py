"""Micro-batches of rows that share prompts, and a model that gives TRL's log-probs of them."""

import torch
from trl.trainer.utils import add_fused_lm_head

from longact_trl.packing.schedule import Turn, take_turns


RTOL = 1e-5
"""Of a parameter's gradient, in its norm: float32 on either path."""

Rows = list[tuple[int, int]]
"""Which prompt each row has, and how many completion tokens."""

SHAPES = {
    "one_group": ([12], [(0, 7)] * 4),
    "ragged": ([12], [(0, 7), (0, 1), (0, 4), (0, 6)]),
    "two_groups": ([12, 5], [(0, 3), (0, 7), (1, 7), (1, 2)]),
    "mixed_up": ([9, 12, 4], [(2, 5), (0, 7), (1, 1), (0, 6), (2, 7), (0, 3)]),
    "one_alone": ([6, 12], [(0, 7), (1, 5), (1, 6)]),
    "all_masked": ([12, 7], [(0, 0), (0, 7), (1, 0), (1, 0)]),
    "one_token_prompt": ([1, 3], [(0, 4), (0, 7), (1, 2), (1, 1)]),
}


def make_batch(prompts: list[int], rows: Rows, vocab_size: int = 48) -> tuple[dict[str, torch.Tensor], int]:
    """Random prompts of these lengths, padded on the left, and completions, padded on the right."""
    generator = torch.Generator().manual_seed(0)
    P, C = max(prompts), max(length for _, length in rows)
    texts = [torch.randint(3, vocab_size, (length,), generator=generator) for length in prompts]
    ids, mask = torch.zeros(2, len(rows), P + C, dtype=torch.long)
    for row, (prompt, length) in enumerate(rows):
        start = P - prompts[prompt]
        ids[row, start:P] = texts[prompt]
        ids[row, P : P + length] = torch.randint(3, vocab_size, (length,), generator=generator)
        mask[row, start : P + length] = 1
    labels = ids.masked_fill(mask == 0, -100)
    labels[:, :P] = -100
    return {"input_ids": ids, "attention_mask": mask, "labels": labels, "fused_lm_head": True}, P


def alone(batch: dict[str, torch.Tensor], prompt_length: int) -> Turn:
    """The turn of a micro-batch that shares nothing with others."""
    ids, mask = (batch[name][:, :prompt_length] for name in ("input_ids", "attention_mask"))
    return take_turns(ids, mask, [len(ids)], training=True)[0]


def with_head(model):
    add_fused_lm_head(model, temperature=0.8, outputs=("log_probs", "entropy"))
    return model.train()
