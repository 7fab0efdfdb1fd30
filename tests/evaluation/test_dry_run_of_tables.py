"""From training to a report whose every cell of ours is filled: Tables 1, 2 and 4. Table 7 has a file of its own."""

import json
import random
import shutil

import pytest

from helpers.evaluation import Says, gold, make_config
from helpers.models import make_model, make_tokenizer
from helpers.trainers import make_trainer
from longact_trl.evaluation.benchmarks.ruler import TASKS
from longact_trl.evaluation.report import markdown
from longact_trl.evaluation.run import evaluate
from longact_trl.evaluation.tables import load_evaluations, paper_tables


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory) -> list[str]:
    """LongBench v2, and RULER at the paper's two lengths, by a model that knows half of the answers."""
    rng = random.Random(0)
    half = Says(lambda doc: gold(doc) if rng.random() < 0.5 else "zq")
    ruler = {"lengths": [65536, 131072], "num_samples": 1, "max_model_length": 140_000}
    ruler["tasks"] = [task for task in TASKS if task not in ("cwe", "fwe")]  # Table 2 leaves them out
    folders = []
    for benchmark, options in (("longbench_v2", {"num_samples": None}), ("ruler", ruler)):
        config = make_config(tmp_path_factory.mktemp(benchmark), benchmarks=[benchmark], **options)
        evaluate(config, half)
        folders.append(config.output_dir)
    return folders


def under(label: str, folders: list[str], output) -> list[str]:
    """The same results as another model's."""
    copies = []
    for number, folder in enumerate(folders):
        copies.append(str(shutil.copytree(folder, output / label / str(number))))
        file = output / label / str(number) / "results.json"
        file.write_text(json.dumps(json.loads(file.read_text("utf-8")) | {"label": label}), "utf-8")
    return copies


@pytest.mark.parametrize("number", [1, 2, 4])
def test_every_arm_fills_every_cell_of_its_row(evaluated, tmp_path, number):
    table = paper_tables()[number]
    folders = [folder for label in table["rows"] for folder in under(label, evaluated, tmp_path)]
    report = markdown(load_evaluations(folders))
    section = report.split(f"## Table {number}: ")[1].split("\n\n")[1]
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines()[2:]]
    rows, model = {}, ""
    for name, what, *cells in lines:
        model = name.replace("\\", "") or model
        rows.setdefault(model, {})[what] = cells
    assert list(rows) == [row["name"] for row in table["rows"].values()]
    ways = {"ours", "ours, compensated"} if table["benchmark"] == "longbench_v2" else {"ours"}
    for row, entry in zip(rows.values(), table["rows"].values(), strict=True):
        gaps = {way.replace("ours", "difference") for way in ways}
        assert row.keys() == ways | (gaps | {"paper"} if "paper" in entry else set())
        assert all(len(cells) == len(table["columns"]) and all(cells) for cells in row.values())


def test_a_trained_model_finds_its_row_by_the_name_of_its_folder(tmp_path):
    """No stand-in: trained, saved, loaded by lm-eval's transformers backend, asked, scored, printed."""
    trainer = make_trainer(tmp_path / "qwen3_8b_longact", make_model(max_position_embeddings=2048), max_steps=1)
    trainer.train()
    trainer.save_model()
    make_tokenizer().save_pretrained(trainer.args.output_dir)
    options = {"benchmarks": ["longbench_v2"], "num_samples": 2, "output_dir": str(tmp_path / "eval")}
    evaluate(make_config(tmp_path, model=trainer.args.output_dir, temperature=1.0, **options))
    report = markdown(load_evaluations([tmp_path / "eval"]))
    assert "| Qwen3-8B-SFT w/ LongAct | ours | 0.00" in report and "| | ours, compensated | " in report.replace(
        "|  |", "| |"
    )
    assert "- qwen3_8b_longact: official protocol, temperature 1, seed 0, transformers; 2 samples" in report
