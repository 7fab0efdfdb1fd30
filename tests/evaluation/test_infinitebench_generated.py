"""InfiniteBench's generated tasks against their description."""

import random

import pytest

from longact_trl.evaluation.protocols.infinitebench_generated import NOISE, make_sample, make_samples


@pytest.mark.parametrize("task, digits", [("passkey", 5), ("number_string", 10)])
def test_the_official_590_rows(task, digits):
    rows = make_samples(task)
    assert [row["id"] for row in rows] == list(range(590))
    name = "pass key" if task == "passkey" else "sequence of digits"
    for i, row in enumerate(rows):
        (key,) = row["answer"]
        assert len(key) == digits and key.isdigit() and row["input"] == f"What is the {name}?"
        before, line, after = row["context"].partition(f"The {name} is {key}. Remember it. {key} is the {name}.\n")
        place = i // 10 * 90
        assert line and before == NOISE * place and after == NOISE * (5220 - place)
        assert row["len"] == 26 * (5220 - place)
    assert rows == make_samples(task) != make_samples(task, seed=1)
    assert len({row["answer"][0] for row in rows}) > 570


def test_digits_are_doubled_where_they_stand():
    """Runs of a digit can only be longer than in the five random ones: at least five neighbours are equal."""
    for i in range(300):
        (key,) = make_sample(random.Random(i), "number_string", 0, 0)["answer"]
        assert sum(a == b for a, b in zip(key, key[1:], strict=False)) >= 5
    starts = {make_sample(random.Random(i), "number_string", 0, 0)["answer"][0][:2] for i in range(300)}
    assert any(a == b for a, b in starts) and any(a != b for a, b in starts)


@pytest.mark.parametrize("kwargs", [{"task": "kv_retrieval"}, {"task": "passkey", "step": 0}])
def test_mistakes_are_named(kwargs):
    with pytest.raises(ValueError, match=str([*kwargs.values()][-1])):
        make_samples(**kwargs)
