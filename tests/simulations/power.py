"""How many seeds the demo's differences need: what three seeds foretell (`needed_seeds`), and what more seeds then say.

The truth is taken from the demo's scores of three seeds in data/gallery: each strategy's mean accuracy, how much it
varies from seed to seed, and how much of that all strategies share. Students of such a population are drawn with 3 to
20 seeds. "decided" is how often `compare` reaches a verdict with so many seeds; "foretold" is how often three seeds say
that so many, or fewer, are enough.
"""

from __future__ import annotations

from collections.abc import Iterator
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
    """Return a population like the demo's students of one initialisation."""
    rows, _ = read_score_table(SCORES, "draw the gallery's scores again")
    chosen = rows[(rows["init"] == init) & (rows["score"] == "accuracy")]
    table = pd.pivot_table(chosen, values="value", index="strategy", columns="seed").loc[list(STRATEGIES)]
    own = table.sub(table.mean(axis=0), axis="columns")
    freedom = (len(table) - 1) / len(table)
    return Population(
        accuracies=tuple(table.mean(axis=1)),
        seeds=seeds,
        examples=EXAMPLES,
        seed_sd=tuple(own.std(axis=1, ddof=1) / np.sqrt(freedom)),
        shared_sd=float(table.mean(axis=0).std(ddof=1)),
    )


def simulated(init: str, seeds: int, runs: int, rng: np.random.Generator) -> Outcomes:
    """Return whether so many seeds decide, how, and whether three seeds foretell that they do."""
    more, pilot = demo(init, seeds), demo(init, PILOT)
    verdicts = [_family(more, rng).verdict for _ in range(runs)]
    enough = []
    for _ in range(runs):
        family = _family(pilot, rng)
        needed = None if family.needed is None else family.needed["needed_seeds"]
        enough.append(family.verdict != "undecided" or (needed is not None and needed <= seeds))
    return {
        "decided": np.array([verdict != "undecided" for verdict in verdicts]),
        "different": np.array([verdict == "different" for verdict in verdicts]),
        "equivalent": np.array([verdict == "equivalent" for verdict in verdicts]),
        "foretold": np.array(enough),
    }


def _family(population: Population, rng: np.random.Generator):
    return answer([score_cell(population.draw(rng), per_example=True)], MARGIN).family


def cases() -> Iterator[Case]:
    """Yield the demo's two initialisations with more and more seeds."""
    for init in ("random", "teacher"):
        for seeds in (3, 4, 5, 6, 8, 10, 15, 20):
            yield Case(
                study="power",
                parameters={"init": init, "seeds": seeds, "examples": EXAMPLES, "margin": MARGIN},
                outcomes=lambda runs, rng, init=init, seeds=seeds: simulated(init, seeds, runs, rng),
            )
