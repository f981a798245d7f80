"""Figures: a `Geometry` in, a matplotlib `Figure` out; one file a figure."""
