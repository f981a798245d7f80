"""A Geometry to look into: every angle beside its chance level, its interval, its histogram and its extreme tokens."""
