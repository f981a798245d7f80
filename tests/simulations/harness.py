"""How the simulations count: cases, their rates with errors, the bounds they must keep, one JSON line each, a table.

A study is a module with `cases() -> list[Case]`. A case draws data whose truth is known and asks the product about
them, many times; an outcome of a run is 0 or 1, or a share where a run has several intervals, or NaN where the run has
no such outcome.
"""

from __future__ import annotations

import json
import math
import time
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

#: A rate is outside its bounds when it is outside by more than this many of its own standard errors.
ERRORS = 2.0
COVERAGE = (0.93, 0.97)
AT_MOST_5 = (0.0, 0.05)
AT_LEAST_93 = (0.93, 1.0)

Outcomes = Mapping[str, ArrayLike]


@dataclass(frozen=True, kw_only=True)
class Case:
    """One cell of a study.

    Attributes:
        study: the name of the study.
        parameters: what is drawn.
        outcomes: the runs of the case: their number and a random generator in; each outcome of every run out, (runs,).
        bounds: the lowest and the highest rate that an outcome may have; an outcome without bounds is only shown.
    """

    study: str
    parameters: Mapping[str, Any]
    outcomes: Callable[[int, np.random.Generator], Outcomes]
    bounds: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The study and its parameters in one line."""
        return " ".join([self.study, *(f"{key}={value}" for key, value in self.parameters.items())])


def measured(case: Case, runs: int, seed: int = 0) -> dict[str, Any]:
    """Run a case; return its JSON line. The same seed gives the same rates, whichever other cases run."""
    start = time.perf_counter()
    rng = np.random.default_rng([seed, zlib.crc32(case.name.encode())])
    outcomes = {name: np.asarray(values, dtype=np.float64) for name, values in case.outcomes(runs, rng).items()}
    unknown = case.bounds.keys() - outcomes.keys()
    if unknown:
        raise ValueError(f"{case.name}: bounds of {sorted(unknown)}, which are no outcomes; these are {[*outcomes]}")
    rates = {name: _rate(values, case.bounds.get(name)) for name, values in outcomes.items()}
    seconds = round(time.perf_counter() - start, 1)
    return {"study": case.study, **case.parameters, "runs": runs, "seconds": seconds, "rates": rates}


def _rate(values: np.ndarray[Any, Any], bounds: tuple[float, float] | None) -> dict[str, Any]:
    """Return a rate over the runs that have the outcome, with its error: binomial, or that of a mean of shares."""
    known = values[np.isfinite(values)]
    if not len(known):
        return {"rate": None, "error": None, "of": 0}
    rate = float(known.mean())
    if np.isin(known, (0.0, 1.0)).all():
        # One success more and one failure more, so that the error of 0 of 1,000 is not 0.
        smooth = (known.sum() + 1) / (len(known) + 2)
        error = math.sqrt(smooth * (1 - smooth) / len(known))
    else:
        error = float(known.std(ddof=1)) / math.sqrt(len(known)) if len(known) > 1 else math.inf
    found = {"rate": round(rate, 4), "error": round(error, 4), "of": len(known)}
    if bounds is not None:
        low, high = bounds
        found |= {"bounds": list(bounds), "holds": low - ERRORS * error <= rate <= high + ERRORS * error}
    return found


def failures(lines: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the rates that are outside their bounds, a line each."""
    return [
        f"{label(line)}: {name} {rate['rate']:.1%} (error {rate['error']:.1%}), "
        f"allowed {bounds[0]:.0%} to {bounds[1]:.0%}"
        for line in lines
        for name, rate in line["rates"].items()
        if (bounds := rate.get("bounds")) and not rate["holds"]
    ]


def label(line: Mapping[str, Any]) -> str:
    """Return the study and the parameters of a line."""
    return " ".join([line["study"], *(f"{key}={line[key]}" for key in _parameters(line))])


def _parameters(line: Mapping[str, Any]) -> list[str]:
    return [key for key in line if key not in ("study", "runs", "seconds", "rates")]


def table(lines: Sequence[Mapping[str, Any]], by: Sequence[str]) -> str:
    """Return a study's lines as a markdown table: a row for each value of `by`, in each column the range of the rates.

    "runs" is the fewest of a cell. A range is bold if a rate of it is outside its bounds.
    """
    names = list(dict.fromkeys(name for line in lines for name in line["rates"]))
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for line in lines:
        groups.setdefault(tuple(line[key] for key in by), []).append(line)
    rows = [[*by, "cells", "runs", *names], ["---"] * (len(by) + 2 + len(names))]
    rows += [
        [
            *map(str, key),
            str(len(own)),
            f"{min(line['runs'] for line in own):,}",
            *(_range([line["rates"].get(name) for line in own]) for name in names),
        ]
        for key, own in groups.items()
    ]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _range(rates: Sequence[Mapping[str, Any] | None]) -> str:
    known = [rate for rate in rates if rate is not None and rate["rate"] is not None]
    if not known:
        return ""
    rates_known = [rate["rate"] for rate in known]
    ends = [min(rates_known), max(rates_known)]
    text = " to ".join(dict.fromkeys(f"{100 * end:.1f}" for end in ends))
    return text if all(rate.get("holds", True) for rate in known) else f"**{text}**"


def read_lines(text: str) -> list[dict[str, Any]]:
    """Return the lines of a study's results; of a case measured twice, the later line."""
    found = [json.loads(line) for line in text.splitlines() if line.strip()]
    return list({label(line): line for line in found}.values())
