"""Angles of few examples of unequal lengths, against `compare`'s intervals.

The angle of student (strategy k, seed s) at example e of w tokens is, in degrees,

    base + d_k + a_s + b_ks + g_e + h_ke + (slope + slope_k) x(w) + noise / sqrt(w),

where x(w) is the logarithm of the length, standardised. Lengths come from a short list, so the truth, the mean over
tokens, is a sum: E[w y] / E[w]. The slope makes long examples, which weigh most, differ from short ones, and slope_k
makes strategies differ more on long ones. "demo" has the sizes of the demo's students (data/gallery), whose differences
vary as much on long examples as on short ones. In "tokens" most of the noise is the tokens' own, so that long examples,
which weigh most, vary least: intervals that take all examples to vary alike are then too wide, never too narrow.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from tests.simulations.harness import AT_LEAST_93, AT_MOST_5, COVERAGE, Case, Outcomes
from tests.simulations.product import STRATEGIES, about, angle_cell, answer, outcomes

Array = NDArray[np.float64]

#: Tokens of an example and how often such an example comes: a few long ones among many short ones, as in reviews.
LENGTHS = np.array([4, 6, 9, 13, 20, 30, 45, 70])
SHARES = np.array([0.10, 0.14, 0.18, 0.18, 0.16, 0.12, 0.08, 0.04])
#: The logarithm of the length, standardised.
X = (np.log(LENGTHS) - SHARES @ np.log(LENGTHS)) / np.sqrt(SHARES @ (np.log(LENGTHS) - SHARES @ np.log(LENGTHS)) ** 2)
#: How angles grow with the length, by strategy, relative to each other.
SLOPES = np.array([1.0, 2.0, 0.0, 1.5])
BASE, GAIN = 60.0, 5.0
MARGIN = 2.0
#: Standard deviations in degrees: of an example for all students, for one strategy, of a token; and the slopes' size.
NOISE = {"demo": (1.3, 1.0, 2.5, 0.5), "tokens": (1.3, 0.5, 6.0, 0.5)}
ERROR_RATES = {"false equivalent": AT_MOST_5, "false different": AT_MOST_5}
BOUNDS = {
    "coverage": COVERAGE,
    "coverage over none": COVERAGE,
    "coverage, means": COVERAGE,
    "all pairs at once": AT_LEAST_93,
    "spread covered": AT_LEAST_93,
    **ERROR_RATES,
}


@dataclass(frozen=True, kw_only=True)
class Population:
    """Students whose angles are known.

    Attributes:
        degrees: of each strategy, mean over the tokens of the population; a strategy each.
        seeds: how many.
        examples: how many.
        seed_sd: of a student's angle over seeds, in degrees, what all strategies share left out.
        noise: a key of `NOISE`.
        about: "strategies", or "these students" where the degrees are the mean of the students drawn.
    """

    degrees: tuple[float, ...]
    seeds: int
    examples: int
    seed_sd: float
    noise: str = "demo"
    shared_sd: float = 0.5
    about: str = "strategies"

    def draw(self, rng: np.random.Generator) -> tuple[Array, Array]:
        """Return the angles (strategies, seeds, examples) and the tokens (examples,)."""
        k, s, e = len(self.degrees), self.seeds, self.examples
        place = rng.choice(len(LENGTHS), size=e, p=SHARES)
        effects = self.seed_sd * rng.standard_normal((k, s)) + self.shared_sd * rng.standard_normal(s)
        if self.about == "these students":
            effects = effects - effects.mean(1, keepdims=True)
        example_sd, interaction_sd, noise_sd, _ = NOISE[self.noise]
        own = example_sd * rng.standard_normal(e) + interaction_sd * rng.standard_normal((k, e))
        noise = noise_sd * rng.standard_normal((k, s, e)) / np.sqrt(LENGTHS[place])
        centre = np.array(self.degrees)[:, None] + self.tilts()[:, place] + own
        return centre[:, None, :] + effects[..., None] + noise, LENGTHS[place].astype(np.float64)

    def tilts(self) -> Array:
        """Return what each length adds to each strategy's angle, (strategies, lengths); its mean over tokens is 0."""
        weights = SHARES * LENGTHS / (SHARES @ LENGTHS)
        centred = X - weights @ X
        return NOISE[self.noise][3] * np.outer(SLOPES[: len(self.degrees)], centred)


def degrees(truth: str, strategies: int, margin: float) -> tuple[float, ...]:
    """Return the strategies' angles: all equal, or one pair exactly at the margin; before two of them that of none."""
    middle = np.zeros(strategies - 2)
    places = np.zeros(strategies) if truth == "equal" else np.concatenate([[-0.5], middle, [0.5]])
    return (*([BASE - GAIN] if strategies == 2 else []), *(BASE + margin * places))


def simulated(population: Population, margin: float, runs: int, rng: np.random.Generator) -> Outcomes:
    """Return what `compare` gets right and wrong in each run."""
    truth = dict(zip(STRATEGIES[len(population.degrees)], population.degrees, strict=True))
    found = []
    for _ in range(runs):
        values, tokens = population.draw(rng)
        found.append(outcomes(answer(angle_cell(values, tokens), margin), truth, margin))
    return {name: np.array([one[name] for one in found]) for name in found[0]}


def cases() -> Iterator[Case]:
    """Yield the cells: few examples of unequal lengths, one seed and three, seed noise below and above the margin."""
    for seeds, examples in product((1, 3), (10, 20, 100)):
        for noise, strategies, seed_sd, truth in (
            ("demo", 2, 0.1, "margin"),
            ("demo", 2, 4.0, "equal"),
            ("demo", 4, 0.1, "margin"),
            ("demo", 4, 4.0, "equal"),
            ("tokens", 2, 0.1, "margin"),
        ):
            yield _case(seeds, examples, noise, strategies, seed_sd, truth)


def _case(seeds: int, examples: int, noise: str, strategies: int, seed_sd: float, truth: str) -> Case:
    population = Population(
        degrees=degrees(truth, strategies, MARGIN),
        seeds=seeds,
        examples=examples,
        seed_sd=seed_sd,
        noise=noise,
        about=about(seeds),
    )
    parameters = {"seeds": seeds, "examples": examples, "noise": noise, "strategies": strategies}
    return Case(
        study="angles",
        parameters={**parameters, "seed_sd": seed_sd, "truth": truth, "margin": MARGIN},
        outcomes=lambda runs, rng: simulated(population, MARGIN, runs, rng),
        bounds=BOUNDS if noise == "demo" else dict.fromkeys(BOUNDS, AT_LEAST_93) | ERROR_RATES,
    )
