"""Divergences of predictions: each against float64, over chunks, and by the property that defines it."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from anglekit.distillation.losses import divergences
from anglekit.distillation.losses import objective as objective_module
from anglekit.distillation.losses.functional import cross_entropy, cross_entropy_and_kl, kl_divergence
from anglekit.distillation.losses.head_logits import HeadLogits
from anglekit.distillation.losses.objective import DistillationObjective, TeacherOutputs
from anglekit.distillation.losses.weights import LossWeights
from anglekit.errors import InputError
from anglekit.vocabulary import KL_DIRECTIONS

SKEW, K = 0.3, 3

few = settings(max_examples=10, deadline=None)


def kl(p, q):
    return (p * (p / q).log()).sum(-1)


def dense(name, student, teacher, temperature):
    """Return T^2 x the divergence of each row, from its formula in float64."""
    q, p = ((each.double() / temperature).softmax(-1) for each in (student, teacher))
    if name == "forward":
        rows = kl(p, q)
    elif name == "reverse":
        rows = kl(q, p)
    elif name == "jensen-shannon":
        rows = 0.5 * kl(p, (p + q) / 2) + 0.5 * kl(q, (p + q) / 2)
    elif name == "skew":
        rows = kl(p, SKEW * p + (1 - SKEW) * q)
    else:
        places = p.topk(min(K, p.shape[-1])).indices
        kept = [each.gather(-1, places) for each in (p, q)]
        rows = kl(*(each / each.sum(-1, keepdim=True) for each in kept))
    return rows * temperature**2


def compare(name, student, teacher, mask=None, temperature=1.0, **options):
    return kl_divergence(student, teacher, mask, direction=name, temperature=temperature, skew=SKEW, top_k=K, **options)


def logits(seed, *shape):
    return 3 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_the_names_of_the_vocabulary_are_those_of_the_formulas():
    assert tuple(divergences.DIVERGENCES) == KL_DIRECTIONS


@pytest.mark.parametrize("name", KL_DIRECTIONS)
@pytest.mark.parametrize("entries", [10, 10**9])
@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_value_and_gradient_in_chunks_are_those_of_the_formula(name, entries, temperature, monkeypatch):
    monkeypatch.setitem(divergences.CHUNK_ENTRIES, "cpu", entries)
    student, teacher, mask = logits(0, 2, 5, 7), logits(1, 2, 5, 7), torch.tensor([[1, 1, 0, 1, 1], [1, 0, 0, 0, 0]])
    student[mask == 0] = torch.nan
    given, exact = student.clone().requires_grad_(), student.double().requires_grad_()
    term = compare(name, given, teacher, mask, temperature)
    term.mean().backward()
    oracle = dense(name, exact[mask != 0], teacher[mask != 0], temperature).mean()
    (slope,) = torch.autograd.grad(oracle, exact)
    torch.testing.assert_close(term.mean().double(), oracle, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(given.grad[mask != 0].double(), slope[mask != 0], rtol=1e-4, atol=1e-6)
    assert int(term.count) == 5
    assert given.grad[mask == 0].eq(0).all(), "a row that no loss reads got a gradient"


@few
@given(st.integers(0, 10**6), st.sampled_from(KL_DIRECTIONS), st.floats(0.3, 5.0))
def test_it_is_zero_for_equal_predictions_and_above_zero_for_others(seed, name, temperature):
    one, other = logits(seed, 4, 6), logits(seed + 1, 4, 6)
    assert abs(float(compare(name, one, one + 5.0, None, temperature).total)) < 1e-4
    assert float(compare(name, one, other, None, temperature).total) > 1e-6


@few
@given(st.integers(0, 10**6))
def test_each_has_what_defines_it(seed):
    one, other = 20 * logits(seed, 3, 6), 20 * logits(seed + 1, 3, 6)
    both = [float(compare("jensen-shannon", *pair).total) for pair in ((one, other), (other, one))]
    assert both[0] == pytest.approx(both[1], rel=1e-4, abs=1e-6)
    assert both[0] <= 3 * math.log(2) + 1e-5
    assert float(compare("skew", one, other).total) <= -3 * math.log(SKEW) + 1e-5, "the skew bounds it"
    whole = [float(kl_divergence(one, other, direction=name, top_k=6).total) for name in ("top-k", "forward")]
    assert whole[0] == pytest.approx(whole[1], rel=1e-4, abs=1e-4)


def test_the_worked_case():
    student, teacher = torch.tensor([[0.5, 0.25, 0.25]]).log(), torch.tensor([[0.25, 0.25, 0.5]]).log()
    assert float(compare("forward", student, teacher).total) == pytest.approx(0.25 * math.log(2))
    middle = (0.375, 0.25, 0.375)
    half = 0.25 * math.log(0.25 / middle[0]) + 0.5 * math.log(0.5 / middle[2])
    assert float(compare("jensen-shannon", student, teacher).total) == pytest.approx(half)
    two = kl_divergence(student, teacher, direction="top-k", top_k=1)
    assert float(two.total) == 0.0, "over one class every prediction is the same"


def test_it_is_backed_twice_and_leaves_nothing_of_the_logits_size(monkeypatch):
    monkeypatch.setitem(divergences.CHUNK_ENTRIES, "cpu", 10)
    student, teacher = logits(0, 6, 5).requires_grad_(), logits(1, 6, 5)
    held = []
    with torch.autograd.graph.saved_tensors_hooks(lambda each: held.append(each.data_ptr()) or each, lambda each: each):
        total = compare("forward", student, teacher).total
    first, second = (torch.autograd.grad(total, student, retain_graph=True)[0] for _ in range(2))
    torch.testing.assert_close(first, second)
    assert {student.data_ptr(), teacher.data_ptr()} <= set(held)
    assert len(held) == 3, "beside the two logits and the index something is held for the backward pass"


@pytest.mark.parametrize(("options", "said"), [({"skew": 1.0}, "skew"), ({"top_k": 0}, "top_k")])
def test_a_share_or_number_that_is_not_possible_is_refused(options, said):
    with pytest.raises(InputError, match=said):
        kl_divergence(logits(0, 2, 3), logits(1, 2, 3), **options)


def test_no_row_is_a_loss_of_zero():
    for name in KL_DIRECTIONS:
        student = logits(0, 2, 3).requires_grad_()
        term = compare(name, student, logits(1, 2, 3), torch.zeros(2))
        term.mean().backward()
        assert float(term.total.detach()) == 0.0
        assert student.grad.eq(0).all()


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("shared", [None, 7])
@pytest.mark.parametrize("direction", ["forward", "jensen-shannon"])
def test_cross_entropy_and_kl_together_are_those_apart(direction, shared, overwrite, monkeypatch):
    """Also where the gradient takes the place of the teacher's logits, and unread rows hold NaN."""
    monkeypatch.setitem(divergences.CHUNK_ENTRIES, "cpu", 20)
    labels = torch.tensor([[1, -100, 2, 6], [-100, 0, 3, -100]])
    teacher, given = logits(0, 8, 9).reshape(2, 4, 9), logits(1, 8, 9).reshape(2, 4, 9)
    for each in (teacher, given):
        each[labels == -100] = torch.nan
    options = {"direction": direction, "temperature": 2.0, "shared_entries": shared}
    found = []
    for together in (True, False):
        student, theirs = given.clone().requires_grad_(), teacher.clone()
        if together:
            terms = cross_entropy_and_kl(student, theirs, labels, overwrite_teacher=overwrite, **options)
        else:
            terms = cross_entropy(student, labels), kl_divergence(student, theirs, labels != -100, **options)
        loss = 0.3 * terms[0].total + 2.0 * terms[1].total
        loss.backward(retain_graph=together)
        found.append((loss.detach(), student.grad, [int(term.count) for term in terms]))
        if together and overwrite and shared is None:
            torch.testing.assert_close(theirs, student.grad)
            with pytest.raises(RuntimeError, match="modified by an inplace operation"):
                loss.backward()
        else:
            torch.testing.assert_close(theirs, teacher, equal_nan=True)
    torch.testing.assert_close(found[0][0], found[1][0])
    torch.testing.assert_close(found[0][1], found[1][1])
    assert found[0][2] == found[1][2] == [5, 5]


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("direction", KL_DIRECTIONS)
@pytest.mark.parametrize("shares", [None, (0.3, 2.0), (1.0, 1.0)])
def test_logits_that_a_head_has_not_made_have_the_gradients_of_those_made(shares, direction, bias, monkeypatch):
    """In float64, over chunks, whether the proportion of the two was told, told wrongly or left open."""
    monkeypatch.setattr(divergences, "HEAD_CHUNK_ENTRIES", 20)
    labels = torch.tensor([[1, -100, 2, 6], [-100, 0, 3, 8]])
    options = {"direction": direction, "temperature": 1.5, "skew": SKEW, "top_k": K}
    teacher = HeadLogits(logits(0, 2, 4, 5).double(), logits(1, 9, 5).double())
    states, weight, shift = logits(2, 2, 4, 3).double(), logits(3, 9, 3).double(), logits(4, 9).double()
    parts = [each.requires_grad_() for each in ([states, weight, shift] if bias else [states, weight])]
    student = HeadLogits(*parts)
    assert student.shape == (2, 4, 9)

    def loss(one, other, **told):
        entropy, kl = cross_entropy_and_kl(one, other, labels, **options, **told)
        return 0.3 * entropy.mean() + 2.0 * kl.mean()

    found = loss(student, teacher, shares=shares)
    expected = loss(student.made(), teacher.made())
    torch.testing.assert_close(found, expected)
    wanted = torch.autograd.grad(expected, parts)
    for _ in range(2):  # the second pass makes them anew
        for mine, theirs in zip(torch.autograd.grad(found, parts, retain_graph=True), wanted, strict=True):
            torch.testing.assert_close(mine, theirs)
    # Each by itself, and with fewer classes shared.
    for one, other in (
        (cross_entropy(student, labels), cross_entropy(student.made(), labels)),
        (
            kl_divergence(student, teacher, labels != -100, shared_entries=7, **options),
            kl_divergence(student.made(), teacher.made(), labels != -100, shared_entries=7, **options),
        ),
    ):
        torch.testing.assert_close(one.total, other.total)
        for mine, theirs in zip(
            torch.autograd.grad(one.mean(), parts), torch.autograd.grad(other.mean(), parts), strict=True
        ):
            torch.testing.assert_close(mine, theirs)


def test_a_step_over_many_classes_copies_no_logits(monkeypatch):
    """The objective hands the logits themselves on, where they are more than a chunk; else the rows that count."""
    seen = []
    monkeypatch.setattr(objective_module, "cross_entropy_and_kl", lambda s, t, *_, **__: seen.append((s, t)) or (1, 1))
    objective = DistillationObjective(causal=True, weights=LossWeights(1.0, 1.0, 0.0))
    batch = {"input_ids": torch.ones(2, 4, dtype=torch.long), "labels": torch.ones(2, 4, dtype=torch.long)}
    student, teacher = logits(0, 8, 9).reshape(2, 4, 9), logits(1, 8, 9).reshape(2, 4, 9)
    objective.terms(batch, student, {}, TeacherOutputs(teacher))
    assert not seen
    monkeypatch.setitem(divergences.CHUNK_ENTRIES, "cpu", 20)
    objective.terms(batch, student, {}, TeacherOutputs(teacher))
    assert seen[0][0] is student
    assert seen[0][1] is teacher
