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
from anglekit.plots.registry import FIGURES, checked_name, draw_figure
from anglekit.results.geometry import Geometry

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
    width: str = "page",
    dark: bool = False,
    **options: Any,
) -> Any:
    """Draw a figure by name: `draw("layer-norms", geometry, ax=ax)`, `draw("figure1", "runs/mnli").savefig("a.pdf")`.

    A figure of its own has fonts embedded in its files. On axes of yours it takes your style and leaves out its notes;
    one panel needs one axes, several need a sequence of them; a `SubFigure` (or Figure) takes the whole, at its width.
    Your own figure's files embed fonts as your `pdf.fonttype` says (42 is TrueType).

    Args:
        name: a figure of `anglekit plot --figure`: `figure1`, `layer-norms`, `training-angles` and so on.
        sources: a Geometry or the directory of one, or several where the figure takes them; for scores the directories
            of sweeps and runs, or files of scores.
        ax: what to draw on; None: a Figure of its own.
        scores: tables of scores, one per task, where they are in memory; by the task's name in a dictionary.
        width: `page` or `column`, of a figure of its own.
        dark: draw on a dark ground.
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
    tables, score_names, names = list[pd.DataFrame](), list[str](), list[str | None]()
    for each in given:
        if isinstance(each, Geometry):
            geometries.append(each)
            names.append(None)
            continue
        if not isinstance(each, str | PathLike):
            raise InputError(
                f"a {type(each).__name__} cannot be drawn", "give a Geometry, or a directory that holds one"
            )
        found = read_figure_inputs([Path(fspath(each))], over_training=spec.over_training)
        geometries += found.geometries
        names += found.names
        tables += found.scores
        score_names += found.score_names
    if isinstance(scores, Mapping):
        tables += scores.values()
        score_names += scores
    else:
        tables += [scores] if isinstance(scores, pd.DataFrame) else scores
    if options.get("labels") is None and "labels" in spec.options:
        labels = score_names if spec.uses == "scores" else names
        count = len(tables) if spec.uses == "scores" else len(geometries)
        if len(labels) == count and count and None not in labels:
            options["labels"] = labels
    drawn = draw_figure(name, geometries, scores=tables, width=width, dark=dark, ax=ax, **options)
    return drawn if ax is None else ax
