"""Every algorithm of the paper takes three steps under ZeRO-3, from its own YAML, dense and masked."""

from helpers.launching import launch


def test_three_steps_of_each(tmp_path):
    printed = launch("zero3", "tests/distributed/algorithms_worker.py", str(tmp_path), timeout=900)
    for algorithm in ("dense", "grpo", "clip_cov", "kl_cov"):
        for strategy in ("dense", "massive"):
            assert printed.count(f"OK {algorithm} {strategy} rank") == 2
