"""What the name of a checkpoint means is known before anything is loaded; of what is not there the nearest is named."""

from __future__ import annotations

import importlib.metadata
import json

import pytest
from huggingface_hub import constants
from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError, RepositoryNotFoundError

from anglekit.errors import InputError
from anglekit.models import sources
from anglekit.models.checkpoint_files import check_directory
from anglekit.models.sources import check_local, check_one_kind, check_source


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Return a working directory with a run, a sweep and an empty cache of the hub."""
    for inner in ("runs/teacher/checkpoint", "sweep/forward/checkpoint", "bert"):
        (tmp_path / inner).mkdir(parents=True)
        (tmp_path / inner / "config.json").write_text(json.dumps({"model_type": "bert"}))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    return tmp_path


@pytest.mark.parametrize("source", ["bert", "runs/teacher", "./runs/teacher/checkpoint"])
def test_what_is_there_is_not_asked_for_elsewhere(place, source):
    assert check_source(source) == ""


@pytest.mark.parametrize(
    ("source", "line"),
    [
        ("./nowhere", "no such directory: ./nowhere; give"),
        ("runs/techer", "no such directory: runs/techer (did you mean 'runs/teacher'?)"),
        ("rums/teacher/checkpoint", "no such directory: rums/teacher/checkpoint (did you mean 'runs'?)"),
        ("sweep", "sweep holds no model: config.json is missing; give one of those in it: sweep/forward"),
        ("bert/config.json", "bert/config.json is a file"),
        (
            "brt",
            "no directory 'brt' is here (did you mean 'bert'?), and the hub may not be asked (HF_HUB_OFFLINE is set)",
        ),
        ("org/name", "no directory 'org/name' is here, and the hub may not be asked"),
    ],
)
def test_what_is_not_there_is_refused_with_what_is_near(place, monkeypatch, source, line):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(InputError) as caught:
        check_source(source)
    assert str(caught.value).startswith(line)


@pytest.mark.parametrize(
    ("files", "line"),
    [
        (["global_step9/mp_rank_00_model_states.pt", "zero_to_fp32.py"], "a DeepSpeed checkpoint .* zero_to_fp32"),
        (["pytorch_model_fsdp_0/__0_0.distcp"], "shards of FSDP .* accelerate merge-weights"),
        (["onnx/model.onnx", "config.json"], "an ONNX model .* exported from"),
        (["model-q4.gguf"], "a GGUF file"),
        (["openvino_model.xml", "config.json"], "an OpenVINO model"),
        (["tf_model.h5", "config.json"], "TensorFlow weights .*from_tf=True"),
        (["flax_model.msgpack", "config.json"], "Flax weights .*from_flax=True"),
        (
            ["snapshots/3f1c/config.json", "blobs/0"],
            "is missing; give one of those in it: .*snapshots/3f1c",
        ),
    ],
)
def test_a_directory_of_another_tool_is_told_by_its_files(tmp_path, files, line):
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(InputError, match=line):
        check_directory(tmp_path, allow_pickle=False, trust_remote_code=False)


def test_a_directory_of_the_owner_s_name_forbids_nothing_that_is_at_hand(place):
    (place / "cache" / "models--runs--techer").mkdir(parents=True)
    check_local("runs/techer")
    assert check_source("runs/techer") == ""


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (RepositoryNotFoundError, "no directory 'brt' is here (did you mean 'bert'?), and the hub has no such model"),
        (GatedRepoError, "the hub's model 'brt' is gated; ask for access"),
        (LocalEntryNotFoundError, "no directory 'brt' is here (did you mean 'bert'?), and the hub cannot be reached"),
        (None, ""),
    ],
)
def test_the_hub_is_asked_for_a_small_file(place, monkeypatch, error, line):
    asked = []

    def download(source, name, revision):
        asked.append((source, name, revision))
        if error is not None:
            # Its own needs the response of a server.
            raise type(error.__name__, (error,), {"__init__": lambda _: None})()

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    if error is None:
        assert (
            check_source("brt", revision="main") == "no directory 'brt' is here: the Hugging Face hub's model is taken"
        )
    else:
        with pytest.raises(InputError) as caught:
            check_source("brt", revision="main")
        assert str(caught.value).startswith(line)
    assert asked == [("brt", "config.json", "main")]


@pytest.mark.parametrize("version", ["the census's", "another"])
def test_a_type_that_can_never_be_read_is_refused_by_its_configuration(place, monkeypatch, version):
    (place / "bert" / "config.json").write_text(json.dumps({"model_type": "canine"}))
    if version == "another":
        monkeypatch.setattr(importlib.metadata, "version", lambda _: "0.0")
        assert check_source("bert") == ""
        return
    monkeypatch.setattr(
        sources, "census_versions", lambda: f"transformers {importlib.metadata.version('transformers')}, "
    )
    with pytest.raises(InputError) as caught:
        check_source("bert")
    assert str(caught.value) == (
        "CanineModel (type canine) cannot be read layer by layer in its encoder: the states of layer 0 have another "
        "length than the text; choose a model each of whose blocks hands on one state for each token"
    )


def test_a_type_that_some_settings_make_readable_is_not_refused(place):
    """ALBERT's blocks are shared, unless there is a group for each."""
    (place / "bert" / "config.json").write_text(json.dumps({"model_type": "albert"}))
    assert check_source("bert") == ""


def test_a_student_of_another_kind_or_deeper_is_known_by_its_configuration(tmp_path):
    for name, config in (
        ("bert", {"model_type": "bert", "num_hidden_layers": 4}),
        ("distilbert", {"model_type": "distilbert", "n_layers": 6}),
        ("t5", {"model_type": "t5", "num_layers": 9}),
        ("unsure", {"model_type": "bert", "is_decoder": True, "num_hidden_layers": 9}),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps(config))
    bert, distilbert, t5, unsure = (str(tmp_path / name) for name in ("bert", "distilbert", "t5", "unsure"))
    for teacher, student, mapped in ((distilbert, bert, False), (bert, distilbert, True), (bert, unsure, False)):
        check_one_kind(teacher, student, mapped=mapped)
    check_one_kind("org/name", bert, mapped=False)
    with pytest.raises(InputError, match="distilbert has 6 encoder blocks and its teacher 4; give them the other way"):
        check_one_kind(bert, distilbert, mapped=False)
    with pytest.raises(
        InputError, match="t5 is a t5 model with encoder and decoder, and its teacher a bert model with"
    ):
        check_one_kind(bert, t5, mapped=False)
