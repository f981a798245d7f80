"""Geometry: what an analysis found, as data frames, saved and loaded."""
