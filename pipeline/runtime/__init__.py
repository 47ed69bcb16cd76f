"""What every room stands on: ranks, random streams, devices, precision, checkpoints, versions."""
