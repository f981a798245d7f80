"""Streams: the stacks of layers that a model has."""

from __future__ import annotations

from typing import Literal

__all__ = ["Stream"]

Stream = Literal["encoder", "decoder"]
