"""Dynamic sampling on two processes: groups that move between ranks, and one that lies on both."""

from helpers.launching import launch


def test_ranks_stay_equal(tmp_path):
    printed = launch("ddp", "tests/distributed/sampling_worker.py", "ddp", str(tmp_path))
    assert printed.count("OK rank") == 2
    assert "groups still have the same answer reward throughout" in printed


def test_a_resumed_run_is_the_uninterrupted_one(tmp_path):
    printed = launch("zero1", "tests/distributed/sampling_worker.py", "zero1", str(tmp_path))
    assert printed.count("OK rank") == 2
