"""
A micro-batch through the model with each prompt once, as if it were the model's own forward.

The model is called wrapped or not: DDP, DeepSpeed and FSDP2 see passes over one row, and nothing else.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from accelerate.utils import is_peft_model
from torch import nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput
from trl.trainer.utils import FusedCausalLMOutput

from .attention import register
from .last_layer import LastLayer, last_layer_of
from .layout import Group, PackedLayout, lay_out
from .recurrence import packed_recurrence_in
from .schedule import Stretch, Turn


@contextmanager
def packed_attention_in(*models: PreTrainedModel) -> Iterator[None]:
    """
    Let models attend and recur within packed rows, and their LM head and what follows the last attention see segments
    only, while the context lasts. Everything else they do stays as it is.

    Args:
        models (`PreTrainedModel`):
            Models, plain or wrapped by PEFT, unwrapped from DDP or DeepSpeed.
    """
    configs = [model.config.get_text_config() for model in models]
    usual = [config._attn_implementation for config in configs]
    decoders = [(model.get_base_model() if is_peft_model(model) else model).base_model for model in models]
    handles = []
    try:
        for decoder, config, implementation in zip(decoders, configs, usual, strict=True):
            config._attn_implementation = register(implementation)
            handles.append(decoder.register_forward_pre_hook(_make_no_mask, with_kwargs=True))
            handles.append(decoder.register_forward_hook(_for_each_row, with_kwargs=True))
            if (layer := last_layer_of(decoder.get_decoder())) is not None:
                handles += LastLayer(layer).handles
        with packed_recurrence_in(*decoders):
            yield
    finally:
        for handle in handles:
            handle.remove()
        for config, implementation in zip(configs, usual, strict=True):
            config._attn_implementation = implementation


def _make_no_mask(decoder: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict] | None:
    """Of the decoder alone: to TRL's head, which counts tokens of experts, packed rows are without padding."""
    if "shared_prefix" not in kwargs:
        return None
    # Four dimensions: transformers makes no mask of its own. Empty: attention that is not ours fails.
    return args, {**kwargs, "attention_mask": torch.empty(0, 0, 0, 0, device=kwargs["shared_prefix"].columns.device)}


def _for_each_row(decoder: nn.Module, args: tuple, kwargs: dict, output: BaseModelOutput) -> None:
    """Hidden states of segments only: on a CPU, TRL's head would compute logits for every token. Experts' scores of
    a prefix once for each of its rows, as a load-balancing loss counts them."""
    if "shared_prefix" in kwargs:
        layout = kwargs["shared_prefix"]
        output.last_hidden_state = layout.segments_of(output.last_hidden_state)
        if getattr(output, "router_logits", None):
            tokens = layout.tokens_of_rows()
            output.router_logits = tuple(scores.flatten(0, -2)[tokens] for scores in output.router_logits)


def forward_once(
    model: nn.Module,
    prompt_length: int,
    turn: Turn,
    input_ids: torch.Tensor,
    attention_mask: torch.Tensor,
    labels: torch.Tensor,
    fused_lm_head: bool,
    **others: Any,
) -> FusedCausalLMOutput:
    """
    What TRL calls in place of `model`. Rows go through the model as they are where none shares a prompt, and where
    there is anything else to forward.

    Args:
        model (`nn.Module`):
            Model with TRL's fused LM head, wrapped for distributed training or not, in [`packed_attention_in`].
        prompt_length (`int`):
            Columns of the prompts.
        turn (`Turn`):
            What the rows share with each other and with other passes; [`keep_prefixes`] has run.
        input_ids (`torch.Tensor` of shape (B, S)):
            Prompts, padded on the left, and completions, padded on the right.
        attention_mask (`torch.Tensor` of shape (B, S)):
            Nonzero where a token is real.
        labels (`torch.Tensor` of shape (B, S)):
            Tokens whose log-probs are wanted, -100 elsewhere and in all prompts.
        fused_lm_head (`bool`):
            True.
        others:
            Whatever else TRL passes: images, `output_router_logits`.

    Returns:
        `FusedCausalLMOutput`: As the model's: log-probs and entropies of shape (B, S - 1).
    """
    layout = lay_out(input_ids, attention_mask, prompt_length, turn)
    images = others.keys() - {"output_router_logits"}
    if images or (len(layout.groups) == len(input_ids) and not turn.kept):
        return model(
            input_ids=input_ids, attention_mask=attention_mask, labels=labels, fused_lm_head=fused_lm_head, **others
        )
    if others.get("output_router_logits"):  # a load-balancing loss reads those of the last layer, too
        layout = replace(layout, whole=True)
    if not turn.writes:
        for number in turn.in_row:  # from here on nothing reads them
            turn.kept[number].forget_values()
    next_labels = nn.functional.pad(labels[:, 1:], (0, 1), value=-100)
    output = model(
        input_ids=layout.pack(input_ids),
        position_ids=layout.columns.unsqueeze(0),
        shift_labels=layout.segments_of(layout.pack(next_labels)),
        fused_lm_head=fused_lm_head,
        shared_prefix=layout,
        **others,
    )
    output.log_probs = layout.unpack(output.log_probs, labels.shape)[:, :-1]
    if output.entropy is not None:  # TRL asks no entropy of a reference model
        output.entropy = layout.unpack(output.entropy, labels.shape)[:, :-1]
    return output


@torch.no_grad()
def keep_prefixes(model: nn.Module, turn: Turn, device: torch.device) -> None:
    """
    Keep K and V of the prefixes that a micro-batch is the first to read.

    Args:
        model (`nn.Module`):
            As in [`forward_once`].
        turn (`Turn`):
            The micro-batch's.
        device (`torch.device`):
            Where the model is.
    """
    for stretch in turn.before:
        forward_stretch(model, stretch, device)


def forward_stretch(model: nn.Module, stretch: Stretch | None, device: torch.device) -> torch.Tensor:
    """
    Part of a prefix through the model alone. Without gradient, its K and V are kept. With gradient, the backward of
    what is returned adds the gradients kept for it, and leaves those of the tokens before it with them.

    Args:
        model (`nn.Module`):
            As in [`forward_once`].
        stretch (`Stretch` or `None`):
            Which part. `None` is a pass over one token that does nothing, for a rank that has none while others do.
        device (`torch.device`):
            Where the model is.

    Returns:
        `torch.Tensor` of shape (): Zero, whose gradient is zero. Its graph goes through every parameter, the LM
            head's, too: DDP and DeepSpeed wait for each.
    """
    if stretch is None:
        ids = columns = torch.zeros(1, dtype=torch.long, device=device)
        group, drawn = Group(slice(0, 1), ()), nullcontext()
    else:
        kept, start, stop = stretch
        ids, columns = kept.ids[start:stop], kept.columns[start:stop]
        group, drawn = Group(slice(0, stop - start), (), kept, start), _same_draws(stretch, device)
    layout = PackedLayout(torch.zeros_like(columns), columns, (group,), writes=not torch.is_grad_enabled())
    with drawn:
        output = model(
            input_ids=ids.unsqueeze(0),
            position_ids=columns.unsqueeze(0),
            shift_labels=torch.full((1, 1), -100, device=device),
            fused_lm_head=True,
            shared_prefix=layout,
        )
    return output.log_probs.sum()


@contextmanager
def _same_draws(stretch: Stretch, device: torch.device) -> Iterator[None]:
    """Dropout draws the same with a graph as it did when K and V were kept."""
    sources = [torch] if device.type == "cpu" else [torch, torch.get_device_module(device)]
    states = stretch.kept.random_states
    if not torch.is_grad_enabled():
        states[stretch.start] = [source.get_rng_state() for source in sources]
        yield
        return
    with torch.random.fork_rng([] if device.type == "cpu" else [device], device_type=device.type):
        for source, state in zip(sources, states.get(stretch.start, ()), strict=False):
            source.set_rng_state(state)
        yield
