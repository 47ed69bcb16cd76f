"""Full-size predictions, counted into a confusion matrix."""
