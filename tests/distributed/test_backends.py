"""Every backend on two processes over gloo, launched as a user launches it, with the shipped accelerate configs.

One launch a backend runs all its workers: what a launch costs is mostly its imports. A worker that fails keeps those
behind it from running; the assertion of the first one shows why.
"""

from functools import cache

import pytest

from helpers.launching import launch, launch_each


WORKERS = {  # in the order in which they run
    "ddp": ("worker", "losses", "sampling", "shared_prefix"),
    "zero1": ("worker", "sampling"),
    "zero2": ("worker", "shared_prefix"),
    "zero3": ("worker", "lora", "algorithms", "families", "shared_prefix", "interruptions"),
    "fsdp2": ("worker", "lora", "shared_prefix"),
}
# A composite checkpoint with gates, experts, latent attention, a transposed fusion of Q, K and V.
FAMILIES = ["qwen3_5", "gpt_oss", "deepseek_v3", "gpt2"]
MORE_FAMILIES = ["qwen3_next", "qwen3_moe", "gemma3", "gemma4"]
SAYS = {
    "worker": ["OK {backend} rank"],
    "lora": ["OK {backend} lora rank"],
    "losses": ["OK losses rank"],
    "sampling": ["OK sampling {backend} rank"],
    "families": [f"OK {family} rank" for family in FAMILIES],
    "shared_prefix": ["OK shared {backend} rank"],
    "interruptions": ["OK interruptions rank"],
    "algorithms": [
        f"OK {algorithm} {strategy} rank"
        for algorithm in ("dense", "grpo", "clip_cov", "kl_cov")
        for strategy in ("dense", "massive")
    ],
}
"""What each rank prints when a worker has found everything as it should be."""


def scripts_of(worker: str, backend: str, model: str, folder: str) -> list[list[str]]:
    """What has to run for a worker, each with its arguments."""
    script = f"tests/distributed/{'worker' if worker in ('worker', 'lora') else f'{worker}_worker'}.py"
    if worker == "interruptions":
        points = ("generating", "sampling", "saving")
        return [*(["--killed", script, folder, point] for point in points), [script, folder, "never"]]
    if worker == "algorithms" or worker == "losses":
        return [[script, folder]]
    if worker == "families":
        return [[script, *arguments_of_families(folder, FAMILIES)]]
    if worker == "sampling":
        return [[script, backend, folder]]
    return [[script, backend, model, folder, *["lora"] * (worker == "lora")]]


def arguments_of_families(folder: str, families: list[str]) -> list[str]:
    from helpers.families import tiny_model

    for family in families:
        tiny_model(family).save_pretrained(f"{folder}/{family}/base")
    return [folder, *families]


@pytest.fixture(scope="module")
def printed_by(tiny_model, tmp_path_factory):
    """From a backend to what its one launch printed."""

    @cache
    def launched(backend: str) -> str:
        scripts = []
        for worker in WORKERS[backend]:
            scripts += scripts_of(worker, backend, tiny_model, str(tmp_path_factory.mktemp(f"{backend}_{worker}")))
        return launch_each(backend, *scripts, timeout=1800, check=False)

    return launched


@pytest.mark.parametrize("backend, worker", [(backend, worker) for backend in WORKERS for worker in WORKERS[backend]])
def test_each_worker_ends_well_on_both_ranks(printed_by, backend, worker):
    """
    Each worker's module says what it compares: gradients to the bit, frozen rows and resume; LoRA; selections of
    Clip-Cov and KL-Cov; dynamic sampling; all algorithms from their YAML; checkpoints of other families; prompts
    forwarded once, where the ranks' packed rows differ; a run that is killed again and again.
    """
    printed = printed_by(backend)
    for line in SAYS[worker]:
        assert printed.count(line.format(backend=backend)) == 2, printed[-12000:]


def test_prompts_that_stay_degenerate_are_told(printed_by):
    assert "groups still have the same answer reward throughout" in printed_by("ddp")


def test_a_checkpoint_that_a_kill_has_left_unfinished_is_told(printed_by):
    assert "checkpoint-4: it was not written to its end" in printed_by("zero3")


@pytest.mark.full
@pytest.mark.parametrize("backend", ["single", "ddp", "zero1", "zero2", "zero3", "fsdp2"])
def test_gradients_over_rows_and_chunks(backend, tiny_model, tmp_path):
    """The whole grid of shared prefixes; the rest of the suite has a covering part of it."""
    printed = launch(backend, "tests/distributed/prefix_grid_worker.py", backend, tiny_model, str(tmp_path))
    print("\n".join(line for line in printed.splitlines() if line.startswith("CELL")))
    assert printed.count("CELL") == 15 and f"OK grid {backend}" in printed


@pytest.mark.full
def test_more_families_under_zero3(tmp_path):
    arguments = arguments_of_families(str(tmp_path), MORE_FAMILIES)
    printed = launch("zero3", "tests/distributed/families_worker.py", *arguments, timeout=1800, check=False)
    for family in MORE_FAMILIES:
        assert printed.count(f"OK {family} rank") == 2, printed[-12000:]
