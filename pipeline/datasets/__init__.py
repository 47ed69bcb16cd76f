"""Images and labels on disk: one index, a check of every file, views, one module a dataset."""
