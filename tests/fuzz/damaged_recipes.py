"""Recipes with damage: tags, anchors, depth, numbers at the edge, and values that no experiment has."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

from anglekit.recipes.recipe_files import recipe_names
from anglekit.recipes.yaml_text import read_yaml
from tests.fuzz.harness import Case
from tests.fuzz.mutations import damaged_bytes, damaged_json

ORIGINALS = {name: files("anglekit.recipes").joinpath(f"{name}.yaml") for name in recipe_names()}
MORE: dict[str, Any] = {
    "model": "/nowhere/outside",
    "config": {"model_type": "bert", "hidden_size": 64, "num_hidden_layers": 200},
    "layers": [10**9],
    "widths": [1, 2, 10**12],
    "seeds": list(range(500)),
    "epochs": 1e300,
    "max_steps": 10**18,
    "vocab_size": 10**8,
    "num_labels": 200,
    "limit": 0,
    "copy_blocks": {"encoder": [10**9]},
    "match_streams": ["encoder", "x"],
}


#: Lines that a recipe may not have, or that are read in a way of their own.
UNUSUAL_LINES = (
    "a: !!python/tuple [1, 2]",
    "a: !own x",
    "%TAG ! tag:example.org,2002:",
    "a: &a [x, x]\nb: *a",
    "<<: *a",
    "<<: {name: x}",
    "a: " + "[" * 30,
    "a: " + "{a: " * 30,
    "? [complex, key]\n: x",
    "? " * 30,
    "- " * 30,
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


def write_recipe(case: Case, file: Path) -> None:
    """Write a recipe of the package with damage to its values, its lines or its bytes."""
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
            new = rng.choice(UNUSUAL_LINES)
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
