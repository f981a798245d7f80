"""The errors that anglekit raises on purpose, and how they name the remedy."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = ["AnglekitError", "InputError", "RunError", "suggest"]


class AnglekitError(Exception):
    """Anything that anglekit reports to a person in one line; `exit_code` is the command line's."""

    exit_code = 1


class InputError(AnglekitError):
    """The input is wrong: the message says what arrived, what is allowed and what to do."""

    exit_code = 2


class RunError(AnglekitError):
    """The input was right but the run failed (nothing finite left, a loss that became NaN, a full disk)."""

    exit_code = 1


def suggest(name: str, allowed: Iterable[str]) -> str:
    """Return a phrase for an error message: the nearest allowed name, if one is near, and all of them.

    Args:
        name: what arrived.
        allowed: the names that would have been accepted.
    """
    names = list(allowed)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"{hint}allowed: {', '.join(names)}"
