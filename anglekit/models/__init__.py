"""Checkpoints: loaded safely, their blocks found, their projections solved."""
