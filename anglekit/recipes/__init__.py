"""Recipes: one YAML file for each experiment of the paper, and what runs them from the teacher to the figure."""
