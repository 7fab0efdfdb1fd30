"""Where RULER's texts come from: files as published, datasets with the Hub's columns, and clear messages."""

import json
import re

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from helpers.ruler import NEEDLE, check_cwe, main_text, make_tokenizer
from longact_trl.evaluation.ruler import Sources, make_samples
from longact_trl.evaluation.ruler.sources import load_hotpotqa, load_squad


SQUAD = {
    "data": [
        {
            "title": "One",
            "paragraphs": [
                {
                    "context": "Paragraph b.",
                    "qas": [
                        {"question": "Q1?", "is_impossible": False, "answers": [{"text": "b"}, {"text": "b"}]},
                        {"question": "Q2?", "is_impossible": True, "answers": []},
                    ],
                },
                {"context": "Paragraph a.", "qas": [{"question": "Q3?", "is_impossible": True, "answers": []}]},
            ],
        },
        {
            "title": "Two",
            "paragraphs": [
                {
                    "context": "Paragraph c.",
                    "qas": [{"question": "Q4?", "is_impossible": False, "answers": [{"text": "c"}]}],
                }
            ],
        },
    ]
}
HOTPOTQA = [
    {
        "question": f"Q{i}?",
        "answer": f"answer {i}",
        "context": [[f"T{j}", [f"Sentence {j}.", " More."]] for j in (i + 1, i, i + 2)],
        "supporting_facts": [[f"T{i}", 0], [f"T{i + 2}", 1], [f"T{i}", 1]],
    }
    for i in range(3)
]


def test_squad_from_its_file_and_from_a_dataset(tmp_path):
    (tmp_path / "dev-v2.0.json").write_text(json.dumps(SQUAD))
    corpus = load_squad(str(tmp_path / "dev-v2.0.json"))
    assert corpus.documents == ["Paragraph a.", "Paragraph b.", "Paragraph c."] and corpus.label == "squad"
    assert [tuple(question) for question in corpus.questions] == [
        ("Q1?", ["b", "b"], [1], {1}, [0]),
        ("Q4?", ["c"], [2], {2}, []),
    ]
    rows = [
        {"title": a["title"], "context": p["context"], "question": q["question"]}
        | {"answers": {"text": [x["text"] for x in q["answers"]], "answer_start": [0] * len(q["answers"])}}
        for a in SQUAD["data"]
        for p in a["paragraphs"]
        for q in p["qas"]
    ]
    folder = tmp_path / "squad_v2"
    folder.mkdir()
    (folder / "validation.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert load_squad(str(folder)) == corpus


def test_hotpotqa_from_its_file_and_from_a_dataset(tmp_path):
    (tmp_path / "hotpot.json").write_text(json.dumps(HOTPOTQA))
    corpus = load_hotpotqa(str(tmp_path / "hotpot.json"))
    assert corpus.documents == [f"T{j}\nSentence {j}. More." for j in range(5)]
    assert tuple(corpus.questions[1]) == ("Q1?", ["answer 1"], [2, 1, 3], {1, 3}, [])
    rows = [
        {"question": row["question"], "answer": row["answer"]}
        | {"context": dict(zip(("title", "sentences"), zip(*row["context"], strict=True), strict=True))}
        | {
            "supporting_facts": dict(
                zip(("title", "sent_id"), zip(*row["supporting_facts"], strict=True), strict=True)
            )
        }
        for row in HOTPOTQA
    ]
    folder = tmp_path / "hotpot_qa"
    folder.mkdir()
    (folder / "validation.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (folder / "README.md").write_text(
        "---\nconfigs:\n- config_name: distractor\n  data_files: [{split: validation, path: validation.jsonl}]\n---\n"
    )
    assert load_hotpotqa(str(folder)) == corpus


def test_essays_from_a_json_file_and_from_a_folder(tmp_path):
    (tmp_path / "b.txt").write_text('"Two?" he said.\nIt was 3.5 miles (or so). Then')
    (tmp_path / "a.txt").write_text("One.\n\n")
    (tmp_path / "essays.json").write_text(
        json.dumps({"text": 'One.\n\n"Two?" he said.\nIt was 3.5 miles (or so). Then'})
    )
    expected = ["One.", '"Two?" he said.', "It was 3.5 miles (or so).", "Then"]
    for where in (tmp_path, tmp_path / "essays.json"):
        assert Sources(essays=str(where)).load("essays").sentences == expected


@pytest.mark.parametrize(
    "task, length, kwargs, message",
    [
        ("niah", 4096, {}, "niah_single_1, niah_single_2"),
        ("niah_single_2", 4096, {}, r"pass Sources\(essays=…\) with PaulGrahamEssays.json"),
        ("qa_1", 4096, {}, r"pass Sources\(squad=…\) with SQuAD's dev-v2.0.json"),
        ("qa_2", 4096, {"sources": Sources(hotpotqa="no/such")}, "hotpotqa='no/such' cannot be read"),
        ("niah_single_3", 4096, {"sources": Sources(essays="no/such.json")}, "essays='no/such.json' cannot be read"),
        ("cwe", 512, {}, "max_seq_length=512 is too short for cwe: the shortest sample has"),
        ("qa_1", 4096, {"num_samples": 2401, "sources": Sources.stand_ins()}, "2400 questions: num_samples=2401"),
        ("vt", 4096, {"num_samples": 0}, "num_samples=0"),
    ],
)
def test_mistakes_say_what_to_write_instead(task, length, kwargs, message):
    with pytest.raises(ValueError, match=message):
        make_samples(task, make_tokenizer("bpe"), length, **{"num_samples": 1, **kwargs})


def test_a_longer_word_list_is_used_where_wonderwords_ends(tmp_path):
    """A tokenizer with a token a word, as if for a longer length."""
    vocabulary = {"[UNK]": 0}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]")
    (row,) = make_samples("cwe", words, 60_000, 1)
    assert row["haystack"] == "english words (stand-in)"
    (tmp_path / "english_words.json").write_text(json.dumps({str(i): f"word{i}" for i in range(12_000)}))
    (row,) = make_samples("cwe", words, 60_000, 1, sources=Sources(english_words=str(tmp_path / "english_words.json")))
    assert row["haystack"] == "english words" and row["outputs"][0].startswith("word")
    check_cwe(row)


def test_the_essay_goes_round_when_it_is_too_short(tmp_path):
    text = "First of all. " + " ".join(f"Sentence number {i} is here." for i in range(30))
    (tmp_path / "essay.txt").write_text(text)
    sources = Sources(essays=str(tmp_path / "essay.txt"))
    (row,) = make_samples("niah_single_2", make_tokenizer("bpe"), 2048, 1, sources=sources)
    assert row["haystack"] == "essay"
    without = " ".join(re.sub(NEEDLE.pattern, "", main_text(row)).split())
    assert ((text + " ") * 20).startswith(without) and len(without) > 2 * len(text)
