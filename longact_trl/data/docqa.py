"""DocQA-RL-1.6K (arXiv:2505.17667): long documents with a question whose answer is a letter, a number or a phrase."""

import re

from datasets import Dataset

from ..rewards.answers import answer_matches
from ..rewards.text import words
from .answer_format import ask_for_tags
from .golds import InvalidRow, gold_texts, sounds_missing
from .rows import RL_FEATURES, convert_rows, rl_row


HUB_ID = "Tongyi-Zhiwen/DocQA-RL-1.6K"
NUM_ROWS = {"train": 1591, "test": 2006}  # of its splits there
# Names in `data_source` before the length range, and the abilities they train.
ABILITIES = {"long_toc_choices": "doc-mc", "docmath": "doc-math", "multihoprag": "doc-qa", "musique": "doc-qa"}

# The request for an answer format is the prompt's last sentence. The search stays in a tail of this many characters,
# so that a document that says "the answer is (…)" is left alone.
_TAIL = 400
_FORMAT_REQUEST = re.compile(
    r"\s*(?:format your [^\n:]{0,40}:)?\s*[\"“']?\s*(?:therefore,? )?the (?:correct |final )?answer is "
    r"\([^()\n]{0,80}\)[\"”'.\s]*$",
    re.IGNORECASE,
)
_ANSWER_SENTENCE = re.compile(r"^.*(?:\banswer is|答案是|答案为)[:：]?\s*(.+)$", re.IGNORECASE | re.DOTALL)


def load_docqa(source: str = HUB_ID, split: str = "train", max_bad_share: float = 0.01) -> Dataset:
    """
    DocQA-RL-1.6K as a TRL dataset of prompts, with what the rewards need.

    Its prompts ask for "Therefore, the answer is (…)"; that sentence becomes a request for `<think>` and `<answer>`.

    Args:
        source (`str`, *optional*):
            Hub id, a `.parquet` or `.jsonl` file in the same schema, or a folder of such files.
        split (`str`, *optional*, defaults to `"train"`):
            `train` (1,591 rows) or `test` (2,006 rows), or a split of the folder.
        max_bad_share (`float`, *optional*, defaults to `0.01`):
            Share of bad rows above which the run stops.

    Returns:
        `Dataset` with columns `prompt` (messages), `answer` (`list[str]`), `answer_kind`, `task`.

    Raises:
        `ValueError`: If more than `max_bad_share` of the rows is bad.
    """
    return convert_rows(convert_row, RL_FEATURES, source, split, max_bad_share=max_bad_share)


def convert_row(row: dict) -> dict:
    """A row of DocQA-RL-1.6K as a row of `RL_FEATURES`."""
    ability = row.get("ability") or next(
        (ability for name, ability in ABILITIES.items() if row["data_source"].startswith(name)), None
    )
    if ability not in ABILITIES.values():
        raise InvalidRow(f"unknown ability or data_source: {ability!r}, {row['data_source']!r}")
    truth = row["reward_model"]["ground_truth"]
    golds = [gold for gold in map(bare_answer, gold_texts(truth)) if not sounds_missing(gold)]
    if not golds:
        raise InvalidRow("no gold answer")
    kind = answer_kind(golds, ability)
    if ability == "doc-mc" and kind != "choice":
        raise InvalidRow(f"a multiple-choice question whose gold answer is no letter: {golds}")
    if ability == "doc-math" and kind == "string":
        raise InvalidRow(f"a question for a number whose gold answer is neither a number nor yes or no: {golds}")
    *context, question = [{"role": message["role"], "content": message["content"]} for message in row["prompt"]]
    question["content"] = ask_for_tags(without_format_request(question["content"]), kind)
    return rl_row([*context, question], golds, kind, f"docqa/{ability}")


def bare_answer(gold: str) -> str:
    """`(B)` of "The correct answer is (B).", `Paris` of "Therefore, the answer is (Paris).", else the text itself."""
    sentence = _ANSWER_SENTENCE.match(gold.strip())
    if not sentence:
        return gold.strip()
    answer = sentence[1].lstrip('"“ \n').rstrip('"”.。 \n')  # .5 begins with its point
    is_wrapped = answer[:1] + answer[-1:] in ("()", "（）") and not set(answer[1:-1]) & set("()（）")
    return answer[1:-1].strip() if is_wrapped else answer


def without_format_request(prompt: str) -> str:
    """The prompt without its last sentence if that asks for "the answer is (…)"."""
    return prompt[:-_TAIL] + _FORMAT_REQUEST.sub("", prompt[-_TAIL:])


def answer_kind(golds: list[str], ability: str) -> str:
    """The kind that the task asks for if all golds are of it, `yes_no` for yes or no, else `string`."""
    if ability == "doc-qa":  # where "True" may be the title of a song
        return (
            "yes_no"
            if golds and all(" ".join(words(gold)) in ("yes", "no", "是", "否") for gold in golds)
            else "string"
        )
    wanted = {"doc-mc": ["choice"], "doc-math": ["number", "yes_no"]}[ability]
    return next((kind for kind in wanted if golds and all(_is_of_kind(gold, kind) for gold in golds)), "string")


def _is_of_kind(gold: str, kind: str) -> bool:
    try:
        return answer_matches(gold, [gold], kind)
    except ValueError:
        return False
