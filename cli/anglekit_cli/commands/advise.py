"""`anglekit advise`: before any training, whether layer selection is likely to matter and which map to use."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from anglekit.distillation.matching.plain_plan import check_plain_plan
from anglekit.distillation.settings import DataSettings, TrainSettings
from anglekit.errors import InputError
from anglekit.parameter_space.settings import GradientSettings
from anglekit.settings_fields import DATA, OUTPUT, STUDENT
from anglekit.vocabulary import ATTENTION_LOSSES, INITS, TASK_NAMES
from anglekit_cli import options

EPILOG = "Example: anglekit advise teacher --layers 3 --init teacher --task sst2 --probe dev.tsv"


@options.takes_settings
def advise(
    teacher: options.Teacher,
    student: Annotated[
        str | None,
        typer.Argument(
            metavar="[STUDENT]",
            help="Directory or hub id of a student that is there already; none: one is made, as distill makes it.",
            show_default=False,
        ),
    ] = None,
    *,
    probe: Annotated[
        str,
        typer.Option(
            help=options.Probe.__metadata__[0].help.replace("Probe texts", "Probe texts with labels"),
            rich_help_panel=DATA,
        ),
    ],
    task: Annotated[
        str | None,
        typer.Option(
            help=options.Task.__metadata__[0].help, show_default="what the teacher's head does", rich_help_panel=DATA
        ),
    ] = None,
    layers: options.Layers = None,
    encoder_layers: options.EncoderLayers = None,
    decoder_layers: options.DecoderLayers = None,
    width: options.Width = None,
    init: options.Init = None,
    hidden_loss: options.HiddenLoss = "mse",
    seed: Annotated[
        int,
        typer.Option(
            help="Of the student that is made, of random orders and of the choice of examples.",
            rich_help_panel=STUDENT,
        ),
    ] = 0,
    columns: Annotated[DataSettings, options.Options(without=("limit",))],
    settings: Annotated[GradientSettings, options.Options(without=("pairs", "dimensions", "error"))],
    device: Annotated[str, options.option_of(TrainSettings, "device")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print the advice as json.", rich_help_panel=OUTPUT)] = False,
    load: options.Loading,
) -> None:
    """Say before any training whether layer selection is likely to matter for this pair, and which map to use.

    Says only what 48 sweeps showed (data/validation in anglekit's repository), with how often such a statement was
    right about tasks that it was not made from. Where nothing that can be measured beforehand chose better than
    forward, it recommends forward, and says that this is the default and not a finding.
    """
    options.check_names("--init", [init] if init is not None else (), INITS)
    options.check_losses(hidden_loss, "corrected")
    if hidden_loss in ATTENTION_LOSSES:
        raise InputError(
            f"--hidden-loss {hidden_loss} compares what attention makes, and the sweeps compared states", "take mse"
        )
    if task is not None:
        options.check_names("--task", [task], TASK_NAMES)
        options.check_task(task, columns, settings)
    made = {"--init": init, "--layers": layers, "--width": width}
    made |= {"--encoder-layers": encoder_layers, "--decoder-layers": decoder_layers}
    given = options.check_students(teacher, [] if student is None else [student], made)
    options.check_sources(given)
    options.check_sources([teacher], task=task, load=load)
    check_plain_plan(
        teacher,
        layers=layers,
        encoder_layers=encoder_layers,
        decoder_layers=decoder_layers,
        width=width,
        student=next(iter(given), None),
        layer_map=None,
        copy_map=None,
    )
    options.check_sources([], [probe], columns=columns, task=task, labelled_by=[teacher])

    from dataclasses import replace

    from anglekit.advice.advise import advise as advised

    found = advised(
        teacher,
        student,
        probe=probe,
        task=task,
        layers=layers,
        encoder_layers=encoder_layers,
        decoder_layers=decoder_layers,
        width=width,
        init=init,
        seed=seed,
        hidden_loss=hidden_loss,
        data=columns,
        settings=replace(settings, pairs=False),
        load=load,
        device=device,
    )
    typer.echo(json.dumps(found.to_json(), indent=2) if as_json else "\n\n".join(found.lines()))
