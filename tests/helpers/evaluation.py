"""Small data in the true schemas, written for these tests, and a model that knows what to say."""

import json
from pathlib import Path

from lm_eval.api.model import LM

from longact_trl.evaluation.config import EvaluationConfig

from .data import word_tokenizer
from .models import make_model


NUM_SAMPLES = 3
STAND_INS = dict.fromkeys(("essays", "squad", "hotpotqa", "english_words"), "stand-in")
FILLER = "The mill stood by the river, and nothing happened for a long time."


def write_longbench_v2(folder: Path) -> str:
    """Six questions, one in each pair of difficulty and length; the last text holds a placeholder."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for i in range(6):
        choices = {f"choice_{letter}": f"In {1850 + i + j} " for j, letter in enumerate("ABCD")}
        rows.append(
            {
                "_id": f"id{i}",
                "domain": "Single-Document QA",
                "sub_domain": "Literary",
                "difficulty": ("easy", "hard")[i % 2],
                "length": ("short", "medium", "long")[i // 2],
                "question": "When was the mill built?",
                "answer": "ABCD"[i % 4],
                "context": f"{FILLER} " * 20 + f"It was built in {1850 + i + i % 4}. " + f"{FILLER} " * 20,
            }
            | choices
        )
    rows[-1]["context"] += " $Q$"
    (folder / "data.json").write_text(json.dumps(rows), encoding="utf-8")
    return str(folder)


def write_infinitebench(folder: Path) -> str:
    """Two rows for each of the six tasks."""
    folder.mkdir(parents=True, exist_ok=True)
    key = "{0}. Remember it. {0} is the {1}."
    texts = {
        "passkey": ("The pass key is " + key.format("71432", "pass key"), "What is the pass key?", ["71432"]),
        "number_string": (
            "The sequence of digits is " + key.format("3000077442", "sequence of digits"),
            "What is the sequence of digits?",
            ["3000077442"],
        ),
        "longbook_sum_eng": ("Anna built a mill. It burnt down.", "", ["Anna built a mill.\nIt burnt down."]),
        "longbook_qa_eng": ("Anna built the mill.", "Who built the mill?", ["Anna", "Anna of the hill"]),
        "longbook_qa_chn": ("安娜建了磨坊。", "谁建了磨坊？", ["安娜"]),
        "longbook_choice_eng": ("Anna built the mill.", "Who built the mill?", ["Anna"]),
    }
    for task, (fact, question, answer) in texts.items():
        options = ["Bo", "Anna", "Cy", "Di"] if task == "longbook_choice_eng" else []
        row = {"context": f"{FILLER}\n" * 30 + fact + f"\n{FILLER}" * 30, "input": question, "answer": answer}
        with (folder / f"{task}.jsonl").open("w", encoding="utf-8") as file:
            for i in range(2):
                file.write(json.dumps({"id": i, **row, "options": options}, ensure_ascii=False) + "\n")
    return str(folder)


def write_model(folder: Path) -> str:
    """Config and tokenizer of a model; its weights are never loaded."""
    make_model(max_position_embeddings=8192).config.save_pretrained(folder)
    word_tokenizer().save_pretrained(folder)
    return str(folder)


def make_config(folder: Path, **kwargs) -> EvaluationConfig:
    """A run of all benchmarks on a few samples of this data, into `folder / "out"`."""
    settings = {
        "model": write_model(folder / "model"),
        "benchmarks": ["longbench_v2", "ruler", "infinitebench", "tiny_tasks"],
        "lengths": [4096],
        "num_samples": NUM_SAMPLES,
        "temperature": 0.0,
        "longbench_v2_data": write_longbench_v2(folder / "longbench_v2"),
        "infinitebench_data": write_infinitebench(folder / "infinitebench"),
        "ruler_sources": STAND_INS,
        "output_dir": str(folder / "out"),
        "backend": "transformers",
    }
    return EvaluationConfig(**settings | kwargs)


class Says(LM):
    """
    An lm-eval model that answers every request by a rule.

    Args:
        rule (`Callable`):
            From a row to what the model writes.
    """

    def __init__(self, rule):
        super().__init__()
        self.rule, self.requests = rule, []

    def generate_until(self, requests, disable_tqdm=False):
        self.requests += requests
        return [self.rule(request.doc) for request in requests]

    def loglikelihood(self, requests):
        raise AssertionError("no task here compares likelihoods")

    loglikelihood_rolling = loglikelihood


def gold(doc: dict) -> str:
    """What a perfect model writes."""
    answers = doc["gold"]
    if doc["benchmark"] == "longbench_v2":
        return "It says so." if doc["task"] == "cot" else f"The correct answer is ({answers[0]})."
    if doc["benchmark"] == "tiny_tasks":
        return f"<think> so </think> <answer> {' , '.join(answers)} </answer>"
    if doc["task"] == "longbook_choice_eng":
        return answers[1]
    return ", ".join(answers) if doc["benchmark"] == "ruler" else answers[0]
