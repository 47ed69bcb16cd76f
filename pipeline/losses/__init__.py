"""What the student is taught by: pure functions that return a `Mean`, one file a method."""
