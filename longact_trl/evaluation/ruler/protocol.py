"""
RULER's constants: the 13 tasks with their templates, answer prefixes and budgets.

The texts and numbers stand as in NVIDIA/RULER at c3f5e3b4 (2026-07-22; Apache-2.0, copyright NVIDIA CORPORATION):
`scripts/synthetic.yaml`, `scripts/data/synthetic/constants.py`, `scripts/eval/synthetic/constants.py`.
"""

from typing import NamedTuple


class Task(NamedTuple):
    """One of the 13 tasks."""

    family: str  # a key of TEMPLATES
    tokens_to_generate: int
    args: dict
    metric: str = "string_match_all"


class Template(NamedTuple):
    """What a family of tasks asks, and how the answer begins (the leading space is RULER's)."""

    question: str
    answer_prefix: str


def _niah(haystack: str, keys: str = "words", values: str = "numbers", num_k: int = 1, num_v: int = 1, num_q: int = 1):
    args = {"haystack": haystack, "type_k": keys, "type_v": values}
    return Task("niah", 128, {**args, "num_k": max(num_k, num_q), "num_v": num_v, "num_q": num_q})


TASKS = {
    "niah_single_1": _niah("noise"),
    "niah_single_2": _niah("essay"),
    "niah_single_3": _niah("essay", values="uuids"),
    "niah_multikey_1": _niah("essay", num_k=4),
    "niah_multikey_2": _niah("needle"),
    "niah_multikey_3": _niah("needle", keys="uuids", values="uuids"),
    "niah_multivalue": _niah("essay", num_v=4),
    "niah_multiquery": _niah("essay", num_q=4),
    "vt": Task("vt", 30, {"num_hops": 4}),
    "cwe": Task("cwe", 120, {"num_cw": 10}),
    "fwe": Task("fwe", 50, {"alpha": 2.0}),
    "qa_1": Task("qa", 32, {"dataset": "squad"}, "string_match_part"),
    "qa_2": Task("qa", 32, {"dataset": "hotpotqa"}, "string_match_part"),
}

NOISE = "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again."
NEEDLE = "One of the special magic {type_needle_v} for {key} is: {value}."
DOCUMENT = "Document {i}:\n{document}"

TEMPLATES = {
    "niah": Template(
        "Some special magic {type_needle_v} are hidden within the following text. Make sure to memorize it. I will "
        "quiz you about the {type_needle_v} afterwards.\n{context}\nWhat are all the special magic {type_needle_v} "
        "for {query} mentioned in the provided text?",
        " The special magic {type_needle_v} for {query} mentioned in the provided text are",
    ),
    "vt": Template(
        "Memorize and track the chain(s) of variable assignment hidden in the following text.\n\n{context}\nQuestion: "
        "Find all variables that are assigned the value {query} in the text above.",
        " Answer: According to the chain(s) of variable assignment in the text above, {num_v} variables are assigned "
        "the value {query}, they are: ",
    ),
    "cwe": Template(
        "Below is a numbered list of words. In these words, some appear more often than others. Memorize the ones "
        "that appear most often.\n{context}\nQuestion: What are the 10 most common words in the above list?",
        " Answer: The top 10 words that appear most often in the list are:",
    ),
    "fwe": Template(
        "Read the following coded text and track the frequency of each coded word. Find the three most frequently "
        "appeared coded words. {context}\nQuestion: Do not provide any explanation. Please ignore the dots '....'. "
        "What are the three most frequently appeared words in the above coded text?",
        " Answer: According to the coded text above, the three most frequently appeared words are:",
    ),
    "qa": Template(
        "Answer the question based on the given documents. Only give me the answer and do not output any other words."
        "\n\nThe following are given documents.\n\n{context}\n\nAnswer the question based on the given documents. "
        "Only give me the answer and do not output any other words.\n\nQuestion: {query}",
        " Answer:",
    ),
}

# Below this length RULER draws smaller lists for `cwe`.
SHORT = 4096
