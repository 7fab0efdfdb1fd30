"""Three prompts as the model sees them, and what a right and a wrong completion of each would earn."""

from rich.console import Group
from rich.text import Text

from ..rewards.tagged import prefills_think
from ..rewards.tags import ANSWER, END_ANSWER, END_THINK, THINK
from ..training.prompt_checks import reward_name
from .subject import Subject


HEAD, TAIL = 240, 240
"""Characters that are shown of a prompt's beginning and end."""
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
        does = {"filter": "left out", "truncate_middle": "cut in its middle", "error": "the run stops"}
        fate = f": longer than {window:,}, {does[subject.args.prompt_length_policy]}" if over else ""
        lines.append(
            Text(f"row {index}, {row.get('task') or 'prompt'}, {lengths[index]:,} tokens{fate}", style="bold")
        )
        lines.append(Text(shortened(rendered(subject, row["prompt"]))))
        lines += [Text(f"  {kind}: {earned}", style="green") for kind, earned in earnings(subject, row).items()]
    return Group(*lines, Text())


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
    gold = golds if isinstance(golds, str) else golds[0]
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
