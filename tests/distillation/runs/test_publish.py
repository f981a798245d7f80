"""A finished run goes to the Hub: what arrives there loads, and names no place on this machine."""

from __future__ import annotations

import json
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import ModelCard
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from typer.testing import CliRunner

from anglekit.distillation.runs.directory import CARD_FILE, SCORES_FIGURE, RunDirectory
from anglekit.distillation.runs.publish import _operations
from anglekit.distillation.settings import HubSettings
from anglekit.errors import InputError
from anglekit.vocabulary import STUDENT_FILE
from anglekit_cli.main import app
from tests.distillation.run_corpus import make_world, quick, student
from tests.distillation.runs.local_hub import FORBIDDEN, LocalHub, push_all


@pytest.fixture(scope="module")
def world(tmp_path_factory, tiny_model, tiny_tokenizer, words):
    return make_world(tmp_path_factory.mktemp("world"), tiny_model, tiny_tokenizer(), words)


@pytest.fixture(scope="module")
def kept(world, tmp_path_factory):
    """A finished run that nothing may change."""
    return Path(student(world, tmp_path_factory.mktemp("kept") / "run").directory)


def test_a_finished_run_is_pushed_and_one_that_is_refused_is_kept(kept, world, tmp_path):
    before = {file: file.read_bytes() for file in kept.rglob("*") if file.is_file()}
    with LocalHub() as hub:
        done = push_all(hub, kept, "me/my-student", FORBIDDEN)
    assert done.out.split() == ["0", "1"], done.err
    assert f"pushed to {hub.address}/me/my-student" in done.err
    (line,) = [line for line in done.err.splitlines() if line.startswith("anglekit: ")]
    assert f"{kept} is finished and kept, and could not be pushed to {FORBIDDEN} (" in line
    assert f"push it later: anglekit push {kept} {FORBIDDEN}" in line
    assert {file: file.read_bytes() for file in kept.rglob("*") if file.is_file()} == before
    assert hub.tokens == {"Bearer hf_local", "None"}  # no token goes where weights are put
    assert (hub.made["name"], hub.made["organization"]) == ("forbidden", "me")
    assert hub.made.get("private") or hub.made.get("visibility") == "private"
    assert hub.files.keys() == {file.name for file in (kept / "checkpoint").iterdir()} >= {CARD_FILE, SCORES_FIGURE}
    for name, content in hub.files.items():
        (tmp_path / name).write_bytes(content)
        assert str(Path(world["teacher"]).parent).encode() not in content, name
    card = ModelCard(hub.files[CARD_FILE].decode())
    assert 'checkpoint = "me/my-student"' in card.text
    assert card.content in hub.validated
    assert json.loads(hub.files[STUDENT_FILE])["teacher"] == "teacher"
    AutoTokenizer.from_pretrained(tmp_path)
    assert AutoModelForSequenceClassification.from_pretrained(tmp_path).config.num_hidden_layers == 2


def test_a_teacher_is_named_by_what_it_was_not_by_where_one_stands(world, tmp_path, monkeypatch):
    home, elsewhere = Path(world["teacher"]).parent, tmp_path / "elsewhere"
    monkeypatch.chdir(home.parent)
    local = f"{home.name}/teacher"
    run = Path(
        student({**world, "teacher": local}, tmp_path / "run", validation=[], settings=quick(max_steps=1)).directory
    )
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)

    def pushed(**origin):
        file = run / "provenance.json"
        told = json.loads(file.read_text(encoding="utf-8"))
        told["origin"] |= origin
        file.write_text(json.dumps(told), encoding="utf-8")
        with RunDirectory(run, "resume", writes=False) as directory:
            sent = {one.path_in_repo: one for one in _operations(directory, "me/my-student")}
        with sent[STUDENT_FILE].as_file() as content:
            return json.load(content)["teacher"]

    assert json.loads((run / "checkpoint" / STUDENT_FILE).read_text(encoding="utf-8"))["teacher"] == local
    assert pushed() == "teacher"
    assert pushed(directory=None) == "teacher"  # as earlier versions recorded it
    assert pushed(directory="") == local
    card = run / "checkpoint" / CARD_FILE
    text = card.read_text(encoding="utf-8")
    card.write_text(text.replace("---\n", f"---\nbase_model: {local}\n", 1), encoding="utf-8")
    assert pushed(directory=None) == local


def test_what_cannot_be_pushed_is_refused_before_any_compute(kept, tmp_path, monkeypatch):
    for name in (
        "student",
        "me/my/student",
        "me/.student",
        "me/student.git",
        "me/my--student",
        "https://huggingface.co/me/x",
    ):
        with pytest.raises(InputError, match="allowed: owner/name"):
            HubSettings(name)
    HubSettings().check_here()
    hub = HubSettings("me/my-student")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match="came and HF_HUB_OFFLINE is set; unset it"):
        hub.check_here()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    with pytest.raises(
        InputError, match="no token of the Hub is at hand; log in with `hf auth login`, or set HF_TOKEN"
    ):
        hub.check_here()
    for command in ("distill", "finetune"):
        arguments = (
            command,
            "teacher",
            "--task",
            "sst2",
            "--train",
            "builtin:inference",
            "--out",
            str(tmp_path / "run"),
        )
        more = ("--strategy", "forward") if command == "distill" else ()
        result = CliRunner().invoke(app, [*arguments, *more, "--push-to-hub", "student"])
        assert str(result.exception).startswith("--push-to-hub is 'student'; allowed: owner/name")
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: "hf_local")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    (tmp_path / "sweep" / "forward").mkdir(parents=True)
    for file in ("sweep.json", "forward/scores.json"):
        (tmp_path / "sweep" / file).write_text("{}")
    for place, problem in {
        ".": "holds no finished run; give the directory of a run",
        "swep": f"does not exist (did you mean {str(tmp_path / 'sweep')!r}?); give the directory of a run",
        "sweep": "holds a sweep, which is many runs; give the directory of one of them, such as ",
        "sweep/forward": "cannot be pushed: HF_HUB_OFFLINE is set; unset it",
    }.items():
        result = CliRunner().invoke(app, ["push", str(tmp_path / place), "me/my-student"])
        assert str(result.exception).startswith(f"{tmp_path / place} {problem}")
