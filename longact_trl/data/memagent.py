"""MemAgent's HotpotQA (arXiv:2507.02259): a two-hop question among up to hundreds of Wikipedia passages."""

from pathlib import Path

from datasets import Dataset

from .answer_format import ask_for_tags
from .docqa import answer_kind
from .golds import InvalidRow, gold_texts, sounds_missing
from .rows import RL_FEATURES, convert_rows, rl_row


HUB_ID = "BytedTsinghua-SIA/hotpotqa"
# The repository also holds evaluation files in another schema, so the splits are named by file.
HUB_FILES = {"train": "hotpotqa_train_32k.parquet", "validation": "hotpotqa_dev.parquet"}
PROMPT = "Please read the following documents and answer the question below.\n\n{context}\n\nQuestion: {question}"


def load_memagent(
    source: str = HUB_ID, split: str = "train", data_files: str | list[str] | None = None, max_bad_share: float = 0.01
) -> Dataset:
    """
    MemAgent's HotpotQA as a TRL dataset of prompts, with what the rewards need.

    Its prompts hold the question alone, for MemAgent feeds the documents in pieces; here they are put before it.

    Args:
        source (`str`, *optional*):
            Hub id, a `.parquet` or `.jsonl` file in the same schema, or a folder of such files.
        split (`str`, *optional*, defaults to `"train"`):
            `train` or `validation`, or a split of the folder.
        data_files (`str` or `list[str]`, *optional*):
            Files to read instead of the split's own.
        max_bad_share (`float`, *optional*, defaults to `0.01`):
            Share of bad rows above which the run stops.

    Returns:
        `Dataset` with columns `prompt` (messages), `answer` (`list[str]`), `answer_kind`, `task`.

    Raises:
        `ValueError`: If the split is unknown, or more than `max_bad_share` of the rows is bad.
    """
    is_copy = (Path(source).expanduser() / HUB_FILES.get(split, "")).is_file()
    if (source == HUB_ID or is_copy) and data_files is None:
        if split not in HUB_FILES:
            raise ValueError(f"split must be one of {', '.join(HUB_FILES)}, but is {split!r}: or name data_files")
        data_files = HUB_FILES[split]
    return convert_rows(convert_row, RL_FEATURES, source, split, data_files, max_bad_share)


def convert_row(row: dict) -> dict:
    """A row of MemAgent's HotpotQA as a row of `RL_FEATURES`."""
    context = (row.get("context") or "").strip()
    question = (row["prompt"][-1]["content"] or "").strip()
    if not context:
        raise InvalidRow("no context")
    if not question:
        raise InvalidRow("no question")
    truth = row["reward_model"]["ground_truth"]
    golds = gold_texts(truth)
    if any(map(sounds_missing, golds)) or (isinstance(truth, list) and len(golds) < len(truth)):
        raise InvalidRow("no gold answer")
    kind = answer_kind(golds, "doc-qa")
    content = ask_for_tags(PROMPT.format(context=context, question=question), kind)
    return rl_row([{"role": "user", "content": content}], golds, kind, "memagent/hotpotqa")
