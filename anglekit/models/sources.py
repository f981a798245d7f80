"""What the name of a checkpoint means: a directory that is there, or a model of the hub. Free of torch.

A name is looked for as a directory first. Only what can be a hub's id is asked for there.
"""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from anglekit.errors import InputError
from anglekit.models.supported import census_versions, supported_types
from anglekit.runtime.files import near_path, read_json_object
from anglekit.vocabulary import STORE_FILE, Stream

_GIVE: Final = "give a checkpoint directory or a hub id such as org/name"
# What the census found that no setting of a type changes, and what to do, both in the words of `check_model`.
_NO_TEXT: Final = "choose a model that reads texts"
_NO_LAYERS: Final = "choose a model each of whose blocks hands on one state for each token"
_NEVER: Final[Mapping[str, str]] = {
    "cannot run on texts alone": _NO_TEXT,
    "reads codes of sound, not text": _NO_TEXT,
    "what its blocks hand over are not its own hidden states": _NO_LAYERS,
    "its blocks hand on two streams of states": _NO_LAYERS,
    "have 4 dimensions": _NO_LAYERS,
    "have another length than the text": _NO_LAYERS,
}
_MOST_NAMED: Final = 3
# What other tools leave in a directory: file patterns, what they are, and how one comes to weights that can be read.
_EXPORTED: Final = "give the checkpoint that it was exported from"
_MAKE_ANEW: Final = "read it with transformers 4 and save it again: from_pretrained(..., {}=True), save_pretrained"
_OTHER_FORMATS: Final[Sequence[tuple[Sequence[str], str, str]]] = (
    (
        ("zero_to_fp32.py", "mp_rank_*", "*/mp_rank_*", "*zero_pp_rank_*", "*/*zero_pp_rank_*"),
        "a DeepSpeed checkpoint",
        "gather its weights with zero_to_fp32.py, and save the model with save_pretrained",
    ),
    (
        ("*.distcp", "*/*.distcp"),
        "shards of FSDP",
        "join them: accelerate merge-weights, and save the model with save_pretrained",
    ),
    (("*.onnx", "onnx/*.onnx"), "an ONNX model", _EXPORTED),
    (("openvino_model.xml",), "an OpenVINO model", _EXPORTED),
    (("*.gguf",), "a GGUF file", _EXPORTED),
    (("tf_model*.h5",), "TensorFlow weights", _MAKE_ANEW.format("from_tf")),
    (("flax_model*.msgpack",), "Flax weights", _MAKE_ANEW.format("from_flax")),
)
# Entries of config.json with which a model may have other streams, or be another model, than its type tells.
_CHANGES_STREAMS: Final = ("is_decoder", "use_bidirectional_attention", "text_config", "encoder", "decoder")
# Names under which a configuration may state the depth of one stream, and those for whichever stream it has.
OWN_DEPTH_KEYS: Final[Mapping[Stream, tuple[str, ...]]] = {
    "encoder": ("encoder_layers", "num_encoder_layers"),
    "decoder": ("decoder_layers", "num_decoder_layers"),
}
SHARED_DEPTH_KEYS: Final = ("num_hidden_layers", "num_layers", "n_layers", "n_layer")
WIDTH_NAMES: Final = ("hidden_size", "d_model", "n_embd", "dim")


def looks_like_path(source: str) -> bool:
    """Return whether a checkpoint's source cannot be a hub id, so that it must be a directory."""
    return source.startswith(("/", "./", "../", "~")) or source.count("/") > 1 or source in ("", ".", "..")


def check_local(source: str) -> None:
    """Refuse what can only be a directory, and is none.

    A name below a directory that is there (`runs/techer`) is a mistake in a path, unless the hub's model of that name
    is at hand.

    Raises:
        InputError: there is no such directory; the nearest names are in the line.
    """
    directory = Path(source)
    if directory.exists():
        return
    if looks_like_path(source):
        raise no_directory(source)
    if "/" in source and directory.parent.is_dir() and not _at_hand(source):
        raise InputError(
            f"no such directory: {source}{near_path(directory)}",
            f"{_GIVE} (the hub is not asked: a directory {str(directory.parent)!r} is here)",
        )


def no_directory(source: str | Path) -> InputError:
    """Return the error of a checkpoint's directory that is not there."""
    return InputError(f"no such directory: {source}{near_path(Path(source))}", _GIVE)


def no_model(directory: Path) -> InputError:
    """Return the error of a directory without config.json; models further down are named."""
    if (directory / STORE_FILE).is_file():
        return InputError(
            f"{directory} is a state store, which holds no model", "a store is the teacher of anglekit analyze, no more"
        )
    inside = sorted(
        {file.parent.parent if file.parent.name == "checkpoint" else file.parent for file in _configs(directory)}
    )
    named = ", ".join(str(each) for each in inside[:_MOST_NAMED]) + (", ..." if len(inside) > _MOST_NAMED else "")
    if inside:
        return InputError(f"{directory} holds no model: config.json is missing", f"give one of those in it: {named}")
    return other_format(directory) or InputError(
        f"{directory} holds no model: config.json is missing", "give a Hugging Face checkpoint directory"
    )


def other_format(directory: Path) -> InputError | None:
    """Return the error of a directory that holds a model as another tool stores it; None where none is known."""
    for patterns, what, remedy in _OTHER_FORMATS:
        if any(next(directory.glob(pattern), None) is not None for pattern in patterns):
            return InputError(f"{directory} holds {what} and nothing that is read here", remedy)
    return None


def check_source(source: str, *, revision: str | None = None, or_store: bool = False, own_code: bool = False) -> str:
    """Refuse what is surely no checkpoint that can be read, before anything is loaded to read it.

    The hub is asked for the small `config.json` of a model that is neither a directory nor at hand.

    Args:
        source: a directory, a run directory or a hub id.
        revision: the hub's branch, tag or commit.
        or_store: whether a state store will do.
        own_code: whether a checkpoint's own code is run.

    Returns:
        A note for the person, that a plain name is asked for at the hub or that code of its own is not run; or "".

    Raises:
        InputError: there is no such directory, it holds no model, the hub has no such model or cannot be asked, or the
            model is of a type that cannot be read.
    """
    check_local(source)
    directory = Path(source)
    if or_store and (directory / STORE_FILE).is_file():
        return ""
    if directory.is_dir():
        inner = directory / "checkpoint"
        place = directory if (directory / "config.json").exists() else inner
        if (place / "config.json").is_file():
            _check_type(source, place / "config.json")
        elif not list(directory.glob("adapter_config.json")) + list(directory.glob("*/adapter_config.json")):
            raise no_model(directory)
        return "" if own_code else code_set_aside(str(place))
    if directory.exists():
        raise InputError(f"{source} is a file", "give the directory that holds config.json and the weights")
    if not _at_hand(source):
        _ask_hub(source, revision)
    asked = f"no directory {source!r} is here: the Hugging Face hub's model is taken" if "/" not in source else ""
    return "; ".join(filter(None, (asked, "" if own_code else code_set_aside(source, revision))))


def code_set_aside(source: str, revision: str | None = None) -> str:
    """Return a note on a checkpoint's own code that is not run because transformers knows the type; "" without any.

    Args:
        source: a checkpoint's directory, or the id of a hub's model of which config.json is at hand.
        revision: the hub's branch, tag or commit.

    Raises:
        InputError: config.json is damaged.
    """
    file = Path(source) / "config.json"
    if not Path(source).is_dir():
        from huggingface_hub import constants, try_to_load_from_cache

        found = try_to_load_from_cache(source, "config.json", constants.HF_HUB_CACHE, revision)
        if not isinstance(found, str):
            return ""
        file = Path(found)
    config = read_json_object(file, "save the checkpoint again") if file.is_file() else {}
    if "auto_map" not in config or str(config.get("model_type")) not in supported_types():
        return ""
    return (
        f"{source} brings code of its own (auto_map), which is not run: transformers has type {config['model_type']} "
        "itself"
    )


def check_one_kind(teacher: str, student: str, *, mapped: bool) -> None:
    """Refuse a student of another kind than its teacher, or a deeper one, as far as config.json surely tells.

    What it does not tell is known once the configurations are read.

    Args:
        teacher: the directory that holds its config.json, or a hub id, which is not looked at.
        student: likewise.
        mapped: whether the user maps the layers by hand; only then may the student be deeper.

    Raises:
        InputError: it is of another kind, or deeper.
    """
    theirs, own = plain_shape(teacher), plain_shape(student)
    if theirs is None or own is None:
        return
    if own.streams != theirs.streams:
        raise InputError(
            f"the student {student} is a {own.type} model with {' and '.join(own.streams)}, and its teacher a "
            f"{theirs.type} model with {' and '.join(theirs.streams)}",
            "give a student of the teacher's kind",
        )
    for stream in own.depths.keys() & theirs.depths.keys() if not mapped else ():
        if own.depths[stream] > theirs.depths[stream]:
            raise InputError(
                f"the student {student} has {own.depths[stream]} {stream} blocks and its teacher "
                f"{theirs.depths[stream]}",
                "give them the other way round, or say which layer teaches which with --map",
            )


def check_layers(source: str, layers: Sequence[int] | None) -> None:
    """Refuse layers that no stream of a checkpoint has, as far as config.json surely tells.

    Args:
        source: the directory that holds its config.json, or a hub id, which is not looked at.
        layers: numbers, 0 the embedding; None: all.

    Raises:
        InputError: a layer does not exist.
    """
    shape = plain_shape(source)
    deepest = max(shape.depths.values(), default=None) if shape is not None else None
    for layer in layers or ():
        if deepest is not None and not 0 <= layer <= deepest:
            raise InputError(f"layer {layer} does not exist in {source}", f"layers run from 0 (embedding) to {deepest}")


class PlainShape(NamedTuple):
    """What config.json says of a model, without the defaults of its type.

    Attributes:
        type: its model type.
        streams: its streams.
        depths: the blocks of each stream of which it says them.
        width: of its hidden states, where it says one for all.
        numbers: every whole number in it, by name.
    """

    type: str
    streams: tuple[Stream, ...]
    depths: Mapping[Stream, int]
    width: int | None
    numbers: Mapping[str, int]


def plain_shape(directory: str) -> PlainShape | None:
    """Return what config.json says of a checkpoint's shape; None where its settings may change what the type tells.

    Args:
        directory: the one that holds config.json; of a hub id nothing is known.

    Raises:
        InputError: the file is damaged.
    """
    file = Path(directory) / "config.json"
    config = read_json_object(file, "save the checkpoint again") if file.is_file() else {}
    found = supported_types().get(str(config.get("model_type")))
    if found is None or not found.streams or any(config.get(name) for name in _CHANGES_STREAMS):
        return None
    numbers = {name: value for name, value in config.items() if type(value) is int}
    depths: dict[Stream, int] = {}
    for stream in found.streams:
        stated = [numbers[name] for name in (*OWN_DEPTH_KEYS[stream], *SHARED_DEPTH_KEYS) if name in numbers]
        depths |= {stream: stated[0]} if stated else {}
    width = next((numbers[name] for name in WIDTH_NAMES if name in numbers), None)
    return PlainShape(found.type, found.streams, depths, width, numbers)


def _configs(directory: Path) -> list[Path]:
    # The last two are the cache of the hub: a model's directory in it, and the whole.
    patterns = (
        *("*/config.json", "*/checkpoint/config.json", "*/*/checkpoint/config.json"),
        *("snapshots/*/config.json", "models--*/snapshots/*/config.json"),
    )
    return [file for pattern in patterns for file in directory.glob(pattern)]


def _check_type(source: str, config_file: Path) -> None:
    """Refuse a type that the census of this version of transformers found unreadable, whatever its settings."""
    kind = read_json_object(config_file, "save the checkpoint again").get("model_type")
    found = supported_types().get(str(kind))
    if found is None or found.states != "refused":
        return
    reason = found.notes.partition(";")[0].removeprefix("states refused: ")
    known = re.search(r"transformers (\S+?),", census_versions())
    if known is None or known[1] != importlib.metadata.version("transformers"):
        return
    for phrase, remedy in _NEVER.items():
        if phrase in reason:
            # The sizes are those of the census's small model.
            raise InputError(re.sub(r", [(][0-9, ]+[)]", "", reason), remedy)


def _at_hand(source: str) -> bool:
    """Return whether the cache of the hub holds a model, whichever of its revisions."""
    from huggingface_hub import constants

    return (Path(constants.HF_HUB_CACHE) / f"models--{source.replace('/', '--')}").is_dir()


def _ask_hub(source: str, revision: str | None) -> None:
    """Refuse what the hub says it does not have, and any model while the hub may not be asked."""
    from huggingface_hub import constants, hf_hub_download
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    near = near_path(Path(source))
    if constants.HF_HUB_OFFLINE:
        raise InputError(
            f"no directory {source!r} is here{near}, and the hub may not be asked (HF_HUB_OFFLINE is set)", _GIVE
        )
    try:
        hf_hub_download(source, "config.json", revision=revision)
    except HFValidationError as error:
        raise InputError(f"{source!r} is neither a directory{near} nor a valid hub id", _GIVE) from error
    except GatedRepoError as error:
        raise InputError(
            f"the hub's model {source!r} is gated", "ask for access on its page, then log in: hf auth login"
        ) from error
    except RevisionNotFoundError as error:
        raise InputError(f"the hub's model {source!r} has no revision {revision!r}", "see its page") from error
    except RepositoryNotFoundError as error:
        raise InputError(
            f"no directory {source!r} is here{near}, and the hub has no such model, or not for you",
            "give a checkpoint directory or a hub id such as org/name; for a private one log in: hf auth login",
        ) from error
    except LocalEntryNotFoundError as error:
        raise InputError(f"no directory {source!r} is here{near}, and the hub cannot be reached", _GIVE) from error
    except EntryNotFoundError:
        return  # an adapter alone has no config.json
