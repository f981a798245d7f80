"""Plans of controls: what each takes away, of which strategy, what is said of it and what is refused."""

from __future__ import annotations

import json

import pytest
import transformers as hf

from anglekit.distillation.losses.weights import LossWeights
from anglekit.distillation.matching.plan import DistillationPlan, named_differences, plan_distillation
from anglekit.distillation.matching.plan_text import plan_text
from anglekit.distillation.matching.plan_warnings import comparison_warnings, plan_warnings
from anglekit.distillation.matching.strategies import controlled_strategies
from anglekit.errors import InputError
from anglekit.vocabulary import CONTROL_ARMS, CONTROLS, STRATEGIES, matches_layers

BERT = hf.BertConfig()


def plan(strategy=None, control=None, **options):
    return plan_distillation(BERT, teacher="a-teacher", strategy=strategy, control=control, layers=3, **options)


def test_controls_are_no_strategies():
    assert CONTROLS == ("alone", "random-teacher") == tuple(CONTROL_ARMS)
    assert not set(CONTROLS) & set(STRATEGIES)
    assert [name for name in (*STRATEGIES, *CONTROLS, "explicit", "mine") if matches_layers(name)] == [
        *(name for name in STRATEGIES if name != "none"),
        *("explicit", "mine"),
    ]


@pytest.mark.parametrize("init", ["random", "teacher"])
def test_alone_is_none_without_its_kl(init):
    weights = LossWeights(0.5, 2.0, 3.0)
    alone, none = plan(control="alone", init=init, weights=weights), plan("none", init=init, weights=weights)
    assert (alone.strategy, alone.matched_as, alone.matchings) == ("alone", "none", none.matchings)
    assert alone.weights == LossWeights(0.5, 0.0, 0.0)
    assert plan("none", control="alone", init=init, weights=weights) == alone
    assert alone.student_options() == none.student_options()
    assert not alone.reads_untrained_teacher
    assert named_differences(none.facts(), alone.facts()) == [
        "strategy: none here, alone there",
        "weights (ce, kl, hidden): (0.5, 2.0, 3.0) here, (0.5, 0.0, 0.0) there",
        "control of: absent here, none there",
    ]


def test_alone_learns_from_labels_where_the_others_do_not():
    assert plan(control="alone", weights=LossWeights(0.0, 1.0, 3.0)).weights == LossWeights(1.0, 0.0, 0.0)


@pytest.mark.parametrize("strategy", ["forward", "all-to-one"])
def test_a_random_teacher_changes_nothing_but_whose_states_are_read(strategy):
    control, plain = plan(strategy, "random-teacher", seed=5), plan(strategy, seed=5)
    assert (control.strategy, control.matched_as) == ("random-teacher", strategy)
    assert (control.matchings, control.weights) == (plain.matchings, plain.weights)
    assert control.student_options() == plain.student_options()
    assert control.reads_untrained_teacher
    assert not plain.reads_untrained_teacher
    assert named_differences(plain.facts(), control.facts()) == [
        f"strategy: {strategy} here, random-teacher there",
        f"control of: absent here, {strategy} there",
    ]
    assert not plan(strategy, "random-teacher", weights=LossWeights(1.0, 1.0, 0.0)).reads_untrained_teacher


def test_a_map_of_ones_own_may_have_a_random_teacher():
    made = plan(None, "random-teacher", layer_map={"encoder": [(1, 4)]})
    assert (made.strategy, made.matched_as) == ("random-teacher", "explicit")


@pytest.mark.parametrize(("strategy", "control"), [(None, "alone"), ("reverse", "random-teacher")])
def test_every_plan_survives_json_and_an_earlier_one_has_no_control(strategy, control):
    made = plan(strategy, control)
    written = json.loads(json.dumps(made.to_json()))
    assert (written["strategy"], written["control"]) == (control, control)
    assert DistillationPlan.from_json(written) == made
    earlier = plan("forward").to_json()
    del earlier["control"]
    assert DistillationPlan.from_json(earlier) == plan("forward")


def test_a_plan_says_that_it_is_a_control_and_of_what():
    head = plan_text(plan("forward", "random-teacher")).split("\n\n")[0].splitlines()
    assert head[2].startswith("control   random-teacher, of the strategy below: hidden states are those of an")
    assert "runs once a batch beside the trained one" in head[2]
    assert head[3].startswith("strategy  forward: ")
    assert head[4] == "loss      1 x cross-entropy + 1 x KL + 3 x hidden (mse), corrected reading"
    alone = plan_text(plan(control="alone")).split("\n\n")[0].splitlines()
    assert alone[2].endswith("labels only, and no teacher runs")
    assert alone[3:] == ["strategy  none: no hidden loss", "loss      1 x cross-entropy, corrected reading"]
    assert "control" not in plan_text(plan("forward"))


def test_warnings():
    assert plan_warnings(plan(control="alone")) == ()
    assert plan_warnings(plan("forward", "random-teacher")) == ()
    idle = plan("forward", "random-teacher", weights=LossWeights(1.0, 1.0, 0.0))
    assert plan_warnings(idle) == (
        "the hidden loss has weight 0, so strategy 'random-teacher' trains the same student as 'none'",
    )


def test_adapters_that_lead_to_the_untrained_teacher_are_warned_of():
    (warning,) = plan_warnings(plan("forward", "random-teacher", width=384))
    assert (
        "adapters of control 'random-teacher' lead to its untrained teacher: angles at the trained one need" in warning
    )
    assert plan_warnings(plan("forward", width=384)) == ()


def test_controls_spoil_no_comparison():
    arms = [plan("none"), plan("forward"), plan("reverse")]
    controls = [plan(control="alone"), plan("forward", "random-teacher")]
    assert comparison_warnings([*arms, *controls]) == ()
    # Without the exception of controls the same plans would be warned of.
    assert any("weights" in text for text in comparison_warnings([*arms, plan("none", weights=LossWeights(1, 0, 0))]))
    (missing,) = comparison_warnings([*arms, *controls, plan("none", seed=9), plan("forward", seed=9),
                                      plan("reverse", seed=9), plan(control="alone", seed=9)])  # fmt: skip
    assert missing.startswith("strategy 'random-teacher' has no arm with init random and seed 9")


def test_a_control_that_takes_nothing_away_is_named():
    weights = LossWeights(1.0, 0.0, 3.0)
    plans = [plan("none", weights=weights), plan("forward", weights=weights), plan(control="alone", weights=weights)]
    assert comparison_warnings(plans) == ("the KL has weight 0, so control 'alone' trains the same student as 'none'",)


@pytest.mark.parametrize(
    ("strategies", "given", "of"),
    [
        (("none", "reverse", "forward"), None, "forward"),
        (("none", "reverse", "random"), None, "reverse"),
        (("none", "reverse", "forward"), "reverse", "reverse"),
        (("none", "random"), "reverse", "random"),
    ],
)
def test_a_random_teacher_is_a_control_of_forward_or_else_of_the_first(strategies, given, of):
    assert controlled_strategies(CONTROLS, strategies, given) == {"alone": "none", "random-teacher": of}
    assert controlled_strategies((), strategies) == {}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: plan("forward", "random-techer"), "no control 'random-techer'; did you mean 'random-teacher'"),
        (lambda: plan("forward", "alone"), "alone came with strategy 'forward', and matches no layer; leave one"),
        (lambda: plan(None, "alone", layer_map={"encoder": [(1, 4)]}), "control alone came with a map"),
        (lambda: plan("none", "random-teacher"), "no layer is matched, so there is nothing to replace; give"),
        (lambda: plan(None, "random-teacher"), "no strategy ''"),
        (lambda: controlled_strategies(CONTROLS, ("none",)), r"no strategy matches layers \(strategies: none\)"),
        (
            lambda: DistillationPlan.from_json({**plan("none").to_json(), "control": "alone"}),
            "control alone came with a KL",
        ),
    ],
)
def test_wrong_input_is_named(call, message):
    with pytest.raises(InputError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
