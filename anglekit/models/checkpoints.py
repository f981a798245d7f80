"""A local directory or a hub id in, a model with its tokenizer and adapters out; safe unless told otherwise."""

from __future__ import annotations

import copy
import hashlib
import re
import tempfile
import weakref
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import msgspec
import torch
import transformers
from huggingface_hub.errors import HFValidationError
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)
from transformers import PreTrainedTokenizerBase as Tokenizer

from anglekit.display.counts import counted
from anglekit.errors import InputError, foreign_failures
from anglekit.models.architectures import depth, model_streams, width
from anglekit.models.check import check_language, facts_of
from anglekit.models.checkpoint_files import (
    bounded_construction,
    check_config_file,
    check_directory,
    check_tokenizer_config,
    check_tokenizer_files,
    hub_file,
    hub_has_only_pickled,
    only_pickled,
    saved_tokenizer_kind,
    stored_names,
    stored_weights,
)
from anglekit.models.chosen_blocks import check_shape, with_blocks
from anglekit.models.held_blocks import of_the_whole, same_first_blocks
from anglekit.models.library_messages import quiet_transformers as quiet_transformers
from anglekit.models.load_options import LoadOptions
from anglekit.models.load_options import checkpoint_name as checkpoint_name
from anglekit.models.load_options import checkpoint_of as checkpoint_of
from anglekit.models.memory.bare import bare_model
from anglekit.models.memory.foreign import ForeignModel
from anglekit.models.projections import load_adapters
from anglekit.models.sources import check_local, code_set_aside
from anglekit.models.stored.corrections import (
    Corrections,
    add_corrections,
    corrections_of,
    labels_of,
    merge_corrections,
)
from anglekit.models.stored.offloaded import blocks_on_disk, tensor_digest
from anglekit.models.stored.quantized import (
    ask_for_plain_weights,
    cannot_load_quantized,
    check_scales,
    left_out,
    stored_method,
    turned_plain,
)
from anglekit.models.text_stack import check_head, is_composite, load_text_model, model_class, text_config
from anglekit.runtime.files import names_told_apart, read_document
from anglekit.runtime.placement import device_names, is_placed, read_weight
from anglekit.vocabulary import PRECISIONS, STUDENT_FILE, Stream


class StudentNote(msgspec.Struct, kw_only=True, frozen=True):
    """What the trainer writes beside a student (`STUDENT_FILE`). A note of another origin may lack any part.

    Attributes:
        init: how the student was initialised.
        strategy: the strategy of layer matching.
        seed: the run's seed.
        teacher: its directory or hub id.
        taught_by: by stream, for each student layer (a number as text) the teacher layer that taught it.
        control_of: of a control arm (`vocabulary.CONTROLS`), the strategy of which it takes something away.
        given_sha256: of a student that was there before, the hash of what it started from.
    """

    init: str | None = None
    strategy: str | None = None
    seed: int | None = None
    teacher: str | None = None
    taught_by: dict[str, dict[str, int]] = {}
    control_of: str | msgspec.UnsetType = msgspec.UNSET
    given_sha256: str | msgspec.UnsetType = msgspec.UNSET


DTYPES: Mapping[str, torch.dtype] = {name: getattr(torch, name) for name in PRECISIONS}

# Weights that take no part in the hidden states: a checkpoint may lack them.
_UNUSED_PREFIXES = ("pooler.",)


@dataclass(frozen=True)
class Checkpoint:
    """A loaded model with what belongs to it.

    Attributes:
        source: the directory or hub id, as given.
        name: its last part, or the name of the run that it is in; the analysis makes it unique.
        model: the headless model, in evaluation mode.
        tokenizer: its tokenizer, or None where the checkpoint has none.
        streams: `encoder`, `decoder` or both.
        adapters: trained adapters that lie beside the weights, or None.
        training: what the trainer wrote about the student.
        sha256: the hash of the weights' content (`weights_hash`).
        whole_depth: for each stream that is cut short, the number of all its blocks; empty where all are held.
        composite: the type of the model that this one is the text model of (gemma3), or "".
        quantized: how the weights were stored quantised, and what they were turned into; "" for plain ones.
        left_out: stored weights that are no part of the model, in words.
        adapter: what corrected the weights, and whose they were: `lora on org/base`; or "".
        code_set_aside: a note where the checkpoint brings code of its own that was not run; or "".
        offloaded: of a model whose blocks stay in their files (`Placement.offload`), the weights that take no part in
            its hash, which is "" until all were read; None of any other.
    """

    source: str
    name: str
    model: PreTrainedModel
    tokenizer: Tokenizer | None
    streams: tuple[Stream, ...]
    adapters: Mapping[tuple[Stream, int], Tensor] | None
    training: StudentNote = field(default_factory=StudentNote)
    sha256: str = ""
    whole_depth: Mapping[Stream, int] = field(default_factory=dict)
    composite: str = ""
    adapter: str = ""
    quantized: str = ""
    left_out: str = ""
    code_set_aside: str = ""
    offloaded: frozenset[str] | None = None

    @classmethod
    def of(
        cls,
        model: nn.Module,
        tokenizer: Tokenizer | None = None,
        *,
        name: str | None = None,
        blocks: str | Sequence[str | nn.Module] | nn.Module | None = None,
    ) -> Checkpoint:
        """Return a model in memory as a checkpoint. It is neither copied nor changed, and stays in its mode.

        It is checked as a loaded one is: a few short texts show what its blocks hand over.

        Args:
            model: a transformers model, with or without a head, LoRA or a wrapper (`compile`, DDP); or with `blocks`
                any torch model whose `forward` takes token ids.
            tokenizer: its tokenizer; needed where texts are read.
            name: its name in results; by default the last part of where it was loaded from, or its class.
            blocks: of a model that transformers does not know, the blocks: their list, or the name of it
                (`"encoder.layers"`), or the blocks or their names in order (`with_named_blocks`).

        Raises:
            InputError: it is no such model, or cannot be read layer by layer.
        """
        held, adapter = bare_model(model, blocks)
        facts = facts_of(held)
        told = str(getattr(held.config, "name_or_path", "") or "")
        inner = held.module if isinstance(held, ForeignModel) else held
        return cls(
            source=f"{type(inner).__name__} in memory",
            name=name or (checkpoint_name(told) if told else type(inner).__name__),
            model=held,
            tokenizer=tokenizer,
            streams=tuple(facts.streams),
            adapters=None,
            sha256=weights_hash(inner),
            adapter=adapter,
        )

    def __repr__(self) -> str:
        """Return in a line which model it is, how large, and where it lies."""
        blocks = ", ".join(f"{counted(self.depth(stream), 'block')} of {stream}" for stream in self.streams)
        dtype = str(self.model.dtype).removeprefix("torch.")
        read = "" if self.tokenizer is not None else ", no tokenizer"
        return (
            f"<Checkpoint {self.name}: {type(self.model).__name__}, {blocks}, {self.width} wide, {dtype} on "
            f"{device_names(self.model)}{read}>"
        )

    def matched_layer(self, stream: Stream, layer: int) -> int | None:
        """Return the teacher layer that taught a student layer, or None if there was none or the trainer noted none."""
        return self.training.taught_by.get(stream, {}).get(str(layer))

    @property
    def width(self) -> int:
        """The width of the hidden states."""
        return width(self.model.config)

    def depth(self, stream: Stream) -> int:
        """Return the number of blocks of a stream, whether or not all of them are held."""
        return self.whole_depth.get(stream) or depth(self.model.config, stream)

    @property
    def quantization(self) -> str | None:
        """How the weights were stored quantised, or were quantised while they were loaded, or None."""
        if self.quantized:
            return self.quantized
        told = getattr(getattr(self.model, "config", None), "quantization_config", None)
        method = getattr(told, "quant_method", None)
        return None if method is None else f"{getattr(method, 'value', method)}, {self.model.dtype}"

    def provenance(self) -> dict[str, Any]:
        """Return what a result records about the checkpoint."""
        names = ("init", "strategy", "seed", "given_sha256", "taught_by")
        trained = [(name, getattr(self.training, name)) for name in names]
        facts = facts_of(self.model)
        return {
            "source": self.source,
            "model_type": str(self.model.config.model_type),
            **({"composite": self.composite} if self.composite else {}),
            "architecture": type(self.model).__name__,
            "width": self.width,
            "depth": {stream: self.depth(stream) for stream in self.streams},
            "sha256": self.sha256,
            # The hash then covers these blocks and the weights outside all blocks.
            **({"blocks_held": {s: depth(self.model.config, s) for s in self.whole_depth}} if self.whole_depth else {}),
            **({"adapter": self.adapter} if self.adapter else {}),
            **({"quantization": self.quantization} if self.quantization else {}),
            **({"left_out": self.left_out} if self.left_out else {}),
            **({"code_set_aside": self.code_set_aside} if self.code_set_aside else {}),
            **({"batching": facts.batching} if not facts.batchable else {}),
            **({"unchecked": facts.unchecked} if facts.unchecked else {}),
            **{name: told for name, told in trained if told not in (None, msgspec.UNSET, {})},
        }


def load_config(source: str, options: LoadOptions | None = None) -> PretrainedConfig:
    """Read a checkpoint's configuration without its weights; of a composite model (Gemma 3) that of the text inside.

    Raises:
        InputError: no such directory or id, no readable configuration, no text model, or remote code without
            permission.
    """
    return text_of(source, whole_config(source, options))


def text_of(source: str, whole: PretrainedConfig) -> PretrainedConfig:
    """Return the part of a checkpoint's whole configuration that is about text, which may be all of it.

    Raises:
        InputError: there is no text model, or the configuration is damaged.
    """
    with quiet_transformers(), foreign_failures(partial(_cannot_load, source)):
        return text_config(whole)


def whole_config(source: str, options: LoadOptions | None = None) -> PretrainedConfig:
    """Read a checkpoint's configuration with all its parts, whatever they read.

    Raises:
        InputError: as `load_config`, but for the text model.
    """
    options = options or LoadOptions()
    directory = Path(source)
    corrections = corrections_of(source)
    if corrections is not None and corrections.alone and not (directory / "config.json").is_file():
        config = whole_config(corrections.base, _of_the_base(corrections, options))
        if (labels := labels_of(corrections)) is not None and labels != config.num_labels:
            config.num_labels = labels
        return config
    check_local(source)
    if directory.exists():
        check_directory(directory, allow_pickle=options.allow_pickle, trust_remote_code=options.trust_remote_code)
    with quiet_transformers(), foreign_failures(partial(_cannot_load, source)):
        try:
            file = None if directory.exists() else hub_file(source, "config.json", options.revision)
            if file is not None:
                check_config_file(file, trust_remote_code=options.trust_remote_code, source=source)
            config = AutoConfig.from_pretrained(
                source, revision=options.revision, trust_remote_code=options.trust_remote_code
            )
        except HFValidationError as error:
            raise _cannot_load(source, "it is neither a directory nor a valid hub id") from error
    if not isinstance(config, PretrainedConfig):
        raise InputError(f"{source} does not hold the configuration of a model")
    check_language(config, source)
    if not options.trust_remote_code and hasattr(config, "auto_map"):
        del config.auto_map  # not run, and a student saved with it would name files that it does not have
    return config


def composite_type(source: str, options: LoadOptions | None = None) -> str:
    """Return the type of the composite model that a checkpoint holds the text model of; "" for any other checkpoint.

    Raises:
        InputError: as `whole_config`.
    """
    whole = whole_config(source, options)
    return str(whole.model_type) if is_composite(whole) else ""


def load_checkpoint(source: str, options: LoadOptions | None = None) -> Checkpoint:
    """Load a model for analysis: no head, evaluation mode, every weight from the checkpoint.

    Args:
        source: a directory, a run directory that holds a checkpoint, or a hub id.
        options: device, precision, revision and what is allowed.

    Raises:
        InputError: there is no model there, it needs pickle or remote code without permission, its weights are damaged
            or incomplete (missing weights would silently be random), its tokenizer cannot be read, or it cannot be read
            layer by layer (`check_model`).
    """
    options = options or LoadOptions()
    source = checkpoint_of(source)
    described = whole_config(source, options)
    whole = text_of(source, described)
    config, whole_depth = held_config(source, whole, options.blocks)
    model, report = load_weights(AutoModel, source, config, options)
    if whole_depth and not same_first_blocks(model, whole):
        # Something in the blocks that are held depends on how many there are.
        config, whole_depth = whole, {}
        model, report = load_weights(AutoModel, source, config, options)
    # ESM-2's head for contacts has a part for each block; no state depends on it.
    unused = of_the_whole(model, whole, report) if whole_depth else set()
    _check_complete(source, report, unused)
    without, offloaded = frozenset({*report["missing_keys"], *unused}), options.placement.offload is not None
    sha256 = "" if offloaded else weights_hash(model, without)
    facts = facts_of(model)
    directory = Path(source)
    note = directory / STUDENT_FILE
    remedy = "remove it or save the student again"
    return Checkpoint(
        source=source,
        name=checkpoint_name(source),
        model=model,
        tokenizer=load_tokenizer(source, options),
        streams=tuple(facts.streams),
        adapters=load_adapters(directory) if directory.is_dir() else None,
        training=read_document(note, StudentNote, remedy) if note.is_file() else StudentNote(),
        sha256=sha256,
        whole_depth=whole_depth,
        composite=str(described.model_type) if is_composite(described) else "",
        adapter=adapter_of(source),
        quantized=quantized_of(described, model),
        left_out=_left_out(source, described),
        code_set_aside="" if options.trust_remote_code else code_set_aside(source, options.revision),
        offloaded=without if offloaded else None,
    )


def held_config(
    source: str, config: PretrainedConfig, blocks: Mapping[Stream, int] | None
) -> tuple[PretrainedConfig, dict[Stream, int]]:
    """Return the configuration of the blocks that are held, and the whole depth of each stream that is cut short.

    LoRA's corrections are named after the whole model, so a checkpoint that has them is held whole; so is a model of
    a type that has no shorter one of these blocks.
    """
    whole = {stream: depth(config, stream) for stream in model_streams(config)}
    cut = {stream: number for stream, number in (blocks or {}).items() if 0 < number < whole[stream]}
    if not cut or corrections_of(source) is not None:
        return config, {}
    kept = {stream: range(cut.get(stream, number)) for stream, number in whole.items()}
    try:
        fewer = with_blocks(config, kept)
        check_shape(fewer)
    except InputError:
        return config, {}
    return fewer, {stream: whole[stream] for stream in cut}


def load_weights(
    auto_class: Any,  # noqa: ANN401 - transformers' auto classes share no base
    source: str,
    config: PretrainedConfig,
    options: LoadOptions,
) -> tuple[PreTrainedModel, dict[str, Any]]:
    """Load a model's weights by `AutoModel` or a sibling of it, safely, in evaluation mode on its device.

    Returns:
        The model and transformers' report; the caller decides which `missing_keys` and `mismatched_keys` it accepts,
        because such weights are random.

    Raises:
        InputError: the weights cannot be read or need pickle without permission.
    """
    corrections = corrections_of(source)
    if corrections is not None and corrections.alone:
        model, report = load_weights(auto_class, corrections.base, config, _of_the_base(corrections, options))
        replaced = add_corrections(model, corrections)
        report["missing_keys"] = set(report["missing_keys"]) - replaced
        report["mismatched_keys"] = [each for each in report["mismatched_keys"] if str(each[0]) not in replaced]
        return model, report
    corrected = corrections is not None
    whole = whole_config(source, options)
    composite = is_composite(whole)
    method = stored_method(whole)
    for each in (whole, config):
        ask_for_plain_weights(each)
    if not options.trust_remote_code:
        check_head(auto_class, config)
    without_head = corrected and auto_class is AutoModel and not composite
    loaded_by = model_class(auto_class, config) or auto_class
    if without_head:  # corrections are named after the model with its head
        loaded_by = _with_its_head(config) or loaded_by
    stored = stored_weights(Path(source)) if Path(source).is_dir() else None
    if getattr(config, "rescale_every", 0):
        # RWKV's, which changes weights and states when it evaluates, and not when it trains.
        config.rescale_every = 0
    placed_by_blocks = options.placement.offload is not None
    if placed_by_blocks and corrected:
        raise InputError(
            f"{source} corrects the weights of another model, and --offload blocks leaves weights as they are stored",
            "save the merged model",
        )
    arguments = {
        "revision": options.revision,
        "dtype": DTYPES[options.dtype],
        "use_safetensors": True if placed_by_blocks or not options.allow_pickle else None,
        "trust_remote_code": options.trust_remote_code,
        **options.placement.loading(DTYPES[options.dtype]),
        "output_loading_info": True,
        # The caller reports it in one line; transformers' own error would point to a table.
        "ignore_mismatched_sizes": True,
    }
    scratch = None
    if placed_by_blocks and options.placement.offload_folder is None:
        # For weights that transformers puts together while it loads them (experts), which are then in no file.
        scratch = tempfile.TemporaryDirectory(prefix="anglekit-weights-")
        arguments["offload_folder"] = scratch.name
    # A configuration decides what is built, so a damaged one can make any model class fail in any way.
    with (
        quiet_transformers(),
        foreign_failures(
            cannot_load_quantized(source, method) if method else partial(_weights_refused, source, options)
        ),
        bounded_construction(source, stored),
    ):
        if composite:
            place = options.place if placed_by_blocks else None
            model, report = load_text_model(auto_class, source, whole, config, arguments, blocks_run_on=place)
        else:
            if placed_by_blocks:
                arguments["device_map"] = _blocks_stay(loaded_by, config, options)
            model, report = cast("Any", loaded_by).from_pretrained(source, config=config, **arguments)
    if scratch is not None:
        weakref.finalize(model, scratch.cleanup)
    check_scales(source, model, report["unexpected_keys"])
    if not options.trust_remote_code and not method and code_set_aside(source, options.revision):
        _check_same_architecture(source, model, report)
    if method:
        model = turned_plain(model, source, method, DTYPES[options.dtype])
    # Positions that are computed (Marian's sines) are in no file, and transformers has just filled them in.
    report["missing_keys"] = set(report["missing_keys"]) - {
        f"{name}.weight" for name, module in model.named_modules() if "Sinusoidal" in type(module).__name__
    }
    if corrected:
        model = merge_corrections(model)
        model = cast("PreTrainedModel", model.base_model) if without_head else model
    placed = options.placement.spread or is_placed(model)
    nn.Module.eval(model)
    return model if placed else nn.Module.to(model, options.place), report


def _blocks_stay(
    loaded_by: Any,  # noqa: ANN401 - a class, or one of transformers' auto classes
    config: PretrainedConfig,
    options: LoadOptions,
) -> dict[str, str]:
    """Return the map of devices of a model whose blocks stay in their files."""
    copied = copy.deepcopy(config)
    with torch.device("meta"):
        if hasattr(loaded_by, "from_config"):
            model = loaded_by.from_config(copied, trust_remote_code=options.trust_remote_code)
        else:
            model = loaded_by(copied)
    return blocks_on_disk(model, model, options.place)


def _of_the_base(corrections: Corrections, options: LoadOptions) -> LoadOptions:
    """Return the options for the base of corrections: the revision is the one that they name."""
    return replace(options, revision=corrections.revision)


def quantized_of(config: PretrainedConfig, model: PreTrainedModel) -> str:
    """Return what a result records of weights that were stored quantised; "" where they were plain."""
    method = stored_method(config)
    return f"{method}, dequantised to {str(model.dtype).removeprefix('torch.')}" if method else ""


def _left_out(source: str, config: PretrainedConfig) -> str:
    """Return in words which weights of a directory are no part of the model."""
    directory = Path(weights_source(source))
    if not directory.is_dir() or is_composite(config):
        return ""
    return left_out(stored_names(directory), max(depth(config, stream) for stream in model_streams(config)))


def adapter_of(source: str) -> str:
    """Return what a result records of the corrections in a checkpoint; "" where there are none."""
    return str(corrections_of(source) or "")


def weights_source(source: str) -> str:
    """Return the checkpoint whose files hold a checkpoint's weights: that of an adapter alone is its base."""
    corrections = corrections_of(source)
    return corrections.base if corrections is not None and corrections.alone else source


def weights_hash(model: nn.Module, without: Collection[str] = (), known: Mapping[str, bytes] | None = None) -> str:
    """Return the sha256 of a model's weights: that of what each adds (`tensor_digest`), in the order of their names.

    It does not depend on how the file was sharded, nor on a head if that was not loaded, nor on the order in which the
    weights were read.

    Args:
        model: its weights may lie on the disk; they are then read one at a time.
        without: weights that take no part: those that the checkpoint did not hold (a pooler), which are random.
        known: digests of weights that were read before, by name.
    """
    digest, known = hashlib.sha256(), known or {}
    for name, tensor in sorted(model.state_dict().items()):
        if name not in without:
            found = known.get(name)
            digest.update(tensor_digest(name, read_weight(model, name, tensor)) if found is None else found)
    return digest.hexdigest()


def _with_its_head(config: PretrainedConfig) -> type[PreTrainedModel] | None:
    """Return the class that a configuration names, if it is one of transformers' models."""
    names = config.architectures
    found = getattr(transformers, str(names[0]), None) if isinstance(names, list) and names else None
    return found if isinstance(found, type) and issubclass(found, PreTrainedModel) else None


def _cannot_load(source: str, reason: str) -> InputError:
    there = Path(source).is_dir()
    remedy = (
        "correct its files, or save it again"
        if there
        else "give a checkpoint directory or a hub id that can be reached"
    )
    return InputError(f"cannot load {source!r}: {reason}", remedy)


def _check_complete(source: str, report: Mapping[str, Any], unused: Collection[str] = ()) -> None:
    missing = sorted(key for key in report["missing_keys"] if not key.startswith(_UNUSED_PREFIXES))
    mismatched = sorted({str(entry[0]) for entry in report.get("mismatched_keys", ())} - set(unused))
    check_no_wrapper(source, missing, report)
    if missing or mismatched:
        kind, names = ("lacks", missing) if missing else ("has the wrong shape for", mismatched)
        raise InputError(
            f"{source} {kind} {len(names)} weights, among them {names[0]}", "they would be random: save the whole model"
        )


def _weights_refused(source: str, options: LoadOptions, reason: str) -> InputError:
    """Return the error of weights that a library could not read, for its reason."""
    unsafe = not options.allow_pickle and not Path(source).exists()
    return (
        only_pickled(source)
        if unsafe and hub_has_only_pickled(source, options.revision)
        else _cannot_load(source, reason)
    )


def _check_same_architecture(source: str, model: PreTrainedModel, report: Mapping[str, Any]) -> None:
    """Refuse weights that only the checkpoint's own code knows what to do with, though its type is transformers' own.

    Raises:
        InputError: a block lacks weights, or its file holds some that transformers' class has no place for.
    """
    base = f"{model.base_model_prefix}."
    missing = {str(name) for name in report["missing_keys"]}
    unknown = {str(name) for name in report["unexpected_keys"]}
    held = {_block_of(name.removeprefix(base)) for name in model.state_dict()} - {None}
    other = sorted(name for name in missing | unknown if _block_of(name.removeprefix(base)) in held)
    if other:
        raise InputError(
            f"{source} is of type {model.config.model_type} and needs its own code (auto_map): "
            f"{'it lacks' if other[0] in missing else 'it holds'} {other[0]}, and transformers' {type(model).__name__} "
            f"{'needs it' if other[0] in missing else 'has no such weight'}",
            "read that code, then allow it by --trust-remote-code",
        )


def _block_of(name: str) -> str | None:
    """Return the part of a weight's name up to its first number, or None where it has none."""
    found = re.match(r"(?:.*?\.)??\d+(?=\.)", name)
    return None if found is None else found[0]


def check_no_wrapper(source: str, missing: Sequence[str], report: Mapping[str, Any]) -> None:
    """Refuse weights that are there under the names of a wrapper: DDP's `module.`, torch.compile's `_orig_mod.`.

    Args:
        source: of the checkpoint.
        missing: the weights that it lacks.
        report: transformers' own, with the `unexpected_keys` that it holds.

    Raises:
        InputError: one thing stands before the names of all that are missing.
    """
    unexpected = set(report.get("unexpected_keys", ()))
    found = next((name for name in sorted(unexpected) if missing and name.endswith(f".{missing[0]}")), "")
    before = found.removesuffix(missing[0]) if found else ""
    if before and {before + name for name in missing} <= unexpected:
        raise InputError(
            f"{source} has {before!r} before the names of its weights, as a wrapper saves them (DDP, torch.compile, a "
            "module of your own)",
            "save the model inside the wrapper with save_pretrained",
        )


def load_tokenizer(source: str, options: LoadOptions) -> Tokenizer | None:
    """Read a checkpoint's tokenizer; None where the directory has none.

    Raises:
        InputError: it is damaged.
    """
    directory = Path(source)
    if directory.is_dir() and not check_tokenizer_files(directory, trust_remote_code=options.trust_remote_code):
        corrections = corrections_of(source)
        if corrections is not None and corrections.alone:
            return load_tokenizer(corrections.base, _of_the_base(corrections, options))
        return None
    with (
        quiet_transformers(),
        foreign_failures(
            lambda reason: InputError(f"cannot read the tokenizer of {source!r}: {reason}", "save it again")
        ),
    ):
        file = None if directory.is_dir() else hub_file(source, "tokenizer_config.json", options.revision)
        if file is not None and not options.trust_remote_code:
            check_tokenizer_config(file, source)
        tokenizer = AutoTokenizer.from_pretrained(
            source, revision=options.revision, trust_remote_code=options.trust_remote_code
        )
        if _is_another_kind(tokenizer, directory):
            tokenizer = PreTrainedTokenizerFast.from_pretrained(directory)
    if not isinstance(tokenizer, Tokenizer):
        raise InputError(f"{source} does not hold a tokenizer that transformers can read")
    return tokenizer


def _is_another_kind(tokenizer: Any, directory: Path) -> bool:  # noqa: ANN401 - whatever AutoTokenizer returns
    """Whether the tokenizer that was read is of another kind (BPE, words, ...) than the one that was saved.

    For some model types (qwen2, qwen3_5) AutoTokenizer takes the type's own class whatever the directory holds, and a
    tokenizer of words then loses every word.
    """
    if type(tokenizer) is PreTrainedTokenizerFast or not hasattr(tokenizer, "backend_tokenizer"):
        return False
    kind = saved_tokenizer_kind(directory)
    return kind is not None and kind != type(tokenizer.backend_tokenizer.model).__name__


def check_kept_tokenizer(tokenizer: Tokenizer, config: PretrainedConfig, source: str) -> None:
    """Refuse a tokenizer that reads texts otherwise once it is saved beside a model of another type.

    transformers takes the tokenizer of some types by the model's type, whatever the tokenizer's own file says: that of
    Qwen2.5-VL stays what it is, and beside a `qwen2` it becomes Qwen2's. A student is saved beside its own type.

    Raises:
        InputError: saved and read again it has other tokens, or splits a text into others.
    """
    with tempfile.TemporaryDirectory() as scratch, quiet_transformers():
        tokenizer.save_pretrained(scratch)
        config.save_pretrained(scratch)
        again = AutoTokenizer.from_pretrained(scratch)
    ids = [number for number in range(min(len(tokenizer), 400)) if number not in tokenizer.all_special_ids]
    text = str(tokenizer.decode(ids))
    same = again.get_vocab() == tokenizer.get_vocab() and again(text)["input_ids"] == tokenizer(text)["input_ids"]
    if not same:
        raise InputError(
            f"the tokenizer of {source} ({type(tokenizer).__name__}) is read as {type(again).__name__} beside the text "
            f"model, of type {config.model_type}, and splits texts otherwise",
            f"save it as a {type(again).__name__}, if it is one, or choose another model",
        )


def student_names(students: Sequence[Checkpoint]) -> list[str]:
    """Return what students are called, each with a name of its own.

    Directories that end in one name are told apart by those above: of two sweeps `a-forward-random-seed0` and
    `b-forward-random-seed0`, and where the name is a trainer's, `forward/checkpoint-100` and `reverse/checkpoint-100`,
    just `forward` and `reverse`. What is still alike gets numbers (`unique_names`).
    """
    names = [student.name for student in students]
    places = [Path(student.source).resolve() for student in students]
    # A run's student is called after the run.
    places = [place if place.name == name else place.parent for place, name in zip(places, names, strict=True)]
    for name in sorted({name for name in names if names.count(name) > 1}):
        alike = [number for number, other in enumerate(names) if other == name]
        own = [places[number] for number in alike]
        if len(set(own)) < len(own) or not all(place.is_dir() and place.name == name for place in own):
            continue
        for number, told in zip(alike, names_told_apart(own), strict=True):
            above = "-".join(part for part in Path(told).parts[:-1] if part != "/")
            said = name.startswith("checkpoint") and above not in names
            names[number] = above if said and above else f"{above}-{name}".lstrip("-")
    return unique_names(names)


def unique_names(names: Sequence[str]) -> list[str]:
    """Return the names with a number behind every repeated one: `student`, `student-2`."""
    taken: set[str] = set()
    result = []
    for name in names:
        candidate, number = name, 2
        while candidate in taken:
            candidate, number = f"{name}-{number}", number + 1
        taken.add(candidate)
        result.append(candidate)
    return result
