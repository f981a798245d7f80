"""Every loss against a float64 numpy oracle that loops over tokens; the invariances that training needs."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from anglekit.distillation.losses.functional import (
    HIDDEN_LOSSES,
    LossTerm,
    cross_entropy,
    hidden_loss,
    kl_divergence,
    next_token_targets,
    weighted_total,
)
from anglekit.distillation.losses.weights import LossWeights
from anglekit.errors import InputError

KINDS = sorted(HIDDEN_LOSSES)
SEEDS = st.integers(0, 2**31 - 1)


def distance_oracle(kind, s, t):
    """One token's distance, in numpy float64."""
    if kind == "mse":
        return np.mean((s - t) ** 2)
    if kind == "layer-norm-mse":
        s, t = ((x - x.mean()) / np.sqrt(x.var() + 1e-5) for x in (s, t))
        return np.mean((s - t) ** 2)
    s, t = s / np.linalg.norm(s), t / np.linalg.norm(t)
    return np.sum((s - t) ** 2) if kind == "normalized-mse" else 1 - s @ t


def hidden_oracle(kind, pairs, mask):
    return sum(
        distance_oracle(kind, s[b, x].numpy(), t[b, x].numpy())
        for s, t in pairs
        for b in range(mask.shape[0])
        for x in range(mask.shape[1])
        if mask[b, x]
    )


def states(seed, batch=3, time=5, width=7, layers=2):
    generator = torch.Generator().manual_seed(seed)
    shape = (batch, time, width)
    pairs = [
        tuple(torch.randn(shape, generator=generator, dtype=torch.float64) * 3 + 1 for _ in range(2))
        for _ in range(layers)
    ]
    mask = torch.rand((batch, time), generator=generator) < 0.6
    mask[0, 0] = True
    return pairs, mask


def log_softmax(x):
    x = x - x.max()
    return x - np.log(np.exp(x).sum())


def kl_oracle(student, teacher, mask, temperature, direction):
    total = 0.0
    for s, t, m in zip(student.numpy(), teacher.numpy(), mask.numpy(), strict=True):
        if m:
            ls, lt = log_softmax(s / temperature), log_softmax(t / temperature)
            p, lp, lq = (np.exp(lt), lt, ls) if direction == "forward" else (np.exp(ls), ls, lt)
            total += temperature**2 * np.sum(p * (lp - lq))
    return total


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=20, deadline=None)
@given(seed=SEEDS)
def test_hidden_loss_equals_the_oracle(kind, seed):
    pairs, mask = states(seed)
    term = hidden_loss(pairs, mask, kind=kind)
    assert term.count == mask.sum()
    assert term.total.item() == pytest.approx(hidden_oracle(kind, pairs, mask), rel=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_the_oracle_can_tell_a_wrong_loss(kind):
    """Negative control: ignoring the mask, and each other loss, is seen."""
    pairs, mask = states(1)
    expected = hidden_oracle(kind, pairs, mask)
    assert hidden_loss(pairs, None, kind=kind).total.item() != pytest.approx(expected, rel=1e-3)
    for other in set(KINDS) - {kind}:
        assert hidden_loss(pairs, mask, kind=other).total.item() != pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=15, deadline=None)
@given(seed=SEEDS, extra=st.integers(1, 4), poison=st.sampled_from([math.nan, math.inf, -math.inf, 0.0]))
def test_padding_changes_neither_value_nor_gradient(kind, seed, extra, poison):
    pairs, mask = states(seed)
    padded_mask = torch.nn.functional.pad(mask, (0, extra), value=False)
    plain, padded = [], []
    for s, t in pairs:
        plain.append((s.clone().requires_grad_(), t))
        stretched = [torch.nn.functional.pad(x, (0, 0, 0, extra)) for x in (s, t)]
        stretched = [torch.where(padded_mask[..., None], x, poison) for x in stretched]
        padded.append((stretched[0].requires_grad_(), stretched[1]))
    a, b = hidden_loss(plain, mask, kind=kind), hidden_loss(padded, padded_mask, kind=kind)
    assert a.total.item() == pytest.approx(b.total.item(), rel=1e-12)
    assert a.count == b.count
    a.mean().backward()
    b.mean().backward()
    for (s, _), (p, _) in zip(plain, padded, strict=True):
        assert torch.equal(p.grad[:, : s.shape[1]], s.grad)
        assert torch.equal(p.grad[~padded_mask], torch.zeros_like(p.grad[~padded_mask]))


@settings(max_examples=25, deadline=None)
@given(seed=SEEDS, cut=st.integers(1, 3), kind=st.sampled_from(KINDS))
def test_split_and_accumulated_batches_give_the_whole_batch(seed, cut, kind):
    """Terms of parts pool to the whole; parts divided by the whole count add up, gradients included."""
    pairs, mask = states(seed, batch=4)
    students = [s.clone().requires_grad_() for s, _ in pairs]
    whole = hidden_loss([(s, t) for s, (_, t) in zip(students, pairs, strict=True)], mask, kind=kind)
    whole_grads = torch.autograd.grad(whole.mean(), students)
    parts = [
        hidden_loss([(s[rows], t[rows]) for s, (_, t) in zip(students, pairs, strict=True)], mask[rows], kind=kind)
        for rows in (slice(0, cut), slice(cut, 4))
    ]
    pooled = parts[0] + parts[1]
    assert pooled.count == whole.count
    assert pooled.mean().item() == pytest.approx(whole.mean().item(), rel=1e-12)
    accumulated = [torch.autograd.grad(part.mean(whole.count), students) for part in parts]
    for i, grad in enumerate(whole_grads):
        torch.testing.assert_close(accumulated[0][i] + accumulated[1][i], grad, rtol=1e-10, atol=1e-14)


def test_a_mean_of_part_means_would_not_do():
    """Negative control of the accumulation test: unequal parts show why counts travel with the sums."""
    pairs, mask = states(0, batch=2)
    mask[0], mask[1] = True, torch.tensor([True, False, False, False, False])
    whole = hidden_loss(pairs, mask).mean()
    parts = [hidden_loss([(s[[i]], t[[i]]) for s, t in pairs], mask[[i]]).mean() for i in (0, 1)]
    assert (parts[0] + parts[1]).item() / 2 != pytest.approx(whole.item(), rel=1e-3)


@settings(max_examples=25, deadline=None)
@given(seed=SEEDS, temperature=st.floats(0.5, 8), direction=st.sampled_from(["forward", "reverse"]))
def test_kl_equals_the_oracle(seed, temperature, direction):
    generator = torch.Generator().manual_seed(seed)
    student, teacher = (torch.randn((6, 4), generator=generator, dtype=torch.float64) * 4 for _ in range(2))
    mask = torch.tensor([1, 0, 1, 1, 0, 1])
    poisoned = torch.where(mask[:, None] == 1, student, math.nan).requires_grad_()
    term = kl_divergence(poisoned, teacher, mask, temperature=temperature, direction=direction)
    expected = kl_oracle(student, teacher, mask, temperature, direction)
    assert term.total.item() == pytest.approx(expected, rel=1e-9, abs=1e-12)
    assert term.total.item() >= -1e-12
    assert term.count == 4
    (grad,) = torch.autograd.grad(term.mean(), poisoned)
    assert torch.isfinite(grad).all()
    assert torch.equal(grad[mask == 0], torch.zeros(2, 4, dtype=torch.float64))


@settings(max_examples=25, deadline=None)
@given(
    seed=SEEDS,
    extra=st.tuples(st.integers(0, 6), st.integers(0, 6)),
    cut=st.integers(0, 3),
    direction=st.sampled_from(["forward", "reverse"]),
)
def test_kl_over_shared_entries_is_that_of_models_cut_to_them(seed, extra, cut, direction):
    generator = torch.Generator().manual_seed(seed)
    shared = 9 - cut
    student, teacher = (torch.randn((2, 4, 9 + more), generator=generator, dtype=torch.float64) * 3 for more in extra)
    mask = torch.rand((2, 4), generator=generator) < 0.7
    student.requires_grad_()
    options = {"temperature": 2.0, "direction": direction}
    term = kl_divergence(student, teacher, mask, shared_entries=shared, **options)
    small = [logits[..., :shared].detach().clone().requires_grad_() for logits in (student, teacher)]
    cut_term = kl_divergence(*small, mask, **options)
    assert term.total.item() == pytest.approx(cut_term.total.item(), abs=1e-12)
    rows = (logits.detach().reshape(8, shared) for logits in small)
    assert term.total.item() == pytest.approx(kl_oracle(*rows, mask.reshape(8), 2.0, direction), rel=1e-9, abs=1e-9)
    if mask.any():
        wanted, *_ = torch.autograd.grad(cut_term.total, small[:1])
        (found,) = torch.autograd.grad(term.total, [student])
        torch.testing.assert_close(found[..., :shared], wanted)
        assert not found[..., shared:].any()
    # In float32 too.
    single = kl_divergence(student.detach().float(), teacher.float(), mask, shared_entries=shared, **options)
    again = kl_divergence(*(logits.detach().float() for logits in small), mask, **options)
    assert single.total.item() == pytest.approx(again.total.item(), rel=1e-7)


def test_shared_entries_are_renormalised_and_not_only_cut():
    student, teacher = torch.randn((2, 5, 12), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    logs = [F.log_softmax(logits, -1)[..., :9] for logits in (student, teacher)]
    merely_cut = (logs[1].exp() * (logs[1] - logs[0])).sum().item()
    assert abs(kl_divergence(student, teacher, shared_entries=9).total.item() - merely_cut) > 0.1
    assert kl_divergence(student, teacher, shared_entries=12).total == kl_divergence(student, teacher).total


def test_kl_directions_differ_and_vanish_for_equal_logits():
    student, teacher = torch.tensor([[0.0, 3.0, 1.0]]), torch.tensor([[2.0, 0.0, 0.0]])
    forward, reverse = (kl_divergence(student, teacher, direction=d).total for d in ("forward", "reverse"))
    assert forward.item() != pytest.approx(reverse.item(), rel=1e-2)
    assert kl_divergence(student, student, temperature=3.0).total.item() == pytest.approx(0, abs=1e-6)


def test_kl_of_token_logits_is_the_kl_of_their_rows():
    student, teacher = torch.randn(2, 3, 5, dtype=torch.float64), torch.randn(2, 3, 5, dtype=torch.float64)
    mask = torch.tensor([[1, 1, 0], [1, 0, 0]])
    term = kl_divergence(student, teacher, mask)
    flat = kl_oracle(student.reshape(6, 5), teacher.reshape(6, 5), mask.reshape(6), 1.0, "forward")
    assert term.mean().item() == pytest.approx(flat / 3, rel=1e-10)


@settings(max_examples=20, deadline=None)
@given(seed=SEEDS)
def test_cross_entropy_equals_the_oracle_and_leaves_ignored_rows_alone(seed):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn((2, 4, 6), generator=generator, dtype=torch.float64)
    labels = torch.randint(0, 6, (2, 4), generator=generator)
    labels[0, 1] = labels[1, 3] = -100
    rows = zip(logits.reshape(8, 6).numpy(), labels.reshape(8).tolist(), strict=True)
    expected = -sum(log_softmax(row)[label] for row, label in rows if label != -100)
    logits[0, 1] = math.nan
    logits[1, 3] = math.inf
    logits.requires_grad_()
    term = cross_entropy(logits, labels)
    assert term.total.item() == pytest.approx(expected, rel=1e-12)
    assert term.count == 6
    (grad,) = torch.autograd.grad(term.total, logits)
    assert torch.isfinite(grad).all()
    assert torch.equal(grad[0, 1], torch.zeros(6, dtype=torch.float64))


def test_next_token_targets_pair_each_position_with_the_following_token():
    labels = torch.tensor([[7, 8, 9]])
    logits, shifted = next_token_targets(torch.arange(3.0)[None, :, None], labels)
    assert shifted.tolist() == [[8, 9]]
    assert logits.squeeze().tolist() == [0.0, 1.0]


@pytest.mark.parametrize("kind", KINDS)
def test_gradcheck_of_hidden_losses(kind):
    pairs, mask = states(3, batch=2, time=3, width=4, layers=1)
    student = pairs[0][0].requires_grad_()
    assert torch.autograd.gradcheck(lambda s: hidden_loss([(s, pairs[0][1])], mask, kind=kind).mean(), (student,))


@pytest.mark.parametrize("direction", ["forward", "reverse"])
def test_gradcheck_of_kl_and_cross_entropy(direction):
    student, teacher = torch.randn(3, 4, dtype=torch.float64).requires_grad_(), torch.randn(3, 4).double()
    labels = torch.tensor([0, -100, 2])
    assert torch.autograd.gradcheck(
        lambda s: kl_divergence(s, teacher, temperature=2.0, direction=direction).mean(), (student,)
    )
    assert torch.autograd.gradcheck(lambda s: cross_entropy(s, labels).mean(), (student,))


@pytest.mark.parametrize("kind", ["normalized-mse", "cosine"])
def test_a_zero_vector_has_a_finite_loss_and_no_gradient(kind):
    student = torch.zeros(1, 1, 4, requires_grad=True)
    term = hidden_loss([(student, torch.ones(1, 1, 4))], None, kind=kind)
    assert term.total.item() == pytest.approx(1.0)
    term.total.backward()
    assert torch.equal(student.grad, torch.zeros(1, 1, 4))


def test_the_fast_mse_is_the_plain_one_and_reaches_a_trained_teacher_side():
    pairs, mask = states(4)
    student, teacher = (x.requires_grad_() for x in pairs[0])
    fast = torch.autograd.grad(hidden_loss([(student, teacher)], mask).total, (student, teacher))
    plain = (HIDDEN_LOSSES["mse"](student, teacher) * mask).sum()
    for ours, theirs in zip(fast, torch.autograd.grad(plain, (student, teacher)), strict=True):
        torch.testing.assert_close(ours, theirs)
    assert hidden_loss([(student, teacher)], None).count == mask.numel()


def test_normalized_mse_is_twice_the_cosine_distance_and_both_ignore_scale():
    pairs, mask = states(5)
    scaled = [(s * 100, t / 7) for s, t in pairs]
    normalized = hidden_loss(pairs, mask, kind="normalized-mse").total
    torch.testing.assert_close(normalized, 2 * hidden_loss(pairs, mask, kind="cosine").total)
    torch.testing.assert_close(normalized, hidden_loss(scaled, mask, kind="normalized-mse").total)


def test_half_precision_states_are_summed_in_float32():
    student = torch.full((1, 2, 512), 1.0, dtype=torch.bfloat16)
    term = hidden_loss([(student, student + 0.0078125)], None)
    assert term.total.dtype == torch.float32
    assert term.total.item() == pytest.approx(2 * 0.0078125**2, rel=1e-5)


def test_nothing_valid_gives_zero_and_a_zero_gradient():
    pairs, mask = states(2)
    student = pairs[0][0].requires_grad_()
    term = hidden_loss([(student, pairs[0][1])], torch.zeros_like(mask))
    assert (term.total.item(), term.count.item(), term.mean().item()) == (0.0, 0, 0.0)
    term.mean().backward()
    assert torch.equal(student.grad, torch.zeros_like(student))
    empty = cross_entropy(torch.randn(2, 3), torch.tensor([-100, -100]))
    assert (empty.mean().item(), empty.count.item()) == (0.0, 0)


def test_no_matched_layer_gives_zero_over_the_valid_tokens():
    term = hidden_loss([], torch.tensor([[1, 1, 0]]))
    assert (term.total.item(), term.count.item()) == (0.0, 2)
    assert hidden_loss([], None).mean().item() == 0.0


def test_weighted_total_uses_the_papers_weights_and_the_given_counts():
    terms = {"ce": (4.0, 2), "kl": (9.0, 3), "hidden_encoder": (8.0, 4), "hidden_decoder": (5.0, 5)}
    terms = {name: LossTerm(torch.tensor(total), torch.tensor(count)) for name, (total, count) in terms.items()}
    means = {name: term.mean() for name, term in terms.items()}
    assert weighted_total(means).item() == pytest.approx(2 + 3 + 3 * (2 + 1))
    assert weighted_total(means, LossWeights(ce=0, kl=2, hidden=1)).item() == pytest.approx(6 + 2 + 1)
    assert weighted_total({**means, "ce": terms["ce"].mean(8)}).item() == pytest.approx(0.5 + 3 + 9)


def test_wrong_input_is_named():
    pairs, mask = states(0)
    logits = torch.randn(2, 3)
    cases = [
        (lambda: hidden_loss(pairs, mask, kind="mes"), "did you mean 'mse'"),
        (lambda: hidden_loss(pairs, mask[:, :-1]), r"mask has shape \(3, 4\)"),
        (lambda: hidden_loss([(torch.ones(1, 2, 3), torch.ones(1, 2, 4))], None), "adapter"),
        (lambda: kl_divergence(logits, torch.randn(2, 4)), r"shape \(2, 3\), the teacher's \(2, 4\).*same classes"),
        (lambda: kl_divergence(logits, torch.randn(3, 3)), "same batch"),
        (lambda: kl_divergence(logits, torch.randn(2, 4), shared_entries=4), "allowed: 1 to 3"),
        (lambda: kl_divergence(logits, logits, direction="forwards"), "did you mean 'forward'"),
        (lambda: kl_divergence(logits, logits, temperature=0), "above 0"),
        (lambda: cross_entropy(logits, torch.tensor([1])), "one label a row"),
        (lambda: LossWeights(hidden=-1), "hidden is -1"),
        (lambda: LossWeights(0, 0, 0), "all loss weights"),
        (lambda: LossWeights().of("attention"), "no loss term 'attention'"),
        (lambda: weighted_total({}), "no loss term"),
    ]
    for call, message in cases:
        with pytest.raises(InputError, match=message):
            call()


def test_label_smoothing_spreads_a_share_of_the_target_over_all_classes():
    logits, labels = torch.arange(15.0, dtype=torch.float64).reshape(3, 5), torch.tensor([4, -100, 1])
    rows = [log_softmax(row) for row in logits.numpy()]
    expected = -sum(0.8 * rows[i][label] + 0.2 * rows[i].mean() for i, label in ((0, 4), (2, 1)))
    assert cross_entropy(logits, labels, label_smoothing=0.2).total.item() == pytest.approx(expected, rel=1e-12)
    assert cross_entropy(logits, labels).total.item() != pytest.approx(expected, rel=1e-3)
