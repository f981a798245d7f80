"""Scores of predicted classes: accuracy, F1 and Matthews' correlation, as GLUE defines them."""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from anglekit.errors import InputError, suggest
from anglekit.results.corpus_scores import CORPUS_SCORES
from anglekit.results.example_scores import ExampleColumns

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_CEDILLAS = str.maketrans("\u015e\u015f\u0162\u0163", "\u0218\u0219\u021a\u021b")
_ARTICLES = re.compile(r"\b(a|an|the)\b")


@dataclass(frozen=True)
class CorpusReport:
    """Corpus scores by name, sacreBLEU's signatures, which define them, and what each example adds to them."""

    values: Mapping[str, float]
    signatures: Mapping[str, str]
    examples: ExampleColumns


def corpus_scores(names: Sequence[str], texts: Sequence[str], references: Sequence[Sequence[str]]) -> CorpusReport:
    """Return BLEU and chrF of a corpus, from 0 to 100, with what each example adds to them.

    `multi_bleu` is that of Moses' multi-bleu.perl on texts in lower case that are split at non-word characters: no
    smoothing, the closest length of several references, the shorter of two as close. `bleu_romanian` is sacreBLEU's
    with Romanian's letters as they are written today (a comma below s and t, not a cedilla) on both sides. Post 2018,
    "A Call for Clarity in Reporting BLEU Scores"; Popović 2015, "chrF".

    Raises:
        InputError: no example, or not one text for each.
    """
    from sacrebleu.metrics.bleu import BLEU
    from sacrebleu.metrics.chrf import CHRF

    _check_paired(texts, references)
    most = max(map(len, references))
    # Sacrebleu wants the same number of references for every example, and skips those that are None.
    streams: Any = [[one[place] if place < len(one) else None for one in references] for place in range(most)]
    values: dict[str, float] = {}
    signatures: dict[str, str] = {}
    columns: dict[str, NDArray[np.int64]] = {}
    metrics: tuple[tuple[str, Any, Callable[[str], str]], ...] = (
        ("bleu", BLEU(), str),
        ("chrf", CHRF(), str),
        ("multi_bleu", BLEU(tokenize="none", smooth_method="none", force=True), _split_words),
        ("bleu_romanian", BLEU(), _romanian),
    )
    for name, metric, form in metrics:
        if name in names:
            formed = [[None if one is None else form(one) for one in stream] for stream in streams]
            # The two halves of its `corpus_score`, which forgets what each example added.
            added = metric._extract_corpus_statistics(list(map(form, texts)), formed)
            values[name] = float(metric._aggregate_and_compute(added).score)
            signatures[name] = str(metric.get_signature().format())
            parts = np.array(added, dtype=np.int64)
            columns |= dict(zip(CORPUS_SCORES[name].columns(name), parts.T, strict=True))
    return CorpusReport(values, signatures, columns)


def _split_words(text: str) -> str:
    """Return a text in lower case, its words and its other characters apart."""
    return " ".join(re.findall(r"\w+|[^\w\s]", text.lower()))


def _romanian(text: str) -> str:
    """Return a text with Romanian's letters as they are written today."""
    return text.translate(_CEDILLAS)


def exact_matches(texts: Sequence[str], references: Sequence[Sequence[str]]) -> NDArray[np.bool_]:
    """Return whether each text equals one of its references, ignoring blanks at the ends, (examples,)."""
    return _equal(texts, references, str.strip)


def normalized_exact_matches(texts: Sequence[str], references: Sequence[Sequence[str]]) -> NDArray[np.bool_]:
    """Return whether each text equals a reference, ignoring case, punctuation, articles and blanks, (examples,).

    This is how SQuAD (Rajpurkar et al. 2016) and CoQA (Reddy et al. 2019) define it.
    """
    return _equal(texts, references, _normalized)


def last_turn_matches(texts: Sequence[str], references: Sequence[Sequence[str]]) -> NDArray[np.float64]:
    """Return how well the first line of each text matches several answers, after SQuAD's normalisation, (examples,).

    Of several answers each is left out in turn, and the share of turns in which one of the others is met counts, as in
    CoQA's own evaluation (Reddy et al. 2019) and `em` of lm-evaluation-harness; one answer is met or not.
    """
    _check_paired(texts, references)
    found = []
    for text, own in zip(texts, references, strict=True):
        said = _normalized(text.strip().split("\n")[0])
        met = np.array([_normalized(one) == said for one in own])
        others = [np.delete(met, place).any() for place in range(len(met))] if len(met) > 1 else [met.any()]
        found.append(float(np.mean(others)))
    return np.array(found)


def _normalized(text: str) -> str:
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def _equal(texts: Sequence[str], references: Sequence[Sequence[str]], form: Callable[[str], str]) -> NDArray[np.bool_]:
    _check_paired(texts, references)
    return np.array([form(text) in map(form, own) for text, own in zip(texts, references, strict=True)])


def _check_paired(texts: Sequence[str], references: Sequence[Sequence[str]]) -> None:
    if not texts or len(texts) != len(references):
        raise InputError(f"{len(texts)} texts came with references for {len(references)}", "give one text for each")


Classes = NDArray[np.integer]


def accuracy(predictions: Classes, references: Classes) -> float:
    """Return the fraction of equal entries, in [0, 1]; both of shape (examples,)."""
    _check(predictions, references)
    return float(np.mean(predictions == references))


def f1(predictions: Classes, references: Classes, positive: int = 1) -> float:
    """Return 2 TP / (2 TP + FP + FN) of one class, in [0, 1]; 0 if it occurs in neither predictions nor references."""
    _check(predictions, references)
    predicted, true = predictions == positive, references == positive
    denominator = int(predicted.sum()) + int(true.sum())
    return 0.0 if denominator == 0 else float(2 * int((predicted & true).sum()) / denominator)


def macro_f1(predictions: Classes, references: Classes) -> float:
    """Return the mean F1 over the classes that occur in predictions or references."""
    _check(predictions, references)
    classes = np.union1d(predictions, references)
    return float(np.mean([f1(predictions, references, int(one)) for one in classes]))


def matthews(predictions: Classes, references: Classes) -> float:
    """Return Matthews' correlation in [-1, 1], for two or more classes; 0 where one side is constant.

    It is the correlation of the two sides' indicator vectors (Gorodkin 2004, "Comparing two K-category assignments by a
    K-category correlation coefficient").
    """
    _check(predictions, references)
    classes = np.union1d(predictions, references)
    p = (predictions[:, None] == classes).astype(np.float64)
    r = (references[:, None] == classes).astype(np.float64)
    p -= p.mean(0)
    r -= r.mean(0)
    scale = float(np.sqrt((p * p).sum() * (r * r).sum()))
    return 0.0 if scale == 0.0 else float((p * r).sum() / scale)


SCORES: Final[Mapping[str, Callable[[Classes, Classes], float]]] = {
    "accuracy": accuracy,
    "f1": f1,
    "macro_f1": macro_f1,
    "matthews": matthews,
}


def class_scores(
    names: Sequence[str], predictions: Classes, references: Classes, *, positive: int = 1
) -> dict[str, float]:
    """Return the scores of these names in `SCORES`; "f1" is the F1 of the positive class.

    Raises:
        InputError: an unknown score, or no example.
    """
    for name in names:
        if name not in SCORES:
            raise InputError(f"no score {name!r}", allowed=suggest(name, SCORES))
    return {
        name: f1(predictions, references, positive) if name == "f1" else SCORES[name](predictions, references)
        for name in names
    }


def class_columns(
    names: Sequence[str], predictions: Classes, references: Classes, *, positive: int = 1
) -> dict[str, NDArray[np.int64]]:
    """Return what each example adds to the scores of these names: columns of `results.example_scores`."""
    columns = {
        "prediction": predictions.astype(np.int64),
        "target": references.astype(np.int64),
        "accuracy": (predictions == references).astype(np.int64),
    }
    if "f1" in names:
        predicted, true = predictions == positive, references == positive
        parts = (predicted & true, predicted, true)
        columns |= {
            name: part.astype(np.int64) for name, part in zip(CORPUS_SCORES["f1"].columns("f1"), parts, strict=True)
        }
    return columns


def _check(predictions: Classes, references: Classes) -> None:
    if predictions.shape != references.shape or predictions.ndim != 1 or not len(predictions):
        raise InputError(
            f"predictions have shape {predictions.shape} and references {references.shape}",
            "scores need one of each for every example, and at least one example",
        )
