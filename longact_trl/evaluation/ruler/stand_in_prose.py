"""
Prose and words of our own for machines without the essays: generated, the same everywhere, Apache-2.0.

The prose looks like the real thing and does the same job, but a score on it is not RULER's score: every sample says
`stand-in`.
"""

import random
from itertools import product


LABEL = "stand-in"
NUM_SENTENCES = 9000  # about 130,000 words: more than 128k tokens, so that the text does not repeat

PEOPLE = (
    "my neighbour,the old teacher,a young engineer,the librarian,our gardener,a retired sailor,the baker,"
    "a travelling musician,the town clerk,my aunt,a careful reader,the watchmaker,a patient editor,the night nurse,"
    "a failed painter,the shepherd,a good carpenter,the ferryman,my first employer,a stubborn student"
).split(",")
DEEDS = (
    "repaired the clock in the hall,wrote a long letter about the harvest,walked to the river before breakfast,"
    "kept a diary of small discoveries,learned to listen before speaking,planted a row of apple trees,"
    "sold the house by the station,read the same novel every winter,built a boat that never left the shed,"
    "counted the birds on the roof,threw away ten drafts and kept the eleventh,borrowed a ladder and forgot it,"
    "measured the garden with a piece of string,asked a question nobody could answer,drew maps of invented islands,"
    "waited an hour for the last train,taught the children to bake bread,collected stones from every beach,"
    "changed the plan at the last moment,finished the work a week too early"
).split(",")
THINGS = (
    "habit,weather,patience,a good tool,curiosity,silence,money,an honest mistake,the first draft,friendship,rain,"
    "practice,a long walk,the right question,boredom,good company,a clear sentence,the market,luck,old wood"
).split(",")
EFFECTS = (
    "makes difficult work feel ordinary,is easier to praise than to keep,changes more than any clever plan,"
    "looks useless until the day it is needed,teaches what no book explains,costs less than people fear,"
    "rewards those who come back the next day,cannot be hurried,is worth more when it is shared,"
    "hides in the most common places,grows slowly and breaks quickly,turns a problem into a task,"
    "asks for attention rather than talent,survives most of the arguments against it"
).split(",")
WHEN = (
    "In those years,That summer,Before the bridge was closed,On the morning after the storm,As a rule,"
    "Many years later,During the long winter,For reasons of its own,At the end of the month,Without telling anyone,"
    "Once or twice,On most Sundays,After the market had gone"
).split(",")
WHY = (
    "because nobody else had the time,although the money was nearly gone,and the whole street talked about it,"
    "while the rest of us argued about the price,as if nothing had happened,which surprised even the doctor,"
    "since the other way was closed,until the light was gone,and never spoke of it again,"
    "even when the advice pointed the other way,so that the others could sleep,for the pleasure of doing it well"
).split(",")
SENTENCES = (
    "{when} {person} {deed}, {why}.",
    "{Person} {deed}, and {person} {deed2}.",
    "It is often said that {thing} {effect}.",
    "{Thing} {effect}, but {thing2} {effect2}.",
    "I used to think that {thing} {effect}; then {person} {deed}.",
    "{when} I noticed that {thing} {effect}.",
    "People who believe that {thing} {effect} have seldom met someone who {deed}.",
    "{Person} {deed} {why}.",
    "What I remember best is how {person} {deed}, {why}.",
    "If {thing} {effect}, then {thing2} probably {effect2} as well.",
)


def essay_sentences() -> list[str]:
    """Sentences of the stand-in for the essays."""
    rng = random.Random("stand-in essay")
    sentences = []
    for _ in range(NUM_SENTENCES):
        person, thing, thing2 = rng.choice(PEOPLE), *rng.sample(THINGS, 2)
        deed, deed2 = rng.sample(DEEDS, 2)
        effect, effect2 = rng.sample(EFFECTS, 2)
        fields = {"person": person, "Person": person.capitalize(), "deed": deed, "deed2": deed2, "thing": thing}
        fields |= {"Thing": thing.capitalize(), "thing2": thing2, "effect": effect, "effect2": effect2}
        sentences.append(rng.choice(SENTENCES).format(when=rng.choice(WHEN), why=rng.choice(WHY), **fields))
    return sentences


def english_words(words: tuple[str, ...]) -> tuple[str, ...]:
    """A longer list for `cwe`: compounds of short single words (`riverstone`)."""
    short = [word for word in words if word.isalpha() and word.islower() and len(word) <= 5]
    return tuple(sorted({first + second for first, second in product(short[::40], short)}))
