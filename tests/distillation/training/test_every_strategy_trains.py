"""Every strategy and hidden loss in a training step: what is learned changes, is saved, and goes on after a kill."""

from __future__ import annotations

import pytest
import torch

from anglekit.distillation.losses.objective import DistillationObjective, TeacherOutputs
from anglekit.distillation.matching.strategies import layer_matching
from anglekit.distillation.students.mixtures import groups_of
from anglekit.distillation.training.distillation_loss import DistillationLoss
from anglekit.distillation.training.mixture_angles import mixture_angles
from anglekit.distillation.training.trainer import DistillationTrainer
from anglekit.errors import InputError
from anglekit.vocabulary import ANGLE_AWARE, ATTENTION_LOSSES, HIDDEN_LOSS_NAMES, STRATEGIES, WIDTH_FREE_LOSSES
from tests.distillation.tiny_trainers import (
    arguments,
    collate,
    examples,
    make_student,
    make_teacher,
)

LEARNED = ("group-combination", "gated", "optimal-transport")


@pytest.fixture(scope="module")
def teacher():
    return make_teacher()


@pytest.fixture(scope="module")
def batch():
    return collate(examples(5))


@pytest.fixture(scope="module")
def students():
    return {width: make_student(width=width) for width in (16, 32)}


def loss_of(teacher, student, strategy, **options):
    student.zero_grad()
    matching = layer_matching(strategy, teacher_blocks=4, student_blocks=2, seed=0)
    return DistillationLoss(teacher, student, matching, **options)


@pytest.mark.parametrize("strategy", [name for name in STRATEGIES if name not in ("none", ANGLE_AWARE)])
def test_every_hidden_loss_goes_with_every_strategy_or_says_why_not(strategy, teacher, students, batch):
    combines = STRATEGIES[strategy].combines
    mixes = combines not in ("", "draw", "transport")
    for model in (teacher, students[32]):
        model.set_attn_implementation("eager")
    matched = len(layer_matching(strategy, teacher_blocks=4, student_blocks=2, seed=0).student_layers)
    for kind in HIDDEN_LOSS_NAMES:
        width = 16 if kind in ("mse", "gram") else 32
        student = students[width]
        undefined = kind == "feature-dynamics" and (combines == "transport" or matched < 2)
        undefined |= kind in ATTENTION_LOSSES and mixes
        if undefined or (combines == "attention" and width == 16 and kind in WIDTH_FREE_LOSSES):
            with pytest.raises(InputError, match=r"feature-dynamics|has no adapters|which has no attention"):
                loss_of(teacher, student, strategy, hidden_loss=kind)
            continue
        loss = loss_of(teacher, student, strategy, hidden_loss=kind)
        terms = loss.terms(batch)
        terms["hidden_encoder"].mean().backward()
        grads = [weight.grad for weight in student.bert.encoder.parameters() if weight.grad is not None]
        assert all(each.isfinite().all() for each in grads)
        assert sum(float(each.abs().sum()) for each in grads) > 0, f"{kind} teaches nothing"
        assert bool(loss.adapters.layers) == (width == 16 and kind not in WIDTH_FREE_LOSSES)
        assert set(map(id, loss.parameters())) >= {id(w) for w in (loss.mixtures.parameters() if loss.mixtures else ())}


def test_layer_attention_of_a_teacher_of_one_layer_is_forward(batch):
    one = make_teacher(layers=1)
    values = []
    for strategy in ("forward", "layer-attention"):
        matching = layer_matching(strategy, teacher_blocks=1, student_blocks=1)
        loss = DistillationLoss(one, make_teacher(layers=1, seed=1), matching)
        values.append(loss.terms(batch)["hidden_encoder"].total.detach())
    torch.testing.assert_close(*values)


def trainer(directory, strategy):
    """Return a trainer of two epochs of three steps, and a checkpoint each second step."""
    matching = layer_matching(strategy, teacher_blocks=4, student_blocks=2, seed=0)
    objective = DistillationObjective({"encoder": matching.pairs}, groups=groups_of([matching]))
    args = arguments(directory, max_steps=6, save_strategy="steps", save_steps=2, learning_rate=1e-2)
    return DistillationTrainer(
        make_student(),
        args,
        objective=objective,
        teacher=make_teacher(),
        train_dataset=examples(12),
        data_collator=collate,
    )


@pytest.mark.parametrize("strategy", [*LEARNED, "in-order-random"])
def test_what_a_strategy_learns_is_optimised_saved_and_resumed(strategy, tmp_path):
    whole = trainer(tmp_path, strategy)
    begun = {name: each.clone() for name, each in whole.mixtures.state_dict().items()}
    epochs = []
    taught = whole.mixtures.taught
    whole.mixtures.taught = lambda *given: (epochs.append(whole.mixtures.epoch), taught(*given))[1]
    whole.train()
    assert epochs == [0, 0, 0, 1, 1, 1]
    ended = whole.mixtures.state_dict()
    assert all(not each.equal(begun[name]) for name, each in ended.items()), "something did not change"
    optimised = {id(weight) for group in whole.optimizer.param_groups for weight in group["params"]}
    assert {id(weight) for weight in whole.mixtures.parameters()} <= optimised
    resumed = trainer(tmp_path, strategy)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))
    for one, other in ((ended, resumed.mixtures.state_dict()), (whole.model.state_dict(), resumed.model.state_dict())):
        assert all(each.equal(other[name]) for name, each in one.items())


def test_an_objective_with_groups_refuses_the_official_reading_and_a_missing_combination():
    groups = groups_of([layer_matching("gated", teacher_blocks=4, student_blocks=2)])
    with pytest.raises(InputError, match="official reading came"):
        DistillationObjective(groups=groups, reading="official", family="bert")
    objective = DistillationObjective(groups=groups)
    assert objective.teacher_layers == {"encoder": (1, 2, 3, 4)}
    assert objective.student_layers == {"encoder": (1, 2)}
    state = torch.zeros(1, 2, 4)
    with pytest.raises(InputError, match="nothing combines them"):
        objective._hidden("encoder", {}, {"encoder": {1: state, 2: state}}, TeacherOutputs(), None)


@pytest.mark.parametrize("strategy", ["layer-attention", "gated"])
def test_angles_of_a_mixture_are_those_of_each_token(strategy, teacher, students, batch):
    loss = loss_of(teacher, students[32], strategy)
    found = mixture_angles(loss, [batch, batch]).set_index(["vertex", "teacher_layer"])
    ((mask, states, kept),) = loss.hidden_states(batch).values()
    with torch.no_grad():
        targets = loss.mixtures.targets("encoder", states, kept, mask)
    for vertex, layers in loss.mixtures.groups["encoder"].of:
        for layer in layers:
            u, v = ((one - states[vertex])[mask != 0].double() for one in (targets[vertex], kept[layer]))
            cosine = torch.nn.functional.cosine_similarity(u, v, dim=-1)
            row = found.loc[(vertex, layer)]
            assert row["mean_angle_degrees"] == pytest.approx(float(torch.rad2deg(cosine.arccos()).mean()), abs=1e-3)
            assert row["n_tokens"] == 2 * int(mask.sum())
    assert not any(weight.grad is not None and weight.grad.any() for weight in loss.mixtures.parameters())


def test_a_mixture_of_one_layer_lies_in_its_direction_and_a_map_has_none(batch):
    one = make_teacher(layers=1)
    matching = layer_matching("layer-attention", teacher_blocks=1, student_blocks=1)
    alone = mixture_angles(DistillationLoss(one, make_teacher(layers=1, seed=1), matching), [batch])
    assert alone["mean_angle_degrees"].tolist() == pytest.approx([0.0], abs=1e-3)
    with pytest.raises(InputError, match="no mixture"):
        mixture_angles(DistillationLoss(one, make_teacher(layers=1, seed=1), "forward"), [batch])
