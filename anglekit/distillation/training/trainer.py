"""`transformers.Trainer` with a teacher: cross-entropy, KL and hidden losses, each pooled over an accumulated batch."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence, Sized
from pathlib import Path
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils.data import Dataset, Sampler
from transformers import PreTrainedModel, Trainer, TrainingArguments, set_seed
from transformers.trainer_utils import get_last_checkpoint

from anglekit.distillation.losses.functional import LossTerm, weighted_total
from anglekit.distillation.losses.objective import DistillationObjective
from anglekit.distillation.students.adapters import LayerAdapters
from anglekit.distillation.students.mixtures import LayerMixtures, create_mixtures, restore_mixtures, save_mixtures
from anglekit.distillation.training.batch_order import BufferedOrder, LengthGroupedOrder
from anglekit.distillation.training.distillation_loss import (
    Matching,
    StudentStep,
    check_widths,
    network_of,
    objective_for,
)
from anglekit.distillation.training.teacher import TeacherForward, TeacherProvider, accepted_inputs
from anglekit.distillation.training.teacher_cache import CachedTeacher
from anglekit.distillation.training.term_meter import TermMeter
from anglekit.distillation.training.trainer_checkpoints import reading_checkpoint
from anglekit.distillation.training.untrained_teacher import HiddenOfAnother
from anglekit.errors import InputError, ReaderWarning, RunError
from anglekit.models.architectures import width
from anglekit.models.check import facts_of
from anglekit.models.memory.bare import check_apart
from anglekit.models.projections import ADAPTER_FILE, save_adapters, stored_adapters
from anglekit.vocabulary import Stream

States = dict[Stream, dict[int, Tensor]]


class DistillationTrainer(Trainer):
    """Trains a student under a `DistillationObjective`; everything else is `transformers.Trainer`.

    The loss of an optimiser step is the weighted sum of the terms' means, each over all items of the step. Gradient
    accumulation, padding and (with `average_tokens_across_devices`) the number of processes do not change it. Each
    term's mean is logged beside `loss` as `loss_ce`, `loss_kl`, `loss_hidden` (unweighted). Evaluation reports the
    cross-entropy alone and does not run the teacher. `train()` first seeds all random states with `args.seed`.

    The teacher is not part of the trained model and is never saved. It runs without gradients, in the same mixed
    precision as the student, and not at all where no term reads it. The student's optimiser also trains the adapters,
    gradients are clipped together, and every checkpoint holds the adapters beside the weights.

    Args:
        model: the student, with its head.
        args: as for `Trainer`.
        objective: the terms and what they read; or a strategy's name, or a `LayerMatching` for each stream, with the
            paper's weights. What it leaves open the models tell (`objective_for`).
        teacher: its model, with a head if there is a KL term. Moved to the student's device.
        teacher_forward: called instead of a `TeacherForward` over `teacher`; a sweep shares one among its students.
        teacher_device: where the teacher runs; None: on the student's device.
        adapters: for students of another width, one for each matched layer. Adapters whose weights do not require
            gradients stay as they are, and are marked as untrained where they are saved.
        mixtures: of layers that several teacher layers teach, trained and saved as adapters are; None makes them of the
            objective and the teacher.
        score_model: called with the model at every validation, for scores that need more than logits, such as those of
            generated texts; they are reported beside the loss.
        shuffle_buffer: shuffle within so many examples that follow each other; None: the whole table.
        adapter_learning_rate: the highest of the adapters; None: the student's.
        trainer_options: everything else that `Trainer` takes (`train_dataset`, `data_collator`, `processing_class`,
            `compute_metrics`, `callbacks`, ...).

    Raises:
        InputError: no teacher where a term needs one, a layer that does not exist, widths that differ without adapters,
            an optimiser that leaves the adapters out, or an option that would change what is trained unnoticed.
        RunError: from `train`, when a term stops being finite; it names the term, the step and the last checkpoint.

    Example:
        >>> trainer = DistillationTrainer(student, args, objective="forward", teacher=teacher, train_dataset=rows)
        >>> trainer.train()
    """

    # The loss is already divided by the items of the whole accumulated batch. Versions of transformers that lack this
    # attribute read `model_accepts_loss_kwargs` instead, which the constructor sets.
    loss_is_scaled_for_ga = True
    objective: DistillationObjective

    def __init__(
        self,
        model: PreTrainedModel,
        args: TrainingArguments,
        *,
        objective: Matching,
        teacher: PreTrainedModel | None = None,
        teacher_forward: TeacherProvider | None = None,
        teacher_device: str | None = None,
        adapters: LayerAdapters | None = None,
        mixtures: LayerMixtures | None = None,
        score_model: Callable[[PreTrainedModel], Mapping[str, float]] | None = None,
        shuffle_buffer: int | None = None,
        adapter_learning_rate: float | None = None,
        **trainer_options: Any,  # noqa: ANN401 - Trainer's own
    ) -> None:
        if trainer_options.get("compute_loss_func") is not None:
            raise InputError(
                "compute_loss_func would replace the distillation loss", "describe the loss by `objective`"
            )
        if args.label_smoothing_factor:
            raise InputError("label_smoothing_factor is not read here", "give `label_smoothing` to the objective")
        if args.n_gpu > 1:
            raise InputError(
                f"{args.n_gpu} devices in one process would split batches behind the hooks that read hidden states",
                "start with `accelerate launch`, or make one device visible",
            )
        objective = objective_for(teacher, network_of(model), objective, seed=args.seed)
        if teacher is not None and teacher_forward is not None:
            raise InputError("both a teacher and a teacher_forward came", "give one of the two")
        if objective.reads_teacher and teacher is None and teacher_forward is None:
            raise InputError("a KL or hidden loss needs a teacher and none came", "give `teacher` or `teacher_forward`")
        if teacher is not None:
            check_apart(teacher, {"the student": network_of(model)}, trained=True)
        check_widths(objective, network_of(model), teacher, adapters)
        self.objective = objective
        self.adapters = adapters if adapters is not None and adapters.layers else None
        if teacher_forward is None and teacher is not None:
            teacher_forward = TeacherForward(
                teacher,
                objective.teacher_layers,
                logits=objective.reads_teacher_logits,
                final_norm=objective.final_norm,
                device=teacher_device,
                attention=objective.reads_attention,
                maps=objective.reads_maps,
                head_apart=objective.reads_chunks,
            )
        self.teacher_forward = teacher_forward
        if mixtures is None and teacher is not None:
            mixtures = create_mixtures(objective.groups, width(teacher.config))
        self.mixtures = mixtures
        self._step = StudentStep(objective, network_of(model), self.adapters, teacher_forward, mixtures)
        _warn_of_padding(objective, model, teacher)
        self.score_model = score_model
        self._shuffle_buffer = shuffle_buffer
        self._adapter_learning_rate = adapter_learning_rate
        super().__init__(model=model, args=args, **trainer_options)
        self.model_accepts_loss_kwargs = True
        if isinstance(teacher_forward, TeacherForward | HiddenOfAnother | CachedTeacher):
            teacher_forward.to(self.args.device)
        for name, beside in (("adapters", self.adapters), ("mixtures", self.mixtures)):
            if beside is None:
                continue
            beside.to(self.args.device)
            self._check_optimised(name, beside)
            if self.is_deepspeed_enabled or self.is_fsdp_enabled:
                raise InputError(f"{name} cannot be sharded by DeepSpeed or FSDP", "use plain data parallelism")
        transported = any(groups.combines == "transport" for groups in objective.groups.values())
        if transported and self.args.world_size > 1:
            raise InputError(
                f"strategy optimal-transport came with {self.args.world_size} processes, each with a plan of its own",
                "train it in one process",
            )
        self._meter = TermMeter(objective.term_names)

    # ---- the loss ----

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,  # noqa: ANN401 - what `_get_num_items_in_batch` returns
    ) -> Any:  # noqa: ANN401 - a tensor, or the tensor and the model's outputs
        """Return the training loss of one micro-batch, or in evaluation mode its cross-entropy.

        Args:
            model: the student, wrapped or not.
            inputs: a batch on the student's device, labels included.
            return_outputs: return the student's outputs beside the loss.
            num_items_in_batch: for each term the items of the whole optimiser step; the batch's own when absent.
        """
        if not model.training:
            completed = self._step.completed(inputs)
            outputs = model(**accepted_inputs(network_of(self.model), completed))
            loss = self.objective.task_loss(completed, outputs.logits).mean()
            return (loss, outputs) if return_outputs else loss
        if self.mixtures is not None:
            self.mixtures.train()
            self.mixtures.epoch = int(self.state.epoch or 0)
        terms, outputs = self._step(model, inputs, self.accelerator.autocast(), whole_outputs=return_outputs)
        loss = self._total(terms, num_items_in_batch)
        return (loss, outputs) if return_outputs else loss

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - as Trainer's
        """Evaluate as `Trainer` does and add the scores of `score_model`."""
        output = super().evaluation_loop(*args, **kwargs)
        if self.score_model is not None and output.metrics is not None:
            prefix = kwargs.get("metric_key_prefix", "eval")
            found = self.score_model(network_of(self.accelerator.unwrap_model(self.model)))
            output.metrics.update({f"{prefix}_{name}": value for name, value in found.items()})
        return output

    def _total(self, terms: Mapping[str, LossTerm], counts: Mapping[str, Tensor] | None) -> Tensor:
        """Return the weighted sum of the terms' shares of their means, and remember the shares for the log."""
        counts = counts or {}
        shares = [term.mean(counts.get(name)) for name, term in terms.items()]
        loss = weighted_total(dict(zip(terms, shares, strict=True)), self.objective.weights)
        if counts and self._pools_processes:
            # The processes' gradients are averaged, but the counts cover all processes together.
            shares = [share * self.args.world_size for share in shares]
            loss = loss * self.args.world_size
        completes_step = bool(self.accelerator.sync_gradients)
        self._meter.add(shares, self.state.global_step + 1, completes_step=completes_step)
        if loss.device.type == "cpu":
            self._stop_if_not_finite()
        return loss

    # ---- normalisation over the accumulated batch ----

    def _get_num_items_in_batch(self, batch_samples: list[dict[str, Any]], device: torch.device) -> Any:  # noqa: ANN401
        """Return each term's items in all batches of an optimiser step, over all processes where they are pooled."""
        if not batch_samples:
            return None
        counts = self.objective.counts([self._step.completed(batch) for batch in batch_samples])
        stacked = torch.stack([count.to(device).float() for count in counts.values()])
        if self._pools_processes:
            stacked = cast("Tensor", self.accelerator.reduce(stacked, reduction="sum"))
        pooled = dict(zip(counts, stacked.unbind(), strict=True))
        return pooled | {name: counts[name].to(device) for name in self.objective.summed_terms}

    @property
    def _pools_processes(self) -> bool:
        return bool(self.args.average_tokens_across_devices and self.args.world_size > 1)

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - as Trainer's
        """Fetch the batches of one optimiser step; the gradients beside the student start at zero with it."""
        if self.state.global_step >= self.state.max_steps:
            # The run was killed after its last step and resumed: `Trainer` would take one more.
            self.control.should_training_stop = True
            return [], None
        for weight in self._trained_beside():
            weight.grad = None
        return super().get_batch_samples(*args, **kwargs)

    # ---- adapters and mixtures, which are trained beside the student ----

    def create_optimizer(self, *args: Any, **kwargs: Any) -> torch.optim.Optimizer:  # noqa: ANN401 - as Trainer's
        """Make the optimiser as `Trainer` does, with the adapters' and mixtures' weights in a group of their own."""
        fresh = self.optimizer is None
        optimizer = super().create_optimizer(*args, **kwargs)
        if fresh and (trained := self._trained_beside()):
            own = {} if self._adapter_learning_rate is None else {"lr": self._adapter_learning_rate}
            optimizer.add_param_group({"params": trained, "weight_decay": self.args.weight_decay, **own})
            if dist.is_initialized() and dist.get_world_size() > 1:
                _keep_equal_across_processes(trained)
        return optimizer

    def _trained_adapter_weights(self) -> list[nn.Parameter]:
        return [] if self.adapters is None else [w for w in self.adapters.parameters() if w.requires_grad]

    def _trained_beside(self) -> list[nn.Parameter]:
        """Return the weights that are trained beside the student's own."""
        mixed = () if self.mixtures is None else self.mixtures.parameters()
        return [*self._trained_adapter_weights(), *(weight for weight in mixed if weight.requires_grad)]

    def _clip_grad_norm(self, model: nn.Module) -> Any:  # noqa: ANN401 - as Trainer's
        weights = [*model.parameters(), *self._trained_beside()]
        return self.accelerator.clip_grad_norm_(weights, self.args.max_grad_norm)

    def _check_optimised(self, name: str, beside: nn.Module) -> None:
        if self.optimizer is None:
            return
        optimised = {id(weight) for group in self.optimizer.param_groups for weight in group["params"]}
        if any(weight.requires_grad and id(weight) not in optimised for weight in beside.parameters()):
            raise InputError(f"the optimizer given leaves the {name} out", f"add `{name}.parameters()` to it")

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        super()._save(output_dir, state_dict)
        if self.args.should_save:
            self.save_beside(Path(output_dir or str(self.args.output_dir)))

    def save_beside(self, directory: Path) -> None:
        """Write adapters and mixtures, if there are any, beside a student saved in `directory`."""
        if self.mixtures is not None and self.mixtures.holds_state:
            save_mixtures(directory, self.mixtures)
        if self.adapters is not None:
            trained = bool(self._trained_adapter_weights()) and self.state.global_step > 0
            save_adapters(directory, self.adapters.weights(), self.adapters.biases(), trained=trained)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        with reading_checkpoint(resume_from_checkpoint):
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        self._restore_beside(Path(resume_from_checkpoint))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        with reading_checkpoint(checkpoint or ""):
            super()._load_optimizer_and_scheduler(checkpoint)

    def _load_scaler(self, checkpoint: str | None) -> None:
        with reading_checkpoint(checkpoint or ""):
            super()._load_scaler(checkpoint)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        with reading_checkpoint(checkpoint or ""):
            super()._load_rng_state(checkpoint)

    def _load_best_model(self) -> None:
        super()._load_best_model()
        self._restore_beside(Path(str(self.state.best_model_checkpoint)))

    def _restore_beside(self, directory: Path) -> None:
        if self.mixtures is not None and self.mixtures.holds_state:
            restore_mixtures(directory, self.mixtures)
        if self.adapters is None or not self._trained_adapter_weights():
            return
        stored = stored_adapters(directory)
        own = (self.adapters.weights(), self.adapters.biases())
        kept = ({}, {}) if stored is None else (stored.weights, stored.biases)
        if [{place: w.shape for place, w in part.items()} for part in kept] != [
            {place: w.shape for place, w in part.items()} for part in own
        ]:
            raise InputError(
                f"{directory / ADAPTER_FILE} does not hold this run's adapters", "resume its own checkpoint"
            )
        with torch.no_grad():
            for mine, theirs in zip(own, kept, strict=True):
                for place, weight in theirs.items():
                    mine[place].copy_(weight)

    # ---- running, logging, stopping ----

    def train(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - as Trainer's
        """Train as `Trainer.train` does, from random states that depend on `args.seed` alone."""
        set_seed(self.args.seed)
        result = super().train(*args, **kwargs)
        self._stop_if_not_finite()
        return result

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add each term's mean since the last log to the training log, then log as `Trainer` does."""
        if "loss" in logs:
            means = self._meter.drain()
            hidden = [value for name, value in means.items() if name.startswith("hidden")]
            if len(hidden) == 1:
                means = {("hidden" if name.startswith("hidden") else name): value for name, value in means.items()}
            elif hidden:
                means["hidden"] = math.fsum(hidden)
            logs |= {f"loss_{name}": value for name, value in means.items()}
        super().log(logs, start_time)

    def _maybe_log_save_evaluate(self, tr_loss: Tensor, grad_norm: Any, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        # Before anything is written, so that the last checkpoint stays a good one.
        if self.control.should_log or self.control.should_evaluate or self.control.should_save:
            self._stop_if_not_finite()
        # In fp16 an overflowing gradient is no failure: the scaler skips the step.
        judged = self.control.should_save and grad_norm is not None and not self.args.fp16
        if judged and not math.isfinite(float(grad_norm)):
            raise RunError(self._not_finite("gradient", self.state.global_step))
        super()._maybe_log_save_evaluate(tr_loss, grad_norm, *args, **kwargs)

    def _stop_if_not_finite(self) -> None:
        bad = self._meter.first_bad()
        if bad is not None:
            raise RunError(self._not_finite(f"{bad[0]} loss", bad[1]))

    def _not_finite(self, what: str, step: int) -> str:
        output = str(self.args.output_dir)
        last = get_last_checkpoint(output) if Path(output).is_dir() else None  # type: ignore[no-untyped-call]
        kept = f"the last good checkpoint is {last}" if last else "no checkpoint had been saved yet"
        # Nothing was learned before the first step, so that no learning rate is the cause.
        remedy = (
            "lower the learning rate or the weight of that term"
            if step > 1
            else "nothing was learned before, so look for the cause in the models: a logit of minus infinity, weights "
            "that are not finite, or a precision (--precision) in which they overflow"
        )
        return f"the {what} was not finite at step {step}; {kept}; {remedy}"

    def _get_train_sampler(self, train_dataset: Dataset[Any] | None = None) -> Sampler[int] | None:
        dataset = self.train_dataset if train_dataset is None else train_dataset
        lengths: Sequence[int] | None = getattr(dataset, "lengths", None)
        if self.args.train_sampling_strategy == "group_by_length" and lengths is not None:
            # Trainer's own draws from the global random state, which `data_seed` does not reach.
            seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
            size = self.args.train_batch_size * self.args.gradient_accumulation_steps * self.args.world_size
            return LengthGroupedOrder(lengths, size, seed)
        if self._shuffle_buffer is not None and isinstance(dataset, Sized):
            seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
            return BufferedOrder(len(dataset), self._shuffle_buffer, seed)
        return cast("Sampler[int] | None", super()._get_train_sampler(train_dataset))


def _warn_of_padding(
    objective: DistillationObjective, student: PreTrainedModel, teacher: PreTrainedModel | None
) -> None:
    """Warn where a hidden loss reads states that depend on the batch: training pads texts of unequal length."""
    read = (
        ("student", network_of(student), objective.student_layers),
        ("teacher", teacher, objective.teacher_layers),
    )
    for role, model, layers in read:
        if model is not None and any(layers.values()) and not facts_of(model).batchable:
            warnings.warn(
                f"the states of the {role} {type(model).__name__} depend on padding, and training pads its batches: "
                "the hidden loss reads other states than those of each text alone",
                ReaderWarning,
                stacklevel=3,
            )


def _keep_equal_across_processes(weights: Sequence[nn.Parameter]) -> None:
    """Average gradients over processes as the student's wrapper does for its own weights."""

    def average(weight: nn.Parameter) -> None:
        if weight.grad is not None:
            dist.all_reduce(weight.grad)
            weight.grad /= dist.get_world_size()

    for weight in weights:
        dist.broadcast(weight.data, src=0)
        weight.register_post_accumulate_grad_hook(average)  # type: ignore[no-untyped-call]
