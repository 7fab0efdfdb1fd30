"""Folders of runs as trainers leave them, written by hand: for pages of any size, without training."""

import json
import random
from pathlib import Path

import pandas
import torch

from longact_trl.training.completion_tables import THROWN_AWAY, TRAINED, table_file
from longact_trl.training.mask_file import SavedMasks


LAYERS, HEADS, HEAD_DIM = 2, 8, 32
NASTY = "</script><script>throw 'markup';</script> & <b>bold</b> 中文 \u2028 '\"`${x}"


def write_run(
    folder: Path,
    steps: int = 6,
    groups: int = 4,
    completions: int = 4,
    words: int = 30,
    thrown: int = 2,
    seed: int = 0,
) -> Path:
    """
    A run of `steps` logged steps with `groups` groups each, of which one has no advantage, `thrown` groups thrown
    away at each, and a checkpoint at every second step.
    """
    chance = random.Random(seed)
    log = []
    for step in range(1, steps + 1):
        tables = {TRAINED: _rows(chance, step, groups, completions, words)}
        if thrown:
            tables[THROWN_AWAY] = _rows(chance, step, thrown, completions, words, "answer_reward is 0 for all")
        for kind, rows in tables.items():
            (folder / kind).mkdir(parents=True, exist_ok=True)
            pandas.DataFrame(rows).to_parquet(table_file(folder, kind, step))
        parts = {"generate": 2.0, "reward": 0.1, "score": 0.5, "train": 1.5, "optimizer": 0.2, "rest": 0.1}
        seconds = {f"longact/seconds_{name}": value * chance.uniform(0.8, 1.2) for name, value in parts.items()}
        memory = {f"longact/gib_{name}": value for name, value in {"generate": 40.5, "train": 61.2}.items()}
        known = {"reward": step / steps + chance.random() / 5, "loss": 0.0, "longact/mask_churn": 0.3 / step}
        log.append({"step": step, "step_time": sum(seconds.values()), **known, **seconds, **memory})
        if step % 2 == 0:
            checkpoint = folder / f"checkpoint-{step}"
            _masks(step + seed).save(checkpoint)
            (checkpoint / "trainer_state.json").write_text(json.dumps({"log_history": log}))
    return folder


def _rows(chance: random.Random, step: int, groups: int, completions: int, words: int, reason: str | None = None):
    rows = []
    for group in range(groups):
        flat = group == 0 or reason
        prompt = f"Question {step}.{group}: {_text(chance, 4 * words)}"
        for number in range(completions):
            right = 0.0 if flat else float(number % 2)
            row = {
                "step": step,
                "prompt": [{"role": "user", "content": prompt}],
                "completion": [
                    {"role": "assistant", "content": f"<think> {_text(chance, words)} </think> <answer> 7 </answer>"}
                ],
                "answer_reward": right,
                "format_reward": 1.0,
                "answer": ["8"],
                "answer_kind": "number",
            }
            rows.append(row | ({"reason": reason} if reason else {"advantage": 0.0 if flat else 2 * right - 1}))
    return rows


def _text(chance: random.Random, words: int) -> str:
    return " ".join(chance.choices(("river", "bridge", "1889", "therefore", "clock", NASTY), k=words))


def _masks(seed: int) -> SavedMasks:
    generator = torch.Generator().manual_seed(seed)
    names = [f"model.layers.{i}.self_attn.{kind}_proj" for i in range(LAYERS) for kind in "qk"]
    magnitudes = {name: torch.rand(HEADS, HEAD_DIM, generator=generator) for name in names}
    masks = {name: (value > 0.7).flatten() for name, value in magnitudes.items()}
    settings = {"strategy": "massive", "sparsity_ratio": 0.3, "num_refreshes": 1}
    return SavedMasks(
        settings, masks, {name: mask.clone() for name, mask in masks.items()}, magnitudes, generator.get_state()
    )
