"""What peft trained beside a model's weights (LoRA and its kin): found, checked, added to the weights, and gone.

Corrections lie beside all weights of a checkpoint, or alone in a directory that names the base model whose weights they
correct. Both become an ordinary model. What cannot be added to weights (tokens before each text, weights that depend on
the text) is refused. LoRA: Hu et al. 2021, arXiv 2106.09685.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor
from transformers import PreTrainedModel

from anglekit.errors import InputError, foreign_failures
from anglekit.models.checkpoint_files import CORRECTIONS_CONFIG, CORRECTIONS_WEIGHTS, check_corrections, holds_weights
from anglekit.models.library_messages import quiet_transformers
from anglekit.models.sources import looks_like_path
from anglekit.runtime.files import read_json_object
from anglekit.runtime.placement import is_placed

_SAVE_AGAIN: Final = "save the adapter again"
_MERGE: Final = "give a model without it, or an adapter of low rank (LoRA) that can be added to the weights"
# Settings with which corrections are more than additions to weights, and what they are then.
_NO_ADDITIONS: Final[Mapping[str, str]] = {
    "alora_invocation_tokens": "begin behind certain tokens only",
    "arrow_config": "are weighed anew for each token",
    "layer_replication": "make blocks that the base model does not have",
    "megatron_config": "are made for Megatron's layers",
}
_BY_TEXT: Final = ("XLORA", "POLY")
# What saves a head names its weights so.
_HEADS: Final = ("classifier.weight", "score.weight", "classifier.out_proj.weight", "out_proj.weight")
_PREFIX: Final = "base_model.model."
# How much further than roundings of one sum the merged model's states may be from the corrected one's.
_TOLERANCE: Final[Mapping[torch.dtype, float]] = {torch.float32: 1e-4, torch.float64: 1e-8}
_COARSE: Final = 0.1


@dataclass(frozen=True)
class Corrections:
    """Corrections in a directory.

    Attributes:
        directory: where they are.
        method: peft's name of it, in lower case: `lora`, `ia3`.
        base: the directory or hub id whose weights they correct; "" where these lie beside them.
        revision: the branch, tag or commit of the base that the adapter names.
    """

    directory: Path
    method: str
    base: str = ""
    revision: str | None = None

    @property
    def alone(self) -> bool:
        """Whether the weights are another checkpoint's."""
        return bool(self.base)

    def __str__(self) -> str:
        """Return what a result records."""
        at = "" if self.revision is None else f"@{self.revision}"
        return f"{self.method} on {self.base}{at}" if self.base else self.method


def corrections_of(source: str) -> Corrections | None:
    """Return the corrections that a checkpoint's directory holds; None where there are none.

    Raises:
        InputError: they cannot be read or added to weights, or the base model is not there; without them it would be
            a different model.
    """
    directory = Path(source)
    file = directory / CORRECTIONS_CONFIG
    if not file.is_file():
        if directory.is_dir() and not (directory / "config.json").exists():
            _check_not_inside(directory)
        return None
    if importlib.util.find_spec("peft") is None:
        raise InputError(
            f"{source} holds LoRA corrections, which need the `peft` package",
            "install it: pip install 'anglekit[lora]'",
        )
    told = read_json_object(file, _SAVE_AGAIN)
    kind = _checked_kind(source, told)
    if holds_weights(directory):
        return Corrections(directory, kind.lower())
    if not (directory / CORRECTIONS_WEIGHTS).is_file():
        raise InputError(f"{source} holds no {CORRECTIONS_WEIGHTS}", "save the adapter as safetensors")
    check_corrections(directory)
    revision = told.get("revision")
    base = _base(directory, told.get("base_model_name_or_path"))
    return Corrections(directory, kind.lower(), base, None if revision is None else str(revision))


def _check_not_inside(directory: Path) -> None:
    """Refuse a directory of several adapters."""
    inside = sorted(one.parent.name for one in directory.glob(f"*/{CORRECTIONS_CONFIG}"))
    if inside:
        raise InputError(
            f"{directory} holds {'adapters' if len(inside) > 1 else 'an adapter'} in folders of "
            f"{'their' if len(inside) > 1 else 'its'} own: {', '.join(inside[:5])}",
            f"give one of them, such as {directory / inside[0]}",
        )


def _checked_kind(source: str, told: Mapping[str, Any]) -> str:
    """Return peft's name of the method, if its corrections can be added to weights."""
    from peft import PromptLearningConfig
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    known: Mapping[str, type] = {one.value: made for one, made in PEFT_TYPE_TO_CONFIG_MAPPING.items()}
    kind = str(told.get("peft_type"))
    if kind not in known:
        raise InputError(
            f"{source} holds corrections of the kind {kind[:40]!r}, which this version of peft lacks", _MERGE
        )
    if issubclass(known[kind], PromptLearningConfig):
        raise InputError(
            f"{source} holds no corrections of weights but {kind}: states of its own, put before those of each text",
            _MERGE,
        )
    if kind in _BY_TEXT:
        raise InputError(f"{source} holds {kind} corrections, which are weighed anew for each text", _MERGE)
    for setting, problem in _NO_ADDITIONS.items():
        if told.get(setting):
            raise InputError(f"{source} holds {kind} corrections that {problem} ({setting})", _MERGE)
    return kind


def _base(directory: Path, named: object) -> str:
    """Return the base model as a directory or hub id; a path may be relative to the adapter's directory."""
    remedy = f"write the base model's directory or hub id to base_model_name_or_path in {CORRECTIONS_CONFIG}"
    if not isinstance(named, str) or not named:
        raise InputError(f"{directory} holds an adapter alone and names no base model", remedy)
    for place in (Path(named), directory / named):
        if place.is_dir():
            if (place / CORRECTIONS_CONFIG).is_file() and not holds_weights(place):
                raise InputError(
                    f"the base model {named} of the adapter {directory} is an adapter too", "merge it first"
                )
            return str(place)
    if looks_like_path(named):
        raise InputError(f"the base model {named} of the adapter {directory} is not there", remedy)
    return named


def labels_of(corrections: Corrections) -> int | None:
    """Return the number of labels of a classification head that was saved with the corrections; None without one.

    peft saves the head's weights and not the configuration that says how many there are.
    """
    try:
        with safe_open(corrections.directory / CORRECTIONS_WEIGHTS, framework="pt") as weights:
            for name in weights.keys():  # noqa: SIM118 - no mapping
                shape = weights.get_slice(name).get_shape()
                if name.removeprefix(_PREFIX) in _HEADS and len(shape) == 2:
                    return int(shape[0])
    except (SafetensorError, OSError) as error:
        raise InputError(f"cannot load {corrections.directory}: {error}", _SAVE_AGAIN) from error
    return None


def add_corrections(model: PreTrainedModel, corrections: Corrections) -> set[str]:
    """Add corrections to the weights of their base, in place; parts that were trained whole (a head) are replaced.

    What corrects a head that this model does not have is left out.

    Returns:
        The names of the weights that were replaced.

    Raises:
        InputError: they are another model's, or what is merged does not compute what base and corrections do.
    """
    from peft import PeftConfig, PeftModel
    from peft.utils import set_peft_model_state_dict

    where, base = corrections.directory, corrections.base
    if is_placed(model):
        raise InputError(
            f"corrections cannot be added exactly to {base}, which is quantised or spread over devices",
            "merge them into the base in full precision first",
        )

    def refusal(reason: str) -> InputError:
        return InputError(f"the adapter {where} does not fit its base model {base}: {reason}", "give its own base")

    with quiet_transformers(), foreign_failures(refusal), warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        config = PeftConfig.from_pretrained(str(where))
        config.inference_mode = True
        stored = load_file(where / CORRECTIONS_WEIGHTS)
        root, prefix = _place(model, stored)
        _rename_targets(config, root, prefix, stored)
        kept, replaced = _sorted_out(root, prefix, stored)
        if not kept and not replaced:
            raise refusal("none of its names is a part of that model")
        names = {id(weight): name for name, weight in model.named_parameters()}
        changed = {names[id(root.get_parameter(name))] for name in replaced}
        _replace(root, replaced, refusal)
        if kept:
            wrapped = PeftModel(root, config, autocast_adapter_dtype=False)
            result: Any = set_peft_model_state_dict(wrapped, kept)
            marker = str(getattr(wrapped.base_model, "prefix", ""))
            # A part that all layers share (VeRA's, VB-LoRA's) is stored once, directly under the wrapper.
            shared = {name.split(".")[1] for name in kept if not name.startswith(_PREFIX)}
            lacking = [name for name in result.missing_keys if marker in name and not shared & set(name.split("."))]
            if result.unexpected_keys or lacking:
                raise refusal(f"{(result.unexpected_keys or lacking)[0]} has no counterpart")
            wrapped.eval()
            before = _states(root)
            merged = wrapped.merge_and_unload(safe_merge=True)
            if not torch.dist(before, _states(merged)) <= _TOLERANCE.get(model.dtype, _COARSE) * before.norm():
                raise refusal("merged it computes something else")
    model._hf_peft_config_loaded = False
    model.requires_grad_(True)
    return changed


def _place(model: PreTrainedModel, stored: Mapping[str, Tensor]) -> tuple[PreTrainedModel, str]:
    """Return which part of a model corrections are named after (it, or its body), and what stands before the names.

    They are named after the model that was trained, which may have a head, or images beside its text.
    """
    own = [name.removeprefix(_PREFIX) for name in stored if name.startswith(_PREFIX)]
    roots = {id(each): each for each in (model, cast("PreTrainedModel", model.base_model))}
    votes: Counter[tuple[int, str]] = Counter()
    for key, root in roots.items():
        parts = {name for name, _ in root.named_modules() if name.count(".") >= 1}
        for name in own:
            pieces = name.split(".")
            for first in range(min(4, len(pieces))):
                rest = pieces[first:]
                if any(".".join(rest[:last]) in parts for last in range(len(rest), 1, -1)):
                    votes[key, "".join(f"{piece}." for piece in pieces[:first])] += 1
                    break
    if not votes:
        return model, ""
    (key, prefix), _ = max(votes.items(), key=lambda vote: (vote[1], vote[0][0] == id(model)))
    return roots[key], prefix


def _rename_targets(config: Any, root: PreTrainedModel, prefix: str, stored: Mapping[str, Tensor]) -> None:  # noqa: ANN401 - peft's
    """Name the corrected layers as this model does; parts that were trained whole are replaced, and not corrected."""
    config.modules_to_save = None
    for setting in ("target_modules", "feedforward_modules", "exclude_modules"):
        names = getattr(config, setting, None)
        if isinstance(names, list | set | tuple):
            setattr(config, setting, [str(name).removeprefix(prefix) for name in names])
    if isinstance(
        getattr(config, "target_modules", None), str
    ):  # a pattern over the names of the model that was trained
        inside = [name.removeprefix(_PREFIX).removeprefix(prefix) for name in stored]
        parts = {name for name, _ in root.named_modules()}
        config.target_modules = sorted(
            {next((part for part in _owners(name) if part in parts), "") for name in inside} - {""}
        )


def _owners(name: str) -> Iterator[str]:
    """Yield the modules that a weight of this name may belong to, the innermost first."""
    while name := name.rpartition(".")[0]:
        yield name


def _sorted_out(
    root: PreTrainedModel, prefix: str, stored: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the corrections, by the names of this model, and the weights that stand in place of its own.

    What belongs to a part outside (a head, a tower of images) is in neither.
    """
    parameters = {name for name, _ in root.named_parameters()}
    children = {name for name, _ in root.named_children()}
    kept, replaced = {}, {}
    for name, value in stored.items():
        own = name.removeprefix(_PREFIX)
        if own == name:  # what all layers share
            kept[name] = value
            continue
        inside = own.removeprefix(prefix) if own.startswith(prefix) else own
        if inside in parameters:
            replaced[inside] = value
        elif inside.split(".")[0] in children and own.startswith(prefix):
            kept[_PREFIX + inside] = value
    return kept, replaced


def _replace(root: PreTrainedModel, weights: Mapping[str, Tensor], refusal: Any) -> None:  # noqa: ANN401 - a function
    embeddings = root.get_input_embeddings()
    for name, value in weights.items():
        own = root.get_parameter(name)
        if own is getattr(embeddings, "weight", None) and own.shape != value.shape and own.shape[1:] == value.shape[1:]:
            # Tokens were added to the vocabulary.
            root.resize_token_embeddings(len(value), mean_resizing=False)
            own = root.get_parameter(name)
        if own.shape != value.shape:
            raise refusal(f"{name} is {tuple(value.shape)} there and {tuple(own.shape)} here")
        own.data.copy_(value)


def _states(model: PreTrainedModel) -> Tensor:
    """Return what a model makes of a short text."""
    size = len(cast("Tensor", model.get_input_embeddings().weight))
    ids = torch.arange(7, device=model.device)[None] * 7919 % size
    inputs = {"input_ids": ids, **({"decoder_input_ids": ids} if model.config.is_encoder_decoder else {})}
    return cast("Tensor", model(**inputs)[0]).double()


def merge_corrections(model: PreTrainedModel) -> PreTrainedModel:
    """Add the corrections that transformers has loaded, or that were trained, to the weights, in place.

    Returns:
        The model, now an ordinary one.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import ModulesToSaveWrapper

    for name, module in list(model.named_modules()):
        if isinstance(module, BaseTunerLayer):
            module.merge(safe_merge=True)
            model.set_submodule(name, module.get_base_layer())
        elif isinstance(module, ModulesToSaveWrapper):
            model.set_submodule(name, module.modules_to_save[module.active_adapters[0]])
    model._hf_peft_config_loaded = False
    return model.requires_grad_(True)
