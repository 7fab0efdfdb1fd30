"""The paper's six InfiniteBench tasks as the official scripts do them: prompts, budgets, scores.

Source: OpenBMB/InfiniteBench @ 88b3daa6 (2024-06-13), `src/prompt.py`, `src/eval_utils.py` and
`src/compute_scores.py`; MIT. Nothing here needs a model. The official README calls the metric of the two QA tasks
"ROUGE F1"; the code, which gives that README's numbers, computes the token F1 below.
"""

import json
import re
import string
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path


PROTOCOL = json.loads(Path(__file__).with_suffix(".json").read_text(encoding="utf-8"))
TEMPLATES: dict[str, dict[str, str]] = PROTOCOL["templates"]
MAX_NEW_TOKENS: dict[str, int] = PROTOCOL["max_new_tokens"]
SYSTEM_PROMPT: str = PROTOCOL["system_prompt"]  # of the gpt4 template set
MAX_PROMPT_TOKENS = {"gpt4": 127_000, "yarn-mistral": 128 * 1024}
NAMES = {  # the paper's and the README's name of each task
    "passkey": "Retrieve.PassKey",
    "number_string": "Retrieve.Number",
    "longbook_sum_eng": "En.Sum",
    "longbook_qa_eng": "En.QA",
    "longbook_qa_chn": "Zh.QA",
    "longbook_choice_eng": "En.MC",
}
TASKS = tuple(NAMES)
# Completion models share one set of templates.
TEMPLATE_SETS = {name: name for name in TEMPLATES} | dict.fromkeys(
    ("yi-6b-200k", "yi-34b-200k", "chatglm3"), "yarn-mistral"
)

LETTERS = "ABCD"
ANSWER_PREFIXES = ("answer is:", "answer:", "answer is", "option is")
BLANKED = "\n\"'.,?!{}"
# 《 〈 〉 · ￥ are not in it, though 》 is.
CHINESE_PUNCTUATION = (
    "！？｡。＂＃＄％＆＇（）＊＋，－／：；＜＝＞＠［＼］＾＿｀｛｜｝～｟｠｢｣､、〃》「」『"
    "』【】〔〕〖〗〘〙〚〛〜〝〞〟〰〾〿–—‘’‛“”„‟…‧﹏."
)
_ENGLISH_TABLE = str.maketrans("", "", string.punctuation)
_CHINESE_TABLE = str.maketrans("", "", string.punctuation + CHINESE_PUNCTUATION)


def build_prompt(example: Mapping, task: str, model_name: str = "gpt4") -> str:
    """
    The prompt of one example, before truncation.

    Args:
        example (`Mapping`):
            Row of the dataset: `context`, `input`, `options`.
        task (`str`):
            One of `TASKS`.
        model_name (`str`, *optional*, defaults to `"gpt4"`):
            Whose templates: `"gpt4"` for chat models, `"yarn-mistral"` for completion models, or another of
            `TEMPLATE_SETS`.

    Returns:
        `str`

    Raises:
        `KeyError`: Where a template wants a field that the official code does not give it (kimi, claude2's En.QA).
    """
    template = TEMPLATES[TEMPLATE_SETS[model_name]][task]
    if task in ("passkey", "number_string"):
        return template.format(context=example["context"], input=example["input"])
    if task == "longbook_sum_eng":
        return template.format(context=example["context"])
    fields = {"question": example["input"], "context": example["context"]}
    if task == "longbook_choice_eng":
        fields |= {f"OPTION_{letter}": example["options"][i] for i, letter in enumerate(LETTERS)}
    return template.format(**fields)


def get_answer(example: Mapping, task: str) -> list[str] | str:
    """
    The gold labels of one example, as the scorer wants them.

    Args:
        example (`Mapping`):
            Row of the dataset: `answer`, `options`.
        task (`str`):
            One of `TASKS`.

    Returns:
        `list[str]` or `str`: `answer` itself; for En.MC the option's text and its letter.

    Raises:
        `ValueError`: If En.MC's answer is not exactly one of the options that are shown, the first four.
    """
    answer = example["answer"]
    if task != "longbook_choice_eng":
        return answer
    options = list(example.get("options", ()))[: len(LETTERS)]
    match [answer] if isinstance(answer, str) else answer:
        case [text, letter] if letter in tuple(LETTERS):
            return [text, letter]
        case [text] if text in options:
            return [text, LETTERS[options.index(text)]]
    raise ValueError(f"answer={answer!r} is not exactly one of the options {options}")


def score(task: str, prediction: str, label: Sequence[str] | str) -> float:
    """
    Score one prediction.

    Args:
        task (`str`):
            One of `TASKS`, or `"kv_retrieval"` or `"longdialogue_qa_eng"`, of which only predictions can be scored.
        prediction (`str`):
            What the model wrote.
        label (`Sequence[str]` or `str`):
            As [`get_answer`] returns it.

    Returns:
        `float`: From 0 to 1. A task's score is the plain mean.
    """
    return _SCORERS[task](prediction, label)


def first_int_match(prediction: str) -> str:
    """The first run of ASCII digits, or `""`."""
    return next((piece for piece in re.split("[^0-9]", prediction) if piece), "")


def score_first_int(prediction: str, label: Sequence[str] | str) -> float:
    """PassKey and Number: the first number must be the key, digit for digit."""
    key = label[0] if isinstance(label, list) else label
    return float(key == first_int_match(prediction))


def score_choice(prediction: str, label: Sequence[str] | str) -> float:
    """En.MC: a letter at the very start decides ("Answer: B" is A), then the option's text, then a letter in prose."""
    text = prediction.strip()
    if not text:
        return 0.0
    if text[0] in LETTERS:
        return float(text[0] in label)
    if text in label:
        return 1.0
    for character in BLANKED:
        text = text.replace(character, " ")
    while "  " in text:
        text = text.replace("  ", " ")
    for prefix in ANSWER_PREFIXES:
        at = text.find(prefix)
        if at == -1:
            continue
        start = at + len(prefix) + 1
        return float(len(text) >= start and any(text[start:].startswith(gold) for gold in label))
    letter = next((word for word in text.split() if word in LETTERS), None)  # "BC" is in "ABCD", too
    return float(letter is not None and letter in label)


def score_word(prediction: str, label: Sequence[str] | str) -> float:
    """Retrieve.KV, not among `TASKS`: the value must be a whole word; a label in a list never is."""
    return float(label in _words(prediction))


def score_name(prediction: str, label: Sequence[str] | str) -> float:
    """En.Dia, not among `TASKS`: the name must be a word of the response in capitals."""
    return float(label[0] in [word.upper() for word in _words(prediction)])


def _words(text: str) -> list[str]:
    return text.translate(dict.fromkeys(map(ord, f"{BLANKED}:"), " ")).split()


def normalize_answer(text: str) -> str:
    """English: lower case, no punctuation, no articles, single spaces."""
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text.lower().translate(_ENGLISH_TABLE)).split())


def normalize_zh_answer(text: str) -> str:
    """Chinese: lower case, no punctuation, no whitespace."""
    return "".join(text.lower().translate(_CHINESE_TABLE).split())


def score_qa_english(prediction: str, label: Sequence[str] | str) -> float:
    """En.QA: F1 over words, the best over the labels."""
    words = normalize_answer(prediction).split()
    return max((_f1(words, normalize_answer(gold).split()) for gold in label), default=0.0)


def score_qa_chinese(prediction: str, label: Sequence[str] | str) -> float:
    """Zh.QA: F1 over characters, the best over the labels."""
    characters = list(normalize_zh_answer(prediction))
    return max((_f1(characters, list(normalize_zh_answer(gold))) for gold in label), default=0.0)


def _f1(prediction: list[str], gold: list[str]) -> float:
    common = sum((Counter(prediction) & Counter(gold)).values())
    if common == 0:
        return 0.0
    precision, recall = common / len(prediction), common / len(gold)
    return 2 * precision * recall / (precision + recall)


def score_summary(prediction: str, label: Sequence[str] | str) -> float:
    """En.Sum: F-measure of rougeLsum over lines, without stemming, the best over the labels."""
    if isinstance(label, str):
        return _rouge().score(label, prediction)["rougeLsum"].fmeasure
    return _rouge().score_multi(label, prediction)["rougeLsum"].fmeasure


@cache
def _rouge():
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rougeLsum"], use_stemmer=False)


_SCORERS = {
    "passkey": score_first_int,
    "number_string": score_first_int,
    "longbook_sum_eng": score_summary,
    "longbook_qa_eng": score_qa_english,
    "longbook_qa_chn": score_qa_chinese,
    "longbook_choice_eng": score_choice,
    "kv_retrieval": score_word,
    "longdialogue_qa_eng": score_name,
}
