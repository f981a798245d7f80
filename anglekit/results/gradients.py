"""What a measurement of gradients found, as data frames with their provenance; saved as a directory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pandas as pd

from anglekit.display.html import element, notebook_table
from anglekit.display.tables import TextTable, frame_table
from anglekit.errors import InputError, foreign_failures
from anglekit.runtime.files import near_path, read_json_object, whole_directory, write_json
from anglekit.vocabulary import GRADIENTS_FILE

#: The whole of a student's weights, among its parts.
WHOLE: Final = "all"
#: What stands beside the strategies: cross-entropy, KL, and their weighted sum as a run would train it.
TASK_TERMS: Final = ("task", "ce", "kl")

_SHOWN: Final = ("student", "strategy", "cosine", "expected_cosine", "lower", "upper", "relative_norm")
_SCHEMA: Final = 1
_AGAIN: Final = "measure again: anglekit gradients"
_NUMBERS: Final = ("cosine", "expected_cosine", "standard_error", "lower", "upper", "projection_error")
LAYER_COLUMNS: Final = (
    *("student", "step", "part", "stream_a", "student_layer_a", "teacher_layer_a"),
    *("stream_b", "student_layer_b", "teacher_layer_b", *_NUMBERS),
)
_COLUMNS: Final[Mapping[str, tuple[str, ...]]] = {
    "strategies": ("student", "step", "part", "loss_a", "loss_b", *_NUMBERS, "norm_a", "norm_b"),
    "layers": LAYER_COLUMNS,
}


@dataclass(frozen=True, eq=False)
class GradientGeometry:
    """The angles between the gradients that losses send into a student's weights.

    Both tables have a row for each unordered pair of losses and each part of the student's weights (`all`, each block,
    the embeddings, the head, the norms outside the blocks):

    `cosine` is between the mean gradients over the probe; `expected_cosine` estimates it over all examples of the kind,
    without the noise that two losses share on few examples; `standard_error`, `lower` and `upper` (95%) are its own, by
    the jackknife over groups of examples. `projection_error` is the standard error that a random projection brought
    into both cosines, 0 where none was used.

    Attributes:
        strategies: `student, step, part, loss_a, loss_b`, the numbers, and the lengths `norm_a, norm_b` of the mean
            gradients; a loss is a strategy's hidden loss, or `ce`, `kl` or `task`, their weighted sum. `step` is the
            training step of a checkpoint that says it, else -1.
        layers: the same between the hidden losses of a student layer and a teacher layer: `student, step, part,
            stream_a, student_layer_a, teacher_layer_a, stream_b, student_layer_b, teacher_layer_b`, the numbers. Empty
            where it was not asked for.
        settings: how it was measured.
        provenance: on what.
    """

    strategies: pd.DataFrame
    layers: pd.DataFrame
    settings: Mapping[str, Any]
    provenance: Mapping[str, Any]

    def __post_init__(self) -> None:
        for table, columns in _COLUMNS.items():
            missing = [column for column in columns if column not in getattr(self, table).columns]
            if missing:
                raise InputError(
                    f"the table {table!r} lacks the column {missing[0]!r}", allowed=f"expected: {', '.join(columns)}"
                )

    @property
    def students(self) -> tuple[str, ...]:
        """The students' names."""
        return tuple(self.strategies["student"].unique())

    def agreement(self, part: str = WHOLE) -> pd.DataFrame:
        """Return how each strategy's gradient stands to the task's.

        Args:
            part: of the weights.

        Returns:
            A row for each student and strategy: `student, step, strategy`, the cosine with the gradient of `task` and
            its numbers, and `relative_norm`, the length of the strategy's gradient over that of the task's.
        """
        frame = self.strategies[self.strategies["part"] == part]
        taken = frame[(frame["loss_a"] == "task") & ~frame["loss_b"].isin(TASK_TERMS)]
        found = taken.rename(columns={"loss_b": "strategy"}).assign(relative_norm=taken["norm_b"] / taken["norm_a"])
        return found[["student", "step", "strategy", *_NUMBERS, "relative_norm"]].reset_index(drop=True)

    def between_strategies(self, part: str = WHOLE) -> pd.DataFrame:
        """Return the rows of `strategies` that compare two strategies, in a part of the weights."""
        frame = self.strategies[self.strategies["part"] == part]
        terms = list(TASK_TERMS)
        return frame[~frame["loss_a"].isin(terms) & ~frame["loss_b"].isin(terms)].reset_index(drop=True)

    def sentences(self) -> list[str]:
        """Return a sentence for each student: whether matching helps or fights the task, how alike strategies are."""
        found = []
        for student in self.students:
            own = self.agreement()[lambda frame, name=student: frame["student"] == name]
            between = self.between_strategies()[lambda frame, name=student: frame["student"] == name]
            words = []
            if len(own):
                helps = [row["strategy"] for _, row in own.iterrows() if row["lower"] > 0.0]
                fights = [row["strategy"] for _, row in own.iterrows() if row["upper"] < 0.0]
                open_ = [name for name in own["strategy"] if name not in (*helps, *fights)]
                parts = [
                    f"{', '.join(names)} {verb}"
                    for names, verb in (
                        (helps, "pull along with the task" if len(helps) > 1 else "pulls along with the task"),
                        (fights, "pull against it" if len(fights) > 1 else "pulls against it"),
                        (open_, "cannot be told from no agreement with it"),
                    )
                    if names
                ]
                words.append("; ".join(parts))
            if len(between):
                low, high = between["expected_cosine"].min(), between["expected_cosine"].max()
                words.append(f"strategies' gradients have cosines of {low:.2f} to {high:.2f} with each other")
            found.append(f"{student}: {'. '.join(words) or 'nothing was compared'}.")
        return found

    def table(self) -> TextTable:
        """Return the agreement with the task as a table of texts."""
        found = self.agreement()
        if not len(found):
            return TextTable("", _SHOWN, ())
        return frame_table(found[list(_SHOWN)])

    def _repr_html_(self) -> str:
        """Show the sentences and the agreement with the task."""
        return element("div", *(element("p", sentence) for sentence in self.sentences()), notebook_table(self.table()))

    def save(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write the directory `path`, which appears whole or not at all.

        Raises:
            InputError: it exists and `overwrite` is off, or holds something else.
            RunError: it could not be written.
        """
        target = Path(path)
        with whole_directory(target, GRADIENTS_FILE, overwrite=overwrite) as directory:
            for table in _COLUMNS:
                getattr(self, table).to_parquet(directory / f"{table}.parquet", index=False)
            document = {"schema_version": _SCHEMA, "settings": self.settings, "provenance": self.provenance}
            write_json(directory / GRADIENTS_FILE, document)
        return target

    @classmethod
    def load(cls, path: str | Path) -> GradientGeometry:
        """Read a directory that `save` wrote.

        Raises:
            InputError: the directory does not exist, or a file is missing, damaged or of another version.
        """
        directory = Path(path)
        if not (directory / GRADIENTS_FILE).is_file():
            raise InputError(
                f"{directory} holds no {GRADIENTS_FILE}{near_path(directory)}",
                "give a directory of `anglekit gradients --out`",
            )
        content = read_json_object(directory / GRADIENTS_FILE, _AGAIN)
        if content.get("schema_version") != _SCHEMA:
            raise InputError(
                f"{directory / GRADIENTS_FILE} has schema version {str(content.get('schema_version'))[:40]}",
                allowed=f"expected {_SCHEMA}",
            )
        parts: dict[str, Any] = {name: content.get(name, {}) for name in ("settings", "provenance")}
        parts |= {table: _read_table(directory / f"{table}.parquet") for table in _COLUMNS}
        return cls(**parts)


def _read_table(file: Path) -> pd.DataFrame:
    with foreign_failures(lambda reason: InputError(f"{file} cannot be read: {reason}", _AGAIN)):
        return pd.read_parquet(file)
