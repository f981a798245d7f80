"""anglekit: see a teacher's layers from inside its student.

The public names are loaded on first use, so that `import anglekit` (and `anglekit --help`) does not import torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from anglekit.checkpoints import Checkpoint as Checkpoint
    from anglekit.checkpoints import LoadOptions as LoadOptions
    from anglekit.checkpoints import load_checkpoint as load_checkpoint
    from anglekit.demo import DemoResult as DemoResult
    from anglekit.demo import run_demo as run_demo
    from anglekit.distillation.callbacks import AngleCallback as AngleCallback
    from anglekit.distillation.matching import LayerMatching as LayerMatching
    from anglekit.distillation.matching import layer_matching as layer_matching
    from anglekit.distillation.objective import DistillationObjective as DistillationObjective
    from anglekit.distillation.students import create_student as create_student
    from anglekit.distillation.sweep import SweepResult as SweepResult
    from anglekit.distillation.sweep import sweep as sweep
    from anglekit.distillation.trainer import DistillationTrainer as DistillationTrainer
    from anglekit.errors import AnglekitError as AnglekitError
    from anglekit.errors import InputError as InputError
    from anglekit.errors import RunError as RunError
    from anglekit.geometry.analyze import analyze as analyze
    from anglekit.geometry.angles import angle_degrees as angle_degrees
    from anglekit.geometry.angles import tangential_cosine as tangential_cosine
    from anglekit.geometry.angles import vertex_cosine as vertex_cosine
    from anglekit.geometry.compare import Comparison as Comparison
    from anglekit.geometry.compare import compare as compare
    from anglekit.geometry.results import Geometry as Geometry
    from anglekit.geometry.settings import AnalysisSettings as AnalysisSettings
    from anglekit.geometry.streaming import GeometryAccumulator as GeometryAccumulator
    from anglekit.hidden_states import LayerRecorder as LayerRecorder
    from anglekit.plots.figure1 import figure1 as figure1
    from anglekit.plots.heatmaps import angles_heatmap as angles_heatmap
    from anglekit.probes import ProbeData as ProbeData
    from anglekit.probes import read_probe as read_probe
    from anglekit.probes import tokenize_probe as tokenize_probe
    from anglekit.tables import read_table as read_table

__version__ = "0.1.0"

_HOMES = {
    "AngleCallback": "anglekit.distillation.callbacks",
    "AnalysisSettings": "anglekit.geometry.settings",
    "AnglekitError": "anglekit.errors",
    "Checkpoint": "anglekit.checkpoints",
    "Comparison": "anglekit.geometry.compare",
    "DistillationObjective": "anglekit.distillation.objective",
    "DistillationTrainer": "anglekit.distillation.trainer",
    "DemoResult": "anglekit.demo",
    "Geometry": "anglekit.geometry.results",
    "GeometryAccumulator": "anglekit.geometry.streaming",
    "InputError": "anglekit.errors",
    "LayerMatching": "anglekit.distillation.matching",
    "LayerRecorder": "anglekit.hidden_states",
    "LoadOptions": "anglekit.checkpoints",
    "ProbeData": "anglekit.probes",
    "RunError": "anglekit.errors",
    "SweepResult": "anglekit.distillation.sweep",
    "analyze": "anglekit.geometry.analyze",
    "angle_degrees": "anglekit.geometry.angles",
    "angles_heatmap": "anglekit.plots.heatmaps",
    "compare": "anglekit.geometry.compare",
    "create_student": "anglekit.distillation.students",
    "figure1": "anglekit.plots.figure1",
    "layer_matching": "anglekit.distillation.matching",
    "load_checkpoint": "anglekit.checkpoints",
    "read_probe": "anglekit.probes",
    "read_table": "anglekit.tables",
    "run_demo": "anglekit.demo",
    "sweep": "anglekit.distillation.sweep",
    "tangential_cosine": "anglekit.geometry.angles",
    "tokenize_probe": "anglekit.probes",
    "vertex_cosine": "anglekit.geometry.angles",
}

__all__ = sorted(_HOMES)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - the module's attributes have many types
    """Import the public name `name` from the module that defines it."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'anglekit' has no attribute {name!r}")
    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Return the public names."""
    return [*__all__, "__version__"]
