"""Geometries and scores of several strategies -> cells, statistics, one verdict."""
