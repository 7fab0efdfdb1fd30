"""LongBench v2 and InfiniteBench against what the official code did in the same cases (tests/fixtures/protocols)."""

import json

import pytest

from helpers.data import byte_tokenizer
from helpers.paths import FIXTURES
from longact_trl.evaluation.protocols import infinitebench, longbench_v2
from longact_trl.evaluation.protocols.truncation import keep_ends, keep_equal_ends, truncate_prompt


FIXTURES = FIXTURES / "protocols"


def cases(name: str, keep=lambda case: True) -> list[dict]:
    found = [case for case in json.loads((FIXTURES / f"{name}.json").read_text(encoding="utf-8")) if keep(case)]
    assert found
    return found


class CharTokenizer:
    """One id a character, as the official cases of truncated prompts had it."""

    def encode(self, text: str) -> list[int]:
        return [ord(character) for character in text]

    def decode(self, ids, skip_special_tokens: bool) -> str:
        assert skip_special_tokens
        return "".join(map(chr, ids))


@pytest.mark.parametrize("case", cases("longbench_v2_extraction"), ids=lambda case: case["prediction"][:40])
def test_longbench_extraction(case):
    assert longbench_v2.extract_answer(case["prediction"]) == case["official_extraction"]


@pytest.mark.parametrize("case", cases("longbench_v2_truncation"), ids=lambda case: f"{case['n']}-{case['max_len']}")
def test_longbench_truncation(case):
    assert list(keep_ends(range(case["n"]), case["max_len"])) == case["official_ids"]


@pytest.mark.parametrize("case", cases("longbench_v2_pipeline"))
def test_longbench_pipeline(case):
    item, flags = case["item"], {name: case[name] for name in ("cot", "no_context", "rag")}
    prompt = longbench_v2.build_prompt(item, **flags)
    requests = case["official_requests"]
    for turn, request in enumerate(requests):
        if turn:
            prompt = longbench_v2.build_answer_prompt(item, case["replies"][0].strip())
        sent, _ = truncate_prompt(prompt, CharTokenizer(), case["max_len"])
        assert sent == request["prompt"]
        budget = longbench_v2.MAX_NEW_TOKENS["cot" if case["cot"] and not turn else "answer"]
        assert budget == request["max_tokens"]
    output = case["official_output"]
    pred = longbench_v2.extract_answer(case["replies"][-1])
    assert (pred, pred == item["answer"]) == (output["pred"], output["judge"])


@pytest.mark.parametrize("case", cases("longbench_v2_result"), ids=lambda case: str(len(case["rows"])))
def test_longbench_result_table(case):
    table = longbench_v2.breakdown(case["rows"], case["compensated"])
    if case["official_error"]:
        assert None in table.values()
    else:
        header, line = case["official_result_txt"].split("\n")
        assert list(table) == header.split("\t")[1:]
        assert [str(value) for value in table.values()] == line.split("\t")[1:]


def test_the_cot_prompt_quotes_the_first_turn_last():
    item = {"context": "long", "question": "Q? $COT$", "answer": "A"} | {f"choice_{c}": c for c in "ABCD"}
    assert longbench_v2.build_prompt(item, cot=True).endswith("Let’s think step by step:")
    prompt = longbench_v2.build_answer_prompt(item, "because $Q$")
    assert "Q? because $Q$\nChoices" in prompt and "step by step: because $Q$\n\nBased on" in prompt
    assert "long" in longbench_v2.build_prompt(item) and "<text>" not in prompt


def test_retrieved_chunks_stand_in_the_order_of_the_text():
    item = {"context": "unused", "question": "Q?"} | {f"choice_{c}": c for c in "ABCD"}
    item["retrieved_context"] = [{"content": c, "c_idx": i} for c, i in (("late", 9), ("early", 1), ("cut", 0))]
    prompt = longbench_v2.build_prompt(item, cot=True, no_context=True, rag=2)
    assert "<text>\nRetrieved chunk 1: early\n\nRetrieved chunk 2: late\n</text>" in prompt


@pytest.mark.parametrize("case", cases("infinitebench_truncation"), ids=lambda c: f"{c['n']}-{c['max_length']}")
def test_infinitebench_truncation(case):
    ids = range(case["n"])
    assert list(keep_ends(ids, case["max_length"])) == case["official_eval_utils"]
    assert list(keep_equal_ends(ids, case["max_length"])) == case["official_eval_yi_200k"]


def test_a_prompt_that_fits_is_decoded_again_only_where_the_official_script_does():
    tokenizer = byte_tokenizer()
    tokenizer.decode, decoded = lambda ids, **kwargs: f"decoded {len(ids)}", 4
    assert truncate_prompt("abcd", tokenizer, decoded) == ("abcd", False)
    assert truncate_prompt("abcd", tokenizer, decoded, always_decode=True) == ("decoded 4", False)
    assert truncate_prompt("abcde", tokenizer, decoded) == ("decoded 4", True)


@pytest.mark.parametrize("case", cases("infinitebench_prompts", lambda case: case["task"] != "get_answer"))
def test_infinitebench_prompt(case):
    args = case["example"], case["task"], case["model_name"]
    if case["official_error"]:
        with pytest.raises(KeyError):
            infinitebench.build_prompt(*args)
    else:
        assert infinitebench.build_prompt(*args) == case["official_prompt"]
    assert infinitebench.get_answer(*args[:2]) == case["official_get_answer"]


@pytest.mark.parametrize("case", cases("infinitebench_prompts", lambda case: case["task"] == "get_answer"))
def test_infinitebench_gold_of_multiple_choice(case):
    if case["official_error"]:
        with pytest.raises(ValueError):
            infinitebench.get_answer(case, "longbook_choice_eng")
    else:
        assert infinitebench.get_answer(case, "longbook_choice_eng") == case["official_get_answer"]


@pytest.mark.parametrize("case", cases("infinitebench_normalize"), ids=lambda case: case["text"])
def test_infinitebench_normalisation(case):
    assert infinitebench.normalize_answer(case["text"]) == case["official_normalize_answer"]
    assert infinitebench.normalize_zh_answer(case["text"]) == case["official_normalize_zh_answer"]


@pytest.mark.parametrize("name", ["infinitebench_scoring", "infinitebench_published_samples"])
def test_infinitebench_scores(name):
    for case in cases(name):
        score = infinitebench.score(case["task"], case["prediction"], case["references"])
        assert score == pytest.approx(case["official_score"], abs=1e-12), case


@pytest.mark.parametrize(
    ("task", "prediction", "label", "score"),
    [
        ("kv_retrieval", '{"7f-3": "a1-b2"}.', "a1-b2", 1.0),
        ("kv_retrieval", "a1-b2", ["a1-b2"], 0.0),  # a list is no word
        ("kv_retrieval", "xa1-b2", "a1-b2", 0.0),
        ("longdialogue_qa_eng", "It was Ann:\nsurely!", ["ANN"], 1.0),
        ("longdialogue_qa_eng", "ANN", ["Ann"], 0.0),
        ("longdialogue_qa_eng", "DR. NO", ["DR. NO"], 0.0),  # words only
    ],
)
def test_predictions_of_two_more_tasks_can_be_scored(task, prediction, label, score):
    assert infinitebench.score(task, prediction, label) == score


@pytest.mark.parametrize("answer", [None, [], ["Ada", "Bo"], ["Ada", "B", "A"], "B"])
def test_an_answer_that_is_no_single_option_is_named(answer):
    with pytest.raises(ValueError, match="is not exactly one of the options"):
        infinitebench.get_answer({"answer": answer, "options": ["Ada", "Bo"]}, "longbook_choice_eng")


def test_only_ascii_digits_make_a_key():
    """No recorded case tells `[^0-9]`, which the official code splits by, from any Unicode digit."""
    assert infinitebench.score("passkey", "３) 71432", ["71432"]) == 1.0
