"""Tasks, labels, scores and tokenised examples: presets, names and numbers, hand-computed scores, every refusal."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import BertConfig, RobertaConfig

from anglekit.distillation.settings import DataSettings, EncodingSettings, evaluation_sources
from anglekit.distillation.tasks.data import TokenizedExamples, length_sorted_batches
from anglekit.distillation.tasks.labelled.classification import ClassificationTask
from anglekit.distillation.tasks.labelled.label_cells import label_text
from anglekit.distillation.tasks.labelled.label_sets import LabelSet, labels_in_data, labels_of_config
from anglekit.distillation.tasks.labelled.labelled_task import LabelledTexts
from anglekit.distillation.tasks.registry import TASKS, task_by_name
from anglekit.distillation.tasks.scores import SCORES, accuracy, class_scores, f1, macro_f1, matthews
from anglekit.errors import InputError

#                     0  1  2  3  4  5  6  7
PREDICTED = np.array([1, 1, 1, 0, 0, 1, 0, 0])
TRUE = np.array([1, 0, 1, 1, 0, 1, 0, 0])  # TP 3, FP 1, FN 1, TN 3


def test_scores_equal_those_computed_by_hand():
    assert accuracy(PREDICTED, TRUE) == 6 / 8
    assert f1(PREDICTED, TRUE) == pytest.approx(2 * 3 / (4 + 4))
    assert macro_f1(PREDICTED, TRUE) == pytest.approx((6 / 8 + 6 / 8) / 2)
    assert matthews(PREDICTED, TRUE) == pytest.approx((3 * 3 - 1 * 1) / np.sqrt(4 * 4 * 4 * 4))


def test_scores_of_three_classes_equal_those_computed_by_hand():
    predicted, true = np.array([0, 0, 1, 2, 2, 2]), np.array([0, 1, 1, 2, 2, 0])
    assert macro_f1(predicted, true) == pytest.approx((2 / 4 + 2 / 3 + 4 / 5) / 3)
    # Gorodkin's R_K from the confusion matrix: (c s - sum p_k t_k) / sqrt((s^2 - sum p_k^2)(s^2 - sum t_k^2)).
    expected = (4 * 6 - (2 * 2 + 1 * 2 + 3 * 2)) / np.sqrt((36 - (4 + 1 + 9)) * (36 - (4 + 4 + 4)))
    assert matthews(predicted, true) == pytest.approx(expected)


def test_scores_of_constant_predictions():
    constant = np.zeros(8, dtype=int)
    assert matthews(constant, TRUE) == 0.0
    assert f1(constant, TRUE) == 0.0
    assert f1(constant, constant) == 0.0
    assert macro_f1(constant, constant) == 1.0


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=40), st.permutations(range(4)))
def test_scores_do_not_depend_on_the_order_of_examples_or_the_names_of_classes(pairs, renamed):
    predicted, true = (np.array(side) for side in zip(*pairs, strict=True))
    rename = np.array(renamed)
    for name in ("accuracy", "macro_f1", "matthews"):
        score = SCORES[name](predicted, true)
        assert SCORES[name](predicted[::-1], true[::-1]) == pytest.approx(score)
        assert SCORES[name](rename[predicted], rename[true]) == pytest.approx(score)
        assert score == pytest.approx(1.0) or score < 1.0
    assert accuracy(true, true) == 1.0


def test_f1_is_of_the_class_that_the_task_names():
    task = task_by_name("qqp")
    assert class_scores(task.scores, PREDICTED, TRUE, positive=0)["f1"] == f1(PREDICTED, TRUE, 0)
    assert task.positive_class(LabelSet(("duplicate", "not_duplicate"))) == 0
    assert task.positive_class(LabelSet(("not_duplicate", "duplicate"))) == 1


@pytest.mark.parametrize(
    ("predicted", "true"),
    [(np.zeros(2), np.zeros(3)), (np.zeros(0), np.zeros(0)), (np.zeros((2, 2)), np.zeros((2, 2)))],
)
def test_scores_need_one_prediction_for_each_example(predicted, true):
    with pytest.raises(InputError, match="scores need one of each"):
        accuracy(predicted, true)


def test_unknown_names_suggest_the_nearest():
    with pytest.raises(InputError, match="no score 'acuracy'; did you mean 'accuracy'"):
        class_scores(["acuracy"], PREDICTED, TRUE)
    with pytest.raises(InputError, match="no task 'mlni'; did you mean 'mnli'"):
        task_by_name("mlni")
    with pytest.raises(InputError, match="asks for score 'bleu'"):
        ClassificationTask(name="x", description="", source="", scores=("bleu",))


def test_presets_hold_the_papers_settings():
    glue = {name: TASKS[name] for name in ("mnli", "qqp", "qnli", "sst2", "mrpc", "cola", "rte", "wnli")}
    assert all(isinstance(task, ClassificationTask) for task in glue.values())
    assert TASKS["mnli"].student_learning_rate == 1e-5
    assert TASKS["mnli"].evaluation_splits == ("validation_matched", "validation_mismatched")
    assert (TASKS["sst2"].teacher_learning_rate, TASKS["sst2"].student_epochs) == (5e-5, 20.0)
    assert TASKS["qqp"].selection_score == TASKS["mrpc"].selection_score == "f1"
    assert {task.max_length for task in glue.values()} == {128}
    assert {(task.student_learning_rate, task.student_epochs) for task in glue.values()} == {
        (1e-5, 10.0),
        (2e-5, 10.0),
        (2e-5, 20.0),
    }


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1, "1"),
        (1.0, "1"),
        (" 1 ", "1"),
        (True, "1"),
        (0.5, "0.5"),
        ("neg", "neg"),
        (None, None),
        (np.nan, None),
        ("", None),
    ],
)
def test_labels_are_written_alike(value, text):
    assert label_text(value) == text


def test_labels_are_found_by_name_case_and_number():
    named, generic = LabelSet(("neg", "POS")), LabelSet(("LABEL_0", "LABEL_1", "LABEL_2"))
    assert [named.index(text) for text in ("neg", "POS", "pos", "0", "other")] == [0, 1, 1, None, None]
    assert [generic.index(text) for text in ("2", "LABEL_1", "label_1", "3", "neg")] == [2, 1, 1, None, None]
    assert LabelSet(("a", "A")).index("a") == 0
    assert named.classes(["POS", "neg", "pos"], in_table).tolist() == [1, 0, 1]


def test_labels_of_data_are_ordered_by_number_or_alphabet():
    assert labels_in_data(["10", "2", None, "2"]).names == ("2", "10")
    assert labels_in_data(["b", "2", "a"]).names == ("2", "a", "b")
    with pytest.raises(InputError, match="at least two"):
        labels_in_data(["a", "a", None])
    with pytest.raises(InputError, match="twice"):
        LabelSet(("a", "a"))


def test_label_names_survive_a_configuration(tmp_path):
    config = BertConfig(num_labels=2)
    assert labels_of_config(config).generic
    config.update(LabelSet(("bad", "good")).config_settings())
    config.save_pretrained(tmp_path)
    assert labels_of_config(BertConfig.from_pretrained(tmp_path)).names == ("bad", "good")


def test_wrong_labels_name_the_row():
    labels = LabelSet(("neg", "pos"))
    with pytest.raises(InputError, match=r"t.csv has label 'meh' in row 1 \(counted from 0\); allowed: neg, pos"):
        labels.classes(["neg", "meh"], in_table)
    with pytest.raises(InputError, match=r"t.csv has no label in row 2"):
        labels.classes(["neg", "pos", None], in_table)


def in_table(row):
    """Say that a label is in a row of t.csv."""
    return "t.csv", f"row {row} (counted from 0)"


def config_with(*names):
    config = BertConfig(num_labels=len(names))
    config.update(LabelSet(names).config_settings())
    return config


def labelled(texts):
    """Return a table of these labels."""
    return LabelledTexts(
        name="train",
        source="t.tsv",
        sha256="0",
        columns=("label",),
        texts=tuple(map(str, texts)),
        pairs=None,
        labels=tuple(texts),
        rows=tuple(range(len(texts))),
        file_row=lambda row: ("t.tsv", row),
    )


def classes_of(name, texts, teacher=None):
    """Return the classes that data and a teacher (or a model without a head) settle."""
    task = task_by_name(name)
    if teacher is None:
        return task.for_fine_tuning(labelled(texts), BertConfig()).classes
    return task.for_teacher(labelled(texts), teacher).classes


def test_the_teachers_order_counts_and_the_tasks_numbers_are_named():
    task = task_by_name("mnli")
    texts = task.named(["0", "2", "1"])
    assert texts == ["entailment", "contradiction", "neutral"]
    assert task.named(["0", "entailment"]) == ["0", "entailment"]
    labels = classes_of("mnli", texts, config_with("CONTRADICTION", "NEUTRAL", "ENTAILMENT"))
    assert labels.classes(texts, in_table).tolist() == [2, 0, 1]
    assert classes_of("mnli", texts, BertConfig(num_labels=3)).names == task.labels
    assert classes_of("mnli", texts).names == task.labels


def test_numbers_are_accepted_by_a_teacher_without_names():
    assert classes_of("classification", ["1", "0"], BertConfig(num_labels=2)).generic
    assert classes_of("classification", ["1", "0"]).names == ("0", "1")


@pytest.mark.parametrize(
    ("task", "texts", "teacher", "message"),
    [
        (
            "classification",
            ["neg", "meh", "pos"],
            config_with("neg", "pos"),
            "has 'meh' in row 1 .*, which the teacher lacks",
        ),
        ("classification", ["neg"], config_with("neg", "pos"), "has no 'pos'; the teacher's are neg, pos"),
        (
            "classification",
            ["neg", "pos"],
            BertConfig(num_labels=2),
            "the teacher lacks; the teacher's are LABEL_0, LABEL_1; .*--label-map",
        ),
        ("classification", ["0", "1", "2"], BertConfig(num_labels=2), "has '2'"),
        ("mnli", ["entailment"], config_with("neg", "pos"), "the teacher has 2 labels .* task mnli has 3"),
        ("sst2", ["negative", "meh"], None, "has label 'meh' in row 1"),
        # Numbers of classes are read as such if all are: 1 is right, and 3 is not.
        ("sst2", ["1", "3"], config_with("negative", "positive"), "has '3' in row 1 .*, which the teacher lacks"),
        ("sst2", ["1", "3"], None, "has label '3' in row 1"),
    ],
)
def test_label_sets_that_differ_are_refused(task, texts, teacher, message):
    with pytest.raises(InputError, match=message):
        classes_of(task, texts, teacher)


def write(path, header, *rows):
    path.write_text("\n".join("\t".join(row) for row in (header, *rows)) + "\n", encoding="utf-8")
    return str(path)


def test_columns_are_found_by_task_name_or_option(tmp_path):
    rows = [("a film", "we saw", "good", "1"), ("it was", "dull", "bad", "0")]
    table = write(tmp_path / "t.tsv", ("premise", "hypothesis", "text", "label"), *rows)
    pair = task_by_name("rte").read(table, DataSettings(text="premise"))
    assert pair.columns == ("premise", "hypothesis", "label")
    assert (pair.texts, pair.pairs) == (("a film", "it was"), ("we saw", "dull"))
    assert pair.labels == ("not_entailment", "entailment")
    mnli = task_by_name("mnli").read(table, name="dev")
    assert (mnli.columns[:2], mnli.name, len(mnli)) == (("premise", "hypothesis"), "dev", 2)
    single = task_by_name("classification").read(table, DataSettings(text="text", label="label", limit=1))
    assert (single.texts, single.pairs, single.labels) == (("good",), None, ("1",))
    assert single.provenance()["sha256"] == pair.sha256


def test_numbers_of_a_hub_data_set_become_names(tmp_path):
    table = write(tmp_path / "t.tsv", ("sentence", "label"), ("good film", "1"), ("bad film", "0"))
    assert task_by_name("sst2").read(table).labels == ("positive", "negative")


def test_a_table_of_single_texts_is_no_pair_task(tmp_path):
    table = write(tmp_path / "t.tsv", ("sentence", "label"), ("good film", "1"))
    with pytest.raises(InputError, match=r"task rte reads pairs and .* has one text, 'sentence'"):
        task_by_name("rte").read(table)


def test_columns_without_text_are_refused(tmp_path):
    blank = write(tmp_path / "blank.tsv", ("text", "label"), (" ", "1"), (" ", "0"))
    with pytest.raises(InputError, match=r"column 'text' of .* holds no text"):
        task_by_name("classification").read(blank)
    numbers = tmp_path / "numbers.jsonl"
    numbers.write_text('{"text": "a", "label": 1}\n{"text": 3, "label": 0}\n', encoding="utf-8")
    with pytest.raises(InputError, match=r"row 1 \(counted from 0\) holds int '3', not text"):
        task_by_name("classification").read(str(numbers))


def test_evaluation_tables_get_names():
    sources = [
        "dev.tsv",
        "matched=hub:glue/mnli:validation_matched",
        "hub:glue/mnli:validation_mismatched",
        "builtin:inference",
    ]
    assert evaluation_sources(sources) == {
        "dev": "dev.tsv",
        "matched": "hub:glue/mnli:validation_matched",
        "validation_mismatched": "hub:glue/mnli:validation_mismatched",
        "validation": "builtin:inference",
    }
    assert evaluation_sources("data/dev.tsv") == {"dev": "data/dev.tsv"}
    assert evaluation_sources(["builtin:inference:train"]) == {"train": "builtin:inference:train"}
    with pytest.raises(InputError, match="two evaluation tables are called 'dev'"):
        evaluation_sources(["a/dev.tsv", "b/dev.tsv"])


@pytest.fixture
def pair_table(tmp_path, words):
    rows = [(" ".join(words[: 2 + n % 7]), " ".join(words[n % 5 : 6]), "yn"[n % 2]) for n in range(23)]
    return write(tmp_path / "pairs.tsv", ("text", "text_pair", "label"), *rows)


def tokenized(data, tokenizer, length):
    task = replace(task_by_name("classification"), classes=LabelSet(("n", "y")))
    return task.tokenize(data, tokenizer, EncodingSettings(length), BertConfig(), training=True)


def test_tokenised_examples_equal_the_tokenizers_own(pair_table, tiny_tokenizer):
    tokenizer = tiny_tokenizer()
    data = task_by_name("classification").read(pair_table)
    examples = tokenized(data, tokenizer, 9)
    assert len(examples) == 23
    for place, (text, pair) in enumerate(zip(data.texts, data.pairs, strict=True)):
        expected = tokenizer(text, pair, truncation=True, max_length=9)
        found = examples[place]
        assert found["input_ids"] == expected["input_ids"]
        assert found.get("token_type_ids") == expected.get("token_type_ids")
        assert found["labels"] == 1 - place % 2
        assert examples.lengths[place] == len(found["input_ids"]) <= 9
    with pytest.raises(IndexError):
        examples[23]


def test_a_saved_tokenizer_does_not_truncate(pair_table, tiny_tokenizer, tmp_path):
    from transformers import AutoTokenizer

    tokenizer = tiny_tokenizer()
    data = task_by_name("classification").read(pair_table)
    tokenized(data, tokenizer, 5)
    tokenizer.save_pretrained(tmp_path / "t")
    assert '"truncation": null' in (tmp_path / "t" / "tokenizer.json").read_text()
    assert len(AutoTokenizer.from_pretrained(tmp_path / "t")("the film was good and bad")["input_ids"]) == 8


def test_batches_are_padded_to_their_longest_example(tiny_tokenizer):
    examples = TokenizedExamples({"input_ids": [[2, 5, 3], [2, 5, 6, 7, 3]]}, {"labels": np.array([1, 0])})
    batch = task_by_name("classification").collator(tiny_tokenizer())([examples[0], examples[1]])
    assert batch["input_ids"].tolist() == [[2, 5, 3, 0, 0], [2, 5, 6, 7, 3]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]
    assert batch["labels"].tolist() == [1, 0]
    assert batch["labels"].dtype == torch.int64


def test_length_sorted_batches_hold_every_example_once():
    examples = TokenizedExamples({"input_ids": [[1] * (1 + n * 5 % 7) for n in range(10)]})
    batches = length_sorted_batches(examples, 4)
    assert sorted(index for batch in batches for index in batch) == list(range(10))
    lengths = [examples.lengths[index] for batch in batches for index in batch]
    assert lengths == sorted(lengths)


def test_lengths_stay_within_what_the_model_reads(tiny_tokenizer):
    tokenizer, task = tiny_tokenizer(), task_by_name("classification")

    def length(wanted, config):
        return task.encoding(EncodingSettings(wanted), tokenizer, config).max_length

    assert length(None, BertConfig(max_position_embeddings=512)) == 64
    assert length(None, BertConfig(max_position_embeddings=40)) == 40
    assert length(30, BertConfig(max_position_embeddings=40)) == 30
    assert length(None, RobertaConfig(max_position_embeddings=40, pad_token_id=1)) == 38
    for wanted in (41, 3):
        with pytest.raises(InputError, match=f"--max-length is {wanted}; allowed for this model: 4 to 40"):
            length(wanted, BertConfig(max_position_embeddings=40))


def test_a_tokenizer_without_a_pad_token_is_refused(pair_table, tiny_tokenizer):
    tokenizer = tiny_tokenizer()
    tokenizer.pad_token = None
    data = task_by_name("classification").read(pair_table)
    with pytest.raises(InputError, match="has no pad token"):
        tokenized(data, tokenizer, 9)
