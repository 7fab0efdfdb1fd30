import inspect
from collections import Counter
from typing import Any, get_type_hints

import pytest
import yaml
from datasets import Dataset

from helpers.data import assert_golds_earn_the_reward, read_fixture, write_jsonl
from helpers.paths import FIXTURES, RECIPES
from longact_trl.data import mixture as mixture_module
from longact_trl.data import mixture_file
from longact_trl.data.length import prompt_length
from longact_trl.data.mixture import LOADERS, load_mixture
from longact_trl.data.rows import RL_FEATURES
from longact_trl.rewards.tagged import answer_reward
from longact_trl.settings.argument_classes import declared_parameters


@pytest.fixture
def mixture(tmp_path):
    memagent = write_jsonl(
        tmp_path / "memagent.jsonl",
        [
            {**row, "prompt": [{"role": "user", "content": f"{index}. {row['prompt'][0]['content']}"}]}
            for index, row in enumerate(read_fixture("memagent.jsonl")[:6] * 10)
        ],
    )
    return {
        "seed": 7,
        "sources": [
            {"loader": "docqa", "source": str(FIXTURES / "docqa.jsonl"), "max_bad_share": 0.2},
            {"loader": "memagent", "source": memagent, "num_rows": 20},
        ],
    }


def test_all_of_one_and_some_of_the_other(mixture, tmp_path):
    path = tmp_path / "mixture.yaml"
    path.write_text(yaml.safe_dump(mixture))
    rows = load_mixture(path)
    assert rows.features == RL_FEATURES
    tasks = rows["task"][:]
    assert sum(task.startswith("docqa/") for task in tasks) == 12 and tasks.count("memagent/hotpotqa") == 20
    assert len({row["prompt"][0]["content"] for row in rows}) == 32  # no row twice
    assert tasks != sorted(tasks)
    assert_golds_earn_the_reward(rows)


def test_the_seed_decides_rows_and_order(mixture):
    rows = [load_mixture({**mixture, "seed": seed}).to_list() for seed in (7, 7, 8)]
    assert rows[0] == rows[1] != rows[2]
    memagent = [{row["prompt"][0]["content"] for row in part if row["task"].startswith("mem")} for part in rows]
    assert memagent[0] != memagent[2]


def test_the_paper_mixture_names_what_exists(monkeypatch):
    monkeypatch.setattr(mixture_module, "_load_part", lambda *args: 1 / 0)
    with pytest.raises(ZeroDivisionError):  # every check has passed, the first source is read
        load_mixture(RECIPES / "mixture.yaml")


@pytest.mark.parametrize(
    "change, message",
    [
        ({"seed": "7"}, "seed must be an integer from 0 on, but is '7'"),
        ({"sources": []}, "must have `seed` and a list of `sources`"),
        ({"weights": [1]}, "must have `seed` and a list of `sources`"),
        (
            {"sources": [{"loader": "hotpot"}]},
            "loader must be one of docqa, memagent, synthetic, tiny_tasks, but is 'hotpot'",
        ),
        ({"sources": ["docqa"]}, "loader must be one of docqa, memagent, synthetic, tiny_tasks, but is 'docqa'"),
        (
            {"sources": [{"loader": "docqa", "rows": 5}]},
            "source 'docqa' has no option rows: use loader, max_bad_share, num_",
        ),
        (
            {"sources": [{"loader": "docqa", "num_rows": 0}]},
            "num_rows of source 'docqa' must be a whole number from 1 on",
        ),
        ({"sources": [{"loader": "docqa", "num_rows": 1.5}]}, "but is 1.5"),
    ],
)
def test_mistakes_are_named_before_anything_is_read(mixture, change, message, monkeypatch):
    monkeypatch.setattr(mixture_module, "_load_part", lambda *args: 1 / 0)
    with pytest.raises(ValueError, match=message):
        load_mixture({**mixture, **change})


def test_tiny_tasks_beside_another_source(mixture):
    tiny = {"loader": "tiny_tasks", "num_prompts": 30, "seed": 3, "context_words": [64, 96], "num_needles": [4, 6]}
    rows = load_mixture({**mixture, "sources": [mixture["sources"][0], tiny]})
    assert rows.features == RL_FEATURES
    assert Counter(rows["task"][:]) >= Counter({"needle": 10, "multi_key": 10, "hops": 10})
    for row in rows:
        gold = "\n".join(row["answer"]) if row["answer_kind"] == "list" else row["answer"][0]
        completion = f"<think></think><answer>{gold}</answer>"
        assert answer_reward([completion], answer=[row["answer"]], answer_kind=[row["answer_kind"]]) == [1.0]


def test_synthetic_contexts_of_two_lengths(mixture, tokenizer):
    sources = [
        {"loader": "synthetic", "tokens": 3000, "num_prompts": 9, "seed": 3},
        {"loader": "synthetic", "tokens": 4096, "num_prompts": 4, "tasks": ["needle", "two_hops"], "split": "test"},
    ]
    tokenizer.chat_template += "{{ extra }}"
    rows = load_mixture({**mixture, "sources": [mixture["sources"][0], *sources]}, tokenizer, {"extra": "<|user|>"})
    assert rows.features == RL_FEATURES
    tasks = Counter(rows["task"][:])
    assert (tasks["synthetic/needle"], tasks["synthetic/two_hops"], tasks["synthetic/counting"]) == (3, 3, 1)
    lengths = [
        prompt_length(row["prompt"], tokenizer, {"extra": "<|user|>"}) for row in rows if row["task"][:3] == "syn"
    ]
    assert sorted(lengths) == [3000] * 9 + [4096] * 4


@pytest.mark.parametrize(
    "options, message",
    [
        ({}, "source 'synthetic' needs `tokens`"),
        ({"tokens": "16k"}, "tokens of synthetic contexts must be a whole number from 1 on, but is '16k'"),
        ({"tokens": 4096, "tasks": ["needles"]}, "list of some of needle, multi_key, .*, but is .'needles'"),
        ({"tokens": 4096, "tasks": "needle"}, "but is 'needle'"),
        ({"tokens": 4096, "split": "validation"}, "split of synthetic contexts must be one of train, test"),
        ({"tokens": 4096, "num_prompts": 0}, "num_prompts of synthetic contexts must be a whole number from 1 on"),
        ({"tokens": 4096, "tokenizer": "gpt2"}, "source 'synthetic' has no option tokenizer"),
    ],
)
def test_mistakes_in_a_synthetic_source_are_named_before_anything_is_read(
    mixture, options, message, monkeypatch, tokenizer
):
    monkeypatch.setattr(mixture_module, "_load_part", lambda *args: 1 / 0)
    mixture["sources"].append({"loader": "synthetic", **options})
    with pytest.raises(ValueError, match=message):
        load_mixture(mixture, tokenizer)


def test_synthetic_contexts_need_the_tokenizer_of_the_run(mixture, tokenizer):
    mixture["sources"].append({"loader": "synthetic", "tokens": 4096})
    with pytest.raises(ValueError, match="needs the tokenizer of the run, with a chat template"):
        load_mixture(mixture)
    tokenizer.chat_template = None
    with pytest.raises(ValueError, match="needs the tokenizer of the run, with a chat template"):
        load_mixture(mixture, tokenizer)


def test_more_rows_than_there_are(mixture):
    mixture["sources"][1]["num_rows"] = 61
    with pytest.raises(ValueError, match="source 'memagent' has 60 good rows"):
        load_mixture(mixture)


def test_rows_are_drawn_among_those_that_fit(mixture, tokenizer):
    """As many as asked for, none too long, in the order in which they are drawn without a window; the rest stays."""

    def drawn(**kwargs) -> tuple[Dataset, dict[str, int]]:
        rows = load_mixture(mixture, tokenizer, **kwargs)
        assert sum(row["task"].startswith("docqa/") for row in rows) == 12  # all of it: the length policy's to judge
        prompts = [row["prompt"] for row in rows if row["task"] == "memagent/hotpotqa"]
        return rows, {prompt[0]["content"]: prompt_length(prompt, tokenizer, {}) for prompt in prompts}

    free, lengths = drawn()
    window = sorted(lengths.values())[10]
    _, fitting = drawn(max_prompt_length=window)
    assert len(lengths) == len(fitting) == 20 and max(fitting.values()) <= window < max(lengths.values())
    assert {prompt for prompt, length in lengths.items() if length <= window} <= set(fitting)
    assert drawn(max_prompt_length=max(lengths.values()) + 1000)[0].to_list() == free.to_list()


def test_no_more_prompts_are_measured_than_are_taken(mixture, tokenizer, monkeypatch):
    measured = []
    measure = mixture_module.prompt_lengths
    monkeypatch.setattr(
        mixture_module, "prompt_lengths", lambda rows, **k: measured.append(rows) or measure(rows, **k)
    )
    load_mixture(mixture, tokenizer, max_prompt_length=100_000)
    assert [len(rows) for rows in measured] == [20]


def test_fewer_rows_that_fit_than_asked_for(mixture, tokenizer):
    with pytest.raises(ValueError, match=r"'memagent' has \d+ good rows of at most 40 tokens: set num_rows.*truncate"):
        load_mixture(mixture, tokenizer, max_prompt_length=40)


def test_a_missing_file(tmp_path):
    with pytest.raises(ValueError, match="no file: give the path of a YAML file"):
        load_mixture(tmp_path / "none.yaml")


def test_every_loader_and_its_options_are_known_before_it_is_loaded():
    assert list(LOADERS) == list(mixture_file.LOADERS) == list(mixture_file.SPLITS)
    for name, load in LOADERS.items():
        module, function = mixture_file.LOADERS[name]
        assert (load.__module__, load.__name__) == (module, function)
        declared, real = declared_parameters(module, function), get_type_hints(load)
        assert list(declared) == list(inspect.signature(load).parameters)
        assert all(hint in (real[option], Any) for option, hint in declared.items())
        assert [option for option, hint in declared.items() if hint is Any] in ([], ["tokenizer", "tasks"])
