"""Corpora that ship with anglekit, each made by the project's own generator.

    >>> anglekit_data.names()
    ('inference', 'triples', 'numbers', 'endings', 'questions')

A corpus is generated when it is first asked for and kept in memory; nothing is downloaded or written.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from anglekit.errors import InputError, suggest
from anglekit_data import endings, inference, numbers, triples
from anglekit_data.generation import SPLITS

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["data_card", "load", "names", "split_sizes", "splits"]

_Rows = list[dict[str, Any]]


# How many rows training, validation and test have, and the function that draws them.
_CORPORA: dict[str, tuple[tuple[int, int, int], Callable[[str, int], _Rows]]] = {
    "inference": ((48_000, 1_500, 1_500), inference.rows),
    "triples": ((12_000, 500, 500), triples.rows),
    "numbers": ((24_000, 500, 500), numbers.rows),
    "endings": ((24_000, 1_000, 1_000), endings.rows),
    "questions": ((24_000, 1_000, 1_000), endings.question_rows),
}


def names() -> tuple[str, ...]:
    """The names of the built-in corpora, as `builtin:NAME` takes them."""
    return tuple(_CORPORA)


def splits(name: str) -> tuple[str, ...]:
    """The splits of a corpus.

    Raises:
        InputError: there is no such corpus.
    """
    return tuple(split_sizes(name))


def split_sizes(name: str) -> dict[str, int]:
    """How many rows each split of a corpus has.

    Raises:
        InputError: there is no such corpus.
    """
    if name not in _CORPORA:
        raise InputError(f"built-in corpus {name!r} does not exist: {suggest(name, names())}")
    return dict(zip(SPLITS, _CORPORA[name][0], strict=True))


def load(name: str, split: str = "validation") -> pd.DataFrame:
    """A split of a corpus as a new data frame: changing it does not affect later calls.

    Args:
        name: a name from `names()`. The columns hold strings unless said otherwise:

            - `inference`: `premise`, `hypothesis`, `label` (`entailment`, `neutral`, `contradiction`);
            - `triples`: `source`, `target`, and `references`, lists of three whose first is `target`;
            - `numbers`: `source` (English), `target` (Romanian);
            - `endings`: `prompt`, `choices` (lists of four), `label` (an integer from 0), `completion` (the right one);
            - `questions`: `prompt`, `completion`.
        split: a name from `splits(name)`.

    Raises:
        InputError: there is no such corpus or split, or the package that `numbers` takes its words from is missing.
    """
    if split not in splits(name):
        raise InputError(f"built-in corpus {name!r} has no split {split!r}: {suggest(split, splits(name))}")
    import pandas as pd

    # Texts and numbers cannot be changed and are shared with later calls; lists can, and hold texts alone.
    return pd.DataFrame(
        {
            column: [list(cell) for cell in cells] if isinstance(cells[0], list) else cells
            for column, cells in _columns(name, split).items()
        }
    )


def data_card(name: str) -> str:
    """The corpus's data card in Markdown: how it was made, licence, counts, checksums, limits.

    Raises:
        InputError: there is no such corpus.
    """
    splits(name)
    return (files("anglekit_data") / "cards" / f"{name}.md").read_text(encoding="utf-8")


@cache
def _columns(name: str, split: str) -> dict[str, list[Any]]:
    _, generate = _CORPORA[name]
    rows = generate(split, split_sizes(name)[split])
    return {column: [row[column] for row in rows] for column in rows[0]}
