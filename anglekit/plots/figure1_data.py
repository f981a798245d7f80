"""The numbers that figure 1 draws, as a table."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from anglekit.geometry.results import Geometry
from anglekit.plots.cosine_curves import cosine_panels
from anglekit.plots.selection import check_labels, choose_streams, choose_students, choose_vertices

__all__ = ["figure1_data", "figure1_facts"]


def figure1_data(
    geometries: Sequence[Geometry],
    *,
    labels: Sequence[str] | None = None,
    students: str | Sequence[str] | None = None,
    stream: str | None = None,
    vertices: Sequence[int] | None = None,
    bins: int | None = None,
) -> pd.DataFrame:
    """Return what `figure1` draws: a row per task, stream, student and bin of the cosine.

    Columns: `task, stream, student, init, bin_left, bin_right, count, density` (per unit cosine), and the curve's
    `acute_fraction` and `chance_cosine`, the same in all of its rows.

    Raises:
        InputError: an argument names what the geometries do not have.
    """
    panels = cosine_panels(
        geometries,
        check_labels(geometries, labels),
        choose_students(geometries, students),
        choose_streams(geometries, stream),
        choose_vertices(geometries, vertices),
        bins,
    )
    frames = []
    for panel in panels:
        for curve in panel.curves:
            edges = np.linspace(-1.0, 1.0, len(curve.counts) + 1)
            frame = pd.DataFrame(
                {"bin_left": edges[:-1], "bin_right": edges[1:], "count": curve.counts, "density": curve.density}
            )
            frame = frame.assign(acute_fraction=curve.acute_fraction, chance_cosine=curve.chance)
            for place, (name, text) in enumerate(
                (("task", panel.label), ("stream", panel.stream), ("student", curve.student), ("init", curve.init))
            ):
                frame.insert(place, name, "" if text is None else text)
            frames.append(frame)
    columns = ["task", "stream", "student", "init", "bin_left", "bin_right", "count", "density"]
    columns += ["acute_fraction", "chance_cosine"]
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=columns)


def figure1_facts(data: pd.DataFrame) -> str:
    """Return in a sentence what the figure's numbers are."""
    curves = data.drop_duplicates(["task", "stream", "student"])
    parts = []
    for (task, stream, init), rows in curves.groupby(["task", "stream", "init"], sort=False):
        low, high = (100 * float(end) for end in (rows["acute_fraction"].min(), rows["acute_fraction"].max()))
        share = f"{low:.0f}%" if f"{low:.0f}" == f"{high:.0f}" else f"{low:.0f} to {high:.0f}%"
        where = f"{task}, {stream}" if task else str(stream)
        who = f"{len(rows)} student{'s' if len(rows) > 1 else ''}{f' ({init} init)' if init else ''}"
        parts.append(f"{where}: {share} of the cosines of {who} are acute")
    return f"{'; '.join(parts)}." if parts else "No student has a finite cosine."
