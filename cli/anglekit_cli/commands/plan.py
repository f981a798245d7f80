"""`anglekit plan`: what would be matched and copied, in a table, with warnings; nothing is computed."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from anglekit.distillation.matching.plain_plan import check_plain_plan
from anglekit.models.load_options import LoadOptions
from anglekit.settings_fields import OUTPUT, STUDENT
from anglekit.vocabulary import INITS
from anglekit_cli import options

EPILOG = "Example: anglekit plan bert-base-uncased --strategy forward --layers 3 --init teacher"


@options.takes_settings
def plan(
    teacher: Annotated[str, typer.Argument(metavar="TEACHER", help="Directory or hub id of the teacher.")],
    *,
    strategy: options.Strategy = None,
    layers: options.Layers = None,
    encoder_layers: options.EncoderLayers = None,
    decoder_layers: options.DecoderLayers = None,
    width: options.Width = None,
    init: options.Init = None,
    student: options.Student = None,
    seed: Annotated[
        int | None,
        typer.Option(
            help="Of the initialisation and the random order.",
            show_default="0; drawn for strategies that draw",
            rich_help_panel=STUDENT,
        ),
    ] = None,
    layer_map: options.LayerMap = None,
    copy: options.Copy = None,
    control: options.Control = None,
    geometry: options.GeometryToRead = None,
    hidden_loss: options.HiddenLoss = "mse",
    reading: options.Reading = "corrected",
    load: Annotated[LoadOptions, options.Options(only=("revision", "trust_remote_code"))],
    as_json: Annotated[bool, typer.Option("--json", help="Print the plan as json.", rich_help_panel=OUTPUT)] = False,
) -> None:
    """Show which teacher layer would teach which student layer.

    Warns of what is worth it, such as copied blocks that depend on their place. Reads the teacher's configuration only:
    no weights, no computation.
    """
    options.check_matching(strategy, layer_map, control)
    options.check_strategies([strategy], geometry, copy)
    options.check_losses(hidden_loss, reading, [strategy])
    options.check_names("--init", [init] if init is not None else (), INITS)
    made_of = {"--init": init, "--layers": layers, "--width": width, "--copy": copy}
    made_of |= {"--encoder-layers": encoder_layers, "--decoder-layers": decoder_layers}
    sources = options.check_students(
        teacher, [student] if student is not None else [], made_of, mapped=layer_map is not None
    )
    options.check_sources(sources)
    options.check_sources([teacher], load=load)
    check_plain_plan(
        teacher,
        layers=layers,
        encoder_layers=encoder_layers,
        decoder_layers=decoder_layers,
        width=width,
        student=next(iter(sources), None),
        layer_map=layer_map,
        copy_map=copy,
    )

    from anglekit.distillation.matching.map_text import parse_copy_map, parse_layer_map
    from anglekit.distillation.matching.plan import plan_distillation
    from anglekit.distillation.matching.plan_text import plan_text
    from anglekit.distillation.matching.plan_warnings import plan_warnings
    from anglekit.distillation.students.check import moved_differently
    from anglekit.distillation.students.create import student_config
    from anglekit.distillation.students.given import read_given
    from anglekit.models.architectures import model_streams
    from anglekit.models.checkpoints import checkpoint_of, composite_type, load_config

    config = load_config(checkpoint_of(teacher), load)
    whole = composite_type(checkpoint_of(teacher), load)
    streams = model_streams(config)
    given = None if student is None else next(iter(read_given(teacher, [student], load).values()))
    made = plan_distillation(
        config,
        teacher=teacher,
        strategy=strategy,
        layers=layers,
        encoder_layers=encoder_layers,
        decoder_layers=decoder_layers,
        width=width,
        init=init,
        given=given,
        seed=seed,
        layer_map=None if layer_map is None else parse_layer_map(layer_map, streams),
        copy_blocks=None if copy is None else parse_copy_map(copy, streams),
        control=control,
        geometry=geometry,
        hidden_loss=hidden_loss,
        reading=reading,
    )
    warnings = plan_warnings(made)
    if init == "teacher":
        blocks = {part.stream: part.blocks for part in made.streams}
        warnings += moved_differently(config, student_config(config, blocks=blocks), blocks, teacher)
    if as_json:
        composite = {"composite": whole} if whole else {}
        typer.echo(json.dumps({"plan": made.to_json(), "warnings": list(warnings), **composite}, indent=2))
        return
    if whole:
        typer.echo(f"The teacher is the text model inside a {whole} model, which reads text alone.\n")
    typer.echo(plan_text(made))
    for warning in warnings:
        typer.echo(f"\nwarning: {warning}")
