"""The rows of each benchmark, ready to be read: what lm-eval's `custom_dataset` calls.

Every function takes lm-eval's metadata (which model, which protocol: see [`~prompts.prompter_from_metadata`]) beside
what it needs itself, and returns `{"test": rows}`. A row has `benchmark`, `task`, `sample_id`, `prompt` (with chat
template), `prompt_tokens`, `truncated`, `max_new_tokens`, `gold` (list of strings), `reasoning` (whether the answer is
read after `</think>`) and, where a benchmark has them, columns that results are broken down by.
"""

import copy
from collections.abc import Iterable, Sequence
from pathlib import Path

from datasets import Dataset
from datasets.exceptions import DatasetsError

from ..data.source import read_source
from . import infinitebench as ib
from . import infinitebench_synthetic
from . import longbench_v2 as lb
from .prompts import Prompter, prompter_from_metadata
from .truncation import keep_ends, keep_equal_ends


LONGBENCH_V2 = "THUDM/LongBench-v2"
INFINITEBENCH = "xinrongzhang2022/InfiniteBench"
LONGBENCH_V2_COLUMNS = ("_id", "domain", "difficulty", "length", "context", "question", "answer")
LONGBENCH_V2_COLUMNS += tuple(f"choice_{letter}" for letter in "ABCD")
INFINITEBENCH_COLUMNS = ("id", "context", "input", "answer")
GENERATED = "generated"
RULER_SEED = 42  # of the data, as published; the seed of an evaluation is that of sampling
RULER_SAMPLES = 500
SYNTHETIC_SAMPLES = 300
SYNTHETIC_BUDGET = 40  # tokens, as in recipes/quickstart.yaml: twice the longest demonstration


def longbench_v2(
    turn: str = "answer",
    longbench_v2_data: str = LONGBENCH_V2,
    num_samples: int | None = None,
    cot_responses: dict[str, str] | None = None,
    **metadata,
) -> dict[str, Dataset]:
    """
    LongBench v2, one turn.

    Args:
        turn (`str`, *optional*, defaults to `"answer"`):
            `"answer"` asks for the answer at once, `"cot"` for reasoning; `"cot_answer"` is the second turn after it.
        longbench_v2_data (`str`, *optional*):
            Hub id, or local `data.json`, parquet file or folder.
        num_samples (`int`, *optional*):
            Take the first ones; `None` takes all 503.
        cot_responses (`dict[str, str]`, *optional*):
            For `"cot_answer"`: the first turn's responses by `_id`. An item without one is left out, as officially.

    Raises:
        `ValueError`: If the data cannot be read.
    """
    prompter = prompter_from_metadata(**metadata)
    budget = prompter.budget(lb.MAX_NEW_TOKENS["cot" if turn == "cot" else "answer"])
    rows = []
    for item in _read("longbench_v2_data", longbench_v2_data, "data.json", num_samples, LONGBENCH_V2_COLUMNS):
        if turn == "cot_answer":
            if item["_id"] not in cot_responses:
                continue
            text = lb.build_answer_prompt(item, cot_responses[item["_id"]])
        else:
            text = lb.build_prompt(item, cot=turn == "cot")
        row = {"benchmark": "longbench_v2", "task": turn, "sample_id": item["_id"], "gold": [item["answer"]]}
        row |= {name: item[name] for name in ("difficulty", "length", "domain")}
        rows.append(row | prompter.fit(text, lb.MAX_PROMPT_TOKENS, budget) | _decoding(prompter, budget))
    return {"test": Dataset.from_list(rows)}


def infinitebench(
    task: str, infinitebench_data: str = INFINITEBENCH, num_samples: int | None = None, **metadata
) -> dict[str, Dataset]:
    """
    One of InfiniteBench's tasks: gpt4's templates and truncation with a chat template, yarn-mistral's without.

    Args:
        task (`str`):
            One of `infinitebench.TASKS`.
        infinitebench_data (`str`, *optional*):
            Hub id, local folder with one `TASK.jsonl` a task, or `"generated"`: PassKey and Number made here, as the
            published rows were, with other keys.
        num_samples (`int`, *optional*):
            Take the first ones; `None` takes all.

    Raises:
        `ValueError`: If the data cannot be read, or the task cannot be generated.
    """
    prompter = prompter_from_metadata(**metadata)
    budget = prompter.budget(ib.MAX_NEW_TOKENS[task])
    templates = "gpt4" if prompter.chat else "yarn-mistral"
    cut = {
        "limit": ib.MAX_PROMPT_TOKENS[templates],
        "system": ib.SYSTEM_PROMPT if prompter.chat else None,
        "keep": keep_ends if prompter.chat else keep_equal_ends,
        "always_decode": not prompter.chat,  # tiktoken, which the gpt4 script uses, gives the same text back
    }
    generated = infinitebench_data == GENERATED
    if generated:
        items = infinitebench_synthetic.make_samples(task)[:num_samples]
    else:
        columns = (*INFINITEBENCH_COLUMNS, *(["options"] if task == "longbook_choice_eng" else []))
        items = _read("infinitebench_data", infinitebench_data, f"{task}.jsonl", num_samples, columns)
    rows = []
    for item in items:
        gold = ib.get_answer(item, task)
        row = {"benchmark": "infinitebench", "task": task, "sample_id": str(item["id"]), "gold": gold}
        row |= {"haystack": "noise (stand-in for the published rows)"} if generated else {}
        text = ib.build_prompt(item, task, templates)
        rows.append(row | prompter.fit(text, budget=budget, **cut) | _decoding(prompter, budget))
    return {"test": Dataset.from_list(rows)}


def ruler(
    task: str,
    max_seq_length: int = 4096,
    num_samples: int | None = None,
    ruler_sources: dict | None = None,
    **metadata,
) -> dict[str, Dataset]:
    """
    One of RULER's tasks, generated for the model's tokenizer.

    Args:
        task (`str`):
            One of `ruler.TASKS`.
        max_seq_length (`int`, *optional*, defaults to `4096`):
            Tokens of prompt and answer together.
        num_samples (`int`, *optional*):
            Default: 500, as published.
        ruler_sources (`dict`, *optional*):
            Keyword arguments of [`~ruler.Sources`].
    """
    from .ruler import Sources, make_samples, render

    prompter = prompter_from_metadata(**metadata)
    tokenizer = copy.copy(prompter.tokenizer)
    if not prompter.chat:
        tokenizer.chat_template = None  # what `render` goes by
    samples = make_samples(
        task,
        tokenizer,
        max_seq_length,
        num_samples or RULER_SAMPLES,
        RULER_SEED,
        Sources(**(ruler_sources or {})),
        reasoning_tokens=prompter.budget(0),
        window=prompter.window,
    )
    rows = []
    for sample in samples:
        prompt = render(tokenizer, sample["input"], sample["answer_prefix"], prompter.reasoning)
        row = {"benchmark": "ruler", "task": task, "sample_id": str(sample["index"]), "gold": sample["outputs"]}
        row |= {"prompt": prompt, "prompt_tokens": prompter.num_tokens(prompt), "truncated": False}
        rows.append(row | {"haystack": sample["haystack"]} | _decoding(prompter, sample["max_new_tokens"]))
    return {"test": Dataset.from_list(rows)}


def synthetic(num_samples: int | None = None, **metadata) -> dict[str, Dataset]:
    """
    This project's own held-out questions ([`~data.tiny_tasks`]): the very prompts, in the same order, that
    `make quickstart` measures the embedded model on.

    Args:
        num_samples (`int`, *optional*):
            Default: 300.
    """
    from ..data.tiny_tasks import make_dataset
    from ..quickstart import HELD_OUT_SEED

    prompter = prompter_from_metadata(**metadata)
    rows = []
    for i, item in enumerate(make_dataset(num_samples or SYNTHETIC_SAMPLES, HELD_OUT_SEED, split="test")):
        [message] = item["prompt"]
        row = {"benchmark": "synthetic", "task": item["task"], "sample_id": str(i), "gold": item["answer"]}
        prompt = prompter.fit(message["content"], limit=10**9, budget=SYNTHETIC_BUDGET)
        rows.append(row | prompt | {"answer_kind": item["answer_kind"]} | _decoding(prompter, SYNTHETIC_BUDGET))
    return {"test": Dataset.from_list(rows)}


def _decoding(prompter: Prompter, budget: int) -> dict:
    return {"max_new_tokens": budget, "reasoning": prompter.reasoning}


def _read(field: str, source: str, file: str, num_samples: int | None, columns: Sequence[str]) -> Iterable[dict]:
    """Rows of a Hub dataset's file, or of a local file or of that file in a local folder."""
    path = Path(source).expanduser()
    if (path / file).is_file():
        path = path / file
    elif path.exists() and path.name != file:
        # What else lies there may be another task's, except with LongBench v2, which is one.
        one_task = field == "longbench_v2_data"
        if not (one_task and (path.is_file() or any(path.rglob("*.parquet")))):
            raise ValueError(f"{field}: {source!r} is no folder with {file}.")
    try:
        rows = read_source(str(path) if path.exists() else source, "train", None if path.exists() else file)
    except (OSError, ValueError, DatasetsError) as error:
        raise ValueError(
            f"{field}: {source!r} can neither be read here nor reached on the Hub. Download {file} from the Hub where "
            f"there is a network, and give its folder as `{field}`. ({error})"
        ) from error
    if missing := [column for column in columns if column not in rows.column_names]:
        raise ValueError(
            f"{field}: the rows of {source!r} have no {', '.join(missing)}: is it the benchmark's {file}?"
        )
    return rows if num_samples is None else rows.select(range(min(num_samples, len(rows))))
