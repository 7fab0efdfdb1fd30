"""
Evaluate a model on LongBench v2, RULER and InfiniteBench with their official protocols.

    python recipes/evaluate.py --config eval_table_1.yaml --model runs/qwen3_8b_longact

eval_table_1.yaml to eval_table_3.yaml are the paper's Tables 1-3, eval_paper.yaml all three at once.

- Does: any subset (`--benchmarks ruler --lengths 4096 16384 --num_samples 50`), with vLLM where it is installed, else
  transformers; checkpoint folders, Hub ids and LoRA adapters.
- A run that stopped is continued by the same command; no finished request is repeated.
- Several replicas: `accelerate launch --num_processes 8 recipes/evaluate.py … --backend transformers`, or with vLLM
  `--model_args '{"data_parallel_size": 8}'`.
- `--strict` stops at a prompt that does not fit instead of scoring it without its middle.
- Hardware: what the model needs at the longest prompt; two CPU cores for eval_tiny.yaml, which needs no network.
- What to see: with eval_tiny.yaml and the embedded model, 53.0 (greedy, 300 questions). Then
  `longact report OUTPUT_DIR …` prints the paper's tables, its figures beside these.
"""

import os
import shlex
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from longact_trl.evaluation.config import EvaluationConfig
from longact_trl.settings.messages import usage_errors
from longact_trl.settings.paths import check_here
from longact_trl.settings.quiet import quiet
from longact_trl.settings.recipe_yaml import parse_recipe


RECIPES = Path(__file__).parent


def run(argv: list[str]) -> None:
    [config] = parse_recipe((EvaluationConfig,), argv, RECIPES)
    check_here("model", config.model)
    for name in ("longbench_v2_data", "infinitebench_data"):
        check_here(name, os.path.expanduser(getattr(config, name)))

    from longact_trl.evaluation.results import RESULTS  # torch and more, once there is something to evaluate
    from longact_trl.evaluation.run import evaluate

    results = evaluate(config)
    if results is None:  # not the first process
        return
    table = Table(title=f"{config.label}, {config.protocol} protocol", title_justify="left")
    columns = ("name", "score", "num_samples", "skipped", "truncated", "unfinished")
    for column in columns:
        table.add_column(column.removeprefix("num_"), overflow="fold")
    for unit in results["units"]:
        table.add_row(*(str(unit[column]) for column in columns))
    console = Console()
    console.print(table)
    paths = f"Results: {Path(config.output_dir, RESULTS)}\nTables:  longact report {shlex.quote(config.output_dir)}"
    console.print(paths, soft_wrap=True, highlight=False, markup=False)  # in one line each, to be copied


if __name__ == "__main__":
    quiet()
    with usage_errors():
        run(sys.argv[1:])
