"""Sweeps that stop hopeless strategies: the others are the same, and what was stopped is named, kept and can go on."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from anglekit.comparison.compare import compare
from anglekit.distillation.settings import TrainSettings
from anglekit.distillation.sweep import looks as looking
from anglekit.distillation.sweep.stopping import Judgement, judge
from anglekit.distillation.sweep.sweep import SweepResult, sweep
from anglekit.distillation.tasks.registry import task_by_name
from anglekit.errors import InputError
from anglekit.results.scores import read_student_scores
from tests.distillation.run_corpus import kill_at_five, make_world, quick

STRATEGIES = ("none", "forward", "reverse", "all-to-one")


@pytest.fixture(scope="module")
def world(tmp_path_factory, tiny_model, tiny_tokenizer, words):
    return make_world(tmp_path_factory.mktemp("world"), tiny_model, tiny_tokenizer(), words)


def swept(world, out, *, settings: TrainSettings | None = None, **options) -> SweepResult:
    return sweep(
        world["teacher"],
        **{"strategies": STRATEGIES, "task": "classification", "train": world["train"], "validation": [world["dev"]]}
        | {"seeds": (0, 1), "inits": ("random",), "layers": 2, "stop_hopeless": True}
        | options,
        out=out,
        settings=settings or quick(max_steps=8, evaluate_every=2),
    )


class Verdicts:
    """Says at a look that a strategy is hopeless, and remembers what it was asked; otherwise as the real one."""

    def __init__(self, step: int, hopeless: Sequence[str]) -> None:
        self.step = step
        self.hopeless = hopeless
        self.asked: list[dict[str, tuple[int, ...]]] = []
        self.training: list[float] = []

    def __call__(
        self, curves: Mapping[str, np.ndarray], training: np.ndarray, end: float, *, level: float
    ) -> Judgement:
        self.asked.append({name: curve.shape for name, curve in curves.items()})
        self.training = [*training, end]
        found = judge(curves, training, end, level=level)
        best = next(name for name in found.means if name not in self.hopeless)
        assert set(found.hopeless) <= set(self.hopeless)
        return Judgement(best, found.means, found.gain, tuple(self.hopeless) if len(self.asked) == self.step else ())


def hopeless(monkeypatch, step: int, *strategies: str) -> Verdicts:
    """Let strategies be hopeless at the look of this number."""
    verdicts = Verdicts(step, strategies)
    monkeypatch.setattr(looking, "judge", verdicts)
    return verdicts


def same(ours: str | Path, theirs: str | Path) -> bool:
    one, other = (load_file(Path(path) / "checkpoint" / "model.safetensors") for path in (ours, theirs))
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture(scope="module")
def whole(world, tmp_path_factory):
    """The sweep without the option."""
    return swept(world, tmp_path_factory.mktemp("whole") / "sweep", stop_hopeless=False)


def test_the_others_are_the_same_and_what_was_stopped_is_named(world, whole, tmp_path, monkeypatch):
    verdicts = hopeless(monkeypatch, 2, "reverse")
    out = tmp_path / "sweep"
    result = swept(world, out)
    assert result.stopped == {"reverse-random-seed0": 4, "reverse-random-seed1": 4}
    assert (result.steps_saved, result.steps) == (8, 64)
    assert set(result.arms) == set(whole.arms) - set(result.stopped)
    assert all(same(one.directory, whole.arms[name].directory) for name, one in result.arms.items())
    columns = [name for name in whole.scores if name != "seconds"]
    left = whole.scores[whole.scores["strategy"] != "reverse"]
    assert result.scores[columns].reset_index(drop=True).equals(left[columns].reset_index(drop=True))
    # Looks at steps 0, 2, 4 and then 6, over 21 examples; what was stopped has no third; none is no part of it.
    assert verdicts.asked[0] == dict.fromkeys(("forward", "reverse", "all-to-one"), (2, 21))
    assert verdicts.asked[2] == {"forward": (4, 21), "reverse": (3, 21), "all-to-one": (4, 21)}
    assert len(verdicts.asked) == 3
    # A linear schedule over 8 steps: 1, 7/8, 6/8, ...
    assert verdicts.training == pytest.approx([0, 1.875, 3.25, 4.125, 4.5])

    stored = json.loads((out / "sweep.json").read_text())
    assert stored["stopped"] == result.stopped
    assert stored["finished"] is not None
    assert stored["stopping"]["steps_saved"] == 8
    assert [(look["step"], look["stopped"]) for look in stored["stopping"]["looks"]] == [
        (2, []),
        (4, ["reverse"]),
        (6, []),
    ]
    stopped = out / "reverse-random-seed0"
    assert json.loads((stopped / "provenance.json").read_text())["stopped"] == 4
    logged = [json.loads(line) for line in (stopped / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in logged if "eval_accuracy" in line] == [2, 4]
    assert not (stopped / "scores.json").exists()
    assert not list(out.rglob("run.lock"))

    found = read_student_scores(out)
    assert found.unfinished is None
    assert [one.words for one in found.stopped] == ["reverse at step 4 of 8"]
    comparison = compare(out)
    assert "(without what was stopped as hopeless: reverse at step 4 of 8)" in comparison.headline.line
    assert any("in no verdict: random: reverse at step 4 of 8" in note for note in comparison.notes)
    assert comparison.document()["stopped"] == [{"strategy": "reverse", "init": "random", "step": 4, "steps": 8}]
    assert "reverse" not in set(comparison.levels["strategy"])

    # It stays stopped, also with more seeds, until it is asked for without the option.
    told: list[str] = []
    more = swept(world, out, seeds=(0, 1, 2), if_exists="resume", note=told.append)
    assert more.stopped == result.stopped | {"reverse-random-seed2": 0}
    assert told[-1].startswith("not trained, as their strategy was stopped as hopeless: reverse-random-seed0")
    assert set(more.arms) == {*result.arms, *(f"{name}-random-seed2" for name in STRATEGIES if name != "reverse")}
    assert not (out / "reverse-random-seed2").exists()
    again = swept(world, out, seeds=(0, 1, 2), if_exists="resume", stop_hopeless=False)
    assert again.stopped == {}
    assert json.loads((out / "sweep.json").read_text())["stopped"] == {}
    assert all(same(one.directory, again.arms[name].directory) for name, one in whole.arms.items())


def test_a_killed_sweep_looks_on_where_it_was(world, whole, tmp_path, monkeypatch):
    out, options = tmp_path / "sweep", {"strategies": ("forward", "reverse", "all-to-one"), "seeds": (0,)}
    with monkeypatch.context() as patch:
        hopeless(patch, 1, "reverse")
        kill_at_five(patch)
        with pytest.raises(KeyboardInterrupt):
            swept(world, out, **options)
    assert json.loads((out / "sweep.json").read_text())["stopped"] == {"reverse-random-seed0": 2}
    verdicts = hopeless(monkeypatch, 99)
    result = swept(world, out, if_exists="resume", **options)
    # Of what was stopped at step 2 the looks up to then are known; the others were seen from the start.
    assert verdicts.asked == [{"forward": (4, 21), "reverse": (2, 21), "all-to-one": (4, 21)}]
    assert all(same(one.directory, whole.arms[name].directory) for name, one in result.arms.items())
    assert result.stopped == {"reverse-random-seed0": 2}


def test_the_best_checkpoint_is_what_is_judged_where_it_is_kept(world, tmp_path, monkeypatch):
    seen: list[dict[str, np.ndarray]] = []
    levels = []

    def remembered(curves, training, end, *, level):
        seen.append(dict(curves))
        levels.append(level)
        return judge(curves, training, end, level=level)

    monkeypatch.setattr(looking, "judge", remembered)
    settings = quick(max_steps=8, evaluate_every=2, select="best", learning_rate=3e-2, schedule="constant")
    swept(world, tmp_path / "sweep", strategies=("forward", "reverse"), seeds=(0,), settings=settings)
    means = [[curve.mean(1) for curve in curves.values()] for curves in seen]
    assert all((np.diff(one) >= 0).all() for curves in means for one in curves)
    assert levels == [0.05 / (3 * 3 * 2)] * 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"validation": []}, "came without a validation table; give --validation"),
        ({"settings": quick(evaluate_every=6)}, "came with a validation every 6 steps, and a run has 6; validate more"),
        ({"settings": quick()}, "came with a validation every epoch of 6 steps, and a run has 6"),
        (
            {"settings": quick(evaluate_every=2, select="best", select_by="macro_f1")},
            "came with checkpoints that are selected by macro_f1, and judges by accuracy; --select last, or",
        ),
        ({"task": "mrpc"}, "came with task mrpc, and its score f1 is not one of single examples; leave it out"),
        ({"task": "stsb"}, "came with task stsb, and its score pearson is not one of single examples"),
        ({"strategies": ("none", "forward")}, "came, and only forward matches layers; give at least two"),
        (
            {"side_by_side": 7},
            "judges the 8 students of init random together, and 7 train side by side; --side-by-side 8",
        ),
    ],
)
def test_what_cannot_be_judged_is_refused_in_one_line(world, tmp_path, options, message):
    with pytest.raises(InputError) as caught:
        swept(world, tmp_path / "sweep", **options)
    assert str(caught.value).startswith("--stop-hopeless ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "sweep").exists()


def test_several_processes_are_refused():
    with pytest.raises(InputError, match="came with 2 processes, which share the arms of one strategy; start one"):
        looking.check_stopping(task_by_name("sst2"), ("forward", "reverse"), validated=True, processes=2)


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ('{"score": "accuracy", "right": {"0": "010", "2": "110"}}', [0, 2]),
        ('{"score": "exact_match", "right": {"0": "010"}}', []),
        ('{"score": "accuracy", "right": {"0": "010", "2": "11"}}', []),
        ('{"score": "accuracy", "right": {"two": "010"}}', []),
        ('{"score": "accuracy", "ri', []),
        (None, []),
    ],
)
def test_answers_that_are_not_whole_count_as_none(tmp_path, text, kept):
    """Then the arm's strategy is not judged: nothing is stopped on half of what was seen."""
    file = tmp_path / "answers.json"
    if text is not None:
        file.write_text(text)
    scores = looking._Answers.read(file, "accuracy").scores()
    assert list(scores) == kept
    assert [one.tolist() for one in scores.values()] == [[0, 1, 0], [1, 1, 0]][: len(kept)]


def test_training_behind_is_the_sum_of_learning_rates():
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=0.1)
    falling = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / 4)
    assert looking.training_behind(falling, 4).tolist() == [0, 1, 1.75, 2.25, 2.5]
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer)
    assert looking.training_behind(plateau, 3).tolist() == [0, 1, 2, 3]
