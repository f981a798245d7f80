"""`anglekit merge`: the shards of an analysis, joined."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from anglekit_cli.analyze import check_place, print_result

EPILOG = "Example: anglekit merge geometry-1 geometry-2 geometry-3 --out geometry"


def merge(
    shards: Annotated[
        list[Path],
        typer.Argument(help="What anglekit analyze --shard wrote: every part once.", show_default=False),
    ],
    out: Annotated[Path, typer.Option(help="Directory for the Geometry; it appears whole or not at all.")],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an output directory that exists.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No summary.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as json.")] = False,
) -> None:
    """Join the parts of an analysis that separate jobs made.

    The result is the Geometry that one job would have given.
    """
    check_place(out, overwrite)

    from anglekit.analysis.shards import merge_shards

    geometry = merge_shards(shards)
    print_result(geometry, geometry.save(out, overwrite=overwrite), quiet=quiet, as_json=as_json)
