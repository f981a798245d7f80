"""Recipes: those that come along, a user's own file, and every way in which a file may be wrong."""

from __future__ import annotations

import importlib.util
import re
from dataclasses import fields, replace
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from anglekit.analysis.settings import AnalysisSettings
from anglekit.distillation.settings import TrainSettings
from anglekit.distillation.tasks.registry import TASKS
from anglekit.errors import InputError
from anglekit.recipes.own_sources import with_own_sources
from anglekit.recipes.published import SOURCE, published_of, published_scores
from anglekit.recipes.recipe import Analysis, Recipe, Variant, to_plain
from anglekit.recipes.recipe_files import build, load_recipe, recipe_file, recipe_names
from anglekit.recipes.reproduce import reproduce
from anglekit.recipes.training import Training
from anglekit.recipes.yaml_text import MOST_BYTES, read_yaml
from anglekit.vocabulary import TASK_NAMES

OF_THE_PAPER = (
    *("mnli", "qqp", "qnli", "sst2", "dart", "wmt16-en-ro", "hellaswag", "coqa"),
    *("mnli-depth", "dart-depth", "wmt16-en-ro-depth", "mnli-width", "dart-width", "wmt16-en-ro-width"),
)
MINIMAL = """
format: anglekit-recipe-1
name: own
title: my own
source: me
task: classification
teacher: {config: {model_type: bert}, model: my-bert, training: {epochs: 1}}
data: {train: train.tsv, validation: {dev: dev.tsv}}
students: {layers: [2], training: {max_steps: 4}}
analysis: {probe: dev.tsv}
scores: [accuracy]
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "own.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def refused(folder: Path, text: str) -> str:
    path = written(folder, text)
    with pytest.raises(InputError) as error:
        load_recipe(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)
    return str(error.value).replace(str(path), "own.yaml")


def outcome(read):
    """Return what a call returns, or the message with which it refuses its input."""
    try:
        return read()
    except InputError as error:
        return str(error)


# ---- those that come along ----


def test_every_experiment_of_the_paper_is_there():
    assert set(OF_THE_PAPER) <= set(recipe_names())


@pytest.mark.parametrize("name", recipe_names())
def test_a_recipe_is_whole_and_carries_its_own_name(name):
    recipe = load_recipe(name)
    assert recipe.name == name
    assert load_recipe(recipe_file(name)) == recipe
    # Complete: everything that decides a result stands in the file.
    for training in (recipe.teacher.training, recipe.students.training):
        assert training is None or {"batch_size", "learning_rate", "schedule", "warmup", "optimizer"} <= set(
            to_plain(training)
        )
    raw = read_yaml(recipe_file(name))
    assert set(raw["losses"]) >= {"ce", "kl", "hidden", "reading"}
    assert set(raw["students"]) >= {"layers", "strategies", "inits", "seeds", "side_by_side"}


@pytest.mark.parametrize("name", recipe_names())
def test_a_recipe_is_plain_yaml_too(name):
    text = recipe_file(name).read_text()
    mine, theirs = read_yaml(recipe_file(name)), yaml.safe_load(text)
    assert mine.keys() == theirs.keys()
    assert mine["students"]["strategies"] == theirs["students"]["strategies"]
    assert len(text.splitlines()) > 50


def test_the_papers_hyperparameters_stand_in_the_recipes():
    mnli, sst2, dart, wmt, coqa = map(load_recipe, ("mnli", "sst2", "dart", "wmt16-en-ro", "coqa"))
    assert (mnli.teacher.training.learning_rate, mnli.students.training.learning_rate) == (2e-5, 1e-5)
    assert (sst2.teacher.training.learning_rate, sst2.students.training.epochs) == (5e-5, 20)
    assert (dart.students.training.epochs, dart.students.training.warmup, dart.students.training.beams) == (18, 100, 6)
    assert (wmt.students.training.optimizer, wmt.students.training.epochs) == ("adafactor", 40)
    assert (wmt.teacher.training.learning_rate, wmt.teacher.training.epochs, wmt.students.training.beams) == (
        5e-4,
        9,
        5,
    )
    assert load_recipe("qnli").teacher.training.learning_rate == 5e-5
    assert coqa.teacher.training.lora_rank == 32
    assert (coqa.students.training.lora_rank, coqa.students.training.lora_alpha) == (128, 32)
    assert mnli.losses.hidden == 3
    assert load_recipe("mnli-depth").students.layers == (3, 6, 9)
    assert load_recipe("mnli-width").variants == (Variant(3, 384), Variant(3, 576))
    assert load_recipe("dart-width").students.widths == (512, 768)


def test_recipe_keys_are_the_librarys_own_names():
    assert {one.name for one in fields(Analysis)} - {"probe", "text", "text_pair", "target", "limit", "dtype"} <= {
        one.name for one in fields(AnalysisSettings)
    }
    assert {one.name for one in fields(Training)} <= {one.name for one in fields(TrainSettings)}
    assert set(TASKS) == set(TASK_NAMES)


# ---- the published numbers ----


def test_the_published_numbers_are_there_with_their_source():
    scores = published_scores()
    assert len(scores) == 99
    assert {one.table for one in scores} == {"classification", "generation", "llm"}
    text = (recipe_file("mnli").parent / "published.csv").read_text()
    assert "arXiv 2502.04499" in text.splitlines()[1]
    assert "arXiv 2502.04499" in SOURCE


def test_a_recipe_finds_its_own_numbers():
    by_key = {(one.task, one.model, one.init, one.strategy): one.value for one in published_of(load_recipe("mnli"))}
    assert by_key["mnli-matched", "student", "random", "all-to-one"] == 74.0
    assert by_key["mnli-mismatched", "teacher", "", ""] == 84.1
    assert len(by_key) == 22
    assert {one.task for one in published_of(load_recipe("coqa"))} == {"coqa"}
    assert published_of(load_recipe("mnli-width")) == ()


# ---- a user's own file ----


def test_a_small_recipe_takes_the_librarys_defaults(tmp_path):
    recipe = load_recipe(written(tmp_path, MINIMAL))
    assert recipe.students.strategies == ("none", "forward", "reverse", "all-to-one", "random")
    assert recipe.losses.reading == "corrected"
    assert recipe.variants == (Variant(2, None),)
    assert recipe.students.training.settings() == TrainSettings(max_steps=4)


def test_numbers_and_words_are_read_as_they_are_meant(tmp_path):
    path = written(
        tmp_path, "a: 1e-5\nb: no\nc: 'no'\nd: 0.5\ne: null\nf: true\ng: 3\nh: none\ni: '3'\nj: {0: x}\nk: 1_000"
    )
    assert read_yaml(path) == {
        "a": 1e-5,
        "b": "no",
        "c": "no",
        "d": 0.5,
        "e": None,
        "f": True,
        "g": 3,
        "h": "none",
        "i": "3",
        "j": {"0": "x"},
        "k": "1_000",
    }


def test_a_recipe_that_says_alone_is_one_with_that_control(tmp_path):
    earlier, now, both, none = (
        load_recipe(written(tmp_path, MINIMAL.replace("layers: [2]", f"layers: [2]{more}")))
        for more in (", alone: true", ", controls: [alone]", ", alone: true, controls: [alone, random-teacher]", "")
    )
    assert earlier == now
    assert earlier.students.controls == ("alone",)
    assert both.students.controls == ("alone", "random-teacher")
    assert none.students.controls == ()
    assert to_plain(earlier)["students"]["alone"] is False


def test_a_recipe_survives_being_written(tmp_path):
    for name in recipe_names():
        recipe = load_recipe(name)
        again = load_recipe(written(tmp_path, yaml.safe_dump(to_plain(recipe))))
        assert again == recipe


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (("layers: [2]", "layres: [2]"), "no key 'students.layres'; did you mean 'layers'?"),
        (("title: my own", "titel: my own"), "no key 'titel'; did you mean 'title'?"),
        (("epochs: 1", "epoch: 1"), "no key 'teacher.training.epoch'; did you mean 'epochs'?"),
        (("layers: [2]", "layers: 2"), "students.layers is 2 (Expected `array`, got `int`); correct it"),
        (
            ("layers: [2]", "layers: [two]"),
            "students.layers is ['two'] (Expected `int`, got `str` - at `$[0]`)",
        ),
        (
            ("epochs: 1", "epochs: many"),
            "teacher.training.epochs is 'many' (Expected `float | null`, got",
        ),
        (("max_steps: 4", "max_steps: 4.5"), "students.training.max_steps is 4.5 (Expected `int | null`, got `float`)"),
        (
            ("max_steps: 4", "max_steps: true"),
            "students.training.max_steps is True (Expected `int | null`, got",
        ),
        (("name: own", "name: 7"), "name is 7 (Expected `str`, got `int`); put it in quotes if it is meant as text"),
        (("title: my own", "title:"), "title is empty (Expected `str`, got `null`); correct it"),
        (("scores: [accuracy]", "scores: {accuracy: 1}"), "scores is {'accuracy': 1} (Expected `array`, got `object`)"),
        (("analysis: {probe: dev.tsv}", "analysis: dev.tsv"), "analysis is 'dev.tsv'; expected a mapping"),
        (
            ("validation: {dev: dev.tsv}", "validation: [dev.tsv]"),
            "data.validation is ['dev.tsv'] (Expected `object`",
        ),
        (("validation: {dev: dev.tsv}", "validation: {}"), "data: validation names no table"),
        (("title: my own\n", ""), "the key 'title' is missing; add it"),
        (("task: classification", "task: mnly"), "task is 'mnly'; did you mean 'mnli'?"),
        (("format: anglekit-recipe-1", "format: anglekit-recipe-9"), "format is 'anglekit-recipe-9'; expected"),
        (("max_steps: 4", "max_steps: 4, epochs: 2"), "students.training: both epochs (2.0) and max steps (4) came"),
        (("layers: [2]", "layers: [2, 2]"), "students.layers is [2, 2]; name at least one, and each once"),
        (("layers: [2]", "layers: [0]"), "students.layers is 0; allowed: at least 1"),
        (("layers: [2]", "layers: [2], strategies: [fowards]"), "did you mean 'forward'?"),
        (("layers: [2]", "layers: [2], widths: [8]"), "give inits: [random]"),
        (("layers: [2]", "layers: [2], controls: [alnoe]"), "students.controls is 'alnoe'; did you mean 'alone'?"),
        (("layers: [2]", "layers: [2], controls: [alone, alone]"), "students.controls is ['alone', 'alone']; name"),
        (
            ("layers: [2]", "layers: [2], strategies: [none], controls: [random-teacher]"),
            "students.controls holds random-teacher, and no strategy matches layers (none); add one that does",
        ),
        (("model: my-bert, ", ""), "made from scratch; that needs tokenizer"),
        (("{model_type: bert}", "{}"), "config names no model_type"),
        (("scores: [accuracy]", "scores: []"), "scores names none"),
        (("max_steps: 4", "max_steps: 4, beams: 0"), "own.yaml: students.training.beams is 0; allowed: at least 1"),
        (("max_steps: 4", "max_steps: 4, learning_rate: -1"), "students.training.learning_rate is -1.0; allowed"),
        (("epochs: 1", "epochs: 1, optimizer: adam"), "teacher.training.optimizer is 'adam'; did you mean 'adamw'?"),
        (("epochs: 1", "epochs: 1, max_new_tokens: 0"), "teacher.training.max_new_tokens is 0; allowed: at least 1"),
        (
            ("{probe: dev.tsv}", "{probe: dev.tsv, nulls: al}"),
            "analysis.nulls is 'al'; did you mean 'all'?",
        ),
        (("title: my own", "title: my own\nlosses: {ce: -1}"), "losses.ce is -1.0; allowed"),
        (("title: my own", "title: my own\nlosses: {temperature: 0}"), "losses.temperature is 0.0; allowed: a finite"),
        (("title: my own", "title: my own\nlosses: {hidden_loss: mae}"), "losses.hidden_loss is 'mae'; did you mean"),
        (
            ("title: my own", "title: my own\nfigure: {name: figure2}"),
            "figure.name is 'figure2'; did you mean 'figure1'?",
        ),
        (("max_steps: 4", "max_steps: 4, lora_rank: 2"), "students: training.lora_rank came with students from random"),
        (("scores: [accuracy]", "scores: [acuracy]"), "scores is 'acuracy'; did you mean 'accuracy'?"),
        (("title: my own", "title: my own\npublished: {tasks: {dev: mnly}, scores: {}, layers: 3}"), "no task 'mnly'"),
    ],
)
def test_a_wrong_key_or_type_is_one_line_that_names_file_and_key(tmp_path, changed, message):
    assert message in refused(tmp_path, MINIMAL.replace(*changed))


def test_a_package_that_is_not_there_is_said_of_the_key_before_anything_runs(tmp_path, monkeypatch):
    text = MINIMAL.replace("layers: [2]", "layers: [2], inits: [teacher]").replace(
        "max_steps: 4", "max_steps: 4, lora_rank: 2"
    )
    scratch = text.replace("model: my-bert", "tokenizer: {kind: words}")
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    recipe = load_recipe(written(tmp_path, scratch))
    with pytest.raises(
        InputError, match=r"recipe own: students\.training\.lora_rank needs the `peft` package; install"
    ):
        reproduce(recipe, tmp_path / "run", device="cpu")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (MINIMAL + "extra: !!python/object/apply:os.system ['touch owned']", "line 12: a recipe may not hold the tag"),
        (MINIMAL + "extra: !own x", "may not hold the tag '!own'"),
        (MINIMAL + "extra: &x 1", "an anchor or alias"),
        (MINIMAL + "extra: [&x [1], *x]", "an anchor or alias"),
        (MINIMAL + "*x : 1", "an anchor or alias"),
        (MINIMAL + 'extra: "\\ud800"', "half of a surrogate pair"),
        (MINIMAL + "name: again", "the key 'name' twice"),
        (MINIMAL + "extra: " + "[" * 2000 + "]" * 2000, "more than 12 levels"),
        (MINIMAL + "extra: " + "{a: " * 2000 + "}" * 2000, "more than 12 levels"),
        (MINIMAL + "[a, b]: 1", "a key that is no text"),
        (MINIMAL + "---\nname: other", "but found another document"),
        (MINIMAL + "extra: [", "is not YAML: line"),
        (MINIMAL + "extra: \x07", "is not YAML"),
        ("", "holds nothing"),
        ("# only a comment", "holds nothing"),
        ("- a", "holds a list"),
        ("just words", "holds one value"),
        ("x" * (MOST_BYTES + 1), "larger than 256 KiB"),
    ],
)
def test_what_a_recipe_may_not_hold_is_refused_in_one_line(tmp_path, text, message, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert message in refused(tmp_path, text)
    assert [path.name for path in tmp_path.iterdir()] == ["own.yaml"]


def test_bytes_that_are_no_text_are_refused(tmp_path):
    path = tmp_path / "own.yaml"
    path.write_bytes(MINIMAL.encode() + b"\xff")
    with pytest.raises(InputError, match="is not UTF-8"):
        load_recipe(path)
    path.write_bytes(MINIMAL.encode("utf-16"))
    with pytest.raises(InputError, match="is not UTF-8"):
        load_recipe(path)


def test_a_recipe_that_is_not_there_suggests_the_nearest(tmp_path):
    with pytest.raises(InputError, match=r"no recipe 'mnly'; did you mean 'mnli'\?"):
        load_recipe("mnly")
    with pytest.raises(InputError, match=r"no recipe file .*none\.yaml"):
        load_recipe(tmp_path / "none.yaml")
    with pytest.raises(InputError, match="cannot be read: Is a directory"):
        read_yaml(tmp_path)


@settings(max_examples=150, deadline=None)
@given(st.text(alphabet="abn:{}[]-&*!|>'\"#%,\n ~?0e.", max_size=60))
def test_any_text_is_a_mapping_or_one_line(tmp_path_factory, text):
    path = written(tmp_path_factory.mktemp("any"), text)
    found = outcome(lambda: read_yaml(path))
    assert isinstance(found, dict) or "\n" not in found


@settings(max_examples=100, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-999, 999) | st.text("abc", max_size=4),
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", min_size=1, max_size=3), inner, max_size=3)
        ),
        max_leaves=8,
    )
)
def test_any_value_in_any_place_is_taken_or_refused_in_one_line(value):
    for key in ("teacher", "data", "students", "analysis", "scores", "losses", "published", "figure", "name"):
        whole = yaml.safe_load(MINIMAL) | {key: value}
        found = outcome(lambda whole=whole: build(Recipe, whole, "own.yaml"))
        assert isinstance(found, Recipe) or (found.startswith("own.yaml") and "\n" not in found)


# ---- own sources ----


def test_own_paths_take_the_place_of_hub_names(tmp_path):
    train = tmp_path / "t.tsv"
    train.write_text("premise\thypothesis\tlabel\na\tb\tneutral\n")
    own = with_own_sources(
        load_recipe("mnli"), teacher="bert", train=str(train), validation=["m.tsv", "mismatched=mm.tsv"], seeds=(1, 2)
    )
    assert (own.teacher.model, own.data.train, own.students.seeds) == ("bert", str(train), (1, 2))
    assert own.data.validation == {"matched": "m.tsv", "mismatched": "mm.tsv"}
    assert own.analysis.probe == "m.tsv"
    assert own.published == load_recipe("mnli").published
    assert own.teacher.training == load_recipe("mnli").teacher.training


def test_a_trained_teacher_is_not_trained_again():
    own = with_own_sources(load_recipe("mnli"), trained_teacher="mnli-bert")
    assert own.teacher.training is None
    scratch = with_own_sources(load_recipe("builtin-inference"), trained_teacher="mine")
    assert (scratch.teacher.tokenizer, scratch.teacher.initialization) == (None, "default")


def test_only_tables_that_are_there_stand_beside_published_numbers():
    own = with_own_sources(load_recipe("mnli"), validation=["mismatched=mm.tsv"])
    assert own.published.tasks == {"mismatched": "mnli-mismatched"}
    assert with_own_sources(load_recipe("mnli"), validation=["other=mm.tsv"]).published is None


@pytest.mark.parametrize(
    ("given_sources", "message"),
    [
        ({"teacher": "a", "trained_teacher": "b"}, "--base-model and --trained-teacher came together"),
        ({"validation": ["a.tsv", "b.tsv", "c.tsv"]}, "one table more than the recipe names"),
        ({"validation": ["matched=a.tsv", "matched=b.tsv"]}, "two validation tables are called 'matched'"),
        ({"seeds": ()}, "seeds is"),
    ],
)
def test_own_sources_that_do_not_fit_are_refused(given_sources, message):
    with pytest.raises(InputError, match=re.escape(message)):
        with_own_sources(load_recipe("mnli"), **given_sources)


# ---- a fraction of the steps ----


@pytest.mark.parametrize(
    ("scale", "steps", "warmup"), [(1.0, 200, 20.0), (0.5, 100, 10.0), (0.01, 2, 0.0), (1e-6, 1, 0.0)]
)
def test_a_scale_shrinks_steps_and_warm_up(scale, steps, warmup):
    training = Training(max_steps=200, warmup=20, evaluate_every=100, learning_rate=1e-3)
    made = training.settings(scale=scale)
    assert (made.max_steps, made.warmup, made.learning_rate) == (steps, warmup, 1e-3)
    assert training.steps(10_000, scale=scale) == steps
    assert made.evaluate_every == max(1, steps // 2)


def test_a_scale_of_epochs_and_a_share_of_warm_up():
    training = Training(epochs=3, batch_size=32, warmup=0.1)
    assert training.settings(scale=0.1).epochs == pytest.approx(0.3)
    assert training.settings(scale=0.1).warmup == 0.1
    assert training.steps(392_702) == 36_816
    assert training.steps(392_702, scale=0.01) == 369
    assert replace(training, accumulation=2).steps(100) == 6
