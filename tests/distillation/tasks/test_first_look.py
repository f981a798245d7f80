"""What a run would refuse of its tables' labels and texts is refused before torch is imported, with file and row."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from anglekit.distillation.settings import DataSettings
from anglekit.distillation.tasks.labelled.first_look import look_at_labels
from anglekit.errors import InputError

WORDS = ("neg", "pos")


def rows(tmp_path, name, labels, texts=None):
    path = tmp_path / name
    texts = texts or [f"w{n}" for n in range(len(labels))]
    path.write_text(
        "".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in zip(texts, labels, strict=True))
    )
    return str(path)


@pytest.fixture
def teacher(tmp_path):
    (tmp_path / "teacher").mkdir()
    (tmp_path / "teacher" / "config.json").write_text(json.dumps({"id2label": {"0": "neg", "1": "pos"}}))
    return str(tmp_path / "teacher")


GOOD = [*WORDS] * 10
BAD = {
    "outside": ([*GOOD, "neutral"], {"classes": "neg,pos"}, r"label 'neutral' in row 20 .*allowed: neg, pos"),
    "missing": ([*GOOD, None], {}, r"no label in row 20 .*--no-label -"),
    "several": ([*GOOD, ["neg"]], {}, r"row 20 .* no single label; take --task multi-label"),
    "mixed": ([*GOOD, 1.5], {}, r"row 20 .* holds the number 1.5, where other rows hold words such as 'neg'"),
    "scores": ([n * 0.37 for n in range(161)], {}, r"161 different numbers, such as 0.37, not classes"),
    "many": ([n % 80 for n in range(400)], {}, r"80 different whole numbers, .*--task regression"),
    "ids": (list(range(50)), {}, r"hardly any comes twice"),
    "unknown class": (GOOD, {"classes": "neg,positive"}, r"label 'pos' in row 1 .*allowed: neg, positive"),
    "nothing to leave out": (GOOD, {"no_label": "none"}, r"--no-label names 'none', which no row .*neg, pos"),
    "nothing to drop": (GOOD, {"drop_labels": "nix"}, r"--drop-labels names 'nix'"),
}


@pytest.mark.parametrize(("labels", "options", "says"), BAD.values(), ids=BAD)
def test_what_training_would_refuse(tmp_path, labels, options, says):
    table = rows(tmp_path, "rows.jsonl", labels)
    with pytest.raises(InputError, match=says) as caught:
        look_at_labels([table], "classification", DataSettings(**options), trains=True)
    assert table in str(caught.value)


def test_what_is_right_passes(tmp_path, teacher):
    """The control of all that is refused."""
    train, other = rows(tmp_path, "train.jsonl", GOOD), rows(tmp_path, "other.jsonl", [0, 1, "-", 1])
    look_at_labels([train], "classification", DataSettings(), trained=[teacher], trains=True)
    look_at_labels([train, train], "classification", DataSettings(), trains=True)
    look_at_labels([other], "sst2", DataSettings(no_label="-"), trains=True)
    look_at_labels([rows(tmp_path, "numbers.jsonl", [0.5, 1, None])], "regression", DataSettings(), trains=True)
    ids = rows(tmp_path, "ids.jsonl", list(range(50)))
    look_at_labels([ids], "classification", DataSettings(classes="50"), trains=True)
    look_at_labels([ids], "multi-label", DataSettings(), trains=True)  # left to the run


def test_labels_of_which_none_is_a_class_are_asked_about(tmp_path, teacher):
    """Numbers are scores, and other names may be mapped; where some labels are classes, the others are mistakes."""

    def said(labels):
        table = rows(tmp_path, "other.jsonl", labels)
        with pytest.raises(InputError) as caught:
            look_at_labels([table], "classification", DataSettings(), trained=[teacher], trains=False)
        return str(caught.value)

    scores, mapped = "for scores take --task regression, and a model of it", "--label-map MODEL=DATA"
    assert scores in said([0.0, 0.5, 1.25])
    assert scores in said(["0.5", "1.25", "neg"])
    for labels in ([1.0, 2.0, 1.0], ["good", "bad"]):
        assert mapped in said(labels)
        assert scores not in said(labels)
    assert said(["neg", "neutral"]).endswith("allowed: neg, pos")


def test_the_labels_are_a_trained_models_or_those_of_the_first_table(tmp_path, teacher):
    train = rows(tmp_path, "train.jsonl", GOOD)
    other = rows(tmp_path, "other.jsonl", ["neg", "neutral"])
    with pytest.raises(InputError, match=r"other.jsonl has label 'neutral' in row 1 .*allowed: neg, pos"):
        look_at_labels([other], "classification", DataSettings(), trained=[teacher], trains=False)
    with pytest.raises(InputError, match=r"other.jsonl has label 'neutral' in row 1"):
        look_at_labels([train, other], "classification", DataSettings(), trains=True)
    with pytest.raises(InputError, match=r"--classes names 'positive', which the model lacks; .*--label-map"):
        look_at_labels([train], "classification", DataSettings(classes="neg,positive"), trained=[teacher], trains=False)
    mapped = DataSettings(label_map="neg=negative,pos=positive")
    look_at_labels([rows(tmp_path, "m.jsonl", ["negative"])], "classification", mapped, trained=[teacher], trains=False)


def test_texts_and_numbers(tmp_path):
    mixed = rows(tmp_path, "mixed.jsonl", GOOD, [*["w"] * 13, 5, *["w"] * 6])
    with pytest.raises(InputError, match=r"column 'text', row 13 .* holds int '5', not text"):
        look_at_labels([mixed], "classification", DataSettings(), trains=True)
    with pytest.raises(InputError, match=r"row 1 .* holds the label 'high', which is no finite number"):
        look_at_labels([rows(tmp_path, "n.jsonl", [1.5, "high"])], "regression", DataSettings(), trains=True)


def test_it_needs_no_torch():
    code = (
        "import sys; import anglekit.distillation.tasks.labelled.first_look; "
        "sys.exit(sum(name in sys.modules for name in ('torch', 'transformers', 'pandas')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
