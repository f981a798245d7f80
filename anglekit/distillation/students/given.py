"""A student that was there before: any checkpoint of its teacher's kind, of its own depth, width and model type.

It keeps its weights. A head that the checkpoint lacks is made anew, as `create_student` makes that of a student of the
same shape and seed, so that a teacher cut by hand and saved without its head starts as `--init teacher` does.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

import msgspec
import torch
from transformers import PretrainedConfig, PreTrainedModel
from transformers import PreTrainedTokenizerBase as Tokenizer

from anglekit.distillation.matching.strategies import supervised_blocks
from anglekit.distillation.settings import student_sources
from anglekit.distillation.students.check import check_saved
from anglekit.distillation.students.given_vocabulary import checked_vocabulary
from anglekit.distillation.tasks.models import ModelProvenance, provenance_of
from anglekit.distillation.tasks.prepared_data import PreparedData
from anglekit.distillation.tasks.task import Task
from anglekit.errors import InputError
from anglekit.models import architectures
from anglekit.models.check import facts_of
from anglekit.models.checkpoints import check_kept_tokenizer, load_config, load_tokenizer, load_weights
from anglekit.models.lengths import length_limit
from anglekit.models.load_options import LoadOptions, check_roles, checkpoint_of
from anglekit.probes.shared_vocabulary import SharedVocabulary
from anglekit.runtime.placement import Placement
from anglekit.vocabulary import Stream, given_init

#: Where a given student's head comes from: its checkpoint, or the seed of the run.
Head = Literal["kept", "new"]
HEAD_WORDS: Final[Mapping[str, str]] = {"kept": "from the checkpoint", "new": "made anew from the seed"}


class GivenProvenance(ModelProvenance, frozen=True, omit_defaults=True, kw_only=True):
    """What a run records of the student that was given to it; the hashes leave out what is made anew.

    Attributes:
        name: by which it is told from other students.
        head: "kept" or "new".
        shared_entries: the entries of the vocabulary over which the KL is taken; None: all.
    """

    name: str
    head: Head
    shared_entries: int | None = None


@dataclass(frozen=True, eq=False)
class GivenStudent:
    """A student by its configuration; no weights are read.

    Attributes:
        name: by which it is told from other students: letters, digits, points, hyphens and underscores.
        source: its directory or hub id, as given.
        config: its own.
        load: how it is loaded: on the CPU, as a hub's newest version.
    """

    name: str
    source: str
    config: PretrainedConfig
    load: LoadOptions

    @property
    def init(self) -> str:
        """The initialisation under which it is compared, `given:NAME`."""
        return given_init(self.name)

    @property
    def saved_as(self) -> str:
        """The class of the model that was saved, as its configuration says; "" where it does not."""
        return str(next(iter(self.config.architectures or ()), ""))


def read_given(
    teacher: str, given: Sequence[str] | Mapping[str, str], load: LoadOptions | None = None
) -> dict[str, GivenStudent]:
    """Read the configurations of given students, by name.

    Args:
        teacher: its directory or hub id.
        given: entries that are each `SOURCE` or `NAME=SOURCE`; or sources by name.
        load: what is allowed in loading; device, placement and revision are the teacher's.

    Raises:
        InputError: a source cannot be read, is the teacher itself, or taught the teacher.
    """
    sources = student_sources(given)
    own = replace(load or LoadOptions(), device="cpu", revision=None, placement=Placement(), blocks=None)
    found = {}
    for name, source in sources.items():
        check_roles(teacher, source)
        found[name] = GivenStudent(name, source, load_config(checkpoint_of(source), own), own)
    return found


def given_shape(teacher: PretrainedConfig, student: GivenStudent, *, mapped: bool) -> dict[Stream, tuple[int, ...]]:
    """Return by stream the teacher block at the relative depth of each of a given student's blocks.

    Args:
        teacher: its configuration.
        student: the given one.
        mapped: whether the user maps the layers by hand; only then may it be deeper than its teacher.

    Raises:
        InputError: it is of another kind than its teacher, or deeper.
    """
    theirs, own = architectures.model_streams(teacher), architectures.model_streams(student.config)
    if own != theirs:
        raise InputError(
            f"the student {student.source} is a {student.config.model_type} model with {' and '.join(own)}, and its "
            f"teacher a {teacher.model_type} model with {' and '.join(theirs)}",
            "give a student of the teacher's kind",
        )
    architectures.width(student.config)  # which refuses one that states none
    blocks: dict[Stream, tuple[int, ...]] = {}
    for stream in theirs:
        deep, shallow = architectures.depth(teacher, stream), architectures.depth(student.config, stream)
        if shallow > deep and not mapped:
            raise InputError(
                f"the student {student.source} has {shallow} {stream} blocks and its teacher {deep}",
                "give them the other way round, or say which layer teaches which with --map",
            )
        blocks[stream] = supervised_blocks(deep, shallow)
    return blocks


@dataclass(frozen=True, eq=False)
class CheckedStudent:
    """A given student whose weights were read once, and what a run records of it.

    Attributes:
        given: the student.
        task: settled by data and teacher.
        provenance: of its weights.
        vocabulary: what it shares with its teacher's.
        tokenizer: its own, which is saved with it, where it is of another type than its teacher or knows other tokens;
            both tokenizers read all of the data alike.
    """

    given: GivenStudent
    task: Task
    provenance: GivenProvenance
    vocabulary: SharedVocabulary
    tokenizer: Tokenizer | None = None

    @property
    def shared_entries(self) -> int | None:
        """The entries of the vocabulary over which the KL is taken; None: all, or those of another kind of head."""
        return self.vocabulary.entries if self.vocabulary.reduces and not self.task.new_head else None

    def in_words(self) -> str:
        """Return the note that a run says before it trains."""
        kind = f"{self.provenance.architecture}, {self.given.source}"
        shared = f"; {self.vocabulary.in_words()}" if self.shared_entries is not None else ""
        return f"student {self.given.name} ({kind}): its head is {HEAD_WORDS[self.provenance.head]}{shared}"

    def make(self, seed: int) -> PreTrainedModel:
        """Load the student, in training mode on the CPU; a head that it lacks is drawn from the seed."""
        model, lacking = _load(self.given, self.task)
        _make_anew(model, lacking, seed)
        model.train()
        return model


def check_given(teacher: PretrainedConfig, student: GivenStudent, task: Task) -> None:
    """Check a given student for a task settled by data and teacher, before any weights are read.

    Raises:
        InputError: it cannot do the task, has a head of other labels, or begins texts otherwise than its teacher.
    """
    task.check_config(student.config, student.source)
    task.check_student(student.config, student.source)
    starts = [getattr(one, "decoder_start_token_id", None) for one in (teacher, student.config)]
    if getattr(teacher, "is_encoder_decoder", False) and starts[0] != starts[1]:
        raise InputError(
            f"the decoder of the student {student.source} starts with token {starts[1]} and its teacher's with "
            f"{starts[0]}",
            "give a student of the teacher's family, or correct decoder_start_token_id in its config.json",
        )


def open_given(student: GivenStudent, data: PreparedData, teacher: PretrainedConfig) -> CheckedStudent:
    """Read a given student's weights and tokenizer once, and check that it can learn from the data.

    Raises:
        InputError: it lacks weights, has another vocabulary or other shapes than its configuration says, cannot read
            texts as long as the data's, or cannot be saved and read again.
    """
    own = load_tokenizer(checkpoint_of(student.source), student.load)
    vocabulary = checked_vocabulary(student.source, student.config, own, data, teacher)
    another_type = student.config.model_type != teacher.model_type
    # Of another type it is what plain programs need: DistilBERT takes no token types, and BERT's tokenizer gives some.
    kept = own if own is not None and (another_type or vocabulary.relation == "appended") else None
    _check_lengths(student, data)
    if another_type and kept is None:
        check_kept_tokenizer(data.tokenizer, student.config, student.source)
    model, lacking = _load(student, data.task)
    facts_of(model)  # which refuses a model whose layers cannot be read
    _make_anew(model, lacking, seed=0)
    check_saved(model)
    base = f"{model.base_model_prefix}."
    head: Head = "new" if any(not name.startswith(base) for name in lacking) else "kept"
    seen = provenance_of(student.source, model, student.load, without=lacking)
    provenance = GivenProvenance(**msgspec.structs.asdict(seen), name=student.name, head=head)
    found = CheckedStudent(student, data.task, provenance, vocabulary, kept)
    return replace(found, provenance=msgspec.structs.replace(provenance, shared_entries=found.shared_entries))


def _load(student: GivenStudent, task: Task) -> tuple[PreTrainedModel, tuple[str, ...]]:
    """Return the model with the task's head, and the names of weights that its checkpoint lacks."""
    source = checkpoint_of(student.source)
    config = copy.deepcopy(student.config)
    task.write_to(config)
    model, report = load_weights(task.model_class, source, config, student.load)
    if mismatched := sorted(str(entry[0]) for entry in report["mismatched_keys"]):
        raise InputError(
            f"{student.source} has {mismatched[0]} in another shape than its configuration and task {task.name} need",
            "save it with its configuration, and without a head of other labels",
        )
    lacking = tuple(sorted(report["missing_keys"]))
    base = f"{model.base_model_prefix}."
    if body := [name for name in lacking if name.startswith(base) and "pooler" not in name]:
        raise InputError(f"{student.source} lacks {len(body)} weights, among them {body[0]}", "save the whole model")
    return model, lacking


def _make_anew(model: PreTrainedModel, names: Sequence[str], seed: int) -> None:
    """Give a model the weights of these names that a model of its class and shape has which is drawn from the seed."""
    if not names:
        return
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        # As `create_student` does.
        torch.default_generator.manual_seed(seed)
        drawn = type(model)(copy.deepcopy(model.config)).state_dict()
    own = model.state_dict()
    with torch.no_grad():
        for name in names:
            own[name].copy_(drawn[name])


def _check_lengths(student: GivenStudent, data: PreparedData) -> None:
    """Check that a student's positions and tokenizer take texts as long as the data's may be."""
    read = (data.train, *data.evaluations.values())
    for stream, name in zip(architectures.model_streams(student.config), ("input_ids", "labels"), strict=False):
        limit = length_limit(data.tokenizer, student.config, stream)
        longest = max(examples.longest(name) for one in read for examples in (one, one.scored or one))
        if longest > limit:
            option = "--max-length" if name == "input_ids" else "--target-max-length"
            raise InputError(
                f"the student {student.source} reads at most {limit} tokens, and an example has {longest}",
                f"give {option} {limit}",
            )
