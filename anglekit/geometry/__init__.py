"""Angles, similarities and their statistics; this package never imports `anglekit.distillation`."""
