"""Whatever a data file holds, its rows are clean or named as bad: nothing else is raised, and nothing is garbled."""

import json
from types import ModuleType

import pyarrow
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helpers.data import read_fixture
from longact_trl.data import am_deepseek, docqa, memagent
from longact_trl.data.am_deepseek import load_am_deepseek
from longact_trl.data.rows import RL_FEATURES, SFT_FEATURES, convert_or_name, read_prompts, with_problem
from longact_trl.data.source import read_source


EVERYTHING = list(HealthCheck)
FUZZ = settings(max_examples=300, deadline=None, database=None, derandomize=True, suppress_health_check=EVERYTHING)
FEW = settings(FUZZ, max_examples=40)
text = st.text(max_size=8) | st.sampled_from(["</answer>", "<think>", "<|im_end|>", "\x00", "\u202e", " ", "1e999"])
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=8,
)
LOADERS = {
    "docqa": (docqa, RL_FEATURES),
    "memagent": (memagent, RL_FEATURES),
    "am_deepseek": (am_deepseek, SFT_FEATURES),
}


@st.composite
def damaged(draw, row: dict) -> dict:
    """A good row with another value in one place, or without it."""
    row = json.loads(json.dumps(row))
    places = [
        (parent, key) for parent in parts(row) for key in (parent if isinstance(parent, dict) else range(len(parent)))
    ]
    parent, key = draw(st.sampled_from(places))
    if draw(st.integers(0, 5)):
        parent[key] = draw(json_values)
    else:
        del parent[key]
    return row


def parts(value) -> list:
    """A nested value's dictionaries and lists."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [value, *(part for item in inner for part in parts(item))] if isinstance(value, dict | list) else []


@pytest.mark.parametrize("name", LOADERS)
def test_a_row(name):
    module: ModuleType = LOADERS[name][0]
    features = LOADERS[name][1]
    schema = with_problem(features).arrow_schema
    outcomes = set()

    @FUZZ
    @given(damaged(read_fixture(f"{name}.jsonl")[0]) | st.dictionaries(text, json_values, max_size=3))
    def check(row):
        converted = convert_or_name(row, module.convert_row, tuple(features), "")
        [stored] = pyarrow.Table.from_pylist([converted], schema=schema).to_pylist()  # as datasets writes it
        assert stored == converted
        outcomes.add(converted["problem"] is None)

    check()
    assert outcomes == {True, False}


def refused_or_read(read) -> None:
    try:
        read()
    except ValueError as error:
        assert "row" in str(error) or "cannot be read as" in str(error), error


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".parquet"])
def test_a_file(tmp_path, suffix):
    path = tmp_path / f"rows{suffix}"
    number = iter(range(10**6))
    garbage = st.binary(max_size=60) | st.binary(max_size=30).map(lambda b: b"PAR1" + b + b"PAR1")
    lines = st.lists(json_values, max_size=3).map(lambda rows: "\n".join(map(json.dumps, rows)).encode())

    @FEW
    @given(garbage | lines | st.just(b'{"prompt": "\\ud800"}') | st.just(b"[" * 200))
    def check(content):
        path = tmp_path / f"rows{next(number)}{suffix}"
        path.write_bytes(content)
        refused_or_read(lambda: read_prompts(str(path), "train"))

    check()
    path.write_bytes(b"\x00\xff garbage")
    with pytest.raises(ValueError, match=f"rows{suffix}' cannot be read as {suffix}"):
        read_source(str(path), "train")
    with pytest.raises(ValueError, match=f"rows{suffix}' cannot be read as"):
        load_am_deepseek(str(path), max_rows=3)


def test_prompts_of_ones_own(tmp_path):
    number = iter(range(10**6))
    message = st.fixed_dictionaries({"role": st.just("user") | json_values, "content": text | json_values})
    prompts = text | json_values | st.lists(message, max_size=2)

    @FEW
    @given(st.lists(st.fixed_dictionaries({"prompt": prompts, "answer": json_values}), min_size=1, max_size=3))
    def check(rows):
        path = tmp_path / f"own{next(number)}.jsonl"
        path.write_text("\n".join(map(json.dumps, rows)))
        refused_or_read(lambda: check_read(read_prompts(str(path), "train", max_bad_share=1.0)))

    check()


def check_read(rows) -> None:
    for prompt in rows["prompt"]:
        texts = [prompt] if isinstance(prompt, str) else [message["content"] for message in prompt]
        assert all(isinstance(content, str) for content in texts) and any(content.strip() for content in texts)


@pytest.mark.parametrize(
    "prompt, reason",
    [
        (None, "neither text nor messages: None"),
        ([1, 2], r"neither text nor messages: \[1, 2\]"),
        ([{"role": 5, "content": "?"}], "a message whose role is no text: 5"),
        ([{"role": "user"}], "a message whose content is no text: None"),
        ([{"role": "user", "content": [{"type": "text", "text": "?"}]}], "a message whose content is no text: "),
        ([], "the prompt is empty"),
        (" \n", "the prompt is empty"),
    ],
)
def test_a_prompt_that_cannot_be_used_is_named(tmp_path, prompt, reason):
    path = tmp_path / "own.jsonl"
    path.write_text("\n".join(json.dumps({"prompt": prompt, "answer": "a"}) for _ in range(2)))
    with pytest.raises(ValueError, match=rf"own.jsonl: 2 of 2 rows are bad(.|\n)*{reason.split(':')[0]}"):
        read_prompts(str(path), "train")


def test_a_prompt_that_is_used(tmp_path):
    """Nothing in a system prompt, and an assistant that only calls a tool, are usual."""
    call = {"role": "assistant", "content": None, "tool_calls": [{"type": "function", "function": {"name": "f"}}]}
    prompt = [{"role": "system", "content": ""}, {"role": "user", "content": "?"}, call]
    path = tmp_path / "own.jsonl"
    path.write_text(json.dumps({"prompt": prompt}))
    assert [message["content"] for message in read_prompts(str(path), "train")[0]["prompt"]] == ["", "?", None]
