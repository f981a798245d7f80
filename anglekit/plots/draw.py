"""Any figure by its name, from Geometries or directories, alone or on the caller's axes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from os import PathLike, fspath
from pathlib import Path
from typing import Any, TypeVar, overload

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from anglekit.errors import InputError
from anglekit.plots.inputs import read_figure_inputs
from anglekit.plots.presentation import Presentation
from anglekit.plots.registry import FIGURES, checked_name, draw_figure
from anglekit.results.geometry import Geometry
from anglekit.results.training_records import TrainingRecords

Source = Geometry | str | PathLike[str]
Ground = TypeVar("Ground", Axes, SubFigure, Figure, Sequence[Axes])


@overload
def draw(
    name: str,
    sources: Source | Iterable[Source] | None = None,
    *,
    ax: None = None,
    **options: Any,  # noqa: ANN401 - as below
) -> Figure: ...
@overload
def draw(name: str, sources: Source | Iterable[Source] | None = None, *, ax: Ground, **options: Any) -> Ground: ...  # noqa: ANN401
def draw(
    name: str,
    sources: Source | Iterable[Source] | None = None,
    *,
    ax: Any = None,
    scores: pd.DataFrame | Sequence[pd.DataFrame] | Mapping[str, pd.DataFrame] = (),
    records: Sequence[TrainingRecords] = (),
    width: str = "page",
    dark: bool = False,
    style: str | PathLike[str] | Sequence[str | PathLike[str]] | None = None,
    font: str | None = None,
    titles: bool = True,
    notes: bool = True,
    names: Mapping[str, str] | None = None,
    **options: Any,
) -> Any:
    """Draw a figure by name: `draw("layer-norms", geometry, ax=ax)`, `draw("figure1", "runs/mnli").savefig("a.pdf")`.

    A figure of its own has fonts embedded in its files. On axes of yours it takes your style and leaves out its notes;
    one panel needs one axes, several need a sequence of them; a `SubFigure` (or Figure) takes the whole, at its width.
    Your own figure's files embed fonts as your `pdf.fonttype` says (42 is TrueType). A figure that a page does not hold
    goes on: its other pages are in `following` of what is returned.

    Args:
        name: a figure of `anglekit plot --figure`: `figure1`, `layer-norms`, `training-angles` and so on.
        sources: a Geometry or the directory of one, or several where the figure takes them; for scores the directories
            of sweeps and runs, or files of scores.
        ax: what to draw on; None: a Figure of its own.
        scores: tables of scores, one per task, where they are in memory; by the task's name in a dictionary.
        records: what the runs of each of these tables keep beside their scores.
        width: `page` or `column`, of a figure of its own.
        dark: draw on a dark ground.
        style: a style sheet of matplotlib, a `.mplstyle` file, or several (see `Presentation`).
        font: a font that is installed.
        titles: write headings.
        notes: write the sentences under the figure.
        names: what students, strategies or the `teacher` are called in it, by name.
        **options: `labels, students, stream, vertices, value, null, margin, bins`, those that the figure takes.

    Returns:
        `ax`, or the new Figure.

    Raises:
        InputError: an unknown figure, inputs, an option or axes that it does not take.
    """
    spec = FIGURES[checked_name(name)]
    if sources is None or isinstance(sources, Geometry | str | PathLike):
        given: list[Any] = [] if sources is None else [sources]
    elif isinstance(sources, Iterable):
        given = list(sources)
    else:
        raise InputError(f"a {type(sources).__name__} cannot be drawn", "give a Geometry, a directory, or several")
    geometries: list[Geometry] = []
    tables, score_names, places = list[pd.DataFrame](), list[str](), list[str | None]()
    kept = list[TrainingRecords]()
    paths = [Path(fspath(each)) for each in given if isinstance(each, str | PathLike)]
    for each in given:
        if isinstance(each, Geometry):
            geometries.append(each)
            places.append(None)
            continue
        if not isinstance(each, str | PathLike):
            raise InputError(
                f"a {type(each).__name__} cannot be drawn", "give a Geometry, or a directory that holds one"
            )
        found = read_figure_inputs([Path(fspath(each))], over_training=spec.over_training, beside=paths)
        geometries += found.geometries
        places += found.names
        tables += found.scores
        kept += found.records
        score_names += found.score_names
    if isinstance(scores, Mapping):
        tables += scores.values()
        score_names += scores
    else:
        tables += [scores] if isinstance(scores, pd.DataFrame) else scores
    if options.get("labels") is None and "labels" in spec.options:
        scored = spec.uses in ("scores", "records")
        labels = score_names if scored else places
        count = len(tables) if scored else len(geometries)
        if len(labels) == count and count and None not in labels:
            options["labels"] = labels
    chosen = Presentation(style=style, font=font, titles=titles, notes=notes, names=names or {})
    drawn = draw_figure(
        name,
        geometries,
        scores=tables,
        records=[*kept, *records],
        width=width,
        dark=dark,
        ax=ax,
        presentation=chosen,
        **options,
    )
    return drawn if ax is None else ax
