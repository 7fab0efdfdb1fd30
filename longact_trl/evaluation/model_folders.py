"""The files of a local model or adapter: which of them a run rests on, and whether they are whole."""

import hashlib
import json
from pathlib import Path
from typing import NamedTuple

from ..models.weight_files import check_weights


WEIGHT_FILES = ("*.safetensors", "pytorch_model*.bin", "adapter_model.bin", "*.gguf")
"""Not `*.bin`: a trainer writes its arguments and its optimizer there, too."""
READ_FILES = ("config.json", "generation_config.json", "adapter_config.json", "*.jinja", "tokenizer*", "*token*.json")
READ_FILES += ("vocab*", "merges.txt", "*.model", "*.tiktoken", "chat_template*", "tekken.json", "params.json")
READ_FILES += ("*quant*.json", "*.index.json", "*processor_config.json", "additional_chat_templates/*.jinja", "*.py")
"""Of a model's folder, what says how text becomes tokens and back, and how the model is built and stops."""
VLLM_LORA_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""What vLLM takes for `max_lora_rank`, from its own default up."""
VLLM_READS_NOT = ("rank_pattern", "alpha_pattern", "use_dora", "modules_to_save", "bias", "trainable_token_indices")
"""Of an adapter_config.json, what vLLM (0.31, `PEFTHelper`) refuses in its engine or, as the two patterns that scale a
layer's product by its own alpha / r, passes over."""


def files_read(folder: str | Path) -> list[Path]:
    """Files of a local folder that say how its model reads and writes; none for an id of the Hub."""
    return sorted({file for pattern in READ_FILES for file in Path(folder).glob(pattern) if file.is_file()})


def weight_files(folder: str | Path) -> list[Path]:
    """Files of a local folder that hold weights; none for an id of the Hub."""
    return sorted({file for pattern in WEIGHT_FILES for file in Path(folder).glob(pattern) if file.is_file()})


def digest_of(file: Path) -> str:
    """Digits of a SHA-256 over a file."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()[:16]


def check_folder(folder: Path, is_adapter: bool) -> None:
    """
    Check that the weights of a folder are there and whole, before a backend meets them in a process of its own.

    Args:
        folder (`Path`):
            Folder of a model or an adapter.
        is_adapter (`bool`):
            Which of them it is used as.

    Raises:
        `ValueError`: If there are none, one is cut off or missing, or generation_config.json is none, which
        transformers would pass over in silence; names the file.
    """
    if not any(file.stem.startswith("adapter_model") == is_adapter for file in weight_files(folder)):
        raise ValueError(
            f"{str(folder)!r} holds no weights ({', '.join(WEIGHT_FILES)}){' of an adapter' * is_adapter}."
        )
    check_weights(folder)
    if (folder / "generation_config.json").is_file():
        _object(folder / "generation_config.json")


def _object(file: Path) -> dict:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{file} cannot be read as JSON ({error}): was it cut off?") from error
    if not isinstance(content, dict):
        raise ValueError(f"{file} is no JSON object: copy or download it again.")
    return content


class Adapter(NamedTuple):
    """What an adapter_config.json says: the model beneath, the highest rank, and what of it is not for vLLM."""

    base: str
    rank: int
    not_for_vllm: tuple[str, ...]


def read_adapter(file: Path) -> Adapter:
    """
    Read an adapter_config.json.

    Args:
        file (`Path`):
            The file.

    Returns:
        `Adapter`

    Raises:
        `ValueError`: If it cannot be read, or the adapter is no LoRA; names the file.
    """
    content = _object(file)
    kind = content.get("peft_type")
    if kind != "LORA":
        raise ValueError(f"{file}: peft_type={kind!r}, but only LORA is evaluated. Merge the adapter into its model.")
    base, rank = content.get("base_model_name_or_path"), content.get("r")
    if not isinstance(base, str) or not base:
        raise ValueError(f"{file}: base_model_name_or_path={base!r} must name the model that the adapter is for.")
    pattern = content.get("rank_pattern") or {}
    ranks = [rank, *pattern.values()] if isinstance(pattern, dict) else [None]
    if not all(type(rank) is int and 0 < rank <= VLLM_LORA_RANKS[-1] for rank in ranks):
        raise ValueError(
            f"{file}: r={rank!r} and rank_pattern must be ranks from 1 to {VLLM_LORA_RANKS[-1]}, not {pattern!r}."
        )
    not_for_vllm = tuple(name for name in VLLM_READS_NOT if content.get(name) and content[name] != "none")
    return Adapter(base, max(ranks), not_for_vllm)
