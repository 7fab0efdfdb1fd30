"""Fields that hold a mapping, where they were given as a text: JSON, for some also the name of a file of it."""

import difflib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints


LOADING = (
    "attn_implementation cache_dir config device_map dtype experts_implementation local_files_only low_cpu_mem_usage "
    "max_position_embeddings quantization_config revision rope_parameters rope_scaling subfolder token torch_dtype "
    "trust_remote_code use_cache use_safetensors variant"
).split()
"""Keys of `model_init_kwargs`, for the hint at a typo: any field of a config may be one."""
OF_FILES = ("accelerator_config", "deepspeed", "fsdp_config")


def check_mappings(args: Any) -> None:
    """
    Check that a text which stands for a mapping is one.

    Args:
        args (`Any`):
            Object of a dataclass.

    Raises:
        `ValueError`: For the first that is neither JSON nor, where that can be, a file.
    """
    for name, hint in get_type_hints(type(args)).items():
        value = getattr(args, name)
        holds_mapping = any(dict in (part, get_origin(part)) for part in get_args(hint))
        if name == "model_init_kwargs" and isinstance(value, dict):
            check_names(name, value, LOADING)
        if not holds_mapping or not isinstance(value, str) or not value:
            continue
        if name in OF_FILES and not value.startswith("{"):
            if value.endswith(".json") and not Path(value).is_file():  # DeepSpeed also takes base64
                raise ValueError(f"`{name}`: there is no file {value!r} in {Path.cwd()}.")
            continue
        try:
            found = json.loads(value)
        except ValueError:
            found = None
        if isinstance(found, dict) and name == "model_init_kwargs":
            check_names(name, found, LOADING)
        elif not isinstance(found, dict):
            raise ValueError(
                f"`{name}` cannot be {value!r}: write a mapping in YAML, or JSON with its quotes such as "
                f"`--{name} '{{\"key\": true}}'`."
            )


def check_names(field: str, given: Iterable[str], known: Iterable[str]) -> None:
    """
    Check names inside a mapping for typos. One that is like none is left to the library that is told of it.

    Args:
        field (`str`):
            Which mapping, for the message.
        given, known (`Iterable[str]`):
            Names that were written, and some that can be.

    Raises:
        `ValueError`: For the first that is nearly a known one.
    """
    known = set(known)
    for name in map(str, given):
        close = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.8)
        if name not in known and close:
            raise ValueError(f"`{field}` has an unknown key `{name}`. Did you mean `{close[0]}`?")
