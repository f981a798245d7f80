"""`anglekit evaluate`: score trained classifiers on tables."""

from __future__ import annotations

from typing import Annotated

import typer

from anglekit_cli import training_options as option

__all__ = ["evaluate"]

EPILOG = "Example: anglekit evaluate teacher runs/forward runs/reverse --task sst2 --data dev.tsv"


def evaluate(
    checkpoints: Annotated[
        list[str], typer.Argument(metavar="CHECKPOINT...", help="Directories, run directories or hub ids.")
    ],
    task: option.Task,
    data: Annotated[list[str], typer.Option(help="Table to score on, also NAME=TABLE; repeat it for more.")],
    text: option.Text = None,
    text_pair: option.TextPair = None,
    label: option.Label = None,
    limit: option.Limit = None,
    max_length: option.MaxLength = None,
    batch_size: Annotated[int, typer.Option(help="Examples of a forward pass.")] = 64,
    device: Annotated[str, typer.Option(help="Where to compute: cpu, cuda, cuda:1, mps.")] = "cpu",
    dtype: Annotated[str, typer.Option(help="Precision of the models: float32, bfloat16, float16.")] = "float32",
    as_json: option.AsJson = False,
    revision: option.Revision = None,
    allow_pickle: option.AllowPickle = False,
    trust_remote_code: option.TrustRemoteCode = False,
) -> None:
    """Score trained classifiers on one or more tables."""
    from anglekit.checkpoints import LoadOptions
    from anglekit.distillation.runs import evaluate as run

    scores = run(
        checkpoints,
        task=task,
        data=data,
        columns=option.data_settings(text, text_pair, label, limit),
        max_length=max_length,
        batch_size=batch_size,
        load=LoadOptions(
            device=device,
            dtype=dtype,
            revision=revision,
            allow_pickle=allow_pickle,
            trust_remote_code=trust_remote_code,
        ),
    )
    if as_json:
        typer.echo(scores.to_json(orient="records"))
    else:
        typer.echo(option.score_table(scores))
