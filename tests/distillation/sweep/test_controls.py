"""Control arms of a sweep: each is the student of its own run, shares what can be shared, and says what it is."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from anglekit.distillation.losses.weights import LossWeights
from anglekit.distillation.matching.plan import DistillationPlan
from anglekit.distillation.sweep.directory import SweepGrid
from anglekit.distillation.sweep.sweep import sweep
from anglekit.distillation.training import untrained_teacher as untrained
from anglekit.errors import InputError
from anglekit.models.checkpoints import load_checkpoint
from anglekit.models.load_options import LoadOptions
from anglekit.models.projections import ADAPTER_FILE
from anglekit.results.scores import read_student_scores
from anglekit.runtime.placement import Placement
from anglekit.vocabulary import CONTROLS
from tests.distillation.run_corpus import kill_at_five, make_world, quick, student
from tests.more_cases import more


@pytest.fixture(scope="module")
def world(tmp_path_factory, tiny_model, tiny_tokenizer, words):
    return make_world(tmp_path_factory.mktemp("world"), tiny_model, tiny_tokenizer(), words)


def swept(world, out, *, strategies=("none", "reverse"), settings=None, controls=CONTROLS, **options):
    return sweep(
        world["teacher"],
        strategies=strategies,
        controls=controls,
        seeds=options.pop("seeds", (3,)),
        inits=options.pop("inits", ("random",)),
        task="classification",
        train=world["train"],
        validation=[world["dev"]],
        out=out,
        layers=2,
        settings=settings or quick(),
        **options,
    )


def by_itself(world, out, name, *, of="reverse", settings=None, **options):
    """Make the student of a control arm by its own `distill` run."""
    control, init, seed = name.rsplit("-", 2)
    return student(
        world,
        out,
        strategy=None if control == "alone" else of,
        control=control,
        init=init,
        settings=replace(settings or quick(), seed=int(seed.removeprefix("seed"))),
        **options,
    )


def tensors(result):
    files = [Path(result.checkpoint) / name for name in ("model.safetensors", ADAPTER_FILE)]
    return {f"{file.name} {name}": one for file in files if file.exists() for name, one in load_file(file).items()}


def same(one, other):
    ours, theirs = tensors(one), tensors(other)
    return ours.keys() == theirs.keys() and all(torch.equal(mine, theirs[name]) for name, mine in ours.items())


@pytest.mark.parametrize(
    ("settings", "options"),
    [
        (quick(), {}),
        pytest.param(quick(), {"inits": ("random", "teacher")}, marks=more),
        (quick(accumulation=2, evaluate_every=3), {"width": 16}),
        (quick(precision="bfloat16"), {"inits": ("teacher",), "reading": "official"}),
    ],
    ids=["plain", "two-inits", "narrow", "official-bfloat16"],
)
def test_every_control_is_the_one_of_its_own_run(world, tmp_path, settings, options):
    """Bit for bit, with dropout, and no two arms train the same student."""
    result = swept(world, tmp_path / "sweep", settings=settings, **options)
    inits = options.pop("inits", ("random",))
    assert list(result.arms) == [
        f"{name}-{init}-seed3" for init in inits for name in ("none", "reverse", "alone", "random-teacher")
    ]
    for name in (f"{control}-{init}-seed3" for init in inits for control in CONTROLS):
        own = by_itself(world, tmp_path / name, name, settings=settings, **options)
        assert same(result.arms[name], own)
        assert result.arms[name].scores.equals(own.scores)
        plans = [json.loads((Path(one.directory) / "plan.json").read_text()) for one in (result.arms[name], own)]
        assert plans[0] == plans[1]
    ends = [tensors(one) for one in list(result.arms.values())[:4]]
    body = next(name for name in ends[0] if "layer.1.output.dense.weight" in name)
    assert all(not torch.equal(a[body], b[body]) for a, b in zip(ends, [*ends[1:], ends[0]], strict=True))


def test_alone_is_what_earlier_recipes_trained_under_that_name(world, tmp_path):
    """They ran `none` from random weights with the weights (1, 0, 0)."""
    settings = quick(seed=3, max_steps=3)
    earlier = student(world, tmp_path / "a", strategy="none", weights=LossWeights(1.0, 0.0, 0.0), settings=settings)
    assert same(earlier, by_itself(world, tmp_path / "b", "alone-random-seed3", settings=settings))
    assert not same(earlier, student(world, tmp_path / "c", strategy="none", settings=settings))


def test_what_a_control_is_stands_in_every_record(world, tmp_path):
    result = swept(world, tmp_path / "sweep", strategies=("forward", "none"), settings=quick(max_steps=1))
    content = json.loads((tmp_path / "sweep" / "sweep.json").read_text())
    assert content["control_of"] == {"alone": "none", "random-teacher": "forward"}
    assert [arm["strategy"] for arm in content["arms"]] == ["forward", "none", *CONTROLS]
    assert content["student"]["weights (ce, kl, hidden)"] == [1.0, 1.0, 3.0]
    for control, of in content["control_of"].items():
        run = tmp_path / "sweep" / f"{control}-random-seed3"
        plan = DistillationPlan.from_json(json.loads((run / "plan.json").read_text()))
        assert (plan.strategy, plan.matched_as) == (control, of)
        provenance = json.loads((run / "provenance.json").read_text())
        assert (provenance["strategy"], provenance["control_of"]) == (control, of)
        note = load_checkpoint(str(run / "checkpoint")).training
        assert (note.strategy, note.control_of) == (control, of)
        assert read_student_scores(run).table["strategy"].unique().tolist() == [control]
    assert result.scores["strategy"].tolist() == ["forward", "none", *CONTROLS]
    assert read_student_scores(tmp_path / "sweep").table["strategy"].unique().tolist() == ["forward", "none", *CONTROLS]
    assert result.warnings == ()


@pytest.fixture
def made(monkeypatch):
    """The seeds of the untrained teachers that are made."""
    seeds = []
    make = untrained.untrained_teacher

    def remember(teacher, seed):
        seeds.append(seed)
        return make(teacher, seed)

    monkeypatch.setattr("anglekit.distillation.sweep.arms.untrained_teacher", remember)
    return seeds


def test_arms_of_a_seed_share_an_untrained_teacher(world, tmp_path, made):
    options = {"strategies": ("reverse",), "inits": ("random", "teacher"), "settings": quick(max_steps=2)}
    result = swept(world, tmp_path / "sweep", **options)
    assert made == [3]
    # Of the six arms two have no teacher, and both random-teacher arms read the same batches.
    assert (result.teacher_passes, result.teacher_answers) == (2, 4 * 2)
    assert (result.untrained_passes, result.untrained_answers) == (2, 2 * 2)
    last = json.loads((tmp_path / "sweep" / "sweep.json").read_text())["last_session"]
    assert (last["untrained_passes"], last["teacher_passes"]) == (2, 2)


def test_each_seed_has_an_untrained_teacher_of_its_own(world, tmp_path, made):
    options = {"strategies": ("reverse",), "controls": ("random-teacher",), "seeds": (1, 2)}
    result = swept(world, tmp_path / "sweep", settings=quick(max_steps=2), **options)
    assert made == [1, 2]
    assert (result.teacher_passes, result.untrained_passes, result.untrained_answers) == (2, 2 * 2, 2 * 2)
    made.clear()
    by_one = swept(world, tmp_path / "b", settings=quick(max_steps=2), side_by_side=1, **options)
    assert made == [1, 2]
    assert all(same(result.arms[name], by_one.arms[name]) for name in result.arms)


def test_a_control_that_reads_no_teacher_runs_none(world, tmp_path, made):
    alone = swept(world, tmp_path / "alone", strategies=("none",), controls=("alone",), settings=quick(max_steps=2))
    assert (alone.teacher_passes, alone.teacher_answers, alone.untrained_passes) == (2, 2, 0)
    weights = LossWeights(1.0, 0.0, 3.0)
    hidden = swept(
        world, tmp_path / "hidden", strategies=("forward",), controls=("random-teacher",), weights=weights,
        settings=quick(max_steps=2),
    )  # fmt: skip
    assert (hidden.teacher_answers, hidden.untrained_answers) == (2, 2)
    assert made == [3]


def test_without_hidden_loss_no_untrained_teacher_is_made(world, tmp_path, made):
    weights = LossWeights(1.0, 1.0, 0.0)
    result = swept(world, tmp_path / "sweep", strategies=("none", "forward"), weights=weights)
    assert made == []
    ends = [tensors(result.arms[f"{name}-random-seed3"]) for name in ("none", "random-teacher")]
    assert all(torch.equal(one, ends[1][name]) for name, one in ends[0].items())
    assert any("'random-teacher' trains the same student as 'none'" in warning for warning in result.warnings)


def test_a_killed_sweep_goes_on_to_the_same_controls(world, tmp_path, monkeypatch):
    settings = quick(max_steps=8, evaluate_every=2)
    with monkeypatch.context() as patch:
        kill_at_five(patch)
        with pytest.raises(KeyboardInterrupt):
            swept(world, tmp_path / "sweep", settings=settings)
    result = swept(world, tmp_path / "sweep", settings=settings, if_exists="resume")
    whole = swept(world, tmp_path / "whole", settings=settings)
    assert all(same(result.arms[name], whole.arms[name]) for name in whole.arms)


def test_a_sweep_grows_by_controls_and_keeps_what_they_are_controls_of(world, tmp_path):
    settings, out = quick(max_steps=2), tmp_path / "sweep"
    first = swept(world, out, strategies=("reverse",), controls=(), settings=settings)
    more = swept(world, out, strategies=("reverse",), settings=settings, if_exists="resume")
    assert list(more.arms) == ["reverse-random-seed3", "alone-random-seed3", "random-teacher-random-seed3"]
    assert same(first.arms["reverse-random-seed3"], more.arms["reverse-random-seed3"])
    # A sweep begun with all of them would take forward.
    added = swept(world, out, strategies=("reverse", "forward"), settings=settings, if_exists="resume")
    content = json.loads((out / "sweep.json").read_text())
    assert content["control_of"] == {"alone": "none", "random-teacher": "reverse"}
    assert same(added.arms["random-teacher-random-seed3"], more.arms["random-teacher-random-seed3"])
    with pytest.raises(InputError, match="arm alone-random-seed3 is there and not asked for here"):
        swept(world, out, strategies=("reverse", "forward"), controls=(), settings=settings, if_exists="resume")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"controls": ("alnoe",)}, "no control 'alnoe'; did you mean 'alone'"),
        ({"controls": ("alone", "alone")}, "control 'alone' came twice; give each one once"),
        ({"controls": ("random-teacher",), "strategies": ("none",)}, "no strategy matches layers"),
        ({"strategies": ("alone",)}, "no strategy 'alone'"),
        (
            {"load": LoadOptions(placement=Placement(device_map="auto"))},
            "control random-teacher makes an untrained teacher on one device, and --teacher-device-map 'auto' spreads",
        ),
    ],
)
def test_wrong_controls_are_one_line_and_leave_no_trace(world, tmp_path, monkeypatch, change, message):
    monkeypatch.setattr(
        "anglekit.distillation.sweep.sweep.load_teacher_and_data", lambda *_a, **_o: pytest.fail("weights were loaded")
    )
    with pytest.raises(InputError, match=message) as caught:
        swept(world, tmp_path / "sweep", **change)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "sweep").exists()


def test_a_grid_has_each_control_for_every_init_and_seed():
    grid = SweepGrid(("none", "random", "forward"), ("random", "teacher"), (0, 1), CONTROLS)
    names = [arm.name for arm in grid.arms]
    assert len(names) == len(set(names)) == 5 * 2 * 2
    assert names[3:5] == ["alone-random-seed0", "random-teacher-random-seed0"]
    # The arm of strategy random from the teacher's weights has another name than the control.
    assert "random-teacher-seed0" in names
    assert grid.control_of == {"alone": "none", "random-teacher": "forward"}
