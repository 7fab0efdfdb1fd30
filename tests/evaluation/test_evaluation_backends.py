"""Which model is loaded, how, and with what window."""

import json

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import MambaConfig, Qwen3Config

from helpers.models import make_model, make_tokenizer
from helpers.paths import RECIPES
from longact_trl.evaluation.backends import Model, choose_backend
from longact_trl.evaluation.config import EvaluationConfig
from longact_trl.settings.recipe_yaml import parse_recipe


def config_of(model: str, **kwargs) -> EvaluationConfig:
    return EvaluationConfig(model=model, **{"benchmarks": ["tiny_tasks"], "backend": "transformers"} | kwargs)


def test_a_lora_adapter_is_evaluated_on_its_base_model(tiny_model, tmp_path):
    torch.manual_seed(0)
    model = get_peft_model(make_model(), LoraConfig(r=16, target_modules=["q_proj"], init_lora_weights=False))
    model.save_pretrained(tmp_path)
    adapter = json.loads((tmp_path / "adapter_config.json").read_text())
    (tmp_path / "adapter_config.json").write_text(json.dumps(adapter | {"base_model_name_or_path": tiny_model}))
    config = config_of(str(tmp_path))
    known = Model(config)
    assert (known.base, known.adapter, known.tokenizer, known.lora_rank) == (tiny_model, str(tmp_path), tiny_model, 16)

    ids = torch.arange(10, 20)[None]
    loaded = known.load(config).model
    expected = model.eval()(ids).logits
    torch.testing.assert_close(loaded(ids).logits, expected)
    assert (loaded(ids).logits - make_model().eval()(ids).logits).abs().max() > 1e-3
    make_tokenizer().save_pretrained(tmp_path)
    assert Model(config).tokenizer == str(tmp_path)


def test_the_window_is_what_the_config_says_and_yarn_is_told_how_to_reach_further(tmp_path):
    """As for training and vLLM: YaRN's factor alone opens nothing."""
    yarn = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768, "rope_theta": 1e6}
    ruler = {"benchmarks": ["ruler"], "lengths": [32768, 65536]}
    Qwen3Config(max_position_embeddings=40960, rope_parameters=yarn).save_pretrained(tmp_path)
    with pytest.raises(
        ValueError, match="--lengths 32768`, or write `max_position_embeddings: 131072`, which its YaRN"
    ):
        Model(config_of(str(tmp_path), **ruler))
    Qwen3Config(max_position_embeddings=131072, rope_parameters=yarn).save_pretrained(tmp_path)
    assert Model(config_of(str(tmp_path), **ruler)).window == 131072
    Qwen3Config(max_position_embeddings=40960).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="or stretch it with `yarn`"):
        Model(config_of(str(tmp_path), **ruler))


def test_a_model_without_a_window_needs_one(tmp_path):
    MambaConfig(hidden_size=8, num_hidden_layers=1, vocab_size=32).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="names no window. Give `--max_model_length`"):
        Model(config_of(str(tmp_path)))
    assert Model(config_of(str(tmp_path), max_model_length=512)).window == 512


def test_files_tell_whether_a_folder_still_holds_the_same_model(tiny_model, tmp_path):
    make_model(seed=1).save_pretrained(tmp_path)
    before = Model(config_of(str(tmp_path))).weight_files
    assert list(before) == ["model model.safetensors"]
    make_model(seed=2).save_pretrained(tmp_path)
    assert Model(config_of(str(tmp_path))).weight_files != before


def test_what_the_engine_does_not_take_is_a_message(tiny_model):
    config = config_of(tiny_model, model_args={"enforce_eager": True})  # vLLM's
    with pytest.raises(ValueError, match="model_args=.* got an unexpected keyword argument 'enforce_eager'"):
        Model(config).load(config)


def test_which_backend(tiny_model, monkeypatch):
    assert choose_backend(config_of(tiny_model, backend="auto")) == "vllm"  # the test environment has it
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert choose_backend(config_of(tiny_model, backend="auto")) == "transformers"
    with pytest.raises(ValueError, match="data_parallel_size: N"):
        choose_backend(config_of(tiny_model, backend="vllm"))


def test_the_label_of_a_checkpoint_names_its_run(tiny_model):
    assert config_of("runs/qwen3_8b/checkpoint-40/").label == "qwen3_8b-checkpoint-40"
    assert config_of("Qwen/Qwen3-8B").output_dir == "runs/eval/Qwen3-8B"


@pytest.mark.parametrize(
    ("name", "units"),
    [("eval_paper", 1 + 2 * 13 + 6), ("eval_table_1", 1), ("eval_table_2", 2 * 11), ("eval_table_3", 6)],
)
def test_the_papers_configs_cite_every_value(name, units):
    arguments = ["--config", f"{name}.yaml", "--model", "Qwen/Qwen3-8B"]
    [config] = parse_recipe((EvaluationConfig,), arguments, RECIPES)
    assert (config.temperature, config.seed, config.protocol) == (1.0, 0, "reasoning")
    assert len(config.units()) == units
    assert config.output_dir == f"runs/eval/{name.removeprefix('eval_')}/Qwen3-8B".replace("/paper", "")
    assert set(config.ruler_sources) == {"essays", "squad", "hotpotqa"} and "stand-in" not in str(config.ruler_sources)
    for line in (RECIPES / f"{name}.yaml").read_text(encoding="utf-8").splitlines():
        assert line.startswith(("#", "base:")) or "#" in line or line.endswith(":"), line


@pytest.mark.parametrize("window", [32768, 40960])
@pytest.mark.parametrize("name", ["eval_table_1", "eval_table_2", "eval_table_3"])
def test_a_model_of_32k_or_40k_has_room_for_the_papers_lengths_and_the_thinking(tmp_path, window, name):
    """Base, cold-started and released models; every prompt of its full length, all thinking beside it."""
    Qwen3Config(max_position_embeddings=window).save_pretrained(tmp_path)
    arguments = ["--config", f"{name}.yaml", "--model", str(tmp_path), "--backend", "vllm"]
    [config] = parse_recipe((EvaluationConfig,), arguments, RECIPES)
    limits = {"longbench_v2": 120_000 + 128, "ruler": 131_072, "infinitebench": 127_000 + 1_200}
    [benchmark] = config.benchmarks
    assert limits[benchmark] + config.reasoning_tokens <= Model(config).window == 135_168


def test_dictionaries_may_come_from_the_command_line(tmp_path):
    argv = ["--model", "m", "--model_args", '{"data_parallel_size": 8}', "--ruler_sources", '{"essays": "stand-in"}']
    [config] = parse_recipe((EvaluationConfig,), argv, tmp_path)
    assert config.model_args == {"data_parallel_size": 8} and config.ruler_sources == {"essays": "stand-in"}
