"""Advice before training: what can be measured of a teacher and a student, and what it was found to foretell."""
