"""Damaged run directories, sweeps and scores: what `compare` reads and what `--resume` goes on from."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest
from transformers import BertConfig

from anglekit.comparison.compare import compare
from anglekit.distillation.matching.plan import plan_distillation
from anglekit.distillation.runs.directory import RunDirectory
from anglekit.distillation.runs.run import RunResult
from anglekit.distillation.sweep.directory import SweepDirectory
from anglekit.recipes.reproduction_directory import ReproductionDirectory
from anglekit.results.scores import read_score_table
from tests.comparison.compare_corpus import FIVE, score_rows, write_run, write_sweep
from tests.fuzz.harness import Campaign, Case, cases, fresh
from tests.fuzz.mutations import damaged_file, damaged_json_file
from tests.results.example_corpus import keep_examples


@pytest.fixture(scope="module")
def original(tmp_path_factory) -> Path:
    """A sweep, two runs and a reproduction."""
    root = tmp_path_factory.mktemp("runs")
    accuracies = dict.fromkeys(FIVE, 0.7)
    write_sweep(root / "sweep", score_rows(accuracies, seeds=(0, 1)), student={"layers": 3}, begun="2024")
    for number, strategy in enumerate(("forward", "none")):
        run = write_run(root / strategy, strategy, 0.7 + number / 100)
        keep_examples(run, {"student": 0.7, "untrained": 0.5, "teacher": 0.9}, number=20)
        content = json.loads((run / "scores.json").read_text())
        content |= {"steps": 10, "selected_step": 10, "train_seconds": 1.5}
        (run / "scores.json").write_text(json.dumps(content))
        config = json.loads((run / "run_config.json").read_text())
        config |= {"format": "anglekit-run-1", "kind": "distill", "max_length": 16, "seed": 0}
        (run / "run_config.json").write_text(json.dumps(config))
        config = BertConfig(num_hidden_layers=4, hidden_size=16, num_attention_heads=2)
        plan = plan_distillation(config, teacher="x", strategy="forward", layers=2, seed=0)
        (run / "plan.json").write_text(json.dumps(plan.to_json()))
    (root / "again").mkdir()
    begun = {"format": "anglekit-reproduction-1", "begun_with": {"recipe": {"name": "x"}}, "incidental": {}}
    (root / "again" / "reproduce.json").write_text(json.dumps({**begun, "stages": {"teacher": {"seconds": 1.0}}}))
    return root


def damage(case: Case, place: Path) -> None:
    for _ in range(case.rng.choice((1, 1, 2))):
        file = case.rng.choice(
            sorted(each for each in place.rglob("*") if each.suffix in (".json", ".csv", ".parquet"))
        )
        if file.suffix in (".csv", ".parquet"):
            damaged_file(case, file)
        else:
            damaged_json_file(case, file, {"name": "../../x", "arms": [{}], "seed": 10**30, "scores": [{"a": [1]}]})


def compared(place: Path) -> None:
    compare([place / "sweep"])
    compare([place / "forward", place / "none"])
    read_score_table(place / "sweep" / "scores.csv", "")


def resumed(place: Path) -> None:
    for strategy in ("forward", "none"):
        directory = RunDirectory(place / strategy, "resume", writes=False)
        directory.check_same(directory.config(), None)
        RunResult.stored(directory)
    sweep = SweepDirectory(place / "sweep", "resume")
    assert all(0 <= arm.seed < 2**32 for arm in sweep.stored_arms)
    if sweep.stored is not None:
        sweep.check_same(sweep.stored)


def planned(place: Path) -> None:
    plan = RunDirectory(place / "forward", "resume", writes=False).plan()
    assert plan.facts().keys() >= {"strategy", "init", "seed"}


def reproduced(place: Path) -> None:
    directory = ReproductionDirectory(place / "again")
    try:
        assert all(seconds >= 0 for seconds in directory.seconds.values())
        directory.done("teacher")
    finally:
        directory.close()


@pytest.mark.parametrize("use", [compared, resumed, reproduced], ids=lambda use: use.__name__)
def test_runs(use, original, tmp_path):
    campaign = Campaign(place := tmp_path / "place")
    for case in cases(f"runs {use.__name__}", few=25):
        directory = fresh(original, place / "runs")
        damage(case, directory)
        # What is said of all students together names no directory.
        campaign.judge(case, partial(use, directory), "" if use is compared else str(directory))
    campaign.finish()


def test_plans(original, tmp_path):
    campaign = Campaign(place := tmp_path / "place")
    for case in cases("plans", few=50):
        directory = fresh(original, place / "runs")
        damaged_json_file(case, directory / "forward" / "plan.json", {"streams": [{"matching": {}, "blocks": 3}]})
        campaign.judge(case, partial(planned, directory), str(directory))
    campaign.finish()
