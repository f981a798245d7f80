"""The tasks by name: which columns they read, which classes they have, how they are scored and how long they train."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from transformers import PretrainedConfig

from anglekit.distillation.label_sets import LabelSet, labels_in_data, labels_of_config
from anglekit.distillation.scores import SCORES
from anglekit.errors import InputError, suggest

__all__ = ["TASKS", "ClassificationTask", "task_by_name", "task_labels"]

_GLUE = "Wang et al. 2019, arXiv 1804.07461 (GLUE)"


@dataclass(frozen=True)
class ClassificationTask:
    """A classification task; what it leaves open is read off the data.

    Learning rates and epochs are those of Yu, Wen and Mou, arXiv 2502.04499, where the paper has the task, and its
    usual ones elsewhere.

    Attributes:
        name: as given on the command line.
        description: in words.
        source: where it comes from.
        text: the first text's column; None looks for a usual name.
        text_pair: the second text's column, if there is one.
        labels: the classes in the order of the data's own numbers; None takes them from the data or the teacher.
        scores: names in `scores.SCORES`; the first one selects the best student.
        positive: the class that F1 is about.
        evaluation_splits: the data set's own names of what it is evaluated on.
        teacher_learning_rate: for fine-tuning.
        teacher_epochs: likewise.
        student_learning_rate: for distillation.
        student_epochs: likewise.
        max_length: tokens of a text or pair; more is cut off.
    """

    name: str
    description: str
    source: str
    text: str | None = None
    text_pair: str | None = None
    labels: tuple[str, ...] | None = None
    scores: tuple[str, ...] = ("accuracy",)
    positive: str | None = None
    evaluation_splits: tuple[str, ...] = ("validation",)
    teacher_learning_rate: float = 2e-5
    teacher_epochs: float = 3.0
    student_learning_rate: float = 2e-5
    student_epochs: float = 10.0
    max_length: int = 128

    def __post_init__(self) -> None:
        for score in self.scores:
            if score not in SCORES:
                raise InputError(f"task {self.name!r} asks for score {score!r}; {suggest(score, SCORES)}")

    @property
    def selection_score(self) -> str:
        """The score by which the best student is chosen; larger is better."""
        return self.scores[0]

    def positive_class(self, labels: LabelSet) -> int:
        """Return the number of the class that F1 is about; 1 where the task names none."""
        found = labels.index(self.positive) if self.positive is not None else None
        return 1 if found is None else found

    def named(self, texts: Sequence[str | None]) -> list[str | None]:
        """Return labels by name where the data gives the task's own numbers, as the hub's copies of GLUE do."""
        if self.labels is None:
            return list(texts)
        numbered = {str(number): name for number, name in enumerate(self.labels)}
        if any(text is not None and text not in numbered for text in texts):
            return list(texts)
        return [None if text is None else numbered[text] for text in texts]


TASKS: Final[Mapping[str, ClassificationTask]] = {
    task.name: task
    for task in (
        ClassificationTask(
            "classification", "texts or pairs of texts with a label", "your own data", scores=("accuracy", "macro_f1")
        ),
        ClassificationTask(
            "mnli",
            "does the premise entail the hypothesis, contradict it, or neither",
            _GLUE,
            "premise",
            "hypothesis",
            ("entailment", "neutral", "contradiction"),
            evaluation_splits=("validation_matched", "validation_mismatched"),
            student_learning_rate=1e-5,
        ),
        ClassificationTask(
            "qqp",
            "do two questions ask the same",
            _GLUE,
            "question1",
            "question2",
            ("not_duplicate", "duplicate"),
            ("f1", "accuracy"),
            "duplicate",
        ),
        ClassificationTask(
            "qnli",
            "does the sentence answer the question",
            _GLUE,
            "question",
            "sentence",
            ("entailment", "not_entailment"),
        ),
        ClassificationTask(
            "sst2",
            "is a sentence of a film review positive",
            _GLUE,
            "sentence",
            None,
            ("negative", "positive"),
            teacher_learning_rate=5e-5,
            student_epochs=20.0,
        ),
        ClassificationTask(
            "mrpc",
            "do two sentences mean the same",
            _GLUE,
            "sentence1",
            "sentence2",
            ("not_equivalent", "equivalent"),
            ("f1", "accuracy"),
            "equivalent",
        ),
        ClassificationTask(
            "cola",
            "is a sentence acceptable English",
            _GLUE,
            "sentence",
            None,
            ("unacceptable", "acceptable"),
            ("matthews", "accuracy"),
        ),
        ClassificationTask(
            "rte",
            "does the first sentence entail the second",
            _GLUE,
            "sentence1",
            "sentence2",
            ("entailment", "not_entailment"),
        ),
        ClassificationTask(
            "wnli",
            "does the second sentence resolve the first one's pronoun rightly",
            _GLUE,
            "sentence1",
            "sentence2",
            ("not_entailment", "entailment"),
        ),
    )
}


def task_by_name(name: str) -> ClassificationTask:
    """Return a task.

    Raises:
        InputError: there is none of this name; the message suggests the nearest.
    """
    if name not in TASKS:
        raise InputError(f"no task {name!r}; {suggest(name, TASKS)}")
    return TASKS[name]


def task_labels(
    task: ClassificationTask, texts: Sequence[str | None], where: str, teacher: PretrainedConfig | None = None
) -> LabelSet:
    """Return the classes in the order of the model's outputs, and check that training data and teacher have the same.

    Args:
        task: may name the classes itself.
        texts: the labels of the training data, by name where the task names them (`ClassificationTask.named`).
        where: the table, for messages.
        teacher: whose order counts; None when a new head is trained.

    Raises:
        InputError: the data has labels outside the set, or lacks one of the teacher's.
    """
    present = sorted({text for text in texts if text is not None})
    if teacher is None:
        labels = LabelSet(task.labels) if task.labels is not None else labels_in_data(present)
        labels.classes(texts, where)
        return labels
    labels = labels_of_config(teacher)
    if task.labels is not None:
        if len(task.labels) != len(labels.names):
            raise InputError(
                f"the teacher has {len(labels.names)} labels ({', '.join(labels.names[:8])}) and task {task.name} has "
                f"{len(task.labels)} ({', '.join(task.labels)}); fine-tune a teacher on this task first"
            )
        if labels.generic:
            labels = LabelSet(task.labels)
    outside = [text for text in present if labels.index(text) is None]
    reached = {labels.index(text) for text in present}
    absent = [name for number, name in enumerate(labels.names) if number not in reached]
    if outside or absent:
        problem = f"has {outside[0]!r}, which the teacher lacks" if outside else f"has no {absent[0]!r}"
        raise InputError(
            f"the label sets differ: {where} {problem}; the teacher's are {', '.join(labels.names[:12])}; "
            "use data with the teacher's labels, or fine-tune a teacher on this data"
        )
    return labels
