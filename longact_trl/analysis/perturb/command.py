"""What `longact perturb` does, prints and writes."""

from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track

from ...method.sparsity import num_selected
from ...models.reading import load_model, load_skeleton, load_tokenizer, window_of
from ...settings.whole_files import whole_file, write_json, write_whole
from ..chosen_projections import choose_projections
from ..options import LONGBENCH_V2, parse_length
from ..questions import Question, longbench_v2_questions, make_questions
from ..texts import built_in_texts, file_texts
from .answer_study import Answers, start_vllm, study_answers
from .calibration import CONDITIONS, calibrate
from .loss_study import LossStudy, study_losses
from .picture import draw_study
from .summary import accuracy_table, loss_table, markdown, summarise


CHUNK = 128  # tokens of a chunk: texts are cut, so that there is something to draw intervals from
DOSES = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5)
NUM_PROMPTS = 100  # of all tasks but LongBench v2, which is asked whole
PAPER_TEMPERATURE = 1.0  # paper, sec. 4.1
PAPER_CONDITIONS = ("none", "bottom", "top")  # Table 7's rows, in its order


def perturb_channels(
    model: str,
    output: Path,
    *,
    task: str,
    length: str,
    num_prompts: int | None,
    case: str | None,
    longbench_v2_data: str,
    reasoning_tokens: int,
    temperature: float | None,
    clamp: str,
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
    tokenizer = load_tokenizer(model)
    window = window_of(skeleton.config)
    if task == LONGBENCH_V2:
        questions = longbench_v2_questions(
            tokenizer, window, reasoning_tokens, num_prompts, longbench_v2_data, [case] if case else None
        )
    else:
        questions = make_questions(task, tokenizer, num_prompts or NUM_PROMPTS, parse_length(length))
    if temperature is None:
        temperature = PAPER_TEMPERATURE if task == LONGBENCH_V2 else 0.0
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
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        answering = start_vllm(model, questions)
    answers = study_answers(
        answering,
        tokenizer,
        questions,
        calibration,
        sparsity_ratio,
        lambda conditions: track(conditions, f"Answers to {len(questions)} questions"),
        conditions=PAPER_CONDITIONS if task == LONGBENCH_V2 else CONDITIONS,
        clamp=clamp,
        temperature=temperature,
    )
    settings = {
        "model": model,
        "task": task,
        "num_prompts": len(questions),
        "sparsity_ratio": sparsity_ratio,
        "projections": kinds,
        "clamp": clamp,
        "temperature": temperature,
        "reasoning_tokens": reasoning_tokens if task == LONGBENCH_V2 else 0,
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


def write(
    settings: dict, study: LossStudy, questions: Sequence[Question], answers: dict[str, Answers], output: Path
) -> None:
    """Write `perturb.json`, `perturb.md` and `perturb.png` into a folder; arguments as in [`summarise`]."""
    summary = summarise(settings, study, questions, answers)
    write_json(output / "perturb.json", summary)
    write_whole(output / "perturb.md", markdown(summary))
    with whole_file(output / "perturb.png") as scratch:
        draw_study(summary).savefig(scratch)
