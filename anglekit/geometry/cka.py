"""Representation similarity between layers by CKA, without the small-sample bias, and its standard error.

Linear kernels throughout. Two layers may differ in width; their rows are the same examples (or tokens) in one order.
The unbiased HSIC estimator is that of Song et al. 2012 (JMLR 13, eq. 5), which does not need centred states; CKA is
Kornblith et al. 2019 (arXiv 1905.00414), its debiased form HSIC(X, Y) / sqrt(HSIC(X, X) HSIC(Y, Y)) with that
estimator. `LayerGrams` takes it from the Gram matrices of a sample, `CrossSums` from sums over any number of rows: the
same number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from anglekit.geometry.centring import centred_states, jackknife_error, varies
from anglekit.geometry.named_tensors import added, numbered, within
from anglekit.geometry.permutation_tests import permuted_products

#: The unbiased estimator needs four rows.
FEWEST_ROWS = 4


def unbiased_hsic(layers: Sequence[Tensor]) -> Tensor:
    """Return the unbiased HSIC estimate between every two layers, in the states' own units.

    Args:
        layers: states of shape (n, width of the layer), n the same for all.

    Returns:
        float64 (layers, layers), symmetric; NaN for fewer than four rows.
    """
    n = len(layers[0])
    if n < FEWEST_ROWS:
        return _unknown(len(layers), layers[0].device)
    # The estimate does not depend on the mean, but its digits do.
    centred = [layer.double() - layer.mean(0, dtype=torch.float64) for layer in layers]
    flat = u_centred(torch.stack([x @ x.T for x in centred])).flatten(1)
    return flat @ flat.T / (n * (n - 3))


def u_centred(grams: Tensor) -> Tensor:
    """Return Gram matrices with rows that add up to 0 around an empty diagonal (Szekely and Rizzo 2014).

    The inner product of two of them is n (n - 3) times the unbiased HSIC estimate.

    Args:
        grams: float64 (layers, n, n), n at least 3.
    """
    n = grams.shape[-1]
    centred = grams.clone()
    centred.diagonal(dim1=1, dim2=2).zero_()
    rows = centred.sum(2)
    rows = (rows - rows.sum(1, keepdim=True) / (2 * (n - 1))) / (n - 2)
    centred.sub_(rows.unsqueeze(1)).sub_(rows.unsqueeze(2))
    centred.diagonal(dim1=1, dim2=2).zero_()
    return centred


def _unknown(layers: int, device: torch.device) -> Tensor:
    return torch.full((layers, layers), torch.nan, dtype=torch.float64, device=device)


def _ratios(products: Tensor) -> Tensor:
    """Return p(X, Y) / sqrt(p(X, X) p(Y, Y)) for matrices (..., layers, layers), NaN where p(X, X) is not above 0."""
    own = products.diagonal(dim1=-2, dim2=-1)
    # Roots one by one: the product of two fourth powers may leave the range of float64.
    root = torch.where(own > 0, own, torch.nan).sqrt()
    ratios = products / root.unsqueeze(-1) / root.unsqueeze(-2)
    ratios.diagonal(dim1=-2, dim2=-1).copy_(root / root)
    return ratios


@dataclass(frozen=True)
class LayerGrams:
    """The Gram matrices of several layers' states of the same rows: all that CKA, its error and its null need.

    Attributes:
        centred: inner products of the centred states, scaled to trace 1, float64 (layers, n, n); NaN for a layer that
            does not vary.
    """

    centred: Tensor

    @classmethod
    def of(cls, layers: Sequence[Tensor]) -> LayerGrams:
        """Return the Gram matrices of states of shape (n, width of the layer), n the same for all."""
        n = len(layers[0])
        centred = torch.empty(len(layers), n, n, dtype=torch.float64, device=layers[0].device)
        for gram, layer in zip(centred, layers, strict=True):
            x = centred_states(layer)
            torch.mm(x, x.T, out=gram)
        return cls(centred)

    def chosen(self, layers: Sequence[int]) -> LayerGrams:
        """Return those of some layers."""
        return LayerGrams(self.centred[layers])

    @property
    def n(self) -> int:
        """The number of rows."""
        return self.centred.shape[-1]

    @cached_property
    def u_centred(self) -> Tensor:
        """The U-centred Gram matrices, float64 (layers, n, n)."""
        return u_centred(self.centred)

    def debiased_cka(self) -> Tensor:
        """Return the debiased CKA between every two layers, float64 (layers, layers); NaN below four rows."""
        if self.n < FEWEST_ROWS:
            return _unknown(len(self.centred), self.centred.device)
        flat = self.u_centred.flatten(1)
        return _ratios(flat @ flat.T)

    def debiased_cka_error(self) -> Tensor:
        """Return its standard error over rows, float64 (layers, layers); NaN below five rows.

        By the delete-one jackknife, exactly: without row i the inner product of two U-centred matrices is, up to a
        factor that the ratio loses, <A, B> - 2 (n - 2) / (n - 3) <a_i, b_i>, a_i the rows. Between independent layers,
        where the estimate's first-order term vanishes, the error is too large rather than too small.
        """
        n = self.n
        if n <= FEWEST_ROWS:
            return _unknown(len(self.centred), self.centred.device)
        by_row = _row_products(self.u_centred)
        return jackknife_error(_ratios(by_row.sum(0) - 2 * (n - 2) / (n - 3) * by_row))

    def linear_cka(self) -> Tensor:
        """Return linear CKA as first published between every two layers, float64 (layers, layers)."""
        flat = self.centred.flatten(1)
        return _ratios(flat @ flat.T)

    def linear_cka_error(self) -> Tensor:
        """Return its standard error over rows, float64 (layers, layers); NaN below three rows.

        By the delete-one jackknife, exactly: without row i, X'Y of the centred states is less by n / (n - 1) x_i y_i'.
        """
        n = self.n
        if n < 3:
            return _unknown(len(self.centred), self.centred.device)
        by_row = _row_products(self.centred)
        squared = self.centred.diagonal(dim1=1, dim2=2).T
        factor = n / (n - 1)
        own = factor**2 * squared.unsqueeze(2) * squared.unsqueeze(1)
        return jackknife_error(_ratios(by_row.sum(0) - 2 * factor * by_row + own))

    def permuted(self, orders: Tensor) -> tuple[Tensor, Tensor]:
        """Return debiased and linear CKA with the second layer's rows permuted, each float64 (orders, layers, layers).

        Args:
            orders: permutations of the rows, int64 (orders, n); row i is compared with row orders[i].

        Returns:
            NaN below four rows.
        """
        n = self.n
        if n < FEWEST_ROWS:
            unknown = _unknown(len(self.centred), self.centred.device).expand(len(orders), -1, -1)
            return unknown, unknown
        u_products = permuted_products(self.u_centred, orders)
        # What U-centring took away is known from the diagonals alone, whose permuted products cost next to nothing.
        squared = self.centred.diagonal(dim1=1, dim2=2)
        own = torch.einsum("an,bmn->mab", squared, squared[:, orders.to(squared.device)])
        products = u_products + n / (n - 2) * own - 1 / ((n - 1) * (n - 2))
        found = []
        for permuted, matrices in ((u_products, self.u_centred), (products, self.centred)):
            root = torch.linalg.matrix_norm(matrices)
            found.append(permuted / root.unsqueeze(1) / root)
        return found[0], found[1]


def _row_products(matrices: Tensor) -> Tensor:
    """Return the inner products of the matrices' rows of one number, (n, layers, layers), for (layers, n, n)."""
    rows = matrices.transpose(0, 1).contiguous()
    return torch.bmm(rows, rows.transpose(1, 2))


def debiased_cka(layers: Sequence[Tensor]) -> Tensor:
    """Return the debiased CKA between every two layers: 0 in expectation for independent ones, 1 for equal ones.

    Invariant to rotation, shift and scale of a layer. Being unbiased, it can be a little below 0.

    Args:
        layers: states of shape (n, width of the layer), n the same for all.

    Returns:
        float64 (layers, layers); NaN for fewer than four rows and for layers that do not vary.
    """
    return LayerGrams.of(layers).debiased_cka()


def linear_cka(layers: Sequence[Tensor]) -> Tensor:
    """Return linear CKA as first published: |Y'X|^2 / (|X'X| |Y'Y|) of centred states.

    With few rows it is far above 0 even for independent layers: about d / (n + d) for Gaussians of d dimensions.
    Arguments and shapes as in `debiased_cka`; in [0, 1].
    """
    return LayerGrams.of(layers).linear_cka()


@dataclass(eq=False)
class CrossSums:
    """Feature-space sums that give the debiased CKA of all rows exactly, however they were split.

    They grow in place; `+` makes new ones.

    The sums are of states less a fixed reference, the mean of the first rows that came: CKA does not depend on a shift,
    but fourth powers of a large mean would cost it its digits. Sums around another reference are moved to the first
    one's before they are added (Chan, Golub, LeVeque 1983). With C = X'Y, s the sum of a layer's states and |x|^2 their
    squared lengths, the three terms of Song's estimator are

        tr(K L)   = |C|^2 - sum |x|^2 |y|^2
        1'K1      = |s_x|^2 - sum |x|^2                                  (K, L with an empty diagonal)
        1'K L1    = s_x' C s_y - s_y' sum |x|^2 y - s_x' sum |y|^2 x + sum |x|^2 |y|^2.

    Memory: width x width numbers for every pair of layers, whatever the number of rows.

    Attributes:
        pairs: the pairs of layers (a, b), a <= b, with (a, a) for every layer.
        n: rows, int64 scalar.
        reference: for each layer what is taken off its states, float64 (width,); 0 without a row.
        total: for each layer the sum of its states, float64 (width,).
        quartic: sum of |x_a|^2 |x_b|^2, float64 (layers, layers); of pairs that are kept.
        squared: sum of |x|^2, float64 (layers,).
        weighted: `weighted[b][a]` is the sum of |x_a|^2 x_b, float64 (layers, width of b); of pairs that are kept.
        cross: for each pair X_a' X_b, float64 (width of a, width of b).
    """

    pairs: tuple[tuple[int, int], ...]
    n: Tensor
    reference: tuple[Tensor, ...]
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
        finite = torch.stack([layer.sum(1) for layer in x]).isfinite().all(0)
        if not bool(finite.all()):
            x = [layer[finite] for layer in x]
        if not len(x[0]):
            return
        if int(self.n) == 0:
            for reference, layer in zip(self.reference, x, strict=True):
                reference.copy_(layer.mean(0))
        x = [layer - reference for layer, reference in zip(x, self.reference, strict=True)]
        squared = torch.stack([(layer * layer).sum(1) for layer in x])
        self.n.add_(squared.shape[1])
        self.squared.add_(squared.sum(1))
        self.quartic.add_(squared @ squared.T)
        for layer, total, weighted in zip(x, self.total, self.weighted, strict=True):
            total.add_(layer.sum(0))
            weighted.addmm_(squared, layer)
        for (a, b), cross in zip(self.pairs, self.cross, strict=True):
            cross.addmm_(x[a].T, x[b])

    def __add__(self, other: CrossSums) -> CrossSums:
        """Return the sums over both sets of rows, around the first one's reference.

        Raises:
            ValueError: they are sums of other pairs.
        """
        if self.pairs != other.pairs:
            raise ValueError("sums merge only with sums of the same pairs of layers")
        if int(self.n) == 0:
            return other.with_tensors({name: tensor.clone() for name, tensor in other.tensors().items()})
        moved = other if int(other.n) == 0 else other.around(self.reference)
        sums = added(self.tensors(), moved.tensors())
        return self.with_tensors({**sums, **numbered("reference", self.reference)})

    def around(self, reference: Sequence[Tensor]) -> CrossSums:
        """Return the sums of the same rows around another reference, for each layer float64 (width,).

        Each is a polynomial in the shift whose coefficients are sums that are held. What belongs to pairs that are not
        kept stays as it is: nothing reads it.
        """
        n, total = self.n, self.total
        shift = [new - old for new, old in zip(reference, self.reference, strict=True)]
        length = torch.stack([each @ each for each in shift])
        along = torch.stack([each @ sums for each, sums in zip(shift, total, strict=True)])
        squared = self.squared - 2 * along + n * length
        quartic, weighted = self.quartic.clone(), [each.clone() for each in self.weighted]
        cross = []
        for (a, b), product in zip(self.pairs, self.cross, strict=True):
            moved = product - torch.outer(total[a], shift[b]) - torch.outer(shift[a], total[b])
            cross.append(moved.addr_(shift[a], shift[b], alpha=float(n)))
            through = self.weighted[b][a] @ shift[b], self.weighted[a][b] @ shift[a]
            quartic[a, b] = quartic[b, a] = (
                self.quartic[a, b]
                - 2 * (through[0] + through[1])
                + 4 * (shift[a] @ product @ shift[b])
                + length[b] * (self.squared[a] - 2 * along[a])
                + length[a] * (self.squared[b] - 2 * along[b])
                + n * length[a] * length[b]
            )
            for one, two, along_one in ((a, b, product.T @ shift[a]), (b, a, product @ shift[b])):
                # sum |x_1 - d_1|^2 (x_2 - d_2)
                weighted[two][one] = (
                    self.weighted[two][one] - 2 * along_one + length[one] * total[two] - squared[one] * shift[two]
                )
        return CrossSums(
            self.pairs,
            n=n.clone(),
            reference=tuple(reference),
            total=tuple(sums - n * each for sums, each in zip(total, shift, strict=True)),
            quartic=quartic,
            squared=squared,
            weighted=tuple(weighted),
            cross=tuple(cross),
        )

    def tensors(self) -> dict[str, Tensor]:
        """Return the sums by name."""
        return {
            "n": self.n,
            **numbered("reference", self.reference),
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
            reference=tuple(within("reference", tensors).values()),
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
        """Return the debiased CKA of all rows, float64 (layers, layers); NaN for layers that do not vary."""
        hsic = self.hsic()
        own = hsic.diagonal()
        own.copy_(torch.where(self._varies(), own, torch.nan))
        return _ratios(hsic)

    def _varies(self) -> Tensor:
        """Return which layers vary (`centring.CONSTANT`), bool (layers,)."""
        n = self.n.double()
        spread = self.squared - torch.stack([total @ total for total in self.total]) / n
        size = [
            squared + 2 * (reference @ total) + n * (reference @ reference)
            for squared, reference, total in zip(self.squared, self.reference, self.total, strict=True)
        ]
        return varies(spread, torch.stack(size))
