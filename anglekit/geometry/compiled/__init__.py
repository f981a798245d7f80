"""Angles of pairs of very many layers on a CPU, in loops that numba compiles: when, and how."""
