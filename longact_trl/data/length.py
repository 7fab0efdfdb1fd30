"""What happens to prompts longer than the window: TRL 1.16 has no `max_prompt_length`, so it is decided here."""

import logging
import os
import re
from collections import Counter
from typing import NamedTuple

from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from ..settings.choices import LENGTH_POLICIES
from ..settings.json_fields import check_names


logger = logging.getLogger(__name__)

Tools = list[dict] | dict[str, list[dict]] | None
# Below this many rows for each process, starting one costs more than it saves.
ROWS_PER_PROCESS = 100
# A cut can join characters across the seam into other tokens; so few tokens are involved that two rounds were enough.
MAX_CUTS = 8


def apply_length_policy(
    dataset: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    max_prompt_length: int,
    policy: str = "filter",
    num_proc: int | None = None,
    chat_template_kwargs: dict | None = None,
    tools: Tools = None,
) -> Dataset:
    """
    Make every prompt fit into `max_prompt_length` tokens, chat template and generation prompt included.

    Runs once: `datasets` caches the result by the dataset, the tokenizer and the arguments.

    Args:
        dataset (`Dataset`):
            Rows with a conversational or plain `prompt` and, to count by source, a `task`.
        tokenizer (`PreTrainedTokenizerBase`):
            Fast tokenizer with a chat template.
        max_prompt_length (`int`):
            Tokens that a prompt may have.
        policy (`str`, *optional*, defaults to `"filter"`):
            `filter` leaves longer prompts out and says how many of each task; `truncate_middle` takes tokens out of
            the middle of their longest message, as the long-context benchmarks do; `error` stops.
        num_proc (`int`, *optional*):
            Processes; default one for each `ROWS_PER_PROCESS` rows, at most one for each CPU.
        chat_template_kwargs (`dict`, *optional*):
            What training passes to the template.
        tools (`list[dict]` or `dict[str, list[dict]]`, *optional*):
            JSON schemas of the tools that stand in every prompt, or those of each row's `environment`.

    Returns:
        `Dataset` with the columns of `dataset`.

    Raises:
        `ValueError`: If the policy is unknown, a prompt has no token, none fits, or (with `error`) one does not.
    """
    if policy not in LENGTH_POLICIES:
        raise ValueError(f"the length policy must be one of {', '.join(LENGTH_POLICIES)}, but is {policy!r}")
    if isinstance(max_prompt_length, bool) or not isinstance(max_prompt_length, int) or max_prompt_length < 1:
        raise ValueError(f"max_prompt_length must be a whole number from 1 on, but is {max_prompt_length!r}")
    num_proc = _processes(dataset, num_proc)
    options = {"tokenizer": tokenizer, "template_kwargs": chat_template_kwargs or {}, "tools": tools}
    lengths = prompt_lengths(dataset, tokenizer, num_proc, chat_template_kwargs, tools)
    if 0 in lengths:
        raise ValueError(
            f"{lengths.count(0)} of {len(lengths)} prompts have no token to begin from, the first is row "
            f"{lengths.index(0)}: leave them out."
        )
    fits = [length <= max_prompt_length for length in lengths]
    if all(fits):
        return dataset
    tasks = dataset["task"] if "task" in dataset.column_names else ["prompts"] * len(dataset)
    total, long = Counter(tasks), Counter(task for task, fit in zip(tasks, fits, strict=True) if not fit)
    counts = ", ".join(f"{count} of {total[task]} {task}" for task, count in sorted(long.items()))
    report = f"Longer than the window of {max_prompt_length} tokens: {counts} (the longest has {max(lengths)})"
    room = "give prompts more room (`vllm_max_model_length`, `max_completion_length`)"
    if policy == "error":
        raise ValueError(f"{report}. Set `prompt_length_policy` to 'filter' or 'truncate_middle', or {room}.")
    if policy == "filter":
        if not any(fits):
            raise ValueError(
                f"{report}, and none is left. Set `prompt_length_policy` to 'truncate_middle', or {room}."
            )
        logger.warning("%s. They are left out.", report)
        return dataset.select([index for index, fit in enumerate(fits) if fit])
    logger.warning("%s. They lose their middle.", report)
    return dataset.map(
        _truncate,
        with_indices=True,
        fn_kwargs={**options, "lengths": lengths, "max_length": max_prompt_length},
        num_proc=num_proc,
        writer_batch_size=ROWS_PER_PROCESS,
        features=dataset.features,
        desc="Truncating prompts",
    )


def prompt_lengths(
    dataset: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    num_proc: int | None = None,
    chat_template_kwargs: dict | None = None,
    tools: Tools = None,
) -> list[int]:
    """
    Tokens of every prompt, chat template and generation prompt included.

    Args:
        dataset (`Dataset`):
            Rows with a conversational or plain `prompt`.
        tokenizer (`PreTrainedTokenizerBase`):
            Fast tokenizer with a chat template.
        num_proc (`int`, *optional*):
            Processes; default as in [`apply_length_policy`].
        chat_template_kwargs (`dict`, *optional*):
            What training passes to the template.
        tools (`list[dict]` or `dict[str, list[dict]]`, *optional*):
            As in [`apply_length_policy`].

    Returns:
        `list[int]`: One length a row.

    Raises:
        `ValueError`: If the tokenizer is slow, or has no template and prompts are messages, or a name in
            `chat_template_kwargs` is nearly one of the template's.
    """
    conversational = not isinstance(dataset[0]["prompt"], str)
    if (conversational and tokenizer.chat_template is None) or not tokenizer.is_fast:
        raise ValueError("the length policy needs a fast tokenizer with a chat template: set tokenizer.chat_template")
    if chat_template_kwargs:  # a template passes over a name that it does not know
        check_names("chat_template_kwargs", chat_template_kwargs, re.findall(r"\w+", str(tokenizer.chat_template)))
    lengths = dataset.map(
        _measure,
        input_columns=["prompt", *(["environment"] if isinstance(tools, dict) else [])],
        fn_kwargs={"tokenizer": tokenizer, "template_kwargs": chat_template_kwargs or {}, "tools": tools},
        remove_columns=dataset.column_names,
        num_proc=_processes(dataset, num_proc),
        desc="Measuring prompts",
    )
    return list(lengths["length"])


def _processes(dataset: Dataset, num_proc: int | None) -> int | None:
    num_proc = num_proc or min(os.cpu_count() or 1, len(dataset) // ROWS_PER_PROCESS)
    return num_proc if num_proc > 1 else None  # for datasets, 1 is one process beside this one


def prompt_length(prompt: list[dict] | str, tokenizer: PreTrainedTokenizerBase, template_kwargs: dict) -> int:
    """Tokens of the prompt, conversational or plain, as `GRPOTrainer` renders it."""
    if isinstance(prompt, str):
        return len(tokenizer(prompt)["input_ids"])
    rendered = tokenizer.apply_chat_template(
        prompt, add_generation_prompt=True, tokenize=True, return_dict=True, **template_kwargs
    )
    return len(rendered["input_ids"])


def _measure(
    prompt: list[dict] | str,
    environment: str | None = None,
    *,
    tokenizer: PreTrainedTokenizerBase,
    template_kwargs: dict,
    tools: Tools,
) -> dict:
    return {"length": prompt_length(prompt, tokenizer, _with_tools(template_kwargs, tools, environment))}


def _with_tools(template_kwargs: dict, tools: Tools, environment: str | None) -> dict:
    tools = tools.get(environment) if isinstance(tools, dict) else tools
    return {**template_kwargs, "tools": tools} if tools else template_kwargs


def _truncate(
    row: dict,
    index: int,
    tokenizer: PreTrainedTokenizerBase,
    template_kwargs: dict,
    tools: Tools,
    lengths: list[int],
    max_length: int,
) -> dict:
    if lengths[index] <= max_length:
        return {}
    template_kwargs = _with_tools(template_kwargs, tools, row.get("environment"))
    cut = middle_cut(row["prompt"], lengths[index], tokenizer, max_length, template_kwargs)
    return {"prompt": without_middle(row["prompt"], cut)}


class Cut(NamedTuple):
    """What `truncate_middle` takes out of a prompt: characters `start` to `end` of its message `message`."""

    message: int
    start: int
    end: int


def without_middle(prompt: list[dict] | str, cut: Cut) -> list[dict] | str:
    """The prompt without what [`middle_cut`] found."""
    if isinstance(prompt, str):
        return prompt[: cut.start] + prompt[cut.end :]
    content = prompt[cut.message]["content"]
    shorter = {**prompt[cut.message], "content": content[: cut.start] + content[cut.end :]}
    return [*prompt[: cut.message], shorter, *prompt[cut.message + 1 :]]


def middle_cut(
    prompt: list[dict] | str,
    length: int,
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    template_kwargs: dict,
) -> Cut:
    """
    Where the middle of the longest message begins and ends that a prompt loses.

    Args:
        prompt (`list[dict]` or `str`):
            Prompt that is too long.
        length (`int`):
            Its tokens, as [`prompt_length`] counts them.
        tokenizer (`PreTrainedTokenizerBase`):
            Fast tokenizer with a chat template.
        max_length (`int`):
            Tokens that it may have.
        template_kwargs (`dict`):
            What training passes to the template.

    Returns:
        `Cut`

    Raises:
        `ValueError`: If nothing of the message would be left.
    """
    contents = [prompt] if isinstance(prompt, str) else [message["content"] for message in prompt]
    contents = [content if isinstance(content, str) else "" for content in contents]  # a call of tools has none
    longest = max(range(len(contents)), key=lambda index: len(contents[index]))
    # Token boundaries as positions in the text: slicing the text, unlike decoding ids, cannot change what is kept.
    offsets = offsets_of(contents[longest], tokenizer)
    budget, excess = len(offsets), length - max_length
    for _ in range(MAX_CUTS):
        budget -= excess
        if budget < 2:
            break
        # The tokens at the seam go as well: each may be a part of a character that cannot stand alone.
        cut = Cut(longest, offsets[budget // 2 - 1][0], offsets[budget // 2 - budget][1])
        length = prompt_length(without_middle(prompt, cut), tokenizer, template_kwargs)
        if (excess := length - max_length) <= 0:
            return cut
    raise ValueError(
        f"max_prompt_length={max_length} leaves nothing of a prompt's longest message beside its other "
        f"{length - budget} tokens: raise it"
    )


def offsets_of(text: str, tokenizer: PreTrainedTokenizerBase) -> list[tuple[int, int]]:
    """Where each token of a text begins and ends in it."""
    return tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
