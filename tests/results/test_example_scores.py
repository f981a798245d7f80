"""Scores example by example: values whose mean is the score, resamples, the file, and what is refused."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anglekit.errors import InputError
from anglekit.results.corpus_scores import CORPUS_SCORES
from anglekit.results.example_scores import (
    ExampleScores,
    check_example_scores,
    read_example_scores,
    write_example_scores,
)

SCORES = ("accuracy", "loss", "f1", "macro_f1", "matthews", "bleu", "chrf", "perplexity", "pearson", "spearman")
#: Of examples that may have several labels, whose macro F1 is another one.
LABEL_SCORES = ("micro_f1", "macro_f1", "f1:anger", "f1:joy: great", "subset_accuracy")


def columns_of(seed, number=40, classes=3):
    """Columns for every score, as a model of some use on a table would have them."""
    draw = np.random.default_rng(seed)
    target = draw.integers(0, classes, number)
    prediction = np.where(draw.random(number) < 0.6, target, draw.integers(0, classes, number))
    columns = {
        "prediction": prediction,
        "target": target,
        "accuracy": (prediction == target).astype(np.int64),
        "loss": draw.exponential(size=number),
        "f1:found": ((prediction == 1) & (target == 1)).astype(np.int64),
        "f1:predicted": (prediction == 1).astype(np.int64),
        "f1:target": (target == 1).astype(np.int64),
        "perplexity:loss": draw.exponential(size=number) * 20,
        "perplexity:tokens": draw.integers(1, 30, number),
    }
    truth = draw.integers(0, 6, number) / 2.0
    columns |= {"target_number": truth, "predicted_number": truth + draw.integers(-4, 5, number) / 4.0}
    lengths = draw.integers(5, 30, number)
    for score, orders in (("bleu", 4), ("chrf", 6)):
        for n in range(1, orders + 1):
            ngrams = lengths - n + 1
            columns[f"{score}:ngrams_{n}"] = ngrams
            columns[f"{score}:matches_{n}"] = draw.binomial(ngrams, 0.7**n)
            columns[f"{score}:reference_ngrams_{n}"] = draw.integers(5, 30, number) - n + 1
    return columns | {"bleu:tokens": lengths, "bleu:reference_tokens": draw.integers(12, 37, number)}


def labels_of(seed, number=40):
    """Columns of a model of some use that gives examples any number of three labels."""
    draw = np.random.default_rng(seed)
    target = (draw.random((number, 3)) < (0.5, 0.3, 0.4)).astype(np.int64)
    given_labels = np.where(draw.random((number, 3)) < 0.7, target, 1 - target)
    columns = {"subset_accuracy": (target == given_labels).all(1).astype(np.int64)}
    for place, label in enumerate(("anger", "joy: great", "target:fear")):
        columns |= {f"predicted:{label}": given_labels[:, place], f"target:{label}": target[:, place]}
    return columns


EVERY = [(columns_of, score) for score in SCORES] + [(labels_of, score) for score in LABEL_SCORES]


@pytest.fixture
def found():
    return ExampleScores({(model, "dev"): columns_of(seed) for seed, model in enumerate(("student", "teacher"))})


@given(st.integers(0, 2**32 - 1), st.integers(2, 60), st.sampled_from(EVERY))
def test_the_mean_of_the_values_is_the_score(seed, number, kind):
    columns, score = kind
    found = ExampleScores({("student", "dev"): columns(seed, number)})
    values = found.values("student", "dev", score)
    value = found.score("student", "dev", score)
    assert values.shape == (number,)
    assert values.dtype == np.float64
    assert values.mean() == pytest.approx(value, abs=1e-12 * max(1.0, abs(value)))


def test_the_values_of_a_mean_are_what_it_is_the_mean_of(found):
    assert set(found.values("student", "dev", "accuracy")) == {0.0, 1.0}
    assert not set(found.values("student", "dev", "macro_f1")) <= {0.0, 1.0}


@pytest.mark.parametrize(("columns", "score"), EVERY)
def test_the_values_tell_what_a_little_more_of_an_example_does(columns, score):
    """The definition of an influence: the change of the score as one example's weight grows from 1 / n."""
    number, step = 40, 1e-5
    found = ExampleScores({("student", "dev"): columns(5, number)})
    values, whole = found.values("student", "dev", score), found.score("student", "dev", score)
    for example in range(0, number, 7):
        weights = np.full(number, 1.0 - step)
        weights[example] += number * step
        moved = found.score("student", "dev", score, weights)
        assert (moved - whole) / step == pytest.approx(
            values[example] - whole, rel=1e-2, abs=1e-3 * max(1.0, abs(whole))
        )


@pytest.mark.parametrize(("made", "score"), EVERY)
def test_a_resample_has_the_score_of_the_table_that_it_is(made, score):
    found = ExampleScores({("student", "dev"): made(0)})
    counts = np.random.default_rng(1).multinomial(40, np.full(40, 1 / 40))
    rows = np.repeat(np.arange(40), counts)
    columns = {name: values[rows] for name, values in found.tables["student", "dev"].items()}
    oracle = ExampleScores({("student", "dev"): columns}).score("student", "dev", score)
    assert found.score("student", "dev", score, counts) == pytest.approx(oracle, abs=1e-12 * max(1.0, abs(oracle)))
    assert found.score("student", "dev", score) != pytest.approx(oracle, abs=1e-6)


def test_values_have_the_variance_that_resampling_shows():
    """The spread of the influences, over n, is the variance of the score: for a smooth score and enough examples."""
    number = 400
    found = ExampleScores({("student", "dev"): columns_of(3, number)})
    draw = np.random.default_rng(0)
    for score in ("macro_f1", "bleu", "chrf", "matthews", "perplexity", "pearson", "spearman"):
        resampled = [
            found.score("student", "dev", score, draw.multinomial(number, np.full(number, 1 / number)))
            for _ in range(400)
        ]
        values = found.values("student", "dev", score)
        assert values.std(ddof=1) / number**0.5 == pytest.approx(np.std(resampled), rel=0.15)


def test_a_score_that_is_not_finite_is_so_for_every_example():
    columns = {"perplexity:loss": np.array([800.0, 900.0]), "perplexity:tokens": np.array([1, 1])}
    assert ExampleScores({("student", "dev"): columns}).values("student", "dev", "perplexity").tolist() == [np.inf] * 2


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda one: one.values("untrained", "dev", "accuracy"), "there are no examples of the untrained on 'dev'"),
        (
            lambda one: one.values("student", "dev", "rouge"),
            "no column from which 'rouge' follows; there are prediction",
        ),
        (lambda one: one.score("student", "dev", "accuracy", np.zeros(40)), r"counts of shape \(40,\) came for 40"),
        (lambda one: one.score("student", "dev", "f1", np.ones(3)), r"counts of shape \(3,\) came for 40 examples"),
    ],
)
def test_what_cannot_be_scored_is_said(found, call, message):
    with pytest.raises(InputError, match=message):
        call(found)


def test_a_file_gives_back_what_was_written(found, tmp_path):
    write_example_scores(tmp_path / "examples.parquet", found)
    again = read_example_scores(tmp_path / "examples.parquet", "run it again")
    assert again.tables.keys() == found.tables.keys()
    for place, columns in found.tables.items():
        assert again.tables[place].keys() == columns.keys()
        assert all(np.array_equal(again.tables[place][name], values) for name, values in columns.items())
    frame = pd.read_parquet(tmp_path / "examples.parquet")
    assert list(frame.columns[:3]) == ["model", "data", "example"]
    assert len(frame) == 80
    write_example_scores(tmp_path / "again.parquet", again)
    assert (tmp_path / "again.parquet").read_bytes() == (tmp_path / "examples.parquet").read_bytes()


DAMAGES = {
    "lacks the column 'example'": lambda frame: frame.drop(columns="example"),
    "the column 'target' is": lambda frame: frame.assign(target=frame["target"] + 0.5),
    "the column 'accuracy' is": lambda frame: frame.assign(accuracy="yes"),
    "the column 'target' has cells without a value": lambda frame: frame.assign(
        target=frame["target"].astype("Int64").where(frame.index != 3)
    ),
    "the column 'prediction' holds -1 to": lambda frame: frame.assign(
        prediction=frame["prediction"].where(frame.index != 3, -1)
    ),
    "model 'pupil'": lambda frame: frame.replace({"model": {"student": "pupil"}}),
    "not numbered from 0": lambda frame: frame.drop(index=5),
    "are not numbered from 0 in order": lambda frame: frame.iloc[::-1],
    "it has 2,303 columns": lambda frame: pd.concat(
        [frame[["model", "data", "example"]], *(pd.Series(0, frame.index, name=str(n)) for n in range(2300))], axis=1
    ),
}


@pytest.mark.parametrize(("message", "damage"), DAMAGES.items(), ids=list(DAMAGES))
def test_a_damaged_file_is_refused_in_one_line(found, tmp_path, message, damage):
    file = tmp_path / "examples.parquet"
    damage(found.frame()).to_parquet(file, index=False)
    with pytest.raises(InputError, match=rf"^{re.escape(str(file))} is damaged \(.*{message}.*\); run it again$"):
        read_example_scores(file, "run it again")


def test_a_file_that_is_none_is_refused(tmp_path):
    file = tmp_path / "examples.parquet"
    with pytest.raises(InputError, match=r"examples.parquet is missing; run it again"):
        read_example_scores(file, "run it again")
    file.write_bytes(b"no parquet")
    with pytest.raises(InputError, match=r"examples.parquet is damaged \(.*\); run it again"):
        read_example_scores(file, "run it again")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": "test"}, "holds no examples of the student on 'test'"),
        ({"examples": 39}, "holds 40 examples of the student on 'dev', which has 39"),
        ({"accuracy": 0.5}, r"the examples of the student on 'dev' give accuracy 0\.\d+, and its score is 0.5"),
        ({"bleu": 1.0}, r"give bleu \d+\.\d+, and its score is 1"),
    ],
)
def test_examples_that_are_not_those_of_the_scores_are_refused(found, tmp_path, change, message):
    row = {"data": "dev", "examples": 40} | {name: found.score("student", "dev", name) for name in SCORES}
    file = tmp_path / "examples.parquet"
    check_example_scores(found, [row | {"perplexity": float("inf"), "note": None}], "student", file, "run it again")
    with pytest.raises(InputError, match=rf"{message}.*; run it again$"):
        check_example_scores(found, [row | change], "student", file, "run it again")


def test_every_corpus_score_names_its_columns():
    for name, score in CORPUS_SCORES.items():
        assert len(set(score.columns(name))) == len(score.parts)
        assert all(column.startswith(f"{name}:") for column in score.columns(name))
