"""Synthetic long contexts: exact lengths with four tokenizers, and every question answered by reading its context."""

import random
import re
from collections import Counter
from itertools import islice

import pytest
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from helpers.data import assert_golds_earn_the_reward, byte_tokenizer
from helpers.noting import NotingTrainer
from helpers.paths import ROOT
from helpers.trainers import make_args
from longact_trl.data import synthetic
from longact_trl.data.rows import RL_FEATURES
from longact_trl.data.synthetic import generate_row, load_synthetic
from longact_trl.data.synthetic_tasks import TASKS
from longact_trl.rewards.tagged import answer_reward


TINY = str(ROOT / "longact_trl" / "assets" / "tiny_qwen3")
# Qwen's: a full stop and the line breaks after it are one piece, so tokens do not simply add up.
QWEN_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def merging_tokenizer() -> PreTrainedTokenizerFast:
    """A small BPE that also joins what Qwen's joins, trained on the tasks' own text. It has no chat template."""
    puzzles = [task(random.Random(0), "train") for task in TASKS.values()]
    texts = [f".{puzzle.separator}".join(islice(puzzle.filler, 200)) for puzzle in puzzles]
    tokenizer = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(QWEN_SPLIT), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=600, initial_alphabet=alphabet))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


@pytest.fixture(scope="session")
def smollm2():
    from smollm2 import smollm2_135m

    return AutoTokenizer.from_pretrained(smollm2_135m())


@pytest.fixture(scope="session")
def tokenizers(smollm2):
    return {
        "smollm2": smollm2,
        "tiny": AutoTokenizer.from_pretrained(TINY),
        "merging": merging_tokenizer(),
        "bytes": byte_tokenizer(),
    }


def length_of(prompt, tokenizer) -> int:
    """As GRPOTrainer has it, in two steps of which it makes one."""
    if not isinstance(prompt, str):
        prompt = tokenizer.apply_chat_template(prompt, add_generation_prompt=True, tokenize=False)
    return len(tokenizer(prompt, add_special_tokens=False)["input_ids"])


def text_of(row) -> str:
    return row["prompt"] if isinstance(row["prompt"], str) else row["prompt"][0]["content"]


# Lengths


@pytest.mark.parametrize("name, least", [("smollm2", 512), ("tiny", 512), ("merging", 2048), ("bytes", 4096)])
def test_every_prompt_has_exactly_the_tokens_asked_for(tokenizers, name, least):
    for tokens in (least, least + 1, 5000, 16_384):
        for task in TASKS:
            row = generate_row(tokenizers[name], tokens, task, index=tokens)
            assert (row["num_tokens"], length_of(row["prompt"], tokenizers[name])) == (tokens, tokens), task
            assert isinstance(row["prompt"], str) == (name == "merging")


def test_every_length_can_be_had(tokenizers):
    lengths = range(700, 760)
    rows = [generate_row(tokenizers["smollm2"], tokens, "multi_key") for tokens in lengths]
    assert [length_of(row["prompt"], tokenizers["smollm2"]) for row in rows] == list(lengths)
    assert len({tuple(row["answer"]) for row in rows}) == 1  # one question at all lengths


def test_a_row_of_128k_tokens(tokenizers):
    row = generate_row(tokenizers["smollm2"], 131_072, "two_hops")
    assert length_of(row["prompt"], tokenizers["smollm2"]) == row["num_tokens"] == 131_072
    assert len(set(re.findall(r"Document: (.*)", text_of(row)))) > 1000


def test_where_no_filler_fills_the_last_tokens_the_row_says_so(tokenizers):
    tokenizer = tokenizers["bytes"]
    least = generate_row(tokenizer, 4096, "needle")
    with pytest.raises(ValueError, match="no room for what row 0 of 'needle' must hide: it takes") as error:
        generate_row(tokenizer, 100, "needle")
    needed = int(re.search(r"takes (\d+)", str(error.value))[1])
    for room in (0, 1, 20, 50):  # the shortest sentence has more than 20 bytes
        row = generate_row(tokenizer, needed + room, "needle")
        assert row["num_tokens"] == length_of(row["prompt"], tokenizer) <= needed + room
        assert row["num_tokens"] == needed or room == 50
        assert row["answer"] == least["answer"]


def test_the_trainer_sees_the_length_that_was_asked_for(tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(TINY)
    rows = load_synthetic(tokenizer, tokens=600, num_prompts=9)
    args = make_args(tmp_path, max_steps=1, per_device_train_batch_size=4, num_generations=2)
    trainer = NotingTrainer(TINY, answer_reward, args, rows, processing_class=tokenizer)
    trainer.train()
    assert [len(prompt) for prompt, _ in trainer.generations[0].trained] == [600] * 4


# Rows


def test_columns_and_golds(tokenizers):
    rows = load_synthetic(tokenizers["tiny"], tokens=512, num_prompts=len(TASKS) * 4)
    assert rows.features.items() >= RL_FEATURES.items() and set(rows.column_names) - set(RL_FEATURES) == {"num_tokens"}
    assert rows["task"][:] == [f"synthetic/{task}" for task in TASKS] * 4
    lists = [row for row in rows if row["answer_kind"] == "list"]
    assert_golds_earn_the_reward(row for row in rows if row not in lists)
    for row in lists:
        completion = f"<think></think><answer>{', '.join(row['answer'])}</answer>"
        assert answer_reward([completion], answer=[row["answer"]], answer_kind=["list"]) == [1.0]
    for row in rows:
        assert "<think> your reasoning </think> <answer> your answer </answer>" in text_of(row)


def test_a_row_follows_from_seed_and_index(tokenizers, monkeypatch):
    tokenizer = tokenizers["tiny"]
    rows = load_synthetic(tokenizer, tokens=600, num_prompts=12, seed=3, tasks=["needle", "counting"])
    assert rows[7] == generate_row(tokenizer, 600, "counting", index=7, seed=3)
    assert len({text_of(row) for row in rows}) == 12
    # More rows, made by several processes and not taken from the cache, begin with the same.
    monkeypatch.setattr(synthetic, "TOKENS_PER_PROCESS", 600 * 10)
    monkeypatch.setattr(synthetic.os, "cpu_count", lambda: 2)
    more = load_synthetic(tokenizer, tokens=600, num_prompts=20, seed=3, tasks=("needle", "counting"))
    assert more.to_list()[:12] == rows.to_list()
    other = load_synthetic(tokenizer, tokens=600, num_prompts=12, seed=4, tasks=["needle", "counting"])
    assert not {text_of(row) for row in rows} & {text_of(row) for row in other}


def test_needles_lie_at_all_depths(tokenizers):
    rows = load_synthetic(tokenizers["tiny"], tokens=512, num_prompts=150, tasks=["needle"])
    depths = [text_of(row).index(row["answer"][0]) / text_of(row).index("What is the code") for row in rows]
    counts = Counter(min(int(5 * depth), 4) for depth in depths)
    assert min(counts[fifth] for fifth in range(5)) > 15  # 30 in each, give or take 5


# What is asked


def read_answer(text: str, task: str) -> list[str]:
    """The answer to a prompt's question, found by reading its context, with nothing of the generator."""
    context, question = re.match(
        r"Read .* after (?:it|them)\.\n\n(.*)\n\n(.*?\?)\n\nFirst reason", text, re.S
    ).groups()
    if task in ("needle", "multi_key", "multi_value", "multi_query"):
        codes = re.findall(r"The code of the (\w+ \w+) is (\d+)\.", context)
        asked = re.findall(r"the (\w+ \w+)(?=,|\?| and)", question.partition(" of ")[2])
        return [code for name, code in codes if name in asked]
    if task == "variable_tracing":
        found = []
        for name, source in re.findall(r"Set (\w+) = (\w+)\.", context):  # in the order of the text
            if source in [re.search(r"value (\d+)", question)[1], *found]:
                found.append(name)
        return found
    if task == "common_words":
        *common, (_, fourth) = Counter(context.split()).most_common(4)
        assert min(count for _, count in common) > fourth
        return [word for word, _ in common]
    if task == "counting":
        event = re.search(r"says? that (.*)\?", question)[1]
        return [str(len(re.findall(rf"{event}\.", context)))]
    documents = dict(re.findall(r"Document: (.*)\n(.*)", context))
    named = re.findall(r"Document: (?!The )(.*)", context)
    assert len(named) == len(set(named))  # no two on one person or town
    person = re.search(r"(?:where|does|was) (\w+ \w+) (?:was born|work|born)", question)[1]
    town, trade = re.match(rf"{person} was born in (\w+) and works as a (\w+)\.", documents[person]).groups()
    if task == "one_hop":
        return [town if "town" in question else trade]
    river, year = re.match(rf"{town} lies on the river (\w+) and was founded in (\d+)\.", documents[town]).groups()
    return [river if "river" in question else year]


@pytest.mark.parametrize("task", TASKS)
def test_the_answer_is_what_the_context_says(tokenizers, task):
    for tokens, split in [(512, "train"), (600, "test"), (3000, "train")]:
        for index in range(20):
            row = generate_row(tokenizers["tiny"], tokens, task, index, split=split)
            assert sorted(read_answer(text_of(row), task)) == sorted(row["answer"]), row


@pytest.mark.parametrize("task", TASKS)
def test_nothing_is_asked_for_in_both_splits(task):
    asked = {}
    for split in ("train", "test"):
        puzzles = [TASKS[task](random.Random(f"{split} {i}"), split) for i in range(300)]
        if task == "common_words":  # where the question is always the same
            asked[split] = {word for puzzle in puzzles for word in puzzle.answer}
        else:
            names = r"[A-Z][a-z]+ [A-Z][a-z]+|the [a-z]+ [a-z]+(?=,|\?| and)|\d{5}"
            asked[split] = {name for puzzle in puzzles for name in re.findall(names, puzzle.question)}
        assert len(asked[split]) > 15
    assert not asked["train"] & asked["test"]


@pytest.mark.parametrize(
    "options, message",
    [
        ({"tokens": 0}, "tokens of synthetic contexts must be a whole number from 1 on, but is 0"),
        ({"seed": -1}, "seed of synthetic contexts must be a whole number from 0 on"),
        ({"tasks": []}, "must be a list of some of needle"),
        ({"split": "dev"}, "must be one of train, test, but is 'dev'"),
    ],
)
def test_mistakes_are_named(tokenizers, options, message):
    with pytest.raises(ValueError, match=message):
        load_synthetic(tokenizers["tiny"], **{"tokens": 512, "num_prompts": 2, **options})
