"""What the project promises in figures, measured: one file a benchmark, and what they share."""
