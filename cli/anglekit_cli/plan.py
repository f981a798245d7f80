"""`anglekit plan`: what would be matched and copied, in a table, with warnings; nothing is computed."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from anglekit.errors import InputError

__all__ = ["plan"]


def plan(
    teacher: Annotated[str, typer.Argument(metavar="TEACHER", help="Directory or hub id of the teacher.")],
    strategy: Annotated[
        str | None,
        typer.Option("--strategy", metavar="NAME", help="none, forward, reverse, all-to-one or random."),
    ] = None,
    layers: Annotated[int | None, typer.Option("--layers", help="Blocks of the student, in every stream.")] = None,
    encoder_layers: Annotated[
        int | None, typer.Option("--encoder-layers", help="Blocks of the student's encoder.")
    ] = None,
    decoder_layers: Annotated[
        int | None, typer.Option("--decoder-layers", help="Blocks of the student's decoder.")
    ] = None,
    width: Annotated[
        int | None,
        typer.Option("--width", help="A width below the teacher's; needs --init random.", show_default="teacher's"),
    ] = None,
    init: Annotated[str, typer.Option("--init", metavar="random|teacher", help="Where weights come from.")] = "random",
    seed: Annotated[
        int | None,
        typer.Option("--seed", help="Of the initialisation and the random order.", show_default="0; drawn for random"),
    ] = None,
    layer_map: Annotated[
        str | None,
        typer.Option(
            "--map",
            metavar="MAP",
            help="Your own map instead of --strategy, student:teacher layers with 0 the embedding: 1:4,2:8,3:12, or "
            "'encoder=1:6;decoder=1:12'.",
        ),
    ] = None,
    copy: Annotated[
        str | None,
        typer.Option(
            "--copy",
            metavar="BLOCKS",
            help="The teacher block that each student block is copied from, counted from 0: 3,7,11, or "
            "'encoder=0,6;decoder=0,6'.",
            show_default="the paper's",
        ),
    ] = None,
    revision: Annotated[str | None, typer.Option("--revision", help="Branch, tag or commit of a hub id.")] = None,
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Accept a checkpoint that brings its own code.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the plan as JSON.")] = False,
) -> None:
    """Show which teacher layer would teach which student layer, and what is worth a warning.

    Reads the teacher's configuration only: no weights, no computation.

    Example: anglekit plan bert-base-uncased --strategy forward --layers 3 --init teacher
    """
    if (strategy is None) == (layer_map is None):
        got = "neither" if strategy is None else "both"
        raise InputError(f"--strategy and --map: {got} came", "give one of the two")
    from anglekit.distillation.matching.map_text import parse_copy_map, parse_layer_map
    from anglekit.distillation.matching.plan import plan_distillation
    from anglekit.distillation.matching.plan_text import plan_text
    from anglekit.distillation.matching.plan_warnings import plan_warnings
    from anglekit.models.architectures import model_streams
    from anglekit.models.checkpoints import checkpoint_of, load_config
    from anglekit.models.load_options import LoadOptions

    config = load_config(checkpoint_of(teacher), LoadOptions(revision=revision, trust_remote_code=trust_remote_code))
    streams = model_streams(config)
    made = plan_distillation(
        config,
        teacher=teacher,
        strategy=strategy,
        layers=layers,
        encoder_layers=encoder_layers,
        decoder_layers=decoder_layers,
        width=width,
        init=init,
        seed=seed,
        layer_map=None if layer_map is None else parse_layer_map(layer_map, streams),
        copy_blocks=None if copy is None else parse_copy_map(copy, streams),
    )
    warnings = plan_warnings(made)
    if as_json:
        typer.echo(json.dumps({"plan": made.to_json(), "warnings": list(warnings)}, indent=2))
        return
    typer.echo(plan_text(made))
    for warning in warnings:
        typer.echo(f"\nwarning: {warning}")
