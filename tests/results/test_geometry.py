"""A Geometry on disk: what comes back, and what is refused or never half written."""

import json
import re
import sys

import numpy as np
import pandas as pd
import pytest

from anglekit.errors import InputError, RunError
from anglekit.results.columns import ADDED_COLUMNS, COLUMNS, KEYS, OPTIONAL_COLUMNS
from anglekit.results.document import UNRECORDED
from anglekit.results.files import SCHEMA_VERSION
from anglekit.results.geometry import Geometry, official_histogram_name

KEY = {"student": "s", "stream": "encoder"}
PAIR = {**KEY, "vertex": 0, "teacher_i": 0, "teacher_k": 1}
BINS = ((0, 2), (500, 3), (999, 5))


def build(reading="corrected", students=("s", "étudiant"), mean=0.25):
    angles, histograms, layers, examples = [], [], [], []
    for name in students:
        statistic = {column: mean for column, kind in COLUMNS["angles"].items() if kind == "float64"}
        angles.append({**PAIR, **statistic, "student": name, "n_tokens": 10, "n_examples": 2, "se_cosine": np.nan})
        for pair in ({}, {"teacher_i": -1, "teacher_k": -1}):
            histograms += [{**PAIR, "student": name, **pair, "bin": b, "count": c} for b, c in BINS]
        sides = {"side_a": "teacher", "layer_a": 0, "side_b": "student", "layer_b": 1}
        values = {column: mean for column, kind in COLUMNS["layers"].items() if kind == "float64"}
        layers.append({**KEY, **sides, **values, "student": name, "cka": np.nan})
        examples.append({**KEY, "student": name, "vertex": 0, "example": 3, "mean_cosine": mean, "n_tokens": 4})
    rows = {"angles": angles, "histograms": histograms, "layers": layers, "examples": examples}
    return Geometry(
        **{table: pd.DataFrame(rows[table], columns=list(COLUMNS[table])) for table in COLUMNS},
        settings={"reading": reading, "seed": 3},
        provenance={"students": [{"name": name, "init": "random"} for name in students]},
        counts={"encoder": {"tokens": 10}},
        projections=[
            {**KEY, "vertex": 0, "kind": "adapter", "r_squared": 0.5, "teacher_layer": 0},
        ],
        sketch_tokens=[{"student": "s", "points": [[0, 0.0, 1.5]]}],
    )


def entries(directory):
    return sorted(path.name for path in directory.iterdir())


@pytest.fixture
def saved(tmp_path):
    return build().save(tmp_path / "run")


def edit(saved, change):
    file = saved / "geometry.json"
    document = json.loads(file.read_text(encoding="utf-8"))
    change(document)
    file.write_text(json.dumps(document), encoding="utf-8")


def refused(path, pattern):
    with pytest.raises(InputError, match=pattern) as caught:
        Geometry.load(path)
    assert "\n" not in str(caught.value)


def test_what_is_saved_comes_back(saved):
    before, after = build(), Geometry.load(saved)
    for table in COLUMNS:
        pd.testing.assert_frame_equal(getattr(after, table), getattr(before, table), check_dtype=False)
        for column, kind in COLUMNS[table].items():
            found = getattr(after, table)[column].dtype
            assert pd.api.types.is_string_dtype(found) if kind == "str" else str(found) == kind, column
    for name in ("settings", "provenance", "counts", "projections", "sketch_tokens", "students"):
        assert getattr(after, name) == getattr(before, name)
    assert set(entries(saved)) == {"geometry.json", *(f"{table}.parquet" for table in COLUMNS)}


def test_a_geometry_with_other_numbers_is_told_apart(tmp_path):
    loaded = Geometry.load(build(mean=0.5).save(tmp_path / "other"))
    with pytest.raises(AssertionError):
        pd.testing.assert_frame_equal(loaded.angles, build().angles, check_dtype=False)


def test_only_the_directory_is_left_and_parents_are_made(tmp_path):
    target = tmp_path / "deep" / "er" / "run"
    assert build().save(str(target)) == target
    assert entries(target.parent) == ["run"]


def test_an_existing_directory_is_kept_unless_overwriting_is_allowed(saved):
    (saved / "note.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(InputError, match=re.escape(f"{saved} exists; choose another directory, or replace it")):
        build(mean=0.75).save(saved)
    assert (saved / "note.txt").exists()
    assert Geometry.load(saved).angles["mean_cosine"].tolist() == [0.25, 0.25]
    build(mean=0.75).save(saved, overwrite=True)
    assert Geometry.load(saved).angles["mean_cosine"].tolist() == [0.75, 0.75]
    assert not (saved / "note.txt").exists()
    assert entries(saved.parent) == ["run"]


def test_overwriting_replaces_nothing_but_a_geometry(tmp_path):
    target = tmp_path / "run"
    target.write_text("mine", encoding="utf-8")
    with pytest.raises(InputError, match="run is a file; choose another directory"):
        build().save(target, overwrite=True)
    target.unlink()
    target.mkdir()
    (target / "table.csv").write_text("mine", encoding="utf-8")
    with pytest.raises(InputError, match=r"holds 'table.csv' and no geometry.json, and is not replaced"):
        build().save(target, overwrite=True)
    assert entries(target) == ["table.csv"]
    (target / "table.csv").unlink()
    build().save(target, overwrite=True)
    assert Geometry.load(target).students == ["s", "étudiant"]
    assert entries(tmp_path) == ["run"]


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("failure", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_nothing_is_half_written_when_writing_fails(tmp_path, monkeypatch, overwrite, failure):
    target = tmp_path / "run"
    if overwrite:
        build().save(target)
    write = pd.DataFrame.to_parquet
    written = []

    def fail_at_the_third(frame, path, **options):
        if len(written) == 2:
            raise failure
        written.append(path)
        write(frame, path, **options)

    monkeypatch.setattr(pd.DataFrame, "to_parquet", fail_at_the_third)
    expected = RunError if isinstance(failure, OSError) else KeyboardInterrupt
    with pytest.raises(expected) as caught:
        build(mean=0.75).save(target, overwrite=overwrite)
    assert len(written) == 2
    if expected is RunError:
        assert str(caught.value) == f"cannot write {target}: No space left on device"
    monkeypatch.undo()
    assert entries(tmp_path) == (["run"] if overwrite else [])
    if overwrite:
        assert Geometry.load(target).angles["mean_cosine"].tolist() == [0.25, 0.25]


def test_a_parent_that_is_a_file_is_one_line(tmp_path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(RunError, match="cannot write beside") as caught:
        build().save(tmp_path / "file" / "run")
    assert "\n" not in str(caught.value)


def test_the_official_histogram_is_a_thousand_lines_for_each_student(tmp_path):
    directory = build("official").save(tmp_path / "run")
    for student in ("s", "étudiant"):
        lines = (directory / official_histogram_name(student)).read_text(encoding="ascii").splitlines()
        assert len(lines) == 1000
        values = [line.split(",") for line in lines]
        assert (values[0], values[500], values[999]) == (["-1.000", "2"], ["0.000", "3"], ["0.998", "5"])
        assert sum(int(count) for _, count in values) == 10
        assert np.allclose(np.diff([float(edge) for edge, _ in values]), 0.002)


def test_the_corrected_reading_writes_no_official_histogram(saved):
    assert not list(saved.glob("official_histogram_*"))


def test_pooled_histogram_takes_the_pooled_rows_of_the_chosen_vertices():
    geometry = build()
    counts = geometry.pooled_histogram("s", "encoder")
    assert {int(b): int(counts[b]) for b in np.flatnonzero(counts)} == dict(BINS)
    assert (counts.shape, counts.dtype) == ((1000,), np.int64)
    assert geometry.pooled_histogram("s", "encoder", [1]).sum() == 0
    assert geometry.pooled_histogram("s", "decoder").sum() == 0


def test_a_students_initialisation_is_found_by_name():
    geometry = build()
    assert geometry.student_init("étudiant") == "random"
    with pytest.raises(InputError, match=r"no student 'etudiant'; did you mean 'étudiant'\? allowed: s, étudiant"):
        geometry.student_init("etudiant")


def test_a_students_arm_is_what_was_recorded_or_its_name():
    geometry = build()
    geometry.provenance["students"][0] |= {"strategy": "forward", "seed": 2}
    del geometry.provenance["students"][1]["init"]
    assert geometry.arms == {"s": ("forward", "random", 2), "étudiant": ("étudiant", UNRECORDED, None)}
    geometry.counts["examples"] = "many"
    with pytest.raises(InputError, match=r"this Geometry is damaged \(counts.examples: expected int"):
        geometry.notes()


def test_a_table_without_a_column_is_no_geometry():
    geometry = build()
    parts = {name: getattr(geometry, name) for name in geometry.__dataclass_fields__}
    with pytest.raises(InputError, match="the table 'angles' lacks the column 'se_cosine'"):
        Geometry(**{**parts, "angles": geometry.angles.drop(columns="se_cosine")})


@pytest.mark.parametrize(
    ("name", "column"), [(name, column) for name in ("angles", "examples") for column in ADDED_COLUMNS[name]]
)
def test_a_column_that_came_later_is_unknown_in_earlier_geometries(saved, name, column):
    table = pd.read_parquet(saved / f"{name}.parquet")
    table.drop(columns=column).to_parquet(saved / f"{name}.parquet", index=False)
    geometry = Geometry.load(saved)
    loaded = getattr(geometry, name)
    assert loaded[column].isna().all()
    assert loaded["mean_cosine"].notna().any()
    assert geometry.summary_rows()


def test_no_directory_and_no_document_are_named(tmp_path):
    refused(tmp_path / "none", "no directory .*none; give one that `anglekit analyze --out` wrote")
    refused(tmp_path, "holds no geometry.json")


@pytest.mark.parametrize("table", list(COLUMNS))
def test_a_missing_damaged_or_incomplete_table_is_named(saved, table):
    file = saved / f"{table}.parquet"
    column = next(name for name in reversed(COLUMNS[table]) if name not in ADDED_COLUMNS.get(table, ()))
    pd.read_parquet(file).drop(columns=column).to_parquet(file)
    refused(saved, f"{table}.parquet lacks the column '{column}'; expected: student, stream, ")
    file.write_bytes(file.read_bytes()[:-20])
    refused(saved, f"{table}.parquet is damaged")
    file.unlink()
    refused(saved, f"lacks {table}.parquet; run the analysis again")


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe\x00", b'{"schema_version": ', b"[" * 100_000])
def test_a_damaged_document_is_one_line(saved, content):
    (saved / "geometry.json").write_bytes(content)
    refused(saved, "geometry.json is not readable json")


@pytest.mark.parametrize("version", [None, 0, SCHEMA_VERSION + 1, "1"])
def test_another_schema_version_is_refused(saved, version):
    edit(saved, lambda document: document.update(schema_version=version))
    refused(saved, f"has schema version {version!r}; this anglekit reads {SCHEMA_VERSION}")


def test_a_document_that_is_no_object_is_refused(saved):
    (saved / "geometry.json").write_text("[1, 2]", encoding="utf-8")
    refused(saved, "is not a json object")


@pytest.mark.parametrize("key", ["settings", "provenance", "counts", "projections", "sketch_tokens"])
@pytest.mark.parametrize("value", [None, 3])
def test_a_part_that_is_missing_or_of_another_kind_is_named(saved, key, value):
    edit(saved, lambda document: document.pop(key) if value is None else document.update({key: value}))
    refused(saved, rf"geometry.json is damaged \({'missing required field ' if value is None else ''}{key}")


@pytest.mark.parametrize("students", [None, {}, ["s"], [{"init": "random"}]])
def test_students_without_names_are_refused(saved, students):
    edit(saved, lambda document: document["provenance"].update(students=students))
    refused(saved, r"damaged \(provenance(.students(\[0\])?)?: |the students lack proper names")


def test_a_geometry_is_shown_in_a_line():
    assert str(build()) == (
        "<Geometry of a teacher seen from s, étudiant, 1 example; rows: angles 2, histograms 12, layers 2, examples 2>"
    )


def test_every_table_is_given_as_labelled_arrays():
    pytest.importorskip("xarray", reason="the extra `xarray` is not installed")
    assert KEYS.keys() == COLUMNS.keys() | OPTIONAL_COLUMNS.keys()
    geometry = build(mean=0.25)
    for table, keys in KEYS.items():
        arrays = geometry.to_xarray(table)
        assert tuple(arrays.sizes) == keys
        assert {*arrays.data_vars} == {*(COLUMNS | OPTIONAL_COLUMNS)[table]} - {*keys}
    at = {"student": "étudiant", "stream": "encoder", "vertex": 0, "teacher_i": 0, "teacher_k": 1}
    assert float(geometry.to_xarray()["mean_cosine"].sel(at)) == 0.25


def test_labelled_arrays_need_their_package_and_a_table_that_is_there(monkeypatch):
    with pytest.raises(InputError, match=r"no table 'angle'.*angles"):
        build().to_xarray("angle")
    monkeypatch.setitem(sys.modules, "xarray", None)
    with pytest.raises(InputError, match="pip install"):
        build().to_xarray()
