"""Texts with labels: one class, several of them, or a number."""
