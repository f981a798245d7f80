"""Whole runs: what lies in a run directory, seeds, resuming, selection, and what is refused without a trace."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer, TrainerCallback

from anglekit.distillation.losses.weights import LossWeights
from anglekit.distillation.matching.plan import DistillationPlan
from anglekit.distillation.runs.directory import RunDirectory
from anglekit.distillation.runs.evaluate import evaluate
from anglekit.distillation.runs.run import Run, begin_distillation
from anglekit.distillation.runs.train import finetune, plan_run
from anglekit.distillation.tasks.models import load_trained
from anglekit.distillation.tasks.prepared_data import prepare_data
from anglekit.distillation.tasks.registry import task_by_name
from anglekit.errors import InputError, RunError
from anglekit.models.checkpoints import load_checkpoint, load_config
from anglekit.models.projections import load_adapters
from anglekit.vocabulary import STUDENT_FILE
from tests.distillation.run_corpus import kill_at_five, make_world, quick, student


@pytest.fixture(scope="module")
def world(tmp_path_factory, tiny_model, tiny_tokenizer, words):
    return make_world(tmp_path_factory.mktemp("world"), tiny_model, tiny_tokenizer(), words)


@pytest.fixture(scope="module")
def kept(world, tmp_path_factory):
    """A finished run that nothing may change."""
    return Path(student(world, tmp_path_factory.mktemp("kept") / "run").directory)


def weights(result):
    return load_file(Path(result.checkpoint) / "model.safetensors")


def lines_of(metrics):
    return [json.loads(line) for line in metrics.read_text().splitlines()]


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_a_run_directory_holds_all_that_belongs_to_it(world, tmp_path):
    result = student(world, tmp_path / "run", init="teacher", strategy="random")
    root = tmp_path / "run"
    assert sorted(entry.name for entry in root.iterdir()) == [
        "checkpoint",
        "examples.parquet",
        "metrics.jsonl",
        "plan.json",
        "provenance.json",
        "run_config.json",
        "scores.json",
    ]
    plan = DistillationPlan.from_json(json.loads((root / "plan.json").read_text()))
    assert (plan.strategy, plan.init, plan.seed) == ("random", "teacher", 3)
    lines = lines_of(root / "metrics.jsonl")
    assert {"loss", "loss_ce", "loss_kl", "loss_hidden"} <= set(lines[0])
    assert any("eval_accuracy" in line for line in lines)
    provenance = json.loads((root / "provenance.json").read_text())
    assert set(provenance["data"]) == {"train", "dev"}
    assert len(provenance["origin"]["sha256"]) == len(provenance["data"]["train"]["sha256"]) == 64
    assert (provenance["seed"], provenance["strategy"]) == (3, "random")
    scores = json.loads((root / "scores.json").read_text())
    assert scores["steps"] == 6
    assert scores["scores"] == result.scores.to_dict(orient="records")
    assert json.loads((root / "checkpoint" / STUDENT_FILE).read_text()) == {
        "init": "teacher",
        "strategy": "random",
        "seed": 3,
        "teacher": world["teacher"],
        "taught_by": {matching.stream: {str(s): t for s, t in matching.pairs} for matching in plan.matchings},
    }


def test_the_student_is_an_ordinary_checkpoint_with_its_labels(world, tmp_path):
    result = student(world, tmp_path / "run")
    model, report = AutoModelForSequenceClassification.from_pretrained(result.checkpoint, output_loading_info=True)
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert model.config.id2label == {0: "negative", 1: "positive"}
    assert model.config.num_hidden_layers == 2
    assert len(AutoTokenizer.from_pretrained(result.checkpoint)) == len(AutoTokenizer.from_pretrained(world["teacher"]))
    for_analysis = load_checkpoint(result.checkpoint)
    assert (for_analysis.training.init, for_analysis.training.strategy) == ("random", "forward")


def test_the_hash_of_the_teacher_is_the_one_that_the_analysis_states(world):
    assert (
        load_trained(world["teacher"], task_by_name("classification")).provenance().sha256
        == load_checkpoint(world["teacher"]).sha256
    )


def test_a_narrow_student_has_trained_adapters_beside_it(world, tmp_path):
    result = student(world, tmp_path / "run", width=16)
    stored = load_adapters(Path(result.checkpoint))
    assert {place: tuple(weight.shape) for place, weight in stored.items()} == {
        ("encoder", layer): (32, 16) for layer in range(3)
    }
    assert not any("adapter" in name for name in weights(result))


def test_fine_tuning_learns_and_evaluation_agrees(world, tmp_path):
    result = finetune(
        world["teacher"],
        task="classification",
        train=world["train"],
        validation=[world["dev"], f"again={world['train']}"],
        out=tmp_path / "run",
        settings=quick(max_steps=120, learning_rate=3e-3),
    )
    assert result.scores["data"].tolist() == ["dev", "again"]
    assert result.scores["accuracy"].tolist() == [1.0, 1.0]
    both = evaluate([result.directory, world["teacher"]], task="classification", data=[world["dev"]]).scores
    assert both["accuracy"][0] == 1.0
    assert both["accuracy"][1] < 1.0
    assert both["examples"].tolist() == [21, 21]
    assert not (tmp_path / "run" / "checkpoint" / STUDENT_FILE).exists()


def test_a_new_head_is_made_for_new_labels(world, tmp_path, words):
    table = tmp_path / "colours.tsv"
    rows = [f"the film was {word}\t{colour}" for word, colour in zip(words[:12], "rgb" * 4, strict=True)]
    table.write_text("text\tlabel\n" + "\n".join(rows) + "\n", encoding="utf-8")
    result = finetune(
        world["teacher"], task="classification", train=str(table), out=tmp_path / "run", settings=quick(max_steps=1)
    )
    assert load_config(result.checkpoint).id2label == {0: "b", 1: "g", 2: "r"}
    assert result.scores.empty


def test_scores_equal_those_counted_by_hand(world, tmp_path):
    result = student(world, tmp_path / "run")
    model = AutoModelForSequenceClassification.from_pretrained(result.checkpoint)
    tokenizer = AutoTokenizer.from_pretrained(result.checkpoint)
    data = task_by_name("classification").read(world["dev"])
    right = 0
    for text, label in zip(data.texts, data.labels, strict=True):
        with torch.no_grad():
            found = model(**tokenizer(text, return_tensors="pt")).logits.argmax(-1).item()
        right += model.config.id2label[found] == label
    assert result.scores["accuracy"][0] == pytest.approx(right / 21)


def test_a_seed_sets_the_student_and_nothing_before_it_matters(world, tmp_path):
    first = student(world, tmp_path / "a", strategy="random")
    torch.manual_seed(99)
    np.random.seed(7)  # noqa: NPY002 - the global state that must not matter
    again = student(world, tmp_path / "b", strategy="random")
    other = student(world, tmp_path / "c", strategy="random", settings=quick(seed=4))
    order = student(world, tmp_path / "d", strategy="random", settings=quick(seed=3, data_seed=1))
    assert same(weights(first), weights(again))
    assert not same(weights(first), weights(other))
    assert not same(weights(first), weights(order))


def test_runs_begun_side_by_side_equal_separate_runs(world, tmp_path):
    """As a sweep does it: one teacher, one set of data, all runs begun before the first one trains."""
    task, settings = task_by_name("classification"), quick(seed=3).completed(epochs=1.0, learning_rate=1e-3)
    loaded = load_trained(world["teacher"], task)
    train, dev = (task.read(world[name], name=name) for name in ("train", "dev"))
    settled = task.for_teacher(train, loaded.model.config)
    data = prepare_data(settled, loaded.tokenizer, loaded.model.config, train, [dev])
    begun = []
    for strategy, init in (("forward", "random"), ("reverse", "teacher")):
        directory = RunDirectory(tmp_path / strategy)
        plan = plan_run(
            loaded.model.config,
            settings,
            directory,
            teacher=world["teacher"],
            strategy=strategy,
            layers=2,
            init=init,
        )
        begun.append(begin_distillation(loaded, data, plan, directory, settings))
    for run in begun:
        run.train()
    for run, init in zip(begun, ("random", "teacher"), strict=True):
        result = run.finish()
        alone = student(world, tmp_path / f"alone-{init}", strategy=run.note.strategy, init=init)
        assert same(weights(result), weights(alone))


def test_a_killed_run_resumes_to_the_same_student(world, tmp_path, monkeypatch):
    settings = quick(seed=3, max_steps=8, evaluate_every=2, select="best")
    whole = student(world, tmp_path / "whole", settings=settings, width=16)
    with monkeypatch.context() as patch:
        kill_at_five(patch)
        with pytest.raises(KeyboardInterrupt):
            student(world, tmp_path / "run", settings=settings, width=16)
    assert (tmp_path / "run" / "training" / "checkpoint-4").is_dir()
    with pytest.raises(InputError, match="holds an unfinished run; use --resume"):
        student(world, tmp_path / "run", settings=settings, width=16)
    resumed = student(world, tmp_path / "run", settings=settings, width=16, if_exists="resume")
    assert same(weights(whole), weights(resumed))
    ours, theirs = (load_adapters(Path(one.checkpoint)) for one in (whole, resumed))
    assert all(torch.equal(ours[place], theirs[place]) for place in ours)
    logs = [
        [
            (line["step"], line.get("loss"), line.get("eval_loss"))
            for line in map(json.loads, one.read_text().splitlines())
        ]
        for one in (tmp_path / "whole" / "metrics.jsonl", tmp_path / "run" / "metrics.jsonl")
    ]
    assert logs[0] == logs[1]
    assert resumed.selected_step == whole.selected_step


def test_a_finished_run_is_not_trained_again(world, tmp_path, monkeypatch):
    first = student(world, tmp_path / "run")
    with pytest.raises(InputError, match="holds a finished run; name another directory, or use --overwrite"):
        student(world, tmp_path / "run")
    with monkeypatch.context() as patch:
        patch.setattr(Run, "train", lambda _run: pytest.fail("trained again"))
        again = student(world, tmp_path / "run", if_exists="resume")
    assert again.scores.equals(first.scores)
    other = student(world, tmp_path / "run", settings=quick(seed=5), if_exists="overwrite")
    assert not same(weights(first := other), weights(student(world, tmp_path / "again")))
    assert not (tmp_path / "run" / "run.lock").exists()


def damaged(checkpoint, how):
    weights_file, tokenizer = checkpoint / "model.safetensors", checkpoint / "tokenizer.json"
    if how == "cut":
        weights_file.write_bytes(weights_file.read_bytes()[:-1])
    elif how == "gone":
        shutil.rmtree(checkpoint)
    else:
        (weights_file if how == "no weights" else tokenizer).unlink()


@pytest.mark.parametrize(
    ("how", "what", "recorded"),
    [
        ("cut", r"model\.safetensors is cut to [\d,]+ of its [\d,]+ bytes", True),
        ("gone", r"is missing", True),
        ("no weights", r"model\.safetensors is missing", True),
        ("no tokenizer", r"tokenizer\.json is missing", True),
        # Earlier versions did not record which files there were.
        ("cut", "cannot load", False),
        ("gone", "no such directory", False),
        ("no weights", "holds no weights", False),
    ],
)
def test_a_finished_run_without_its_student_says_what_to_do(world, kept, tmp_path, how, what, recorded):
    run = Path(shutil.copytree(kept, tmp_path / "run"))
    if not recorded:
        provenance = json.loads((run / "provenance.json").read_text())
        del provenance["checkpoint"]
        (run / "provenance.json").write_text(json.dumps(provenance))
    assert student(world, run, if_exists="resume").steps == 6
    damaged(run / "checkpoint", how)
    before = sorted(run.rglob("*"))
    with pytest.raises(InputError, match=what) as caught:
        student(world, run, if_exists="resume")
    assert str(caught.value).startswith(f"{run} holds a finished run whose checkpoint is not whole (")
    assert str(caught.value).endswith("; put the file back, or remove that directory and start again as before: it is "
                                      "trained again")  # fmt: skip
    assert sorted(run.rglob("*")) == before
    shutil.rmtree(run)
    assert same(weights(student(world, run, if_exists="resume")), load_file(kept / "checkpoint" / "model.safetensors"))


def test_a_checkpoint_whose_files_grew_is_taken_as_it_is(world, kept, tmp_path):
    """Negative control: somebody who edits the names of the labels has lost nothing."""
    run = Path(shutil.copytree(kept, tmp_path / "run"))
    config = json.loads((run / "checkpoint" / "config.json").read_text())
    (run / "checkpoint" / "config.json").write_text(json.dumps(config | {"note": "mine" * 100}, indent=2))
    assert student(world, run, if_exists="resume").steps == 6


def test_a_random_order_without_a_seed_is_drawn_once_and_kept_on_resuming(world, tmp_path, monkeypatch):
    settings = quick(max_steps=8, evaluate_every=2)
    with monkeypatch.context() as patch:
        kill_at_five(patch)
        with pytest.raises(KeyboardInterrupt):
            student(world, tmp_path / "run", strategy="random", settings=settings)
    before = json.loads((tmp_path / "run" / "plan.json").read_text())
    student(world, tmp_path / "run", strategy="random", settings=settings, if_exists="resume")
    assert json.loads((tmp_path / "run" / "plan.json").read_text()) == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"strategy": "reverse"}, "strategy: reverse here, forward there"),
        ({"settings": quick(seed=4)}, "seed: 4 here, 3 there"),
        ({"settings": quick(seed=3, learning_rate=1e-4)}, "learning_rate: 0.0001 here, 0.001 there"),
        ({"weights": LossWeights(1.0, 0.0, 3.0)}, "weights"),
        ({"validation": []}, "tables"),
    ],
)
def test_another_plan_does_not_resume_a_run(world, tmp_path_factory, change, message):
    out = tmp_path_factory.getbasetemp() / "resumable"
    if not out.exists():
        student(world, out)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    with pytest.raises(InputError, match=message):
        student(world, out, if_exists="resume", **change)
    assert before == {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}


def test_a_run_resumes_that_was_written_before_a_setting_was_known(world, tmp_path):
    student(world, tmp_path / "run")
    for name, holder in (("run_config.json", "settings"), ("plan.json", "training")):
        document = json.loads((tmp_path / "run" / name).read_text())
        del document[holder]["label_smoothing"]
        (tmp_path / "run" / name).write_text(json.dumps(document))
    assert student(world, tmp_path / "run", if_exists="resume").steps > 0
    with pytest.raises(InputError, match=r"label_smoothing: 0.1 here, 0.0 there"):
        student(world, tmp_path / "run", if_exists="resume", settings=quick(seed=3, label_smoothing=0.1))


def test_a_loss_that_turns_nan_keeps_the_last_checkpoint(world, tmp_path, monkeypatch):
    class Poison(TrainerCallback):
        def on_step_begin(self, args, state, control, model=None, **kwargs):
            if state.global_step == 5:
                model.classifier.bias.data.fill_(float("nan"))

    train = Run.train

    def poisoned(run):
        run.trainer.add_callback(Poison())
        train(run)

    monkeypatch.setattr(Run, "train", poisoned)
    with pytest.raises(RunError, match=r"ce loss was not finite at step 6; the last good checkpoint is .*checkpoint-4"):
        student(world, tmp_path / "run", settings=quick(seed=3, max_steps=8, evaluate_every=2))
    assert (tmp_path / "run" / "training" / "checkpoint-4" / "model.safetensors").is_file()
    assert not (tmp_path / "run" / "scores.json").exists()


def test_the_best_validation_is_kept_if_asked_for(world, tmp_path):
    """A learning rate that first learns and then breaks what was learnt."""
    results = {}
    for select in ("best", "last"):
        settings = quick(seed=3, max_steps=30, evaluate_every=3, select=select, schedule="constant", learning_rate=8e-3)
        results[select] = student(world, tmp_path / select, settings=settings, strategy="none")
    lines = lines_of(tmp_path / "best" / "metrics.jsonl")
    seen = {line["step"]: line["eval_accuracy"] for line in lines if "eval_accuracy" in line}
    best = results["best"]
    assert len(set(seen.values())) > 2
    assert best.scores["accuracy"][0] == max(seen.values()) == seen[best.selected_step]
    assert results["last"].selected_step == 30
    assert results["last"].scores["accuracy"][0] == seen[30]


def test_training_without_checkpoints_leaves_none_behind(world, tmp_path, monkeypatch):
    kill_at_five(monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        student(world, tmp_path / "run", settings=quick(seed=3, resumable=False, evaluate_every=2))
    assert not (tmp_path / "run" / "training").exists()


def test_frozen_embeddings_stay(world, tmp_path):
    result = student(world, tmp_path / "run", init="teacher", freeze_embeddings=True)
    before = load_file(Path(world["teacher"]) / "model.safetensors")
    after = weights(result)
    name = "bert.embeddings.word_embeddings.weight"
    assert torch.equal(before[name], after[name])
    assert not torch.equal(before["bert.pooler.dense.weight"], after["bert.pooler.dense.weight"])
