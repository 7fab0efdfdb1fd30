"""The run that is checked: its configuration resolved for a number of GPUs, and what is read only when asked for."""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path

import torch
from datasets import Dataset
from huggingface_hub import is_offline_mode
from transformers import AutoConfig, GenerationConfig, PretrainedConfig, PreTrainedTokenizerBase
from trl import ModelConfig, SFTConfig, get_peft_config

from ..data.length import prompt_lengths
from ..models.reading import load_config, load_processing_class
from ..packing.obstacles import shares_prefixes
from ..settings.paths import recipe_root
from ..settings.recipe_yaml import find_config, model_init_kwargs, parse_recipe, read_config
from ..settings.starting_point import MissingColdStart, missing_cold_start
from ..training.cold_start import ColdStartArguments, load_demonstrations
from ..training.command_line import COLD_START, recipe_of
from ..training.config import LongActConfig
from ..training.preflight import prompt_window, source_of
from ..training.recipe_parts import RecipeArguments, load_prompts, reward_functions
from .launch import read_launch
from .memory.shape import ModelShape, shape_of
from .memory.workload import Load, Placement
from .verdict import CannotCheck, once


SHIPPED_CONFIGS = Path(__file__).parents[1] / "assets" / "model_configs"
"""`config.json` of the paper's models, for a machine that cannot reach the Hub."""
WIDTHS = {"float32": 4, "bfloat16": 2, "float16": 2}
OPTIMIZER_STATES = {"sgd": 0, "adagrad": 1, "rmsprop": 1, "lion_32bit": 1}
"""States that an optimizer keeps for a parameter; all others are taken for AdamW's two."""


@dataclass
class Subject:
    """
    A recipe with its configuration.

    Args:
        script_args (`RecipeArguments` or `ColdStartArguments`):
            The recipe's own arguments.
        args (`LongActConfig` or `SFTConfig`):
            Training arguments, as on one of `placement.ranks` ranks.
        model_args (`ModelConfig`):
            Model arguments.
        settings (`dict`):
            What the YAML and the command line set, as resolved.
        placement (`Placement`):
            Backend and ranks.
        on_cpu (`bool`):
            Whether the configuration itself asks for a CPU.
        gpu_bytes (`int`):
            Memory of a GPU, or of this machine for a run on its CPU.
    """

    script_args: RecipeArguments | ColdStartArguments
    args: LongActConfig | SFTConfig
    model_args: ModelConfig
    settings: dict
    placement: Placement
    on_cpu: bool
    gpu_bytes: int
    known: dict = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def is_rl(self) -> bool:
        return isinstance(self.args, LongActConfig)

    @property
    def trains_here(self) -> bool:
        """Whether this machine could be the one that trains, or is only where the run is prepared."""
        return self.on_cpu or torch.accelerator.is_available()

    @property
    def model(self) -> str:
        return self.model_args.model_name_or_path

    @property
    def missing_start(self) -> MissingColdStart | None:
        """The cold start that the run starts from, where it has not been run."""
        return missing_cold_start(self.model, recipe_root() / "recipes") if self.is_rl else None

    @property
    def described_by(self) -> str:
        """Model whose files say what is trained: the run's own, or that from which its cold start will begin."""
        missing = self.missing_start
        return missing.base_model if missing else self.model

    @once
    def model_config(self) -> PretrainedConfig:
        if not self.model:
            raise ValueError("There is no model to train: set `model_name_or_path` to a Hub id or folder.")
        try:
            return load_config(self.described_by, **source_of(self.args))
        except ValueError as error:
            shipped = SHIPPED_CONFIGS / self.described_by.rpartition("/")[2]
            if not self._is_unreachable(error):
                raise
            if not shipped.is_dir() or Path(self.described_by).parent != Path("Qwen"):
                raise CannotCheck(f"{self.described_by!r} is no folder here, and the Hub cannot be reached") from error
            self.notes.append("from the shipped copy of config.json, since the Hub cannot be reached")
            return AutoConfig.from_pretrained(shipped)

    @once
    def shape(self) -> ModelShape:
        if self.model_args.load_in_4bit or self.model_args.load_in_8bit:
            raise CannotCheck("quantised weights have no memory formula yet")
        try:
            return shape_of(self.model_config, get_peft_config(self.model_args))
        except ValueError as error:
            raise CannotCheck(str(error)) from error

    @once
    def tokenizer(self) -> PreTrainedTokenizerBase:
        _ = self.model_config  # without a model there is none
        try:
            return load_processing_class(self.described_by, **source_of(self.args))
        except ValueError as error:
            if self._is_unreachable(error):
                raise CannotCheck(
                    f"the tokenizer of {self.described_by!r} is not here, and the Hub cannot be reached"
                ) from error
            raise

    def stop_tokens(self) -> list[str]:
        """What the model's generation_config.json stops at, where it has one."""
        try:
            ids = GenerationConfig.from_pretrained(self.model).eos_token_id
        except OSError:
            return []
        ids = ids if isinstance(ids, list) else [] if ids is None else [ids]
        return [token for token in self.tokenizer.convert_ids_to_tokens(ids) if token is not None]

    @once
    def dataset(self) -> Dataset:
        try:
            if self.is_rl:
                tokenizer = self._tokenizer_if_here()
                window = self.window if tokenizer is not None else None
                return load_prompts(self.script_args, self.args, tokenizer, recipe_root() / "recipes", window)
            return load_demonstrations(self.script_args, self.args.seed)
        except Exception as error:
            if isinstance(error, ValueError) and not isinstance(error, UnicodeError):
                raise
            if any(isinstance(cause, ConnectionError) for cause in _causes(error)):
                raise CannotCheck("the dataset is not here, and the Hub cannot be reached") from error
            raise ValueError(f"The dataset cannot be read: {error}") from error

    def _tokenizer_if_here(self) -> PreTrainedTokenizerBase | None:
        try:
            return self.tokenizer
        except CannotCheck:  # only the synthetic source of a mixture needs one, and says so
            return None

    @once
    def reward_functions(self) -> list[Callable]:
        return reward_functions(self.script_args, self.args, self.tokenizer)

    @once
    def window(self) -> int | None:
        return prompt_window(self.model_config, self.args)

    @once
    def prompt_lengths(self) -> list[int]:
        return prompt_lengths(
            self.dataset, self.tokenizer, chat_template_kwargs=getattr(self.args, "chat_template_kwargs", None)
        )

    def _is_unreachable(self, error: ValueError) -> bool:
        """Whether a file was not read because the Hub could not be asked, rather than because it is not there."""
        return not Path(self.described_by).is_dir() and (is_offline_mode() or "couldn't connect" in str(error))

    def load(self) -> Load:
        """What a rank computes, at the longest prompt that is known."""
        weights = WIDTHS.get(self.args.model_init_kwargs.get("dtype") or "float32", 2)
        args, compute = self.args, 2 if self.args.bf16 or self.args.fp16 else weights
        if not self.is_rl and args.max_length is None:
            raise CannotCheck("`max_length` is not set, so sequences may have any length")
        common = Load(
            batch=args.per_device_train_batch_size,
            prompt=0,
            completion=getattr(args, "max_length", None) or 0,
            checkpointing=args.gradient_checkpointing,
            accumulates=args.gradient_accumulation_steps > 1,
            weight_bytes=weights,
            compute_bytes=compute,
            optimizer_states=OPTIMIZER_STATES.get(str(getattr(args.optim, "value", args.optim)), 2),
            attention=self.model_args.attn_implementation or "sdpa",
            device="cpu" if self.on_cpu else "cuda",
        )
        if not self.is_rl:
            return common
        colocated = args.use_vllm and args.vllm_mode == "colocate"
        return replace(
            common,
            prompt=self.longest_prompt(),
            completion=args.max_completion_length,
            group=args.num_generations,
            shared_prefix=shares_prefixes(self.model_config, args),
            chunk=args.prefix_chunk_size,
            offload_prefix=args.prefix_offload,
            micro_batches=min(args.steps_per_generation, args.gradient_accumulation_steps),
            reference=args.beta > 0 and not self.model_args.use_peft,
            generated=0 if args.use_vllm else args.generation_batch_size // self.placement.ranks,
            vllm_share=args.vllm_gpu_memory_utilization if colocated else 0.0,
            vllm_sleeps=args.vllm_enable_sleep_mode,
            vllm_ranks=args.vllm_tensor_parallel_size,
        )

    def longest_prompt(self) -> int:
        """Tokens of the longest prompt that fits, or the whole window where prompts could not be measured."""
        measured, window = self.known.get("prompt_lengths"), self.window
        if not measured and window is None:
            raise CannotCheck("the model's config.json names no window, and prompts could not be measured")
        lengths = [max(measured[0])] if measured else []
        return min(lengths + ([window] if window is not None else []))


def read_subject(
    config: str,
    overrides: Sequence[str] = (),
    gpus: int | None = None,
    gpu_memory: float = 80.0,
    accelerate_config: str | None = None,
) -> Subject:
    """
    Resolve a configuration as the recipe would on `gpus` ranks, without any.

    Args:
        config (`str`):
            Name or path of a recipe's YAML file.
        overrides (`Sequence[str]`, *optional*):
            Further arguments of the recipe, such as `["--sparsity_ratio", "0.2"]`.
        gpus (`int`, *optional*):
            GPUs of all nodes together; default what the accelerate config says.
        gpu_memory (`float`, *optional*, defaults to `80.0`):
            GiB of a GPU.
        accelerate_config (`str`, *optional*):
            Name or path of an accelerate config; default `zero3.yaml`, or `cpu.yaml` for a run on a CPU.

    Returns:
        `Subject`: The run.

    Raises:
        `ValueError`: If configuration or launch are wrong in themselves.
    """
    root = recipe_root()
    recipes = root / "recipes"
    settings = read_config(find_config(config, recipes))
    given = _given(overrides)
    on_cpu = str(given.get("use_cpu", settings.get("use_cpu", False))).lower() in ("true", "1", "yes")
    default = "cpu.yaml" if on_cpu else "zero3.yaml"
    launch = find_config(accelerate_config or default, root / "accelerate_configs")

    own, arguments = RecipeArguments, LongActConfig
    if recipe_of(settings) is COLD_START:
        own, arguments = ColdStartArguments, SFTConfig
    weight_decay = float(given.get("weight_decay", settings.get("weight_decay", 0.0)))
    placement = read_launch(launch, gpus, weight_decay, masked=arguments is LongActConfig)

    # The batch arithmetic of the launch, on one process that needs no GPU.
    class Planned(arguments):
        world_size = property(lambda self: placement.ranks)

    argv = ["--config", config, *overrides, "--use_cpu", "true"]
    script_args, args, model_args = parse_recipe((own, Planned, ModelConfig), argv, recipes)
    args.model_init_kwargs = model_init_kwargs(model_args, args.model_init_kwargs)
    resolved = {}
    for name in [*settings, *(name for name in given if name not in settings)]:
        for source in (script_args, args, model_args):
            if name in source.__dataclass_fields__ and name != "use_cpu":
                resolved[name] = getattr(source, name)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if on_cpu else int(gpu_memory * 2**30)
    return Subject(script_args, args, model_args, resolved, placement, on_cpu, memory)


def _given(overrides: Sequence[str]) -> dict[str, str]:
    """What `--name value`, `--name=value` and a bare `--name` set."""
    found = {}
    for part, following in pairwise([*overrides, "--"]):
        if part.startswith("--"):
            name, equals, value = part[2:].partition("=")
            found[name.replace("-", "_")] = value if equals else "true" if following.startswith("--") else following
    return found


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
