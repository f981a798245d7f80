"""anglekit: see a teacher's layers from inside its student.

The public names are loaded on first use, so that `import anglekit` (and `anglekit --help`) does not import torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from anglekit import losses as losses
    from anglekit.advice.advise import Advice as Advice
    from anglekit.advice.advise import advise as advise
    from anglekit.analysis.analyze import analyze as analyze
    from anglekit.analysis.arrays.accumulator import GeometryAccumulator as GeometryAccumulator
    from anglekit.analysis.jobs.extract import extract_states as extract_states
    from anglekit.analysis.settings import AnalysisSettings as AnalysisSettings
    from anglekit.comparison.compare import compare as compare
    from anglekit.comparison.result import Comparison as Comparison
    from anglekit.distillation.losses.objective import DistillationObjective as DistillationObjective
    from anglekit.distillation.losses.weights import LossWeights as LossWeights
    from anglekit.distillation.matching.strategies import LayerMatching as LayerMatching
    from anglekit.distillation.matching.strategies import layer_matching as layer_matching
    from anglekit.distillation.runs.evaluate import Evaluation as Evaluation
    from anglekit.distillation.runs.evaluate import evaluate as evaluate
    from anglekit.distillation.runs.publish import push_to_hub as push_to_hub
    from anglekit.distillation.runs.run import RunResult as RunResult
    from anglekit.distillation.runs.train import distill as distill
    from anglekit.distillation.runs.train import finetune as finetune
    from anglekit.distillation.settings import DataSettings as DataSettings
    from anglekit.distillation.settings import EncodingSettings as EncodingSettings
    from anglekit.distillation.settings import ScoringSettings as ScoringSettings
    from anglekit.distillation.settings import TrainSettings as TrainSettings
    from anglekit.distillation.students.adapters import create_adapters as create_adapters
    from anglekit.distillation.students.create import create_student as create_student
    from anglekit.distillation.sweep.sweep import SweepResult as SweepResult
    from anglekit.distillation.sweep.sweep import sweep as sweep
    from anglekit.distillation.training.angle_callback import AngleCallback as AngleCallback
    from anglekit.distillation.training.distillation_loss import DistillationLoss as DistillationLoss
    from anglekit.distillation.training.distillation_loss import match_layers as match_layers
    from anglekit.distillation.training.distillation_loss import objective_for as objective_for
    from anglekit.distillation.training.trainer import DistillationTrainer as DistillationTrainer
    from anglekit.errors import AnglekitError as AnglekitError
    from anglekit.errors import InputError as InputError
    from anglekit.errors import RunError as RunError
    from anglekit.geometry.angles import angle_degrees as angle_degrees
    from anglekit.geometry.angles import tangential_cosine as tangential_cosine
    from anglekit.geometry.angles import vertex_cosine as vertex_cosine
    from anglekit.models.checkpoints import Checkpoint as Checkpoint
    from anglekit.models.checkpoints import load_checkpoint as load_checkpoint
    from anglekit.models.load_options import LoadOptions as LoadOptions
    from anglekit.parameter_space.measure import gradients as gradients
    from anglekit.parameter_space.settings import GradientSettings as GradientSettings
    from anglekit.plots.draw import draw as draw
    from anglekit.plots.figure1.figure1 import figure1 as figure1
    from anglekit.plots.figures.angles_heatmap import angles_heatmap as angles_heatmap
    from anglekit.probes.data import ProbeData as ProbeData
    from anglekit.probes.data import read_probe as read_probe
    from anglekit.probes.shared_vocabulary import SharedVocabulary as SharedVocabulary
    from anglekit.probes.shared_vocabulary import shared_vocabulary as shared_vocabulary
    from anglekit.probes.tokenize import tokenize_probe as tokenize_probe
    from anglekit.recipes.reproduce import Reproduction as Reproduction
    from anglekit.recipes.reproduce import run_demo as run_demo
    from anglekit.results.explorer.explore import explore as explore
    from anglekit.results.geometry import Geometry as Geometry
    from anglekit.results.gradients import GradientGeometry as GradientGeometry
    from anglekit.states.recorder import LayerRecorder as LayerRecorder
    from anglekit.states.store import StateStore as StateStore
    from anglekit.tables.read import read_table as read_table

__version__ = "0.1.0"

_HOMES = {
    "Advice": "anglekit.advice.advise",
    "AnalysisSettings": "anglekit.analysis.settings",
    "AngleCallback": "anglekit.distillation.training.angle_callback",
    "AnglekitError": "anglekit.errors",
    "Checkpoint": "anglekit.models.checkpoints",
    "Comparison": "anglekit.comparison.result",
    "DataSettings": "anglekit.distillation.settings",
    "DistillationLoss": "anglekit.distillation.training.distillation_loss",
    "DistillationObjective": "anglekit.distillation.losses.objective",
    "DistillationTrainer": "anglekit.distillation.training.trainer",
    "EncodingSettings": "anglekit.distillation.settings",
    "Evaluation": "anglekit.distillation.runs.evaluate",
    "Geometry": "anglekit.results.geometry",
    "GeometryAccumulator": "anglekit.analysis.arrays.accumulator",
    "GradientGeometry": "anglekit.results.gradients",
    "GradientSettings": "anglekit.parameter_space.settings",
    "InputError": "anglekit.errors",
    "LayerMatching": "anglekit.distillation.matching.strategies",
    "LayerRecorder": "anglekit.states.recorder",
    "LoadOptions": "anglekit.models.load_options",
    "LossWeights": "anglekit.distillation.losses.weights",
    "ProbeData": "anglekit.probes.data",
    "Reproduction": "anglekit.recipes.reproduce",
    "RunError": "anglekit.errors",
    "RunResult": "anglekit.distillation.runs.run",
    "ScoringSettings": "anglekit.distillation.settings",
    "SharedVocabulary": "anglekit.probes.shared_vocabulary",
    "StateStore": "anglekit.states.store",
    "SweepResult": "anglekit.distillation.sweep.sweep",
    "TrainSettings": "anglekit.distillation.settings",
    "advise": "anglekit.advice.advise",
    "analyze": "anglekit.analysis.analyze",
    "angle_degrees": "anglekit.geometry.angles",
    "angles_heatmap": "anglekit.plots.figures.angles_heatmap",
    "compare": "anglekit.comparison.compare",
    "create_adapters": "anglekit.distillation.students.adapters",
    "create_student": "anglekit.distillation.students.create",
    "distill": "anglekit.distillation.runs.train",
    "draw": "anglekit.plots.draw",
    "evaluate": "anglekit.distillation.runs.evaluate",
    "explore": "anglekit.results.explorer.explore",
    "extract_states": "anglekit.analysis.jobs.extract",
    "figure1": "anglekit.plots.figure1.figure1",
    "finetune": "anglekit.distillation.runs.train",
    "gradients": "anglekit.parameter_space.measure",
    "layer_matching": "anglekit.distillation.matching.strategies",
    "load_checkpoint": "anglekit.models.checkpoints",
    "match_layers": "anglekit.distillation.training.distillation_loss",
    "objective_for": "anglekit.distillation.training.distillation_loss",
    "push_to_hub": "anglekit.distillation.runs.publish",
    "read_probe": "anglekit.probes.data",
    "read_table": "anglekit.tables.read",
    "run_demo": "anglekit.recipes.reproduce",
    "shared_vocabulary": "anglekit.probes.shared_vocabulary",
    "sweep": "anglekit.distillation.sweep.sweep",
    "tangential_cosine": "anglekit.geometry.angles",
    "tokenize_probe": "anglekit.probes.tokenize",
    "vertex_cosine": "anglekit.geometry.angles",
}
# Public modules.
_MODULES = ("losses",)

__all__ = sorted([*_HOMES, *_MODULES])  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - the module's attributes have many types
    """Import the public name `name` from the module that defines it."""
    if name in _MODULES:
        return importlib.import_module(f"anglekit.{name}")
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'anglekit' has no attribute {name!r}")
    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Return the public names."""
    return [*__all__, "__version__"]
