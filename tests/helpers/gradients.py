"""Gradients of a plain backward pass, and masks put on them by hand."""

import torch
from peft import LoraConfig, get_peft_model

from longact_trl.method.projections import find_projections

from .models import make_decoder


def lora(model_type: str = "qwen3", **kwargs):
    model = make_decoder(model_type)
    config = LoraConfig(target_modules=["q_proj", "k_proj", "v_proj"], r=2, init_lora_weights=False, **kwargs)
    model = get_peft_model(model, config)
    model.enable_input_require_grads()
    return model


MASKED_PARAMETERS = {  # of each Q or K projection, as the user of that model would list them
    "qwen3": ["weight"],
    "qwen2": ["weight", "bias"],
    "phi3": ["weight"],
    "lora": ["lora_B.default.weight"],
    "lora_bias": ["lora_B.default.weight", "lora_B.default.bias"],
    "dora": ["lora_B.default.weight", "lora_magnitude_vector.default.weight"],
    "lora_and_bias": ["lora_B.default.weight", "base_layer.bias"],
}


CHECKPOINTING = [None, {"use_reentrant": False}, {"use_reentrant": True}]


def random_masks(projections, seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {p.name: torch.rand(p.num_heads * p.head_dim, generator=generator) < 0.3 for p in projections}


def accumulate(model, checkpointing: dict | None = None, num_batches: int = 2) -> dict[str, torch.Tensor]:
    """Gradients of all trainable parameters after some micro-batches."""
    if checkpointing:
        model.gradient_checkpointing_enable(checkpointing)
    model.train()
    generator = torch.Generator().manual_seed(1)
    for _ in range(num_batches):
        ids = torch.randint(1, 48, (2, 10), generator=generator)
        model(input_ids=ids, labels=ids).loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.requires_grad}


def mask_by_hand(model, grads: dict[str, torch.Tensor], masks, names: list[str]) -> dict[str, torch.Tensor]:
    modules = dict(model.named_modules())
    for p in find_projections(model):
        [path] = [path for path, module in modules.items() if module is p.module]
        for name in names:
            unselected = (~masks[p.name]).nonzero().flatten() + p.offset
            grads[f"{path}.{name}"][unselected] = 0
    return grads
