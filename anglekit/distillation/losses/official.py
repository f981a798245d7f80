"""The losses exactly as the paper's code normalises them, one entry for each family of models.

Their values depend on padding and on the batch; they exist so that the paper's runs can be repeated. A term's count is
1, and `readings` says what an accumulated step makes of the batches. The corrected losses are in `functional`. Source:
the public code of Yu, Wen and Mou, arXiv 2502.04499.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

from anglekit.distillation.losses.functional import LossTerm, StatePairs, check_pairs, valid_positions
from anglekit.distillation.losses.relations import precise
from anglekit.errors import InputError, suggest


def official_hidden_loss(pairs: StatePairs, mask: Tensor | None, *, family: str) -> LossTerm:
    """Return one stream's hidden loss as the paper's code computes it.

    - bert: mean over layers of (mean over valid tokens of |S - T|^2), divided by the batch size once more;
    - bart: sum over layers of the squared error's mean over valid tokens and width;
    - t5: as bart, of states first normalised to mean 0 and variance 1 jointly over batch x time x width, pads
      included;
    - causal: both sides divided by their length per token; |S - T|^2 summed over the width, its mean over layers and
      all positions, pads included, times the fraction of valid positions.

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
    return LossTerm(OFFICIAL[family](exact, index), torch.ones((), device=first.device))


def official_decoder_mask(decoder_input_ids: Tensor, pad_token_id: int) -> Tensor:
    """Return the decoder mask of BART and T5 for KL and hidden losses: true where `decoder_input_ids` is not pad.

    T5 starts its decoder with the pad token, so that position 0 is dropped. A row that is shorter than the longest
    gains the position behind its end, where its last token is read.
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
    squares = [(F.normalize(s, dim=-1) - F.normalize(t, dim=-1)).square().sum(-1).mean() for s, t in pairs]
    return torch.stack(squares).mean() * (index.numel() / positions)


def _valid_squares(student: Tensor, teacher: Tensor, index: Tensor) -> Tensor:
    width = student.shape[-1]
    rows = (x.reshape(-1, width).index_select(0, index) for x in (student, teacher))
    return (next(rows) - next(rows)).square()


#: By family in `readings.OFFICIAL_FAMILIES`: (pairs, valid indices) to the scalar hidden loss of one stream.
OFFICIAL: Final[Mapping[str, Callable[[StatePairs, Tensor], Tensor]]] = {
    "bert": _bert,
    "bart": _bart,
    "t5": _t5,
    "causal": _causal,
}
