"""MiniLM's and MiniLMv2's relations: a case by hand, loops in float64, what they are blind to, padding."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from anglekit.distillation.losses.attention_relations import AttentionStates
from anglekit.distillation.losses.functional import attention_loss, hidden_loss
from anglekit.errors import InputError


def states(seed, *, batch=2, time=4, widths=(12, 12, 12), heads=3, value_heads=3, maps=False):
    generator = torch.Generator().manual_seed(seed)
    three = [torch.randn(batch, time, width, generator=generator) for width in widths]
    attention = torch.softmax(torch.randn(batch, heads, time, time, generator=generator), -1) if maps else None
    return AttentionStates(*three, heads, value_heads, attention)


def kl(p, q):
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True) if a > 0)


def relation(rows, row):
    """Return the softmax of a row's scaled products with all rows, in plain floats."""
    scores = [sum(a * b for a, b in zip(rows[row], other, strict=True)) / math.sqrt(len(other)) for other in rows]
    weights = [math.exp(score) for score in scores]
    return [weight / sum(weights) for weight in weights]


def looped(student, teacher, mask, heads):
    """Return the sum of a relation's KL over real tokens and the mean over heads, of one part of both sides."""
    total = 0.0
    for example, kept in enumerate(mask.bool().tolist()):
        real = [place for place, there in enumerate(kept) if there]
        for head in range(heads):
            rows = []
            for side in (student, teacher):
                size = side.shape[-1] // heads
                part = side[example, real, head * size : (head + 1) * size].double().tolist()
                rows.append(part)
            total += sum(kl(relation(rows[1], i), relation(rows[0], i)) for i in range(len(real))) / heads
    return total


MASK = torch.tensor([[1, 1, 1, 0], [0, 1, 1, 1]])


def test_worked_case():
    """Two tokens of one head, 1 wide: the teacher's rows are softmax(1, -1) and its mirror, the student's even."""
    one = torch.tensor([[[1.0], [-1.0]]])
    none = torch.zeros(1, 2, 1)
    teacher, student = AttentionStates(one, one, one, 1, 1), AttentionStates(none, none, none, 1, 1)
    p = math.exp(1) / (math.exp(1) + math.exp(-1))
    expected = 3 * kl([p, 1 - p], [0.5, 0.5])  # queries, keys, values
    assert float(attention_loss([(student, teacher)], None).mean()) == pytest.approx(expected, rel=1e-5)
    maps = torch.tensor([[[[0.75, 0.25], [1.0, 0.0]]]]), torch.full((1, 1, 2, 2), 0.5)
    pair = [(replace(student, attention=maps[1]), replace(teacher, attention=maps[0]))]
    by_map = (kl([0.75, 0.25], [0.5, 0.5]) + math.log(2)) / 2
    found = float(attention_loss(pair, None, kind="minilm").mean())
    assert found == pytest.approx(by_map + kl([p, 1 - p], [0.5, 0.5]), rel=1e-5)


@pytest.mark.parametrize("heads", [1, 2, 4])
def test_relations_are_those_of_loops_in_float64(heads):
    # Another width on either side, and grouped keys and values on the teacher's.
    student, teacher = states(0, widths=(8, 8, 8)), states(1, widths=(16, 8, 8), heads=4, value_heads=2)
    term = attention_loss([(student, teacher)], MASK, relation_heads=heads)
    parts = ("queries", "keys", "values")
    oracle = sum(looped(getattr(student, part), getattr(teacher, part), MASK, heads) for part in parts)
    assert float(term.total) == pytest.approx(oracle, rel=1e-5)
    assert int(term.count) == 6


def test_minilm_is_that_of_loops_in_float64():
    student, teacher = states(0, widths=(6, 6, 6), maps=True), states(1, maps=True)
    values = looped(student.values, teacher.values, MASK, 3)
    maps = 0.0
    for example in range(2):
        real = MASK[example].nonzero().squeeze(1)
        for head in range(3):
            for row in real.tolist():
                p, q = (side.attention[example, head, row, real].double() for side in (teacher, student))
                maps += kl((p / p.sum()).tolist(), (q / q.sum()).tolist()) / 3
    term = attention_loss([(student, teacher)], MASK, kind="minilm")
    assert float(term.total) == pytest.approx(values + maps, rel=1e-5)


def test_blind_to_a_rotation_of_each_relation_head_and_to_nothing_less():
    teacher = states(3)
    turn = torch.linalg.qr(torch.randn(4, 4, generator=torch.Generator().manual_seed(0))).Q
    turned = {part: getattr(teacher, part) @ torch.block_diag(turn, turn, turn) for part in ("queries", "keys")}
    assert float(attention_loss([(replace(teacher, **turned), teacher)], MASK).total) == pytest.approx(0.0, abs=1e-5)
    whole = torch.linalg.qr(torch.randn(12, 12, generator=torch.Generator().manual_seed(0))).Q
    for other in (teacher.queries @ whole, 2 * teacher.queries, teacher.queries.flip(1)):
        assert float(attention_loss([(replace(teacher, queries=other), teacher)], MASK).total) > 0.05


@pytest.mark.parametrize("kind", ["minilm", "minilm-v2"])
def test_padding_reaches_neither_value_nor_gradient(kind):
    student, teacher = states(0, batch=3, maps=True), states(1, batch=3, maps=True)
    mask = torch.cat([MASK, torch.zeros(1, 4, dtype=torch.long)])  # an example without any token too
    clean = attention_loss([(student, teacher)], mask, kind=kind)

    def dirty(side):
        parts = {name: getattr(side, name).masked_fill(mask[..., None] == 0, torch.nan) for name in ("queries", "keys")}
        both = (mask[:, None, :, None] * mask[:, None, None, :]) == 0
        attention = side.attention.masked_fill(both & (mask[:, None, :, None] == 0), torch.nan)
        return replace(side, **parts, attention=attention)

    ours = dirty(student)
    values = student.values.masked_fill(mask[..., None] == 0, torch.nan).requires_grad_()
    term = attention_loss([(replace(ours, values=values), dirty(teacher))], mask, kind=kind)
    torch.testing.assert_close(term.total.detach(), clean.total)
    assert int(term.count) == 6
    term.mean().backward()
    assert values.grad[mask == 0].eq(0).all()
    assert values.grad.isfinite().all()
    assert values.grad.abs().sum() > 0


def test_one_step_down_the_gradient_brings_the_relations_nearer():
    student, teacher = states(0, maps=True), states(1, maps=True)
    for kind in ("minilm", "minilm-v2"):
        values = student.values.clone().requires_grad_()
        before = attention_loss([(replace(student, values=values), teacher)], None, kind=kind).mean()
        before.backward()
        moved = replace(student, values=values.detach() - 0.5 * values.grad)
        after = attention_loss([(moved, teacher)], None, kind=kind)
        assert float(after.mean().detach()) < float(before.detach()) - 1e-3


def test_what_cannot_be_compared_is_refused():
    student, teacher = states(0, widths=(8, 8, 8), heads=2, value_heads=2, maps=True), states(1, maps=True)
    with pytest.raises(InputError, match=r"5 relation heads came, and the student's queries are 8 wide.*such as 1"):
        attention_loss([(student, teacher)], None, relation_heads=5)
    with pytest.raises(InputError, match="head by head"):
        attention_loss([(student, teacher)], None, kind="minilm")
    with pytest.raises(InputError, match="none came"):
        attention_loss([(replace(student, attention=None), teacher)], None, kind="minilm")
    with pytest.raises(InputError, match="the mask has shape"):
        attention_loss([(student, teacher)], torch.ones(2, 3))
    with pytest.raises(InputError, match="states came"):
        hidden_loss([(student.queries, teacher.queries)], None, kind="minilm-v2")
