import logging
import pickle

import pytest
from datasets import Dataset

from helpers.data import byte_tokenizer
from longact_trl.data.length import apply_length_policy, prompt_length
from longact_trl.data.rows import RL_FEATURES


LIMIT = 400


def row(text, task, system=False):
    prompt = [{"role": "system", "content": "Be brief."}] * system + [{"role": "user", "content": text}]
    return {"prompt": prompt, "answer": ["a"], "answer_kind": "string", "task": task}


def long_text(filling, count=300):
    return f"READ THIS: {filling * count} WHAT IS IT?"


@pytest.fixture
def dataset(tmp_path):
    rows = [
        row("short", "a"),
        row(long_text("word "), "a"),
        row("short", "b", system=True),
        row(long_text("x", 9000), "b"),
    ]
    rows += [row(long_text("中文。"), "b", system=True), row(long_text("🙂"), "c"), row("short", "c")]
    Dataset.from_list(rows, features=RL_FEATURES).save_to_disk(tmp_path / "rows")
    return Dataset.load_from_disk(tmp_path / "rows")


def test_filter_is_the_default_and_counts_by_source(dataset, tokenizer, caplog):
    with caplog.at_level(logging.WARNING):
        rows = apply_length_policy(dataset, tokenizer, LIMIT)
    assert rows.to_list() == [dataset[index] for index in (0, 2, 6)]
    assert "Longer than the window of 400 tokens: 1 of 2 a, 2 of 3 b, 1 of 2 c (the longest has" in caplog.text
    assert f"the longest has {prompt_length(dataset[3]['prompt'], tokenizer, {})}" in caplog.text


@pytest.mark.parametrize("limit", [80, LIMIT, 401, 402, 403])
def test_truncate_middle_keeps_both_ends_and_the_template(dataset, tokenizer, limit):
    rows = apply_length_policy(dataset, tokenizer, limit, policy="truncate_middle")
    assert rows.features == dataset.features and len(rows) == len(dataset)
    for before, after in zip(dataset, rows, strict=True):
        length = prompt_length(after["prompt"], tokenizer, {})
        if prompt_length(before["prompt"], tokenizer, {}) <= limit:
            assert after == before
            continue
        assert limit - 12 <= length <= limit  # a cut may cost the characters at the seam, of up to 4 tokens each
        assert after["prompt"][:-1] == before["prompt"][:-1]
        text, whole = after["prompt"][-1]["content"], before["prompt"][-1]["content"]
        assert text.startswith("READ THIS: ") and text.endswith(" WHAT IS IT?")
        assert "\ufffd" not in text and set(text) <= set(whole)
        assert any(whole.startswith(text[:cut]) and whole.endswith(text[cut:]) for cut in range(len(text)))
        rendered = tokenizer.apply_chat_template(after["prompt"], add_generation_prompt=True, tokenize=False)
        assert rendered.endswith("WHAT IS IT?<|end|><|assistant|>")


def test_error_stops(dataset, tokenizer):
    with pytest.raises(ValueError, match="1 of 2 a, 2 of 3 b, 1 of 2 c .*Set `prompt_length_policy` to 'filter'"):
        apply_length_policy(dataset, tokenizer, LIMIT, policy="error")


@pytest.mark.parametrize("policy", ["filter", "truncate_middle", "error"])
def test_prompts_that_fit_are_left_alone(dataset, tokenizer, policy):
    longest = prompt_length(dataset[3]["prompt"], tokenizer, {})
    assert apply_length_policy(dataset, tokenizer, longest, policy=policy) is dataset


def test_the_template_counts(dataset, tokenizer):
    with_template = prompt_length(dataset[0]["prompt"], tokenizer, {})
    assert with_template == len("short") + 3  # <|user|>, <|end|>, <|assistant|>
    only_short = dataset.select([0])
    assert len(apply_length_policy(only_short, tokenizer, with_template)) == 1
    with pytest.raises(ValueError, match="none is left"):
        apply_length_policy(only_short, tokenizer, with_template - 1)


def test_template_arguments_count(dataset, tokenizer):
    tokenizer.chat_template += "{{ 'x' * extra }}"
    assert len(apply_length_policy(dataset, tokenizer, 20, chat_template_kwargs={"extra": 5})) == 2
    with pytest.raises(ValueError, match="none is left"):
        apply_length_policy(dataset, tokenizer, 20, chat_template_kwargs={"extra": 50})


def test_it_runs_once_and_in_parallel(dataset, tokenizer, tmp_path):
    def fingerprints():
        rows = Dataset.load_from_disk(tmp_path / "rows")
        arrows = set((tmp_path / "rows").glob("cache-*"))
        # As in another run: a tokenizer that was loaded anew, and one that was used before.
        rows = apply_length_policy(rows, next(tokenizers), LIMIT, policy="truncate_middle", num_proc=2)
        return rows.to_list(), set((tmp_path / "rows").glob("cache-*")) - arrows

    used = byte_tokenizer()
    used("text", truncation=True, max_length=2)
    tokenizers = iter([tokenizer, tokenizer, byte_tokenizer(), pickle.loads(pickle.dumps(tokenizer))])
    first, written = fingerprints()
    assert len(written) == 4  # two steps by two processes
    for _ in range(3):
        assert fingerprints() == (first, set())


@pytest.mark.parametrize(
    "limit, policy, message",
    [
        (LIMIT, "truncate", "must be one of filter, truncate_middle, error, but is 'truncate'"),
        (0, "filter", "must be a whole number from 1 on, but is 0"),
        ("4096", "filter", "but is '4096'"),
        (3, "truncate_middle", "max_prompt_length=3 leaves nothing of a prompt's longest message"),
    ],
)
def test_mistakes_are_named(dataset, tokenizer, limit, policy, message):
    with pytest.raises(ValueError, match=message):
        apply_length_policy(dataset, tokenizer, limit, policy=policy)


def test_a_tokenizer_without_template(dataset, tokenizer):
    tokenizer.chat_template = None
    with pytest.raises(ValueError, match="set tokenizer.chat_template"):
        apply_length_policy(dataset, tokenizer, LIMIT)


def test_plain_prompts_are_measured_and_cut_too(tokenizer):
    dataset = Dataset.from_dict({"prompt": ["one two three " * 100, "short"]})
    assert len(apply_length_policy(dataset, tokenizer, 50)) == 1
    cut = apply_length_policy(dataset, tokenizer, 50, "truncate_middle")["prompt"]
    assert cut[1] == "short"
    assert len(tokenizer(cut[0])["input_ids"]) <= 50
    assert cut[0].startswith("one two")
