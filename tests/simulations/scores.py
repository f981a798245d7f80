"""Accuracies of students whose truth is known: seeds, examples and what they share, against `compare`'s intervals.

Student (strategy k, seed s) answers example e rightly where

    m_k + a_s + b_ks + g_e + h_ke + noise_kse > 0,

all normal: a_s is what a seed does to all strategies, b_ks what it does to one; g_e is how easy the example is for all
students, h_ke how easy it is for a strategy. So the accuracy of a student over the population of examples is
Phi((m_k + a_s + b_ks) / sqrt(1 + g^2 + h^2)), and over the population of seeds too, the same with all variances: the
truth is known in closed form. With fewer seeds than an answer about strategies takes, it is about these students: the
seeds' effects stay, and m_k is solved so that these students' own mean over the population of examples is what was
asked.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

from tests.simulations.harness import AT_LEAST_93, AT_MOST_5, COVERAGE, Case, Outcomes
from tests.simulations.product import STRATEGIES, about, answer, outcomes, score_cell

Array = NDArray[np.float64]

ACCURACY, GAIN = 0.85, 0.05
BOUNDS = {
    "coverage": COVERAGE,
    "coverage over none": COVERAGE,
    "coverage, means": COVERAGE,
    "all pairs at once": AT_LEAST_93,
    "spread covered": AT_LEAST_93,
    "false equivalent": AT_MOST_5,
    "false different": AT_MOST_5,
}


@dataclass(frozen=True, kw_only=True)
class Population:
    """Students whose accuracies are known.

    Attributes:
        accuracies: over the population, a strategy each.
        seeds: how many.
        examples: how many.
        seed_sd: the standard deviation of a student's accuracy over seeds, what all strategies share left out; one for
            each strategy, or one for all.
        shared_sd: of what a seed does to all strategies, in the same unit.
        example_sd: of how easy an example is for all, where the noise is 1.
        interaction_sd: of how easy an example is for one strategy.
        about: "strategies", or "these students" where the accuracies are the mean of the students drawn.
    """

    accuracies: tuple[float, ...]
    seeds: int
    examples: int
    seed_sd: float | tuple[float, ...]
    shared_sd: float = 0.01
    example_sd: float = 1.5
    interaction_sd: float = 0.5
    about: str = "strategies"

    def draw(self, rng: np.random.Generator) -> tuple[Array, Array, Array]:
        """Return which examples are answered rightly, 0 or 1, and true accuracies.

        The first is (strategies, seeds, examples); then the accuracies on these examples over all seeds,
        (strategies,), and those of these students over all examples, (strategies, seeds).
        """
        k, s, e = len(self.accuracies), self.seeds, self.examples
        own, shared = self.latent_seed_sds()
        effects = own * rng.standard_normal((k, s)) + shared * rng.standard_normal(s)
        centres = self.centres(effects)[:, None]
        example = self.example_sd * rng.standard_normal(e) + self.interaction_sd * rng.standard_normal((k, e))
        noise = rng.standard_normal((k, s, e), dtype=np.float32)
        right = ((centres + effects)[..., None] + example[:, None, :] + noise > 0).astype(np.float64)
        on_table = special.ndtr((centres + example) / np.sqrt(1 + own**2 + shared**2)).mean(1)
        return right, on_table, special.ndtr((centres + effects) / np.sqrt(self.examples_variance()))

    def examples_variance(self) -> float:
        return 1 + self.example_sd**2 + self.interaction_sd**2

    def latent_seed_sds(self) -> tuple[Array, Array]:
        """Return the standard deviations over seeds on the latent scale, each (strategies, 1): by the slope there."""
        slope = stats.norm.pdf(stats.norm.ppf(self.accuracies)) / np.sqrt(self.examples_variance())
        own, shared = np.broadcast_to(self.seed_sd, slope.shape) / slope, self.shared_sd / slope
        return own[:, None], shared[:, None]

    def centres(self, effects: Array) -> Array:
        """Return m_k: (strategies,)."""
        target = np.array(self.accuracies)
        if self.about == "strategies":
            own, shared = self.latent_seed_sds()
            return stats.norm.ppf(target) * np.sqrt(self.examples_variance() + (own**2 + shared**2)[:, 0])
        scale = np.sqrt(self.examples_variance())
        centre = stats.norm.ppf(target) * scale
        for _ in range(50):  # Newton's method on a smooth, rising function
            z = (centre[:, None] + effects) / scale
            slope = np.exp(-(z**2) / 2).mean(1) / (scale * np.sqrt(2 * np.pi))
            step = (special.ndtr(z).mean(1) - target) / slope
            centre = centre - np.clip(step, -1, 1)
            if np.abs(step).max() < 1e-12:
                break
        return centre


def accuracies(truth: str, strategies: int, margin: float) -> tuple[float, ...]:
    """Return accuracies: all equal, or the largest difference exactly at the margin; first that of none, but for four.

    "margin": one pair is at the margin, what stands between is in the middle. "groups": half are at one end.
    """
    matching = min(strategies, 4)
    places = {
        "equal": np.zeros(matching),
        "margin": np.concatenate([[-0.5], np.zeros(matching - 2), [0.5]]),
        "groups": np.repeat([-0.5, 0.5], matching // 2),
    }[truth]
    return (*([] if strategies == 4 else [ACCURACY - GAIN]), *(ACCURACY + margin * places))


def simulated(
    population: Population, margin: float, runs: int, rng: np.random.Generator, *, per_example: bool = True
) -> Outcomes:
    """Return what `compare` gets right and wrong in each run.

    Without the examples' scores, its intervals speak of the table that they are of, so that table's accuracies count;
    they are not set, and verdicts at the margin are left out.
    """
    found = []
    for _ in range(runs):
        right, on_table, _ = population.draw(rng)
        true = population.accuracies if per_example else on_table
        truth = dict(zip(STRATEGIES[len(true)], true, strict=True))
        found.append(outcomes(answer(score_cell(right, per_example=per_example), margin), truth, margin))
    names = [name for name in found[0] if per_example or name != "false equivalent"]
    return {name: np.array([one[name] for one in found]) for name in names}


def simulated_unequal(
    population: Population, trained: tuple[int, ...], margin: float, runs: int, rng: np.random.Generator
) -> Outcomes:
    """Return what `compare` gets right and wrong where strategies have unlike numbers of seeds."""
    names = STRATEGIES[len(trained)]
    truth = dict(zip(names, population.accuracies, strict=True))
    found = []
    for _ in range(runs):
        right, _, of_students = population.draw(rng)
        students = {name: own[:n] for name, own, n in zip(names, of_students, trained, strict=True)}
        found.append(outcomes(answer(score_cell(right, trained=trained), margin), truth, margin, students))
    return {name: np.array([one[name] for one in found]) for name in found[0]}


def cases() -> Iterator[Case]:
    """Yield the cells: seeds' noise near 0 with the truth at the margin, far above the margin with equal strategies.

    With 872 examples also noise like the margin, and two groups at the margin. "tables" are scores of runs that did
    not keep their examples, "unequal" strategies with unlike numbers of seeds.
    """
    everywhere = [(0.0005, "margin"), (0.05, "equal")]
    more = [(0.01, "equal"), (0.01, "margin"), (0.0005, "groups")]
    for seeds, examples, strategies in product((2, 3, 5, 10), (100, 872, 2000), (2, 4)):
        for seed_sd, truth in [*everywhere, *(more[: strategies // 2 + 1] if examples == 872 else [])]:
            yield _case(seeds, examples, strategies, seed_sd, truth)
    for seeds, (seed_sd, truth) in product((2, 3, 5), everywhere):
        yield _case(seeds, 872, 5, seed_sd, truth)
    for seeds, seed_sd in product((3, 5, 10), (0.0005, 0.05)):
        population = Population(accuracies=accuracies("equal", 2, 0.01), seeds=seeds, examples=872, seed_sd=seed_sd)
        yield Case(
            study="tables",
            parameters={"seeds": seeds, "examples": 872, "strategies": 2, "seed_sd": seed_sd, "margin": 0.01},
            outcomes=lambda runs, rng, own=population: simulated(own, 0.01, runs, rng, per_example=False),
            bounds={name: bound for name, bound in BOUNDS.items() if name != "false equivalent"},
        )
    for trained, (seed_sd, truth) in product(((5, 5, 1), (5, 5, 3), (10, 3, 3), (5, 5, 5, 2)), everywhere):
        margin = 0.01 if truth == "equal" else 0.05
        count = len(trained) if len(trained) > 3 else 2
        population = Population(
            accuracies=accuracies(truth, count, margin), seeds=max(trained), examples=872, seed_sd=seed_sd
        )
        yield Case(
            study="unequal",
            parameters={"seeds": "+".join(map(str, trained)), "examples": 872, "seed_sd": seed_sd, "truth": truth},
            outcomes=lambda runs, rng, own=population, each=trained, at=margin: simulated_unequal(
                own, each, at, runs, rng
            ),
            bounds=BOUNDS,
        )


def _case(seeds: int, examples: int, strategies: int, seed_sd: float, truth: str) -> Case:
    # At the margin it must be possible to be called equivalent; with equal strategies, to be called different.
    margin = 0.01 if truth == "equal" else 0.05
    population = Population(
        accuracies=accuracies(truth, strategies, margin),
        seeds=seeds,
        examples=examples,
        seed_sd=seed_sd,
        about=about(seeds),
    )
    parameters = {"seeds": seeds, "examples": examples, "strategies": strategies, "seed_sd": seed_sd}
    return Case(
        study="scores",
        parameters={**parameters, "truth": truth, "margin": margin},
        outcomes=lambda runs, rng: simulated(population, margin, runs, rng),
        bounds=BOUNDS,
    )
