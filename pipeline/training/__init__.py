"""The training loop, its optimizer and its log; the runs of a teacher and of a student."""
