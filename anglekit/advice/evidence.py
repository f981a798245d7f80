"""What the sweeps of data/validation showed, as far as advice may rest on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from importlib import resources
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from anglekit.errors import RunError

#: Layer selection matters where the strategies' scores are further apart than this share.
MATTERS: Final = 0.05

_FILE: Final = "evidence.json"
_FORMAT: Final = "anglekit-evidence-1"


@dataclass(frozen=True)
class SpreadRule:
    """Says whether a spread is likely to be large: the predictor stands on one side of a threshold.

    Attributes:
        predictor: its name.
        threshold: between the two sides.
        above: whether values above the threshold mean a large spread.
    """

    predictor: str
    threshold: float
    above: bool

    def says(self, value: float) -> bool:
        """Return whether a large spread is likely."""
        return (value > self.threshold) == self.above

    def to_json(self) -> dict[str, Any]:
        """Return the rule as values that `json` can write."""
        return asdict(self)


def fitted_rule(predictor: str, values: NDArray[np.float64], large: NDArray[np.bool_]) -> SpreadRule:
    """Return the threshold, and its side, that tells large spreads from small ones in most sweeps.

    Of equally good thresholds the one nearest to the middle of the values. Each side counts by its own share
    (balanced accuracy), so that a rule that says the same of all gains nothing.

    Args:
        predictor: its name.
        values: of each sweep.
        large: whether each sweep's spread was.
    """
    ordered = np.unique(values)
    cuts = (ordered[1:] + ordered[:-1]) / 2 if len(ordered) > 1 else ordered
    middle = float(np.median(values))
    best: tuple[float, float, float, bool] | None = None
    for cut in cuts:
        for above in (True, False):
            said = (values > cut) == above
            sides = [(said, large), (~said, ~large)]
            shares = [float(answered[true].mean()) if true.any() else 0.5 for answered, true in sides]
            rank = (sum(shares) / 2, -abs(float(cut) - middle))
            if best is None or rank > best[:2]:
                best = (*rank, float(cut), above)
    assert best is not None
    return SpreadRule(predictor, best[2], best[3])


class HeldOutRule(msgspec.Struct, frozen=True):
    """A rule, and how right it was about tasks it had not seen: `[large, all]` of what it called likely, and not."""

    predictor: str
    threshold: float
    above: bool
    held_out_likely: tuple[int, int]
    held_out_unlikely: tuple[int, int]

    @property
    def rule(self) -> SpreadRule:
        """The rule."""
        return SpreadRule(self.predictor, self.threshold, self.above)


class SpreadEvidence(msgspec.Struct, frozen=True):
    """How often the spread was large: of all sweeps, by task as `[large, all]`, and by a rule if one predicts it."""

    sweeps: int
    large: int
    by_task: dict[str, tuple[int, int]]
    rule: HeldOutRule | None


class ForwardEvidence(msgspec.Struct, frozen=True):
    """How often forward was the best of four strategies, `[best, all]`, and what it lost on average."""

    best: tuple[int, int]
    mean_regret: float


class Evidence(msgspec.Struct, frozen=True):
    """What the advice rests on.

    Attributes:
        format: of the file.
        matters: the spread above which selection matters.
        tasks: of the sweeps.
        layers: the students' depths.
        spread: how often it was large.
        spreads: quantiles of the spread.
        gains: quantiles of the gain over no matching.
        gain_above_0: in how many sweeps matching helped, `[those, all]`.
        forward: how good the default is.
        choices: by target, the predictor that beat the default.
        ranges: by predictor its lowest and highest value.
    """

    format: str
    matters: float
    tasks: tuple[str, ...]
    layers: tuple[int, ...]
    spread: SpreadEvidence
    spreads: Mapping[str, float]
    gains: Mapping[str, float]
    gain_above_0: tuple[int, int]
    forward: ForwardEvidence
    choices: Mapping[str, str]
    ranges: Mapping[str, tuple[float, float]]


@cache
def evidence() -> Evidence:
    """Return what the package holds.

    Raises:
        RunError: the installation is damaged.
    """
    text = resources.files("anglekit.advice").joinpath(_FILE).read_bytes()
    try:
        found = msgspec.json.decode(text, type=Evidence)
    except msgspec.DecodeError as error:
        raise RunError(f"{_FILE} of the installed anglekit is damaged ({error}); install it again") from error
    if found.format != _FORMAT:
        raise RunError(f"{_FILE} of the installed anglekit has format {found.format!r}; install it again")
    return found
