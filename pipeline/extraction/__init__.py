"""The teacher's single pass over every view, into the store."""
