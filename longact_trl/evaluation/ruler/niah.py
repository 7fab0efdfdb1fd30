"""Needles in a haystack: the eight retrieval tasks of RULER."""

import random
import uuid
from bisect import bisect_right

from .fitting import Draft
from .protocol import NEEDLE, NOISE, TEMPLATES
from .words import wonderwords


# In percent of the haystack's sentences: 40 depths from 0 to 100, as numpy rounds them.
DEPTHS = [round(100 * i / 39) for i in range(40)]


def random_word(rng: random.Random) -> str:
    """An adjective and a noun. RULER draws from the list of all six million pairs, which need not be written down."""
    return f"{rng.choice(wonderwords('adjective'))}-{rng.choice(wonderwords('noun'))}"


RANDOM = {
    "words": random_word,
    "numbers": lambda rng: str(rng.randint(10**6, 10**7 - 1)),
    "uuids": lambda rng: str(uuid.UUID(int=rng.getrandbits(128), version=4)),
}


class Essay:
    """A text of which any number of words from its start is a list of sentences; `label` names it in samples."""

    def __init__(self, sentences: list[str], label: str):
        self.sentences = sentences
        self.label = label
        self.ends = []  # words up to the end of each sentence
        total = 0
        for sentence in sentences:
            total += sentence.count(" ") + 1
            self.ends.append(total)

    def first(self, num_words: int) -> list[str]:
        """Sentences of the first `num_words` words, the last possibly cut short; the text repeats where it ends."""
        repeats, rest = divmod(num_words, self.ends[-1])
        whole = bisect_right(self.ends, rest)
        cut = self.sentences[whole].split(" ")[: rest - (self.ends[whole - 1] if whole else 0)]
        return self.sentences * repeats + self.sentences[:whole] + ([" ".join(cut)] if cut else [])


def draft(
    rng: random.Random,
    size: int,
    seed: int,
    essay: Essay | None,
    *,
    haystack: str,
    type_k: str,
    type_v: str,
    num_k: int,
    num_v: int,
    num_q: int,
) -> Draft:
    """
    One sample.

    Args:
        rng (`random.Random`): Source of keys, values and depths.
        size (`int`): Words of the essay, or lines of noise or distractor needles.
        seed (`int`): RULER shuffles needles with a fresh generator of its seed: one permutation for all samples.
        essay (`Essay`, *optional*): The text for `haystack="essay"`.
        haystack, type_k, type_v, num_k, num_v, num_q: As in `protocol.TASKS`.
    """

    def needle(key: str, value: str) -> str:
        return NEEDLE.format(type_needle_v=type_v, key=key, value=value)

    values = {}
    while len(values) < num_k:
        values[RANDOM[type_k](rng)] = [RANDOM[type_v](rng) for _ in range(num_v)]
    needles = [needle(key, value) for key in values for value in values[key]]
    random.Random(seed).shuffle(needles)

    label = haystack
    if haystack == "essay":
        label = essay.label
        context = " ".join(hide_in_essay(rng, essay.first(size), needles))
    elif haystack == "noise":
        context = "\n".join(hide_in_lines(rng, [NOISE] * size, needles))
    else:
        distractors = [needle(RANDOM[type_k](rng), RANDOM[type_v](rng)) for _ in range(size)]
        context = "\n".join(hide_in_lines(rng, distractors, needles))

    asked = rng.sample(list(values), num_q)
    query = asked[0] if num_q == 1 else f"{', '.join(asked[:-1])}, and {asked[-1]}"
    texts = TEMPLATES["niah"]
    if num_q * num_v == 1:
        texts, type_v = map(singular, texts), type_v.removesuffix("s")
    question, answer_prefix = (text.format(type_needle_v=type_v, context=context, query=query) for text in texts)
    return Draft(question, answer_prefix, [value for key in asked for value in values[key]], label)


def hide_in_essay(rng: random.Random, sentences: list[str], needles: list[str]) -> list[str]:
    """The haystack's pieces and between them the needles, at different depths among `DEPTHS`."""
    depths = sorted(rng.sample(DEPTHS, len(needles)))
    cuts = [0, *(int(len(sentences) * (depth / 100)) for depth in depths), len(sentences)]
    pieces = [" ".join(sentences[start:end]) for start, end in zip(cuts, cuts[1:], strict=False)]
    return [text for pair in zip(pieces, [*needles, ""], strict=True) for text in pair][:-1]


def hide_in_lines(rng: random.Random, lines: list[str], needles: list[str]) -> list[str]:
    """The lines with each needle before a different one of them."""
    lines = list(lines)
    places = sorted(rng.sample(range(len(lines)), len(needles)), reverse=True)
    for place, needle in zip(places, needles, strict=True):
        lines.insert(place, needle)
    return lines


def singular(text: str) -> str:
    """RULER's wording of a template for one answer."""
    for plural, one in {"Some": "A", "are all": "is", "are": "is", "answers": "answer"}.items():
        text = text.replace(plural, one)
    return text
