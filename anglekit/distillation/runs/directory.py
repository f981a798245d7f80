"""The directory of one training run: who may write it, what lies in it, and when it is finished.

run_config.json   the settings of the run
plan.json         the plan of a distilled student
metrics.jsonl     a line for every log and validation
provenance.json   versions, data and teacher hashes
checkpoint/       the student: an ordinary checkpoint, with its tokenizer, adapters and model card
examples.parquet  what each example adds to the scores of student, untrained student and teacher
scores.json       written last: a run that has it is finished
training/         what is needed to resume; gone when the run is finished
tensorboard/      TensorBoard's files, where they were asked for
angles/           a Geometry for each step that was measured, where that was asked for
"""

from __future__ import annotations

import functools
import importlib.metadata
import os
import platform
import shutil
import time
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

import msgspec

from anglekit.distillation.matching.plan import DistillationPlan, Setting, named_differences
from anglekit.distillation.settings import TrainSettings
from anglekit.distillation.students.given import GivenProvenance
from anglekit.distillation.tasks.models import ModelProvenance
from anglekit.distillation.tasks.prepared_data import PreparedData
from anglekit.errors import InputError, RunError, suggest
from anglekit.models.checkpoint_files import check_whole, file_sizes
from anglekit.results.example_scores import EXAMPLES_FILE, ExampleScores, read_example_scores, write_example_scores
from anglekit.results.scores import ANGLES_FOLDER, RUN_CONFIG_FILE, RUN_SCORES_FILE, RunScores, check_no_run
from anglekit.results.training_records import TRAINING_LOG_FILE
from anglekit.runtime.files import half_written, read_document, write_json
from anglekit.runtime.locks import DirectoryLock
from anglekit.settings_fields import SettingError

#: In a checkpoint: its model card, and the figure in it. Whoever publishes the model may change them.
CARD_FILE, SCORES_FIGURE = "README.md", "scores.png"

IfExists = Literal["refuse", "resume", "overwrite"]

_PLAN, _PROVENANCE = "plan.json", "provenance.json"
_LOCK = "run.lock"
_BEGIN_AGAIN = "use --overwrite to start the run again"
_FILES = (RUN_CONFIG_FILE, _PLAN, RUN_SCORES_FILE, EXAMPLES_FILE, _PROVENANCE, TRAINING_LOG_FILE)
_OWN = {*_FILES, _LOCK, "checkpoint", "checkpoint.partial", "training", "tensorboard", ANGLES_FOLDER}
_CONFIG_FORMAT = "anglekit-run-1"

_Document = TypeVar("_Document")


class RunConfig(msgspec.Struct, kw_only=True, frozen=True):
    """run_config.json: what determines a run's result.

    Attributes:
        format: of the file.
        kind: "distill" or "finetune".
        task: its name.
        labels: the classes in order, where the task has classes.
        max_length: tokens of the longest example.
        seed: of the run.
        settings: the training settings that affect the result.
        tables: by name, what was read from each.
        origin_sha256: of the teacher, or of the model that is fine-tuned, with its head.
        given_sha256: of a student that was there before, with the head that it had.
        incidental: the other settings, which do not affect the result.
    """

    format: str
    kind: str
    task: str
    labels: list[str] | msgspec.UnsetType = msgspec.UNSET
    max_length: int
    seed: int
    settings: dict[str, Setting]
    tables: dict[str, dict[str, Any]]
    origin_sha256: str
    given_sha256: str | msgspec.UnsetType = msgspec.UNSET
    incidental: dict[str, Setting] = {}


def run_config(
    data: PreparedData,
    settings: TrainSettings,
    plan: DistillationPlan | None,
    origin: ModelProvenance,
    given: GivenProvenance | None = None,
) -> RunConfig:
    """Return what decides the result of a run: of a plan, or of fine-tuning where there is none."""
    decisive = settings.decisive()
    return RunConfig(
        format=_CONFIG_FORMAT,
        kind="finetune" if plan is None else "distill",
        task=data.task.name,
        **data.task.facts(),
        max_length=data.max_length,
        seed=_seed(settings, plan),
        settings=decisive,
        tables={
            name: {what: value for what, value in one.items() if what not in ("source", "examples")}
            for name, one in data.sources.items()
        },
        origin_sha256=origin.sha256_with_head,
        given_sha256=msgspec.UNSET if given is None else given.sha256_with_head,
        incidental={name: value for name, value in asdict(settings).items() if name not in decisive},
    )


class RunProvenance(msgspec.Struct, kw_only=True):
    """provenance.json: versions, hashes of data and models, seeds, and when the run began and ended.

    Attributes:
        versions: of Python and the packages that compute.
        platform: the machine and its system.
        precision: of the forward passes.
        data: by table, where it came from and its hash.
        examples_at_the_length_limit: training examples that were cut or just fit.
        origin: the teacher, or the model that is fine-tuned.
        student: the checkpoint of a student that was there before, and where its head came from.
        seed: of the run.
        data_seed: of the order of the data.
        init: of a student.
        strategy: of a student.
        control_of: of a control, the strategy of which it takes something away.
        doubts: what speaks against the teacher's answers to a few training examples.
        begun: in UTC.
        stopped: the step at which a sweep stopped the run as hopeless.
        finished: in UTC, once the run is.
        checkpoint: the bytes of each file of the checkpoint, once the run is finished.
    """

    versions: dict[str, str]
    platform: str
    precision: str
    data: dict[str, dict[str, Any]]
    examples_at_the_length_limit: int
    origin: ModelProvenance
    student: GivenProvenance | msgspec.UnsetType = msgspec.UNSET
    seed: int
    data_seed: int
    init: str | msgspec.UnsetType = msgspec.UNSET
    strategy: str | msgspec.UnsetType = msgspec.UNSET
    control_of: str | msgspec.UnsetType = msgspec.UNSET
    doubts: list[str] | msgspec.UnsetType = msgspec.UNSET
    begun: str
    stopped: int | msgspec.UnsetType = msgspec.UNSET
    finished: str | msgspec.UnsetType = msgspec.UNSET
    checkpoint: dict[str, int] | msgspec.UnsetType = msgspec.UNSET


class _Written(msgspec.Struct, frozen=True):
    """The part of provenance.json by which a checkpoint is checked; earlier versions did not write it."""

    checkpoint: dict[str, int] = {}


def run_provenance(
    data: PreparedData,
    settings: TrainSettings,
    plan: DistillationPlan | None,
    origin: ModelProvenance,
    given: GivenProvenance | None = None,
) -> RunProvenance:
    """Return the provenance of a run that begins now."""
    return RunProvenance(
        versions=dict(_versions()),
        platform=platform.platform(),
        precision=settings.precision,
        data={name: dict(one) for name, one in data.sources.items()},
        examples_at_the_length_limit=data.train.at_limit(data.max_length),
        origin=origin,
        student=given or msgspec.UNSET,
        seed=_seed(settings, plan),
        data_seed=settings.data_seed,
        init=msgspec.UNSET if plan is None else plan.init,
        strategy=msgspec.UNSET if plan is None else plan.strategy,
        control_of=msgspec.UNSET if plan is None or plan.control is None else plan.matched_as,
        begun=now(),
    )


def now() -> str:
    """Return the time in UTC, to the second."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


@functools.cache
def _versions() -> dict[str, str]:
    """Return what a run is made with; the packages' metadata are read once in a process, not in each run of a sweep."""
    names = ("anglekit", "torch", "transformers", "accelerate", "tokenizers", "numpy")
    return {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in names}


def _seed(settings: TrainSettings, plan: DistillationPlan | None) -> int:
    return (settings.seed or 0) if plan is None else plan.seed


def check_if_exists(value: str) -> None:
    """Refuse a value that is not one of `IfExists`."""
    if value not in get_args(IfExists):
        raise SettingError("if_exists", f"is {value!r}", allowed=suggest(value, get_args(IfExists)))


class RunDirectory:
    """A run directory that this process holds alone until `close`.

    Args:
        path: the directory; made if absent.
        if_exists: what to do with a run that is already there: "refuse" it, "resume" it, or "overwrite" it.
        writes: whether this process writes; one that does not only reads and holds nothing. None: the first of the
            processes that `accelerate launch` starts writes.

    Attributes:
        resumes: whether a run that is there goes on.
        writes: whether this process writes.
        checkpoint: where the finished student lies.
        partial_checkpoint: where it is written before it is complete.
        training: where `Trainer` keeps what it needs to resume.
        metrics: the file of logs and validations.
        tensorboard: where TensorBoard's files go.

    Raises:
        InputError: another process holds it, it holds a run and `if_exists` is "refuse", it holds something else, or a
            finished run that is to be resumed has lost its checkpoint. Nothing is changed: what is overwritten is
            removed when the new run begins.
    """

    def __init__(self, path: str | Path, if_exists: str = "refuse", *, writes: bool | None = None) -> None:
        check_if_exists(if_exists)
        self.path = Path(path)
        self.checkpoint = self.path / "checkpoint"
        self.partial_checkpoint = self.path / "checkpoint.partial"
        self.training = self.path / "training"
        self.metrics = self.path / TRAINING_LOG_FILE
        self.tensorboard = self.path / "tensorboard"
        self.resumes = if_exists == "resume"
        self.writes = os.environ.get("RANK", "0") == "0" if writes is None else writes
        self._lock: DirectoryLock | None = None
        if not self.writes:
            return
        self._check_foreign()
        self._lock = DirectoryLock(self.path, _LOCK)
        try:
            self._check_run(if_exists)
        except InputError:
            self.close()
            raise
        if self.resumes:
            self._remove_left_over()

    @property
    def started(self) -> bool:
        """Whether a run was begun here."""
        return (self.path / RUN_CONFIG_FILE).exists()

    @property
    def finished(self) -> bool:
        """Whether a run ended here."""
        return (self.path / RUN_SCORES_FILE).exists()

    def config(self) -> RunConfig:
        """Return what the run was begun with.

        Raises:
            InputError: the file is absent or damaged; so do `plan` and `scores`.
        """
        return self._read(RUN_CONFIG_FILE, RunConfig)

    def plan(self) -> DistillationPlan:
        """Return the plan that the run was begun with."""
        return DistillationPlan.from_json(self._read(_PLAN, dict[str, Any]), f"the plan of {self.path}")

    def origins(self) -> tuple[RunConfig, DistillationPlan | None]:
        """Return what decided the result; there is no plan of a model that was fine-tuned."""
        config = self.config()
        return config, self.plan() if config.kind == "distill" else None

    def provenance(self) -> RunProvenance:
        """Return what the run recorded of itself."""
        return self._read(_PROVENANCE, RunProvenance)

    def scores(self) -> RunScores:
        """Return the final scores."""
        return self._read(RUN_SCORES_FILE, RunScores)

    def _read(self, name: str, kind: type[_Document]) -> _Document:
        try:
            return read_document(self.path / name, kind, _BEGIN_AGAIN)
        except FileNotFoundError as error:
            raise InputError(f"{self.path / name} is missing", _BEGIN_AGAIN) from error

    def check_same(self, config: RunConfig, plan: DistillationPlan | None) -> None:
        """Check that the run that was begun here may go on under this configuration and plan.

        Raises:
            InputError: it names the first difference.
            RunError: the run was begun by something that wrote another format.
        """
        stored = self.config()
        if stored.format != config.format:
            raise RunError(f"{self.path} was written in format {stored.format!r}; expected {config.format!r}")
        # An earlier version did not record settings that it did not have: it ran with what is now their default.
        defaults = TrainSettings().decisive()
        found = [] if plan is None else named_differences(defaults | plan.facts(), defaults | self.plan().facts())
        found += named_differences(config.settings, defaults | stored.settings)
        apart = {"format": "", "settings": {}, "incidental": {}}
        found += named_differences(
            msgspec.structs.asdict(msgspec.structs.replace(config, **apart)),
            msgspec.structs.asdict(msgspec.structs.replace(stored, **apart)),
        )
        if found:
            raise InputError(
                f"{self.path} holds another run ({found[0]})",
                "resume it with its own settings, name another directory, or use --overwrite",
            )

    def check_checkpoint(self) -> None:
        """Check that a finished run still has its student: every file, and none cut.

        Raises:
            InputError: a file is missing or cut.
        """
        record = self.path / _PROVENANCE
        written = self._read(_PROVENANCE, _Written) if record.exists() else _Written()
        try:
            check_whole(self.checkpoint, written.checkpoint)
        except InputError as error:
            raise InputError(
                f"{self.path} holds a finished run whose checkpoint is not whole ({error.arrived})",
                "put the file back, or remove that directory and start again as before: it is trained again",
            ) from error

    def begin(self, config: RunConfig, plan: DistillationPlan | None, provenance: RunProvenance) -> None:
        """Remove a run that is to be overwritten and write what the new one starts from.

        The settings are removed first and written last, because they mark a run as begun.
        """
        if not self.writes:
            return
        self.clear()
        if plan is not None:
            write_json(self.path / _PLAN, plan.to_json())
        write_json(self.path / _PROVENANCE, provenance)
        write_json(self.path / RUN_CONFIG_FILE, config)

    def clear(self) -> None:
        """Remove a run, its settings first; what else lies in the directory stays."""
        (self.path / RUN_CONFIG_FILE).unlink(missing_ok=True)
        own = [self.path / name for name in _OWN - {_LOCK}] + half_written(self.path, *_FILES)
        for entry in own:
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink(missing_ok=True)

    def kept_examples(self) -> ExampleScores | None:
        """Return the examples that an earlier session kept; None where there are none, or they cannot be read."""
        file = self.path / EXAMPLES_FILE
        if not file.exists():
            return None
        with suppress(InputError):
            return read_example_scores(file, _BEGIN_AGAIN)
        return None

    def keep_examples(self, examples: ExampleScores) -> None:
        """Write what each example adds to scores; nothing where nothing was scored."""
        if self.writes and examples.tables:
            write_example_scores(self.path / EXAMPLES_FILE, examples)

    def finish(self, scores: RunScores, provenance: RunProvenance, examples: ExampleScores) -> None:
        """Put the complete checkpoint in its place, write the scores and remove what only resuming needs."""
        if not self.writes:
            return
        if self.checkpoint.exists():
            shutil.rmtree(self.checkpoint)
        self.partial_checkpoint.rename(self.checkpoint)
        sizes = file_sizes(self.checkpoint)
        provenance.checkpoint = {name: size for name, size in sizes.items() if name not in (CARD_FILE, SCORES_FIGURE)}
        write_json(self.path / _PROVENANCE, provenance)
        self.keep_examples(examples)
        write_json(self.path / RUN_SCORES_FILE, scores)
        if self.training.exists():
            shutil.rmtree(self.training)

    def leave(self, provenance: RunProvenance) -> None:
        """Write what is known of a run that ends early; what it takes to go on stays."""
        if self.writes:
            write_json(self.path / _PROVENANCE, provenance)

    def close(self) -> None:
        """Release the directory to other processes; remove it if it is empty."""
        if self._lock is None:
            return
        if self.training.is_dir() and not any(self.training.iterdir()):
            self.training.rmdir()
        self._lock.release()
        self._lock = None

    def __enter__(self) -> RunDirectory:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def _check_foreign(self) -> None:
        if self.path.exists() and not self.path.is_dir():
            raise InputError(f"{self.path} is a file", "name a directory for the run")
        if not self.path.is_dir():
            return
        own = {*(self.path / name for name in _OWN), *half_written(self.path, *_FILES)}
        foreign = sorted(entry.name for entry in self.path.iterdir() if entry not in own)
        if foreign and not self.started:
            raise InputError(
                f"{self.path} holds {foreign[0]!r} and no run of anglekit", "name a new or empty directory"
            )

    def _remove_left_over(self) -> None:
        """Remove what a killed run was writing, and what a run killed just after its end had not removed yet."""
        for entry in half_written(self.path, *_FILES):
            entry.unlink()
        for directory in (self.training, self.partial_checkpoint) if self.finished else ():
            if directory.exists():
                shutil.rmtree(directory)

    def _check_run(self, if_exists: str) -> None:
        if if_exists == "refuse":
            check_no_run(self.path)
        if if_exists == "resume" and self.finished:
            self.check_checkpoint()
