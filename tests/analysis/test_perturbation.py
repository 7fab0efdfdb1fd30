import os
import subprocess
import sys

import pytest
import torch
from conftest import assert_no_hooks, make_decoder, make_model

from longact_trl import measure_magnitudes, perturb_activations, select_rows
from longact_trl.analysis.perturbation import measure_means
from longact_trl.projections import find_projections


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
        assert means[name] == pytest.approx(values.double().mean().item(), rel=1e-6)
    if given:
        means = {name: 7.0 + i for i, name in enumerate(means)}
    with perturb_activations(model, rows, means if given else None):
        clamped = outputs_of(model)
    for name, values in clamped.items():
        assert torch.equal(values[..., ~rows[name]], plain[name][..., ~rows[name]])
        expected = torch.full_like(values[..., rows[name]], means[name])
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
    env = os.environ | {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_CPU_KVCACHE_SPACE": "1", "OMP_NUM_THREADS": "1"}
    env["PYTHONPATH"] = os.pathsep.join(sys.path)  # of pytest, which finds the conftest
    done = subprocess.run(
        [sys.executable, __file__], capture_output=True, text=True, timeout=300, env=env, check=False
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    assert "SAME" in done.stdout


def compare_engines() -> None:
    """In a process of its own: a vLLM engine keeps what it has until that ends."""
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from vllm import LLM, SamplingParams

    from longact_trl.data.synthetic import make_dataset
    from longact_trl.quickstart import MODEL

    model = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    rows_of = make_dataset(12, seed=1)
    prompts = tokenizer.apply_chat_template(rows_of["prompt"][:], add_generation_prompt=True, return_dict=False)
    batches = [{"input_ids": torch.tensor([ids])} for ids in prompts]
    magnitudes = measure_magnitudes(model, batches[0])
    means = measure_means(model, batches)
    llm = LLM(str(MODEL), dtype="float32", enforce_eager=True, max_model_len=512)

    def with_vllm() -> list[list[int]]:
        sampling = SamplingParams(temperature=0, max_tokens=24)
        outputs = llm.generate([{"prompt_token_ids": ids} for ids in prompts], sampling, use_tqdm=False)
        return [list(output.outputs[0].token_ids) for output in outputs]

    def with_transformers() -> list[list[int]]:
        greedy = {"do_sample": False, "max_new_tokens": 24}
        return [model.generate(**b, **greedy)[0, b["input_ids"].shape[1] :].tolist() for b in batches]

    answers = {}
    for strategy in ("massive", "min", "massive"):  # the prompts repeat: a cached prefix must not survive
        rows = {name: select_rows(m, 0.3, strategy) for name, m in magnitudes.items()}
        with perturb_activations(llm, rows, means):
            theirs = with_vllm()
        with perturb_activations(model, rows, means):
            answers[strategy] = with_transformers()
        assert theirs == answers[strategy], (strategy, theirs, answers[strategy])
    plain = with_vllm()
    assert plain == with_transformers()
    assert plain != answers["massive"] != answers["min"]
    print("SAME")


if __name__ == "__main__":
    compare_engines()
