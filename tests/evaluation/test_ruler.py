"""RULER's samples: length, content, and that the same seed gives the same data."""

import os
import random
import subprocess
import sys
from collections import Counter

import pytest

from helpers.ruler import NEEDLE, check_sample, digest, main_text, make_tokenizer, samples
from longact_trl.evaluation.ruler import TASKS, Sources, make_samples, render
from longact_trl.evaluation.ruler.niah import hide_in_essay


LENGTHS = (4096, 16384, 65536, 131072)


@pytest.fixture(params=["smollm2", "bpe"])
def tokenizer(request) -> str:
    return request.param


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("task", TASKS)
def test_samples_fill_their_length_and_can_be_solved(tokenizer, task, length):
    (row,) = samples(tokenizer, task, length)
    check_sample(row, tokenizer)
    assert length * 0.97 <= row["length"] <= length


@pytest.mark.parametrize("length", [1024, 2048])
@pytest.mark.parametrize("task", TASKS)
def test_short_samples_too(task, length):
    for row in samples("smollm2", task, length, 5):
        check_sample(row, "smollm2")
        assert length * 0.9 <= row["length"] <= length


def test_the_prompt_is_the_chat_template_and_then_the_prefix():
    chat, plain = make_tokenizer("smollm2"), make_tokenizer("bpe")
    prompt = render(chat, "a question", " Answer:")
    assert prompt.endswith("<|im_start|>user\na question<|im_end|>\n<|im_start|>assistant\n Answer:")
    assert render(plain, "a question", " Answer:") == "a question Answer:"


def test_the_same_seed_gives_the_same_data_in_any_process():
    code = "import helpers.ruler as c, sys; print('lm_eval' in sys.modules, *map(c.digest, c.TASKS))"
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    # and the harness is not needed for it
    assert done.stdout.split() == ["False", *(digest(task) for task in TASKS)]


@pytest.mark.parametrize("task", TASKS)
def test_samples_differ_and_do_not_depend_on_their_number(task):
    rows = samples("smollm2", task, 1024, 5)
    assert len({row["input"] for row in rows}) == len({str(row["outputs"]) for row in rows}) == 5
    assert rows[:2] == make_samples(task, make_tokenizer("smollm2"), 1024, 2, sources=Sources.stand_ins())
    # Names and numbers are of the index, not of the length: samples of all lengths can be compared.
    if task != "fwe":
        assert samples("smollm2", task, 2048, 5)[4]["outputs"] == rows[4]["outputs"]
    if not task.startswith("qa"):
        assert digest(task, seed=1) != digest(task)


def test_needles_stand_everywhere():
    """200 samples: each fifth of the haystack has its share, and both ends occur in the essay."""
    places = [hide_in_essay(random.Random(i), ["x"] * 1000, ["needle"]) for i in range(200)]
    shares = [len(pieces[0].split()) / 1000 for pieces in places]
    assert min(shares) == 0 and max(shares) == 1
    noise = make_samples("niah_single_1", make_tokenizer("bpe"), 1024, 200)
    lines = [main_text(row).split("\n") for row in noise]
    depths = [next(i for i, line in enumerate(text) if NEEDLE.match(line)) / len(text) for text in lines]
    for found in (shares, depths):
        fifths = Counter(min(int(depth * 5), 4) for depth in found)
        assert min(fifths.values()) >= 20 and len(fifths) == 5


@pytest.mark.parametrize("window, longest", [(None, 4096), (4500, 3500)])
def test_reasoning_gets_its_own_budget_and_no_prefix(window, longest):
    """On top of the length, as far as the window goes: at 4k, 4,096 tokens of thinking would leave no prompt."""
    (row,) = make_samples("vt", make_tokenizer("smollm2"), 4096, 1, reasoning_tokens=1000, window=window)
    assert row["answer_prefix"] == "" and row["max_new_tokens"] == 1030
    prompt = render(make_tokenizer("smollm2"), row["input"], "")
    length = len(make_tokenizer("smollm2").tokenize(prompt))
    assert 0.97 * longest <= length + 30 <= longest and length + 1030 == row["length"]
