"""Tasks whose labels are classes, one or several of them: which classes there are, and in which order."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self, cast

import numpy as np
from numpy.typing import NDArray
from transformers import PretrainedConfig

from anglekit.distillation.settings import BALANCED, DataSettings, TrainSettings
from anglekit.distillation.tasks.data import TextTable, TokenizedExamples
from anglekit.distillation.tasks.labelled.label_sets import LabelSet, labels_of_config, leaving_out, listed
from anglekit.distillation.tasks.labelled.labelled_task import LabelledTask, LabelledTexts
from anglekit.errors import InputError


@dataclass(frozen=True, kw_only=True)
class ClassTask(LabelledTask):
    """A task with classes.

    Attributes:
        labels: the classes in the order of the data's own numbers; None takes them from the data or the teacher.
        label_map: what a trained model's labels, by name or number, are called in the data.
        classes: the classes in the order of a model's outputs; None until data or a model determine them.
    """

    labels: tuple[str, ...] | None = None
    label_map: tuple[tuple[str, str], ...] = ()
    classes: LabelSet | None = None

    def configured(self, columns: DataSettings | None) -> Self:
        """Take the classes and the map of labels that a user gave; see `Task.configured`."""
        if columns is None:
            return self
        labels = self.labels if columns.classes is None else columns.class_names
        return replace(self, labels=labels, label_map=columns.labels_mapped)

    def name_of(self, text: str, own: Sequence[str] = ()) -> str:
        """Return a label by name where it is a number of the task's classes, or of those that the data name.

        The data's own names count where they are the task's, in whatever order, or where the task has none.
        """
        names = tuple(own) if own and self._same_names(own) else self.labels
        if not names or not text.isdecimal() or int(text) >= len(names) or text in names:
            return text
        return names[int(text)]

    def named(self, texts: Sequence[str | None], own: Sequence[str] = ()) -> list[str | None]:
        """Return labels by name where all are numbers of classes: a name may be a number too."""
        most = len(own) if own and self._same_names(own) else len(self.labels or ())
        if any(text is not None and not (text.isdecimal() and int(text) < most) for text in texts):
            return list(texts)
        return [None if text is None else self.name_of(text, own) for text in texts]

    def _same_names(self, own: Sequence[str]) -> bool:
        return self.labels is None or {name.casefold() for name in own} == {name.casefold() for name in self.labels}

    # ---- classes ----

    def for_fine_tuning(self, train: TextTable, config: PretrainedConfig) -> Self:
        """Take the classes from the task or the data; if the checkpoint has the same ones, in its order."""
        if self.label_map:
            raise InputError("--label-map came for a model that is fine-tuned", "leave it out: --classes names them")
        table = cast("LabelledTexts", train)
        known = self.labels or table.class_names
        labels = LabelSet(known) if known else self.found(table)
        labels.classes(*self.flat(table))
        named = config.id2label or {}
        if len(named) >= 2 and set((own := labels_of_config(config)).names) == set(labels.names):
            # So that a head that already exists stays right.
            labels = own
        return replace(self, classes=labels)

    def for_teacher(self, train: TextTable, config: PretrainedConfig) -> Self:
        """Take the teacher's classes, and check that the training data has the same."""
        table = cast("LabelledTexts", train)
        self.check_problem(config, "the teacher")
        labels = labels_of_config(config)
        if self.labels is not None and len(self.labels) != len(labels.names):
            raise InputError(
                f"the teacher has {len(labels.names)} labels ({', '.join(labels.names[:8])}) and task {self.name} has "
                f"{len(self.labels)} ({', '.join(self.labels)})",
                "fine-tune a teacher on this task first",
            )
        labels = self.read_in(self.called(labels), table)
        texts, place = self.flat(table)
        outside = labels.outside(texts)
        reached = {labels.index(text) for text in set(texts) if text is not None} | {
            labels.index(self.name_of(text)) for text in table.left_out if text
        }
        absent = [name for number, name in enumerate(labels.names) if number not in reached]
        if outside or absent:
            where = place(texts.index(outside[0])) if outside else None
            raise _differ(labels, table.source, outside, absent, where)
        return replace(self, classes=labels)

    def for_trained(self, config: PretrainedConfig) -> Self:
        """Take the classes of the model that is scored."""
        self.check_problem(config, "the model")
        labels = labels_of_config(config)
        return replace(self, classes=labels if labels.generic and not self._names(labels) else self.called(labels))

    def called(self, labels: LabelSet) -> LabelSet:
        """Return a trained model's classes as the data call them.

        Generic names are taken for the task's, in its order: whether they are shows when the model answers (`doubts`).
        """
        if self.label_map:
            return labels.mapped([(own, self.name_of(called)) for own, called in self.label_map])
        return LabelSet(self.labels) if self.labels is not None and labels.generic else labels

    def read_in(self, labels: LabelSet, table: LabelledTexts) -> LabelSet:
        """Return classes whose names are no more than numbers by the names that a table gives to these."""
        named = labels.numbered and not self.label_map and len(table.class_names) == len(labels.names)
        return LabelSet(table.class_names) if named else labels

    def _names(self, labels: LabelSet) -> bool:
        """Whether the task or the user names as many classes as there are."""
        return bool(self.label_map) or (self.labels is not None and len(self.labels) == len(labels.names))

    @abstractmethod
    def found(self, table: LabelledTexts) -> LabelSet:
        """Return the classes that are in the data.

        Raises:
            InputError: the labels are probably no classes.
        """

    @abstractmethod
    def flat(self, table: LabelledTexts) -> tuple[Sequence[str | None], Callable[[int], tuple[str, str]]]:
        """Return all labels of a table, one behind the other, and the file and row of each by its number among them."""

    @property
    def settled(self) -> LabelSet:
        """The classes, once they are determined.

        Raises:
            InputError: neither data nor a model has determined them yet.
        """
        if self.classes is None:
            raise InputError(f"the classes of task {self.name} are open", "settle them by training data or a model")
        return self.classes

    def check_student(self, config: PretrainedConfig, source: str) -> None:
        """Check that a student's own head has the classes, in their order; names that say nothing are any."""
        saved = str(next(iter(config.architectures or ()), ""))
        if not saved.endswith("ForSequenceClassification"):
            return
        self.check_problem(config, f"the student {source}")
        wanted, own = self.settled, [str(name) for _, name in sorted((config.id2label or {}).items())]
        generic = wanted.generic or all(name.startswith("LABEL_") for name in own)
        same = [name.casefold() for name in own] == [name.casefold() for name in wanted.names]
        if len(own) != len(wanted.names) or not (generic or same):
            raise InputError(
                f"the student {source} has a head of other labels ({', '.join(own[:12])}) than its teacher "
                f"({', '.join(wanted.names[:12])})",
                "save it without its head (its base_model), and a new one is made",
            )

    def write_to(self, config: PretrainedConfig) -> None:
        """Write the classes and the problem type into a model's configuration."""
        super().write_to(config)
        for name, value in self.settled.config_settings().items():
            setattr(config, name, value)

    def facts(self) -> dict[str, Any]:
        """Return the classes in order."""
        return {"labels": list(self.settled.names)}

    # ---- losses ----

    def class_weights(self, settings: TrainSettings, train: TokenizedExamples) -> tuple[float, ...] | None:
        """Return what each class counts in the loss on labels; None: all the same.

        Raises:
            InputError: a weight is of no class.
        """
        if settings.class_weights is None:
            return None
        labels = self.settled
        if settings.class_weights == BALANCED:
            return tuple(self.balanced(train.numbers["labels"]).tolist())
        weights = [1.0] * len(labels.names)
        for name, weight in settings.weight_of_class.items():
            if (number := labels.index(self.name_of(name))) is None:
                raise InputError(
                    f"--class-weights names the class {name!r}", allowed=f"the classes are {listed(labels.names)}"
                )
            weights[number] = weight
        return tuple(weights)

    @abstractmethod
    def balanced(self, labels: NDArray[Any]) -> NDArray[np.float64]:
        """Return the weights, (classes,), under which the classes of training labels count the same."""


def _differ(
    labels: LabelSet, table: str, outside: Sequence[str], absent: Sequence[str], place: tuple[str, str] | None
) -> InputError:
    """Return the error of data whose labels are not the teacher's; `place` is that of the first that it lacks."""
    remedies = [f"the teacher's are {', '.join(labels.names[:12])}"]
    if place is None:
        problem = f"{table} has no {absent[0]!r}"
    else:
        problem = f"{place[0]} has {outside[0]!r} in {place[1]}, which the teacher lacks"
        remedies += [leaving_out(outside[0])] if leaving_out(outside[0]) else []
        remedies.append("say what its labels are called in the data: --label-map")
    remedies.append("use data with the teacher's labels, or fine-tune a teacher on this data")
    return InputError(f"the label sets differ: {problem}", "; ".join(remedies))
