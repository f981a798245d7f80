"""Texts -> tokens -> batches; every token knows its example."""
