"""Tables of texts: files, a hub data set or a built-in corpus -> rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from anglekit.errors import InputError
from anglekit.tables.columns import NO_COLUMN, find_column
from anglekit.tables.files import read_table_files
from anglekit.tables.hub import read_hub, read_saved
from anglekit.tables.sources import SavedDataset, find_files
from anglekit.tables.table import Table, with_sha256

_FIRST_ROWS = 1000
"""Rows in which a column is looked for before all rows are read."""


def read_table(source: str, *, limit: int | None = None, column_names: Sequence[str] | None = None) -> Table:
    """Read a table from files, the hub or the built-in corpora.

    Args:
        source: a path that ends in `.jsonl`, `.json` (a list of objects, or one a line), `.csv`, `.tsv` or `.parquet`,
            text kinds also with `.gz`, `.bz2`, `.xz` or `.zst`; a pattern of such paths (`shards/*.jsonl.gz`); a folder
            of them; a directory of `Dataset.save_to_disk`; `hub:NAME[/CONFIG]:SPLIT`; or `builtin:NAME[:SPLIT]` (the
            split is `validation` unless given). For the hub, NAME is first looked for as a local directory, also with
            the last part taken as CONFIG. Otherwise one part is a NAME, three parts are `org/name/config`, and two are
            `org/name` or, where the hub has no such data set, `name/config`.
        limit: keep only the first `limit` rows; the hash is of everything either way.
        column_names: of csv and tsv files without a header.

    Raises:
        InputError: the source is misspelt, absent, empty or malformed, `column_names` came for a table that has names,
            or `datasets` is needed and not there.
        RunError: the hub cannot be reached.
    """
    if limit is not None and limit < 1:
        raise InputError(f"a limit of {limit} rows leaves nothing", "give 1 or more, or no limit")
    if source.startswith("hub:"):
        _no_names(source, column_names)
        table = read_hub(source)
    elif source.startswith("builtin:"):
        _no_names(source, column_names)
        table = _read_builtin(source)
    elif isinstance(found := find_files(source), SavedDataset):
        _no_names(source, column_names)
        table = read_saved(found)
    else:
        if found.kind not in (".csv", ".tsv"):
            _no_names(source, column_names)
        table = read_table_files(found, limit, column_names)
    if not len(table) or not table.names:
        raise InputError(f"{source} has no rows", "a table needs at least one")
    return table if limit is None or len(table) <= limit else replace(table, rows=table.frame.head(limit))


def _no_names(source: str, column_names: Sequence[str] | None) -> None:
    if column_names is not None:
        raise InputError(
            f"--columns names the columns of csv and tsv files without a header, and {source} has names of its own",
            "leave it out",
        )


def check_columns(source: str, given: Mapping[str, str], column_names: Sequence[str] | None = None) -> None:
    """Refuse a file that is not there, and columns named by role that it lacks.

    Tables that are not files are checked when they are read.
    """
    if source.startswith(("hub:", "builtin:")):
        return
    found = find_files(source)
    wanted = {role: name for role, name in given.items() if name != NO_COLUMN}
    if isinstance(found, SavedDataset) or not (wanted or column_names):
        return
    # A row of json may have a column that the rows before it lack.
    for limit in (_FIRST_ROWS, None):
        table = read_table_files(found, limit, column_names, checked=limit is None)
        if all(map(table.has, wanted.values())):
            return
    for role, name in wanted.items():
        find_column(table, role, name)


def _read_builtin(source: str) -> Table:
    import anglekit_data

    name, _, split = source.removeprefix("builtin:").partition(":")
    frame = anglekit_data.load(name, split or "validation")
    frame = frame.astype(object).where(frame.notna(), None)
    return with_sha256(Table(source, frame, ""))
