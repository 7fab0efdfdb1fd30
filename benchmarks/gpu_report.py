"""What this package does on a GPU, measured in at most eight minutes on one of 80 GB.

    python benchmarks/gpu_report.py --output gpu_report
    python benchmarks/gpu_report.py --output try --miniature     # tiny shapes; by itself where there is no GPU

Needs the repository, torch, transformers, trl, accelerate, peft and datasets; no network. Models have random weights
in Qwen3's shapes. SmolLM2-135M is measured where its folder is given (`--smollm2`) or was made before.

Each part (`benchmarks/gpu_parts/`) is a process with its own time, and what one leaves of it goes to the next: one
that fails, hangs or spoils the GPU is recorded, and the others go on. So is a cell that is too large or fails. Each
row is on the disk once it is measured (`rows.jsonl`); after each part the report is written from it:
`gpu_report.json`, `.md` and, with matplotlib, `.png`. A kill loses the cell that was running; the same command then
writes the report from the rows that are there. What libraries print is in `log.txt`. Of several GPUs the first is
measured. This process itself leaves the GPU alone: some machines give one to a single process.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import time
import traceback
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # the package beside this script, wherever another is installed

from gpu_parts.report import NO_GPU, PARTS, ROWS, SKIPPED, read_rows, write_report  # noqa: E402


SMOLLM2 = Path(os.environ.get("LONGACT_CACHE") or "~/.cache/longact-trl").expanduser() / "SmolLM2-135M-Instruct"
LOG = "log.txt"
SECONDS = 475  # eight minutes, less the last writing of the report
PACKAGES = ("torch", "triton", "transformers", "trl", "accelerate", "peft", "datasets")


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("gpu_report"), help="folder; holds no other report")
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=PARTS, metavar="PART", help="default: all")
    parser.add_argument("--miniature", action="store_true", help="tiny shapes, to see that the script works")
    parser.add_argument("--smollm2", type=Path, default=SMOLLM2, help=f"folder of SmolLM2-135M (default: {SMOLLM2})")
    parser.add_argument("--worker", choices=PARTS, help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=float, help=argparse.SUPPRESS)
    parser.add_argument("--about", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def write(folder: Path, entry: dict) -> None:
    """Append a line, which is on the disk when this returns. JSON has no word for what is not finite."""
    if "row" in entry:
        is_odd = {name: isinstance(value, float) and not math.isfinite(value) for name, value in entry["row"].items()}
        entry |= {"row": {name: str(value) if is_odd[name] else value for name, value in entry["row"].items()}}
    with (folder / ROWS).open("a", encoding="utf-8") as file:
        file.write(json.dumps(entry, ensure_ascii=False) + "\n")
        file.flush()
        os.fsync(file.fileno())


# A part, in a process of its own


def work(part: str, options: argparse.Namespace, start: float) -> None:
    """Measure row by row until the part ends or no time is left for a row as long as the longest so far."""
    progress = os.fdopen(os.dup(1), "w", buffering=1)
    with (options.output / LOG).open("ab") as log:  # what libraries print, on whatever way
        for stream in (1, 2):
            os.dup2(log.fileno(), stream)
    import torch
    from gpu_parts.bench import OUT_OF_MEMORY, Bench

    on_gpu = torch.cuda.is_available()
    device = torch.device("cuda", 0) if on_gpu else torch.device("cpu")
    smollm2 = options.smollm2 if options.smollm2.is_dir() else None
    bench = Bench(device, options.miniature or not on_gpu, smollm2)
    status, before, longest, failed = "done", time.monotonic(), 0.0, 0
    module = import_module(f"gpu_parts.{part}")
    write(options.output, {"part": part, "title": module.TITLE, "note": module.NOTE})
    for row in module.measure(bench):
        write(options.output, {"part": part, "row": row})
        failed += row.get("error", OUT_OF_MEMORY) != OUT_OF_MEMORY
        now = time.monotonic()
        longest, before = max(longest, now - before), now
        print(f"  {now - start:5.0f} s  {_short(row)}", file=progress)
        if options.seconds and now - start + longest > options.seconds:
            status = "out of time: further rows were left out"
            break
    if failed:
        status = f"{failed} failed" + (f", {status}" if status != "done" else "")
    write(options.output, {"part": part, "status": status, "seconds": round(time.monotonic() - start, 1)})


def _short(row: dict) -> str:
    values = (f"{value:.4g}" if isinstance(value, float) else str(value) for value in row.values())
    return ", ".join(f"{name} {value}" for name, value in zip(row, values, strict=True))[:150]


# All parts


def about() -> dict:
    """The device and what is installed."""
    import torch

    found = {"device": "CPU", "type": "cpu"}
    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        found = {"device": properties.name, "type": "cuda", "GiB": round(properties.total_memory / 2**30, 1)}
        found |= {"capability": f"{properties.major}.{properties.minor}", "CUDA": torch.version.cuda}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def environment() -> dict[str, str]:
    """Of the parts: no network, and one GPU, as several would be one trainer's."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    found = os.environ | {"PYTHONPATH": path, "PYTHONUNBUFFERED": "1", "HF_HUB_OFFLINE": "1"}
    found |= {"WANDB_MODE": "disabled", "TOKENIZERS_PARALLELISM": "false"}
    return found | {"CUDA_VISIBLE_DEVICES": os.environ.get("CUDA_VISIBLE_DEVICES", "0").partition(",")[0]}


def run_part(part: str, options: argparse.Namespace, limit: float | None) -> str:
    """Run a part to its end, or to that of its time; how it ended."""
    command = [sys.executable, __file__, "--worker", part, "--output", options.output, "--smollm2", options.smollm2]
    command += ["--miniature"] * options.miniature + (["--seconds", str(limit)] if limit else [])
    start = time.monotonic()
    try:
        done = subprocess.run(command, env=environment(), timeout=limit)
    except subprocess.TimeoutExpired:
        end = {"status": f"out of time: stopped after {time.monotonic() - start:.0f} s"}
    else:
        if done.returncode == 0:
            return read_rows(options.output)["parts"][part]["status"]
        end = {"status": "failed", "exit code": done.returncode}
    write(options.output, {"part": part, **end, "seconds": round(time.monotonic() - start, 1)})
    return end["status"]


def main() -> None:
    start = time.monotonic()
    options = parse_args()
    if options.about:
        print(json.dumps(about()))
        return
    if options.worker:
        try:
            work(options.worker, options, start)
        except Exception as error:
            write(options.output, {"part": options.worker, "said": f"{type(error).__name__}: {str(error)[:500]}"})
            traceback.print_exc()  # into the log
            sys.exit(1)
        return
    if (options.output / ROWS).exists():
        write_report(options.output)  # with all rows, if a kill came between
        sys.exit(f"{options.output} holds a report already, written anew from its rows. Give another --output.")
    options.output.mkdir(parents=True, exist_ok=True)
    asked = [sys.executable, __file__, "--about"]
    found = json.loads(subprocess.run(asked, env=environment(), stdout=subprocess.PIPE, check=True).stdout)
    if found["type"] != "cuda":
        options.miniature = True
        print(NO_GPU)
    write(options.output, {"about": found | {"miniature": options.miniature}})
    print(f"{found['device']}, torch {found['torch']}; {', '.join(options.parts)}")
    for name, why in SKIPPED.items():
        print(f"{name}: skipped, {why}")
    failed = []
    for number, part in enumerate(options.parts, 1):
        later = sum(PARTS[other] for other in options.parts[number:])
        limit = None if options.miniature else max(SECONDS - (time.monotonic() - start) - later, 10)
        print(f"[{number}/{len(options.parts)}] {part}" + (f", at most {limit:.0f} s" if limit else ""), flush=True)
        status = run_part(part, options, limit)
        if status != "done":
            failed.append(f"{part}: {status}")
            print(f"  {status}, see {options.output / LOG}", flush=True)
        try:
            write_report(options.output)
        except Exception:  # the rows are there, and the next part may still fit the time
            traceback.print_exc()
    print(f"{time.monotonic() - start:.0f} s. {'; '.join(failed) or 'Every part ended.'} Report: {options.output}")


if __name__ == "__main__":
    main()
