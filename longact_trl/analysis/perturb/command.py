"""What `longact perturb` does, prints and writes."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from ...evaluation.statistics import Interval
from ...method.masks import num_selected
from ...models.reading import load_model, load_skeleton, load_tokenizer, window_of
from ..chosen_projections import choose_projections
from ..questions import Question, check_task, make_questions
from ..texts import built_in_texts, file_texts, parse_length
from .answer_study import Answers, start_vllm, study_answers
from .calibration import CONDITIONS, calibrate
from .loss_study import LossStudy, study_losses


CHUNK = 128  # tokens of a chunk: texts are cut, so that there is something to draw intervals from
DOSES = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5)
NUM_EXAMPLES = 3


def perturb_channels(
    model: str,
    output: Path,
    *,
    task: str,
    length: str,
    num_prompts: int,
    files: Sequence[Path],
    text_length: str,
    sparsity_ratio: float,
    kinds: str,
    dose: bool,
    engine: str,
) -> None:
    """What the command does; its options are described in `longact perturb --help`."""
    console = Console()
    skeleton = load_skeleton(model)
    ratios = sorted({sparsity_ratio, *(DOSES if dose else ())})
    for projection in choose_projections(skeleton, kinds.split(",")):
        for ratio in ratios:
            num_selected(ratio, projection.head_dim)
    if engine not in ("transformers", "vllm"):
        raise ValueError(f"Unknown engine {engine!r}. Write transformers or vllm.")
    if num_prompts < 1:
        raise ValueError(f"--num-prompts must be 1 or more, got {num_prompts}.")
    check_task(task)
    tokenizer = load_tokenizer(model)
    questions = make_questions(task, tokenizer, num_prompts, parse_length(length))
    window = window_of(skeleton.config)
    longest = max(len(q.input_ids) + q.max_new_tokens for q in questions)
    if window is not None and longest > window:
        raise ValueError(f"{task} needs {longest:,} tokens, {model} can read {window:,}: lower --length.")
    num_tokens = parse_length(text_length)
    texts = file_texts(tokenizer, files, num_tokens) if files else built_in_texts(tokenizer, num_tokens)
    chunks = {name: _chunks(ids) for name, ids in texts.items()}

    with console.status("Loading the weights"):
        loaded = load_model(model)
    study = study_losses(
        loaded, chunks, kinds.split(","), ratios, sparsity_ratio, progress=lambda todo: track(todo, "Loss of texts")
    )
    calibration = calibrate(loaded, [torch.tensor(q.input_ids) for q in questions], kinds.split(","))
    answering = loaded
    if engine == "vllm":
        del loaded, answering  # its memory is vLLM's now
        answering = start_vllm(model, questions)
    answers = study_answers(
        answering,
        tokenizer,
        questions,
        calibration,
        sparsity_ratio,
        lambda conditions: track(conditions, f"Answers to {len(questions)} questions"),
    )
    settings = {
        "model": model,
        "task": task,
        "num_prompts": num_prompts,
        "sparsity_ratio": sparsity_ratio,
        "projections": kinds,
        "engine": engine,
        "chunk_tokens": CHUNK,
        "chunks": {text: len(parts) for text, parts in chunks.items()},
    }
    write(settings, study, questions, answers, output)
    console.print(accuracy_table(settings, answers))
    console.print(loss_table(settings, study))
    console.print(f"Examples are in [bold]{output / 'perturb.md'}[/bold], the picture in {output / 'perturb.png'}.")


def _chunks(ids: torch.Tensor) -> list[torch.Tensor]:
    if len(ids) < CHUNK:
        return [ids]
    return list(ids[: len(ids) // CHUNK * CHUNK].split(CHUNK))


def summarise(settings: dict, study: LossStudy, questions: Sequence[Question], answers: dict[str, Answers]) -> dict:
    """
    All numbers of a study, ready for JSON.

    Args:
        settings (`dict`):
            What was asked for.
        study (`LossStudy`):
            Losses.
        questions (`Sequence[Question]`):
            What was asked.
        answers (`dict[str, Answers]`):
            By condition.

    Returns:
        `dict`: `settings`; `losses` by text, condition and λ, with intervals; `gaps` between conditions on the same
        chunks; `answers` by condition; `questions`.
    """
    ratio = settings["sparsity_ratio"]
    ratios = sorted({r for _, condition, r in study.by_chunk if condition != "none"})
    pairs = (("bottom", "random"), ("random", "top"), ("none", "bottom"))
    texts = list(settings["chunks"])
    return {
        "settings": settings,
        "losses": {
            text: {
                condition: {r: study.mean(text, condition, r)._asdict() for r in ratios} for condition in CONDITIONS
            }
            for text in texts
        },
        "gaps": {
            text: {f"{higher} - {lower}": study.gap(text, lower, higher, ratio)._asdict() for lower, higher in pairs}
            for text in texts
        },
        "answers": {condition: {**asdict(a), "accuracy": a.accuracy._asdict()} for condition, a in answers.items()},
        "questions": [{"prompt": q.text, "answers": q.answers} for q in questions],
    }


def write(
    settings: dict, study: LossStudy, questions: Sequence[Question], answers: dict[str, Answers], output: Path
) -> None:
    """Write `perturb.json`, `perturb.md` and `perturb.png` into a folder; arguments as in [`summarise`]."""
    from .picture import draw_study

    output.mkdir(parents=True, exist_ok=True)
    summary = summarise(settings, study, questions, answers)
    (output / "perturb.json").write_text(json.dumps(summary, indent=1))
    (output / "perturb.md").write_text(markdown(summary), "utf-8")
    draw_study(summary).savefig(output / "perturb.png")


def markdown(summary: dict) -> str:
    """
    The study as tables, and answers side by side.

    Args:
        summary (`dict`):
            As [`summarise`] returns it.

    Returns:
        `str`
    """
    settings, answers = summary["settings"], summary["answers"]
    ratio = settings["sparsity_ratio"]
    title = f"{Path(settings['model']).name}: {ratio:.0%} of the channels of {settings['projections']} clamped"
    lines = [f"# {title}", "", f"Task: {settings['task']}, {settings['num_prompts']} questions, greedy.", ""]
    lines += ["| clamped | accuracy (95 % interval) | distinct-2 | longest repeat, tokens | tokens |"]
    lines += ["|---|---|---|---|---|"]
    for condition, a in answers.items():
        lines.append(
            f"| {condition} | {Interval(**a['accuracy'])} | {a['distinct_2']:.2f} | {a['longest_repeat']:.1f} "
            f"| {a['tokens']:.1f} |"
        )
    lines += ["", "Loss in nats a token (95 % interval over chunks):", ""]
    lines += ["| text | " + " | ".join(CONDITIONS) + " |", "|---" * (len(CONDITIONS) + 1) + "|"]
    for text, by_condition in summary["losses"].items():
        cells = [_number(by_condition[condition][ratio]) for condition in CONDITIONS]
        lines.append(f"| {text} | {' | '.join(cells)} |")
    lines += ["", "Differences on the same chunks:", "", "| text | " + " | ".join(_first(summary["gaps"])) + " |"]
    lines += ["|---" * (len(_first(summary["gaps"])) + 1) + "|"]
    for text, gaps in summary["gaps"].items():
        lines.append(f"| {text} | {' | '.join(_number(gap, '+') for gap in gaps.values())} |")
    lines += ["", "## Answers side by side", ""]
    lines += ["| right | " + " | ".join(CONDITIONS) + " |", "|---" * (len(CONDITIONS) + 1) + "|"]
    for i, question in enumerate(summary["questions"][:NUM_EXAMPLES]):
        cells = [_cell(answers[condition]["completions"][i]) for condition in CONDITIONS]
        lines.append(f"| {_cell(', '.join(question['answers']))} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def accuracy_table(settings: dict, answers: dict[str, Answers]) -> Table:
    """The paper's Table 7 for one task, with what repetition there is."""
    table = Table(
        title=f"{settings['num_prompts']} answers to {settings['task']}, λ = {settings['sparsity_ratio']}",
        title_justify="left",
    )
    for column in ("clamped", "accuracy (95 %)", "distinct-2", "longest repeat", "tokens"):
        table.add_column(column)
    for condition, a in answers.items():
        cells = (str(a.accuracy), f"{a.distinct_2:.2f}", f"{a.longest_repeat:.1f}", f"{a.tokens:.1f}")
        table.add_row(condition, *cells)
    return table


def loss_table(settings: dict, study: LossStudy) -> Table:
    """Loss by text and condition."""
    table = Table(title=f"Loss, nats a token, λ = {settings['sparsity_ratio']}", title_justify="left")
    for column in ("text", *CONDITIONS):
        table.add_column(column)
    for text in settings["chunks"]:
        means = [study.mean(text, condition, settings["sparsity_ratio"]) for condition in CONDITIONS]
        table.add_row(text, *(_number(mean._asdict()) for mean in means))
    return table


def _number(interval: dict, sign: str = "") -> str:
    return f"{interval['value']:{sign}.2f} ({interval['low']:{sign}.2f} to {interval['high']:{sign}.2f})"


def _first(mapping: dict) -> dict:
    return next(iter(mapping.values()))


def _cell(text: str) -> str:
    """A text as a cell of a Markdown table, as it is: not as markup."""
    flat = " ".join(text.split()) or "(nothing)"
    for character in "\\`*_|<>[]~":
        flat = flat.replace(character, f"\\{character}")
    return flat
