"""The losses exactly as the paper's code normalises them, one entry for each family of models.

Their values depend on padding and on the batch; they exist so that the paper's runs can be repeated. A term's count is
1: over an accumulated batch the mean is the mean of the micro-batches' values, as in the authors' loops. The corrected
losses are in `functional`. Source: the public code of Yu, Wen and Mou, arXiv 2502.04499.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

from anglekit.distillation.losses.functional import LossTerm, StatePairs, check_pairs, valid_positions
from anglekit.distillation.losses.relations import precise
from anglekit.errors import InputError, suggest


@dataclass(frozen=True)
class OfficialLosses:
    """What one family of the paper's code computes.

    Attributes:
        hidden: (pairs, valid indices) to the scalar hidden loss of one stream.
        temperature: of the KL, which carries the factor T^2.
        kl_direction: "forward" is KL(teacher || student).
        kl_on_prompt: whether the KL of a causal model includes the prompt's tokens.
    """

    hidden: Callable[[StatePairs, Tensor], Tensor]
    temperature: float = 1.0
    kl_direction: str = "forward"
    kl_on_prompt: bool = False


def official_hidden_loss(pairs: StatePairs, mask: Tensor | None, *, family: str) -> LossTerm:
    """Return one stream's hidden loss as the paper's code computes it.

    - bert: mean over layers of (mean over valid tokens of |S - T|^2), divided by the batch size once more;
    - bart: sum over layers of the squared error's mean over valid tokens and width;
    - t5: as bart, of states first normalised to mean 0 and variance 1 jointly over batch x time x width, pads
      included;
    - causal: both sides divided by their length per token; the squared error's mean over all positions, pads
      included, and width, times the fraction of valid positions, summed over layers. (That the code averages over
      the width and sums over the layers is inferred.)

    Args:
        pairs: for each matched student layer its state after the adapter and the teacher's, both (batch, time, D).
        mask: (batch, time), nonzero at real tokens; None counts every position.
        family: a name in `OFFICIAL`.

    Returns:
        A term of count 1.

    Raises:
        InputError: an unknown family, no valid token, or shapes that do not agree.
    """
    if family not in OFFICIAL:
        raise InputError(f"no official loss for family {family!r}", allowed=suggest(family, OFFICIAL))
    if not pairs:
        device = torch.device("cpu") if mask is None else mask.device
        return LossTerm(torch.zeros((), device=device), torch.ones((), device=device))
    check_pairs(pairs)
    first = pairs[0][0]
    index = valid_positions(mask, first.shape[:2], first.device)
    if index.numel() == 0:
        raise InputError("the official hidden loss of a batch without valid tokens is 0/0", "give at least one token")
    exact = [(precise(student), precise(teacher)) for student, teacher in pairs]
    return LossTerm(OFFICIAL[family].hidden(exact, index), torch.ones((), device=first.device))


def official_decoder_mask(decoder_input_ids: Tensor, pad_token_id: int) -> Tensor:
    """Return T5's decoder mask: true where `decoder_input_ids` is not pad.

    T5 starts its decoder with the pad token, so position 0 is dropped: a quirk of the paper's code.
    """
    return decoder_input_ids != pad_token_id


def _bert(pairs: StatePairs, index: Tensor) -> Tensor:
    batch = pairs[0][0].shape[0]
    per_layer = [_valid_squares(s, t, index).sum() / index.numel() for s, t in pairs]
    return torch.stack(per_layer).mean() / batch


def _bart(pairs: StatePairs, index: Tensor) -> Tensor:
    return torch.stack([_valid_squares(s, t, index).mean() for s, t in pairs]).sum()


def _t5(pairs: StatePairs, index: Tensor) -> Tensor:
    return _bart([(F.layer_norm(s, s.shape), F.layer_norm(t, t.shape)) for s, t in pairs], index)


def _causal(pairs: StatePairs, index: Tensor) -> Tensor:
    positions = pairs[0][0].shape[0] * pairs[0][0].shape[1]
    means = [F.mse_loss(F.normalize(s, dim=-1), F.normalize(t, dim=-1)) for s, t in pairs]
    return torch.stack(means).sum() * (index.numel() / positions)


def _valid_squares(student: Tensor, teacher: Tensor, index: Tensor) -> Tensor:
    width = student.shape[-1]
    rows = (x.reshape(-1, width).index_select(0, index) for x in (student, teacher))
    return (next(rows) - next(rows)).square()


OFFICIAL: Final[Mapping[str, OfficialLosses]] = {
    "bert": OfficialLosses(_bert),
    "bart": OfficialLosses(_bart),
    "t5": OfficialLosses(_t5, temperature=2.0),
    "causal": OfficialLosses(_causal, kl_direction="reverse", kl_on_prompt=True),
}
