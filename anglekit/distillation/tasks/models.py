"""Models with their heads, loaded for training and scoring under the same safety rules as `checkpoints`."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import msgspec
from transformers import PreTrainedModel
from transformers import PreTrainedTokenizerBase as Tokenizer

from anglekit.distillation.tasks.task import Task
from anglekit.errors import InputError
from anglekit.models.checkpoints import (
    adapter_of,
    check_kept_tokenizer,
    check_no_wrapper,
    checkpoint_of,
    composite_type,
    load_config,
    load_tokenizer,
    load_weights,
    quantized_of,
    weights_hash,
    whole_config,
)
from anglekit.models.load_options import LoadOptions, checkpoint_name
from anglekit.models.text_stack import headless


class ModelProvenance(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a run records of a model.

    Attributes:
        source: the directory or hub id, as given.
        architecture: the name of its class.
        sha256: hash of the body, as `analyze` computes it.
        sha256_with_head: hash of the whole model.
        composite: the type of the model that this one is the text model of (gemma3), or "".
        adapter: what corrected the weights, and whose they were: `lora on org/base`; or "".
        quantization: how the weights were stored quantised, and what they were turned into; "" for plain ones.
        directory: the name of the directory that the source was; "" where it was a hub id; None where nobody recorded
            it, in runs of earlier versions. A relative path may look like a hub id, once one is elsewhere.
    """

    source: str
    architecture: str
    sha256: str
    sha256_with_head: str
    composite: str = ""
    adapter: str = ""
    quantization: str = ""
    directory: str | None = None

    @property
    def source_name(self) -> str:
        """The hub id, or the name of a directory, which says nothing of where that lay."""
        return self.directory or (self.source if self.directory == "" else checkpoint_name(self.source))


@dataclass(frozen=True, eq=False)
class TaskModel:
    """A model with the head of a task and its tokenizer.

    Attributes:
        source: the directory or hub id, as given.
        model: in evaluation mode, on the device that was asked for.
        tokenizer: its own.
        composite: the type of the model that this one is the text model of (gemma3), or "".
        adapter: what corrected the weights, and whose they were: `lora on org/base`; or "".
        quantization: how the weights were stored quantised, and what they were turned into; "" for plain ones.
    """

    source: str
    model: PreTrainedModel
    tokenizer: Tokenizer
    composite: str = ""
    adapter: str = ""
    quantization: str = ""

    def provenance(self) -> ModelProvenance:
        """Return what a run records; hashing takes a moment."""
        return ModelProvenance(
            self.source,
            type(self.model).__name__,
            *_hashes(self.model),
            self.composite,
            self.adapter,
            self.quantization,
            _directory(self.source),
        )


def provenance_of(
    source: str, model: PreTrainedModel, options: LoadOptions, *, without: Collection[str] = ()
) -> ModelProvenance:
    """Return what a run records of a model that was loaded from a source.

    Args:
        source: directory, run directory or hub id, as given.
        model: with its head.
        options: how it was loaded.
        without: weights that the checkpoint does not hold, which the hashes leave out.
    """
    place = checkpoint_of(source)
    return ModelProvenance(
        source,
        type(model).__name__,
        *_hashes(model, without),
        composite_type(place, options),
        adapter_of(place),
        quantized_of(whole_config(place, options), model),
        _directory(source),
    )


def _directory(source: str) -> str:
    return checkpoint_name(source) if Path(source).is_dir() else ""


def _hashes(model: PreTrainedModel, without: Collection[str] = ()) -> tuple[str, str]:
    """Return the hash of the body, as `analyze` computes it, and that of the whole model."""
    base = f"{model.base_model_prefix}."
    return weights_hash(headless(model), {name.removeprefix(base) for name in without}), weights_hash(model, without)


def load_trained(source: str, task: Task, options: LoadOptions | None = None) -> TaskModel:
    """Load a model trained for a kind of task: every weight, the head's included, must be in the checkpoint.

    Raises:
        InputError: there is no model there, it has no trained head or no tokenizer, or it needs pickle or remote code
            without permission.
    """
    options = options or LoadOptions()
    source = checkpoint_of(source)
    config = load_config(source, options)
    task.check_config(config, source)
    model, report = load_weights(task.model_class, source, config, options)
    untrained = [*report["missing_keys"], *(str(entry[0]) for entry in report["mismatched_keys"])]
    check_no_wrapper(source, sorted(report["missing_keys"]), report)
    if untrained:
        raise InputError(
            f"{source} has no trained {task.head} head ({min(untrained)} is missing or of another size)",
            "make one: anglekit finetune",
        )
    return _with_tokenizer(source, model, options)


def load_for_fine_tuning(source: str, task: Task, options: LoadOptions | None = None) -> TaskModel:
    """Load a model and give it the head of a task.

    Training starts from the checkpoint's head if that has the same size. New weights come from the global random state:
    seed it first. `task` must come from `Task.for_fine_tuning`.

    Raises:
        InputError: as `load_trained`; weights other than the head's are missing.
    """
    options = options or LoadOptions()
    source = checkpoint_of(source)
    config = load_config(source, options)
    task.check_config(config, source)
    task.write_to(config)
    model, report = load_weights(task.model_class, source, config, options)
    base = str(model.base_model_prefix)
    body = [key for key in report["missing_keys"] if key.startswith(f"{base}.") and "pooler" not in key]
    if lacking := sorted(body if task.new_head else report["missing_keys"]):
        check_no_wrapper(source, lacking, report)
        raise InputError(f"{source} lacks {len(lacking)} weights, among them {lacking[0]}", "save the whole model")
    return _with_tokenizer(source, model, options)


def _with_tokenizer(source: str, model: PreTrainedModel, options: LoadOptions) -> TaskModel:
    tokenizer = load_tokenizer(source, options)
    if tokenizer is None:
        raise InputError(f"{source} has no tokenizer", "save the model's tokenizer in the same directory")
    if len(tokenizer) > model.config.vocab_size:
        raise InputError(
            f"the tokenizer of {source} has {len(tokenizer)} tokens and its model {model.config.vocab_size}",
            "save the tokenizer that belongs to the model",
        )
    composite = composite_type(source, options)
    if composite:
        check_kept_tokenizer(tokenizer, model.config, source)
    quantization = quantized_of(whole_config(source, options), model)
    return TaskModel(source, model, tokenizer, composite, adapter_of(source), quantization)
