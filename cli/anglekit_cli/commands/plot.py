"""`anglekit plot`: a figure of one or several geometries, as a file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from anglekit.errors import InputError, suggest
from anglekit.settings_fields import FIGURE, OUTPUT
from anglekit.vocabulary import BOTH, STREAMS
from anglekit_cli import options

_DPI = 300.0

EPILOG = "Example: anglekit plot runs/mnli runs/wmt --figure figure1 --task-name MNLI --task-name WMT --out figure1.pdf"


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
            "similarity-chance: each student layer and the one that teaches it, beside permuted examples. "
            "layer-norms: the length of states by layer. "
            "anisotropy, dominant-dimensions: the cosine of unrelated tokens, and which dimensions make it. "
            "vertex-sweep: the angle while the vertex moves from the teachers' centroid to the student and beyond. "
            "layer-trajectories: teacher and students, layer by layer, in one plane. "
            "training-angles: the angle over training (the DIR of a run of `distill --angles-every`, or a DIR "
            "per step: provenance says which, or a name that ends in it, as geometry-step-200). "
            "matching-distance: how far each student layer is from the one that teaches it, over training (the same). "
            "learning-curves: terms of the loss and the validation score over training (sweeps, runs). "
            "scores-by-strategy: a point per seed, the line of no matching, the equivalence margin (sweeps). "
            "score-cost: score against parameters and the time of a batch, teacher included (sweeps, runs). "
            "control-gain: what predictions, an untrained teacher's and trained layers add (sweeps with controls). "
            "angle-spread: mean angle against the spread between strategies (a Geometry and a sweep per task, in one "
            "order).",
            rich_help_panel=FIGURE,
        ),
    ],
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Where to write it: .png, .pdf or .svg.", rich_help_panel=OUTPUT)
    ] = None,
    numbers: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Where to write the numbers that it draws: .csv.", rich_help_panel=OUTPUT),
    ] = None,
    only_student: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Draw this student only; may be repeated, and * stands for any letters, ? for one.",
            show_default="all",
            rich_help_panel=FIGURE,
        ),
    ] = None,
    streams: Annotated[
        str,
        typer.Option(metavar="NAME", help="Draw these streams: encoder, decoder or both.", rich_help_panel=FIGURE),
    ] = BOTH,
    vertices: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NUMBERS", help="Student layers to draw, e.g. 1,3.", show_default="all", rich_help_panel=FIGURE
        ),
    ] = None,
    task_name: options.TaskNames = None,
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
            rich_help_panel=FIGURE,
        ),
    ] = None,
    null: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="The null of null-heatmap: permuted-student, formula, or another of `analyze --nulls`.",
            show_default="permuted-student",
            rich_help_panel=FIGURE,
        ),
    ] = None,
    score_margin: options.ScoreMargin = None,
    rename: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=TEXT",
            help="What a student, a strategy or the teacher is called in the figure; may be repeated.",
            show_default="its name in words",
            rich_help_panel=FIGURE,
        ),
    ] = None,
    style: Annotated[
        list[str] | None,
        typer.Option(
            metavar="STYLE",
            help="A style sheet of matplotlib (ggplot, ...) or a .mplstyle file: ground, ink, lines, grids and fonts "
            "apply; strategies keep their colours, text and figure their sizes. May be repeated.",
            rich_help_panel=FIGURE,
        ),
    ] = None,
    font: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="An installed font.", show_default="DejaVu Sans", rich_help_panel=FIGURE),
    ] = None,
    no_title: Annotated[
        bool,
        typer.Option("--no-title", help="Leave out headings; what tells panels apart stays.", rich_help_panel=FIGURE),
    ] = False,
    no_note: Annotated[
        bool,
        typer.Option("--no-note", help="Leave out the sentences under the figure.", rich_help_panel=FIGURE),
    ] = False,
    dark: Annotated[bool, typer.Option("--dark", help="Draw on a dark ground.", rich_help_panel=FIGURE)] = False,
    dpi: Annotated[
        float, typer.Option(help="Dots per inch of a png, and of a pdf's images.", rich_help_panel=FIGURE)
    ] = _DPI,
    figure_width: Annotated[
        str, typer.Option(metavar="column|page", help="The width of a printed column or page.", rich_help_panel=FIGURE)
    ] = "page",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace files that are there.", rich_help_panel=OUTPUT)
    ] = False,
) -> None:
    """Draw a figure of analyses or scores into a file.

    Its numbers are written too where --numbers names a file for them. What a page does not hold is on further pages: of
    the same .pdf, or in files beside it (figure-2.png).
    """
    options.check_names("--streams", [streams], (*STREAMS, BOTH))
    layers = [number for text in vertices or () for number in options.layer_numbers("vertices", text)]
    if out is None and numbers is None:
        raise InputError("nothing to write", "give a figure's file with --out, or one for its numbers with --numbers")
    if out is None:
        looks = {"--dark": dark, "--dpi": dpi != _DPI, "--figure-width": figure_width != "page"}
        looks |= {"--rename": bool(rename), "--style": bool(style), "--font": font is not None}
        looks |= {"--no-title": no_title, "--no-note": no_note}
        options.check_effects(looks, "came without --out")
    if out is not None:
        options.check_target(out, "a figure's file", (".png", ".pdf", ".svg"))
        options.check_new(out, overwrite=overwrite)
    if numbers is not None:
        options.check_target(numbers, "the numbers' file", (".csv",), "--numbers")
        options.check_new(numbers, overwrite=overwrite)

    names = dict(map(_renamed, rename or ()))

    from anglekit.plots.files import page_files
    from anglekit.plots.inputs import read_figure_inputs
    from anglekit.plots.presentation import Presentation
    from anglekit.plots.registry import FIGURES, draw_figure, figure_data
    from anglekit.runtime.files import write_whole

    if figure not in FIGURES:
        raise InputError(f"no figure {figure!r}", allowed=suggest(figure, FIGURES))
    presentation = Presentation(style=style, font=font, titles=not no_title, notes=not no_note, names=names)
    presentation.settings()  # a style that is not there is found before anything is read
    found = read_figure_inputs(directories, over_training=FIGURES[figure].over_training)
    labels = task_name
    if labels is None and "labels" in FIGURES[figure].options:
        labels = list(found.score_names if FIGURES[figure].uses in ("scores", "records") else found.names)
    choices = {
        "labels": labels,
        "students": only_student or None,
        "stream": None if streams == BOTH else streams,
        "vertices": layers or None,
        "value": value,
        "null": null,
        "margin": score_margin,
    }
    contents = {}
    if out is not None:
        drawn = draw_figure(
            figure,
            found.geometries,
            scores=found.scores,
            records=found.records,
            **choices,
            width=figure_width,
            dark=dark or None,
            presentation=presentation,
        )
        files = page_files(drawn, out.suffix.lower().removeprefix("."), dpi=dpi)
        for number, content in enumerate(files, start=1):
            target = out if number == 1 else out.with_stem(f"{out.stem}-{number}")
            options.check_target(target, "a figure's file", (".png", ".pdf", ".svg"))
            options.check_new(target, overwrite=overwrite)
            contents[target] = content
    if numbers is not None:
        drawn_numbers = figure_data(figure, found.geometries, scores=found.scores, records=found.records, **choices)
        contents[numbers] = drawn_numbers.to_csv(index=False, lineterminator="\n").encode()
    for target, content in contents.items():
        write_whole(target, content)
        typer.echo(str(target))


def _renamed(given: str) -> tuple[str, str]:
    """Return what `--rename` gives: a name and what it is called."""
    name, equals, text = given.partition("=")
    if not equals or not name or not text.strip():
        raise InputError(
            f"--rename {given!r} is no NAME=TEXT",
            "give a student's name, an equals sign and what it is called; a task's name is given with --task-name",
        )
    return name, text
