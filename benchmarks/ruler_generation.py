"""Time to make RULER's samples, ours and, where there is a checkout of NVIDIA/RULER, the official generator's.

    python benchmarks/ruler_generation.py                          # 128k tokens, SmolLM2's tokenizer, all 13 tasks
    python benchmarks/ruler_generation.py --official PATH          # both, in turns, on the same texts
    python benchmarks/ruler_generation.py --length 4096 --tasks vt cwe --tokenizer MODEL

Each figure is CPU seconds of a process of its own, so that a busy machine changes little. "First" is what it needs up
to the end of its first sample, imports and the search for the sample size included; "each" is the median of the
`--samples` after it. Essays, questions and the longer word list are this package's stand-ins on both sides. The
official generator runs as it is, in a temporary copy beside these texts, with a clock in the place of its progress
bar; it needs tenacity, scipy, wonderwords and, for essays, nltk with `python -m nltk.downloader punkt_tab`. What it
lacks is said in the table.
"""

import argparse
import json
import runpy
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from smollm2 import smollm2_135m

from longact_trl.evaluation.ruler import TASKS, Sources
from longact_trl.evaluation.ruler.protocol import TASKS as DEFINITIONS
from longact_trl.evaluation.ruler.protocol import TEMPLATES


SCRIPTS = {
    "niah": "niah",
    "vt": "variable_tracking",
    "cwe": "common_words_extraction",
    "fwe": "freq_words_extraction",
    "qa": "qa",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--length", type=int, default=131072, help="tokens of a sample, budget included")
    parser.add_argument("--samples", type=int, default=7, help="samples after the first, 1 or more")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=TASKS)
    parser.add_argument("--tokenizer", help="folder or Hub id; default SmolLM2's")
    parser.add_argument("--official", type=Path, help="a checkout of NVIDIA/RULER")
    parser.add_argument("--worker", choices=("ours", "official"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.tokenizer = args.tokenizer or str(smollm2_135m())
    if args.worker:
        stamps = (clock_ours if args.worker == "ours" else clock_official)(args.tasks[0], args)
        return print(json.dumps(stamps[-args.samples - 1 :]))
    if args.samples < 1:
        parser.error(f"--samples {args.samples} must be 1 or more")

    with tempfile.TemporaryDirectory() as scratch:
        official = copy_official(args.official, Path(scratch)) if args.official else None
        print(f"CPU seconds at {args.length} tokens, tokenizer {Path(args.tokenizer).name}", flush=True)
        print("| task | ours: first | each | tokens/s | official: first | each | official / ours: first | each |")
        print("|---|---|---|---|---|---|---|---|", flush=True)
        for task in args.tasks:
            ours, theirs = measure("ours", task, args), measure("official", task, args, official) if official else ""
            if isinstance(ours, str):
                sys.exit(f"{task}: {ours}")
            cells = [task, *(f"{seconds:.2f}" for seconds in ours), f"{args.length / ours[1]:,.0f}"]
            if isinstance(theirs, str):
                cells += [theirs or "not run: no --official PATH", "", "", ""]
            else:
                cells += [f"{seconds:.2f}" for seconds in theirs]
                cells += [f"{their / our:.1f}×" for their, our in zip(theirs, ours, strict=True)]
            print(f"| {' | '.join(cells)} |", flush=True)


def measure(side: str, task: str, args: argparse.Namespace, folder: Path | None = None) -> tuple[float, float] | str:
    """CPU seconds of a new process up to the first sample, and of each after it; or why there are none."""
    command = [sys.executable, __file__, "--worker", side, "--tasks", task, "--length", str(args.length)]
    command += ["--samples", str(args.samples), "--tokenizer", args.tokenizer]
    command += ["--official", str(folder)] if folder else []
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        return f"failed: {reason(done.stderr)}"
    stamps = json.loads(done.stdout.splitlines()[-1])
    return stamps[0], statistics.median(after - before for before, after in zip(stamps, stamps[1:], strict=False))


def clock_ours(task: str, args: argparse.Namespace) -> list[float]:
    """CPU seconds of this process at the end of each sample."""
    from transformers import AutoTokenizer

    from longact_trl.evaluation.ruler import samples

    stamps, fit = [], samples.fit

    def clocked(*args, **kwargs):
        found = fit(*args, **kwargs)
        stamps.append(time.process_time())
        return found

    samples.fit = clocked
    tokenizer = AutoTokenizer.from_pretrained(args.tokenizer)
    samples.make_samples(task, tokenizer, args.length, args.samples + 1, sources=Sources.stand_ins())
    return stamps


def clock_official(task: str, args: argparse.Namespace) -> list[float]:
    """The same while the official script runs."""
    import tqdm

    stamps = []

    class Clock(tqdm.tqdm):
        def __iter__(self):
            for item in super().__iter__():
                yield item
                stamps.append(time.process_time())

    tqdm.tqdm = Clock
    sys.argv = official_command(task, args, args.official, args.samples + 1)
    sys.path.insert(0, str(Path(sys.argv[0]).parent))
    runpy.run_path(sys.argv[0], run_name="__main__")
    return stamps


def reason(stderr: str) -> str:
    """The line of a traceback that says what is wrong."""
    if "punkt" in stderr:
        return "nltk has no punkt_tab"
    return (stderr.strip().splitlines() or ["no message"])[-1][:80]


def official_command(task: str, args: argparse.Namespace, folder: Path, count: int) -> list[str]:
    family, tokens_to_generate, task_args, _ = DEFINITIONS[task]
    settings = {
        "save_dir": folder / "out",
        "save_name": f"{task}_{count}",
        "tokenizer_path": args.tokenizer,
        "tokenizer_type": "hf",
        "max_seq_length": args.length,
        "tokens_to_generate": tokens_to_generate,
        "num_samples": count,
        "template": "".join(TEMPLATES[family]),
    }
    names = {"haystack": "type_haystack", "type_k": "type_needle_k", "type_v": "type_needle_v"}
    names |= {"num_k": "num_needle_k", "num_v": "num_needle_v", "num_q": "num_needle_q"}
    settings |= {names.get(name, name): value for name, value in task_args.items()}
    command = [str(folder / "synthetic" / f"{SCRIPTS[family]}.py")]
    return command + [text for name, value in settings.items() for text in (f"--{name}", str(value))]


def copy_official(checkout: Path, scratch: Path) -> Path:
    """`scripts/data` of the checkout with our texts in the place of its data files."""
    folder = scratch / "data"
    if not (checkout / "scripts" / "data" / "synthetic" / "niah.py").is_file():
        raise SystemExit(
            f"--official {checkout} has no scripts/data/synthetic/niah.py: pass a checkout of NVIDIA/RULER"
        )
    shutil.copytree(checkout / "scripts" / "data", folder)
    sources = Sources.stand_ins()
    words, _ = sources.load("english_words")
    squad, hotpotqa = sources.load("squad"), sources.load("hotpotqa")
    articles = {}
    for question in squad.questions:
        paragraphs = articles.setdefault(frozenset(question.own + question.related), {})
        answers = [{"text": text} for text in question.outputs]
        qa = {"question": question.query, "is_impossible": False, "answers": answers}
        paragraphs.setdefault(squad.documents[question.own[0]], []).append(qa)
    texts = {
        "PaulGrahamEssays": {"text": " ".join(sources.load("essays").sentences)},
        "english_words": dict(enumerate(words)),
        "squad": {
            "data": [
                {"paragraphs": [{"context": context, "qas": qas} for context, qas in paragraphs.items()]}
                for paragraphs in articles.values()
            ]
        },
        "hotpotqa": [
            {
                "question": question.query,
                "answer": question.outputs[0],
                "context": [
                    [title, [text]] for title, text in (hotpotqa.documents[d].split("\n", 1) for d in question.own)
                ],
            }
            for question in hotpotqa.questions
        ],
    }
    for name, content in texts.items():
        (folder / "synthetic" / "json" / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


if __name__ == "__main__":
    main()
