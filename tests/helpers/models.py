"""Tiny random models, and a word-level tokenizer for them: real parts, small."""

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    CONFIG_MAPPING,
    AutoModelForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
)


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
