"""
Runs command lines with mistakes one after another in one process, and says what each printed and what got loaded.

    python -m helpers.mistakes < cases.json

A case is a list: a recipe's file or `longact`, and its arguments.
"""

import contextlib
import io
import json
import runpy
import sys


HEAVY = ("torch", "transformers", "accelerate", "datasets", "peft", "vllm", "deepspeed", "lm_eval")


def run(program: str, arguments: list[str]) -> dict:
    """Exit code, output, and what is loaded afterwards that takes seconds."""
    shown = io.StringIO()
    sys.argv = [program, *arguments]
    code = None
    with contextlib.redirect_stdout(shown), contextlib.redirect_stderr(shown):
        try:
            if program == "longact":
                from longact_trl.cli import app

                app(prog_name="longact")
            else:
                runpy.run_path(program, run_name="__main__")
        except SystemExit as end:
            code = end.code
    return {"code": code, "shown": shown.getvalue(), "loaded": [name for name in HEAVY if name in sys.modules]}


if __name__ == "__main__":
    print(json.dumps([run(*case) for case in json.load(sys.stdin)]))
