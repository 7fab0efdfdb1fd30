"""Fields that hold a mapping, where they were given as a text: JSON, for some also the name of a file of it."""

import json
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints


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
        if not isinstance(found, dict):
            raise ValueError(
                f"`{name}` cannot be {value!r}: write a mapping in YAML, or JSON with its quotes such as "
                f"`--{name} '{{\"key\": true}}'`."
            )
