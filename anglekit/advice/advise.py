"""Advice before any training: as far as the sweeps of data/validation carry it, and no further."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from transformers import PretrainedConfig

from anglekit.advice.evidence import Evidence, evidence
from anglekit.advice.predictors import Predictors, measure_predictors
from anglekit.distillation.matching.plan import DistillationPlan
from anglekit.distillation.settings import DataSettings
from anglekit.models.architectures import model_streams
from anglekit.models.checkpoints import checkpoint_of, load_config
from anglekit.models.load_options import LoadOptions, loaded_for_training
from anglekit.parameter_space.measure import open_measurement
from anglekit.parameter_space.settings import GradientSettings
from anglekit.results.student_t import wilson_interval
from anglekit.vocabulary import MULTI_LABEL, REGRESSION

#: What was compared in the sweeps, and is again.
COMPARED: Final = ("forward", "reverse", "all-to-one", "random")


@dataclass(frozen=True)
class Advice:
    """What can be said before training.

    Attributes:
        matters: whether layer selection is likely to matter; None where nothing measured tells.
        statement: that, in a sentence, with how often such a statement was right.
        strategy: to train with.
        reason: why, in a sentence: a finding, or the default.
        maps: by stream the teacher layer of each student layer, `{"encoder": [(0, 0), (1, 4), ...]}`.
        scope: what the evidence is about, in a sentence.
        outside: the predictors of this pair that lie outside what the sweeps had.
        measured: the predictors of this pair.
        command: to train it.
        check: the command that finds out.
    """

    matters: bool | None
    statement: str
    strategy: str
    reason: str
    maps: Mapping[str, Sequence[tuple[int, int]]]
    scope: str
    outside: tuple[str, ...]
    measured: Mapping[str, float]
    command: str
    check: str

    def lines(self) -> list[str]:
        """Return the advice as lines for a person."""
        maps = "; ".join(
            f"{stream} {', '.join(f'{student} by {teacher}' for student, teacher in pairs)}"
            for stream, pairs in self.maps.items()
        )
        beyond = f"Outside what the sweeps had: {', '.join(self.outside)}." if self.outside else ""
        return [
            self.statement,
            self.reason,
            f"The map, student layer by teacher layer: {maps}.",
            *([beyond] if beyond else []),
            self.scope,
            f"To train: {self.command}",
            f"To find out: {self.check}",
        ]

    def to_json(self) -> dict[str, Any]:
        """Return the advice as values that `json` can write."""
        return {
            **vars(self),
            "maps": {stream: [list(pair) for pair in pairs] for stream, pairs in self.maps.items()},
            "outside": list(self.outside),
            "measured": dict(self.measured),
        }


def advise(
    teacher: str,
    student: str | None = None,
    *,
    probe: str,
    task: str | None = None,
    layers: int | None = None,
    encoder_layers: int | None = None,
    decoder_layers: int | None = None,
    width: int | None = None,
    init: str | None = None,
    seed: int = 0,
    hidden_loss: str = "mse",
    data: DataSettings | None = None,
    settings: GradientSettings | None = None,
    load: LoadOptions | None = None,
    device: str = "auto",
) -> Advice:
    """Say before any training whether layer selection is likely to matter for a pair, and which map to use.

    What is measured of the pair is what was measured before the 48 sweeps of data/validation, by the protocol that was
    written before them. The advice repeats what these sweeps showed: where nothing beat `forward`, it is recommended as
    the default.

    Args:
        teacher: directory, run directory or hub id of a trained teacher.
        student: one that is there already; None: one is made, of the shape that follows.
        probe: table of labelled examples.
        task: a name in `tasks.TASKS`; None: what the teacher's head does (`usual_task`).
        layers: depth of a student that is made, in every stream.
        encoder_layers: that of its encoder alone.
        decoder_layers: that of its decoder alone.
        width: its width.
        init: its initialisation, "random" or "teacher"; None: random.
        seed: of the student, of the choice of examples and of the random order.
        hidden_loss: with which it will be trained.
        data: columns by name.
        settings: how many examples.
        load: what is allowed in loading.
        device: where to compute.

    Raises:
        InputError: as of `gradients`.

    Example:
        >>> anglekit.advise("runs/teacher", probe="dev.tsv", task="sst2", layers=3, init="teacher").lines()
    """
    task = task or usual_task(load_config(checkpoint_of(teacher), loaded_for_training(load)))
    shape: dict[str, Any] = {
        "layers": layers,
        "encoder_layers": encoder_layers,
        "decoder_layers": decoder_layers,
        "width": width,
        "init": init,
    }
    opened = open_measurement(
        teacher,
        [student] if student is not None else (),
        probe=probe,
        task=task,
        strategies=COMPARED,
        seed=seed,
        hidden_loss=hidden_loss,
        data=data,
        settings=settings or GradientSettings(pairs=False),
        load=load,
        device=device,
        **shape,
    )
    found = measure_predictors(opened)
    known = evidence()
    strategy, reason = _strategy(found, known)
    plan = opened.plans[0][strategy]
    options: dict[str, Any] = {"--task": task, "--hidden-loss": hidden_loss, "--student": student, "--init": init}
    options |= {"--layers": layers, "--encoder-layers": encoder_layers, "--decoder-layers": decoder_layers}
    options |= {"--width": width}
    matters, statement = _statement(found, known)
    return Advice(
        matters,
        statement,
        strategy,
        reason,
        _maps(plan),
        _scope(known),
        tuple(
            f"{name} {found.numbers[name]:.3g} (there {low:.3g} to {high:.3g})"
            for name, (low, high) in known.ranges.items()
            if name in found.numbers and not low <= found.numbers[name] <= high
        ),
        found.numbers,
        _command("distill", teacher, {"--strategy": strategy, **options}, "student"),
        _command("sweep", teacher, {"--seeds": "0-4", **_of_sweep(options)}, "sweep"),
    )


def usual_task(config: PretrainedConfig) -> str:
    """Return the task that a model's head does: of labels, `seq2seq` of an encoder-decoder, else `language-model`."""
    saved_as = str(next(iter(config.architectures or ()), ""))
    if saved_as.endswith("ForSequenceClassification"):
        kinds = {MULTI_LABEL: "multi-label", REGRESSION: "regression"}
        return kinds.get(str(getattr(config, "problem_type", None)), "classification")
    return "seq2seq" if len(model_streams(config)) == 2 else "language-model"


def _statement(found: Predictors, known: Evidence) -> tuple[bool | None, str]:
    """Return whether selection is likely to matter, and the sentence that says it with its accuracy."""
    spread, points = known.spread, f"{100 * known.matters:g} points"
    if spread.rule is None:
        share = _share(spread.large, spread.sweeps)
        tasks = ", ".join(f"{task} {large} of {number}" for task, (large, number) in spread.by_task.items())
        return None, (
            "Whether layer selection matters for this pair cannot be told beforehand: nothing that can be measured "
            f"foretold it. In {share} sweeps the strategies' scores were more than {points} apart ({tasks})."
        )
    rule = spread.rule
    value = found.numbers[rule.predictor]
    likely = rule.rule.says(value)
    counts = rule.held_out_likely if likely else rule.held_out_unlikely
    side = "above" if value > rule.threshold else "at or below"
    return likely, (
        f"Layer selection is {'likely' if likely else 'unlikely'} to matter here: {rule.predictor} is {value:.3g}, "
        f"{side} {rule.threshold:.3g}. Where a rule found on other tasks said so, strategies' scores were more than "
        f"{points} apart in {_share(*counts)} sweeps."
    )


def _strategy(found: Predictors, known: Evidence) -> tuple[str, str]:
    """Return the strategy to use, and why."""
    best, number = known.forward.best
    predictor = known.choices.get("best strategy")
    if predictor is None:
        return "forward", (
            "Use forward: that is the default, not a finding. Nothing that can be measured beforehand chose better; it "
            f"was the best of four strategies, ties included, in {_share(best, number)} sweeps and lost "
            f"{100 * known.forward.mean_regret:.1f} points to the best on average."
        )
    chosen = str(found.strategies[predictor].idxmax())
    return chosen, f"Use {chosen}: {predictor} ranks it first, which beat forward in the sweeps."


def _share(part: int, whole: int) -> str:
    low, high = wilson_interval(part / whole, whole, 1.96)
    return f"{part} of {whole} (95% interval {100 * low:.0f} to {100 * high:.0f}%)"


def _scope(known: Evidence) -> str:
    layers = " and ".join(map(str, known.layers))
    return (
        f"This rests on {known.spread.sweeps} short sweeps of students with {layers} blocks on {len(known.tasks)} "
        f"tasks ({', '.join(known.tasks)}), teachers of 6 blocks: data/validation. Longer runs of larger models may "
        "differ."
    )


def _maps(plan: DistillationPlan) -> dict[str, list[tuple[int, int]]]:
    return {each.stream: list(each.pairs) for each in plan.matchings if each.pairs}


def _of_sweep(options: Mapping[str, Any]) -> dict[str, Any]:
    return {("--inits" if name == "--init" else name): value for name, value in options.items()}


def _command(name: str, teacher: str, options: Mapping[str, Any], out: str) -> str:
    """Return a command line; the tables are the user's to name."""
    given = [f"{option} {value}" for option, value in options.items() if value is not None]
    return f"anglekit {name} {Path(teacher)} {' '.join(given)} --train TRAIN --validation DEV --out {out}"
