"""Three prompts as the model sees them, and what a right and a wrong completion of each would earn."""

from rich.console import Group
from rich.text import Text

from ..data.length import middle_cut, offsets_of
from ..rewards.tagged import prefills_think
from ..rewards.tags import ANSWER, END_ANSWER, END_THINK, THINK
from ..training.prompt_checks import reward_name
from .subject import Subject


FATES = {
    "filter": "dropped: it is not trained on",
    "truncate_middle": "cut in its middle as shown below",
    "error": "the run stops",
}
HEAD, TAIL = 240, 240
"""Characters that are shown of a prompt's beginning and end."""
SIDE = 6
"""Tokens that are shown on each side of a cut."""
WRONG = "no such answer"


def shown_prompts(subject: Subject) -> Group:
    """
    The shortest prompt, the longest one, and the one in the middle.

    Args:
        subject (`Subject`):
            The run, whose prompts have been measured.

    Returns:
        `Group`: What is printed.
    """
    lengths, window = subject.prompt_lengths, subject.window
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    chosen = dict.fromkeys((order[0], order[len(order) // 2], order[-1]))
    lines = [Text("Prompts as the model sees them: the shortest, the middle, the longest", style="italic")]
    for index in chosen:
        row = subject.dataset[index]
        over = window is not None and lengths[index] > window
        policy = subject.args.prompt_length_policy
        fate = f": longer than {window:,}, {FATES[policy]}" if over else ""
        lines.append(
            Text(f"row {index}, {row.get('task') or 'prompt'}, {lengths[index]:,} tokens{fate}", style="bold")
        )
        lines.append(Text(shortened(rendered(subject, row["prompt"]))))
        if over and policy == "truncate_middle":
            lines.append(Text(shown_cut(subject, row["prompt"], lengths[index]), style="yellow"))
        lines += [Text(f"  {kind}: {earned}", style="green") for kind, earned in earnings(subject, row).items()]
    return Group(*lines, Text())


def shown_cut(subject: Subject, prompt: list[dict] | str, length: int) -> str:
    """
    Where truncation cuts a prompt: the last tokens that stay and the first that go, and the same behind the cut.

    Args:
        subject (`Subject`):
            The run, with a window.
        prompt (`list[dict]` or `str`):
            Prompt that is longer than the window.
        length (`int`):
            Its tokens.

    Returns:
        `str`: Tokens stand between bars, line breaks as `\\n`.
    """
    tokenizer, kwargs = subject.tokenizer, subject.args.chat_template_kwargs or {}
    cut = middle_cut(prompt, length, tokenizer, subject.window, kwargs)
    content = prompt if isinstance(prompt, str) else prompt[cut.message]["content"]
    tokens = offsets_of(content, tokenizer)
    before = [content[start:end] for start, end in tokens if end <= cut.start]
    gone = [content[start:end] for start, end in tokens if cut.start < end and start < cut.end]
    after = [content[start:end] for start, end in tokens if start >= cut.end]
    where = "" if isinstance(prompt, str) or len(prompt) == 1 else f" of its message {cut.message + 1}"
    return (
        f"  cut: {len(gone):,} tokens{where}, characters {cut.start:,} to {cut.end:,}\n"
        f"    stays {_bars(before[-SIDE:])} goes {_bars(gone[:SIDE])} …\n"
        f"    goes … {_bars(gone[-SIDE:])} stays {_bars(after[:SIDE])}"
    )


def _bars(tokens: list[str]) -> str:
    return f"|{'|'.join(tokens)}|".replace("\n", "\\n")


def rendered(subject: Subject, prompt: list[dict] | str) -> str:
    """The text that is tokenised, generation prompt included."""
    if isinstance(prompt, str):
        return prompt
    kwargs = subject.args.chat_template_kwargs or {}
    return subject.tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True, **kwargs)


def shortened(text: str) -> str:
    """Beginning and end of a long text, and how much lies between."""
    if len(text) <= HEAD + TAIL:
        return text
    return f"{text[:HEAD]}\n    … {len(text) - HEAD - TAIL:,} characters …\n{text[-TAIL:]}"


def earnings(subject: Subject, row: dict) -> dict[str, str]:
    """
    What two completions of a row would earn.

    Args:
        subject (`Subject`):
            The run.
        row (`dict`):
            A row of its dataset.

    Returns:
        `dict[str, str]`: `"right"` and `"wrong"` to their rewards by function; empty without a gold answer.
    """
    golds = row.get("answer")
    if not golds:
        return {}
    golds = [golds] if isinstance(golds, str) else golds
    gold = "\n".join(golds) if row.get("answer_kind") == "list" else golds[0]  # a list is right with all of them
    opening = "" if prefills_think(subject.tokenizer) else THINK
    found = {}
    for kind, answer in (("right", gold), ("wrong", WRONG)):
        text = f"{opening} … {END_THINK} {ANSWER} {answer} {END_ANSWER}"
        completion = text if isinstance(row["prompt"], str) else [{"role": "assistant", "content": text}]
        columns = {name: [value] for name, value in row.items() if name != "prompt"}
        columns["completion_ids"] = [subject.tokenizer(text)["input_ids"]]
        parts = {
            reward_name(reward): reward(prompts=[row["prompt"]], completions=[completion], **columns)[0]
            for reward in subject.reward_functions
        }
        earned = ", ".join(f"{name} {'nothing' if value is None else f'{value:g}'}" for name, value in parts.items())
        found[kind] = f"{text} earns {earned}"
    return found
