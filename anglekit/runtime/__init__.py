"""Processes, lanes, placement on devices, kept memory, whole-or-absent files."""
