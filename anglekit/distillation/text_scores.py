"""Scores of generated texts: sacreBLEU, chrF and exact match."""

from __future__ import annotations

import re
import string
from collections.abc import Sequence
from typing import Any

from anglekit.errors import InputError

__all__ = ["corpus_scores", "exact_match", "normalized_exact_match"]

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(a|an|the)\b")


def corpus_scores(
    names: Sequence[str], texts: Sequence[str], references: Sequence[Sequence[str]]
) -> tuple[dict[str, float], dict[str, str]]:
    """Return BLEU and chrF of a corpus, from 0 to 100, and sacreBLEU's signatures, which define them.

    Post 2018, "A Call for Clarity in Reporting BLEU Scores"; Popović 2015, "chrF".

    Args:
        names: of "bleu" and "chrf".
        texts: one for each example.
        references: one or more for each example.

    Raises:
        InputError: no example, or not one text for each.
    """
    from sacrebleu.metrics.bleu import BLEU
    from sacrebleu.metrics.chrf import CHRF

    if not texts or len(texts) != len(references):
        raise InputError(f"{len(texts)} texts came with references for {len(references)}; give one text for each")
    most = max(map(len, references))
    # Sacrebleu wants as many references for every example and leaves out those that are None.
    streams: Any = [[one[place] if place < len(one) else None for one in references] for place in range(most)]
    values, signatures = {}, {}
    for name, metric in (("bleu", BLEU()), ("chrf", CHRF())):
        if name in names:
            values[name] = float(metric.corpus_score(list(texts), streams).score)
            signatures[name] = str(metric.get_signature().format())
    return values, signatures


def exact_match(texts: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Return the fraction of texts that equal one of their references, blanks at the ends aside."""
    return _fraction([any(text.strip() == one.strip() for one in own) for text, own in _paired(texts, references)])


def normalized_exact_match(texts: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Return the fraction of texts that equal one of their references but for case, punctuation, articles and blanks.

    This is how SQuAD (Rajpurkar et al. 2016) and CoQA (Reddy et al. 2019) define it.
    """
    return _fraction(
        [any(_normalized(text) == _normalized(one) for one in own) for text, own in _paired(texts, references)]
    )


def _normalized(text: str) -> str:
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def _paired(texts: Sequence[str], references: Sequence[Sequence[str]]) -> list[tuple[str, Sequence[str]]]:
    if not texts or len(texts) != len(references):
        raise InputError(f"{len(texts)} texts came with references for {len(references)}; give one text for each")
    return list(zip(texts, references, strict=True))


def _fraction(hits: Sequence[bool]) -> float:
    return sum(hits) / len(hits)
