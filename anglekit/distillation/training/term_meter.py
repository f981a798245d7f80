"""Running means of the loss terms, kept on the device so that no training step has to wait for them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class TermMeter:
    """Sums the values of named terms over micro-batches and remembers where one first stopped being finite.

    Args:
        names: the terms, in the order in which `add` gets their values.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self._sums: Tensor | None = None
        self._first_bad: Tensor | None = None
        self._steps = 0

    def add(self, values: Sequence[Tensor], step: int, *, completes_step: bool) -> None:
        """Add one micro-batch: its share of each term's mean over the whole optimiser step.

        Args:
            values: one scalar per term, without gradient.
            step: the number of the optimiser step, from 1.
            completes_step: whether this is the step's last micro-batch.
        """
        stacked = torch.stack([value.detach().float() for value in values])
        if self._sums is None or self._first_bad is None:
            self._sums = torch.zeros_like(stacked)
            self._first_bad = torch.zeros_like(stacked)
        self._sums += stacked
        fresh = ~torch.isfinite(stacked) & (self._first_bad == 0)
        self._first_bad.masked_fill_(fresh, step)
        self._steps += completes_step

    def first_bad(self) -> tuple[str, int] | None:
        """Return the term that first stopped being finite and its step, or None. Waits for the device."""
        if self._first_bad is None:
            return None
        steps = self._first_bad.tolist()
        bad = [(int(step), name) for name, step in zip(self.names, steps, strict=True) if step > 0]
        if not bad:
            return None
        step, name = min(bad, key=lambda found: found[0])
        return name, step

    def drain(self) -> dict[str, float]:
        """Return each term's mean over the optimiser steps since the last call, and begin anew."""
        if self._sums is None or self._steps == 0:
            return {}
        values = (self._sums / self._steps).tolist()
        self._sums.zero_()
        self._steps = 0
        return dict(zip(self.names, values, strict=True))
