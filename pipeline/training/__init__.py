"""The training loop, its optimizer, its log, and the teacher's terms."""
