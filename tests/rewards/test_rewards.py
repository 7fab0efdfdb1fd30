import functools
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trl.trainer.utils import get_callable_name

from helpers.answers import chat, tagged
from longact_trl.rewards.answers import answer_matches
from longact_trl.rewards.tagged import answer_reward, format_reward, prefills_think


EVERYTHING = list(HealthCheck)
FUZZ = settings(deadline=None, database=None, derandomize=True, suppress_health_check=EVERYTHING)
"""The same on every run, however busy the machine."""
FORMAT_CASES = [  # completion, loose, strict
    (tagged("Paris"), 1, 1),
    (f"\n {tagged('Paris')} \n", 1, 1),
    (tagged("Paris", think=""), 1, 1),
    (tagged(" \n"), 1, 0),
    (tagged("Paris") + " Good bye.", 1, 0),
    ("Well. " + tagged("Paris"), 1, 0),
    ("<think>a</think> so <answer>b</answer>", 1, 0),
    (tagged("Paris") + tagged("Paris"), 1, 0),
    (tagged("a<answer>b</answer>"), 1, 0),
    ("<answer>a</answer><think>b</think>", 1, 0),
    ("<think>a<answer>b</answer></think>", 1, 0),
    ("</think><think><answer>b</answer>", 1, 0),
    ("<THINK>a</THINK><answer>b</answer>", 0, 0),
    ("because</think><answer>b</answer>", 0, 0),
    ("<think>a</think><answer>b", 0, 0),
    ("<think>cut off", 0, 0),
    ("", 0, 0),
]


@pytest.mark.parametrize("completion, loose, strict", FORMAT_CASES)
def test_format(completion, loose, strict):
    for shape in (completion, chat(completion)):
        assert format_reward([shape]) == [loose]
        assert format_reward([shape], strict=True, prompts=["?"], answer=[["b"]], trainer_state=None) == [strict]


def test_format_when_the_template_wrote_the_opening_tag():
    prefilled = functools.partial(format_reward, strict=True, think_prefilled=True)
    completions = ["because</think><answer>b</answer>", tagged("b"), "because <answer>b</answer>"]
    assert prefilled(completions=completions) == [1, 1, 0]


def test_trl_names_the_partial_after_the_reward():
    assert get_callable_name(functools.partial(format_reward, strict=True)) == "format_reward"


def test_reasoning_that_trl_split_off_counts_as_tagged():
    message = {"role": "assistant", "reasoning_content": "because", "content": "<answer>Paris</answer>"}
    assert format_reward([[message]], strict=True) == [1]
    assert answer_reward([[message]], answer=[["Paris"]]) == [1]


def test_only_the_assistant_can_answer():
    tool_turn = chat("<think>a</think>") + [{"role": "tool", "content": tagged("Paris")}]
    assert answer_reward([tool_turn, []], answer=[["Paris"]] * 2) == [0, 0]


@pytest.mark.parametrize(
    "completion, expected",
    [
        ("because</think><answer>Paris</answer>", 1),
        (tagged("London", think="<answer>Paris</answer>"), 0),
        (tagged("Paris", think="I close with </think> and put London in <answer>"), 1),
        ("<answer>Paris</answer>", 0),
        ("<answer>Paris</answer><think>b</think>", 0),
        ("<think>a</think>Paris", 0),
        ("<think>a</think><answer>Paris", 0),
        ("<think>a</think><answer>Paris</answer><answer>London</answer>", 0),
        ("<think>a</think><answer>London</answer><answer>Paris</answer>", 0),
        ("<think>a</think><answer>London<answer>Paris</answer></answer>", 0),
        (tagged(""), 0),
    ],
)
def test_answer_is_read_from_the_one_answer_after_thinking(completion, expected):
    assert answer_reward([completion], answer=[["Paris"]]) == [expected]


item = st.text(st.characters(codec="utf-8", exclude_characters="<>"), min_size=1, max_size=40).filter(str.strip)
plain_item = st.from_regex(r"[a-zA-Z0-9一-龥'-]{1,9}( [a-zA-Z0-9一-龥'-]{1,9}){0,3}", fullmatch=True)
numbers = st.one_of(
    st.integers(-(10**12), 10**12).map(str),
    st.integers(-(10**9), 10**9).map("{:,}".format),
    st.floats(-1e9, 1e9).map(repr),
    st.floats(-1e3, 1e3).map("{:.2f}%".format),
)
golds_by_kind = st.one_of(
    st.tuples(st.just("string"), st.lists(item, min_size=1, max_size=4)),
    st.tuples(st.just("choice"), st.lists(st.sampled_from([*"ABCDEFxyz", "(A)", "B."]), min_size=1, max_size=2)),
    st.tuples(st.just("number"), st.lists(numbers, min_size=1, max_size=3)),
    st.tuples(st.just("yes_no"), st.sampled_from([["yes"], ["No"], ["是"]])),
)


@FUZZ
@given(golds_by_kind)
def test_every_gold_scores_by_its_own_reward(kind_and_golds):
    kind, golds = kind_and_golds
    completions = [tagged(gold) for gold in golds]
    rewards = answer_reward(completions, answer=[golds] * len(golds), answer_kind=[kind] * len(golds))
    assert rewards == [1.0] * len(golds)


@FUZZ
@given(st.lists(plain_item, min_size=1, max_size=5), st.randoms())
def test_every_gold_list_scores_in_any_order_and_no_part_of_it_does(golds, random):
    shuffled = random.sample(golds, len(golds))
    assert answer_matches("\n".join(shuffled), golds, "list")
    assert not answer_matches("\n".join(shuffled[1:]), golds, "list")
    assert not answer_matches("\n".join([*shuffled, shuffled[0]]), golds, "list")


@FUZZ
@given(st.text(max_size=60), golds_by_kind)
def test_no_text_makes_a_reward_fail(text, kind_and_golds):
    kind, golds = kind_and_golds
    assert answer_reward([text, tagged(text)], answer=[golds] * 2, answer_kind=[kind] * 2)[0] in (0.0, 1.0)


@pytest.mark.parametrize(
    "completion",
    [
        "<think>" * 150_000,
        "<answer>" * 130_000 + "</answer>" * 10,
        "<think></think>" + "<answer>" * 10_000 + "Paris" + "</answer>" * 10_000,
        "<think></think><answer>" + " a" * 500_000 + "</answer>",
        "<think></think><answer>" + "1" * 1_000_000 + "</answer>",
        "<think></think>" + " " * 1_000_000,
        "<think></think><answer>" + "1," * 500_000 + "</answer>",
        "</think><answer>" * 60_000,
        tagged("Paris", think="x" * 1_000_000),
    ],
    ids=range(9),
)
def test_a_megabyte_is_scored_in_linear_time(completion):
    kinds = ["choice", "number", "string", "list", "yes_no"]
    golds = [["A"], ["1"], ["Paris"], ["1", "a"], ["yes"]]
    start = time.process_time()
    format_reward([completion] * 5, strict=True)
    answer_reward([completion] * 5, answer=golds, answer_kind=kinds)
    # Measured: under 30 ms. A quadratic scan of 1 MB takes minutes, so the limit may be far above the noise.
    assert time.process_time() - start < 2


def test_a_long_gold_is_matched_in_linear_time():
    gold = "word " * 100_000
    start = time.process_time()
    assert answer_matches(gold.upper(), [gold])
    assert not answer_matches(gold + "other", [gold])
    assert time.process_time() - start < 10  # measured: under 1 s


def test_a_bare_string_and_missing_kinds_are_accepted():
    completions = [tagged("Paris"), tagged("Rome")]
    assert answer_reward(completions, answer=["Paris", ["Rome"]]) == [1, 1]
    assert answer_reward(completions, answer=["Paris", ["Rome"]], answer_kind=[None, "string"]) == [1, 1]


@pytest.mark.parametrize(
    "columns, message",
    [
        ({"answer": [["a"], ["b"]]}, r"answer must be a list of 1 entries.*\[\['a'\], \['b'\]\]"),
        ({"answer": "a"}, "answer must be a list of 1 entries"),
        ({"answer": [["a"]], "answer_kind": ["string"] * 3}, "answer_kind must be a list of 1 entries"),
        ({"answer": [["a"]], "answer_kind": "string"}, "answer_kind must be a list"),
        ({"answer": [["a"]], "answer_kind": ["text"]}, "choice, number, string, list, yes_no, but is 'text'"),
        ({"answer": [[]]}, r"answer must be a list of strings, none of them empty, but is \[\]"),
        ({"answer": [None]}, "but is None"),
        ({"answer": [[" "]]}, "none of them empty"),
        ({"answer": [[5]], "answer_kind": ["number"]}, "list of strings"),
        ({"answer": [["Paris"]], "answer_kind": ["choice"]}, "'Paris' is no choice"),
        ({"answer": [["5", "many"]], "answer_kind": ["number"]}, "'many' is no number"),
        ({"answer": [["a\nb", "c"]], "answer_kind": ["list"]}, "must stand on one line"),
        ({"answer": [["maybe"]], "answer_kind": ["yes_no"]}, "'maybe' is no yes_no"),
    ],
)
def test_bad_columns_are_named_whatever_the_completion(columns, message):
    for completion in ("", tagged("a"), tagged("x" * 10_000)):
        with pytest.raises(ValueError, match=message):
            answer_reward([completion], **columns)


class Template:
    def __init__(self, ending):
        self.chat_template = ending

    def apply_chat_template(self, messages, tokenize, add_generation_prompt, enable_thinking=True):
        return (
            f"<|user|>{messages[0]['content']}<|assistant|>"
            + ("" if enable_thinking else "<think>\n\n</think>\n\n")
            + (self.chat_template)
        )


@pytest.mark.parametrize("ending, expected", [("", False), ("<think>\n", True), ("<think>", True), (None, False)])
def test_prefilled_think_is_seen_in_the_generation_prompt(ending, expected):
    assert prefills_think(Template(ending)) is expected


def test_a_template_that_closes_thinking_is_rejected():
    with pytest.raises(ValueError, match="enable_thinking"):
        prefills_think(Template(""), enable_thinking=False)
