"""What the official scripts of two benchmarks do, without a model."""
