"""Classifiers with their heads, loaded for training and scoring under the same safety rules as `checkpoints`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

from transformers import AutoModelForSequenceClassification, PreTrainedModel
from transformers import PreTrainedTokenizerBase as Tokenizer

from anglekit.checkpoints import (
    LoadOptions,
    checkpoint_of,
    load_config,
    load_tokenizer,
    load_weights,
    weights_hash,
)
from anglekit.distillation.label_sets import LabelSet, labels_of_config
from anglekit.errors import InputError

__all__ = ["Classifier", "load_classifier", "load_for_fine_tuning"]


@dataclass(frozen=True, eq=False)
class Classifier:
    """A model with a classification head and its tokenizer.

    Attributes:
        source: the directory or hub id, as given.
        model: in evaluation mode, on the device that was asked for.
        tokenizer: its own.
    """

    source: str
    model: PreTrainedModel
    tokenizer: Tokenizer

    @property
    def labels(self) -> LabelSet:
        """The classes that the configuration names."""
        return labels_of_config(self.model.config)

    def provenance(self) -> dict[str, Any]:
        """Return what a run records: the hash of the body as `analyze` takes it, and of the whole with its head."""
        return {
            "source": self.source,
            "architecture": type(self.model).__name__,
            "sha256": weights_hash(cast("PreTrainedModel", self.model.base_model)),
            "sha256_with_head": weights_hash(self.model),
        }


def load_classifier(source: str, options: LoadOptions | None = None) -> Classifier:
    """Load a trained classifier: every weight, its head's included, must be in the checkpoint.

    Args:
        source: a directory, a run directory, or a hub id.
        options: device, precision, revision and what is allowed.

    Raises:
        InputError: there is no model there, it has no trained classification head or no tokenizer, or it needs pickle
            or remote code without permission.
    """
    options = options or LoadOptions()
    source = checkpoint_of(source)
    model, report = load_weights(AutoModelForSequenceClassification, source, load_config(source, options), options)
    untrained = [*report["missing_keys"], *(str(entry[0]) for entry in report["mismatched_keys"])]
    if untrained:
        raise InputError(
            f"{source} has no trained classification head ({min(untrained)} is missing or of another size); "
            "make one: anglekit finetune"
        )
    return _with_tokenizer(source, model, options)


def load_for_fine_tuning(source: str, labels: LabelSet, options: LoadOptions | None = None) -> Classifier:
    """Load a model and give it a classification head for these labels.

    A head of the same size in the checkpoint is where training starts. New weights come from the global random state:
    seed it first.

    Raises:
        InputError: as `load_classifier`; weights other than the head's are missing.
    """
    options = options or LoadOptions()
    source = checkpoint_of(source)
    config = load_config(source, options)
    labels.write_to(config)
    model, report = load_weights(AutoModelForSequenceClassification, source, config, options)
    base = str(model.base_model_prefix)
    if lacking := sorted(key for key in report["missing_keys"] if key.startswith(f"{base}.") and "pooler" not in key):
        raise InputError(f"{source} lacks {len(lacking)} weights, among them {lacking[0]}; save the whole model")
    return _with_tokenizer(source, model, options)


def _with_tokenizer(source: str, model: PreTrainedModel, options: LoadOptions) -> Classifier:
    tokenizer = load_tokenizer(source, options)
    if tokenizer is None:
        raise InputError(f"{source} has no tokenizer; save the model's tokenizer in the same directory")
    if len(tokenizer) > model.config.vocab_size:
        raise InputError(
            f"the tokenizer of {source} has {len(tokenizer)} tokens and its model {model.config.vocab_size}; "
            "save the tokenizer that belongs to the model"
        )
    return Classifier(source, model, tokenizer)
