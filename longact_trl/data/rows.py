"""Rows of a source, converted one by one, and every bad one counted and named.

Rows stay on disk: `datasets` maps them through Arrow files, so memory does not grow with their number.
"""

import inspect
import json
import logging
import sys
from collections.abc import Callable, Iterator

from datasets import Dataset, Features, List, Value
from datasets.fingerprint import Hasher

from ..rewards import answers, chinese_numerals, currencies, lists, numbers, text
from ..rewards import tagged as rewards
from ..rewards.answers import short_repr
from ..rewards.tagged import answer_reward, format_reward
from ..rewards.tags import ANSWER, END_ANSWER, END_THINK, THINK
from . import answer_format
from . import golds as gold_answers
from .files import find_files, stamp_of
from .golds import InvalidRow, gold_texts
from .reading import MAX_PARTICULARS, named_errors
from .row_types import read_files
from .source import read_source, source_rows


logger = logging.getLogger(__name__)

MESSAGES = List({"role": Value("string"), "content": Value("string")})
RL_FEATURES = Features(
    {"prompt": MESSAGES, "answer": List(Value("string")), "answer_kind": Value("string"), "task": Value("string")}
)
SFT_FEATURES = Features({"prompt": MESSAGES, "completion": MESSAGES, "task": Value("string")})
PROBLEM = "problem"
# A prompt may take a megabyte; the writer holds this many rows before they go to disk (datasets' default is 1,000).
ROWS_IN_MEMORY = 100
# How many bad rows a message names for each reason.
ROWS_NAMED = 5


def read_prompts(source: str, split: str, max_bad_share: float = 0.01) -> Dataset:
    """
    Read a source whose rows have the columns of training already, and leave out those whose prompt cannot be used or
    whose `answer` is missing or earns no reward. Answers that are numbers become texts, which is what rewards compare.

    Args:
        source, split:
            As in [`read_source`].
        max_bad_share (`float`, *optional*, defaults to `0.01`):
            Share of bad rows above which the run stops.

    Returns:
        `Dataset` with the columns of the source.

    Raises:
        `ValueError`: If more than `max_bad_share` of the rows is bad, or no row is good.
    """
    if (files := find_files(source, split)) is not None:
        return _prompts_of_files(source, files, max_bad_share)
    rows = read_source(source, split)
    if "prompt" not in rows.column_names:  # the trainer says who needs it
        return rows
    features = with_problem(rows.features)
    if "answer" in features:
        features["answer"] = _as_text(features["answer"])
    checked = rows.map(_name_unusable, features=features, writer_batch_size=ROWS_IN_MEMORY, desc="Checking prompts")
    return keep_valid(checked, source, max_bad_share)


def _prompts_of_files(source: str, files: list[str], max_bad_share: float) -> Dataset:
    with named_errors(source, "rows"):
        checked = read_files(files, _check_row, code_hash(_check_row))
    if "prompt" not in checked.column_names:
        return checked.remove_columns(PROBLEM)
    if checked.features["prompt"] == List(Value("string")):
        raise ValueError(f"{source} has prompts that are text and others that are messages: write all as messages")
    checked = checked.cast_column(PROBLEM, Value("string"))
    if "answer" in checked.column_names:
        checked = checked.map(_name_missing, writer_batch_size=ROWS_IN_MEMORY, desc="Checking answers")
    return keep_valid(checked, source, max_bad_share)


def _check_row(row: dict) -> dict:
    if "prompt" not in row:
        return {**row, PROBLEM: "no prompt"}
    try:
        json.dumps(row, ensure_ascii=False, default=str).encode()
    except ValueError as error:
        return {"prompt": None, PROBLEM: f"half a surrogate pair, which is text that no file holds: {error}"}
    checked = {**row, **_name_unusable(row)}
    return checked if checked[PROBLEM] is None else {**checked, "prompt": None}  # of no type that another has not


def _name_missing(row: dict) -> dict:
    """An answer that other rows have."""
    return {PROBLEM: "no gold answer" if row["answer"] is None and row[PROBLEM] is None else row[PROBLEM]}


def _as_text(feature: Value | List) -> Value | List:
    """The type of a column of answers once its numbers are texts; another type is left for the reward to refuse."""
    if isinstance(feature, List):
        return List(_as_text(feature.feature))
    return Value("string") if isinstance(feature, Value) else feature


def _name_unusable(row: dict) -> dict:
    unusable = {"answer": None} if "answer" in row else {}
    try:
        check_prompt(row["prompt"])
        if "answer" not in row:
            return {PROBLEM: None}
        golds = gold_texts(row["answer"])
        check_golds(golds, row.get("answer_kind"))
    except InvalidRow as problem:
        return {**unusable, PROBLEM: str(problem)}
    return {"answer": golds if isinstance(row["answer"], list) else golds[0], PROBLEM: None}


def check_prompt(prompt: list[dict] | str) -> None:
    """
    Check that a prompt is text, or messages of which one has text.

    Args:
        prompt (`list[dict]` or `str`):
            What a row has. The `content` of a message is text or, beside `tool_calls`, nothing. Chat templates of
            text models leave out a list of parts without a word.

    Raises:
        `InvalidRow`: If it is anything else.
    """
    messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        raise InvalidRow(f"the prompt is neither text nor messages: {short_repr(prompt)}")
    for message in messages:
        if not isinstance(message.get("role"), str):
            raise InvalidRow(f"a message whose role is no text: {short_repr(message.get('role'))}")
        content = message.get("content")
        if not isinstance(content, str) and (content is not None or not message.get("tool_calls")):
            raise InvalidRow(f"a message whose content is no text: {short_repr(content)}")
    if not any((message.get("content") or "").strip() for message in messages):
        raise InvalidRow("the prompt is empty")


def convert_rows(
    convert_row: Callable[[dict], dict],
    features: Features,
    source: str,
    split: str,
    data_files: str | list[str] | None = None,
    max_bad_share: float = 0.01,
) -> Dataset:
    """
    Convert every row of a source, warn of the bad ones by reason and number, and return the good ones.

    Args:
        convert_row (`Callable`):
            A module's own function from a row in the schema of its source to one with the columns of `features`;
            raises [`InvalidRow`].
        features (`Features`):
            `RL_FEATURES` or `SFT_FEATURES`.
        source, split, data_files:
            As in [`read_source`].
        max_bad_share (`float`, *optional*, defaults to `0.01`):
            Share of bad rows, from 0 to 1, above which the run stops.

    Raises:
        `ValueError`: If more than that share of the rows is bad, or no row is good.
    """
    arguments = {"convert_row": convert_row, "columns": tuple(features), "code": code_hash(convert_row)}
    if stamps := stamps_of(source, split, data_files):
        where = {"source": source, "split": split, "data_files": data_files}
        with named_errors(source, "rows"):
            converted = Dataset.from_generator(
                _generate,
                features=with_problem(features),
                gen_kwargs={**arguments, "stamps": stamps, "where": where},
                writer_batch_size=ROWS_IN_MEMORY,
            )
        return keep_valid(converted, source, max_bad_share)
    rows = read_source(source, split, data_files)
    converted = rows.map(
        convert_or_name,
        fn_kwargs=arguments,
        remove_columns=rows.column_names,
        features=with_problem(features),
        writer_batch_size=ROWS_IN_MEMORY,
        desc=f"Reading {source}",
    )
    return keep_valid(converted, source, max_bad_share)


def stamps_of(source: str, split: str, data_files: str | list[str] | None = None) -> tuple[tuple, ...]:
    """
    Paths and stamps of a source's files on this machine, of which there are none for the Hub. `datasets`
    caches what is generated by its arguments alone, so a file that was edited must change them.
    """
    return tuple((file, stamp_of(file)) for file in find_files(source, split, data_files) or ())


def _generate(convert_row, columns, code, stamps, where) -> Iterator[dict]:
    for row in source_rows(**where):
        yield convert_or_name(row, convert_row, columns, code)


def convert_or_name(row: dict, convert_row: Callable[[dict], dict], columns: tuple[str, ...], code: str) -> dict:
    """The converted row with `problem` None, or empty columns and the problem. `code` only marks the cache entry."""
    try:
        converted = convert_row(row)
        json.dumps(converted, ensure_ascii=False).encode()  # half a surrogate pair is text that no file holds
        return {**converted, PROBLEM: None}
    except InvalidRow as problem:
        return {**dict.fromkeys(columns), PROBLEM: str(problem)}
    except (KeyError, TypeError, AttributeError, IndexError, ValueError) as error:  # a field is not what it should be
        return {**dict.fromkeys(columns), PROBLEM: f"not in the schema of this source: {error!r}"}


def with_problem(features: Features) -> Features:
    return Features({**features, PROBLEM: Value("string")})


def keep_valid(converted: Dataset, source: str, max_bad_share: float) -> Dataset:
    """The rows without a problem; see [`convert_rows`]."""
    if not 0 <= max_bad_share <= 1:
        raise ValueError(f"max_bad_share must be a share from 0 to 1 (0.01 for 1 %), but is {max_bad_share!r}")
    good, bad = [], {}
    for index, problem in enumerate(converted[PROBLEM]):
        if problem is None:
            good.append(index)
        else:
            reason, _, particulars = problem.partition(": ")
            bad.setdefault(reason, []).append((index, particulars))
    total, num_bad = len(converted), len(converted) - len(good)
    if num_bad:
        reasons = "".join(
            f"\n  {len(rows)} x {reason} (rows {', '.join(str(index) for index, _ in rows[:ROWS_NAMED])}"
            + (", …" if len(rows) > ROWS_NAMED else "")
            + (f"; the first: {rows[0][1][:MAX_PARTICULARS]})" if rows[0][1] else ")")
            for reason, rows in sorted(bad.items(), key=lambda item: -len(item[1]))
        )
        message = f"{source}: {num_bad} of {total} rows are bad ({num_bad / total:.1%}) and left out:{reasons}"
        if num_bad > max_bad_share * total:
            raise ValueError(
                f"{message}\nThat is more than max_bad_share={max_bad_share}: correct the rows or raise the share"
            )
        logger.warning(message)
    if not good:
        raise ValueError(f"{source} has no usable row")
    converted = converted.remove_columns(PROBLEM)
    return converted.select(good) if num_bad else converted


def rl_row(prompt: list[dict], golds: list[str], kind: str, task: str) -> dict:
    """A row of `RL_FEATURES`; [`InvalidRow`] unless the prompt has text and every gold answer earns the reward."""
    check_prompt(prompt)
    check_golds(golds, kind)
    return {"prompt": prompt, "answer": golds, "answer_kind": kind, "task": task}


def check_golds(golds: list[str], kind: str | None) -> None:
    """[`InvalidRow`] unless there are gold answers and each of them, put where the model puts it, earns the reward."""
    if not isinstance(golds, list) or not all(gold is None or isinstance(gold, str) for gold in golds):
        raise InvalidRow(f"a gold answer that is no text: {short_repr(golds)}")
    if not golds or not all(gold and gold.strip() for gold in golds):
        raise InvalidRow("no gold answer")
    if kind is not None and not isinstance(kind, str):
        raise InvalidRow(f"an answer_kind that is no text: {short_repr(kind)}")
    for gold in ["\n".join(golds)] if kind == "list" else golds:
        completion = [f"{THINK}{END_THINK}{ANSWER}{gold}{END_ANSWER}"]
        try:
            reward = answer_reward(completion, answer=[golds], answer_kind=[kind])
        except ValueError as error:
            raise InvalidRow(f"unusable gold answer: {error}") from error
        if reward != [1.0]:
            raise InvalidRow(f"gold answer that its own reward does not accept: {short_repr(gold)}")


def sft_row(prompt: list[dict], completion: str, task: str) -> dict:
    """A row of `SFT_FEATURES`; [`InvalidRow`] unless the prompt has text and the tags are strictly right."""
    check_prompt(prompt)
    if format_reward([completion], strict=True) != [1.0]:
        raise InvalidRow(f"the completion is not one <think> and one <answer>: {short_repr(completion)}")
    return {"prompt": prompt, "completion": [{"role": "assistant", "content": completion}], "task": task}


def code_hash(function: Callable) -> str:
    """Hash of the code that decides what a row becomes: datasets' own hash of an imported function is its name."""
    modules = [sys.modules[name] for name in (function.__module__, __name__)]
    modules += [gold_answers, answer_format, answers, chinese_numerals, currencies, lists, numbers, text, rewards]
    return Hasher.hash([inspect.getsource(module) for module in modules])
