"""How a checkpoint is loaded: where to, how precisely, and what is allowed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from anglekit.errors import InputError
from anglekit.runtime.placement import Placement, check_device
from anglekit.settings_fields import check_settings, documented, setting
from anglekit.vocabulary import PRECISIONS, Stream


@documented
@dataclass(frozen=True)
class LoadOptions:
    """How checkpoints are loaded.

    `placement` says how a model too large for one device is spread, offloaded or quantised. `blocks` says how many of
    the first blocks of each stream are held (None: all); `load_checkpoint` reads it.

    Raises:
        InputError: an unknown dtype or a device that is not there.
    """

    device: str = setting("cpu", "Where to compute: cpu, cuda, cuda:1, mps.")
    dtype: str = setting("float32", "Precision of the models: float32, bfloat16, float16.", names=PRECISIONS)
    revision: str | None = setting(None, "Branch, tag or commit of hub checkpoints.")
    allow_pickle: bool = setting(False, "Accept pickled weights, which can run code when read.")
    trust_remote_code: bool = setting(False, "Accept checkpoints that bring their own code.")
    placement: Placement = field(default_factory=Placement)
    blocks: Mapping[Stream, int] | None = None

    def __post_init__(self) -> None:
        check_settings(self)
        check_device(self.device, "device")


def looks_like_path(source: str) -> bool:
    """Return whether a checkpoint's source cannot be a hub id, so that it must be a directory."""
    return source.startswith(("/", "./", "../", "~")) or source.count("/") > 1 or source in ("", ".", "..")


def check_source(source: str) -> None:
    """Refuse a directory that is not there, before anything is loaded to read it.

    Raises:
        InputError: there is no such directory.
    """
    if looks_like_path(source) and not Path(source).exists():
        raise InputError(f"no such directory: {source}", "give a checkpoint directory or a hub id such as org/name")
