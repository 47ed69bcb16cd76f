"""What the project promises in figures, measured: one file a benchmark, each with `benchmark()`."""
