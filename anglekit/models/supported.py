"""The table of model types that a census found: which are supported, how, and what of it was run (`supported.csv`).

`make census` writes it from runs of a small model of each type. Its first line states the versions. Free of torch, so
that `anglekit models` and a plan start at once.
"""

from __future__ import annotations

import csv
import difflib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Final, cast

from anglekit.errors import InputError
from anglekit.vocabulary import Stream

TABLE: Final = Path(__file__).with_name("supported.csv")
_SEPARATOR: Final = "; "


@dataclass(frozen=True)
class SupportedType:
    """What a census found of one model type.

    Attributes:
        type: its name in transformers (`model_type` of a config.json).
        states: "right", "refused" or "not built" (of which no small model could be made).
        streams: `encoder`, `decoder` or both; found by whether a state changes with a later token. Empty where no
            blocks were found.
        blocks: by stream, the path of the list of blocks in the headless model.
        final_norm: by stream, the path of the norm behind the last block, or "none".
        last_hidden_state: by stream, what transformers' own last hidden state is: "last block", "final norm" or
            "other".
        padding: "independent" where one text's states are the same alone and in a padded batch, "dependent" where
            they are not; "" where no states were found.
        students: what was made of it and read again: "copied and random", "copied", "random", "refused" or "".
        notes: what is unlike most types, in words; the reason of a refusal first.
    """

    type: str
    states: str
    streams: tuple[Stream, ...]
    blocks: tuple[str, ...]
    final_norm: tuple[str, ...]
    last_hidden_state: tuple[str, ...]
    padding: str
    students: str
    notes: str

    def row(self) -> dict[str, str]:
        """Return the type as a row of the table; what is given by stream is joined by semicolons."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        return {name: _SEPARATOR.join(value) if isinstance(value, tuple) else value for name, value in values.items()}


COLUMNS: Final = tuple(each.name for each in fields(SupportedType))
_BY_STREAM: Final = ("streams", "blocks", "final_norm", "last_hidden_state")


@lru_cache(maxsize=1)
def supported_types() -> Mapping[str, SupportedType]:
    """Return the shipped table by type, in alphabetical order."""
    return read_table(TABLE.read_text(encoding="utf-8"))[1]


@lru_cache(maxsize=1)
def census_versions() -> str:
    """Return the versions that the table was made with, such as "transformers 5.23.0, torch 2.13.0"."""
    return read_table(TABLE.read_text(encoding="utf-8"))[0]


def supported_type(name: str) -> SupportedType:
    """Return one type of the table.

    Raises:
        InputError: no such type, with the nearest name.
    """
    found = supported_types().get(name)
    if found is None:
        near = difflib.get_close_matches(name[:80], supported_types(), n=5, cutoff=0.5)
        raise InputError(
            f"{census_versions()} had no text model of type {name!r}",
            "`anglekit models` prints all that were tried",
            allowed=f"nearest: {', '.join(near)}" if near else "",
        )
    return found


def read_table(text: str) -> tuple[str, dict[str, SupportedType]]:
    """Return the versions and the types of a table as `write_table` writes it."""
    first, _, rest = text.partition("\n")
    found = {}
    for row in csv.DictReader(rest.splitlines()):
        parts = {name: tuple(part for part in row[name].split(_SEPARATOR) if part) for name in _BY_STREAM}
        found[row["type"]] = SupportedType(
            type=row["type"],
            states=row["states"],
            streams=cast("tuple[Stream, ...]", parts["streams"]),
            blocks=parts["blocks"],
            final_norm=parts["final_norm"],
            last_hidden_state=parts["last_hidden_state"],
            padding=row["padding"],
            students=row["students"],
            notes=row["notes"],
        )
    return first.removeprefix("# "), found


def table_text(versions: str, types: Mapping[str, SupportedType]) -> str:
    """Return the table of some types as text: a line of versions, the columns, a row for each type."""
    rows = [COLUMNS, *(tuple(types[name].row().values()) for name in sorted(types))]
    return f"# {versions}\n" + "".join(f"{','.join(map(_cell, row))}\n" for row in rows)


def _cell(text: str) -> str:
    quoted = text.replace('"', '""')
    return f'"{quoted}"' if any(mark in text for mark in ',"\n') else text
