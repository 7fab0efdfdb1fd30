"""Checks of what is trained on. Each returns what it found, or raises what is wrong."""

from ..data.length import apply_length_policy
from ..data.rows import InvalidRow, check_golds
from ..models.end_of_turn import check_end_of_turn, end_of_turn
from ..training.prompt_checks import check_dataset, reward_name
from .golds import describe
from .subject import Subject
from .verdict import CannotCheck, Caution


def rewards(subject: Subject) -> str:
    """The chat template leaves room for the tags that are rewarded."""
    return ", ".join(reward_name(func) for func in subject.reward_functions)


def turns(subject: Subject) -> str:
    """A turn ends with a token at which generation stops."""
    end = end_of_turn(subject.tokenizer)
    if not subject.is_rl:
        check_end_of_turn(subject.tokenizer, subject.args.eos_token)
        return end or "the chat template writes nothing there"
    if subject.missing_start:
        raise CannotCheck("the cold start has not been run, which says where its turns end")
    stops = {subject.tokenizer.eos_token, *subject.stop_tokens()}
    if end is not None and end not in stops:
        return Caution(
            f"the chat template ends a turn with {end}, and generation stops at {' and '.join(sorted(stops))} only: a "
            f"model that writes {end} runs on to `max_completion_length`. Start from a cold start with `eos_token: "
            f"{end!r}`, or write it into a local copy's tokenizer_config.json, config.json and generation_config.json"
        )
    return end or "the chat template writes nothing there"


def dataset(subject: Subject) -> str:
    """There are rows, enough for a generation, with the columns that are read."""
    rows = subject.dataset
    if not subject.is_rl:
        return f"{len(rows):,} rows"
    # Where the tokenizer cannot be read, neither can the rewards; their columns do not depend on it.
    funcs = subject.reward_functions if subject.known.get("reward_functions") else []
    check_dataset(rows, funcs)
    needed = subject.args.generation_batch_size // subject.args.num_generations
    if len(rows) < needed:
        raise ValueError(
            f"The dataset has {len(rows)} prompts and a generation takes {needed}, so there would be no step. Lower "
            "`gradient_accumulation_steps` or `generation_batch_size`, or add data."
        )
    return f"{len(rows):,} prompts, {len(rows) // needed:,} generations an epoch"


def gold_answers(subject: Subject) -> str:
    """Each gold answer scores 1 under its own reward; how it is compared, and what of that was guessed."""
    rows = subject.dataset
    if "answer" not in rows.column_names:
        raise CannotCheck("the dataset has no column `answer`")
    kinds = rows["answer_kind"] if "answer_kind" in rows.column_names else [None] * len(rows)
    answers = [[golds] if isinstance(golds, str) else golds for golds in rows["answer"]]
    bad = []
    for index, (golds, kind) in enumerate(zip(answers, kinds, strict=True)):
        try:
            check_golds(golds, kind)
        except InvalidRow as reason:
            bad.append(f"row {index}: {reason}")
    if bad:
        raise ValueError(f"{len(bad)} of {len(rows)} rows could never earn the answer reward; {'; '.join(bad[:3])}")
    return describe(answers, list(kinds))


def prompts(subject: Subject) -> str:
    """Prompts fit the window, or the length policy says what happens to them."""
    lengths, window, args = subject.prompt_lengths, subject.window, subject.args
    found = f"{min(lengths):,} to {max(lengths):,} tokens"
    if window is None:
        return f"{found}, no limit"
    over, found = sum(length > window for length in lengths), f"{found}, window {window:,}"
    if not over:
        return found
    kwargs = {"chat_template_kwargs": args.chat_template_kwargs}
    apply_length_policy(subject.dataset, subject.tokenizer, window, args.prompt_length_policy, **kwargs)
    does = {"filter": "are left out", "truncate_middle": "lose their middle"}[args.prompt_length_policy]
    return Caution(f"{found}: {over:,} of {len(lengths):,} prompts are longer and {does}")
