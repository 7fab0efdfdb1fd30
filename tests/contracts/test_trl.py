"""What of TRL is private and this package stands on."""

import pytest
import torch
from trl import GRPOConfig, GRPOTrainer

from helpers.contracts import Contract
from helpers.trainers import make_trainer


CONTRACTS = [
    Contract("trl.GRPOTrainer.__init__", "(model, reward_funcs, args, train_dataset, eval_dataset, processing_class, reward_processing_classes, callbacks, optimizers, quantization_config, peft_config, tools, rollout_func, environment_factory)", "the trainer passes the first six by position and the rest by name"),
    Contract("trl.GRPOTrainer._prepare_inputs", "(generation_batch)", "masks are refreshed when a micro-batch is ready; rows of one prompt are brought together"),
    Contract("trl.GRPOTrainer._generate_and_score_completions", "(inputs)", "the scoring pass on which masks are measured; Clip-Cov and KL-Cov select there"),
    Contract("trl.GRPOTrainer._generate", "(prompts)", "dynamic sampling exchanges groups between it and scoring"),
    Contract("trl.GRPOTrainer._generate_single_turn", "(prompt_ids, images, multimodal_fields, num_generations, has_tool_images)", "generation has the model's own attention function"),
    Contract("trl.GRPOTrainer._calculate_rewards", "(inputs, prompts, completions, completion_ids_list)", "a batch's rewards are asked once; the watchdog runs around it"),
    Contract("trl.GRPOTrainer._get_per_token_logps_and_entropies", "(model, input_ids, attention_mask, logits_to_keep, batch_size, compute_entropy, compute_aux_loss, pixel_values, image_grid_thw, num_images, pixel_attention_mask, spatial_shapes, num_tiles, image_sizes, token_type_ids, mm_token_type_ids, image_position_ids)", "every forward pass of policy and reference: observed, packed"),
    Contract("trl.GRPOTrainer._compute_loss", "reads _get_per_token_logps_and_entropies( ... inputs[\"advantages\"]", "advantages are read after the forward pass, which reweights them"),
    Contract("trl.GRPOTrainer.training_step", "sets ._step", "counts micro-batches: which step generates, what a checkpoint says"),
    Contract("trl.GRPOTrainer._load_optimizer_and_scheduler", "(checkpoint)", "masks, rollouts and the sampler are restored there"),
    Contract("trl.GRPOTrainer._save_checkpoint", "reads super()._save_checkpoint(", "Trainer's order of writing holds for TRL's checkpoints"),
    Contract("trl.GRPOTrainer._get_train_sampler", "(dataset)", "the sampler that is skipped through when a run resumes"),
    Contract("trl.GRPOTrainer", "sets ._step ._buffered_inputs ._metrics ._pending_metrics ._pending_extra_logs .reward_weights .reward_func_names .num_iterations .ref_model .epsilon_low .epsilon_high", "state that resuming, sampling, the losses and the metrics read and write"),
    Contract("trl.GRPOTrainer", "has ._tag_names ._name ._paper", "what TRL's model card says of the method"),
    Contract("trl.GRPOTrainer.create_model_card", "(model_name, dataset_name, tags)", "the card that is completed"),
    Contract("trl.trainer.utils.FusedCausalLMOutput", "(loss, log_probs, entropy, log_sum_sq_probs, mean_logits, is_top1, label_mask, aux_loss)", "shared prefixes unpack `log_probs` and `entropy` of what the model returns"),
    Contract("trl.trainer.utils.add_fused_lm_head", "(model, temperature, cast_lm_head_to_fp32, outputs)", "the head that takes `shift_labels` and passes `shared_prefix` on to attention"),
    Contract("trl.trainer.utils.split_tensor_dict", "(tensor_dict, num_chunks)", "how TRL cuts a generation batch into micro-batches"),
    Contract("trl.trainer.utils.nanstd", "(tensor, dim, keepdim)", "rewards are logged as TRL logs them"),
    Contract("trl.trainer.utils.get_config_model_id", "(config)", "the name of a model that is passed as an object"),
    Contract("trl.models.utils.disable_gradient_checkpointing", "(model, gradient_checkpointing_kwargs)", "the scoring pass that TRL leaves out is made as TRL makes it"),
    Contract("trl.import_utils.is_vllm_available", "(min_version)", "a missing or unfit vLLM is told before weights are loaded"),
    Contract("trl.rewards.get_soft_overlong_punishment", "(max_completion_len, soft_punish_cache)", "DAPO's overlong reward of the recipes"),
]  # fmt: skip


@pytest.mark.parametrize("contract", CONTRACTS, ids=lambda c: f"{c.name}:{c.shape[:12]}")
def test_contract(contract):
    contract.check()


def test_a_generation_is_what_sampling_takes_apart():
    """`_generate` returns a plain tuple, so its order is part of what we rely on."""
    from longact_trl.training.sampling import _Generation

    returned = Contract("trl.GRPOTrainer._generate", f"reads return {', '.join(_Generation._fields)}", "its order")
    returned.check()


def test_state_is_kept_as_it_is_read(tmp_path):
    trainer = make_trainer(tmp_path, trainer_class=GRPOTrainer, config_class=GRPOConfig, steps_per_generation=2)
    assert (trainer._step, trainer._buffered_inputs, trainer.num_iterations) == (0, None, 1)
    assert trainer.ref_model is None and "train" in trainer._metrics
    trainer.train()
    assert trainer._step == 3
    assert [sorted(batch)[0] for batch in trainer._buffered_inputs] == ["advantages"] * 2
    assert all(isinstance(value, torch.Tensor) for batch in trainer._buffered_inputs for value in batch.values())
