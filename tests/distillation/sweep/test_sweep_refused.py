"""What a sweep refuses: every wrong input in one line, with nothing written and nothing lost."""

from __future__ import annotations

import pytest

from anglekit.distillation.losses.weights import LossWeights
from anglekit.distillation.runs.directory import RunDirectory
from anglekit.distillation.sweep.sweep import sweep
from anglekit.errors import InputError
from tests.distillation.run_corpus import make_world, quick, student


@pytest.fixture(scope="module")
def world(tmp_path_factory, tiny_model, tiny_tokenizer, words):
    return make_world(tmp_path_factory.mktemp("world"), tiny_model, tiny_tokenizer(), words)


@pytest.fixture(scope="module")
def kept(world, tmp_path_factory):
    """A finished sweep that nothing may change."""
    out = tmp_path_factory.mktemp("kept") / "sweep"
    swept(world, out)
    return out


def swept(world, out, **options):
    defaults = {
        "teacher": world["teacher"],
        "strategies": ("forward", "none"),
        "inits": ("random",),
        "seeds": (3,),
        "task": "classification",
        "train": world["train"],
        "validation": [world["dev"]],
        "out": out,
        "layers": 2,
        "settings": quick(max_steps=2),
    }
    return sweep(**(defaults | options))


def files(directory):
    return {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}


WRONG = [
    ({"strategies": ("foward",)}, "no strategy 'foward'; did you mean 'forward'"),
    ({"strategies": ("forward", "none", "forward")}, "strategy 'forward' came twice; give each one once"),
    ({"strategies": ()}, "no strategy came"),
    ({"inits": ("random", "techer")}, "no initialisation 'techer'; did you mean 'teacher'"),
    ({"seeds": (1, 1)}, "seed 1 came twice"),
    ({"seeds": (-1,)}, "a seed is -1; allowed: 0 to"),
    ({"seeds": ()}, "no seed came"),
    ({"settings": quick(seed=3)}, "a sweep takes its seeds by `seeds`"),
    ({"side_by_side": 0}, "students side by side are 0; allowed: at least 1"),
    ({"layers": 9}, "9 blocks and the teacher's 4"),
    ({"width": 16, "inits": ("random", "teacher")}, "use --init random"),
    ({"copy_blocks": (0, 3)}, "a copy map came and no arm is copied"),
    ({"settings": quick(select="best"), "validation": []}, "needs a validation table and none came"),
    ({"weights": LossWeights(0.0, 0.0, 3.0)}, "nothing would be trained"),
    ({"train": "none.tsv"}, "none.tsv"),
    ({"if_exists": "replace"}, "if_exists is 'replace'; allowed: refuse, resume, overwrite"),
]


@pytest.mark.parametrize(("change", "message"), WRONG)
@pytest.mark.parametrize("existing", [False, True])
def test_wrong_input_leaves_no_trace(world, kept, tmp_path, change, message, existing):
    out = kept if existing else tmp_path / "sweep"
    before = files(kept)
    if existing:
        change = {"if_exists": "overwrite"} | change
    with pytest.raises(InputError, match=message) as caught:
        swept(world, out, **change)
    assert "\n" not in str(caught.value)
    assert files(kept) == before
    assert out.exists() == existing
    assert not list(kept.rglob("run.lock"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"if_exists": "refuse"}, "holds a finished sweep; use --resume to go on, --overwrite, or another directory"),
        ({"strategies": ("forward",)}, "arm none-random-seed3 is there and not asked for here"),
        ({"settings": quick(max_steps=2, learning_rate=1e-4)}, "learning_rate: 0.0001 here, 0.001 there"),
        ({"weights": LossWeights(1.0, 1.0, 1.0), "seeds": (3, 4)}, "weights"),
        ({"validation": []}, "tables"),
        ({"order_per_seed": True, "seeds": (3,)}, "data_seed: 3 here, 0 there"),
    ],
)
def test_another_sweep_does_not_resume_one(world, kept, change, message):
    before = files(kept)
    with pytest.raises(InputError, match=message):
        swept(world, kept, **({"if_exists": "resume"} | change))
    assert files(kept) == before


def test_a_sweep_that_has_begun_no_arm_is_resumed_under_its_own_settings_only(world, kept, tmp_path):
    """Killed before the first arm began: sweep.json alone tells what was asked for."""
    out = tmp_path / "sweep"
    out.mkdir()
    (out / "sweep.json").write_bytes((kept / "sweep.json").read_bytes())
    with pytest.raises(InputError, match=r"holds another sweep \(learning_rate: 0.0001 here, 0.001 there\)"):
        swept(world, out, settings=quick(max_steps=2, learning_rate=1e-4), if_exists="resume")
    assert [entry.name for entry in out.iterdir()] == ["sweep.json"]


def test_a_directory_in_use_is_refused(world, tmp_path):
    with (
        RunDirectory(tmp_path / "sweep" / "none-random-seed3"),
        pytest.raises(InputError, match=r"none-random-seed3 is in use by another run"),
    ):
        swept(world, tmp_path / "sweep")
    assert not (tmp_path / "sweep" / "forward-random-seed3").exists()


def test_a_directory_of_other_things_is_left_alone(world, tmp_path):
    (tmp_path / "thesis.tex").write_text("all of it")
    for mode in ("refuse", "resume", "overwrite"):
        with pytest.raises(InputError, match=r"holds 'thesis\.tex' and no sweep"):
            swept(world, tmp_path, if_exists=mode)
        with pytest.raises(InputError, match="is a file; name a directory"):
            swept(world, tmp_path / "thesis.tex", if_exists=mode)
    assert [entry.name for entry in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_damaged_record_is_one_line_and_can_be_overwritten(world, kept, tmp_path):
    out = tmp_path / "sweep"
    for content, message in (("{", "sweep.json is not readable json"), ('{"format": "x"}', "has format 'x'; expected")):
        out.mkdir(exist_ok=True)
        (out / "sweep.json").write_text(content)
        for mode in ("refuse", "resume"):
            with pytest.raises(InputError, match=message):
                swept(world, out, if_exists=mode)
    assert len(swept(world, out, if_exists="overwrite").arms) == 2


def test_a_finished_run_of_its_own_becomes_an_arm_when_resumed(world, tmp_path):
    own = student(world, tmp_path / "none-random-seed3", strategy="none", settings=quick(seed=3, max_steps=2))
    with pytest.raises(InputError, match="none-random-seed3 holds a finished run"):
        swept(world, tmp_path)
    result = swept(world, tmp_path, if_exists="resume")
    assert result.arms["none-random-seed3"].train_seconds == own.train_seconds


def test_one_process_runs_a_sweep(world, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match="one of several processes and would train all arms"):
        swept(world, tmp_path / "sweep")
    assert not (tmp_path / "sweep").exists()
