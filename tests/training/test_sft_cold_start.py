"""The cold start as a user runs it, on the embedded model: packing, and only the response is learned."""

import json
import shutil
from pathlib import Path

import grpo_longact
import pytest
import sft_cold_start
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import ModelConfig, SFTConfig, SFTTrainer

from helpers.base_model import ends, make_base_model
from helpers.families import tiny_config
from helpers.paths import RECIPES, ROOT
from longact_trl.data.am_deepseek import convert_row
from longact_trl.data.rows import InvalidRow
from longact_trl.quickstart import MODEL
from longact_trl.settings.recipe_yaml import parse_recipe
from longact_trl.training.cold_start import ColdStartArguments


FIXTURE = ROOT / "tests" / "fixtures" / "am_deepseek.jsonl"
CPU = ["--use_cpu", "true", "--bf16", "false"]  # this machine, not the recipe's


@pytest.fixture
def am(tmp_path) -> Path:
    """The good rows of the fixture."""
    good = []
    for line in FIXTURE.read_text().splitlines():
        try:
            convert_row(json.loads(line))
            good.append(line)
        except (InvalidRow, KeyError, TypeError):
            pass
    path = tmp_path / "am.jsonl"
    path.write_text("\n".join(good))
    return path


@pytest.fixture
def trainers(monkeypatch, clone) -> list[SFTTrainer]:
    """The trainers that the recipe makes."""
    made = []

    class Kept(sft_cold_start.ColdStartTrainer):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            made.append(self)

    monkeypatch.setattr(sft_cold_start, "ColdStartTrainer", Kept)
    return made


def run(output_dir: Path, *overrides: str) -> None:
    settings = ["--max_steps", "2", "--logging_steps", "1", "--output_dir", str(output_dir)]
    sft_cold_start.train(["--config", "sft_tiny.yaml", *settings, *overrides])


def spans(row: dict) -> list[slice]:
    """The samples of a packed row."""
    ends = torch.tensor(row["seq_lengths"]).cumsum(0).tolist()
    return [slice(start, end) for start, end in zip([0, *ends], ends, strict=False)]


@pytest.mark.parametrize("source", ["am_deepseek", "tiny_tasks"])
def test_two_steps_with_packing_learn_the_response_only(tmp_path, am, trainers, source):
    name = str(am) if source == "am_deepseek" else "tiny_tasks"
    run(tmp_path / "out", "--dataset_name", name, "--max_rows", "20", "--category", "all", "--learning_rate", "0")
    [trainer] = trainers
    assert trainer.state.global_step == 2
    assert (trainer.padding_free, trainer.completion_only_loss) == (True, True)
    tokenizer = AutoTokenizer.from_pretrained("longact_trl/assets/tiny_qwen3")
    answer, opening = tokenizer.convert_tokens_to_ids(["</answer>", "<think>"])
    rows = list(trainer.train_dataset)
    assert max(len(row["seq_lengths"]) for row in rows) > 1  # something is packed
    samples = [(row, span) for row in rows for span in spans(row)]
    for row, span in samples:
        ids, labels = row["input_ids"][span], row["labels"][span]
        start = next(i for i, label in enumerate(labels) if label != -100)
        assert ids[start] == opening and tokenizer.decode(ids[:start]).endswith("<|im_start|> assistant")
        assert labels[start:] == ids[start:]
        assert answer in labels and tokenizer.eos_token_id in labels

    # A packed sequence has the loss that its samples have one by one, and of their responses alone.
    model = AutoModelForCausalLM.from_pretrained("longact_trl/assets/tiny_qwen3", dtype=torch.float32)
    losses = []
    for row, span in [(rows[0], span) for span in spans(rows[0])]:
        ids, labels = torch.tensor([row["input_ids"][span]]), torch.tensor(row["labels"][span])
        with torch.no_grad():
            logps = model(ids).logits[0, :-1].log_softmax(-1)
        learned = labels[1:] != -100
        losses.append(-logps[learned].gather(1, labels[1:][learned, None]).flatten())
    batch = trainer._prepare_inputs(trainer.data_collator([rows[0]]))
    with torch.no_grad():
        loss = trainer.compute_loss(trainer.model.eval(), batch)
    torch.testing.assert_close(loss, torch.cat(losses).mean(), rtol=1e-4, atol=1e-6)


def test_the_loss_falls_and_the_saved_model_is_plain(tmp_path, trainers):
    run(tmp_path / "out", "--max_steps", "12", "--max_rows", "12")  # the same few rows again and again
    losses = [log["loss"] for log in trainers[0].state.log_history if "loss" in log]
    assert len(losses) == 12 and sum(losses[8:]) < 0.5 * sum(losses[:4])
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32)
    assert torch.equal(model.lm_head.weight, trainers[0].model.lm_head.weight)


def test_resume_auto_continues_and_a_second_run_does_not_overwrite(tmp_path, trainers):
    saves = ["--save_strategy", "steps", "--save_steps", "1", "--max_rows", "40"]
    run(tmp_path, *saves, "--resume_from_checkpoint", "auto")
    with pytest.raises(ValueError, match="holds another run's checkpoint-2"):
        run(tmp_path, *saves)
    run(tmp_path, *saves, "--resume_from_checkpoint", "auto", "--max_steps", "3")
    assert trainers[-1].state.global_step == 3
    assert [log["step"] for log in trainers[-1].state.log_history if "loss" in log] == [1, 2, 3]


def test_a_mixture_of_experts_goes_on(tmp_path, trainers):
    tokenizer, config = AutoTokenizer.from_pretrained(MODEL), tiny_config("qwen3_moe")
    config.vocab_size, config.eos_token_id = len(tokenizer), tokenizer.eos_token_id
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "moe")
    tokenizer.save_pretrained(tmp_path / "moe")
    settings = ["--model_name_or_path", str(tmp_path / "moe"), "--save_strategy", "steps", "--save_steps", "1"]
    settings += ["--max_rows", "40", "--learning_rate", "1e-2", "--warmup_steps", "0"]
    run(tmp_path / "out", *settings)
    shutil.rmtree(tmp_path / "out" / "checkpoint-2")
    run(tmp_path / "out", *settings, "--resume_from_checkpoint", "auto")
    whole, parts = (trainer.model for trainer in trainers)
    for name, weight in whole.named_parameters():
        assert torch.equal(weight, parts.get_parameter(name)), name


def test_from_a_base_model_to_rollouts_that_stop(tmp_path, trainers):
    """The paper's way: the cold start teaches a turn's end, and RL's rollouts of the saved model end there."""
    base = make_base_model(tmp_path / "base")
    assert ends(base) == ("<pad>", {"<pad>"}, {"<pad>"})
    with pytest.raises(
        ValueError, match=r"ends a turn with '<\|im_end\|>', but .* stop at '<pad>'.*`eos_token: '<\|im"
    ):
        run(tmp_path / "cold", "--model_name_or_path", str(base))
    assert not trainers  # before anything is loaded
    run(tmp_path / "cold", "--model_name_or_path", str(base), "--eos_token", "<|im_end|>", "--max_rows", "40")
    assert ends(tmp_path / "cold") == ("<|im_end|>", {"<|im_end|>"}, {"<|im_end|>", "<pad>"})

    clipped = {}
    for model in (base, tmp_path / "cold"):
        output = tmp_path / f"rl_{model.name}"
        flags = ["--model_name_or_path", str(model), "--output_dir", str(output), "--max_steps", "1"]
        flags += ["--per_device_train_batch_size", "16", "--save_steps", "1", "--logging_steps", "1"]
        grpo_longact.train(["--config", "quickstart.yaml", *flags])
        state = json.loads((output / "checkpoint-1" / "trainer_state.json").read_text())
        [clipped[model.name]] = [log["completions/clipped_ratio"] for log in state["log_history"] if "loss" in log]
    assert clipped == {"base": 1.0, "cold": 0.0}


@pytest.mark.parametrize("size", ["8B", "4B"])
def test_the_papers_settings(size):
    command = ["--config", f"sft_qwen3_{size.lower()}.yaml", *CPU]
    types = (ColdStartArguments, SFTConfig, ModelConfig)
    script_args, args, model_args = parse_recipe(types, command, RECIPES)
    assert model_args.model_name_or_path == f"Qwen/Qwen3-{size}-Base"
    assert (script_args.category, args.eos_token) == ("if", "<|im_end|>")
    assert script_args.dataset_name == "a-m-team/AM-DeepSeek-R1-0528-Distilled"
    assert (script_args.max_rows, args.max_length, args.max_steps, args.packing) == (20_000, 16_384, 900, True)
    assert (args.learning_rate, args.lr_scheduler_type, args.completion_only_loss) == (2e-5, "cosine", True)
    assert args.get_warmup_steps(900) == 27
