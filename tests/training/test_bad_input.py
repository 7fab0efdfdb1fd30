"""What a user gets wrong: a clear ValueError, before the weights are loaded. The model folder has none."""

import json
from pathlib import Path

import pytest
import trl.import_utils as trl_imports
from datasets import Dataset, IterableDataset
from peft import LoraConfig
from transformers import MambaConfig

from helpers.models import make_model, make_tokenizer
from helpers.trainers import make_args, make_prompts, make_trainer, spread_reward
from longact_trl import LongActTrainer, answer_reward, format_reward
from longact_trl.method.frozen_rows import check_deepspeed_optimizer
from longact_trl.training.preflight import check_vllm, prompt_window


def with_config(folder: Path, target: Path, **changes) -> Path:
    target.mkdir()
    make_tokenizer().save_pretrained(target)
    config = json.loads((folder / "config.json").read_text())
    (target / "config.json").write_text(json.dumps({**config, **changes}))
    return target


def test_the_folder_has_no_weights(tmp_path, no_weights):
    with pytest.raises(OSError, match="no file named"):
        LongActTrainer(str(no_weights), spread_reward, make_args(tmp_path), make_prompts())


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"sparsity_ratio": 0}, r"`sparsity_ratio` must be in \(0, 1\], got 0\. The smallest usable value"),
        ({"sparsity_ratio": -0.3}, r"must be in \(0, 1\], got -0.3"),
        ({"sparsity_ratio": 1.5}, r"must be in \(0, 1\], got 1.5"),
        ({"sparsity_ratio": 30}, r"must be in \(0, 1\], got 30"),
        ({"strategy": "top"}, "Unknown `strategy` 'top'. Write one of 'massive', 'min', 'random', 'dense'"),
        ({"update_rule": "freeze"}, "Unknown `update_rule` 'freeze'. Write one of 'masked_gradient', 'frozen_rows'"),
        ({"saliency_source": "next"}, "Unknown `saliency_source` 'next'. Write one of 'current_batch'"),
        ({"heatmap_steps": -1}, "`heatmap_steps` must be 0"),
        ({"update_rule": "frozen_rows", "optim": "adafactor"}, "optim='adafactor'.*Write one of adamw_torch"),
        ({"num_generations": 3}, r"\(4\) must be divisible by num_generations \(3\)"),
        ({"fsdp": True, "fsdp_config": {"version": 1}}, "FSDP1 flattens.*FSDP2.*ZeRO-3"),
    ],
    ids=str,
)
def test_training_arguments(tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        make_args(tmp_path, **settings)


@pytest.mark.parametrize("version", [None, "1"])
def test_fsdp1_from_accelerate_launch(tmp_path, monkeypatch, version):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    if version:
        monkeypatch.setenv("FSDP_VERSION", version)
    with pytest.raises(ValueError, match="FSDP1 flattens.*FSDP2.*ZeRO-3"):
        make_args(tmp_path)


def test_fsdp2_from_accelerate_launch(tmp_path, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    monkeypatch.setenv("FSDP_VERSION", "2")
    make_args(tmp_path)


def test_a_ratio_that_selects_no_channel_of_this_model(tmp_path, no_weights):
    args = make_args(tmp_path, sparsity_ratio=0.03)
    with pytest.raises(ValueError, match=r"selects none of the 32 channels.*smallest usable value is 0.0313"):
        LongActTrainer(str(no_weights), spread_reward, args, make_prompts())
    with pytest.raises(OSError, match="no file named"):  # dense needs no ratio
        args = make_args(tmp_path, sparsity_ratio=0.03, strategy="dense")
        LongActTrainer(str(no_weights), spread_reward, args, make_prompts())


def test_a_model_without_query_and_key_projections(tmp_path):
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "vocab_size": 64}
    MambaConfig(**sizes, architectures=["MambaForCausalLM"]).save_pretrained(tmp_path / "model")
    make_tokenizer().save_pretrained(tmp_path / "model")
    with pytest.raises(ValueError, match="MambaForCausalLM has no attention layer, so there is no W_Q and no W_K"):
        LongActTrainer(str(tmp_path / "model"), spread_reward, make_args(tmp_path / "out"), make_prompts())


def test_quantised_weights_without_an_adapter(tmp_path, no_weights):
    quantization = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    folder = str(with_config(no_weights, tmp_path / "quantised", quantization_config=quantization))
    with pytest.raises(ValueError, match="quantised and cannot be trained. Pass a `peft_config`"):
        LongActTrainer(folder, spread_reward, make_args(tmp_path), make_prompts())
    with pytest.raises((OSError, ImportError)):  # with one, loading begins
        peft_config = LoraConfig(target_modules=["q_proj", "k_proj"])
        LongActTrainer(folder, spread_reward, make_args(tmp_path), make_prompts(), peft_config=peft_config)


def test_frozen_projections(tmp_path):
    model = make_model()
    for layer in model.model.layers:
        layer.self_attn.q_proj.requires_grad_(False)
    with pytest.raises(ValueError, match="layers.0.self_attn.q_proj has no trainable parameter"):
        make_trainer(tmp_path, model)


def test_an_adapter_that_leaves_the_projections_out(tmp_path):
    with pytest.raises(ValueError, match="q_proj has no trainable parameter.*`target_modules` include it"):
        make_trainer(tmp_path, peft_config=LoraConfig(target_modules=["v_proj"], r=2))


def test_dense_takes_an_adapter_that_leaves_them_out_as_grpo_does(tmp_path):
    adapter = LoraConfig(target_modules=["q_proj", "v_proj"], r=2)
    trainer = make_trainer(tmp_path, strategy="dense", peft_config=adapter, max_steps=1)
    trainer.train()
    assert trainer.state.global_step == 1


def test_the_evaluation_set_is_checked_and_fitted_too(tmp_path):
    with pytest.raises(ValueError, match="no column 'prompt', which GRPO reads"):
        make_trainer(tmp_path, eval_dataset=make_prompts().rename_column("prompt", "question"))
    long = Dataset.from_dict({"prompt": [[{"role": "user", "content": "w1 " * 300}], make_prompts()[0]["prompt"]]})
    trainer = make_trainer(tmp_path, eval_dataset={"long": long, "short": make_prompts()})
    assert {name: len(rows) for name, rows in trainer.eval_dataset.items()} == {"long": 1, "short": 16}


def test_a_stream_cannot_be_measured_ahead(tmp_path):
    stream = make_prompts().to_iterable_dataset()
    args = make_args(tmp_path, prompt_length_policy="error")
    with pytest.raises(ValueError, match="`prompt_length_policy='error'` needs prompts that can be measured ahead"):
        LongActTrainer(make_model(), [spread_reward], args, stream, processing_class=make_tokenizer())


def needs_two_columns(completions, answer, difficulty, weight=1.0, **kwargs):
    return [0.0] * len(completions)


@pytest.mark.parametrize(
    "dataset, rewards, message",
    [
        (None, [spread_reward], "training dataset is empty"),
        (Dataset.from_dict({"prompt": []}), [spread_reward], "training dataset is empty"),
        (make_prompts().rename_column("prompt", "question"), [spread_reward], "no column 'prompt', which GRPO reads"),
        (make_prompts(), [answer_reward], "no column 'answer', which the reward function `answer_reward` reads"),
        (make_prompts(), [format_reward, answer_reward], "It has 'prompt': rename one with"),
        (make_prompts(), answer_reward, "no column 'answer'"),
        (
            make_prompts().add_column("answer", ["a"] * 16),
            [needs_two_columns],
            "no column 'difficulty', which the reward function `needs_two_columns` reads",
        ),
    ],
    ids=["none", "empty", "no_prompt", "no_answer", "two_rewards", "bare_reward", "own_reward"],
)
def test_the_dataset(tmp_path, no_weights, dataset, rewards, message):
    with pytest.raises(ValueError, match=message):
        LongActTrainer(str(no_weights), rewards, make_args(tmp_path), dataset)


def test_a_complete_dataset_passes(tmp_path, no_weights):
    dataset = make_prompts().add_column("answer", ["a"] * 16)
    stream = IterableDataset.from_generator(lambda: iter(dataset))
    for data in (dataset, stream):
        with pytest.raises(OSError, match="no file named"):
            LongActTrainer(str(no_weights), [format_reward, answer_reward], make_args(tmp_path), data)


def install_vllm(monkeypatch, version: str | None) -> None:
    """What TRL finds when it asks for vLLM."""
    found = (False, "N/A") if version is None else (True, version)
    monkeypatch.setattr(trl_imports, "_is_package_available", lambda name, return_version: found)


@pytest.mark.parametrize("version", ["0.10.0", "99.0"])
def test_vllm_that_trl_does_not_support(tmp_path, no_weights, monkeypatch, version):
    install_vllm(monkeypatch, version)
    with pytest.raises(ValueError, match=rf'{version}.*pip install "longact-trl\[vllm\]"'):
        LongActTrainer(str(no_weights), spread_reward, make_args(tmp_path, use_vllm=True), make_prompts())


def test_vllm_missing(tmp_path, no_weights, monkeypatch):
    install_vllm(monkeypatch, None)
    with pytest.raises(ValueError, match=r'vLLM is not installed. Run `pip install "longact-trl\[vllm\]"`'):
        LongActTrainer(str(no_weights), spread_reward, make_args(tmp_path, use_vllm=True), make_prompts())


def test_vllm_that_trl_supports(tmp_path, monkeypatch):
    install_vllm(monkeypatch, "0.31.0")
    check_vllm(make_args(tmp_path, use_vllm=True))
    install_vllm(monkeypatch, None)
    check_vllm(make_args(tmp_path, use_vllm=False))


@pytest.mark.parametrize(
    "settings, message",
    [
        (
            {"model_init_kwargs": {"rope_parameters": {"rope_type": "yarn"}}},
            "sets rope_parameters for the trainer alone",
        ),
        ({"vllm_max_model_length": 300}, "`vllm_max_model_length`=300 is more than .*max_position_embeddings=256"),
    ],
    ids=["rope", "window"],
)
def test_positions_that_vllm_would_not_share(tmp_path, no_weights, monkeypatch, settings, message):
    install_vllm(monkeypatch, "0.31.0")
    args = make_args(tmp_path, use_vllm=True, vllm_mode="colocate", **settings)
    with pytest.raises(ValueError, match=message):
        LongActTrainer(str(no_weights), spread_reward, args, make_prompts())


def test_an_output_directory_of_another_run(tmp_path):
    (tmp_path / "checkpoint-50").mkdir()
    with pytest.raises(ValueError, match="holds another run's checkpoint-50.*resume_from_checkpoint='auto'"):
        make_trainer(tmp_path).train()


@pytest.mark.parametrize("length", [256, 1000])
def test_completions_that_fill_the_window(tmp_path, length):
    config = make_model().config
    with pytest.raises(ValueError, match=f"`max_completion_length`={length} leaves no room for a prompt.* 256 tokens"):
        prompt_window(config, make_args(tmp_path, max_completion_length=length))
    assert prompt_window(config, make_args(tmp_path, max_completion_length=255)) == 1


def test_completions_that_fill_vllms_window(tmp_path):
    config = make_model().config
    args = make_args(tmp_path, max_completion_length=64, use_vllm=True, vllm_max_model_length=64)
    with pytest.raises(ValueError, match="leaves no room.* 64 tokens"):
        prompt_window(config, args)
    args.vllm_max_model_length = 100
    assert prompt_window(config, args) == 36
    args.vllm_max_model_length = 10_000
    assert prompt_window(config, args) == 192


def test_a_prompt_longer_than_the_window(tmp_path, no_weights):
    long = Dataset.from_dict({"prompt": [[{"role": "user", "content": "w1 " * 300}]] * 4})
    with pytest.raises(ValueError, match="Longer than the window of 250 tokens: 4 of 4 prompts"):
        LongActTrainer(str(no_weights), spread_reward, make_args(tmp_path, prompt_length_policy="error"), long)
    with pytest.raises(ValueError, match="none is left"):
        LongActTrainer(str(no_weights), spread_reward, make_args(tmp_path), long)
    with pytest.raises(ValueError, match="Unknown `prompt_length_policy` 'cut'"):
        make_args(tmp_path, prompt_length_policy="cut")


def test_a_deepspeed_config_with_an_optimizer_that_decays():
    config = {"optimizer": {"type": "AdamW", "params": {"weight_decay": "auto"}}}
    check_deepspeed_optimizer(config, weight_decay=0.0)
    with pytest.raises(ValueError, match="The DeepSpeed config has an `optimizer` with weight decay"):
        check_deepspeed_optimizer(config, weight_decay=0.1)
