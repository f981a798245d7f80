"""The shell of the analysis: settings, checks, the pass over batches, tables, shards, resume, forecast."""
