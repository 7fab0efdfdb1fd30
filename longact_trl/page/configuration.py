"""What a run's files say of its configuration: what LongActTrainer wrote down, else what TRL's own runs leave."""

import json
import re
from collections.abc import Sequence
from pathlib import Path

from ..training.checkpoints import TRAINER_STATE_NAME
from ..training.mask_file import has_masks, saved_settings
from ..training.run_file import RUN_FILE


OF_THE_STATE = ("max_steps", "num_train_epochs", "train_batch_size", "logging_steps", "eval_steps", "save_steps")
SHAPE = ("model_type", "hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads")


def configuration_of(folder: Path, checkpoints: list[Path]) -> dict[str, dict]:
    """
    What is known of a run's configuration.

    Args:
        folder (`Path`):
            Its `output_dir`.
        checkpoints (`list[Path]`):
            Its checkpoints, newest last.

    Returns:
        `dict[str, dict]`: `run` for what tells runs apart at a glance, and `settings`, `model`, `versions` and
        `machine` as far as they are known.
    """
    places = (folder, *reversed(checkpoints))
    config = next((file for place in places if (file := place / "config.json").is_file()), None)
    model = _content(config)
    found = {"run": {"folder": str(folder)}, "settings": {}, "model": model, "versions": {}, "machine": {}}
    if (folder / RUN_FILE).is_file():
        found |= _content(folder / RUN_FILE)
    else:
        found["settings"] = _settings_of(places)
        found["versions"] = _versions_of(folder / "README.md")
    masked = next((path for path in reversed(checkpoints) if has_masks(path)), None)
    found["run"] |= {name: found["model"][name] for name in SHAPE if name in found["model"]}
    found["run"] |= saved_settings(masked) if masked else {}
    return found


def _settings_of(places: Sequence[Path]) -> dict:
    """What `trainer_state.json` says of the settings: their pickle in `training_args.bin` is not read."""
    file = next((file for place in places if (file := place / TRAINER_STATE_NAME).is_file()), None)
    state = _content(file)
    return {name: state[name] for name in OF_THE_STATE if name in state}


def _content(file: Path | None) -> dict:
    """What a JSON file holds: nothing, where there is none or it is just being written."""
    try:
        return json.loads(file.read_text(encoding="utf-8")) if file else {}
    except json.JSONDecodeError:
        return {}


def _versions_of(card: Path) -> dict[str, str]:
    text = card.read_text(encoding="utf-8") if card.is_file() else ""
    return dict(re.findall(r"^- ([\w .-]+): ([\w.+-]+)$", text, re.MULTILINE))
