"""
Every decoder family that transformers has, as a tiny random model: its projections against brute force, a step of
LongActTrainer and, where that fails, one of TRL's own trainer. Writes docs/models.tsv, from which docs/models.md is
made (`python docs/make_models.py`).

    python benchmarks/families.py              # all, about half an hour on one core
    python benchmarks/families.py qwen3 gpt2   # some; the others keep their lines
"""

import csv
import os
import signal
import sys
import tempfile
import time
import warnings
from pathlib import Path


os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import datasets
import torch
import transformers
from datasets import Dataset
from family_checks import check_heads, check_magnitudes, check_masks, check_rows
from family_prefixes import WAYS, shared_prefix_error
from tiny_families import FAMILIES, tiny_config, tiny_model
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast
from trl import GRPOConfig, GRPOTrainer

from longact_trl import LongActConfig, LongActTrainer
from longact_trl.method.gradients import row_parameters
from longact_trl.method.projections import find_projections, modules_in_words, row_dim
from longact_trl.models.reading import skeleton_of
from longact_trl.packing.obstacles import obstacle


RESULTS = Path(__file__).parent.parent / "docs" / "models.tsv"
WITHIN, ACROSS = "shared within micro-batches", "shared across micro-batches"
COLUMNS = ("family", "projections", "rows", "magnitudes", "masks", WITHIN, ACROSS, "step", "TRL's step")
SECONDS = 240
WORDS = ["<pad>", "<|im_start|>", "<|im_end|>", "user", "assistant"] + [f"w{i}" for i in range(55)]
TEMPLATE = (
    "{% for m in messages %}<|im_start|> {{ m.role }} {{ m.content }} <|im_end|> {% endfor %}"
    "{% if add_generation_prompt %}<|im_start|> assistant {% endif %}"
)


def examine(family: str) -> dict[str, str]:
    """All columns of one family: "ok", or what went wrong in one line; "-" where there is nothing to look at."""
    found = dict.fromkeys(COLUMNS, "-") | {"family": family}

    def note(column: str, check) -> None:
        try:
            found[column] = check() or "ok"
        except Exception as error:
            found[column] = f"{type(error).__name__}: {error}".splitlines()[0].replace("\t", " ")[:300]

    note("projections", lambda: projections(family))
    if found["projections"].startswith("Q in "):
        note("rows", lambda: (check_rows(tiny_model(family)), check_heads(tiny_model(family))) and None)
        note("magnitudes", lambda: check_magnitudes(tiny_model(family)))
        note("masks", lambda: [check_masks(tiny_model(family), choice) for choice in ("off", "on")] and None)
        note(WITHIN, lambda: share(family, WAYS[:1]))
        note(ACROSS, lambda: share(family, WAYS[1:]))
    note("step", lambda: step(family))
    if found["step"] != "ok":
        note("TRL's step", lambda: step(family, GRPOTrainer, GRPOConfig))
    return found


def projections(family: str) -> str:
    """Which modules hold the rows of Q and K, from the configuration alone."""
    return modules_in_words(find_projections(skeleton_of(tiny_config(family))))


def is_shared(family: str) -> bool:
    """Whether prompts are shared, from the configuration alone."""
    return obstacle(tiny_config(family), settings(LongActConfig)) is None


def share(family: str, ways=WAYS) -> str | None:
    """Whether rows that are packed in these ways equal plain ones; "-" where they are not packed."""
    if not is_shared(family):
        return "-"
    error = shared_prefix_error(tiny_model(family), tiny_model(family), ways)
    if error > 1e-4:  # rounding, or a difference?
        torch.set_default_dtype(torch.float64)
        error = shared_prefix_error(tiny_model(family).double(), tiny_model(family).double(), ways)
        torch.set_default_dtype(torch.float32)
    return None if error <= 1e-4 else f"differs by {error:.0e}"


def settings(config_class: type, **kwargs):
    return config_class(
        tempfile.mkdtemp(), use_cpu=True, bf16=False, per_device_train_batch_size=4, num_generations=2,
        max_completion_length=4, max_steps=1, learning_rate=1e-2, gradient_checkpointing=False, save_strategy="no",
        report_to=[], disable_tqdm=True, **kwargs,
    )  # fmt: skip


def step(family: str, trainer_class: type = LongActTrainer, config_class: type = LongActConfig) -> None:
    """One step, after which unselected rows have their bits and others have moved."""
    model = tiny_model(family)
    words = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="<pad>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words,
        pad_token="<pad>",
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        chat_template=TEMPLATE,
    )
    contents = [" ".join(f"w{(7 * i + j) % 55}" for j in range(4 + i)) for i in range(8)]
    prompts = Dataset.from_dict({"prompt": [[{"role": "user", "content": content}] for content in contents]})
    trainer = trainer_class(model, [reward], settings(config_class), prompts, processing_class=tokenizer)
    before = {param: param.detach().clone() for param in model.parameters()}
    trainer.train()
    if trainer_class is not LongActTrainer:
        return
    for p in trainer.mask_refresh.projections:
        for param in row_parameters(p.module):
            moved = (param != before[param]).view(len(param), -1)
            moved = (moved.t() if row_dim(p.module) and param.dim() == 2 else moved)[p.rows].any(-1)
            mask = trainer.mask_refresh.masks[p.name]
            assert not (moved & ~mask).any(), f"{p.name}: unselected rows have moved"
            assert param.dim() < 2 or moved.any(), f"{p.name}: no row has moved"


def reward(completions, **kwargs) -> list[float]:
    return [float(sum(map(ord, str(c))) % 7) + 0.1 * i for i, c in enumerate(completions)]


def in_child(family: str) -> dict[str, str]:
    """`examine` in a process of its own: some models take minutes or the interpreter with them."""
    read, write = os.pipe()
    if (child := os.fork()) == 0:
        silence = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silence, 1)
        os.dup2(silence, 2)
        os.write(write, "\t".join(examine(family).values()).encode())
        os._exit(0)
    os.close(write)
    os.set_blocking(read, False)
    end, said = time.time() + SECONDS, b""
    while time.time() < end:
        if os.waitpid(child, os.WNOHANG)[0]:
            said = os.read(read, 1 << 20)
            break
        time.sleep(0.05)
    else:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    os.close(read)
    values = said.decode().split("\t") if said else [family] + [f"no answer in {SECONDS} s"] * (len(COLUMNS) - 1)
    return dict(zip(COLUMNS, values, strict=True))


def main() -> None:
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    datasets.disable_progress_bars()
    torch.set_num_threads(1)
    known = {}
    if RESULTS.is_file():
        known = {row["family"]: row for row in csv.DictReader(RESULTS.open(), delimiter="\t")}
    for family in sys.argv[1:] or FAMILIES:
        known[family] = in_child(family)
        print(" | ".join(known[family].values()), flush=True)
        with RESULTS.open("w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS, delimiter="\t", lineterminator="\n")
            writer.writeheader()
            writer.writerows(known[name] for name in FAMILIES if name in known)


if __name__ == "__main__":
    main()
