"""`anglekit distill`: make a student of a teacher and train it under one layer-matching strategy."""

from __future__ import annotations

from typing import Annotated

import typer

from anglekit.distillation.losses.weights import LossWeights
from anglekit.distillation.matching.map_text import check_form
from anglekit.distillation.matching.plain_plan import check_plain_attention, check_plain_plan
from anglekit.distillation.settings import check_cacheable, check_watched
from anglekit.readings import check_reading
from anglekit.settings_fields import MEASURED
from anglekit.vocabulary import INITS, NONE
from anglekit_cli import options
from anglekit_cli.commands.finetune import print_result
from anglekit_cli.commands.push import publish

EPILOG = (
    "Example: anglekit distill teacher --strategy forward --init teacher --layers 3 --task sst2 --train train.tsv "
    "--validation dev.tsv --out runs/forward"
)


@options.takes_settings
def distill(
    teacher: options.Teacher,
    *,
    task: options.Task,
    train: options.Train,
    out: options.Out,
    strategy: options.Strategy = None,
    layer_map: options.LayerMap = None,
    layers: options.Layers = None,
    encoder_layers: options.EncoderLayers = None,
    decoder_layers: options.DecoderLayers = None,
    width: options.Width = None,
    init: options.Init = None,
    student: options.Student = None,
    copy: options.Copy = None,
    control: options.Control = None,
    geometry: options.GeometryToRead = None,
    weights: Annotated[LossWeights, options.Options(prefix="alpha_")],
    hidden_loss: options.HiddenLoss = "mse",
    reading: options.Reading = "corrected",
    match_streams: options.MatchStreams = None,
    validation: options.Validation = None,
    columns: options.Columns,
    settings: options.Training,
    placement: options.TeacherPlacement,
    angles_every: Annotated[
        int | None,
        typer.Option(
            metavar="STEPS",
            help="Measure the angles on --probe before training, after every so many steps and at the end; kept in "
            "RUN/angles, for plot RUN --figure training-angles. The student is the same bit for bit.",
            rich_help_panel=MEASURED,
        ),
    ] = None,
    probe: Annotated[
        str | None, typer.Option(help="Texts for --angles-every: a table as of --train.", rich_help_panel=MEASURED)
    ] = None,
    resume: options.Resume = False,
    overwrite: options.Overwrite = False,
    hub: options.Publishing,
    quiet: options.Quiet = False,
    as_json: options.AsJson = False,
    load: options.Loading,
) -> None:
    """Train a student under one layer-matching strategy.

    The student is made of the teacher, or is one that is there already (--student); it is trained and scored.
    """
    options.check_matching(strategy, layer_map, control)
    options.check_strategies([strategy], geometry, copy)
    options.check_names("--init", [init] if init is not None else (), INITS)
    options.check_losses(hidden_loss, reading, [strategy])
    check_cacheable(settings.teacher_cache, reading=reading, hidden_loss=hidden_loss, weight=weights.hidden)
    options.check_task(task, columns, settings, scored=bool(validation))
    check_reading(reading, task)
    options.check_teaching(
        settings,
        weights,
        hidden_loss=hidden_loss,
        matches=strategy != NONE,
        match_streams=match_streams,
        control=control,
    )
    check_watched(angles_every, probe)
    check_form(layer_map, copy)
    mode = options.if_exists(resume, overwrite, out)
    streams_matched = options.names_of("--match-streams", match_streams)
    made = {"--init": init, "--layers": layers, "--width": width, "--copy": copy}
    made |= {"--encoder-layers": encoder_layers, "--decoder-layers": decoder_layers}
    given = options.check_students(
        teacher, [student] if student is not None else [], made, mapped=layer_map is not None
    )
    options.check_sources(given, [] if probe is None else [probe])
    options.check_sources([teacher], task=task, load=load)
    check_plain_plan(
        teacher,
        layers=layers,
        encoder_layers=encoder_layers,
        decoder_layers=decoder_layers,
        width=width,
        student=next(iter(given), None),
        layer_map=layer_map,
        copy_map=copy,
    )
    check_plain_attention(
        teacher,
        hidden_loss=hidden_loss,
        relation_heads=settings.relation_heads,
        width=width,
        student=next(iter(given), None),
    )
    options.check_sources([], [train], validation, columns=columns, task=task, labelled_by=[teacher])
    settings.check_packages()
    hub.check_here()
    load = options.teacher_loading(load, settings, placement)

    from anglekit.distillation.matching.map_text import parse_copy_map, parse_layer_map
    from anglekit.distillation.runs.train import distill as run
    from anglekit.models.architectures import model_streams
    from anglekit.models.checkpoints import checkpoint_of, load_config

    streams = model_streams(load_config(checkpoint_of(teacher), load))
    result = run(
        teacher,
        strategy=strategy,
        layer_map=None if layer_map is None else parse_layer_map(layer_map, streams),
        copy_blocks=None if copy is None else parse_copy_map(copy, streams),
        control=control,
        task=task,
        train=train,
        out=out,
        layers=layers,
        encoder_layers=encoder_layers,
        decoder_layers=decoder_layers,
        width=width,
        init=init,
        student=student,
        validation=validation or (),
        data=columns,
        settings=settings,
        load=load,
        if_exists=mode,
        progress=not quiet and not as_json,
        note=lambda said: None if quiet else typer.echo(f"note: {said}", err=True),
        warn=lambda said: None if quiet else typer.echo(f"warning: {said}", err=True),
        weights=weights,
        hidden_loss=hidden_loss,
        reading=reading,
        match_streams=streams_matched,
        geometry=geometry,
        angles_every=angles_every,
        probe=probe,
    )
    print_result(result, quiet=quiet, as_json=as_json)
    publish(result.directory, hub, quiet=quiet or as_json)
