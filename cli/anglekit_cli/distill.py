"""`anglekit distill`: make a student of a teacher and train it under one layer-matching strategy."""

from __future__ import annotations

from typing import Annotated

import typer

from anglekit.errors import InputError
from anglekit_cli import training_options as option

__all__ = ["distill"]

EPILOG = (
    "Example: anglekit distill teacher --strategy forward --init teacher --layers 3 --task sst2 --train train.tsv "
    "--validation dev.tsv --out runs/forward"
)


def distill(
    teacher: Annotated[str, typer.Argument(metavar="TEACHER", help="Directory or hub id of a trained teacher.")],
    task: option.Task,
    train: option.Train,
    out: option.Out,
    strategy: Annotated[
        str | None, typer.Option(metavar="NAME", help="none, forward, reverse, all-to-one or random.")
    ] = None,
    layer_map: Annotated[
        str | None,
        typer.Option(
            "--map",
            metavar="MAP",
            help="Your own map instead of --strategy, student:teacher layers with 0 the embedding: 1:4,2:8,3:12.",
        ),
    ] = None,
    layers: Annotated[int | None, typer.Option(help="Blocks of the student.", show_default="the teacher's")] = None,
    width: Annotated[
        int | None,
        typer.Option(help="A width below the teacher's; needs --init random.", show_default="the teacher's"),
    ] = None,
    init: Annotated[
        str, typer.Option(metavar="random|teacher", help="Where the student's weights come from.")
    ] = "random",
    copy: Annotated[
        str | None,
        typer.Option(
            metavar="BLOCKS",
            help="The teacher block that each student block is copied from, counted from 0: 3,7,11.",
            show_default="the paper's",
        ),
    ] = None,
    alpha_ce: Annotated[float, typer.Option(help="Weight of the cross-entropy.")] = 1.0,
    alpha_kl: Annotated[float, typer.Option(help="Weight of the KL to the teacher's predictions.")] = 1.0,
    alpha_hidden: Annotated[float, typer.Option(help="Weight of the hidden loss.")] = 3.0,
    hidden_loss: Annotated[str, typer.Option(help="mse, normalized-mse, cosine or layer-norm-mse.")] = "mse",
    temperature: Annotated[float | None, typer.Option(help="Of the KL.", show_default="1")] = None,
    kl_direction: Annotated[
        str | None, typer.Option(help="forward: KL(teacher || student); reverse.", show_default="forward")
    ] = None,
    reading: Annotated[
        str, typer.Option(help="corrected, or official: normalised as in the paper's code.")
    ] = "corrected",
    match_streams: option.Match = None,
    validation: option.Validation = None,
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
    epochs: option.Epochs = None,
    max_steps: option.MaxSteps = None,
    batch_size: option.BatchSize = 32,
    accumulation: option.Accumulation = 1,
    learning_rate: option.LearningRate = None,
    schedule: option.Schedule = "linear",
    warmup: option.Warmup = 0.0,
    optimizer: option.Optimizer = "adamw",
    weight_decay: option.WeightDecay = 0.0,
    max_grad_norm: option.MaxGradNorm = 1.0,
    precision: option.Precision = "float32",
    max_length: option.MaxLength = None,
    target_max_length: option.TargetMaxLength = None,
    loss_on_prompt: option.LossOnPrompt = False,
    kl_on_prompt: option.KlOnPrompt = None,
    beams: option.Beams = None,
    max_new_tokens: option.MaxNewTokens = None,
    length_penalty: option.LengthPenalty = 1.0,
    lora_rank: option.LoraRank = None,
    lora_alpha: option.LoraAlpha = 32.0,
    lora_dropout: option.LoraDropout = 0.1,
    lora_targets: option.LoraTargets = "all-linear",
    lora_merge: option.LoraMerge = False,
    group_by_length: option.GroupByLength = False,
    checkpoint_activations: option.CheckpointActivations = False,
    label_smoothing: option.LabelSmoothing = 0.0,
    seed: option.Seed = None,
    data_seed: option.DataSeed = 0,
    evaluate_every: option.EvaluateEvery = None,
    log_every: option.LogEvery = 50,
    select: option.Select = "last",
    device: option.Device = "auto",
    teacher_device: option.TeacherDevice = None,
    teacher_device_map: option.TeacherDeviceMap = None,
    workers: option.Workers = 0,
    tensorboard: option.TensorBoard = False,
    resume: option.Resume = False,
    overwrite: option.Overwrite = False,
    quiet: option.Quiet = False,
    as_json: option.AsJson = False,
    revision: option.Revision = None,
    allow_pickle: option.AllowPickle = False,
    trust_remote_code: option.TrustRemoteCode = False,
) -> None:
    """Make a student of a teacher, train it under one layer-matching strategy and score it."""
    values = dict(locals())
    if (strategy is None) == (layer_map is None):
        raise InputError(
            f"--strategy and --map: {'neither' if strategy is None else 'both'} came", "give one of the two"
        )
    mode = option.if_exists(resume, overwrite)

    from anglekit.distillation.losses.weights import LossWeights
    from anglekit.distillation.matching.map_text import parse_copy_map, parse_layer_map
    from anglekit.distillation.runs.run import distill as run
    from anglekit.models.architectures import model_streams
    from anglekit.models.checkpoints import checkpoint_of, load_config

    load = option.teacher_loading(values)
    streams = model_streams(load_config(checkpoint_of(teacher), load))
    result = run(
        teacher,
        strategy=strategy,
        layer_map=None if layer_map is None else parse_layer_map(layer_map, streams),
        copy_blocks=None if copy is None else parse_copy_map(copy, streams),
        task=task,
        train=train,
        out=out,
        layers=layers,
        width=width,
        init=init,
        validation=validation or (),
        data=option.data_settings(values),
        settings=option.train_settings(values),
        load=load,
        if_exists=mode,
        progress=not quiet and not as_json,
        weights=LossWeights(alpha_ce, alpha_kl, alpha_hidden),
        hidden_loss=hidden_loss,
        reading=reading,
        match_streams=option.names("match-streams", match_streams),
    )
    option.print_result(result, quiet=quiet, as_json=as_json)
