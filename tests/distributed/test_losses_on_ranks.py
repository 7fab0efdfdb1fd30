from helpers.launching import launch


def test_selections_and_training_on_two_ranks(tmp_path):
    assert launch("ddp", "tests/distributed/losses_worker.py", str(tmp_path)).count("OK losses") == 2
