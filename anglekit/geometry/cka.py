"""Representation similarity between layers: CKA without the small-sample bias, and what is usually shown beside it.

Linear kernels throughout. Two layers may differ in width; their rows are the same examples (or tokens) in one order.
The unbiased HSIC estimator is that of Song et al. 2012 (JMLR 13, eq. 5), which does not need centred states; CKA is
Kornblith et al. 2019 (arXiv 1905.00414), its debiased form HSIC(X, Y) / sqrt(HSIC(X, X) HSIC(Y, Y)) with that
estimator; the minibatch form is Nguyen et al. 2021 (arXiv 2010.15327, eq. 3).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from anglekit.geometry.named_tensors import added, numbered, within

#: The unbiased estimator needs four rows.
FEWEST_ROWS = 4


def unbiased_hsic(layers: Sequence[Tensor]) -> Tensor:
    """Return the unbiased HSIC estimate between every two layers, from n x n Gram matrices.

    The Gram matrices are U-centred once each (Szekely and Rizzo 2014): the estimate is then one inner product a pair.

    Args:
        layers: states of shape (n, width of the layer), n the same for all; products are taken in their precision.

    Returns:
        float64 (layers, layers), symmetric; NaN for fewer than four rows.
    """
    n = len(layers[0])
    if n < FEWEST_ROWS:
        return torch.full((len(layers), len(layers)), torch.nan, dtype=torch.float64, device=layers[0].device)
    centred = torch.empty(len(layers), n, n, dtype=torch.float64, device=layers[0].device)
    for gram, layer in zip(centred, layers, strict=True):
        # The estimate does not depend on the mean; without it float32 states keep their digits in a float32 product.
        x = layer - layer.mean(0, dtype=torch.float64).to(layer.dtype)
        gram.copy_(x @ x.T)
        gram.fill_diagonal_(0.0)
        rows = gram.sum(1)
        rows = (rows - rows.sum() / (2 * (n - 1))) / (n - 2)
        gram.sub_(rows).sub_(rows.unsqueeze(1)).fill_diagonal_(0.0)
    flat = centred.flatten(1)
    return flat @ flat.T / (n * (n - 3))


def _ratios(hsic: Tensor) -> Tensor:
    """Return HSIC(X, Y) / sqrt(HSIC(X, X) HSIC(Y, Y)), NaN where a layer does not vary."""
    own = hsic.diagonal()
    own = torch.where(own > 0, own, torch.nan)
    return hsic / torch.sqrt(own.unsqueeze(0) * own.unsqueeze(1))


def debiased_cka(layers: Sequence[Tensor]) -> Tensor:
    """Return the debiased CKA between every two layers: 0 in expectation for independent ones, 1 for equal ones.

    Invariant to rotation, shift and scale of a layer. Being unbiased, it can be a little below 0.

    Args:
        layers: states of shape (n, width of the layer), n the same for all.

    Returns:
        float64 (layers, layers); NaN for fewer than four rows and for layers that do not vary.
    """
    return _ratios(unbiased_hsic(layers))


def linear_cka(layers: Sequence[Tensor]) -> Tensor:
    """Return linear CKA as first published: |Y'X|^2 / (|X'X| |Y'Y|) of centred states.

    With few rows it is far above 0 even for independent layers. Arguments and shapes as in `debiased_cka`; in [0, 1].
    """
    n = len(layers[0])
    grams = torch.empty(len(layers), n, n, dtype=torch.float64, device=layers[0].device)
    for gram, layer in zip(grams, layers, strict=True):
        x = layer.double()
        x = x - x.mean(0)
        torch.mm(x, x.T, out=gram)
    flat = grams.flatten(1)
    return _ratios(flat @ flat.T)


def procrustes_distance(x: Tensor, y: Tensor) -> Tensor:
    """Return the orthogonal Procrustes distance min over Q of |X - Y Q|, both centred and of Frobenius norm 1.

    sqrt(2 - 2 |X'Y|_*) in [0, sqrt 2] (Ding, Denain, Steinhardt 2021, arXiv 2108.01661); the narrower layer
    counts as filled up with zeros. With fewer rows than dimensions it is too small: a rotation then fits the rows.

    Args:
        x: states of shape (n, width of x).
        y: states of shape (n, width of y).

    Returns:
        A scalar; NaN where a layer does not vary.
    """
    x, y = x.double(), y.double()
    x, y = x - x.mean(0), y - y.mean(0)
    product = x.T @ y / (torch.linalg.matrix_norm(x) * torch.linalg.matrix_norm(y))
    if not bool(product.isfinite().all()):
        return torch.tensor(torch.nan, dtype=torch.float64)
    nuclear: Tensor = torch.linalg.svdvals(product).sum()
    return (2 - 2 * nuclear).clamp(min=0.0).sqrt()


def mutual_neighbours(x: Tensor, y: Tensor, k: int = 10) -> Tensor:
    """Return the mean share of a row's k nearest rows in X that are also among its k nearest in Y.

    Nearest by the cosine of centred states (Huh et al. 2024, arXiv 2405.07987). By chance it is k / (n - 1).

    Args:
        x: states of shape (n, width of x).
        y: states of shape (n, width of y).
        k: how many neighbours, fewer than n.

    Returns:
        A scalar in [0, 1]; NaN with k rows or fewer.
    """
    if len(x) <= k:
        return torch.tensor(torch.nan, dtype=torch.float64)
    near = [_neighbours(each, k) for each in (x, y)]
    return (near[0] & near[1]).sum().double() / (k * len(x))


def _neighbours(x: Tensor, k: int) -> Tensor:
    x = x.double()
    x = torch.nn.functional.normalize(x - x.mean(0), dim=1)
    cosine = x @ x.T
    cosine.fill_diagonal_(-torch.inf)
    return torch.zeros_like(cosine, dtype=torch.bool).scatter_(1, cosine.topk(k, dim=1).indices, True)


@dataclass(frozen=True)
class MinibatchSums:
    """The minibatch estimate of CKA: HSIC estimates summed over batches before the ratio is taken; merges by `+`.

    Attributes:
        n_batches: batches of four rows or more.
        hsic: sum of their unbiased estimates, float64 (layers, layers).
    """

    n_batches: int
    hsic: Tensor

    @classmethod
    def zeros(cls, layers: int) -> MinibatchSums:
        """Return the sums over no batches."""
        return cls(0, torch.zeros(layers, layers, dtype=torch.float64))

    def with_batch(self, layers: Sequence[Tensor]) -> MinibatchSums:
        """Return the sums with one batch more; a batch of fewer than four rows has no estimate and adds nothing."""
        if len(layers[0]) < FEWEST_ROWS:
            return self
        return MinibatchSums(self.n_batches + 1, self.hsic + unbiased_hsic(layers).to(self.hsic.device))

    def __add__(self, other: MinibatchSums) -> MinibatchSums:
        """Return the sums over both sets of batches."""
        return MinibatchSums(self.n_batches + other.n_batches, self.hsic + other.hsic)

    def cka(self) -> Tensor:
        """Return the estimate, float64 (layers, layers); NaN without a batch."""
        return _ratios(self.hsic)


@dataclass(eq=False)
class CrossSums:
    """Feature-space sums that give the debiased CKA of all rows exactly, however they were split.

    They grow in place; `+` makes new ones.

    With C = X'Y, s the sum of a layer's states and |x|^2 their squared lengths, the three terms of Song's estimator are

        tr(K L)   = |C|^2 - sum |x|^2 |y|^2
        1'K1      = |s_x|^2 - sum |x|^2                                  (K, L with an empty diagonal)
        1'K L1    = s_x' C s_y - s_y' sum |x|^2 y - s_x' sum |y|^2 x + sum |x|^2 |y|^2.

    Memory: width x width numbers for every pair of layers, whatever the number of rows.

    Attributes:
        pairs: the pairs of layers (a, b), a <= b, with (a, a) for every layer.
        n: rows, int64 scalar.
        total: for each layer the sum of its states, float64 (width,).
        quartic: sum of |x_a|^2 |x_b|^2, float64 (layers, layers).
        squared: sum of |x|^2, float64 (layers,).
        weighted: `weighted[b][a]` is the sum of |x_a|^2 x_b, float64 (layers, width of b).
        cross: for each pair X_a' X_b, float64 (width of a, width of b).
    """

    pairs: tuple[tuple[int, int], ...]
    n: Tensor
    total: tuple[Tensor, ...]
    quartic: Tensor
    squared: Tensor
    weighted: tuple[Tensor, ...]
    cross: tuple[Tensor, ...]

    @staticmethod
    def bytes_needed(widths: Sequence[int], pairs: Sequence[tuple[int, int]]) -> int:
        """Return the memory of the products of these pairs."""
        return sum(8 * widths[a] * widths[b] for a, b in pairs)

    @classmethod
    def zeros(
        cls, widths: Sequence[int], pairs: Sequence[tuple[int, int]] | None = None, device: torch.device | str = "cpu"
    ) -> CrossSums:
        """Return the sums over no rows: the identity of `+`.

        Args:
            widths: the width of each layer.
            pairs: the pairs to keep, a <= b; a layer's pair with itself is added. None: all.
            device: where the sums live.
        """
        layers = range(len(widths))
        wanted = {(a, b) for a in layers for b in layers if a <= b} if pairs is None else set(pairs)
        chosen = tuple(sorted(wanted | {(a, a) for a in layers}))

        def zero(*shape: int) -> Tensor:
            return torch.zeros(shape, dtype=torch.float64, device=device)

        return cls(
            chosen,
            torch.zeros((), dtype=torch.int64, device=device),
            tuple(zero(width) for width in widths),
            zero(len(widths), len(widths)),
            zero(len(widths)),
            tuple(zero(len(widths), width) for width in widths),
            tuple(zero(widths[a], widths[b]) for a, b in chosen),
        )

    def update(self, layers: Sequence[Tensor]) -> None:
        """Add rows in place; rows that are not finite at every layer are left out.

        Args:
            layers: for each layer the states, shape (rows, width).
        """
        x = [layer.double() for layer in layers]
        squared = torch.stack([(layer * layer).sum(1) for layer in x])
        finite = squared.isfinite().all(0)
        if not bool(finite.all()):
            x, squared = [layer[finite] for layer in x], squared[:, finite]
        self.n.add_(squared.shape[1])
        self.squared.add_(squared.sum(1))
        self.quartic.add_(squared @ squared.T)
        for layer, total, weighted in zip(x, self.total, self.weighted, strict=True):
            total.add_(layer.sum(0))
            weighted.addmm_(squared, layer)
        for (a, b), cross in zip(self.pairs, self.cross, strict=True):
            cross.addmm_(x[a].T, x[b])

    def __add__(self, other: CrossSums) -> CrossSums:
        """Return the sums over both sets of rows.

        Raises:
            ValueError: they are sums of other pairs.
        """
        if self.pairs != other.pairs:
            raise ValueError("sums merge only with sums of the same pairs of layers")
        return self.with_tensors(added(self.tensors(), other.tensors()))

    def tensors(self) -> dict[str, Tensor]:
        """Return the sums by name."""
        return {
            "n": self.n,
            **numbered("total", self.total),
            "quartic": self.quartic,
            "squared": self.squared,
            **numbered("weighted", self.weighted),
            **numbered("cross", self.cross),
        }

    def with_tensors(self, tensors: Mapping[str, Tensor]) -> CrossSums:
        """Return sums of the same pairs, those of the names and order of `tensors`."""
        return CrossSums(
            self.pairs,
            n=tensors["n"],
            total=tuple(within("total", tensors).values()),
            quartic=tensors["quartic"],
            squared=tensors["squared"],
            weighted=tuple(within("weighted", tensors).values()),
            cross=tuple(within("cross", tensors).values()),
        )

    def to(self, device: torch.device | str) -> CrossSums:
        """Return the sums on a device."""
        return self.with_tensors({name: tensor.to(device) for name, tensor in self.tensors().items()})

    def hsic(self) -> Tensor:
        """Return the unbiased HSIC estimate, float64 (layers, layers); NaN for pairs not kept and below four rows."""
        n = int(self.n)
        result = torch.full_like(self.quartic, torch.nan)
        if n < FEWEST_ROWS:
            return result
        off_diagonal = torch.stack([total @ total for total in self.total]) - self.squared
        for (a, b), cross in zip(self.pairs, self.cross, strict=True):
            trace = (cross * cross).sum() - self.quartic[a, b]
            through = (
                self.total[a] @ cross @ self.total[b]
                - self.weighted[b][a] @ self.total[b]
                - self.weighted[a][b] @ self.total[a]
                + self.quartic[a, b]
            )
            product = off_diagonal[a] * off_diagonal[b] / ((n - 1) * (n - 2))
            result[a, b] = result[b, a] = (trace + product - 2 * through / (n - 2)) / (n * (n - 3))
        return result

    def cka(self) -> Tensor:
        """Return the debiased CKA of all rows, float64 (layers, layers)."""
        return _ratios(self.hsic())
