"""The recipes that come with anglekit, as a table of texts."""

from __future__ import annotations

from anglekit.recipes.published import published_of
from anglekit.recipes.recipe_files import read_recipe, recipe_names

__all__ = ["recipe_rows"]


def recipe_rows() -> list[dict[str, str]]:
    """Return a row for each recipe: `name`, `teacher`, `students`, `published` (how many numbers), `task`, `title`."""
    rows = []
    for name in recipe_names():
        recipe = read_recipe(name)
        students = recipe.students
        layers = " ".join(map(str, students.layers))
        widths = f", {' '.join(map(str, students.widths))} wide" if students.widths else ""
        rows.append(
            {
                "name": name,
                "teacher": recipe.teacher.model or f"{recipe.teacher.config['model_type']}, from scratch",
                "students": f"{layers} layers{widths}, from {' and '.join(students.inits)}",
                "published": str(len(published_of(recipe)) or "-"),
                "task": recipe.task,
                "title": recipe.title,
            }
        )
    return rows
