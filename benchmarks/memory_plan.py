"""The memory plan of `longact check` against measured peaks: three model sizes, with and without checkpointing.

    OMP_NUM_THREADS=1 python benchmarks/memory_plan.py

Each line is a process that trains a Qwen3 of random weights for two optimizer steps with `LongActTrainer`, in float32
on the CPU, generation and optimizer included. torch's profiler reports every allocation and release of the CPU
allocator, as a GPU's allocator counts them; their running sum has a peak, and so has the plan. What the plan says of
sharding, bfloat16 and vLLM is not measured here: that needs GPUs.

On a CPU TRL's LM head scores prompts too and copies its tiles of logits, so it decides the peak. On a GPU layers do.
The lines "narrow" cut the tiles to 256 columns, in TRL and in the plan, so that layers decide here as well.
"""

import argparse
import gc
import json
import subprocess
import sys
import tempfile
from itertools import product
from pathlib import Path

import torch
import trl.trainer.utils as trl_utils
from datasets import Dataset
from datasets.table import InMemoryTable
from rich.console import Console
from rich.table import Table
from torch.profiler import ProfilerActivity, profile
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase, Qwen3Config

import longact_trl
from longact_trl import LongActConfig, LongActTrainer
from longact_trl.check.memory import plan as formulas
from longact_trl.check.memory.plan import MemoryPlan, plan_memory
from longact_trl.check.memory.shape import shape_of
from longact_trl.check.memory.workload import Load, Placement


TOLERANCE = 0.15
WIDTHS = {2: torch.bfloat16, 4: torch.float32}
TOKENIZER = Path(longact_trl.__file__).parent / "assets" / "tiny_qwen3"
NARROW = 256
SIZES = {  # hidden, intermediate, layers, query heads, key heads, head_dim, vocabulary
    "20M": (384, 1152, 6, 6, 2, 64, 8192),
    "60M": (512, 1536, 12, 8, 4, 64, 16384),
    "135M": (768, 2304, 14, 12, 4, 64, 16384),
}


def config_of(hidden, intermediate, layers, heads, key_heads, head_dim, vocab) -> Qwen3Config:
    return Qwen3Config(
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=key_heads,
        head_dim=head_dim,
        vocab_size=vocab,
        tie_word_embeddings=False,
        max_position_embeddings=4096,
    )


def predicted(config: Qwen3Config, load: Load) -> MemoryPlan:
    return plan_memory(shape_of(config), Placement("single"), load)


def narrow_head(columns: int = NARROW) -> None:
    """Let the LM head make tiles of few columns, in TRL and in the plan."""
    trl_utils._CHUNKED_LOGPROB_CHUNK_SIZE = formulas.HEAD_COLUMNS = columns


def measured(config: Qwen3Config, load: Load) -> int:
    """Peak over two optimizer steps: the highest running sum of the CPU allocator's bytes, or what torch's counts on a
    GPU, where weights are as wide as the load's."""
    tokenizer = AutoTokenizer.from_pretrained(TOKENIZER)
    prompts = prompts_of(tokenizer, load.prompt, 4)
    on_gpu = load.device == "cuda"
    gc.collect()  # what an earlier measurement left would be released, and counted, during this one
    with tempfile.TemporaryDirectory() as folder:
        args = LongActConfig(
            folder,
            use_cpu=not on_gpu,
            bf16=on_gpu,
            per_device_train_batch_size=load.batch,
            num_generations=load.group,
            gradient_accumulation_steps=max(load.micro_batches, 1 + load.accumulates),
            max_completion_length=load.completion,
            generation_kwargs={"min_new_tokens": load.completion},
            gradient_checkpointing=load.checkpointing,
            shared_prefix="auto" if load.shared_prefix else "off",
            prefix_chunk_size=load.chunk,
            max_steps=2,
            logging_steps=1,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
        )

        def train() -> None:
            with torch.device(load.device):
                model = AutoModelForCausalLM.from_config(config, dtype=WIDTHS[load.weight_bytes])
            if on_gpu:
                torch.cuda.reset_peak_memory_stats()
            trainer = LongActTrainer(model, distinct_characters, args, prompts, processing_class=tokenizer)
            trainer.train()

        if on_gpu:
            torch.cuda.empty_cache()
            before = torch.cuda.memory_allocated()
            train()
            return torch.cuda.max_memory_allocated() - before
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
            train()
    return peak_of(profiler)


def prompts_of(tokenizer: PreTrainedTokenizerBase, length: int, count: int) -> Dataset:
    """Prompts of so many tokens."""
    word = tokenizer.convert_ids_to_tokens(len(tokenizer) - 1)
    table = InMemoryTable.from_pydict({"prompt": [" ".join([word] * length)] * count})
    # Named, not hashed: dill cannot where packages lie outside the interpreter's prefix (`pip install --target`).
    return Dataset(table, fingerprint=f"prompts-{length}-{count}")


def distinct_characters(completions, **kwargs) -> list[float]:
    """A reward that differs within a group, so that there are gradients."""
    return [float(len(set(text)) + index % 2) for index, text in enumerate(completions)]


def peak_of(profiler: profile) -> int:
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    current = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        current += event.nbytes()
        peak = max(peak, current)
    return peak


def load_of(options: argparse.Namespace, checkpointing: bool) -> Load:
    return Load(
        batch=options.batch,
        prompt=options.prompt_length,
        completion=options.completion_length,
        group=2,
        generated=options.batch,
        checkpointing=checkpointing,
        accumulates=False,
        weight_bytes=4,
        compute_bytes=4,
        attention="sdpa",
        device="cpu",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=2, help="sequences of a micro-batch")
    parser.add_argument("--prompt-length", type=int, default=512)
    parser.add_argument("--completion-length", type=int, default=8)
    parser.add_argument("--sizes", nargs="+", default=list(SIZES), choices=list(SIZES))
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        size, tiles, checkpointing = options.worker
        if tiles == "narrow":
            narrow_head()
        config, load = config_of(*SIZES[size]), load_of(options, checkpointing == "on")
        expected = predicted(config, load)
        result = {"predicted": expected.peak, "moment": expected.moment, "measured": measured(config, load)}
        print(json.dumps(result))
        return
    table = Table(title="Peak memory of two optimizer steps, MB")
    for column in ("model", "tiles", "checkpoints", "decided by"):
        table.add_column(column)
    for column in ("predicted", "measured", "ratio"):
        table.add_column(column, justify="right")
    failed = False
    for size, tiles, checkpointing in product(options.sizes, ("TRL's", "narrow"), ("off", "on")):
        command = [sys.executable, *sys.argv, "--worker", size, tiles, checkpointing]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            sys.exit(done.stderr)
        result = json.loads(done.stdout.splitlines()[-1])
        ratio = result["predicted"] / result["measured"]
        failed |= abs(ratio - 1) > TOLERANCE
        count = f"{shape_of(config_of(*SIZES[size])).parameters / 1e6:.0f}M"
        megabytes = [f"{result[name] / 1e6:,.0f}" for name in ("predicted", "measured")]
        table.add_row(count, tiles, checkpointing, result["moment"].removeprefix("the "), *megabytes, f"{ratio:.3f}")
    Console().print(table)
    sys.exit(f"A ratio is further from 1 than {TOLERANCE:.0%}." if failed else 0)


if __name__ == "__main__":
    main()
