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
from anglekit.distillation.settings import TrainSettings
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
STRATEGIES: Final = ("none", "forward", "reverse", "all-to-one", "random")
#: Teacher layers, of 6, that teach every student layer in the arms that ask for the best depth; the middle one is the
#: strategy all-to-one.
DEPTHS: Final = (1, 6)
SEEDS: Final = (0, 1)
STEPS: Final = 150
BATCH: Final = 32
#: Tasks whose scores need generated texts, and how many; they are scored at the end alone, the others at each third.
VALIDATION_ROWS: Final = {"triples": 200, "questions": 500}
_ROWS: Final = 1000
_TEACHER_BLOCKS: Final = 6


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
    """Return the sweeps: of the 16 settings of each task the 8 of a half fraction, and 2 of the other half.

    A setting is in the first half where an even number of its four factors is at its second level: then no main effect
    is mixed with another, nor with an effect of two. The two more are the ends of the other half's list, so that every
    task has ten sweeps.
    """
    factors = ((2, 3), ("teacher", "random"), (4096, 512), ("mse", "cosine"))
    found: list[Condition] = []
    for task in TASKS:
        levels = list(itertools.product(range(2), repeat=4))
        even = [each for each in levels if sum(each) % 2 == 0]
        odd = [each for each in levels if sum(each) % 2 == 1]
        for chosen in (*even, odd[0], odd[-1]):
            values = [factor[level] for factor, level in zip(factors, chosen, strict=True)]
            found.append(Condition(task, *values))  # type: ignore[arg-type]
    return tuple(found)


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
        if TASKS[task] is None:
            assert self.reviews is not None
            assert self.encoder is not None
            finetune(
                self.encoder,
                task="sst2",
                train=str(self.reviews / "movie_reviews_train.tsv"),
                validation=f"validation={self.reviews / 'movie_reviews_validation.tsv'}",
                out=place / "teacher",
                settings=TrainSettings(
                    epochs=1.0, learning_rate=5e-5, batch_size=32, group_by_length=True, seed=0, device="cpu"
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
        rows = (examples, VALIDATION_ROWS.get(task, _ROWS))
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
        """Train a sweep, or go on with it, and return its scores: `condition, strategy, seed, score, steps`.

        The strategies are trained side by side by `sweep`; the arms of depth, called depth-1 and depth-6, by `distill`.
        """
        task = condition.task
        teacher = self.teacher(task)
        train, validation = self.tables(task, condition.examples)
        place = self.root / "sweeps" / condition.name
        shared: dict[str, Any] = {
            "task": "sst2" if TASKS[task] is None else _recipe(task).task,
            "train": train,
            "validation": f"validation={validation}",
            "layers": condition.layers,
            "hidden_loss": condition.hidden_loss,
            "data": None if TASKS[task] is None else replace(_recipe(task).data.columns, limit=None),
            "if_exists": "resume",
        }
        settings = training_settings(task, self.root)
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
            streams = model_streams(load_config(checkpoint_of(teacher), LoadOptions()))
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
        return pd.DataFrame(rows).assign(condition=condition.name)[["condition", "strategy", "seed", "score", "steps"]]


def every_layer_by(
    depth: int, layers: int, streams: tuple[Stream, ...]
) -> Iterator[tuple[Stream, tuple[tuple[int, int], ...]]]:
    """Yield by stream the map in which one teacher layer teaches every block of the student."""
    for stream in streams:
        yield stream, tuple((layer, depth) for layer in range(1, layers + 1))


def training_settings(task: str, root: Path) -> TrainSettings:
    """Return the training of a task's students: the recipe's, in 150 steps and with a greedy decoder."""
    common: dict[str, Any] = {
        "device": "cpu",
        "teacher_cache": str(root / "cache" / task),
        "max_steps": STEPS,
        "batch_size": BATCH,
        "evaluate_every": STEPS + 1 if task in VALIDATION_ROWS else STEPS // 3,
        "group_by_length": True,
        "log_every": 50,
    }
    if TASKS[task] is None:
        return TrainSettings(learning_rate=2e-4, warmup=0.1, eval_batch_size=250, max_length=64, **common)
    training = _recipe(task).students.training.changed(epochs=None, **common_of(common))
    return training.settings(device="cpu", teacher_cache=common["teacher_cache"])


def common_of(common: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that a recipe's training has too, with a greedy decoder."""
    machine = ("device", "teacher_cache")
    return {name: value for name, value in common.items() if name not in machine} | {"beams": 1}


def _recipe(task: str) -> Recipe:
    name = TASKS[task]
    assert name is not None
    return load_recipe(name)


def _scored(task: str, row: Mapping[Any, Any]) -> dict[str, Any]:
    score = float(row[SCORES[task]])
    return {"score": score / 100 if SCORES[task] == "bleu" else score, "steps": int(row["steps"])}
