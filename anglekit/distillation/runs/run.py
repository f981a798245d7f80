"""One run: a model with its trainer and run directory, begun, trained and finished in three separate calls.

A sweep begins many runs over one teacher and one set of prepared data, trains them side by side and finishes each as it
ends. All randomness of a run comes from its own seed: student and adapters have generators of their own, and
`DistillationTrainer.train` seeds the global random states that dropout reads.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pandas as pd
from torch import nn
from transformers import EvalPrediction, PreTrainedModel
from transformers import PreTrainedTokenizerBase as Tokenizer
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from anglekit.distillation.losses.objective import DistillationObjective
from anglekit.distillation.matching.plan import DistillationPlan
from anglekit.distillation.matching.strategies import MODEL_FAMILIES
from anglekit.distillation.runs.card import CardFacts, write_card
from anglekit.distillation.runs.costs import COST_EXAMPLES, measure_costs
from anglekit.distillation.runs.directory import (
    RunConfig,
    RunDirectory,
    RunProvenance,
    now,
    run_config,
    run_provenance,
)
from anglekit.distillation.runs.scoring import ReferenceScores, holds_examples, rows_of_examples, score_model
from anglekit.distillation.settings import TrainSettings
from anglekit.distillation.students.adapters import LayerAdapters, create_adapters
from anglekit.distillation.students.create import create_student
from anglekit.distillation.students.given import CheckedStudent, GivenProvenance
from anglekit.distillation.students.lora import add_lora, merged, save_beside_lora
from anglekit.distillation.students.mixtures import LayerMixtures, create_mixtures, groups_of
from anglekit.distillation.tasks.models import ModelProvenance, TaskModel
from anglekit.distillation.tasks.prepared_data import PreparedData
from anglekit.distillation.training.attention_recorder import check_attention, show_maps
from anglekit.distillation.training.distillation_loss import with_shared_ids
from anglekit.distillation.training.process_states import ProcessStates
from anglekit.distillation.training.progress import FollowsScoring, MetricsFile, ScoringBars, TrainingBar
from anglekit.distillation.training.teacher import TeacherForward, TeacherProvider
from anglekit.distillation.training.teacher_cache import CachedTeacher
from anglekit.distillation.training.trackers import TrackedRun, Trackers
from anglekit.distillation.training.trainer import DistillationTrainer
from anglekit.distillation.training.trainer_checkpoints import resume_point
from anglekit.distillation.training.untrained_teacher import HiddenOfAnother
from anglekit.errors import InputError
from anglekit.models.checkpoints import StudentNote, quiet_transformers
from anglekit.readings import decisions
from anglekit.results.example_scores import STUDENT, TEACHER, UNTRAINED, ExampleColumns, ExampleScores, ScoredModel
from anglekit.results.scores import RUN_CONFIG_FILE, ModelCosts, RunScores
from anglekit.runtime.files import read_document, write_json
from anglekit.runtime.placement import is_placed
from anglekit.vocabulary import LOWER_IS_BETTER, STUDENT_FILE


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

    @classmethod
    def stored(cls, directory: RunDirectory, scores: RunScores | None = None) -> RunResult:
        """Return the result of a run that is finished, with the scores that it stored."""
        scores = scores or directory.scores()
        return cls(
            str(directory.path),
            str(directory.checkpoint),
            pd.DataFrame(scores.scores),
            scores.steps,
            scores.selected_step,
            scores.train_seconds,
        )

    @property
    def columns(self) -> dict[str, tuple[str, ...]]:
        """The columns that were read, by table; empty for a run that did not record them."""
        return {name: tuple(read.get("columns", ())) for name, read in self._tables().items()}

    @property
    def notes(self) -> dict[str, tuple[str, ...]]:
        """What a person should know of how tables were read, by table."""
        return {name: tuple(read.get("notes", ())) for name, read in self._tables().items()}

    @property
    def left_out(self) -> dict[str, dict[str, int]]:
        """How many rows were left out, by table and label; "" for rows without one."""
        return {name: dict(read["left_out"]) for name, read in self._tables().items() if read.get("left_out")}

    def _tables(self) -> dict[str, dict[str, Any]]:
        return read_document(Path(self.directory) / RUN_CONFIG_FILE, RunConfig, "start the run anew").tables


@dataclass(eq=False)
class Run:
    """A model about to be trained: `train` it, then `finish` it.

    Attributes:
        trainer: ready to run.
        directory: held by this process until `finish`, or until `directory.close()`.
        data: from which the model learns.
        settings: how it is trained.
        note: what is written beside a student for the analysis; None for a model that is fine-tuned.
        provenance: what the run records.
        resume_from: a checkpoint to go on from, or None.
        use_cache: the configuration's own, which `Trainer` switches off.
        model: what is trained, without the wrapper that LoRA puts around it.
        teacher: scored beside a student, or None.
        follows: shows how far scoring is.
        trackers: told what the run logs.
        tokenizer: saved with the model; None: the data's.
        references: what teacher and untrained student answered to each example, once `score_references` was called.
        train_seconds: how long training took.
    """

    trainer: DistillationTrainer
    directory: RunDirectory
    data: PreparedData
    settings: TrainSettings
    note: StudentNote | None
    provenance: RunProvenance
    resume_from: str | None
    use_cache: bool | None
    model: PreTrainedModel
    teacher: PreTrainedModel | None
    follows: FollowsScoring
    trackers: Trackers
    tokenizer: Tokenizer | None = None
    references: ExampleScores | None = None
    train_seconds: float = 0.0

    def complete(self) -> RunResult:
        """Train and finish, unless the run was finished before."""
        if self.directory.resumes and self.directory.finished:
            return RunResult.stored(self.directory)
        self.train()
        return self.finish()

    def tell_examples(self, told: Callable[[ExampleColumns], None]) -> None:
        """Have `told` called at every validation with what each example of the table adds to the scores.

        Columns are as in `ExampleScores`; of classes the accuracy alone.
        """
        if (metrics := self.trainer.compute_metrics) is None:
            self.trainer.score_model = partial(_validation_scores, data=self.data, settings=self.settings, told=told)
            return

        def scored(prediction: EvalPrediction) -> dict[str, float]:
            told(self.data.task.columns_of(prediction))
            return dict(metrics(prediction))

        self.trainer.compute_metrics = scored

    def leave(self) -> None:
        """End a run that was stopped early: it says so, and keeps what it takes to go on."""
        self.provenance.stopped = self.trainer.state.global_step
        self.directory.leave(self.provenance)
        self.trackers.end(self.trainer)

    def score_references(self, scores: ReferenceScores | None = None) -> None:
        """Score the teacher and the student before its first step, unless that is done.

        A resumed run keeps what it had. A student that will be spread over devices (FSDP, DeepSpeed) is not scored.
        Without a plan or an evaluation table there is nothing to compare with.

        Args:
            scores: shared among runs; None scores for this run alone.
        """
        if self.references is not None:
            return
        scores = scores or ReferenceScores(self.data, self.settings, self.follows)
        spread = self.trainer.is_fsdp_enabled or self.trainer.is_deepspeed_enabled
        compares = self.note is not None and bool(self.data.evaluations)
        scored: dict[ScoredModel, Callable[[], Mapping[str, ExampleColumns]]] = {}
        if compares and not spread:
            scored[UNTRAINED] = partial(scores.untrained, self.model)
        if compares and self.teacher is not None:
            self._bring(self.teacher)
            scored[TEACHER] = partial(scores.teacher, self.teacher)
        kept = self.directory.kept_examples()
        if kept is not None and holds_examples(kept, list(scored), self.data):
            self.references = ExampleScores({place: own for place, own in kept.tables.items() if place[0] in scored})
            for _ in scored:
                scores.pass_over()
            return
        tables: dict[tuple[str, str], ExampleColumns] = {}
        with quiet_transformers():
            for model, score in scored.items():
                tables |= {(model, data): columns for data, columns in score().items()}
        self.references = ExampleScores(tables)
        self.directory.keep_examples(self.references)

    def train(self) -> None:
        """Train from the start, or from the last checkpoint of a run that is resumed.

        Raises:
            RunError: a loss stopped being finite, or a tracker failed.
        """
        start = time.perf_counter()
        try:
            # Before anything is computed: a tracker may have no account.
            self.trackers.begin(self.trainer)
            self.score_references()
            start = time.perf_counter()
            with quiet_transformers():
                self.trainer.train(resume_from_checkpoint=self.resume_from)
        except BaseException as error:
            self.trackers.end(self.trainer, interrupted=not isinstance(error, Exception))
            raise
        finally:
            for callback in self.trainer.callback_handler.callbacks:
                if isinstance(callback, TrainingBar):
                    callback.close()
            if isinstance(self.trainer.teacher_forward, CachedTeacher):
                self.trainer.teacher_forward.cache.flush()
        self.train_seconds = time.perf_counter() - start

    def finish(self) -> RunResult:
        """Save the trained model, score it on every evaluation table and close the directory."""
        trainer, directory = self.trainer, self.directory
        model = self._save()
        task = self.data.task
        reports = score_model(model, self.data, self.settings, self.follows, "trained models")
        examples: dict[tuple[str, str], ExampleColumns] = {
            (STUDENT, name): report.examples for name, report in reports.items()
        }
        references = self.references or ExampleScores({})
        best = self.settings.select == "best" and trainer.state.best_global_step
        scores = RunScores(
            scores=[{"data": name, **report.scores} for name, report in reports.items()],
            scoring={name: dict(report.notes) for name, report in reports.items()},
            primary=task.selection_score,
            teacher=rows_of_examples(references, TEACHER, task.scores),
            untrained=rows_of_examples(references, UNTRAINED, task.scores),
            chance={name: task.chance(one) for name, one in self.data.evaluations.items()},
            steps=trainer.state.global_step,
            selected_step=best or trainer.state.global_step,
            train_seconds=round(self.train_seconds, 3),
            costs=self._costs(model),
        )
        self.provenance.finished = now()
        kept = ExampleScores({**examples, **references.tables})
        figure = None
        if directory.writes:
            name, peft = directory.path.resolve().name, self._corrections_lie_beside
            facts = CardFacts(name, *directory.origins(), self.provenance, scores, kept, peft)
            figure = write_card(facts, directory.partial_checkpoint)
        directory.finish(scores, self.provenance, kept)
        self.trackers.end(trainer, _final_numbers(scores), figure)
        trainer.accelerator.wait_for_everyone()
        directory.close()
        return RunResult.stored(directory, scores)

    def _costs(self, model: PreTrainedModel) -> dict[str, ModelCosts]:
        """Return what the teacher and the student cost beside each other; nothing of models that are spread out."""
        trainer = self.trainer
        if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
            return {}
        models: dict[str, PreTrainedModel] = {STUDENT: model}
        if self.teacher is not None:
            self._bring(self.teacher)
            models = {TEACHER: self.teacher, STUDENT: model}
        examples = [self.data.train[number] for number in range(min(COST_EXAMPLES, len(self.data.train)))]
        before = ProcessStates.capture(trainer.args.device)
        try:
            batch = trainer.data_collator(examples) if examples else {}
            with quiet_transformers():
                return measure_costs(models, with_shared_ids(batch, trainer.objective.shared_entries))
        finally:
            before.restore(trainer.args.device)

    def _bring(self, teacher: PreTrainedModel) -> None:
        """Move a teacher to the student's device; one that no loss reads is still where it was loaded."""
        if self.settings.teacher_device is None and not is_placed(teacher):
            nn.Module.to(teacher, self.trainer.args.device)

    @property
    def _corrections_lie_beside(self) -> bool:
        """Whether LoRA's corrections are saved beside the weights."""
        return self.settings.lora_rank is not None and not self.settings.lora_merge

    def _save(self) -> PreTrainedModel:
        """Write the checkpoint, which `finish` puts in its place, and return the model as it will be loaded."""
        model: PreTrainedModel = self.trainer.accelerator.unwrap_model(self.trainer.model)
        if self.use_cache is not None:
            model.config.use_cache = self.use_cache
        writes, partial = self.directory.writes, self.directory.partial_checkpoint
        if writes:
            # A killed run may have left files under other names than those saved now.
            shutil.rmtree(partial, ignore_errors=True)
        beside = self._corrections_lie_beside
        if beside and writes:
            with quiet_transformers():
                save_beside_lora(model, partial)
        if self.settings.lora_rank is not None:
            # Loading adds corrections to the weights, so score the model as it will be loaded.
            model = merged(model)
        if writes:
            with quiet_transformers():
                if not beside:
                    model.save_pretrained(partial)
                (self.tokenizer or self.data.tokenizer).save_pretrained(partial)
            self.trainer.save_beside(partial)
            if self.note is not None:
                write_json(partial / STUDENT_FILE, self.note)
        return model


def objective_of_plan(
    plan: DistillationPlan, settings: TrainSettings, data: PreparedData, given: CheckedStudent | None = None
) -> DistillationObjective:
    """Return what a planned student, one that was there before or not, is trained for on the data of its task."""
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
        shared_entries=None if given is None else given.shared_entries,
        groups=groups_of(plan.matchings),
        relation_heads=settings.relation_heads,
        **data.task.objective_options(data.tokenizer),
        **data.task.label_losses(settings, data.train),
    )


def teacher_drops(plan: DistillationPlan) -> bool:
    """Return whether the teacher of a plan runs in training mode."""
    return decisions(plan.reading, MODEL_FAMILIES[plan.family].official_losses).teacher_dropout


def teacher_keeping(settings: TrainSettings, origin: ModelProvenance) -> Callable[..., CachedTeacher] | None:
    """Return what makes a teacher that keeps its answers where the settings say, or None where they name no place."""
    if settings.teacher_cache is None:
        return None
    return partial(
        CachedTeacher,
        directory=settings.teacher_cache,
        sha256=origin.sha256_with_head,
        precision=settings.precision,
    )


def check_distillation(
    plan: DistillationPlan,
    data: PreparedData,
    directory: RunDirectory,
    settings: TrainSettings,
    origin: ModelProvenance,
    given: CheckedStudent | None = None,
) -> RunConfig:
    """Check what `begin_distillation` would refuse, before any weight is made, and return the run's configuration.

    Raises:
        InputError: there is no score to select by or no loss to train with, or the directory holds a run of another
            plan.
    """
    _check_settings(settings, data)
    _check_lora_of_given(settings, given)
    objective_of_plan(plan, settings, data, given)
    config = run_config(data, settings, plan, origin, None if given is None else given.provenance)
    if directory.resumes and directory.started:
        directory.check_same(config, plan)
    return config


def begin_distillation(
    teacher: TaskModel,
    data: PreparedData,
    plan: DistillationPlan,
    directory: RunDirectory,
    settings: TrainSettings,
    *,
    teacher_forward: TeacherProvider | None = None,
    origin: ModelProvenance | None = None,
    given: CheckedStudent | None = None,
    title: str | None = None,
    group: str | None = None,
    doubts: Sequence[str] = (),
) -> Run:
    """Make a student and its trainer, and begin the run's directory, which this process holds.

    The settings are completed (`TrainSettings.completed`). A `teacher_forward` answers for the teacher and is shared
    among runs. `origin` is the teacher's provenance where it was computed before, `given` the plan's student where that
    was there before. Without a title there is no bar. `group` is what trackers call the sweep that the run belongs to,
    and `doubts` is what speaks against the teacher.

    Raises:
        InputError: the directory holds a run of another plan, or the plan does not fit the teacher.
    """
    objective = objective_of_plan(plan, settings, data, given)
    data.task.write_to(teacher.model.config)
    _check_lora_of_given(settings, given)
    if given is None:
        student = create_student(teacher.model, **plan.student_options())
    else:
        student = given.make(plan.seed)
        if plan.student is not None:
            plan = msgspec.structs.replace(
                plan, student=msgspec.structs.replace(plan.student, head=given.provenance.head)
            )
    show_maps(objective, teacher.model, student)
    check_attention(objective, student, teacher.model)
    if plan.freeze_embeddings:
        _freeze_embeddings(student)
    adapters = create_adapters(
        plan.matchings if objective.needs_one_width else (),
        student_width=plan.student_width,
        teacher_width=plan.teacher_width,
        seed=plan.seed,
        bias=plan.adapter_bias,
    )
    if not plan.train_adapters:
        adapters.requires_grad_(False)
    if teacher_forward is None and plan.reads_untrained_teacher:
        teacher_forward = HiddenOfAnother.of_untrained(
            teacher.model, objective, plan.seed, settings.teacher_device, dropout=teacher_drops(plan)
        )
    origin = origin or teacher.provenance()
    if teacher_forward is None and objective.reads_teacher and (kept := teacher_keeping(settings, origin)) is not None:
        teacher_forward = kept(
            teacher.model,
            layers=objective.teacher_layers,
            logits=objective.reads_teacher_logits,
            final_norm=objective.final_norm,
            device=settings.teacher_device,
            head_apart=objective.reads_chunks,
        )
    if teacher_forward is None and objective.reads_teacher and teacher_drops(plan):
        teacher_forward = TeacherForward(
            teacher.model,
            objective.teacher_layers,
            logits=objective.reads_teacher_logits,
            final_norm=objective.final_norm,
            device=settings.teacher_device,
            dropout=True,
            head_apart=objective.reads_chunks,
        )
    return begin_run(
        student,
        data,
        directory,
        settings,
        objective=objective,
        origin=origin,
        plan=plan,
        teacher=None if teacher_forward is not None else teacher.model,
        teacher_forward=teacher_forward,
        adapters=adapters,
        mixtures=create_mixtures(objective.groups, plan.teacher_width),
        title=title,
        group=group,
        compared_teacher=teacher.model,
        doubts=doubts,
        given=None if given is None else given.provenance,
        tokenizer=None if given is None else given.tokenizer,
    )


def begin_run(
    model: PreTrainedModel,
    data: PreparedData,
    directory: RunDirectory,
    settings: TrainSettings,
    *,
    objective: DistillationObjective,
    origin: ModelProvenance,
    plan: DistillationPlan | None = None,
    teacher: PreTrainedModel | None = None,
    teacher_forward: TeacherProvider | None = None,
    adapters: LayerAdapters | None = None,
    mixtures: LayerMixtures | None = None,
    title: str | None = None,
    group: str | None = None,
    compared_teacher: PreTrainedModel | None = None,
    given: GivenProvenance | None = None,
    tokenizer: Tokenizer | None = None,
    doubts: Sequence[str] = (),
) -> Run:
    """Begin or resume the run of a model under an objective; `begin_distillation` and fine-tuning end here.

    `compared_teacher` is scored beside a student; without a plan nothing but the model itself is scored. `given` is
    recorded of a student that was there before, and `tokenizer` is saved with it where it is not the data's.

    Raises:
        InputError: the settings do not go with the data, or the directory holds another run.
    """
    _check_settings(settings, data)
    if data.evaluations:
        data.task.generation(settings.generation, data.tokenizer, model.config)
    config = run_config(data, settings, plan, origin, given)
    provenance = run_provenance(data, settings, plan, origin, given)
    if doubts:
        provenance.doubts = list(doubts)
    use_cache, bare = getattr(model.config, "use_cache", None), model
    if settings.lora_rank is not None:
        model = add_lora(model, settings, config.seed)
    score = settings.select_by or data.task.selection_score
    metrics = data.task.compute_metrics()
    name = directory.path.resolve().name
    trackers = Trackers(
        settings.trackers if directory.writes else (), TrackedRun(name, directory.tensorboard, group=group)
    )
    trainer = DistillationTrainer(
        model,
        settings.arguments(
            directory.training,
            seed=config.seed,
            validates=data.validation is not None,
            score=score,
            larger_is_better=score not in LOWER_IS_BETTER,
            examples=len(data.train),
            run_name=name,
            group=group,
        ),
        objective=objective,
        teacher=teacher,
        teacher_forward=teacher_forward,
        teacher_device=settings.teacher_device,
        adapters=adapters,
        mixtures=mixtures,
        shuffle_buffer=settings.shuffle_buffer,
        adapter_learning_rate=settings.adapter_learning_rate,
        train_dataset=data.train,
        eval_dataset=data.validation,
        data_collator=data.task.collator(data.tokenizer),
        processing_class=data.tokenizer,
        compute_metrics=metrics,
        score_model=None if metrics is not None else partial(_validation_scores, data=data, settings=settings),
        callbacks=[
            MetricsFile(directory.metrics, settings.log_steps),
            trackers,
            *([] if title is None else [TrainingBar(title, score)]),
        ],
    )
    # They print every log.
    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)
    resume_from = None
    if directory.resumes and directory.started:
        directory.check_same(config, plan)
        resume_from = resume_point(directory.training)
    else:
        # Only now, when nothing can be refused any more, is what is overwritten removed.
        directory.begin(config, plan, provenance)
    return Run(
        trainer,
        directory,
        data,
        settings,
        None if plan is None else _student_note(plan, given),
        provenance,
        resume_from,
        use_cache,
        bare,
        compared_teacher,
        ScoringBars(shown=title is not None and trainer.is_world_process_zero()),
        trackers,
        tokenizer,
    )


def _final_numbers(scores: RunScores) -> dict[str, float]:
    """Return the scores of a finished run, its teacher and untrained student as a log, for trackers."""
    models = {"final": scores.scores, "teacher": scores.teacher, "untrained": scores.untrained}
    return {
        f"eval_{model}_{row['data']}_{name}": value
        for model, rows in models.items()
        for row in rows
        for name, value in row.items()
        if isinstance(value, float)
    }


def _student_note(plan: DistillationPlan, given: GivenProvenance | None) -> StudentNote:
    taught_by: dict[str, dict[str, int]] = {one.stream: {str(s): t for s, t in one.pairs} for one in plan.matchings}
    return StudentNote(
        init=plan.init,
        strategy=plan.strategy,
        seed=plan.seed,
        teacher=plan.teacher,
        taught_by=taught_by,
        control_of=msgspec.UNSET if plan.control is None else plan.matched_as,
        given_sha256=msgspec.UNSET if given is None else given.sha256_with_head,
    )


def _check_settings(settings: TrainSettings, data: PreparedData) -> None:
    if settings.select == "best" and data.validation is None:
        raise InputError("--select best needs a validation table and none came", "give --validation, or --select last")
    if settings.lora_rank is not None and data.task.new_head:
        raise InputError(
            f"--lora-rank came with task {data.task.name}, whose new head needs all its weights", "leave it out"
        )


def _check_lora_of_given(settings: TrainSettings, given: CheckedStudent | None) -> None:
    if settings.lora_rank is not None and given is not None and given.provenance.head == "new":
        raise InputError(
            f"--lora-rank came and {given.given.source} has no head, whose frozen weights would stay random",
            "leave it out, or give a student with its head",
        )


def _validation_scores(
    model: PreTrainedModel,
    *,
    data: PreparedData,
    settings: TrainSettings,
    told: Callable[[ExampleColumns], None] = lambda _columns: None,
) -> Mapping[str, float]:
    if data.validation is None:
        return {}
    found = data.task.score(
        model, data.validation, data.tokenizer, batch_size=settings.eval_batch_size, generation=settings.generation
    )
    told(found.examples)
    return {name: value for name, value in found.scores.items() if name != "examples"}


def _freeze_embeddings(student: PreTrainedModel) -> None:
    """Freeze the tables of tokens and positions, as `freeze_embeds` does in the paper's BART and T5 runs."""
    for name, module in student.base_model.named_modules():
        # T5's relative-position bias is an embedding by class only.
        if isinstance(module, nn.Embedding) and "relative_attention_bias" not in name:
            module.requires_grad_(False)
