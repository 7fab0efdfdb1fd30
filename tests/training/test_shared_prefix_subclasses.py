"""What subclasses of the trainer do beside shared prompts, and what generation sees of them."""

import pytest
import torch
from peft import LoraConfig
from trl import GRPOTrainer
from trl.trainer.utils import add_fused_lm_head

from helpers.models import make_model
from helpers.trainers import make_trainer
from helpers.weights import weights_of
from longact_trl import LongActTrainer


class Halves(LongActTrainer):
    """What a subclass makes of the loss."""

    def compute_loss(self, *args, **kwargs):
        return 0.5 * super().compute_loss(*args, **kwargs)


class Again(LongActTrainer):
    """A second pass over the rows, and one over other rows of the same lengths."""

    def _compute_loss(self, model, inputs):
        loss = super()._compute_loss(model, inputs)
        for prompts in (inputs["prompt_ids"], inputs["prompt_ids"].flip(1)):
            logps, _, _ = self._get_per_token_logps_and_entropies(
                model,
                torch.cat([prompts, inputs["completion_ids"]], dim=1),
                torch.cat([torch.ones_like(prompts), inputs["completion_mask"]], dim=1),
                inputs["completion_ids"].size(1),
            )
            loss = loss - 0.1 * (logps * inputs["completion_mask"]).mean()
        return loss


class Distils(LongActTrainer):
    """Another model's log-probs, and what TRL can shuffle though it is no tensor."""

    def _generate_and_score_completions(self, inputs):
        output = super()._generate_and_score_completions(inputs)
        return output | {"nothing": None, "names": [str(n) for n in range(len(output["prompt_ids"]))]}

    def _compute_loss(self, model, inputs):
        teacher = make_model(seed=5)
        add_fused_lm_head(teacher, temperature=1.0, outputs=("log_probs", "entropy"))
        ids, mask = (
            torch.cat([inputs[f"prompt_{name}"], inputs[f"completion_{name}"]], dim=1) for name in ("ids", "mask")
        )
        with torch.no_grad():
            logps, _, _ = self._get_per_token_logps_and_entropies(
                teacher, ids, mask, inputs["completion_ids"].size(1), compute_entropy=True
            )
        return super()._compute_loss(model, inputs | {"advantages": inputs["advantages"] - 0.1 * logps.mean(1)})


class ScoresWithoutAdapter(LongActTrainer):
    def _score(self, rollouts):
        logps = super()._score(rollouts)
        with self.model.disable_adapter():
            super()._score(rollouts)
        return logps


ADAPTER = LoraConfig(r=4, target_modules=["q_proj", "k_proj"], lora_dropout=0.0, init_lora_weights=False)


@pytest.mark.parametrize(
    "trainer_class, settings",
    [
        (Halves, {"prefix_chunk_size": 4}),
        (Again, {}),
        (Distils, {}),
        (ScoresWithoutAdapter, {"peft_config": ADAPTER}),
    ],
)
def test_what_a_subclass_does_beside_it(trainer_class, settings, tmp_path, tiny_model, packed):
    """A group in micro-batches of two rows."""
    common = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2, "max_steps": 1}
    common |= {"optim": "sgd", "learning_rate": 0.3}
    starts, ends = [], []
    for mode in ("off", "on"):
        own = {name: value for name, value in settings.items() if mode == "on" or not name.startswith("prefix_")}
        trainer = make_trainer(tmp_path / mode, tiny_model, trainer_class, shared_prefix=mode, **common, **own)
        starts.append(weights_of(trainer.model))
        trainer.train()
        ends.append(weights_of(trainer.model))
    assert packed
    for weight, value in ends[0].items():
        moved, grain = (value - starts[0][weight]).norm(), 1e-7 * starts[0][weight].norm()
        assert (ends[1][weight] - value).norm() <= 1e-4 * moved + grain, weight


class LeavesRowsOut(LongActTrainer):
    def _compute_loss(self, model, inputs):
        return super()._compute_loss(model, {k: v[:1] if v.dim() else v for k, v in inputs.items()})


def test_rows_that_a_subclass_leaves_out_are_missed(tmp_path, tiny_model):
    """The prompt's backward pass would be with them."""
    settings = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}
    trainer = make_trainer(tmp_path, tiny_model, LeavesRowsOut, **settings)
    with pytest.raises(ValueError, match="LeavesRowsOut has not forwarded the rows of a micro-batch"):
        trainer.train()


def test_generation_sees_the_models_own_attention(tmp_path, tiny_model, packed, monkeypatch):
    """By whose name `use_transformers_continuous_batching` looks up that of its pages."""
    seen, generate = [], GRPOTrainer._generate_single_turn

    def noting(trainer, *args, **kwargs):
        seen.append(trainer.model.config._attn_implementation)
        return generate(trainer, *args, **kwargs)

    monkeypatch.setattr(GRPOTrainer, "_generate_single_turn", noting)
    make_trainer(tmp_path, tiny_model, max_steps=1).train()
    assert packed and seen == ["sdpa"]
