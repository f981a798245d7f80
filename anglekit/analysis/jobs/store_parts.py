"""State stores of separate jobs, joined to the store that one job would have written."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import msgspec

from anglekit.analysis.jobs.extract import put_in_place, rounding_of_files
from anglekit.analysis.jobs.unfinished import unfinished_directory
from anglekit.errors import InputError, RunError
from anglekit.runtime.files import check_replaceable, write_json
from anglekit.runtime.locks import DirectoryLock
from anglekit.states.store import MODEL_DIRECTORY, Rounding, StateStore, StoreDocument
from anglekit.vocabulary import STORE_FILE

_LOCK: Final = "lock"


def merge_stores(parts: Sequence[str | Path], out: str | Path, *, overwrite: bool = False) -> StateStore:
    """Join what jobs wrote with `extract_states(part=...)`; the files are linked where the disk can, else copied.

    Args:
        parts: the directories, every part once, in any order.
        out: the directory of the whole; it appears whole or not at all.
        overwrite: replace a store that is there.

    Raises:
        InputError: a part is damaged, missing, there twice, or of another store; `out` exists.
        RunError: it cannot be written.
    """
    out = Path(out)
    check_replaceable(out, STORE_FILE, overwrite=overwrite)
    stores = [StateStore(part) for part in parts]
    _check_parts(stores)
    unfinished = unfinished_directory(out)
    with ExitStack() as stack:
        stack.enter_context(DirectoryLock(unfinished, _LOCK, holder="extraction"))
        if others := [entry.name for entry in unfinished.iterdir() if entry.name != _LOCK]:
            raise InputError(f"{unfinished} holds {others[0]!r} of another run", "remove it, or name another output")
        try:
            records = [(record, store) for store in stores for record in store.document.shards]
            records.sort(key=lambda each: each[0].file)
            for record, store in records:
                _link(store.directory / record.file, unfinished / record.file)
            shutil.copytree(stores[0].directory / MODEL_DIRECTORY, unfinished / MODEL_DIRECTORY)
        except OSError as error:
            raise RunError(f"cannot write {unfinished}: {error.strerror or error}") from error
        document = msgspec.structs.replace(
            stores[0].document,
            shards=[record for record, _ in records],
            rounding=rounding_of_files(unfinished / record.file for record, _ in records),
            part=None,
            plan_sha256=None,
        )
        write_json(unfinished / STORE_FILE, document)
    put_in_place(unfinished, out)
    return StateStore(out)


def _check_parts(stores: Sequence[StateStore]) -> None:
    """Check that these are all parts of one store."""
    wanted = _plain(stores[0].document)
    numbers: dict[int, StateStore] = {}
    for store in stores:
        if store.document.part is None:
            raise InputError(f"{store.directory} is a whole store", "give what anglekit extract --shard wrote")
        for name, value in _plain(store.document).items():
            if value != wanted[name]:
                raise InputError(
                    f"{store.directory} and {stores[0].directory} are parts of unlike stores ({name} differs)",
                    "extract all parts with the same model, data and settings",
                )
        number, of = store.document.part
        if number in numbers:
            raise InputError(
                f"{store.directory} and {numbers[number].directory} are both part {number}/{of}", "give each once"
            )
        numbers[number] = store
    of = (stores[0].document.part or (1, 1))[1]
    missing = [f"{number}/{of}" for number in range(1, of + 1) if number not in numbers]
    if missing:
        raise InputError(f"part {', '.join(missing)} is missing", f"give all {of}")


def _plain(document: StoreDocument) -> dict[str, object]:
    """Return what all parts of a store have in common."""
    common = msgspec.structs.replace(
        document,
        shards=[],
        rounding=Rounding(),
        packages={},
        part=None if document.part is None else (0, document.part[1]),
    )
    found: dict[str, object] = msgspec.to_builtins(common)
    return found


def _link(source: Path, target: Path) -> None:
    """Give a file a second name; on another disk copy it."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
