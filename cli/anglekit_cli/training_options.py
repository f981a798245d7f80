"""The options that the training commands share: each written once, with its help."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from anglekit.errors import InputError
from anglekit.settings_fields import SettingError

if TYPE_CHECKING:
    from anglekit.distillation.runs.arm import RunResult
    from anglekit.distillation.runs.directory import IfExists
    from anglekit.distillation.settings import DataSettings, TrainSettings
    from anglekit.models.load_options import LoadOptions

_TABLES = ".jsonl, .csv, .tsv, .parquet, hub:NAME[/CONFIG]:SPLIT or builtin:NAME[:SPLIT]"

Task = Annotated[
    str,
    typer.Option(
        help="For your own data: classification, seq2seq, language-model, completion or multiple-choice. Known data: "
        "mnli, qqp, qnli, sst2, mrpc, cola, rte, wnli, dart, wmt16-en-ro, hellaswag, coqa."
    ),
]
Train = Annotated[str, typer.Option(help=f"Training table: {_TABLES}.")]
Out = Annotated[Path, typer.Option(help="Directory of the run: checkpoint, scores, metrics, plan, provenance.")]
Validation = Annotated[
    list[str] | None,
    typer.Option(help="Table to score on, also NAME=TABLE; repeat it for more. The first one validates in training."),
]
Text = Annotated[str | None, typer.Option(help="Column of the text.", show_default="by its usual names")]
TextPair = Annotated[
    str | None, typer.Option(help="Column of the second text; '-' for none.", show_default="by its usual names")
]
Label = Annotated[str | None, typer.Option(help="Column of the label.", show_default="by its usual names")]
Source = Annotated[
    str | None,
    typer.Option(help="seq2seq: column of the source.", show_default="by its usual names"),
]
Target = Annotated[
    str | None,
    typer.Option(help="seq2seq: column of the target, or of lists of them.", show_default="by its usual names"),
]
Prefix = Annotated[str | None, typer.Option(help="seq2seq: put before every source.", show_default="the task's")]
Prompt = Annotated[
    str | None,
    typer.Option(help="completion, multiple-choice: column of the prompt.", show_default="by its usual names"),
]
Completion = Annotated[
    str | None,
    typer.Option(help="completion: column of what follows, or of lists of it.", show_default="by its usual names"),
]
Choices = Annotated[
    str | None,
    typer.Option(
        help="multiple-choice: column of lists, or columns with commas between.", show_default="by its usual names"
    ),
]
LossOnPrompt = Annotated[
    bool, typer.Option("--loss-on-prompt", help="Train on the prompt's tokens too, not on the completion alone.")
]
KlOnPrompt = Annotated[
    bool | None,
    typer.Option("--kl-on-prompt/--no-kl-on-prompt", help="KL on the prompt's tokens too.", show_default="no"),
]
TargetMaxLength = Annotated[
    int | None,
    typer.Option(help="seq2seq: tokens to which targets are cut.", show_default="the task's; else too long is refused"),
]
Beams = Annotated[int | None, typer.Option(help="Of generated texts; 1 is greedy.", show_default="the task's")]
MaxNewTokens = Annotated[
    int | None, typer.Option(help="Where a generated text ends at the latest.", show_default="the task's")
]
LengthPenalty = Annotated[float, typer.Option(help="Above 0 prefers longer texts among beams.")]
LoraRank = Annotated[
    int | None, typer.Option(help="Train low-rank corrections of this rank (needs peft).", show_default="all weights")
]
LoraAlpha = Annotated[float, typer.Option(help="Corrections are multiplied by alpha / rank.")]
LoraDropout = Annotated[float, typer.Option(help="Of the corrections' input.")]
LoraTargets = Annotated[str, typer.Option(help="all-linear, or names of layers with commas.")]
LoraMerge = Annotated[
    bool, typer.Option("--lora-merge", help="Save one model with the corrections added, not both beside each other.")
]
Match = Annotated[
    str | None,
    typer.Option(
        "--match-streams", metavar="NAMES", help="encoder, decoder or both: what is matched.", show_default="all"
    ),
]
Limit = Annotated[int | None, typer.Option(help="Use only the first rows of each table.")]
Epochs = Annotated[float | None, typer.Option(help="Passes over the training table.", show_default="the task's")]
MaxSteps = Annotated[int | None, typer.Option(help="Optimiser steps, instead of epochs.")]
BatchSize = Annotated[int, typer.Option(help="Examples of a forward pass.")]
Accumulation = Annotated[int, typer.Option(help="Forward passes of an optimiser step.")]
LearningRate = Annotated[
    float | None, typer.Option("--learning-rate", "--lr", help="The highest.", show_default="the task's")
]
Schedule = Annotated[str, typer.Option(help="Of the learning rate: linear, cosine, constant, ...")]
Warmup = Annotated[float, typer.Option(help="Steps, or below 1 the fraction of all steps.")]
Optimizer = Annotated[str, typer.Option(help="adamw, adafactor or sgd.")]
WeightDecay = Annotated[float, typer.Option(help="Of all weights but biases and norms.")]
MaxGradNorm = Annotated[float, typer.Option(help="Length to which gradients are clipped; 0 clips none.")]
Precision = Annotated[str, typer.Option(help="Of forward passes: float32, bfloat16 or float16.")]
MaxLength = Annotated[int | None, typer.Option(help="Most tokens of an example.", show_default="128")]
GroupByLength = Annotated[
    bool, typer.Option("--group-by-length", help="Put examples of similar length into a batch; saves padding.")
]
CheckpointActivations = Annotated[
    bool, typer.Option("--checkpoint-activations", help="Recompute activations: less memory, more time.")
]
LabelSmoothing = Annotated[float, typer.Option(help="Of the cross-entropy.")]
Seed = Annotated[
    int | None,
    typer.Option(help="Of initialisation, dropout and random draws.", show_default="0; drawn for strategy random"),
]
DataSeed = Annotated[int, typer.Option(help="Of the order of the data.")]
EvaluateEvery = Annotated[int | None, typer.Option(help="Steps between validations.", show_default="one epoch")]
LogEvery = Annotated[int, typer.Option(help="Steps between entries of metrics.jsonl.")]
Select = Annotated[str, typer.Option(help="Keep the weights of the best validation (best) or of the end (last).")]
Device = Annotated[str, typer.Option(help="auto takes an accelerator if there is one; cpu takes none.")]
TeacherDevice = Annotated[
    str | None, typer.Option(help="The teacher's own: cpu, cuda:1.", show_default="that of the student")
]
TeacherDeviceMap = Annotated[
    str | None,
    typer.Option(
        metavar="auto|balanced|balanced_low_0|sequential|JSON",
        help="Spread the teacher over devices, and the disk where they are too small; as json every part's device.",
        show_default="one device",
    ),
]
Workers = Annotated[int, typer.Option(help="Processes that prepare batches; 0: none but this one.")]
TensorBoard = Annotated[bool, typer.Option("--tensorboard", help="Write event files into the run directory.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with the run in the directory, if there is one.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the run in the directory.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar and no table.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the scores as json.")]
Revision = Annotated[str | None, typer.Option(help="Branch, tag or commit of a hub checkpoint.")]
AllowPickle = Annotated[
    bool, typer.Option("--allow-pickle", help="Accept pickled weights, which can run code when read.")
]
TrustRemoteCode = Annotated[
    bool, typer.Option("--trust-remote-code", help="Accept a checkpoint that brings its own code.")
]


def if_exists(resume: bool, overwrite: bool) -> IfExists:
    """Return what to do with a run that is already there.

    Raises:
        InputError: both options came.
    """
    if resume and overwrite:
        raise InputError("--resume and --overwrite came together", "give one of the two")
    return "resume" if resume else "overwrite" if overwrite else "refuse"


def data_settings(values: dict[str, Any]) -> DataSettings:
    """Return those of a command's values that name columns; their names are the settings' own."""
    from anglekit.distillation.settings import DataSettings

    return DataSettings(**{name: values[name] for name in DataSettings.__dataclass_fields__ if name in values})


def names(option_name: str, text: str | None) -> tuple[str, ...] | None:
    """Return the names in a list with commas.

    Raises:
        InputError: a place between two commas is empty.
    """
    if text is None:
        return None
    found = tuple(name.strip() for name in text.split(","))
    if not all(found):
        raise InputError(
            f"--{option_name} is {text!r} and names nothing in one place", "give names with commas between"
        )
    return found


def train_settings(values: dict[str, Any]) -> TrainSettings:
    """Return those of a command's values that are training settings; their names are the settings' own."""
    from anglekit.distillation.settings import TrainSettings

    return TrainSettings(**{name: values[name] for name in TrainSettings.__dataclass_fields__ if name in values})


def teacher_loading(values: dict[str, Any]) -> LoadOptions:
    """Return how a command loads its teacher.

    Raises:
        InputError: both a device and a map came, or one of them is not there.
    """
    from anglekit.models.load_options import LoadOptions
    from anglekit.runtime.placement import Placement

    device, spread = values["teacher_device"], values["teacher_device_map"]
    if device is not None and spread is not None:
        raise InputError(f"--teacher-device {device!r} and --teacher-device-map {spread!r}: give one of the two")
    try:
        placement = Placement(device_map=spread)
    except SettingError as error:
        raise error.named("--teacher-device-map") from error
    return LoadOptions(
        device=device or "cpu",
        revision=values["revision"],
        allow_pickle=values["allow_pickle"],
        trust_remote_code=values["trust_remote_code"],
        placement=placement,
    )


def print_result(result: RunResult, *, quiet: bool, as_json: bool) -> None:
    """Print a run's scores and where its checkpoint is."""
    if as_json:
        import json

        rows = result.scores.to_dict(orient="records")
        typer.echo(json.dumps({"checkpoint": result.checkpoint, "steps": result.steps, "scores": rows}))
    elif not quiet:
        from anglekit.display.tables import aligned_text, frame_table

        if len(result.scores):
            typer.echo(aligned_text(frame_table(result.scores)))
        kept = "" if result.selected_step == result.steps else f", the best at step {result.selected_step}"
        typer.echo(f"{result.steps} steps in {result.train_seconds:.0f} s{kept}: {result.checkpoint}")


def signature_lines(scoring: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return sacreBLEU's signatures, each once: they say what the scores mean."""
    found = [f"{name}: {text}" for notes in scoring.values() for name, text in notes.get("signatures", {}).items()]
    return list(dict.fromkeys(found))
