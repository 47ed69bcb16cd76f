"""Lossy representations of logits and features: one file a family, all listed in `registry`."""
