"""Advice says what the evidence holds, and no more; its predictors are what the protocol defines."""

from __future__ import annotations

import json

import msgspec
import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification

import anglekit
from anglekit.advice import advise as advising
from anglekit.advice.advise import advise, usual_task
from anglekit.advice.evidence import HeldOutRule, evidence, fitted_rule
from anglekit.advice.predictors import CHOICES, NUMBERS, measure_predictors
from anglekit.parameter_space.measure import open_measurement
from anglekit.parameter_space.settings import GradientSettings
from tests.distillation.run_corpus import write_reviews, write_teacher

FEW = GradientSettings(examples=30, group=3, pairs=False)


@pytest.fixture(scope="module")
def classifier(tmp_path_factory, tiny_model, tiny_tokenizer, words):
    place = tmp_path_factory.mktemp("classifier")
    return write_teacher(place / "teacher", tiny_model, tiny_tokenizer()), write_reviews(place / "r.tsv", words, 30)


@pytest.fixture(scope="module")
def opened(classifier):
    teacher, table = classifier
    return open_measurement(
        teacher,
        probe=table,
        task="classification",
        maps={"depth-1": {"encoder": [(1, 1), (2, 1)]}, "depth-4": {"encoder": [(1, 4), (2, 4)]}},
        layers=2,
        init="teacher",
        settings=FEW,
        device="cpu",
    )


@pytest.fixture(scope="module")
def measured(opened):
    return measure_predictors(opened, depths=["depth-1", "depth-4"])


def test_every_predictor_of_the_protocol_is_measured(measured):
    assert tuple(measured.numbers) == NUMBERS
    assert list(measured.strategies.columns) == list(measured.depths.columns) == list(CHOICES)
    assert list(measured.strategies.index) == ["forward", "reverse", "all-to-one", "random"]
    assert list(measured.depths.index) == ["depth-1", "depth-4"]
    values = [*measured.numbers.values(), *measured.strategies.to_numpy().ravel(), *measured.depths.to_numpy().ravel()]
    assert np.isfinite(np.array(values, dtype=float)).all()


def test_predictors_of_states_are_those_of_plain_arrays(opened, measured, classifier):
    """Block influence, angular distance and angles from transformers' own hidden states."""
    teacher = AutoModelForSequenceClassification.from_pretrained(classifier[0]).double().eval()
    influence, distance = [], []
    for batch in opened.batches:
        with torch.no_grad():
            given = {name: value for name, value in batch.items() if name != "labels"}
            states = teacher(**given, output_hidden_states=True).hidden_states
        mask = batch["attention_mask"] != 0
        cosine = [torch.cosine_similarity(states[n][mask], states[n + 1][mask], dim=-1) for n in range(len(states) - 1)]
        influence.append(1.0 - torch.stack(cosine))
        ends = mask.sum(1) - 1
        last = [state[torch.arange(len(ends)), ends] for state in states]
        angles = [torch.arccos(torch.cosine_similarity(last[n], last[n + 2], dim=-1)) for n in range(3)]
        distance.append(torch.stack(angles) / torch.pi)
    # Four teacher blocks and two of the student: cuts of two.
    assert measured.numbers["block influence"] == pytest.approx(float(torch.cat(influence, 1).mean()), abs=1e-4)
    assert measured.numbers["angular distance"] == pytest.approx(float(torch.cat(distance, 1).mean()), abs=1e-4)
    assert measured.strategies.loc["forward", "block influence"] == pytest.approx(
        float(torch.cat(influence, 1)[[1, 3]].mean()), abs=1e-4
    )


def test_gradients_of_maps_are_those_of_strategies(opened, measured, classifier):
    found = anglekit.gradients(
        classifier[0],
        probe=classifier[1],
        task="classification",
        layers=2,
        init="teacher",
        settings=FEW,
        device="cpu",
    )
    agreement = found.agreement().set_index("strategy")["cosine"]
    for strategy in ("forward", "reverse", "all-to-one", "random"):
        told = measured.strategies.loc[strategy, "gradient agreement with the task"]
        assert told == pytest.approx(agreement[strategy], abs=1e-6)
    between = found.between_strategies()["cosine"].mean()
    assert measured.numbers["gradient agreement of strategies"] == pytest.approx(between, abs=1e-6)


def test_the_evidence_of_the_package_is_whole():
    known = evidence()
    assert known.spread.sweeps == 48
    assert sum(number for _, number in known.spread.by_task.values()) == 48
    assert set(known.ranges) == set(NUMBERS)


def test_advice_without_a_predictor_says_so(classifier, monkeypatch):
    bare = msgspec.structs.replace(evidence(), spread=msgspec.structs.replace(evidence().spread, rule=None), choices={})
    monkeypatch.setattr(advising, "evidence", lambda: bare)
    found = advise(classifier[0], probe=classifier[1], layers=2, init="teacher", settings=FEW, device="cpu")
    assert found.matters is None
    assert "cannot be told beforehand" in found.statement
    assert f"{bare.spread.large} of 48" in found.statement
    assert found.strategy == "forward"
    assert "that is the default, not a finding" in found.reason
    assert found.maps == {"encoder": [(0, 0), (1, 2), (2, 4)]}
    assert found.command.startswith(f"anglekit distill {classifier[0]} --strategy forward --task classification")
    assert "--inits teacher" in found.check
    assert json.loads(json.dumps(found.to_json()))["maps"] == {"encoder": [[0, 0], [1, 2], [2, 4]]}


@pytest.mark.parametrize(("threshold", "likely"), [(-1e9, True), (1e9, False)])
def test_advice_with_a_predictor_gives_its_accuracy(classifier, monkeypatch, threshold, likely):
    rule = HeldOutRule("CKA", threshold, True, (18, 24), (6, 24))
    known = msgspec.structs.replace(
        evidence(),
        spread=msgspec.structs.replace(evidence().spread, rule=rule),
        choices={"best strategy": "tangential cosine"},
    )
    monkeypatch.setattr(advising, "evidence", lambda: known)
    found = advise(classifier[0], probe=classifier[1], layers=2, init="teacher", settings=FEW, device="cpu")
    assert found.matters is likely
    assert ("18 of 24" if likely else "6 of 24") in found.statement
    assert ("likely" if likely else "unlikely") in found.statement
    assert found.strategy == "all-to-one"  # the middle layer is the nearest to all others
    assert "tangential cosine ranks it first" in found.reason


def test_the_rule_is_the_threshold_that_tells_most():
    values = np.array([0.1, 0.2, 0.3, 0.6, 0.7, 0.8])
    rule = fitted_rule("x", values, np.array([True, True, True, False, False, False]))
    assert (rule.threshold, rule.above) == (pytest.approx(0.45), False)
    assert rule.says(0.2)
    assert not rule.says(0.9)
    # A share of the one kind counts as much as the same share of the other, however rare it is.
    rare = fitted_rule("x", values, np.array([True, True, True, True, True, False]))
    assert rare.threshold == pytest.approx(0.75)


def test_the_usual_task_is_that_of_the_head(tiny_model):
    tasks = {"bert": "classification", "t5": "seq2seq", "llama": "language-model"}
    for family, task in tasks.items():
        config = tiny_model(family, head=True).config
        config.architectures = [type(tiny_model(family, head=True)).__name__]
        assert usual_task(config) == task
    config = tiny_model("bert", head=True).config
    config.architectures, config.problem_type = ["BertForSequenceClassification"], "regression"
    assert usual_task(config) == "regression"
