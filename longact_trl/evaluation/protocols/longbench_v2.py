"""LongBench v2 as its official scripts do it: prompts, answer extraction, result table.

Source: THUDM/LongBench @ 2e00731f (2025-01-15), `pred.py` and `result.py`; MIT. Nothing here needs a model. lm-eval's
own `longbench2` compares the likelihoods of four choices instead, so its numbers are no LongBench v2 scores.
"""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path


PROTOCOL = json.loads(Path(__file__).with_suffix(".json").read_text(encoding="utf-8"))
TEMPLATES: dict[str, str] = PROTOCOL["templates"]
MAX_PROMPT_TOKENS: int = PROTOCOL["max_prompt_tokens"]
MAX_NEW_TOKENS: dict[str, int] = PROTOCOL["max_new_tokens"]

_IN_PARENTHESES = re.compile(r"The correct answer is \(([A-D])\)")
_BARE = re.compile(r"The correct answer is ([A-D])")


def build_prompt(item: Mapping, *, cot: bool = False, no_context: bool = False, rag: int = 0) -> str:
    """
    The prompt of the first turn, or of the only one.

    Args:
        item (`Mapping`):
            Row of the dataset: `context`, `question`, `choice_A` … `choice_D`, with `rag` also `retrieved_context`.
        cot (`bool`, *optional*, defaults to `False`):
            Ask for reasoning; [`build_answer_prompt`] then asks for the answer. Has no effect on the other two.
        no_context (`bool`, *optional*, defaults to `False`):
            Ask without the text.
        rag (`int`, *optional*, defaults to `0`):
            Show this many retrieved chunks instead of the text.

    Returns:
        `str`: Placeholders are replaced one after another, so a text that holds `$Q$` gets the question there, too.
    """
    name = "0shot_rag" if rag > 0 else "0shot_no_context" if no_context else "0shot_cot" if cot else "0shot"
    context = item["context"]
    if rag > 0:
        chunks = sorted(item["retrieved_context"][:rag], key=lambda chunk: chunk["c_idx"])
        context = "\n\n".join(f"Retrieved chunk {i}: {chunk['content']}" for i, chunk in enumerate(chunks, 1))
    return _fill(TEMPLATES[name], item, context)


def build_answer_prompt(item: Mapping, reasoning: str) -> str:
    """
    The prompt of the second turn, which leaves the text out and quotes the first turn's response.

    Args:
        item (`Mapping`):
            Row of the dataset.
        reasoning (`str`):
            Response of the first turn, already stripped.

    Returns:
        `str`
    """
    return _fill(TEMPLATES["0shot_cot_ans"], item, item["context"]).replace("$COT$", reasoning)


def _fill(template: str, item: Mapping, context: str) -> str:
    prompt = template.replace("$DOC$", context.strip()).replace("$Q$", item["question"].strip())
    for letter in "ABCD":
        prompt = prompt.replace(f"$C_{letter}$", item[f"choice_{letter}"].strip())
    return prompt


def extract_answer(response: str) -> str | None:
    """
    The letter a response decides for. "The correct answer is (B)" anywhere wins over an earlier one without
    parentheses, which also matches the first letter of a word; case and spaces must be exact.

    Args:
        response (`str`):
            What the model wrote.

    Returns:
        `str` or `None`: `"A"` … `"D"`.
    """
    response = response.strip().replace("*", "")
    match = _IN_PARENTHESES.search(response) or _BARE.search(response)
    return match and match.group(1)


def breakdown(rows: Sequence[Mapping], compensated: bool = False) -> dict[str, float | None]:
    """
    The result table: accuracy overall, by difficulty and by length, in percent.

    Args:
        rows (`Sequence[Mapping]`):
            `judge` (right or not), `pred` (letter or `None`), `difficulty` and `length` as the dataset stores them.
        compensated (`bool`, *optional*, defaults to `False`):
            Count a response without a letter as a quarter right, as the official script does when asked to.

    Returns:
        `dict[str, float | None]`: `Overall`, `Easy`, `Hard`, `Short`, `Medium`, `Long`, rounded to one decimal; `None`
        where there are no rows (the official script stops with a ZeroDivisionError there).
    """
    buckets: dict[str, list[float]] = {name: [] for name in ("Overall", "Easy", "Hard", "Short", "Medium", "Long")}
    for row in rows:
        accuracy = 0.25 if compensated and row["pred"] is None else int(row["judge"])
        length = {"short": "Short", "medium": "Medium"}.get(row["length"], "Long")
        for name in ("Overall", "Easy" if row["difficulty"] == "easy" else "Hard", length):
            buckets[name].append(accuracy)
    return {name: round(100 * sum(part) / len(part), 1) if part else None for name, part in buckets.items()}
