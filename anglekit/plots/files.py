"""A figure as the bytes of a file: the same figure gives the same bytes."""

from __future__ import annotations

import io
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from matplotlib.figure import Figure

from anglekit.errors import InputError, suggest
from anglekit.plots.style import LIGHT_THEME, context

#: The file formats of a figure, and the metadata that would otherwise carry the moment of writing.
FORMATS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "png": MappingProxyType({}),
        "pdf": MappingProxyType({"CreationDate": None}),
        "svg": MappingProxyType({"Date": None}),
    }
)


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
    if not 10 <= dpi <= 2400:
        raise InputError(f"a resolution of {dpi:g} dots per inch", "give one from 10 to 2400 (--dpi)")
    stream = io.BytesIO()
    with context(LIGHT_THEME):  # the settings that matter when a file is written; a theme's colours are in the figure
        figure.savefig(stream, format=file_format, dpi=dpi, metadata=dict(FORMATS[file_format]))
    return stream.getvalue()
