"""`anglekit extract`: a model's hidden states, stored to be read instead of running it again."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from anglekit.analysis.settings import AnalysisSettings
from anglekit.models.load_options import LoadOptions, checkpoint_of
from anglekit.models.sources import check_layers
from anglekit.runtime.files import check_replaceable
from anglekit.runtime.launch import launched_together
from anglekit.runtime.placement import AUTO, Placement, check_device, check_offload
from anglekit.settings_fields import DATA, MEASURED, OUTPUT
from anglekit.vocabulary import STORE_FILE, STORED_NAMES
from anglekit_cli import options

EPILOG = "Example: anglekit extract runs/teacher --data validation.tsv --out states"


@options.takes_settings
def extract(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Directory, run or hub id.", show_default=False)],
    *,
    data: Annotated[
        str, typer.Option(help=options.Probe.__metadata__[0].help.replace("Probe texts", "Texts"), rich_help_panel=DATA)
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            help="Directory for the state store; it appears whole or not at all.",
            show_default="needed without --dry-run",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    states_dtype: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Precision of the store: float32, bfloat16, float16 or int8. What it does to the angles is measured "
            "and recorded.",
            rich_help_panel=MEASURED,
        ),
    ] = "float32",
    columns: options.ProbeColumns,
    prompts: Annotated[str | None, options.option_of(AnalysisSettings, "prompts")] = None,
    settings: Annotated[
        AnalysisSettings,
        options.Options(
            only=(
                *("teacher_layers", "final_norm", "max_length", "target_max_length", "source_lang", "target_lang"),
                *("token_budget", "seed"),
            )
        ),
    ],
    device: Annotated[str, options.option_of(LoadOptions, "device")] = AUTO,
    placement: Annotated[Placement, options.Options()],
    load: Annotated[LoadOptions, options.Options(without=("device",))],
    shard: Annotated[
        str | None,
        typer.Option(
            metavar="I/N",
            help="Write the I-th of N parts, for anglekit merge.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Print how many texts and bytes it would be, and stop; writes nothing.",
            rich_help_panel=OUTPUT,
        ),
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a store that exists.", rich_help_panel=OUTPUT)
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="No progress bar and no summary.", rich_help_panel=OUTPUT)
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as json.", rich_help_panel=OUTPUT)] = False,
) -> None:
    """Store a model's hidden states, to be read instead of running it again.

    `anglekit analyze STATES STUDENT... --probe F` takes a store as its teacher: the texts of F must be in it.

    A run that was stopped, however it was stopped, goes on when it is started again. Several processes share the work:
    accelerate launch --multi_gpu --num_processes 2 -m anglekit_cli extract ...
    """
    alone = not launched_together()
    out = options.place_of(out, dry_run)
    options.check_names("--states-dtype", [states_dtype], STORED_NAMES)
    chosen, settings = settings.teacher_layers, replace(settings, teacher_layers=None)
    was_there = (out / STORE_FILE).is_file() and not overwrite
    if alone and not dry_run and not was_there:
        check_replaceable(out, STORE_FILE, overwrite=overwrite)
    read = prompts or ("alone" if columns.target in (None, "-") else "included")
    settings = replace(settings, prompts=read)  # type: ignore[arg-type]  # checked by the settings themselves
    part = options.parse_shard(shard)
    check_offload(placement.offload, shared=part is not None or not alone)
    options.check_sources([model], [data], columns=columns, load=load)
    if alone:
        check_layers(checkpoint_of(model), chosen)
    if alone and device != AUTO:
        check_device(device, "device")

    from anglekit.analysis.jobs.extract import extract_states, prepare_extraction
    from anglekit.analysis.preparation import blocks_to_hold, in_languages
    from anglekit.models.checkpoints import load_checkpoint, load_config
    from anglekit.probes.data import read_probe
    from anglekit.runtime.processes import launched_processes

    with launched_processes(device) as (processes, own_device):
        with processes.together():
            texts = read_probe(
                data,
                text=columns.text,
                text_pair=columns.text_pair,
                target=columns.target,
                limit=columns.limit,
                seed=settings.seed,
                column_names=columns.names,
            )
            there = replace(load, device=own_device, placement=placement)
            config = load_config(checkpoint_of(model), there)
            wanted = replace(settings, teacher_layers=chosen)
            held = replace(there, blocks=blocks_to_hold(config, wanted, teacher=True))
            checkpoint = load_checkpoint(model, held)
            texts = replace(texts, notes=in_languages([checkpoint], texts, settings).notes)
        if dry_run:
            planned = prepare_extraction(checkpoint, texts, settings, layers=chosen, stored=states_dtype, part=part)
            counts = {stream: planned.probe.n_tokens(stream) for stream in planned.probe.streams}
            if processes.first and as_json:
                layers_held = planned.document.layers
                told = {"texts": planned.probe.n_examples, "tokens": counts, "layers": layers_held}
                typer.echo(json.dumps({**told, "bytes": planned.bytes}))
            elif processes.first:
                tokens = " and ".join(f"{count:,} tokens ({stream})" for stream, count in counts.items())
                typer.echo(
                    f"{planned.probe.n_examples:,} texts, {tokens}, stored as {states_dtype}: "
                    f"{planned.bytes / 1e6:,.1f} MB"
                )
            return
        store = extract_states(
            out,
            checkpoint,
            texts,
            settings,
            layers=chosen,
            stored=states_dtype,
            part=part,
            overwrite=overwrite,
            processes=processes,
            progress=processes.first and not quiet and not as_json,
        )
    if not processes.first:
        return
    document = store.document
    size = sum(shard.bytes for shard in document.shards)
    if as_json:
        told = {"out": str(out), "texts": store.n_examples, "bytes": size, "layers": document.layers}
        typer.echo(json.dumps({**told, "stored": document.stored, "rounding": store.rounding_words}))
    elif not quiet:
        read_columns = ", ".join(
            name for name in (texts.text_column, texts.text_pair_column, texts.target_column) if name
        )
        typer.echo(
            f"{document.model.name}: {store.n_examples:,} different texts ({read_columns}), {size / 1e6:,.1f} MB, "
            f"{store.rounding_words}."
        )
        for note in texts.notes:
            typer.echo(f"note: {note}", err=True)
        if part is not None:
            typer.echo(f"This is part {part}; join all {part.of}: anglekit merge PART... --out {out}")
            return
        where = f"It was in {out} already" if was_there else f"Written to {out}"
        given = {
            "text": columns.text,
            "text-pair": columns.text_pair,
            "target": columns.target,
            "max-length": settings.max_length,
            "target-max-length": settings.target_max_length,
        }
        same = "".join(f" --{name} {value}" for name, value in given.items() if value is not None)
        typer.echo(f"{where}. Analyse with it: anglekit analyze {out} STUDENT --probe {data}{same} --out geometry")
