"""Scores that are no means over examples, BLEU and macro F1, against `compare`'s intervals.

A student writes h tokens where the reference has r. Each n-gram is one of the reference's with the probability q^n, and

    q = Phi(m_k + b_ks + g_e + h_ke + noise_kse),

all normal: q is better on some examples for all students (g_e), and on some for one strategy (h_ke); b_ks is what a
seed does to a strategy. BLEU of the population follows from the expected sums, a seed at a time, by Gauss-Hermite
quadrature. For macro F1 an answer is right as in `scores`; a wrong one is any other class alike, and classes are not
equally common, so that the score is another function of the accuracy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special

from anglekit.results.corpus_scores import CORPUS_SCORES, bleu, macro_f1
from anglekit.results.example_scores import STUDENT, ExampleScores
from tests.simulations.harness import AT_LEAST_93, AT_MOST_5, COVERAGE, Case, Outcomes
from tests.simulations.product import STRATEGIES, about, answer, outcomes, score_cell
from tests.simulations.scores import Population as Accuracies
from tests.simulations.scores import accuracies

Array = NDArray[np.float64]

TABLE = "validation"
#: Tokens of a reference, and how many more a student writes, each as often as the others.
REFERENCES, LONGER = np.array([6, 8, 10, 13, 16, 20, 26]), np.array([-2, -1, 0, 0])
WRITTEN = (REFERENCES[:, None] + LONGER).astype(np.float64)
ORDERS = np.arange(1, 5)
EXAMPLE_SD, INTERACTION_SD, NOISE_SD = 0.5, 0.15, 0.2
CLASSES = np.array([0.6, 0.3, 0.1])
_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(60)
_WEIGHTS = _WEIGHTS / _WEIGHTS.sum()
BOUNDS = {
    "coverage": COVERAGE,
    "coverage over none": COVERAGE,
    "coverage, means": COVERAGE,
    "all pairs at once": AT_LEAST_93,
    "spread covered": AT_LEAST_93,
    "false equivalent": AT_MOST_5,
    "false different": AT_MOST_5,
}


def over_normal(of: Callable[[Array], Array], mean: float, sd: float) -> Array:
    """Return the mean of a function over a normal variable; the function's last axis is that of its points."""
    return of(mean + sd * _NODES) @ _WEIGHTS


def bleu_of(centre: float) -> float:
    """Return a student's BLEU over the population of examples: from m_k + b_ks."""
    sd = np.sqrt(EXAMPLE_SD**2 + INTERACTION_SD**2 + NOISE_SD**2)
    right = over_normal(lambda z: special.ndtr(z) ** ORDERS[:, None], centre, sd)  # (orders,)
    ngrams = np.maximum(WRITTEN[..., None] - ORDERS + 1, 0).mean((0, 1))
    return bleu(np.concatenate([[WRITTEN.mean(), REFERENCES.mean()], right * ngrams, ngrams]))[0]


def macro_f1_of(accuracy: float) -> float:
    """Return macro F1 over the population, from the accuracy over it."""
    found, wrong = CLASSES * accuracy, (1 - accuracy) / (len(CLASSES) - 1)
    return macro_f1(np.stack([found, found + (1 - CLASSES) * wrong, CLASSES]))[0]


@dataclass(frozen=True, kw_only=True)
class BleuStudents:
    """Students whose BLEU is known.

    Attributes:
        targets: BLEU over the population of seeds and examples, a strategy each.
        seeds: how many.
        examples: how many.
        seed_sd: of a student's m_k over seeds.
    """

    targets: tuple[float, ...]
    seeds: int
    examples: int
    seed_sd: float

    @cached_property
    def centres(self) -> Array:
        """m_k, (strategies,)."""

        def over_seeds(centre: float) -> float:
            nodes = zip(_NODES, _WEIGHTS, strict=True)
            return sum(weight * bleu_of(centre + self.seed_sd * node) for node, weight in nodes if weight > 1e-9)

        return np.array([optimize.brentq(lambda m, t=t: over_seeds(m) - t, -3, 4, xtol=1e-6) for t in self.targets])

    def draw(self, rng: np.random.Generator) -> tuple[Array, dict[str, float]]:
        """Return each example's part of BLEU (strategies, seeds, examples), and these students' own truth."""
        k, s, e = len(self.targets), self.seeds, self.examples
        centre = self.centres[:, None] + self.seed_sd * rng.standard_normal((k, s))
        easy = EXAMPLE_SD * rng.standard_normal(e) + INTERACTION_SD * rng.standard_normal((k, e))
        right = special.ndtr(centre[..., None] + easy[:, None] + NOISE_SD * rng.standard_normal((k, s, e)))
        referred = rng.choice(REFERENCES, e)
        written = referred + rng.choice(LONGER, (k, s, e))
        ngrams = np.maximum(written[..., None] - ORDERS + 1, 0)
        matches = rng.binomial(ngrams, right[..., None] ** ORDERS)
        values = np.empty((k, s, e))
        names = CORPUS_SCORES["bleu"].columns("bleu")
        for i, j in np.ndindex(k, s):
            parts = [written[i, j], referred, *matches[i, j].T, *ngrams[i, j].T]
            columns = dict(zip(names, parts, strict=True))
            values[i, j] = ExampleScores({(STUDENT, TABLE): columns}).values(STUDENT, TABLE, "bleu")
        own = [np.mean([bleu_of(one) for one in row]) if about(s) == "these students" else np.nan for row in centre]
        return values, dict(zip(STRATEGIES[k], own, strict=True))


@dataclass(frozen=True, kw_only=True)
class ClassStudents:
    """Students whose macro F1 is known; as `scores.Population`, with classes."""

    accuracies: Accuracies

    def truth(self) -> dict[str, float]:
        """Return macro F1 over the population of seeds and examples, by strategy."""
        own, shared = self.accuracies.latent_seed_sds()
        centres = self.accuracies.centres(np.zeros((len(own), 1)))
        scale = np.sqrt(self.accuracies.examples_variance())
        sds = np.hypot(own, shared)[:, 0]
        of = np.vectorize(lambda z: macro_f1_of(float(special.ndtr(z / scale))))
        true = [float(over_normal(of, centre, sd)) for centre, sd in zip(centres, sds, strict=True)]
        return dict(zip(STRATEGIES[len(true)], true, strict=True))

    def draw(self, rng: np.random.Generator) -> Array:
        """Return each example's part of macro F1, (strategies, seeds, examples)."""
        right, *_ = self.accuracies.draw(rng)
        target = rng.choice(len(CLASSES), size=right.shape[-1], p=CLASSES)
        other = (target + rng.integers(1, len(CLASSES), right.shape)) % len(CLASSES)
        predicted = np.where(right == 1, target, other)
        values = np.empty(right.shape)
        for i, j in np.ndindex(right.shape[:2]):
            columns = {"prediction": predicted[i, j], "target": target}
            values[i, j] = ExampleScores({(STUDENT, TABLE): columns}).values(STUDENT, TABLE, "macro_f1")
        return values


def simulated_bleu(students: BleuStudents, margin: float, runs: int, rng: np.random.Generator) -> Outcomes:
    """Return what `compare` gets right and wrong in each run."""
    found = []
    for _ in range(runs):
        values, own = students.draw(rng)
        true = dict(zip(STRATEGIES[len(students.targets)], students.targets, strict=True))
        truth = own if about(students.seeds) == "these students" else true
        found.append(outcomes(answer(score_cell(values, unit=100.0), margin), truth, margin))
    return {name: np.array([one[name] for one in found]) for name in found[0]}


def simulated_f1(students: ClassStudents, margin: float, runs: int, rng: np.random.Generator) -> Outcomes:
    """Return what `compare` gets right and wrong in each run."""
    truth = students.truth()
    found = [outcomes(answer(score_cell(students.draw(rng)), margin), truth, margin) for _ in range(runs)]
    return {name: np.array([one[name] for one in found]) for name in found[0]}


def cases() -> Iterator[Case]:
    """Yield the cells: BLEU with one, three and five seeds, macro F1 with three and five."""
    for seeds, examples, strategies, truth in product((1, 3, 5), (100, 872), (2, 4), ("equal", "margin")):
        # With one seed, these students' own difference cannot be set; four strategies say little more than two.
        if (seeds == 1) == (truth == "margin") or (strategies == 4 and examples == 100):
            continue
        margin = 3.0
        places = np.linspace(-0.5, 0.5, strategies) * margin * (truth == "margin")
        students = BleuStudents(
            targets=(*([35.0] if strategies == 2 else []), *(40.0 + places)),
            seeds=seeds,
            examples=examples,
            seed_sd=0.02,
        )
        yield Case(
            study="corpus",
            parameters={"score": "bleu", **_parameters(seeds, examples, strategies, truth, margin)},
            outcomes=lambda runs, rng, own=students: simulated_bleu(own, 3.0, runs, rng),
            bounds=BOUNDS,
        )
    for seeds, examples, strategies in product((3, 5), (100, 872), (2,)):
        own = Accuracies(accuracies=accuracies("equal", strategies, 0.01), seeds=seeds, examples=examples, seed_sd=0.01)
        yield Case(
            study="corpus",
            parameters={"score": "macro_f1", **_parameters(seeds, examples, strategies, "equal", 0.01)},
            outcomes=lambda runs, rng, own=ClassStudents(accuracies=own): simulated_f1(own, 0.01, runs, rng),
            bounds=BOUNDS,
        )


def _parameters(seeds: int, examples: int, strategies: int, truth: str, margin: float) -> dict[str, object]:
    return {"seeds": seeds, "examples": examples, "strategies": strategies, "truth": truth, "margin": margin}
