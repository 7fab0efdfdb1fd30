"""A run: every unit once, through lm-eval, and what is left behind."""

import logging
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from accelerate.utils import broadcast_object_list

from ..rewards.tags import THINK
from ..settings.whole_files import write_json
from .backends import Model
from .benchmarks import BENCHMARKS, Unit
from .chat_template import DAY
from .claims import UnitClaims, claim_of, claim_run
from .config import EvaluationConfig
from .final_answer import final_answer, judge
from .journal import JournaledLM, replicas
from .results import (
    FORMAT,
    JOURNALS,
    RESULTS,
    SAMPLES,
    read_samples,
    scores_of,
    summary_of,
    versions,
    write_samples,
)


if TYPE_CHECKING:
    from lm_eval.api.model import LM
    from lm_eval.api.task import Task

logger = logging.getLogger(__name__)

TASKS = Path(__file__).with_name("tasks")
# Of a row, what a sample keeps; prompts stay out, they can be made again and take gigabytes.
KEPT = ("task", "position", "sample_id", "gold", "prompt_tokens", "truncated")
KEPT += ("difficulty", "length", "domain", "haystack")


def evaluate(config: EvaluationConfig, lm: "LM | None" = None) -> dict | None:
    """
    Evaluate one model, or continue where a run with the same settings stopped.

    Args:
        config (`EvaluationConfig`):
            The run.
        lm (`lm_eval.api.model.LM`, *optional*):
            Answers in place of the model's weights, e.g. one that knows the gold answers.

    Returns:
        `dict | None`: What `results.json` holds; `None` in other processes than the first.

    Raises:
        `ValueError`: If the output folder holds another run, data are missing, or with `strict` a prompt had to be
        truncated.
    """
    state = replicas()
    model, folder, start = Model(config), Path(config.output_dir), time.time()
    logging.getLogger("lm_eval").setLevel(logging.ERROR)  # hints for its own command line
    follows, claims = look_ahead(config, model)
    if state.is_main_process:
        claim_run(folder, config, model)
    kept = UnitClaims(folder)
    files = {unit.name: folder / SAMPLES / f"{unit.name}.jsonl" for unit in config.units()}
    finished = []
    if state.is_main_process:
        finished = [u.name for u in config.units() if kept.holds(u, claims[u.name], files[u.name])]
    [finished] = broadcast_object_list([finished])
    lm = lm or model.load(config)
    results = {
        "format": FORMAT,
        "complete": False,
        "label": config.label,
        "model": config.model,
        "base_model": model.base if model.adapter else None,
        "revision": model.revision,
        "revisions": model.revisions,
        "model_files": model.files,
        "weight_files": model.weight_files if state.is_main_process else {},
        "protocol": config.protocol,
        "temperature": config.temperature,
        "seed": config.seed,
        "backend": model.backend,
        "dtype": model.dtype,
        "replicas": state.num_processes,
        "max_model_length": model.window,
        "yarn": config.yarn,
        "template_day": str(DAY),
        "follows": follows,
        "config": asdict(config),
        "versions": versions(),
        "date": time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(start)),
        "units": [],
    }
    samples: dict[str, list[dict]] = {}
    for unit in config.units():
        file = files[unit.name]
        rows = read_samples(file) if unit.name in finished else run_unit(unit, config, model, lm)
        if not state.is_main_process:
            continue
        if unit.name not in finished:
            write_samples(file, rows)
            kept.keep(unit, claims[unit.name], file)
        samples[unit.name] = rows
        content = {"content": claims[unit.name]["content"]}
        results["units"].append({"name": unit.name, **asdict(unit), **summary_of(rows), **content})
        results["scores"] = scores_of(results["units"], samples)
        results["seconds"] = round(time.time() - start, 1)
        results["complete"] = len(samples) == len(config.units())
        write_json(folder / RESULTS, results)
    return results if state.is_main_process else None


def look_ahead(config: EvaluationConfig, model: Model) -> tuple[dict[str, str], dict[str, dict]]:
    """
    Read and check the data of all units and make the first prompt of each: what is wrong is found now, not after an
    hour.

    Args:
        config (`EvaluationConfig`):
            The run.
        model (`Model`):
            Its model.

    Returns:
        `tuple[dict[str, str], dict[str, dict]]`: Benchmark to what it follows, and name of a unit to its claim.

    Raises:
        `ValueError`: If data are missing or wrong, a length fits no sample, or with `strict` a prompt is too long.
    """
    follows, claims, of_task = {}, {}, {}
    for unit in config.units():
        benchmark, key = BENCHMARKS[unit.benchmark], (unit.benchmark, unit.task)
        of_task[key] = of_task.get(key) or claim_of(*key, config)  # the same at all lengths
        claims[unit.name] = of_task[key]
        # Of prompts that are not made to fit, `strict` has to see all.
        see_all = config.strict and not benchmark.fills_length
        first_turn = replace(unit, task=benchmark.first_turns.get(unit.task, unit.task))
        task = load_task(first_turn, config, model, first_only=not see_all)
        follows[unit.benchmark] = task.VERSION
        if config.strict:
            _count_truncated(unit, task, strict=True)
    return follows, claims


def run_unit(unit: Unit, config: EvaluationConfig, model: Model, lm: "LM") -> list[dict]:
    """
    One task, in two turns where its benchmark has two.

    Args:
        unit (`Unit`):
            The task.
        config, model, lm:
            The run, and its model before and after loading.

    Returns:
        `list[dict]`: Samples with `score`, `prediction`, `response` and `unfinished`, in the order of the rows; empty
        in other processes than the first.
    """
    # By position, since ids need not be unique.
    reasoning: dict[int, str] = {}
    answered, truncated, unfinished = [], set(), set()
    first_turn = BENCHMARKS[unit.benchmark].first_turns.get(unit.task)
    if first_turn:
        asked_first = answer(replace(unit, task=first_turn), config, model, lm)
        for doc, response in broadcast_object_list([asked_first])[0]:
            position = doc["position"]
            truncated |= {position} if doc["truncated"] else set()  # the turn that holds the text
            unfinished |= {position} if judge(doc, response).unfinished else set()
            if response == "":  # leaves the item out of the second turn, as officially
                answered.append((doc, ""))
            else:
                reasoning[position] = _without_thinking(doc, response).strip()
    if not first_turn or reasoning:
        answered += answer(unit, config, model, lm, first_responses=reasoning)
    rows = []
    for doc, response in sorted(answered, key=lambda pair: pair[0]["position"]):
        position = doc["position"]
        kept = {name: doc[name] for name in KEPT if name in doc}
        rows.append(kept | judge(doc, response)._asdict() | {"response": response})
        rows[-1]["truncated"] |= position in truncated
        if position in unfinished and rows[-1]["score"] is not None:
            rows[-1] |= {"unfinished": True, "score": 0.0}
        if position in reasoning:
            rows[-1]["reasoning"] = reasoning[position]
    return rows


def answer(unit: Unit, config: EvaluationConfig, model: Model, lm: "LM", **metadata) -> list[tuple[dict, str]]:
    """
    Let the model answer the rows of one task through lm-eval.

    Args:
        unit (`Unit`):
            The task.
        config, model, lm:
            The run, and its model before and after loading.
        **metadata:
            More for the task's rows.

    Returns:
        `list[tuple[dict, str]]`: Each row and the response to it, in order; empty in other processes than the first.
    """
    import lm_eval

    task = load_task(unit, config, model, **metadata)
    _count_truncated(unit, task, config.strict)
    journaled = JournaledLM(
        lm,
        Path(config.output_dir, JOURNALS),
        unit.name,
        model.backend,
        config.batch_size,
        config.temperature,
        config.seed,
    )
    evaluated = lm_eval.evaluate(journaled, {"tasks": {unit.name: task}, "groups": {}}, bootstrap_iters=0)
    if evaluated is None:
        return []
    logged = sorted(evaluated["samples"][unit.name], key=lambda sample: sample["doc_id"])
    return [(sample["doc"], sample["resps"][0][0]) for sample in logged]


def load_task(unit: Unit, config: EvaluationConfig, model: Model, **metadata) -> "Task":
    """The lm-eval task of a unit, its rows made for this model."""
    from lm_eval.tasks import TaskManager

    metadata |= asdict(config) | {
        "tokenizer": model.tokenizer,
        "max_model_length": model.window,
        "max_seq_length": unit.length,
        "revision": model.revision if model.tokenizer == model.base else None,
    }
    manager = TaskManager(include_path=str(TASKS), include_defaults=False, metadata=metadata)
    return manager.load([unit.lm_eval_task])["tasks"][unit.lm_eval_task]


def _count_truncated(unit: Unit, task: "Task", strict: bool) -> None:
    truncated = sum(task.dataset["test"]["truncated"])
    if truncated:
        message = (
            f"{unit.name}: {truncated} of {len(task.dataset['test'])} prompts are too long and lost their middle, by "
            "the benchmark's own limit or because of max_model_length."
        )
        if strict:
            raise ValueError(f"{message} Without `strict` they are scored as they are, and counted.")
        logger.warning(message)


def _without_thinking(doc: dict, response: str) -> str:
    return final_answer(response, doc["prompt"].rstrip().endswith(THINK)).text if doc["reasoning"] else response
