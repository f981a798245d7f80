"""Strategies whose learning curves are known, stopped by the rule of `sweep --stop-hopeless` while they train.

Student (strategy k, seed s) answers example e rightly at a look where

    m_ks + g_e + h_ke + noise_kse > 0,

all normal, m_ks so that the accuracy over the population of examples is that of the curve; the noise changes from look
to look. A stop is wrong if the strategy's accuracy at the last step, over the population and as the mean over these
seeds, is within the margin of the best. Beside the rule stand two that it replaces: one that takes the present for the
end, and one that also tests each look at 5% as if it were the only one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from anglekit.distillation.sweep.stopping import LEVEL, MARGIN, judge, level_of_a_test, surely_above
from tests.simulations.harness import AT_MOST_5, Case, Outcomes

Array = NDArray[np.float64]

#: What one strategy's accuracy is after a share of the training, in [0, 1].
Curve = Callable[[Array], Array]

CHANCE = 1 / 3


def saturating(end: float, rate: float = 8.0) -> Curve:
    """Fast at first, then slower and slower."""
    return lambda u: CHANCE + (end - CHANCE) * (1 - np.exp(-rate * u)) / (1 - np.exp(-rate))


def rising_at(onset: float, end: float, width: float = 0.04) -> Curve:
    """Flat, then a steep rise about `onset`, then flat."""

    def curve(u: Array) -> Array:
        rise = 1 / (1 + np.exp(-(u - onset) / width))
        return CHANCE + (end - CHANCE) * rise

    return curve


def flat(end: float) -> Curve:
    """Learned from the first look on."""
    return lambda u: np.full_like(u, end)


#: Curves of four strategies, by the name of a shape.
SHAPES: dict[str, tuple[Curve, ...]] = {
    "equal": (saturating(0.8),) * 4,
    "margin": (flat(0.8), *(flat(0.8 - MARGIN),) * 3),
    "one better": (saturating(0.8), *(saturating(0.7),) * 3),
    "spread": tuple(saturating(end, rate) for end, rate in ((0.85, 8.0), (0.8, 10.0), (0.7, 6.0), (0.5, 8.0))),
    "crossing": (saturating(0.74, 12.0), saturating(0.8, 2.0), saturating(0.78, 4.0), saturating(0.6, 12.0)),
    "in turn": tuple(rising_at(onset, end) for onset, end in ((0.15, 0.7), (0.3, 0.75), (0.5, 0.8), (0.75, 0.85))),
    "never": (rising_at(0.15, 0.8), rising_at(0.2, 0.79), flat(CHANCE), flat(0.4)),
    "sudden": (saturating(0.75, 2.0), saturating(0.7, 2.0), saturating(0.7, 2.0), rising_at(0.93, 0.85, 0.005)),
}
#: The one in which a strategy makes up more than any had before.
BREAKS = "sudden"


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """Sweeps of one shape.

    Attributes:
        curves: of each strategy, over the share of the training.
        seeds: of each strategy.
        examples: of the validation table.
        looks: before the last step, evenly over the steps.
        falling: whether the learning rate falls to 0, so that training is done early.
        seed_sd: of a student's accuracy about its strategy's.
        wobble_sd: of a student's accuracy from look to look.
        changed: the share of the noise that is new at each look.
    """

    curves: tuple[Curve, ...]
    seeds: int
    examples: int
    looks: int
    falling: bool
    seed_sd: float = 0.01
    wobble_sd: float = 0.005
    changed: float = 0.1
    example_sd: float = 1.5
    interaction_sd: float = 0.5

    @property
    def training(self) -> Array:
        """How much training lies behind the start, each look and the end; 1 in all."""
        share = np.arange(self.looks + 2) / (self.looks + 1)
        return 2 * share - share**2 if self.falling else share

    def draw(self, rng: np.random.Generator) -> tuple[Array, Array]:
        """Return each example's mean score over seeds, (strategies, looks and the start, examples), and true ends."""
        k, s, e, times = len(self.curves), self.seeds, self.examples, self.looks + 2
        mean = np.stack([curve(self.training) for curve in self.curves])[:, None]
        learned = (mean - CHANCE) / max(0.1, float(mean.max()) - CHANCE)
        own = learned * self.seed_sd * rng.standard_normal((k, s, 1))
        own = own + learned * self.wobble_sd * rng.standard_normal((k, s, times))
        accuracy = np.clip(mean + own, 0.02, 0.98)
        centre = stats.norm.ppf(accuracy) * np.sqrt(1 + self.example_sd**2 + self.interaction_sd**2)
        example = self.example_sd * rng.standard_normal(e) + self.interaction_sd * rng.standard_normal((k, 1, e))
        noise = rng.standard_normal((k, s, e), dtype=np.float32)
        scores = np.empty((k, times - 1, e))
        for time in range(times - 1):
            if time:
                fresh = rng.standard_normal((k, s, e), dtype=np.float32)
                noise = np.sqrt(1 - self.changed) * noise + np.sqrt(self.changed) * fresh
            scores[:, time] = (centre[:, :, time, None] + example + noise > 0).mean(1)
        return scores, accuracy[:, :, -1].mean(1)


def stops(sweep: Sweep, scores: Array) -> dict[int, int]:
    """Return the look at which each strategy that is stopped is, by the rule."""
    found: dict[int, int] = {}
    level = level_of_a_test(sweep.looks, len(scores) * (len(scores) - 1))
    for look in range(1, sweep.looks + 1):
        curves = {str(k): own[: found.get(k, look) + 1] for k, own in enumerate(scores)}
        judged = judge(curves, sweep.training[: look + 1], 1.0, level=level)
        found |= {int(name): look for name in judged.hopeless}
    return found


def present_stops(sweep: Sweep, scores: Array, level: float) -> set[int]:
    """Return what is stopped if a strategy surely below the best at a look is taken to stay there."""
    found: set[int] = set()
    for look in range(1, sweep.looks + 1):
        left = [k for k in range(len(scores)) if k not in found]
        best = max(left, key=lambda k: float(scores[k, look].mean()))
        found |= {
            k for k in left if k != best and surely_above(scores[best, look] - scores[k, look], MARGIN, level=level)
        }
    return found


def simulated(sweep: Sweep, runs: int, rng: np.random.Generator) -> Outcomes:
    """Return what the rule, and what stands beside it, does in each sweep."""
    found: list[dict[str, float]] = []
    for _ in range(runs):
        scores, ends = sweep.draw(rng)
        # Decimals are not exact.
        good = {k for k, end in enumerate(ends) if ends.max() - end <= MARGIN + 1e-9}
        at = stops(sweep, scores)
        bad = set(range(len(ends))) - good
        corrected = present_stops(sweep, scores, level_of_a_test(sweep.looks, len(ends) * (len(ends) - 1)))
        saved = sum(1 - look / (sweep.looks + 1) for look in at.values()) / len(ends)
        found.append(
            {
                "wrong": float(bool(good & at.keys())),
                "stopped": len(bad & at.keys()) / len(bad) if bad else np.nan,
                "steps saved": saved,
                "wrong, present for the end": float(bool(good & corrected)),
                "and each look alone": float(bool(good & present_stops(sweep, scores, LEVEL))),
            }
        )
    return {name: np.array([one[name] for one in found]) for name in found[0]}


def cases() -> Iterator[Case]:
    """Yield every shape with few and with more looks and examples, some with many looks; the margin without wobble."""
    for shape, (seeds, examples, looks, falling) in product(
        SHAPES, ((2, 400, 5, True), (1, 400, 20, False), (2, 1000, 12, True))
    ):
        if looks == 20 and shape not in ("equal", "margin", "crossing", "never"):
            continue
        still = {"seed_sd": 0.0, "wobble_sd": 0.0, "changed": 0.5} if shape == "margin" else {}
        sweep = Sweep(curves=SHAPES[shape], seeds=seeds, examples=examples, looks=looks, falling=falling, **still)
        yield Case(
            study="stopping",
            parameters={"shape": shape, "seeds": seeds, "examples": examples, "looks": looks, "falling": falling},
            outcomes=lambda runs, rng, own=sweep: simulated(own, runs, rng),
            bounds={} if shape == BREAKS else {"wrong": AT_MOST_5},
        )
