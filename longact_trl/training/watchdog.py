"""Ends a process that waits for a user's function for ever, which no exception could."""

import faulthandler
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Timer


@contextmanager
def exits_when_it_hangs(what: str, seconds: float) -> Iterator[None]:
    """
    Ends the process, with the stack of every thread and a message, if the body does not finish in time. The launcher
    then ends the other ranks, which would wait for this one.

    Args:
        what (`str`):
            What runs in the body, for the message.
        seconds (`float`):
            How long it may take.
    """

    def leave() -> None:
        faulthandler.dump_traceback(sys.__stderr__, all_threads=True)
        print(
            f"{what} has not returned for {seconds:.0f} s (`ddp_timeout`); the stack above says where it waits. "
            "Give it a time limit of its own, then continue with `resume_from_checkpoint='auto'`.",
            file=sys.__stderr__,
            flush=True,
        )
        os._exit(1)

    timer = Timer(seconds, leave)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
