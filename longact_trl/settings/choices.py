"""
What fields of the configuration may be set to.

They stand here and not beside the code that acts on them because this loads nothing: a typo is told before torch is
imported. Strategies are in `method/strategies.py`, policy losses in `training/policy_loss_settings.py`.
"""

UPDATE_RULES = ("masked_gradient", "frozen_rows")
SALIENCY_SOURCES = ("current_batch", "previous_step")
ROW_SPARSE_CHOICES = ("auto", "on", "off")
SHARED_PREFIX_CHOICES = ("auto", "on", "off")
OF_SHARED_PREFIXES = ("prefix_chunk_size", "prefix_offload")
"""Fields that make no sense without shared prompts."""
LENGTH_POLICIES = ("filter", "truncate_middle", "error")

TEXTS_OF_GRPO = {
    "loss_type": ("grpo", "dapo", "bnpo", "dr_grpo", "cispo", "sapo", "luspo", "vespo"),
    "importance_sampling_level": ("token", "sequence"),
    "scale_rewards": ("group", "batch", "none"),
    "multi_objective_aggregation": ("sum_then_normalize", "normalize_then_sum"),
    "vllm_mode": ("colocate", "server"),
    "vllm_importance_sampling_mode": ("token_truncate", "token_mask", "sequence_truncate", "sequence_mask"),
}
"""Fields that TRL declares as any text, and looks at where it computes a loss: after the first generation."""
LOG_LEVELS = ("detail", "debug", "info", "warning", "error", "critical", "passive")
TEXTS_OF_TRANSFORMERS = {"log_level": LOG_LEVELS, "log_level_replica": LOG_LEVELS}

ROWWISE_OPTIMIZERS = ("adamw_torch", "adamw_torch_fused", "sgd", "paged_adamw_32bit", "lion_32bit", "paged_lion_32bit")
"""Values of `optim` whose step is zero wherever gradient and first moment are (`method/frozen_rows.py`)."""
