"""Hostile recipes: tags, anchors, depth, numbers at the edge, and values that no experiment has."""

from __future__ import annotations

import json
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

from anglekit.errors import AnglekitError
from anglekit.recipes.dry_run import dry_run
from anglekit.recipes.recipe import Recipe
from anglekit.recipes.recipe_files import load_recipe, recipe_names
from anglekit.recipes.yaml_text import read_yaml
from tests.fuzz.harness import Campaign, Case, canary_command, cases
from tests.fuzz.mutations import damaged_bytes, damaged_json

ORIGINALS = {name: files("anglekit.recipes").joinpath(f"{name}.yaml") for name in recipe_names()}
MORE: dict[str, Any] = {
    "model": "/etc/passwd",
    "config": {"model_type": "bert", "hidden_size": 10**9, "num_hidden_layers": 10**6},
    "layers": [10**9],
    "widths": [1, 2, 10**12],
    "seeds": list(range(500)),
    "epochs": 1e300,
    "max_steps": 10**18,
    "vocab_size": 10**15,
    "num_labels": 10**12,
    "limit": 0,
    "copy_blocks": {"encoder": [10**9]},
    "match_streams": ["encoder", "x"],
    "auto_map": {"AutoModel": "evil.Evil"},
}


def hostile_lines(place: Path) -> tuple[str, ...]:
    """Lines that run code, or blow up, in parsers that allow it."""
    command = canary_command(place)
    return (
        f"a: !!python/object/apply:os.system [{command!r}]",
        f"a: !!python/object/new:os.system [{command!r}]",
        "a: !!python/name:os.system",
        "a: !<tag:yaml.org,2002:python/module:os> x",
        "%TAG ! tag:yaml.org,2002:python/",
        "a: &a [x, x]\nb: &b [*a, *a, *a]\nc: [*b, *b, *b]",
        "<<: *a",
        "<<: {name: x}",
        "a: " + "[" * 3000,
        "a: " + "{a: " * 3000,
        "? [complex, key]\n: x",
        "? " * 300,
        "- " * 300,
        "name: x\nname: y",
        "---\nname: x",
        "...",
        "a: |\n  text\n   more",
        "a: 1e9999",
        "a: " + "9" * 5000,
        "a: 0x" + "f" * 900,
        "a: 190:20:30",
        "a: !!binary x",
        "\ta: 1",
        "a: '\\x00'",
        'a: "\\ud800"',
        'a: "\\U0010FFFF\\x07"',
        "\x00",
        "\x85",
        "'" * 99,
        "#" * 70_000,
        "a: " + "x" * 270_000,
    )


def write(case: Case, file: Path, place: Path) -> None:
    rng = case.rng
    name = rng.choice(sorted(ORIGINALS))
    text = ORIGINALS[name].read_text(encoding="utf-8")
    style = rng.choice(("values", "values", "values", "values", "lines", "lines", "bytes"))
    case.did.extend((name, style))
    if style == "values":
        file.write_text(text, encoding="utf-8")
        value = damaged_json(case, read_yaml(file), MORE)
        file.write_text(json.dumps(value, indent=1, ensure_ascii=True), encoding="utf-8")
    elif style == "lines":
        lines = text.split("\n")
        for _ in range(rng.choice((1, 1, 3))):
            number = rng.randrange(len(lines))
            new = rng.choice(hostile_lines(place))
            case.did.append(f"line {number}: {new[:60]}")
            indent = lines[number][: len(lines[number]) - len(lines[number].lstrip())]
            if rng.random() < 0.3 and ": " in lines[number] and ": " in new:
                new = lines[number].partition(": ")[0].strip() + ": " + new.partition(": ")[2]
                lines[number] = indent + new
            else:
                lines.insert(number, indent + new)
        file.write_text("\n".join(lines), encoding="utf-8", errors="surrogatepass")
    else:
        file.write_bytes(damaged_bytes(case, text.encode()))


def sane(recipe: Recipe) -> None:
    assert recipe.variants
    assert recipe.scores


def test_recipes(tmp_path):
    campaign = Campaign(place := tmp_path / "place")
    file = place / "recipe.yaml"
    for case in cases("recipe", few=150):
        write(case, file, place)
        campaign.judge(case, partial(load_recipe, file), str(file), sane)
    campaign.finish()


def test_dry_runs(tmp_path):
    campaign = Campaign(place := tmp_path / "place")
    file = place / "recipe.yaml"
    for case in cases("dry run", few=25):
        write(case, file, place)
        try:
            recipe = load_recipe(file)
        except AnglekitError:
            continue
        campaign.judge(case, partial(dry_run, recipe), "")
    campaign.finish()
