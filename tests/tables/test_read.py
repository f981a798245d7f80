from __future__ import annotations

import csv
import hashlib
import json
import sys
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import anglekit_data
from anglekit.errors import InputError, RunError
from anglekit.tables.columns import NO_COLUMN, USUAL_COLUMNS, find_column, find_text_columns
from anglekit.tables.read import read_table
from anglekit.tables.table import Table

MOVIES = Path(__file__).parents[3] / "shared" / "data" / "movie_reviews_validation.tsv"
ROWS = [
    {"text": "plain", "label": "0"},
    {"text": 'a "quoted", word\tand tab', "label": "007"},
    {"text": "two\nlines", "label": "NA"},
    {"text": "", "label": "null"},
    {"text": "null", "label": ""},
]


def write_delimited(path: Path, rows: list[dict[str, str]], delimiter: str, encoding: str = "utf-8") -> Path:
    with path.open("w", newline="", encoding=encoding) as handle:
        writer = csv.DictWriter(handle, list(rows[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)
    return path


def refusal(source: Path | str) -> str:
    with pytest.raises(InputError) as caught:
        read_table(str(source))
    message = str(caught.value)
    assert "\n" not in message
    return message


def records(table: Table) -> list[dict[str, object]]:
    return table.frame.to_dict("records")


# --- reading -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("suffix", "delimiter"), [(".csv", ","), (".tsv", "\t"), (".CSV", ","), (".Tsv", "\t")])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_delimited_text_stays_as_it_was_written(tmp_path, suffix, delimiter, encoding):
    path = write_delimited(tmp_path / f"rows{suffix}", ROWS, delimiter, encoding)
    table = read_table(str(path))
    assert records(table) == ROWS
    assert table.source == str(path)
    assert table.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_pandas_would_have_lost_what_is_kept(tmp_path):
    # The control: the obvious reader turns these very cells into NaN and 7.
    path = write_delimited(tmp_path / "rows.csv", ROWS, ",")
    assert pd.read_csv(path)["label"].isna().any()
    assert list(read_table(str(path)).frame["label"]) == ["0", "007", "NA", "null", ""]


def test_jsonl_keeps_types_and_fills_absent_keys_with_none(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "a\\u2028b", "n": 1}\n\n{"text": "c", "extra": [1, 2]}\r\n', encoding="utf-8-sig")
    assert records(read_table(str(path))) == [
        {"text": "a\u2028b", "n": 1, "extra": None},
        {"text": "c", "n": None, "extra": [1, 2]},
    ]


def test_nested_objects_become_dotted_columns(tmp_path):
    rows = [{"translation": {"en": "yes", "ro": "da"}}, {"translation": {"en": "no", "ro": "nu"}}]
    jsonl = tmp_path / "rows.jsonl"
    jsonl.write_text("\n".join(map(json.dumps, rows)))
    parquet = tmp_path / "rows.parquet"
    pd.DataFrame(rows).to_parquet(parquet)
    expected = [{"translation.en": "yes", "translation.ro": "da"}, {"translation.en": "no", "translation.ro": "nu"}]
    assert records(read_table(str(jsonl))) == expected
    assert records(read_table(str(parquet))) == expected


def test_parquet_integers_beside_missing_values_stay_integers(tmp_path):
    path = tmp_path / "part=1"  # a directory name that must not become a column
    path.mkdir()
    frame = pd.DataFrame({"text": ["a", None, "c"], "label": pd.array([1, None, 3], dtype="Int64")})
    frame.to_parquet(path / "rows.PARQUET")
    table = read_table(str(path / "rows.PARQUET"))
    assert records(table) == [{"text": "a", "label": 1}, {"text": None, "label": None}, {"text": "c", "label": 3}]
    assert table.sha256 == hashlib.sha256((path / "rows.PARQUET").read_bytes()).hexdigest()


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_limit_keeps_the_first_rows_and_the_hash_of_all(tmp_path, suffix):
    path = tmp_path / f"rows{suffix}"
    frame = pd.DataFrame({"text": [f"row {n}" for n in range(9)]})
    {
        ".jsonl": lambda: frame.to_json(path, orient="records", lines=True),
        ".csv": lambda: frame.to_csv(path, index=False),
        ".parquet": lambda: frame.to_parquet(path, row_group_size=2),
    }[suffix]()
    whole, part = read_table(str(path)), read_table(str(path), limit=4)
    assert list(part.frame["text"]) == [f"row {n}" for n in range(4)]
    assert part.sha256 == whole.sha256
    assert len(read_table(str(path), limit=100).frame) == 9


def test_a_megabyte_field_is_read_and_the_csv_module_is_left_as_found(tmp_path):
    long = "x" * 3_000_000
    path = write_delimited(tmp_path / "rows.csv", [{"text": long}], ",")
    before = csv.field_size_limit()
    assert read_table(str(path)).frame["text"][0] == long
    assert csv.field_size_limit() == before


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.fixed_dictionaries(
            {
                name: st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)
                for name in "ab"
            }
        ),
        min_size=1,
        max_size=5,
    )
)
def test_whatever_csv_or_json_writes_comes_back(tmp_path, rows):
    for suffix, delimiter in ((".csv", ","), (".tsv", "\t")):
        assert records(read_table(str(write_delimited(tmp_path / f"x{suffix}", rows, delimiter)))) == rows
    path = tmp_path / "x.jsonl"
    path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")
    assert records(read_table(str(path))) == rows


def test_movie_reviews_are_read_whole():
    if not MOVIES.exists():
        pytest.skip(f"real data are absent: {MOVIES}")
    table = read_table(str(MOVIES))
    assert list(table.frame.columns) == ["sentence", "label", "score"]
    assert len(table.frame) == 1000
    assert find_text_columns(table) == ("sentence", None)
    assert find_column(table, "label", None) == "label"


# --- refusals ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("empty.jsonl", b"", "is empty"),
        ("blank.csv", b"\xef\xbb\xbf \r\n\n", "is empty"),
        ("header.csv", b"text,label\n", "has no rows"),
        ("binary.jsonl", b'{"text": "a"}\n\x00\x01', "binary, not text (a NUL byte at offset 14)"),
        ("latin.csv", "text\ncaf\xe9,\n".encode("latin-1"), "byte 0xe9 at offset 8 (line 2)"),
        ("cut.csv", b"text\nab\xc3", "byte 0xc3 at offset 7 (line 2)"),
        ("wide.csv", "text\na\n".encode("utf-16"), "is UTF-16"),
        ("ragged.csv", b"text,label\na,1\nb\n", "line 3: 1 fields where the header has 2"),
        ("long.tsv", b"text\tlabel\na\t1\t2\n", "line 2: 3 fields where the header has 2"),
        ("open.tsv", b'text\n"never closed\nb\n', "line 3: unexpected end of data"),
        ("junk.csv", b'text\n"a"b\n', "line 2: ',' expected after '\"'"),
        ("twice.csv", b"text,text\na,b\n", "two columns named 'text'"),
        ("bad.jsonl", b'{"a": 1}\n{"a": }\n', "line 2 is not JSON: Expecting value at column 7"),
        ("list.jsonl", b"[1, 2]\n", "line 1 holds a list, not an object"),
        ("flag.jsonl", b"true\n", "line 1 holds a boolean, not an object"),
        ("keys.jsonl", b'{"a": 1, "a": 2}\n', "the key 'a' appears twice"),
        ("deep.jsonl", b'{"a": ' + b"[" * 100_000, "line 1 cannot be read as JSON"),
        ("dots.jsonl", b'{"a": {"b": 1}, "a.b": 2}\n', "the key 'a.b' appears twice"),
        ("fake.parquet", b"text,label\n", "is not a readable parquet file"),
        ("zero.parquet", b"", "is not a readable parquet file"),
        ("rows.json", b"[]", "has no rows"),
        ("rows", b"[]", "allowed: .jsonl, .json, .csv, .tsv, .parquet, hub:NAME:SPLIT, builtin:NAME"),
    ],
)
def test_malformed_files_are_refused_in_one_line(tmp_path, name, content, says):
    path = tmp_path / name
    path.write_bytes(content)
    message = refusal(path)
    assert says in message
    assert name in message


def test_paths_that_hold_no_file_are_refused(tmp_path):
    (tmp_path / "probe.jsonl").write_text('{"text": "a"}\n')
    (tmp_path / "folder.csv").mkdir()
    assert f"did you mean '{tmp_path / 'probe.jsonl'}'?" in refusal(tmp_path / "prob.jsonl")
    assert "nor does the directory" in refusal(tmp_path / "absent" / "probe.jsonl")
    assert "is a directory" in refusal(tmp_path / "folder.csv")


def test_invalid_bytes_across_a_chunk_border_are_located(tmp_path):
    path = tmp_path / "x.csv"
    path.write_bytes(b"text\n" + b"a" * ((1 << 20) - 6) + b"\xe2\x82" + b"a")
    assert f"byte 0xe2 at offset {(1 << 20) - 1} (line 2)" in refusal(path)
    path.write_bytes(b"text\n" + b"a" * ((1 << 20) - 6) + b"\xe2\x82\xac")
    assert read_table(str(path)).frame["text"][0].endswith("\u20ac")


def test_parquet_with_repeated_columns_is_refused(tmp_path):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["t", "t"]), tmp_path / "t.parquet")
    assert "two columns named 't'" in refusal(tmp_path / "t.parquet")


@pytest.mark.parametrize("limit", [0, -3])
def test_a_limit_that_leaves_nothing_is_refused(tmp_path, limit):
    path = write_delimited(tmp_path / "rows.csv", ROWS, ",")
    with pytest.raises(InputError, match=f"a limit of {limit} rows"):
        read_table(str(path), limit=limit)


# --- hub and built-in --------------------------------------------------------------------------------------------


@pytest.fixture
def local_dataset(tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets", reason="the hub extra is not installed")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    folder = tmp_path / "reviews"
    folder.mkdir()
    (folder / "train.jsonl").write_text('{"text": "a", "label": 1}\n{"text": "b", "label": null}\n')
    return folder


def test_hub_reads_a_local_directory(local_dataset):
    table = read_table(f"hub:{local_dataset}:train")
    assert records(table) == [{"text": "a", "label": 1}, {"text": "b", "label": None}]
    assert records(read_table(f"hub:{local_dataset}:train[:1]")) == records(table)[:1]
    limited = read_table(f"hub:{local_dataset}:train", limit=1)
    assert len(limited.frame) == 1
    assert limited.sha256 == table.sha256


def test_hub_reads_a_configuration_of_a_local_directory(local_dataset):
    (local_dataset / "other.jsonl").write_text('{"text": "other"}\n')
    card = "---\nconfigs:\n- config_name: small\n  data_files:\n  - split: test\n    path: other.jsonl\n---\n"
    (local_dataset / "README.md").write_text(card)
    assert records(read_table(f"hub:{local_dataset}/small:test")) == [{"text": "other"}]
    assert "cannot be loaded" in refusal(f"hub:{local_dataset}/large:test")


def test_hub_reads_what_save_to_disk_wrote(local_dataset, tmp_path):
    import datasets

    rows = datasets.Dataset.from_dict({"text": ["x", "y"]})
    rows.save_to_disk(tmp_path / "one")
    datasets.DatasetDict({"test": rows}).save_to_disk(tmp_path / "many")
    assert read_table(f"hub:{tmp_path / 'one'}:train").sha256 == read_table(f"hub:{tmp_path / 'many'}:test").sha256
    assert "did you mean 'test'?" in refusal(f"hub:{tmp_path / 'many'}:tset")


def test_hub_refusals(local_dataset):
    assert "is not hub:NAME[/CONFIG]:SPLIT" in refusal("hub:glue")
    assert "cannot be loaded" in refusal(f"hub:{local_dataset}:validation")
    with pytest.raises(RunError, match="local file or directory") as caught:
        read_table("hub:nobody/nothing-here:train")
    assert "\n" not in str(caught.value)


def test_hub_without_its_extra_names_the_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    assert "pip install 'anglekit[hub]'" in refusal("hub:nyu-mll/glue/mnli:train")


@pytest.mark.parametrize(
    ("name", "readings"),
    [
        ("imdb", [("imdb", None)]),
        ("glue/mnli", [("glue/mnli", None), ("glue", "mnli")]),
        ("nyu-mll/glue/mnli", [("nyu-mll/glue", "mnli")]),
    ],
)
def test_hub_names_are_tried_in_the_documented_order(local_dataset, monkeypatch, name, readings):
    import datasets

    asked = []

    def load_dataset(path, config, split):
        asked.append((path, config))
        raise datasets.exceptions.DatasetNotFoundError("absent")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert "absent" in refusal(f"hub:{name}:train")
    assert asked == readings


def test_builtin_corpora_are_read():
    (name, *_) = anglekit_data.names()
    table = read_table(f"builtin:{name}", limit=5)
    assert find_text_columns(table) == ("premise", "hypothesis")
    assert table.sha256 == read_table(f"builtin:{name}:validation", limit=2).sha256
    assert all(isinstance(value, str) for value in table.frame["premise"])
    assert "does not exist" in refusal("builtin:absent")
    assert "has no split" in refusal(f"builtin:{name}:absent")


# --- columns -----------------------------------------------------------------------------------------------------


def table_with(*names: str) -> Table:
    return Table("rows.csv", pd.DataFrame({name: ["x"] for name in names}, dtype=object), "")


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("sentence", "label"), ("sentence", None)),
        (("Sentence1", "SENTENCE2"), ("Sentence1", "SENTENCE2")),
        (("idx", "premise", "hypothesis"), ("premise", "hypothesis")),
        (("question1", "question2"), ("question1", "question2")),
        (("sentence", "question"), ("question", "sentence")),
        (("hypothesis", "text"), ("text", None)),
        (("text_pair", "document"), ("document", "text_pair")),
        (("src", "tgt"), ("src", None)),
        (("text", "text_pair"), ("text", "text_pair")),
    ],
)
def test_usual_text_columns_are_found(names, expected):
    assert find_text_columns(table_with(*names)) == expected


def test_named_columns_win_over_usual_ones():
    mnli = table_with("premise", "hypothesis", "other")
    assert find_text_columns(mnli, text="premise") == ("premise", "hypothesis")
    assert find_text_columns(mnli, text="premise", text_pair=NO_COLUMN) == ("premise", None)
    assert find_text_columns(mnli, text="other") == ("other", None)
    assert find_text_columns(mnli, text="other", text_pair="premise") == ("other", "premise")
    assert find_text_columns(table_with("text_pair"), text="text_pair") == ("text_pair", None)
    qnli = table_with("sentence", "question")
    assert find_text_columns(qnli, text_pair="sentence") == ("question", "sentence")
    with pytest.raises(InputError, match="2 columns that may be --text"):
        find_text_columns(qnli, text_pair=NO_COLUMN)


def test_find_column_reports_what_there_is():
    table = table_with("Review text", "lable\n", "score")
    with pytest.raises(InputError, match=r"no column 'scor' for --label; did you mean 'score'\? allowed") as caught:
        find_column(table, "label", "scor", USUAL_COLUMNS["label"])
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match=r"usual name for --text-pair \(text_pair, .*Review text, 'lable\\n', score"):
        find_column(table, "text_pair", None)
    assert find_column(table, "target", None, required=False) is None
    assert find_column(table, "label", None, ("SCORE",)) == "score"
    with pytest.raises(InputError, match="both name the column 'score'"):
        find_text_columns(table, "score", "score")
    with pytest.raises(InputError, match="name one with --text: Review text"):
        find_text_columns(table)
