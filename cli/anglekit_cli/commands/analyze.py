"""`anglekit analyze`: a teacher seen from its students; `merge`: what jobs analysed apart."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from anglekit.analysis.settings import AnalysisSettings
from anglekit.errors import InputError
from anglekit.models.load_options import LoadOptions, check_roles, checkpoint_of
from anglekit.models.sources import check_layers
from anglekit.runtime.files import check_replaceable
from anglekit.runtime.launch import launched_together
from anglekit.runtime.placement import AUTO, Placement, check_device, check_offload
from anglekit.settings_fields import HARDWARE, OUTPUT
from anglekit.vocabulary import GEOMETRY_FILE, STORE_FILE
from anglekit_cli import options
from anglekit_cli.process import only_new_garbage

if TYPE_CHECKING:
    from anglekit.results.geometry import Geometry

EPILOG = "Example: anglekit analyze runs/teacher runs/forward runs/reverse --probe validation.tsv --out geometry"
_SAVE_EVERY = 100
MERGE_EPILOG = "Example: anglekit merge geometry-1 geometry-2 geometry-3 --out geometry"


def check_place(out: Path, overwrite: bool) -> None:
    """Raise the InputError for a directory that cannot be written, before anything is computed."""
    check_replaceable(out, GEOMETRY_FILE, overwrite=overwrite)
    if any(parent.exists() and not parent.is_dir() for parent in out.parents):
        raise InputError(f"{out} cannot be made: a part of its path is a file", "choose another directory")


@options.takes_settings
def analyze(
    teacher: Annotated[
        str,
        typer.Argument(help="The teacher: directory, run, hub id, or a state store of its states.", show_default=False),
    ],
    students: Annotated[
        list[str],
        typer.Argument(help="One or more students: directories, runs or hub ids.", show_default=False),
    ],
    *,
    probe: options.Probe,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Directory for the Geometry; it appears whole or not at all.",
            show_default="needed without --dry-run",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    columns: options.ProbeColumns,
    prompts: Annotated[str | None, options.option_of(AnalysisSettings, "prompts")] = None,
    settings: Annotated[AnalysisSettings, options.Options(without=("prompts",))],
    device: Annotated[str, options.option_of(LoadOptions, "device")] = AUTO,
    teacher_device: Annotated[
        str | None,
        typer.Option(help="Where the teacher goes.", show_default="that of --device", rich_help_panel=HARDWARE),
    ] = None,
    student_device: Annotated[
        str | None,
        typer.Option(help="Where the students go.", show_default="that of --device", rich_help_panel=HARDWARE),
    ] = None,
    placement: Annotated[Placement, options.Options()],
    load: Annotated[LoadOptions, options.Options(without=("device",))],
    shard: Annotated[
        str | None,
        typer.Option(
            metavar="I/N",
            help="Analyse the I-th of N parts and save its sums too, for anglekit merge: about 8 kB for each student "
            "layer and pair of teacher layers, and up to 256 MB of sampled states (1 GB more with --similarity all).",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Keep what is measured in OUT.unfinished, and go on from there if a run was stopped; the result is "
            "the uninterrupted one.",
            rich_help_panel=OUTPUT,
        ),
    ] = False,
    save_every: Annotated[
        int, typer.Option(help="With --resume, batches after which it is kept.", rich_help_panel=OUTPUT)
    ] = _SAVE_EVERY,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Print models, tokens, FLOPs and memory, and stop; reads no weights and writes nothing.",
            rich_help_panel=OUTPUT,
        ),
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an output directory that exists.", rich_help_panel=OUTPUT)
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="No progress bar and no summary.", rich_help_panel=OUTPUT)
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as json.", rich_help_panel=OUTPUT)] = False,
    context: typer.Context,
) -> None:
    """Measure a teacher's layers as seen from its students.

    The angles between them, and everything beside: chance, similarity, norms, null baselines.

    Several processes share the probe and give the same result: accelerate launch --multi_gpu --num_processes 2 -m
    anglekit_cli analyze ... (--multi_gpu also on processors; torchrun does as well).
    """
    # Cheap mistakes are found before anything heavy is imported, and before large weights are read.
    alone = not launched_together()
    out = options.place_of(out, dry_run)
    if alone and not dry_run:
        check_place(out, overwrite or resume)
    part = options.parse_shard(shard)
    read = prompts or ("alone" if columns.target in (None, "-") else "included")
    settings = replace(settings, prompts=read)  # type: ignore[arg-type]  # checked by the settings themselves
    if not resume:
        options.check_effects({"--save-every": save_every != _SAVE_EVERY}, "came without --resume")
    official = settings.reading == "official"
    check_offload(placement.offload, shared=part is not None or not alone, official=official)
    stored = (Path(teacher) / STORE_FILE).is_file()
    models = students if stored else [teacher, *students]
    options.check_sources(models, [probe], columns=columns, load=load)
    for name, place in (("device", device), ("teacher_device", teacher_device), ("student_device", student_device)):
        if alone and place not in (None, AUTO):
            check_device(place, name)
    for student in students if alone else ():
        check_roles(teacher, student)
        check_layers(checkpoint_of(student), settings.vertices)
    if alone and not stored:
        check_layers(checkpoint_of(teacher), settings.teacher_layers)
    verbose = bool(context.find_root().params.get("verbose"))
    if stored:
        unused = {"--teacher-device": teacher_device is not None, "--offload": placement.offload is not None}
        options.check_effects(unused, "came with a state store as teacher")
    if stored and dry_run:
        raise InputError(
            f"{teacher} is a state store, and --dry-run estimates what running a teacher takes",
            "leave --dry-run out, or give the teacher itself",
        )

    from anglekit.analysis.jobs.job import save_analysis
    from anglekit.analysis.preparation import blocks_to_hold, check_tokenizers
    from anglekit.models.checkpoints import load_checkpoint, load_config
    from anglekit.probes.data import read_probe
    from anglekit.runtime.processes import launched_processes
    from anglekit.states.store import load_stored_teacher

    with launched_processes(device) as (processes, own_device):
        with processes.together():
            if processes.first and not alone and not dry_run:
                check_place(out, overwrite or resume)
            for student in () if alone else students:
                check_roles(teacher, student)
            if placement.device_map is not None and not alone:
                raise InputError(
                    f"--device-map {placement.device_map!r} spreads one process's models over all devices, and several "
                    "processes were launched",
                    "start one, or leave the map out",
                )
            data = read_probe(
                probe,
                text=columns.text,
                text_pair=columns.text_pair,
                target=columns.target,
                limit=columns.limit,
                seed=settings.seed,
                column_names=columns.names,
            )
            loading = []
            for number, source in enumerate((teacher, *students)):
                own = teacher_device if number == 0 else student_device
                # A model that is larger than the memory is a teacher.
                placed = placement if number == 0 or placement.offload is None else Placement()
                there = replace(
                    load,
                    device=own or own_device,
                    placement=placed
                    if own is None
                    else Placement(quantization=placed.quantization, offload=placed.offload),
                )
                blocks = None
                if number or not stored:
                    config = load_config(checkpoint_of(source), there)
                    blocks = blocks_to_hold(config, settings, teacher=number == 0)
                loading.append(replace(there, blocks=blocks))
            plan = None
            if dry_run or (verbose and not stored):
                from anglekit.analysis.forecast import forecast_analysis

                plan = forecast_analysis(teacher, students, data, settings, loading, shard=part)
            if not dry_run and not stored:
                check_tokenizers(teacher, students, load)
            sources = [] if dry_run else zip((teacher, *students), loading, strict=True)
            loaded = [
                load_stored_teacher(source) if stored and number == 0 else load_checkpoint(source, each)
                for number, (source, each) in enumerate(sources)
            ]
        if plan is not None and dry_run:
            if processes.first:
                typer.echo(json.dumps(plan.summary()) if as_json else plan.text())
            return
        with only_new_garbage():
            geometry = save_analysis(
                out,
                loaded[0],
                loaded[1:],
                data,
                settings,
                shard=part,
                processes=processes,
                save_every=save_every if resume else None,
                overwrite=overwrite,
                progress=processes.first and not quiet and not as_json,
            )
    if plan is not None:
        from anglekit.analysis.forecast import peak_memory

        taken, expected = peak_memory(), plan.peak()
        typer.echo(
            f"peak memory {taken / 2**20:,.0f} MiB, estimated {expected / 2**20:,.0f} MiB ({taken / expected:.2f})",
            err=True,
        )
    if geometry is None:  # the first process prints
        return
    print_result(geometry, out, quiet=quiet, as_json=as_json)
    if part is not None and not quiet and not as_json:
        typer.echo(f"This is part {part}; join all {part.of}: anglekit merge PART... --out DIR")


def merge(
    shards: Annotated[
        list[Path],
        typer.Argument(help="What analyze --shard or extract --shard wrote: every part once.", show_default=False),
    ],
    out: Annotated[
        Path, typer.Option(help="Directory for the whole; it appears whole or not at all.", rich_help_panel=OUTPUT)
    ],
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an output directory that exists.", rich_help_panel=OUTPUT)
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No summary.", rich_help_panel=OUTPUT)] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as json.", rich_help_panel=OUTPUT)] = False,
) -> None:
    """Join the parts of an analysis, or of a state store, that separate jobs made.

    The result is the Geometry or the store that one job would have given.
    """
    if any((shard / STORE_FILE).is_file() for shard in shards):
        check_replaceable(out, STORE_FILE, overwrite=overwrite)

        from anglekit.analysis.jobs.store_parts import merge_stores

        store = merge_stores(shards, out, overwrite=overwrite)
        if as_json:
            typer.echo(json.dumps({"out": str(out), "texts": store.n_examples, "layers": store.document.layers}))
        elif not quiet:
            typer.echo(f"{store.document.model.name}: {store.n_examples:,} different texts. Written to {out}.")
        return
    check_place(out, overwrite)

    from anglekit.analysis.jobs.shards import merge_shards

    geometry = merge_shards(shards)
    print_result(geometry, geometry.save(out, overwrite=overwrite), quiet=quiet, as_json=as_json)


def print_result(geometry: Geometry, written: Path, *, quiet: bool, as_json: bool) -> None:
    """Print what an analysis found and where it was written."""
    if as_json:
        typer.echo(json.dumps({"out": str(written), "rows": geometry.summary_rows()}))
    elif not quiet:
        typer.echo(_summary(geometry))
        typer.echo(f"Written to {written}. Draw it: anglekit plot {written} --figure figure1 --out figure1.png")


def _summary(geometry: Geometry) -> str:
    from anglekit.display.counts import counted
    from anglekit.display.tables import aligned_text
    from anglekit.results.overview import layer_table

    document = geometry.document
    tokens = next(iter(next(iter(document.counts.by_student.values())).values())).tokens
    rows, read = geometry.summary_rows(), document.provenance.probe
    lines = [
        "",
        f"{document.provenance.teacher.name} seen from {', '.join(geometry.students)}: "
        f"{counted(document.counts.examples or 0, 'example')}, {counted(tokens, 'token')}"
        + (", official reading" if geometry.official else ""),
        options.columns_read(
            {read.source or "the probe": [part for part in (read.text, read.text_pair, read.target) if part]},
            {read.source or "the probe": document.provenance.probe_notes},
        ),
        "",
        aligned_text(layer_table(rows, short=True)),
        "",
        "angle: between the directions from the student's layer to two teacher layers, mean over tokens and pairs.",
        "  Below 90° (acute) a pull toward one teacher layer is a pull toward the other.",
        "chance: the cosine that unrelated vectors of the same lengths would show. A cosine near it says nothing.",
        "tangential: the cosine with the student's own direction taken out; 0 for unrelated vectors.",
        "obtuse: pairs of teacher layers that are obtuse on average.",
    ]
    if any(row["mean_cosine"] is None for row in rows):
        lines.append("blank: no angle, because every pair of teacher layers is degenerate at that layer.")
    if any(row["permuted_cosine"] is not None for row in rows):
        lines += [
            "permuted: the cosine with the student's state taken from another example (a sample of the probe).",
            "above, below: pairs of teacher layers whose cosine is surely above or below that: 95% for all pairs, "
            "layers and students together (permutation test).",
            "  Below means wider angles than for another example's state: the student is close to the teacher's "
            "layers.",
        ]
    lines += [*(f"note: {note}" for note in geometry.notes()), ""]
    return "\n".join(lines)
