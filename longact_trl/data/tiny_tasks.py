"""What the embedded model is asked, in its own words: needles in a haystack, several keys, chains of keys.

The three tasks are the retrieval and multi-hop families of RULER (arXiv:2404.06654) reduced to their core. A context
is a haystack of filler sentences with facts strewn in, and a fact is a key followed by what it stands for:

    the old road leads past the river . fox 42 . the green tree meets near the hill . owl elk . elk 17 .

- `needle`: one key is asked, all other facts are distractors:           fox -> 42
- `multi_key`: several keys are asked, the answer is the list of values:  fox , elk -> 42 , 17
- `hops`: a key may stand for another key, and the chain is followed:     owl -> elk -> 17

Everything is text whose words are separated by single spaces, so a word-level tokenizer sees one token a word; any
other tokenizer can read it too. Nothing here depends on a tokenizer or on torch.
"""

import random
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..rewards.tags import ANSWER, END_ANSWER, END_THINK, THINK


if TYPE_CHECKING:
    from datasets import Dataset

TASKS = ("needle", "multi_key", "hops")

KEYS = (
    "ant ape bat bear bee bird boar bug bull calf cat clam colt cow crab crow deer dog dove duck eagle eel elk emu "
    "finch fish flea fly fox frog gnat goat goose hare hawk hen horse ibis jay kite lamb lark lion lynx mole moose "
    "moth mouse mule newt owl ox panda pig pony pug puma quail ram rat raven robin seal shark sheep skunk sloth slug "
    "snail snake stork swan tiger toad trout tuna viper wasp whale wolf worm wren yak zebra"
).split()
VALUES = [str(number) for number in range(10, 100)]

# Filler sentences are drawn from this grammar: "the old road leads to a river ."
ADJECTIVES = "old green quiet wide cold bright tall grey small deep".split()
NOUNS = "road river hill tree field stone cloud bridge garden valley".split()
VERBS = "leads crosses follows touches meets hides".split()
PLACES = "near under over beside behind past".split()

QUESTIONS = {
    "needle": "what is the number of {keys} ?",
    "multi_key": "what are the numbers of {keys} ?",
    "hops": "which number is reached from {keys} ?",
}
ANSWER_KINDS = {"needle": "number", "multi_key": "list", "hops": "number"}
SEPARATOR = " , "

SPLITS = ("train", "test")
HELD_OUT_EVERY = 5  # one key-value pair in five is asked only in the test split
NUM_HELD_OUT, HELD_OUT_SEED = 300, 1000  # the questions of the test split that `make quickstart` and evaluations ask


def vocabulary() -> list[str]:
    """All words a generated row can contain, tags included, in a fixed order without duplicates."""
    rows = " ".join(QUESTIONS.values()).replace("{keys}", "") + " the a . ,"
    tags = [THINK, END_THINK, ANSWER, END_ANSWER]
    return list(dict.fromkeys([*rows.split(), *tags, *KEYS, *VALUES, *ADJECTIVES, *NOUNS, *VERBS, *PLACES]))


def split_of(key: str, value: str) -> str:
    """The split whose questions may ask for this key-value pair; elsewhere it can only be a distractor."""
    return "test" if (KEYS.index(key) + VALUES.index(value)) % HELD_OUT_EVERY == 0 else "train"


def filler_sentence(rng: random.Random) -> str:
    """One sentence of the haystack, eight words with the full stop."""
    adjective, noun, other = rng.choice(ADJECTIVES), *rng.sample(NOUNS, 2)
    return f"the {adjective} {noun} {rng.choice(VERBS)} {rng.choice(PLACES)} the {other} ."


def generate_row(
    rng: random.Random,
    task: str,
    *,
    split: str = "train",
    context_words: int = 256,
    num_needles: int = 12,
    num_asked: int = 2,
    num_hops: int = 2,
) -> dict:
    """
    One question over one synthetic context.

    Args:
        rng (`random.Random`): Source of all choices; the same state gives the same row.
        task (`str`): One of `TASKS`.
        split (`str`): `"train"` or `"test"`. No question is ever asked in both, see [`split_of`].
        context_words (`int`): Words in the context, approximately; facts are never dropped to meet it.
        num_needles (`int`): Values in the context, the asked ones included; guessing among them is right once in that.
        num_asked (`int`): Keys asked by `multi_key`.
        num_hops (`int`): Facts from the asked key to its value in `hops`; 1 is a plain needle.

    Returns:
        `dict` with `prompt` (one user message), `answer` (`list[str]`), `answer_kind`, `task` and `demonstration` (the
        correct completion with its tags; its thinking states the facts used).
    """
    hops = num_hops if task == "hops" else 1
    asked = num_asked if task == "multi_key" else 1
    # Distractors come in all lengths up to the asked one, so the shape of a chain does not give it away.
    lengths = [hops if i < asked else rng.randint(1, hops) for i in range(max(num_needles, asked))]
    if sum(lengths) > len(KEYS):
        raise ValueError(
            f"num_needles={num_needles} with num_hops={hops} needs more than the {len(KEYS)} keys there are"
        )

    keys = rng.sample(KEYS, sum(lengths))
    values = rng.sample(VALUES, len(VALUES))
    chains = []  # a chain is its facts in order: [(key, key), ..., (key, value)]; the asked ones come first
    for i, length in enumerate(lengths):
        links = [keys.pop() for _ in range(length)]
        j = next(j for j, value in enumerate(values) if i >= asked or split_of(links[-1], value) == split)
        chains.append(list(zip(links, [*links[1:], values.pop(j)], strict=True)))

    sentences = [f"{key} {value} ." for chain in chains for key, value in chain]
    filler_words = len(filler_sentence(rng).split())
    sentences += [filler_sentence(rng) for _ in range((context_words - 3 * len(sentences)) // filler_words)]
    rng.shuffle(sentences)
    question = QUESTIONS[task].format(keys=SEPARATOR.join(chain[0][0] for chain in chains[:asked]))

    answer = [chain[-1][1] for chain in chains[:asked]]
    thinking = " ".join(f"{key} {value} ." for chain in chains[:asked] for key, value in chain)
    return {
        "prompt": [{"role": "user", "content": " ".join([*sentences, question])}],
        "answer": answer,
        "answer_kind": ANSWER_KINDS[task],
        "task": task,
        "demonstration": f"{THINK} {thinking} {END_THINK} {ANSWER} {SEPARATOR.join(answer)} {END_ANSWER}",
    }


def generate_rows(
    seed: int,
    *,
    split: str = "train",
    tasks: tuple[str, ...] = TASKS,
    context_words: tuple[int, int] = (64, 192),
    num_needles: tuple[int, int] = (6, 16),
    num_asked: tuple[int, int] = (2, 3),
    num_hops: tuple[int, int] = (2, 3),
) -> Iterator[dict]:
    """
    An endless stream of rows that takes the tasks in turn; the ranges, both ends included, are drawn from uniformly.

    Raises:
        `ValueError`: for an unknown split or task.
    """
    if split not in SPLITS:
        raise ValueError(f"split={split!r} is not one of {SPLITS}")
    if not tasks or set(tasks) - set(TASKS):
        raise ValueError(f"tasks={tasks!r} must name some of {TASKS}")
    rng = random.Random(f"{split} {seed}")
    while True:
        for task in tasks:
            yield generate_row(
                rng,
                task,
                split=split,
                context_words=rng.randint(*context_words),
                num_needles=rng.randint(*num_needles),
                num_asked=rng.randint(*num_asked),
                num_hops=rng.randint(*num_hops),
            )


def make_dataset(num_prompts: int, seed: int = 0, **kwargs) -> "Dataset":
    """`num_prompts` rows of [`generate_rows`] as a dataset for `GRPOTrainer`; keyword arguments are passed on."""
    from datasets import Dataset

    rows = generate_rows(seed, **kwargs)
    return Dataset.from_list([next(rows) for _ in range(num_prompts)])
