"""How many seeds the demo's differences need: what three seeds foretell (`needed_seeds`), and what more seeds then say.

The truth is taken from the demo's scores of three seeds in data/gallery: each strategy's mean accuracy, how much it
varies from seed to seed, and how much of that all strategies share. Students of such a population are drawn with 3 to
12 seeds. "decided" is how often `compare` reaches a verdict with so many seeds; "foretold" is how often three seeds say
that so many, or fewer, are enough.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd

from anglekit.results.scores import read_score_table
from tests.simulations.harness import Case, Outcomes
from tests.simulations.product import STRATEGIES, answer, score_cell
from tests.simulations.scores import Population

SCORES = Path(__file__).resolve().parents[2] / "data" / "gallery" / "inference-scores.csv"
PILOT, EXAMPLES, MARGIN = 3, 1500, 0.01


def demo(init: str, seeds: int) -> Population:
    """Return a population like the demo's students of one initialisation, of its matching strategies."""
    rows, _ = read_score_table(SCORES, "draw the gallery's scores again")
    chosen = rows[(rows["init"] == init) & (rows["score"] == "accuracy")]
    table = pd.pivot_table(chosen, values="value", index="strategy", columns="seed").loc[list(STRATEGIES[4])]
    own = table.sub(table.mean(axis=0), axis="columns")
    freedom = (len(table) - 1) / len(table)
    return Population(
        accuracies=tuple(table.mean(axis=1)),
        seeds=seeds,
        examples=EXAMPLES,
        seed_sd=tuple(own.std(axis=1, ddof=1) / np.sqrt(freedom)),
        shared_sd=float(table.mean(axis=0).std(ddof=1)),
    )


@lru_cache
def foretold(init: str, runs: int) -> tuple[float, ...]:
    """Return how many seeds each of so many draws of three seeds says are enough; infinite where no number is."""
    rng, needed = np.random.default_rng(PILOT), []
    for _ in range(runs):
        family = answer(score_cell(demo(init, PILOT).draw(rng)[0]), MARGIN, needed=True).family
        row = None if family.needed is None else family.needed["needed_seeds"]
        needed.append(PILOT if family.verdict != "undecided" else np.inf if row is None else row)
    return tuple(needed)


def simulated(init: str, seeds: int, runs: int, rng: np.random.Generator) -> Outcomes:
    """Return whether so many seeds decide, how, and whether three seeds foretell that they do."""
    students = demo(init, seeds)
    verdicts = np.array([answer(score_cell(students.draw(rng)[0]), MARGIN).family.verdict for _ in range(runs)])
    return {
        "decided": verdicts != "undecided",
        "different": verdicts == "different",
        "equivalent": verdicts == "equivalent",
        "foretold": np.array(foretold(init, runs)) <= seeds,
    }


def cases() -> Iterator[Case]:
    """Yield the demo's two initialisations with more and more seeds."""
    for init in ("random", "teacher"):
        for seeds in (3, 4, 6, 8, 12):
            yield Case(
                study="power",
                parameters={"init": init, "seeds": seeds, "examples": EXAMPLES, "margin": MARGIN},
                outcomes=lambda runs, rng, init=init, seeds=seeds: simulated(init, seeds, runs, rng),
            )
