"""Run by both ranks: several scripts one after another, each forked from one process that has imported everything.

    each.py SCRIPT ARGUMENT … -- --killed SCRIPT ARGUMENT … -- …

Each has a process group of its own, as if it had been launched. The first that fails ends the process, and its
launcher the other rank's. Behind `--killed`, rank 1's is to end by SIGKILL, and rank 0's to fail without it.
"""

import contextlib
import os
import random
import signal
import socket
import sys
from itertools import groupby

import torch.distributed as dist

import longact_trl
from helpers.forking import forked, run_script


longact_trl.LongActTrainer  # noqa: B018 - imports TRL
if os.environ.get("ACCELERATE_USE_DEEPSPEED"):
    import deepspeed  # noqa: F401

RANK = int(os.environ["RANK"])
launcher = dist.TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False)


def free_port() -> int:
    """One below those that Linux gives to whoever asks for any, so that nobody gets it before it is used."""
    while True:
        port = random.randint(20_000, 32_000)
        with socket.socket() as free, contextlib.suppress(OSError):
            free.bind(("", port))
            return port


def agree_on_port(number: int) -> str:
    """A free port, for rank 0 to hold a store of its own: in the launcher's lies what earlier groups have written."""
    if RANK == 0:
        launcher.set(f"port {number}", str(free_port()))
    return launcher.get(f"port {number}").decode()


scripts = [list(group) for is_end, group in groupby(sys.argv[1:], key="--".__eq__) if not is_end]
for number, script in enumerate(scripts):
    os.environ |= {"TORCHELASTIC_USE_AGENT_STORE": "False", "MASTER_PORT": agree_on_port(number)}
    is_killed = script[0] == "--killed"
    code = forked(run_script, *script[is_killed:])
    if is_killed:
        as_meant = code == -signal.SIGKILL if RANK == 1 else code != 0
        assert as_meant, f"{script} ended with {code}"
    elif code:
        sys.exit(code)
