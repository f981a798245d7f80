"""Figures that other processes draw are those that this one draws; what goes wrong there is told here."""

from __future__ import annotations

import os

import pytest

from anglekit.errors import InputError, RunError
from anglekit.plots.inputs import FigureInputs
from anglekit.report.drawers import DrawingTask, drawers, usable_cores
from tests.plots.full_geometry import full_geometry


def task(name: str, **options: object) -> DrawingTask:
    return DrawingTask(name, "key", 0, options)


SHEETS = [
    (task("acute-fraction"), "column"),
    (task("layer-cosine", students="forward-teacher-seed0"), "column"),
    (task("layer-norms"), "page"),
]


class _Ends:
    """Ends the process that reads it."""

    def __reduce__(self):
        return os._exit, (1,)


@pytest.fixture(scope="module")
def inputs():
    return FigureInputs([full_geometry()])


@pytest.mark.slow
def test_other_processes_draw_the_same_files_and_tell_their_errors(inputs):
    with drawers(inputs, 1) as begin:
        own = [begin(*sheet)() for sheet in SHEETS]
    assert all(b"<svg" in file for files in own for file in files)
    assert len({file for files in own for file in files}) == len(SHEETS)
    with drawers(inputs, 2) as begin:
        wrong = begin(task("layer-cosine", students="nobody"), "column")
        waiting = [begin(*sheet) for sheet in SHEETS]
        assert [wait() for wait in waiting] == own
        with pytest.raises(InputError, match="nobody"):
            wrong()
        ended = begin(task("layer-norms", students=_Ends()), "page")
        with pytest.raises(RunError, match="ended before its figure; draw in this one: --processes 1"):
            ended()


def test_a_figure_that_one_page_does_not_hold_is_drawn_whole(inputs):
    with drawers(inputs, 1) as begin:
        assert [len(begin(task(name), "column")()) for name in ("layer-trajectories", "layer-norms")] == [2, 1]


def test_nothing_is_drawn_before_it_is_waited_for_by_one_worker(inputs):
    with drawers(inputs, 1) as begin:
        wait = begin(task("no-such-figure"), "page")
        with pytest.raises(InputError, match="no-such-figure"):
            wait()


def test_one_geometry_comes_without_scores_and_everything_whole(inputs):
    assert DrawingTask("figure1", "key", None).chosen(inputs) is inputs
    one = task("figure1").chosen(FigureInputs(inputs.geometries, ["scores"]))
    assert (list(one.geometries), list(one.scores)) == (list(inputs.geometries), [])
    assert usable_cores() >= 1
