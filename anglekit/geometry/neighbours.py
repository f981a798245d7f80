"""Shared nearest neighbours of two layers: how alike they arrange each example's surroundings.

Mutual nearest neighbours as in Huh et al. 2024 (arXiv 2405.07987) and its code (minyoungg/platonic-rep,
`measure_alignment.py` and `metrics.py`): a layer's numbers are clamped to the 95% quantile of their absolute values,
and near is what has a large cosine; nothing is centred. There the quantile is taken over all layers of a model where
they come as one tensor, and layer by layer where they come as a list, as here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from anglekit.geometry.centring import centred_states, jackknife_error
from anglekit.geometry.permutation_tests import orders_at_once

#: Neighbours that are compared.
NEIGHBOURS = 10
#: The share of a layer's absolute values that the clamp leaves as they are.
KEPT = 0.95


@dataclass(frozen=True)
class Neighbourhoods:
    """The nearest rows of each row, for several layers of the same n rows.

    Attributes:
        nearest: each row's nearest rows, the nearest first, one more than are compared, int64 (layers, n, k + 1).
        usable: which layers have neighbourhoods, bool (layers,): those that vary, with more than k + 1 rows.
    """

    nearest: Tensor
    usable: Tensor

    @classmethod
    def of(cls, layers: Sequence[Tensor], k: int = NEIGHBOURS) -> Neighbourhoods:
        """Return those of states of shape (n, width of the layer), n the same for all; k neighbours are compared."""
        n = len(layers[0])
        nearest = torch.zeros(len(layers), n, k + 1, dtype=torch.int64, device=layers[0].device)
        usable = torch.zeros(len(layers), dtype=torch.bool, device=layers[0].device)
        for number, layer in enumerate(layers):
            # A layer that does not vary has no neighbourhoods, whatever rounding makes of it.
            usable[number] = n > k and not bool(centred_states(layer).isnan().any())
            if usable[number]:
                cosine = _clamped_cosines(layer)
                cosine.fill_diagonal_(-torch.inf)
                near = cosine.topk(min(k + 1, n - 1), dim=1).indices
                nearest[number, :, : near.shape[1]] = near
        return cls(nearest, usable)

    @property
    def n(self) -> int:
        """The number of rows."""
        return self.nearest.shape[1]

    @property
    def k(self) -> int:
        """How many neighbours are compared."""
        return self.nearest.shape[2] - 1

    def near(self) -> Tensor:
        """Return which rows are among each row's k nearest, bool (layers, n, n)."""
        near = torch.zeros(len(self.nearest), self.n, self.n, dtype=torch.bool, device=self.nearest.device)
        return near.scatter_(2, self.nearest[..., :-1], True)

    def shared(self) -> Tensor:
        """Return the mean share of a row's k nearest rows that two layers have in common.

        By chance it is k / (n - 1).

        Returns:
            float64 (layers, layers), in [0, 1]; NaN for layers without neighbourhoods.
        """
        near = self.near().flatten(1).double()
        return self._known(near @ near.T / (self.k * self.n))

    def shared_error(self) -> Tensor:
        """Return its standard error over rows, float64 (layers, layers); NaN with k + 1 rows or fewer.

        By the delete-one jackknife, exactly but for the clamp, which is held: without a row, those that had it among
        their nearest take the next one.
        """
        layers, n, k = len(self.nearest), self.n, self.k
        errors = torch.full((layers, layers), torch.nan, dtype=torch.float64, device=self.nearest.device)
        if n <= k + 1:
            return errors
        near = self.near()
        next_one = self.nearest[..., -1]
        row = torch.arange(n, device=near.device)
        for a in range(layers):
            for b in range(a, layers):
                both = (near[a] & near[b]).double()
                own = both.sum(1)
                gained_a = near[b][row, next_one[a]].double()
                gained_b = near[a][row, next_one[b]].double()
                lost = (next_one[a] == next_one[b]).double() - 1
                changed = near[a].double().T @ gained_a + near[b].double().T @ gained_b + both.T @ lost
                errors[a, b] = errors[b, a] = jackknife_error((own.sum() - own + changed) / (k * (n - 1)))
        return self._known(errors)

    def permuted(self, orders: Tensor) -> Tensor:
        """Return the shares with the second layer's rows permuted.

        Args:
            orders: permutations of the rows, int64 (orders, n); row i is compared with row orders[i].

        Returns:
            float64 (orders, layers, layers).
        """
        layers, n, k = len(self.nearest), self.n, self.k
        near = self.near().flatten(1).T.float().contiguous()
        shares = torch.empty(len(orders), layers, layers, dtype=torch.float64, device=near.device)
        step = orders_at_once(layers * n * k * layers)
        places = torch.argsort(orders.to(near.device), dim=1)
        for share, place in zip(torch.split(shares, step), torch.split(places, step), strict=True):
            # Where the second layer's neighbours lie among the rows of the first.
            there = place.view(-1, 1, n, 1) * n + place[:, self.nearest[..., :-1]]
            counted = near.index_select(0, there.flatten()).view(len(place), layers, n * k, layers).sum(2)
            share.copy_(counted.transpose(1, 2))
        return self._known(shares / (k * n))

    def _known(self, values: Tensor) -> Tensor:
        known = self.usable.unsqueeze(1) & self.usable.unsqueeze(0)
        return torch.where(known, values, torch.nan)


def _clamped_cosines(layer: Tensor) -> Tensor:
    x = layer.double()
    x = x / x.abs().amax()
    size = x.abs().flatten()
    # The rank that the source takes.
    limit = size.kthvalue(min(int(KEPT * len(size)) + 1, len(size))).values
    x = torch.nn.functional.normalize(x.clamp(-limit, limit), dim=1)
    return x @ x.T


def mutual_neighbours(x: Tensor, y: Tensor, k: int = NEIGHBOURS) -> Tensor:
    """Return the mean share of a row's k nearest rows in X that are also among its k nearest in Y.

    See `Neighbourhoods`. By chance it is k / (n - 1).

    Args:
        x: states of shape (n, width of x).
        y: states of shape (n, width of y).
        k: how many neighbours, fewer than n.

    Returns:
        A scalar in [0, 1]; NaN with k rows or fewer, and where a layer does not vary.
    """
    return Neighbourhoods.of([x, y], k).shared()[0, 1]
