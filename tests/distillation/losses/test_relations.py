"""Hidden losses of relations: each against its formula in float64, its property, and what it is blind to."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from anglekit.distillation.losses import relations
from anglekit.distillation.losses.functional import hidden_loss
from anglekit.distillation.losses.relations import RELATIONS, relation
from anglekit.errors import InputError
from anglekit.vocabulary import ATTENTION_LOSSES, HIDDEN_LOSS_NAMES, WIDTH_FREE_LOSSES

WIDTH_FREE = set(WIDTH_FREE_LOSSES) - set(ATTENTION_LOSSES)
SEEDS = st.integers(0, 10**6)

few = settings(max_examples=10, deadline=None)


def rows(seed, count, width, **options):
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed), **options)


def rotation(seed, width):
    return torch.linalg.qr(rows(seed, width, width, dtype=torch.float64)).Q


def huber(one, other):
    apart = abs(one - other)
    return 0.5 * apart**2 if apart < 1 else apart - 0.5


def dense(kind, s, t):
    """Return the loss of rows from its formula, in float64 with loops or whole matrices."""
    s, t = s.double(), t.double()
    n = len(s)
    if kind == "gram":
        return (s @ s.T - t @ t.T).square().sum() / (t @ t.T).square().sum()
    if kind == "infonce":
        cosines = torch.nn.functional.cosine_similarity(s[:, None], t[None], dim=-1) / 0.07
        return -cosines.log_softmax(-1).diagonal().mean()
    if kind == "relational":
        pairs = [(i, j) for i in range(n) for j in range(n) if i != j]
        far = [{pair: (x[pair[0]] - x[pair[1]]).norm() for pair in pairs} for x in (s, t)]
        mean = [sum(each.values()) / len(pairs) for each in far]
        loss = sum(huber(far[0][pair] / mean[0], far[1][pair] / mean[1]) for pair in pairs) / len(pairs)
        angles = 0.0
        for j in range(n):
            for i in range(n):
                for k in range(n):
                    if j not in (i, k):
                        both = [torch.nn.functional.cosine_similarity(x[i] - x[j], x[k] - x[j], dim=0) for x in (s, t)]
                        angles += huber(*both)
        return loss + 2 * angles / n**3
    s, t = s - s.mean(0), t - t.mean(0)
    if kind == "cka":
        return 1 - (s.T @ t).norm() ** 2 / ((s.T @ s).norm() * (t.T @ t).norm())
    u, _, vh = torch.linalg.svd(s.T @ t, full_matrices=False)
    # At the best rotation the slope is that of a fixed one; torch's own through singular values of 0 is any number.
    return ((s @ (u @ vh).detach() - t).norm() / t.norm()) ** 2


def test_names_are_those_of_the_vocabulary():
    assert set(RELATIONS) < set(HIDDEN_LOSS_NAMES)
    assert {name for name, one in RELATIONS.items() if not one.one_width} == WIDTH_FREE


@pytest.mark.parametrize("kind", RELATIONS)
@few
@given(seed=SEEDS, count=st.integers(3, 6))
def test_value_and_gradient_are_those_of_the_formula(kind, seed, count):
    width = 5 if RELATIONS[kind].one_width else 4
    given, teacher = rows(seed, count, width).requires_grad_(), rows(seed + 1, count, 5)
    exact = given.detach().double().requires_grad_()
    found, oracle = RELATIONS[kind].compare(given, teacher), dense(kind, exact, teacher)
    torch.testing.assert_close(found.double(), torch.as_tensor(oracle), rtol=1e-4, atol=1e-5)
    (slope,), (exact_slope,) = torch.autograd.grad(found, given), torch.autograd.grad(oracle, exact)
    torch.testing.assert_close(slope.double(), exact_slope, rtol=2e-3, atol=2e-4)


@few
@given(seed=SEEDS, scale=st.floats(0.2, 5.0))
def test_what_each_is_blind_to(seed, scale):
    teacher = rows(seed, 9, 5, dtype=torch.float64)
    turned = teacher @ rotation(seed + 1, 5)
    for kind in sorted(WIDTH_FREE):
        assert float(RELATIONS[kind].compare(turned, teacher)) < 1e-6, f"{kind} sees a rotation"
    moved = turned + rows(seed + 2, 1, 5, dtype=torch.float64)
    assert float(RELATIONS["procrustes"].compare(moved, teacher)) < 1e-6
    assert float(RELATIONS["cka"].compare(scale * moved, teacher)) < 1e-6
    assert float(RELATIONS["relational"].compare(scale * moved, teacher)) < 1e-6
    # And what it is not blind to: lengths, and a rotation where states themselves are compared.
    assert float(RELATIONS["gram"].compare(3 * turned, teacher)) == pytest.approx(64.0)
    assert float(RELATIONS["procrustes"].compare(3 * turned, teacher)) == pytest.approx(4.0)
    assert float(RELATIONS["infonce"].compare(turned, teacher)) > float(RELATIONS["infonce"].compare(teacher, teacher))
    other = rows(seed + 3, 9, 5, dtype=torch.float64)
    for kind in RELATIONS:
        assert float(RELATIONS[kind].compare(other, teacher)) > 1e-3, f"{kind} does not tell unrelated states apart"


def test_worked_cases():
    teacher, student = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[1.0], [0.0]])
    # S S^T - T T^T is -1 in one corner, and |T T^T|^2 is 2.
    assert float(relations.gram(student, teacher)) == pytest.approx(0.5)
    # Centred: T = +-(1, -1) / 2, of length^2 1 in all; S = +-1 / 2, of length^2 1 / 2; S^T T = (1, -1) / 2.
    assert float(relations.procrustes(student, teacher)) == pytest.approx(0.5 + 1 - 2 * math.sqrt(0.5))
    assert float(relations.linear_cka(student, teacher)) == pytest.approx(0.0, abs=1e-6)
    cosines = torch.eye(2) / 0.07
    assert float(relations.infonce(teacher, teacher)) == pytest.approx(float(-cosines.log_softmax(-1)[0, 0]))


def test_fewer_rows_than_columns_are_turned_as_well_as_many():
    student, teacher = (rows(seed, 5, width, dtype=torch.float64).requires_grad_() for seed, width in ((0, 9), (1, 7)))
    found = relations.procrustes(student, teacher)
    centred = [each.detach() - each.detach().mean(0) for each in (student, teacher)]
    products, lengths = centred[0].T @ centred[1], [each.square().sum() for each in centred]
    values = torch.linalg.svdvals(products)
    expected = (lengths[0] + lengths[1] - 2 * values.sum()) / lengths[1]
    torch.testing.assert_close(found.detach(), expected)
    # The rows are centred, so that one singular value of five is 0, where plain autograd has no gradient.
    assert int((values > 1e-9).sum()) == 4
    assert torch.autograd.gradcheck(relations.procrustes, (student, teacher))


@pytest.mark.parametrize("kind", [*RELATIONS, "feature-dynamics"])
def test_padding_reaches_nothing_and_few_items_are_a_loss_of_zero(kind):
    student, teacher = rows(0, 12, 4).reshape(3, 4, 4), rows(1, 12, 4).reshape(3, 4, 4)
    mask = torch.tensor([[1, 1, 1, 0], [1, 1, 0, 0], [1, 1, 1, 1]])
    dirty = [torch.where(mask[..., None] != 0, each, torch.nan) for each in (student, teacher)]
    given = dirty[0].clone().requires_grad_()
    term = hidden_loss([(given, dirty[1]), (given * 2, dirty[1])], mask, kind=kind)
    clean = hidden_loss([(student, teacher), (student * 2, teacher)], mask, kind=kind)
    torch.testing.assert_close(term.total.detach(), clean.total)
    assert int(term.count) == 9
    term.mean().backward()
    assert given.grad[mask == 0].eq(0).all()
    assert given.grad[mask != 0].abs().sum() > 0
    for few in (torch.zeros_like(mask), torch.tensor([[1, 0, 0, 0], [0] * 4, [0] * 4])):
        given.grad = None
        term = hidden_loss([(given, dirty[1])], few, kind=kind)
        term.mean().backward()
        assert torch.isfinite(term.total.detach())
        assert given.grad.isfinite().all()


def test_an_accumulated_batch_averages_by_tokens():
    student, teacher = rows(0, 8, 4).reshape(2, 4, 4), rows(1, 8, 4).reshape(2, 4, 4)
    parts = [hidden_loss([(student[i : i + 1], teacher[i : i + 1])], None, kind="gram") for i in range(2)]
    alone = [float(relation("gram", student[i : i + 1], teacher[i : i + 1], None)) for i in range(2)]
    assert float((parts[0] + parts[1]).mean()) == pytest.approx(sum(alone) / 2, rel=1e-5)


@few
@given(seed=SEEDS)
def test_feature_dynamics_is_the_states_and_their_steps(seed):
    layers = [(rows(seed + i, 6, 4)[None], rows(seed + 10 + i, 6, 4)[None]) for i in range(3)]
    steps = [(s - below_s, t - below_t) for (below_s, below_t), (s, t) in pairwise(layers)]
    found = hidden_loss(layers, None, kind="feature-dynamics")
    parts = [hidden_loss(each, None, kind="mse").total for each in (layers, steps)]
    torch.testing.assert_close(found.total, parts[0] + parts[1])


def test_gram_of_many_rows_is_that_of_few(monkeypatch):
    """Above the width it is computed from the widths' products, which never hold (rows, rows)."""
    student, teacher = rows(0, 40, 6), rows(1, 40, 5)
    assert float(relations.gram(student, teacher)) == pytest.approx(float(dense("gram", student, teacher)), rel=1e-4)


def test_widths_that_differ_are_refused_where_states_are_compared():
    student, teacher = rows(0, 4, 3)[None], rows(1, 4, 5)[None]
    assert hidden_loss([(student, teacher)], None, kind="cka").total.isfinite()
    with pytest.raises(InputError, match="use an adapter"):
        hidden_loss([(student, teacher)], None, kind="infonce")


def test_geometry_is_kept_in_the_order_of_the_published_experiment():
    """Students 4 wide of a teacher 16 wide, fitted to a loss of its own each: how far are the inner products?

    The synthetic part of arXiv 2509.25253: with a free projection the mean squared error is nearly as small as it can
    be while the geometry is lost; CKA keeps it up to what it is blind to; Procrustes and Gram keep it.
    """
    generator = torch.Generator().manual_seed(0)
    basis = torch.linalg.qr(torch.randn(16, 16, generator=generator)).Q
    teacher = torch.randn(24, 4, generator=generator) * torch.tensor([3.0, 1.0, 0.5, 0.2]) @ basis[:4]
    start = torch.randn(24, 4, generator=generator)
    errors = {}
    for kind in ("projected", "cka", "procrustes", "gram"):
        student = start.clone().requires_grad_()
        projection = (torch.randn(4, 16, generator=generator) / 2).requires_grad_()
        trained = [student, projection] if kind == "projected" else [student]
        optimizer = torch.optim.Adam(trained, lr=0.1)
        for _ in range(150):
            optimizer.zero_grad()
            if kind == "projected":
                loss = (student @ projection - teacher).square().mean()
            else:
                loss = RELATIONS[kind].compare(student, teacher)
            loss.backward()
            optimizer.step()
        errors[kind] = float(dense("gram", student.detach(), teacher))
    assert errors["gram"] < errors["procrustes"] < errors["cka"] < errors["projected"], errors
    assert errors["projected"] > 10 * errors["procrustes"], errors
