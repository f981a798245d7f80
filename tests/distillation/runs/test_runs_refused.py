"""What a run refuses: every wrong input in one line, with nothing written and nothing lost."""

from __future__ import annotations

import pytest

from anglekit.distillation.runs.directory import RunDirectory
from anglekit.errors import InputError
from tests.distillation.run_corpus import make_world, quick, student, write_teacher


@pytest.fixture(scope="module")
def world(tmp_path_factory, tiny_model, tiny_tokenizer, words):
    return make_world(tmp_path_factory.mktemp("world"), tiny_model, tiny_tokenizer(), words)


def test_a_directory_in_use_is_refused(world, tmp_path):
    with RunDirectory(tmp_path / "run"), pytest.raises(InputError, match="is in use by another run"):
        student(world, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    student(world, tmp_path / "run")


def test_a_directory_of_other_things_is_left_alone(world, tmp_path):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "thesis.tex").write_text("all of it")
    for mode in ("refuse", "resume", "overwrite"):
        with pytest.raises(InputError, match=r"holds 'thesis.tex' and no run of anglekit"):
            student(world, tmp_path / "notes", if_exists=mode)
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="is a file; name a directory"):
        student(world, tmp_path / "file")
    assert [entry.name for entry in (tmp_path / "notes").iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"strategy": "foward"}, "no strategy 'foward'; did you mean 'forward'"),
        ({"layers": 9}, "9 blocks and the teacher's 4"),
        ({"strategy": None, "layer_map": {"encoder": [(1, 7)]}}, "teacher layer 7; allowed"),
        ({"width": 64}, "width"),
        ({"width": 16, "init": "teacher"}, "use --init random"),
        ({"settings": quick(select="best"), "validation": []}, "needs a validation table and none came"),
        ({"settings": quick(max_length=500)}, "--max-length is 500"),
        ({"validation": ["none.tsv"]}, "none.tsv"),
        ({"validation": ["a=x.tsv", "a=y.tsv"]}, "two evaluation tables are called 'a'"),
        ({"validation": ["train=x.tsv"]}, "called 'train'"),
        ({"hidden_loss": "mes"}, "did you mean 'mse'"),
        ({"if_exists": "replace"}, "if_exists is 'replace'; allowed: refuse, resume, overwrite"),
    ],
)
@pytest.mark.parametrize("existing", [False, True])
def test_wrong_input_leaves_no_trace(world, tmp_path_factory, tmp_path, change, message, existing):
    out = tmp_path / "run"
    if existing:
        out = tmp_path_factory.getbasetemp() / "kept"
        if not out.exists():
            student(world, out)
        change = {"if_exists": "overwrite"} | change
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    with pytest.raises(InputError, match=message):
        student(world, out, **change)
    assert before == {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    assert out.exists() == existing


def test_a_teacher_must_be_a_trained_classifier_of_its_data(world, tmp_path, save_tiny, tiny_model, tiny_tokenizer):
    headless = save_tiny(tmp_path / "headless", "bert", width=32, depth=4)
    table = tmp_path / "numbers.tsv"
    table.write_text("text\tlabel\nthe film\t0\na film\t1\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"no trained classification head .* anglekit finetune"):
        student(world | {"teacher": str(headless), "train": str(table)}, tmp_path / "run", validation=[])
    other = write_teacher(tmp_path / "other", tiny_model, tiny_tokenizer(), labels=("negative", "positive", "neutral"))
    with pytest.raises(InputError, match=r"the label sets differ: .* has no 'neutral'"):
        student(world | {"teacher": other}, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 1.0}, "both epochs"),
        ({"batch_size": 0}, "batch_size is 0; allowed: at least 1"),
        ({"learning_rate": -1.0}, "learning_rate is -1.0"),
        ({"precision": "float61"}, "did you mean 'float16'"),
        ({"schedule": "liner"}, "did you mean 'linear'"),
        ({"seed": -1}, "seed is -1"),
        ({"warmup": float("nan")}, "warmup is nan"),
    ],
)
def test_settings_are_checked(change, message):
    with pytest.raises(InputError, match=message):
        quick(**change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"precision": "float16"}, "precision is float16, which needs a GPU"),
        ({"teacher_device": "toaster"}, "teacher_device is 'toaster', which is not a device; allowed: cpu"),
    ],
)
def test_what_cannot_be_had_here_is_refused_before_a_run(change, message):
    settings = quick(**change)
    with pytest.raises(InputError, match=message):
        settings.completed(epochs=1.0, learning_rate=1e-3)
