"""Names of classes, their order, and how a table's labels become class numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from anglekit.display.counts import counted
from anglekit.errors import InputError

if TYPE_CHECKING:
    from transformers import PretrainedConfig

#: What data sets write where there is no label: SNLI's "-", and the hub's -1.
_NO_LABEL: Final = ("-", "-1")
#: More different whole numbers than this are no classes, unless somebody says so.
_MOST_NUMBERS: Final = 30
#: Fewer rows cannot tell whether a label comes again.
_FEW_ROWS: Final = 10


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
            raise InputError(f"the labels are {listed(self.names)}", "a classifier needs at least two different ones")
        if len(set(self.names)) != len(self.names):
            raise InputError(f"the labels {listed(self.names)} name one class twice", "give each its own name")

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

    @property
    def numbered(self) -> bool:
        """Whether the names say no more than the classes' numbers: LABEL_0, or 0."""
        return self.generic or self.names == tuple(map(str, range(len(self.names))))

    def outside(self, texts: Iterable[str | None]) -> list[str]:
        """Return the different labels that are of no class, those last that are numbers of classes.

        A task that reads numbers does so where all labels are: it is the others that are wrong then.
        """
        numbers = set(map(str, range(len(self.names))))
        found = (text for text in dict.fromkeys(texts) if text is not None and self.index(text) is None)
        return sorted(found, key=numbers.__contains__)

    def classes(self, texts: Sequence[str | None], place: Callable[[int], tuple[str, str]]) -> NDArray[np.int64]:
        """Return the class of every label.

        Args:
            texts: the labels, as `label_text` writes them.
            place: of a label's number among them, the file and the row, for messages.

        Raises:
            InputError: a label is missing or outside the set; the message names its row.
        """
        known = {text: self.index(text) for text in set(texts) if text is not None}
        outside = self.outside(texts)[:1]
        for number, text in enumerate(texts):
            if text is not None and text not in outside:
                continue
            where, row = place(number)
            if text is None:
                raise InputError(
                    f"{where} has no label in {row}",
                    f"give every row one of {listed(self.names)}, or leave such rows out: --no-label -",
                )
            raise InputError(
                f"{where} has label {text!r} in {row}",
                leaving_out(text) or self._what_else(known),
                allowed=f"allowed: {listed(self.names)}",
            )
        return np.array([known[text] for text in texts if text is not None], dtype=np.int64)

    def _what_else(self, known: Mapping[str, int | None]) -> str:
        """Return what labels may be that are not the classes; "" where only some of them are outside.

        Args:
            known: the different labels, and of each its class.
        """
        numbers = [number for text in known if (number := _number(text)) is not None]
        if 2 * len(numbers) > len(known) and not all(map(float.is_integer, numbers)):
            return (
                "for scores take --task regression, and a model of it; else name the column of the classes with --label"
            )
        if any(number is not None for number in known.values()):
            return ""
        return "if a trained model's labels are called otherwise in the data, say so: --label-map MODEL=DATA,..."

    def config_settings(self) -> dict[str, dict[int, str] | dict[str, int]]:
        """Return the names in the form of a model's configuration, where any tool can read them."""
        return {
            "id2label": dict(enumerate(self.names)),
            "label2id": {name: number for number, name in enumerate(self.names)},
        }

    def mapped(self, entries: Sequence[tuple[str, str]]) -> LabelSet:
        """Return the set with other names: each entry is a class, by its name or number, and what it is called.

        Raises:
            InputError: an entry names no class, one class twice, or two classes come to have one name.
        """
        names, done = list(self.names), set[int]()
        for own, called in entries:
            number = self.index(own)
            if number is None and own.isdecimal() and int(own) < len(names):
                number = int(own)
            if number is None or number in done:
                problem = "which the model lacks" if number is None else "which came before"
                raise InputError(
                    f"--label-map names the label {own!r}, {problem}", allowed=f"the model's are {listed(self.names)}"
                )
            names[number] = called
            done.add(number)
        if len(set(names)) < len(names):
            raise InputError(f"--label-map makes the labels {listed(names)}", "map every label, each to another one")
        return LabelSet(tuple(names))


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
    return LabelSet(tuple(sorted(found, key=int) if _are_whole(found) else sorted(found)))


def check_labels_in_data(
    texts: Sequence[str | None], place: Callable[[int], tuple[str, str]], where: str, column: str
) -> None:
    """Refuse labels of which nobody said that they are classes, and which probably are none.

    Args:
        texts: the labels, from which the classes would be made.
        place: as of `LabelSet.classes`.
        where: the table.
        column: the labels' column.

    Raises:
        InputError: what looks like no label is among them; they are numbers that are not whole, or very many; or
            hardly any comes twice.
    """
    counts = Counter(text for text in texts if text is not None)
    held = f"column {column!r} of {where}"
    for sign in _NO_LABEL:
        if sign in counts and _stands_alone(sign, counts):
            raise InputError(
                f"{held} has label {sign!r} in {counted(counts[sign], 'row')}, the first of them "
                f"{' of '.join(reversed(place(texts.index(sign))))}, and that may mean that there is none",
                f"leave them out: --no-label {sign}; or say that it is a class: --classes, all of them with commas",
            )
    numbers = _numbers(counts)
    broken = [text for text, number in zip(counts, numbers or (), strict=False) if not number.is_integer()]
    scores = "for scores take --task regression; else name the column of the classes with --label"
    if broken:
        raise InputError(f"{held} holds {len(counts):,} different numbers, such as {broken[0]}, not classes", scores)
    distinct, labelled = len(counts), sum(counts.values())
    if labelled >= _FEW_ROWS and 2 * distinct > labelled:
        what = "numbers" if numbers else "texts"
        remedy = scores if numbers else "name the column of the classes with --label"
        raise InputError(
            f"{held} holds {distinct:,} different {what} in {labelled:,} rows, such as {next(iter(counts))[:40]!r}, "
            "and hardly any comes twice: these are no classes",
            remedy,
        )
    if numbers and distinct > _MOST_NUMBERS:
        raise InputError(
            f"{held} holds {distinct:,} different whole numbers, which may be classes or scores",
            f"for classes say how many: --classes {int(max(numbers)) + 1}; {scores}",
        )


def leaving_out(text: str) -> str:
    """Return how rows of a label are left out, where it probably means that there is none; "" elsewhere."""
    return f"leave such rows out: --no-label {text}" if text in _NO_LABEL else ""


def listed(names: Sequence[str]) -> str:
    """Return names in words, the first twelve of many."""
    shown = ", ".join(names[:12])
    return f"{shown}, ... ({len(names)} in all)" if len(names) > 12 else shown or "none"


def _stands_alone(sign: str, counts: Counter[str]) -> bool:
    """Return whether a sign differs in kind from the other labels, so that it may be none.

    "-" has a counterpart in "+"; -1 has one in 1 where there is no 0, or is one of several negative numbers.
    """
    others = set(counts) - {sign}
    if sign == "-":
        return bool(others) and "+" not in others
    negative = any(text.startswith("-") for text in others)
    return _are_whole(others) and "0" in others and not negative


def _are_whole(texts: Iterable[str]) -> bool:
    return all(text.removeprefix("-").isdecimal() for text in texts)


def _numbers(texts: Iterable[str]) -> list[float] | None:
    """Return texts as finite numbers, or None where one is none."""
    found = [_number(text) for text in texts]
    return None if None in found else [number for number in found if number is not None]


def _number(text: str) -> float | None:
    """Return a text as a finite number, or None where it is none."""
    try:
        number = float(text)
    except ValueError:
        return None
    return number if np.isfinite(number) else None
