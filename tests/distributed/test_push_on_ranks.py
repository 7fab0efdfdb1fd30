"""A push under ZeRO-3: where the Hub refuses the first rank, the other one does not wait for it for ever."""

import subprocess
import sys
from pathlib import Path

from helpers.hub_server import LFS, Hub, environment_of
from helpers.paths import ROOT


WORKER = ROOT / "tests" / "distributed" / "hub_worker.py"


def test_a_refused_push_stops_both_ranks_and_a_second_one_arrives_once(tiny_model, tmp_path):
    command = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes", "2", "--mixed_precision", "no"]
    command += ["--config_file", str(ROOT / "accelerate_configs" / "zero3.yaml"), "--main_process_port", "0"]
    command += [str(WORKER), str(tmp_path / "run"), tiny_model]
    with Hub() as hub:
        hub.faults |= {"create": [403], "info": [403]}  # where creating is refused, whether there is one is asked
        hub.files["me/tiny"] = {}
        done = subprocess.run(command, cwd=ROOT, env=environment_of(hub), capture_output=True, text=True, timeout=900)
        assert done.stdout.count("OK") == 2, (done.stdout + done.stderr)[-6000:]
        assert hub.commits["me/tiny"] == ["End of training"]
        assert (hub.asked["commit"], hub.asked["batch"]) == (1, 1)
        saved = Path(tmp_path / "run" / "model.safetensors").read_bytes()
        assert hub.files["me/tiny"]["model.safetensors"] == saved
        assert hub.asked["put"] == len({name for name in hub.files["me/tiny"] if name.endswith(LFS)})
