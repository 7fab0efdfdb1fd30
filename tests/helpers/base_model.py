"""The embedded model as a Base model is."""

import json
import shutil
from pathlib import Path

from transformers import AutoTokenizer

from longact_trl.settings.paths import MODEL


END_FILES = ("config.json", "generation_config.json")


def make_base_model(folder: Path) -> Path:
    """A copy whose end is its padding in tokenizer, config and generation config, as Qwen3-Base's is."""
    shutil.copytree(MODEL, folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.eos_token = tokenizer.pad_token
    tokenizer.save_pretrained(folder)
    for name in END_FILES:
        config = json.loads((folder / name).read_text()) | {"eos_token_id": tokenizer.pad_token_id}
        (folder / name).write_text(json.dumps(config))
    return folder


def ends(folder: Path) -> tuple[str, set[str], set[str]]:
    """Where a saved model stops: by its tokenizer, its config.json and its generation_config.json."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = [json.loads((folder / name).read_text())["eos_token_id"] for name in END_FILES]
    return tokenizer.eos_token, *(set(tokenizer.convert_ids_to_tokens([i] if isinstance(i, int) else i)) for i in ids)
