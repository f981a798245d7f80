"""What a path names: one file of a table, several by a pattern, a folder of shards, or what `datasets` saved."""

from __future__ import annotations

import glob
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from anglekit.errors import InputError, suggest
from anglekit.runtime.files import near_path
from anglekit.tables.compression import COMPRESSIONS, without_compression

#: The kinds of tables, by suffix, in any case; text kinds may be compressed.
TEXT_KINDS: Final = (".jsonl", ".json", ".csv", ".tsv")
KINDS: Final = (*TEXT_KINDS, ".parquet")
_ALSO: Final = f"each text kind also with {', '.join(COMPRESSIONS)}"
# What `datasets` and the hub write beside the rows.
_BESIDE: Final = {"dataset_info.json", "dataset_infos.json", "state.json", "dataset_dict.json"}
_SHARD: Final = re.compile(r"[-_.]?(\d+)([-_.]of[-_.]\d+)?$")


@dataclass(frozen=True)
class TableFiles:
    """Files of one kind that are read one after another.

    Attributes:
        source: as it was asked for.
        paths: the files, in order.
        kind: their suffix, without that of a compression.
    """

    source: str
    paths: tuple[Path, ...]
    kind: str

    def named(self, path: Path) -> str:
        """Return what messages call a file: as it was asked for where it is the only one."""
        return self.source if len(self.paths) == 1 else str(path)


@dataclass(frozen=True)
class SavedDataset:
    """A directory that `datasets.Dataset.save_to_disk` wrote."""

    source: str
    path: Path


def kind_of(path: Path) -> str:
    """Return the suffix that says of which kind a file is, in small letters."""
    return Path(without_compression(path.name)).suffix.lower()


def find_files(source: str) -> TableFiles | SavedDataset:
    """Return what lies at a path: a file, the files of a pattern (`*`, `?`, `[...]`), or those of a directory.

    Raises:
        InputError: nothing is there, it is of no kind that can be read, or it is more than one table.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        return _in_directory(source, path)
    if glob.has_magic(source) and not path.exists():
        found = [one for one in map(Path, glob.glob(str(path), recursive=True)) if one.is_file()]  # noqa: PTH207
        if not found:
            raise InputError(f"no file matches {source}", f"correct the pattern; files end in {', '.join(KINDS)}")
        return _of_one_kind(source, found)
    if (kind := kind_of(path)) not in KINDS or (kind not in TEXT_KINDS and path.suffix.lower() in COMPRESSIONS):
        near = suggest(kind or path.name, (*KINDS, "hub:NAME:SPLIT", "builtin:NAME"))
        raise InputError(f"{source} is not a kind of table that can be read", allowed=f"{near}; {_ALSO}")
    if not path.exists():
        nor = "" if path.parent.is_dir() else f" (nor does the directory {path.parent})"
        raise InputError(f"{source} does not exist{near_path(path) or nor}", f"give the path of a {kind} file")
    if not path.is_file():
        raise InputError(f"{source} is not a regular file", f"give the path of one {', '.join(KINDS)} file")
    return TableFiles(source, (path,), kind)


def _in_directory(source: str, path: Path) -> TableFiles | SavedDataset:
    if (path / "state.json").is_file():
        return SavedDataset(source, path)
    if (path / "dataset_dict.json").is_file():
        splits = _splits(path)
        raise InputError(
            f"{source} holds the splits {', '.join(splits)}", f"give one of them: {path / (splits or ('train',))[0]}"
        )
    names = [
        one for one in path.iterdir() if one.is_file() and one.name not in _BESIDE and not one.name.startswith(".")
    ]
    found = [one for one in names if kind_of(one) in KINDS]
    if not found:
        if (path / "data").is_dir():
            return _in_directory(source, path / "data")
        raise InputError(
            f"{source} is a directory without a table",
            f"give a file, or a folder of files that end in {', '.join(KINDS)}",
        )
    stems = sorted({_SHARD.sub("", Path(without_compression(one.name)).stem) for one in found})
    if len(stems) > 1:
        raise InputError(
            f"{source} holds more than one table: {', '.join(stems[:8])}", f"give one, such as '{path / stems[0]}*'"
        )
    return _of_one_kind(source, found)


def _of_one_kind(source: str, found: Sequence[Path]) -> TableFiles:
    kinds = sorted({kind_of(one) for one in found})
    unknown = [one for one in found if kind_of(one) not in KINDS]
    if unknown:
        raise InputError(
            f"{source} takes in {unknown[0]}, which is not a kind of table that can be read",
            allowed=suggest(kind_of(unknown[0]) or unknown[0].name, KINDS),
        )
    if len(kinds) > 1:
        raise InputError(f"{source} takes in files of several kinds: {', '.join(kinds)}", "give those of one kind")
    return TableFiles(source, tuple(sorted(found, key=_in_order)), kinds[0])


def _in_order(path: Path) -> list[tuple[bool, int, str]]:
    """Return a key by which `part-2` comes before `part-10`."""
    parts = re.split(r"(\d+)", str(path))
    return [(not part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in parts]


def _splits(path: Path) -> tuple[str, ...]:
    try:
        held = json.loads((path / "dataset_dict.json").read_text(encoding="utf-8"))
        return tuple(map(str, held["splits"]))
    except (OSError, ValueError, KeyError, TypeError):
        return tuple(sorted(one.name for one in path.iterdir() if (one / "state.json").is_file()))
