"""AM-DeepSeek-R1-0528-Distilled: reasoning traces of DeepSeek-R1-0528 for the supervised cold start."""

from datasets import Dataset

from ..rewards.tags import ANSWER, END_ANSWER, END_THINK, THINK
from .answer_format import ask_for_tags
from .golds import InvalidRow
from .rows import SFT_FEATURES, sft_row
from .stream import stream_rows


HUB_ID = "a-m-team/AM-DeepSeek-R1-0528-Distilled"
CATEGORY = "if"
"""Instruction following, 54,000 of the 2.6M rows: what the cold start's recipe takes (LongAct, sec. 4.1)."""
ALL = "all"
"""In place of a category: every row."""
ROLES = {"human": "user", "assistant": "assistant"}


def load_am_deepseek(
    source: str = HUB_ID,
    split: str = "train",
    data_files: str | list[str] | None = None,
    category: str = ALL,
    max_rows: int = 10_000,
    seed: int = 42,
    max_bad_share: float = 0.01,
) -> Dataset:
    """
    AM-DeepSeek-R1-0528-Distilled as a TRL dataset of prompts and completions for `SFTTrainer`.

    The 2.6M rows (40 GB) are streamed once, from the Hub or from files, and a uniform sample of `max_rows` among them,
    or among those of one category, is kept in datasets' cache.

    Args:
        source (`str`, *optional*):
            Hub id, a `.parquet` or `.jsonl` file in the same schema, or a folder of such files.
        split (`str`, *optional*, defaults to `"train"`):
            Split of the Hub dataset or of the folder.
        data_files (`str` or `list[str]`, *optional*):
            Files to read instead of all, such as `"*if*"`: less to stream where a category has files of its own.
        category (`str`, *optional*, defaults to `"all"`):
            Category of the rows to take, `info.category`: `if`, `math`, `code`, `science`, `general chat`, or `all`.
        max_rows (`int`, *optional*, defaults to `10_000`):
            Rows to take, at random.
        seed (`int`, *optional*, defaults to `42`):
            Seed of what is taken.
        max_bad_share (`float`, *optional*, defaults to `0.01`):
            Share of bad rows above which the run stops.

    Returns:
        `Dataset` with columns `prompt` and `completion` (messages), `task`.

    Raises:
        `ValueError`: If more than `max_bad_share` of the rows is bad, or none is of the category.
    """
    return stream_rows(
        convert_row,
        SFT_FEATURES,
        max_bad_share,
        max_rows=max_rows,
        seed=seed,
        group=None if category == ALL else category,
        group_of=category_of,
        source=source,
        split=split,
        data_files=data_files,
    )


def category_of(row: dict) -> str:
    """`info.category` of the reply, or of the last turn that has one, else `"unknown"`."""
    turns = row.get("conversations")
    for turn in reversed(turns if isinstance(turns, list) else []):
        info = turn.get("info") if isinstance(turn, dict) else None
        if isinstance(info, dict) and info.get("category"):
            return str(info["category"])
    return "unknown"


def convert_row(row: dict) -> dict:
    """A row of AM-DeepSeek-R1-0528-Distilled as a row of `SFT_FEATURES`."""
    *turns, reply = row["conversations"]
    if reply["from"] != "assistant" or not turns or turns[-1]["from"] != "human":
        raise InvalidRow("the conversation does not end with a question and its reply")
    if not all(turn["from"] in ROLES for turn in turns):
        raise InvalidRow(f"unknown speaker: {sorted({turn['from'] for turn in turns} - set(ROLES))}")
    info = reply.get("info") or {}
    thought, answer = (info.get("think_content") or "").strip(), (info.get("answer_content") or "").strip()
    if not thought or not answer:
        from_value = split_value(reply["value"] or "")
        thought, answer = thought or from_value[0], answer or from_value[1]
    if not thought:
        raise InvalidRow("no think_content and no <think> in the value")
    if not answer:
        raise InvalidRow("no answer_content and nothing after </think> in the value")
    prompt = [{"role": ROLES[turn["from"]], "content": turn["value"]} for turn in turns]
    prompt[-1]["content"] = ask_for_tags(prompt[-1]["content"])
    if (row.get("system") or "").strip():
        prompt.insert(0, {"role": "system", "content": row["system"]})
    completion = f"{THINK}\n{_unwrap(thought, THINK, END_THINK)}\n{END_THINK}\n{ANSWER}\n"
    completion += f"{_unwrap(answer, ANSWER, END_ANSWER)}\n{END_ANSWER}"
    return sft_row(prompt, completion, f"am_deepseek/{category_of(row)}")


def split_value(value: str) -> tuple[str, str]:
    """Reasoning and answer of a reply written as one text, each empty if the value does not hold it."""
    thought, end_think, answer = value.partition(END_THINK)
    if not end_think:
        return "", ""
    return _unwrap(thought, THINK, ""), _unwrap(answer, ANSWER, END_ANSWER)


def _unwrap(text: str, opening: str, closing: str) -> str:
    return text.strip().removeprefix(opening).removesuffix(closing).strip()
