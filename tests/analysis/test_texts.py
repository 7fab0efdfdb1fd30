import pytest
import torch

from helpers.models import make_tokenizer
from longact_trl.analysis.options import FACTS, NEEDLES, parse_length
from longact_trl.analysis.questions import benchmark_texts, make_questions, share_contained
from longact_trl.analysis.texts import BUILT_IN, built_in_texts, file_texts
from longact_trl.models.reading import load_tokenizer
from longact_trl.quickstart import MODEL


@pytest.mark.parametrize("length", [100, 3000])
def test_three_kinds_of_text_of_the_length_asked_for(tokenizer, length):
    texts = built_in_texts(tokenizer, length)  # one token a byte
    assert list(texts) == list(BUILT_IN) == ["prose", "code", "facts"]
    assert {len(ids) for ids in texts.values()} == {length}
    assert len({tuple(ids.tolist()) for ids in texts.values()}) == 3
    assert all(torch.equal(ids, built_in_texts(tokenizer, length)[name]) for name, ids in texts.items())


def test_the_prose_alone_fills_64k_tokens_of_a_common_tokenizer():
    assert sum(map(len, BUILT_IN["prose"]())) > 4 * 65_536  # characters a token
    assert sum(map(len, BUILT_IN["code"]())) > 4 * 65_536


def test_texts_whose_words_the_tokenizer_does_not_know_are_left_out():
    assert list(built_in_texts(load_tokenizer(str(MODEL)), 200)) == ["facts"]


def test_files(tokenizer, tmp_path):
    (tmp_path / "story.txt").write_text("It was late. " * 9)
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "binary.bin").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "story.md").write_text("Another one.")
    files = {path.name: path for path in tmp_path.iterdir()}
    texts = file_texts(tokenizer, [files["story.txt"]], 20)
    assert tokenizer.decode(texts["story"]) == "It was late. It was "
    with pytest.raises(ValueError, match="'.*empty.txt' holds 0 tokens"):
        file_texts(tokenizer, [files["empty.txt"]], None)
    with pytest.raises(ValueError, match="Cannot read '.*binary.bin' as UTF-8"):
        file_texts(tokenizer, [files["binary.bin"]], None)
    with pytest.raises(ValueError, match="Two texts are called 'story'"):
        file_texts(tokenizer, [files["story.txt"], files["story.md"]], None)


@pytest.mark.parametrize("text, tokens", [("4096", 4096), ("4k", 4096), ("64K", 65_536)])
def test_lengths(text, tokens):
    assert parse_length(text) == tokens


@pytest.mark.parametrize("text", ["0", "", "k", "-4k", "4.5k", "4m"])
def test_lengths_that_are_none(text):
    with pytest.raises(ValueError, match="Cannot read a length"):
        parse_length(text)


@pytest.mark.parametrize(
    "completion, share",
    [
        ("The number is 17, not 35.", 1.0),
        ("17.", 0.5),
        ("1777777 and 3535", 0.0),
        ("it is 17 17 17", 0.5),
        ("", 0.0),
    ],
)
def test_answers_count_as_whole_words(completion, share):
    assert share_contained(["17", "35"], completion) == share


def test_a_needle_question_has_one_answer_that_stands_in_it(tokenizer):
    questions = make_questions(NEEDLES, tokenizer, 30, 0)
    for question in questions:
        key = question.text.removesuffix("?").rpartition(" ")[2]
        assert f"The magic number of the {key} is {question.answers[0]}." in question.text
        assert question.text.count("The magic number of the") == 4
        assert question.score(f"It is {question.answers[0]}.") == 1.0
        assert question.text in tokenizer.decode(question.input_ids)
    again = make_questions(NEEDLES, tokenizer, 30, 0)
    assert [q.text for q in again] == [q.text for q in questions]
    assert [q.text for q in make_questions(NEEDLES, tokenizer, 30, 0, seed=1)] != [q.text for q in questions]


def test_a_template_that_writes_todays_date_writes_the_same_on_any_day():
    tokenizer = load_tokenizer(str(MODEL))
    tokenizer.chat_template = "{{ strftime_now('%y') }} " + tokenizer.chat_template
    [question] = make_questions(FACTS, tokenizer, 1, 0)
    assert tokenizer.decode(question.input_ids).startswith("25 ")


def test_prompts_as_texts():
    texts = benchmark_texts(load_tokenizer(str(MODEL)), FACTS, 0)
    assert list(texts) == ["facts 1", "facts 2"]
    assert all(ids.dtype == torch.long and ids.dim() == 1 for ids in texts.values())


def test_ruler(tokenizer):
    [question] = make_questions("ruler/niah_single_1", tokenizer, 1, 4000)
    assert 3000 < len(question.input_ids) + question.max_new_tokens <= 4000  # one token a byte
    assert question.score(f"It is {question.answers[0]}") == 1.0 and question.score("No idea") == 0.0
    assert question.text in tokenizer.decode(question.input_ids)
    assert list(benchmark_texts(tokenizer, "ruler/niah_single_1", 4000)) == [
        f"ruler/niah_single_1 {n}" for n in (1, 2)
    ]
    with pytest.raises(ValueError, match="RULER has no task 'ruler/niah'. Write one of ruler/niah_single_1"):
        make_questions("ruler/niah", tokenizer, 1, 4000)


def test_a_tokenizer_without_padding(tmp_path):
    tokenizer = make_tokenizer()
    tokenizer.pad_token = None
    tokenizer.save_pretrained(tmp_path)
    assert load_tokenizer(str(tmp_path)).pad_token == tokenizer.eos_token
