"""What a sample of RULER must be, read back from its text alone; and two tokenizers to make samples for."""

import hashlib
import json
import re
from collections import Counter
from functools import cache

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from longact_trl.evaluation.ruler import TASKS, Sources, make_samples, render, score
from longact_trl.evaluation.ruler.sources import split_sentences
from longact_trl.evaluation.ruler.stand_in_prose import essay_sentences
from longact_trl.evaluation.ruler.words import all_words


BUDGETS = {**dict.fromkeys(TASKS[:8], 128), "vt": 30, "cwe": 120, "fwe": 50, "qa_1": 32, "qa_2": 32}
NOISE = "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again."
NEEDLE = re.compile(
    r"One of the special magic (?:numbers|uuids) for ([^.]+?) is: (\S+)\.(?= |\n|$)"
)  # keys have spaces


# Tokenizers: SmolLM2's byte-level BPE with its chat template, and a BPE like Llama's without one that adds a token.


@cache
def make_tokenizer(name: str):
    if name == "smollm2":
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


def digest(task: str, **kwargs) -> str:
    rows = make_samples(task, make_tokenizer("bpe"), 2048, 3, sources=Sources.stand_ins(), **kwargs)
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def main_text(row: dict) -> str:
    """The question's own context, without what comes before the haystack, after it, or in a solved example."""
    if row["task"] == "vt":
        return row["input"].split("Memorize and track")[2].split("\n\n", 1)[1].rsplit("\nQuestion", 1)[0]
    if row["task"] == "cwe":
        return row["input"].split("Below is a numbered")[2].split("\n", 1)[1].rsplit("\nQuestion", 1)[0]
    if row["task"] == "fwe":
        return row["input"].split("coded words. ", 1)[1].rsplit("\nQuestion", 1)[0]
    if row["task"].startswith("qa"):
        return row["input"].split("are given documents.\n\n", 1)[1].rsplit("\n\nAnswer the question", 1)[0]
    return row["input"].split("\n", 1)[1].rsplit("\n", 1)[0]


def check_niah(row: dict) -> None:
    context, task = main_text(row), row["task"]
    needles = NEEDLE.findall(context)
    one = len(row["outputs"]) == 1
    kind = "uuid" if task in ("niah_single_3", "niah_multikey_3") else "number"
    beginning = f"A special magic {kind} is" if one else f"Some special magic {kind}s are"
    assert row["input"].startswith(f"{beginning} hidden within the following text.")
    pattern = r"What is the .* for (.*) mentioned" if one else r"What are all the .* for (.*) mentioned"
    asked = re.search(pattern, row["input"].rsplit("\n", 1)[1]).group(1).replace(", and ", ", ").split(", ")
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
        assert len(needles) == context.count("\n") + 1 > 5
    else:
        assert row["haystack"] == "essay (stand-in)"
        assert len(needles) == (1 if task.startswith("niah_single") else 4)
        check_depths(context)


def check_depths(context: str) -> None:
    """Each needle stands after the first int(n · depth / 100) sentences, for one of 40 depths from 0 to 100."""
    pieces = [piece.strip() for piece in NEEDLE.split(context)[::3]]
    counts = [len(split_sentences(piece)) if piece else 0 for piece in pieces]
    total = sum(counts)
    depths = [round(i * 100 / 39) for i in range(40)]
    places = {int(total * depth / 100) for depth in depths}
    reached = [sum(counts[: i + 1]) for i in range(len(pieces) - 1)]
    assert set(reached) <= places and (len(set(reached)) == len(reached) or total < 100)
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
    short = row["length"] < 3900
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
    corpus = Sources.stand_ins().load("squad" if row["task"] == "qa_1" else "hotpotqa")
    entry = corpus.questions[row["index"]]
    assert entry.query == question and entry.outputs == row["outputs"]
    # A short sample has what it needs at least; others also have all that RULER takes first.
    first = [*entry.own, *entry.related] if row["length"] > 3900 else entry.required
    assert {corpus.documents[d] for d in first} <= set(texts)
    assert any(row["outputs"][0] in corpus.documents[d] for d in entry.required)


CHECKS = {"vt": check_vt, "cwe": check_cwe, "fwe": check_fwe, "qa_1": check_qa, "qa_2": check_qa}


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
