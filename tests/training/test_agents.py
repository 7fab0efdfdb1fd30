"""Tools and environments: what TRL takes is taken here, and prompts are measured as they are generated from."""

from pathlib import Path

import pytest
import trl
from datasets import Dataset
from trl import GRPOTrainer

from helpers.models import make_model, make_tokenizer
from helpers.trainers import make_args, make_prompts, spread_reward
from longact_trl import LongActTrainer, answer_reward
from longact_trl.data.length import apply_length_policy, prompt_lengths
from longact_trl.training.agents import with_tools
from longact_trl.training.prompt_checks import check_dataset, fit_prompts


def look_up(word: str) -> str:
    """
    Look a word up.

    Args:
        word: The word to look up.
    """
    return word


class Game:
    """An environment that brings its prompt."""

    made = 0

    def __init__(self):
        type(self).made += 1

    def reset(self, **kwargs) -> str:
        return "w1 w2 w3"

    def move(self, direction: str) -> str:
        """
        Move one step.

        Args:
            direction: Where to go.
        """
        return direction

    def get_reward(self) -> float:
        return 1.0


class Quiz(Game):
    def guess(self, answer: str) -> str:
        """
        Guess the answer.

        Args:
            answer: The guess.
        """
        return answer


def tool_tokenizer():
    tokenizer = make_tokenizer()
    tokenizer.chat_template = (Path(trl.__file__).parent / "chat_templates" / "qwen3.jinja").read_text()
    return tokenizer


def make_agent(tmp_path, dataset, trainer_class=LongActTrainer, **kwargs):
    settings = {name: kwargs.pop(name) for name in ("prompt_length_policy",) if name in kwargs}
    args = make_args(tmp_path, max_steps=1, **settings)
    model = make_model(max_position_embeddings=1024)
    return trainer_class(model, [spread_reward], args, dataset, processing_class=tool_tokenizer(), **kwargs)


ROUTING = Dataset.from_dict({"environment": ["game", "quiz"] * 4})


@pytest.mark.parametrize(
    "dataset, factory", [(None, Game), (ROUTING, {"game": Game, "quiz": Quiz})], ids=["no_dataset", "routing"]
)
def test_environments_that_bring_the_prompts(tmp_path, dataset, factory):
    trainer = make_agent(tmp_path, dataset, environment_factory=factory)
    trainer.train()
    assert trainer.state.global_step == 1
    assert any("rewards/Game/mean" in entry for entry in trainer.state.log_history)


def test_an_environment_is_made_no_more_often_than_by_trl(tmp_path):
    counts = []
    for trainer_class in (GRPOTrainer, LongActTrainer):
        Game.made = 0
        make_agent(tmp_path, None, trainer_class, environment_factory=Game)
        counts.append(Game.made)
    assert counts == [1, 1]


@pytest.mark.parametrize(
    "tools, factory", [([look_up], None), (None, Game), ([look_up], {"game": Game, "quiz": Quiz})]
)
def test_a_prompt_is_measured_with_its_tools(tmp_path, tools, factory):
    """As long as what TRL itself tokenizes to generate from."""
    rows = make_prompts().select(range(8))
    rows = rows.add_column("environment", ["game", "quiz"] * 4) if isinstance(factory, dict) else rows
    trainer = make_agent(tmp_path, rows, tools=tools, environment_factory=factory)
    trainer._batch_environments = rows["environment"][:] if isinstance(factory, dict) else [None] * 8
    generated_from, *_ = trainer._tokenize_prompts(rows["prompt"][:])
    _, schemas = with_tools(tools, factory)
    tokenizer = tool_tokenizer()
    measured = prompt_lengths(rows, tokenizer, tools=schemas)
    assert measured == [len(ids) for ids in generated_from]
    assert min(measured) > max(prompt_lengths(rows, tokenizer)) + 20
    limit = sorted(measured)[3]
    assert len(apply_length_policy(rows, tokenizer, limit, tools=schemas)) == 4
    cut = apply_length_policy(rows, tokenizer, max(measured) - 4, "truncate_middle", tools=schemas)
    assert max(prompt_lengths(cut, tokenizer, tools=schemas)) <= max(measured) - 4


def test_the_trainer_leaves_out_what_is_too_long_with_its_tools(tmp_path):
    rows, tokenizer = make_prompts(), tool_tokenizer()
    _, schemas = with_tools([look_up], None)
    limit = sorted(prompt_lengths(rows, tokenizer, tools=schemas))[9]
    args = make_args(tmp_path)
    assert len(fit_prompts(rows, tokenizer, limit, args, schemas)) == 10
    assert len(fit_prompts(rows, tokenizer, limit, args)) == 16
    assert fit_prompts(None, tokenizer, limit, args, schemas) is None
    assert fit_prompts(ROUTING, tokenizer, limit, args, schemas) is ROUTING


@pytest.mark.parametrize(
    "dataset, rewards, factory, message",
    [
        (None, [], None, "training dataset is empty"),
        (ROUTING, [], None, "no column 'prompt'"),
        (None, [], {"a": Game, "b": Quiz}, r"several environments \('a', 'b'\) needs a `train_dataset`"),
        (make_prompts(), [], {"a": Game}, "no column 'environment', which an `environment_factory` of several"),
        (ROUTING, [], {"game": Game, "quizz": Quiz}, "names the environment 'quiz', .*'game', 'quizz'. Did you mean"),
        (None, [answer_reward], Game, "no column 'answer', which the reward function `answer_reward` reads"),
        (Dataset.from_dict({"prompt": ["?"], "answer": [5]}), [answer_reward], None, "'answer' holds int64"),
        (Dataset.from_dict({"prompt": ["?"], "answer": [[0.5]]}), [answer_reward], None, "'answer' holds float64"),
        (Dataset.from_dict({"prompt": ["?"], "answer": [True]}), [answer_reward], None, "'answer' holds bool"),
    ],
    ids=range(9),
)
def test_what_is_missing_is_named(dataset, rewards, factory, message):
    with pytest.raises(ValueError, match=message):
        check_dataset(dataset, rewards, factory)


def test_an_environment_without_a_reset_is_named_before_a_model_is_loaded():
    for factory in (object, {"game": Game, "other": object}):
        with pytest.raises(ValueError, match="object has no method `reset`"):
            with_tools(None, factory)


def test_a_call_of_tools_in_a_prompt_has_no_content_to_cut():
    call = {"type": "function", "function": {"name": "look_up", "arguments": {"word": "w1"}}}
    turns = [{"role": "user", "content": "w2 " * 200}, {"role": "assistant", "content": None, "tool_calls": [call]}]
    turns += [{"role": "tool", "content": "w1"}, {"role": "user", "content": "w3"}]
    rows, tokenizer = Dataset.from_list([{"prompt": turns}]), tool_tokenizer()
    [length] = prompt_lengths(rows, tokenizer)
    cut = apply_length_policy(rows, tokenizer, length - 50, "truncate_middle")
    assert prompt_lengths(cut, tokenizer)[0] <= length - 50
    assert [message["content"] for message in cut[0]["prompt"]][1:] == [None, "w1", "w3"]


def test_what_is_there_passes():
    for answer in ("a", ["a"], None):
        check_dataset(Dataset.from_dict({"prompt": ["?"], "answer": [answer]}), [answer_reward])
    check_dataset(None, [], Game)
    check_dataset(ROUTING, [], {"game": Game, "quiz": Quiz})


def test_a_mistyped_argument_of_the_template_is_named():
    rows, tokenizer = make_prompts().select(range(2)), tool_tokenizer()
    plain, closed = (
        prompt_lengths(rows, tokenizer, chat_template_kwargs=given) for given in ({}, {"enable_thinking": False})
    )
    assert (
        plain != closed == prompt_lengths(rows, tokenizer, chat_template_kwargs={"enable_thinking": False, "mine": 1})
    )
    with pytest.raises(ValueError, match="`chat_template_kwargs` .*`enable_thinkng`. Did you mean `enable_thinking`"):
        prompt_lengths(rows, tokenizer, chat_template_kwargs={"enable_thinkng": False})
