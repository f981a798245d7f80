"""What stands for a model in a call: a checkpoint, a model in memory, a path or a hub id."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from os import PathLike, fspath
from typing import Any

from torch import nn
from transformers import PreTrainedTokenizerBase as Tokenizer

from anglekit.errors import InputError
from anglekit.models.checkpoints import Checkpoint, load_checkpoint
from anglekit.models.load_options import LoadOptions
from anglekit.models.memory.bare import check_apart
from anglekit.states.store import is_store, load_stored_teacher

#: What stands for a model: a loaded checkpoint, a model in memory, or a directory or hub id.
Model = Checkpoint | nn.Module | str | PathLike[str]


def named_students(students: Any) -> dict[str | int, Model]:  # noqa: ANN401 - whatever a program gives
    """Return the students by their names, or by their places where they were not named."""
    if isinstance(students, Checkpoint | nn.Module | str | PathLike):
        return {0: students}
    if isinstance(students, Mapping):
        for name in students:
            if not isinstance(name, str) or not name or set(name) & set("/\\\0"):
                raise InputError(f"{name!r} is no name of a student", "give a word, which may stand in a file's name")
        found: dict[str | int, Model] = dict(students)
    elif isinstance(students, Iterable):
        found = dict(enumerate(students))
    else:
        raise InputError(f"a {type(students).__name__} is no student", "give a model, a path, or several")
    if not found:
        raise InputError("there is no student", "give one or more after the teacher")
    return found


def check_given(teacher: Model, students: Mapping[str | int, Model]) -> None:
    """Check that all are models, and that no student in memory shares modules with its teacher."""
    labels = {
        name: f"student {name}"
        if isinstance(name, str)
        else f"student {name + 1}"
        if len(students) > 1
        else "the student"
        for name in students
    }
    for label, each in (("the teacher", teacher), *((labels[name], each) for name, each in students.items())):
        if not isinstance(each, Checkpoint | nn.Module | str | PathLike):
            raise InputError(
                f"{label} is a {type(each).__name__}", "give a model, a Checkpoint, a directory or a hub id"
            )
    inside = {labels[name]: model for name, each in students.items() if (model := _in_memory(each)) is not None}
    if (whole := _in_memory(teacher)) is not None:
        check_apart(whole, inside)


def _in_memory(given: Model) -> nn.Module | None:
    return given.model if isinstance(given, Checkpoint) else given if isinstance(given, nn.Module) else None


def pad_id_of(given: Model) -> int | None:
    """Return the id that a model pads with, where that is known without loading it."""
    if isinstance(given, Checkpoint) and given.tokenizer is not None and given.tokenizer.pad_token_id is not None:
        return int(given.tokenizer.pad_token_id)
    return getattr(getattr(_in_memory(given), "config", None), "pad_token_id", None)


def device_of(*given: Model) -> str | None:
    """Return where the first model in memory lies, to load directories beside it; None where there is none."""
    models = (each for each in map(_in_memory, given) if each is not None)
    weights = (next(model.parameters(), None) for model in models)
    return next((str(weight.device) for weight in weights if weight is not None and not weight.is_meta), None)


def as_checkpoint(given: Model, role: str, tokenizer: Tokenizer | None, options: LoadOptions) -> Checkpoint:
    """Return a model as a checkpoint, with the given tokenizer where it has none."""
    if isinstance(given, nn.Module):
        told = str(getattr(getattr(given, "config", None), "name_or_path", "") or "")
        return Checkpoint.of(given, tokenizer, name=None if told else role)
    if isinstance(given, Checkpoint):
        found = given
    elif role == "teacher" and is_store(fspath(given)):
        found = load_stored_teacher(fspath(given))
    else:
        found = load_checkpoint(str(fspath(given)), options)
    return found if found.tokenizer is not None or tokenizer is None else replace(found, tokenizer=tokenizer)
