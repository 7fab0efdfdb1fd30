"""
Documents and questions of our own for machines without SQuAD or HotpotQA: generated, the same everywhere, Apache-2.0.

Each question has one answer in the documents that it needs and nowhere else. A score on them is not RULER's score:
every sample says `stand-in`.
"""

import random
from itertools import product

from .question_answering import Corpus, Question
from .stand_in_prose import LABEL


# Enough that 128k tokens need no document twice.
SQUAD_TOWNS, HOTPOTQA_TOWNS = 600, 1500

FIRST_NAMES = (
    "Ada Bram Celia Dario Elin Fergus Greta Hugo Ines Jonas Karin Leon Mira Nils Olga Pavel Runa Silas".split()
)
STARTS = "Bel Cor Dun Esk Fal Gar Hol Ivar Jel Kar Lor Mar Nor Oster Pel Quin Ros Sel Tor Ulm Var Wen Yar Zel".split()
MIDDLES = ["", "an", "en", "in", "or", "a", "e"]
TOWN_ENDINGS = "burg dale field ford haven holm mere mouth stad ton".split()
NAME_ENDINGS = "berg dahl ek gren lund man nes son strom vik".split()
TRADES = "architect,botanist,composer,engineer,geologist,historian,painter,physician,printer,surveyor".split(",")
GOODS = "glass,paper,woollen cloth,clocks,salt,copper wire,cheese,pottery,rope,bricks".split(",")
LANDMARKS = "bridge,lighthouse,town hall,library,observatory,market hall,water tower,theatre,museum,mill".split(",")


def names(rng: random.Random, endings: list[str], count: int) -> list[str]:
    """Different invented names."""
    return rng.sample(["".join(parts) for parts in product(STARTS, MIDDLES, endings)], count)


def towns(rng: random.Random, count: int) -> list[dict]:
    """Invented towns with a person each."""
    surnames = names(rng, NAME_ENDINGS, count)
    return [
        {
            "town": town,
            "river": f"{rng.choice(STARTS)}{rng.choice(('a', 'e', 'is', 'um'))}",
            "founded": rng.randint(1102, 1698),
            "landmark": rng.choice(LANDMARKS),
            "built": rng.randint(1702, 1949),
            "goods": rng.choice(GOODS),
            "people": rng.randint(2, 98) * 1000 + rng.randint(1, 999),
            "person": f"{rng.choice(FIRST_NAMES)} {surname}",
            "trade": rng.choice(TRADES),
            "born": rng.randint(1650, 1899),
        }
        for town, surname in zip(names(rng, TOWN_ENDINGS, count), surnames, strict=True)
    ]


# Paragraphs of an article about a town: text, question, answer. Each answer is in its own paragraph only.
PARAGRAPHS = (
    (
        "{town} is a town on the river {river}, founded in {founded}. At the last count {people} people lived there. "
        "Two roads cross in its centre, and the older one follows the river down to the sea. The first settlers came "
        "for the ford, which can still be used in dry summers, and stayed for the meadows on the southern bank.",
        "In which year was the town of {town} founded?",
        "{founded}",
    ),
    (
        "The best known building of {town} is its {landmark}, finished in {built}. It stands a short walk from the "
        "square and is open to visitors from spring to autumn. A fire damaged the roof soon after the opening, and "
        "the repairs took longer than the building itself. A small plaque beside the door lists those who paid.",
        "In which year was the {landmark} of {town} finished?",
        "{built}",
    ),
    (
        "For two centuries the people of {town} lived by making {goods}. The workshops stood along the canal, and "
        "their goods left the town by boat. When the railway came, prices fell and most of them closed. A single "
        "family firm still works in the old way, and its yard can be seen from the towpath on weekdays.",
        "What did the workshops of {town} make?",
        "{goods}",
    ),
    (
        "The {trade} {person} was born in {town} in {born} and went to school there. Letters in the town archive show "
        "a restless student who left home at the age of seventeen. Later visits were rare but always noted by the "
        "local paper. A street near the station bears the name, and a bust stands in the reading room.",
        "Which {trade} was born in {town} in {born}?",
        "{person}",
    ),
)


def squad() -> Corpus:
    """Articles of four paragraphs and a question about each, in the place of SQuAD."""
    raw = []
    for town in towns(random.Random("stand-in squad"), SQUAD_TOWNS):
        article = [text.format(**town) for text, _, _ in PARAGRAPHS]
        raw += [
            (question.format(**town), [answer.format(**town)], text, article)
            for text, (_, question, answer) in zip(article, PARAGRAPHS, strict=True)
        ]
    documents = sorted({text for _, _, text, _ in raw})
    position = {text: d for d, text in enumerate(documents)}
    questions = [
        Question(query, outputs, [position[own]], {position[own]}, [position[text] for text in article if text != own])
        for query, outputs, own, article in raw
    ]
    return Corpus(documents, questions, f"squad ({LABEL})")


def hotpotqa() -> Corpus:
    """A town and a person to a question that needs both, with eight distractors, in the place of HotpotQA."""
    rng = random.Random("stand-in hotpotqa")
    known = towns(rng, HOTPOTQA_TOWNS)
    about_town = [
        "{town}\n{town} is a town on the river {river}. It was founded in {founded} and is known for its {landmark}, "
        "which was finished in {built}, and for its {goods}. "
        "Some {people} people live there, most of them on the southern bank.".format(**town)
        for town in known
    ]
    about_person = [
        "{person}\n{person}, born in {born}, was a {trade} who grew up in {town}. The family had moved there for "
        "work, and the house in which they lived can still be visited.".format(**town)
        for town in known
    ]
    documents = sorted(about_town + about_person)
    position = {text: d for d, text in enumerate(documents)}
    questions = []
    for town, first, second in zip(known, about_town, about_person, strict=True):
        required = {position[first], position[second]}
        distractors = rng.sample([d for d in range(len(documents)) if d not in required], 8)
        own = [*required, *distractors]
        rng.shuffle(own)
        query = "In which year was the town founded where the {trade} {person} grew up?".format(**town)
        questions.append(Question(query, [str(town["founded"])], own, required, []))
    return Corpus(documents, questions, f"hotpotqa ({LABEL})")
