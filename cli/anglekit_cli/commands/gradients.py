"""`anglekit gradients`: the angles between the gradients that different losses send into a student's weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from anglekit.display.tables import aligned_text
from anglekit.distillation.losses.weights import LossWeights
from anglekit.distillation.matching.map_text import check_form
from anglekit.distillation.matching.plain_plan import check_plain_plan
from anglekit.distillation.settings import DataSettings, TrainSettings, check_cacheable
from anglekit.parameter_space.settings import GradientSettings, check_measurable
from anglekit.readings import check_reading
from anglekit.runtime.files import check_replaceable
from anglekit.settings_fields import OUTPUT, STUDENT
from anglekit.vocabulary import GRADIENTS_FILE, INITS, NONE, PAPER_STRATEGIES, STRATEGIES
from anglekit_cli import options

if TYPE_CHECKING:
    from anglekit.results.gradients import GradientGeometry

EPILOG = "Example: anglekit gradients teacher --layers 3 --init teacher --task sst2 --probe dev.tsv --out gradients"


@options.takes_settings
def gradients(
    teacher: options.Teacher,
    students: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[STUDENT]...",
            help="Directories or hub ids of students, runs, or checkpoints of a run, also NAME=DIR; none: one before "
            "training, made as distill makes it.",
            show_default=False,
        ),
    ] = None,
    *,
    task: options.Task,
    probe: Annotated[
        str,
        typer.Option(
            help=options.Probe.__metadata__[0].help.replace("Probe texts", "Probe texts with labels"),
            rich_help_panel="Data",
        ),
    ],
    out: Annotated[Path, typer.Option(help="Directory of the result, whole or absent.", rich_help_panel=OUTPUT)],
    strategies: Annotated[
        str,
        typer.Option(
            metavar="NAMES",
            help=f"Some of {', '.join(name for name in STRATEGIES if name != NONE)}, with commas.",
            rich_help_panel=STUDENT,
        ),
    ] = ",".join(name for name in PAPER_STRATEGIES if name != NONE),
    layers: options.Layers = None,
    encoder_layers: options.EncoderLayers = None,
    decoder_layers: options.DecoderLayers = None,
    width: options.Width = None,
    init: options.Init = None,
    copy: options.Copy = None,
    geometry: options.GeometryToRead = None,
    weights: Annotated[LossWeights, options.Options(prefix="alpha_")],
    hidden_loss: options.HiddenLoss = "mse",
    reading: options.Reading = "corrected",
    seed: Annotated[
        int,
        typer.Option(
            help="Of the student that is made, of random orders, of the choice of examples and of projections.",
            rich_help_panel=STUDENT,
        ),
    ] = 0,
    columns: Annotated[DataSettings, options.Options(without=("limit",))],
    settings: Annotated[GradientSettings, options.Options()],
    teacher_cache: Annotated[str | None, options.option_of(TrainSettings, "teacher_cache")] = None,
    device: Annotated[str, options.option_of(TrainSettings, "device")] = "auto",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a result that exists.", rich_help_panel=OUTPUT)
    ] = False,
    quiet: options.Quiet = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the agreement with the task as json.", rich_help_panel=OUTPUT)
    ] = False,
    load: options.Loading,
) -> None:
    """Measure in which directions losses pull a student's weights: matching, cross-entropy and KL.

    For squared error, the angle at the student's state is the angle between the gradients of matching one teacher layer
    or another, at that state. Training follows the gradient in the weights, which this measures: of every student layer
    with every teacher layer, of whole strategies, and against the task. It says whether matching helps or fights it.
    """
    chosen = options.names_of("--strategies", strategies) or ()
    options.check_names("--strategies", chosen, [name for name in STRATEGIES if name != NONE])
    options.check_strategies(chosen, geometry, copy)
    options.check_names("--init", [init] if init is not None else (), INITS)
    options.check_losses(hidden_loss, reading, chosen)
    check_measurable(hidden_loss, settings)
    check_cacheable(teacher_cache, reading=reading, hidden_loss=hidden_loss, weight=weights.hidden)
    options.check_task(task, columns, settings)
    check_reading(reading, task)
    check_form(None, copy)
    made = {"--init": init, "--layers": layers, "--width": width, "--copy": copy}
    made |= {"--encoder-layers": encoder_layers, "--decoder-layers": decoder_layers}
    given = options.check_students(teacher, students or [], made)
    check_replaceable(out, GRADIENTS_FILE, overwrite=overwrite)
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
        copy_map=copy,
    )
    options.check_sources([], [probe], columns=columns, task=task, labelled_by=[teacher])

    from anglekit.distillation.matching.map_text import parse_copy_map
    from anglekit.models.architectures import model_streams
    from anglekit.models.checkpoints import checkpoint_of, load_config
    from anglekit.parameter_space.measure import gradients as measure

    streams = model_streams(load_config(checkpoint_of(teacher), load))
    found = measure(
        teacher,
        students or (),
        probe=probe,
        task=task,
        strategies=chosen,
        layers=layers,
        encoder_layers=encoder_layers,
        decoder_layers=decoder_layers,
        width=width,
        init=init,
        copy_blocks=None if copy is None else parse_copy_map(copy, streams),
        seed=seed,
        weights=weights,
        hidden_loss=hidden_loss,
        reading=reading,
        geometry=geometry,
        data=columns,
        settings=settings,
        load=load,
        teacher_cache=teacher_cache,
        device=device,
        progress=not quiet and not as_json,
    )
    found.save(out, overwrite=overwrite)
    _print(found, out, quiet=quiet, as_json=as_json)


def _print(found: GradientGeometry, out: Path, *, quiet: bool, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(json.loads(found.agreement().to_json(orient="records")), indent=2))
        return
    if quiet:
        return
    for sentence in found.sentences():
        typer.echo(sentence)
    typer.echo(f"\n{aligned_text(found.table())}\n")
    provenance = found.provenance
    projected = sorted({part for each in provenance["students"] for part in each["projected_parts"]})
    how = f"projected in {', '.join(projected)}" if projected else "exact"
    typer.echo(
        f"{provenance['examples']} examples in {provenance['groups']} groups, {how}; "
        "cosine is of these examples, expected of all of their kind"
    )
    typer.echo(f"columns read: {', '.join(provenance['probe'].get('columns', ()))}")
    typer.echo(f"saved in {out}")
