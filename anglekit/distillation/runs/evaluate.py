"""Scores of trained models; a run's student is scored with the settings that the run used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd

from anglekit.distillation.runs.directory import RunConfig
from anglekit.distillation.settings import DataSettings, ScoringSettings, evaluation_sources
from anglekit.distillation.tasks.models import load_trained
from anglekit.distillation.tasks.registry import task_by_name
from anglekit.errors import InputError
from anglekit.models.checkpoints import checkpoint_of, quiet_transformers
from anglekit.models.load_options import LoadOptions
from anglekit.results.scores import RUN_CONFIG_FILE
from anglekit.runtime.files import convert_document, read_document
from anglekit.settings_fields import one_or_more

_PLAIN_PENALTY = 1.0


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The scores of trained models.

    Attributes:
        scores: a row for each checkpoint and table: `checkpoint`, `data`, `examples` and the task's scores.
        examples: a row for each checkpoint, table and example: `checkpoint`, `data`, `example` (counted from 0) and
            what the example adds to the scores, as a run's examples.parquet holds it
            (`results.example_scores.ExampleScores`).
        scoring: by table, how the scores were computed: sacreBLEU's signatures, beams.
        settings: by checkpoint, what was taken from its run.
        columns: by table, the columns that were read.
        labels: a row for each checkpoint, table and label, where examples may have several: `checkpoint`, `data`,
            `label`, `examples` that have it, `f1`, `precision` and `recall`. Empty elsewhere.
        left_out: by table, how many rows were left out, by the label that they have; "" for rows without one.
        notes: by table, what a person should know of how it was read.
    """

    scores: pd.DataFrame
    examples: pd.DataFrame
    scoring: Mapping[str, Mapping[str, Any]]
    settings: Mapping[str, Mapping[str, Any]]
    columns: Mapping[str, tuple[str, ...]]
    labels: pd.DataFrame = field(default_factory=pd.DataFrame)
    left_out: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    notes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def evaluate(
    checkpoints: str | Sequence[str],
    *,
    task: str,
    data: str | Sequence[str],
    columns: DataSettings | None = None,
    scoring: ScoringSettings | None = None,
    batch_size: int = 64,
    load: LoadOptions | None = None,
) -> Evaluation:
    """Score trained models; a run directory of this task is scored as the run scored it, unless `scoring` differs.

    Args:
        checkpoints: directories, run directories or hub ids, one or several.
        task: a name in `tasks.TASKS`.
        data: tables, one or several, each `SOURCE` or `NAME=SOURCE`.
        columns: columns by name.
        scoring: lengths and generation; the run, or else the task, gives what they leave open.
        batch_size: examples of one forward pass.
        load: device, precision and what is allowed in loading.

    Raises:
        InputError: a checkpoint that cannot be loaded or has no head, or a label that it does not know.

    Example:
        >>> found = anglekit.evaluate(["runs/teacher", "runs/forward"], task="sst2", data="dev.tsv")
        >>> found.scores  # a pandas frame: a row for each checkpoint and table
    """
    chosen = task_by_name(task).configured(columns)
    checkpoints = one_or_more(checkpoints)
    if not checkpoints or not data:
        raise InputError("nothing to evaluate: give at least one checkpoint and one table")
    if batch_size < 1:
        raise InputError(f"the batch size is {batch_size}", allowed="allowed: at least 1")
    asked = scoring or ScoringSettings()
    taken = {source: run_scoring(source, chosen.name) for source in checkpoints}
    tables = [chosen.read(source, columns, name=name) for name, source in evaluation_sources(data).items()]
    rows: list[dict[str, Any]] = []
    parts: list[pd.DataFrame] = []
    notes: dict[str, Any] = {}
    labels: list[dict[str, Any]] = []
    for source in checkpoints:
        settings = asked.or_else(taken[source])
        loaded = load_trained(source, chosen, load)
        config, tokenizer = loaded.model.config, loaded.tokenizer
        settled = chosen.for_trained(config)
        encoding = settled.encoding(settings.encoding, tokenizer, config)
        if told := settled.tell_languages(settings.encoding, tokenizer):
            tables = [replace(one, notes=tuple(dict.fromkeys((*one.notes, *told)))) for one in tables]
        for table in tables:
            examples = settled.tokenize(table, tokenizer, encoding, config, training=False)
            with quiet_transformers():
                report = settled.score(
                    loaded.model, examples, tokenizer, batch_size=batch_size, generation=settings.generation
                )
            rows.append({"checkpoint": source, "data": table.name, **report.scores})
            keys = {"checkpoint": source, "data": table.name, "example": range(examples.n_rows)}
            parts.append(pd.DataFrame({**keys, **report.examples}))
            notes[table.name] = dict(report.notes)
            labels += [
                {"checkpoint": source, "data": table.name, **row} for row in notes[table.name].pop("by_label", ())
            ]
    used = {
        source: {name: value for name, value in found.given().items() if getattr(asked, name) is None}
        for source, found in taken.items()
        if found.given()
    }
    return Evaluation(
        pd.DataFrame(rows),
        pd.concat(parts, ignore_index=True),
        notes,
        used,
        {one.name: one.columns for one in tables},
        pd.DataFrame(labels),
        {one.name: left_out for one in tables if (left_out := one.provenance().get("left_out"))},
        {one.name: one.notes for one in tables},
    )


def run_scoring(source: str, task: str) -> ScoringSettings:
    """Return the settings under which a run directory's student was scored; none for any other source or task.

    Raises:
        InputError: the run's settings are damaged.
    """
    file = Path(source) / RUN_CONFIG_FILE
    if checkpoint_of(source) == source or not file.exists():
        return ScoringSettings()
    remedy = f"give {Path(source) / 'checkpoint'} itself to score it under the task's settings"
    config = read_document(file, RunConfig, remedy)
    if config.task != task:
        return ScoringSettings()
    settings = convert_document(config.settings, ScoringSettings, str(file), remedy)
    return replace(settings, length_penalty=None) if settings.length_penalty == _PLAIN_PENALTY else settings
