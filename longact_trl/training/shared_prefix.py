"""
One forward pass of a prompt for all its completions: how TRL's methods come to do it.

TRL calls a model with padded rows and labels, and reads their log-probs and entropies from what it returns. Here it
calls a function in place of the model (`packing/forward.py`). Which micro-batch of an optimizer step does what about a
prompt that several of them hold is settled when the first of them comes (`packing/schedule.py`).
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from math import gcd
from typing import TYPE_CHECKING, Any

import torch
from accelerate.utils import DistributedType, is_peft_model
from torch import nn
from transformers import PretrainedConfig
from trl import GRPOTrainer
from trl.models.utils import disable_gradient_checkpointing

from ..packing.attention import SUFFIX, usual_attention_in
from ..packing.forward import forward_once, forward_stretch, keep_prefixes, packed_attention_in
from ..packing.kept import KeptPrefix
from ..packing.layout import regroup
from ..packing.obstacles import check_shared_prefix, dropouts, shares_prefixes
from ..packing.schedule import Turn, key_of, take_turns


if TYPE_CHECKING:
    from .config import LongActConfig


class SharedPrefixTrainer(GRPOTrainer):
    """
    [`~trl.GRPOTrainer`] that, while it trains, forwards each prompt once for its completions on a rank, whatever the
    micro-batch size: in scoring, training and reference passes alike. Rows of one prompt are brought together within
    an optimizer step. Evaluation and generation are GRPOTrainer's, to the bit.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self._begin_step()  # a loss may be asked for without `train()`

    def train(self, *args, **kwargs):
        self._begin_step()
        check_shared_prefix(self.model.config, self.args, self.model)
        if not shares_prefixes(self.model.config, self.args, self.model):
            return super().train(*args, **kwargs)
        models = [self.model] if self.ref_model is None else [self.model, self.ref_model]
        try:
            with packed_attention_in(*map(self.accelerator.unwrap_model, models)):
                return super().train(*args, **kwargs)
        finally:
            self._begin_step()  # also frees what an error has left

    @property
    def _packs(self) -> bool:
        return self.model.training and _is_packed(self.model.config)

    @property
    def _drops(self) -> bool:
        modules = any(isinstance(module, nn.Dropout) and module.p > 0 for module in self.model.modules())
        return modules or bool(dropouts(self.model.config.get_text_config()))

    def _config_of(self, model: nn.Module) -> PretrainedConfig | None:
        return getattr(self.accelerator.unwrap_model(model), "config", None)

    def _observation_of(self, model: nn.Module) -> AbstractContextManager[None]:
        """For a subclass that watches the training passes."""
        return nullcontext()

    # The turns of an optimizer step

    def _begin_step(self) -> None:
        self._num_trained = 0  # micro-batches of this optimizer step
        self._turns: list[Turn] = []  # of those to come
        self._turn: Turn | None = None  # of this one, until its rows are forwarded
        self._prompts: torch.Tensor | None = None  # its own
        self._scored: dict[bytes, KeptPrefix] = {}  # by the scoring pass, with the weights of this step

    def _prepare_inputs(self, generation_batch):
        before = self._buffered_inputs
        inputs = super()._prepare_inputs(generation_batch)
        if not self._packs:
            return inputs
        first = self._step % self.args.steps_per_generation
        if self._buffered_inputs is not before:  # a new generation, which TRL has shuffled
            window = 1 if self.aux_loss_enabled else exchange_window(self.args)
            if self._num_trained % window:  # steps begin elsewhere since an error has cut one short
                window = 1
            if not shows_images(inputs):
                self._buffered_inputs = regroup(self._buffered_inputs, window)
            inputs = self._buffered_inputs[first]
        if not self._turns:
            # At least one: the last, short step of an iterable dataset's pass goes on in the next pass.
            to_come = max(self.current_gradient_accumulation_steps - self._num_trained, 1)
            if self.aux_loss_enabled:  # of a micro-batch's tokens, all of which have to be in it
                to_come = 1
            batches = self._buffered_inputs[first : first + to_come]
            ids, mask = (torch.cat([batch[name] for batch in batches]) for name in ("prompt_ids", "prompt_mask"))
            sizes = [len(batch["prompt_ids"]) for batch in batches]
            self._turns = self._take_turns(*prompts_to_share(ids, mask, inputs), sizes, training=True)
        self._turn, self._prompts = self._turns.pop(0), inputs["prompt_ids"]
        return inputs

    def training_step(self, *args, **kwargs):
        with self._chunks_after(self.compute_loss):
            loss = super().training_step(*args, **kwargs)
        if self._turn is not None and self._turn.kept:
            raise ValueError(
                f"{type(self).__name__} has not forwarded the rows of a micro-batch as they came, and other "
                "micro-batches share their prompt's forward pass. Write `shared_prefix: 'off'`, or leave rows out by "
                "advantages of zero."
            )
        self._num_trained += 1
        if self.accelerator.sync_gradients:
            self._begin_step()
        return loss

    def _take_turns(self, prompt_ids, prompt_mask, sizes, training: bool) -> list[Turn]:
        turns = take_turns(
            prompt_ids,
            prompt_mask,
            sizes,
            training,
            self.args.prefix_chunk_size,
            self.args.prefix_offload,
            known=self._scored if training else None,
            dropout=self._drops,
        )
        if self.accelerator.num_processes > 1:  # whose passes are collectives: each rank makes as many
            counts = torch.tensor([[len(turn.before), len(turn.after)] for turn in turns], device=prompt_ids.device)
            most = self.accelerator.gather(counts.unsqueeze(0)).amax(0).tolist()
            for turn, (before, after) in zip(turns, most, strict=True):
                turn.before += [None] * (before - len(turn.before))
                turn.after += [None] * (after - len(turn.after))
        return turns

    # A pass

    def _generate_single_turn(self, *args, **kwargs):
        with usual_attention_in(self.model.config):  # by whose name transformers' batches look up another
            return super()._generate_single_turn(*args, **kwargs)

    def _get_per_token_logps_and_entropies(
        self, model, input_ids, attention_mask, logits_to_keep, batch_size=None, **kwargs
    ):
        called = model
        P, B = input_ids.size(1) - logits_to_keep, len(input_ids)
        size = batch_size or B
        turns = None
        if self._packs and _is_packed(self._config_of(model)):  # not another model, which a subclass may ask
            if not torch.is_grad_enabled():
                sizes = [min(size, B - start) for start in range(0, B, size)]
                prompts = prompts_to_share(input_ids[:, :P], attention_mask[:, :P], kwargs)
                turns = iter(self._score_turns(model, *prompts, sizes))
            elif self._turn is not None and size >= B and torch.equal(input_ids[:, :P], self._prompts):
                turns, self._turn = iter([self._turn]), None  # a second pass over the rows shares nothing
        if turns is not None:

            def called(**inputs):
                turn = next(turns)
                with self._unchecked():
                    keep_prefixes(model, turn, input_ids.device)
                return forward_once(model, P, turn, **inputs)

        return super()._get_per_token_logps_and_entropies(
            called, input_ids, attention_mask, logits_to_keep, batch_size=batch_size, **kwargs
        )

    def _score_turns(self, model, prompt_ids, prompt_mask, sizes) -> list[Turn]:
        turns = self._take_turns(prompt_ids, prompt_mask, sizes, training=False)
        kept = {prefix.number: prefix for turn in turns for prefix in turn.kept.values()}
        is_reference = self._config_of(model) is not self.model.config
        if is_peft_model(self.model):
            is_reference |= self.beta != 0 or _adapters_are_off(self.model)  # the former: or may be
        if not is_reference and not self._drops and (len(kept) == 1 or self.args.prefix_offload):
            # Those of more prompts would fill the device. They are kept anew, one after the other.
            self._scored = {key_of(prefix.ids, prefix.columns): prefix for prefix in kept.values()}
        return turns

    # Chunks

    @contextmanager
    def _chunks_after(self, compute_loss: Callable[..., torch.Tensor]) -> Iterator[None]:
        """Their passes come after the whole loss, whatever a subclass has made of TRL's: its scale is theirs, too."""
        own = vars(self).get("compute_loss")
        self.compute_loss = partial(self._loss_and_chunks, compute_loss)
        try:
            yield
        finally:
            del self.compute_loss
            if own is not None:
                self.compute_loss = own

    def _loss_and_chunks(self, compute_loss, model, inputs, *args, **kwargs) -> torch.Tensor:
        after = self._turn.after if self._packs and self._turn is not None else []
        if not after:
            return compute_loss(model, inputs, *args, **kwargs)
        with self.accelerator.no_sync(model) if self.accelerator.sync_gradients else nullcontext():
            loss = compute_loss(model, inputs, *args, **kwargs)
            self._backward_only(loss)
            for stretch in after[:-1]:
                self._backward_only(self._rerun(model, stretch))
        # The Trainer's own backward pass of this micro-batch is that of the last stretch.
        return loss.detach() + self._rerun(model, after[-1])

    def _rerun(self, model, stretch) -> torch.Tensor:
        checked = nullcontext() if self.args.prefix_chunk_size is None else self._unchecked()
        with checked, self._observation_of(model), self.accelerator.autocast():
            return forward_stretch(model, stretch, self.accelerator.device)

    def _unchecked(self) -> AbstractContextManager[None]:
        """Without gradient checkpointing: a stretch has no gradient, or is as short as `prefix_chunk_size` says."""
        return disable_gradient_checkpointing(self.model, self.args.gradient_checkpointing_kwargs)

    def _backward_only(self, loss: torch.Tensor) -> None:
        """As the Trainer does it between the micro-batches of an optimizer step."""
        with _within_accumulation(self.accelerator):
            deepspeed = self.accelerator.distributed_type == DistributedType.DEEPSPEED
            self.accelerator.backward(loss, **({"scale_wrt_gas": False} if deepspeed else {}))


@contextmanager
def _within_accumulation(accelerator) -> Iterator[None]:
    state = accelerator.gradient_state
    before = state.sync_gradients
    state._set_sync_gradients(False)
    try:
        yield
    finally:
        state._set_sync_gradients(before)


def _is_packed(config: PretrainedConfig | None) -> bool:
    return config is not None and (config.get_text_config()._attn_implementation or "").endswith(SUFFIX)


def _adapters_are_off(model: nn.Module) -> bool:
    from peft.tuners.tuners_utils import BaseTunerLayer  # where there is an adapter, there is PEFT

    return any(isinstance(module, BaseTunerLayer) and module.disable_adapters for module in model.modules())


def shows_images(inputs: dict[str, Any]) -> bool:
    """Whether a micro-batch, or what TRL passes to the model beside tokens, has images."""
    return inputs.get("pixel_values") is not None


def prompts_to_share(
    prompt_ids: torch.Tensor, prompt_mask: torch.Tensor, inputs: dict[str, Any]
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Prompts as their sharing is planned. Rows with images are forwarded as they are, so each has a prompt of its own;
    planned they are, since other ranks may have text.

    Args:
        prompt_ids, prompt_mask (`torch.Tensor` of shape (B, P)):
            Prompts, and where their tokens are real.
        inputs (`dict[str, Any]`):
            The micro-batch, or what TRL passes to the model beside tokens.

    Returns:
        `tuple[torch.Tensor, torch.Tensor]`: The same, or B different prompts (B, 1) of one token.
    """
    if not shows_images(inputs):
        return prompt_ids, prompt_mask
    rows = torch.arange(len(prompt_ids), device=prompt_ids.device).unsqueeze(1)
    return rows, torch.ones_like(rows)


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
