"""
InfiniteBench's two generated retrieval tasks, `passkey` and `number_string`, at any length and depth.

Texts and numbers are those of OpenBMB/InfiniteBench at 88b3daa6 (2024-06-13; MIT),
`data/construct_synthetic_dataset.py`: with the defaults, 59 depths and 10 keys make the 590 rows of the published
files, except that their keys were drawn without a seed.
"""

import random
from typing import NamedTuple


NOISE = "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again.\n"
TOKENS_PER_NOISE = 26  # as the official files count, in the field `len`


class Task(NamedTuple):
    """The line to find and the question about it."""

    line: str
    question: str
    repeated_digits: int  # how many of the five random digits are then doubled, one after the other


TASKS = {
    "passkey": Task("The pass key is {key}. Remember it. {key} is the pass key.\n", "What is the pass key?", 0),
    "number_string": Task(
        "The sequence of digits is {key}. Remember it. {key} is the sequence of digits.\n",
        "What is the sequence of digits?",
        5,
    ),
}


def make_samples(task: str, num_noise: int = 5220, step: int = 90, repeats: int = 10, seed: int = 42) -> list[dict]:
    """
    Rows like the published ones.

    Args:
        task (`str`): `"passkey"` or `"number_string"`.
        num_noise (`int`):
            Lines of noise: 5220 for 128k tokens; officially also 326, 652, 1305 and 2610 for 8k to 64k.
        step (`int`):
            Lines from one depth to the next: 90; officially 6, 12, 22 and 45 for the shorter lengths.
        repeats (`int`): Keys for each depth: 10; officially 5 for the shorter lengths.
        seed (`int`): The same seed gives the same rows.

    Returns:
        `list[dict]` with `id`, `context`, `input` (the question), `answer` (a list of one string), `options` (empty)
        and `len` (26 for each line of noise after the key, as officially).

    Raises:
        `ValueError`: For another task, or numbers below their least.
    """
    if task not in TASKS:
        raise ValueError(f"InfiniteBench generates {' and '.join(TASKS)}, but not {task!r}")
    if num_noise < 0 or step < 1 or repeats < 1:
        raise ValueError(f"num_noise={num_noise} must be 0 or more, step={step} and repeats={repeats} 1 or more")
    rng = random.Random(f"{seed} {task}")
    rows = [
        make_sample(rng, task, num_noise, place) for place in range(0, num_noise + 1, step) for _ in range(repeats)
    ]
    return [{"id": i, **row} for i, row in enumerate(rows)]


def make_sample(rng: random.Random, task: str, num_noise: int, place: int) -> dict:
    """One row, without `id`: `place` lines of noise before the key and the others after it."""
    line, question, repeated_digits = TASKS[task]
    digits = [str(rng.randint(0, 9)) for _ in range(5)]
    for _ in range(repeated_digits):
        position = rng.randint(0, len(digits) - 1)
        digits.insert(position, digits[position])
    key = "".join(digits)
    context = NOISE * place + line.format(key=key) + NOISE * (num_noise - place)
    row = {"context": context, "input": question, "answer": [key], "options": []}
    return row | {"len": TOKENS_PER_NOISE * (num_noise - place)}
