from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from anglekit.distillation.settings import DataSettings
from anglekit.distillation.tasks.registry import TASKS
from anglekit.errors import InputError
from anglekit.probes.conversations import templated
from anglekit.probes.data import read_probe
from anglekit.tables.columns import find_column, find_text_columns
from anglekit.tables.read import read_table
from anglekit.tables.shapes import SHAPES, as_known_shape, shape_of
from anglekit.tables.table import Table, table_of_frame
from tests.tables.published_shapes import PUBLISHED, Published

PAGE = Path(__file__).parents[2] / "docs" / "pages" / "tables.md"


def outcome(one: Published, folder: Path) -> str:
    """Return whether a published table is read right, refused in words, or wrong: what came instead."""
    path = folder / one.file
    one.write(path)
    try:
        read = read_probe(str(path)) if one.task == "probe" else TASKS[one.task].read(str(path))
    except InputError as error:
        return "refused" if not one.read and one.says in str(error) else f"wrong: {error}"
    if not one.read:
        return f"wrong: read as {read}"
    found = {name: getattr(read, name) for name in one.read}
    return "right" if found == one.read else f"wrong: {found}"


def test_published_tables_are_read_right_or_refused_in_words(tmp_path):
    outcomes = {one.name: outcome(one, tmp_path) for one in PUBLISHED}
    assert {name: told for name, told in outcomes.items() if told.startswith("wrong")} == {}
    assert len(outcomes) == len(PUBLISHED) >= 40
    assert list(outcomes.values()).count("right") >= 36
    # The page of the documentation says the same of each.
    rows = re.findall(r"^\| ([^|]+?) \| `[^|]+` \| [^|]+ \| (read right|refused) \|$", PAGE.read_text(), re.MULTILINE)
    told = {"right": "read right", "refused": "refused"}
    assert dict(rows) == {name: told[found] for name, found in outcomes.items()}


def test_a_wrong_reading_would_be_noticed(tmp_path):
    one = next(one for one in PUBLISHED if one.name == "Alpaca")
    assert outcome(replace(one, read={"prompts": ("", "1 and 2")}), tmp_path).startswith("wrong")
    assert outcome(replace(one, read={}), tmp_path).startswith("wrong")


def table_with(**columns: list[object]) -> Table:
    return table_of_frame("rows.jsonl", pd.DataFrame(columns, dtype=object))


def test_every_shape_is_its_own():
    for shape in SHAPES:
        assert shape_of(shape.needs) is shape, shape.name
        assert {"text"} <= shape.roles.keys() <= {"text", "text_pair", "label", "target", "choices"}


def test_two_candidates_are_a_question():
    with pytest.raises(InputError, match=r"2 columns that may be --text by their names: sentence, review; .* --text "):
        find_text_columns(table_with(sentence=["a"], review=["b"]))
    assert find_text_columns(table_with(text=["a"], sentence=["b"])) == ("text", None), "the option's own name"
    assert find_column(table_with(text=["a"], label=[1], category=["x"]), "label", None) == "label"
    assert find_column(table_with(text=["a"], label=[1], score=[0.2]), "label", None) == "label"
    assert find_text_columns(table_with(text=["a"], sentence=["b"]), text="sentence") == ("sentence", None)


def test_a_column_that_only_its_name_makes_a_text_is_a_question():
    names = ["wikipedia", "gutenberg"] * 50
    with pytest.raises(InputError, match=r"'source'.*100 rows of it hold 2 different texts, such as 'wikipedia'"):
        find_column(table_with(source=names), "source", None, ("source",))
    assert find_column(table_with(source=names), "source", "source") == "source"
    assert find_column(table_with(source=[f"text {n}" for n in range(100)]), "source", None, ("source",)) == "source"


def test_named_columns_are_taken_as_they_are(tmp_path):
    path = tmp_path / "alpaca.json"
    path.write_text(json.dumps([{"instruction": "Add.", "input": "1 and 2", "output": "3"}]))
    read = TASKS["completion"].read(str(path), DataSettings(prompt="input", completion="output"))
    assert read.prompts == ("1 and 2",)
    assert read.columns == ("input", "output")
    assert read.notes == ()


def test_what_was_recognised_is_noted_and_recorded(tmp_path):
    path = tmp_path / "alpaca.json"
    path.write_text(json.dumps([{"instruction": "Add.", "input": "1 and 2", "output": "3"}]))
    known = TASKS["completion"].read(str(path)).provenance()
    assert known["columns"] == ["instruction + input", "output"]
    assert known["notes"] == [f"{path} is of a known shape: Alpaca"]
    with pytest.raises(InputError, match="take --task completion"):
        TASKS["language-model"].read(str(path))


def test_rows_that_do_not_hold_what_their_shape_says_are_named(tmp_path):
    path = tmp_path / "x.jsonl"
    good = {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}
    for bad, says in (
        ([{"from": "nobody", "value": "a"}], "turn 0 of conversations holds"),
        ("text", "not a list"),
        ([{"from": "human", "value": None}], "give each a role"),
    ):
        path.write_text(json.dumps(good) + "\n" + json.dumps({"conversations": bad}))
        with pytest.raises(
            InputError, match=re.escape(f"{path}, row 1 (counted from 0), of the shape of conv")
        ) as caught:
            as_known_shape(read_table(str(path)))
        assert says in str(caught.value)


def test_rows_made_of_one_row_are_named_by_it(tmp_path):
    path = tmp_path / "x.jsonl"
    story = {"story": "s", "questions": ["q", "r"], "answers": {"input_text": ["a", "b"]}}
    path.write_text(f"{json.dumps(story)}\n" * 2)
    table = as_known_shape(read_table(str(path)))
    assert len(table) == 4
    assert [table.file_row(row)[1] for row in range(4)] == [0, 0, 1, 1]


class Templated:
    """What a tokenizer is to `templated`."""

    bos_token = "<s>"
    chat_template = "one"

    def apply_chat_template(self, messages, tokenize, add_generation_prompt=False):
        assert not tokenize
        if messages[0]["role"] != "user":
            raise ValueError("the first must be the user")
        turns = "".join(f"<{one['role']}>{one['content'].strip()}</>" for one in messages)
        return f"<s>{turns}" + ("<assistant>" if add_generation_prompt else "")


def test_conversations_follow_the_chat_template():
    messages = [{"role": "user", "content": "Hello"}]
    assert templated(Templated(), messages, "Hi!") == ("<user>Hello</><assistant>", "Hi!")
    assert templated(Templated(), messages, " Hi! ") == ("<user>Hello</><assistant>", " Hi! ")
    with pytest.raises(InputError, match="refuses a conversation: the first must be the user"):
        templated(Templated(), [{"role": "system", "content": "x"}], "Hi!")
    plain = Templated()
    plain.chat_template = None
    assert templated(plain, messages, "Hi!") == ("User: Hello\n\nAssistant:", "Hi!")
