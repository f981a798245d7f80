"""Data sets of the hub, and what `datasets` saved, -> tables."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from anglekit.errors import InputError, RunError, suggest
from anglekit.tables.arrow import rows_from_arrow
from anglekit.tables.kept_rows import KeptRows
from anglekit.tables.sources import SavedDataset
from anglekit.tables.table import Table, with_sha256

# A split may end in a slice, `train[:100]`; NAME may be a path with colons.
_HUB = re.compile(r"hub:(?P<name>.+):(?P<split>[^:/\[\]]+(?:\[[^\]]*\])?)")


_ROWS_AT_ONCE = 4096


def read_hub(source: str) -> Table:
    """Read `hub:NAME[/CONFIG]:SPLIT`; see `read_table`.

    Raises:
        InputError: it is misspelt or absent, or `datasets` is not installed.
        RunError: the hub cannot be reached.
    """
    match = _HUB.fullmatch(source)
    if match is None:
        raise InputError(
            f"{source!r} is not hub:NAME[/CONFIG]:SPLIT, for example hub:nyu-mll/glue/mnli:validation_matched"
        )
    return _table(source, _load_hub(source, match["name"], match["split"]))


def read_saved(saved: SavedDataset) -> Table:
    """Read a directory that `Dataset.save_to_disk` wrote.

    Raises:
        InputError: it is damaged, or `datasets` is not installed.
    """
    datasets = _datasets(saved.source)
    try:
        rows = datasets.load_from_disk(str(saved.path))
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"{saved.source} cannot be loaded: {first}", "save the data set again") from error
    return _table(saved.source, rows)


def _table(source: str, rows: Any) -> Table:  # noqa: ANN401 - datasets has no types
    table = rows.with_format("arrow")[:]
    store = KeptRows(source)
    for piece in rows_from_arrow(table.to_batches(max_chunksize=_ROWS_AT_ONCE), source, table.schema):
        store.add(piece)
    # The classes of a column of lists are those of what the lists hold.
    kinds = {name: getattr(feature, "feature", feature) for name, feature in (rows.features or {}).items()}
    names = {
        name: tuple(kind.names) for name, kind in kinds.items() if type(kind).__name__ == "ClassLabel" and kind.names
    }
    return with_sha256(Table(source, store, "", class_names=names))


def _datasets(source: str) -> Any:  # noqa: ANN401 - datasets has no types
    try:
        import datasets
    except ImportError as error:
        raise InputError(f"{source} needs the `datasets` package", "install it: pip install 'anglekit[hub]'") from error
    return datasets


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
    datasets = _datasets(source)
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
