"""What of TRL this package stands on: where it moves, these fail."""

import inspect

import pytest
import torch
from transformers import Trainer
from trl import GRPOConfig, GRPOTrainer

from helpers.trainers import make_trainer


SIGNATURES = {
    GRPOTrainer._prepare_inputs: ["self", "generation_batch"],
    GRPOTrainer._generate_and_score_completions: ["self", "inputs"],
    GRPOTrainer._generate: ["self", "prompts"],
    GRPOTrainer._calculate_rewards: ["self", "inputs", "prompts", "completions", "completion_ids_list"],
    GRPOTrainer._get_per_token_logps_and_entropies: [
        "self", "model", "input_ids", "attention_mask", "logits_to_keep", "batch_size",
    ],
    GRPOTrainer._compute_loss: ["self", "model", "inputs"],
    GRPOTrainer.training_step: ["self", "model", "inputs", "num_items_in_batch"],
    GRPOTrainer._save_checkpoint: ["self", "model", "trial"],
    GRPOTrainer._load_optimizer_and_scheduler: ["self", "checkpoint"],
    GRPOTrainer.__init__: [
        "self", "model", "reward_funcs", "args", "train_dataset", "eval_dataset", "processing_class",
    ],
    Trainer._save_rng_state: ["self", "output_dir"],
    Trainer._load_rng_state: ["self", "checkpoint"],
    Trainer._load_from_checkpoint: ["self", "resume_from_checkpoint", "model"],
    Trainer.get_decay_parameter_names: ["self", "model"],
    Trainer.train: ["self", "resume_from_checkpoint"],
}  # fmt: skip


@pytest.mark.parametrize("method", SIGNATURES, ids=lambda method: method.__qualname__)
def test_trl_still_has(method):
    expected = SIGNATURES[method]
    assert list(inspect.signature(method).parameters)[: len(expected)] == expected


def test_trl_still_keeps_its_state_where_it_is_read(tmp_path):
    trainer = make_trainer(tmp_path, trainer_class=GRPOTrainer, config_class=GRPOConfig, steps_per_generation=2)
    assert (trainer._step, trainer._buffered_inputs, trainer.num_iterations) == (0, None, 1)
    assert trainer.ref_model is None and "train" in trainer._metrics
    trainer.train()
    assert trainer._step == 3
    assert [sorted(batch)[0] for batch in trainer._buffered_inputs] == ["advantages"] * 2
    assert all(isinstance(value, torch.Tensor) for batch in trainer._buffered_inputs for value in batch.values())


def test_trl_still_writes_the_trainer_state_last():
    source = inspect.getsource(Trainer._save_checkpoint)
    order = [source.index(s) for s in ("_save_optimizer_and_scheduler(", "_save_rng_state(", "save_to_json(")]
    assert order == sorted(order)
    assert "super()._save_checkpoint(" in inspect.getsource(GRPOTrainer._save_checkpoint)
