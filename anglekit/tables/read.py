"""Tables of texts: a file, a hub data set or a built-in corpus -> a data frame, and which column plays which role."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from anglekit.errors import InputError, RunError, suggest
from anglekit.tables.arrow import columns_from_arrow
from anglekit.tables.files import object_frame, read_table_file, table_file

if TYPE_CHECKING:
    import pandas as pd

USUAL_COLUMNS: dict[str, tuple[str, ...]] = {
    "text": (
        "text",
        "sentence",
        "sentence1",
        "premise",
        "question1",
        "question",
        "source",
        "src",
        "input",
        "document",
        "article",
        "prompt",
        "review",
    ),
    "text_pair": ("text_pair", "sentence2", "hypothesis", "question2"),
    "target": (
        "target",
        "tgt",
        "reference",
        "summary",
        "highlights",
        "output",
        "completion",
        "response",
        "answer",
    ),
    "label": ("label", "labels", "gold_label", "class", "category"),
}
"""For each role the column names by which it is found, the first that is there winning; case does not matter."""

USUAL_PARTNERS: dict[str, str] = {
    "text": "text_pair",
    "sentence1": "sentence2",
    "premise": "hypothesis",
    "question1": "question2",
    "question": "sentence",
}
"""For a text column the column that is the second text of the pair (GLUE's names), where there is one."""

_LONGEST_TEXT = 1_000_000
"""The most characters of one text: a tokenizer holds a few hundred bytes for each of its tokens at once."""

_MOST_NAMES = 60
"""The most columns that a message shows."""

_FIRST_ROWS = 1000
"""Rows in which a column is looked for before all rows are read."""

NO_COLUMN = "-"
"""Given as a column's name: use no column, even if there is one."""

# A split may end in a slice, `train[:100]`; NAME may be a path with colons.
_HUB = re.compile(r"hub:(?P<name>.+):(?P<split>[^:/\[\]]+(?:\[[^\]]*\])?)")


@dataclass(frozen=True, eq=False)
class Table:
    """Rows of a data set as they were found.

    Attributes:
        source: what was asked for: a path, `hub:...` or `builtin:...`.
        frame: the rows; every column has dtype object and holds plain Python values, missing ones as None.
        sha256: of the file's bytes, or for `hub:` and `builtin:` of all rows written as JSON.
    """

    source: str
    frame: pd.DataFrame
    sha256: str


def read_table(source: str, *, limit: int | None = None) -> Table:
    """Read a table from a file, the hub or the built-in corpora.

    Args:
        source: a path that ends in `.jsonl`, `.csv`, `.tsv` or `.parquet`; `hub:NAME[/CONFIG]:SPLIT`; or
            `builtin:NAME[:SPLIT]` (the split is `validation` unless given). For the hub, NAME is first looked for as a
            local directory, also with the last part taken as CONFIG. Otherwise one part is a NAME, three parts are
            `org/name/config`, and two are `org/name` or, where the hub has no such data set, `name/config`.
        limit: keep only the first `limit` rows; the hash is of everything either way.

    Raises:
        InputError: the source is misspelt, absent, empty or malformed, or `hub:` lacks its extra.
        RunError: the hub cannot be reached.
    """
    if limit is not None and limit < 1:
        raise InputError(f"a limit of {limit} rows leaves nothing", "give 1 or more, or no limit")
    if source.startswith("hub:"):
        frame, sha256 = _read_hub(source)
    elif source.startswith("builtin:"):
        frame, sha256 = _read_builtin(source)
    else:
        frame, sha256 = read_table_file(source, limit)
    if frame.empty:
        raise InputError(f"{source} has no rows", "a table needs at least one")
    return Table(source, frame if limit is None else frame.head(limit), sha256)


def table_of_frame(source: str, frame: pd.DataFrame) -> Table:
    """Return a data frame in memory as a table; `source` says what it is.

    Raises:
        InputError: it has no rows.
    """
    plain = frame.astype(object).where(frame.notna(), None).reset_index(drop=True)
    if plain.empty:
        raise InputError(f"{source} has no rows", "a table needs at least one")
    return Table(source, plain, _rows_sha256(plain))


@overload
def find_column(table: Table, role: str, given: str | None, usual: Sequence[str] | None = None) -> str: ...
@overload
def find_column(
    table: Table, role: str, given: str | None, usual: Sequence[str] | None = None, *, required: bool
) -> str | None: ...
def find_column(
    table: Table, role: str, given: str | None, usual: Sequence[str] | None = None, *, required: bool = True
) -> str | None:
    """Return the column that plays a role (option `--role`): the one that the user named, if any.

    Otherwise it is the first of the `usual` names that is there, by default those of `USUAL_COLUMNS[role]`; None if
    there is none and none is required.

    Raises:
        InputError: there is no such column.
    """
    names = [str(name) for name in table.frame.columns]
    option = f"--{role.replace('_', '-')}"
    if given is not None:
        if given not in names:
            near = suggest(given, map(_one_line, names))
            raise InputError(f"{table.source} has no column {given!r} for {option}", allowed=near, setting=role)
        return given
    looked_for = USUAL_COLUMNS.get(role, ()) if usual is None else usual
    found = next((name for name in (_present(names, name) for name in looked_for) if name is not None), None)
    if found is None and required:
        raise InputError(
            f"{table.source} has no column with a usual name for {option} ({', '.join(looked_for)})",
            f"name one with {option}: {_listed(names)}",
        )
    return found


def check_columns(source: str, given: Mapping[str, str]) -> None:
    """Refuse a file that is not there, and columns named by role that it lacks.

    Columns inside columns of dictionaries, and tables that are not files, are checked when they are read.
    """
    if source.startswith(("hub:", "builtin:")):
        return
    path, _ = table_file(source)
    wanted = {role: name for role, name in given.items() if name != NO_COLUMN and "." not in name}
    # A row of json may have a column that the rows before it lack.
    for limit in (_FIRST_ROWS, None) if wanted else ():
        table = read_table(str(path), limit=limit)
        if set(wanted.values()) <= {str(name) for name in table.frame.columns}:
            return
    for role, name in wanted.items():
        find_column(replace(table, source=source), role, name)


def find_text_columns(table: Table, text: str | None = None, text_pair: str | None = None) -> tuple[str, str | None]:
    """Return the columns of the text and, for text pairs, of the second text.

    The pair of a text column is its usual partner (`USUAL_PARTNERS`) or a column named `text_pair`, whether the text
    column was given or found; `text_pair="-"` asks for no pair. A table with both `question` and `sentence` (QNLI)
    holds pairs of the two, in this order.

    Raises:
        InputError: a named column is not there, none is found, or both are the same.
    """
    names = [str(name) for name in table.frame.columns]
    pair = None if text_pair in (None, NO_COLUMN) else find_column(table, "text_pair", text_pair)
    if text is None:
        usual = [name for name in USUAL_COLUMNS["text"] if pair is None or name != pair.lower()]
        if text_pair != NO_COLUMN and _present(names, "question") and _present(names, "sentence"):
            usual = [name for name in usual if name != "sentence"]
    else:
        usual = None
    column = find_column(table, "text", text, usual)
    if text_pair is None:
        partner = USUAL_PARTNERS.get(column.lower())
        pair = (_present(names, partner) if partner else None) or _present(names, "text_pair")
        pair = None if pair == column else pair
    elif pair == column:
        raise InputError(f"--text and --text-pair both name the column {column!r}", "name two, or --text-pair -")
    return column, pair


def is_missing(cell: object) -> bool:
    """Return whether a cell holds nothing."""
    return cell is None or bool(cell != cell)  # NaN alone differs from itself


def check_text(text: object, table: Table, column: str, row: int) -> str:
    """Return a cell's text (or one of its texts), checked so that a tokenizer can take it.

    Raises:
        InputError: it is not text, holds half of a surrogate pair, or is longer than a million characters.
    """
    where = f"{table.source}, column {column!r}, row {row} (counted from 0)"
    if not isinstance(text, str):
        raise InputError(f"{where} holds {type(text).__name__} {str(text)[:40]!r}, not text", "name a column of text")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"{where} holds half of a surrogate pair, which is no text", "correct the escape") from error
    if len(text) > _LONGEST_TEXT:
        raise InputError(
            f"{where} holds a text of {len(text):,} characters",
            f"at most {_LONGEST_TEXT:,} are read: make several rows of it",
        )
    return text


def _present(names: Sequence[str], wanted: str) -> str | None:
    """Return the first column whose name is `wanted` in any case."""
    return next((name for name in names if name.lower() == wanted.lower()), None)


def _one_line(name: str) -> str:
    return name if name.isprintable() and 0 < len(name) <= 80 else repr(name[:80])


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(_one_line, names[:_MOST_NAMES])) + (", ..." if len(names) > _MOST_NAMES else "")


def _rows_sha256(frame: pd.DataFrame) -> str:
    """Hash column names and rows, each a line of JSON, so that equal content has one hash wherever it came from."""
    digest = hashlib.sha256(json.dumps([str(name) for name in frame.columns]).encode())
    for row in frame.itertuples(index=False, name=None):
        digest.update(b"\n" + json.dumps(row, default=repr).encode())
    return digest.hexdigest()


def _read_builtin(source: str) -> tuple[pd.DataFrame, str]:
    import anglekit_data

    name, _, split = source.removeprefix("builtin:").partition(":")
    frame = anglekit_data.load(name, split or "validation")
    frame = frame.astype(object).where(frame.notna(), None)
    return frame, _rows_sha256(frame)


def _read_hub(source: str) -> tuple[pd.DataFrame, str]:
    match = _HUB.fullmatch(source)
    if match is None:
        raise InputError(
            f"{source!r} is not hub:NAME[/CONFIG]:SPLIT, for example hub:nyu-mll/glue/mnli:validation_matched"
        )
    rows = _load_hub(source, match["name"], match["split"])
    table = rows.with_format("arrow")[:]
    frame = object_frame(columns_from_arrow([table], source, table.schema))
    return frame, _rows_sha256(frame)


def _hub_candidates(name: str) -> list[tuple[str, str | None]]:
    """Return the (data set, configuration) readings of NAME[/CONFIG], the likeliest first."""
    parent, _, last = name.rpartition("/")
    if Path(name).is_dir():
        return [(name, None)]
    if parent and Path(parent).is_dir():
        return [(parent, last)]
    if name.count("/") == 1:
        return [(name, None), (parent, last)]
    return [(parent, last) if parent else (name, None)]


def _load_hub(source: str, name: str, split: str) -> Any:  # noqa: ANN401 - datasets has no types
    try:
        import datasets
    except ImportError as error:
        raise InputError(f"{source} needs the `datasets` package", "install it: pip install 'anglekit[hub]'") from error
    problem: Exception | None = None
    for path, config in _hub_candidates(name):
        try:
            if (Path(path) / "state.json").is_file() or (Path(path) / "dataset_dict.json").is_file():
                return _saved_split(source, datasets.load_from_disk(path), split)
            return datasets.load_dataset(path, config, split=split)
        except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
            # The first reading's complaint is the one to show; a second reading may still succeed.
            problem = problem or error
    first_line = (str(problem).splitlines() or [type(problem).__name__])[0]
    if isinstance(problem, ConnectionError):
        raise RunError(f"{source}: {first_line}; give a local file or directory, or try again online") from problem
    raise InputError(f"{source} cannot be loaded: {first_line}") from problem


def _saved_split(source: str, saved: Any, split: str) -> Any:  # noqa: ANN401 - datasets has no types
    """Return a split of what `save_to_disk` wrote: splits by name, or one data set that is its own only split."""
    if not isinstance(saved, dict):
        return saved
    if split not in saved:
        raise InputError(f"{source} has no split {split!r}", allowed=suggest(split, saved))
    return saved[split]
