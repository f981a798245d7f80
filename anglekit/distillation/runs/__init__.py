"""One training run: its directory, records, resume and scoring."""
