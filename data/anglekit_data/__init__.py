"""Corpora that ship with anglekit, each made by the project's own generator.

    >>> anglekit_data.names()
    ('inference', 'triples', 'numbers', 'endings', 'questions')

A corpus is generated when it is first asked for and kept in memory; nothing is downloaded or written.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from anglekit.errors import InputError, suggest
from anglekit_data import endings, inference, numbers, triples

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["data_card", "load", "names", "splits"]

_Rows = list[dict[str, Any]]


def _inference_rows(split: str, size: int) -> _Rows:
    pairs = inference.generate(split, size)
    return [{"premise": pair.premise, "hypothesis": pair.hypothesis, "label": pair.label} for pair in pairs]


_CORPORA: dict[str, tuple[Mapping[str, int], Callable[[str, int], _Rows]]] = {
    "inference": (inference.SPLIT_SIZES, _inference_rows),
    "triples": (triples.SPLIT_SIZES, triples.rows),
    "numbers": (numbers.SPLIT_SIZES, numbers.rows),
    "endings": (endings.SPLIT_SIZES, endings.rows),
    "questions": (endings.QUESTION_SIZES, endings.question_rows),
}


def names() -> tuple[str, ...]:
    """The names of the built-in corpora, as `builtin:NAME` takes them."""
    return tuple(_CORPORA)


def splits(name: str) -> tuple[str, ...]:
    """The splits of a corpus.

    Raises:
        InputError: there is no such corpus.
    """
    if name not in _CORPORA:
        raise InputError(f"built-in corpus {name!r} does not exist: {suggest(name, names())}")
    return tuple(_CORPORA[name][0])


def load(name: str, split: str = "validation") -> pd.DataFrame:
    """A split of a corpus as a data frame of its own: changing it changes no later answer.

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

    return pd.DataFrame(deepcopy(_rows(name, split)))


def data_card(name: str) -> str:
    """The corpus's data card in Markdown: how it was made, licence, counts, checksums, limits.

    Raises:
        InputError: there is no such corpus.
    """
    splits(name)
    return (files("anglekit_data") / "cards" / f"{name}.md").read_text(encoding="utf-8")


@cache
def _rows(name: str, split: str) -> _Rows:
    sizes, generate = _CORPORA[name]
    return generate(split, sizes[split])
