"""What a label column says: classes by name or number, several labels, numbers; and what it does not say."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest
from transformers import BertConfig

from anglekit.distillation.settings import DataSettings, TrainSettings
from anglekit.distillation.tasks.data import TokenizedExamples
from anglekit.distillation.tasks.labelled.label_sets import LabelSet
from anglekit.distillation.tasks.registry import task_by_name
from anglekit.errors import InputError
from anglekit.settings_fields import SettingError

SNLI = ["entailment", "-", "neutral", "contradiction", "neutral", "-"]


def rows_of(labels):
    """Return rows with these labels; `labels` may name several columns."""
    columns = labels if isinstance(labels, dict) else {"label": labels}
    number = len(next(iter(columns.values())))
    return pd.DataFrame({"text": [f"text {row}" for row in range(number)], **columns})


@pytest.fixture
def table(tmp_path):
    """`table(labels)`: the path of a jsonl with them."""

    def write(labels, name="t.jsonl"):
        file = tmp_path / name
        lines = [json.dumps(row) for row in rows_of(labels).to_dict(orient="records")]
        file.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return str(file)

    return write


def settle(task, source, teacher=None, **columns):
    """Return the task's classes by data and teacher, and the table that was read."""
    settings = DataSettings(**columns)
    chosen = task_by_name(task).configured(settings)
    texts = chosen.read(source, settings)
    if teacher is None:
        return chosen.for_fine_tuning(texts, BertConfig()), texts
    config = BertConfig(num_labels=len(teacher)) if isinstance(teacher, Sequence) else teacher
    if isinstance(teacher, Sequence):
        config.update(LabelSet(tuple(teacher)).config_settings())
    return chosen.for_teacher(texts, config), texts


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (SNLI, r"label '-' in 2 rows, the first of them row 1 \(counted from 0\) of .*: --no-label -; or .* --classes"),
        ([0, 1, 2, -1, 1, 0], r"label '-1' in 1 row, the first of them row 3 .*: --no-label -1"),
        (
            [0.25 * row for row in range(161)] * 2,
            "161 different numbers, such as 0.25, not classes; .*--task regression",
        ),
        (list(range(50)), "50 different numbers in 50 rows, such as '0', and hardly any comes twice"),
        ([f"a title {row}" for row in range(20)], "20 different texts in 20 rows, .*with --label"),
        (list(range(77)) * 5, "77 different whole numbers, .*: --classes 77; for scores take --task regression"),
        ([["a"], ["b"]], r"column 'label', row 0 \(counted from 0\) holds \"\['a'\]\", .*; take --task multi-label"),
    ],
)
def test_labels_that_may_be_no_classes_are_a_question(table, labels, message):
    with pytest.raises(InputError, match=message):
        settle("classification", table(labels))


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (["+", "-", "+"], ("+", "-")),
        ([-1, 1, 1], ("-1", "1")),
        ([-2, -1, 0, 1, 2], ("-2", "-1", "0", "1", "2")),
        ([1.0, 2.0, 3.0], ("1", "2", "3")),
        ([True, False], ("0", "1")),
        (list(range(20)) * 5, tuple(map(str, range(20)))),
    ],
)
def test_labels_that_are_classes_are_taken_as_they_are(table, labels, names):
    assert settle("classification", table(labels))[0].settled.names == names


def test_answers_to_the_questions(table):
    snli = table(SNLI)
    task, texts = settle("classification", snli, no_label="-")
    assert task.settled.names == ("contradiction", "entailment", "neutral")
    assert (texts.rows, texts.left_out) == ((0, 2, 3, 4), {"-": 2})
    assert texts.texts == ("text 0", "text 2", "text 3", "text 4")
    assert texts.provenance()["left_out"] == {"-": 2}
    assert task.label_numbers(texts).tolist() == [1, 2, 0, 2]
    assert settle("classification", snli, classes="-,neutral,entailment,contradiction")[0].settled.names[0] == "-"
    assert len(settle("classification", table(list(range(77)) * 5), classes="77")[0].settled.names) == 77
    named = settle("classification", table([0, 1, 1]), classes='negative,"so, so"')[0]
    assert named.settled.names == ("negative", "so, so")
    # Missing cells count as no label, once it is said that there may be none.
    missing = table(["a", None, "b", "", "-"])
    assert settle("classification", missing, no_label="-")[1].left_out == {"": 2, "-": 1}
    with pytest.raises(InputError, match=r"no label in row 1 \(counted from 0\).*--no-label -"):
        settle("classification", missing, drop_labels="-")


def test_classes_that_are_left_out_stay_the_teachers(table):
    source = table(["neg", "neutral", "pos", "neg"])
    task, texts = settle("classification", source, teacher=("neg", "neutral", "pos"), drop_labels="neutral")
    assert (task.settled.names, texts.left_out) == (("neg", "neutral", "pos"), {"neutral": 1})
    assert task.label_numbers(texts).tolist() == [0, 2, 0]
    with pytest.raises(InputError, match=r"no row of .* is left: 2 rows labelled 'neg', 1 row labelled 'pos'"):
        settle("classification", table(["neg", "pos", "neg"], "two.jsonl"), drop_labels="neg,pos")
    numbers = settle("mnli", table({"premise": "abc", "hypothesis": "def", "label": [2, 0, 1]}), drop_labels="neutral")
    assert numbers[1].labels == ("contradiction", "entailment")


def test_a_map_says_what_a_models_labels_are_called(table):
    source = table(["bad", "good", "bad"])
    task, texts = settle("classification", source, ("LABEL_0", "LABEL_1"), label_map="LABEL_0=good,1=bad")
    assert task.settled.names == ("good", "bad")
    assert task.label_numbers(texts).tolist() == [1, 0, 1]
    mapped = task_by_name("sst2").configured(DataSettings(label_map="0=1,1=0"))
    assert mapped.for_trained(BertConfig(num_labels=2)).settled.names == ("positive", "negative")
    for entries, message in (
        ("LABEL_7=good,LABEL_1=bad", "'LABEL_7', which the model lacks; the model's are LABEL_0, LABEL_1"),
        ("0=good,LABEL_0=bad", "'LABEL_0', which came before"),
        ("0=good,1=good", "makes the labels good, good"),
    ):
        with pytest.raises(InputError, match=message):
            settle("classification", source, ("LABEL_0", "LABEL_1"), label_map=entries)
    with pytest.raises(InputError, match=r"'bad' in row 0 .*--label-map"):
        settle("classification", source, ("LABEL_0", "LABEL_1"))
    with pytest.raises(InputError, match="came for a model that is fine-tuned"):
        settle("classification", source, label_map="a=b")


def test_names_that_a_file_gives_to_its_numbers_are_read(tmp_path):
    datasets = pytest.importorskip("datasets")
    rows = {"text": ["a", "b", "c"], "label": [1, 0, 1], "labels": [[0, 2], [], [1]]}
    names = datasets.ClassLabel(names=["neg", "pos"])
    several = datasets.Sequence(datasets.ClassLabel(names=["x", "y", "z"]))
    features = datasets.Features({"text": datasets.Value("string"), "label": names, "labels": several})
    source = str(tmp_path / "t.parquet")
    datasets.Dataset.from_dict(rows, features=features).to_parquet(source)
    task, texts = settle("classification", source)
    assert (task.settled.names, texts.labels) == (("neg", "pos"), ("pos", "neg", "pos"))
    # A teacher whose names say nothing learns them, in the order of the numbers.
    for teacher in (("LABEL_0", "LABEL_1"), ("0", "1"), ("pos", "neg")):
        task, texts = settle("classification", source, teacher)
        expected = [0, 1, 0] if teacher[0] == "pos" else [1, 0, 1]
        assert task.label_numbers(texts).tolist() == expected
        assert set(task.settled.names) == {"neg", "pos"}
        trained = task_by_name("classification").for_trained(
            BertConfig(num_labels=2, id2label=dict(enumerate(teacher)))
        )
        assert trained.label_numbers(texts).tolist() == expected
    task, texts = settle("multi-label", source, label="labels")
    assert (task.settled.names, texts.labels) == (("x", "y", "z"), (("x", "z"), (), ("y",)))


SEVERAL = [
    ({"label": [["b", "a"], [], ["c"]]}, {}, ("a", "b", "c")),
    ({"label": ["b,a", "", "c"]}, {"no_label": None}, None),
    ({"label": ["['b', 'a']", "[]", '["c"]']}, {}, ("a", "b", "c")),
    ({"label": ["b; a", "c", "c"]}, {"label_separator": ";"}, None),
    ({"label": [[0, 1], [1], [2]]}, {}, ("0", "1", "2")),
    ({"label": [[1, 1, 0], [0, 0, 0], [0, 0, 1]]}, {}, ("0", "1", "2")),
    ({"label": [[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]}, {"classes": "x,y"}, ("x", "y")),
    ({"toxic": [1, 0, 0], "insult": [1, 0, 1]}, {"label": "toxic,insult"}, ("toxic", "insult")),
    ({"toxic": [1, 0, 0], "insult": [1, 0, 1]}, {"label": "toxic,insult", "classes": "T,I"}, ("T", "I")),
]


@pytest.mark.parametrize(("columns", "options", "names"), SEVERAL)
def test_several_labels_come_in_many_forms(table, columns, options, names):
    task, texts = settle("multi-label", table(columns), **options)
    if names is not None:
        assert task.settled.names == names
    matrix = task.label_numbers(texts)
    held = [tuple(name for name, there in zip(task.settled.names, row, strict=True) if there) for row in matrix]
    assert [set(own) for own in held] == [set(own) for own in texts.labels]
    assert matrix.sum() >= 3


@pytest.mark.parametrize(
    ("columns", "options", "message"),
    [
        ({"label": [["a"], None, ["b"]]}, {}, r"no label in row 1 \(counted from 0\)"),
        (
            {"label": [["a"], ["b", None], ["b"]]},
            {},
            r"row 1 \(counted from 0\) holds \"\['b', None\]\", which is no list of labels",
        ),
        ({"label": [["a"], ["q"]]}, {"classes": "a,b"}, r"label 'q' in row 1 .*; allowed: a, b"),
        ({"label": [[1, 0, 1], [0, 1, 1]]}, {"classes": "a,b"}, "lists of 3 places for labels, and there are 2"),
        ({"x": [1, 0], "y": [0, -1]}, {"label": "x,y"}, r"column 'y', row 1 .*holds '-1'; .*--no-label -1"),
        ({"x": [1, 0], "y": [0, 1]}, {"label": "x,z"}, "no column 'z' for --label"),
        ({"x": [1, 0], "y": [0, 1]}, {"label": "x,y", "classes": "a,b,c"}, "names 2 columns and there are 3 classes"),
        ({"label": [[f"{row} and so on"] for row in range(20)]}, {}, "hardly any comes twice"),
    ],
)
def test_several_labels_that_cannot_be_read_are_refused_with_their_row(table, columns, options, message):
    with pytest.raises(InputError, match=message):
        settle("multi-label", table(columns), **options)


def test_left_out_labels_of_several(table):
    source = table({"label": [["a", "n"], ["n"], ["b"], [], None]})
    task, texts = settle("multi-label", source, no_label="", drop_labels="n")
    assert (texts.labels, texts.rows, texts.left_out) == ((("a",), ("b",), ()), (0, 2, 3), {"n": 1, "": 1})
    assert task.settled.names == ("a", "b")
    columns = table({"x": [1, 0, -1], "y": [0, 1, 1], "z": [0, 0, 1]}, "columns.jsonl")
    task, texts = settle("multi-label", columns, label="x,y,z", no_label="-1", drop_labels="z")
    assert (task.settled.names, texts.labels, texts.left_out) == (("x", "y"), (("x",), ("y",)), {"-1": 1})
    assert texts.columns == ("text", "x", "y")


def test_numbers(table):
    task, texts = settle("regression", table([0.5, 3, "2.25", -1]))
    assert task.label_numbers(texts).tolist() == [0.5, 3.0, 2.25, -1.0]
    assert settle("regression", table([0.5, None, 3.0, "-"]), no_label="-")[1].left_out == {"": 1, "-": 1}
    assert settle("regression", table({"score": [1, 2]}))[1].columns == ("text", "score")
    for labels, message in (
        ([0.5, "positive"], r"row 1 \(counted from 0\) holds the label 'positive', which is no finite number"),
        ([True, False], "row 0 .* no finite number; .*--task classification"),
        ([1.0, "inf"], "holds the label 'inf'"),
        ([[1.0], [2.0]], r"holds the label '\[1.0\]'"),
        (
            {"label": [0, 1], "score": [1, 2]},
            "columns label, score, any of which may be the number; name it: --label score",
        ),
    ):
        with pytest.raises(InputError, match=message):
            settle("regression", table(labels))
    source = table([0.5, None])
    with pytest.raises(InputError, match=r"has no label in row 1 \(counted from 0\); .*--no-label"):
        task.label_numbers(task.read(source))
    with pytest.raises(InputError, match="the teacher has 2 outputs and task regression reads one number"):
        settle("regression", source, ("no", "yes"), no_label="")


def test_weights_of_classes(table):
    """Balanced weights are n / (k n_c), as scikit-learn's; of several labels, how many lack it for one that has it."""

    def weights(task, labels, **settings):
        examples = TokenizedExamples({"input_ids": [[1]] * len(labels)}, {"labels": labels})
        return task.label_losses(TrainSettings(**settings), examples)["class_weights"]

    task = settle("classification", table(["a", "b", "a", "c"]))[0]
    labels = np.array([0, 1, 0, 0, 2, 0])
    assert weights(task, labels, class_weights="balanced") == pytest.approx((6 / 12, 6 / 3, 6 / 3))
    assert weights(task, np.array([0, 0, 2]), class_weights="balanced") == pytest.approx((3 / 4, 1.0, 3 / 2))
    assert weights(task, labels, class_weights="c=2.5,A=0") == (0.0, 1.0, 2.5)
    assert weights(task, labels) is None
    several = settle("multi-label", table({"x": [1, 0], "y": [0, 1]}), label="x,y")[0]
    matrix = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 0.0], [1.0, 1.0]])
    assert weights(several, matrix, class_weights="balanced") == pytest.approx((1 / 3, 3.0))
    with pytest.raises(InputError, match="names the class 'q'; the classes are a, b, c"):
        weights(task, labels, class_weights="q=2")


@pytest.mark.parametrize(
    ("settings", "options", "message"),
    [
        (DataSettings, {"classes": "a"}, "classes is 'a'; allowed: two or more, or their number"),
        (DataSettings, {"classes": "a,a"}, "give each class its own name"),
        (DataSettings, {"drop_labels": "a,,b"}, "nothing in one place"),
        (DataSettings, {"label_map": "a:b"}, "has the entry 'a:b'; allowed: MODEL=DATA"),
        (DataSettings, {"label_map": "a=b,a=c"}, "give each label of the model once"),
        (DataSettings, {"label_separator": ""}, "is empty"),
        (TrainSettings, {"class_weights": "heavy"}, "has the entry 'heavy'; allowed: balanced, or NAME=NUMBER"),
        (TrainSettings, {"class_weights": "a=-1"}, "has the entry 'a=-1'"),
    ],
)
def test_settings_of_labels_that_say_nothing_are_refused(settings, options, message):
    with pytest.raises(SettingError, match=message):
        settings(**options)
    with pytest.raises(InputError, match="--classes a,b came with task seq2seq, which has no classes"):
        task_by_name("seq2seq").configured(DataSettings(classes="a,b"))


@pytest.mark.parametrize(
    ("task", "labels"), [("classification", [0, 1, {"x": 1}, 0]), ("regression", [0.5, 2.5, {"x": 1}])]
)
def test_an_object_among_labels_is_not_taken_for_a_missing_one(table, task, labels):
    source = table(labels)
    with pytest.raises(InputError, match=r"column 'label', row 2 .* holds an object with 'x', where other rows hold a"):
        settle(task, source)
    # A column of objects alone has columns of its own.
    _, texts = settle("classification", table([{"x": 0}, {"x": 1}]), label="label.x")
    assert list(texts.labels) == ["0", "1"]
