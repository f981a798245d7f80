"""`anglekit plot`: a figure of one or several geometries, as a file."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from anglekit.errors import InputError, RunError, suggest

__all__ = ["plot"]

_SUFFIXES = (".png", ".pdf", ".svg")


def plot(
    directories: Annotated[
        list[Path], typer.Argument(metavar="DIR...", help="Directories that `anglekit analyze --out` wrote.")
    ],
    figure: Annotated[
        str,
        typer.Option(
            "--figure",
            metavar="NAME",
            help="figure1: the angle to scale and its cosine's distribution, a panel per task and stream. "
            "angles-heatmap: teacher layer by teacher layer, a panel per student layer (one DIR).",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="Where to write it: .png, .pdf or .svg.")],
    student: Annotated[
        list[str] | None, typer.Option("--student", help="Draw this student only; may be repeated.", show_default="all")
    ] = None,
    stream: Annotated[
        str | None, typer.Option("--stream", help="Draw this stream only: encoder or decoder.", show_default="both")
    ] = None,
    vertex: Annotated[
        list[int] | None,
        typer.Option("--vertex", help="Draw this student layer only; may be repeated.", show_default="all"),
    ] = None,
    task: Annotated[
        list[str] | None,
        typer.Option(
            "--task", metavar="LABEL", help="A task's name for each DIR, in order.", show_default="DIR's name"
        ),
    ] = None,
    value: Annotated[
        str | None,
        typer.Option(
            "--value",
            metavar="COLUMN",
            help="What a heat map shows: mean_cosine, mean_angle_degrees, acute_fraction, mean_tangential_cosine, "
            "null_cosine, std_cosine or se_cosine.",
            show_default="mean_cosine",
        ),
    ] = None,
    dark: Annotated[bool, typer.Option("--dark", help="Draw on a dark ground.")] = False,
    dpi: Annotated[float, typer.Option("--dpi", help="Dots per inch of a png.")] = 300.0,
    width: Annotated[
        str, typer.Option("--width", metavar="column|page", help="The width of a printed column or page.")
    ] = "page",
) -> None:
    """Draw a figure of one or several analyses and write it to a file.

    Example: anglekit plot runs/mnli runs/wmt --figure figure1 --task MNLI --task WMT --out figure1.pdf
    """
    if out.suffix.lower() not in _SUFFIXES:
        raise InputError(f"cannot write {out.name!r}: a figure's file ends in {', '.join(_SUFFIXES)}; change --out")
    if out.is_dir():
        raise InputError(f"{out} is a directory; give a file with --out")
    from anglekit.geometry.results import Geometry
    from anglekit.plots.registry import FIGURES, draw_figure
    from anglekit.plots.render import render

    if figure not in FIGURES:
        raise InputError(f"no figure {figure!r}; {suggest(figure, FIGURES)}")
    labels = task
    if labels is None and "labels" in FIGURES[figure].options:
        labels = [directory.resolve().name for directory in directories]
    drawn = draw_figure(
        figure,
        [Geometry.load(directory) for directory in directories],
        labels=labels,
        students=student or None,
        stream=stream,
        vertices=vertex or None,
        value=value,
        width=width,
        dark=dark,
    )
    _write(out, render(drawn, out.suffix.lower().removeprefix("."), dpi=dpi))
    typer.echo(str(out))


def _write(target: Path, content: bytes) -> None:
    """Write a file beside its final name and rename it: it is whole or absent."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=f".{target.name}-", dir=target.parent)
    except OSError as error:
        raise RunError(f"cannot write beside {target}: {error.strerror}") from error
    scratch = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
        mask = os.umask(0)
        os.umask(mask)
        scratch.chmod(0o666 & ~mask)
        scratch.replace(target)
    except OSError as error:
        raise RunError(f"cannot write {target}: {error.strerror}") from error
    finally:
        scratch.unlink(missing_ok=True)
