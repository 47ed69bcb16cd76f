"""What every room stands on: ranks, random streams, devices, checkpoints, versions, means."""
