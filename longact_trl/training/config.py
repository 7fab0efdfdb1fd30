"""The fields that LongAct adds to GRPO's."""

import os
from dataclasses import dataclass, field

from accelerate.utils import parse_flag_from_env
from trl import GRPOConfig

from ..method.gradients import check_fsdp_version
from ..settings.value_types import fits
from .field_checks import check_fields, check_optimizer
from .policy_loss_settings import check_policy_loss


@dataclass
class LongActConfig(GRPOConfig):
    r"""
    Configuration class for the [`LongActTrainer`].

    [`LongActConfig`] inherits every parameter from [`~trl.GRPOConfig`] and adds those below. Two defaults differ, so
    that the default is DAPO as published: `epsilon_high` is 0.28, and `vllm_importance_sampling_mode` is
    `"token_truncate"`, because a product of ratios over thousands of tokens would drop long completions.

    Parameters:
        sparsity_ratio (`float`, *optional*, defaults to `0.3`):
            λ, share of the channels of each head whose rows in W_Q and W_K receive gradient, in (0, 1]. The paper
            uses 0.3.
        strategy (`str`, *optional*, defaults to `"massive"`):
            Which channels are selected: `"massive"` those of highest magnitude, `"min"` those of lowest, `"random"`
            a new random draw at each step, `"dense"` all of them, which is plain GRPO/DAPO.
        update_rule (`str`, *optional*, defaults to `"masked_gradient"`):
            `"masked_gradient"` masks gradients and nothing else (Eq. 11). `"frozen_rows"` also keeps unselected rows
            bit-identical across the step, whatever momentum the optimizer has.
        saliency_source (`str`, *optional*, defaults to `"current_batch"`):
            What masks are measured on. `"current_batch"` uses the very sequences about to be trained on,
            `"previous_step"` the training forwards of the step before, which never adds a forward pass.
        row_sparse_gradients (`str`, *optional*, defaults to `"auto"`):
            Whether the gradients of W_Q and W_K are computed in their selected rows only, which is less work:
            `"auto"` where that was measured to be faster, `"on"` in every linear layer, `"off"` nowhere. Where it
            happens, `longact/grad_norm_selected_share` is not logged.
        prompt_length_policy (`str`, *optional*, defaults to `"filter"`):
            What to do with a prompt that leaves no room for `max_completion_length` tokens in the window: `"filter"`
            leaves it out and says how many there were, `"truncate_middle"` takes tokens out of its middle, `"error"`
            stops before the model is loaded.
        heatmap_steps (`int`, *optional*, defaults to `50`):
            Log magnitude heatmaps to wandb or trackio every this many steps, if either is in `report_to`. 0 never
            does.
        policy_loss (`str`, *optional*, defaults to `"vanilla"`):
            How the most covariant tokens are kept from collapsing entropy (arXiv:2505.22617): `"clip_cov"` takes a
            few of them out of the loss, `"kl_cov"` does not clip and keeps the highest near the policy that sampled
            them, `"vanilla"` does neither.
        clip_cov_ratio (`float`, *optional*, defaults to `0.0002`):
            Clip-Cov: share of a generation batch's tokens that is taken out of the loss.
        clip_cov_lb (`float`, *optional*, defaults to `1.0`):
            Clip-Cov: covariance above which a token may be taken out.
        clip_cov_ub (`float`, *optional*, defaults to `5.0`):
            Clip-Cov: covariance below which a token may be taken out.
        kl_cov_ratio (`float`, *optional*, defaults to `0.002`):
            KL-Cov: share of a generation batch's tokens that is penalised, those of highest covariance.
        kl_cov_coef (`float`, *optional*, defaults to `1.0`):
            KL-Cov: weight of the penalty |log π − log π_old|.
        dynamic_sampling (`bool`, *optional*, defaults to `False`):
            Train only on groups whose completions earn different answer rewards (DAPO, sec. 3.2): sample other
            prompts in place of the rest. What varies is the reward function named `answer_reward`, or the sum of all
            where there is none of that name.
        max_resamples (`int`, *optional*, defaults to `10`):
            How many further batches `dynamic_sampling` generates at most before it goes on with the groups it has.
        max_logged_completions (`int`, *optional*, defaults to `10000`):
            How many completions stay in the tables that `log_completions` writes, those that `dynamic_sampling` threw
            away included. When there are more, every second table goes, and never the newest.
        shared_prefix (`str`, *optional*, defaults to `"auto"`):
            Forward a prompt once for all its completions on a rank, with the same gradients, whatever the micro-batch
            size: `"auto"` where the model's attention allows it, `"on"` also says why where it cannot, `"off"`
            never.
        prefix_chunk_size (`int | None`, *optional*, defaults to `None`):
            Tokens of a shared prompt whose activations are kept for the backward pass at a time, with the same
            gradients: bounds memory behind long prompts for one more forward pass of them. By default all of them.
        prefix_offload (`bool`, *optional*, defaults to `False`):
            Keep K and V of shared prompts, and their gradients, in the host's memory, and only those of one layer on
            the GPU.
    """

    sparsity_ratio: float = field(
        default=0.3,
        metadata={
            "help": "λ, share of the channels of each head whose rows in W_Q and W_K receive gradient, in (0, 1]. The "
            "paper uses 0.3."
        },
    )
    strategy: str = field(
        default="massive",
        metadata={
            "help": "Which channels are selected: `'massive'` those of highest magnitude, `'min'` those of lowest, "
            "`'random'` a new random draw at each step, `'dense'` all of them, which is plain GRPO/DAPO."
        },
    )
    update_rule: str = field(
        default="masked_gradient",
        metadata={
            "help": "`'masked_gradient'` masks gradients and nothing else (Eq. 11). `'frozen_rows'` also keeps "
            "unselected rows bit-identical across the step, whatever momentum the optimizer has."
        },
    )
    saliency_source: str = field(
        default="current_batch",
        metadata={
            "help": "What masks are measured on. `'current_batch'` uses the very sequences about to be trained on, "
            "`'previous_step'` the training forwards of the step before, which never adds a forward pass."
        },
    )
    row_sparse_gradients: str = field(
        default="auto",
        metadata={
            "help": "Whether the gradients of W_Q and W_K are computed in their selected rows only, which is less "
            "work: `'auto'` where that was measured to be faster, `'on'` in every linear layer, `'off'` nowhere. "
            "Where it happens, `longact/grad_norm_selected_share` is not logged."
        },
    )
    prompt_length_policy: str = field(
        default="filter",
        metadata={
            "help": "What to do with a prompt that leaves no room for `max_completion_length` tokens in the window: "
            "`'filter'` leaves it out and says how many there were, `'truncate_middle'` takes tokens out of its "
            "middle, `'error'` stops before the model is loaded."
        },
    )
    heatmap_steps: int = field(
        default=50,
        metadata={
            "help": "Log magnitude heatmaps to wandb or trackio every this many steps, if either is in `report_to`. "
            "0 never does."
        },
    )
    policy_loss: str = field(
        default="vanilla",
        metadata={
            "help": "How the most covariant tokens are kept from collapsing entropy (arXiv:2505.22617): `'clip_cov'` "
            "takes a few of them out of the loss, `'kl_cov'` does not clip and keeps the highest near the policy that "
            "sampled them, `'vanilla'` does neither."
        },
    )
    clip_cov_ratio: float = field(
        default=2e-4,
        metadata={"help": "Clip-Cov: share of a generation batch's tokens that is taken out of the loss."},
    )
    clip_cov_lb: float = field(
        default=1.0, metadata={"help": "Clip-Cov: covariance above which a token may be taken out."}
    )
    clip_cov_ub: float = field(
        default=5.0, metadata={"help": "Clip-Cov: covariance below which a token may be taken out."}
    )
    kl_cov_ratio: float = field(
        default=2e-3,
        metadata={
            "help": "KL-Cov: share of a generation batch's tokens that is penalised, those of highest covariance."
        },
    )
    kl_cov_coef: float = field(default=1.0, metadata={"help": "KL-Cov: weight of the penalty |log π − log π_old|."})
    dynamic_sampling: bool = field(
        default=False,
        metadata={
            "help": "Train only on groups whose completions earn different answer rewards (DAPO, sec. 3.2): sample "
            "other prompts in place of the rest. What varies is the reward function named `answer_reward`, or the sum "
            "of all where there is none of that name."
        },
    )
    max_resamples: int = field(
        default=10,
        metadata={
            "help": "How many further batches `dynamic_sampling` generates at most before it goes on with the groups "
            "it has."
        },
    )
    max_logged_completions: int = field(
        default=10_000,
        metadata={
            "help": "How many completions stay in the tables that `log_completions` writes, those that "
            "`dynamic_sampling` threw away included. When there are more, every second table goes, and never the "
            "newest."
        },
    )
    shared_prefix: str = field(
        default="auto",
        metadata={
            "help": "Forward a prompt once for all its completions on a rank, with the same gradients, whatever the "
            "micro-batch size: `'auto'` where the model's attention allows it, `'on'` also says why where it cannot, "
            "`'off'` never."
        },
    )
    prefix_chunk_size: int | None = field(
        default=None,
        metadata={
            "help": "Tokens of a shared prompt whose activations are kept for the backward pass at a time, with the "
            "same gradients: bounds memory behind long prompts for one more forward pass of them. By default all of "
            "them."
        },
    )
    prefix_offload: bool = field(
        default=False,
        metadata={
            "help": "Keep K and V of shared prompts, and their gradients, in the host's memory, and only those of one "
            "layer on the GPU."
        },
    )
    epsilon_high: float | None = field(
        default=0.28,
        metadata={
            "help": "Upper-bound epsilon value for clipping. If `None`, it defaults to the value of `epsilon`. DAPO's "
            "clip-higher uses 0.28."
        },
    )
    vllm_importance_sampling_mode: str = field(
        default="token_truncate",
        metadata={
            "help": "Granularity and constraint of the importance sampling that corrects for the mismatch between "
            "vLLM and the trained model: `'token_truncate'`, `'token_mask'`, `'sequence_truncate'` or "
            "`'sequence_mask'`."
        },
    )

    def __post_init__(self):
        for name, hint in LongActConfig.__annotations__.items():
            if not fits(getattr(self, name), hint):
                raise ValueError(f"`{name}` must be {getattr(hint, '__name__', hint)}, got {getattr(self, name)!r}.")
        check_fields(self)
        super().__post_init__()
        check_policy_loss(self)
        check_optimizer(self)
        launched_version = os.environ.get("FSDP_VERSION", "1") if parse_flag_from_env("ACCELERATE_USE_FSDP") else "2"
        check_fsdp_version(launched_version)
        if self.fsdp:
            check_fsdp_version(self.fsdp_plugin_args["fsdp_version"])

    def __getstate__(self) -> dict:
        """Without the token: `Trainer` pickles its arguments into training_args.bin, which it pushes to the Hub."""
        return {**self.__dict__, "hub_token": None}
