"""Where the policy gradient is, against gradients by hand: the embedded model, a few short completions."""

import json

import pytest
import torch
from datasets import Dataset
from PIL import Image
from safetensors.torch import load_file
from typer.testing import CliRunner

from helpers.models import make_decoder
from longact_trl import select_rows
from longact_trl.analysis.gradients.command import arguments
from longact_trl.analysis.gradients.policy import MeasuringTrainer
from longact_trl.analysis.gradients.prompts import by_length, contained_reward, synthetic_prompts
from longact_trl.analysis.gradients.restricted_step import norm_of, restrict, stepped
from longact_trl.analysis.gradients.row_energy import chance, row_energy, select, share
from longact_trl.cli import app
from longact_trl.method.gradients import row_parameters
from longact_trl.method.projections import find_projections, row_dim
from longact_trl.models.reading import load_model, load_tokenizer
from longact_trl.quickstart import MODEL
from longact_trl.rewards import answer_reward, format_reward


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """A batch of the embedded model, and the gradient that its loss leaves."""
    torch.manual_seed(0)
    tokenizer, model = load_tokenizer(str(MODEL)), load_model(str(MODEL))
    prompts = synthetic_prompts(tokenizer, 48, 3)
    _, args = arguments(None, str(tmp_path_factory.mktemp("scratch")), 3)
    args.max_completion_length = 20
    trainer = MeasuringTrainer(model, [format_reward, answer_reward], args, prompts, processing_class=tokenizer)
    with trainer.sharing_prefixes():
        rollouts = trainer.sample([prompts[i] for i in range(6, 9)])
        trainer.policy_loss(rollouts, backward=True)
    gradient = {param: param.grad.clone() for param in trainer.learning}
    return trainer, rollouts, gradient


def by_hand(trainer: MeasuringTrainer, rollouts) -> dict[str, torch.Tensor]:
    """The gradient of mean −A·log p over the batch's completion tokens (DAPO on-policy), each sequence by itself."""
    model = trainer.model
    model.zero_grad()
    for group in rollouts.groups:
        for row in range(len(group["completion_ids"])):
            prompt = group["prompt_ids"][row][group["prompt_mask"][row].bool()]
            completion = group["completion_ids"][row][group["completion_mask"][row].bool()]
            logits = model(input_ids=torch.cat([prompt, completion])[None]).logits[0, len(prompt) - 1 : -1]
            logps = logits.float().log_softmax(-1)[range(len(completion)), completion]
            loss = -group["advantages"][row] * logps.sum() / group["num_items_in_batch"]
            loss.backward()
    found = {p.name: p.module.weight.grad.clone() for p in trainer.projections}
    model.zero_grad()
    return found


def test_energies_are_those_of_the_gradient_by_hand(measured):
    trainer, rollouts, gradient = measured
    assert rollouts.groups and rollouts.num_groups == 3
    for group in rollouts.groups:  # groups were not mixed, and the trainer's advantages are of one group
        assert (group["prompt_ids"] == group["prompt_ids"][0]).all() and abs(group["advantages"].sum()) < 1e-4
    expected = by_hand(trainer, rollouts)
    for projection in trainer.projections:
        grad = expected[projection.name]
        torch.testing.assert_close(gradient[projection.module.weight], grad, rtol=1e-3, atol=1e-6)
        projection.module.weight.grad = grad
    energy = row_energy(trainer.projections)
    for name, grad in expected.items():
        shape = energy[name].shape
        torch.testing.assert_close(energy[name], (grad.double() ** 2).sum(1).view(shape), rtol=1e-5, atol=0)
    massive = {name: select_rows(m, 0.3) for name, m in rollouts.magnitudes.items()}
    inside = sum((expected[name][rows].double() ** 2).sum() for name, rows in massive.items())
    total = sum((grad.double() ** 2).sum() for grad in expected.values())
    assert share(energy, select(rollouts.magnitudes, 0.3, "massive")) == pytest.approx((inside / total).item())


def test_shares_of_all_rows_sum_to_one(measured):
    trainer, rollouts, gradient = measured
    for param, grad in gradient.items():
        param.grad = grad
    energy = row_energy(trainer.projections)
    for strategy in ("massive", "min", "random"):
        rows = select(rollouts.magnitudes, 0.3, strategy, seed=3)
        others = {name: ~selected for name, selected in rows.items()}
        assert share(energy, rows) + share(energy, others) == pytest.approx(1)
        assert chance(rollouts.magnitudes, rows) == 9 / 32  # 0.3 of 32 channels, in whole ones
    # Where a gradient knows nothing of rows, chance is what they hold.
    alike = {name: torch.ones_like(e) for name, e in energy.items()}
    assert share(alike, rows) == pytest.approx(9 / 32)


def test_only_queries_and_keys_have_a_gradient(measured):
    trainer, _, gradient = measured
    expected = {param for p in trainer.projections for param in row_parameters(p.module)}
    assert set(gradient) == expected and {p for p in trainer.model.parameters() if p.requires_grad} == expected


@pytest.mark.parametrize("direction", ["gradient", "sign"])
def test_steps_are_of_equal_norm_and_taken_back(measured, direction):
    trainer, rollouts, gradient = measured
    before = {param: param.detach().clone() for param in trainer.learning}
    for strategy in ("massive", "random", "min", "dense"):
        rows = select(rollouts.magnitudes, 0.3, strategy)
        towards = restrict(gradient, trainer.projections, rows, direction)
        with stepped(towards, 0.25):
            moved = {param: param.detach() - before[param] for param in before}
            assert norm_of(list(moved.values())) == pytest.approx(0.25, rel=1e-3)
            for p in trainer.projections:
                of_row = moved[p.module.weight].norm(dim=1)
                assert not of_row[~rows[p.name]].any()
                along = -gradient[p.module.weight][rows[p.name]]
                along = along.sign() if direction == "sign" else along
                cosine = torch.cosine_similarity(moved[p.module.weight][rows[p.name]].flatten(), along.flatten(), 0)
                assert cosine > 0.999
        assert all(torch.equal(param, before[param]) for param in before)
    with pytest.raises(RuntimeError, match="in between"), stepped(towards, 0.25):
        raise RuntimeError("in between")
    assert all(torch.equal(param, before[param]) for param in before)


def test_a_small_step_takes_off_what_the_gradient_says(measured):
    """To first order, norm of the step times norm of the gradient in its rows."""
    trainer, rollouts, gradient = measured
    with trainer.sharing_prefixes():
        at_start = trainer.policy_loss(rollouts)
        for strategy in ("massive", "min", "dense"):
            rows = select(rollouts.magnitudes, 0.3, strategy)
            towards = restrict(gradient, trainer.projections, rows, "gradient")
            with stepped(towards, 1e-3):
                change = trainer.policy_loss(rollouts) - at_start
            assert change == pytest.approx(-1e-3 * norm_of(list(towards.values())), rel=0.1)


def test_nothing_is_kept_of_other_weights(measured):
    """A pass without gradient keeps a prompt's K and V for the pass that follows it in training."""
    trainer, rollouts, gradient = measured
    with trainer.sharing_prefixes():
        with stepped(gradient, 5.0):
            assert trainer.policy_loss(rollouts) != pytest.approx(0, abs=1e-3)
        trainer.policy_loss(rollouts, backward=True)
    for param, grad in gradient.items():
        torch.testing.assert_close(param.grad, grad, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("model_type", ["qwen2", "phi3", "gpt2"])
def test_rows_of_other_layouts(model_type):
    """With biases, fused, and with rows in the second dimension."""
    model = make_decoder(model_type)
    projections = find_projections(model)
    for seed, module in enumerate({p.module: None for p in projections}):
        for param in row_parameters(module):
            param.grad = torch.randn(param.shape, generator=torch.Generator().manual_seed(seed))
    energy = row_energy(projections)
    for p in projections:
        weight = p.module.weight.grad.movedim(row_dim(p.module), 0)
        expected = weight.square().sum(1)
        if getattr(p.module, "bias", None) is not None:
            expected = expected + p.module.bias.grad.square()
        torch.testing.assert_close(energy[p.name].flatten().float(), expected[p.rows], rtol=1e-5, atol=0)
    gradient = {param: param.grad for p in projections for param in row_parameters(p.module)}
    rows = select({p.name: torch.rand(p.num_heads, p.head_dim) for p in projections}, 0.25, "massive")
    restricted = restrict(gradient, projections, rows, "gradient")
    inside = sum(energy[name].flatten()[selected].sum() for name, selected in rows.items())
    assert norm_of(list(restricted.values())) == pytest.approx(inside.sqrt().item(), rel=1e-5)


def test_contained_reward():
    completions = ["It is 17.", [{"role": "assistant", "content": "5 and 170"}]]
    assert contained_reward(completions, answer=[["17"], ["5", "17"]]) == [1.0, 0.5]


def test_prompts_of_a_recipe_by_length():
    tokenizer = load_tokenizer(str(MODEL))
    texts = ["fox " * length for length in (9, 1, 5, 3, 7, 2, 8, 4, 6)]
    rows = Dataset.from_dict({"prompt": [[{"role": "user", "content": text}] for text in texts]})
    sorted_rows = by_length(rows, tokenizer, 2)
    words = [prompt[0]["content"].count("fox") for prompt in sorted_rows["prompt"]]
    assert words == [1, 2, 3, 4, 5, 7, 8, 9]  # of the first eight, of which the last is 4
    medians = sorted_rows["num_tokens"]
    assert [b - a for a, b in zip(medians, medians[2:], strict=False)] == [2, 2, 3, 3, 2, 2]
    with pytest.raises(ValueError, match="4 lengths of 3 prompts need 12 rows, the data have 9: lower --num-prompts"):
        by_length(rows, tokenizer, 3)


def test_a_recipe_says_what_is_sampled(tmp_path):
    script_args, args = arguments("quickstart.yaml", str(tmp_path), 2)
    assert script_args.mixture == "quickstart_data.yaml" and args.num_generations == 16
    assert args.max_completion_length == 40 and args.epsilon_high == 0.28
    assert (args.strategy, args.per_device_train_batch_size, args.gradient_accumulation_steps) == ("dense", 16, 1)
    assert not args.use_vllm and args.report_to == []


def test_the_command(tmp_path):
    """Of the embedded model, which earns the paper's rewards; one length is enough here."""
    options = ["--gradients", "--num-prompts", "4", "--length", "12", "--output", str(tmp_path)]
    done = CliRunner().invoke(app, ["inspect", str(MODEL), *options], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    summary = json.loads((tmp_path / "gradients.json").read_text())
    assert summary["reward"] == "format and answer (Eq. 12)" and summary["chance"] == 9 / 32
    assert list(summary["lengths"]) == ["12"] and summary["lengths"]["12"]["groups"] == 4
    assert list(summary["share_by_layer"]["k"]) == ["0", "1"]
    steps = summary["lengths"]["12"]["steps"]["gradient"]
    for dense, massive in zip(steps["dense"]["same"], steps["massive"]["same"], strict=True):
        assert dense < massive < 0
    assert len(steps["dense"]["held_out"]) == 2
    saved = load_file(tmp_path / "gradients.safetensors")
    energy = saved["energy/0/12/model.layers.1.self_attn.q_proj"]
    rows = select_rows(saved["magnitude/0/12/model.layers.1.self_attn.q_proj"], 0.3)
    expected = (energy.flatten()[rows].sum() / energy.sum()).item()
    assert summary["share_by_layer"]["q"]["1"]["massive"][0] == pytest.approx(expected, rel=1e-5)
    most = (energy.view(-1, 32).topk(9, dim=1).values.sum() / energy.sum()).item()
    assert summary["share_by_layer"]["q"]["1"]["most"][0] == pytest.approx(most, rel=1e-5)
    assert Image.open(tmp_path / "gradients.png").width > 1000


@pytest.mark.parametrize(
    "options, message",
    [
        (["--gradients", "--layers", "0"], "--layers does not go with --gradients"),
        (["--gradients", "--projections", "q"], "--projections does not go with --gradients"),
        (["--num-prompts", "4"], "--num-prompts goes with --gradients only"),
        (["--config", "quickstart.yaml"], "--config goes with --gradients only"),
        (["--gradients", "--num-prompts", "0"], "--num-prompts must be 1 or more, got 0"),
        (["--gradients", "--length", "1k", "--config", "quickstart.yaml"], "not both"),
        (["--gradients", "--length", "64k"], "--length 64k and 32 tokens to answer are more than the"),
        (["--gradients", "--config", "nowhere.yaml"], "There is no config"),
        (["--gradients", "--sparsity-ratio", "0.01"], "selects none of the 32 channels"),
    ],
)
def test_what_a_user_gets_wrong(options, message):
    done = CliRunner().invoke(app, ["inspect", str(MODEL), *options])
    assert done.exit_code == 2
    assert message in " ".join(done.output.split()), done.output
