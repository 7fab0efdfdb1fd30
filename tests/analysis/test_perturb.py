import json

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from helpers.weights import assert_no_hooks
from longact_trl import measure_magnitudes, select_rows
from longact_trl.analysis.perturb.answer_study import generate, study_answers
from longact_trl.analysis.perturb.calibration import CONDITIONS, calibrate
from longact_trl.analysis.perturb.loss_study import losses, study_losses
from longact_trl.analysis.perturb.perturbation import perturb_activations
from longact_trl.analysis.questions import FACTS, make_questions
from longact_trl.analysis.texts import built_in_texts
from longact_trl.cli import app
from longact_trl.method.projections import find_projections
from longact_trl.models.reading import load_model, load_tokenizer
from longact_trl.quickstart import MODEL


KINDS = ("q", "k")


@pytest.fixture(scope="module")
def embedded():
    """The embedded model, its tokenizer, and questions that it was trained on."""
    tokenizer = load_tokenizer(str(MODEL))
    return load_model(str(MODEL)), tokenizer, make_questions(FACTS, tokenizer, 24, 0)


def test_calibration_is_eq_2_over_sequences_and_the_mean_over_tokens(embedded):
    model, _, questions = embedded
    sequences = [torch.tensor(q.input_ids) for q in questions[:3]]
    assert len({len(ids) for ids in sequences}) > 1
    calibration = calibrate(model, sequences, KINDS)
    alone = [measure_magnitudes(model, {"input_ids": ids[None]}) for ids in sequences]
    for name, magnitude in calibration.magnitudes.items():
        mean = torch.stack([m[name].double() for m in alone]).mean(0)
        torch.testing.assert_close(magnitude.double(), mean, rtol=1e-6, atol=0)
    assert calibration.means.keys() == calibration.magnitudes.keys()
    seen: dict[str, list[torch.Tensor]] = {}
    for projection in find_projections(model, KINDS):
        noting = seen.setdefault(projection.name, [])
        projection.module.register_forward_hook(lambda m, a, output, noting=noting: noting.append(output))
    with torch.no_grad():
        for ids in sequences:
            model(input_ids=ids[None])
    for projection in find_projections(model, KINDS):
        projection.module._forward_hooks.clear()
    for name, outputs in seen.items():
        own = torch.tensor([output.double().mean() for output in outputs], dtype=torch.float64)
        torch.testing.assert_close(calibration.clamp_values("sample", [0, 1, 2])[name], own, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(calibration.clamp_values("sample", [2])[name], own[2:], rtol=1e-9, atol=1e-12)
        pooled = torch.cat([output.double().flatten() for output in outputs]).mean()
        torch.testing.assert_close(calibration.clamp_values("pooled")[name], pooled, rtol=1e-9, atol=1e-12)
    assert_no_hooks(model)


def test_rows_of_each_condition(embedded):
    model, _, questions = embedded
    calibration = calibrate(model, [torch.tensor(questions[0].input_ids)], KINDS)
    assert calibration.rows("none", 0.3) == {}
    for name, magnitude in calibration.magnitudes.items():
        assert torch.equal(calibration.rows("top", 0.3)[name], select_rows(magnitude, 0.3, "massive"))
        assert torch.equal(calibration.rows("bottom", 0.3)[name], select_rows(magnitude, 0.3, "min"))
        assert torch.equal(calibration.rows("random", 0.3, 1)[name], calibration.rows("random", 0.3, 1)[name])
        assert not torch.equal(calibration.rows("random", 0.3, 1)[name], calibration.rows("random", 0.3, 2)[name])
    first, second = list(calibration.rows("random", 0.3).values())[:3:2]
    assert not torch.equal(first, second)  # of two layers: drawn anew for each


def test_losses_are_those_of_the_model(embedded):
    model, tokenizer, _ = embedded
    chunks = list(built_in_texts(tokenizer, 320)["facts"].split(64))  # 5: more than a batch, and not whole batches
    expected = [model(input_ids=c[None], labels=c[None]).loss.item() for c in chunks]
    assert losses(model, chunks) == pytest.approx(expected, rel=1e-5)


def test_a_loss_study(embedded):
    model, tokenizer, _ = embedded
    texts = {"facts": list(built_in_texts(tokenizer, 256)["facts"].split(64))}
    study = study_losses(model, texts, KINDS, [0.1, 0.3], 0.3, num_seeds=2)
    assert len(study.by_chunk) == 7 and all(len(chunks) == 4 for chunks in study.by_chunk.values())
    calibration = calibrate(model, texts["facts"], KINDS)
    runs = []
    for seed in range(2):
        with perturb_activations(model, calibration.rows("random", 0.3, seed), calibration.clamp_values()):
            runs.append(losses(model, texts["facts"]))
    expected = torch.tensor(runs).mean(0)
    torch.testing.assert_close(torch.tensor(study.by_chunk["facts", "random", 0.3]), expected)
    mean, none = study.mean("facts", "top", 0.3), study.mean("facts", "none", 0.3)
    assert mean.low < mean.value < mean.high
    assert study.gap("facts", "none", "top", 0.3).value == pytest.approx(mean.value - none.value, abs=1e-5)


def test_batches_do_not_show_in_clamped_answers(embedded):
    """Padding and neighbours: each answer is that of its prompt alone."""
    model, tokenizer, questions = embedded
    questions = questions[:6]
    calibration = calibrate(model, [torch.tensor(q.input_ids) for q in questions], KINDS)
    for condition, clamp in (("none", "sample"), ("top", "sample"), ("top", "pooled")):
        rows = calibration.rows(condition, 0.3)
        with perturb_activations(model, rows, calibration.clamp_values(clamp, range(6))):
            together = generate(model, tokenizer, questions)
        for i, question in enumerate(questions):
            with perturb_activations(model, rows, calibration.clamp_values(clamp, [i])):
                assert generate(model, tokenizer, [question]) == [together[i]]


def test_each_question_is_clamped_to_its_own_mean(embedded):
    """`study_answers` sorts questions into batches: each must take its own value along."""
    model, tokenizer, questions = embedded
    calibration = calibrate(model, [torch.tensor(q.input_ids) for q in questions], KINDS)
    far_apart = torch.linspace(-9, 9, len(questions), dtype=torch.float64)  # true means differ too little to show
    calibration.means = dict.fromkeys(calibration.means, far_apart)
    answers = study_answers(model, tokenizer, questions, calibration, 0.3, conditions=["top"])["top"]
    for i in (0, 7, 23):
        with perturb_activations(model, calibration.rows("top", 0.3), calibration.clamp_values("sample", [i])):
            [tokens] = generate(model, tokenizer, [questions[i]])
        assert tokenizer.decode(tokens, skip_special_tokens=True) == answers.completions[i]


def test_the_top_channels_carry_the_task(embedded):
    model, tokenizer, questions = embedded
    calibration = calibrate(model, [torch.tensor(q.input_ids) for q in questions], KINDS)
    answers = study_answers(model, tokenizer, questions, calibration, 0.3)
    assert list(answers) == list(CONDITIONS)
    accuracy = {condition: a.accuracy for condition, a in answers.items()}
    assert accuracy["none"].value > 0.6 and accuracy["top"].high < accuracy["bottom"].low
    assert answers["top"].longest_repeat > 2 * answers["none"].longest_repeat
    assert answers["top"].distinct_2 < answers["bottom"].distinct_2
    assert_no_hooks(model)


def test_the_command(tmp_path):
    options = ["--task", "facts", "--num-prompts", "4", "--text-length", "256", "--output", str(tmp_path)]
    done = CliRunner().invoke(app, ["perturb", str(MODEL), *options], catch_exceptions=False)
    assert done.exit_code == 0
    summary = json.loads((tmp_path / "perturb.json").read_text())
    assert list(summary["losses"]["facts"]["top"]) == ["0.05", "0.1", "0.2", "0.3", "0.4", "0.5"]
    assert list(summary["answers"]) == list(CONDITIONS) and len(summary["answers"]["top"]["completions"]) == 4
    report = (tmp_path / "perturb.md").read_text()
    rows = [line for line in report.splitlines() if line.startswith("| top")]
    assert len(rows) == 1 and rows[0].count("|") == 8
    assert "4 questions, greedy; clamped to the mean of the layer's Q or K on the question's own prompt." in report
    assert summary["settings"]["clamp"] == "sample" and summary["settings"]["temperature"] == 0
    assert "## Answers side by side" in report and "| facts |" in report
    assert Image.open(tmp_path / "perturb.png").width == 1500
