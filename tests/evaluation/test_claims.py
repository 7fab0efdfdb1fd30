"""What is believed when a run is continued: nothing whose data, model or code changed since."""

import json
import os
import shutil
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path

import pytest
import transformers.utils.chat_template_utils as chat_templates

from helpers.evaluation import STAND_INS, Says, gold, make_config
from helpers.models import make_model
from longact_trl.evaluation import claims
from longact_trl.evaluation.backends import Model
from longact_trl.evaluation.run import evaluate


LONGBENCH = {"benchmarks": ["longbench_v2"], "num_samples": None}


@pytest.fixture
def config(tmp_path):
    return partial(make_config, tmp_path)


def change_json(file: Path, **changes) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def score_of(results: dict) -> float:
    return results["units"][0]["score"]


def test_corrected_data_are_asked_again_and_only_what_they_changed(config):
    config, says_a = config(**LONGBENCH), Says(lambda doc: "The correct answer is (A)")
    assert score_of(evaluate(config, says_a)) == 33.33
    file = Path(config.longbench_v2_data, "data.json")
    rows = json.loads(file.read_text())
    file.write_text(json.dumps([row | {"answer": "A"} for row in rows]))
    again = Says(lambda doc: pytest.fail("no prompt is another"))
    assert score_of(evaluate(config, again)) == 100.0
    file.write_text(json.dumps([row | {"answer": "A"} for row in rows[:-1]] + [rows[-1] | {"question": "Who?"}]))
    again = Says(lambda doc: "The correct answer is (B)")
    assert score_of(evaluate(config, again)) == 100.0  # the last one's answer is B
    assert [request.doc["sample_id"] for request in again.requests] == ["id5"]


@pytest.mark.parametrize("place", ["in the file", "in the file, of the same size and time", "beside it"])
def test_an_essay_that_changed_makes_rulers_samples_anew(config, tmp_path, place):
    essays = tmp_path / "essays"
    essays.mkdir()
    (essays / "a.txt").write_text("Once there was a mill. It stood by the river. " * 2000)
    settings = {"benchmarks": ["ruler"], "tasks": ["niah_single_2", "vt"], "num_samples": 1}
    config = config(**settings, ruler_sources=STAND_INS | {"essays": str(essays)})
    first, again = Says(gold), Says(gold)
    evaluate(config, first)
    file, before = essays / "a.txt", (essays / "a.txt").stat()
    if place == "in the file, of the same size and time":
        file.write_text(file.read_text().replace("Once", "Here"))
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    else:
        (file if place == "in the file" else essays / "0.txt").write_text("Nothing happened. " * 4000)
    evaluate(config, again)
    assert [request.doc["task"] for request in first.requests] == ["niah_single_2", "vt"]
    assert [request.doc["task"] for request in again.requests] == ["niah_single_2"]  # of no essay


@pytest.mark.parametrize(
    ("file", "changes", "named"),
    [
        ("config.json", {"rms_norm_eps": 1e-3}, "model_files model config.json: '"),
        ("config.json", {"max_position_embeddings": 16384}, "max_model_length: 8192, now 16384"),
        ("generation_config.json", {"eos_token_id": 5}, "model_files model generation_config.json: None, now '"),
        ("tokenizer_config.json", {"eos_token": "<|other|>"}, "model_files model tokenizer_config.json: '"),
        ("chat_template.jinja", None, "model_files model chat_template.jinja: '"),
        ("tokenizer.json", None, "model_files model tokenizer.json: '"),
        ("model.safetensors", None, "weight_files model model.safetensors: '"),
    ],
)
def test_another_model_in_the_folder_is_refused_by_name(config, file, changes, named):
    config = config(**LONGBENCH)
    path = Path(config.model, file)
    if file == "model.safetensors":
        path.write_bytes(b"")
    evaluate(config, Says(gold))
    if changes:
        path.exists() or path.write_text("{}")
        change_json(path, **changes)
    else:
        path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(ValueError, match=f"holds a run with other settings .*{named}"):
        evaluate(config, Says(gold))


def test_what_a_training_run_writes_beside_its_model_is_no_change(config):
    config = config(**LONGBENCH)
    evaluate(config, Says(gold))
    for file in ("trainer_state.json", "training_args.bin", "README.md"):
        Path(config.model, file).write_text("{}")
    evaluate(config, Says(lambda doc: pytest.fail("asked again")))


def test_other_code_or_packages(config, monkeypatch):
    config = config(**LONGBENCH)
    evaluate(config, Says(gold))
    monkeypatch.setattr(claims, "code", lambda: "other")
    asked = Says(gold)
    assert score_of(evaluate(config, asked)) == 100.0
    assert not asked.requests  # the unit ran again, from the journal
    monkeypatch.setattr(claims, "installed", lambda packages: dict.fromkeys(packages, "0"))
    with pytest.raises(ValueError, match=r"versions transformers: '[\d.]+', now '0'"):
        evaluate(config, Says(gold))


def test_a_unit_without_a_claim_runs_again(config):
    config = config(**LONGBENCH)
    evaluate(config, Says(gold))
    Path(config.output_dir, "units.json").unlink()
    samples = Path(config.output_dir, "samples", "longbench_v2-answer.jsonl")
    samples.write_text(samples.read_text().replace('"score": 1.0', '"score": 0.0'))
    assert score_of(evaluate(config, Says(lambda doc: pytest.fail("asked again")))) == 100.0


@pytest.mark.parametrize("benchmark", ["longbench_v2", "ruler"])
def test_a_template_that_writes_todays_date_writes_the_same_on_any_day(config, monkeypatch, benchmark):
    config = config(benchmarks=[benchmark], tasks=["vt"] if benchmark == "ruler" else None)
    file = Path(config.model, "chat_template.jinja")
    file.write_text("Today Date: {{ strftime_now('%d %b %Y') }}\n" + file.read_text())
    first, second = Says(gold), Says(gold)
    assert evaluate(config, first)["template_day"] == "2025-01-01"
    assert all("Today Date: 01 Jan 2025" in request.args[0] for request in first.requests)

    class Tomorrow(datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime(2030, 1, 2)

    monkeypatch.setattr(chat_templates, "datetime", Tomorrow)
    shutil.rmtree(Path(config.output_dir, "samples"))  # killed before the unit was whole
    evaluate(config, second)
    assert first.requests and not second.requests


def test_a_model_of_the_hub_that_moved_on_is_refused(tmp_path, monkeypatch):
    """In the Hub's own cache, as a download leaves it."""
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    settings = make_config(tmp_path, **LONGBENCH)
    repository = tmp_path / "hub" / "models--some--model"
    for revision in ("a" * 40, "b" * 40):
        shutil.copytree(settings.model, repository / "snapshots" / revision)
        (repository / "refs").mkdir(exist_ok=True)
        (repository / "refs" / "main").write_text(revision)
        settings.model = "some/model"
        if revision.startswith("a"):
            assert evaluate(settings, Says(gold))["revisions"] == {"model": revision}
        settings.model = str(tmp_path / "model")
    settings.model = "some/model"
    with pytest.raises(ValueError, match="revisions model: 'a{3,}.*', now 'b{3,}"):
        evaluate(settings, Says(gold))


def test_a_claim_that_was_cut_off_is_named(config):
    config = config(**LONGBENCH)
    evaluate(config, Says(gold))
    for name in ("run.json", "units.json"):
        file = Path(config.output_dir, name)
        whole = file.read_text()
        file.write_text(whole[:20])
        with pytest.raises(ValueError, match=f"{name} cannot be read as JSON"):
            evaluate(config, Says(gold))
        file.write_text(whole)


def test_weights_that_changed_are_another_model(config):
    """Of the same size and time, too: what `cp --preserve` leaves of another step's checkpoint."""
    config = config(**LONGBENCH)
    file = Path(config.model, "model.safetensors")
    make_model(seed=1, max_position_embeddings=8192).save_pretrained(config.model)
    evaluate(config, Says(gold))
    before = file.stat()
    make_model(seed=2, max_position_embeddings=8192).save_pretrained(config.model)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert file.stat().st_size == before.st_size
    with pytest.raises(ValueError, match="weight_files model model.safetensors: '"):
        evaluate(config, Says(gold))


def test_what_python_writes_beside_the_code_is_no_code(tmp_path, monkeypatch):
    """Another process may compile the package at this moment."""
    for room in claims.ROOMS:
        (tmp_path / room / "__pycache__").mkdir(parents=True)
        (tmp_path / room / "code.py").write_text("1")
    monkeypatch.setattr(claims, "__file__", str(tmp_path / "evaluation" / "claims.py"))
    before = claims.code.__wrapped__()
    (tmp_path / "data" / "__pycache__" / "code.cpython-311.pyc.140234866").write_text("half")
    assert claims.code.__wrapped__() == before
    (tmp_path / "data" / "code.py").write_text("2")
    assert claims.code.__wrapped__() != before


def test_the_same_model_and_data_are_known_wherever_they_lie(config, tmp_path, monkeypatch):
    config = config(**LONGBENCH)
    make_model(max_position_embeddings=8192).save_pretrained(config.model)
    evaluate(config, Says(gold))
    asked_again = Says(lambda doc: pytest.fail("asked again"))
    for file in Path(config.model).iterdir():
        os.utime(file, (1, 1))
    evaluate(config, asked_again)
    (tmp_path / "link").symlink_to(config.model)
    shutil.copytree(config.model, tmp_path / "copy")
    monkeypatch.chdir(tmp_path)
    for config.model in ("model", "model/", "link", "copy", str(tmp_path / "copy")):
        evaluate(config, asked_again)
    (tmp_path / "longbench_v2").rename(tmp_path / "moved")
    for config.longbench_v2_data in ("moved", "moved/data.json"):
        evaluate(config, asked_again)
    with pytest.raises(ValueError, match=r"longbench_v2_data: 'here', now 'some/data'"):
        claims.claim_run(Path(config.output_dir), replace(config, longbench_v2_data="some/data"), Model(config))
