"""How a model is trained, as one frozen value that a run records and a resumed run is compared by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import torch
from transformers import TrainingArguments
from transformers.trainer_utils import SchedulerType

from anglekit.distillation.students.lora import LoraSettings
from anglekit.distillation.tasks.data import EncodingSettings
from anglekit.distillation.tasks.generation import GenerationSettings
from anglekit.errors import InputError, suggest
from anglekit.runtime.placement import check_device

__all__ = ["OPTIMIZERS", "PRECISIONS", "SELECTIONS", "TrainSettings"]

PRECISIONS: Final = ("float32", "bfloat16", "float16")
SELECTIONS: Final = ("best", "last")
# One kernel for all of a step's arithmetic: on a CPU the plain AdamW takes a fifth of a small student's step.
OPTIMIZERS: Final[Mapping[str, str]] = {"adamw": "adamw_torch_fused", "adafactor": "adafactor", "sgd": "sgd"}
DEVICES: Final = ("auto", "cpu")
# Its name in `TrainingArguments`, which changed in transformers 5.23.
_RECOMPUTATION: Final = (
    "activation_checkpointing"
    if "activation_checkpointing" in TrainingArguments.__dataclass_fields__
    else "gradient_checkpointing"
)
_SCHEDULES: Final = tuple(str(kind.value) for kind in SchedulerType)


@dataclass(frozen=True)
class TrainSettings:
    """Settings of one training run; None leaves the choice to the task.

    Attributes:
        epochs: passes over the data; None takes the task's.
        max_steps: optimiser steps instead of epochs.
        batch_size: examples of one forward pass.
        accumulation: forward passes of one optimiser step.
        learning_rate: the highest; None takes the task's.
        schedule: a name of transformers' schedules.
        warmup: steps, or below 1 the fraction of all steps.
        optimizer: a name in `OPTIMIZERS`.
        weight_decay: of all weights but biases and norms.
        max_grad_norm: the length to which gradients are clipped; 0 clips none.
        label_smoothing: of the cross-entropy, in [0, 1).
        temperature: of the KL; None takes 1, or the family's own in the official reading.
        kl_direction: "forward" or "reverse"; None takes forward, or the family's own in the official reading.
        precision: of the forward passes; weights stay float32.
        max_length: tokens of an example or a source; None takes the task's, or what the model can read.
        target_max_length: tokens to which targets are cut; None takes the task's.
        loss_on_prompt: whether the cross-entropy reads a prompt's tokens as well.
        kl_on_prompt: whether the KL does; None takes False, or the family's own in the official reading.
        beams: of the generation that is scored; None takes the task's.
        max_new_tokens: where a generated text ends at the latest; None takes the task's.
        length_penalty: of generation with beams.
        lora_rank: of low-rank corrections that are trained instead of the weights; None trains the weights.
        lora_alpha: each correction is multiplied by alpha / rank.
        lora_dropout: of a correction's input.
        lora_targets: "all-linear", or names of layers with commas between.
        lora_merge: whether the corrections are added to the weights that are saved; otherwise they lie beside them.
        group_by_length: whether batches hold examples of similar length, which saves padding.
        checkpoint_activations: whether activations are recomputed to save memory.
        seed: of initialisation, dropout and random draws; None draws one for the "random" strategy and takes 0
            elsewhere.
        data_seed: of the order of the data; the same for all runs unless given.
        evaluate_every: steps between validations; None validates after every epoch.
        log_every: steps between entries of the metrics file.
        select: "best" keeps the checkpoint of the best validation, "last" the end.
        resumable: whether checkpoints are written at every validation, so that a killed run can go on.
        eval_batch_size: examples of one forward pass in validation.
        workers: processes that prepare batches; 0 prepares them in this one.
        device: "auto" takes an accelerator if there is one; "cpu" takes none.
        teacher_device: the teacher's own, such as `cuda:1` or `cpu`; None: the student's.
        tensorboard: whether event files are written into the run directory.

    Raises:
        InputError: a value that is not allowed.
    """

    epochs: float | None = None
    max_steps: int | None = None
    batch_size: int = 32
    accumulation: int = 1
    learning_rate: float | None = None
    schedule: str = "linear"
    warmup: float = 0.0
    optimizer: str = "adamw"
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    label_smoothing: float = 0.0
    temperature: float | None = None
    kl_direction: str | None = None
    precision: str = "float32"
    max_length: int | None = None
    target_max_length: int | None = None
    loss_on_prompt: bool = False
    kl_on_prompt: bool | None = None
    beams: int | None = None
    max_new_tokens: int | None = None
    length_penalty: float = 1.0
    lora_rank: int | None = None
    lora_alpha: float = 32.0
    lora_dropout: float = 0.1
    lora_targets: str = "all-linear"
    lora_merge: bool = False
    group_by_length: bool = False
    checkpoint_activations: bool = False
    seed: int | None = None
    data_seed: int = 0
    evaluate_every: int | None = None
    log_every: int = 50
    select: str = "last"
    resumable: bool = True
    eval_batch_size: int = 64
    workers: int = 0
    device: str = "auto"
    teacher_device: str | None = None
    tensorboard: bool = False

    def __post_init__(self) -> None:
        if self.epochs is not None and self.max_steps is not None:
            raise InputError(
                f"both epochs ({self.epochs}) and max steps ({self.max_steps}) came", "give one of the two"
            )
        for name in ("max_steps", "batch_size", "accumulation", "evaluate_every", "log_every", "eval_batch_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{_option(name)} is {value}", allowed="allowed: at least 1")
        for name in ("epochs", "learning_rate"):
            value = getattr(self, name)
            if value is not None and not 0.0 < value < float("inf"):
                raise InputError(f"{_option(name)} is {value}", allowed="allowed: a finite number above 0")
        for name in ("warmup", "weight_decay", "max_grad_norm", "workers"):
            if not 0.0 <= getattr(self, name) < float("inf"):
                raise InputError(
                    f"{_option(name)} is {getattr(self, name)}", allowed="allowed: a finite number of at least 0"
                )
        for name, allowed in (
            ("precision", PRECISIONS),
            ("select", SELECTIONS),
            ("optimizer", OPTIMIZERS),
            ("schedule", _SCHEDULES),
            ("device", DEVICES),
        ):
            if getattr(self, name) not in allowed:
                raise InputError(
                    f"{_option(name)} is {getattr(self, name)!r}", allowed=suggest(getattr(self, name), allowed)
                )
        for name in ("seed", "data_seed"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < 2**32:
                raise InputError(f"{_option(name)} is {value}", allowed=f"allowed: 0 to {2**32 - 1}")
        if self.precision == "float16" and (self.device == "cpu" or not torch.cuda.is_available()):
            raise InputError("float16 training needs a GPU, and none is used here", "choose float32 or bfloat16")
        if self.teacher_device is not None:
            check_device(self.teacher_device, "--teacher-device is")
        # Each refuses what it does not allow.
        _ = self.encoding, self.generation, self.lora

    @property
    def encoding(self) -> EncodingSettings:
        """How many tokens examples may have."""
        return EncodingSettings(self.max_length, self.target_max_length, self.loss_on_prompt)

    @property
    def generation(self) -> GenerationSettings:
        """How texts are generated that are scored."""
        return GenerationSettings(self.beams, self.max_new_tokens, self.length_penalty)

    @property
    def lora(self) -> LoraSettings | None:
        """Which low-rank corrections are trained, or None."""
        if self.lora_rank is None:
            return None
        return LoraSettings(self.lora_rank, self.lora_alpha, self.lora_dropout, self.lora_targets)

    def completed(self, *, epochs: float, learning_rate: float) -> TrainSettings:
        """Return the settings with the task's epochs and learning rate where none were given."""
        return replace(
            self,
            epochs=epochs if self.epochs is None and self.max_steps is None else self.epochs,
            learning_rate=learning_rate if self.learning_rate is None else self.learning_rate,
        )

    def decisive(self) -> dict[str, str | int | float | bool | None]:
        """Return what changes the trained model, by which runs are compared: not the seed, which a plan records."""
        incidental = {"log_every", "eval_batch_size", "workers", "tensorboard", "resumable", "seed"}
        incidental |= {"device", "teacher_device"}
        return {name: value for name, value in asdict(self).items() if name not in incidental}

    def arguments(
        self, output: Path, *, seed: int, validates: bool, score: str, larger_is_better: bool = True
    ) -> TrainingArguments:
        """Return what `Trainer` is told.

        Args:
            output: where its checkpoints go.
            seed: the run's.
            validates: whether there is a validation set.
            score: the name under which the selecting score is reported, without "eval_".
            larger_is_better: whether a larger one is better.
        """
        cadence = "epoch" if self.evaluate_every is None else "steps"
        best = validates and self.select == "best"
        recomputation: dict[str, Any] = {_RECOMPUTATION: self.checkpoint_activations}
        return TrainingArguments(
            output_dir=str(output),
            num_train_epochs=self.epochs or 1.0,
            max_steps=self.max_steps or -1,
            per_device_train_batch_size=self.batch_size,
            per_device_eval_batch_size=self.eval_batch_size,
            gradient_accumulation_steps=self.accumulation,
            learning_rate=self.learning_rate or 0.0,
            lr_scheduler_type=self.schedule,
            warmup_steps=self.warmup,
            optim=OPTIMIZERS[self.optimizer],
            weight_decay=self.weight_decay,
            max_grad_norm=self.max_grad_norm,
            bf16=self.precision == "bfloat16",
            fp16=self.precision == "float16",
            train_sampling_strategy="group_by_length" if self.group_by_length else "random",
            **recomputation,
            seed=seed,
            data_seed=self.data_seed,
            eval_strategy=cadence if validates else "no",
            eval_steps=self.evaluate_every,
            save_strategy=cadence if self.resumable or best else "no",
            save_steps=self.evaluate_every or 500,
            save_total_limit=1,
            load_best_model_at_end=best,
            metric_for_best_model=score if best else None,
            greater_is_better=larger_is_better if best else None,
            logging_steps=self.log_every,
            # Off: it would wait for the device at every step, and hide what `DistillationTrainer` stops for.
            logging_nan_inf_filter=False,
            report_to=["tensorboard"] if self.tensorboard else [],
            disable_tqdm=True,
            dataloader_num_workers=self.workers,
            dataloader_pin_memory=torch.cuda.is_available() and self.device != "cpu",
            use_cpu=self.device == "cpu",
            remove_unused_columns=False,
        )


def _option(name: str) -> str:
    return name.replace("_", " ")
