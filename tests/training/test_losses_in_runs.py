"""Whole runs with Clip-Cov and KL-Cov, and what a user may write wrong."""

import pytest
import torch

from helpers.trainers import make_args, make_trainer
from helpers.weights import weights_of
from longact_trl.training.policy_losses import SELECTED


OFF_POLICY = {"steps_per_generation": 2}


def run(tmp_path, name, **kwargs):
    trainer = make_trainer(tmp_path / name, **kwargs)
    selections = []
    generate = trainer._generate_and_score_completions

    def note(inputs):
        output = generate(inputs)
        selections.append(output.get(SELECTED))
        return output

    trainer._generate_and_score_completions = note
    trainer.train()
    return trainer, selections


WIDE = {"clip_cov_ratio": 0.3, "clip_cov_lb": -1.0, "kl_cov_ratio": 0.3, "num_generations": 4}


@pytest.mark.parametrize("policy_loss", ["clip_cov", "kl_cov"])
def test_one_sequence_a_micro_batch_selects_and_learns_as_one_big_micro_batch(tmp_path, policy_loss):
    """Centred within a micro-batch of one sequence, every covariance would be zero."""
    common = {"policy_loss": policy_loss, "max_steps": 4, "learning_rate": 1e-3, "optim": "sgd", **WIDE}
    big, selected = run(tmp_path, "big", per_device_train_batch_size=4, steps_per_generation=2, **common)
    small, others = run(
        tmp_path,
        "small",
        per_device_train_batch_size=1,
        gradient_accumulation_steps=4,
        steps_per_generation=8,
        **common,
    )
    assert len(selected) == len(others) == 2
    for mine, other in zip(selected, others, strict=True):
        assert mine.any() and torch.equal(mine, other)
    expected = weights_of(big.model)
    for name, weight in weights_of(small.model).items():
        torch.testing.assert_close(weight, expected[name], rtol=1e-4, atol=1e-6)
    for log, other in zip(big.state.log_history[:-1], small.state.log_history[:-1], strict=True):
        if "longact/cov_mean" in other:
            assert log["longact/cov_mean"] == pytest.approx(other["longact/cov_mean"], rel=1e-3)


@pytest.mark.parametrize("strategy", ["dense", "massive"])
@pytest.mark.parametrize("policy_loss", ["clip_cov", "kl_cov"])
def test_the_loss_matters_and_is_logged(tmp_path, policy_loss, strategy):
    off_policy = {"num_iterations": 2, "max_steps": 4, "strategy": strategy}
    vanilla, nothing = run(tmp_path, "vanilla", epsilon=1.0, epsilon_high=1e9, **off_policy)
    other, selected = run(
        tmp_path, policy_loss, policy_loss=policy_loss, epsilon=1.0, epsilon_high=1e9, **off_policy, **WIDE
    )
    assert nothing == [None, None] and len(selected) == 2
    assert not torch.equal(vanilla.model.lm_head.weight, other.model.lm_head.weight)
    logged = [log for log in other.state.log_history if f"longact/{policy_loss}_share" in log]
    assert len(logged) == 2 and all(0.1 < log[f"longact/{policy_loss}_share"] <= 0.3 for log in logged)
    assert all("longact/cov_mean" in log for log in logged)
    assert not any("cov" in name for log in vanilla.state.log_history for name in log)


@pytest.mark.parametrize("saliency_source", ["current_batch", "previous_step"])
def test_on_policy_clip_cov_makes_the_scoring_pass_it_needs_and_no_second_one(tmp_path, saliency_source):
    for strategy in ("dense", "massive"):
        trainer = make_trainer(
            tmp_path, policy_loss="clip_cov", saliency_source=saliency_source, strategy=strategy, **WIDE
        )
        scored = []
        score = trainer._score
        trainer._score = lambda rollouts, scored=scored, score=score: scored.append(1) or score(rollouts)
        trainer.train()
        assert len(scored) == 3


def test_selections_survive_a_resume_between_two_steps_of_one_generation(tmp_path):
    settings = {"policy_loss": "kl_cov", "num_iterations": 3, "max_steps": 3, "optim": "sgd", **WIDE}
    settings |= {"save_strategy": "steps", "save_steps": 1}
    straight = make_trainer(tmp_path, **settings)
    straight.train()
    resumed = make_trainer(tmp_path, **settings)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert resumed.state.global_step == 3
    expected = weights_of(straight.model)
    for name, weight in weights_of(resumed.model).items():
        assert torch.equal(weight, expected[name]), name


def test_evaluation_selects_nothing(tmp_path, prompts):
    trainer = make_trainer(tmp_path, policy_loss="clip_cov", eval_dataset=prompts.select(range(4)), **WIDE)
    assert "eval_loss" in trainer.evaluate()
    assert not any("cov" in name for name in trainer._metrics["eval"])


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"policy_loss": "klcov"}, "Unknown `policy_loss` 'klcov'"),
        ({"policy_loss": "clip_cov", "loss_type": "cispo"}, "Write one of 'grpo', 'dapo', 'bnpo', 'dr_grpo'"),
        ({"policy_loss": "clip_cov", "importance_sampling_level": "sequence"}, "importance_sampling_level='token'"),
        ({"policy_loss": "clip_cov", "clip_cov_ratio": 0}, "`clip_cov_ratio` is a share"),
        ({"policy_loss": "kl_cov", "kl_cov_ratio": 2, **OFF_POLICY}, "`kl_cov_ratio` is a share"),
        ({"policy_loss": "clip_cov", "clip_cov_lb": 5.0}, "No covariance lies between"),
        ({"policy_loss": "kl_cov", "kl_cov_coef": 0.0, **OFF_POLICY}, "must be above 0"),
        ({"policy_loss": "kl_cov", "delta": 10.0, **OFF_POLICY}, "remove `delta`"),
        ({"policy_loss": "kl_cov"}, "`steps_per_generation: 2`"),
        ({"policy_loss": "kl_cov", "gradient_accumulation_steps": 4}, "`steps_per_generation: 8`"),
        (
            {"policy_loss": "kl_cov", "gradient_accumulation_steps": 4, "steps_per_generation": 2},
            "it is 2 with .* or `num_iterations: 2`",
        ),
    ],
)
def test_wrong_settings_are_named(tmp_path, wrong, message):
    with pytest.raises(ValueError, match=message):
        make_args(tmp_path, **wrong)


@pytest.mark.parametrize("fix", [{"steps_per_generation": 8}, {"num_iterations": 2}])
def test_what_the_message_says_to_write_works(tmp_path, fix):
    assert make_args(tmp_path, policy_loss="kl_cov", gradient_accumulation_steps=4, **fix)
