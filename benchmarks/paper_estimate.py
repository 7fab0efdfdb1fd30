"""A step of the paper's run on its 8×H800 (sec. 4.1), with and without shared prefixes: operations, time, memory.

    python benchmarks/paper_estimate.py

Nothing is measured here. Operations are counted as `benchmarks/shared_prefix.py` counts the bound that it compares
with measured ratios, memory is the plan of `longact check`. Time is operations over what the GPUs deliver at an
assumed utilisation, for scoring and training; generation comes on top and is the same for all. A rank has one prompt,
whose K and V of the scoring pass serve the training: it is forwarded twice a step at any micro-batch size.
"""

import argparse
import dataclasses

from rich.console import Console
from rich.table import Table
from shared_prefix import flops

from longact_trl.check.memory.changes import CHUNK
from longact_trl.check.memory.plan import GIB, RESERVE, plan_memory
from longact_trl.check.subject import read_subject


H800_BF16 = 989e12  # operations a second, dense: the H100 SXM's, from which the H800 differs in its links between GPUs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", default="qwen3_8b.yaml")
    parser.add_argument("--gpus", type=int, default=8)
    parser.add_argument("--prompt-length", type=int, default=28_672)
    parser.add_argument("--completion-length", type=int, default=4_096)
    parser.add_argument("--utilisation", type=float, default=0.4, help="of the GPU's peak, assumed")
    options = parser.parse_args()
    P, C = options.prompt_length, options.completion_length

    title = f"{options.config}, {options.gpus} GPUs, {P:,} + {C:,} tokens, at {options.utilisation:.0%} of the peak"
    table = Table(title=title, title_justify="left")
    for column in ("rows a micro-batch", "prompts", "PFLOP a step", "minutes a step", "ratio", "GiB at the peak"):
        table.add_column(column, justify="right")
    first = None
    ways = [(1, "off", ()), *((rows, "auto", ()) for rows in (1, 2, 4, 8, 16))]
    ways.append((1, "auto", ("--prefix_chunk_size", str(CHUNK))))
    for rows, mode, more in ways:
        overrides = ["--shared_prefix", mode, *more]
        overrides += ["--per_device_train_batch_size", str(rows), "--gradient_accumulation_steps", str(16 // rows)]
        subject = read_subject(options.config, overrides, options.gpus)
        config, args = subject.model_config, subject.args
        arm = "trl" if mode == "off" else "shared"
        total = options.gpus * sum(
            flops(config, (P, 16, C), arm, kind, args.gradient_checkpointing, on_gpu=True)
            for kind in ("scoring", "training")
        )
        first = first or total
        minutes = total / (options.gpus * H800_BF16 * options.utilisation) / 60
        load = dataclasses.replace(subject.load(), prompt=P, completion=C)
        peak = plan_memory(subject.shape, subject.placement, load, subject.gpu_bytes).training_peak + RESERVE
        name = "each time" if mode == "off" else f"chunks of {CHUNK:,}" if more else "once"
        numbers = f"{total / 1e15:,.0f}", f"{minutes:.1f}", f"{first / total:.2f}", f"{peak / GIB:.0f}"
        table.add_row(str(rows), name, *numbers)
    Console().print(table)


if __name__ == "__main__":
    main()
