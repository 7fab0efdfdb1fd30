"""Micro-batches of rows that share prompts, and a model that gives TRL's log-probs of them."""

import torch
from trl.trainer.utils import add_fused_lm_head

from longact_trl.packing.forward import forward_once, forward_stretch, keep_prefixes, packed_attention_in
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

GROUP = [12, 5], [(0, 7), (0, 1), (0, 4), (0, 6), (0, 2), (1, 3), (1, 7), (0, 5)]
"""Groups that end within a micro-batch, that begin within one, that are apart; ragged completions."""


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


# Passes of several micro-batches


def parts_of(batch: dict, size: int) -> list[dict]:
    num_rows = len(batch["input_ids"])
    return [
        {name: x[start : start + size] if torch.is_tensor(x) else x for name, x in batch.items()}
        for start in range(0, num_rows, size)
    ]


def gradients(model) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def backward(output, part: int, size: int, num_rows: int) -> None:
    """From a random weighting that belongs to the row, whatever its micro-batch."""
    width = output.log_probs.size(1)
    weights = torch.randn(2, num_rows, width, generator=torch.Generator().manual_seed(1))
    mine = slice(part * size, part * size + len(output.log_probs))
    (output.log_probs * weights[0, mine] + output.entropy * weights[1, mine]).sum().backward()


def plainly(model, batch: dict, size: int) -> dict[str, torch.Tensor]:
    model.zero_grad()
    for i, part in enumerate(parts_of(batch, size)):
        backward(model(**part), i, size, len(batch["input_ids"]))
    return gradients(model)


class Counting:
    """A model that counts the tokens it gets, without and with gradient."""

    def __init__(self, model):
        self.model, self.tokens, self.longest = model, [0, 0], 0

    def __call__(self, **inputs):
        num_tokens = inputs["input_ids"].numel()
        self.tokens[torch.is_grad_enabled()] += num_tokens
        if torch.is_grad_enabled():
            self.longest = max(self.longest, num_tokens)
        return self.model(**inputs)


def turns_of(batch: dict, prompt_length: int, size: int, training: bool = True, chunk_size=None, **kwargs):
    ids, mask = (batch[name][:, :prompt_length] for name in ("input_ids", "attention_mask"))
    sizes = [len(part) for part in ids.split(size)]
    return take_turns(ids, mask, sizes, training, chunk_size, **kwargs)


def once(model, batch: dict, prompt_length: int, size: int, turns) -> dict[str, torch.Tensor]:
    """As the trainer does it; `model` may count."""
    module = model.model if isinstance(model, Counting) else model
    module.zero_grad()
    with packed_attention_in(module):
        for i, (part, turn) in enumerate(zip(parts_of(batch, size), turns, strict=True)):
            keep_prefixes(model, turn, module.device)
            backward(forward_once(model, prompt_length, turn, **part), i, size, len(batch["input_ids"]))
            for stretch in turn.after:
                forward_stretch(model, stretch, module.device).backward()
    return gradients(module)


def assert_close(found: dict, expected: dict, rtol: float = RTOL) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert (found[name] - value).norm() <= rtol * value.norm(), name
