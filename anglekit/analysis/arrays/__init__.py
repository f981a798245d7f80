"""States that a program has, analysed without models."""
