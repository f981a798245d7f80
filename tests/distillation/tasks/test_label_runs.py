"""Whole runs on numbers and on several labels a text: teacher, student and `evaluate` agree with scores by hand."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from transformers import AutoModelForSequenceClassification, BertConfig, BertModel, pipeline

from anglekit.comparison.compare import compare
from anglekit.distillation.runs.evaluate import evaluate
from anglekit.distillation.runs.train import distill, finetune
from anglekit.distillation.settings import DataSettings
from anglekit.distillation.sweep.sweep import sweep
from anglekit.errors import InputError
from tests.distillation.run_corpus import quick

LABELS = ("cast", "film", "plot")


@pytest.fixture(scope="module")
def world(tmp_path_factory, tiny_tokenizer, words):
    """A body without a head, and tables: how many good words a pair has, and which of three words a text has."""
    root = tmp_path_factory.mktemp("labels")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        shape = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32, "max_position_embeddings": 64}
        BertModel(BertConfig(vocab_size=24, num_hidden_layers=2, **shape)).save_pretrained(root / "body")
    tiny_tokenizer().save_pretrained(root / "body")
    draw = random.Random(0)
    for name, rows in (("train", 60), ("dev", 25)):
        texts = [draw.choices(words, k=draw.randint(2, 8)) for _ in range(2 * rows)]
        pairs = pd.DataFrame({"sentence1": map(" ".join, texts[:rows]), "sentence2": map(" ".join, texts[rows:])})
        likes = [(texts[row] + texts[rows + row]).count("good") / 2 for row in range(rows)]
        pairs.assign(label=likes).to_csv(root / f"{name}-numbers.tsv", sep="\t", index=False)
        for text in texts[:rows]:
            text += [label for label in LABELS if label not in text and draw.random() < 0.5]
        several = [
            {"text": " ".join(text), "labels": [label for label in LABELS if label in text]} for text in texts[:rows]
        ]
        (root / f"{name}-several.jsonl").write_text("\n".join(map(json.dumps, several)) + "\n")
    return root


@pytest.fixture(scope="module")
def runs(world):
    """A teacher and a student of each kind."""
    found = {}
    for task, kind in (("stsb", "numbers.tsv"), ("multi-label", "several.jsonl")):
        tables = {"train": str(world / f"train-{kind}"), "validation": [f"dev={world / f'dev-{kind}'}"]}
        settings = quick(max_steps=30, learning_rate=5e-3, select="best", evaluate_every=10)
        teacher = finetune(str(world / "body"), task=task, out=world / f"{task}-teacher", settings=settings, **tables)
        student = distill(
            teacher.directory,
            strategy="forward",
            task=task,
            out=world / f"{task}-student",
            layers=1,
            settings=quick(),
            **tables,
        )
        found[task] = (teacher, student, str(world / f"dev-{kind}"))
    return found


def outputs_of(checkpoint, texts, pairs=None):
    """Return the logits of a saved model, one example at a time, by transformers alone."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    model = AutoModelForSequenceClassification.from_pretrained(checkpoint).eval()
    with torch.no_grad():
        rows = [
            model(**tokenizer(text, pair, return_tensors="pt")).logits[0].double().numpy()
            for text, pair in zip(texts, pairs or [None] * len(texts), strict=True)
        ]
    return np.stack(rows), model.config


def label_scores(given, true):
    """Return micro and macro F1 and subset accuracy of boolean arrays (examples, labels), label by label."""
    each, sums = [], np.zeros(3)
    for predicted, of in zip(given.T, true.T, strict=True):
        hits = sum(bool(p and t) for p, t in zip(predicted, of, strict=True))
        both = sum(predicted) + sum(of)
        each.append(2 * hits / both if both else 0.0)
        sums += hits, sum(predicted), sum(of)
    equal = [all(p == t for p, t in zip(*rows, strict=True)) for rows in zip(given, true, strict=True)]
    return {
        "micro_f1": 2 * sums[0] / (sums[1] + sums[2]),
        "macro_f1": sum(each) / len(each),
        "subset_accuracy": sum(equal) / len(equal),
    }


def test_numbers_are_scored_as_scipy_does(runs):
    """The correlations are scipy's of the predicted numbers, to 1e-12, in an evaluation and in a run itself.

    The two differ by up to 1e-5 in the numbers, which float32 rounds otherwise in batches of another padding. All
    scores of labels were compared once by hand with scikit-learn 1.9.1: F1, precision, recall, subset accuracy and mean
    squared error equal, Pearson's and Spearman's correlation within 1e-16.
    """
    teacher, student, dev = runs["stsb"]
    rows = pd.read_csv(dev, sep="\t")
    found = evaluate([teacher.directory, student.directory], task="stsb", data=[f"dev={dev}"])
    for place, run in enumerate((teacher, student)):
        outputs, config = outputs_of(run.checkpoint, list(rows["sentence1"]), list(rows["sentence2"]))
        assert (config.problem_type, config.num_labels) == ("regression", 1)
        kept = found.examples[found.examples["checkpoint"] == run.directory]
        assert kept["predicted_number"].to_numpy() == pytest.approx(outputs[:, 0], abs=1e-5)
        for name, oracle in (("pearson", stats.pearsonr), ("spearman", stats.spearmanr)):
            expected = oracle(kept["predicted_number"], rows["label"]).statistic
            assert found.scores[name][place] == pytest.approx(expected, abs=1e-12)
            assert run.scores[name][0] == pytest.approx(expected, abs=1e-5)
            own = pd.read_parquet(Path(run.directory) / "examples.parquet")
            own = own[own["model"] == "student"]
            expected = oracle(own["predicted_number"], rows["label"]).statistic
            assert run.scores[name][0] == pytest.approx(expected, abs=1e-12)
    scores = json.loads((Path(student.directory) / "scores.json").read_text())
    assert scores["teacher"][0]["pearson"] == pytest.approx(found.scores["pearson"][0], abs=1e-5)
    assert scores["primary"] == "pearson"
    assert scores["chance"]["dev"] == {"pearson": 0.0, "spearman": 0.0}
    assert found.scores["pearson"][0] > 0.5, "the teacher has learnt something"


def test_several_labels_are_scored_label_by_label(runs):
    teacher, student, dev = runs["multi-label"]
    rows = [json.loads(line) for line in Path(dev).read_text().splitlines()]
    true = np.array([[label in row["labels"] for label in LABELS] for row in rows])
    found = evaluate([teacher.directory, student.directory], task="multi-label", data=[f"dev={dev}"])
    for place, run in enumerate((teacher, student)):
        outputs, config = outputs_of(run.checkpoint, [row["text"] for row in rows])
        assert config.problem_type == "multi_label_classification"
        assert tuple(config.id2label.values()) == LABELS
        expected = label_scores(outputs > 0, true)
        for name, value in expected.items():
            assert found.scores[name][place] == pytest.approx(value, abs=1e-12)
            assert run.scores[name][0] == pytest.approx(value, abs=1e-12)
        own = found.labels[found.labels["checkpoint"] == run.directory]
        assert list(own["label"]) == list(LABELS)
        assert own["f1"].mean() == pytest.approx(expected["macro_f1"], abs=1e-12)
        assert list(own["examples"]) == true.sum(axis=0).tolist()
    assert found.scores["micro_f1"][0] > 0.5, "the teacher has learnt something"


def test_pipelines_read_the_saved_models_as_they_were_trained(runs):
    for task, (_, student, _) in runs.items():
        read = pipeline("text-classification", student.checkpoint, top_k=None, device="cpu")
        outputs, _ = outputs_of(student.checkpoint, ["a good film"])
        found = {one["label"]: one["score"] for one in read(["a good film"])[0]}
        if task == "stsb":
            assert list(found.values()) == pytest.approx(outputs[0].tolist(), abs=1e-5), "the number itself"
        else:
            by_hand = dict(zip(LABELS, 1 / (1 + np.exp(-outputs[0])), strict=True))
            assert found == pytest.approx(by_hand, abs=1e-5), "each label has a probability of its own"


def test_a_sweep_of_numbers_is_compared(runs, world):
    teacher, _, dev = runs["stsb"]
    result = sweep(
        teacher.directory,
        strategies=["none", "forward"],
        inits=["random"],
        seeds=[0],
        layers=1,
        task="stsb",
        train=str(world / "train-numbers.tsv"),
        validation=[f"dev={dev}"],
        out=world / "sweep",
        settings=quick(max_steps=2),
    )
    assert {"pearson", "spearman"} <= set(result.scores.columns)
    line = compare([result.directory]).headline.line
    assert "Pearson's correlation" in line


def test_heads_of_another_problem_are_refused(runs, world):
    table = pd.DataFrame({"text": ["a film", "a plot"], "label": [0, 1]})
    table.to_csv(world / "plain.tsv", sep="\t", index=False)
    plain = str(world / "plain.tsv")
    for task, wanted, problem in (
        ("multi-label", "classification", "multi_label_classification"),
        ("stsb", "multi-label", "regression"),
        ("stsb", "classification", "regression"),
    ):
        remedy = "regression" if task == "stsb" else task
        with pytest.raises(InputError, match=f"head for {problem} .*; take --task {remedy}, or correct"):
            evaluate(runs[task][0].directory, task=wanted, data=plain)
    numbers = {"task": "stsb", "train": str(world / "train-numbers.tsv"), "out": world / "x", "layers": 1}
    for settings, message in (
        (quick(class_weights="balanced"), "which has no classes"),
        (quick(temperature=2.0), "gives a number and no probabilities"),
        (quick(label_smoothing=0.1), "--label-smoothing 0.1 came with task stsb"),
    ):
        with pytest.raises(InputError, match=message):
            distill(runs["stsb"][0].directory, strategy="none", settings=settings, **numbers)
    with pytest.raises(InputError, match="came with task regression, which has no classes"):
        evaluate(runs["stsb"][0].directory, task="regression", data=plain, columns=DataSettings(classes="a,b"))
    assert not (world / "x").exists()


def test_a_teacher_whose_labels_are_in_another_order_is_told_before_a_student_is_trained(runs, world):
    turned = world / "turned"
    shutil.copytree(runs["multi-label"][0].checkpoint, turned)
    config = json.loads((turned / "config.json").read_text())
    config["id2label"] = dict(enumerate(("plot", "cast", "film")))
    config["label2id"] = {name: number for number, name in config["id2label"].items()}
    (turned / "config.json").write_text(json.dumps(config))
    warnings: list[str] = []
    options = {"strategy": "none", "task": "multi-label", "train": str(world / "train-several.jsonl"), "layers": 1}
    settings = quick(max_steps=1)
    distill(str(turned), out=world / "doubted", settings=settings, warn=warnings.append, **options)
    (warning,) = warnings
    assert warning.endswith("--label-map 0=cast,1=film,2=plot")
    provenance = json.loads((world / "doubted" / "provenance.json").read_text())
    assert provenance["doubts"] == warnings
    mapped = DataSettings(label_map=warning.split()[-1])
    run = distill(str(turned), out=world / "mapped", settings=settings, warn=warnings.append, data=mapped, **options)
    assert len(warnings) == 1
    assert tuple(json.loads(Path(run.checkpoint, "config.json").read_text())["id2label"].values()) == LABELS
