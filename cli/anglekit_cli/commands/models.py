"""`anglekit models`: which model types are supported, how, and what was checked."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Annotated

import typer

from anglekit.vocabulary import BOTH, STREAMS
from anglekit_cli import options

if TYPE_CHECKING:
    from anglekit.models.supported import SupportedType

EPILOG = "Example: anglekit models qwen3"

_FORMATS = ("terminal", "markdown", "csv")
_STATES = ("right", "refused", "wrong", "not built")
_SHOWN = ("type", "states", "streams", "blocks", "final_norm", "padding", "students")
_STATES_IN_WORDS = {
    "right": "analysed: its states and angles were those of the model itself",
    "refused": "refused, in one line that says why",
    "wrong": "not to be trusted: the census found other numbers than the model's",
    "not built": "not tried: no small model of it could be built",
}

_USUAL = "`hidden_states`: what enters block 0, each block's output but the last, and the last hidden state."


def models(
    kind: Annotated[
        str | None, typer.Argument(metavar="[TYPE]", help="One type, as `model_type` in a config.json, in words.")
    ] = None,
    streams: Annotated[
        str | None, typer.Option(help="Only types with these streams: encoder, decoder or both.", metavar="STREAMS")
    ] = None,
    states: Annotated[
        str | None, typer.Option(help=f"Only types whose states are {', '.join(_STATES)}.", metavar="WORD")
    ] = None,
    distillable: Annotated[
        bool, typer.Option("--distillable", help="Only types of which a student can be made, copied or at random.")
    ] = False,
    form: Annotated[
        str, typer.Option("--format", help="What to print: terminal, markdown or csv (both with every column).")
    ] = "terminal",
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as json.")] = False,
) -> None:
    """Say which model types are supported, and how.

    The table was made by a census: a small model of every text type of one transformers version was built, and what
    anglekit says of it was compared with what the model does. A type that is not in it may work as well: each model is
    checked when it is loaded.
    """
    options.check_names("--streams", [streams] if streams is not None else (), (*STREAMS, BOTH))
    options.check_names("--states", [states] if states is not None else (), _STATES)
    options.check_form(form, _FORMATS, as_json=as_json)
    if kind is not None:
        chosen_by = {"--streams": streams is not None, "--states": states is not None, "--distillable": distillable}
        options.check_effects(chosen_by | {"--format": form != _FORMATS[0]}, f"came with one type, {kind}")

    from anglekit.display.tables import TextTable, aligned_text, markdown_table
    from anglekit.models.supported import census_versions, supported_type, supported_types, table_text

    if kind is not None:
        found = supported_type(kind)
        typer.echo(json.dumps(found.row(), indent=2) if as_json else _in_words(found, census_versions()))
        return
    chosen = {
        name: found
        for name, found in supported_types().items()
        if (streams is None or found.streams == (STREAMS if streams == BOTH else (streams,)))
        and (states is None or found.states == states)
        and (not distillable or found.students not in ("", "refused"))
    }
    if as_json:
        rows = [found.row() for found in chosen.values()]
        typer.echo(json.dumps({"versions": census_versions(), "counts": _counts(chosen), "types": rows}, indent=2))
    elif form == "csv":
        typer.echo(table_text(census_versions(), chosen), nl=False)
    else:
        columns = tuple(next(iter(chosen.values())).row()) if chosen and form == "markdown" else _SHOWN
        cells = tuple(tuple(found.row()[column] for column in columns) for found in chosen.values())
        table = TextTable("", tuple(column.replace("_", " ") for column in columns), cells)
        typer.echo(f"{_counted(chosen)} ({census_versions()})\n")
        typer.echo(aligned_text(table) if form == "terminal" else markdown_table(table))


def _counts(types: dict[str, SupportedType]) -> dict[str, int]:
    return {state: number for state, number in Counter(found.states for found in types.values()).items() if state}


def _counted(types: dict[str, SupportedType]) -> str:
    from anglekit.display.counts import counted

    counts = _counts(types)
    parts = [f"{counts[state]} {state}" for state in _STATES if state in counts]
    ways = Counter(found.students for found in types.values())
    made = sum(number for way, number in ways.items() if way not in ("", "refused"))
    return f"{counted(len(types), 'type')}: states {', '.join(parts) or 'unknown'}; students of {made}"


def _in_words(found: SupportedType, versions: str) -> str:
    lines = [f"{found.type}: {_STATES_IN_WORDS.get(found.states, 'not tried')} ({versions})."]
    for stream, blocks, norm, last in zip(
        found.streams, found.blocks, found.final_norm, found.last_hidden_state, strict=True
    ):
        behind = "no norm behind the last block" if norm == "none" else f"behind the last block the norm `{norm}`"
        ends = {
            "last block": "the last block's output",
            "final norm": "the final norm's output",
            "other": "neither the last block's output nor a norm's of it",
        }[last]
        lines.append(f"{stream}: blocks in `{blocks}`, {behind}; `last_hidden_state` is {ends}.")
    if found.streams and "hidden_states" not in found.notes:
        lines.append(_USUAL)
    padding = {
        "independent": "A text's states are the same alone and in a padded batch.",
        "dependent": "A text's states depend on the padding around it: only texts of one length go into a batch.",
    }
    students = {
        "copied and random": "Students: copied from the teacher's blocks, or at random.",
        "copied": "Students: copied from the teacher's blocks; not at random.",
        "random": "Students: at random; not copied.",
        "refused": "Students: none.",
    }
    lines += [words[cell] for words, cell in ((padding, found.padding), (students, found.students)) if cell in words]
    lines += [f"- {note}" for note in found.notes.split("; ") if note]
    return "\n".join(lines)
