"""`anglekit plot`: a figure of one or several geometries, as a file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from anglekit.errors import InputError, suggest
from anglekit_cli.options import check_target

EPILOG = "Example: anglekit plot runs/mnli runs/wmt --figure figure1 --task MNLI --task WMT --out figure1.pdf"


def plot(
    directories: Annotated[
        list[Path],
        typer.Argument(
            metavar="DIR...",
            help="Directories of `anglekit analyze --out`; for scores, directories of `anglekit sweep` or `distill`, "
            "or a scores.csv.",
        ),
    ],
    figure: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="figure1: the angle to scale and its cosine's distribution, a panel per task and stream. "
            "angles-heatmap: teacher layer by teacher layer, a panel per student layer. "
            "null-heatmap: the same, observed minus null. "
            "acute-fraction: the share of acute angles by student layer. "
            "layer-distance, layer-cosine, layer-cka: teacher layer by student layer. "
            "layer-norms: the length of states by layer. "
            "anisotropy, dominant-dimensions: the cosine of unrelated tokens, and which dimensions make it. "
            "vertex-sweep: the angle while the vertex moves from the teachers' centroid to the student and beyond. "
            "layer-trajectories: teacher and students, layer by layer, in one plane. "
            "training-angles: the angle over training (a DIR per step: provenance says which, or a name "
            "that ends in it, as geometry-step-200). "
            "scores-by-strategy: a point per seed, the line of no matching, the equivalence margin (sweeps). "
            "angle-spread: mean angle against the spread between strategies (a Geometry and a sweep per task, in one "
            "order).",
        ),
    ],
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Where to write it: .png, .pdf or .svg.")] = None,
    data: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Where to write the numbers that it draws: .csv.")
    ] = None,
    student: Annotated[
        list[str] | None, typer.Option(help="Draw this student only; may be repeated.", show_default="all")
    ] = None,
    stream: Annotated[
        str | None, typer.Option(help="Draw this stream only: encoder or decoder.", show_default="both")
    ] = None,
    vertex: Annotated[
        list[int] | None,
        typer.Option(help="Draw this student layer only; may be repeated.", show_default="all"),
    ] = None,
    task: Annotated[
        list[str] | None,
        typer.Option(metavar="LABEL", help="A task's name for each DIR, in order.", show_default="DIR's name"),
    ] = None,
    value: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN",
            help="What is shown. angles-heatmap: mean_cosine, mean_angle_degrees, acute_fraction, "
            "mean_tangential_cosine, mean_tangential_angle_degrees, null_cosine, std_cosine or se_cosine. "
            "layer-distance: mean_distance or procrustes_distance. layer-cosine: mean_cosine or centred_cosine. "
            "layer-cka: cka, debiased_cka, linear_cka or mutual_neighbours. scores-by-strategy, angle-spread: a "
            "score's name.",
            show_default="the first named",
        ),
    ] = None,
    null: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="The null of null-heatmap: permuted-student, formula, or another of `analyze --nulls`.",
            show_default="permuted-student",
        ),
    ] = None,
    margin: Annotated[
        float | None,
        typer.Option(help="Largest difference of scores that does not matter, in their unit.", show_default="a point"),
    ] = None,
    dark: Annotated[bool, typer.Option("--dark", help="Draw on a dark ground.")] = False,
    dpi: Annotated[float, typer.Option(help="Dots per inch of a png.")] = 300.0,
    width: Annotated[str, typer.Option(metavar="column|page", help="The width of a printed column or page.")] = "page",
) -> None:
    """Draw a figure of analyses or scores into a file.

    Its numbers are written too where --data names a file for them.
    """
    if out is None and data is None:
        raise InputError("nothing to write", "give a figure's file with --out, or one for its numbers with --data")
    if out is not None:
        check_target(out, "a figure's file", (".png", ".pdf", ".svg"))
    if data is not None:
        check_target(data, "the numbers' file", (".csv",), "--data")

    from anglekit.plots.files import figure_bytes
    from anglekit.plots.inputs import read_figure_inputs
    from anglekit.plots.registry import FIGURES, draw_figure, figure_data
    from anglekit.runtime.files import write_whole

    if figure not in FIGURES:
        raise InputError(f"no figure {figure!r}", allowed=suggest(figure, FIGURES))
    found = read_figure_inputs(directories)
    labels = task
    if labels is None and "labels" in FIGURES[figure].options:
        labels = list(found.score_names if FIGURES[figure].uses == "scores" else found.names)
    options = {
        "labels": labels,
        "students": student or None,
        "stream": stream,
        "vertices": vertex or None,
        "value": value,
        "null": null,
        "margin": margin,
    }
    contents = {}
    if out is not None:
        drawn = draw_figure(figure, found.geometries, scores=found.scores, **options, width=width, dark=dark or None)
        _warn_of_height(float(drawn.get_size_inches()[1]), FIGURES[figure].options)
        contents[out] = figure_bytes(drawn, out.suffix.lower().removeprefix("."), dpi=dpi)
    if data is not None:
        numbers = figure_data(figure, found.geometries, scores=found.scores, **options)
        contents[data] = numbers.to_csv(index=False, lineterminator="\n").encode()
    for target, content in contents.items():
        write_whole(target, content)
        typer.echo(str(target))


def _warn_of_height(inches: float, options: frozenset[str]) -> None:
    from anglekit.plots.style import PAGE_HEIGHT

    ways = {"students": "--student", "stream": "--stream", "vertices": "--vertex"}
    if inches > PAGE_HEIGHT:
        fewer = " or ".join(way for option, way in ways.items() if option in options)
        advice = f"; draw fewer panels with {fewer}" if fewer else ""
        typer.echo(f"note: {inches:.0f} inches high, more than a page holds ({PAGE_HEIGHT:g}){advice}", err=True)
