"""A local directory or a hub id in, a model with its tokenizer and adapters out; safe unless told otherwise."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
import transformers
from huggingface_hub.errors import HFValidationError, StrictDataclassError
from safetensors import SafetensorError
from torch import Tensor
from transformers import AutoConfig, AutoModel, AutoTokenizer, PretrainedConfig, PreTrainedModel
from transformers import PreTrainedTokenizerBase as Tokenizer

from anglekit.architectures import Stream, depth, model_streams, width
from anglekit.errors import InputError, suggest
from anglekit.lora_weights import has_lora, merge_lora
from anglekit.projections import load_adapters

__all__ = [
    "DTYPES",
    "STUDENT_FILE",
    "Checkpoint",
    "LoadOptions",
    "checkpoint_of",
    "load_checkpoint",
    "load_config",
    "load_tokenizer",
    "load_weights",
    "quiet_transformers",
    "unique_names",
    "weights_hash",
]

#: What the trainer writes beside a student: its initialisation, strategy, seed and teacher.
STUDENT_FILE = "anglekit_student.json"

DTYPES: Mapping[str, torch.dtype] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}

_SAFE_WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
_PICKLED_WEIGHTS = ("pytorch_model.bin", "pytorch_model.bin.index.json")
# Weights that take no part in the hidden states: a checkpoint may lack them.
_UNUSED_PREFIXES = ("pooler.",)


@dataclass(frozen=True)
class LoadOptions:
    """How checkpoints are loaded.

    Attributes:
        device: where the model goes: `cpu`, `cuda`, `cuda:1`, `mps`.
        dtype: the weights' precision, one of `DTYPES`.
        revision: branch, tag or commit of a hub checkpoint.
        allow_pickle: accept weights in pickle files, which can run code when they are read.
        trust_remote_code: accept checkpoints that bring their own code.

    Raises:
        InputError: an unknown dtype or a device that is not there.
    """

    device: str = "cpu"
    dtype: str = "float32"
    revision: str | None = None
    allow_pickle: bool = False
    trust_remote_code: bool = False

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise InputError(f"dtype {self.dtype!r} is not known; {suggest(self.dtype, DTYPES)}")
        try:
            torch.empty(0, device=self.device)
        except (RuntimeError, AssertionError, NotImplementedError) as error:
            reason = str(error).splitlines()[0]
            raise InputError(f"device {self.device!r} cannot be used here ({reason}); use cpu") from error


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
        training: what the trainer wrote about the student (`init`, `strategy`, `seed`, `teacher`, `taught_by`); may be
            empty.
        sha256: the hash of the weights' content (`weights_hash`).
    """

    source: str
    name: str
    model: PreTrainedModel
    tokenizer: Tokenizer | None
    streams: tuple[Stream, ...]
    adapters: Mapping[tuple[Stream, int], Tensor] | None
    training: Mapping[str, Any] = field(default_factory=dict)
    sha256: str = ""

    def matched_layer(self, stream: Stream, layer: int) -> int | None:
        """Return the teacher layer that taught a student layer, where the trainer wrote it down and there was one."""
        by_stream = self.training.get("taught_by")
        by_layer = by_stream.get(stream) if isinstance(by_stream, Mapping) else None
        found = by_layer.get(str(layer)) if isinstance(by_layer, Mapping) else None
        return found if isinstance(found, int) else None

    @property
    def width(self) -> int:
        """The width of the hidden states."""
        return width(self.model.config)

    def depth(self, stream: Stream) -> int:
        """Return the number of blocks of a stream."""
        return depth(self.model.config, stream)

    def provenance(self) -> dict[str, Any]:
        """Return what a result records about the checkpoint."""
        return {
            "source": self.source,
            "model_type": str(self.model.config.model_type),
            "architecture": type(self.model).__name__,
            "width": self.width,
            "depth": {stream: self.depth(stream) for stream in self.streams},
            "sha256": self.sha256,
            **{key: self.training[key] for key in ("init", "strategy", "seed") if key in self.training},
        }


def checkpoint_of(source: str) -> str:
    """Return the checkpoint inside a run directory, or the source itself."""
    inner = Path(source) / "checkpoint"
    return str(inner) if not (Path(source) / "config.json").exists() and (inner / "config.json").is_file() else source


def load_config(source: str, options: LoadOptions | None = None) -> PretrainedConfig:
    """Read a checkpoint's configuration without its weights.

    Raises:
        InputError: no such directory or id, no readable configuration, or remote code without permission.
    """
    options = options or LoadOptions()
    directory = Path(source)
    if directory.exists() or _looks_like_path(source):
        _check_directory(directory, options)
    try:
        config = AutoConfig.from_pretrained(
            source, revision=options.revision, trust_remote_code=options.trust_remote_code
        )
    except (OSError, ValueError, KeyError, TypeError, HFValidationError, StrictDataclassError) as error:
        raise InputError(_load_problem(source, error)) from error
    if not isinstance(config, PretrainedConfig):
        raise InputError(f"{source} does not hold the configuration of a model")
    return config


def load_checkpoint(source: str, options: LoadOptions | None = None) -> Checkpoint:
    """Load a model for analysis: no head, evaluation mode, every weight from the checkpoint.

    Args:
        source: a directory, a run directory that holds a checkpoint, or a hub id.
        options: device, precision, revision and what is allowed.

    Raises:
        InputError: there is no model there, it needs pickle or remote code without permission, its weights are damaged
            or incomplete (missing weights would silently be random), or its tokenizer cannot be read.
    """
    options = options or LoadOptions()
    source = checkpoint_of(source)
    config = load_config(source, options)
    model, report = load_weights(AutoModel, source, config, options)
    _check_complete(source, report)
    directory = Path(source)
    return Checkpoint(
        source=source,
        name=_name(source),
        model=model,
        tokenizer=load_tokenizer(source, options),
        streams=model_streams(config),
        adapters=load_adapters(directory) if directory.is_dir() else None,
        training=_read_training(directory / STUDENT_FILE) if directory.is_dir() else {},
        sha256=weights_hash(model, without=report["missing_keys"]),
    )


def load_weights(
    auto_class: Any,  # noqa: ANN401 - transformers' auto classes share no base
    source: str,
    config: PretrainedConfig,
    options: LoadOptions,
) -> tuple[PreTrainedModel, dict[str, Any]]:
    """Load a model's weights under the safety rules of `options`, in evaluation mode on its device.

    Args:
        auto_class: `AutoModel` or one of its siblings with a head.
        source: a directory or a hub id.
        config: as `load_config` returned it.
        options: device, precision, revision and what is allowed.

    Returns:
        The model and transformers' report; the caller decides which `missing_keys` and `mismatched_keys` it accepts,
        because such weights are random.

    Raises:
        InputError: the weights cannot be read or need pickle without permission.
    """
    corrected = has_lora(source)
    headless = corrected and auto_class is AutoModel
    if headless:
        # Corrections are named by the model with its head.
        auto_class = getattr(transformers, (config.architectures or [""])[0], None) or auto_class
    with quiet_transformers():
        try:
            model, report = auto_class.from_pretrained(
                source,
                config=config,
                revision=options.revision,
                dtype=DTYPES[options.dtype],
                use_safetensors=None if options.allow_pickle else True,
                trust_remote_code=options.trust_remote_code,
                output_loading_info=True,
                # Reported by the caller, in one line, instead of by an error that points to a table.
                ignore_mismatched_sizes=True,
            )
        except (OSError, ValueError, KeyError, RuntimeError, SafetensorError, StrictDataclassError) as error:
            raise InputError(_load_problem(source, error)) from error
    # Positions that are computed (Marian's sines) are in no file, and transformers has just filled them in.
    report["missing_keys"] = set(report["missing_keys"]) - {
        f"{name}.weight" for name, module in model.named_modules() if "Sinusoidal" in type(module).__name__
    }
    if corrected:
        model = merge_lora(model)
        model = cast("PreTrainedModel", model.base_model) if headless else model
    return model.eval().to(options.device), report


def weights_hash(model: PreTrainedModel, without: Collection[str] = ()) -> str:
    """Return the sha256 of a model's weights: names, shapes, types and bytes, in the order of the names.

    It does not depend on how the file was sharded, nor on a head, because it is taken of the headless model.

    Args:
        model: the headless model.
        without: weights to leave out: those that the checkpoint did not hold (a pooler) are drawn at random.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        if name in without:
            continue
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _name(source: str) -> str:
    """Return the last part of a path or hub id; of a run's checkpoint the run's name, which tells runs apart."""
    directory = Path(source)
    if not directory.is_dir():
        return source.rstrip("/").split("/")[-1]
    place = directory.resolve()
    in_a_run = place.name == "checkpoint" and (place.parent / "run_config.json").is_file()
    return place.parent.name if in_a_run else place.name


def _looks_like_path(source: str) -> bool:
    return source.startswith(("/", "./", "../", "~")) or source.count("/") > 1 or source in ("", ".", "..")


def _check_directory(directory: Path, options: LoadOptions) -> None:
    """Refuse, before anything is loaded, a directory that holds no model or one that is not allowed."""
    if not directory.exists():
        raise InputError(f"no such directory: {directory}; give a checkpoint directory or a hub id such as org/name")
    if not directory.is_dir():
        raise InputError(f"{directory} is a file; give the directory that holds config.json and the weights")
    config_file = directory / "config.json"
    if not config_file.is_file():
        raise InputError(
            f"{directory} holds no model: config.json is missing; give a Hugging Face checkpoint directory"
        )
    try:
        config = json.loads(config_file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{config_file} is not readable json ({error}); save the checkpoint again") from error
    if not isinstance(config, dict):
        raise InputError(f"{config_file} is not a json object; save the checkpoint again")
    if "auto_map" in config and not options.trust_remote_code:
        raise InputError(
            f"{directory} brings its own code (auto_map in config.json); read it, then allow it by --trust-remote-code"
        )
    if any((directory / name).is_file() for name in _SAFE_WEIGHTS):
        return
    pickled = any((directory / name).is_file() for name in _PICKLED_WEIGHTS)
    if pickled and not options.allow_pickle:
        raise InputError(
            f"{directory} has only pickled weights, which can run code when read; convert them to safetensors, or "
            "allow them with --allow-pickle if you trust their source"
        )
    if not pickled:
        raise InputError(f"{directory} holds no weights; expected one of {', '.join(_SAFE_WEIGHTS)}")


def _load_problem(source: str, error: Exception) -> str:
    reason = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, HFValidationError):
        reason = "it is neither a directory nor a valid hub id"
    return f"cannot load {source!r}: {reason[:300]}; give a checkpoint directory or a hub id that can be reached"


def _check_complete(source: str, report: Mapping[str, Any]) -> None:
    missing = sorted(key for key in report["missing_keys"] if not key.startswith(_UNUSED_PREFIXES))
    mismatched = sorted(str(entry[0]) for entry in report.get("mismatched_keys", ()))
    if missing or mismatched:
        kind, names = ("lacks", missing) if missing else ("has the wrong shape for", mismatched)
        raise InputError(
            f"{source} {kind} {len(names)} weights, among them {names[0]}; they would be random: save the whole model"
        )


def load_tokenizer(source: str, options: LoadOptions) -> Tokenizer | None:
    """Read a checkpoint's tokenizer; None where the directory has none.

    Raises:
        InputError: it is damaged.
    """
    directory = Path(source)
    names = ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "vocab.json", "spiece.model", "tokenizer.model")
    if directory.is_dir() and not any((directory / name).is_file() for name in names):
        return None
    with quiet_transformers():
        try:
            tokenizer = AutoTokenizer.from_pretrained(
                source, revision=options.revision, trust_remote_code=options.trust_remote_code
            )
        except Exception as error:  # the tokenizers library raises bare Exceptions on damaged files
            raise InputError(f"cannot read the tokenizer of {source!r}: {str(error)[:200]}") from error
    if not isinstance(tokenizer, Tokenizer):
        raise InputError(f"{source} does not hold a tokenizer that transformers can read")
    return tokenizer


def _read_training(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{file} is damaged ({error}); remove it or save the student again") from error
    if not isinstance(content, dict):
        raise InputError(f"{file} is not a json object; remove it or save the student again")
    return content


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


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Keep load reports off the terminal: missing weights are an error here, a head that is not used is no news."""
    from transformers.utils import logging as transformers_logging

    level = transformers_logging.get_verbosity()
    bar = transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity(logging.CRITICAL)
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)
        if bar:
            transformers_logging.enable_progress_bar()  # type: ignore[no-untyped-call]
