"""`anglekit models`: the table, its filters and forms, one type in words, and unknown names."""

import csv
import json

import pytest
import typer
from typer.testing import CliRunner

from anglekit.errors import InputError
from anglekit.models.supported import COLUMNS, supported_types
from anglekit_cli.commands.models import models


def run(*arguments):
    app = typer.Typer()
    app.command()(models)
    return CliRunner().invoke(app, list(arguments))


def types_of(result):
    return [line.split()[0] for line in result.output.splitlines()[3:]]


def test_the_table_begins_with_its_counts_and_names_every_type():
    result = run()
    assert result.exit_code == 0
    first = result.output.splitlines()[0]
    right = sum(found.states == "right" for found in supported_types().values())
    assert first.startswith(f"{len(supported_types())} types: states {right} right")
    assert "(transformers 5." in first
    assert types_of(result) == list(supported_types())


@pytest.mark.parametrize(
    ("streams", "kept", "left"), [("encoder", "bert", "gpt2"), ("decoder", "gpt2", "t5"), ("both", "t5", "bert")]
)
def test_types_can_be_chosen_by_their_streams(streams, kept, left):
    names = types_of(run("--streams", streams))
    assert kept in names
    assert left not in names


def test_types_can_be_chosen_by_what_was_found():
    students = types_of(run("--distillable"))
    assert "bert" in students
    assert "albert" not in students
    refused = types_of(run("--states", "refused"))
    assert "albert" in refused
    assert "bert" not in refused


def test_every_form_holds_every_column():
    rows = list(csv.DictReader(run("--format", "csv").output.splitlines()[1:]))
    assert tuple(rows[0]) == COLUMNS
    assert len(rows) == len(supported_types())
    markdown = run("--format", "markdown", "--streams", "both").output.splitlines()
    assert markdown[2].count("|") == len(COLUMNS) + 1
    document = json.loads(run("--json", "--streams", "both").output)
    assert [row["type"] for row in document["types"]] == types_of(run("--streams", "both"))
    assert sum(document["counts"].values()) == len(document["types"])


def test_one_type_is_told_in_words():
    words = run("gpt2").output
    assert words.startswith("gpt2: analysed")
    assert "decoder: blocks in `h`, behind the last block the norm `ln_f`" in words
    assert "Students: copied from the teacher's blocks, or at random." in words
    assert json.loads(run("gpt2", "--json").output)["final_norm"] == "ln_f"
    assert "has no list of 4 blocks in its encoder" in run("albert").output


def test_every_type_can_be_told_in_words():
    for name, found in supported_types().items():
        words = run(name).output
        assert words.startswith(f"{name}: ")
        assert all(path in words for path in found.blocks)
        assert ("hidden_states" in words) == bool(found.streams)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("gtp2",), "nearest: gpt2"),
        (("--streams", "encoders"), "did you mean 'encoder'"),
        (("--states", "wright"), "did you mean 'right'"),
        (("--format", "latex"), "terminal, markdown, csv"),
    ],
)
def test_an_unknown_name_is_refused(arguments, words):
    result = run(*arguments)
    assert isinstance(result.exception, InputError)
    assert words in str(result.exception)


def test_a_filter_that_leaves_nothing_says_so():
    assert run("--streams", "both", "--states", "not built").output.startswith("0 types")
