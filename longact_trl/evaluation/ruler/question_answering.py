"""Questions over many documents (`qa_1`, `qa_2`): the ones that answer a question, hidden among others."""

import random
from typing import NamedTuple

from .fitting import Draft
from .protocol import DOCUMENT, TEMPLATES


SPARE = 0.01  # of the characters asked for may stay unused; below that, only the shortest documents would still fit


class Question(NamedTuple):
    """A question; documents are named by their position in the corpus."""

    query: str
    outputs: list[str]
    own: list[int]  # documents that come first
    required: set[int]  # those of `own` without which it cannot be answered
    related: list[int]  # the first distractors, in random order


class Corpus(NamedTuple):
    """All documents, sorted, and all questions, in the order of the source."""

    documents: list[str]
    questions: list[Question]
    label: str


def draft(rng: random.Random, size: int, index: int, seed: int, corpus: Corpus) -> Draft:
    """
    One sample: question `index` over about `size` characters of documents.

    RULER takes a number of documents that it finds with the first question. Here documents are taken while they fit,
    in the order in which RULER draws them: the question's own, related ones, any others; so each sample is filled, and
    at short lengths a question keeps what answers it and loses distractors first.
    """
    question = corpus.questions[index]
    chosen = choose(rng, size, question, corpus.documents)
    random.Random(seed).shuffle(chosen)
    context = "\n\n".join(DOCUMENT.format(i=i, document=corpus.documents[d]) for i, d in enumerate(chosen, 1))
    template = TEMPLATES["qa"]
    text = template.question.format(context=context, query=question.query)
    return Draft(text, template.answer_prefix, question.outputs, corpus.label)


def choose(rng: random.Random, size: int, question: Question, documents: list[str]) -> list[int]:
    """Positions of a sample's documents; they have `size` characters unless the required ones have more."""
    used = sum(len(documents[d]) for d in question.required)
    chosen = []
    for d in question.own:
        if d not in question.required and used + len(documents[d]) <= size:
            used += len(documents[d])
            chosen.append(d)
        elif d in question.required:
            chosen.append(d)
    known = {*question.own, *question.related}
    others = [d for d in range(len(documents)) if d not in known]
    rest = rng.sample(question.related, len(question.related)) + rng.sample(others, len(others))
    taken = True
    while taken and used < (1 - SPARE) * size:
        taken = False
        for d in rest:
            if used + len(documents[d]) <= size:
                used += len(documents[d])
                chosen.append(d)
                taken = True
            if used >= (1 - SPARE) * size:
                break
        rest = range(len(documents))  # a corpus shorter than the sample repeats, as in RULER
    return chosen
