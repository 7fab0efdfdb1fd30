"""Aggregation over long lists: common words (`cwe`) and frequent coded words (`fwe`)."""

import math
import random
import string

from .fitting import Draft
from .protocol import SHORT, TEMPLATES
from .words import all_words


# How often common and other words stand in the list and in the solved example, and the example's different words.
LIST, EXAMPLE = (30, 3), (10, 3, 40)
SHORT_LIST, SHORT_EXAMPLE = (6, 1), (3, 1, 20)

CODED_LETTERS = 6
ZETA_OF_2 = math.pi**2 / 6  # counts of coded words follow a zeta distribution with alpha = 2
TOKENS_PER_CODED_WORD = 50  # of the prompt, for each different word


def draft_cwe(
    rng: random.Random, size: int, seed: int, max_seq_length: int, more: tuple[tuple[str, ...], str], *, num_cw: int
) -> Draft:
    """
    One sample of `cwe`: which 10 of `size` different words stand more often in a list than the others?

    `more` is a longer word list and its label, for lists that need more words than wonderwords has.
    """
    words, label = (all_words(), "wonderwords") if size <= len(all_words()) else more
    if size > len(words):
        raise ValueError(f"cwe needs {size} different words at this length, and english_words has {len(words)}")
    repeats, example = (SHORT_LIST, SHORT_EXAMPLE) if max_seq_length < SHORT else (LIST, EXAMPLE)

    def numbered(pool: tuple[str, ...], count: int, common_repeats: int, other_repeats: int) -> tuple[str, list[str]]:
        drawn = rng.sample(pool, count)
        common, others = drawn[:num_cw], drawn[num_cw:]
        listed = common * common_repeats + others * other_repeats
        random.Random(seed).shuffle(listed)
        return enumerated(listed), common

    template = TEMPLATES["cwe"]
    example_list, example_answer = numbered(all_words(), example[2], *example[:2])
    full_list, answer = numbered(words, size, *repeats)
    solved = f"{template.question.format(context=example_list)}{template.answer_prefix} {enumerated(example_answer)}"
    return Draft(f"{solved}\n{template.question.format(context=full_list)}", template.answer_prefix, answer, label)


def enumerated(words: list[str]) -> str:
    """`1. word 2. word …`"""
    return " ".join(f"{number}. {word}" for number, word in enumerate(words, 1))


def draft_fwe(rng: random.Random, size: int, seed: int, max_seq_length: int) -> Draft:
    """
    One sample of `fwe`: which three coded words are the most frequent beside the dots?

    The word of rank k stands `size · k^-2 / zeta(2)` times, rounded down; the most frequent one is dots.
    `max_seq_length` is without the answer's budget; the number of different words follows from it.
    """
    vocabulary = set()
    while len(vocabulary) < max_seq_length // TOKENS_PER_CODED_WORD:
        vocabulary.add("".join(rng.choices(string.ascii_lowercase, k=CODED_LETTERS)))
    vocabulary = sorted(vocabulary)
    random.Random(seed).shuffle(vocabulary)
    vocabulary[0] = "..."
    coded = [word for k, word in enumerate(vocabulary, 1) for _ in range(int(size * k**-2.0 / ZETA_OF_2))]
    random.Random(seed).shuffle(coded)
    template = TEMPLATES["fwe"]
    question = template.question.format(context=" ".join(coded))
    return Draft(question, template.answer_prefix, vocabulary[1:4], "coded words")
