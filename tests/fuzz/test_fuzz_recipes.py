"""Damaged recipes are refused in one line, or read as what they say."""

from __future__ import annotations

from functools import partial

from anglekit.errors import AnglekitError
from anglekit.recipes.dry_run import dry_run
from anglekit.recipes.recipe import Recipe
from anglekit.recipes.recipe_files import load_recipe
from tests.fuzz.damaged_recipes import write_recipe
from tests.fuzz.harness import Campaign, cases


def sane(recipe: Recipe) -> None:
    assert recipe.variants
    assert recipe.scores


def test_recipes(tmp_path):
    campaign = Campaign(tmp_path / "place")
    file = campaign.place / "recipe.yaml"
    for case in cases("recipe", few=150):
        write_recipe(case, file)
        campaign.judge(case, partial(load_recipe, file), str(file), sane)
    campaign.finish()


def test_dry_runs(tmp_path):
    campaign = Campaign(tmp_path / "place")
    file = campaign.place / "recipe.yaml"
    for case in cases("dry run", few=25):
        write_recipe(case, file)
        try:
            recipe = load_recipe(file)
        except AnglekitError:
            continue
        campaign.judge(case, partial(dry_run, recipe), "")
    campaign.finish()
