"""What synthetic long contexts ask: needles, variable tracing, aggregation, questions over generated documents.

The families are RULER's (arXiv:2404.06654), the words are ours. A [`Puzzle`] says what must stand in the context and
how to go on with a haystack for as long as there is room; [`~longact_trl.data.synthetic`] makes a prompt of it.

What is asked for belongs to one split alone: of every list of names, those that [`of_split`] gives to the other split
can only be distractors.
"""

import random
import string
import zlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import chain, repeat
from typing import NamedTuple


SPLITS = ("train", "test")
HELD_OUT_EVERY = 5  # one name in five is asked for only in the test split

ADJECTIVES = (
    "old green quiet wide cold bright tall grey small deep narrow warm dusty hidden broken gentle heavy empty round "
    "silver wooden distant golden pale rough smooth steep early lonely famous"
).split()
NOUNS = (
    "road river hill tree field stone cloud bridge garden valley forest market tower window harbour meadow lake "
    "mill fence station village castle kitchen library barn canal path shore orchard chapel square cellar roof gate "
    "well"
).split()
VERBS = "leads stands runs lies rests waits winds shines fades begins ends turns grows stays".split()
PREPOSITIONS = "near under over beside behind past beyond above below before along across".split()
TIMES = "winter summer spring autumn March April May June July August".split()
COLOURS = (
    "amber azure beige black blue bronze brown copper coral crimson ebony emerald indigo ivory jade lilac maroon "
    "olive orange pearl pink purple red ruby scarlet tan teal violet white yellow"
).split()
ANIMALS = (
    "badger bear beaver bison camel crane deer dolphin eagle falcon ferret fox gecko goose hare hawk heron horse "
    "ibis jackal koala lemur lion lizard llama lynx magpie mole moose otter owl panda parrot pelican puma rabbit "
    "raven seal shark sparrow swan tiger turtle walrus weasel wolf wombat zebra"
).split()
FIRST_NAMES = (
    "Ada Alma Anton Basil Bela Boris Carla Cecil Clara Dario Della Edgar Elsa Emil Enzo Flora Greta Hanna Hugo Ines "
    "Ivan Ivy Jonas Julia Karl Lena Leon Lydia Mara Milo Mina Nora Olga Oscar Otto Paula Petra Rosa Rufus Selma "
    "Silas Tessa Theo Ursula Vera Viktor Wanda Yara"
).split()
LAST_NAMES = (
    "Abbot Archer Ashdown Barlow Bexley Birch Calder Carver Colby Dalton Darrow Draper Eastman Elwood Farrow "
    "Fenwick Garner Gilmore Halden Harlow Hobart Ingram Jarvis Kestrel Kirby Lambert Langley Mercer Mosley Norwood "
    "Oakley Orton Parrish Pember Quigley Radley Ridley Sawyer Selwyn Tanner Thorne Upton Vance Walden Webster "
    "Whitlow Yardley Yates"
).split()
TOWN_STARTS = "Al Bar Bel Cor Dor El Fal Gar Hol Il Jor Kal Lor Mar Nor Or Pel Quin Ros Sel Tor Ul Vel Wen".split()
TOWN_ENDS = "bury cester dale fell ford gate ham holm leigh mere mora mouth port ridge stead ton vale wick".split()
RIVER_ENDS = "ana ava dra eda enna essa ira ova una yssa".split()
TRADES = (
    "baker carpenter clockmaker cooper dyer farmer gardener glazier mason miller painter potter tailor weaver".split()
)
WARES = "bells boats bricks cheese cider glass honey lace paper ropes salt silk soap tiles toys wool".split()
ACTS = (
    "rang the bell; swept the stairs; fed the geese; watered the roses; closed the shutters; lit the lantern; wound "
    "the clock; opened the gate; polished the brass; counted the barrels; mended the net; trimmed the hedge"
).split("; ")

LINE, PARAGRAPH = " ", "\n\n"
READ = "Read the following text and answer the question after it."


class Puzzle(NamedTuple):
    """A question, and the context that it is about before its length is known."""

    hidden: list[tuple[float, str]]
    """Pieces that must stand in the context, each with its depth: 0 is the start of the context, 1 its end."""
    filler: Iterator[str]
    """Endless pieces that say nothing on the question."""
    question: str
    answer: list[str]
    answer_kind: str
    opening: str = READ
    separator: str = LINE
    """What stands between two pieces."""


def of_split(names: Sequence[str], split: str) -> list[str]:
    """The names that may be asked for in this split: one in `HELD_OUT_EVERY` in `"test"`, the others in `"train"`."""
    return [name for name in names if (zlib.crc32(name.encode()) % HELD_OUT_EVERY == 0) == (split == "test")]


def strewn(rng: random.Random, pieces: Sequence[str]) -> list[tuple[float, str]]:
    """Each piece at a depth of its own."""
    return [(rng.random(), piece) for piece in pieces]


# The haystack


def sentence(rng: random.Random) -> str:
    """`The old road leads past the river.`, of 7 to 14 words, so that sentences add up to any length."""
    first, second = rng.sample(NOUNS, 2)
    adjectives = rng.sample(ADJECTIVES, 3)
    subject = " ".join([*adjectives[: rng.randint(1, 2)], first])
    place = " ".join([*adjectives[2 : rng.randint(2, 3)], second])
    text = f"he {subject} {rng.choice(VERBS)} {rng.choice(PREPOSITIONS)} the {place}"
    if rng.random() < 0.3:
        text += f" and the {rng.choice(NOUNS)}"
    return f"In {rng.choice(TIMES)} t{text}." if rng.random() < 0.3 else f"T{text}."


def sentences(rng: random.Random) -> Iterator[str]:
    return (sentence(rng) for _ in repeat(None))


# Needles


def needles(rng: random.Random, split: str, num_asked: int, num_values: int, num_others: int) -> Puzzle:
    """Codes of animals: `num_asked` of them with `num_values` each are asked for, `num_others` distract."""
    names = [f"{colour} {animal}" for colour in COLOURS for animal in ANIMALS]
    asked = rng.sample(of_split(names, split), num_asked)
    others = rng.sample(sorted(set(names) - set(asked)), num_others)
    owners = [name for name in asked for _ in range(num_values)] + others
    codes = [str(code) for code in rng.sample(range(10_000, 100_000), len(owners))]
    answer = codes[: num_asked * num_values]
    *first, last = [f"the {name}" for name in asked]
    listed = f"{', '.join(first)} and {last}" if first else last
    one = len(answer) == 1
    question = f"What is the code of {listed}?" if one else f"What are all codes of {listed}?"
    hidden = strewn(rng, [f"The code of the {name} is {code}." for name, code in zip(owners, codes, strict=True)])
    return Puzzle(hidden, sentences(rng), question, answer, "number" if one else "list")


def needle(rng: random.Random, split: str) -> Puzzle:
    """One fact in a haystack."""
    return needles(rng, split, num_asked=1, num_values=1, num_others=0)


def multi_key(rng: random.Random, split: str) -> Puzzle:
    """One fact among others of its kind."""
    return needles(rng, split, num_asked=1, num_values=1, num_others=rng.randint(4, 8))


def multi_value(rng: random.Random, split: str) -> Puzzle:
    """All values of one key."""
    return needles(rng, split, num_asked=1, num_values=rng.randint(2, 4), num_others=rng.randint(2, 4))


def multi_query(rng: random.Random, split: str) -> Puzzle:
    """The values of several keys."""
    return needles(rng, split, num_asked=rng.randint(2, 4), num_values=1, num_others=rng.randint(2, 4))


# Variable tracing


def variable_tracing(rng: random.Random, split: str) -> Puzzle:
    """Which variables hold a value, handed on from one to the next; other chains distract."""
    lengths = [rng.randint(2, 4) for _ in range(3)]
    names: list[str] = []
    while len(names) < sum(lengths):
        name = "".join(rng.sample(string.ascii_uppercase, 5))
        names += [name] if name not in names else []
    values = [str(value) for value in rng.sample(range(10_000, 100_000), 200)]
    asked = of_split(values, split)[0]
    others = [value for value in values if value != asked][:2]
    chains = [[names.pop() for _ in range(length)] for length in lengths]
    hidden = []
    for value, chain_ in zip([asked, *others], chains, strict=True):
        depths = sorted(rng.random() for _ in chain_)  # a value is set before it is handed on
        for depth, name, source in zip(depths, chain_, [value, *chain_], strict=False):
            hidden.append((depth, f"Set {name} = {source}."))
    question = f"Which variables hold the value {asked}, set directly or through other variables?"
    return Puzzle(hidden, sentences(rng), question, chains[0], "list")


# Aggregation


def common_words(rng: random.Random, split: str) -> Puzzle:
    """The three words of a list that occur most often, about six times as often as every other."""
    words = sorted({*NOUNS, *ANIMALS, *COLOURS, *WARES})
    common = rng.sample(of_split(words, split), 3)
    rare = rng.sample(sorted(set(words) - set(common)), 24)

    def one_round() -> list[str]:
        return rng.sample([*rare, *common * 6], len(rare) + len(common) * 6)

    # The first round is always there. After that the list may end anywhere: no word can catch up within a round.
    first = strewn(rng, one_round())
    filler = chain.from_iterable(one_round() for _ in repeat(None))
    opening = "Read the following list of words and answer the question after it."
    return Puzzle(first, filler, "Which three words occur most often in the list?", common, "list", opening)


def counting(rng: random.Random, split: str) -> Puzzle:
    """How often one person did one thing, among other persons and other things."""
    name, *others = _persons(rng, split, 4)
    act, *other_acts = rng.sample(ACTS, 4)
    count = rng.randint(2, 8)
    events = [f"{name} {act}." for _ in range(count)]
    events += [f"{rng.choice(others)} {act}." for _ in range(rng.randint(2, 4))]
    events += [f"{name} {rng.choice(other_acts)}." for _ in range(rng.randint(2, 4))]
    question = f"How many times does the text say that {name} {act}?"
    return Puzzle(strewn(rng, events), sentences(rng), question, [str(count)], "number")


# Questions over generated documents


def _persons(rng: random.Random, split: str, count: int) -> list[str]:
    """Different names, the first of which may be asked for."""
    names = [f"{first} {last}" for first in FIRST_NAMES for last in LAST_NAMES]
    asked = rng.choice(of_split(names, split))
    return [asked, *rng.sample(sorted(set(names) - {asked}), count - 1)]


def _document(rng: random.Random, title: str, facts: str, most_sentences: int = 3) -> str:
    text = " ".join([facts, *(sentence(rng) for _ in range(rng.randint(0, most_sentences)))])
    return f"Document: {title}\n{text}"


def _person_document(rng: random.Random, name: str, town: str, trade: str) -> str:
    return _document(rng, name, f"{name} was born in {town} and works as a {trade}.")


def _town_document(rng: random.Random, town: str, river: str, year: int) -> str:
    facts = f"{town} lies on the river {river} and was founded in {year}. It is known for its {rng.choice(WARES)}."
    return _document(rng, town, facts)


def _documents(rng: random.Random, person: str, town: str) -> Iterator[str]:
    """Documents on other persons and other towns, none on the same one before all have had their turn."""
    persons = [name for name in (f"{a} {b}" for a in FIRST_NAMES for b in LAST_NAMES) if name != person]
    towns = [name for name in (a + b for a in TOWN_STARTS for b in TOWN_ENDS) if name != town]
    while True:
        for number, name in enumerate(rng.sample(persons, len(persons))):
            if number % len(towns) == 0:
                left = rng.sample(towns, len(towns))
            yield _person_document(rng, name, rng.choice(towns), rng.choice(TRADES))
            yield _document(rng, f"The {rng.choice(ADJECTIVES)} {rng.choice(NOUNS)}", sentence(rng))
            yield _town_document(rng, left.pop(), _river(rng), rng.randint(1000, 1900))


def _river(rng: random.Random) -> str:
    return rng.choice(TOWN_STARTS) + rng.choice(RIVER_ENDS)


def question_over_documents(rng: random.Random, split: str, num_hops: int) -> Puzzle:
    """What one document says of a person, or (`num_hops=2`) another one of the town where the person was born."""
    person = _persons(rng, split, 1)[0]
    town, trade = rng.choice(TOWN_STARTS) + rng.choice(TOWN_ENDS), rng.choice(TRADES)
    river, year = _river(rng), rng.randint(1000, 1900)
    questions = {
        1: [
            (f"In which town was {person} born?", town, "string"),
            (f"What does {person} work as?", trade, "string"),
        ],
        2: [
            (f"On which river lies the town where {person} was born?", river, "string"),
            (f"In which year was the town where {person} was born founded?", str(year), "number"),
        ],
    }
    question, answer, kind = rng.choice(questions[num_hops])
    documents = [_person_document(rng, person, town, trade), _town_document(rng, town, river, year)]
    opening = "Read the following documents and answer the question after them."
    filler = _documents(rng, person, town)
    return Puzzle(strewn(rng, documents), filler, question, [answer], kind, opening, PARAGRAPH)


TASKS: dict[str, Callable[[random.Random, str], Puzzle]] = {
    "needle": needle,
    "multi_key": multi_key,
    "multi_value": multi_value,
    "multi_query": multi_query,
    "variable_tracing": variable_tracing,
    "common_words": common_words,
    "counting": counting,
    "one_hop": partial(question_over_documents, num_hops=1),
    "two_hops": partial(question_over_documents, num_hops=2),
}
