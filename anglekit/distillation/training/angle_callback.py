"""Angles over training: a callback for any `transformers.Trainer`."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from accelerate.utils import extract_model_from_parallel
from transformers import PreTrainedModel, Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from anglekit.analysis.analyze import analyze
from anglekit.analysis.given_models import Model, as_checkpoint
from anglekit.analysis.settings import AnalysisSettings
from anglekit.distillation.training.process_states import ProcessStates
from anglekit.distillation.training.trackers import log_figure, takes_figures
from anglekit.errors import InputError
from anglekit.models.architectures import model_streams
from anglekit.models.checkpoints import Checkpoint, StudentNote
from anglekit.models.load_options import LoadOptions
from anglekit.plots.figures.angles_heatmap import angles_heatmap
from anglekit.probes.data import ProbeData
from anglekit.results.geometry import Geometry
from anglekit.results.overview import pair_mean

#: Only what sums over every token give: what needs a sample of the probe costs more than it tells about one step.
_SETTINGS = AnalysisSettings(nulls="none", similarity="none")


def step_directory(out: Path, step: int) -> Path:
    """Return where the Geometry of a training step is saved."""
    return out / f"geometry-step-{step}"


class AngleCallback(TrainerCallback):
    """Measures the angles at the student while it is trained, before the first step and after every `every` steps.

        AngleCallback("runs/teacher", read_probe("dev.csv"), every=500, out="angles").attach(trainer)

    It does not affect training: the student's modes, the random states and the gradients are restored, so that its
    weights are the same bit for bit. A measurement costs the forward passes of teacher and student over the probe and
    an eighth more. For 200 reviews, a 6-layer teacher and a 2-layer student it took as long as five training steps of
    32, which is 1% of the time if `every` is 500. Its duration is logged.

    Args:
        teacher: the model whose layers are measured, as `analyze` takes it; the directory of a state store spares its
            passes.
        probe: the texts; a few hundred are enough.
        every: optimiser steps between measurements.
        out: a directory for the Geometry of each step (`geometry-step-0`, ...), or None to keep numbers only.
        settings: settings of the analysis; by default without nulls and representation similarity.
        name: the student's name in the results.
        training: what is recorded about the student beside its angles, such as the layers that teach it.

    Attributes:
        history: a row per measurement: `step`, `seconds`, and for each stream the mean over layers, pairs and tokens of
            `angle_degrees`, `cosine`, `chance_cosine` and `acute_fraction`.
        geometry: the last one measured, or None.

    Raises:
        InputError: `every` is less than 1, or the teacher cannot be loaded.
    """

    def __init__(
        self,
        teacher: Model,
        probe: ProbeData,
        *,
        every: int,
        out: str | Path | None = None,
        settings: AnalysisSettings | None = None,
        name: str = "student",
        training: StudentNote | None = None,
    ) -> None:
        if every < 1:
            raise InputError(
                f"angles were asked for every {every} steps", allowed="allowed: at least 1", setting="every"
            )
        self.teacher = as_checkpoint(teacher, "teacher", None, LoadOptions())
        self.probe = probe
        self.every = every
        self.out = None if out is None else Path(out)
        self.settings = settings or _SETTINGS
        self.name = name
        self.training = training or StudentNote()
        self.history: list[dict[str, float]] = []
        self.geometry: Geometry | None = None
        self._trainer: Trainer | None = None

    def attach(self, trainer: Trainer) -> AngleCallback:
        """Add the callback to a trainer, so that its log and trackers (TensorBoard, ...) get the numbers; return it.

        TensorBoard, W&B and MLflow also get a heat map of the cosines after the last step. If the callback is added by
        `trainer.add_callback` alone, the numbers are only in `history` and in the trainer's state.

        Raises:
            InputError: the trainer shards its model, so that no process holds whole layers.
        """
        if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
            raise InputError(
                "angles cannot be measured on a model that FSDP or DeepSpeed shards", "analyse its checkpoints"
            )
        self._trainer = trainer
        trainer.add_callback(self)
        return self

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: object
    ) -> None:
        """Measure the student when training (also a resumed run) begins and when it ends; at most once per step."""
        if not self.history or self.history[-1]["step"] != state.global_step:
            self._measure(args, state, control, given["model"])

    on_train_end = on_train_begin

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: object
    ) -> None:
        """Measure after every so many steps, and after the last one: behind it, trackers end their runs."""
        if state.global_step % self.every == 0 or control.should_training_stop:
            self._measure(args, state, control, given["model"])

    def _measure(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: object) -> None:
        if not state.is_world_process_zero:
            return
        start = time.perf_counter()
        before = ProcessStates.capture(args.device)
        try:
            geometry = analyze(self.teacher, [self._checkpoint(model)], self.probe, self.settings, progress=False)
        finally:
            before.restore(args.device)
        provenance = {**geometry.provenance, "training_step": state.global_step}
        self.geometry = geometry = replace(geometry, provenance=provenance)
        if self.out is not None:
            # A run that is resumed, or starts again, measures its steps again.
            geometry.save(step_directory(self.out, state.global_step), overwrite=True)
        numbers = _numbers(geometry)
        self.history.append({"step": state.global_step, "seconds": time.perf_counter() - start, **numbers})
        logs = {**numbers, "angle_seconds": self.history[-1]["seconds"]}
        if self._trainer is None:
            state.log_history.append({**logs, "step": state.global_step})
        else:
            # The event of a log takes the wish for one back, and the step's own log is still to come.
            wanted = control.should_log
            self._trainer.log(logs)
            control.should_log = wanted
            if control.should_training_stop and takes_figures(self._trainer):
                log_figure(self._trainer, f"angles of {self.name}", angles_heatmap(geometry))

    def _checkpoint(self, model: Any) -> Checkpoint:  # noqa: ANN401 - the trainer's model may be wrapped
        network = extract_model_from_parallel(model)
        if hasattr(network, "get_base_model"):  # PEFT is optional
            network = network.get_base_model()
        if not isinstance(network, PreTrainedModel):
            raise InputError("angles need a model of transformers", f"the trainer's is a {type(network).__name__}")
        adapters = getattr(self._trainer, "adapters", None)
        base = network.base_model
        return Checkpoint(
            source=self.name,
            name=self.name,
            model=base if isinstance(base, PreTrainedModel) else network,
            tokenizer=None,
            streams=model_streams(network.config),
            training=self.training,
            adapters=None if adapters is None else {place: w.detach() for place, w in adapters.weights().items()},
        )


def _numbers(geometry: Geometry) -> dict[str, float]:
    """Return by stream the means over tokens, then over a student's layers and pairs, each weighing the same."""
    numbers: dict[str, float] = {}
    for stream, rows in geometry.angles.groupby("stream", sort=False):
        for name, column in (
            ("angle_degrees", "mean_angle_degrees"),
            ("cosine", "mean_cosine"),
            ("chance_cosine", "null_cosine"),
            ("acute_fraction", "acute_fraction"),
        ):
            numbers[f"{stream}_{name}"] = pair_mean(rows, column)
    return numbers
