"""Geometry: what an analysis found, as data frames, with its provenance; saved as a directory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from anglekit.display.counts import counted
from anglekit.display.html import Markup, element, notebook_table
from anglekit.errors import InputError, suggest
from anglekit.results.chance import ChanceVerdict, against_chance
from anglekit.results.columns import COLUMNS, KEYS, OPTIONAL_COLUMNS
from anglekit.results.document import Arm, GeometryDocument
from anglekit.results.explorer.cells import ExploredCells, explored_cells
from anglekit.results.explorer.document import Explorer, explorer_of
from anglekit.results.files import SCHEMA_VERSION, read_geometry_json, read_tables
from anglekit.results.overview import analysis_notes, layer_table, resolution_notes, summary_rows
from anglekit.runtime.files import convert_document, whole_directory, write_json
from anglekit.vocabulary import GEOMETRY_FILE, N_BINS

if TYPE_CHECKING:
    import xarray as xr

# The parts of geometry.json.
_PARTS = ("settings", "provenance", "counts", "projections", "sketch_tokens")


def _empty_table(table: str) -> Callable[[], pd.DataFrame]:
    columns = {column: "object" if kind == "str" else kind for column, kind in OPTIONAL_COLUMNS[table].items()}
    return lambda: pd.DataFrame({column: pd.Series(dtype=kind) for column, kind in columns.items()})


def official_histogram_name(student: str) -> str:
    """Return the file name of a student's histogram in the format of the paper's code."""
    return f"official_histogram_{student}.txt"


@dataclass(frozen=True, eq=False)
class Geometry:
    """The geometry of one teacher seen from its students.

    Attributes:
        angles: a row per student, stream, vertex and pair of teacher layers (i < k): the statistics of
            cos(T_i - S_j, T_k - S_j) over tokens, and of the tangential cosine, for which the student's own direction
            is removed from both teacher states. `null_cosine` is the closed-form chance level, `se_cosine` is
            clustered by example, `n_clusters` is how many examples count there: those that repeat a text are one.
        histograms: counts of that cosine in 1000 equal bins on [-1, 1]; empty bins are left out; `teacher_i` and
            `teacher_k` are -1 in the rows that pool a vertex's pairs.
        layers: cosines, distances and norms between any two layers of the teacher and the student, and `cka`, the
            debiased CKA of example means (over the whole probe where `similarity` is "all", else over the sample:
            `counts["cka_examples"]`): two layers have no other. `cka_se` is its standard error over examples,
            `cka_null` its mean over permutations of one side's examples, `cka_p` the share of them that give as much,
            and `cka_p_adjusted` the share that give as much between any two layers of the same two sides, which stays
            valid for the most similar layers; these three are those of the sample.
        examples: for every vertex, each example's mean over its tokens and pairs. Weighted by `n_tokens`, the examples'
            `mean_angle_degrees` average to the vertex's angle; it is NaN in Geometries of earlier versions. `cluster`
            is the first example that reads the same.
        settings: how the analysis was run.
        provenance: what the analysis was run on: checkpoints with content hashes, probe data, package versions.
        counts: examples, tokens, truncation, degenerate vectors by kind, non-finite states.
        projections: a row per projected vertex with its R^2, or an empty list.
        sketch_tokens: for every student and stream one real token whose angle is the most typical of its vertex:
            `student, stream, vertex, teacher_i, teacher_k, example, token, distance_i, distance_k, cosine` and
            `points`, a list of [layer, x, y]: every teacher layer projected on the plane of T_i - S and T_k - S, with S
            at the origin and T_i on the positive x axis, in the states' own units.

    These tables use a sample of the probe: one token from each of up to 256 examples, examples weighted equally and
    each text once. They may be empty:
        nulls: for every vertex, pair and null (`anglekit.vocabulary.NULLS`) the cosine that the null gives, the
            observed cosine of the same tokens, and observed minus null with its 95% interval, clustered by example.
            `p_adjusted, joint_low, joint_high` hold for all students, vertices and pairs of a null together: by a
            permutation test for the permuted student, by Bonferroni's correction for the others.
        vertex_sweep: the cosine with the vertex at C + t (S - C), where C is the mean of the token's teacher states:
            t = 0 is the teachers' centroid, t = 1 the student.
        anisotropy: for every layer, the cosine between tokens of different examples, by `view` of the states (raw,
            centred, standardised, dominant dimensions dropped) and kind of `tokens` (all, content, special).
        dimensions: each dimension's share of the raw anisotropy.
        angle_views: the cosine at the vertex, by view and kind of tokens.
        similarity: representation similarity between any two layers, of example means (whose `debiased_cka` is `cka`)
            and of tokens: `debiased_cka, linear_cka, procrustes_distance, mutual_neighbours`, each with `_se`, its mean
            over permutations `_null`, and `_p` and `_p_adjusted` as of `cka`.
        extremes: for every vertex and pair the tokens of the whole probe with the `smallest` and the `largest` angle
            (column `extreme`): `angle_degrees`, the row number of its `example`, its `place` in that, counted from 0,
            and the words `before, token, after`. Empty unless the analysis was asked to keep them (`keep_extremes`).
    """

    angles: pd.DataFrame
    histograms: pd.DataFrame
    layers: pd.DataFrame
    examples: pd.DataFrame
    settings: Mapping[str, Any]
    provenance: Mapping[str, Any]
    counts: Mapping[str, Any]
    projections: list[dict[str, Any]] = field(default_factory=list)
    sketch_tokens: list[dict[str, Any]] = field(default_factory=list)
    nulls: pd.DataFrame = field(default_factory=_empty_table("nulls"))
    vertex_sweep: pd.DataFrame = field(default_factory=_empty_table("vertex_sweep"))
    anisotropy: pd.DataFrame = field(default_factory=_empty_table("anisotropy"))
    dimensions: pd.DataFrame = field(default_factory=_empty_table("dimensions"))
    angle_views: pd.DataFrame = field(default_factory=_empty_table("angle_views"))
    similarity: pd.DataFrame = field(default_factory=_empty_table("similarity"))
    extremes: pd.DataFrame = field(default_factory=_empty_table("extremes"))

    def __post_init__(self) -> None:
        for table, columns in (COLUMNS | OPTIONAL_COLUMNS).items():
            missing = [column for column in columns if column not in getattr(self, table).columns]
            if missing:
                raise InputError(
                    f"the table {table!r} lacks the column {missing[0]!r}", allowed=f"expected: {', '.join(columns)}"
                )

    def __repr__(self) -> str:
        """Return in a line whose geometry it is, and its tables with their rows."""
        teacher = dict(self.provenance).get("teacher")
        name = dict(teacher).get("name") if isinstance(teacher, Mapping) else None
        students = [str(each) for each in self.angles["student"].unique()]
        named = ", ".join(students) if len(students) <= 3 else f"{len(students)} students"
        sizes = {table: len(getattr(self, table)) for table in (*COLUMNS, *OPTIONAL_COLUMNS)}
        tables = ", ".join(f"{table} {rows:,}" for table, rows in sizes.items() if rows)
        examples = counted(self.examples["example"].nunique(), "example")
        return f"<Geometry of {name or 'a teacher'} seen from {named or 'no student'}, {examples}; rows: {tables}>"

    def _repr_html_(self) -> str:
        """Show the verdict against chance, every angle to look into, and a row for each student layer."""
        verdict = self.against_chance()
        teacher = self.document.provenance.teacher.name or "teacher"
        named = ", ".join(self.students) if len(self.students) <= 5 else f"{len(self.students)} students"
        return element(
            "div",
            element("p", element("strong", f"Geometry of {teacher} seen from {named}")),
            element("p", verdict.sentence),
            Markup(self.explorer()._repr_html_()),
            element("details", element("summary", "all numbers"), notebook_table(layer_table(verdict.rows))),
        )

    def explored_cells(self) -> ExploredCells:
        """Return what there is to look into: every angle beside chance, with its interval and histogram."""
        tables = (self.angles, self.nulls, self.histograms, self.examples, self.extremes)
        return explored_cells(*tables, self.document.provenance.students)

    def explorer(self) -> Explorer:
        """Return this Geometry to look into, as `anglekit.explore` does."""
        teacher = self.document.provenance.teacher.name or "the teacher"
        title = f"The layers of {teacher}, seen from its students"
        return explorer_of(self.explored_cells(), title, self.against_chance().sentence)

    def summary_rows(self) -> list[dict[str, Any]]:
        """Return one row for each student, stream and vertex; the means of its pairs, each weighing the same."""
        return summary_rows(self.angles, self.nulls)

    def to_xarray(self, table: str = "angles") -> xr.Dataset:
        """Return a table as labelled arrays, `g.to_xarray()["mean_cosine"].sel(student="forward", vertex=1)`.

        Its dimensions are what names a row (`student, stream, vertex, teacher_i, teacher_k` of the angles), its
        variables are the measured columns. Where there is no row, as for `teacher_i >= teacher_k`, values are NaN.

        Args:
            table: the name of a table.

        Raises:
            InputError: there is no such table, xarray is not installed, or the table does not name its rows uniquely.
        """
        if table not in KEYS:
            raise InputError(f"no table {table!r}", allowed=suggest(table, KEYS))
        try:
            import xarray as xr
        except ImportError as error:
            raise InputError(
                "labelled arrays need the `xarray` package", "install it: pip install 'anglekit[xarray]'"
            ) from error
        frame = getattr(self, table)
        indexed = frame.set_index(list(KEYS[table]))
        if not indexed.index.is_unique:
            raise InputError(f"the table {table!r} has two rows of one name", "analyse again")
        return xr.Dataset.from_dataframe(indexed)

    def against_chance(self) -> ChanceVerdict:
        """Return whether the angles are acute, and more acute than by chance."""
        return against_chance(self.angles, self.nulls)

    def notes(self) -> list[str]:
        """Return in sentences what was left out, truncated or projected, and what half precision cannot tell apart."""
        document = self.document
        return [*analysis_notes(document), *resolution_notes(document, self.layers)]

    @property
    def document(self) -> GeometryDocument:
        """Settings, provenance, counts, projections and sketch tokens as typed values.

        Raises:
            InputError: a part does not have the form that an analysis writes.
        """
        content = {name: getattr(self, name) for name in _PARTS}
        return convert_document(content, GeometryDocument, "this Geometry", "give each part the form of geometry.json")

    @property
    def students(self) -> list[str]:
        """The students' names, in the order of the analysis."""
        return [student.name for student in self.document.provenance.students]

    @property
    def arms(self) -> dict[str, Arm]:
        """Strategy, initialisation and seed of every student."""
        return {student.name: student.arm for student in self.document.provenance.students}

    @property
    def official(self) -> bool:
        """Whether it was computed as in the paper's code: padding counts, and one pair of layers stands for all."""
        return self.document.settings.reading == "official"

    def with_student_named(self, name: str) -> Geometry:
        """Return this Geometry with its only student under another name, in every table and record.

        Raises:
            InputError: it holds several students or none.
        """
        if len(self.students) != 1:
            raise InputError(f"a Geometry of {len(self.students)} students has no only student to name anew")
        before = self.students[0]
        tables = {
            table: frame.assign(student=frame["student"].replace(before, name))
            for table in (*COLUMNS, *OPTIONAL_COLUMNS)
            if "student" in (frame := getattr(self, table)).columns
        }
        settings, counts = dict(self.settings), dict(self.counts)
        for document, key in ((settings, "vertices"), (counts, "by_student")):
            if document.get(key):
                document[key] = {name: document[key][before]}
        projections = [{**one, "student": name} for one in self.projections]
        sketches = [{**one, "student": name} for one in self.sketch_tokens]
        (student,) = self.provenance["students"]
        return replace(
            self,
            **tables,
            settings=settings,
            counts=counts,
            projections=projections,
            sketch_tokens=sketches,
            provenance={**self.provenance, "students": [{**student, "name": name}]},
        )

    def student_init(self, student: str) -> str | None:
        """Return how a student was initialised ("random" or "teacher") where its training run recorded it."""
        found = [each.init for each in self.document.provenance.students if each.name == student]
        if not found:
            raise InputError(f"no student {student!r}", allowed=suggest(student, self.students))
        return found[0]

    def pooled_histogram(self, student: str, stream: str, vertices: list[int] | None = None) -> np.ndarray:
        """Return the cosine counts of a student's stream over all pairs: int64, shape (1000,).

        Args:
            student: the student's name.
            stream: `encoder` or `decoder`.
            vertices: the student layers to pool; all of them by default.
        """
        table = self.histograms
        rows = table[(table["student"] == student) & (table["stream"] == stream) & (table["teacher_i"] == -1)]
        if vertices is not None:
            rows = rows[rows["vertex"].isin(vertices)]
        counts = np.zeros(N_BINS, dtype=np.int64)
        np.add.at(counts, rows["bin"].to_numpy(), rows["count"].to_numpy())
        return counts

    def save(self, path: str | Path, *, overwrite: bool = False, scratch: Path | None = None) -> Path:
        """Write the directory `path`: it appears whole or not at all.

        Args:
            path: the directory to write.
            overwrite: replace what is there.
            scratch: a directory to write in first; it must not exist yet, and must be on the same file system. If the
                process is killed, its leftovers are there. None uses a hidden directory beside `path`.

        Raises:
            InputError: the directory exists and `overwrite` is off, or it holds something other than a Geometry.
            RunError: it could not be written.
        """
        target = Path(path)
        with whole_directory(target, GEOMETRY_FILE, overwrite=overwrite, scratch=scratch) as directory:
            self._write(directory)
        return target

    def _write(self, directory: Path) -> None:
        for table in (*COLUMNS, *OPTIONAL_COLUMNS):
            frame = getattr(self, table)
            if table in COLUMNS or len(frame):
                frame.to_parquet(directory / f"{table}.parquet", index=False)
        document = {"schema_version": SCHEMA_VERSION, **{name: getattr(self, name) for name in _PARTS}}
        write_json(directory / GEOMETRY_FILE, document)
        if self.official:
            for student in self.students:
                self._write_official_histogram(directory, student)

    def _write_official_histogram(self, directory: Path, student: str) -> None:
        """Write 1000 lines of `bin_left,count`, the form in which the paper's code writes its histogram."""
        streams = self.angles.loc[self.angles["student"] == student, "stream"].unique()
        counts = sum((self.pooled_histogram(student, stream) for stream in streams), np.zeros(N_BINS, dtype=np.int64))
        left = np.linspace(-1.0, 1.0, N_BINS + 1)[:-1]
        lines = [f"{edge:.3f},{count}\n" for edge, count in zip(left, counts, strict=True)]
        (directory / official_histogram_name(student)).write_text("".join(lines), encoding="ascii")

    @classmethod
    def load(cls, path: str | Path) -> Geometry:
        """Read a directory that `save` wrote.

        Raises:
            InputError: the directory does not exist, a file is missing or damaged, or the schema has another version.
        """
        directory = Path(path)
        content, document = read_geometry_json(directory)
        parts: dict[str, Any] = {name: content[name] for name in _PARTS}
        parts |= read_tables(directory, [student.name for student in document.provenance.students])
        return cls(**parts)
