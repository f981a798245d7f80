"""The errors that anglekit raises on purpose, and how they name the remedy."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice

# Of a longer message the middle is left out: what arrived stands at its start, what to do at its end.
_LONGEST = 2000
# A list of names in a message; what has more is shown by the first ones.
_MOST_NAMES = 60
_LONGEST_NAME = 80


class AnglekitError(Exception):
    """Anything that anglekit reports to a person in one line; `exit_code` is the command line's.

    The message is that line, whatever of the input it quotes: line breaks and control characters are written as
    escapes, and the middle of a very long one is left out.
    """

    exit_code = 1

    def __init__(self, message: str) -> None:
        super().__init__(_one_line(message))


class InputError(AnglekitError):
    """The input is wrong.

    The line that a person reads is made of the three parts; no code takes it apart again.

    Attributes:
        arrived: what came, and from where.
        allowed: what would have been accepted; "" where the remedy says it.
        remedy: what to do; "" where the allowed values say it.
        setting: the setting, field or option that is wrong, by its name in Python; "" where no single one is.
    """

    exit_code = 2

    def __init__(self, arrived: str, remedy: str = "", *, allowed: str = "", setting: str = "") -> None:
        super().__init__("; ".join(part for part in (arrived, allowed, remedy) if part))
        self.arrived, self.allowed, self.remedy, self.setting = arrived, allowed, remedy, setting


class RunError(AnglekitError):
    """The input was right but the run failed (nothing finite left, a loss that became NaN, a full disk)."""

    exit_code = 1


class ReaderWarning(UserWarning):
    """What a person should know of a result that is made all the same; the command line prints it as one line."""


def _one_line(message: str) -> str:
    if len(message) > _LONGEST:
        half = _LONGEST // 2
        message = f"{message[:half]} [...] {message[-half:]}"
    if message.isprintable():
        return message
    spaced = " ".join(part for part in message.splitlines() if part)
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in spaced)


@contextmanager
def foreign_failures(refusal: Callable[[str], InputError]) -> Iterator[None]:
    """Turn whatever a library raises on a damaged file into an InputError.

    For the readers of formats that are not ours, which document none of what they raise: it may be a KeyError, or the
    panic of a Rust extension, which is no `Exception`. The block holds the one foreign call and nothing of our own.

    Args:
        refusal: from the library's reason, in one line, to the error.

    Raises:
        InputError: the library raised; an AnglekitError passes as it is.
    """
    try:
        yield
    except AnglekitError:
        raise
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise  # an interrupt, or the end of the process
        raise refusal(" ".join(str(error).split())[:300] or type(error).__name__) from error


def suggest(name: str, allowed: Iterable[str]) -> str:
    """Return a phrase for an error message: the nearest allowed name, if one is near, and all of them.

    Args:
        name: what arrived.
        allowed: the names that would have been accepted; of very many or very long ones only a part is shown.
    """
    names = [str(each)[:_LONGEST_NAME] for each in islice(allowed, _MOST_NAMES + 1)]
    near = difflib.get_close_matches(name[:_LONGEST_NAME], names, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}? " if near else ""
    more = ", ..." if len(names) > _MOST_NAMES else ""
    return f"{hint}allowed: {', '.join(names[:_MOST_NAMES])}{more}"
