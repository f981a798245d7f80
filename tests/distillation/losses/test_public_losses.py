"""What `anglekit.losses` gives to a loop of one's own: each is usable alone, masked, with a gradient."""

from __future__ import annotations

from inspect import isfunction

import torch

from anglekit import losses

MASK = torch.tensor([[1, 1, 1, 0], [1, 1, 0, 0], [1, 1, 1, 1]])


def states(seed, width=6):
    return torch.randn(3, 4, width, generator=torch.Generator().manual_seed(seed))


def values_of(student, teacher):
    """Return every public loss of one batch; the student's states are also read as logits and projections."""
    labels = torch.where(MASK != 0, 2, -100)
    pair = tuple(losses.AttentionStates(each, each, each, heads=2, value_heads=2) for each in (student, teacher))
    found = {f"relation {kind}": losses.relation(kind, student, teacher, MASK) for kind in losses.RELATIONS}
    for kind in losses.DIVERGENCES:
        found[f"kl {kind}"] = losses.kl_divergence(student, teacher, MASK, direction=kind, top_k=3).mean()
    for name in ("gram", "linear_cka", "procrustes"):
        found[name] = getattr(losses, name)(losses.token_rows(student, MASK), losses.token_rows(teacher, MASK))
    for name in ("relational", "infonce"):
        found[name] = getattr(losses, name)(losses.example_means(student, MASK), losses.example_means(teacher, MASK))
    for name, distance in losses.HIDDEN_LOSSES.items():
        found[name] = distance(losses.token_rows(student, MASK), losses.token_rows(teacher, MASK)).mean()
        found[f"hidden {name}"] = losses.hidden_loss([(student, teacher)], MASK, kind=name).mean()
    dynamics = [(student, teacher), (2 * student, teacher)]
    found["feature-dynamics"] = losses.hidden_loss(dynamics, MASK, kind="feature-dynamics").mean()
    found["minilm-v2"] = losses.attention_loss([pair], MASK).mean()
    found["ce"] = losses.cross_entropy(student, labels).mean()
    both = losses.cross_entropy_and_kl(student, teacher, labels)
    return found | {"joined ce": both[0].mean(), "joined kl": both[1].mean()}


def test_each_is_usable_alone_and_masked():
    clean, teacher = states(0), states(1)
    expected = values_of(clean, teacher)
    dirty = clean.masked_fill(MASK[..., None] == 0, torch.nan)
    for name in expected:
        student = dirty.clone().requires_grad_()
        value = values_of(student, teacher.masked_fill(MASK[..., None] == 0, torch.nan))[name]
        torch.testing.assert_close(value.detach(), expected[name], msg=name)
        value.backward()
        assert student.grad.isfinite().all(), name
        assert student.grad[MASK == 0].eq(0).all(), name
        assert student.grad.abs().sum() > 0, name
    torch.testing.assert_close(expected["joined ce"], expected["ce"])
    torch.testing.assert_close(expected["joined kl"], expected["kl forward"])
    torch.testing.assert_close(expected["relation gram"], expected["gram"])


def test_every_public_name_is_there_and_says_what_it_is():
    functions = [name for name in losses.__all__ if isfunction(getattr(losses, name))]
    assert len(functions) > 20
    for name in functions:
        assert getattr(losses, name).__doc__, name
