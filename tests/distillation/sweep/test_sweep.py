"""Sweeps: every student equals its own run, the teacher runs once a batch, and nothing is lost when one ends early."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerCallback

from anglekit.distillation.runs import run as run_module
from anglekit.distillation.runs import scoring
from anglekit.distillation.runs.evaluate import evaluate
from anglekit.distillation.runs.run import Run
from anglekit.distillation.sweep.shared_teacher import SharedTeacher
from anglekit.distillation.sweep.sweep import SweepError, sweep
from anglekit.distillation.training.process_states import ProcessStates
from anglekit.errors import InputError
from anglekit.models.projections import ADAPTER_FILE
from anglekit.results.scores import read_student_scores
from tests.distillation.run_corpus import make_world, quick, student
from tests.more_cases import MORE, more

PAPER = ("none", "forward", "reverse", "all-to-one", "random")


@pytest.fixture(scope="module")
def world(tmp_path_factory, tiny_model, tiny_tokenizer, words):
    return make_world(tmp_path_factory.mktemp("world"), tiny_model, tiny_tokenizer(), words)


def swept(world, out, *, strategies=("forward", "reverse"), settings=None, **options):
    return sweep(
        world["teacher"],
        strategies=strategies,
        seeds=options.pop("seeds", (3,)),
        task="classification",
        train=world["train"],
        validation=options.pop("validation", [world["dev"]]),
        out=out,
        layers=options.pop("layers", 2),
        settings=settings or quick(),
        **options,
    )


@pytest.fixture(scope="module")
def undisturbed(world, tmp_path_factory):
    """`undisturbed(settings, **options)`: the sweep from beginning to end, run once for all tests that ask for it."""
    done = {}

    def run(settings, **options):
        key = repr((settings, sorted(options.items())))
        if key not in done:
            done[key] = swept(world, tmp_path_factory.mktemp("undisturbed") / "sweep", settings=settings, **options)
        return done[key]

    return run


def alone(world, out, name, *, settings, **options):
    """Make the student of an arm by its own `distill` run."""
    strategy, init, seed = name.rsplit("-", 2)
    settings = replace(settings, seed=int(seed.removeprefix("seed")))
    return student(world, out / name, strategy=strategy, init=init, settings=settings, **options)


def test_a_streamed_sweep_is_the_same(world, tmp_path):
    def first(name, **options):
        made = swept(world, tmp_path / name, strategies=("forward",), settings=quick(max_steps=2, **options))
        return made.arms["forward-teacher-seed3"]

    plain, streamed = first("plain", shuffle_buffer=8), first("streamed", shuffle_buffer=8, stream=True)
    assert same(plain, streamed)
    # The control: another order gives another student.
    assert not same(plain, first("other", stream=True))


def tensors(result):
    """Return every tensor that a run saved, adapters included."""
    files = [Path(result.checkpoint) / name for name in ("model.safetensors", ADAPTER_FILE)]
    return [load_file(file) for file in files if file.exists()]


def same(one, other):
    ours, theirs = tensors(one), tensors(other)
    return len(ours) == len(theirs) and all(
        mine.keys() == yours.keys() and all(torch.equal(mine[name], yours[name]) for name in mine)
        for mine, yours in zip(ours, theirs, strict=True)
    )


def without_times(value):
    """Return a record without what no two runs have in common."""
    if isinstance(value, dict):
        times = ("begun", "finished", "train_seconds", "costs")
        return {
            key: without_times(one)
            for key, one in value.items()
            if key not in times and not key.endswith(("_runtime", "_per_second"))
        }
    return value


def records(directory):
    """Return all that a run wrote beside the weights, without times."""
    files = {path.relative_to(directory).as_posix(): path for path in Path(directory).rglob("*.json")}
    found = {name: without_times(json.loads(path.read_text())) for name, path in files.items()}
    lines = (Path(directory) / "metrics.jsonl").read_text().splitlines()
    examples = Path(directory) / "examples.parquet"
    kept = {"examples.parquet": examples.read_bytes()} if examples.exists() else {}
    return found | kept | {"metrics": [without_times(json.loads(line)) for line in lines]}


@pytest.mark.parametrize(
    ("settings", "options"),
    [
        (quick(), {"inits": ("random", "teacher")}),
        (quick(accumulation=3, batch_size=5, max_steps=7), {"inits": ("teacher",)}),
        (
            quick(evaluate_every=2, select="best", schedule="constant", learning_rate=8e-3, max_steps=12),
            {"inits": ("random",)},
        ),
        (quick(group_by_length=True, epochs=2.0, max_steps=None, warmup=0.2), {"inits": ("teacher",)}),
        (quick(precision="bfloat16"), {"inits": ("teacher",), "reading": "official"}),
        (quick(accumulation=2, evaluate_every=3), {"inits": ("random",), "width": 16}),
        (quick(workers=1, max_steps=2), {"inits": ("teacher",), "validation": []}),
    ],
    ids=["last", "accumulated", "best", "grouped", "official-bfloat16", "narrow", "workers"],
)
def test_every_student_is_the_one_of_its_own_run(world, undisturbed, tmp_path, settings, options):
    """Bit for bit, with dropout; and all that is written beside it."""
    result = undisturbed(settings, **options)
    inits = options["inits"]
    names = list(result.arms)
    assert names == [f"{strategy}-{init}-seed3" for init in inits for strategy in ("forward", "reverse")]
    given = {name: value for name, value in options.items() if name != "inits"}
    # The last arm takes its turn behind all others; the first one is always tested in one of the cases.
    for name in names[:: len(names) - 1] if MORE or len(inits) > 1 else names[-1:]:
        own = alone(world, tmp_path / "alone", name, settings=settings, **given)
        assert same(result.arms[name], own)
        assert records(result.arms[name].directory) == records(own.directory)
    first, second = list(result.arms.values())[:2]
    assert not same(first, second)


def test_without_swapped_random_states_the_students_would_differ(world, tmp_path, monkeypatch):
    """Negative control: dropout is on, and the comparison above sees it."""
    with monkeypatch.context() as patch:
        patch.setattr(ProcessStates, "restore", lambda *_: None)
        result = swept(world, tmp_path / "sweep")
    own = alone(world, tmp_path / "alone", "reverse-random-seed3", settings=quick())
    assert not same(result.arms["reverse-random-seed3"], own)


@pytest.fixture
def teachers(monkeypatch):
    """The shared teachers that a sweep made."""
    made = []
    init = SharedTeacher.__init__

    def remember(self, *arguments, **options):
        init(self, *arguments, **options)
        made.append(self)

    monkeypatch.setattr(SharedTeacher, "__init__", remember)
    return made


def test_the_teacher_runs_once_a_batch_for_all_arms(world, tmp_path, teachers):
    settings = quick(accumulation=2)
    result = swept(world, tmp_path / "sweep", strategies=PAPER, settings=settings, inits=("random",))
    assert (result.teacher_passes, result.teacher_answers) == (2 * 6, 5 * 2 * 6)
    assert [teacher.most_held for teacher in teachers] == [1]
    own = alone(world, tmp_path / "alone", "all-to-one-random-seed3", settings=settings)
    assert same(result.arms["all-to-one-random-seed3"], own)


def test_how_many_train_side_by_side_changes_nothing_but_memory(world, undisturbed, tmp_path, teachers):
    together = undisturbed(quick(), inits=("random", "teacher"))
    assert together.teacher_answers == 24
    teachers.clear()
    by_two = swept(world, tmp_path / "b", side_by_side=3)
    assert [teacher.answers for teacher in teachers] == [12, 12]
    assert by_two.teacher_passes == 12
    assert all(same(together.arms[name], by_two.arms[name]) for name in together.arms)


def test_orders_of_the_data_that_differ_share_nothing(world, tmp_path, teachers):
    options = {"strategies": ("forward", "none"), "inits": ("random",), "seeds": (1, 2)}
    result = swept(world, tmp_path / "sweep", order_per_seed=True, settings=quick(data_seed=5), **options)
    assert (result.teacher_passes, result.teacher_answers) == (12, 24)
    assert [teacher.most_held for teacher in teachers] == [2]
    assert result.warnings == ()
    for seed in (1, 2):
        settings = quick(data_seed=5 + seed)
        own = alone(world, tmp_path / "alone", f"forward-random-seed{seed}", settings=settings)
        assert same(result.arms[f"forward-random-seed{seed}"], own)


def test_what_a_sweep_leaves_behind(world, tmp_path):
    settings = quick(evaluate_every=3, select="best")
    told = []
    result = swept(
        world,
        tmp_path / "sweep",
        strategies=("forward", "random"),
        inits=("teacher",),
        seeds=(0, 1),
        settings=settings,
        validation=[world["dev"], f"again={world['train']}"],
        warn=told.append,
    )
    stored = pd.read_csv(tmp_path / "sweep" / "scores.csv")
    pd.testing.assert_frame_equal(stored, result.scores)
    assert stored.columns.tolist() == [
        *("strategy", "init", "seed", "data", "examples", "accuracy", "macro_f1", "steps", "selected_step", "seconds")
    ]
    assert stored["data"].tolist() == ["dev", "again"] * 4
    assert stored["strategy"].tolist() == ["forward", "forward", "random", "random"] * 2
    assert stored["seed"].tolist() == [0] * 4 + [1] * 4
    content = json.loads((tmp_path / "sweep" / "sweep.json").read_text())
    assert [arm["name"] for arm in content["arms"]] == list(result.arms)
    assert content["teacher"]["source"] == world["teacher"]
    assert content["student"]["learning_rate"] == settings.learning_rate
    assert content["data"]["tables"].keys() == {"train", "dev", "again"}
    assert content["finished"] >= content["begun"]
    # Two blocks have two orders, and both have a name.
    assert any("equals strategy" in warning for warning in told)
    assert tuple(told) == result.warnings == tuple(content["warnings"])
    scores = evaluate(
        [one.directory for one in result.arms.values()], task="classification", data=[world["dev"]]
    ).scores
    assert scores["accuracy"].tolist() == stored[stored["data"] == "dev"]["accuracy"].tolist()
    assert sorted(entry.name for entry in (tmp_path / "sweep").iterdir()) == sorted(
        [*result.arms, "scores.csv", "sweep.json"]
    )


def test_every_model_is_scored_once_and_arms_share_what_they_are_compared_with(world, tmp_path, monkeypatch, capsys):
    """The teacher once, students that begin with the same weights once, and every student at its end."""
    asked = []
    real = scoring.score_model

    def counted(model, data, settings, follows, what):
        asked.append(what)
        return real(model, data, settings, follows, what)

    monkeypatch.setattr(scoring, "score_model", counted)
    monkeypatch.setattr(run_module, "score_model", counted)
    result = swept(world, tmp_path / "sweep", strategies=("forward", "reverse", "none"), side_by_side=2, progress=True)
    assert Counter(asked) == {"the teacher": 1, "untrained students": 2, "trained models": 6}
    found = read_student_scores(tmp_path / "sweep")
    arms = [(strategy, init, 3) for init in ("random", "teacher") for strategy in ("forward", "reverse", "none")]
    assert found.untrained.keys() == {(*arm, "dev", score) for arm in arms for score in ("accuracy", "macro_f1")}
    assert found.untrained.keys() == found.examples.keys()
    assert (
        found.untrained["forward", "random", 3, "dev", "accuracy"]
        == found.untrained["none", "random", 3, "dev", "accuracy"]
    )
    own = evaluate([world["teacher"]], task="classification", data=[world["dev"]])
    assert found.teacher["dev", "accuracy"] == own.scores["accuracy"][0]
    shown = capsys.readouterr().err
    assert all(f"scoring {what}" in shown for what in set(asked))
    # Six arms of six steps; 21 examples are as much as three steps of eight.
    done = 6 * (6 + 3) + 3 * (1 + 2)
    assert f"{done}/{done}" in shown
    assert "6/6 students" in shown
    assert len(result.arms) == 6


class Stop(TrainerCallback):
    def __init__(self, step, error):
        self.step = step
        self.error = error

    def on_step_begin(self, args, state, control, model=None, **kwargs):
        if state.global_step == self.step:
            if self.error is None:
                model.classifier.bias.data.fill_(float("nan"))
            else:
                raise self.error


def stop_at(patch, steps, error):
    """Let the named arms end at a step: by an error, or (None) by weights that are not finite."""
    train = Run.train

    def stopped(run):
        if (step := steps.get(run.directory.path.name)) is not None:
            run.trainer.add_callback(Stop(step, error))
        train(run)

    patch.setattr(Run, "train", stopped)


def kill_at(monkeypatch, steps, world, out, settings, **options):
    with monkeypatch.context() as patch:
        stop_at(patch, steps, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            swept(world, out, settings=settings, **options)


def test_a_killed_sweep_goes_on_to_the_same_students(world, tmp_path, monkeypatch, teachers):
    """Killed when two arms are finished and one has just begun."""
    settings = quick(max_steps=8, evaluate_every=3, accumulation=2, select="best")
    out, options = tmp_path / "sweep", {"strategies": ("forward", "reverse", "none"), "inits": ("random",)}
    kill_at(monkeypatch, {"none-random-seed3": 2}, world, out, settings, side_by_side=2, **options)
    assert (out / "forward-random-seed3" / "scores.json").exists()
    assert not list(out.rglob("run.lock"))
    with pytest.raises(InputError, match="holds an unfinished sweep; use --resume"):
        swept(world, out, settings=settings, **options)
    finished = (out / "forward-random-seed3" / "checkpoint" / "model.safetensors").stat().st_mtime_ns
    result = swept(world, out, settings=settings, if_exists="resume", **options)
    whole = swept(world, tmp_path / "whole", settings=settings, **options)
    assert all(same(result.arms[name], whole.arms[name]) for name in whole.arms)
    assert (out / "forward-random-seed3" / "checkpoint" / "model.safetensors").stat().st_mtime_ns == finished
    # The first two were finished; the third one had reached no checkpoint.
    assert result.teacher_answers == 2 * 8
    columns = [name for name in whole.scores if name != "seconds"]
    assert result.scores[columns].equals(whole.scores[columns])
    for name in whole.arms:
        ours, theirs = (Path(one.arms[name].directory) / "examples.parquet" for one in (result, whole))
        assert ours.read_bytes() == theirs.read_bytes()


def test_arms_resumed_at_different_steps_share_where_they_meet(world, tmp_path, monkeypatch, teachers):
    settings = quick(max_steps=8, evaluate_every=2, accumulation=2)
    kill_at(monkeypatch, {"reverse-random-seed3": 6}, world, tmp_path / "sweep", settings)
    reached = {path.parents[1].name: path.name for path in (tmp_path / "sweep").glob("*/training/checkpoint-*")}
    # Two arms had saved step 6 when the second one died, the others had not had their turn.
    assert reached == {
        "forward-random-seed3": "checkpoint-6",
        "reverse-random-seed3": "checkpoint-6",
        "forward-teacher-seed3": "checkpoint-4",
        "reverse-teacher-seed3": "checkpoint-4",
    }
    result = swept(world, tmp_path / "sweep", settings=settings, if_exists="resume")
    # The arms behind run steps 5 to 8, the others 7 and 8, two micro-batches each.
    assert result.teacher_passes == 2 * 4
    assert teachers[-1].most_held == 1
    whole = swept(world, tmp_path / "whole", settings=settings)
    assert all(same(result.arms[name], whole.arms[name]) for name in whole.arms)
    for name in whole.arms:
        ours, theirs = (records(one.arms[name].directory) for one in (result, whole))
        # The last line is about the session: its mean loss begins where it was resumed.
        assert ours.pop("metrics")[:-1] == theirs.pop("metrics")[:-1]
        assert ours == theirs


@pytest.mark.parametrize("left", [None, "{", pytest.param("", marks=more)], ids=["absent", "half", "empty"])
def test_a_checkpoint_that_was_being_written_is_passed_over(world, undisturbed, tmp_path, monkeypatch, left):
    """Killed while saving: the state, which `Trainer` writes last, is not there or not whole."""
    settings, options = quick(evaluate_every=2), {"strategies": ("forward", "none"), "inits": ("random",)}
    kill_at(monkeypatch, {"none-random-seed3": 4}, world, tmp_path / "sweep", settings, **options)
    training = tmp_path / "sweep" / "none-random-seed3" / "training"
    state = training / "checkpoint-4" / "trainer_state.json"
    (training / "checkpoint-4" / "optimizer.pt").write_bytes(b"half")
    state.unlink() if left is None else state.write_text(left)
    result = swept(world, tmp_path / "sweep", settings=settings, if_exists="resume", **options)
    whole = undisturbed(settings, **options)
    assert all(same(result.arms[name], whole.arms[name]) for name in whole.arms)


@pytest.mark.parametrize(
    ("error", "reason"),
    [(None, r"the ce loss was not finite at step 4; the last good"), (OSError("disk full"), "OSError: disk full")],
)
def test_an_arm_that_fails_leaves_the_others_their_end(world, undisturbed, tmp_path, monkeypatch, error, reason):
    settings, options = quick(evaluate_every=2), {"strategies": ("forward", "reverse", "none"), "inits": ("random",)}
    with monkeypatch.context() as patch:
        stop_at(patch, {"reverse-random-seed3": 3}, error)
        with pytest.raises(SweepError, match=rf"^1 of 3 arms failed: reverse-random-seed3 \({reason}") as caught:
            swept(world, tmp_path / "sweep", settings=settings, **options)
    assert caught.value.exit_code == 1
    result = caught.value.result
    assert list(result.failed) == ["reverse-random-seed3"]
    whole = undisturbed(settings, **options)
    assert all(same(one, whole.arms[name]) for name, one in result.arms.items())
    assert len(result.arms) == 2
    content = json.loads((tmp_path / "sweep" / "sweep.json").read_text())
    assert list(content["failed"]) == ["reverse-random-seed3"]
    assert not list((tmp_path / "sweep").rglob("run.lock"))
    again = swept(world, tmp_path / "sweep", settings=settings, if_exists="resume", **options)
    assert same(again.arms["reverse-random-seed3"], whole.arms["reverse-random-seed3"])
    assert again.failed == {}


def test_a_sweep_grows_by_seeds_and_is_replaced_as_a_whole(world, tmp_path):
    options = {"strategies": ("forward", "none"), "inits": ("random",)}
    first = swept(world, tmp_path / "sweep", seeds=(0, 1), **options)
    more = swept(world, tmp_path / "sweep", seeds=(0, 1, 2), if_exists="resume", **options)
    assert len(more.arms) == 6
    assert more.teacher_answers == 12
    assert same(first.arms["none-random-seed1"], more.arms["none-random-seed1"])
    replaced = swept(world, tmp_path / "sweep", seeds=(5,), if_exists="overwrite", **options)
    assert sorted(entry.name for entry in (tmp_path / "sweep").iterdir()) == sorted(
        [*replaced.arms, "scores.csv", "sweep.json"]
    )


def test_a_seed_that_was_not_given_is_drawn_once_and_kept(world, tmp_path, monkeypatch):
    options = {"settings": quick(max_steps=2), "inits": ("random",), "seeds": None}
    with monkeypatch.context() as patch:
        stop_at(patch, {"none-random-seed77": 1}, KeyboardInterrupt())
        patch.setattr("anglekit.distillation.sweep.sweep.draw_seed", lambda: 77)
        with pytest.raises(KeyboardInterrupt):
            swept(world, tmp_path / "sweep", strategies=("none", "random"), **options)
    result = swept(world, tmp_path / "sweep", strategies=("none", "random"), if_exists="resume", **options)
    assert list(result.arms) == ["none-random-seed77", "random-random-seed77"]
    fixed = swept(world, tmp_path / "fixed", strategies=("none",), **options)
    assert list(fixed.arms) == ["none-random-seed0"]
