"""What a policy is asked, by length: the package's synthetic contexts, or the prompts of a recipe."""

import random
from collections.abc import Sequence

from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from ...data import tiny_tasks
from ...data.length import prompt_length
from ...data.synthetic import generate_row
from ...data.synthetic_tasks import sentence
from ..questions import share_contained
from ..texts import MAX_UNKNOWN


TASKS = ("needle", "multi_key", "multi_value", "multi_query")  # from one fact to several, for weak models and strong
PARTS = (8, 4, 2, 1)  # of the longest context, whose eighth, quarter and half are measured too
COLUMNS = ("prompt", "answer", "answer_kind", "num_tokens")
NUM_NEEDLES, WORDS_A_NEEDLE = 12, 8  # of the tiny tasks: at most, and room for each


def synthetic_prompts(tokenizer: PreTrainedTokenizerBase, longest: int, num_prompts: int, seed: int = 0) -> Dataset:
    """
    Prompts of several lengths with one fact to be found.

    Args:
        tokenizer (`PreTrainedTokenizerBase`):
            The model's. One that does not know the words, such as the embedded model's, gets those of
            `longact_trl.data.tiny_tasks`.
        longest (`int`):
            Tokens of the longest prompts; others have an eighth, a quarter and a half of them, where there is room.
        num_prompts (`int`):
            How many of each length.
        seed (`int`, *optional*, defaults to `0`):
            Seed.

    Returns:
        `Dataset`: Columns `prompt`, `answer`, `answer_kind` and `num_tokens`, the shortest first.

    Raises:
        `ValueError`: If not even the longest prompt has room for what it must hold.
    """
    make_row = _row if _reads_english(tokenizer) else _tiny_row
    rows: list[dict] = []
    for part in PARTS:
        try:
            rows += [make_row(tokenizer, longest // part, index, seed) for index in range(num_prompts)]
        except ValueError:
            if part == 1:
                raise
    return Dataset.from_list(rows)


def _reads_english(tokenizer: PreTrainedTokenizerBase) -> bool:
    ids = tokenizer(sentence(random.Random(0)))["input_ids"]
    return tokenizer.unk_token_id is None or ids.count(tokenizer.unk_token_id) <= MAX_UNKNOWN * len(ids)


def _row(tokenizer: PreTrainedTokenizerBase, tokens: int, index: int, seed: int) -> dict:
    row = generate_row(tokenizer, tokens, TASKS[index % len(TASKS)], index, seed)
    return {**{name: row[name] for name in COLUMNS[:-1]}, "num_tokens": tokens}  # or a few less


def _tiny_row(tokenizer: PreTrainedTokenizerBase, tokens: int, index: int, seed: int) -> dict:
    """A word is a token there; what the chat template adds, and the rest of a sentence, are not counted."""
    rng, num_needles = random.Random(f"{seed} {tokens} {index}"), min(NUM_NEEDLES, tokens // WORDS_A_NEEDLE)
    if not num_needles:
        raise ValueError(f"--length {tokens} has no room for a fact.")
    row = tiny_tasks.generate_row(rng, "needle", context_words=tokens, num_needles=num_needles)
    return {**{name: row[name] for name in COLUMNS[:-1]}, "num_tokens": tokens}


def by_length(dataset: Dataset, tokenizer: PreTrainedTokenizerBase, num_prompts: int, **template) -> Dataset:
    """
    The first prompts of a dataset, sorted into as many lengths as [`synthetic_prompts`] has, equally many of each.

    Args:
        dataset (`Dataset`):
            Rows with a `prompt`.
        tokenizer (`PreTrainedTokenizerBase`):
            The model's.
        num_prompts (`int`):
            How many of each length.
        template:
            What training passes to the chat template.

    Returns:
        `Dataset`: The rows, and `num_tokens`: the median of their part, the shortest first.

    Raises:
        `ValueError`: If there are too few.
    """
    wanted = num_prompts * len(PARTS)
    if len(dataset) < wanted:
        raise ValueError(
            f"{len(PARTS)} lengths of {num_prompts} prompts need {wanted} rows, the data have {len(dataset)}: lower "
            "--num-prompts."
        )
    dataset = dataset.select(range(wanted))
    lengths = [prompt_length(prompt, tokenizer, template) for prompt in dataset["prompt"]]
    order = sorted(range(wanted), key=lengths.__getitem__)
    parts = [order[start : start + num_prompts] for start in range(0, wanted, num_prompts)]
    medians = [lengths[part[len(part) // 2]] for part in parts for _ in part]
    dataset = dataset.select(order)
    if "num_tokens" in dataset.column_names:
        dataset = dataset.remove_columns("num_tokens")
    return dataset.add_column("num_tokens", medians)


def contained_reward(completions: Sequence, answer: Sequence[Sequence[str]], **kwargs) -> list[float]:
    """
    Share of the right answers that stand in a completion, tags or not: what a model earns that has had no cold start.

    Args:
        completions (`list[str]` or `list[list[dict]]`):
            B completions, plain or conversational.
        answer (`list[list[str]]`):
            Dataset column: B lists of gold answers.

    Returns:
        `list[float]`: B rewards from 0 to 1.
    """
    texts = [c if isinstance(c, str) else c[-1]["content"] for c in completions]
    return [share_contained(list(golds), text) for golds, text in zip(answer, texts, strict=True)]
