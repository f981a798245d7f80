"""`anglekit analyze`: a teacher seen from its students, on probe data."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from anglekit.errors import InputError
from anglekit_cli.process import only_new_garbage

if TYPE_CHECKING:
    from anglekit.analysis.preparation import Shard
    from anglekit.results.geometry import Geometry

EPILOG = "Example: anglekit analyze runs/teacher runs/forward runs/reverse --probe validation.tsv --out geometry"


def _layer_list(text: str | None, option: str) -> tuple[int, ...] | None:
    if text is None:
        return None
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts or not all(part.isdecimal() for part in parts):
        raise InputError(
            f"{option} {text!r} is not a list of layers", "give numbers such as 0,6,12 (0 is the embedding)"
        )
    return tuple(int(part) for part in parts)


def _shard(text: str | None) -> Shard | None:
    if text is None:
        return None
    number, slash, of = text.partition("/")
    if not (slash and number.isdecimal() and of.isdecimal()) or len(text) > 18:
        raise InputError(f"--shard {text!r} is not a part", "give one such as 2/4, the second of four")
    from anglekit.analysis.preparation import Shard

    return Shard(int(number), int(of))


def check_place(out: Path, overwrite: bool) -> None:
    """Raise the InputError for a directory that cannot be written, before anything is computed."""
    if out.exists() and not overwrite:
        raise InputError(f"{out} exists", "choose another directory, or replace it with --overwrite")
    if any(parent.exists() and not parent.is_dir() for parent in out.parents):
        raise InputError(f"{out} cannot be made: a part of its path is a file", "choose another directory")


def analyze(
    teacher: Annotated[str, typer.Argument(help="The teacher: directory, run or hub id.", show_default=False)],
    students: Annotated[
        list[str],
        typer.Argument(help="One or more students: directories, runs or hub ids.", show_default=False),
    ],
    probe: Annotated[
        str,
        typer.Option(
            help="Probe texts: .jsonl, .csv, .tsv, .parquet, hub:NAME[/CONFIG]:SPLIT or builtin:NAME[:SPLIT]."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Directory for the Geometry; it appears whole or not at all.")],
    text: Annotated[str | None, typer.Option(help="Column of the text; found by its usual names.")] = None,
    text_pair: Annotated[
        str | None, typer.Option(help="Column of the second text; '-' for none; found by its usual names.")
    ] = None,
    target: Annotated[
        str | None, typer.Option(help="Column of the target, read teacher-forced; found by its usual names.")
    ] = None,
    prompts: Annotated[
        str | None,
        typer.Option(
            metavar="alone|included|excluded",
            help="Causal models: read the text alone, or its target too and count the text's tokens or not.",
            show_default="included with --target, else alone",
        ),
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Use that many examples, drawn at random.")] = None,
    max_length: Annotated[int | None, typer.Option(help="Most tokens of a text; longer ones are truncated.")] = None,
    target_max_length: Annotated[int | None, typer.Option(help="Most tokens of a target.")] = None,
    special_tokens: Annotated[
        bool, typer.Option("--special-tokens/--no-special-tokens", help="Count special tokens, or leave them out.")
    ] = True,
    reading: Annotated[
        str, typer.Option(help="corrected, or official: what the paper's analysis code computes.")
    ] = "corrected",
    pad_to: Annotated[int, typer.Option(help="Padded length of the official reading.")] = 128,
    final_norm: Annotated[
        str, typer.Option(help="Last state before a final norm (excluded) or behind it (included).")
    ] = "excluded",
    projection: Annotated[
        str | None,
        typer.Option(help="For a student of another width: adapter, least-squares or procrustes."),
    ] = None,
    teacher_layers: Annotated[
        str | None, typer.Option(help="Teacher layers to keep, e.g. 0,6,12; all by default.")
    ] = None,
    vertices: Annotated[str | None, typer.Option(help="Student layers to keep, e.g. 1,3; all by default.")] = None,
    nulls: Annotated[
        str,
        typer.Option(
            help="Null baselines, vertex sweep and anisotropy: default (a few percent of the time), all (with a "
            "rotated and an untrained student and Gaussians of the layers' covariance) or none."
        ),
    ] = "default",
    similarity: Annotated[
        str,
        typer.Option(
            help="CKA between layers: default (up to 256 examples), all (the whole probe; Procrustes distance and "
            "mutual neighbours too; slow) or none."
        ),
    ] = "default",
    batch_tokens: Annotated[int, typer.Option(help="Most tokens of a batch, padding included.")] = 4096,
    seed: Annotated[int, typer.Option(help="Seed of the random draws.")] = 0,
    device: Annotated[str, typer.Option(help="Where to compute: cpu, cuda, cuda:1, mps.")] = "cpu",
    teacher_device: Annotated[
        str | None, typer.Option(help="Where the teacher goes.", show_default="that of --device")
    ] = None,
    student_device: Annotated[
        str | None, typer.Option(help="Where the students go.", show_default="that of --device")
    ] = None,
    device_map: Annotated[
        str | None,
        typer.Option(
            metavar="auto|balanced|balanced_low_0|sequential|JSON",
            help="Spread each model that has no device of its own over devices, and the disk where they are too small; "
            'as json the device of every part: \'{"embeddings": "cpu", "encoder": "disk"}\'.',
            show_default="one device",
        ),
    ] = None,
    max_memory: Annotated[
        str | None,
        typer.Option(help="With --device-map auto: the most of each device, 0=10GiB,cpu=30GiB.", show_default="all"),
    ] = None,
    offload_folder: Annotated[
        str | None,
        typer.Option(help="With --device-map: where weights go that the disk holds and no safetensors file has."),
    ] = None,
    dtype: Annotated[str, typer.Option(help="Precision of the models: float32, bfloat16, float16.")] = "float32",
    quantization: Annotated[
        str | None,
        typer.Option(
            metavar="8bit|4bit", help="Quantise weights while they are loaded (needs bitsandbytes).", show_default="no"
        ),
    ] = None,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit of hub checkpoints.")] = None,
    allow_pickle: Annotated[
        bool, typer.Option("--allow-pickle", help="Accept pickled weights, which can run code when read.")
    ] = False,
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Accept checkpoints that bring their own code.")
    ] = False,
    shard: Annotated[
        str | None,
        typer.Option(
            metavar="I/N",
            help="Analyse the I-th of N parts and save its sums too, for anglekit merge: about 8 kB for each student "
            "layer and pair of teacher layers, and up to 256 MB of sampled states (1 GB more with --similarity all).",
        ),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Keep what is measured in OUT.unfinished, and go on from there if a run was stopped; the result is "
            "the uninterrupted one.",
        ),
    ] = False,
    save_every: Annotated[int, typer.Option(help="With --resume, batches after which it is kept.")] = 100,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Print models, tokens, FLOPs and memory, and stop; reads no weights and writes nothing."
        ),
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an output directory that exists.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar and no summary.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as json.")] = False,
    *,
    context: typer.Context,
) -> None:
    """Compute the angles between a teacher's layers as seen from its students, and everything beside them.

    Several processes share the probe and give the same result: accelerate launch --multi_gpu --num_processes 2 -m
    anglekit_cli analyze ... (--multi_gpu also on processors; torchrun does as well).
    """
    # Cheap mistakes are found before anything heavy is imported, and before large weights are read.
    alone = int(os.environ.get("WORLD_SIZE", "1") or 1) < 2
    if alone and not dry_run:
        check_place(out, overwrite or resume)
    part = _shard(shard)
    chosen_layers = _layer_list(teacher_layers, "--teacher-layers")
    chosen_vertices = _layer_list(vertices, "--vertices")
    verbose = bool(context.find_root().params.get("verbose"))

    from anglekit.analysis.job import save_analysis
    from anglekit.analysis.preparation import blocks_to_hold
    from anglekit.analysis.settings import AnalysisSettings
    from anglekit.models.checkpoints import checkpoint_of, load_checkpoint, load_config
    from anglekit.models.load_options import LoadOptions
    from anglekit.probes.data import read_probe
    from anglekit.runtime.placement import Placement
    from anglekit.runtime.processes import launched_processes

    settings = AnalysisSettings(
        reading=reading,  # type: ignore[arg-type]  # checked by the settings themselves
        final_norm=final_norm,  # type: ignore[arg-type]
        projection=projection,  # type: ignore[arg-type]
        special_tokens=special_tokens,
        max_length=max_length,
        target_max_length=target_max_length,
        prompts=prompts or ("alone" if target in (None, "-") else "included"),  # type: ignore[arg-type]
        token_budget=batch_tokens,
        pad_to=pad_to,
        teacher_layers=chosen_layers,
        vertices=chosen_vertices,
        seed=seed,
        nulls=nulls,  # type: ignore[arg-type]
        similarity=similarity,  # type: ignore[arg-type]
    )
    with launched_processes(device) as (processes, own_device):
        with processes.together():
            if processes.first and not alone:
                check_place(out, overwrite or resume)
            if device_map is not None and not alone:
                raise InputError(
                    f"--device-map {device_map!r} spreads one process's models over all devices, and several processes "
                    "were launched",
                    "start one, or leave the map out",
                )
            spread = Placement(device_map, max_memory, offload_folder, quantization)
            data = read_probe(probe, text=text, text_pair=text_pair, target=target, limit=limit, seed=seed)
            options = []
            for number, source in enumerate((teacher, *students)):
                own = teacher_device if number == 0 else student_device
                there = LoadOptions(
                    device=own or own_device,
                    dtype=dtype,
                    revision=revision,
                    allow_pickle=allow_pickle,
                    trust_remote_code=trust_remote_code,
                    placement=spread if own is None else Placement(quantization=quantization),
                )
                config = load_config(checkpoint_of(source), there)
                options.append(replace(there, blocks=blocks_to_hold(config, settings, teacher=number == 0)))
            plan = None
            if dry_run or verbose:
                from anglekit.analysis.forecast import plan_analysis

                plan = plan_analysis(teacher, students, data, settings, options, shard=part)
            if dry_run:
                models = []
            else:
                models = [
                    load_checkpoint(source, each) for source, each in zip((teacher, *students), options, strict=True)
                ]
        if plan is not None and dry_run:
            if processes.first:
                typer.echo(json.dumps(plan.summary()) if as_json else plan.text())
            return
        with only_new_garbage():
            geometry = save_analysis(
                out,
                models[0],
                models[1:],
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


def print_result(geometry: Geometry, written: Path, *, quiet: bool, as_json: bool) -> None:
    """Print what an analysis found and where it was written."""
    if as_json:
        typer.echo(json.dumps({"out": str(written), "rows": geometry.summary_rows()}))
    elif not quiet:
        typer.echo(_summary(geometry))
        typer.echo(f"Written to {written}. Draw it: anglekit plot {written} --figure figure1 --out figure1.png")


def _summary(geometry: Geometry) -> str:
    from anglekit.display.tables import aligned_text
    from anglekit.results.overview import layer_table

    document = geometry.document
    tokens = next(iter(next(iter(document.counts.by_student.values())).values())).tokens
    rows = geometry.summary_rows()
    lines = [
        "",
        f"{document.provenance.teacher.name} seen from {', '.join(geometry.students)}: "
        f"{document.counts.examples} examples, {tokens} tokens" + (", official reading" if geometry.official else ""),
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
            "above, below: pairs of teacher layers whose cosine is surely above or below that (95% interval, by "
            "example).",
            "  Below means wider angles than for another example's state: the student is close to the teacher's "
            "layers.",
        ]
    lines += [*(f"note: {note}" for note in geometry.notes()), ""]
    return "\n".join(lines)
