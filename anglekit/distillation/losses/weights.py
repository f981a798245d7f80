"""How much each term of the loss counts."""

from __future__ import annotations

from dataclasses import dataclass

from anglekit.errors import InputError, suggest
from anglekit.settings_fields import LOSSES, check_settings, documented, setting


@documented
@dataclass(frozen=True)
class LossWeights:
    """How much each term counts in the total; the defaults are the paper's alpha_ce, alpha_kl, alpha_hidden.

    Raises:
        InputError: a weight is negative or not finite, or all are zero.

    Example:
        >>> LossWeights(ce=0.5, kl=1.0, hidden=0.0)  # labels and predictions, no hidden states
        LossWeights(ce=0.5, kl=1.0, hidden=0.0)
    """

    ce: float = setting(1.0, "Weight of the cross-entropy.", at_least=0.0, group=LOSSES)
    kl: float = setting(1.0, "Weight of the KL to the teacher's predictions.", at_least=0.0, group=LOSSES)
    hidden: float = setting(3.0, "Weight of the hidden loss.", at_least=0.0, group=LOSSES)

    def __post_init__(self) -> None:
        check_settings(self)
        if self.ce == self.kl == self.hidden == 0.0:
            raise InputError("all loss weights (ce, kl, hidden) are 0", "give at least one above 0")

    def of(self, term: str) -> float:
        """Return the weight of a term: "ce", "kl", or "hidden" with any suffix, as "hidden_encoder"."""
        kind = term.split("_", 1)[0]
        weights = {"ce": self.ce, "kl": self.kl, "hidden": self.hidden}
        if kind not in weights:
            raise InputError(f"no loss term {term!r}", allowed=suggest(kind, weights))
        return weights[kind]
