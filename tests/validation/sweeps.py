"""The sweeps of the validation: which there are, how their teachers and tables are made, and how each is trained."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import pandas as pd

from anglekit.distillation.runs.train import distill, finetune
from anglekit.distillation.settings import DataSettings, TrainSettings
from anglekit.distillation.sweep.sweep import sweep
from anglekit.models.architectures import model_streams
from anglekit.models.checkpoints import checkpoint_of, load_config
from anglekit.models.load_options import LoadOptions
from anglekit.recipes.recipe import Recipe
from anglekit.recipes.recipe_files import load_recipe
from anglekit.recipes.reproduction_stages import cpu_threads, train_teacher
from anglekit.recipes.teacher_from_scratch import make_untrained
from anglekit.runtime.files import write_whole
from anglekit.tables.read import read_table
from anglekit.vocabulary import Stream

#: The tasks by name: a built-in recipe, or None for the movie reviews, which are not part of the repository.
TASKS: Final[Mapping[str, str | None]] = {
    "inference": "builtin-inference",
    "endings": "builtin-endings",
    "questions": "builtin-questions",
    "triples": "builtin-triples",
    "reviews": None,
}
#: What is higher for a better student, by task; all are shares from 0 to 1 (BLEU is divided by 100).
SCORES: Final[Mapping[str, str]] = {
    "inference": "accuracy",
    "endings": "accuracy",
    "questions": "exact_match",
    "triples": "bleu",
    "reviews": "accuracy",
}
#: The score of always giving the commonest answer of the validation rows.
COMMONEST: Final[Mapping[str, float]] = {
    "inference": 0.338,
    "endings": 0.252,
    "questions": 0.09,
    "triples": 0.0,
    "reviews": 0.5,
}
STRATEGIES: Final = ("none", "forward", "reverse", "all-to-one", "random")
#: Teacher layers, of 6, that teach every student layer in the arms that ask for the best depth; the middle one is the
#: strategy all-to-one.
DEPTHS: Final = (1, 6)
MIDDLE: Final = 3
SEEDS: Final = (0, 1)
#: Of students that begin with the teacher's weights; those from random weights make three times as many.
STEPS: Final[Mapping[str, int]] = {"inference": 100, "endings": 100, "questions": 100, "triples": 100, "reviews": 60}
#: Examples a step; an example of `endings` is four texts.
BATCH: Final[Mapping[str, int]] = {"inference": 32, "endings": 8, "questions": 32, "triples": 16, "reviews": 8}
#: Rows that students are scored on.
ROWS: Final[Mapping[str, int]] = {"inference": 1000, "endings": 500, "questions": 300, "triples": 150, "reviews": 400}
#: Tasks that are also scored at each third of the training.
CURVES: Final = ("inference",)


@dataclass(frozen=True)
class Condition:
    """One sweep: everything but the strategies, depths and seeds, which are the same in all."""

    task: str
    layers: int
    init: str
    examples: int
    hidden_loss: str

    @property
    def name(self) -> str:
        """The name of its directory."""
        return f"{self.task}-{self.layers}-{self.init}-{self.examples}-{self.hidden_loss}"


def conditions() -> tuple[Condition, ...]:
    """Return the sweeps: eleven of each built-in task, and four of the movie reviews, whose students are the largest.

    From the teacher's weights all settings and two with a third loss, and one from random weights.
    """
    settings = [(*each, "teacher") for each in itertools.product((2, 3), (4096, 512), ("mse", "cosine"))]
    settings += [(3, 4096, "mse", "random"), *((layers, 4096, "layer-norm-mse", "teacher") for layers in (2, 3))]
    few = [each for each in settings[:8] if each[1] == 4096]
    return tuple(
        Condition(task, layers, init, examples, hidden_loss)
        for task in TASKS
        for layers, examples, hidden_loss, init in (few if TASKS[task] is None else settings)
    )


@dataclass(frozen=True)
class Workplace:
    """Where the experiment keeps teachers, tables and sweeps; everything in it can be made again.

    Args:
        root: its directory.
        reviews: the folder of the movie reviews' tables (data/reviews/README.md); None: that task is left out.
        encoder: the checkpoint that the reviews' teacher is fine-tuned from.
    """

    root: Path
    reviews: Path | None = None
    encoder: str | None = None

    def tasks(self) -> tuple[str, ...]:
        """Return the tasks whose data are at hand."""
        return tuple(task for task in TASKS if TASKS[task] is not None or (self.reviews and self.encoder))

    def teacher(self, task: str) -> str:
        """Return the teacher of a task, after training it if it is not there."""
        place = self.root / "teachers" / task
        if (place / "teacher" / "scores.json").exists():
            return str(place / "teacher")
        if TASKS[task] is None:
            assert self.reviews is not None
            assert self.encoder is not None
            finetune(
                self.encoder,
                task="classification",
                train=str(self.reviews / "movie_reviews_train.tsv"),
                validation=f"validation={self.reviews / 'movie_reviews_validation.tsv'}",
                out=place / "teacher",
                settings=TrainSettings(
                    epochs=1.0,
                    learning_rate=5e-5,
                    batch_size=32,
                    group_by_length=True,
                    max_length=64,
                    seed=0,
                    device="cpu",
                ),
                if_exists="resume",
            )
        else:
            recipe = _recipe(task)
            if not (place / "untrained").exists():
                make_untrained(recipe, place / "untrained")
            train_teacher(recipe, str(place / "untrained"), place / "teacher", scale=1.0, device="cpu")
        return str(place / "teacher")

    def tables(self, task: str, examples: int) -> tuple[str, str]:
        """Return the training table of so many rows, and the table that students are scored on."""
        sources: tuple[str, str]
        if TASKS[task] is None:
            assert self.reviews is not None
            sources = (
                str(self.reviews / "movie_reviews_train.tsv"),
                str(self.reviews / "movie_reviews_validation.tsv"),
            )
        else:
            data = _recipe(task).data
            sources = (data.train, next(iter(data.validation.values())))
        rows = (examples, ROWS[task])
        places = []
        for name, source, limit in zip(("train", "validation"), sources, rows, strict=True):
            place = self.root / "tables" / f"{task}-{name}-{limit}.jsonl"
            if not place.exists():
                place.parent.mkdir(parents=True, exist_ok=True)
                lines = (json.dumps(row, ensure_ascii=False) for row in read_table(source, limit=limit).each_row())
                write_whole(place, "".join(f"{line}\n" for line in lines))
            places.append(str(place))
        return places[0], places[1]

    def train(self, condition: Condition) -> pd.DataFrame:
        """Train a sweep, or go on with it, and return its scores: `condition, strategy, seed, score`.

        The strategies are trained side by side by `sweep`; the arms of depth, called depth-1 and depth-6, by `distill`.
        """
        task = condition.task
        teacher = self.teacher(task)
        train, validation = self.tables(task, condition.examples)
        place = self.root / "sweeps" / condition.name
        shared: dict[str, Any] = {
            "task": task_of(task),
            "train": train,
            "validation": f"validation={validation}",
            "layers": condition.layers,
            "hidden_loss": condition.hidden_loss,
            "data": columns_of(task),
            "if_exists": "resume",
        }
        settings = training_settings(condition, self.root)
        with cpu_threads(1):
            swept = sweep(
                teacher,
                strategies=STRATEGIES,
                inits=(condition.init,),
                seeds=SEEDS,
                out=place / "strategies",
                settings=settings,
                **shared,
            )
            rows = [
                {"strategy": row["strategy"], "seed": int(row["seed"]), **_scored(task, row)}
                for row in swept.scores.to_dict("records")
            ]
            streams = streams_of(teacher)
            for depth, seed in itertools.product(DEPTHS, SEEDS):
                run = distill(
                    teacher,
                    strategy=None,
                    layer_map=dict(every_layer_by(depth, condition.layers, streams)),
                    init=condition.init,
                    out=place / f"depth-{depth}-seed{seed}",
                    settings=replace(settings, seed=seed),
                    **shared,
                )
                scores = run.scores.to_dict("records")[0]
                rows.append({"strategy": f"depth-{depth}", "seed": seed, **_scored(task, scores)})
        return pd.DataFrame(rows).assign(condition=condition.name)[["condition", "strategy", "seed", "score"]]


def streams_of(teacher: str) -> tuple[Stream, ...]:
    """Return the streams of a checkpoint."""
    return model_streams(load_config(checkpoint_of(teacher), LoadOptions()))


def every_layer_by(
    depth: int, layers: int, streams: tuple[Stream, ...]
) -> Iterator[tuple[Stream, tuple[tuple[int, int], ...]]]:
    """Yield by stream the map in which one teacher layer teaches every block of the student."""
    for stream in streams:
        yield stream, tuple((layer, depth) for layer in range(1, layers + 1))


def training_settings(condition: Condition, root: Path) -> TrainSettings:
    """Return the training of a sweep's students: the recipe's, in few steps and with a greedy decoder."""
    task = condition.task
    steps = STEPS[task] * (3 if condition.init == "random" else 1)
    wanted: dict[str, Any] = {
        "max_steps": steps,
        "batch_size": BATCH[task],
        "evaluate_every": steps // 3 + 1 if task in CURVES else steps + 1,
        "group_by_length": True,
        "log_every": 50,
        "eval_batch_size": 250,
    }
    machine = {"device": "cpu", "teacher_cache": str(root / "cache" / task)}
    if TASKS[task] is None:
        return TrainSettings(learning_rate=2e-4, warmup=0.1, max_length=64, **wanted, **machine)
    training = _recipe(task).students.training
    greedy = {} if training.beams is None else {"beams": 1}
    return training.changed(epochs=None, **wanted, **greedy).settings(**machine)


def task_of(task: str) -> str:
    """Return the name of a task among anglekit's."""
    return "classification" if TASKS[task] is None else _recipe(task).task


def columns_of(task: str) -> DataSettings | None:
    """Return the columns of a task's tables."""
    return None if TASKS[task] is None else replace(_recipe(task).data.columns, limit=None)


def _recipe(task: str) -> Recipe:
    name = TASKS[task]
    assert name is not None
    return load_recipe(name)


def _scored(task: str, row: Mapping[Any, Any]) -> dict[str, Any]:
    score = float(row[SCORES[task]])
    return {"score": score / 100 if SCORES[task] == "bleu" else score}
