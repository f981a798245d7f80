"""Layers of two models that know nothing of each other, against the p-values of the table `similarity`.

Teacher and student layers are Gaussian and independent of each other. `unrelated` layers of one model are independent
too; in a `residual` model each layer adds a little to the one before, as in a transformer. The most similar of all
pairs of a teacher and a student layer is looked for, and is called similar where its p-value is below 5%: with 99
permutations an exact test does so in 4% of the runs. With 1,024 rows only the Gram matrices are drawn (Bartlett 1933),
and neighbours are those of the cosines without the clamp.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product

import numpy as np
import torch
from torch import Tensor

from anglekit.geometry.cka import LayerGrams
from anglekit.geometry.neighbours import NEIGHBOURS, Neighbourhoods
from anglekit.geometry.permutation_tests import permutation_test, row_orders
from tests.simulations.harness import AT_MOST_5, Case, Outcomes

PERMUTATIONS = 99
MEASURES = ("debiased CKA", "linear CKA", "neighbours")
BOUNDS = {f"{measure}, {what}": AT_MOST_5 for measure in MEASURES for what in ("best of layers", "one pair")}
#: What a residual layer adds to the one before, in standard deviations of the sum.
ADDED = 0.4


def gaussian_layers(count: int, n: int, width: int, model: str, rng: np.random.Generator) -> list[Tensor]:
    """Return the layers of one model, float32 (n, width) each, of unit variance."""
    layers = [torch.from_numpy(rng.standard_normal((n, width), dtype=np.float32))]
    while len(layers) < count:
        added = torch.from_numpy(rng.standard_normal((n, width), dtype=np.float32))
        layers.append(added if model == "unrelated" else math.sqrt(1 - ADDED**2) * layers[-1] + ADDED * added)
    return layers


def gaussian_gram(n: int, width: int, rng: np.random.Generator) -> Tensor:
    """Return the inner products of n independent Gaussian states, float64 (n, n), from as few numbers as it takes."""
    if width < n:
        factor = torch.from_numpy(rng.standard_normal((n, width)))
    else:
        factor = torch.from_numpy(np.tril(rng.standard_normal((n, n)), -1))
        factor.diagonal().copy_(torch.from_numpy(np.sqrt(rng.chisquare(width - np.arange(n)))))
    return factor @ factor.T


def of_grams(grams: Sequence[Tensor]) -> tuple[LayerGrams, Neighbourhoods]:
    """Return what the measures need of layers whose inner products are known."""
    centred, nearest = [], []
    for gram in grams:
        rows = gram.mean(1)
        middle = gram - rows.unsqueeze(0) - rows.unsqueeze(1) + rows.mean()
        centred.append(middle / middle.trace())
        length = gram.diagonal().sqrt()
        cosine = (gram / length.unsqueeze(0) / length.unsqueeze(1)).fill_diagonal_(-torch.inf)
        nearest.append(cosine.topk(NEIGHBOURS + 1, dim=1).indices)
    usable = torch.ones(len(grams), dtype=torch.bool)
    return LayerGrams(torch.stack(centred)), Neighbourhoods(torch.stack(nearest), usable)


def answers(grams: LayerGrams, near: Neighbourhoods, teacher_layers: int, rng: np.random.Generator) -> dict[str, bool]:
    """Return which measures call the most similar layers, and the first of each model, similar."""
    orders = row_orders(grams.n, PERMUTATIONS, rng)
    found = {}
    for measure, values in zip(MEASURES, (*grams.permuted(orders), near.permuted(orders)), strict=True):
        test = permutation_test(values[:, :teacher_layers, teacher_layers:].flatten(1))
        found[f"{measure}, best of layers"] = bool(test.p_adjusted.min() < 0.05)
        found[f"{measure}, one pair"] = bool(test.p[0] < 0.05)
        found[f"{measure}, best of layers uncorrected"] = bool(test.p.min() < 0.05)
    return found


def case(n: int, width: int, model: str, teacher_layers: int, student_layers: int) -> Case:
    """Return the case of two models of so many layers."""

    def outcomes(runs: int, rng: np.random.Generator) -> Outcomes:
        found = []
        for _ in range(runs):
            if n > 500:
                seen = of_grams([gaussian_gram(n, width, rng) for _ in range(teacher_layers + student_layers)])
            else:
                layers = gaussian_layers(teacher_layers, n, width, model, rng)
                layers += gaussian_layers(student_layers, n, width, model, rng)
                seen = LayerGrams.of(layers), Neighbourhoods.of(layers)
            found.append(answers(*seen, teacher_layers, rng))
        return {name: np.array([one[name] for one in found], dtype=np.float64) for name in found[0]}

    parameters = {"rows": n, "width": width, "layers": f"{teacher_layers}x{student_layers}", "model": model}
    return Case(study="similarity", parameters=parameters, outcomes=outcomes, bounds=BOUNDS)


def cases() -> list[Case]:
    """Return the cases, the quick ones first and last."""
    small = [case(64, width, model, 7, 3) for width, model in product((256, 2048), ("unrelated", "residual"))]
    large = [case(1024, width, "unrelated", 3, 2) for width in (256, 8192, 1024, 2048)]
    return [*small, *large, case(64, 8192, "residual", 7, 3)]
