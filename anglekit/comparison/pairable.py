"""Is there anything to compare? Where no two students can be paired, one line says why and what to run."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence

from anglekit.comparison.cells import Cell, in_order
from anglekit.errors import InputError
from anglekit.results.document import UNRECORDED

# A line names so many; more would hide what to do.
_MOST_NAMED = 5


def check_pairable(cells: Sequence[Cell]) -> None:
    """Check that two strategies share an initialisation, a seed, and a score on one table or a student layer.

    Raises:
        InputError: no two do, so that not one difference is known.
    """
    if any(_share(cell.seeds([name]) for name in cell.strategies) for cell in cells):
        return
    strategies = in_order(name for cell in cells for name in cell.strategies)
    names = ",".join(name for name in strategies[:_MOST_NAMED])
    inits = _by_strategy(strategies, ((name, cell.init) for cell in cells for name in cell.strategies))
    if not _share(inits.values()):
        raise InputError(
            f"no two strategies share an initialisation ({_listed(inits)})",
            f"start them from the same weights, as `anglekit sweep TEACHER --strategies {names} --inits random` does",
        )
    arms = {(name, cell.init, seed) for cell in cells for name, seed in cell.students}
    known = sorted(arms, key=lambda arm: (arm[1], arm[2] is None, arm[2] or 0))
    several = len({init for _, init, _ in known}) > 1
    shown = ((name, f"{f'{init} ' if several else ''}{'none' if seed is None else seed}") for name, init, seed in known)
    seeds = _by_strategy(strategies, shown)
    by_init = [{(name, seed) for name, own, seed in arms if own == init} for init in {init for _, init, _ in arms}]
    if not any(_share([{seed for own, seed in pairs if own == name} for name in strategies]) for pairs in by_init):
        raise InputError(
            f"no two strategies share a seed ({_listed(seeds)})",
            f"train them on the same seeds, as `anglekit sweep TEACHER --strategies {names} --seeds 0-2` does",
        )
    measures = _by_strategy(strategies, ((name, cell.measure) for cell in cells for name in cell.strategies))
    raise InputError(
        f"no two strategies were measured alike ({_listed(measures)})",
        "score them on one table (--validation), or analyse them together (anglekit analyze TEACHER STUDENT...)",
    )


def _share(owned: Iterable[Iterable[object]]) -> bool:
    """Return whether two of the collections have something in common."""
    return any(not set(one).isdisjoint(other) for one, other in itertools.combinations(map(set, owned), 2))


def _by_strategy(strategies: Sequence[str], pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    found: dict[str, dict[str, None]] = {name: {} for name in strategies}
    for name, value in pairs:
        found[name][value] = None
    return {name: list(values) for name, values in found.items()}


def _listed(found: Mapping[str, Sequence[str]]) -> str:
    """Return `forward: 0, 1; reverse: 2`, of at most five strategies and five values each."""
    parts = [
        f"{name}: {', '.join('not recorded' if value == UNRECORDED else value for value in values[:_MOST_NAMED])}"
        f"{' and more' if len(values) > _MOST_NAMED else ''}"
        for name, values in list(found.items())[:_MOST_NAMED]
    ]
    return "; ".join(parts) + ("; and more" if len(found) > _MOST_NAMED else "")
