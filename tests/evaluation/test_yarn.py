"""YaRN as an option of an evaluation: a window that transformers and vLLM agree on, the model left as it is."""

import json
import re
from importlib.util import find_spec
from pathlib import Path

import pytest
from transformers import AutoConfig, LlamaConfig, Qwen3Config

from helpers.evaluation import Says, gold, make_config
from helpers.models import make_model
from longact_trl.evaluation.backends import Model
from longact_trl.evaluation.run import evaluate
from longact_trl.evaluation.yarn import stretched
from longact_trl.models.reading import WINDOW_FIELDS, window_of, yarn_reach


YARN = {"factor": 4.0, "original_max_position_embeddings": 32768}


@pytest.mark.parametrize("window", [32768, 40960])
def test_a_window_of_32k_or_40k_reads_128k(window):
    own = Qwen3Config(max_position_embeddings=window)
    config = stretched(own, YARN)
    assert (window_of(config), yarn_reach(config)) == (131072, 131072)
    assert config.rope_parameters == own.rope_parameters | {"rope_type": "yarn"} | YARN
    assert (window_of(own), own.rope_parameters["rope_type"]) == (window, "default")


@pytest.mark.parametrize(
    ("yarn", "named"),
    [
        ({"factor": 4.0}, "must name the two numbers of YaRN"),
        ({"factor": 0.5, "original_max_position_embeddings": 8}, "must name the two numbers"),
        ({"factor": "4", "original_max_position_embeddings": 8}, "must name the two numbers"),
        (YARN | {"type": "yarn"}, "must name the two numbers"),
        ("{factor: 4}", "is not JSON"),
        (
            {"factor": 1.5, "original_max_position_embeddings": 4096},
            "a window of 6144 tokens; the model has 8192",
        ),
    ],
)
def test_mistakes(tmp_path, yarn, named):
    with pytest.raises(ValueError, match=named):
        Model(make_config(tmp_path, yarn=yarn))


def test_positions_that_are_scaled_already_are_not_scaled_again():
    with pytest.raises(ValueError, match="yarn needs a model with plain rotary positions"):
        stretched(stretched(Qwen3Config(), YARN), YARN | {"factor": 8.0})
    llama3 = {"rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0, "original_max_position_embeddings": 8192}
    llama3 |= {"low_freq_factor": 1.0, "high_freq_factor": 4.0}
    with pytest.raises(ValueError, match="yarn needs a model with plain rotary positions"):
        stretched(LlamaConfig(max_position_embeddings=131072, rope_parameters=llama3), YARN | {"factor": 8.0})


def test_results_say_so_and_the_model_stays_as_it_is(tmp_path):
    settings = {"benchmarks": ["ruler"], "tasks": ["vt"], "lengths": [16384], "num_samples": 1}
    with pytest.raises(ValueError, match="RULER at 16384 tokens does not fit the window .* or stretch it with `yarn`"):
        evaluate(make_config(tmp_path, **settings), Says(gold))
    yarn = {"factor": 4.0, "original_max_position_embeddings": 8192}
    config = make_config(tmp_path, **settings, yarn=yarn)
    before = Path(config.model, "config.json").read_text()
    results = evaluate(config, Says(gold))
    assert (results["yarn"], results["max_model_length"], results["units"][0]["score"]) == (yarn, 32768, 100.0)
    assert Path(config.model, "config.json").read_text() == before
    with pytest.raises(ValueError, match="holds a run with other settings .*yarn"):
        evaluate(make_config(tmp_path, **settings, yarn=yarn | {"factor": 8.0}), Says(gold))


def test_the_copy_is_what_is_loaded(tmp_path):
    """With weights, by transformers: links to the model's files beside a config.json of its own."""
    settings = {"benchmarks": ["tiny_tasks"], "yarn": {"factor": 4.0, "original_max_position_embeddings": 8192}}
    config = make_config(tmp_path, **settings)
    make_model(max_position_embeddings=8192).save_pretrained(config.model)
    loaded = Model(config).load(config)
    copy = Path(config.output_dir, "model")
    assert loaded.model.config.rope_parameters["rope_type"] == "yarn"
    assert loaded.model.model.rotary_emb.attention_scaling == pytest.approx(1.1386, abs=1e-4)  # 0.1 ln 4 + 1
    assert window_of(AutoConfig.from_pretrained(copy)) == 32768
    assert (copy / "model.safetensors").resolve() == Path(config.model, "model.safetensors").resolve()
    assert "yarn" not in Path(config.model, "config.json").read_text()
    assert json.loads((copy / "config.json").read_text())["architectures"] == ["Qwen3ForCausalLM"]


def test_the_copy_never_replaces_a_model(tmp_path):
    """`--model runs/a/model --output_dir runs/a`, for one."""
    yarn = {"factor": 4.0, "original_max_position_embeddings": 8192}
    config = make_config(tmp_path, benchmarks=["tiny_tasks"], output_dir=str(tmp_path), yarn=yarn)
    make_model(max_position_embeddings=8192).save_pretrained(config.model)
    with pytest.raises(ValueError, match="would replace .*model, which holds .*: give another `output_dir`"):
        Model(config).load(config)
    assert Path(config.model, "model.safetensors").is_file()


def test_at_128k_thinking_takes_nothing_from_the_prompt(tmp_path):
    """With a window of the length and the thinking together, prompts are as long as without thinking."""
    lengths = {}
    for protocol, factor in (("official", 2.0), ("reasoning", 2.5), ("reasoning", 2.0)):
        yarn = {"factor": factor, "original_max_position_embeddings": 8192}
        settings = {"benchmarks": ["ruler"], "tasks": ["vt"], "lengths": [16384], "num_samples": 1, "yarn": yarn}
        settings |= {"protocol": protocol, "output_dir": str(tmp_path / f"{protocol}{factor}")}
        lm = Says(gold)
        evaluate(make_config(tmp_path, **settings), lm)
        lengths[protocol, factor] = lm.requests[0].doc["prompt_tokens"]
    assert lengths["reasoning", 2.5] == pytest.approx(lengths["official", 2.0], rel=0.02)
    assert lengths["reasoning", 2.0] < 0.8 * lengths["official", 2.0]


@pytest.mark.parametrize(
    ("fields", "window"),
    [({"seq_len": 512}, 512), ({"model_max_length": 512}, 512), ({"model_max_length": 131072}, 131072)],
)
def test_a_window_by_any_name_that_vllm_knows(fields, window):
    assert window_of(Qwen3Config(max_position_embeddings=8192, **fields)) == window
    source = Path(find_spec("vllm").origin).parent / "transformers_utils" / "model_arch_config_convertor.py"
    keys = source.read_text(encoding="utf-8").partition("possible_keys = [")[2].partition("]")[0]
    assert set(re.findall(r'"(\w+)"', keys)) == set(WINDOW_FIELDS)
