"""The whole story on built-in data: corpus, tokenizer, teacher, ten students, their geometry, a figure, an answer."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final

from anglekit.errors import InputError
from anglekit.recipes.demo_progress import StageBar
from anglekit_data.demo_settings import DemoSettings

if TYPE_CHECKING:
    import pandas as pd

    from anglekit.recipes.demo_answer import InitComparison

__all__ = ["DemoResult", "run_demo"]

_FORMAT: Final = "anglekit demo 1"
_SUMMARY: Final = "summary.json"
_UNFINISHED: Final = "UNFINISHED"
_OWN: Final = (
    _SUMMARY,
    "scores.csv",
    "figure1.png",
    "corpus.md",
    "tokenizer",
    "untrained",
    "teacher",
    "sweep",
    "geometry",
    _UNFINISHED,
)
# What saving a Geometry leaves behind when it is killed in the middle.
_SCRATCH: Final = ".geometry-"


@dataclass(frozen=True, eq=False)
class DemoResult:
    """What a demo left behind.

    Attributes:
        directory: holds `tokenizer`, `untrained` (the teacher's first weights), `teacher`, `sweep`, `geometry`,
            `figure1.png`, `corpus.md` (the data card), `scores.csv` and `summary.json`.
        seed: of everything random.
        teacher_accuracy: on the validation split, in [0, 1].
        scores: a row for the teacher and each student: `model`, `strategy`, `init`, `seed`, `data`, `examples`,
            `accuracy`, `steps`.
        comparisons: the matchings against none, for each initialisation.
        sentence: the paper's question answered from them.
        warnings: what spoils a comparison of the students: a random order that equals forward, students far from done.
        seconds: what each stage took, and `total`.
    """

    directory: str
    seed: int
    teacher_accuracy: float
    scores: pd.DataFrame
    comparisons: tuple[InitComparison, ...]
    sentence: str
    warnings: tuple[str, ...]
    seconds: Mapping[str, float]

    def summary(self) -> dict[str, Any]:
        """Return the result as json takes it."""
        return {
            "directory": self.directory,
            "seed": self.seed,
            "teacher_accuracy": self.teacher_accuracy,
            "scores": json.loads(self.scores.to_json(orient="records")),
            "comparisons": [
                {
                    "init": one.init,
                    "none": one.baseline,
                    "matched": dict(one.matched),
                    "spread": one.spread,
                    "spread_by_chance": one.spread_by_chance,
                    "gain": one.gain,
                    "gain_by_chance": one.gain_by_chance,
                    "answer": one.answer,
                }
                for one in self.comparisons
            ],
            "answer": self.sentence,
            "warnings": list(self.warnings),
            "seconds": {name: round(value, 1) for name, value in self.seconds.items()},
        }


def run_demo(
    out: str | Path,
    *,
    seed: int = 0,
    settings: DemoSettings | None = None,
    overwrite: bool = False,
    progress: bool = False,
) -> DemoResult:
    """Run the demo: about three and a half minutes on two CPU cores with the settings that it comes with.

    The corpus is `builtin:inference`. The teacher is a BERT trained on it from scratch; ten students, five matching
    strategies from random and from copied weights, learn from it side by side; their geometry is measured on the test
    split, which nothing was trained or chosen on. Everything runs on the CPU: the same seed gives the same numbers on
    the same machine.

    Args:
        out: the directory, made here. Until the last file is written it holds a file `UNFINISHED`.
        seed: of the weights, the order of the data and the random matching.
        settings: sizes and schedules.
        overwrite: replace the demo, finished or not, that is in the directory.
        progress: show one bar over everything.

    Raises:
        InputError: the directory exists and `overwrite` is off, or it holds something else than a demo; or a setting
            or the seed is not allowed. Nothing was written.
        RunError: a loss stopped being finite.
    """
    start = perf_counter()
    settings = settings or DemoSettings()
    if not 0 <= seed < 2**32:
        raise InputError(f"the seed is {seed}", allowed=f"allowed: 0 to {2**32 - 1}")
    directory = Path(out)
    _check_directory(directory, overwrite)
    with StageBar(_costs(settings), shown=progress) as bar, _unfinished(directory), ExitStack() as settled:
        with bar.stage("start"):
            from anglekit.recipes import demo_stages as stages
            from anglekit.recipes.demo_answer import answer_sentence, compare_matchings, unfinished_learning

            settled.enter_context(stages.one_thread())
            untrained = stages.make_untrained_teacher(directory, settings, seed)
        with bar.stage("teacher", [directory / "teacher" / "metrics.jsonl"], settings.teacher_steps):
            teacher = stages.train_teacher(untrained, directory, settings, seed)
        metrics = [directory / "sweep" / name / "metrics.jsonl" for name in stages.arm_names(seed)]
        with bar.stage("ten students", metrics, settings.student_steps):
            swept = stages.train_students(directory, settings, seed)
        with bar.stage("geometry"):
            geometry = stages.measure_geometry(directory, swept, settings, seed)
        with bar.stage("figure"):
            stages.draw(directory, geometry)
        scores = stages.score_frame(teacher, swept, seed)
        students = scores[scores["model"] == "student"]
        rows: list[Any] = students.to_dict(orient="records")
        accuracies = {(row["strategy"], row["init"]): row["accuracy"] for row in rows}
        comparisons = compare_matchings(accuracies, int(students["examples"].iloc[0]))
        accuracy = float(scores.loc[scores["model"] == "teacher", "accuracy"].iloc[0])
        early = unfinished_learning(comparisons, teacher=accuracy, steps=settings.student_steps)
        result = DemoResult(
            str(directory),
            seed,
            accuracy,
            scores,
            comparisons,
            answer_sentence(comparisons, seed=seed, steps=settings.student_steps),
            (*swept.warnings, *early),
            {**bar.seconds, "total": perf_counter() - start},
        )
        scores.to_csv(directory / "scores.csv", index=False)
        content = {"format": _FORMAT, **result.summary(), "settings": asdict(settings), "corpus": stages.corpus_facts()}
        (directory / _SUMMARY).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return result


def _costs(settings: DemoSettings) -> dict[str, float]:
    """Return what the stages are expected to take, in seconds of one core; only their ratios matter."""
    # Per example, a training step costs about as much in two blocks as it costs outside the blocks.
    teacher = settings.teacher_steps * settings.teacher_batch_size * (settings.teacher_layers + 2) * 8e-5
    student = settings.student_steps * settings.student_batch_size * (settings.student_layers + 2) * 1.2e-4
    return {"start": 7.0, "teacher": teacher, "ten students": 10 * student, "geometry": 3.0, "figure": 1.0}


def _check_directory(directory: Path, overwrite: bool) -> None:
    """Refuse a directory that is there, unless it holds a demo, or nothing, and may be replaced."""
    if any(parent.exists() and not parent.is_dir() for parent in directory.parents):
        raise InputError(f"{directory} cannot be made: a part of its path is a file", "choose another directory")
    if not directory.exists():
        return
    if not directory.is_dir():
        raise InputError(f"{directory} is a file", "choose another directory")
    if not overwrite:
        what = "holds an unfinished demo" if (directory / _UNFINISHED).exists() else "exists"
        raise InputError(f"{directory} {what}", "choose another directory, or replace it with --overwrite")
    foreign = sorted(entry.name for entry in directory.iterdir() if not _is_own(entry.name))
    if foreign or (any(directory.iterdir()) and not _is_demo(directory)):
        held = f"holds {foreign[0]}, which no demo wrote" if foreign else "holds no demo"
        raise InputError(f"{directory} {held}", "it is not replaced, choose another directory")


def _is_own(name: str) -> bool:
    return name in _OWN or name.startswith(_SCRATCH)


def _is_demo(directory: Path) -> bool:
    if (directory / _UNFINISHED).exists():
        return True
    try:
        content = json.loads((directory / _SUMMARY).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and content.get("format") == _FORMAT


@contextmanager
def _unfinished(directory: Path) -> Iterator[None]:
    """Mark the directory until the block has ended well; what an earlier demo left goes first."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / _UNFINISHED).write_text(
        "This demo was interrupted or is still running; --overwrite starts it again.\n",
        encoding="utf-8",
    )
    for path in directory.iterdir():
        if path.name == _UNFINISHED:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    yield
    (directory / _UNFINISHED).unlink()
