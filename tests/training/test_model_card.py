"""What a model card says."""

import re
import shutil

import yaml
from huggingface_hub import EvalResult, ModelCard, metadata_load
from matplotlib.image import imread

from helpers.trainers import make_trainer
from longact_trl.data.docqa import HUB_ID
from longact_trl.data.mixture import source_names
from longact_trl.training.model_card import add_eval_results


RESULTS = [
    EvalResult(
        task_type="text-generation",
        dataset_type="THUDM/LongBench-v2",
        dataset_name=f"LongBench v2 {part}",
        dataset_config=part,
        metric_type="accuracy",
        metric_name="official protocol, pred.py",
        metric_value=value,
        metric_args={"protocol": "official", "temperature": 0.1},
    )
    for part, value in (("overall", 36.5), ("hard", 31.25))
]


def test_the_card_says_what_was_trained_on_what_and_how_well(tmp_path):
    local = tmp_path / "questions.jsonl"
    local.touch()
    trainer = make_trainer(tmp_path / "run", hub_model_id="me/tiny", update_rule="frozen_rows")
    trainer.model.config._name_or_path = "Qwen/Qwen3-0.6B"
    trainer.train()
    data = ["Tongyi-Zhiwen/DocQA-RL-1.6K", str(local), "synthetic"]
    trainer.create_model_card("tiny", data, license="apache-2.0", eval_results=RESULTS)
    card = ModelCard.load(tmp_path / "run" / "README.md")
    assert card.data.to_dict().keys() == metadata_load(tmp_path / "run" / "README.md").keys()
    assert "licence" not in card.data
    assert (card.data.license, card.data.base_model) == ("apache-2.0", "Qwen/Qwen3-0.6B")
    assert card.data.datasets == ["Tongyi-Zhiwen/DocQA-RL-1.6K"]  # what the Hub can look up
    assert card.data.tags == ["generated_from_trainer", "grpo", "longact", "trl"]
    assert card.data.eval_results == RESULTS
    churns = [log["longact/mask_churn"] for log in trainer.state.log_history if "longact/mask_churn" in log]
    rows = ["| update_rule | frozen_rows |", "| data | Tongyi-Zhiwen/DocQA-RL-1.6K, questions.jsonl, synthetic |"]
    rows += [
        "| density | 108 of 384 rows of W_Q and W_K at the last step |",
        "| LongBench v2 hard | official protocol",
    ]
    rows += [f"| churn | {sum(churns) / len(churns):.3f} of the mask", "- LongAct: ", "- TRL: "]
    rows += ["https://huggingface.co/papers/2604.14922", "Bowen Ping and Zijun Chen", "eprint        = {2604.14922}"]
    for row in rows:
        assert row in card.text
    assert card.text.index("## LongAct") < card.text.index("## Evaluation") < card.text.index("### Framework versions")
    assert str(tmp_path) not in str(card)
    (picture,) = re.findall(r"!\[.*\]\((.*)\)", card.text)
    assert imread(tmp_path / "run" / picture).shape[0] > 100


def test_results_that_come_later_replace_earlier_ones(tmp_path):
    trainer = make_trainer(tmp_path, hub_model_id="me/tiny")
    trainer.create_model_card("tiny", eval_results=RESULTS)
    written = (tmp_path / "README.md").read_text()
    add_eval_results(tmp_path / "README.md", RESULTS[:1])
    card = ModelCard.load(tmp_path / "README.md")
    assert card.data.eval_results == RESULTS[:1]
    assert "LongBench v2 hard" not in card.text
    add_eval_results(tmp_path / "README.md", RESULTS)
    assert (tmp_path / "README.md").read_text() == written


def test_the_base_of_a_local_model_is_what_it_was_made_from(tmp_path, tiny_model):
    for base in ("Qwen/Qwen3-8B", None):
        cold_start = shutil.copytree(tiny_model, tmp_path / f"sft_{base is None}")
        if base:
            (cold_start / "README.md").write_text(f"---\nbase_model: {base}\n---\n\n# Cold start\n")
        make_trainer(tmp_path / "run", str(cold_start), max_steps=1).create_model_card("tiny")
        card = ModelCard.load(tmp_path / "run" / "README.md")
        assert card.data.base_model == base
        link = f"[{base}](https://huggingface.co/{base})" if base else "a local checkpoint"
        assert f"fine-tuned version of {link}." in card.text
        assert "license" not in card.data.to_dict()


def test_a_model_from_nowhere_has_no_base(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "README.md").write_text("---\nbase_model: Qwen/Qwen3-8B\n---\n")  # of something else
    make_trainer(tmp_path / "run").create_model_card("tiny")
    card = ModelCard.load(tmp_path / "run" / "README.md")
    assert card.data.base_model is None
    assert "fine-tuned version of a local checkpoint." in card.text


def test_a_mixture_names_its_sources(tmp_path):
    sources = [{"loader": "docqa"}, {"loader": "memagent", "source": "data/a.parquet"}, {"loader": "tiny_tasks"}]
    (tmp_path / "mixture.yaml").write_text(yaml.safe_dump({"seed": 0, "sources": sources}))
    assert source_names(tmp_path / "mixture.yaml") == [HUB_ID, "data/a.parquet", "tiny_tasks"]
