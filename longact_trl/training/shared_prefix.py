"""
One forward pass of a prompt for all its completions: how TRL's method comes to do it.

TRL calls a model with padded rows and labels, and reads their log-probs and entropies from what it returns. Here it
calls a function in place of the model, which packs the rows (`packing/layout.py`), runs the model on them once, with
`packing/attention.py`, and unpacks.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from math import gcd
from typing import TYPE_CHECKING, Any

import torch
from accelerate.utils import is_peft_model
from torch import nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput
from trl import GRPOTrainer
from trl.trainer.utils import FusedCausalLMOutput

from ..packing.attention import SUFFIX, register
from ..packing.layout import plan, regroup
from ..packing.obstacles import shares_prefixes


if TYPE_CHECKING:
    from .config import LongActConfig


class SharedPrefixTrainer(GRPOTrainer):
    """
    [`~trl.GRPOTrainer`] that, while it trains, forwards each prompt of a micro-batch once and not with each of its
    completions: in scoring, training and reference passes alike. Rows of one prompt are brought together within an
    optimizer step. Evaluation and generation are GRPOTrainer's, to the bit.
    """

    def train(self, *args, **kwargs):
        if not shares_prefixes(self.model.config, self.args):
            return super().train(*args, **kwargs)
        models = [self.model] if self.ref_model is None else [self.model, self.ref_model]
        with packed_attention_in(*map(self.accelerator.unwrap_model, models)):
            return super().train(*args, **kwargs)

    @property
    def _packs(self) -> bool:
        return self.model.training and self.model.config._attn_implementation.endswith(SUFFIX)

    def _prepare_inputs(self, generation_batch):
        before = self._buffered_inputs
        inputs = super()._prepare_inputs(generation_batch)
        if self._packs and self._buffered_inputs is not before:  # a new generation, which TRL has shuffled
            self._buffered_inputs = regroup(self._buffered_inputs, exchange_window(self.args))
            inputs = self._buffered_inputs[self._step % self.args.steps_per_generation]
        return inputs

    def _get_per_token_logps_and_entropies(self, model, input_ids, attention_mask, logits_to_keep, *args, **kwargs):
        if self._packs:
            model = partial(forward_once, model, input_ids.size(1) - logits_to_keep)
        return super()._get_per_token_logps_and_entropies(
            model, input_ids, attention_mask, logits_to_keep, *args, **kwargs
        )


@contextmanager
def packed_attention_in(*models: PreTrainedModel) -> Iterator[None]:
    """
    Let models attend within packed rows, and their LM head see segments only, while the context lasts. Everything
    else they do stays as it is.

    Args:
        models (`PreTrainedModel`):
            Models, plain or wrapped by PEFT, unwrapped from DDP or DeepSpeed.
    """
    configs = [model.config for model in models]
    usual = [config._attn_implementation for config in configs]
    handles = []
    try:
        for model, config, implementation in zip(models, configs, usual, strict=True):
            config._attn_implementation = register(implementation)
            decoder = (model.get_base_model() if is_peft_model(model) else model).base_model
            handles.append(decoder.register_forward_hook(_leave_prefixes_out, with_kwargs=True))
        yield
    finally:
        for handle in handles:
            handle.remove()
        for config, implementation in zip(configs, usual, strict=True):
            config._attn_implementation = implementation


def _leave_prefixes_out(decoder: nn.Module, args: tuple, kwargs: dict, output: BaseModelOutput) -> None:
    if "shared_prefix" in kwargs:  # on a CPU, TRL's head would compute logits for every token
        output.last_hidden_state = kwargs["shared_prefix"].segments_of(output.last_hidden_state)


def forward_once(
    model: nn.Module,
    prompt_length: int,
    input_ids: torch.Tensor,
    attention_mask: torch.Tensor,
    labels: torch.Tensor,
    fused_lm_head: bool,
    **others: Any,
) -> FusedCausalLMOutput:
    """
    What TRL calls in place of `model`. Rows go through the model as they are where no two share a prompt, and where
    there is anything else to forward.

    Args:
        model (`nn.Module`):
            Model with TRL's fused LM head, wrapped for distributed training or not, in [`packed_attention_in`].
        prompt_length (`int`):
            Columns of the prompts.
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
    layout = plan(input_ids, attention_mask, prompt_length)
    if others or len(layout.groups) == len(input_ids):
        return model(
            input_ids=input_ids, attention_mask=attention_mask, labels=labels, fused_lm_head=fused_lm_head, **others
        )
    next_labels = nn.functional.pad(labels[:, 1:], (0, 1), value=-100)
    output = model(
        input_ids=layout.pack(input_ids),
        # Four dimensions: transformers makes no mask of its own. Empty: attention that is not ours fails.
        attention_mask=torch.empty(0, 0, 0, 0, device=input_ids.device),
        position_ids=layout.columns.unsqueeze(0),
        shift_labels=layout.segments_of(layout.pack(next_labels)),
        fused_lm_head=fused_lm_head,
        shared_prefix=layout,
    )
    output.log_probs = layout.unpack(output.log_probs, labels.shape)[:, :-1]
    if output.entropy is not None:  # TRL asks no entropy of a reference model
        output.entropy = layout.unpack(output.entropy, labels.shape)[:, :-1]
    return output


def exchange_window(args: "LongActConfig") -> int:
    """
    Micro-batches between which rows may be exchanged without any gradient being another: those that always fall into
    the same optimizer step, or 1 where a token's weight in the loss depends on its micro-batch.

    Args:
        args (`LongActConfig`):
            Training arguments.

    Returns:
        `int`: Divides `steps_per_generation`.
    """
    weighs_by_micro_batch = (
        args.loss_type == "bnpo"
        or args.top_entropy_quantile < 1
        or args.entropy_coef != 0
        or args.use_adaptive_entropy
    )
    return 1 if weighs_by_micro_batch else gcd(args.steps_per_generation, args.gradient_accumulation_steps)
