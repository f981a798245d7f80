"""How a case is judged: unexpected input is read or refused in one line that names it, and nothing else happens.

`ANGLEKIT_FUZZ=1000` runs a thousand cases of each kind instead of the few that every run of the tests takes;
`ANGLEKIT_FUZZ_SEED` starts elsewhere. A failure names the case: `ANGLEKIT_FUZZ_ONLY=417` runs that one alone.
"""

from __future__ import annotations

import os
import random
import shutil
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from anglekit.errors import AnglekitError

T = TypeVar("T")

SEED = int(os.environ.get("ANGLEKIT_FUZZ_SEED", "0"))


@dataclass(frozen=True)
class Case:
    """One seeded case.

    Attributes:
        kind: of input.
        number: within the kind; with `SEED` it decides everything.
        rng: of the case.
        did: what was done to the input, for the message of a failure.
    """

    kind: str
    number: int
    rng: random.Random
    did: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return f"{self.kind} case {self.number} of seed {SEED}: {'; '.join(self.did)[:1500]}"


def cases(kind: str, few: int) -> Iterator[Case]:
    """Yield the cases of a kind: `few`, or as many as the environment asks for."""
    only = os.environ.get("ANGLEKIT_FUZZ_ONLY")
    numbers = range(int(os.environ.get("ANGLEKIT_FUZZ", few))) if only is None else [int(only)]
    for number in numbers:
        yield Case(kind, number, random.Random(f"{kind} {SEED} {number}"))


def snapshot(place: Path) -> dict[str, tuple[int, int]]:
    """Return every file below a directory with its size and time of change."""
    return {
        str(entry.relative_to(place)): (entry.lstat().st_size, entry.lstat().st_mtime_ns)
        for entry in sorted(place.rglob("*"))
        if not entry.is_dir()
    }


@dataclass
class Campaign:
    """The cases of one kind, their outcomes counted and their failures gathered.

    Attributes:
        place: a directory that reading must leave as it is; the inputs lie in it.
        loaded: cases that were read.
        refused: cases that were refused as they should be.
        failures: what went wrong in others, once for each kind of failure.
    """

    place: Path
    loaded: int = 0
    refused: int = 0
    failures: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.place.mkdir(exist_ok=True)

    def judge(
        self, case: Case, load: Callable[[], T], names: str, sane: Callable[[T], object] = lambda _found: None
    ) -> None:
        """Read the input and check all that must hold, whatever it is.

        Args:
            case: for the message of a failure.
            load: reads it.
            names: what a refusal must name.
            sane: checks what was read.
        """
        before = snapshot(self.place)
        problem = None
        try:
            sane(load())
            self.loaded += 1
        except AnglekitError as error:
            self.refused += 1
            problem = _problem_of(str(error), names)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # what must not come, a panic of an extension included
            where = traceback.extract_tb(error.__traceback__)
            own = [frame for frame in where if "/anglekit" in frame.filename] or where
            problem = f"{type(error).__name__} at {Path(own[-1].filename).name}:{own[-1].lineno}: {str(error)[:200]}"
        after = snapshot(self.place)
        if changed := sorted(set(before.items()) ^ set(after.items())):
            problem = f"reading changed {changed[:3]}"
        if problem is not None:
            self.failures.setdefault(problem[:60], f"{case}: {problem}")

    def finish(self) -> None:
        """Report the outcomes, and fail if anything went wrong."""
        print(f"{self.loaded} read, {self.refused} refused, {len(self.failures)} kinds of failure")  # noqa: T201
        assert not self.failures, "\n".join(self.failures.values())


def _problem_of(message: str, names: str) -> str | None:
    if "\n" in message or not message.isprintable():
        return f"the message is not one printable line: {message!r}"
    if names not in message:
        return f"the message does not name {names}: {message!r}"
    return None


class Program:
    """Pickled, a program that makes a file in a place, which `judge` sees, if whoever reads the pickle runs it."""

    def __init__(self, place: Path) -> None:
        self.file = place / "program-was-run"

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.file,)


def fresh(original: Path, copy: Path) -> Path:
    """Put a new copy of a directory in the place of the last case's."""
    if copy.exists():
        shutil.rmtree(copy)
    shutil.copytree(original, copy, symlinks=True)
    return copy
