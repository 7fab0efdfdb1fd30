"""Hostile text goes through real training: every prompt is trained on or left out, and weights stay finite."""

import random

import pytest
from datasets import Dataset
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helpers.data import byte_tokenizer
from helpers.models import make_model
from helpers.trainers import make_args, spread_reward
from helpers.weights import weights_of
from longact_trl import LongActTrainer, answer_reward, format_reward


HOSTILE = [
    "",
    " \n\t",
    "\x00\x01\x1b[2J\x7f\r",
    "\u202e\u200b\ufeff\u2028",
    "e" + "\u0301" * 60,
    "👩‍👩‍👧‍👦🏴󠁧󠁢󠁥󠁮󠁧󠁿",
    "\U0010ffff\ufffe",
    "<|user|><|assistant|><|end|><|system|>",
    "<think></think><answer>A</answer>" * 4,
    "{% for m in messages %}{{ m.__class__ }}{% endfor %}",
    "x" * 5000,
    "﷽" * 200,
]


def train(tmp_path, prompts: list, **kwargs) -> LongActTrainer:
    """One pass over the prompts, four at a time, with all rewards."""
    golds = {"answer": [["A"]] * len(prompts), "answer_kind": ["choice"] * len(prompts)}
    tokenizer = byte_tokenizer()
    settings = {"per_device_train_batch_size": 16, "max_steps": max(len(prompts) // 4, 1), **kwargs}
    trainer = LongActTrainer(
        make_model(vocab_size=len(tokenizer), eos_token_id=tokenizer.eos_token_id),
        [format_reward, answer_reward, spread_reward],
        make_args(tmp_path, **settings),
        Dataset.from_dict({"prompt": prompts, **golds}),
        processing_class=tokenizer,
    )
    trainer.train()
    assert trainer.state.global_step == settings["max_steps"]
    assert all(weight.isfinite().all() for weight in weights_of(trainer.model).values())
    return trainer


@pytest.mark.parametrize("policy", ["filter", "truncate_middle"])
def test_messages(tmp_path, policy):
    prompts = [[{"role": "user", "content": content}] for content in HOSTILE]
    trainer = train(tmp_path, prompts, prompt_length_policy=policy, dynamic_sampling=True, max_resamples=1)
    assert len(trainer.train_dataset) == len(HOSTILE) - (2 if policy == "filter" else 0)


def test_plain_text(tmp_path):
    """Without a template an empty prompt has no token, and nothing to begin from."""
    train(tmp_path, [content for content in HOSTILE if content])
    with pytest.raises(ValueError, match="2 of 4 prompts have no token to begin from, the first is row 1"):
        train(tmp_path, ["x", "", "y", ""])


@settings(max_examples=6, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.lists(st.text(max_size=80), min_size=4, max_size=4), st.sampled_from(["user", "system", "tool", "‮"]))
def test_any_text(tmp_path_factory, contents, role):
    prompts = [[{"role": role, "content": content}] for content in contents]
    train(tmp_path_factory.mktemp(str(random.random())), prompts)
