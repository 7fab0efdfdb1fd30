"""A run on two processes that is killed again and again ends at the bits of one that never was."""

import pytest

from helpers.launching import launch


def test_killed_while_generating_while_sampling_again_and_while_saving(tmp_path):
    worker = ["tests/distributed/interruptions_worker.py", str(tmp_path)]
    for point, newest in [("generating", 2), ("sampling", 2), ("saving", 4)]:
        with pytest.raises(AssertionError, match="SIGKILL"):  # `launch` wants a run that ends well
            launch("zero3", *worker, point)
        assert max(int(f.name.partition("-")[2]) for f in (tmp_path / "killed").glob("checkpoint-*")) == newest
    # Rank 0 wrote the weights, but not trainer_state.json while rank 1 had not written its part.
    assert (tmp_path / "killed" / "checkpoint-4").is_dir()
    assert not (tmp_path / "killed" / "checkpoint-4" / "trainer_state.json").exists()
    printed = launch("zero3", *worker, "never")
    assert printed.count("OK rank") == 2
    assert "checkpoint-4: it was not written to its end" in printed
