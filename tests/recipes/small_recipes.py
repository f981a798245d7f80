"""Recipes that come with anglekit, made so small that they run in seconds and learn nothing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import yaml

from anglekit.recipes.recipe_files import recipe_file

__all__ = ["write_small_demo"]


def write_small_demo(file: Path, strategies: Sequence[str] | None = None) -> Path:
    """Write the recipe of `anglekit demo` with tiny models, a few steps and 96 rows of each table; return the file.

    Args:
        file: to write.
        strategies: of the students; None: the demo's.
    """
    recipe = yaml.safe_load(recipe_file("builtin-inference").read_text(encoding="utf-8"))
    sizes = {"hidden_size": 8, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 8}
    recipe["teacher"]["config"] |= sizes
    for part, steps in (("teacher", 6), ("students", 5)):
        recipe[part]["training"] |= {"max_steps": steps, "batch_size": 8, "evaluate_every": steps + 1, "log_every": 1}
    recipe["data"]["columns"]["limit"] = 96
    recipe["analysis"]["limit"] = 12
    recipe["students"]["strategies"] = list(strategies or recipe["students"]["strategies"])
    file.write_text(yaml.safe_dump(recipe), encoding="utf-8")
    return file
