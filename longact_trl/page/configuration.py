"""What a run's files say of its configuration: what LongActTrainer wrote down, else what TRL's own runs leave."""

import json
import pickle
import re
import zipfile
from enum import Enum
from io import BytesIO
from pathlib import Path

from ..training.mask_file import has_masks, saved_settings
from ..training.run_file import RUN_FILE


ARGUMENTS = "training_args.bin"
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
    model = json.loads(config.read_text(encoding="utf-8")) if config else {}
    found = {"run": {"folder": str(folder)}, "settings": {}, "model": model, "versions": {}, "machine": {}}
    if (folder / RUN_FILE).is_file():
        found |= json.loads((folder / RUN_FILE).read_text(encoding="utf-8"))
    else:
        arguments = next((file for place in places if (file := place / ARGUMENTS).is_file()), None)
        found["settings"] = plain_arguments(arguments) if arguments else {}
        found["versions"] = _versions_of(folder / "README.md")
    masked = next((path for path in reversed(checkpoints) if has_masks(path)), None)
    found["run"] |= {name: found["model"][name] for name in SHAPE if name in found["model"]}
    found["run"] |= saved_settings(masked) if masked else {}
    return found


def plain_arguments(file: Path) -> dict:
    """
    The plain values among a pickled `training_args.bin`. Nothing in the pickle is run: classes stand for themselves
    by name, so a page can be made of a run that somebody else sent.

    Args:
        file (`Path`):
            As `Trainer` writes it.

    Returns:
        `dict`: Settings that are numbers, texts or lists of them; without tokens.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            [name] = [name for name in archive.namelist() if name.endswith("data.pkl")]
            loaded = _Plain(BytesIO(archive.read(name))).load()
    except Exception:  # what nobody promises to be a pickle can fail in any way
        return {}
    state = getattr(loaded, "state", {})
    return {
        name: value
        for name, value in sorted(state.items())
        if not name.startswith("_") and "token" not in name.split("_") and _is_plain(value)
    }


class _Thing:
    """Stands for an object of any class. Its arguments and state are kept, and nothing is called."""

    def __new__(cls, *args, **kwargs):
        made = super().__new__(cls)
        made.args, made.state = args, {}
        return made

    def __init__(self, *args, **kwargs):
        pass

    def __setstate__(self, state):
        self.state = state if isinstance(state, dict) else {}


class _Plain(pickle.Unpickler):
    def find_class(self, module, name):
        return _Thing

    def persistent_load(self, pid):
        return None


def _is_plain(value) -> bool:
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, value))
    if isinstance(value, dict):
        return all(map(_is_plain, value.values()))
    return value is None or (isinstance(value, (bool, int, float, str)) and not isinstance(value, Enum))


def _versions_of(card: Path) -> dict[str, str]:
    text = card.read_text(encoding="utf-8") if card.is_file() else ""
    return dict(re.findall(r"^- ([\w .-]+): ([\w.+-]+)$", text, re.MULTILINE))
