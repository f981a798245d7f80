"""What the pages take from the code: mkdocs calls this for each page, and puts names and commands in place of marks."""

from __future__ import annotations

import os
from dataclasses import fields, is_dataclass
from typing import Any, Final

NAMES, COMMANDS, READINGS = "<!-- names -->", "<!-- commands -->", "<!-- readings -->"
#: The rooms of the house in the order of the page.
_TITLES: Final = {
    "analysis": "Looking at a teacher from its students",
    "probes": "Texts",
    "tables": "Tables",
    "models": "Models",
    "states": "Hidden states",
    "geometry": "Angles",
    "results": "Results",
    "plots": "Figures",
    "comparison": "Comparing",
    "distillation": "Making students",
    "parameter_space": "Gradients",
    "advice": "Advice",
    "losses": "Losses",
    "recipes": "Recipes",
    "errors": "Errors",
}


def on_page_markdown(markdown: str, **_: object) -> str:
    """Return a page's text with what is generated in place of its mark."""
    if NAMES in markdown:
        markdown = markdown.replace(NAMES, names_page())
    if READINGS in markdown:
        markdown = markdown.replace(READINGS, readings_table())
    return markdown.replace(COMMANDS, commands_page()) if COMMANDS in markdown else markdown


def names_page() -> str:
    """Return a section for each room, with each public name's docstring, and a table of settings where it has some."""
    import anglekit

    homes: dict[str, list[str]] = {room: [] for room in _TITLES}
    for name in anglekit.__all__:
        value = getattr(anglekit, name)
        home = getattr(value, "__module__", None) or value.__name__
        homes[home.split(".")[1]].append(name)
    parts = []
    for room, names in homes.items():
        if names:
            parts.append(f"## {_TITLES[room]}")
        for name in names:
            parts.append(f"::: anglekit.{name}")
            if table := _settings(getattr(anglekit, name)):
                # The settings' help is added to the docstring when the class is made, which nobody sees who only reads.
                parts += ["    options:\n      members: false", table]
    return "\n\n".join(parts).replace("\n\n    options:", "\n    options:")


def readings_table() -> str:
    """Return the table of both readings, a row an item."""
    from anglekit.readings import reading_rows

    rows = [f"| {' | '.join(map(_cell, row))} |" for row in reading_rows()]
    return "\n".join(["| item | official | corrected | where it is read off |", "|---|---|---|---|", *rows])


def _settings(kind: Any) -> str:  # noqa: ANN401 - any public name
    from anglekit.settings_fields import declarations

    if not is_dataclass(kind) or not isinstance(kind, type) or not declarations(kind):
        return ""
    defaults = {one.name: one.default for one in fields(kind)}
    rows = [
        f"| `{name}` | {declared.shown or f'`{defaults[name]!r}`'} | {_cell(declared.help)} |"
        for name, declared in declarations(kind).items()
    ]
    return "\n".join(["| setting | default | |", "|---|---|---|", *rows])


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


def commands_page() -> str:
    """Return each command's help, as the terminal shows it at 100 columns."""
    from typer.testing import CliRunner

    from anglekit_cli.main import app

    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "100"
    try:
        run = CliRunner()
        names = [each.name or getattr(each.callback, "__name__", "") for each in app.registered_commands]
        helps = {name: run.invoke(app, [name, "--help"], prog_name="anglekit").output for name in names}
    finally:
        if before is None:
            del os.environ["COLUMNS"]
        else:
            os.environ["COLUMNS"] = before
    return "\n\n".join(f"## anglekit {name}\n\n```text\n{text.strip()}\n```" for name, text in helps.items())
