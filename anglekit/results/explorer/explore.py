"""`anglekit.explore`: a Geometry, or its directory, to look into."""

from __future__ import annotations

from pathlib import Path

from anglekit.results.explorer.document import Explorer
from anglekit.results.geometry import Geometry


def explore(geometry: Geometry | str | Path) -> Explorer:
    """Return a Geometry to look into: `anglekit.explore("geometry")` as the last line of a notebook's cell.

    `Path("angles.html").write_text(anglekit.explore("geometry").html, encoding="utf-8")` makes a file to open in a
    browser.

    Args:
        geometry: what the analysis found, or its directory.

    Raises:
        InputError: the directory holds no Geometry, or a damaged one.
    """
    return (geometry if isinstance(geometry, Geometry) else Geometry.load(geometry)).explorer()
