"""The whole analysis in one call: checkpoints and probe data in, a Geometry out, in one pass over the probe."""

from __future__ import annotations

from collections.abc import Sequence

from anglekit.checkpoints import Checkpoint
from anglekit.geometry.measure import measure
from anglekit.geometry.results import Geometry
from anglekit.geometry.settings import AnalysisSettings
from anglekit.geometry.tabulate import tabulate
from anglekit.probes import ProbeData
from anglekit.workspace import only_new_garbage

__all__ = ["analyze"]


@only_new_garbage()
def analyze(
    teacher: Checkpoint,
    students: Sequence[Checkpoint],
    probe: ProbeData,
    settings: AnalysisSettings | None = None,
    *,
    progress: bool = False,
) -> Geometry:
    """Look at a teacher's layers from inside its students.

    The teacher's forward pass is shared by all students. Everything is checked before the first batch runs; the models
    are left as they were found. The work is this process's alone; `measure` shares it among processes and jobs.

    Args:
        teacher: the teacher.
        students: one or more students with the teacher's tokenizer and streams.
        probe: the texts.
        settings: how; the corrected reading by default.
        progress: show a progress bar on the terminal.

    Raises:
        InputError: the checkpoints do not fit each other or the probe.
        RunError: no finite state was left.
    """
    return tabulate(*measure(teacher, students, probe, settings, progress=progress))
