"""What a run of `recipes/evaluate.py` is told, checked before a model is loaded."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from ..settings.argument_classes import declared_names
from ..settings.json_fields import LOADING, check_names
from ..settings.messages import did_you_mean
from .benchmarks import BENCHMARKS, RENAMED, Unit
from .benchmarks.infinitebench import HUB_DATASET as INFINITEBENCH
from .benchmarks.longbench_v2 import HUB_DATASET as LONGBENCH_V2
from .prompter import PROTOCOLS, REASONING_TOKENS
from .ruler import Sources
from .yarn import check_yarn


ENGINES = (
    ("lm_eval.models.huggingface", "HFLM"),
    ("lm_eval.models.vllm_causallms", "VLLM"),
    ("vllm.engine.arg_utils", "EngineArgs"),
)
"""What `model_args` are for."""
BACKENDS = ("auto", "vllm", "transformers")
DTYPES = ("auto", "bfloat16", "float16", "float32", "float64", "half", "float")
"""Names that both backends or torch know."""
DECIDED = dict.fromkeys(("pretrained", "tokenizer", "peft", "lora_local_path"), "model")
DECIDED |= {"max_length": "max_model_length", "max_model_len": "max_model_length"}
DECIDED |= {name: name for name in ("dtype", "batch_size", "seed")}
"""Arguments of lm-eval's models to the fields that decide them, and that prompts and results go by."""


@dataclass
class EvaluationConfig:
    r"""
    One model on any of the benchmarks.

    Parameters:
        model (`str`):
            Hub id, checkpoint folder, or LoRA adapter (folder or Hub id) whose base model is then loaded beneath it.
        benchmarks (`list[str]`, *optional*, defaults to `["longbench_v2", "ruler", "infinitebench"]`):
            Which of `longbench_v2`, `ruler`, `infinitebench` and `tiny_tasks` to run.
        tasks (`list[str]`, *optional*):
            Run only these tasks of `ruler` and `infinitebench`; default all.
        lengths (`list[int]`, *optional*, defaults to `[4096, 8192, 16384, 32768, 65536, 131072]`):
            RULER's lengths, tokens of prompt and answer together.
        num_samples (`int`, *optional*):
            Samples of each task, the first ones; default as published (RULER 500, the others all there are).
        protocol (`str`, *optional*, defaults to `"official"`):
            `official`: budgets of new tokens as published. `reasoning`: as many more as `reasoning_tokens`, and what
            is scored follows `</think>`.
        reasoning_tokens (`int`, *optional*, defaults to `4096`):
            New tokens beyond the published budget under the protocol `reasoning`.
        longbench_v2_cot (`bool`, *optional*, defaults to `False`):
            Whether LongBench v2 is asked in two turns, reasoning first (the official `--cot`).
        temperature (`float`, *optional*, defaults to `1.0`):
            0 decodes greedily; otherwise sampled from the whole vocabulary. The paper samples at 1.
        seed (`int`, *optional*, defaults to `0`):
            Seed of sampling.
        backend (`str`, *optional*, defaults to `"auto"`):
            `vllm`, `transformers`, or `auto`: vLLM where it is installed and there is one process, else transformers.
        batch_size (`int`, *optional*, defaults to `1`):
            Prompts decoded together with transformers; vLLM decides by itself.
        dtype (`str`, *optional*):
            Type of the weights; default that of the checkpoint.
        max_model_length (`int`, *optional*):
            Window that prompt and completion share; default what the model's config.json says.
        yarn (`dict`, *optional*):
            Stretch the model's window for the evaluation: `{factor: 4.0, original_max_position_embeddings: 32768}`
            gives 131,072 tokens. A copy of its config.json in the output folder says so, the model stays as it is.
        model_args (`dict`, *optional*, defaults to `{}`):
            More arguments for lm-eval's model, e.g. `gpu_memory_utilization`, `tensor_parallel_size` or
            `data_parallel_size` of vLLM.
        chat (`bool`, *optional*):
            Whether prompts go through the chat template; default where there is one.
        longbench_v2_data (`str`, *optional*, defaults to `"THUDM/LongBench-v2"`):
            Hub id, or local `data.json`, parquet file or folder.
        infinitebench_data (`str`, *optional*, defaults to `"xinrongzhang2022/InfiniteBench"`):
            Hub id, local folder with one `TASK.jsonl` a task, or `generated` for PassKey and Number made here.
        ruler_sources (`dict`, *optional*, defaults to `{}`):
            Where RULER's essays and questions come from, see `longact_trl.evaluation.ruler.Sources`.
        output_dir (`str`, *optional*):
            Folder of results, `{label}` in it stands for the label; default `runs/eval/{label}`. A run that stopped is
            continued by the same command.
        label (`str`, *optional*):
            Name in reports; default the last part of `model`, for a `checkpoint-N` its run's name before it.
        strict (`bool`, *optional*, defaults to `False`):
            Whether to stop, before anything is generated, at a prompt that had to be truncated.
    """

    model: str = field(
        default=None,
        metadata={
            "help": "Hub id, checkpoint folder, or LoRA adapter (folder or Hub id) whose base model is then loaded "
            "beneath it."
        },
    )
    benchmarks: list[str] = field(
        default_factory=lambda: ["longbench_v2", "ruler", "infinitebench"],
        metadata={"help": "Which of `longbench_v2`, `ruler`, `infinitebench` and `tiny_tasks` to run."},
    )
    tasks: list[str] | None = field(
        default=None, metadata={"help": "Run only these tasks of `ruler` and `infinitebench`; default all."}
    )
    lengths: list[int] = field(
        default_factory=lambda: [4096, 8192, 16384, 32768, 65536, 131072],
        metadata={"help": "RULER's lengths, tokens of prompt and answer together."},
    )
    num_samples: int | None = field(
        default=None,
        metadata={
            "help": "Samples of each task, the first ones; default as published (RULER 500, the others all there are)."
        },
    )
    protocol: str = field(
        default="official",
        metadata={
            "help": "`official`: budgets of new tokens as published. `reasoning`: as many more as "
            "`reasoning_tokens`, and what is scored follows `</think>`."
        },
    )
    reasoning_tokens: int = field(
        default=REASONING_TOKENS,
        metadata={"help": "New tokens beyond the published budget under the protocol `reasoning`."},
    )
    longbench_v2_cot: bool = field(
        default=False,
        metadata={"help": "Whether LongBench v2 is asked in two turns, reasoning first (the official `--cot`)."},
    )
    temperature: float = field(
        default=1.0,
        metadata={"help": "0 decodes greedily; otherwise sampled from the whole vocabulary. The paper samples at 1."},
    )
    seed: int = field(default=0, metadata={"help": "Seed of sampling."})
    backend: str = field(
        default="auto",
        metadata={
            "help": "`vllm`, `transformers`, or `auto`: vLLM where it is installed and there is one process, else "
            "transformers."
        },
    )
    batch_size: int = field(
        default=1, metadata={"help": "Prompts decoded together with transformers; vLLM decides by itself."}
    )
    dtype: str | None = field(default=None, metadata={"help": "Type of the weights; default that of the checkpoint."})
    max_model_length: int | None = field(
        default=None,
        metadata={"help": "Window that prompt and completion share; default what the model's config.json says."},
    )
    yarn: dict | str | None = field(
        default=None,
        metadata={
            "help": "Stretch the model's window for the evaluation: `{factor: 4.0, original_max_position_embeddings: "
            "32768}` gives 131,072 tokens. A copy of its config.json in the output folder says so, the model stays as "
            "it is."
        },
    )
    model_args: dict | str | None = field(
        default_factory=dict,
        metadata={
            "help": "More arguments for lm-eval's model, e.g. `gpu_memory_utilization`, `tensor_parallel_size` or "
            "`data_parallel_size` of vLLM."
        },
    )
    chat: bool | None = field(
        default=None, metadata={"help": "Whether prompts go through the chat template; default where there is one."}
    )
    longbench_v2_data: str = field(
        default=LONGBENCH_V2, metadata={"help": "Hub id, or local `data.json`, parquet file or folder."}
    )
    infinitebench_data: str = field(
        default=INFINITEBENCH,
        metadata={
            "help": "Hub id, local folder with one `TASK.jsonl` a task, or `generated` for PassKey and Number made "
            "here."
        },
    )
    ruler_sources: dict | str | None = field(
        default_factory=dict,
        metadata={"help": "Where RULER's essays and questions come from, see `longact_trl.evaluation.ruler.Sources`."},
    )
    output_dir: str | None = field(
        default=None,
        metadata={
            "help": "Folder of results, `{label}` in it stands for the label; default `runs/eval/{label}`. A run that "
            "stopped is continued by the same command."
        },
    )
    label: str | None = field(
        default=None,
        metadata={
            "help": "Name in reports; default the last part of `model`, for a `checkpoint-N` its run's name before it."
        },
    )
    strict: bool = field(
        default=False,
        metadata={"help": "Whether to stop, before anything is generated, at a prompt that had to be truncated."},
    )

    def __post_init__(self):
        for name in ("yarn", "model_args", "ruler_sources"):  # the command line gives text
            if isinstance(text := getattr(self, name), str):
                try:
                    setattr(self, name, json.loads(text))
                except json.JSONDecodeError as error:
                    raise ValueError(
                        f'{name}={text!r} is not JSON: write \'{{"NAME": "VALUE"}}\'. ({error})'
                    ) from error
        for name in ("model_args", "ruler_sources"):
            if not isinstance(value := getattr(self, name), dict | None):
                raise ValueError(f'{name}={value!r} must be names with values: write \'{{"NAME": "VALUE"}}\'.')
        if twice := [name for name in self.model_args or () if name in DECIDED]:
            raise ValueError(f"model_args: {twice[0]!r} is decided by `{DECIDED[twice[0]]}`: write that.")
        if self.model_args:
            check_names("model_args", self.model_args, LOADING + [n for of in ENGINES for n in declared_names(*of)])
        if not self.model:
            raise ValueError("Nothing to evaluate: give `--model` a Hub id or a folder.")
        for name in self.benchmarks:
            if name in RENAMED:
                raise ValueError(f"benchmarks: {name!r} is now called {RENAMED[name]!r}: write that.")
        _check_among("benchmarks", self.benchmarks, BENCHMARKS)
        check_yarn(self.yarn)
        _check_among("ruler_sources", self.ruler_sources or (), Sources.__dataclass_fields__)
        _check_among("tasks", self.tasks or (), [task for known in BENCHMARKS.values() for task in known.tasks])
        _check_among("protocol", [self.protocol], PROTOCOLS)
        _check_among("backend", [self.backend], BACKENDS)
        _check_among("dtype", [self.dtype] if self.dtype else (), DTYPES)
        for name in ("num_samples", "batch_size", "max_model_length"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1.")
        for length in self.lengths:
            if length < 1:
                raise ValueError(f"lengths: {length} must be at least 1.")
        for name in ("temperature", "reasoning_tokens", "seed"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}={getattr(self, name)} must not be negative.")
        without_units = [name for name in self.benchmarks if not self.tasks and not self._units_of(name)]
        if not self.benchmarks or without_units:
            raise ValueError("Nothing to run: name some `benchmarks`, and for RULER some `lengths`.")
        if not self.units():
            raise ValueError(f"tasks={self.tasks} has no task of the benchmarks {self.benchmarks}.")
        path = Path(self.model.rstrip("/"))
        run = f"{path.parent.name}-" if path.name.startswith("checkpoint-") else ""
        self.label = self.label or run + path.name
        self.output_dir = (self.output_dir or "runs/eval/{label}").replace("{label}", self.label)

    def units(self) -> list[Unit]:
        """What is evaluated one after another: RULER's lengths from short to long."""
        return [unit for name in self.benchmarks for unit in self._units_of(name)]

    def _units_of(self, benchmark: str) -> list[Unit]:
        return BENCHMARKS[benchmark].units(**asdict(self))


def _check_among(name: str, values: Iterable[str], known: Iterable[str]) -> None:
    if unknown := [value for value in values if value not in known]:
        hint = did_you_mean(unknown[0], known, " Did you mean {!r}?")
        raise ValueError(f"{name}: {', '.join(map(repr, unknown))} is not one of {', '.join(known)}.{hint}")
