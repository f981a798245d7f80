"""Angles of few examples of unequal lengths, against `compare`'s intervals.

The angle of student (strategy k, seed s) at example e of w tokens is, in degrees,

    base + d_k + a_s + b_ks + g_e + h_ke + (slope + slope_k) x(w) + noise / sqrt(w),

where x(w) is the logarithm of the length, standardised. Lengths come from a short list, so the truth, the mean over
tokens, is a sum: E[w y] / E[w]. The slope makes long examples, which weigh most, differ from short ones, and slope_k
makes strategies differ more on long ones.
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
BASE, GAIN = 60.0, 5.0
MARGIN = 2.0
BOUNDS = {
    "coverage": COVERAGE,
    "coverage over none": COVERAGE,
    "all pairs at once": AT_LEAST_93,
    "spread covered": AT_LEAST_93,
    "false equivalent": AT_MOST_5,
    "false different": AT_MOST_5,
}


@dataclass(frozen=True, kw_only=True)
class Population:
    """Students whose angles are known.

    Attributes:
        degrees: of each strategy, mean over the tokens of the population; none first.
        seeds: how many.
        examples: how many.
        seed_sd: of a student's angle over seeds, in degrees, what all strategies share left out.
        interaction_sd: of a strategy's angle at an example, in degrees.
        slope_sd: of a strategy's slope over the length, in degrees for each standard deviation of its logarithm.
        about: "strategies", or "these students" where the degrees are the mean of the students drawn.
    """

    degrees: tuple[float, ...]
    seeds: int
    examples: int
    seed_sd: float
    interaction_sd: float = 3.0
    slopes: tuple[float, ...] = (0.0, 1.0, -1.0, 0.5, -0.5)
    slope: float = 3.0
    shared_sd: float = 1.0
    example_sd: float = 6.0
    noise_sd: float = 10.0
    about: str = "strategies"

    def draw(self, rng: np.random.Generator) -> tuple[Array, Array]:
        """Return the angles (strategies, seeds, examples) and tokens (examples,)."""
        k, s, e = len(self.degrees), self.seeds, self.examples
        place = rng.choice(len(LENGTHS), size=e, p=SHARES)
        effects = self.seed_sd * rng.standard_normal((k, s)) + self.shared_sd * rng.standard_normal(s)
        if self.about == "these students":
            effects = effects - effects.mean(1, keepdims=True)
        own = self.example_sd * rng.standard_normal(e) + self.interaction_sd * rng.standard_normal((k, e))
        noise = self.noise_sd * rng.standard_normal((k, s, e)) / np.sqrt(LENGTHS[place])
        centre = np.array(self.degrees)[:, None] + self.tilts()[:, place] + own
        return centre[:, None, :] + effects[..., None] + noise, LENGTHS[place].astype(np.float64)

    def tilts(self) -> Array:
        """Return what each length adds to each strategy's angle, (strategies, lengths); its mean over tokens is 0."""
        weights = SHARES * LENGTHS / (SHARES @ LENGTHS)
        centred = X - weights @ X
        return np.outer(self.slope + np.array(self.slopes[: len(self.degrees)]), centred)


def degrees(truth: str, strategies: int, margin: float) -> tuple[float, ...]:
    """Return the strategies' angles, none first: all equal, or one pair exactly at the margin."""
    middle = np.zeros(strategies - 2)
    places = np.zeros(strategies) if truth == "equal" else np.concatenate([[-0.5], middle, [0.5]])
    return (BASE - GAIN, *(BASE + margin * places))


def simulated(population: Population, margin: float, runs: int, rng: np.random.Generator) -> Outcomes:
    """Return what `compare` gets right and wrong in each run."""
    truth = dict(zip(STRATEGIES, population.degrees, strict=False))
    found = []
    for _ in range(runs):
        values, tokens = population.draw(rng)
        found.append(outcomes(answer([angle_cell(values, tokens)], margin), truth, margin))
    return {name: np.array([one[name] for one in found]) for name in found[0]}


def cases() -> Iterator[Case]:
    """Yield the cells: few examples of unequal lengths, one seed and three, seed noise below and above the margin."""
    for seeds, examples, strategies, seed_sd, truth in product(
        (1, 3), (10, 20, 100), (2, 4), (0.2, 4.0), ("equal", "margin")
    ):
        # At the margin it must be possible to be called equivalent.
        margin = MARGIN if truth == "equal" else 4 * MARGIN
        population = Population(
            degrees=degrees(truth, strategies, margin),
            seeds=seeds,
            examples=examples,
            seed_sd=seed_sd,
            about=about(seeds),
        )
        yield Case(
            study="angles",
            parameters={
                "seeds": seeds, "examples": examples, "strategies": strategies, "seed_sd": seed_sd, "truth": truth,
                "margin": margin,
            },
            outcomes=lambda runs, rng, own=population, margin=margin: simulated(own, margin, runs, rng),
            bounds=BOUNDS,
        )  # fmt: skip
