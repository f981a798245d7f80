"""From what a census found of a type to its row of the shipped table."""

from __future__ import annotations

import re
import textwrap
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, Final

from anglekit.display.tables import TextTable, markdown_table
from anglekit.models.supported import COLUMNS, SupportedType
from anglekit.vocabulary import STREAMS

# One text's states alone and in a padded batch differ by rounding below this, in units of their size.
_INDEPENDENT: Final = 1e-3
_LAYOUTS: Final = {
    "length first": "blocks hand over (length, batch, width)",
    "length last": "blocks hand over (batch, width, length)",
    "padded behind": "blocks hand over positions behind the text's",
    "padded before": "blocks hand over positions before the text's",
    "other shape": "blocks hand over states of another shape",
}


def supported_row(row: Mapping[str, Any]) -> SupportedType:
    """Return the row of the shipped table for a row of the census."""
    truths = {stream: row["truth"][stream] for stream in STREAMS if stream in row["truth"]}
    said: Mapping[str, str] = row["verdicts"]
    return SupportedType(
        type=row["type"],
        states=_states(row),
        streams=tuple(truths),
        blocks=tuple(truth["blocks"] for truth in truths.values()),
        final_norm=tuple(truth["final_norm"] or "none" for truth in truths.values()),
        last_hidden_state=tuple(_last(truth) for truth in truths.values()),
        padding=_padding(list(truths.values())),
        students=_students(said),
        notes="; ".join(_notes(row, truths, said)),
    )


def page(versions: str, types: Mapping[str, SupportedType]) -> str:
    """Return the page of documentation that shows a table."""
    ordered = [types[name] for name in sorted(types)]
    counts = Counter(found.states for found in ordered)
    numbers = ", ".join(
        f"{counts[state]} {state}" for state in ("right", "refused", "wrong", "not built") if counts[state]
    )
    students = sum(found.students not in ("", "refused") for found in ordered)
    rows = tuple(tuple(found.row().values()) for found in ordered)
    cells = TextTable("", tuple(name.replace("_", " ") for name in COLUMNS), rows)
    return (
        f"# Model types\n\n{len(ordered)} text types, with {versions}: states {numbers}; students of {students}.\n\n"
        "Written by `make census`, which builds a small model of each type, runs it, and compares what anglekit says\n"
        "with what the model does. *states*: right where states and angles are the model's own; refused in one line\n"
        "where they cannot be; not built where no small model could be made (most need a library or an input beside\n"
        "text). *padding*: whether a text's states depend on the padding around it. *students*: which ways of making\n"
        "one were right, saved and read again. *notes*: why something is refused, and where `hidden_states` is not\n"
        "what it is in most types: what enters block 0, each block's output but the last, the last hidden state.\n\n"
        f"{markdown_table(cells)}\n"
    )


def _states(row: Mapping[str, Any]) -> str:
    if not row["model"]:
        return "not built"
    said = row["verdicts"].get("states", "")
    analysed = row["verdicts"].get("analysis", "right")
    if said == "right" and analysed == "right":
        return "right"
    return "refused" if "refused" in (said.partition(":")[0], analysed.partition(":")[0]) else "wrong"


def _last(truth: Mapping[str, Any]) -> str:
    if truth["last_is_block"]:
        return "last block"
    return "final norm" if truth["final_norm"] else "other"


def _padding(truths: list[Mapping[str, Any]]) -> str:
    if not truths or any(truth["layout"] == "other shape" for truth in truths):
        return ""
    return "independent" if max(truth["padding_error"] for truth in truths) <= _INDEPENDENT else "dependent"


def _students(said: Mapping[str, str]) -> str:
    ways = [word for word in ("copied", "random") if said.get(word) == "right"]
    if not ways or said.get("reloaded") != "right":
        return "refused" if "copied" in said else ""
    return " and ".join(ways)


def _notes(row: Mapping[str, Any], truths: Mapping[str, Any], said: Mapping[str, str]) -> Iterator[str]:
    for question in ("states", "analysis", "copied", "random", "reloaded"):
        kind, _, reason = said.get(question, "").partition(": ")
        if kind == "refused":
            yield f"{question} refused: {_short(reason)}"
            if question == "states":
                break
        elif kind in ("WRONG", "TRACEBACK"):
            yield f"{question} wrong: {_short(reason)}"
    whole, _, inner = row["problem"].partition(", but its ")
    if inner:
        yield f"only its {inner.removesuffix(' does')} reads text alone"
    elif whole:
        yield _short(whole)
    for stream, truth in truths.items():
        of = f"{stream}: " if len(truths) > 1 else ""
        if truth["repeated"]:
            yield f"{of}the {truth['depth']} blocks of the list run more than once each"
        if truth["layout"] in _LAYOUTS:
            yield f"{of}{_LAYOUTS[truth['layout']]}"
        for words in truth["hidden_states"]:
            yield f"{of}hidden_states: {words}" if "hidden_states" not in words else f"{of}{words}"


def _short(reason: str) -> str:
    """Return what was found, without the remedy, and without the paths of this run, which say nothing of the type."""
    found = " ".join(reason.split()).partition("; ")[0]
    plain = re.sub(r"\S*/tmp\S*/(teacher|student-\d+)'?", "the checkpoint", found)
    return textwrap.shorten(plain, 200, placeholder=" ...")
