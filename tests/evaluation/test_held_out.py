import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from longact_trl.data.tiny_tasks import make_dataset
from longact_trl.evaluation.held_out import accuracy_by_task, answers_right
from longact_trl.evaluation.statistics import paired_difference, wilson_interval
from longact_trl.quickstart import MODEL


@pytest.mark.parametrize(
    "num_right, total, low, high",
    [(0, 10, 0.0, 0.2775), (5, 10, 0.2366, 0.7634), (10, 10, 0.7225, 1.0), (81, 263, 0.2553, 0.3662)],
)
def test_wilson_interval_against_published_values(num_right, total, low, high):
    interval = wilson_interval(num_right, total)
    assert interval == pytest.approx((num_right / total, low, high), abs=1e-4)  # 81 of 263: Newcombe 1998, Table I
    assert 0 <= interval.low and interval.high <= 1


def test_no_answers():
    with pytest.raises(ValueError, match="at least one answer"):
        wilson_interval(0, 0)


def test_accuracy_by_task():
    accuracy = accuracy_by_task([True, False, True, True], ["hops", "needle", "hops", "needle"])
    assert {task: interval.value for task, interval in accuracy.items()} == {"all": 0.75, "hops": 1.0, "needle": 0.5}
    assert str(accuracy["all"]) == "75 % (30–95)"


def test_paired_difference_is_over_prompts():
    before = [True] * 60 + [False] * 40
    after = [True] * 58 + [False] * 2 + [True] * 12 + [False] * 28  # 12 gained, 2 lost
    gain = paired_difference(before, after)
    assert gain.value == pytest.approx(0.1)
    standard_error = ((14 - 100 * 0.1**2) / 100 / 100) ** 0.5
    assert gain.low == pytest.approx(0.1 - 1.96 * standard_error, abs=0.011)  # a resample moves by steps of 0.01
    assert gain.high == pytest.approx(0.1 + 1.96 * standard_error, abs=0.011)
    assert paired_difference(before, before) == (0, 0, 0)
    assert paired_difference(after, before).value == pytest.approx(-0.1)


def test_answers_stay_with_their_prompts():
    model, tokenizer = (
        AutoModelForCausalLM.from_pretrained(MODEL, dtype="float32"),
        AutoTokenizer.from_pretrained(MODEL),
    )
    rows = make_dataset(24, seed=5, split="test")
    one_by_one = answers_right(model, tokenizer, rows, max_new_tokens=40, batch_size=1)
    assert answers_right(model, tokenizer, rows, max_new_tokens=40, batch_size=7) == one_by_one
    assert 4 < sum(one_by_one) < 24
    wrong = rows.map(lambda row: {"answer": ["1"] * len(row["answer"])})
    assert not any(answers_right(model, tokenizer, wrong, max_new_tokens=40))
