"""The loss of a distilled student in a loop of one's own: teacher, student and a strategy's name are enough."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from anglekit.distillation.losses.functional import IGNORE_INDEX, LossTerm, weighted_total
from anglekit.distillation.losses.head_logits import Logits
from anglekit.distillation.losses.objective import DistillationObjective, TeacherOutputs
from anglekit.distillation.matching.strategies import (
    MODEL_FAMILIES,
    LayerMatching,
    check_depths,
    draw_seed,
    layer_matching,
)
from anglekit.distillation.students.adapters import LayerAdapters, adapters_of_layers
from anglekit.distillation.students.create import model_family
from anglekit.distillation.students.mixtures import LayerMixtures, create_mixtures, groups_of
from anglekit.distillation.training.attention_recorder import AttentionRecorder, check_attention
from anglekit.distillation.training.head_apart import HeadApart, logits_of
from anglekit.distillation.training.teacher import TeacherForward, TeacherProvider, accepted_inputs
from anglekit.errors import InputError
from anglekit.models.architectures import depth, model_streams, width
from anglekit.models.check import facts_of
from anglekit.models.memory.bare import check_apart
from anglekit.probes.shared_vocabulary import vocabulary_entries
from anglekit.runtime.passes import told_failures
from anglekit.states.recorder import LayerRecorder
from anglekit.vocabulary import NONE, REGRESSION, Stream

Inputs = Mapping[str, Any]
#: What may stand for the matched layers: a strategy's name, the matching of each stream, or a whole objective.
Matching = str | LayerMatching | Sequence[LayerMatching] | DistillationObjective

#: Of one stream: the mask of its tokens, (batch, time) or None, and by layer the student's states and the teacher's.
HiddenStates = tuple[Tensor | None, dict[int, Tensor], dict[int, Tensor]]

_MASKS = {"input_ids": "attention_mask", "decoder_input_ids": "decoder_attention_mask"}


def match_layers(
    teacher: PreTrainedModel, student: PreTrainedModel, strategy: str, *, seed: int | None = None
) -> tuple[LayerMatching, ...]:
    """Return the matching of each stream of two models, by a strategy's name.

    Args:
        teacher: of any depth.
        student: of the same kind.
        strategy: a name in `vocabulary.STRATEGIES`.
        seed: of the order of "random"; one is drawn and recorded where none is given.

    Raises:
        InputError: an unknown name, models of different kinds, or depths that the strategy cannot match.

    Example:
        >>> [matching.pairs for matching in match_layers(teacher, student, "reverse")]
        [((0, 0), (1, 12), (2, 8), (3, 4))]
    """
    for model in (teacher, student):
        facts_of(model)  # which knows the streams
    streams = model_streams(teacher.config)
    if model_streams(student.config) != streams:
        raise InputError(
            f"the teacher has the streams {' and '.join(streams)} and the student "
            f"{' and '.join(model_streams(student.config))}",
            "give models of one kind",
        )
    for stream in streams if strategy != NONE else ():
        check_depths(
            depth(teacher.config, stream),
            depth(student.config, stream),
            stream,
            "if the deeper model is the teacher, they came the wrong way round",
        )
    drawn = draw_seed() if seed is None else seed
    return tuple(
        layer_matching(
            strategy,
            teacher_blocks=depth(teacher.config, stream),
            student_blocks=depth(student.config, stream),
            stream=stream,
            family=model_family(teacher.config),
            seed=drawn,
        )
        for stream in streams
    )


def objective_for(
    teacher: PreTrainedModel | None,
    student: PreTrainedModel,
    matching: Matching = "forward",
    *,
    seed: int | None = None,
    **fields: Any,  # noqa: ANN401 - of `DistillationObjective`, checked there
) -> DistillationObjective:
    """Return the objective of two models, in which everything is said that they tell.

    That is, where it is left open: whether labels are shifted by one (decoder-only language models), the family of the
    official reading and the pad token.

    Args:
        teacher: with its head; None where it is not at hand.
        student: with its head.
        matching: a strategy's name, a `LayerMatching` (or one for each stream), or an objective.
        seed: of the strategy "random".
        fields: of `DistillationObjective`; beside an objective they replace its own.

    Raises:
        InputError: a strategy without a teacher, models of different kinds, or heads whose logits cannot be compared.

    Example:
        >>> objective = objective_for(teacher, student, "reverse", weights=anglekit.LossWeights(0, 1, 1))
        >>> trainer = anglekit.DistillationTrainer(student, args, objective=objective, teacher=teacher)
    """
    if isinstance(matching, str):
        if teacher is None:
            raise InputError(f"strategy {matching!r} came without a teacher", "give the teacher or an objective")
        matching = match_layers(teacher, student, matching, seed=seed)
    if isinstance(matching, DistillationObjective):
        objective = replace(matching, **fields) if fields else matching
    else:
        parts = [matching] if isinstance(matching, LayerMatching) else matching
        objective = DistillationObjective(
            {part.stream: part.pairs for part in parts}, groups=groups_of(parts), **fields
        )
    config = student.config
    told: dict[str, Any] = {}
    if objective.causal is None:
        facts_of(student)  # which knows the streams
        told["causal"] = model_streams(config) == ("decoder",) and _speaks(student)
    if objective.problem_type is None and not _speaks(student):
        stated = getattr(config, "problem_type", None)
        # As transformers reads a head of one output.
        told["problem_type"] = stated or (REGRESSION if getattr(config, "num_labels", None) == 1 else None)
    if objective.family is None:
        told["family"] = MODEL_FAMILIES[model_family(config)].official_losses
    if objective.pad_token_id is None and isinstance(getattr(config, "pad_token_id", None), int):
        told["pad_token_id"] = config.pad_token_id
    if objective.reads_teacher_logits and teacher is not None:
        _check_heads(objective, teacher, student)
    return replace(objective, **told)


def _speaks(model: PreTrainedModel) -> bool:
    """Return whether a model's logits are of its vocabulary."""
    try:
        return model.get_output_embeddings() is not None  # type: ignore[no-untyped-call]
    except (AttributeError, NotImplementedError):
        return False


def _check_heads(objective: DistillationObjective, teacher: PreTrainedModel, student: PreTrainedModel) -> None:
    """Refuse a KL between logits of different things."""
    both = [_speaks(model) for model in (teacher, student)]
    if both[0] != both[1]:
        kinds = [type(model).__name__ for model in (teacher, student)]
        raise InputError(
            f"the teacher is a {kinds[0]} and the student a {kinds[1]}, whose logits cannot be compared",
            "give both a head of one kind, or set the weight of kl to 0",
        )
    if not all(both):
        labels = [getattr(model.config, "num_labels", None) for model in (teacher, student)]
        if labels[0] != labels[1]:
            raise InputError(
                f"the teacher tells {labels[0]} labels apart and the student {labels[1]}",
                "give both the same labels, or set the weight of kl to 0",
            )
        return
    entries = [vocabulary_entries(model) for model in (teacher, student)]
    if objective.shared_entries is None and entries[0] != entries[1]:
        raise InputError(
            f"the teacher's vocabulary has {entries[0]} entries and the student's {entries[1]}",
            "say how many mean the same: shared_entries=anglekit.shared_vocabulary(teacher_tokenizer, "
            "student_tokenizer, teacher, student).entries",
        )


def with_decoder_inputs(model: PreTrainedModel, inputs: Inputs) -> dict[str, Any]:
    """Return a batch with the decoder inputs that an encoder-decoder would make from its labels.

    Raises:
        InputError: there are neither decoder inputs nor labels to make them from.
    """
    completed = dict(inputs)
    if getattr(model.config, "is_encoder_decoder", False) and "decoder_input_ids" not in completed:
        make = getattr(model, "prepare_decoder_input_ids_from_labels", None)
        if make is None or completed.get("labels") is None:
            raise InputError(f"a batch for {type(model).__name__} has neither decoder_input_ids nor usable labels")
        completed["decoder_input_ids"] = make(labels=completed["labels"])
    return completed


def with_shared_ids(inputs: Inputs, entries: int | None) -> dict[str, Any]:
    """Return a batch whose token ids both models know; padding that one of them does not know becomes token 0.

    Args:
        inputs: a batch with its decoder inputs.
        entries: how many ids are shared; None: nothing is looked at, and no device waited for.

    Raises:
        InputError: a token that is read, or a label, is not shared.
    """
    batch = dict(inputs)
    if entries is None:
        return batch
    labels = batch.get("labels")
    for name in ("input_ids", "decoder_input_ids", "labels"):
        ids = batch.get(name)
        if not isinstance(ids, Tensor) or ids.dim() != 2:
            continue
        foreign = ids >= entries
        if not foreign.any():
            continue
        mask = batch.get(_MASKS.get(name, ""))
        if mask is None and name == "decoder_input_ids" and isinstance(labels, Tensor):
            mask = labels != IGNORE_INDEX
        read = foreign if mask is None else foreign & (mask != 0)
        if read.any():
            raise InputError(
                f"{name} hold token {int(ids[read].max())}, and teacher and student share those below {entries}",
                "leave such texts out, or tokenise with the tokenizer that lacks that token",
            )
        batch[name] = ids.masked_fill(foreign, 0)
    return batch


class DistillationLoss:
    """The training loss of a student, for a loop of one's own.

    Called with a batch it runs teacher and student, the teacher without gradients, and returns the weighted sum of the
    terms' means over the batch: a scalar to call `backward` on. Models stay on their devices and in their modes, but
    for the teacher, which is put into evaluation mode. What the models tell is not asked: streams, the shift of labels,
    decoder inputs, which layers a strategy matches. Students of another width get an adapter for each matched layer.

    Args:
        teacher: with its head if there is a KL term.
        student: with its head.
        matching: a strategy's name, a `LayerMatching` (or one for each stream), or a `DistillationObjective`.
        adapters: for students of another width; None makes them.
        mixtures: the targets of layers that several teacher layers teach; None makes them.
        seed: of adapters that are made, and of the strategy "random".
        fields: of `DistillationObjective`: `weights`, `temperature`, `hidden_loss`, `shared_entries`, ...

    Attributes:
        objective: what the student is trained for, with everything said that the models tell.
        adapters: empty where the widths agree.
        mixtures: None where every layer has one teacher layer; set its `epoch` where the strategy draws each epoch.

    Raises:
        InputError: models of different kinds, layers that do not exist, or logits that cannot be compared.

    Example:
        >>> loss = anglekit.DistillationLoss(teacher, student, "forward")
        >>> optimizer = torch.optim.AdamW(loss.parameters(), lr=1e-4)
        >>> for batch in loader:  # what the model takes, labels included
        ...     loss(batch).backward()
        ...     optimizer.step()
        ...     optimizer.zero_grad()
    """

    def __init__(
        self,
        teacher: PreTrainedModel,
        student: PreTrainedModel,
        matching: Matching = "forward",
        *,
        adapters: LayerAdapters | None = None,
        mixtures: LayerMixtures | None = None,
        seed: int = 0,
        **fields: Any,  # noqa: ANN401 - of `DistillationObjective`, checked there
    ) -> None:
        if teacher is student:
            raise InputError("teacher and student are one model", "make a student: anglekit.create_student")
        network = network_of(student)
        check_apart(teacher, {"the student": network}, trained=True)
        self.objective = objective_for(teacher, network, matching, seed=seed, **fields)
        self.student = student
        self.adapters = adapters if adapters is not None else _adapters_for(self.objective, teacher, network, seed)
        check_widths(self.objective, network, teacher, self.adapters)
        self.adapters.to(network.device)
        self.mixtures = mixtures or create_mixtures(self.objective.groups, width(teacher.config))
        if self.mixtures is not None:
            self.mixtures.to(network.device)
        taught = TeacherForward(
            teacher,
            self.objective.teacher_layers,
            logits=self.objective.reads_teacher_logits,
            final_norm=self.objective.final_norm,
            attention=self.objective.reads_attention,
            maps=self.objective.reads_maps,
            head_apart=self.objective.reads_chunks,
        )
        self._step = StudentStep(self.objective, network, self.adapters, taught, self.mixtures)

    def __call__(self, batch: Inputs, model: nn.Module | None = None) -> Tensor:
        """Return the loss of a batch, a scalar.

        Args:
            batch: what the models take, on the student's device: `input_ids` (batch, time) and `attention_mask`,
                `labels` with -100 where nothing is learnt.
            model: the student in its wrapper, where `accelerate` or data parallelism put one around it.
        """
        terms = self.terms(batch, model)
        return weighted_total({name: term.mean() for name, term in terms.items()}, self.objective.weights)

    def terms(self, batch: Inputs, model: nn.Module | None = None) -> dict[str, LossTerm]:
        """Return each term of a batch, a sum and its count: add them up to pool the batches of an accumulated step."""
        terms, _ = self._step(self.student if model is None else model, batch)
        return terms

    def hidden_states(self, batch: Inputs) -> dict[Stream, HiddenStates]:
        """Return by stream the states that the hidden loss reads of a batch, in evaluation mode and without gradients.

        Of each stream: the mask of its tokens, (batch, time) or None, the student's matched states after their adapters
        and the teacher's, by layer, each (batch, time, width).
        """
        training = self.student.training
        self.student.eval()  # type: ignore[no-untyped-call]
        try:
            with torch.no_grad():
                return self._step.hidden_states(self.student, batch)
        finally:
            self.student.train(training)

    def parameters(self) -> list[nn.Parameter]:
        """Return the weights to train: the student's, the adapters' and those of learned mixtures."""
        mixed = () if self.mixtures is None else self.mixtures.parameters()
        every = (*self.student.parameters(), *self.adapters.parameters(), *mixed)
        return [each for each in every if each.requires_grad]


class StudentStep:
    """One forward pass of teacher and student and the terms of the loss; loops and trainers share it.

    Args:
        objective: settled.
        student: the transformers model itself, whatever is wrapped around it in the pass.
        adapters: for students of another width; None or empty for none.
        teacher: answers for the teacher; None where no term reads it.
        mixtures: of layers that several teacher layers teach; None for none.
    """

    def __init__(
        self,
        objective: DistillationObjective,
        student: PreTrainedModel,
        adapters: LayerAdapters | None,
        teacher: TeacherProvider | None,
        mixtures: LayerMixtures | None = None,
    ) -> None:
        self.objective = objective
        self.student = student
        self.adapters = adapters if adapters is not None and adapters.layers else None
        self.teacher = teacher
        self.mixtures = mixtures
        self._head = HeadApart(student)
        attended, layers = objective.reads_attention, objective.student_layers
        self._recorder = LayerRecorder(student, {} if attended else layers, objective.final_norm)
        self._attention = AttentionRecorder(
            student, layers if attended else {}, maps=objective.reads_maps, role="student"
        )

    def __call__(
        self,
        model: nn.Module,
        batch: Inputs,
        autocast: AbstractContextManager[Any] | None = None,
        *,
        whole_outputs: bool = False,
    ) -> tuple[dict[str, LossTerm], Any]:
        """Return the terms of a batch, and the student's outputs.

        Args:
            model: the student, wrapped or not.
            batch: on the student's device, labels included.
            autocast: in which precision the teacher runs; None: its own.
            whole_outputs: whether the outputs need their logits, also where these are many and no loss reads them
                whole.
        """
        inputs, taught, states, outputs, logits = self._passes(model, batch, autocast, apart=not whole_outputs)
        compared = self._attention.states if self.objective.reads_attention else states
        terms = self.objective.terms(inputs, logits, compared, taught, self.mixtures)
        self._recorder.clear()
        self._attention.clear()
        return terms, outputs

    def hidden_states(self, model: nn.Module, batch: Inputs) -> dict[Stream, HiddenStates]:
        """Return what the hidden loss reads of a batch; see `DistillationLoss.hidden_states`."""
        inputs, taught, states, _, _ = self._passes(model, batch)
        found = {
            stream: (self.objective.stream_mask(stream, inputs), own, dict(taught.hidden.get(stream, {})))
            for stream, own in states.items()
        }
        self._recorder.clear()
        self._attention.clear()
        return found

    def _passes(
        self,
        model: nn.Module,
        batch: Inputs,
        autocast: AbstractContextManager[Any] | None = None,
        *,
        apart: bool = True,
    ) -> tuple[dict[str, Any], TeacherOutputs, dict[Stream, dict[int, Tensor]], Any, Logits]:
        """Return the completed batch, what the teacher said, the student's projected states, outputs and logits.

        With `apart` the logits may be left unmade.
        """
        inputs = self.completed(batch)
        taught = TeacherOutputs()
        if self.teacher is not None and self.objective.reads_teacher:
            with autocast or nullcontext():
                taught = self.teacher(inputs)
        given = accepted_inputs(self.student, inputs)
        # A wrapper may shard the head, or have it run where its gradients are gathered.
        apart = apart and model is self.student and self.objective.reads_chunks
        with (
            told_failures("the student", self.student, inputs),
            self._head.left_out(given) if apart else nullcontext(()) as kept,
            self._recorder as recorder,
            self._attention,
        ):
            outputs = model(**given)
        return inputs, taught, self._projected(recorder.states), outputs, logits_of(outputs, kept)

    def completed(self, batch: Inputs) -> dict[str, Any]:
        """Return a batch as both models read it: with decoder inputs, and without padding that one does not know."""
        return with_shared_ids(with_decoder_inputs(self.student, batch), self.objective.shared_entries)

    def _projected(self, states: Mapping[Stream, Mapping[int, Tensor]]) -> dict[Stream, dict[int, Tensor]]:
        if self.adapters is None:
            return {stream: dict(kept) for stream, kept in states.items()}
        # The model's own autocast has ended here, so half-precision states go back to the adapters' precision.
        return {
            stream: {layer: self.adapters.project(stream, layer, state.float()) for layer, state in kept.items()}
            for stream, kept in states.items()
        }


def network_of(model: Any) -> PreTrainedModel:  # noqa: ANN401 - PEFT is optional
    """Return the transformers model, without the wrapper that PEFT puts around it."""
    return cast("PreTrainedModel", model.get_base_model() if hasattr(model, "get_base_model") else model)


def check_widths(
    objective: DistillationObjective,
    student: PreTrainedModel,
    teacher: PreTrainedModel | None,
    adapters: LayerAdapters | None,
) -> None:
    """Check that every matched layer has the teacher's width, after its adapter if there is one.

    Raises:
        InputError: naming the widths that differ or the adapter that is missing.
    """
    if teacher is not None:
        check_attention(objective, student, teacher)
    needed = [(stream, layer) for stream, layers in objective.student_layers.items() for layer in layers]
    if not objective.needs_one_width and not (adapters is not None and adapters.layers):
        attends = [stream for stream, groups in objective.groups.items() if groups.combines == "attention"]
        if attends and teacher is not None and width(teacher.config) != width(student.config):
            raise attention_without_adapters(width(student.config), width(teacher.config), objective.hidden_loss)
        return
    weights = {} if adapters is None else adapters.weights()
    narrow = width(student.config)
    wide = None if teacher is None else width(teacher.config)
    if weights and (missing := [place for place in needed if place not in weights]):
        raise InputError(f"the {missing[0][0]}'s matched layer {missing[0][1]} has no adapter", "give one for each")
    if needed and not weights and wide not in (None, narrow):
        raise InputError(f"the student is {narrow} wide and the teacher {wide}", "matched layers need adapters")
    for place, weight in weights.items():
        if weight.shape[1] != narrow or wide not in (None, weight.shape[0]):
            raise InputError(
                f"the adapter of {place[0]} layer {place[1]} is {tuple(weight.shape)}", f"need ({wide}, {narrow})"
            )


def attention_without_adapters(narrow: int, wide: int, hidden_loss: str) -> InputError:
    """Return the error of a strategy that multiplies states of two widths, under a loss that has no adapters."""
    return InputError(
        f"the student is {narrow} wide and the teacher {wide}, and strategy layer-attention multiplies their states "
        f"while hidden loss {hidden_loss!r} has no adapters",
        "take mse, or another strategy",
    )


def _adapters_for(
    objective: DistillationObjective, teacher: PreTrainedModel, student: PreTrainedModel, seed: int
) -> LayerAdapters:
    needed = objective.student_layers if objective.needs_one_width else {}
    layers = [(stream, layer) for stream, layers in needed.items() for layer in layers]
    return adapters_of_layers(
        layers, student_width=width(student.config), teacher_width=width(teacher.config), seed=seed
    )
