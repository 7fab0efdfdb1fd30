"""LongAct as a subclass of TRL's GRPOTrainer: only what changes. Pushing, resuming, shared prefixes and dynamic
sampling are between, each in a file of its own."""

import math
from contextlib import nullcontext
from functools import partial

import torch
from accelerate.utils import is_peft_model
from trl.models.utils import disable_gradient_checkpointing
from trl.trainer.utils import get_config_model_id

from ..method.frozen_rows import check_deepspeed_optimizer, check_no_weight_decay, check_own_optimizer
from ..method.gradients import row_parameters
from ..models.reading import load_config, load_processing_class
from ..models.vllm_cpu import keep_weights_loadable
from ..packing.obstacles import check_shared_prefix
from .agents import with_tools
from .checkpoints import naming_unreadable
from .config import LongActConfig
from .hub import HubMixin
from .mask_refresh import MaskRefreshCallback
from .model_card import PAPER
from .parts import SCORE, MeasuredTrainer
from .policy_losses import SELECTED, clip_bounds, reweight_advantages, select_tokens
from .preflight import (
    check_model_config,
    check_reference_adapter,
    check_rope,
    check_vllm,
    prompt_window,
    source_of,
)
from .prompt_checks import check_dataset, fit_prompts
from .resuming import ResumingTrainer
from .run_file import write_run_file
from .sampling import DynamicSamplingTrainer
from .shared_prefix import SharedPrefixTrainer


class LongActTrainer(HubMixin, ResumingTrainer, SharedPrefixTrainer, DynamicSamplingTrainer, MeasuredTrainer):
    """
    [`~trl.GRPOTrainer`] whose W_Q and W_K learn only in the rows behind each head's highest-magnitude channels,
    selected anew at every optimizer step. Everything else is GRPOTrainer's, and so is the trained model.

    Args:
        model (`str`, `PreTrainedModel` or `PeftModel`):
            As in [`~trl.GRPOTrainer`]. A Hub id or folder is checked before its weights are loaded.
        reward_funcs (`RewardFunc` or `list[RewardFunc]`):
            As in [`~trl.GRPOTrainer`], e.g. `[format_reward, answer_reward]`.
        args (`LongActConfig`, *optional*):
            Training arguments.
        train_dataset (`Dataset` or `IterableDataset`):
            Prompts, and the columns that the reward functions read.
        kwargs:
            Everything else that [`~trl.GRPOTrainer`] takes.

    Raises:
        `ValueError`: If arguments, dataset and model cannot work together; before any weights are loaded wherever
            that can be known.

    Example:

    ```python
    trainer = LongActTrainer(
        model="Qwen/Qwen3-8B",
        reward_funcs=[format_reward, answer_reward],
        args=LongActConfig(output_dir="Qwen3-8B-LongAct", sparsity_ratio=0.3),
        train_dataset=dataset,
    )
    trainer.train()
    ```
    """

    _tag_names = ["trl", "grpo", "longact"]
    _name = "LongAct"
    _paper = PAPER

    def __init__(
        self,
        model,
        reward_funcs=None,
        args: LongActConfig | None = None,
        train_dataset=None,
        eval_dataset=None,
        processing_class=None,
        **kwargs,
    ):
        model_id = model if isinstance(model, str) else get_config_model_id(model.config)
        args = args or LongActConfig(f"{model_id.split('/')[-1]}-LongAct")
        config = load_config(model, **source_of(args)) if isinstance(model, str) else model.config
        adapter = kwargs.get("peft_config") or (model is not model_id and is_peft_model(model))
        quantised = bool(kwargs.get("quantization_config") or "quantization_config" in (args.model_init_kwargs or {}))
        check_vllm(args)
        if model is not model_id and is_peft_model(model):
            check_reference_adapter(model.peft_config, args)
        check_model_config(config, args, adapter, quantised)
        check_rope(config, args)
        check_shared_prefix(config, args, adapter=kwargs.get("peft_config"))
        rewards = reward_funcs if isinstance(reward_funcs, list) else [reward_funcs]
        evaluated = eval_dataset if isinstance(eval_dataset, dict) else {"": eval_dataset} if eval_dataset else {}
        for dataset in (train_dataset, *evaluated.values()):
            check_dataset(dataset, rewards, kwargs.get("environment_factory"))
        processing_class = processing_class or load_processing_class(model_id, **source_of(args))
        factory, tools = with_tools(kwargs.get("tools"), kwargs.get("environment_factory"))
        kwargs |= {} if factory is None else {"environment_factory": factory}
        window = prompt_window(config, args)
        fit = partial(fit_prompts, processing_class=processing_class, window=window, args=args, tools=tools)
        train_dataset = fit(train_dataset)
        if evaluated:
            fitted = {name: fit(dataset) for name, dataset in evaluated.items()}
            eval_dataset = fitted if isinstance(eval_dataset, dict) else fitted[""]
        if args.use_vllm and args.vllm_mode == "colocate":
            keep_weights_loadable()
        super().__init__(model, reward_funcs, args, train_dataset, eval_dataset, processing_class, **kwargs)
        self.mask_refresh = MaskRefreshCallback(args, self.model, self._metrics["train"])
        self.add_callback(self.mask_refresh)
        self.epsilon_low, self.epsilon_high = clip_bounds(args)
        self._loss_inputs: dict[str, torch.Tensor] = {}
        if self.mask_refresh.strategy.masks:
            self._check_own_optimizer()

    def _check_own_optimizer(self) -> None:
        if self.is_deepspeed_enabled:
            check_deepspeed_optimizer(self.accelerator.state.deepspeed_plugin.deepspeed_config, self.args.weight_decay)
        if self.optimizer_cls_and_kwargs is not None:
            check_own_optimizer(self.optimizer_cls_and_kwargs[0], self.args.update_rule)
        if self.optimizer is not None:
            check_own_optimizer(type(self.optimizer), self.args.update_rule)
            check_no_weight_decay(self.optimizer, self._masked_parameters())

    def _masked_parameters(self) -> set[torch.nn.Parameter]:
        modules = {module for p in self.mask_refresh.projections for module in p.modules}
        return {param for module in modules for param in row_parameters(module)}

    # When masks are measured and refreshed

    def _prepare_inputs(self, generation_batch):
        inputs = super()._prepare_inputs(generation_batch)
        if self.model.training:
            self.mask_refresh.on_inputs_prepared()
        return inputs

    def _generate_and_score_completions(self, inputs):
        output = super()._generate_and_score_completions(inputs)
        if not self.model.training:
            return output
        selects = self.args.policy_loss != "vanilla"
        logps = output.get("old_per_token_logps")
        if self.mask_refresh.needs_scoring_pass() or (selects and logps is None):
            logps = self._score(output)
        if selects:
            mask = output["completion_mask"] * output.get("tool_mask", 1)
            generation = self._step // self._generate_every
            output[SELECTED], metrics = select_tokens(logps, output["advantages"], mask, self.args, generation)
            for name, value in metrics.items():
                self._metrics["train"][f"longact/{name}"].append(value)
        return output

    @torch.no_grad()
    def _score(self, rollouts: dict[str, torch.Tensor]) -> torch.Tensor:
        """The forward pass that TRL saves where old log-probs are not needed; masks and Clip-Cov need it."""
        with disable_gradient_checkpointing(self.model, self.args.gradient_checkpointing_kwargs):
            logps, _, _ = self._get_per_token_logps_and_entropies(
                self.model,
                torch.cat([rollouts["prompt_ids"], rollouts["completion_ids"]], dim=1),
                torch.cat([rollouts["prompt_mask"], rollouts["completion_mask"]], dim=1),
                logits_to_keep=rollouts["completion_ids"].size(1),
                batch_size=self.args.per_device_train_batch_size,
            )
        return logps

    def _get_per_token_logps_and_entropies(self, model, *args, **kwargs):
        scores = nullcontext() if torch.is_grad_enabled() else self.parts.part(SCORE)
        with scores, self._observation_of(model):
            logps, entropies, aux_loss = super()._get_per_token_logps_and_entropies(model, *args, **kwargs)
        if SELECTED in self._loss_inputs:
            self._loss_inputs["advantages"] = reweight_advantages(self._loss_inputs, logps, self.args)
        return logps, entropies, aux_loss

    def _compute_loss(self, model, inputs):
        self._loss_inputs = dict(inputs)  # TRL reads its advantages after the forward pass
        try:
            loss = super()._compute_loss(model, self._loss_inputs)
        finally:
            self._loss_inputs = {}
        if not loss.isfinite():  # before it reaches a weight
            raise ValueError(
                f"The loss is {loss.item()} at step {self.state.global_step + 1}. Look at this step's rewards and "
                "completions, train in bfloat16 rather than float16, or lower the learning rate."
            )
        return loss

    def _observation_of(self, model):
        if not self.model.training or model is self.ref_model or _adapter_is_off(self.mask_refresh.projections):
            return nullcontext()  # evaluation, or the reference
        if not torch.is_grad_enabled():
            return self.mask_refresh.observe_scoring()
        # In micro-batches, as TRL counts them. The last step of an epoch may have fewer.
        step_ends = self._step - self._num_trained + self.current_gradient_accumulation_steps
        return self.mask_refresh.observe_training(next_step_generates=step_ends % self._generate_every == 0)

    # What the optimizer may not do

    def _get_grad_norm(self, model, grad_norm=None):
        grad_norm = super()._get_grad_norm(model, grad_norm)
        if grad_norm is not None and not math.isfinite(grad_norm) and not self.args.fp16:  # there a scaler skips it
            raise ValueError(
                f"The gradient's norm is {float(grad_norm)} at step {self.state.global_step + 1}. Train in bfloat16 "
                "rather than float16, or lower the learning rate."
            )
        return grad_norm

    def get_decay_parameter_names(self, model) -> list[str]:
        """Without the masked projections: weight decay would move rows that receive no gradient."""
        names = super().get_decay_parameter_names(model)
        if not self.mask_refresh.strategy.masks:
            return names
        masked, parameters = self._masked_parameters(), dict(model.named_parameters(remove_duplicate=False))
        return [name for name in names if parameters.get(name) not in masked]  # a norm without weight names one

    # Train, save, resume

    def train(self, *args, **kwargs):
        if self.accelerator.is_main_process:
            backend = self.accelerator.distributed_type.value
            write_run_file(self.args, self.model.config, self.accelerator.num_processes, backend)
        try:
            return super().train(*args, **kwargs)
        finally:
            self.mask_refresh.detach()

    def _save_rng_state(self, output_dir):
        if self.accelerator.is_main_process:
            self.mask_refresh.save(output_dir)
        super()._save_rng_state(output_dir)

    def _load_optimizer_and_scheduler(self, checkpoint):
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None:
            with naming_unreadable(checkpoint):
                self.mask_refresh.load(checkpoint)


def _adapter_is_off(projections) -> bool:
    """Whether PEFT computes the reference model right now: adapter disabled, or TRL's frozen copy "ref" active."""
    return any(
        getattr(p.module, "disable_adapters", False) or getattr(p.module, "active_adapters", None) == ["ref"]
        for p in projections
    )
