"""Scores of a table as functions of sums over its examples: their value, and how they change with the sums.

A score that is no mean over examples (BLEU, F1, perplexity) is still a function of sums, to which each example adds.
So any resampling of the examples can be scored, and the gradient gives each example's influence on the score.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]

#: A score and its gradient: what the sums give, and the derivative of that with respect to each of them.
ScoreAndGradient = tuple[float, Numbers]

_PARTS_OF_BLEU: Final = (
    *("tokens", "reference_tokens"),
    *(f"matches_{n}" for n in range(1, 5)),
    *(f"ngrams_{n}" for n in range(1, 5)),
)
_BLEU_ORDER, _CHRF_ORDER, _CHRF_BETA = 4, 6, 2


@dataclass(frozen=True)
class CorpusScore:
    """A score of a whole table.

    Attributes:
        parts: what each example adds to, by name.
        of_sums: from the sums of the parts, (parts,), to the score and its gradient. Where the score jumps, the
            gradient is that of the side that holds; where it is not defined, both are 0.
    """

    parts: tuple[str, ...]
    of_sums: Callable[[Numbers], ScoreAndGradient]

    def columns(self, score: str) -> tuple[str, ...]:
        """Return the names of the columns that hold the parts in a table of examples: `SCORE:PART`."""
        return tuple(f"{score}:{part}" for part in self.parts)


def bleu(sums: Numbers) -> ScoreAndGradient:
    """Return BLEU, from 0 to 100, as sacreBLEU computes it by default (Post 2018): four orders, exponential smoothing.

    Args:
        sums: tokens written, tokens of the references that are closest in length, n-grams that occur in a reference for
            n = 1 to 4, and all n-grams for n = 1 to 4, (10,).
    """
    written, referred = float(sums[0]), float(sums[1])
    matched, totals = sums[2 : 2 + _BLEU_ORDER], sums[2 + _BLEU_ORDER :]
    gradient = np.zeros_like(sums)
    if not matched.any() or not totals.all() or written == 0.0 < referred:
        return 0.0, gradient
    smoothing, logs = 1.0, []
    for found, total in zip(matched.tolist(), totals.tolist(), strict=True):
        if found == 0.0:
            smoothing *= 2.0
        logs.append(math.log(100.0 / (smoothing * total) if found == 0.0 else 100.0 * found / total))
    penalty = math.exp(1.0 - referred / written) if written < referred else 1.0
    value = penalty * math.exp(sum(logs) / _BLEU_ORDER)
    if written < referred:
        gradient[0], gradient[1] = value * referred / written**2, -value / written
    seen = matched > 0.0
    gradient[2 : 2 + _BLEU_ORDER][seen] = value / _BLEU_ORDER / matched[seen]
    gradient[2 + _BLEU_ORDER :] = -value / _BLEU_ORDER / totals
    return value, gradient


def multi_bleu(sums: Numbers) -> ScoreAndGradient:
    """Return BLEU without smoothing, from 0 to 100: 0 where n-grams of one order are never met. As `bleu` otherwise."""
    return bleu(sums) if sums[2 : 2 + _BLEU_ORDER].all() else (0.0, np.zeros_like(sums))


def chrf(sums: Numbers) -> ScoreAndGradient:
    """Return chrF2, from 0 to 100, as sacreBLEU computes it by default (Popović 2015): characters, six orders.

    Args:
        sums: for n = 1 to 6 the n-grams written, those of the reference, and those in both, (18,).
    """
    written, referred, matched = sums.reshape(_CHRF_ORDER, 3).T
    gradient = np.zeros((_CHRF_ORDER, 3))
    counted = (written > 0.0) & (referred > 0.0)
    orders, factor = int(counted.sum()), _CHRF_BETA**2
    if not orders or not matched[counted].any():
        return 0.0, gradient.reshape(-1)
    h, r, m = written[counted], referred[counted], matched[counted]
    precision, recall = float((m / h).sum()) / orders, float((m / r).sum()) / orders
    below = factor * precision + recall
    value = 100.0 * (1 + factor) * precision * recall / below
    by_precision = 100.0 * (1 + factor) * recall**2 / below**2 / orders
    by_recall = 100.0 * (1 + factor) * factor * precision**2 / below**2 / orders
    gradient[counted, 0] = -by_precision * m / h**2
    gradient[counted, 1] = -by_recall * m / r**2
    gradient[counted, 2] = by_precision / h + by_recall / r
    return value, gradient.reshape(-1)


def f1(sums: Numbers) -> ScoreAndGradient:
    """Return 2 TP / (predicted + target) of one class, in [0, 1]; 0 where it occurs on neither side.

    Args:
        sums: examples of the class that were found, examples predicted as it, and examples that are of it, (3,).
    """
    found, both = float(sums[0]), float(sums[1] + sums[2])
    if both == 0.0:
        return 0.0, np.zeros_like(sums)
    by_side = -2.0 * found / both**2
    return 2.0 * found / both, np.array([2.0 / both, by_side, by_side])


def perplexity(sums: Numbers) -> ScoreAndGradient:
    """Return exp of the mean loss of a token; infinite above exp(700).

    Args:
        sums: the loss of all predicted tokens, in nats, and their number, (2,).
    """
    loss, tokens = float(sums[0]), float(sums[1])
    mean = loss / max(tokens, 1.0)
    if not mean < 700.0:
        return math.inf if mean >= 700.0 else math.nan, np.full(2, np.nan)
    value = math.exp(mean)
    return value, np.array([value / tokens, -value * mean / tokens]) if tokens else np.zeros(2)


def share(sums: Numbers) -> ScoreAndGradient:
    """Return a / b, in [0, 1]; 0 where b is 0.

    Args:
        sums: the items that are right, and all items, (2,).
    """
    right, items = float(sums[0]), float(sums[1])
    if items == 0.0:
        return 0.0, np.zeros(2)
    return right / items, np.array([1.0 / items, -right / items**2])


#: The scores whose parts are columns of their own.
CORPUS_SCORES: Final[Mapping[str, CorpusScore]] = {
    "bleu": CorpusScore(_PARTS_OF_BLEU, bleu),
    "bleu_romanian": CorpusScore(_PARTS_OF_BLEU, bleu),
    "multi_bleu": CorpusScore(_PARTS_OF_BLEU, multi_bleu),
    "chrf": CorpusScore(
        tuple(f"{what}_{n}" for n in range(1, _CHRF_ORDER + 1) for what in ("ngrams", "reference_ngrams", "matches")),
        chrf,
    ),
    "f1": CorpusScore(("found", "predicted", "target"), f1),
    "perplexity": CorpusScore(("loss", "tokens"), perplexity),
    "last_turn_exact_match": CorpusScore(("right", "turns"), share),
    "token_accuracy": CorpusScore(("right", "tokens"), share),
}


# ---- scores of predicted classes ----


def macro_f1(counts: Numbers) -> ScoreAndGradient:
    """Return the mean F1 over the classes that occur on either side.

    Args:
        counts: for each class the examples found, predicted as it, and of it, (3, classes); so is the gradient.
    """
    found, both = counts[0], counts[1] + counts[2]
    gradient = np.zeros_like(counts)
    occurs = both > 0.0
    if not occurs.any():
        return 0.0, gradient
    number = int(occurs.sum())
    gradient[0, occurs] = 2.0 / both[occurs] / number
    gradient[1:, occurs] = -2.0 * found[occurs] / both[occurs] ** 2 / number
    return float(np.mean(2.0 * found[occurs] / both[occurs])), gradient


def matthews(counts: Numbers) -> ScoreAndGradient:
    """Return Matthews' correlation in [-1, 1], for two or more classes; 0 where one side is constant.

    Gorodkin 2004, "Comparing two K-category assignments by a K-category correlation coefficient".

    Args:
        counts: for each class the examples found, predicted as it, and of it, (3, classes); so is the gradient.
    """
    found, predicted, target = counts
    gradient = np.zeros_like(counts)
    number = float(target.sum())
    spread_predicted, spread_target = number**2 - float(predicted @ predicted), number**2 - float(target @ target)
    if spread_predicted <= 0.0 or spread_target <= 0.0:
        return 0.0, gradient
    scale = math.sqrt(spread_predicted * spread_target)
    value = (float(found.sum()) * number - float(predicted @ target)) / scale
    # The number of examples is the same in every resample, so it counts as a constant.
    gradient[0] = number / scale
    gradient[1] = -target / scale + value * predicted / spread_predicted
    gradient[2] = -predicted / scale + value * target / spread_target
    return value, gradient


# ---- scores of examples that may have several labels ----


def micro_label_f1(counts: Numbers) -> ScoreAndGradient:
    """Return the F1 of all decisions together, in [0, 1]; 0 where no label occurs on either side.

    Args:
        counts: for each label the examples found, predicted with it, and with it, (3, labels); so is the gradient.
    """
    value, gradient = f1(counts.sum(axis=1))
    return value, np.repeat(gradient[:, None], counts.shape[1], axis=1)


def macro_label_f1(counts: Numbers) -> ScoreAndGradient:
    """Return the mean F1 of the labels; a label that occurs on neither side counts as 0.

    Args:
        counts: for each label the examples found, predicted with it, and with it, (3, labels); so is the gradient.
    """
    each = [f1(own) for own in counts.T]
    gradient = np.stack([slope for _, slope in each], axis=1) / len(each)
    return float(np.mean([value for value, _ in each])), gradient


#: The scores that follow from the labels that each example was given, and those that it has.
LABEL_SCORES: Final[Mapping[str, Callable[[Numbers], ScoreAndGradient]]] = {
    "micro_f1": micro_label_f1,
    "macro_f1": macro_label_f1,
}

#: The scores that follow from each example's predicted and true class.
CLASS_SCORES: Final[Mapping[str, Callable[[Numbers], ScoreAndGradient]]] = {"macro_f1": macro_f1, "matthews": matthews}
