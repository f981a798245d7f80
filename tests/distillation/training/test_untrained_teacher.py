"""The untrained teacher of the control `random-teacher`: drawn from the arm's seed, read for hidden states only."""

from __future__ import annotations

import pytest
import torch

from anglekit.distillation.losses.weights import LossWeights
from anglekit.distillation.students.create import create_student
from anglekit.distillation.training.teacher import TeacherForward
from anglekit.distillation.training.untrained_teacher import HiddenOfAnother, untrained_teacher
from tests.distillation.tiny_trainers import collate, examples, make_teacher, make_trainer, objective_for


def same(one, other):
    theirs = dict(other.named_parameters())
    return all(torch.equal(weight, theirs[name]) for name, weight in one.named_parameters() if weight.dim() > 1)


def test_it_has_the_teachers_shape_and_follows_from_the_seed():
    teacher = make_teacher()
    before = torch.get_rng_state()
    one, again, other = (untrained_teacher(teacher, seed) for seed in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), before)
    shapes = [{name: weight.shape for name, weight in model.named_parameters()} for model in (teacher, one)]
    assert shapes[0] == shapes[1]
    assert same(one, again)
    assert not same(one, other)
    assert not same(one, teacher)
    assert one.config is not teacher.config


def test_a_students_random_weights_do_not_repeat_in_it():
    """Drawn from the seed itself, a student as deep as its teacher would begin as the untrained teacher."""
    teacher = make_teacher()
    student = create_student(teacher, layers=4, init="random", seed=3)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        plain = type(teacher)(teacher.config)
    words = [model.get_input_embeddings().weight for model in (student, plain, untrained_teacher(teacher, 3))]
    assert torch.equal(words[0], words[1])
    # Row 0 is the padding's, zero in all.
    pairs = torch.corrcoef(torch.stack([words[0][1:].flatten(), words[2][1:].flatten()]).detach())
    assert abs(pairs[0, 1]) < 0.15


def test_its_precision_is_the_teachers():
    assert untrained_teacher(make_teacher().to(torch.bfloat16), 0).dtype == torch.bfloat16


@pytest.mark.parametrize("kl", [1.0, 0.0])
def test_logits_are_the_trained_teachers_and_hidden_states_are_not(kl):
    teacher = make_teacher()
    objective, _ = objective_for("forward", weights=LossWeights(1.0, kl, 3.0))
    inputs = collate(examples(5))
    taught = HiddenOfAnother.of_untrained(teacher, objective, 7)(inputs)
    trained = TeacherForward(teacher, objective.teacher_layers)(inputs)
    untrained = TeacherForward(untrained_teacher(teacher, 7), objective.teacher_layers)(inputs)
    assert (taught.logits is None) == (kl == 0.0)
    if taught.logits is not None:
        assert torch.equal(taught.logits, trained.logits)
        assert not torch.equal(taught.logits, untrained.logits)
    layers = objective.teacher_layers["encoder"]
    assert tuple(taught.hidden["encoder"]) == layers
    for layer in layers:
        assert torch.equal(taught.hidden["encoder"][layer], untrained.hidden["encoder"][layer])
        assert not torch.allclose(taught.hidden["encoder"][layer], trained.hidden["encoder"][layer])


def test_the_trainer_reads_both(tmp_path):
    """Of the first step's terms, cross-entropy and KL are those of the plain student; the hidden loss is another."""
    first = []
    for name in ("trained", "untrained"):
        options = {}
        if name == "untrained":
            objective, _ = objective_for("forward", weights=LossWeights())
            options["teacher_forward"] = HiddenOfAnother.of_untrained(make_teacher(), objective, 0)
        trainer = make_trainer(tmp_path / name, **options)
        trainer.train()
        first.append(trainer.state.log_history[0])
    trained, untrained = first
    assert trained["loss_ce"] == untrained["loss_ce"]
    assert trained["loss_kl"] == untrained["loss_kl"]
    assert trained["loss_hidden"] != pytest.approx(untrained["loss_hidden"], rel=1e-3)
