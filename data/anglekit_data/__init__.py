"""Corpora that ship with anglekit, each made by the project's own generator.

    >>> anglekit_data.names()
    ('inference',)

A corpus is generated when it is first asked for and kept in memory; nothing is downloaded or written.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

from anglekit.errors import InputError, suggest
from anglekit_data import inference

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["data_card", "load", "names", "splits"]

_SPLITS: dict[str, tuple[str, ...]] = {"inference": tuple(inference.SPLIT_SIZES)}


def names() -> tuple[str, ...]:
    """The names of the built-in corpora, as `builtin:NAME` takes them."""
    return tuple(_SPLITS)


def splits(name: str) -> tuple[str, ...]:
    """The splits of a corpus.

    Raises:
        InputError: there is no such corpus.
    """
    if name not in _SPLITS:
        raise InputError(f"built-in corpus {name!r} does not exist: {suggest(name, names())}")
    return _SPLITS[name]


def load(name: str, split: str = "validation") -> pd.DataFrame:
    """A split of a corpus as a data frame of its own: changing it changes no later answer.

    Args:
        name: a name from `names()`. `inference` has the string columns `premise`, `hypothesis` and `label`
            (`entailment`, `neutral`, `contradiction`).
        split: a name from `splits(name)`.

    Raises:
        InputError: there is no such corpus or split.
    """
    if split not in splits(name):
        raise InputError(f"built-in corpus {name!r} has no split {split!r}: {suggest(split, splits(name))}")
    return _frame(name, split).copy()


def data_card(name: str) -> str:
    """The corpus's data card in Markdown: how it was made, licence, counts, checksums, limits.

    Raises:
        InputError: there is no such corpus.
    """
    splits(name)
    return (files("anglekit_data") / "cards" / f"{name}.md").read_text(encoding="utf-8")


@cache
def _frame(name: str, split: str) -> pd.DataFrame:
    import pandas as pd

    rows = inference.generate(split, inference.SPLIT_SIZES[split])
    return pd.DataFrame(
        {
            "premise": [row.premise for row in rows],
            "hypothesis": [row.hypothesis for row in rows],
            "label": [row.label for row in rows],
        }
    )
