"""The tasks by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from anglekit.distillation.tasks.causal import LanguageModelTask
from anglekit.distillation.tasks.completion import CompletionTask, ConversationTask
from anglekit.distillation.tasks.labelled.classification import ClassificationTask
from anglekit.distillation.tasks.labelled.multi_label import MultiLabelTask
from anglekit.distillation.tasks.labelled.regression import RegressionTask
from anglekit.distillation.tasks.multiple_choice import HellaSwagTask, MultipleChoiceTask
from anglekit.distillation.tasks.seq2seq import Seq2SeqTask
from anglekit.distillation.tasks.task import Task
from anglekit.errors import InputError, suggest
from anglekit.vocabulary import TASK_LABELS


def _glue(name: str, description: str, **settings: Any) -> ClassificationTask:  # noqa: ANN401 - of the class
    source = "Wang et al. 2019, arXiv 1804.07461 (GLUE)"
    return ClassificationTask(name=name, description=description, source=source, labels=TASK_LABELS[name], **settings)


_TASKS = (
    ClassificationTask(
        name="classification",
        description="texts or pairs of texts with a label",
        source="your own data",
        scores=("accuracy", "macro_f1"),
    ),
    MultiLabelTask(
        name="multi-label", description="texts or pairs of texts with any number of labels", source="your own data"
    ),
    RegressionTask(name="regression", description="texts or pairs of texts with a number", source="your own data"),
    _glue(
        name="mnli",
        description="does the premise entail the hypothesis, contradict it, or neither",
        text="premise",
        text_pair="hypothesis",
        evaluation_splits=("validation_matched", "validation_mismatched"),
        student_learning_rate=1e-5,
    ),
    _glue(
        name="qqp",
        description="do two questions ask the same",
        text="question1",
        text_pair="question2",
        scores=("f1", "accuracy"),
        positive="duplicate",
    ),
    _glue(
        name="qnli",
        description="does the sentence answer the question",
        text="question",
        text_pair="sentence",
    ),
    _glue(
        name="sst2",
        description="is a sentence of a film review positive",
        text="sentence",
        teacher_learning_rate=5e-5,
        student_epochs=20.0,
    ),
    _glue(
        name="mrpc",
        description="do two sentences mean the same",
        text="sentence1",
        text_pair="sentence2",
        scores=("f1", "accuracy"),
        positive="equivalent",
    ),
    _glue(
        name="cola",
        description="is a sentence acceptable English",
        text="sentence",
        scores=("matthews", "accuracy"),
    ),
    _glue(
        name="rte",
        description="does the first sentence entail the second",
        text="sentence1",
        text_pair="sentence2",
    ),
    _glue(
        name="wnli",
        description="does the second sentence resolve the first one's pronoun rightly",
        text="sentence1",
        text_pair="sentence2",
    ),
    RegressionTask(
        name="stsb",
        description="how similar are two sentences, from 0 to 5",
        source="Wang et al. 2019, arXiv 1804.07461 (GLUE)",
        text="sentence1",
        text_pair="sentence2",
    ),
    Seq2SeqTask(name="seq2seq", description="write a target for a source", source="your own data"),
    Seq2SeqTask(
        name="dart",
        description="put a set of triples into words",
        source="Nan et al. 2021, arXiv 2007.02871 (DART)",
        source_column="source",
        target_column="target",
        scores=("bleu", "chrf", "multi_bleu"),
        evaluation_splits=("test",),
        teacher_learning_rate=1e-5,
        teacher_epochs=16.0,
        student_epochs=18.0,
        target_max_length=128,
        beams=5,
    ),
    Seq2SeqTask(
        name="wmt16-en-ro",
        description="translate English into Romanian",
        source="Bojar et al. 2016, WMT16",
        source_column="translation.en",
        target_column="translation.ro",
        prefix="translate English to Romanian: ",
        scores=("bleu", "chrf", "bleu_romanian"),
        evaluation_splits=("test",),
        student_epochs=40.0,
        max_length=512,
        target_max_length=512,
    ),
    LanguageModelTask(name="language-model", description="predict the next token of texts", source="your own data"),
    CompletionTask(name="completion", description="go on from a prompt", source="your own data"),
    MultipleChoiceTask(
        name="multiple-choice", description="the most probable choice after a prompt", source="your own data"
    ),
    HellaSwagTask(
        name="hellaswag",
        description="which ending follows",
        source="Zellers et al. 2019, arXiv 1905.07830 (HellaSwag)",
        prompt="ctx",
        choices="endings",
        label="label",
        scores=("accuracy", "accuracy_normalized"),
        student_epochs=160.0,
    ),
    ConversationTask(
        name="coqa",
        description="questions about a story",
        source="Reddy et al. 2019, arXiv 1808.07042 (CoQA)",
        scores=("normalized_exact_match", "exact_match", "last_turn_exact_match", "perplexity"),
        student_epochs=15.0,
        max_length=1024,
    ),
)

TASKS: Final[Mapping[str, Task]] = {task.name: task for task in _TASKS}


def task_by_name(name: str) -> Task:
    """Return a task.

    Raises:
        InputError: there is none of this name; the message suggests the nearest.
    """
    if name not in TASKS:
        raise InputError(f"no task {name!r}", allowed=suggest(name, TASKS))
    return TASKS[name]
