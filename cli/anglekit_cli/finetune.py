"""`anglekit finetune`: train a model, a teacher-to-be."""

from __future__ import annotations

from typing import Annotated

import typer

from anglekit_cli import training_options as option

__all__ = ["finetune"]

EPILOG = "Example: anglekit finetune bert-base-uncased --task sst2 --train train.tsv --validation dev.tsv --out teacher"


def finetune(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="Directory or hub id of a model, with or without a head.")
    ],
    task: option.Task,
    train: option.Train,
    out: option.Out,
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
    seed: option.Seed = 0,
    data_seed: option.DataSeed = 0,
    evaluate_every: option.EvaluateEvery = None,
    log_every: option.LogEvery = 50,
    select: option.Select = "last",
    device: option.Device = "auto",
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
    """Train a model on a task and score it."""
    values = dict(locals())
    mode = option.if_exists(resume, overwrite)

    from anglekit.distillation.runs.run import finetune as run
    from anglekit.models.load_options import LoadOptions

    result = run(
        model,
        task=task,
        train=train,
        out=out,
        validation=validation or (),
        data=option.data_settings(values),
        settings=option.train_settings(values),
        load=LoadOptions(revision=revision, allow_pickle=allow_pickle, trust_remote_code=trust_remote_code),
        if_exists=mode,
        progress=not quiet and not as_json,
    )
    option.print_result(result, quiet=quiet, as_json=as_json)
