"""Scores example by example: the rows that a run keeps in examples.parquet, and what an estimator reads from them."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, cast, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from anglekit.errors import InputError, foreign_failures
from anglekit.results.corpus_scores import CLASS_SCORES, CORPUS_SCORES, LABEL_SCORES, Numbers, ScoreAndGradient
from anglekit.results.correlations import CORRELATIONS
from anglekit.runtime.files import write_whole

EXAMPLES_FILE: Final = "examples.parquet"

#: Whose scores a run keeps: the trained model, the same model before its first step, and its teacher.
ScoredModel = Literal["student", "untrained", "teacher"]
STUDENT, UNTRAINED, TEACHER = SCORED_MODELS = cast("tuple[ScoredModel, ...]", get_args(ScoredModel))

#: What each example adds to the scores of its table, by column; every array is (examples,).
ExampleColumns = Mapping[str, NDArray[Any]]

_KEYS: Final = ("model", "data", "example")
_PREDICTION, _TARGET = "prediction", "target"
#: The numbers that a regression predicts, and those that it should.
PREDICTED_NUMBER, TARGET_NUMBER = "predicted_number", "target_number"
#: Before a label's name: whether it was given to an example, and whether the example has it, as 0 or 1.
PREDICTED_LABEL, TARGET_LABEL = "predicted:", "target:"
#: The score of one label is `f1:` and its name.
LABEL_F1: Final = "f1:"
# A row's numbers do not compress below a byte, but a small file may be all repetition.
_ROWS_PER_BYTE, _MORE_ROWS = 4, 1_000_000
#: Each takes two columns.
MOST_LABELS: Final = 1000
# BLEU and chrF together have 28 columns of parts.
_MOST_COLUMNS: Final = 2 * MOST_LABELS + 200
_MOST_CLASSES: Final = 2**31
# Far above the rounding of sums, far below one example of any table.
_ROUNDING: Final = 1e-9


@dataclass(frozen=True, eq=False)
class ExampleScores:
    """What each example of each table adds to the scores of each model.

    Attributes:
        tables: by model and table, the columns. A score that is a mean over examples (accuracy, exact match) has a
            column of its name. One that is not has columns `SCORE:PART`, whose sums give it
            (`corpus_scores.CORPUS_SCORES`), or follows from `prediction` and `target`, which are class numbers, from
            `predicted_number` and `target_number` (`correlations.CORRELATIONS`), or from `predicted:LABEL` and
            `target:LABEL` of every label, 0 or 1 (`corpus_scores.LABEL_SCORES`, and `f1:LABEL` of one label). `loss`
            is what the task's loss on labels is of an example: the cross-entropy, in nats, the mean of that over its
            labels, or the squared error.
    """

    tables: Mapping[tuple[str, str], ExampleColumns]

    def __contains__(self, model_and_data: object) -> bool:
        """Return whether there are rows of a model and table."""
        return model_and_data in self.tables

    def n_examples(self, model: str, data: str) -> int:
        """Return the number of a table's examples."""
        return len(next(iter(self.tables[model, data].values()), ()))

    def values(self, model: str, data: str, score: str) -> Numbers:
        """Return a value for each example, (examples,), whose plain mean is the score of the table.

        Where the score is a mean, these are what it is the mean of. Elsewhere they are the score plus each example's
        influence on it: the gradient with respect to the sums, times how far the example's parts are from the mean,
        times the number of examples (the infinitesimal jackknife; Efron 1982, "The Jackknife, the Bootstrap and Other
        Resampling Plans", chapter 6). A score that is not finite gives that number for every example.

        Raises:
            InputError: there are no such rows, or the score does not follow from their columns.
        """
        columns = self._columns(model, data)
        if score in columns:
            return np.asarray(columns[score], dtype=np.float64)
        number = self.n_examples(model, data)
        value, effects = _of_weights(columns, score, np.ones(number))
        if not np.isfinite(value):
            return np.full(number, value)
        influences: Numbers = number * (effects - effects.mean())
        return value + influences

    def score(self, model: str, data: str, score: str, counts: NDArray[Any] | None = None) -> float:
        """Return the score of a table, or of a resample of it.

        Args:
            model: one of `SCORED_MODELS`.
            data: the table's name.
            score: the score's name.
            counts: how often each example comes, (examples,); None: once.

        Raises:
            InputError: as `values`; or the resample is empty.
        """
        columns = self._columns(model, data)
        number = self.n_examples(model, data)
        weights = np.ones(number) if counts is None else np.asarray(counts, dtype=np.float64)
        if weights.shape != (number,) or not weights.sum() > 0:
            raise InputError(
                f"counts of shape {weights.shape} came for {number} examples", "give one for each, not all 0"
            )
        if score in columns:
            return float(weights @ np.asarray(columns[score], dtype=np.float64) / weights.sum())
        return _of_weights(columns, score, weights)[0]

    def _columns(self, model: str, data: str) -> ExampleColumns:
        if (model, data) not in self.tables:
            raise InputError(f"there are no examples of the {model} on {data!r}")
        return self.tables[model, data]

    def frame(self) -> pd.DataFrame:
        """Return a row for each model, table and example: `model, data, example` (counted from 0) and the columns."""
        parts = [
            pd.DataFrame({"model": model, "data": data, "example": range(self.n_examples(model, data)), **columns})
            for (model, data), columns in self.tables.items()
        ]
        return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=list(_KEYS))


def _of_weights(columns: ExampleColumns, score: str, weights: Numbers) -> tuple[float, Numbers]:
    """Return a score of weighted examples that is no mean over them, and how it changes with each weight, (examples,).

    The change may lack a constant, the same for all examples.
    """
    if score in CORPUS_SCORES and set(names := CORPUS_SCORES[score].columns(score)) <= columns.keys():
        added = np.stack([np.asarray(columns[name], dtype=np.float64) for name in names], axis=1)
        value, gradient = CORPUS_SCORES[score].of_sums(weights @ added)
        return value, added @ gradient
    if score in CORRELATIONS and {PREDICTED_NUMBER, TARGET_NUMBER} <= columns.keys():
        predicted, target = (np.asarray(columns[name], dtype=np.float64) for name in (PREDICTED_NUMBER, TARGET_NUMBER))
        return CORRELATIONS[score](predicted, target, weights)
    if score in CLASS_SCORES and {_PREDICTION, _TARGET} <= columns.keys():
        return _of_classes(columns, score, weights)
    labels = [name.removeprefix(TARGET_LABEL) for name in columns if name.startswith(TARGET_LABEL)]
    if labels and score.startswith(LABEL_F1) and score.removeprefix(LABEL_F1) in labels:
        return _of_labels(columns, [score.removeprefix(LABEL_F1)], LABEL_SCORES["micro_f1"], weights)
    if labels and score in LABEL_SCORES:
        return _of_labels(columns, labels, LABEL_SCORES[score], weights)
    raise InputError(
        f"the examples have no column from which {score!r} follows", allowed=f"there are {', '.join(columns)}"
    )


def _of_classes(columns: ExampleColumns, score: str, weights: Numbers) -> tuple[float, Numbers]:
    number = len(weights)
    both = np.concatenate([columns[_PREDICTION], columns[_TARGET]])
    known, classes = np.unique(both, return_inverse=True)
    predicted, target = classes[:number], classes[number:]
    hits = predicted == target
    counts = np.stack(
        [
            np.bincount(target[hits], weights[hits], len(known)),
            np.bincount(predicted, weights, len(known)),
            np.bincount(target, weights, len(known)),
        ],
        dtype=np.float64,
    )
    value, gradient = CLASS_SCORES[score](counts)
    # An example adds to two classes at most.
    found = np.where(hits, gradient[0, target], 0.0)
    return value, found + gradient[1, predicted] + gradient[2, target]


def _of_labels(
    columns: ExampleColumns, labels: Sequence[str], of_counts: Callable[[Numbers], ScoreAndGradient], weights: Numbers
) -> tuple[float, Numbers]:
    given, true = (
        np.stack([np.asarray(columns[prefix + label], dtype=np.float64) for label in labels], axis=1)
        for prefix in (PREDICTED_LABEL, TARGET_LABEL)
    )
    value, gradient = of_counts(np.stack([weights @ (given * true), weights @ given, weights @ true]))
    return value, (given * true) @ gradient[0] + given @ gradient[1] + true @ gradient[2]


# ---- the file ----


def write_example_scores(file: Path, scores: ExampleScores) -> None:
    """Write examples.parquet, whole or not at all.

    Raises:
        RunError: it cannot be written.
    """
    buffer = io.BytesIO()
    scores.frame().to_parquet(buffer, index=False)
    write_whole(file, buffer.getvalue())


def read_example_scores(file: Path, remedy: str) -> ExampleScores:
    """Read examples.parquet within bounds.

    Raises:
        InputError: it is missing, damaged, or claims far more than its size; the message ends with `remedy`.
    """
    import pyarrow.parquet as pq

    def damaged(reason: str) -> InputError:
        return InputError(f"{file} is damaged ({reason})", remedy)

    if not file.is_file():
        raise InputError(f"{file} is missing", remedy)
    with foreign_failures(damaged):
        # A repeated name stays one object, however many rows have it.
        opened = pq.ParquetFile(file, read_dictionary=["model", "data"])
    with opened:
        schema, n_rows = opened.schema_arrow, opened.metadata.num_rows
        if not 0 <= n_rows <= _ROWS_PER_BYTE * file.stat().st_size + _MORE_ROWS:
            raise damaged(f"it claims {n_rows:,} rows")
        if (wrong := _wrong_columns(schema)) is not None:
            raise damaged(wrong)
        with foreign_failures(damaged):
            frame: pd.DataFrame = opened.read().to_pandas(ignore_metadata=True)
    if (wrong := _wrong_rows(frame)) is not None:
        raise damaged(wrong)
    frame = frame.astype({"model": "str", "data": "str"})
    tables = {}
    for (model, data), own in frame.groupby(["model", "data"], sort=False):
        # A table of another kind of task has other columns; pandas fills them with NaN.
        held = {str(name): own[name].to_numpy() for name in own.columns if name not in _KEYS}
        tables[str(model), str(data)] = held
    return ExampleScores(tables)


def _wrong_columns(schema: Any) -> str | None:  # noqa: ANN401 - pyarrow has no types
    import pyarrow as pa

    types = pa.types
    if len(schema.names) > _MOST_COLUMNS:
        return f"it has {len(schema.names):,} columns"
    for name in _KEYS:
        if name not in schema.names:
            return f"it lacks the column {name!r}"
    for name in schema.names:
        if schema.names.count(name) > 1:
            return f"the column {name[:80]!r} is there twice"
        held = schema.field(name).type
        inner = held.value_type if types.is_dictionary(held) else held
        if name in ("model", "data"):
            fits = types.is_string(inner) or types.is_large_string(inner)
        elif name in ("example", _PREDICTION, _TARGET):
            fits = types.is_integer(held)
        else:
            fits = types.is_floating(held) or types.is_integer(held)
        if not fits:
            return f"the column {name[:80]!r} is {str(held)[:40]}"
    return None


def _wrong_rows(frame: pd.DataFrame) -> str | None:
    """Return what is impossible in the rows of a file whose columns have their types, or None."""
    for name in frame.columns:
        if name in (*_KEYS, _PREDICTION, _TARGET) and frame[name].isna().any():
            return f"the column {name!r} has cells without a value"
        if (
            name in (_PREDICTION, _TARGET)
            and len(frame)
            and not 0 <= frame[name].min() <= frame[name].max() < _MOST_CLASSES
        ):
            return f"the column {name!r} holds {frame[name].min()} to {frame[name].max()}"
    for (model, data), own in frame.groupby(["model", "data"], sort=False, observed=True):
        if model not in SCORED_MODELS:
            return f"model {str(model)[:40]!r}"
        if not np.array_equal(own["example"].to_numpy(), np.arange(len(own))):
            return f"the examples of the {model} on {str(data)[:40]!r} are not numbered from 0 in order"
    return None


def check_example_scores(
    found: ExampleScores, rows: Sequence[Mapping[str, Any]], model: ScoredModel, file: Path, remedy: str
) -> None:
    """Check that a model's examples are those of its scores.

    Args:
        found: as read.
        rows: of scores.json: `data`, `examples` and the scores.
        model: whose scores the rows are.
        file: where the examples came from.
        remedy: what to do.

    Raises:
        InputError: a table has no examples or another number of them, or their mean is not its score.
    """
    for row in rows:
        data = str(row.get("data", ""))
        if (model, data) not in found:
            raise InputError(f"{file} holds no examples of the {model} on {data!r}", remedy)
        number = found.n_examples(model, data)
        if number != row.get("examples", number):
            raise InputError(
                f"{file} holds {number} examples of the {model} on {data!r}, which has {row['examples']}", remedy
            )
        for name, value in row.items():
            if name == "examples" or isinstance(value, bool) or not isinstance(value, int | float):
                continue
            if not np.isfinite(value):
                continue
            own = found.score(model, data, name)
            if not abs(own - value) <= _ROUNDING * max(1.0, abs(value)):
                raise InputError(
                    f"{file}: the examples of the {model} on {data!r} give {name} {own:.6g}, and its score is "
                    f"{value:.6g}",
                    remedy,
                )
