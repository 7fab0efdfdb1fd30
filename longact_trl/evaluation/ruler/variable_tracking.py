"""Variable tracking (`vt`): a chain of assignments in noise, after one solved example."""

import random
import string

from .fitting import Draft
from .protocol import NOISE, TEMPLATES


EXAMPLE_TOKENS = 500  # what the solved example may have, its answer not counted
LETTERS, EXAMPLE_LETTERS = 5, 3


def draft(rng: random.Random, size: int, seed: int, example_size: int, *, num_hops: int) -> Draft:
    """
    One sample: a solved example with `example_size` lines of noise, then the question over `size` lines.

    The example's chain stands at the same places in all samples, and only its names and value change, as in RULER.
    """
    example, example_prefix, example_names = chain(rng, example_size, random.Random(seed), num_hops, EXAMPLE_LETTERS)
    question, answer_prefix, names = chain(rng, size, rng, num_hops, LETTERS)
    solved = f"{example}{example_prefix} {' '.join(example_names)}\n"
    return Draft(f"{solved}\n{question}", answer_prefix, names, "noise")


def draft_example(size: int, seed: int, num_hops: int) -> Draft:
    """The example alone, to find how many lines of noise it may have."""
    question, answer_prefix, names = chain(random.Random(seed), size, random.Random(seed), num_hops, EXAMPLE_LETTERS)
    return Draft(question, answer_prefix, names, "noise")


def chain(
    rng: random.Random, size: int, places_rng: random.Random, num_hops: int, letters: int
) -> tuple[str, str, list[str]]:
    """Question, answer prefix and variables of one chain in `size` lines of noise."""
    names = []
    while len(names) < num_hops + 1:
        name = "".join(rng.choices(string.ascii_uppercase, k=letters))
        names += [name] * (name not in names)
    value = rng.randrange(10000, 99999)
    # The space at the end of each copy is RULER's.
    assignments = [f"VAR {names[0]} = {value}"]
    assignments += [f"VAR {name} = VAR {source} " for source, name in zip(names, names[1:], strict=False)]
    lines = [NOISE] * size
    places = sorted(places_rng.sample(range(size), len(assignments)))
    for already, (place, assignment) in enumerate(zip(places, assignments, strict=True)):
        lines.insert(place + already, assignment)
    fields = {"context": "\n".join(lines), "query": value, "num_v": len(names)}
    question, answer_prefix = (text.format(**fields) for text in TEMPLATES["vt"])
    return question, answer_prefix, names
