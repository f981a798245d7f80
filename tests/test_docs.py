"""What the pages take from the code: every public name and every command is on them."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

import anglekit
from anglekit.readings import READING_ITEMS
from anglekit_cli.main import app

DOCS = Path(__file__).resolve().parents[1] / "docs"


@pytest.fixture(scope="module")
def generated():
    spec = importlib.util.spec_from_file_location("generated", DOCS / "generated.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_api_page_has_every_public_name(generated):
    page = generated.on_page_markdown((DOCS / "pages" / "api.md").read_text(encoding="utf-8"))
    named = [line.removeprefix("::: anglekit.") for line in page.splitlines() if line.startswith("::: ")]
    assert sorted(named) == anglekit.__all__
    # Of settings, what their declarations say.
    assert "| `warmup` | `0.0` | Steps, or below 1 the fraction of all steps. |" in page
    assert "<!-- names -->" not in page


def test_the_page_of_commands_has_every_command_in_groups(generated):
    page = generated.on_page_markdown((DOCS / "pages" / "commands.md").read_text(encoding="utf-8"))
    for command in app.registered_commands:
        assert f"Usage: anglekit {command.name or command.callback.__name__} " in page
    assert "\nStudent and matching:\n" in page


def test_the_page_of_readings_has_every_item(generated):
    page = generated.on_page_markdown((DOCS / "pages" / "readings.md").read_text(encoding="utf-8"))
    for item in READING_ITEMS.values():
        assert f"| {item.title} |" in page


def test_every_page_is_in_the_menu():
    menu = (DOCS / "mkdocs.yml").read_text(encoding="utf-8")
    assert all(f": {path.name}\n" in menu for path in (DOCS / "pages").glob("*.md"))
