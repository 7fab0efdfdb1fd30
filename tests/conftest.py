"""A tiny random Qwen3 with a word-level tokenizer, and datasets for it: real parts, small."""

import pytest
import torch
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM


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


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory) -> str:
    """Folder of a tiny random Qwen3 with tokenizer."""
    folder = tmp_path_factory.mktemp("tiny_qwen3")
    make_model().save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return str(folder)


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
