"""Run by both ranks under ZeRO-3: every algorithm of the paper takes three steps, dense and masked. Prints OK."""

import os
import sys
from pathlib import Path

import deepspeed
import grpo_longact
import torch
import torch.distributed as dist
from safetensors.torch import load_file

from longact_trl import LongActTrainer


OUT = Path(sys.argv[1])
MODEL = "longact_trl/assets/tiny_qwen3"
# What each algorithm logs that no other does; DAPO's overlong punishment and dynamic sampling are off in GRPO.
ALGORITHMS = {
    "dense": ["longact/sampling_rounds", "rewards/soft_overlong_punishment_reward/mean"],
    "grpo": [],
    "clip_cov": ["longact/clip_cov_share", "longact/sampling_rounds"],
    "kl_cov": ["longact/kl_cov_share", "longact/sampling_rounds"],
}
# This machine, not the recipes'. Covariance takes a larger share of a batch that has hundreds of tokens.
SETTINGS = {
    "model_name_or_path": MODEL,
    "mixture": "quickstart_data.yaml",
    "use_cpu": "true",
    "use_vllm": "false",
    "bf16": "false",
    "dtype": "float32",
    "attn_implementation": "sdpa",
    "report_to": "none",
    "log_completions": "false",
    "save_strategy": "no",
    "max_steps": "3",
    "learning_rate": "1e-3",
    "warmup_steps": "0",
    "num_generations": "8",
    "per_device_train_batch_size": "8",
    "gradient_accumulation_steps": "1",
    "max_completion_length": "20",
}
OWN = {
    "dense": {"overlong_buffer": "10"},
    "clip_cov": {"overlong_buffer": "0", "clip_cov_ratio": "0.1", "clip_cov_lb": "0.0"},
    "kl_cov": {"overlong_buffer": "0", "kl_cov_ratio": "0.1", "steps_per_generation": "2"},
    "grpo": {},
}


class Kept(LongActTrainer):
    """Notes, while they are whole, which rows of W_Q and W_K have moved."""

    last: "Kept"

    def train(self, **kwargs):
        result = super().train(**kwargs)
        start = load_file(f"{MODEL}/model.safetensors")
        self.moved = {}
        for name, param in self.model.named_parameters():
            with deepspeed.zero.GatheredParameters([param]):
                both = [torch.empty_like(param.data) for _ in range(2)]
                dist.all_gather(both, param.data.contiguous())
                assert torch.equal(*both), f"{name} differs between the ranks"
                changed = param.data != start[name].float()
            if "q_proj" in name or "k_proj" in name:
                self.moved[name.removesuffix(".weight")] = changed.any(1)
            else:
                assert changed.any(), f"{name} has not moved"
        Kept.last = self
        return result


def check(algorithm: str, strategy: str) -> None:
    settings = {**SETTINGS, **OWN[algorithm], "strategy": strategy, "output_dir": str(OUT / f"{algorithm}_{strategy}")}
    flags = [part for name, value in settings.items() for part in (f"--{name}", value)]
    grpo_longact.train(["--config", f"paper/qwen3_8b_{algorithm}.yaml", *flags])
    trainer = Kept.last
    logs = [log for log in trainer.state.log_history if "loss" in log]
    assert [log["step"] for log in logs] == [1, 2, 3]
    for log in logs:
        assert torch.isfinite(torch.tensor([log["loss"], log["grad_norm"]])).all() and log["grad_norm"] > 0, log
    for name in {name for names in ALGORITHMS.values() for name in names}:
        assert any(name in log for log in logs) == (name in ALGORITHMS[algorithm]), (name, logs)
    assert len(trainer.moved) == 4
    for name, moved in trainer.moved.items():
        if strategy == "dense":
            assert moved.all(), f"{name}: {(~moved).sum()} rows have not moved"
        else:
            assert not (moved & ~trainer.mask_refresh.ever_selected[name]).any(), f"{name}: unselected rows have moved"
            assert 9 / 32 <= moved.float().mean() < 1, f"{name}: {moved.sum()} rows have moved"


if __name__ == "__main__":
    torch.set_num_threads(1)
    grpo_longact.LongActTrainer = Kept
    for algorithm in ALGORITHMS:
        for strategy in ("dense", "massive"):
            check(algorithm, strategy)
            print(f"OK {algorithm} {strategy} rank {os.environ['RANK']}", flush=True)
