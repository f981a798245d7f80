"""The gradients that cross-entropy, KL and hidden losses send into a student's weights, measured over a probe."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm
from transformers import PreTrainedModel

from anglekit.analysis.preparation import package_versions
from anglekit.distillation.losses.objective import TeacherOutputs
from anglekit.distillation.losses.weights import LossWeights
from anglekit.distillation.matching.plan import DistillationPlan, plan_distillation
from anglekit.distillation.runs.run import objective_of_plan, teacher_keeping
from anglekit.distillation.runs.train import load_teacher_and_data
from anglekit.distillation.settings import DataSettings, TrainSettings
from anglekit.distillation.students.adapters import LayerAdapters, adapters_of_layers
from anglekit.distillation.students.create import CopyBlocks, create_student
from anglekit.distillation.students.given import CheckedStudent, GivenStudent, read_given
from anglekit.distillation.students.mixtures import LayerMixtures, create_mixtures
from anglekit.distillation.tasks.models import ModelProvenance, TaskModel
from anglekit.distillation.tasks.prepared_data import PreparedData
from anglekit.distillation.tasks.registry import task_by_name
from anglekit.distillation.training.distillation_loss import with_decoder_inputs, with_shared_ids
from anglekit.distillation.training.teacher import TeacherForward, accepted_inputs
from anglekit.distillation.training.teacher_cache import CachedTeacher
from anglekit.errors import InputError, RunError
from anglekit.models.architectures import blocks, depth, model_streams, width
from anglekit.models.checkpoints import checkpoint_of, load_config, quiet_transformers
from anglekit.models.load_options import LoadOptions, loaded_for_training
from anglekit.models.projections import load_adapters
from anglekit.parameter_space.products import (
    GradientCosines,
    GradientProducts,
    combinations,
    gradient_cosines,
    gradient_products,
    summed_products,
)
from anglekit.parameter_space.projection import Projection
from anglekit.parameter_space.settings import FEWEST_GROUPS, GradientSettings, check_measurable, projected_error
from anglekit.results.gradients import LAYER_COLUMNS, WHOLE, GradientGeometry
from anglekit.runtime.files import read_json_object
from anglekit.runtime.passes import told_failures
from anglekit.runtime.placement import chosen_device, is_placed
from anglekit.settings_fields import one_or_more
from anglekit.states.recorder import LayerRecorder
from anglekit.vocabulary import NONE, PAPER_STRATEGIES, FinalNorm, Stream

#: A layer of the student and one of the teacher, in a stream.
LayerPair = tuple[Stream, int, int]
#: By layer its states, (batch, time, width).
LayerStates = Mapping[int, Tensor]

# Gradients that take more than this are projected, unless the settings say how.
_EXACT_BYTES: Final = 2 * 2**30
_NO_STEP: Final = -1
_MATCHING: Final = tuple(name for name in PAPER_STRATEGIES if name != NONE)


def gradients(
    teacher: str,
    students: str | Sequence[str] | Mapping[str, str] = (),
    *,
    probe: str,
    task: str,
    strategies: Sequence[str] = _MATCHING,
    layers: int | None = None,
    encoder_layers: int | None = None,
    decoder_layers: int | None = None,
    width: int | None = None,
    init: str | None = None,
    copy_blocks: CopyBlocks | None = None,
    seed: int = 0,
    weights: LossWeights | None = None,
    hidden_loss: str = "mse",
    reading: str = "corrected",
    geometry: str | Path | None = None,
    data: DataSettings | None = None,
    settings: GradientSettings | None = None,
    load: LoadOptions | None = None,
    teacher_cache: str | None = None,
    device: str = "auto",
    progress: bool = False,
) -> GradientGeometry:
    """Measure the angles between the gradients that different losses send into a student's weights.

    For squared error, the angle at the student's state is the angle between the gradients of matching layer i or k, at
    that state. What training follows is the gradient in the weights: this measures it, for every student layer with
    every teacher layer, for whole strategies, and against cross-entropy and KL. Student and teacher are in evaluation
    mode; adapters of narrower students are held fixed.

    Args:
        teacher: directory, run directory or hub id of a trained teacher.
        students: directories, runs, checkpoints of a run or hub ids, each `SOURCE` or `NAME=SOURCE`; none measures a
            student before training, which is made as `distill` makes it.
        probe: table of labelled examples, as `tables.read_table` takes it.
        task: a name in `tasks.TASKS`.
        strategies: whose hidden losses are measured.
        layers: depth of a student that is made, in every stream.
        encoder_layers: that of its encoder alone.
        decoder_layers: that of its decoder alone.
        width: its width.
        init: its initialisation, "random" or "teacher"; None: random.
        copy_blocks: the user's own copy map.
        seed: of that student, of adapters and random orders, of the choice of examples and of projections.
        weights: of cross-entropy and KL in `task`, and of the hidden loss (above 0).
        hidden_loss: a name in `vocabulary.HIDDEN_LOSS_NAMES` but those of attention.
        reading: "corrected" or "official".
        geometry: from which the strategy "angle-aware" chooses.
        data: columns by name.
        settings: how many examples, in which groups, exact or projected.
        load: what is allowed in loading.
        teacher_cache: directory for the teacher's answers, as of `distill`: kept there and read from there.
        device: where to compute.
        progress: whether to show a bar.

    Raises:
        InputError: something that was given is wrong, or a student has weights without gradients.
        RunError: a gradient is not finite.

    Example:
        >>> found = anglekit.gradients("runs/teacher", probe="dev.tsv", task="sst2", layers=3, init="teacher")
        >>> found.agreement()  # does matching help or fight the task?
    """
    opened = open_measurement(
        teacher,
        students,
        probe=probe,
        task=task,
        strategies=strategies,
        layers=layers,
        encoder_layers=encoder_layers,
        decoder_layers=decoder_layers,
        width=width,
        init=init,
        copy_blocks=copy_blocks,
        seed=seed,
        weights=weights,
        hidden_loss=hidden_loss,
        reading=reading,
        geometry=geometry,
        data=data,
        settings=settings,
        load=load,
        teacher_cache=teacher_cache,
        device=device,
    )
    tables = [opened.measured(number, progress=progress) for number in range(len(opened.plans))]
    opened.answers.close()
    return GradientGeometry(
        pd.concat([one.strategies for one in tables], ignore_index=True),
        pd.concat([one.layers for one in tables], ignore_index=True),
        settings={
            **{name: value for name, value in asdict(opened.settings).items() if value is not None},
            "strategies": list(one_or_more(strategies)),
            "weights": asdict(weights or LossWeights()),
            "hidden_loss": hidden_loss,
            "reading": reading,
            "seed": seed,
        },
        provenance={
            "teacher": _provenance(opened.origin),
            "students": [one.provenance for one in tables],
            "probe": dict(opened.data.sources["train"]),
            "task": opened.data.task.name,
            "examples": sum(len(batch["input_ids"]) for batch in opened.batches),
            "groups": len(opened.batches),
            "packages": package_versions(),
        },
    )


def open_measurement(
    teacher: str,
    students: str | Sequence[str] | Mapping[str, str] = (),
    *,
    probe: str,
    task: str,
    strategies: Sequence[str] = _MATCHING,
    maps: Mapping[str, Mapping[Stream, Sequence[tuple[int, int]]]] | None = None,
    seed: int = 0,
    weights: LossWeights | None = None,
    hidden_loss: str = "mse",
    reading: str = "corrected",
    geometry: str | Path | None = None,
    data: DataSettings | None = None,
    settings: GradientSettings | None = None,
    load: LoadOptions | None = None,
    teacher_cache: str | None = None,
    device: str = "auto",
    **shape: Any,  # noqa: ANN401 - of a student that is made, as `gradients` takes it
) -> OpenMeasurement:
    """Load the teacher and the probe, and plan each student; the other arguments are those of `gradients`.

    Args:
        teacher: as there.
        students: as there.
        probe: as there.
        task: as there.
        strategies: as there.
        maps: by a name of one's own further maps, by stream (student layer, teacher layer).
        seed: as there, like all that follow.
        weights: of the losses.
        hidden_loss: its name.
        reading: of the losses.
        geometry: for "angle-aware".
        data: columns by name.
        settings: how gradients are measured.
        load: what is allowed in loading.
        teacher_cache: directory for the teacher's answers.
        device: where to compute.
        shape: `layers`, `encoder_layers`, `decoder_layers`, `width`, `init`, `copy_blocks`.

    Raises:
        InputError: as of `gradients`.
    """
    settings, load = settings or GradientSettings(), loaded_for_training(load)
    strategies = one_or_more(strategies)
    check_measurable(hidden_loss, settings)
    maps = maps or {}
    if not strategies and not maps and not settings.pairs:
        raise InputError("no strategy came, and pairs are not measured", "name a strategy, or measure pairs")
    source, chosen = checkpoint_of(teacher), task_by_name(task)
    training = TrainSettings(
        seed=seed,
        teacher_cache=teacher_cache,
        device=device,
        **{name: getattr(settings, name) for name in _OF_A_RUN},
    )
    config = load_config(source, load)
    given = read_given(teacher, students, load)
    if given and (came := [name for name, value in shape.items() if value is not None]):
        raise InputError(f"{came[0]} came with students that are there already", "leave it out")
    options: dict[str, Any] = {
        "weights": weights or LossWeights(),
        "hidden_loss": hidden_loss,
        "reading": reading,
        "geometry": geometry,
        "seed": seed,
    }

    def planned(name: str, student: GivenStudent | None) -> DistillationPlan:
        made = shape if student is None else {"given": student}
        matched = {"layer_map": maps[name]} if name in maps else {"strategy": name}
        return plan_distillation(config, teacher=teacher, **matched, **made, **options)

    # Before anything is loaded.
    plans = [
        {name: planned(name, student) for name in (NONE, *strategies, *maps)} for student in given.values() or [None]
    ]
    loaded, prepared, opened = load_teacher_and_data(
        source, config, chosen, training, tuple(given.values()), train=probe, validation=(), data=data, load=load
    )
    place = torch.device(chosen_device(device))
    origin = loaded.provenance()
    return OpenMeasurement(
        loaded,
        prepared,
        plans,
        opened,
        settings,
        training,
        place,
        origin,
        _batches(prepared, settings, seed),
        TeacherAnswers(loaded, training, origin, place, several=len(plans) > 1),
    )


@dataclass(frozen=True)
class OpenMeasurement:
    """A teacher and a probe that are loaded, and the students that can be measured.

    Attributes:
        teacher: with its head.
        data: the probe, tokenised.
        plans: of each student, by strategy or name of a map; "none" for the student itself.
        opened: students that are there already, by initialisation.
        settings: how gradients are measured.
        training: what of a run's settings decides the losses.
        place: where to compute.
        origin: the teacher's provenance.
        batches: the groups of examples.
        answers: what the teacher says of them.
    """

    teacher: TaskModel
    data: PreparedData
    plans: list[dict[str, DistillationPlan]]
    opened: Mapping[str, CheckedStudent]
    settings: GradientSettings
    training: TrainSettings
    place: torch.device
    origin: ModelProvenance
    batches: list[dict[str, Tensor]]
    answers: TeacherAnswers

    def student(self, number: int) -> StudentMeasurement:
        """Return a student, made or read anew."""
        plan = self.plans[number][NONE]
        given = self.opened[plan.init] if plan.student is not None else None
        return StudentMeasurement(
            self.teacher, self.data, self.plans[number], given, self.settings, self.training, self.place
        )

    def measured(self, number: int, *, progress: bool = False) -> StudentTables:
        """Return the tables of a student."""
        student = self.student(number)
        return student.tables(student.gradients(self.batches, self.answers, progress=progress))


# What `TrainSettings` has under the same names.
_OF_A_RUN: Final = (*("temperature", "kl_direction", "max_length", "target_max_length", "source_lang", "target_lang"),)


def _batches(data: PreparedData, settings: GradientSettings, seed: int) -> list[dict[str, Tensor]]:
    """Return the groups of examples, drawn at random and each a batch of its own."""
    order = np.random.default_rng(seed).permutation(len(data.train))[: settings.examples].tolist()
    groups = [order[first : first + settings.group] for first in range(0, len(order), settings.group)]
    if len(groups) > 1 and len(groups[-1]) < settings.group:
        # The jackknife weighs groups alike.
        groups.pop()
    if len(groups) < FEWEST_GROUPS:
        raise InputError(
            f"{len(order)} examples in groups of {settings.group} are {len(groups)} groups",
            f"an interval needs {FEWEST_GROUPS}: give more examples, or smaller groups",
        )
    collate = data.task.collator(data.tokenizer)
    return [dict(collate([data.train[number] for number in group])) for group in groups]


class TeacherAnswers:
    """What the teacher says of each batch: computed once where several students ask, or kept on the disk."""

    def __init__(
        self, loaded: TaskModel, training: TrainSettings, origin: ModelProvenance, place: torch.device, *, several: bool
    ) -> None:
        self._loaded, self._place = loaded, place
        self._keeping = teacher_keeping(training, origin)
        self._held: dict[int, TeacherOutputs] | None = {} if several and self._keeping is None else None
        self._asked: TeacherForward | CachedTeacher | None = None

    def of(
        self, layers: Mapping[Stream, Sequence[int]], *, logits: bool, final_norm: FinalNorm
    ) -> Callable[[int, Mapping[str, Any]], TeacherOutputs]:
        """Return what answers for a batch by its number."""
        if self._asked is None or self._held is None:
            self.close()  # another student may ask for what this one's teacher has said
            made: Callable[..., TeacherForward | CachedTeacher] = self._keeping or TeacherForward
            asked = made(self._loaded.model, layers=layers, logits=logits, final_norm=final_norm)
            self._asked = asked.to(self._place)
        asked = self._asked

        def answer(number: int, inputs: Mapping[str, Any]) -> TeacherOutputs:
            if self._held is None:
                return asked(inputs)
            if number not in self._held:
                self._held[number] = asked(inputs)
            return self._held[number]

        return answer

    def close(self) -> None:
        """Write what is kept on the disk."""
        if isinstance(self._asked, CachedTeacher):
            self._asked.cache.flush()


@dataclass(frozen=True)
class StudentTables:
    """What was found of one student."""

    strategies: pd.DataFrame
    layers: pd.DataFrame
    provenance: dict[str, Any]


class StudentMeasurement:
    """One student whose gradients are measured.

    Attributes:
        model: in evaluation mode.
        name: in the results.
        weights: those that have gradients.
        parts: by name the places of their weights.
        names: the losses, in the order of their gradients.
        pairs: the layers whose own loss is measured.
        every_layer: by stream all layers, of the student and of the teacher.
    """

    def __init__(
        self,
        loaded: TaskModel,
        prepared: PreparedData,
        plans: Mapping[str, DistillationPlan],
        given: CheckedStudent | None,
        settings: GradientSettings,
        training: TrainSettings,
        place: torch.device,
    ) -> None:
        self._settings, self._given = settings, given
        self._plan = plan = plans[NONE]
        teacher = loaded.model
        if given is None:
            prepared.task.write_to(teacher.config)
            self.model = create_student(teacher, **plan.student_options())
            self.name, self.step, self._source = f"from-{plan.init}", _NO_STEP, ""
        else:
            self.model = given.make(plan.seed)
            self.name, self._source = given.given.name, given.given.source
            self.step = _training_step(Path(checkpoint_of(self._source)))
        self.model.eval()  # type: ignore[no-untyped-call]
        self.weights = _weights_with_gradients(self.model, self.name)
        if not is_placed(self.model):
            nn.Module.to(self.model, place)
        self.place = place
        task_weights = replace(plan.weights, hidden=0.0) if plan.weights.ce or plan.weights.kl else None
        matched = replace(plan.weights, ce=0.0, kl=0.0) if plan.weights.hidden else LossWeights(0.0, 0.0, 1.0)
        self._task = (
            None
            if task_weights is None
            else objective_of_plan(_weighing(plan, task_weights), training, prepared, given)
        )
        self._hidden = {
            name: objective_of_plan(_weighing(one, matched), training, prepared, given)
            for name, one in plans.items()
            if name != NONE
        }
        # Of the hidden losses, whatever matches the layers: the counts, the masks and the state that is the last one.
        self._states = replace(
            objective_of_plan(_weighing(plan, LossWeights(0.0, 1.0, 1.0)), training, prepared, given),
            pairs=dict.fromkeys(model_streams(teacher.config), ((0, 0), (1, 1))),
            weights=LossWeights(0.0, 0.0, 1.0),
        )
        self.shared_entries = self._states.shared_entries
        self.mixtures: dict[str, LayerMixtures | None] = {}
        for name, objective in self._hidden.items():
            made = create_mixtures(objective.groups, width(teacher.config))
            self.mixtures[name] = None if made is None else made.to(place)
        streams = model_streams(teacher.config)
        self.every_layer = (
            {stream: tuple(range(depth(self.model.config, stream) + 1)) for stream in streams},
            {stream: tuple(range(depth(teacher.config, stream) + 1)) for stream in streams},
        )
        self.student_layers, self.teacher_layers = self.every_layer
        if not settings.pairs:
            hidden = list(self._hidden.values())
            self.student_layers = _read_layers(streams, [each.student_layers for each in hidden])
            self.teacher_layers = _read_layers(streams, [each.teacher_layers for each in hidden])
        self.adapters = self._adapters(width(teacher.config))
        self.adapters.to(place)
        self.parts = parts_of(self.model)

    def _adapters(self, teacher_width: int) -> LayerAdapters:
        """Return an adapter for each layer where the widths differ: those beside a trained student, and new ones."""
        needed = [(stream, layer) for stream, layers in self.every_layer[0].items() for layer in layers]
        if not self._states.needs_one_width:
            needed = []
        made = adapters_of_layers(
            needed, student_width=width(self.model.config), teacher_width=teacher_width, seed=self._plan.seed
        )
        trained = load_adapters(Path(checkpoint_of(self._source))) if self._source and made.layers else None
        with torch.no_grad():
            for place, weight in (trained or {}).items():
                if place in made.weights():
                    made.weights()[place].copy_(weight)
        return made.requires_grad_(False)

    @property
    def pairs(self) -> tuple[LayerPair, ...]:
        """The layers whose own loss is measured."""
        if not self._settings.pairs:
            return ()
        return tuple(
            (stream, student, teacher)
            for stream, layers in self.student_layers.items()
            for student in layers
            for teacher in self.teacher_layers[stream]
        )

    @property
    def names(self) -> list[str]:
        """The losses, in the order of their gradients."""
        terms = [] if self._task is None else list(self._task.term_names)
        return [*terms, *self._hidden, *map(self.pair_name, self.pairs)]

    def gradients(
        self, batches: Sequence[dict[str, Tensor]], answers: TeacherAnswers, *, progress: bool = False
    ) -> KeptGradients:
        """Return the gradient of each loss on each group of examples."""
        ready = [self._completed(batch) for batch in batches]
        counts = self._states.counts(ready)
        if self._task is not None:
            counts |= self._task.counts(ready)
        answer = answers.of(self.teacher_layers, logits=self._reads_logits, final_norm=self._states.final_norm)
        recorder = LayerRecorder(self.model, self.student_layers, self._states.final_norm)
        kept = KeptGradients(self.parts, self.weights, self.names, len(ready), self._settings, self._plan.seed)
        bar = tqdm(ready, desc=f"gradients of {self.name}", unit="group", disable=not progress, dynamic_ncols=True)
        with quiet_transformers():
            for number, inputs in enumerate(bar):
                losses = self._losses(inputs, answer(number, inputs), recorder, counts)
                kept.add(self._gradients(losses))
        return kept

    @property
    def _reads_logits(self) -> bool:
        return self._task is not None and self._task.reads_teacher_logits

    @property
    def task_weights(self) -> dict[str, float]:
        """The weights of cross-entropy and KL in the task's loss."""
        return {} if self._task is None else {name: self._task.weights.of(name) for name in self._task.term_names}

    @staticmethod
    def pair_name(pair: LayerPair) -> str:
        """Return what the loss between a student layer and a teacher layer is called among `names`."""
        stream, student, teacher = pair
        return f"{stream} layer {student} with teacher layer {teacher}"

    def states(
        self, batches: Sequence[dict[str, Tensor]], answers: TeacherAnswers
    ) -> Iterator[tuple[Callable[[Stream], Tensor], Mapping[Stream, LayerStates], Mapping[Stream, LayerStates]]]:
        """Yield for each group the mask of a stream's tokens, and the states of teacher and student."""
        students, teachers = self.every_layer
        answer = answers.of(teachers, logits=self._reads_logits, final_norm=self._states.final_norm)
        recorder = LayerRecorder(self.model, students, self._states.final_norm)
        for number, batch in enumerate(batches):
            inputs = self._completed(batch)
            taught = answer(number, inputs)
            with torch.no_grad(), quiet_transformers():
                _, states = self._pass(inputs, recorder)

            def mask_of(stream: Stream, inputs: Mapping[str, Any] = inputs) -> Tensor:
                mask = self._states.stream_mask(stream, inputs)
                return torch.ones_like(inputs["input_ids"]) if mask is None else mask

            yield mask_of, taught.hidden, states

    def _pass(self, inputs: Mapping[str, Any], recorder: LayerRecorder) -> tuple[Any, dict[Stream, LayerStates]]:
        """Return the student's outputs, and its states after the adapters."""
        with told_failures("the student", self.model, inputs), recorder:
            outputs = self.model(**accepted_inputs(self.model, inputs))
        states: dict[Stream, LayerStates] = {
            stream: {layer: self.adapters.project(stream, layer, state) for layer, state in kept.items()}
            for stream, kept in recorder.states.items()
        }
        recorder.clear()
        return outputs, states

    def _completed(self, batch: Mapping[str, Tensor]) -> dict[str, Any]:
        moved = {name: value.to(self.place) for name, value in batch.items()}
        return with_shared_ids(with_decoder_inputs(self.model, moved), self.shared_entries)

    def _losses(
        self,
        inputs: Mapping[str, Any],
        taught: TeacherOutputs,
        recorder: LayerRecorder,
        counts: Mapping[str, Tensor],
    ) -> Iterator[Tensor]:
        """Yield each loss of a batch, its sum over items divided by the items of the whole probe."""
        # Others read the teacher's logits as well.
        taught = replace(taught, disposable=False)
        outputs, states = self._pass(inputs, recorder)
        if self._task is not None:
            terms = self._task.terms(inputs, outputs.logits, {}, taught)
            for name in self._task.term_names:
                yield terms[name].mean(counts[name])
        for strategy, objective in self._hidden.items():
            terms = objective.terms(inputs, outputs.logits, states, taught, self.mixtures[strategy])
            yield torch.stack([term.mean(counts[name]) for name, term in terms.items()]).sum()
        for stream, student, teacher in self.pairs:
            objective = replace(self._states, pairs={stream: ((student, teacher),)})
            (term,) = objective.terms(inputs, outputs.logits, states, taught).values()
            yield term.mean(counts[f"hidden_{stream}"])

    def _gradients(self, losses: Iterator[Tensor]) -> Iterator[Sequence[Tensor | None]]:
        for loss in losses:
            if loss.requires_grad:
                yield torch.autograd.grad(loss, self.weights, retain_graph=True, allow_unused=True)
            else:  # a layer below every weight
                yield [None] * len(self.weights)

    def tables(self, kept: KeptGradients) -> StudentTables:
        """Return the cosines between gradients, in each part of the weights and in all."""
        products = kept.products()
        products[WHOLE] = summed_products(products.values())
        terms = self.task_weights
        losses = [*terms, *self._hidden]
        strategies: list[dict[str, Any]] = []
        layers: list[dict[str, Any]] = []
        for part in (WHOLE, *self.parts):
            error = kept.error(part)
            of_losses = _chosen(products[part], range(len(losses)))
            names, sums = combinations(losses, {"task": terms} if terms else {})
            found = gradient_cosines(of_losses.combined(sums))
            strategies += [
                {
                    **self._keys(part),
                    "loss_a": names[a],
                    "loss_b": names[b],
                    **_numbers(found, a, b, error),
                    "norm_a": found.norms[a],
                    "norm_b": found.norms[b],
                }
                for a, b in _places(len(names))
            ]
            pairs = _chosen(products[part], range(len(losses), len(self.names)))
            found = gradient_cosines(pairs)
            layers += [
                {
                    **self._keys(part),
                    **_pair_columns(self.pairs[a], "a"),
                    **_pair_columns(self.pairs[b], "b"),
                    **_numbers(found, a, b, error),
                }
                for a, b in _places(len(self.pairs))
            ]
        seen = {} if self._given is None else _provenance(self._given.provenance)
        facts = {"name": self.name, "init": self._plan.init, "seed": self._plan.seed, **seen}
        facts["maps"] = {
            name: {stream: [list(pair) for pair in own] for stream, own in objective.pairs.items()}
            for name, objective in self._hidden.items()
        }
        facts["projected_parts"] = [part for part in self.parts if kept.error(part)]
        return StudentTables(pd.DataFrame(strategies), _layer_frame(layers), facts)

    def _keys(self, part: str) -> dict[str, Any]:
        return {"student": self.name, "step": self.step, "part": part}


class KeptGradients:
    """The gradients of all losses on every group of examples, by part of the weights: whole, or projected.

    Args:
        parts: by name the places of a part's weights.
        weights: the student's.
        losses: their names.
        groups: how many.
        settings: whether to project.
        seed: of projections.
    """

    def __init__(
        self,
        parts: Mapping[str, Sequence[int]],
        weights: Sequence[nn.Parameter],
        losses: Sequence[str],
        groups: int,
        settings: GradientSettings,
        seed: int,
    ) -> None:
        self._parts, self._losses = parts, losses
        lengths = [weight.numel() for weight in weights]
        # What a loss does not reach, without memory of its own.
        self._nothing = [torch.zeros(1).expand(length) for length in lengths]
        self._groups: dict[str, list[list[list[Tensor]]]] = {part: [] for part in parts}
        self._sizes = {part: sum(lengths[place] for place in own) for part, own in parts.items()}
        too_large = 4 * len(losses) * groups * sum(self._sizes.values()) > _EXACT_BYTES
        self._projection = Projection(settings.projected_to, seed) if settings.dimensions or too_large else None

    def _projection_of(self, part: str) -> Projection | None:
        """Return what projects a part's gradients; None where they are kept whole, as those of few weights are."""
        small = self._projection is None or self._sizes[part] <= self._projection.dimensions
        return None if small else self._projection

    def error(self, part: str) -> float:
        """Return the highest standard error of a cosine that projections bring; all parts together have no more."""
        used = [self._projection_of(one) for one in (self._parts if part == WHOLE else (part,))]
        return max((projected_error(each.dimensions) for each in used if each is not None), default=0.0)

    def add(self, gradients: Iterator[Sequence[Tensor | None]]) -> None:
        """Take in the gradients of a group: of each loss one for each weight, None where it has none.

        Raises:
            RunError: one is not finite.
        """
        for groups in self._groups.values():
            groups.append([])
        for loss, found in enumerate(gradients):
            for part, places in self._parts.items():
                project = self._projection_of(part)
                reached = ((at, found[at]) for at in places)
                if project is None:
                    # As autograd made it: a copy would cost as much as the projection.
                    own = [self._nothing[at] if one is None else _flat(one) for at, one in reached]
                else:
                    own = [project((at, _flat(one)) for at, one in reached if one is not None)]
                if not all(bool(each.sum().isfinite()) for each in own):
                    raise RunError(f"the gradient of {self._losses[loss]} is not finite in the {part} of the student")
                self._groups[part][-1].append(own)

    def pieces(self, part: str) -> Iterator[list[list[Tensor]]]:
        """Yield the gradients of a part, piece after piece: by group and loss a vector of weights or dimensions."""
        groups = self._groups[part]
        for piece in range(len(groups[0][0])):
            yield [[loss[piece] for loss in group] for group in groups]

    def products(self) -> dict[str, GradientProducts]:
        """Return by part the inner products of its gradients."""
        return {part: summed_products(map(gradient_products, self.pieces(part))) for part in self._parts}


def _flat(gradient: Tensor) -> Tensor:
    return gradient.float().cpu().reshape(-1)


def parts_of(model: PreTrainedModel) -> dict[str, tuple[int, ...]]:
    """Return the parts of a model's weights by name, each with the places of its weights among those with gradients.

    The parts are the embeddings, each block (`block 3`; with two streams `decoder block 3`), the norms and what else
    stands outside the blocks (`outside blocks`), and the head. A weight that two share is in the first.
    """
    streams = model_streams(model.config)
    owner: dict[int, str] = {}
    for stream in streams:
        for number, block in enumerate(blocks(model, stream), 1):
            name = f"block {number}" if len(streams) == 1 else f"{stream} block {number}"
            for weight in block.parameters():
                owner.setdefault(id(weight), name)
    for module in model.modules():
        if isinstance(module, nn.Embedding):
            for weight in module.parameters():
                owner.setdefault(id(weight), "embeddings")
    body = {id(weight) for weight in model.base_model.parameters()}
    found: dict[str, list[int]] = {"embeddings": []}
    for place, weight in enumerate(_with_gradients(model)):
        name = owner.get(id(weight), "outside blocks" if id(weight) in body else "head")
        found.setdefault(name, []).append(place)
    return {name: tuple(places) for name, places in found.items() if places}


def _with_gradients(model: PreTrainedModel) -> list[nn.Parameter]:
    return [weight for weight in model.parameters() if weight.requires_grad]


def _weights_with_gradients(model: PreTrainedModel, name: str) -> list[nn.Parameter]:
    """Return a student's weights.

    Raises:
        InputError: some have no gradients, as those of a quantised model.
    """
    whole = [weight for weight in model.parameters() if not weight.is_floating_point()]
    kept = _with_gradients(model)
    if whole or not kept or getattr(model, "is_quantized", False):
        kind = f"weights of type {str(whole[0].dtype).removeprefix('torch.')}" if whole else "weights"
        raise InputError(
            f"student {name} has {kind} without gradients, as a quantised model has",
            "give the checkpoint that was quantised",
        )
    return kept


def _read_layers(
    streams: Sequence[Stream], read: Sequence[Mapping[Stream, Sequence[int]]]
) -> dict[Stream, tuple[int, ...]]:
    """Return by stream the layers that any of several losses reads."""
    return {stream: tuple(sorted({layer for each in read for layer in each.get(stream, ())})) for stream in streams}


def _weighing(plan: DistillationPlan, weights: LossWeights) -> DistillationPlan:
    return msgspec.structs.replace(plan, weights=weights)


def _training_step(checkpoint: Path) -> int:
    """Return the training step that a checkpoint of transformers' Trainer says; -1 where none does."""
    file = checkpoint / "trainer_state.json"
    if not file.is_file():
        return _NO_STEP
    step = read_json_object(file, "give another checkpoint").get("global_step")
    return step if isinstance(step, int) else _NO_STEP


def _chosen(products: GradientProducts, losses: range) -> GradientProducts:
    """Return the products of some losses."""
    own = slice(losses.start, losses.stop)
    return GradientProducts(products.total[own, own], products.crossed[:, own, own], products.own[:, own, own])


def _places(number: int) -> Iterator[tuple[int, int]]:
    yield from itertools.combinations(range(number), 2)


def _numbers(found: GradientCosines, a: int, b: int, error: float) -> dict[str, float]:
    cosine = float(found.cosine[a, b])
    return {
        "cosine": cosine,
        "expected_cosine": float(found.expected[a, b]),
        "standard_error": float(found.standard_error[a, b]),
        "lower": float(found.lower[a, b]),
        "upper": float(found.upper[a, b]),
        "projection_error": error * (1.0 - min(cosine**2, 1.0)),
    }


def _pair_columns(pair: LayerPair, side: str) -> dict[str, Any]:
    names = (f"stream_{side}", f"student_layer_{side}", f"teacher_layer_{side}")
    return dict(zip(names, pair, strict=True))


def _layer_frame(rows: list[dict[str, Any]]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=None if rows else list(LAYER_COLUMNS))


def _provenance(origin: ModelProvenance) -> dict[str, Any]:
    return {name: value for name, value in msgspec.to_builtins(origin).items() if name != "directory"}
