"""The parts of `benchmarks/gpu_report.py`: each yields rows, on a GPU or in miniature on a CPU."""
