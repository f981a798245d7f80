#!/usr/bin/env bash
# wandb 0.31.0 with matplotlib 3.11.2: wandb.Image takes a matplotlib figure.
#
# Expected: any matplotlib Figure, however it was made.
# Seen: a figure is known by the name of its class and of the module that defines it. An object of a subclass is taken
# for an array, and ends in "'Styled' object has no attribute 'ndim'". A plain Figure that was drawn without pyplot ends
# in "module 'matplotlib' has no attribute 'pyplot'". With pyplot imported beforehand, for whatever reason, it works.
# A library that makes its figures without pyplot, as one should that draws in another's process, hands over the pixels.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/python" -m pip install --quiet --disable-pip-version-check wandb==0.31.0 matplotlib==3.11.2
cd "$place"
WANDB_MODE=disabled "$place/venv/bin/python" - <<'PYTHON'
import wandb
from matplotlib.figure import Figure


class Styled(Figure):
    """A figure with a style of its own."""


def taken(kind: type[Figure]) -> str:
    """Return what becomes of a figure of a class."""
    figure = kind()
    figure.subplots().plot([1, 2])
    try:
        return type(wandb.Image(figure)).__name__
    except AttributeError as error:
        return str(error)


found = {"a Figure": taken(Figure), "of a subclass": taken(Styled)}
import matplotlib.pyplot  # noqa: E402

found |= {"a Figure, after pyplot was imported": taken(Figure), "of a subclass, after that": taken(Styled)}
for what, became in found.items():
    print(f"{what}: {became}")
assert list(found.values()) == [
    "module 'matplotlib' has no attribute 'pyplot'",
    "'Styled' object has no attribute 'ndim'",
    "Image",
    "'Styled' object has no attribute 'ndim'",
]
print("unchanged: wandb.Image takes a figure only of matplotlib's own class, and only once pyplot is imported")
PYTHON
