import pytest
import torch
from huggingface_hub import ModelCard
from transformers import AutoModelForCausalLM
from trl import GRPOConfig, GRPOTrainer

from helpers.trainers import make_trainer, spread_reward
from helpers.weights import assert_no_hooks, weights_of
from longact_trl import LongActTrainer, measure_magnitudes
from longact_trl.method.projections import find_projections


class RecordingTrainer(LongActTrainer):
    """Notes every policy pass and the masks behind every backward pass, by optimizer step."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.passes, self.masks, self.weights, self.sequences = [], [], [], []

    def _get_per_token_logps_and_entropies(self, model, input_ids, attention_mask, *args, **kwargs):
        kind = "train" if torch.is_grad_enabled() else "score"
        self.passes.append((self.state.global_step, kind, len(input_ids)))
        self.sequences.append({"input_ids": input_ids, "attention_mask": attention_mask})
        return super()._get_per_token_logps_and_entropies(model, input_ids, attention_mask, *args, **kwargs)

    def training_step(self, *args, **kwargs):
        if self._step % self.args.gradient_accumulation_steps == 0:
            self.weights.append(weights_of(self.model))
        output = super().training_step(*args, **kwargs)
        self.masks.append((self.state.global_step, dict(self.mask_refresh.masks)))
        return output

    def count(self, kind: str) -> list[int]:
        """Passes of a kind in each optimizer step."""
        return [sum(k == kind for s, k, _ in self.passes if s == step) for step in range(self.args.max_steps)]


def same(masks: dict[str, torch.Tensor], others: dict[str, torch.Tensor]) -> bool:
    return masks.keys() == others.keys() and all(torch.equal(mask, others[name]) for name, mask in masks.items())


@pytest.mark.parametrize(
    "settings",
    [{}, {"gradient_accumulation_steps": 2}, {"steps_per_generation": 2}, {"gradient_checkpointing": True}],
    ids=["plain", "accumulation", "steps_per_generation", "checkpointing"],
)
def test_dense_is_grpo_to_the_bit(tmp_path, settings):
    settings = {"weight_decay": 0.1, "epsilon_high": 0.28, **settings}
    ours = make_trainer(tmp_path / "ours", strategy="dense", shared_prefix="off", **settings)
    ours.train()
    stock = make_trainer(tmp_path / "stock", trainer_class=GRPOTrainer, config_class=GRPOConfig, **settings)
    stock.train()
    expected = weights_of(stock.model)
    for name, weight in weights_of(ours.model).items():
        assert torch.equal(weight, expected[name]), name
    logs = [{k: v for k, v in log.items() if not k.startswith("longact/")} for log in ours.state.log_history]
    for log, other in zip(logs[:3], stock.state.log_history[:3], strict=True):
        assert {k: v for k, v in log.items() if k != "step_time"} == {
            k: v for k, v in other.items() if k != "step_time"
        }


def test_masked_is_not_grpo(tmp_path):
    """The comparison above can fail."""
    dense = make_trainer(tmp_path / "dense", strategy="dense")
    dense.train()
    massive = make_trainer(tmp_path / "massive")
    massive.train()
    assert not torch.equal(*[t.model.model.layers[0].self_attn.q_proj.weight for t in (dense, massive)])


@pytest.mark.parametrize("strategy", ["massive", "min", "random", "dense"])
def test_no_hook_is_left(tmp_path, strategy):
    trainer = make_trainer(tmp_path, strategy=strategy)
    trainer.train()
    assert_no_hooks(trainer.model)


class Breaks:
    """A reward that fails in the second step."""

    __name__ = "breaks"

    def __init__(self):
        self.calls = 0

    def __call__(self, completions, **kwargs):
        self.calls += 1
        if self.calls == 2:
            raise RuntimeError("no reward today")
        return spread_reward(completions)


def test_no_hook_is_left_when_training_fails(tmp_path):
    trainer = make_trainer(tmp_path, reward=Breaks())
    with pytest.raises(RuntimeError, match="no reward today"):
        trainer.train()
    assert trainer.state.global_step == 1
    assert_no_hooks(trainer.model)


@pytest.mark.parametrize("saliency_source", ["current_batch", "previous_step"])
@pytest.mark.parametrize("strategy", ["massive", "random"])
@pytest.mark.parametrize("steps_per_generation", [2, 3, 4, 8])
def test_masks_change_between_steps_only(tmp_path, strategy, saliency_source, steps_per_generation):
    trainer = make_trainer(
        tmp_path,
        trainer_class=RecordingTrainer,
        gradient_accumulation_steps=4,
        steps_per_generation=steps_per_generation,
        per_device_train_batch_size=2,
        num_generations=2,
        strategy=strategy,
        saliency_source=saliency_source,
        learning_rate=5e-2,
    )
    trainer.train()
    by_step = [[masks for step, masks in trainer.masks if step == n] for n in range(3)]
    assert [len(masks) for masks in by_step] == [4, 4, 4]
    for masks in by_step:
        assert all(same(masks[0], other) for other in masks[1:])
    assert not same(by_step[0][0], by_step[1][0]) and not same(by_step[1][0], by_step[2][0])


@pytest.mark.parametrize(
    "settings, scored",
    [  # TRL scores where a generation serves more than one optimizer step
        ({}, {"current_batch": [1, 1, 1, 1], "previous_step": [0, 0, 0, 0]}),
        ({"gradient_accumulation_steps": 2}, {"current_batch": [1, 1, 1, 1], "previous_step": [0, 0, 0, 0]}),
        ({"steps_per_generation": 2}, {"current_batch": [1, 0, 1, 0], "previous_step": [1, 0, 1, 0]}),
        ({"num_iterations": 2}, {"current_batch": [1, 0, 1, 0], "previous_step": [1, 0, 1, 0]}),
        (
            {"gradient_accumulation_steps": 2, "steps_per_generation": 4},
            {"current_batch": [1, 0, 1, 0], "previous_step": [1, 0, 1, 0]},
        ),
        (
            {"gradient_accumulation_steps": 4, "steps_per_generation": 2},  # a second generation within the step
            {"current_batch": [1, 1, 1, 1], "previous_step": [0, 0, 0, 0]},
        ),
    ],
    ids=["plain", "accumulation", "steps_per_generation", "num_iterations", "both", "two_generations_a_step"],
)
@pytest.mark.parametrize("strategy", ["massive", "random", "dense"])
@pytest.mark.parametrize("saliency_source", ["current_batch", "previous_step"])
def test_extra_passes(tmp_path, settings, scored, strategy, saliency_source):
    trainer = make_trainer(
        tmp_path,
        trainer_class=RecordingTrainer,
        strategy=strategy,
        saliency_source=saliency_source,
        max_steps=4,
        **settings,
    )
    trainer.train()
    needs_magnitudes = strategy == "massive"
    assert trainer.count("score") == scored[saliency_source if needs_magnitudes else "previous_step"]
    assert trainer.count("train") == [trainer.args.gradient_accumulation_steps] * 4


@pytest.mark.parametrize("settings", [{}, {"steps_per_generation": 2}], ids=["plain", "steps_per_generation"])
def test_previous_step_waits_one_step(tmp_path, settings):
    trainer = make_trainer(
        tmp_path, trainer_class=RecordingTrainer, saliency_source="previous_step", weight_decay=0.1, **settings
    )
    trainer.train()
    first, second, third = trainer.weights
    masked = {f"{p.name}.weight" for p in find_projections(trainer.model)}
    for name in first:
        assert torch.equal(first[name], second[name]) == (name in masked), name
    masks = trainer.masks[1][1]
    for name, mask in masks.items():
        changed = (second[f"{name}.weight"] != third[f"{name}.weight"]).any(1)
        assert torch.equal(changed, mask), name


def test_current_batch_learns_from_the_first_step_on(tmp_path):
    trainer = make_trainer(tmp_path, trainer_class=RecordingTrainer)
    trainer.train()
    for name, mask in trainer.masks[0][1].items():
        changed = (trainer.weights[0][f"{name}.weight"] != trainer.weights[1][f"{name}.weight"]).any(1)
        assert torch.equal(changed, mask), name


@pytest.mark.parametrize(
    "settings",
    [{"steps_per_generation": 4, "gradient_accumulation_steps": 2}, {"num_iterations": 2}],
    ids=["steps_per_generation", "num_iterations"],
)
@pytest.mark.parametrize("saliency_source", ["current_batch", "previous_step"])
def test_later_steps_measure_the_training_forwards_of_the_step_before(tmp_path, settings, saliency_source):
    """Learning rate 0, so that what a step measured can be measured again afterwards."""
    trainer = make_trainer(
        tmp_path,
        trainer_class=RecordingTrainer,
        saliency_source=saliency_source,
        num_generations=2,
        max_steps=2,
        learning_rate=0.0,
        **settings,
    )
    refreshed = []
    refresh = trainer.mask_refresh.refresh

    def note_refresh():
        refresh()
        refreshed.append(trainer.mask_refresh.magnitudes)

    trainer.mask_refresh.refresh = note_refresh
    trainer.train()
    trainer.model.eval()
    accumulation = trainer.args.gradient_accumulation_steps
    observed = list(zip(trainer.sequences, trainer.passes, strict=True))
    scoring = [sequences for sequences, (_, kind, _) in observed if kind == "score"]
    training = [sequences for sequences, (step, kind, _) in observed if kind == "train" and step == 0]
    assert len(scoring) == 1 and len(training) == accumulation
    together = {k: torch.cat([batch[k] for batch in training]) for k in training[0]}
    evidence = [scoring[0], together] if saliency_source == "current_batch" else [together]
    assert len(refreshed) >= len(evidence)
    for magnitudes, batch in zip(refreshed, evidence, strict=False):
        for name, expected in measure_magnitudes(trainer.model, batch).items():
            torch.testing.assert_close(magnitudes[name], expected, rtol=1e-5, atol=0)


def test_metrics(tmp_path):
    trainer = make_trainer(tmp_path, max_steps=4, num_generations=2)
    trainer.train()
    logs = [log for log in trainer.state.log_history if "loss" in log]
    assert len(logs) == 4
    for i, log in enumerate(logs):
        assert log["longact/density_q"] == log["longact/density_k"] == 9 / 32
        assert 9 / 32 < log["longact/energy_share"] < 1
        assert 0 < log["longact/grad_norm_selected_share"] < 1
        assert 0 < log["longact/refresh_seconds"] < 5
        assert ("longact/mask_churn" in log) == (i > 0)
        if i:
            assert 0 < log["longact/mask_churn"] <= 1


def test_metrics_of_dense_and_random(tmp_path):
    for strategy in ("dense", "random"):
        trainer = make_trainer(tmp_path / strategy, strategy=strategy)
        trainer.train()
        log = [log for log in trainer.state.log_history if "loss" in log][-1]
        assert ("longact/density_q" in log) == (strategy == "random")
        assert "longact/energy_share" not in log


def test_the_optimizer_has_a_group_without_decay(tmp_path):
    trainer = make_trainer(tmp_path, weight_decay=0.1)
    names = trainer.get_decay_parameter_names(trainer.model)
    assert not [n for n in names if "q_proj" in n or "k_proj" in n]
    assert [n for n in names if "v_proj" in n] and [n for n in names if "down_proj" in n]
    dense = make_trainer(tmp_path, weight_decay=0.1, strategy="dense")
    assert [n for n in dense.get_decay_parameter_names(dense.model) if "q_proj" in n]


def test_a_saved_model_is_a_plain_checkpoint(tmp_path):
    trainer = make_trainer(tmp_path)
    trainer.train()
    trainer.save_model(tmp_path / "saved")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "saved")
    expected = weights_of(trainer.model)
    assert all(torch.equal(weight, expected[name]) for name, weight in weights_of(loaded).items())


def test_the_model_card_says_what_was_trained(tmp_path):
    trainer = make_trainer(tmp_path, max_steps=1)
    trainer.train()
    trainer.create_model_card(model_name="tiny")
    card = ModelCard.load(tmp_path / "README.md")
    assert {"trl", "grpo", "longact"} <= set(card.data.tags)
    assert "| sparsity_ratio (λ) | 0.3 |" in card.text
    assert "| density | 108 of 384 rows of W_Q and W_K at the last step |" in card.text
    assert card.text.index("## LongAct") < card.text.index("### Framework versions")
    assert "Bowen Ping" in card.text
