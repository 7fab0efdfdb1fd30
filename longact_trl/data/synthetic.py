"""Synthetic long contexts for any tokenizer, each prompt exactly as many tokens long as it should be.

A prompt is what is hidden in it (see [`~longact_trl.data.synthetic_tasks`]), strewn among as much filler as there is
room for. The filler's last pieces are chosen so that their tokens add up to the room that is left, and then the whole
prompt is tokenized as `GRPOTrainer` does it, chat template included. Where pieces are not tokenized alike inside the
prompt and on their own, the difference is put right and the filler chosen again.
"""

import os
import random
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from operator import itemgetter

from datasets import Dataset, Features, Value
from transformers import PreTrainedTokenizerBase

from . import synthetic_tasks
from .answer_format import ask_for_tags
from .length import prompt_length
from .rows import RL_FEATURES, ROWS_IN_MEMORY, code_hash, rl_row
from .synthetic_options import check_options
from .synthetic_tasks import TASKS, Puzzle


# Pieces that the last tokens are made of: of so many, some add up to any number that three of them can reach.
TAIL_PIECES = 48
TAIL_LENGTH = 3
PIECES_AT_ONCE = 256
# One correction is usual where a tokenizer joins pieces, two are rare.
MAX_CORRECTIONS = 8
# Below this many tokens for each process, starting one costs more than it saves.
TOKENS_PER_PROCESS = 2_000_000


def load_synthetic(
    tokenizer: PreTrainedTokenizerBase,
    tokens: int,
    num_prompts: int = 1000,
    seed: int = 0,
    split: str = "train",
    tasks: Sequence[str] = tuple(TASKS),
    chat_template_kwargs: dict | None = None,
) -> Dataset:
    """
    Questions over generated contexts, the tasks in turn, as a TRL dataset of prompts with what the rewards need.

    ```python
    rows = load_synthetic(AutoTokenizer.from_pretrained("Qwen/Qwen3-8B"), tokens=16_384, tasks=["needle", "two_hops"])
    ```

    Args:
        tokenizer (`PreTrainedTokenizerBase`):
            Tokenizer of the model to train.
        tokens (`int`):
            Tokens of each prompt as `GRPOTrainer` tokenizes it: chat template, generation prompt and the request for
            `<think>` and `<answer>` included.
        num_prompts (`int`, *optional*, defaults to `1000`):
            Rows to generate.
        seed (`int`, *optional*, defaults to `0`):
            Seed. Row `i` depends on it, on `i` and on the arguments, not on the rows before it: see [`generate_row`].
        split (`str`, *optional*, defaults to `"train"`):
            `train` or `test`: nothing is asked for in both.
        tasks (`Sequence[str]`, *optional*, defaults to all):
            Some of [`~synthetic_tasks.TASKS`], taken in turn.
        chat_template_kwargs (`dict`, *optional*):
            What training passes to the template.

    Returns:
        `Dataset` with columns `prompt` (messages; a text if the tokenizer has no chat template), `answer`
        (`list[str]`), `answer_kind`, `task` and `num_tokens`: `tokens`, or less where no filler fills the last few.

    Raises:
        `ValueError`: If an option is not one of those above, or what a task must hide has no room in `tokens`.
    """
    check_options(tokens, num_prompts, seed, split, tasks)
    has_template = tokenizer.chat_template is not None
    prompt = RL_FEATURES["prompt"] if has_template else Value("string")
    num_proc = min(os.cpu_count() or 1, num_prompts, num_prompts * tokens // TOKENS_PER_PROCESS)
    return Dataset.from_generator(
        _generate,
        features=Features({**RL_FEATURES, "prompt": prompt, "num_tokens": Value("int64")}),
        gen_kwargs={
            "indices": list(range(num_prompts)),  # a list is what datasets divides among processes
            "tokenizer": tokenizer,
            "tokens": tokens,
            "seed": seed,
            "split": split,
            "tasks": tuple(tasks),
            "chat_template_kwargs": chat_template_kwargs,
            "code": (code_hash(generate_row), code_hash(synthetic_tasks.sentence)),  # only marks the cache entry
        },
        num_proc=num_proc if num_proc > 1 else None,
        writer_batch_size=ROWS_IN_MEMORY,
    )


def generate_row(
    tokenizer: PreTrainedTokenizerBase,
    tokens: int,
    task: str,
    index: int = 0,
    seed: int = 0,
    split: str = "train",
    chat_template_kwargs: dict | None = None,
) -> dict:
    """
    Row `index` of [`load_synthetic`] if its task is `task`.

    Args:
        index (`int`, *optional*, defaults to `0`):
            Number of the row.
        tokenizer, tokens, task, seed, split, chat_template_kwargs:
            See [`load_synthetic`].

    Returns:
        `dict` with the columns of [`load_synthetic`].

    Raises:
        `ValueError`: If what the task must hide has no room in `tokens`.
    """
    rng = random.Random(f"{split} {task} {seed} {index}")
    puzzle = TASKS[task](rng, split)
    haystack = _Haystack(puzzle, tokenizer)

    def measured(filler: Sequence[str]) -> tuple[str | list[dict], int]:
        prompt = write_prompt(puzzle, filler)
        prompt = prompt if tokenizer.chat_template is None else [{"role": "user", "content": prompt}]
        return prompt, prompt_length(prompt, tokenizer, chat_template_kwargs or {})

    best, length = measured([])
    if length > tokens:
        raise ValueError(
            f"tokens={tokens} has no room for what row {index} of {task!r} must hide: it takes {length}. Raise it"
        )
    longest, budget = length, tokens - length
    for _ in range(MAX_CORRECTIONS):
        prompt, length = measured(haystack.choose(budget))
        if longest < length <= tokens:
            best, longest = prompt, length
        if longest == tokens:
            break
        budget = max(0, budget + tokens - length)
    messages = best if isinstance(best, list) else [{"role": "user", "content": best}]
    row = rl_row(messages, puzzle.answer, puzzle.answer_kind, f"synthetic/{task}")
    return {**row, "prompt": best, "num_tokens": longest}


def write_prompt(puzzle: Puzzle, filler: Sequence[str]) -> str:
    """The prompt whose hidden pieces stand among `filler` at the depths they should."""
    depths = [(number + 0.5) / len(filler) for number in range(len(filler))]
    pieces = sorted([*zip(depths, filler, strict=True), *puzzle.hidden], key=itemgetter(0))
    context = puzzle.separator.join(piece for _, piece in pieces)
    return ask_for_tags(f"{puzzle.opening}\n\n{context}\n\n{puzzle.question}", puzzle.answer_kind)


class _Haystack:
    """A puzzle's filler, drawn as far as it is needed, with the tokens that each piece adds to a prompt."""

    def __init__(self, puzzle: Puzzle, tokenizer: PreTrainedTokenizerBase):
        self.puzzle, self.tokenizer = puzzle, tokenizer
        self.pieces: list[str] = []
        self.counts: list[int] = []
        self.sums = [0]  # tokens of the first 0, 1, 2, ... pieces
        self._draw()
        self._tail_tokens = TAIL_LENGTH * max(self.counts)

    def choose(self, budget: int) -> list[str]:
        """Filler of `budget` tokens, or of as many below it as can be."""
        while self.sums[-1] < budget:
            self._draw()
        start = max(0, bisect_right(self.sums, budget - self._tail_tokens) - 1)
        while len(self.pieces) < start + TAIL_PIECES:
            self._draw()
        tail = _subset(self.counts[start : start + TAIL_PIECES], budget - self.sums[start])
        return self.pieces[:start] + [self.pieces[start + number] for number in tail]

    def _draw(self) -> None:
        pieces = [next(self.puzzle.filler) for _ in range(PIECES_AT_ONCE)]
        different = sorted(set(pieces))
        # As it stands in the prompt: after the end of a piece like itself, and a separator.
        ends = [piece[-1] for piece in different]
        joined = [end + self.puzzle.separator + piece for end, piece in zip(ends, different, strict=True)]
        whole, end = (
            map(len, self.tokenizer(texts, add_special_tokens=False)["input_ids"]) for texts in (joined, ends)
        )
        added = {piece: w - e for piece, w, e in zip(different, whole, end, strict=True)}
        self.pieces += pieces
        for piece in pieces:
            self.counts.append(added[piece])
            self.sums.append(self.sums[-1] + added[piece])


def _subset(counts: Sequence[int], total: int) -> tuple[int, ...]:
    """Positions of counts that add up to `total`, or to the largest sum below it."""
    reached: dict[int, tuple[int, ...]] = {0: ()}
    for position, count in enumerate(counts):
        if total in reached:
            break
        for so_far, positions in list(reached.items()):
            if so_far + count <= total:
                reached.setdefault(so_far + count, (*positions, position))
    return reached[max(reached)]


def _generate(indices, tokenizer, tokens, seed, split, tasks, chat_template_kwargs, code) -> Iterator[dict]:
    for index in indices:
        task = tasks[index % len(tasks)]
        yield generate_row(tokenizer, tokens, task, index, seed, split, chat_template_kwargs)
