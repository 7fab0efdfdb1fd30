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
from longact_trl.check.memory.plan import GIB, RESERVE, plan
from longact_trl.check.subject import read_subject
from longact_trl.method.sparsity import num_selected


DOCS = Path(__file__).parent
RECIPES = DOCS.parent / "recipes"
WINDOWS = (16_384, 32_768, 65_536, 131_072)
GPUS = (2, 4, 8, 16, 32)
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
    """The memory plan of `longact check` over lengths and GPU counts."""
    page = f"""# Memory guide

Made by `python docs/make_reference.py` with the formulas of `longact check`, which prints the same for your own
configuration and says what to change where it does not fit. GiB on each GPU at the peak of a training step under
ZeRO-3 with bfloat16, gradient checkpointing and 4 completions of 4,096 tokens in a micro-batch, by the tokens of
prompt and completion together.

{READING}
"""
    head = ("GPUs", *(f"{window // 1024}k" for window in WINDOWS))
    for model in ("qwen3_8b", "qwen3_4b"):
        for mode, title in (("auto", "a prompt forwarded once for its completions"), ("off", "`shared_prefix: off`")):
            rows = [(str(gpus), *peaks(model, mode, gpus)) for gpus in GPUS]
            page += f"\n## {model}.yaml, {title}\n\n{table(head, rows)}"
    return page


READING = """**Bold** fits into 80 GB; the figures contain 4 GiB to spare. While vLLM generates, it takes its own share
(0.35 of the GPU) beside the sharded weights and the optimizer. Qwen3 needs YaRN above 40,960 tokens. The formulas are
within 8 % of measured peaks on the CPU (`benchmarks/memory_plan.py`);
no GPU has been measured yet."""


def peaks(model: str, mode: str, gpus: int) -> list[str]:
    subject = read_subject(f"{model}.yaml", ["--shared_prefix", mode], gpus)
    load = subject.load()
    cells = []
    for window in WINDOWS:
        at_length = dataclasses.replace(load, prompt=window - load.completion)
        total = plan(subject.shape, subject.placement, at_length, subject.gpu_bytes).training_peak + RESERVE
        cells.append(f"**{total / GIB:.0f}**" if total <= subject.gpu_bytes else f"{total / GIB:.0f}")
    return cells


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
