"""The files of a checkpoint directory, checked before transformers reads them: no code, no pickle, no claim too large.

A model is built only as large as the weights that are stored for it.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.nn.modules import module as nn_module
from transformers import CONFIG_MAPPING
from transformers.utils.hub import cached_file, has_file

from anglekit.errors import InputError
from anglekit.models.sources import no_directory, no_model, other_format
from anglekit.runtime.files import read_json_object

SAFE_WEIGHTS: Final = "model.safetensors"
SAFE_INDEX: Final = "model.safetensors.index.json"
_PICKLED_WEIGHTS: Final = ("pytorch_model.bin", "pytorch_model.bin.index.json")
#: What peft writes: beside a checkpoint's weights, or alone.
CORRECTIONS_CONFIG, CORRECTIONS_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_SAVE_AGAIN: Final = "save the checkpoint again"

# Some tokenizers take 35 MB.
_MOST_TOKENIZER_BYTES: Final = 64 << 20
_TOKENIZER_FILES: Final = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
_MORE_VOCABULARIES: Final = (
    *("vocab.json", "vocab.txt", "merges.txt", "bpe.codes"),
    *("spiece.model", "tokenizer.model", "source.spm", "spm.model", "sentencepiece.bpe.model", "sentencepiece.model"),
)

# The keys that say how many parts a model has, by the ends of their names.
_COUNTED: Final = ("layers", "layer", "blocks", "depth", "heads", "head", "experts", "labels", "depths", "stages")
_MOST_COUNTED: Final = 100_000
_MOST_FILES: Final = 10_000
# Room for what the files do not hold: new heads, computed positions, a pooler that a checkpoint may lack.
_MORE_ELEMENTS: Final = 1 << 25
_MORE_TENSORS: Final = 1000
# Weights may be packed (eight values of four bits in 32), and tied ones are registered more than once.
_TIMES: Final = 8
# Bounds of a model that is only planned: four times as many weights as the deepest model has, of any size.
_MOST_BUILT, _MOST_ELEMENTS = 100_000, 1 << 62


@dataclass(frozen=True)
class StoredWeights:
    """How much a checkpoint's files hold, which bounds the model that is built for them.

    Attributes:
        tensors: the number of tensors.
        elements: the number of values in all of them.
    """

    tensors: int
    elements: int


def check_directory(directory: Path, *, allow_pickle: bool, trust_remote_code: bool) -> None:
    """Refuse, before anything is loaded, a directory that holds no model or holds something not allowed.

    Raises:
        InputError: it does not exist, lacks config.json or weights, or brings code or pickled weights unasked.
    """
    if not directory.exists():
        raise no_directory(directory)
    if not directory.is_dir():
        raise InputError(f"{directory} is a file", "give the directory that holds config.json and the weights")
    config_file = directory / "config.json"
    if not config_file.is_file():
        raise no_model(directory)
    config = check_config_file(config_file, trust_remote_code=trust_remote_code)
    # Only the usual files are read.
    if config.get("transformers_weights") not in (None, SAFE_WEIGHTS, SAFE_INDEX):
        raise InputError(
            f"{config_file} names the weights {str(config['transformers_weights'])[:80]!r}",
            "rename the file and remove the key transformers_weights",
            allowed=f"only {SAFE_WEIGHTS} and {SAFE_INDEX} are read",
        )
    if any((directory / name).is_file() for name in (SAFE_WEIGHTS, SAFE_INDEX)) or _corrections_alone(directory):
        return
    pickled = any((directory / name).is_file() for name in _PICKLED_WEIGHTS)
    if pickled and not allow_pickle:
        raise only_pickled(str(directory))
    if not pickled:
        raise other_format(directory) or InputError(
            f"{directory} holds no weights", allowed=f"expected one of {SAFE_WEIGHTS}, {SAFE_INDEX}"
        )


def check_config_file(file: Path, *, trust_remote_code: bool, source: str = "") -> Mapping[str, Any]:
    """Return what a config.json holds, unless that is not allowed.

    Args:
        file: in a directory, or in the hub's cache.
        trust_remote_code: whether code of the checkpoint's own is allowed.
        source: what the checkpoint is called, if not by the file's directory.

    Raises:
        InputError: it asks for code without permission, or for more layers and the like than any model has.
    """
    config = read_json_object(file, _SAVE_AGAIN)
    if not trust_remote_code:
        _check_no_code(file, config, source)
    check_counts(f"{file.name} of {source}" if source else file, config)
    return config


def hub_file(source: str, name: str, revision: str | None) -> Path | None:
    """Return where a small file of a hub's model lies in the cache, downloaded if need be; None where it has none.

    Raises:
        OSError: there is no such model, or it cannot be reached.
    """
    found = cached_file(source, name, revision=revision, _raise_exceptions_for_missing_entries=False)
    return None if found is None else Path(found)


def only_pickled(source: str) -> InputError:
    """Return the error of a checkpoint without safe weights, where pickled ones were not allowed."""
    return InputError(
        f"{source} has only pickled weights, which can run code when read",
        "convert them to safetensors, or allow them with --allow-pickle if you trust their source",
    )


def hub_has_only_pickled(source: str, revision: str | None) -> bool:
    """Return whether a model of the hub, as far as that can be asked, has pickled weights and no others."""
    found = []
    for names in ((SAFE_WEIGHTS, SAFE_INDEX), _PICKLED_WEIGHTS):
        try:
            found.append(any(has_file(source, name, revision=revision) for name in names))
        except OSError:  # gated, or no answer: then nothing is known
            return False
    return found == [False, True]


def holds_weights(directory: Path) -> bool:
    """Return whether a directory holds a model's own weights, of whatever kind."""
    return any((directory / name).is_file() for name in (SAFE_WEIGHTS, SAFE_INDEX, *_PICKLED_WEIGHTS))


def _corrections_alone(directory: Path) -> bool:
    return (directory / CORRECTIONS_CONFIG).is_file() and not holds_weights(directory)


def check_corrections(directory: Path) -> None:
    """Refuse, before anything is loaded, corrections whose files are damaged or claim more than they hold."""
    stored = _counted([directory / CORRECTIONS_WEIGHTS])
    _check_lora(directory / CORRECTIONS_CONFIG, stored[1])


def _check_no_code(file: Path, config: Mapping[str, Any], source: str = "") -> None:
    """Refuse a file that brings code: modules of the checkpoint's own, or kernels of the hub.

    Modules for a model type that transformers has itself are no reason: they are not run, and its own class is taken.
    """
    source = source or str(file.parent)
    for held in _objects(config):
        if "auto_map" in held and not _is_known(held):
            raise InputError(
                f"{source} brings its own code (auto_map in {file.name})",
                "read it, then allow it by --trust-remote-code",
            )
    for key, value in _entries(config):
        if key.strip("_").endswith("_implementation") and "/" in str(value):
            raise InputError(
                f"{source} asks for a kernel of the hub ({key} in {file.name} is {str(value)[:40]!r}), which is code",
                "remove that key, or allow it by --trust-remote-code",
            )


def _is_known(described: Mapping[str, Any]) -> bool:
    """Return whether transformers itself has the model type that an object describes."""
    kind = described.get("model_type")
    return isinstance(kind, str) and kind in CONFIG_MAPPING


def check_counts(where: str | Path, config: Mapping[str, Any], remedy: str = _SAVE_AGAIN) -> None:
    """Refuse numbers of layers, labels and the like that no model has; `where` names the file."""
    for key, value in _entries(config):
        if not key.endswith(_COUNTED) or not isinstance(value, int | float):
            continue
        # Other keys, such as vision_feature_layer, may be negative: they count from the end.
        if value < 0 and key.startswith(("num_", "n_", "encoder_", "decoder_")):
            raise InputError(f"{where} says {key} is {value:.6g}", remedy, allowed="allowed: 0 or more")
        if value > _MOST_COUNTED:
            raise InputError(
                f"{where} says {key} is {value:.6g}",
                remedy,
                allowed=f"at most {_MOST_COUNTED:,} are read, which is more than any model has",
            )


def _entries(value: object) -> Iterator[tuple[str, Any]]:
    """Yield every key and value of a json value, however deep."""
    for held in _objects(value):
        yield from held.items()


def _objects(value: object) -> Iterator[Mapping[str, Any]]:
    """Yield every object in a json value, itself first."""
    left = [value]
    while left:
        held = left.pop()
        if isinstance(held, dict):
            yield held
            left += held.values()
        elif isinstance(held, list):
            left += held


def check_tokenizer_files(directory: Path, *, trust_remote_code: bool) -> bool:
    """Refuse tokenizer files that bring code or are too large; return whether there are any tokenizer files.

    Raises:
        InputError: a file brings code or is too large.
    """
    for name in (*_TOKENIZER_FILES, *_MORE_VOCABULARIES):
        file = directory / name
        if file.is_file() and file.stat().st_size > _MOST_TOKENIZER_BYTES:
            raise InputError(
                f"{file} is larger than {_MOST_TOKENIZER_BYTES >> 20} MiB, more than any tokenizer", _SAVE_AGAIN
            )
    config = directory / "tokenizer_config.json"
    if config.is_file() and not trust_remote_code:
        check_tokenizer_config(config)
    return any((directory / name).is_file() for name in (*_TOKENIZER_FILES[:2], *_MORE_VOCABULARIES))


def check_tokenizer_config(file: Path, source: str = "") -> None:
    """Refuse a tokenizer_config.json that brings code; `source` is the checkpoint's, if not the file's directory.

    Raises:
        InputError: it does.
    """
    _check_no_code(file, read_json_object(file, _SAVE_AGAIN, most_bytes=_MOST_TOKENIZER_BYTES), source)


def saved_tokenizer_kind(directory: Path) -> str | None:
    """Return the kind of the tokenizer that was saved (BPE, WordLevel, ...), or None where no file says it."""
    file = directory / "tokenizer.json"
    if not file.is_file():
        return None
    model = read_json_object(file, _SAVE_AGAIN, most_bytes=_MOST_TOKENIZER_BYTES).get("model")
    kind = model.get("type") if isinstance(model, dict) else None
    return kind if isinstance(kind, str) else None


def stored_weights(directory: Path) -> StoredWeights:
    """Count from the headers what a checkpoint's weights hold; for pickled weights, the most that they can hold.

    Raises:
        InputError: a file is damaged or missing, or the index names a file outside the directory.
    """
    files = _weight_files(directory)
    if not files:
        size = sum(file.stat().st_size for file in directory.glob("*.bin"))
        return StoredWeights(size // 100, size)
    lora = directory / CORRECTIONS_WEIGHTS
    if (directory / CORRECTIONS_CONFIG).is_file() and lora.is_file():
        files.append(lora)
    stored_here, longest = _counted(files)
    if (directory / CORRECTIONS_CONFIG).is_file():
        _check_lora(directory / CORRECTIONS_CONFIG, longest)
    return stored_here


def _counted(files: Sequence[Path]) -> tuple[StoredWeights, int]:
    """Return what safetensors files hold by their headers, and the longest side of any tensor."""
    tensors = elements = longest = 0
    for file in files:
        try:
            with safe_open(file, framework="pt") as weights:
                shapes = [weights.get_slice(name).get_shape() for name in weights.keys()]  # noqa: SIM118 - no mapping
        except FileNotFoundError as error:
            raise InputError(f"{file} is missing", f"copy the whole checkpoint, or {_SAVE_AGAIN}") from error
        except (SafetensorError, OSError) as error:
            raise InputError(f"cannot load {file}: {error}", _SAVE_AGAIN) from error
        tensors += len(shapes)
        elements += sum(math.prod(shape) for shape in shapes)
        longest = max([longest, *(side for shape in shapes for side in shape)])
    return StoredWeights(tensors, elements), longest


def stored_names(directory: Path) -> list[str]:
    """Return the names of all weights in a checkpoint's safetensors files; none where they are pickled."""
    names: list[str] = []
    for file in _weight_files(directory):
        with safe_open(file, framework="pt") as weights:
            names += weights.keys()
    return names


def weight_file_stamps(directory: Path) -> tuple[tuple[str, int, int], ...]:
    """Return name, bytes and time of change, in nanoseconds, of each file of a checkpoint's weights; reads none."""
    found = ((file.name, file.stat()) for file in _weight_files(directory))
    return tuple((name, told.st_size, told.st_mtime_ns) for name, told in found)


def file_sizes(directory: Path) -> dict[str, int]:
    """Return the bytes of each file of a checkpoint directory, by name."""
    return {file.name: file.stat().st_size for file in sorted(directory.iterdir()) if file.is_file()}


def check_whole(directory: Path, sizes: Mapping[str, int]) -> None:
    """Refuse a checkpoint of which a file is missing or cut, by names, sizes and the weights' headers; no hash is made.

    Args:
        directory: the checkpoint's.
        sizes: what `file_sizes` returned when it was written; empty where nobody recorded it.

    Raises:
        InputError: it names the first file.
    """
    for name, size in sizes.items():
        file = directory / name
        if not file.is_file():
            raise InputError(f"{file} is missing", _SAVE_AGAIN)
        # A longer file was edited, and is read as it is.
        if (found := file.stat().st_size) < size:
            raise InputError(f"{file} is cut to {found:,} of its {size:,} bytes", _SAVE_AGAIN)
    check_directory(directory, allow_pickle=True, trust_remote_code=True)
    stored_weights(directory)


def _weight_files(directory: Path) -> list[Path]:
    """Return the safetensors files that transformers will read: the single one, or those of the index."""
    single, index = directory / SAFE_WEIGHTS, directory / SAFE_INDEX
    if single.is_file():
        return [single]
    if not index.is_file():
        return []
    # A large mixture of experts has 100,000 weights, whose names take some megabytes.
    content = read_json_object(index, _SAVE_AGAIN, most_bytes=32 << 20)
    named = content.get("weight_map")
    if not isinstance(named, dict) or not named or not all(isinstance(name, str) for name in named.values()):
        raise InputError(f"{index} holds no weight_map of weights and files", _SAVE_AGAIN)
    if not isinstance(content.get("metadata", {}), dict):
        raise InputError(f"{index} has a metadata that is no object", _SAVE_AGAIN)
    names = sorted(set(named.values()))
    if len(names) > _MOST_FILES:
        raise InputError(
            f"{index} names {len(names):,} files", _SAVE_AGAIN, allowed=f"at most {_MOST_FILES:,} are read"
        )
    for name in names:
        if set(name) & set("/\\:\0") or not name.endswith(".safetensors"):
            raise InputError(
                f"{index} names the file {name[:80]!r}",
                _SAVE_AGAIN,
                allowed="only safetensors files beside it are read",
            )
    return [directory / name for name in names]


def _check_lora(file: Path, longest: int) -> None:
    """Refuse corrections of a rank that no stored matrix has, before any is made."""
    for key, value in _entries(read_json_object(file, _SAVE_AGAIN)):
        if isinstance(value, int | float) and value > max(longest, _MOST_COUNTED) and key != "revision":
            raise InputError(f"{file} says {key} is {value:.6g}, and no weight beside it is as large", _SAVE_AGAIN)


@contextmanager
def bounded_construction(source: str, stored: StoredWeights | None) -> Iterator[None]:
    """Stop the construction of a model that is far larger than its weights, while nothing of it has memory yet.

    transformers builds a model on the meta device first, and gives each weight its memory afterwards.
    Where `stored` is None, only the number of weights is bounded, by what can be built in some seconds.

    Raises:
        InputError: the model has outgrown what is stored.
    """
    thread = threading.get_ident()
    tensors, elements = _MOST_BUILT, _MOST_ELEMENTS
    if stored is not None:
        tensors = _TIMES * stored.tensors + _MORE_TENSORS
        elements = _TIMES * stored.elements + _MORE_ELEMENTS
    built = StoredWeights(0, 0)

    def count(_module: nn.Module, _name: str, tensor: Tensor | None) -> None:
        nonlocal built
        if tensor is None or not tensor.is_meta or threading.get_ident() != thread:
            return
        built = StoredWeights(built.tensors + 1, built.elements + tensor.numel())
        if built.tensors <= tensors and built.elements <= elements:
            return
        if stored is None:
            raise InputError(f"{source} describes a model of more weights than can be built", "give a smaller one")
        held = f"{stored.tensors:,} weights" if built.tensors > tensors else f"{stored.elements:,} values"
        raise InputError(
            f"cannot load {source!r}: its config.json describes a model far larger than the {held} that its files hold",
            _SAVE_AGAIN,
        )

    handles = [
        nn_module.register_module_parameter_registration_hook(count),
        nn_module.register_module_buffer_registration_hook(count),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
