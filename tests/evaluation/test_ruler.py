"""RULER's metrics against the official code's scores, and its samples against brute force."""

import hashlib
import json
import os
import re
import subprocess
import sys
from collections import Counter
from functools import cache, partial
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from longact_trl.evaluation.ruler import TASKS, Sources, make_samples, postprocess, render, score, score_batch
from longact_trl.evaluation.ruler.niah import hide_in_essay
from longact_trl.evaluation.ruler.sources import load_hotpotqa, load_squad, split_sentences
from longact_trl.evaluation.ruler.stand_in_prose import essay_sentences
from longact_trl.evaluation.ruler.words import all_words


ROOT = Path(__file__).parents[2]
CASES = ROOT / "tests" / "fixtures" / "protocols"
LENGTHS = (4096, 16384, 65536, 131072)
BUDGETS = {**dict.fromkeys(TASKS[:8], 128), "vt": 30, "cwe": 120, "fwe": 50, "qa_1": 32, "qa_2": 32}
NOISE = "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again."
NEEDLE = re.compile(r"One of the special magic (?:numbers|uuids) for (\S+) is: (\S+)\.(?= |\n|$)")
ESSAY_TASKS = [
    task for task in TASKS if task.startswith("niah") and task[5:] not in ("single_1", "multikey_2", "multikey_3")
]


def cases(name: str) -> list[dict]:
    return json.loads((CASES / name).read_text(encoding="utf-8"))


# Metrics


@pytest.mark.parametrize("case", cases("ruler_metrics.json"))
def test_one_prediction_scores_as_officially(case):
    assert postprocess(case["prediction"]) == case["official_postprocessed"]
    assert round(score(case["task"], case["prediction"], case["references"]) * 100, 2) == case["official_score"]
    assert score_batch(case["task"], [case["prediction"]], [case["references"]]) == case["official_score"]


@pytest.mark.parametrize("case", cases("ruler_metrics_batch.json"))
def test_a_task_scores_as_officially(case):
    scored = partial(score_batch, case["task"], case["predictions"], case["references"])
    if case["official_error"]:
        with pytest.raises(ZeroDivisionError):
            scored()
    else:
        assert scored() == case["official_score"]


def test_what_evaluate_py_does_at_the_edges():
    assert score_batch("vt", ["None", "x"], [[None], ["x"]]) == 0.0
    with pytest.raises(ZeroDivisionError):
        score("vt", "x", [])
    with pytest.raises(ValueError, match="empty"):
        score("qa_1", "x", [])
    # Each control character becomes a newline, so two do not join what stands around them, and none is lost.
    assert postprocess(" \x00a\x1fb\t\r\nc\x7f \x01") == "a\nb\n\n\nc\x7f"


# Tokenizers: SmolLM2's byte-level BPE with its chat template, and a BPE like Llama's without one that adds a token.


@cache
def make_tokenizer(name: str):
    if name == "smollm2":
        sys.path.insert(0, str(ROOT / "benchmarks"))
        from smollm2 import smollm2_135m

        return AutoTokenizer.from_pretrained(smollm2_135m())
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    alphabet = [chr(code) for code in range(32, 127)] + ["\n"]
    trainer = trainers.BpeTrainer(
        vocab_size=3000, special_tokens=["<unk>", "<s>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([*essay_sentences()[:1000], *all_words()], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>")


@cache
def samples(tokenizer: str, task: str, length: int, count: int = 1) -> list[dict]:
    return make_samples(task, make_tokenizer(tokenizer), length, count, sources=Sources.stand_ins())


@pytest.fixture(params=["smollm2", "bpe"])
def tokenizer(request) -> str:
    return request.param


# What a sample is


def main_text(row: dict) -> str:
    """The question's own context, without what comes before the haystack, after it, or in a solved example."""
    if row["task"] == "vt":
        return row["input"].split("Memorize and track")[2].split("\n\n", 1)[1].rsplit("\nQuestion", 1)[0]
    if row["task"] == "cwe":
        return row["input"].split("Below is a numbered")[2].split("\n", 1)[1].rsplit("\nQuestion", 1)[0]
    if row["task"] == "fwe":
        return row["input"].split("coded words. ", 1)[1].rsplit("\nQuestion", 1)[0]
    if row["task"].startswith("qa"):
        return row["input"].split("given documents.\n\n", 2)[2].rsplit("\n\nAnswer the question", 1)[0]
    return row["input"].split("\n", 1)[1].rsplit("\n", 1)[0]


def check_niah(row: dict) -> None:
    context, task = main_text(row), row["task"]
    needles = NEEDLE.findall(context)
    one = len(row["outputs"]) == 1
    kind = "uuid" if task in ("niah_single_3", "niah_multikey_3") else "number"
    beginning = f"A special magic {kind} is" if one else f"Some special magic {kind}s are"
    assert row["input"].startswith(f"{beginning} hidden within the following text.")
    pattern = r"What is the .* for (.*) mentioned" if one else r"What are all the .* for (.*) mentioned"
    asked = re.search(pattern, row["input"].rsplit("\n", 1)[1]).group(1).replace("and ", "").split(", ")
    assert [value for key in asked for k, value in needles if k == key] == row["outputs"] or (
        task == "niah_multivalue" and sorted(value for k, value in needles if k in asked) == sorted(row["outputs"])
    )
    assert len(asked) == (4 if task == "niah_multiquery" else 1)
    assert len(row["outputs"]) == (4 if task in ("niah_multiquery", "niah_multivalue") else 1)
    ending = f"{', '.join(asked[:-1])}, and {asked[-1]}" if len(asked) > 1 else asked[0]
    verb = f"number for {ending} mentioned in the provided text is" if kind == "number" else f"uuid for {ending} "
    assert verb in row["answer_prefix"] if one else row["answer_prefix"].endswith("mentioned in the provided text are")
    assert row["answer_prefix"].startswith(" The special magic ")
    if row["haystack"] == "noise":
        lines = context.split("\n")
        assert len(needles) == 1 and len(lines) - 1 == lines.count(NOISE)
        assert lines[-1] == NOISE  # a needle stands before one of the lines
    elif row["haystack"] == "needle":
        assert all(NEEDLE.fullmatch(line) for line in context.split("\n"))
        assert len(needles) == context.count("\n") + 1 > 20
    else:
        assert row["haystack"] == "essay (stand-in)"
        assert len(needles) == (1 if task.startswith("niah_single") else 4)
        check_depths(context)


def check_depths(context: str) -> None:
    """Each needle stands after the first int(n · depth / 100) sentences, for one of 40 depths from 0 to 100."""
    pieces = [piece.strip() for piece in re.split(NEEDLE.pattern.replace("(\\S+)", "\\S+"), context)]
    counts = [len(split_sentences(piece)) if piece else 0 for piece in pieces]
    total = sum(counts)
    depths = [round(i * 100 / 39) for i in range(40)]
    places = {int(total * depth / 100) for depth in depths}
    reached = [sum(counts[: i + 1]) for i in range(len(pieces) - 1)]
    assert set(reached) <= places and len(set(reached)) == len(reached)
    text = " ".join(piece for piece in pieces if piece)
    essay = " ".join(essay_sentences())
    assert (essay + " " + essay).startswith(text)  # nothing of the essay is lost, doubled or moved


def check_vt(row: dict) -> None:
    lines = main_text(row).split("\n")
    assert sorted(set(lines) - {NOISE}) == sorted(line for line in lines if line != NOISE)
    value, known = re.search(r"assigned the value (\d{5}) in", row["input"].rsplit("Question", 1)[1]).group(1), {}
    for line in lines:
        if line != NOISE:
            name, source = re.fullmatch(r"VAR ([A-Z]{5}) = (?:VAR )?(\w{5}) ?", line).groups()
            known[name] = known.get(source, source)  # so each is assigned after its source
    assert [name for name, of in known.items() if of == value] == row["outputs"] and len(row["outputs"]) == 5
    assert f" 5 variables are assigned the value {value}, they are: " in row["answer_prefix"]
    example, tail = row["input"].split("Memorize and track")[1].rsplit("they are: ", 1)
    assert re.fullmatch(r" (?:[A-Z]{3} ?){5}\n\n", tail)
    assert re.findall(r"VAR ([A-Z]{3}) =", example) == tail.split()


def check_cwe(row: dict) -> None:
    short = row["length"] < 4000
    for text, answer, (often, seldom) in [
        (main_text(row), row["outputs"], (6, 1) if short else (30, 3)),
        (example_list(row), example_answer(row), (3, 1) if short else (10, 3)),
    ]:
        numbers, words = zip(*re.findall(r"(\d+)\. (.*?)(?= \d+\. |$)", text), strict=True)
        assert list(map(int, numbers)) == list(range(1, len(numbers) + 1))
        counts = Counter(words)
        assert len(answer) == 10 and {counts.pop(word) for word in answer} == {often}
        assert set(counts.values()) <= {seldom}
    assert len(set(counts)) == (10 if short else 30)  # the example's other words


def example_list(row: dict) -> str:
    return row["input"].split("Below is a numbered")[1].split("\n", 1)[1].split("\nQuestion", 1)[0]


def example_answer(row: dict) -> list[str]:
    answer = row["input"].split("Below is a numbered")[1].split("in the list are:")[1]
    return re.findall(r"\d+\. (.*?)(?= \d+\. |\n)", answer)


def check_fwe(row: dict) -> None:
    counts = Counter(main_text(row).split(" "))
    ranked = [word for word, _ in counts.most_common(5)]
    assert ranked[0] == "..." and ranked[1:4] == row["outputs"]
    assert counts[ranked[3]] > counts[ranked[4]] > 0
    first = counts["..."] * 3.14159265**2 / 6  # the number of words before rounding, to one of these
    assert counts[ranked[1]] == pytest.approx(first * 6 / 3.14159265**2 / 4, abs=1)
    assert {len(word) for word in counts} == {3, 6}


def check_qa(row: dict) -> None:
    documents = main_text(row).split("\n\n")
    assert [d.split(":\n")[0] for d in documents] == [f"Document {i}" for i in range(1, len(documents) + 1)]
    texts = [d.split(":\n", 1)[1] for d in documents]
    assert len(set(texts)) == len(texts)  # the stand-ins are long enough not to repeat
    question = row["input"].rsplit("Question: ", 1)[1]
    corpus = (load_squad if row["task"] == "qa_1" else load_hotpotqa)("stand-in")
    entry = corpus.questions[row["index"]]
    assert entry.query == question and entry.outputs == row["outputs"]
    own = {corpus.documents[d] for d in (entry.own if row["length"] > 4000 else entry.required)}
    assert own <= set(texts)
    assert any(row["outputs"][0] in corpus.documents[d] for d in entry.required)


CHECKS = {"vt": check_vt, "cwe": check_cwe, "fwe": check_fwe, "qa_1": check_qa, "qa_2": check_qa}


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


def check_sample(row: dict, tokenizer: str) -> None:
    task, tokenizer = row["task"], make_tokenizer(tokenizer)
    prompt = render(tokenizer, row["input"], row["answer_prefix"])
    added = tokenizer.chat_template is None and tokenizer.bos_token is not None
    assert row["length"] == len(tokenizer.tokenize(prompt)) + added + row["max_new_tokens"]
    assert row["max_new_tokens"] == BUDGETS[task]
    gold = ", ".join(row["outputs"])
    assert score(task, gold, row["outputs"]) == 1.0
    assert score(task, "I do not know.", row["outputs"]) == 0.0
    if task != "fwe" and not task.startswith("qa"):  # the answer must not stand at the prompt's end
        assert score(task, row["answer_prefix"], row["outputs"]) == 0.0
    CHECKS.get(task, check_niah)(row)


# What samples have in common


def test_the_prompt_is_the_chat_template_and_then_the_prefix():
    chat, plain = make_tokenizer("smollm2"), make_tokenizer("bpe")
    prompt = render(chat, "a question", " Answer:")
    assert prompt.endswith("<|im_start|>user\na question<|im_end|>\n<|im_start|>assistant\n Answer:")
    assert render(plain, "a question", " Answer:") == "a question Answer:"


def digest(task: str, **kwargs) -> str:
    rows = make_samples(task, make_tokenizer("bpe"), 2048, 3, sources=Sources.stand_ins(), **kwargs)
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def test_the_same_seed_gives_the_same_data_in_any_process():
    code = "import test_ruler as t; print(*map(t.digest, t.TASKS))"
    environment = {**os.environ, "PYTHONHASHSEED": "7", "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parent, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [digest(task) for task in TASKS]


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
    places = [hide_in_essay(__import__("random").Random(i), list("x" * 1000), ["needle"]) for i in range(200)]
    shares = [len(pieces[0].split()) / 1000 for pieces in places]
    assert min(shares) == 0 and max(shares) == 1
    noise = make_samples("niah_single_1", make_tokenizer("bpe"), 1024, 200)
    lines = [main_text(row).split("\n") for row in noise]
    depths = [next(i for i, line in enumerate(text) if NEEDLE.match(line)) / len(text) for text in lines]
    for found in (shares, depths):
        fifths = Counter(min(int(depth * 5), 4) for depth in found)
        assert min(fifths.values()) >= 20 and len(fifths) == 5


def test_reasoning_gets_its_own_budget_and_no_prefix():
    (row,) = make_samples("vt", make_tokenizer("smollm2"), 4096, 1, reasoning_tokens=1000)
    assert row["answer_prefix"] == "" and row["max_new_tokens"] == 1030
    prompt = render(make_tokenizer("smollm2"), row["input"], "")
    assert 0.97 * 4096 <= len(make_tokenizer("smollm2").tokenize(prompt)) + 1030 == row["length"] <= 4096


def test_the_essay_goes_round_when_it_is_too_short(tmp_path):
    text = "First of all. " + " ".join(f"Sentence number {i} is here." for i in range(30))
    (tmp_path / "essay.txt").write_text(text)
    sources = Sources(essays=str(tmp_path / "essay.txt"))
    (row,) = make_samples("niah_single_2", make_tokenizer("bpe"), 2048, 1, sources=sources)
    assert row["haystack"] == "essay"
    without = " ".join(re.sub(NEEDLE.pattern, "", main_text(row)).split())
    assert (text + " ").__mul__(20).startswith(without) and len(without) > 2 * len(text)


# Sources


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
        "---\nconfigs:\n- config_name: distractor\n  data_files:\n  - split: validation\n    path: validation.jsonl\n---\n"
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


def test_ruler_needs_no_harness():
    code = "import longact_trl.evaluation.ruler, sys; print('lm_eval' in sys.modules, 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split()[0] == "False"
