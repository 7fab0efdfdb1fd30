"""The benchmarks, by the name that `benchmarks` of a configuration gives them: one file each."""

from . import infinitebench, longbench_v2, ruler, tiny_tasks
from .benchmark import Answer, Benchmark, Column, Part, Unit, Verdict


BENCHMARKS: dict[str, Benchmark] = {
    "longbench_v2": longbench_v2.BENCHMARK,
    "ruler": ruler.BENCHMARK,
    "infinitebench": infinitebench.BENCHMARK,
    "tiny_tasks": tiny_tasks.BENCHMARK,
}
RENAMED = {"synthetic": "tiny_tasks"}
"""Names that earlier versions gave benchmarks, in results on disk and in users' configurations."""

__all__ = ["BENCHMARKS", "RENAMED", "Answer", "Benchmark", "Column", "Part", "Unit", "Verdict"]
