"""A tiny random Qwen3 with a word-level tokenizer, and datasets for it: real parts, small."""

import shutil
from collections import namedtuple
from pathlib import Path

import datasets
import huggingface_hub
import pytest
import torch
import yaml
from data_helpers import byte_tokenizer
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    CONFIG_MAPPING,
    AutoModelForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from longact_trl import LongActConfig, LongActTrainer
from longact_trl.packing.layout import PackedLayout, plan
from longact_trl.quickstart import MODEL
from longact_trl.training import shared_prefix


WORDS = ["<pad>", "<|im_start|>", "<|im_end|>", "<think>", "</think>", "<answer>", "</answer>", "user", "assistant"]
WORDS += [f"w{i}" for i in range(55)]
CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|> {{ m.role }} {{ m.content }} <|im_end|> {% endfor %}"
    "{% if add_generation_prompt %}<|im_start|> assistant {% endif %}"
)


def make_tokenizer() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<|im_end|>", chat_template=CHAT_TEMPLATE
    )


def make_model(seed: int = 0, **kwargs) -> Qwen3ForCausalLM:
    torch.manual_seed(seed)
    sizes = dict(hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, head_dim=32)
    sizes |= dict(num_key_value_heads=2, vocab_size=len(WORDS), max_position_embeddings=256, eos_token_id=2)
    return Qwen3ForCausalLM(Qwen3Config(**{**sizes, **kwargs}))


DECODER_SIZES = {
    "vocab_size": 48,
    "hidden_size": 48,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
}


def make_decoder(model_type: str, seed: int = 0, **kwargs) -> PreTrainedModel:
    """A tiny random decoder of any architecture; head_dim 16 in Qwen3, 8 elsewhere."""
    torch.manual_seed(seed)
    sizes = DECODER_SIZES | ({"head_dim": 16} if model_type == "qwen3" else {}) | kwargs
    return AutoModelForCausalLM.from_config(CONFIG_MAPPING[model_type](**sizes))


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Each test has a datasets cache of its own."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    return tmp_path / "cache"


@pytest.fixture
def tokenizer() -> PreTrainedTokenizerFast:
    """One token a byte: real text, long prompts."""
    return byte_tokenizer()


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory) -> str:
    """Folder of a tiny random Qwen3 with tokenizer."""
    folder = tmp_path_factory.mktemp("tiny_qwen3")
    make_model().save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def no_weights(tmp_path_factory) -> Path:
    """A model folder with everything but weights: whoever loads them gets an OSError, not a ValueError."""
    folder = tmp_path_factory.mktemp("no_weights")
    config = make_model().config
    config.architectures = ["Qwen3ForCausalLM"]
    config.save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder


def make_prompts() -> Dataset:
    """16 prompts of different lengths."""
    contents = [" ".join(f"w{(7 * i + j) % 55}" for j in range(4 + i)) for i in range(16)]
    return Dataset.from_dict({"prompt": [[{"role": "user", "content": c}] for c in contents]})


@pytest.fixture(scope="session")
def prompts() -> Dataset:
    return make_prompts()


def spread_reward(completions, **kwargs) -> list[float]:
    """A reward that differs between the completions of a group, so that gradients are not zero."""
    return [float(sum(map(ord, str(c))) % 7) for c in completions]


def make_args(output_dir, config_class=LongActConfig, **kwargs) -> LongActConfig:
    """Settings of a run that takes a fraction of a second: float32 on the CPU, 4 completions of 6 tokens a step."""
    settings = {
        "use_cpu": True,
        "bf16": False,
        "per_device_train_batch_size": 4,
        "num_generations": 4,
        "max_completion_length": 6,
        "max_steps": 3,
        "learning_rate": 1e-2,
        "lr_scheduler_type": "constant",
        "gradient_checkpointing": False,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
    }
    return config_class(str(output_dir), **{**settings, **kwargs})


def make_trainer(
    output_dir,
    model: PreTrainedModel | str | None = None,
    trainer_class=LongActTrainer,
    reward=spread_reward,
    **kwargs,
) -> LongActTrainer:
    """
    A trainer of the tiny Qwen3 with one reward or a list of them; `kwargs` are the trainer's arguments where it has
    them, else training arguments.
    """
    names = ("eval_dataset", "peft_config", "callbacks", "optimizers")
    extra = {name: kwargs.pop(name) for name in names if name in kwargs}
    return trainer_class(
        make_model() if model is None else model,
        reward if isinstance(reward, list) else [reward],
        make_args(output_dir, **kwargs),
        make_prompts(),
        processing_class=make_tokenizer(),
        **extra,
    )


def weights_of(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Copies of all parameters."""
    return {name: param.detach().clone() for name, param in model.named_parameters()}


def assert_no_hooks(model: torch.nn.Module) -> None:
    """No hook of ours is left on any parameter or module; transformers leaves one of its own on the embedding."""
    for name, param in model.named_parameters():
        assert not param._backward_hooks, name
        assert not param._post_accumulate_grad_hooks, name
    for name, module in model.named_modules():
        hooks = [*module._forward_hooks.values(), *module._forward_pre_hooks.values()]
        assert not [hook for hook in hooks if hook.__module__.startswith("longact_trl")], name


@pytest.fixture
def packed(monkeypatch) -> list[PackedLayout]:
    """Every layout that was planned: a test that compares the plain path with itself would be of no use."""
    layouts = []

    def noting(*args):
        layouts.append(plan(*args))
        return layouts[-1]

    monkeypatch.setattr(shared_prefix, "plan", noting)
    return layouts


# For longact check

GOOD_CONFIG = {
    "model_name_or_path": str(MODEL),
    "mixture": "data.yaml",
    "use_cpu": True,
    "per_device_train_batch_size": 16,
    "num_generations": 8,
    "max_completion_length": 40,
    "gradient_accumulation_steps": 1,
    "attn_implementation": "sdpa",
    "save_total_limit": 1,
    "report_to": "none",
}
DISK_USAGE = namedtuple("DiskUsage", "total used free")


@pytest.fixture
def offline_machine(monkeypatch):
    """Offline, enough disk and nobody logged in, whatever the machine."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: DISK_USAGE(10**16, 0, 10**16))
    for name in ("WANDB_MODE", "WANDB_API_KEY", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", "/dev/null")
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)


@pytest.fixture
def write(tmp_path):
    """Write a configuration for `longact check` that differs from the good one, and return its path."""
    (tmp_path / "data.yaml").write_text(
        yaml.safe_dump({"seed": 0, "sources": [{"loader": "tiny_tasks", "num_prompts": 90}]})
    )

    def write_config(**changes) -> str:
        data = {**GOOD_CONFIG, "mixture": str(tmp_path / "data.yaml"), "output_dir": str(tmp_path / "run"), **changes}
        path = tmp_path / "config.yaml"
        path.write_text(yaml.safe_dump({name: value for name, value in data.items() if value is not None}))
        return str(path)

    return write_config
