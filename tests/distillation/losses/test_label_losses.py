"""Losses on several labels an example and on numbers, beside float64 sums by hand and transformers' own."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import BertConfig, BertForSequenceClassification

from anglekit.distillation.losses.functional import cross_entropy, kl_divergence
from anglekit.distillation.losses.label_losses import binary_cross_entropy, binary_kl_divergence, squared_error
from anglekit.distillation.losses.objective import DistillationObjective, TeacherOutputs
from anglekit.distillation.losses.weights import LossWeights
from anglekit.distillation.training.distillation_loss import DistillationLoss
from anglekit.errors import InputError


def drawn(seed, examples=5, labels=3, scale=3.0):
    draw = np.random.default_rng(seed)
    student, teacher = (draw.normal(scale=scale, size=(examples, labels)) for _ in range(2))
    return torch.tensor(student), torch.tensor(teacher), torch.tensor(draw.integers(0, 2, (examples, labels)))


def sigmoid(value):
    return 1.0 / (1.0 + math.exp(-value))


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.0, 0.1]), st.booleans())
def test_binary_cross_entropy_is_its_definition(seed, smoothing, weighted):
    logits, _, labels = drawn(seed)
    weights = [1.0, 2.5, 0.5] if weighted else [1.0] * 3
    total = 0.0
    for row, truth in zip(logits.tolist(), labels.tolist(), strict=True):
        for value, there, weight in zip(row, truth, weights, strict=True):
            share = there * (1 - smoothing) + smoothing / 2
            total -= (weight * share * math.log(sigmoid(value)) + (1 - share) * math.log(sigmoid(-value))) / 3
    term = binary_cross_entropy(
        logits, labels, label_smoothing=smoothing, positive_weights=torch.tensor(weights) if weighted else None
    )
    assert term.total.item() == pytest.approx(total, rel=1e-12)
    assert term.count.item() == 5


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.5, 1.0, 3.0]), st.sampled_from(["forward", "reverse"]))
def test_kl_of_each_label_is_that_of_two_answers(seed, temperature, direction):
    student, teacher, _ = drawn(seed)
    total = 0.0
    for ours, theirs in zip(student.flatten().tolist(), teacher.flatten().tolist(), strict=True):
        first, second = (theirs, ours) if direction == "forward" else (ours, theirs)
        for sign in (1.0, -1.0):
            p, q = sigmoid(sign * first / temperature), sigmoid(sign * second / temperature)
            total += temperature**2 * p * math.log(p / q) / 3
    term = binary_kl_divergence(student, teacher, temperature=temperature, direction=direction)
    assert term.total.item() == pytest.approx(total, rel=1e-9)
    assert term.count.item() == 5
    assert binary_kl_divergence(teacher, teacher, temperature=temperature).total.item() == pytest.approx(0.0, abs=1e-12)


def test_certain_answers_have_finite_losses_and_gradients():
    student = torch.tensor([[80.0, -80.0]], requires_grad=True)
    term = binary_kl_divergence(student, -student.detach())
    term.total.backward()
    assert term.total.item() == pytest.approx(80.0 * 2 / 2, rel=1e-6)
    assert torch.isfinite(student.grad).all()


def test_squared_error_takes_one_number_an_example():
    predicted, target = torch.tensor([[1.0], [3.0], [-2.0]]), torch.tensor([2.0, 3.0, 1.0])
    term = squared_error(predicted, target)
    assert (term.total.item(), term.count.item()) == (10.0, 3)
    assert squared_error(predicted, target[:, None]).total.item() == 10.0
    with pytest.raises(InputError, match="one number of each for every example"):
        squared_error(torch.zeros(3, 2), target)
    with pytest.raises(InputError, match=r"logits have shape \(3, 2\) and labels \(3,\)"):
        binary_cross_entropy(torch.zeros(3, 2), target)


def test_class_weights_are_torchs_own_weighted_mean():
    logits, labels = drawn(0, examples=6)[0], torch.tensor([0, 1, 2, -100, 1, 0])
    weights = torch.tensor([0.5, 1.0, 4.0])
    for smoothing in (0.0, 0.2):
        term = cross_entropy(logits, labels, class_weights=weights, label_smoothing=smoothing)
        oracle = torch.nn.functional.cross_entropy(logits, labels, weights.double(), label_smoothing=smoothing)
        assert term.mean().item() == pytest.approx(oracle.item(), rel=1e-12)
    assert cross_entropy(logits, labels).mean().item() != pytest.approx(oracle.item(), rel=1e-3)


PROBLEMS = {
    "multi_label_classification": (3, torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 0.0], [1.0, 1.0, 1.0]])),
    "regression": (1, torch.tensor([0.5, -2.0, 3.0])),
    "single_label_classification": (3, torch.tensor([2, 0, 1])),
}


@pytest.fixture(scope="module")
def heads():
    """A teacher and a student for each problem type, tiny."""
    shape = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    found = {}
    for problem, (outputs, _) in PROBLEMS.items():
        config = BertConfig(vocab_size=20, **shape, num_labels=outputs, problem_type=problem)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            found[problem] = tuple(BertForSequenceClassification(config).eval() for _ in range(2))
    return found


@pytest.mark.parametrize("problem", PROBLEMS)
def test_a_models_own_problem_type_is_what_is_trained(heads, problem):
    """Labels give transformers' loss, the teacher is compared in the same way, and split batches add up."""
    teacher, student = heads[problem]
    labels = PROBLEMS[problem][1]
    batch = {"input_ids": torch.randint(1, 20, (3, 5), generator=torch.Generator().manual_seed(1)), "labels": labels}
    loss = DistillationLoss(teacher, student, "none", weights=LossWeights(1.0, 1.0, 0.0))
    assert loss.objective.problem_type == problem
    terms = loss.terms(batch)
    with torch.no_grad():
        assert terms["ce"].mean().item() == pytest.approx(student(**batch).loss.item(), rel=1e-6)
        ours, theirs = (model(batch["input_ids"]).logits for model in (student, teacher))
    expected = {
        "multi_label_classification": lambda: binary_kl_divergence(ours, theirs),
        "regression": lambda: squared_error(ours, theirs),
        "single_label_classification": lambda: kl_divergence(ours, theirs),
    }[problem]()
    assert terms["kl"].mean().item() == pytest.approx(expected.mean().item(), rel=1e-6)
    parts = [{name: value[rows] for name, value in batch.items()} for rows in (slice(0, 1), slice(1, 3))]
    counts = loss.objective.counts(parts)
    for name, whole in terms.items():
        assert counts[name].item() == whole.count.item()
        halves = sum(loss.terms(part)[name].total.item() for part in parts)
        assert halves == pytest.approx(whole.total.item(), rel=1e-5, abs=1e-7)


def test_class_weights_are_counted_over_the_whole_step():
    objective = DistillationObjective(
        weights=LossWeights(1.0, 0.0, 0.0), causal=False, class_weights=(1.0, 3.0), label_smoothing=0.1
    )
    batch = {"input_ids": torch.ones(4, 2), "labels": torch.tensor([0, 1, 1, -100])}
    terms = objective.terms(batch, torch.randn(4, 2), {}, TeacherOutputs())
    assert objective.counts([batch])["ce"].item() == terms["ce"].count.item() == 7.0


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"problem_type": "ranking"}, "no problem type 'ranking'"),
        ({"problem_type": "regression", "class_weights": (1.0, 2.0)}, "class weights came for a regression"),
        ({"problem_type": "regression", "label_smoothing": 0.1}, "label smoothing came for a regression"),
        ({"class_weights": (1.0, -1.0)}, "allowed: finite numbers from 0"),
    ],
)
def test_what_does_not_go_together_is_refused(fields, message):
    with pytest.raises(InputError, match=message):
        DistillationObjective(**fields)
