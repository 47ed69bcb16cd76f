"""Records of the store as batches on the training device."""
