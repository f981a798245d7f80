"""`anglekit evaluate`: score trained models on tables."""

from __future__ import annotations

from typing import Annotated

import typer

from anglekit_cli import training_options as option

__all__ = ["evaluate"]

EPILOG = "Example: anglekit evaluate teacher runs/forward runs/reverse --task sst2 --data dev.tsv"

_THE_RUNS = "the run's, or the task's"


def evaluate(
    checkpoints: Annotated[
        list[str], typer.Argument(metavar="CHECKPOINT...", help="Directories, run directories or hub ids.")
    ],
    task: option.Task,
    data: Annotated[list[str], typer.Option(help="Table to score on, also NAME=TABLE; repeat it for more.")],
    text: option.Text = None,
    text_pair: option.TextPair = None,
    label: option.Label = None,
    source: option.Source = None,
    target: option.Target = None,
    prefix: option.Prefix = None,
    prompt: option.Prompt = None,
    completion: option.Completion = None,
    choices: option.Choices = None,
    limit: option.Limit = None,
    max_length: Annotated[int | None, typer.Option(help="Most tokens of an example.", show_default=_THE_RUNS)] = None,
    target_max_length: Annotated[
        int | None, typer.Option(help="seq2seq: tokens to which targets are cut.", show_default=_THE_RUNS)
    ] = None,
    beams: Annotated[int | None, typer.Option(help="Of generated texts; 1 is greedy.", show_default=_THE_RUNS)] = None,
    max_new_tokens: Annotated[
        int | None, typer.Option(help="Where a generated text ends at the latest.", show_default=_THE_RUNS)
    ] = None,
    length_penalty: Annotated[
        float | None, typer.Option(help="Above 0 prefers longer texts among beams.", show_default="the run's, or 1")
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Examples of a forward pass.")] = 64,
    device: Annotated[str, typer.Option(help="Where to compute: cpu, cuda, cuda:1, mps.")] = "cpu",
    dtype: Annotated[str, typer.Option(help="Precision of the models: float32, bfloat16, float16.")] = "float32",
    as_json: option.AsJson = False,
    revision: option.Revision = None,
    allow_pickle: option.AllowPickle = False,
    trust_remote_code: option.TrustRemoteCode = False,
) -> None:
    """Score trained models on one or more tables.

    A run directory is scored as the run scored it: with its lengths and its generation, where no option says otherwise.
    """
    values = dict(locals())
    from anglekit.distillation.runs.run import evaluate as run
    from anglekit.distillation.settings import ScoringSettings
    from anglekit.models.load_options import LoadOptions

    scores = run(
        checkpoints,
        task=task,
        data=data,
        columns=option.data_settings(values),
        scoring=ScoringSettings(max_length, target_max_length, beams, max_new_tokens, length_penalty),
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
        from anglekit.display.tables import aligned_text, frame_table

        typer.echo(aligned_text(frame_table(scores)))
        for line in option.signature_lines(scores.attrs["scoring"]):
            typer.echo(line)
        for source, settings in scores.attrs["settings"].items():
            if settings:
                named = ", ".join(f"{name.replace('_', ' ')} {value:g}" for name, value in settings.items())
                typer.echo(f"{source}: scored with its run's settings: {named}", err=True)
