"""Tasks that take turns: each sees its own random states, the one furthest behind is next, one failure stays alone."""

from __future__ import annotations

import contextvars
import random

import numpy as np
import pytest
import torch
from accelerate.state import GradientState
from hypothesis import given, settings
from hypothesis import strategies as st

from anglekit.distillation.losses.objective import DistillationObjective
from anglekit.distillation.matching.strategies import layer_matching
from anglekit.distillation.sweep.lockstep import HandOver, take_turns
from anglekit.distillation.sweep.shared_teacher import MarkedBatches, SharedTeacher, batch_mark
from anglekit.distillation.training.process_states import ProcessStates
from anglekit.distillation.training.teacher import TeacherForward
from anglekit.errors import InputError, RunError


def draw():
    """Draw from every global random state."""
    return (torch.rand(()).item(), np.random.random(), random.random())  # noqa: NPY002


def seed(number):
    torch.manual_seed(number)
    np.random.seed(number)  # noqa: NPY002
    random.seed(number)


def drawing_task(number, steps, drawn):
    def task(turn):
        seed(number)
        for step in range(steps):
            drawn.append(draw())
            turn.pass_on((step + 1, 0))
        drawn.append(draw())

    return task


def alone(number, steps):
    seed(number)
    return [draw() for _ in range(steps + 1)]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=5))
def test_each_task_draws_what_it_draws_alone(lengths):
    drawn = [[] for _ in lengths]
    outcomes = take_turns([drawing_task(n, steps, drawn[n]) for n, steps in enumerate(lengths)])
    assert [outcome.error for outcome in outcomes] == [None] * len(lengths)
    assert drawn == [alone(number, steps) for number, steps in enumerate(lengths)]


def test_without_swapping_the_draws_would_differ(monkeypatch):
    """Negative control: the test above sees states that are not swapped."""
    monkeypatch.setattr(ProcessStates, "restore", lambda *_: None)
    drawn = [[], []]
    take_turns([drawing_task(n, 3, drawn[n]) for n in range(2)])
    assert drawn[0] != alone(0, 3)


def test_the_callers_random_states_are_left_as_they_were():
    seed(7)
    expected = draw()
    seed(7)
    take_turns([drawing_task(n, 2, []) for n in range(3)])
    assert draw() == expected


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 4)), min_size=1, max_size=5))
def test_whoever_runs_is_furthest_behind(shapes):
    """Tasks that begin at different positions meet, and what all have passed is reported before the next one runs."""
    positions = dict.fromkeys(range(len(shapes)), -1)
    over = set()
    passed = []

    def task(number, first, steps):
        def work(turn):
            for position in range(first, first + steps):
                positions[number] = position
                turn.pass_on((position, 0))
                others = [at for other, at in positions.items() if other not in over]
                assert position == min(others)
                assert not passed or passed[-1] <= min(others)
            over.add(number)

        return work

    def report():
        passed.append(min((at for other, at in positions.items() if other not in over), default=99))

    outcomes = take_turns([task(n, *shape) for n, shape in enumerate(shapes)], when_all_passed=report)
    assert [outcome.error for outcome in outcomes] == [None] * len(shapes)
    assert passed == sorted(passed)
    assert passed[-1] == 99


def test_ties_go_round_in_order():
    order = []

    def task(number):
        def work(turn):
            for step in range(2):
                order.append((step, number))
                turn.pass_on((step, 1))

        return work

    take_turns([task(number) for number in range(3)])
    assert order == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]


def test_a_failure_ends_one_task_and_is_reported():
    finished = []

    def good(turn):
        for step in range(4):
            turn.pass_on((step, 0))
        finished.append(True)

    def bad(turn):
        turn.pass_on((1, 0))
        raise RunError("no longer finite")

    outcomes = take_turns([good, bad, good])
    assert [type(outcome.error) for outcome in outcomes] == [type(None), RunError, type(None)]
    assert finished == [True, True]


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, SystemExit])
def test_an_interruption_unwinds_those_that_wait_and_is_raised_again(interruption):
    events = []

    def waiting(turn):
        try:
            turn.pass_on((3, 0))
            events.append("went on")
        finally:
            events.append("closed")

    def interrupted(turn):
        turn.pass_on((0, 0))
        raise interruption

    def late(turn):
        turn.pass_on((4, 0))
        events.append("late")

    seed(7)
    expected = draw()
    seed(7)
    with pytest.raises(interruption):
        take_turns([waiting, interrupted, waiting, late])
    assert events == ["closed", "closed"]
    assert draw() == expected


def test_what_accelerate_holds_for_the_process_goes_with_the_turn():
    state = GradientState()
    before = state.sync_gradients
    seen = []

    def task(number):
        def work(turn):
            state._set_sync_gradients(bool(number))
            state.dataloader_references = [None] * (number + 1)
            turn.pass_on((0, 0))
            seen.append((state.sync_gradients, len(state.dataloader_references)))

        return work

    take_turns([task(0), task(1)])
    assert seen == [(False, 1), (True, 2)]
    assert state.sync_gradients is before


def test_a_task_sees_the_callers_context():
    variable = contextvars.ContextVar("variable", default="unset")
    token = variable.set("set")
    seen = []
    take_turns([lambda _turn: seen.append(variable.get())])
    variable.reset(token)
    assert seen == ["set"]


def test_seconds_are_a_tasks_own():
    now = [0.0]

    def task(cost):
        def work(turn):
            for step in range(3):
                now[0] += cost
                turn.pass_on((step, 0))
            assert turn.seconds == 3 * cost

        return work

    outcomes = take_turns([task(1.0), task(10.0)], clock=lambda: now[0])
    assert [(outcome.error, outcome.seconds) for outcome in outcomes] == [(None, 3.0), (None, 30.0)]


def test_the_callback_reports_steps_and_micro_batches():
    class Recorder:
        def __init__(self):
            self.positions = []

        def pass_on(self, position):
            self.positions.append(position)

    class State:
        global_step = 4

    turn, state = Recorder(), State()
    callback = HandOver(turn)
    callback.on_train_begin(None, state, None)
    callback.on_substep_end(None, state, None)
    callback.on_substep_end(None, state, None)
    state.global_step = 5
    callback.on_step_end(None, state, None)
    callback.on_substep_end(None, state, None)
    assert turn.positions == [(4, 0), (4, 1), (4, 2), (5, 0), (5, 1)]


# ---- the shared teacher ----


def objective(strategy, **options):
    matching = layer_matching(strategy, teacher_blocks=4, student_blocks=2)
    return DistillationObjective({"encoder": matching.pairs}, **options)


@pytest.fixture
def teacher(tiny_model):
    return tiny_model("bert", depth=4, head=True)


def batch(number, rows=3, length=5):
    ids = torch.randint(4, 24, (rows, length), generator=torch.Generator().manual_seed(number))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": torch.tensor([0, 1, 0][:rows])}


def test_each_batch_is_computed_once_with_all_that_anybody_reads(teacher):
    objectives = [objective("forward"), objective("reverse"), objective("all-to-one"), objective("none")]
    shared = SharedTeacher(teacher, objectives)
    answers = [shared(batch(0)) for _ in objectives]
    assert (shared.passes, shared.answers, shared.most_held) == (1, 4, 1)
    for wanted, answer in zip(objectives, answers, strict=True):
        own = TeacherForward(teacher, wanted.teacher_layers)(batch(0))
        assert torch.equal(own.logits, answer.logits)
        for layer, state in own.hidden.get("encoder", {}).items():
            assert torch.equal(state, answer.hidden["encoder"][layer])
    shared.forget()
    shared(batch(0))
    assert shared.passes == 2


def test_logits_are_computed_only_where_somebody_reads_them(teacher):
    from anglekit.distillation.losses.weights import LossWeights

    hidden_only = objective("forward", weights=LossWeights(1.0, 0.0, 3.0))
    assert SharedTeacher(teacher, [hidden_only])(batch(0)).logits is None
    assert SharedTeacher(teacher, [hidden_only, objective("none")])(batch(0)).logits is not None


@pytest.mark.parametrize(
    "other",
    [
        batch(1),
        batch(0) | {"attention_mask": torch.tensor([[1, 1, 1, 1, 0]] * 3)},
        batch(0) | {"labels": torch.tensor([1, 1, 0])},
        {key: value for key, value in batch(0).items() if key != "attention_mask"},
        {key: value.reshape(-1, 3) if value.dim() == 2 else value for key, value in batch(0).items()},
        batch(0) | {"input_ids": batch(0)["input_ids"].int()},
    ],
    ids=["ids", "mask", "labels", "fewer", "shape", "dtype"],
)
def test_batches_of_other_contents_are_never_shared(other):
    assert batch_mark(batch(0)) == batch_mark(batch(0))
    assert batch_mark(batch(0)) != batch_mark(other)


def test_a_mark_made_by_the_collator_is_the_one_made_later(teacher):
    marked = MarkedBatches(lambda _examples: batch(0))([])
    shared = SharedTeacher(teacher, [objective("forward")])
    shared(marked)
    shared(batch(0))
    assert (shared.passes, shared.answers) == (1, 2)


def test_readings_that_mean_different_states_are_not_shared(tiny_model, teacher):
    with pytest.raises(InputError, match="corrected and the official reading cannot share"):
        SharedTeacher(teacher, [objective("forward"), objective("forward", reading="official")])
