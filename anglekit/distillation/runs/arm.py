"""One arm: a student with its trainer and run directory, built, trained and finished in three separate calls.

A sweep builds many arms over one teacher and one set of prepared data, trains them side by side and finishes each as it
ends. All randomness of an arm comes from its own seed: student and adapters have generators of their own, and
`DistillationTrainer.train` seeds the global random states that dropout reads.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd
from torch import nn
from transformers import PreTrainedModel

from anglekit.distillation.losses.objective import DistillationObjective
from anglekit.distillation.matching.plan import DistillationPlan
from anglekit.distillation.matching.strategies import MODEL_FAMILIES
from anglekit.distillation.runs.directory import RunDirectory, check_same_run
from anglekit.distillation.runs.records import SCORES_FORMAT, now, run_config, run_provenance
from anglekit.distillation.settings import TrainSettings
from anglekit.distillation.students.adapters import LayerAdapters, create_adapters
from anglekit.distillation.students.create import create_student
from anglekit.distillation.students.lora import add_lora, merged, save_beside_lora
from anglekit.distillation.tasks.data import TokenizedExamples
from anglekit.distillation.tasks.models import TaskModel
from anglekit.distillation.tasks.prepared_data import PreparedData
from anglekit.distillation.tasks.task import ScoreReport
from anglekit.distillation.training.progress import MetricsFile, TrainingBar, quiet
from anglekit.distillation.training.teacher import TeacherProvider
from anglekit.distillation.training.trainer import DistillationTrainer
from anglekit.distillation.training.trainer_checkpoints import resume_point
from anglekit.errors import InputError
from anglekit.models.checkpoints import quiet_transformers
from anglekit.runtime.files import write_json
from anglekit.vocabulary import STUDENT_FILE

__all__ = [
    "Arm",
    "RunResult",
    "build_arm",
    "check_arm",
    "finish_arm",
    "objective_of_plan",
    "start_run",
    "stored_result",
]


@dataclass(frozen=True, eq=False)
class RunResult:
    """What a finished run left behind.

    Attributes:
        directory: the run's.
        checkpoint: the trained model's directory.
        scores: a row for each evaluation table: `data`, `examples` and the task's scores.
        steps: optimiser steps.
        selected_step: the step whose weights were kept.
        train_seconds: how long training took, in the last of its sessions.
    """

    directory: str
    checkpoint: str
    scores: pd.DataFrame
    steps: int
    selected_step: int
    train_seconds: float


@dataclass(eq=False)
class Arm:
    """A model about to be trained; `train` it, then `finish_arm` it.

    Attributes:
        trainer: ready to run.
        directory: held by this process until `finish_arm`, or until `directory.close()`.
        data: what it learns from.
        settings: how it is trained.
        note: what is written beside the student for the analysis: init, strategy, seed, teacher, and by stream the
            teacher layer that taught each student layer.
        provenance: what the run records.
        resume_from: a checkpoint to go on from, or None.
        use_cache: the configuration's own, which `Trainer` switches off.
        train_seconds: how long training took.
    """

    trainer: DistillationTrainer
    directory: RunDirectory
    data: PreparedData
    settings: TrainSettings
    note: Mapping[str, Any] | None
    provenance: dict[str, Any]
    resume_from: str | None
    use_cache: bool | None
    train_seconds: float = 0.0

    def train(self) -> None:
        """Train from the start, or from the last checkpoint of a run that is resumed.

        Raises:
            RunError: a loss stopped being finite.
        """
        start = time.perf_counter()
        try:
            with quiet_transformers():
                self.trainer.train(resume_from_checkpoint=self.resume_from)
        finally:
            for callback in self.trainer.callback_handler.callbacks:
                if isinstance(callback, TrainingBar):
                    callback.close()
        self.train_seconds = time.perf_counter() - start


def objective_of_plan(plan: DistillationPlan, settings: TrainSettings, data: PreparedData) -> DistillationObjective:
    """Return what a planned student is trained for on the data of its task."""
    return DistillationObjective(
        {matching.stream: matching.pairs for matching in plan.matchings},
        weights=plan.weights,
        temperature=settings.temperature,
        kl_direction=settings.kl_direction,
        hidden_loss=plan.hidden_loss,
        reading=plan.reading,
        family=MODEL_FAMILIES[plan.family].official_losses,
        kl_on_prompt=settings.kl_on_prompt,
        label_smoothing=settings.label_smoothing,
        **data.task.objective_options(data.tokenizer),
    )


def check_arm(
    plan: DistillationPlan,
    data: PreparedData,
    directory: RunDirectory,
    settings: TrainSettings,
    origin: Mapping[str, Any],
) -> dict[str, Any]:
    """Check what `build_arm` would refuse, before any weight is made or file written.

    Args:
        plan: of the student.
        data: prepared with the teacher's tokenizer.
        directory: held by this process.
        settings: completed.
        origin: `provenance()` of the teacher.

    Returns:
        The configuration under which the run is recorded.

    Raises:
        InputError: nothing to select by, nothing to train for, or a run of another plan in the directory.
    """
    _check_selection(settings, data)
    _check_lora(settings, data)
    objective_of_plan(plan, settings, data)
    config = run_config("distill", data, settings, plan.seed, origin)
    if directory.resumes and directory.started:
        _check_goes_on(directory, config, plan)
    return config


def build_arm(
    teacher: TaskModel,
    data: PreparedData,
    plan: DistillationPlan,
    directory: RunDirectory,
    settings: TrainSettings,
    *,
    teacher_forward: TeacherProvider | None = None,
    teacher_record: Mapping[str, Any] | None = None,
    title: str | None = None,
) -> Arm:
    """Make a student and its trainer, and begin the run's directory.

    Args:
        teacher: of the plan.
        data: prepared with the teacher's tokenizer.
        plan: which student, matched how.
        directory: held by this process; a run that it holds must be the same one.
        settings: completed (`TrainSettings.completed`).
        teacher_forward: what answers for the teacher instead of a forward pass of its own, shared among arms.
        teacher_record: `teacher.provenance()`, where it was computed before; hashing takes a moment.
        title: of the progress bar; None shows none.

    Raises:
        InputError: the directory holds a run of another plan, or the plan does not fit the teacher.
    """
    objective = objective_of_plan(plan, settings, data)
    data.task.write_to(teacher.model.config)
    student = create_student(teacher.model, **plan.student_options())
    if plan.freeze_embeddings:
        _freeze_embeddings(student)
    adapters = create_adapters(
        plan.matchings, student_width=plan.student_width, teacher_width=plan.teacher_width, seed=plan.seed
    )
    if not plan.train_adapters:
        adapters.requires_grad_(False)
    note = {
        "init": plan.init,
        "strategy": plan.strategy,
        "seed": plan.seed,
        "teacher": plan.teacher,
        "taught_by": {matching.stream: {str(s): t for s, t in matching.pairs} for matching in plan.matchings},
    }
    return start_run(
        student,
        data,
        directory,
        settings,
        objective=objective,
        seed=plan.seed,
        kind="distill",
        origin=dict(teacher_record or teacher.provenance()),
        plan=plan,
        note=note,
        teacher=None if teacher_forward is not None else teacher.model,
        teacher_forward=teacher_forward,
        adapters=adapters,
        title=title,
    )


def start_run(
    model: PreTrainedModel,
    data: PreparedData,
    directory: RunDirectory,
    settings: TrainSettings,
    *,
    objective: DistillationObjective,
    seed: int,
    kind: str,
    origin: dict[str, Any],
    plan: DistillationPlan | None = None,
    note: dict[str, Any] | None = None,
    teacher: PreTrainedModel | None = None,
    teacher_forward: TeacherProvider | None = None,
    adapters: LayerAdapters | None = None,
    title: str | None = None,
) -> Arm:
    """Begin or resume the run of a model under an objective; `build_arm` and fine-tuning end here.

    Args:
        model: to be trained.
        data: prepared.
        directory: held by this process.
        settings: completed.
        objective: the losses.
        seed: of dropout and of everything random in training.
        kind: "distill" or "finetune".
        origin: the provenance of the teacher, or of the model that is fine-tuned.
        plan: of a student.
        note: written beside a student.
        teacher: its model.
        teacher_forward: or what answers for it.
        adapters: of a student of another width.
        title: of the progress bar; None shows none.
    """
    _check_selection(settings, data)
    _check_lora(settings, data)
    if data.evaluations:
        data.task.generation(settings.generation, data.tokenizer, model.config)
    config = run_config(kind, data, settings, seed, origin)
    provenance = run_provenance(data, settings, seed, origin, note)
    use_cache = getattr(model.config, "use_cache", None)
    if settings.lora is not None:
        model = add_lora(model, settings.lora, seed, recomputes=settings.checkpoint_activations)
    score = data.task.selection_score
    metrics = data.task.compute_metrics()

    def validate(student: PreTrainedModel) -> Mapping[str, float]:
        values = {} if data.validation is None else _report(student, data.validation, data, settings).scores
        return {name: value for name, value in values.items() if name != "examples"}

    callbacks = [MetricsFile(directory.metrics), *([] if title is None else [TrainingBar(title, score)])]
    trainer = DistillationTrainer(
        model,
        settings.arguments(
            directory.training,
            seed=seed,
            validates=data.validation is not None,
            score=score,
            larger_is_better=data.task.larger_is_better,
        ),
        objective=objective,
        teacher=teacher,
        teacher_forward=teacher_forward,
        teacher_device=settings.teacher_device,
        adapters=adapters,
        train_dataset=data.train,
        eval_dataset=data.validation,
        data_collator=data.task.collator(data.tokenizer),
        processing_class=data.tokenizer,
        compute_metrics=metrics,
        score_model=None if metrics is not None else validate,
        callbacks=callbacks,
    )
    quiet(trainer)
    resume_from = None
    if directory.resumes and directory.started:
        _check_goes_on(directory, config, plan)
        resume_from = resume_point(directory.training)
    else:
        # After everything that can still be refused: what is overwritten goes now.
        directory.begin(config, None if plan is None else plan.to_json(), provenance)
    return Arm(trainer, directory, data, settings, note, provenance, resume_from, use_cache)


def _check_selection(settings: TrainSettings, data: PreparedData) -> None:
    if settings.select == "best" and data.validation is None:
        raise InputError("--select best needs a validation table and none came", "give --validation, or --select last")


def _check_lora(settings: TrainSettings, data: PreparedData) -> None:
    if settings.lora is not None and data.task.new_head:
        raise InputError(
            f"--lora-rank came with task {data.task.name}, whose new head needs all its weights", "leave it out"
        )


def _check_goes_on(directory: RunDirectory, config: Mapping[str, Any], plan: DistillationPlan | None) -> None:
    stored = None if plan is None else DistillationPlan.from_json(directory.plan(), f"the plan of {directory.path}")
    check_same_run(directory, config, () if plan is None or stored is None else plan.differences(stored))


def finish_arm(arm: Arm) -> RunResult:
    """Save a trained arm's student, score it on every evaluation table and close its directory."""
    trainer, directory = arm.trainer, arm.directory
    model: PreTrainedModel = trainer.accelerator.unwrap_model(trainer.model)
    if arm.use_cache is not None:
        model.config.use_cache = arm.use_cache
    partial = directory.partial_checkpoint
    if directory.writes:
        # What a killed run was saving has other names than what is saved now.
        shutil.rmtree(partial, ignore_errors=True)
    beside = arm.settings.lora is not None and not arm.settings.lora_merge
    if beside and directory.writes:
        with quiet_transformers():
            save_beside_lora(model, partial)
    if arm.settings.lora is not None:
        # Whoever loads corrections adds them to the weights: what is scored is what will be loaded.
        model = merged(model)
    if directory.writes:
        with quiet_transformers():
            if not beside:
                model.save_pretrained(partial)
            arm.data.tokenizer.save_pretrained(partial)
        trainer.save_adapters(partial)
        if arm.note is not None:
            write_json(partial / STUDENT_FILE, arm.note)
    reports = {name: _report(model, one, arm.data, arm.settings) for name, one in arm.data.evaluations.items()}
    scores = [{"data": name, **report.scores} for name, report in reports.items()]
    best = arm.settings.select == "best" and trainer.state.best_global_step
    content = {
        "format": SCORES_FORMAT,
        "scores": scores,
        "scoring": {name: dict(report.notes) for name, report in reports.items()},
        "steps": trainer.state.global_step,
        "selected_step": best or trainer.state.global_step,
        "train_seconds": round(arm.train_seconds, 3),
    }
    arm.provenance["finished"] = now()
    directory.finish(content, arm.provenance)
    trainer.accelerator.wait_for_everyone()
    directory.close()
    return _result(directory, content)


def stored_result(directory: RunDirectory) -> RunResult:
    """Return the result of a run that was finished before."""
    return _result(directory, directory.scores())


def _report(
    model: PreTrainedModel, examples: TokenizedExamples, data: PreparedData, settings: TrainSettings
) -> ScoreReport:
    return data.task.score(
        model, examples, data.tokenizer, batch_size=settings.eval_batch_size, generation=settings.generation
    )


def _result(directory: RunDirectory, content: Mapping[str, Any]) -> RunResult:
    return RunResult(
        str(directory.path),
        str(directory.checkpoint),
        pd.DataFrame(content["scores"]),
        int(content["steps"]),
        int(content["selected_step"]),
        float(content["train_seconds"]),
    )


def _freeze_embeddings(student: PreTrainedModel) -> None:
    """Freeze the tables of tokens and positions, as `freeze_embeds` does in the paper's BART and T5 runs."""
    for name, module in student.base_model.named_modules():
        # T5's relative-position bias is an embedding by class only.
        if isinstance(module, nn.Embedding) and "relative_attention_bias" not in name:
            module.requires_grad_(False)
