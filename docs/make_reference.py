"""
Write the pages that are made from the code, so that they cannot drift from it: `tests/project/test_docs.py` compares.

    python docs/make_reference.py
"""

import dataclasses
import re
from pathlib import Path

import huggingface_hub
from trl import GRPOConfig

from longact_trl import LongActConfig
from longact_trl.check import machine, settings
from longact_trl.check.memory.changes import CHUNK
from longact_trl.check.memory.plan import GIB, RESERVE, plan_memory
from longact_trl.check.subject import read_subject
from longact_trl.method.sparsity import num_selected


DOCS = Path(__file__).parent
RECIPES = DOCS.parent / "recipes"
WINDOWS = (16_384, 32_768, 65_536, 131_072, 262_144)
GPUS = (1, 2, 4, 8, 16)
NODE = 8
"""GPUs of the paper's runs."""
ARMS_IN_ORDER = [("sft_", ""), ("paper/", "_dense"), ("", "")]
ARMS_IN_ORDER += [("paper/", f"_{arm}") for arm in ("grpo", "clip_cov", "kl_cov", "dense_grpo", "dense_clip_cov")]
ARMS_IN_ORDER += [("paper/", f"_{arm}") for arm in ("dense_kl_cov", "random", "min", "lambda_02", "lambda_04")]
SETTING = re.compile(r"^(?P<key>[\w ]+): (?P<value>[^#]+?) +# (?P<source>.+)$")


def configuration() -> str:
    """Every field that `LongActConfig` adds to `GRPOConfig`, or whose default it changes."""
    theirs = {f.name: f.default for f in dataclasses.fields(GRPOConfig)}
    ours = [f for f in dataclasses.fields(LongActConfig) if f.name not in theirs or f.default != theirs[f.name]]
    ours.sort(key=lambda f: f.name in theirs)  # what is new comes first
    rows = [(f"`{f.name}`", f"`{f.default!r}`", plain(f.metadata["help"])) for f in ours]
    return f"""# Configuration reference

Made by `python docs/make_reference.py` from `LongActConfig`. These are the fields that it adds to TRL's
[`GRPOConfig`](https://huggingface.co/docs/trl/grpo_trainer#trl.GRPOConfig), or whose default it changes. All others
are TRL's and mean what they mean there. In a recipe they stand in the YAML or on the command line
(`--sparsity_ratio 0.2`).

{table(("field", "default", "meaning"), rows)}"""


def paper_index() -> str:
    """Every value in a recipe's YAML that has a source, by file."""
    page = """# Paper index

Made by `python docs/make_reference.py` from the comments in `recipes/`: every value of every run and where it is from.
"paper" is LongAct; "DAPO" is arXiv:2503.14476; Clip-Cov and KL-Cov are arXiv:2505.22617. "ours" is a choice of this
package, "the paper is silent" says that it gives no value. A file that names a `base` has the base's values, too.
"""
    for file in sorted(RECIPES.rglob("*.yaml")):
        found = [match for line in file.read_text(encoding="utf-8").splitlines() if (match := SETTING.match(line))]
        if found:
            rows = [(f"`{m['key'].strip()}`", f"`{m['value']}`", plain(m["source"])) for m in found]
            page += f"\n## {file.relative_to(RECIPES).as_posix()}\n\n{table(('key', 'value', 'source'), rows)}"
    return page


def runs_checked() -> str:
    """What `longact check` says of every run of the paper on 8 GPUs of 80 GB."""
    page = f"""# What `longact check` says of the paper's runs

Made by `python docs/make_reference.py`: what `longact check --config NAME --gpus {NODE}` says of each, in the order of
[reproducing.md](reproducing.md). Memory is GiB at the peak of a training step with the longest prompt that fits the
window, 4 to spare; no GPU has been measured yet. "Waits": vLLM's cache does not hold all sequences of a generation at
once, so some wait for others. Until its cold start has been run, `longact check` also says that, of every RL run.
"""
    names = [f"{folder}qwen3_{size}{arm}" for folder, arm in ARMS_IN_ORDER for size in ("8b", "4b")]
    head = ("run", "starts from", "a step", "a generation", "rows of W_Q and W_K that learn", "memory")
    return f"{page}\n{table(head, [said_of(name) for name in names])}"


def said_of(name: str) -> tuple[str, ...]:
    """A run's row: what its checks find, shortened."""
    subject = read_subject(f"{name}.yaml", [], NODE)
    step, _, generation = settings.batch(subject).partition("; a generation of ")
    step = step.replace(" ranks", "").replace(" accumulated", "").removesuffix(" a step")
    args = subject.args
    if not subject.is_rl or args.strategy == "dense":
        rows = "all"
    else:
        dim = subject.shape.head_dim
        rows = f"{args.strategy}, {num_selected(args.sparsity_ratio, dim)} of {dim} a head"
    memory, _, waits = machine.memory(subject).removeprefix("peak ").partition(";")
    memory = memory.replace(" GiB", "", 1) + (", waits" if waits else "")
    return f"`{name}.yaml`", f"`{subject.model}`", step, generation or "", rows, memory


def memory_guide() -> str:
    """The memory plan of `longact check` over lengths, GPU counts and ways to share a prompt."""
    subjects = {
        (model, adapter): read_subject(f"{model}.yaml", ADAPTER if adapter else [], 8)
        for model in ("qwen3_8b", "qwen3_4b")
        for adapter in (False, True)
    }
    names = {key: f"{key[0][6:].upper()}{', LoRA' if key[1] else ''}" for key in subjects}
    longest = [
        (str(gpus), *(longest_that_fits(subject, gpus) for subject in subjects.values())) for gpus in (1, 2, 4, 8)
    ]
    chunks = [
        (f"{size}{', offloaded' if offload else ''}", *(room(subjects[key], n, size, offload) for key, n in WITH_ROOM))
        for size, offload in ((2048, False), (1024, False), (512, False), (2048, True))
    ]
    kept = 2 * WINDOWS[3] * subjects["qwen3_8b", False].shape.kv_elements * 2 / GIB  # K, V and gradients in bfloat16
    page = f"""# Memory guide

Made by `python docs/make_reference.py` with the formulas of `longact check`, which prints the same for your own
configuration and says what to change where it does not fit. ZeRO-3 with bfloat16, gradient checkpointing, completions
of 4,096 tokens. A length is that of prompt and completion together.

## Which context fits on 80 GB, and the lines to write

{table(("GPUs", *names.values()), longest)}
The longest of 16k to 256k that fits: as shipped, with four completions in a micro-batch / with the lines on the left /
with those on the right. They change memory and time and no gradient, in the YAML or on the command line:

```yaml
# one row at a time, and a chunk of the prompt             # and K and V of the prompt wait in the host's memory
per_device_train_batch_size: 1                             per_device_train_batch_size: 1
gradient_accumulation_steps: 16                            gradient_accumulation_steps: 16
prefix_chunk_size: {CHUNK}                                    prefix_chunk_size: {CHUNK}
                                                           prefix_offload: true
```

On the right the host holds K, V and their gradients, for each GPU: {kept:.0f} GiB at 128k tokens of the 8B. LoRA is
`{" ".join(ADAPTER)}`; its frozen weights are sharded, too. All figures
contain 4 GiB to spare. While vLLM generates, it takes its own share (0.35 of the GPU) beside the sharded weights and
the optimizer, and its KV cache must hold a sequence: `longact check` says whether it does. Qwen3 needs YaRN above
40,960 tokens. The formulas are within 8 % of measured peaks on the CPU (`benchmarks/memory_plan.py`); no GPU has been
measured yet.

## 128k tokens with room

GiB at the peak, 4 to spare included. What is kept of a prompt ({kept:.0f} GiB at 128k tokens of the 8B) is the same at
any chunk size. What a chunk adds shrinks with it: it runs without gradient checkpointing, so each of its tokens leaves
the activations of every layer. Each chunk gathers ZeRO-3's weights anew: write the longest that leaves room.

{table(("`prefix_chunk_size`", *(f"{names[key]} on {gpus}" for key, gpus in WITH_ROOM)), chunks)}
# GiB on each GPU at the peak of a training step

**Bold** fits into 80 GB.
"""
    head = ("GPUs", *(f"{window // 1024}k" for window in WINDOWS))
    for (model, adapter), subject in subjects.items():
        for title, changes in WAYS.items():
            if adapter and not changes.get("chunk"):
                continue
            rows = [(str(gpus), *(cell(*peak(subject, gpus, w, changes)) for w in WINDOWS)) for gpus in GPUS]
            page += f"\n## {model}.yaml{', LoRA' if adapter else ''}, {title}\n\n{table(head, rows)}"
    return page


ADAPTER = ["--use_peft", "true", "--lora_target_modules", "all-linear", "--lora_r", "16"]
IN_CHUNKS = {"batch": 1, "micro_batches": 16, "accumulates": True, "chunk": CHUNK}
WITH_ROOM = ((("qwen3_8b", False), 8), (("qwen3_8b", True), 1))
WAYS = {
    "four completions of a prompt in a micro-batch": {},
    "`shared_prefix: off`": {"shared_prefix": False},
    f"one row a micro-batch, `prefix_chunk_size: {CHUNK}`": IN_CHUNKS,
}


def peak(subject, gpus: int, window: int, changes: dict) -> tuple[int, bool]:
    """Bytes at the peak of a training step, and whether they fit."""
    load = subject.load()
    at_length = dataclasses.replace(load, prompt=window - load.completion, **changes)
    placement = dataclasses.replace(subject.placement, ranks=gpus)
    total = plan_memory(subject.shape, placement, at_length, subject.gpu_bytes).training_peak + RESERVE
    return total, total <= subject.gpu_bytes


def room(subject, gpus: int, chunk: int, offload: bool) -> str:
    """GiB at the peak with 128k tokens."""
    changes = IN_CHUNKS | {"chunk": chunk, "offload_prefix": offload}
    return cell(*peak(subject, gpus, WINDOWS[3], changes))


def cell(total: int, fits: bool) -> str:
    return f"**{total / GIB:.0f}**" if fits else f"{total / GIB:.0f}"


def longest_that_fits(subject, gpus: int) -> str:
    """In each of the ways that are numbered in the page."""
    ways = ({}, IN_CHUNKS, IN_CHUNKS | {"offload_prefix": True})
    longest = [max((w for w in WINDOWS if peak(subject, gpus, w, changes)[1]), default=0) for changes in ways]
    return " / ".join(f"{window // 1024}k" if window else "–" for window in longest)


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def plain(text: str) -> str:
    return text.replace("|", "\\|")


PAGES = {
    "configuration.md": configuration,
    "paper_index.md": paper_index,
    "memory_guide.md": memory_guide,
    "runs_checked.md": runs_checked,
}


if __name__ == "__main__":
    huggingface_hub.constants.HF_HUB_OFFLINE = True  # the memory guide reads the shipped copies of Qwen3's config.json
    for name, page in PAGES.items():
        (DOCS / name).write_text(page(), encoding="utf-8")
