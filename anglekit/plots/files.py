"""A figure as the bytes of a file: the same figure gives the same bytes."""

from __future__ import annotations

import io
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from matplotlib.backends.backend_pdf import PdfPages
from matplotlib.figure import Figure

from anglekit.errors import InputError, suggest
from anglekit.plots.ground import pages_of
from anglekit.plots.style import LIGHT_THEME, context

#: The file formats of a figure, and the metadata that would otherwise carry the moment of writing.
FORMATS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "png": MappingProxyType({}),
        "pdf": MappingProxyType({"CreationDate": None}),
        "svg": MappingProxyType({"Date": None}),
    }
)


def page_files(figure: Figure, file_format: str, *, dpi: float = 300.0) -> list[bytes]:
    """Return all pages of a figure as files: of `pdf` one file that holds them, of others one for each page.

    Args:
        figure: what to draw, the first of its pages.
        file_format: `png`, `pdf` or `svg`.
        dpi: as of `figure_bytes`.

    Raises:
        InputError: as of `figure_bytes`.
    """
    pages = pages_of(figure)
    if file_format != "pdf" or len(pages) == 1:
        return [figure_bytes(page, file_format, dpi=dpi) for page in pages]
    _check_dpi(dpi)
    stream = io.BytesIO()
    with context(LIGHT_THEME), PdfPages(stream, metadata=dict(FORMATS["pdf"])) as file:
        for page in pages:
            file.savefig(page, dpi=dpi)
    return [stream.getvalue()]


def figure_bytes(figure: Figure, file_format: str, *, dpi: float = 300.0) -> bytes:
    """Return a figure as the bytes of a file, the same for the same figure.

    Fonts are embedded as TrueType in pdf; text stays text in svg.

    Args:
        figure: what to draw.
        file_format: `png`, `pdf` or `svg`.
        dpi: resolution of png, and of the images inside pdf and svg.

    Raises:
        InputError: another format, or a resolution that is not from 10 to 2400.
    """
    if file_format not in FORMATS:
        raise InputError(f"no figure format {file_format!r}", allowed=suggest(file_format, FORMATS))
    _check_dpi(dpi)
    stream = io.BytesIO()
    with context(LIGHT_THEME):  # the settings that matter when a file is written; a theme's colours are in the figure
        figure.savefig(stream, format=file_format, dpi=dpi, metadata=dict(FORMATS[file_format]))
    return stream.getvalue()


def _check_dpi(dpi: float) -> None:
    if not 10 <= dpi <= 2400:
        raise InputError(f"a resolution of {dpi:g} dots per inch", "give one from 10 to 2400 (--dpi)")
