"""Names of classes, their order, and how a table's labels become class numbers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from transformers import PretrainedConfig

from anglekit.errors import InputError


def label_text(value: object) -> str | None:
    """Return a label as text: 1, 1.0 and " 1" are all "1"; None for a missing label."""
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return None
    if isinstance(value, bool | np.bool_):
        return str(int(value))
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip() or None


@dataclass(frozen=True)
class LabelSet:
    """The classes of a task in the order of a model's outputs.

    Attributes:
        names: one for each class.

    Raises:
        InputError: fewer than two classes, or a name that comes twice.
    """

    names: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(self.names) < 2:
            raise InputError(f"the labels are {_listed(self.names)}", "a classifier needs at least two different ones")
        if len(set(self.names)) != len(self.names):
            raise InputError(f"the labels {_listed(self.names)} name one class twice", "give each its own name")

    @property
    def generic(self) -> bool:
        """Whether the names are transformers' own LABEL_0, LABEL_1, ..., which say nothing."""
        return self.names == tuple(f"LABEL_{number}" for number in range(len(self.names)))

    def index(self, text: str) -> int | None:
        """Return a label's class, or None: by its name in any case, or by its number where the names are generic."""
        if text in self.names:
            return self.names.index(text)
        if self.generic and text.isdecimal() and int(text) < len(self.names):
            return int(text)
        folded = [name.casefold() for name in self.names]
        return folded.index(text.casefold()) if folded.count(text.casefold()) == 1 else None

    def outside(self, texts: Iterable[str | None]) -> list[str]:
        """Return the different labels that are of no class, those last that are numbers of classes.

        A task that reads numbers does so where all labels are: it is the others that are wrong then.
        """
        numbers = set(map(str, range(len(self.names))))
        found = (text for text in dict.fromkeys(texts) if text is not None and self.index(text) is None)
        return sorted(found, key=numbers.__contains__)

    def classes(self, texts: Sequence[str | None], where: str) -> NDArray[np.int64]:
        """Return the class of every label; `texts` are as `label_text` writes them.

        Raises:
            InputError: a label is missing or outside the set; the message names its row in the table `where`.
        """
        known = {text: self.index(text) for text in set(texts) if text is not None}
        outside = self.outside(texts)[:1]
        for row, text in enumerate(texts):
            if text is None:
                raise InputError(
                    f"{where} has no label in row {row} (counted from 0)",
                    f"give every row one of {_listed(self.names)}",
                )
            if text in outside:
                raise InputError(
                    f"{where} has label {text!r} in row {row} (counted from 0)",
                    allowed=f"allowed: {_listed(self.names)}",
                )
        return np.array([known[text] for text in texts if text is not None], dtype=np.int64)

    def config_settings(self) -> dict[str, dict[int, str] | dict[str, int]]:
        """Return the names in the form of a model's configuration, where any tool can read them."""
        return {
            "id2label": dict(enumerate(self.names)),
            "label2id": {name: number for number, name in enumerate(self.names)},
        }


def labels_of_config(config: PretrainedConfig) -> LabelSet:
    """Return the classes that a model's configuration names."""
    names = {int(number): str(name) for number, name in (config.id2label or {}).items()}
    return LabelSet(tuple(names[number] for number in sorted(names)))


def labels_in_data(texts: Iterable[str | None]) -> LabelSet:
    """Return the different labels, in numerical order if all are numbers and in alphabetical order otherwise.

    Raises:
        InputError: fewer than two.
    """
    found = {text for text in texts if text is not None}
    numbers = all(text.removeprefix("-").isdecimal() for text in found)
    return LabelSet(tuple(sorted(found, key=int) if numbers else sorted(found)))


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:12])
    return f"{shown}, ... ({len(names)} in all)" if len(names) > 12 else shown or "none"
