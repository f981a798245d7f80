"""What GLUE's test server takes: a model's answers to a test table, whose labels nobody has, as its files have them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from anglekit.distillation.settings import DataSettings, GenerationSettings, evaluation_sources
from anglekit.distillation.tasks.data import TokenizedExamples
from anglekit.distillation.tasks.labelled.class_task import ClassTask
from anglekit.distillation.tasks.labelled.labelled_task import LabelledTask
from anglekit.distillation.tasks.models import load_trained
from anglekit.distillation.tasks.registry import task_by_name
from anglekit.distillation.tasks.task import ScoredModel
from anglekit.distillation.tasks.text_columns import texts_of
from anglekit.errors import InputError, suggest
from anglekit.models.checkpoints import quiet_transformers
from anglekit.models.load_options import LoadOptions
from anglekit.probes.encode import encode_texts
from anglekit.tables.read import read_table
from anglekit.vocabulary import TASK_LABELS

#: By task the files of the server, in the order of its test tables.
GLUE_FILES: Final[Mapping[str, tuple[str, ...]]] = {
    "mnli": ("MNLI-m.tsv", "MNLI-mm.tsv"),
    "qqp": ("QQP.tsv",),
    "qnli": ("QNLI.tsv",),
    "sst2": ("SST-2.tsv",),
    "mrpc": ("MRPC.tsv",),
    "cola": ("CoLA.tsv",),
    "rte": ("RTE.tsv",),
    "wnli": ("WNLI.tsv",),
    "stsb": ("STS-B.tsv",),
}
#: The tasks whose answers are classes by name; the others' are their numbers.
_BY_NAME: Final = ("mnli", "qnli", "rte")


def check_submission(task: str, checkpoints: Sequence[str], data: Sequence[str]) -> None:
    """Refuse a task that the server does not have, several models, or another number of tables than it has.

    Raises:
        InputError: the first of these that holds.
    """
    if task not in GLUE_FILES:
        raise InputError(f"--glue-submission came with task {task}", allowed=suggest(task, GLUE_FILES))
    if len(checkpoints) != 1:
        raise InputError(f"--glue-submission came with {len(checkpoints)} models", "give one: its files have one name")
    files = GLUE_FILES[task]
    if len(data) != len(files):
        raise InputError(
            f"--glue-submission came with {len(data)} tables, and {task} has {len(files)} ({', '.join(files)})",
            "give the test tables in this order",
        )


def glue_submission(
    checkpoint: str,
    *,
    task: str,
    data: str | Sequence[str],
    columns: DataSettings | None = None,
    max_length: int | None = None,
    batch_size: int = 64,
    load: LoadOptions | None = None,
) -> dict[str, str]:
    r"""Return by file name what GLUE's server takes of a model's answers: a line `index` and `prediction` for each row.

    Args:
        checkpoint: directory, run directory or hub id of a trained classifier.
        task: a task of GLUE.
        data: its test table; of mnli the matched one and then the mismatched one. Labels are not read. All rows are
            answered, in their order.
        columns: columns by name.
        max_length: tokens of an example; None: the task's.
        batch_size: examples of one forward pass.
        load: device, precision and what is allowed in loading.

    Raises:
        InputError: as `check_submission`; a model or a table that cannot be read.

    Example:
        >>> files = glue_submission("runs/forward", task="sst2", data="hub:nyu-mll/glue/sst2:test")
        >>> files["SST-2.tsv"].splitlines()[:2]
        ['index\tprediction', '0\t1']
    """
    sources = list(evaluation_sources(data).values())
    check_submission(task, [checkpoint], sources)
    columns = columns or DataSettings()
    chosen = task_by_name(task).configured(columns)
    loaded = load_trained(checkpoint, chosen, load)
    config, tokenizer = loaded.model.config, loaded.tokenizer
    settled = chosen.for_trained(config)
    if not isinstance(settled, LabelledTask):
        raise InputError(f"task {task} has no labels", allowed=suggest(task, GLUE_FILES))
    found = {}
    for name, source in zip(GLUE_FILES[task], sources, strict=True):
        table = read_table(source, limit=columns.limit, column_names=columns.names)
        own = [one for one in settled.text_columns(table, columns) if one is not None]
        sides = [texts_of(table, one, "text", may_be_missing=True) for one in own]
        length = max_length or min(settled.max_length, int(tokenizer.model_max_length))
        encoded = encode_texts(tokenizer, sides[0], sides[1] if len(sides) > 1 else None, max_length=length)
        kept = {key: rows for key, rows in encoded.items() if key in ("input_ids", "token_type_ids")}
        examples = TokenizedExamples(kept, {"labels": np.zeros(len(table), dtype=np.int64)})
        scored = ScoredModel(loaded.model, tokenizer, batch_size, GenerationSettings())
        answers = np.empty(len(table), dtype=object)
        with quiet_transformers():
            for batch, logits, _ in settled.passes(examples, scored):
                answers[batch] = _answers(settled, task, logits.float().cpu().numpy())
        lines = [f"{row}\t{answer}" for row, answer in enumerate(answers)]
        found[name] = "\n".join(["index\tprediction", *lines]) + "\n"
    return found


def _answers(task: LabelledTask, name: str, logits: np.ndarray) -> list[str]:
    """Return what the server is told of logits, (examples, outputs)."""
    if not isinstance(task, ClassTask):
        return [f"{min(max(value, 0.0), 5.0):.3f}" for value in logits.reshape(-1).tolist()]
    names = [task.settled.names[number] for number in logits.argmax(-1)]
    known = TASK_LABELS[name]
    if foreign := [one for one in names if one not in known]:
        raise InputError(
            f"the model answers {foreign[0]!r}, which is no class of {name} ({', '.join(known)})",
            "say which it is: --label-map",
        )
    return names if name in _BY_NAME else [str(known.index(one)) for one in names]
