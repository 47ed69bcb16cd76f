"""The result page: files read, compared, put into words and figures, rendered."""
