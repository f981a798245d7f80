"""What a recipe would do and cost: its stages with tokens, FLOPs and memory, and the students' plans; no weights."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from anglekit.display.tables import TextTable, aligned_text
from anglekit.errors import InputError
from anglekit.models.cost import FORMULAS, ModelCost, Tokens, model_cost, without_memory
from anglekit.recipes.plans import classifies, plans_of, teacher_config
from anglekit.recipes.recipe import Recipe, Variant
from anglekit.recipes.training import Training, check_scale
from anglekit.vocabulary import RANDOM_TEACHER, WITHOUT_TEACHER

if TYPE_CHECKING:
    from transformers import PretrainedConfig

    from anglekit.distillation.matching.plan import DistillationPlan
    from anglekit.distillation.settings import TrainSettings

_DEFAULT_LENGTH = 128
_DEFAULT_PROBE = 1000
# What one accelerator reaches on models of BERT's size (fifty CPU cores do not); only used to turn FLOPs into hours.
_SPEED = 1e13


@dataclass(frozen=True)
class StageCost:
    """One stage of a recipe.

    Attributes:
        name: of the stage.
        what: in words.
        steps: optimiser steps of each model; None where nothing is trained.
        tokens: those that the teacher or the trained model reads, without padding.
        flops: of all models together.
        memory_bytes: at the peak; models, optimiser states and activations.
    """

    name: str
    what: str
    steps: int | None
    tokens: int
    flops: float
    memory_bytes: int


@dataclass(frozen=True)
class DryRun:
    """The plan of a reproduction.

    Attributes:
        recipe: what would be run.
        scale: the fraction of the steps.
        stages: in order, those that cost something.
        maps: a sentence for each variant, strategy and stream: which layer teaches which.
        notes: where the numbers come from, and what is not known.
    """

    recipe: Recipe
    scale: float
    stages: tuple[StageCost, ...]
    maps: tuple[str, ...]
    notes: tuple[str, ...]

    def summary(self) -> dict[str, Any]:
        """Return the plan as values that json can hold."""
        return {
            "recipe": self.recipe.name,
            "scale": self.scale,
            "stages": [asdict(one) for one in self.stages],
            "maps": list(self.maps),
            "notes": list(self.notes),
        }

    def text(self) -> str:
        """Return the plan as text for a terminal."""
        cells = [
            (
                one.name,
                one.what,
                "" if one.steps is None else f"{one.steps:,}",
                _short(one.tokens),
                f"{one.flops:.1e}",
                f"{one.memory_bytes / 2**30:.1f} GiB",
            )
            for one in self.stages
        ]
        total = sum(one.flops for one in self.stages)
        peak = max(one.memory_bytes for one in self.stages)
        read = sum(one.tokens for one in self.stages)
        cells.append(("together", "", "", _short(read), f"{total:.1e}", f"{peak / 2**30:.1f} GiB"))
        columns = ("stage", "what", "steps", "tokens", "FLOPs", "memory")
        table = aligned_text(TextTable("", columns, tuple(cells), frozenset({2, 3, 4, 5})))
        hours = total / _SPEED / 3600
        title = f"{self.recipe.name}: {self.recipe.title}" + (
            f", {self.scale:g} of the steps" if self.scale < 1 else ""
        )
        return "\n".join(
            [title, "", table, "", f"at {_SPEED:g} FLOPs a second: {hours:,.1f} hours", "", *self.maps, ""]
            + [f"note: {note}" for note in self.notes]
            + ["", *FORMULAS]
        )


def dry_run(recipe: Recipe, *, scale: float = 1.0) -> DryRun:
    """Plan a recipe and estimate what it costs, from configurations alone; the hub is not asked.

    Args:
        recipe: perhaps with a user's own sources, from `with_own_sources`.
        scale: the fraction of the training steps.

    Raises:
        InputError: a value is not allowed, a student is not possible, a local file cannot be read, or the number of
            examples is not known.
    """
    check_scale(scale)
    config, origin = teacher_config(recipe, offline=True)
    plans = plans_of(recipe, config)
    counts, notes = _examples(recipe)
    notes.insert(0, f"the teacher's shape is from {origin}")
    if not classifies(recipe) and recipe.task != "language-model":
        notes.append("a score counts one forward pass an example; generating texts takes more")
    planner = _Planner(recipe, scale, config, counts, _tokens(recipe, config, notes))
    return DryRun(recipe, scale, tuple(planner.stages(plans)), _maps(recipe, plans), tuple(notes))


class _Planner:
    def __init__(
        self, recipe: Recipe, scale: float, config: PretrainedConfig, counts: dict[str, int], tokens: Tokens
    ) -> None:
        self.recipe, self.scale, self.config, self.counts, self.tokens = recipe, scale, config, counts, tokens
        self.classifies = classifies(recipe)
        self.teacher = config_cost(config, classifies=self.classifies)

    def stages(self, plans: dict[str, DistillationPlan]) -> Iterator[StageCost]:
        students = {variant: self._student(variant, plans) for variant in self.recipe.variants}
        if (training := self.recipe.teacher.training) is not None:
            words = f"train a teacher of {_short(self.teacher.parameters)} parameters"
            yield self._training("teacher", words, training, self.teacher)
        training = self.recipe.students.training
        for variant, cost in students.items():
            words = f"train {self._arms} students of {_short(cost.parameters)} parameters{self._controls_in_words()}"
            yield self._training(f"sweep-{variant.name}", words, training, cost, copies=self._arms, taught=True)
        for variant, cost in students.items():
            yield self._analysis(variant, cost)

    @property
    def _arms(self) -> int:
        students = self.recipe.students
        return (len(students.strategies) + len(students.controls)) * self._cells

    @property
    def _cells(self) -> int:
        """The initialisations and seeds, each of which has one student of every strategy and control."""
        return len(self.recipe.students.inits) * len(self.recipe.students.seeds)

    def _controls_in_words(self) -> str:
        words = {
            WITHOUT_TEACHER: f"{self._cells} of them without a teacher",
            RANDOM_TEACHER: f"{self._cells} of them beside an untrained teacher for each seed",
        }
        return "".join(f", {words[control]}" for control in self.recipe.students.controls)

    def _student(self, variant: Variant, plans: dict[str, DistillationPlan]) -> ModelCost:
        from anglekit.distillation.students.create import student_config

        plan = next(plan for name, plan in plans.items() if name.startswith(f"{variant.name} "))
        blocks = {part.stream: part.blocks for part in plan.streams}
        return config_cost(
            student_config(self.config, blocks=blocks, new_width=variant.width), classifies=self.classifies
        )

    def _training(
        self, name: str, words: str, training: Training, trained: ModelCost, *, copies: int = 1, taught: bool = False
    ) -> StageCost:
        """Cost the training of the teacher, or of students of one variant, with its validations."""
        steps = training.steps(self.counts["train"], scale=self.scale)
        settings = training.settings()
        batch = settings.batch_size
        seen = steps * batch * settings.accumulation
        together = min(self.recipe.students.side_by_side, copies)
        lora = settings.lora_rank is not None
        passes = self._validations(settings, steps) * self.counts["validation"]
        flops = copies * (
            seen * trained.step_flops(self.tokens, lora=lora) + passes * trained.forward_flops(self.tokens)
        )
        memory = together * trained.training_bytes(settings.optimizer, lora_rank=settings.lora_rank)
        half = settings.precision in ("bfloat16", "float16")
        recomputed = settings.checkpoint_activations
        longest = _longest(self.recipe.task, settings, two_streams=self.tokens.target > 0)
        memory += trained.activation_bytes(batch, longest, half=half, recomputed=recomputed)
        if taught:
            flops += math.ceil(copies / together) * seen * self.teacher.forward_flops(self.tokens)
            answered = longest.target or longest.text
            memory += 4.0 * self.teacher.parameters + 4.0 * batch * answered * self.teacher.vocabulary
            if RANDOM_TEACHER in self.recipe.students.controls:
                # Each seed has its own; those of students that train at the same time are in memory together.
                seeds = len(self.recipe.students.seeds)
                flops += seeds * seen * self.teacher.forward_flops(self.tokens)
                memory += 4.0 * self.teacher.parameters * min(seeds, math.ceil(together * seeds / copies))
        return StageCost(name, words, steps, round(seen * self.tokens.total), flops, round(memory))

    def _validations(self, training: TrainSettings, steps: int) -> int:
        """Return how often a model is scored: in training, and at the end."""
        every = training.evaluation_steps(self.counts["train"])
        if every is not None:
            scaled = math.ceil(every * self.scale) if (training.evaluate_every or 0.0) >= 1.0 else every
            return steps // max(1, scaled) + 1
        whole = math.ceil(training.epochs * self.scale) if training.epochs is not None else 1
        return whole + 1

    def _analysis(self, variant: Variant, student: ModelCost) -> StageCost:
        probe = self.recipe.analysis.limit or self.counts.get("probe", _DEFAULT_PROBE)
        together = min(self.recipe.students.side_by_side, self._arms)
        half = self.recipe.analysis.dtype in ("bfloat16", "float16")
        parts = math.ceil(self._arms / together)
        flops = probe * (
            parts * self.teacher.forward_flops(self.tokens) + self._arms * student.forward_flops(self.tokens)
        )
        memory = (2.0 if half else 4.0) * (self.teacher.parameters + together * student.parameters)
        words = f"measure the geometry of {self._arms} students on {probe:,} examples"
        return StageCost(
            f"geometry-{variant.name}", words, None, round(probe * self.tokens.total), flops, round(memory)
        )


def config_cost(config: PretrainedConfig, *, classifies: bool) -> ModelCost:
    """Return the sizes of a model of a configuration, with the head of its task; no weight is made.

    Raises:
        InputError: no such model exists.
    """
    from anglekit.recipes.teacher_from_scratch import model_with_head

    def refusal(reason: str) -> InputError:
        return InputError(f"no {config.model_type} model of this shape exists: {reason}", "correct teacher.config")

    with without_memory("teacher.config", None, refusal):
        model = model_with_head(config, classifies=classifies)
    return model_cost(model, classifies=classifies)


def _examples(recipe: Recipe) -> tuple[dict[str, int], list[str]]:
    """Return the examples of training, validation and probe tables, and where the numbers are from."""
    from anglekit.tables.read import read_table

    limit = recipe.data.columns.limit
    stated = {"train": recipe.data.train_examples, "validation": recipe.data.validation_examples}
    tables = {"train": [recipe.data.train], "validation": list(recipe.data.validation.values())}
    counts: dict[str, int] = {}
    notes = []
    for name, sources in tables.items():
        if any(source.startswith("hub:") for source in sources):
            number = stated[name]
            if number is None:
                raise InputError(
                    f"how many rows {sources[0]} has is not known without the hub",
                    f"state data.{name}_examples in the recipe, or give --{name} FILE",
                )
            counts[name] = number if limit is None else min(number, limit * len(sources))
            notes.append(f"{counts[name]:,} {name} examples, as the recipe states")
        else:
            counts[name] = sum(len(read_table(source, limit=limit)) for source in sources)
            notes.append(f"{counts[name]:,} {name} examples, counted")
    return counts, notes


def _tokens(recipe: Recipe, config: PretrainedConfig, notes: list[str]) -> Tokens:
    """Return the tokens of an example: as the recipe states, or the longest that are allowed."""
    from anglekit.models.architectures import model_streams

    data, two_streams, target = recipe.data, len(model_streams(config)) == 2, 0.0
    longest = _longest(recipe.task, recipe.students.training.settings(), two_streams=two_streams)
    text = longest.text if data.tokens is None else data.tokens
    stated = f"{text:g} tokens an example, as the recipe states"
    words = f"at most {text:g} tokens an example" if data.tokens is None else stated
    if two_streams:
        target = data.target_tokens or longest.target
        words += f", {'' if data.target_tokens else 'at most '}{target:g} of its target"
    notes.append(words)
    return Tokens(text, target)


def _longest(task: str, training: TrainSettings, *, two_streams: bool) -> Tokens:
    """Return the tokens of the longest example that a training run reads."""
    from anglekit.distillation.tasks.registry import task_by_name

    usual = getattr(task_by_name(task), "max_length", None) or _DEFAULT_LENGTH
    text = float(training.max_length or usual)
    return Tokens(text, float(training.target_max_length or usual) if two_streams else 0.0)


def _maps(recipe: Recipe, plans: dict[str, DistillationPlan]) -> tuple[str, ...]:
    """Return which layer teaches which, once for each variant and strategy, and what is copied."""
    lines = []
    first = recipe.students.inits[0]
    for name, plan in plans.items():
        variant, strategy, init = name.split(" ")
        if init == first:
            who = strategy if plan.control is None else f"{strategy} (control of {plan.matched_as})"
            if plan.reads_untrained_teacher:
                who = f"{strategy} (control of {plan.matched_as}, by an untrained teacher)"
            lines += [f"{variant}, {who}: {matching.in_words()}" for matching in plan.matchings]
        if init == "teacher" and strategy == recipe.students.strategies[0]:
            lines += [
                f"{variant}: the {part.stream}'s blocks are copied from {', '.join(map(str, part.blocks))}"
                for part in plan.streams
            ]
    return tuple(dict.fromkeys(lines))


def _short(number: float) -> str:
    """Return a number with three digits and a letter: 109 M."""
    for size, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g} {letter}"
    return f"{number:.0f}"
