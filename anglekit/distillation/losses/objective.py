"""What a distilled student is trained for: which terms there are, what they read and how they are counted."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from anglekit.distillation.losses.attention_relations import AttentionStates
from anglekit.distillation.losses.divergences import one_chunk
from anglekit.distillation.losses.functional import (
    IGNORE_INDEX,
    LossTerm,
    attention_loss,
    cross_entropy,
    cross_entropy_and_kl,
    hidden_loss,
    kl_divergence,
    next_token_labels,
    shared_logits,
    valid_positions,
)
from anglekit.distillation.losses.head_logits import Logits, made
from anglekit.distillation.losses.label_losses import binary_cross_entropy, binary_kl_divergence, squared_error
from anglekit.distillation.losses.official import (
    OFFICIAL,
    official_decoder_mask,
    official_hidden_loss,
)
from anglekit.distillation.losses.weights import LossWeights
from anglekit.errors import InputError, suggest
from anglekit.readings import Decisions, decisions
from anglekit.vocabulary import (
    ATTENTION_LOSSES,
    ATTENTION_MAPS,
    HIDDEN_LOSS_NAMES,
    KL_DIRECTIONS,
    MIXTURES,
    MULTI_LABEL,
    PROBLEM_TYPES,
    READINGS,
    REGRESSION,
    RELATION_HEADS_OF,
    SINGLE_LABEL,
    WIDTH_FREE_LOSSES,
    FinalNorm,
    ProblemType,
    Reading,
    Stream,
)

#: For each stream the matched (student layer, teacher layer).
LayerPairs = Mapping[Stream, Sequence[tuple[int, int]]]

Inputs = Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class TeacherOutputs:
    """What the losses read of the teacher for one batch, without gradients.

    Attributes:
        logits: (batch, classes) or (batch, time, vocabulary), made or not; None where no loss reads them.
        hidden: `hidden[stream][layer]` of shape (batch, time, width), the matched layers only; empty for losses of
            attention.
        attention: `attention[stream][layer]`, the matched layers only, for those.
        disposable: whether this step alone reads the logits, so that its backward pass may write over them.
    """

    logits: Logits | None = None
    hidden: Mapping[Stream, Mapping[int, Tensor]] = field(default_factory=dict)
    attention: Mapping[Stream, Mapping[int, AttentionStates]] = field(default_factory=dict)
    disposable: bool = False


#: What is compared of a layer: its state, (batch, time, width), or what its attention makes.
Compared = Tensor | AttentionStates
#: A student layer's state, its target, and how much the pair counts.
Taught = tuple[Any, Any, float]
#: The mean loss per token of a pair of states.
Cost = Callable[[Any, Any], Tensor]


@dataclass(frozen=True)
class LayerGroups:
    """The student layers of one stream that several teacher layers teach.

    Attributes:
        combines: what is made of a group (`vocabulary.Strategy.combines`).
        of: (student layer, teacher layers), ascending.
        seed: of a draw; None where nothing is drawn.
    """

    combines: str
    of: tuple[tuple[int, tuple[int, ...]], ...]
    seed: int | None = None

    @property
    def student_layers(self) -> tuple[int, ...]:
        """The student layers."""
        return tuple(student for student, _ in self.of)

    @property
    def teacher_layers(self) -> tuple[int, ...]:
        """All teacher layers, ascending, each once."""
        return tuple(sorted({layer for _, group in self.of for layer in group}))


class Mixtures(Protocol):
    """What makes the targets of groups of teacher layers: `students.mixtures.LayerMixtures`."""

    def taught(
        self,
        stream: Stream,
        student: Mapping[int, Any],
        teacher: Mapping[int, Any],
        mask: Tensor | None,
        cost: Cost,
    ) -> list[Taught]:
        """Return the pairs that a stream's hidden loss is the weighted sum over."""
        ...


@dataclass(frozen=True)
class DistillationObjective:
    """The training loss of a student, as terms that are summed here and divided by the trainer.

    In the corrected reading every term is a sum over valid items, whose count is pooled over an accumulated batch. In
    the official reading the paper's normalisations hold for each batch, and a term's count is 1 for a batch, so that
    accumulation averages batches; of causal models it pools the cross-entropy and adds the other terms up
    (`readings.READING_ITEMS`).

    The term `ce` compares with the labels and the term `kl` with the teacher's answers, each as the problem type asks:
    cross-entropy and KL of one class or token; binary cross-entropy and KL of each label by itself (`label_losses`);
    squared errors of a number.

    Attributes:
        pairs: the matched layers by stream; streams without pairs have no hidden term.
        weights: of cross-entropy, KL and hidden loss. A term of weight 0 is neither computed nor logged.
        temperature: of the KL; None takes 1, or the family's own in the official reading.
        kl_direction: "forward" or "reverse"; None takes forward, or the family's own in the official reading.
        hidden_loss: a name in `vocabulary.HIDDEN_LOSS_NAMES`; the official reading has its own and ignores it.
        reading: "corrected" or "official".
        family: a name in `official.OFFICIAL`, used by the official reading; None: the models'.
        kl_on_prompt: for causal models, whether KL reads every real token instead of the labelled ones; None takes
            False, or in the official reading every position, as the paper's code.
        label_smoothing: of the cross-entropy, in [0, 1).
        causal: whether each position's logits predict the next token, so that labels are shifted by one. None leaves it
            to the model (`objective_for`, which `DistillationLoss` and `DistillationTrainer` ask), or to the batch
            where that tells: labels of one number an example and decoder inputs are not shifted.
        pad_token_id: of decoder inputs, read by the official reading of encoder-decoders.
        shared_entries: the KL is over the first so many entries of the vocabulary, renormalised over them; None: all.
        problem_type: of a head with outputs for labels, by transformers' names; None: that of the student's
            configuration (`objective_for`), and one class where that has none.
        class_weights: what an example of each class counts in the cross-entropy; with several labels an example, what
            each label counts where it is there. None: 1.
        groups: by stream, the student layers that several teacher layers teach.
        relation_heads: of hidden loss "minilm-v2"; must divide the widths of queries, keys and values of both models.
            None: the most that does and divides the teacher's heads.

    Raises:
        InputError: a name or number that is not allowed, or a hidden loss that the matched layers do not define.

    Example:
        >>> objective = DistillationObjective({"decoder": [(1, 4), (2, 8)]}, LossWeights(ce=0.0), temperature=2.0)
        >>> loss = anglekit.DistillationLoss(teacher, student, objective)
    """

    pairs: LayerPairs = field(default_factory=dict)
    weights: LossWeights = field(default_factory=LossWeights)
    temperature: float | None = None
    kl_direction: str | None = None
    hidden_loss: str = "mse"
    reading: Reading = "corrected"
    family: str | None = None
    kl_on_prompt: bool | None = None
    label_smoothing: float = 0.0
    causal: bool | None = None
    pad_token_id: int | None = None
    shared_entries: int | None = None
    problem_type: ProblemType | None = None
    class_weights: tuple[float, ...] | None = None
    groups: Mapping[Stream, LayerGroups] = field(default_factory=dict)
    relation_heads: int | None = None

    def __post_init__(self) -> None:
        if self.reading not in READINGS:
            raise InputError(f"no reading {self.reading!r}", allowed=suggest(self.reading, READINGS))
        if self.hidden_loss not in HIDDEN_LOSS_NAMES:
            raise InputError(
                f"no hidden loss {self.hidden_loss!r}", allowed=suggest(self.hidden_loss, HIDDEN_LOSS_NAMES)
            )
        if self.family is not None and self.family not in OFFICIAL:
            raise InputError(f"no official losses for {self.family!r}", allowed=suggest(self.family, OFFICIAL))
        if self.kl_direction is not None and self.kl_direction not in KL_DIRECTIONS:
            raise InputError(
                f"no KL direction {self.kl_direction!r}", allowed=suggest(self.kl_direction, KL_DIRECTIONS)
            )
        if self.temperature is not None and not 0.0 < self.temperature < float("inf"):
            raise InputError(f"the temperature is {self.temperature}", allowed="allowed: a finite number above 0")
        if not 0.0 <= self.label_smoothing < 1.0:
            raise InputError(f"label smoothing is {self.label_smoothing}", allowed="allowed: at least 0 and below 1")
        if self.shared_entries is not None and self.shared_entries < 1:
            raise InputError(f"shared_entries is {self.shared_entries}", allowed="allowed: at least 1")
        if self.relation_heads is not None and self.relation_heads < 1:
            raise InputError(f"relation_heads is {self.relation_heads}", allowed="allowed: at least 1")
        if self.relation_heads is not None and self.hidden_loss != RELATION_HEADS_OF:
            raise InputError(
                f"relation_heads came with hidden loss {self.hidden_loss!r}, which has none", "leave it out"
            )
        if self.problem_type is not None and self.problem_type not in PROBLEM_TYPES:
            raise InputError(
                f"no problem type {self.problem_type!r}", allowed=suggest(self.problem_type, PROBLEM_TYPES)
            )
        if self.problem_type == REGRESSION and (self.class_weights is not None or self.label_smoothing):
            given = "class weights" if self.class_weights is not None else "label smoothing"
            raise InputError(f"{given} came for a regression, which has no classes", "leave them out")
        if self.class_weights is not None and not all(0.0 <= one < float("inf") for one in self.class_weights):
            raise InputError(f"the class weights are {self.class_weights}", allowed="allowed: finite numbers from 0")
        if self.reads_attention:
            for stream, pairs in self.pairs.items():
                check_attended(self.hidden_loss, stream, pairs, stream in self.groups)
        if not self.term_names:
            raise InputError(
                "nothing would be trained: no layer is matched and the weights of ce and kl are 0",
                "raise one of them or choose a strategy other than 'none'",
            )
        for stream, layers in self.student_layers.items():
            combines = self.groups[stream].combines if stream in self.groups else ""
            check_defined(self.hidden_loss, self.reading, stream, len(layers), combines)

    @property
    def official(self) -> bool:
        """Whether the paper's own normalisations are used."""
        return self.reading == "official"

    @property
    def hidden_streams(self) -> tuple[Stream, ...]:
        """The streams that have a hidden term."""
        if self.weights.hidden == 0.0:
            return ()
        return tuple(stream for stream, pairs in self._pairs().items() if pairs or stream in self.groups)

    def _pairs(self) -> dict[Stream, Sequence[tuple[int, int]]]:
        """The matched pairs by stream, streams that have groups alone among them."""
        pairs: dict[Stream, Sequence[tuple[int, int]]] = {**dict.fromkeys(self.groups, ()), **self.pairs}
        if self.reads_attention:  # an embedding has no attention
            pairs = {stream: [pair for pair in layers if pair[0] > 0] for stream, layers in pairs.items()}
        return pairs

    @property
    def reads_attention(self) -> bool:
        """Whether the hidden loss reads what the layers' self-attention makes, instead of their states."""
        return not self.official and self.hidden_loss in ATTENTION_LOSSES and self.weights.hidden > 0.0

    @property
    def reads_maps(self) -> bool:
        """Whether it reads attention distributions too."""
        return self.reads_attention and self.hidden_loss == ATTENTION_MAPS

    @property
    def needs_one_width(self) -> bool:
        """Whether the hidden loss compares states themselves, so that a narrower student needs adapters."""
        return self.official or self.hidden_loss not in WIDTH_FREE_LOSSES

    @property
    def term_names(self) -> tuple[str, ...]:
        """The names of the terms, in the order in which they are computed."""
        names = [name for name in ("ce", "kl") if self.weights.of(name) > 0.0]
        return (*names, *(f"hidden_{stream}" for stream in self.hidden_streams))

    @property
    def reads_teacher_logits(self) -> bool:
        """Whether a term reads the teacher's logits."""
        return self.weights.kl > 0.0

    @property
    def reads_chunks(self) -> bool:
        """Whether many logits are read chunk by chunk, so that nobody needs them whole."""
        return self._one_class and self.class_weights is None and not self.label_smoothing

    @property
    def reads_teacher(self) -> bool:
        """Whether any term reads the teacher."""
        return self.reads_teacher_logits or bool(self.hidden_streams)

    @property
    def final_norm(self) -> FinalNorm:
        """Which state is the last layer of a model with a final norm: the paper's code takes it after that norm."""
        return "included" if self.official else "excluded"

    @property
    def student_layers(self) -> dict[Stream, tuple[int, ...]]:
        """The student layers that hidden terms read, by stream, ascending."""
        return {
            stream: tuple(sorted({s for s, _ in self._pairs()[stream]} | set(self._group_layers(stream, "student"))))
            for stream in self.hidden_streams
        }

    @property
    def teacher_layers(self) -> dict[Stream, tuple[int, ...]]:
        """The teacher layers that hidden terms read, by stream, each once."""
        return {
            stream: tuple(sorted({t for _, t in self._pairs()[stream]} | set(self._group_layers(stream, "teacher"))))
            for stream in self.hidden_streams
        }

    def _group_layers(self, stream: Stream, role: str) -> tuple[int, ...]:
        groups = self.groups.get(stream)
        return () if groups is None else groups.student_layers if role == "student" else groups.teacher_layers

    def counts(self, batches: Sequence[Inputs]) -> dict[str, Tensor]:
        """Return for each term the items of all batches that make up one optimiser step.

        Raises:
            InputError: a term needs labels and a batch has none.
        """
        totals: dict[str, Tensor] = {}
        device = _first_tensor(batches[0]).device
        for name in self.term_names if self.official else ():
            if name in self.summed_terms:
                totals[name] = torch.ones((), device=device)
            elif not self._pools(name):
                totals[name] = torch.tensor(float(len(batches)), device=device)
        left = [name for name in self.term_names if name not in totals]
        for inputs in batches:
            for name in left:
                count = self._count(name, inputs)
                totals[name] = totals[name] + count if name in totals else count
        return {name: totals[name] for name in self.term_names}

    @property
    def summed_terms(self) -> tuple[str, ...]:
        """The terms that an accumulated step adds up over its batches and processes, instead of averaging them."""
        if not self.official or self._decided.accumulation != "summed":
            return ()
        return tuple(name for name in self.term_names if name != "ce")

    def _pools(self, name: str) -> bool:
        """Return whether a term is a sum over items, whose count is pooled over a step."""
        return not self.official or (name == "ce" and self._decided.accumulation == "summed")

    def terms(
        self,
        inputs: Inputs,
        logits: Logits,
        states: Mapping[Stream, Mapping[int, Compared]],
        teacher: TeacherOutputs,
        mixtures: Mixtures | None = None,
    ) -> dict[str, LossTerm]:
        """Return every term of one batch.

        Args:
            inputs: the batch, labels and masks included.
            logits: the student's, (batch, classes) or (batch, time, vocabulary), made or not.
            states: the student's matched states, after their adapters, `states[stream][layer]`; for losses of
                attention what its layers' attention makes.
            teacher: what the teacher gave for the same batch.
            mixtures: makes the targets of `groups`; None where there are none.
        """
        terms: dict[str, LossTerm] = {}
        ours, labels, theirs, mask = self._logits_read(inputs, logits, teacher)
        if labels is not None and theirs is not None and self._joins(inputs, ours):
            heat = self._temperature_and_direction()
            joined = cross_entropy_and_kl(
                ours,
                theirs,
                labels,
                shared_entries=self.shared_entries,
                overwrite_teacher=teacher.disposable,
                shares=(self.weights.ce, self.weights.kl),
                **heat,
            )
            terms = dict(zip(("ce", "kl"), joined, strict=True))
        for name in self.term_names:
            if name in terms:
                term = terms[name]
            elif name == "ce":
                term = self._cross_entropy(ours, labels)
            elif name == "kl":
                term = self._kl(ours, theirs, mask, disposable=teacher.disposable)
            else:
                term = self._hidden(_stream_of(name), inputs, states, teacher, mixtures)
            if not self._pools(name) and not name.startswith("hidden"):
                share = self._valid_share(inputs) if name == "kl" else 1.0
                term = LossTerm(term.mean() * share, torch.ones_like(term.count))
            terms[name] = term
        return terms

    def task_loss(self, inputs: Inputs, logits: Tensor) -> LossTerm:
        """Return the cross-entropy alone, which is what evaluation reports whatever the student is trained for."""
        return self._cross_entropy(logits, self._targets(inputs))

    def _targets(self, inputs: Inputs) -> Tensor:
        """Return the label that each row of logits predicts."""
        labels = _labels(inputs)
        return next_token_labels(labels) if self._is_causal(inputs) else labels

    @property
    def _one_class(self) -> bool:
        """Whether a row of logits predicts one class or token."""
        return self.problem_type in (None, SINGLE_LABEL)

    def _is_causal(self, inputs: Inputs) -> bool:
        """Return whether labels are shifted by one, as the objective says or the batch shows.

        Raises:
            InputError: neither does.
        """
        if self.causal is not None or not self._one_class:
            return bool(self.causal)
        labels = _optional(inputs, "labels")
        if labels is None or labels.dim() == 1 or "decoder_input_ids" in inputs:
            return False
        raise InputError(
            f"labels of shape {tuple(labels.shape)} came, and the objective does not say whether they are shifted",
            "give causal=True where each position predicts the next token, else causal=False",
        )

    @property
    def _official_family(self) -> str:
        if self.family is None:
            raise InputError("the official reading came without a family", allowed=f"allowed: {', '.join(OFFICIAL)}")
        return self.family

    @property
    def _decided(self) -> Decisions:
        """What the paper's code does for the family; asked in the official reading alone."""
        return decisions("official", self._official_family)

    def _valid_share(self, inputs: Inputs) -> Tensor | float:
        """Return by what the official KL over all positions is multiplied: the share of those that are no padding."""
        mask = _optional(inputs, "attention_mask")
        if not self._kl_reads_padding(inputs) or mask is None:
            return 1.0
        return (mask != 0).sum() / mask.numel()

    def _kl_reads_padding(self, inputs: Inputs) -> bool:
        """Return whether the KL is over all positions, as the paper's code has it for language models."""
        all_of_it = self.official and self.kl_on_prompt is None and self._decided.kl_positions == "all"
        return all_of_it and self._is_causal(inputs)

    def _official_kl_mask(self, inputs: Inputs) -> Tensor | None:
        """Return the decoder positions that the paper's KL reads; None where it reads those of the labels."""
        if not self.official or self.pad_token_id is None or "decoder_input_ids" not in inputs:
            return None
        if self._decided.kl_positions != "decoder-inputs":
            return None
        return official_decoder_mask(inputs["decoder_input_ids"], self.pad_token_id)

    def _kl_reads_labels(self, inputs: Inputs) -> bool:
        """Return whether cross-entropy and KL read the same rows of logits."""
        return not self._kl_reads_prompt(inputs) and self._official_kl_mask(inputs) is None

    def _logits_read(
        self, inputs: Inputs, logits: Logits, teacher: TeacherOutputs
    ) -> tuple[Logits, Tensor | None, Logits | None, Tensor | None]:
        """Return the student's logits, what each row predicts, the teacher's logits and a mask of the rows for KL.

        Where cross-entropy and KL read the same rows of tokens, these rows alone are returned, and no mask: to pick
        them out once instead of in each loss saves a tenth of a small student's step. Not so where the logits are so
        many that they are read in chunks: a copy of them is what must not be.
        """
        mask = self._kl_mask(inputs) if self.weights.kl > 0.0 else None
        labels = self._targets(inputs) if self.weights.ce > 0.0 else None
        if labels is None or mask is None or teacher.logits is None or not self._kl_reads_labels(inputs):
            return logits, labels, teacher.logits, mask
        if logits.numel() > one_chunk(logits.device):
            return logits, labels, teacher.logits, mask
        _, shared = shared_logits(logits, teacher.logits, self.shared_entries)
        index = valid_positions(mask, logits.shape[:-1], logits.device)
        # The cross-entropy reads all of the student's entries, the KL no more than both share.
        ours, theirs = (made(one).reshape(-1, one.shape[-1]).index_select(0, index) for one in (logits, shared))
        return ours, labels.reshape(-1)[index], theirs, None

    def _cross_entropy(self, logits: Logits, labels: Tensor | None) -> LossTerm:
        if labels is None:
            raise InputError("the cross-entropy needs labels and a batch has none", "give labels")
        if self.problem_type == REGRESSION:
            return squared_error(made(logits), labels)
        weights = None if self.class_weights is None else torch.tensor(self.class_weights)
        if self.problem_type == MULTI_LABEL:
            rows = made(logits)
            return binary_cross_entropy(rows, labels, label_smoothing=self.label_smoothing, positive_weights=weights)
        return cross_entropy(logits, labels, label_smoothing=self.label_smoothing, class_weights=weights)

    def _kl(self, logits: Logits, teacher: Logits | None, mask: Tensor | None, *, disposable: bool) -> LossTerm:
        if teacher is None:
            raise InputError("the KL loss needs the teacher's logits and the teacher gave none", "use one with a head")
        heat = self._temperature_and_direction()
        if self.problem_type == REGRESSION:
            return squared_error(made(logits), made(teacher))
        if self.problem_type == MULTI_LABEL:
            return binary_kl_divergence(made(logits), made(teacher), **heat)
        return kl_divergence(
            logits, teacher, mask, shared_entries=self.shared_entries, overwrite_teacher=disposable, **heat
        )

    def _temperature_and_direction(self) -> dict[str, Any]:
        """Return the KL's options: what is set, else the family's own in the official reading."""
        official = self._decided if self.official else None
        return {
            "temperature": self.temperature or (1.0 if official is None else official.temperature),
            "direction": self.kl_direction or ("forward" if official is None else official.kl_direction),
        }

    def _joins(self, inputs: Inputs, logits: Logits) -> bool:
        """Return whether cross-entropy and KL are computed together: of the same rows of many tokens."""
        many = logits.dim() == 3 and logits.numel() > one_chunk(logits.device)
        return self.reads_chunks and many and self._kl_reads_labels(inputs)

    def _hidden(
        self,
        stream: Stream,
        inputs: Inputs,
        states: Mapping[Stream, Mapping[int, Compared]],
        teacher: TeacherOutputs,
        mixtures: Mixtures | None,
    ) -> LossTerm:
        own: Mapping[int, Any] = states[stream]
        kept: Mapping[int, Any] = (teacher.attention if self.reads_attention else teacher.hidden).get(stream, {})
        device = next(iter(own.values())).device
        pairs = [(own[s], kept[t].to(device)) for s, t in self._pairs()[stream]]
        mask = self.stream_mask(stream, inputs)
        if self.official:
            return official_hidden_loss(pairs, mask, family=self._official_family)
        if stream not in self.groups:
            return self._compared(pairs, mask)
        if mixtures is None:
            raise InputError(
                f"the {stream}'s layers are taught by several teacher layers each, and nothing combines them",
                "give the mixtures of the objective: students.mixtures.create_mixtures",
            )
        moved = {layer: state.to(device) for layer, state in kept.items()}

        def cost(student: Tensor, target: Tensor) -> Tensor:
            return self._compared([(student, target)], mask).mean()

        taught = mixtures.taught(stream, own, moved, mask, cost)
        pairs += [(student, target) for student, target, weight in taught if weight == 1.0]
        found = [self._compared(pairs, mask)] if pairs else []
        for student, target, weight in taught:
            if weight != 1.0:
                term = self._compared([(student, target)], mask)
                found.append(LossTerm(term.total * weight, term.count))
        return LossTerm(torch.stack([term.total for term in found]).sum(), found[0].count)

    def _compared(self, pairs: Sequence[tuple[Any, Any]], mask: Tensor | None) -> LossTerm:
        if self.reads_attention:
            return attention_loss(pairs, mask, kind=self.hidden_loss, relation_heads=self.relation_heads)
        return hidden_loss(pairs, mask, kind=self.hidden_loss)

    def _count(self, name: str, inputs: Inputs) -> Tensor:
        if name == "ce":
            labels = _labels(inputs)
            if not self._one_class:
                return torch.tensor(len(labels), device=labels.device)
            targets = labels[:, 1:] if self._is_causal(inputs) else labels
            if self.class_weights is not None:
                return torch.tensor(self.class_weights, device=labels.device)[targets[targets != IGNORE_INDEX]].sum()
            return (targets != IGNORE_INDEX).sum()
        mask = self._kl_mask(inputs) if name == "kl" else self.stream_mask(_stream_of(name), inputs)
        if mask is not None:
            return (mask != 0).sum()
        decoded = _optional(inputs, "decoder_input_ids") if name in ("kl", "hidden_decoder") else None
        ids = _first_tensor(inputs) if decoded is None else decoded
        # Without labels a model of one stream is taken to answer once an example, a decoder at every token.
        items = ids.shape[:1] if name == "kl" and decoded is None else ids.shape[:2]
        return torch.tensor(prod(items), device=ids.device)

    def _kl_mask(self, inputs: Inputs) -> Tensor | None:
        """Return the rows of logits that KL reads, aligned with them; None where every row counts."""
        labels = _optional(inputs, "labels")
        if not self._is_causal(inputs):
            if (official := self._official_kl_mask(inputs)) is not None:
                return official
            if labels is None or labels.dim() == 1 or not self._one_class:
                return None
            return labels != IGNORE_INDEX
        if self._kl_reads_padding(inputs):
            return None
        if labels is not None and not self._kl_reads_prompt(inputs):
            return next_token_labels(labels) != IGNORE_INDEX
        mask = _optional(inputs, "attention_mask")
        ids = _first_tensor(inputs)
        kept = torch.ones(ids.shape[:2], device=ids.device) if mask is None else mask
        return F.pad(kept[:, 1:], (0, 1))

    def _kl_reads_prompt(self, inputs: Inputs) -> bool:
        """Return whether the KL of a causal model reads more than the labelled tokens."""
        if not self._is_causal(inputs):
            return False
        return self._kl_reads_padding(inputs) if self.kl_on_prompt is None else self.kl_on_prompt

    def stream_mask(self, stream: Stream, inputs: Inputs) -> Tensor | None:
        """Return the token positions whose states count; None where all do."""
        if stream == "encoder" or "decoder_input_ids" not in inputs:
            return _optional(inputs, "attention_mask")
        if self.official and self.pad_token_id is not None and self._decided.decoder_positions == "decoder-inputs":
            return official_decoder_mask(inputs["decoder_input_ids"], self.pad_token_id)
        if "decoder_attention_mask" in inputs:
            return _optional(inputs, "decoder_attention_mask")
        labels = _optional(inputs, "labels")
        return None if labels is None else labels != IGNORE_INDEX


def check_defined(hidden_loss: str, reading: str, stream: Stream, layers: int, combines: str) -> None:
    """Refuse a hidden loss that the matched layers of a stream do not define.

    Args:
        hidden_loss: a name in `vocabulary.HIDDEN_LOSS_NAMES`.
        reading: "corrected" or "official".
        stream: of the layers.
        layers: how many student layers are matched.
        combines: what is made of several teacher layers; "" where each student layer has one.

    Raises:
        InputError: with the reason.
    """
    kind = f"{'an' if combines == 'attention' else 'a'} {combines}"
    if reading == "official" and combines:
        raise InputError(
            f"the official reading came, and the {stream}'s layers are taught by {kind} of teacher layers",
            "the paper's code has one teacher layer for each: take --reading corrected",
        )
    if hidden_loss in ATTENTION_LOSSES and reading != "official" and combines in MIXTURES:
        raise InputError(
            f"hidden loss {hidden_loss!r} compares what attention makes, and the {stream}'s layers are taught by "
            f"{kind} of states, which has no attention",
            "take a strategy of single layers, such as last, forward or optimal-transport",
        )
    if hidden_loss != "feature-dynamics":
        return
    if combines == "transport":
        raise InputError(
            "hidden loss 'feature-dynamics' compares steps from layer to layer, and a transport plan has no order",
            "take mse, or another strategy",
        )
    if layers < 2:
        raise InputError(
            f"hidden loss 'feature-dynamics' compares steps from layer to layer, and {layers} layer of the {stream} "
            "is matched",
            "take mse, or a strategy that matches two",
        )


def check_attended(hidden_loss: str, stream: Stream, pairs: Sequence[tuple[int, int]], grouped: bool) -> None:
    """Refuse matched layers of a stream that no loss of attention can compare; the student's embedding is left out.

    Args:
        hidden_loss: a name in `vocabulary.ATTENTION_LOSSES`.
        stream: of the pairs.
        pairs: (student layer, teacher layer).
        grouped: whether other layers of the stream are taught by groups.

    Raises:
        InputError: a block is taught by the teacher's embedding, or nothing but the embedding is matched.
    """
    by_embedding = [student for student, teacher in pairs if student > 0 and teacher == 0]
    if by_embedding:
        raise InputError(
            f"hidden loss {hidden_loss!r} compares what attention makes, and layer {by_embedding[0]} of the {stream} "
            "is taught by the embedding, which has none",
            "map it to a layer from 1",
        )
    if pairs and not grouped and all(student == 0 for student, _ in pairs):
        raise InputError(
            f"hidden loss {hidden_loss!r} compares what attention makes, and only the embedding of the {stream} is "
            "matched, which has none",
            "map a layer from 1",
        )


def _stream_of(name: str) -> Stream:
    return "encoder" if name == "hidden_encoder" else "decoder"


def _labels(inputs: Inputs) -> Tensor:
    labels = inputs.get("labels")
    if not isinstance(labels, Tensor):
        raise InputError(
            "the cross-entropy needs labels and a batch has none", "give labels, or set the weight of ce to 0"
        )
    return labels


def _optional(inputs: Inputs, key: str) -> Tensor | None:
    found: Tensor | None = inputs.get(key)
    return found


def _first_tensor(inputs: Inputs) -> Tensor:
    """Return the batch's main input, of shape (batch, time)."""
    for key in ("input_ids", "inputs_embeds"):
        if isinstance(inputs.get(key), Tensor):
            value: Tensor = inputs[key]
            return value
    return next(value for value in inputs.values() if isinstance(value, Tensor))
