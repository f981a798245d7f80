"""Probe data: the texts on which models are compared, from a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from anglekit.display.counts import counted
from anglekit.errors import InputError
from anglekit.probes.conversations import plain_conversation
from anglekit.tables.columns import NO_COLUMN, find_column, find_text_columns
from anglekit.tables.read import read_table
from anglekit.tables.shapes import as_known_shape, conversations_of
from anglekit.tables.table import Table, check_text, is_missing


@dataclass(frozen=True)
class ProbeData:
    """Texts to look at models with, in the order of their file.

    Attributes:
        source: the file, `hub:` or `builtin:` data set that they came from.
        sha256: the hash of the whole source (`Table.sha256`).
        texts: the text of each example, never blank.
        text_pairs: the second text of each example, never blank; None without pairs.
        targets: the target text of each example, empty where the row has none; None without a target column.
        rows: the row number of each example in the source, counted from 0; where several examples are made of a row,
            the number of the example.
        skipped_rows: how many rows of the source were left out because one of their texts is missing or blank.
        text_column: the column of the texts.
        text_pair_column: the column of the second texts, or None.
        target_column: the column of the targets, or None.
        notes: what a person should know of how the table was read.
    """

    source: str
    sha256: str
    texts: tuple[str, ...]
    text_pairs: tuple[str, ...] | None
    targets: tuple[str, ...] | None
    rows: tuple[int, ...]
    skipped_rows: int
    text_column: str
    text_pair_column: str | None
    target_column: str | None
    notes: tuple[str, ...] = ()

    def select(self, kept: Sequence[int]) -> ProbeData:
        """Return the examples at these positions, as a probe of the same source."""

        def chosen(texts: tuple[str, ...] | None) -> tuple[str, ...] | None:
            return None if texts is None else tuple(texts[position] for position in kept)

        return replace(
            self,
            texts=tuple(self.texts[position] for position in kept),
            text_pairs=chosen(self.text_pairs),
            targets=chosen(self.targets),
            rows=tuple(self.rows[position] for position in kept),
        )

    def __repr__(self) -> str:
        """Return in a line how many texts there are, and where they came from."""
        columns = (self.text_column, self.text_pair_column, self.target_column)
        named = ", ".join(column for column in columns if column is not None)
        return f"<ProbeData of {self.source}: {counted(len(self.texts), 'example')}, columns {named}>"


def read_probe(
    source: str,
    *,
    text: str | None = None,
    text_pair: str | None = None,
    target: str | None = None,
    limit: int | None = None,
    seed: int = 0,
    column_names: Sequence[str] | None = None,
) -> ProbeData:
    """Read probe data from a table.

    Args:
        source: what `read_table` takes: a path, `hub:NAME[/CONFIG]:SPLIT` or `builtin:NAME[:SPLIT]`.
        text: the column of the text; by default the first usual name that is there.
        text_pair: the column of the second text; by default the text column's usual partner; `"-"`: no pairs.
        target: the column of the target; by default the first usual name that is there and holds text; `"-"`: none.
        limit: take this many rows at random, without replacement, in file order; all rows if there are fewer.
        seed: the seed of the random draw.
        column_names: of a csv or tsv file without a header, as `read_table` takes them.

    Raises:
        InputError: the source or a column is not there, a cell holds something other than text, nothing is left, or
            `limit` or `seed` is out of range.
    """
    if limit is not None and limit < 1:
        raise InputError(f"a limit of {limit} examples leaves nothing", "give 1 or more, or no limit")
    if seed < 0:
        raise InputError(f"the seed {seed} is negative", "give 0 or more")
    table = read_table(source, column_names=column_names)
    return probe_of_table(table, text=text, text_pair=text_pair, target=target, limit=limit, seed=seed)


def probe_of_table(
    table: Table,
    *,
    text: str | None = None,
    text_pair: str | None = None,
    target: str | None = None,
    limit: int | None = None,
    seed: int = 0,
) -> ProbeData:
    """Return the probe data of a table that is read already; arguments and errors as of `read_probe`."""
    source = table.source
    table = as_known_shape(table, (text, text_pair, target))
    text_column, pair_column = find_text_columns(table, text, text_pair)
    conversations = conversations_of(table, text_column)
    texts = _cells(table, text_column) if conversations is None else list(map(plain_conversation, conversations))
    pairs = None if pair_column is None else _cells(table, pair_column)
    target_column = None if target == NO_COLUMN else find_column(table, "target", target, required=False)
    if target_column is not None and target is None and target_column != table.roles.get("target"):
        # Found by its name alone; many classification tables call the label `target`.
        holds_text = all(isinstance(cell, str) or is_missing(cell) for cell in table.column(target_column))
        target_column = target_column if holds_text else None
    targets = None if target_column is None else _first_texts(table, target_column)

    usable = [row for row, cell in enumerate(texts) if cell and (pairs is None or pairs[row])]
    if not usable:
        columns = text_column if pair_column is None else f"{text_column} and {pair_column}"
        raise InputError(f"{source} has no row with text in {columns}", f"all {len(texts)} are blank")
    rows = usable
    if limit is not None and limit < len(usable):
        drawn = np.random.default_rng(seed).choice(len(usable), size=limit, replace=False)
        rows = [usable[position] for position in np.sort(drawn)]
    return ProbeData(
        source=source,
        sha256=table.sha256,
        texts=tuple(texts[row] for row in rows),
        text_pairs=None if pairs is None else tuple(pairs[row] for row in rows),
        targets=None if targets is None else tuple(targets[row] for row in rows),
        rows=tuple(rows),
        skipped_rows=len(texts) - len(usable),
        text_column=text_column,
        text_pair_column=pair_column,
        target_column=target_column,
        notes=table.notes,
    )


def _first_texts(table: Table, column: str) -> list[str]:
    """Return a column's texts, of a cell that holds several the first."""
    cells = table.column(column)
    return [
        _text(cell[0] if isinstance(cell, list) and cell else cell, table, column, row)
        for row, cell in enumerate(cells)
    ]


def _cells(table: Table, column: str) -> list[str]:
    """Return a column's texts, the empty string where a cell is missing or blank."""
    return [_text(cell, table, column, row) for row, cell in enumerate(table.column(column))]


def _text(cell: object, table: Table, column: str, row: int) -> str:
    blank = is_missing(cell) or cell == [] or (isinstance(cell, str) and not cell.strip())
    return "" if blank else check_text(cell, table, column, row)
