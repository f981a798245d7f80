"""Models that are spread, offloaded, quantised or held in part give the states of the whole model, or one line."""

from __future__ import annotations

import importlib.util
import json
from types import SimpleNamespace

import pytest
import torch
from transformers import AutoModel

from anglekit.analysis.analyze import analyze
from anglekit.analysis.preparation import blocks_to_hold
from anglekit.analysis.settings import AnalysisSettings
from anglekit.errors import InputError
from anglekit.models.checkpoints import load_checkpoint, load_config
from anglekit.models.load_options import LoadOptions, loaded_for_training
from anglekit.probes.data import read_probe
from anglekit.runtime.placement import Placement, check_device, chosen_device, compute_device, device_names, is_placed
from anglekit.settings_fields import SettingError

ON_DISK = json.dumps(
    {
        **dict.fromkeys(("embeddings", "pooler", "encoder.layer.0"), "cpu"),
        **dict.fromkeys((f"encoder.layer.{block}" for block in (1, 2, 3)), "disk"),
    }
)


@pytest.fixture(scope="module")
def places(tmp_path_factory, save_tiny, words):
    place = tmp_path_factory.mktemp("placed")
    save_tiny(place / "bert", "bert", depth=4)
    save_tiny(place / "student", "bert", depth=2, seed=1)
    save_tiny(place / "t5", "t5", depth=3)
    save_tiny(place / "qwen3", "qwen3", depth=4, head=True)
    texts = [" ".join(words[(row + step) % len(words)] for step in range(3 + row % 5)) for row in range(12)]
    (place / "probe.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    return place


def test_a_teacher_on_the_disk_gives_the_same_geometry_and_hash(places):
    probe = read_probe(str(places / "probe.jsonl"))
    whole = load_checkpoint(str(places / "bert"))
    student = load_checkpoint(str(places / "student"))
    spread = load_checkpoint(str(places / "bert"), LoadOptions(placement=Placement(device_map=ON_DISK)))
    assert is_placed(spread.model)
    assert spread.model.encoder.layer[2].output.dense.weight.is_meta
    assert compute_device(spread.model) == torch.device("cpu")
    assert device_names(spread.model) == "cpu, disk"
    assert spread.sha256 == whole.sha256
    found, expected = (analyze(teacher, [student], probe) for teacher in (spread, whole))
    assert found.angles.equals(expected.angles)
    assert found.provenance["device"] == "cpu, disk"
    assert spread.model.encoder.layer[2].output.dense.weight.is_meta  # nothing stays in memory


def test_a_student_on_the_disk_beside_a_whole_teacher(places):
    probe = read_probe(str(places / "probe.jsonl"))
    teacher = load_checkpoint(str(places / "bert"))
    part = json.dumps({"embeddings": "disk", "pooler": "cpu", "encoder": "cpu"})
    students = [
        load_checkpoint(str(places / "student"), LoadOptions(placement=placement))
        for placement in (Placement(device_map=part), Placement())
    ]
    settings = AnalysisSettings(nulls="all")
    found, expected = (analyze(teacher, [student], probe, settings) for student in students)
    assert found.angles.equals(expected.angles)


def test_a_map_made_by_accelerate_keeps_to_the_memory_it_is_given(places, tmp_path):
    placement = Placement("auto", max_memory="cpu=20KB", offload_folder=str(tmp_path))
    spread = load_checkpoint(str(places / "bert"), LoadOptions(placement=placement))
    assert spread.sha256 == load_checkpoint(str(places / "bert")).sha256
    assert "disk" in device_names(spread.model)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device_map": "everywhere"}, r"device_map 'everywhere' is not known; allowed: auto, balanced"),
        ({"device_map": "{1}"}, "is not json"),
        ({"device_map": '{"encoder": [1]}'}, "does not name a device for each part"),
        ({"device_map": "{}"}, "does not name a device for each part"),
        ({"device_map": '{"encoder": "cpu", "encoder.layer.0": "disk"}'}, "both 'encoder' and 'encoder.layer.0'"),
        ({"device_map": '{"encoder": "cuda:99"}'}, "names the device 'cuda:99', which cannot be used here"),
        ({"max_memory": "cpu=1GB"}, "max_memory 'cpu=1GB' came without a device map"),
        ({"offload_folder": "there"}, "offload_folder 'there' came without a device map"),
        ({"device_map": "auto", "max_memory": "much"}, "is not a list of devices and sizes; give for example 0=10GiB"),
        ({"device_map": '{"": "cpu"}', "max_memory": "cpu=1GB"}, "take the device map auto"),
        ({"quantization": "16bit"}, r"quantization is '16bit'; .*allowed: 8bit, 4bit"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_loaded(options, message):
    with pytest.raises(InputError, match=message):
        Placement(**options)


def test_what_a_device_lacks_is_told_in_one_sentence(monkeypatch):
    def refuse(*_size, device):
        raise NotImplementedError("Could not run 'x' with the 'MPS' backend. It is available for: " + "CPU, " * 99)

    monkeypatch.setattr(torch, "empty", refuse)
    with pytest.raises(SettingError) as caught:
        check_device("mps", "device")
    line = "device is 'mps', which cannot be used here (Could not run 'x' with the 'MPS' backend); use cpu"
    assert str(caught.value) == line


def test_a_map_that_leaves_a_part_out_is_named(places):
    placement = Placement(device_map='{"embeddings": "cpu", "encoder": "disk"}')
    with pytest.raises(InputError, match=r"pooler\.dense\.weight"):
        load_checkpoint(str(places / "bert"), LoadOptions(placement=placement))


@pytest.mark.skipif(importlib.util.find_spec("bitsandbytes") is not None, reason="bitsandbytes is installed")
def test_quantisation_without_its_package_says_what_to_install():
    with pytest.raises(InputError, match="needs the `bitsandbytes` package, which is not installed; install it: pip"):
        Placement(quantization="8bit")


@pytest.mark.parametrize(("kind", "flag"), [("8bit", "load_in_8bit"), ("4bit", "load_in_4bit")])
def test_the_quantisation_is_handed_to_transformers(kind, flag, places, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: SimpleNamespace(name=name))
    told = {}
    real = AutoModel.from_pretrained

    def fake(source, **options):
        told.update(options)
        return real(source, **{key: value for key, value in options.items() if key != "quantization_config"})

    monkeypatch.setattr(AutoModel, "from_pretrained", fake)
    options = LoadOptions(dtype="bfloat16", placement=Placement(quantization=kind))
    load_checkpoint(str(places / "bert"), options)
    assert getattr(told["quantization_config"], flag) is True
    assert told["dtype"] is torch.bfloat16


def test_neither_a_head_nor_blocks_behind_the_last_layer_are_held(places):
    options = LoadOptions(blocks={"decoder": 2})
    part, whole = load_checkpoint(str(places / "qwen3"), options), load_checkpoint(str(places / "qwen3"))
    assert not any("lm_head" in name for name, _ in whole.model.named_parameters())
    assert len(part.model.layers) == 2
    assert (part.depth("decoder"), whole.depth("decoder")) == (4, 4)
    assert part.provenance()["blocks_held"] == {"decoder": 2}
    assert "blocks_held" not in whole.provenance()
    assert part.sha256 != whole.sha256


@pytest.mark.parametrize("final_norm", ["excluded", "included"])
def test_held_in_part_a_teacher_shows_the_same_angles(final_norm, places):
    probe = read_probe(str(places / "probe.jsonl"))
    settings = AnalysisSettings(teacher_layers=(0, 1, 2), vertices=(1,), final_norm=final_norm)
    source = str(places / "qwen3")
    student = load_checkpoint(source)
    blocks = blocks_to_hold(load_config(source), settings, teacher=True)
    assert blocks == {"decoder": 2 if final_norm == "excluded" else 3}
    found, expected = (
        analyze(load_checkpoint(source, LoadOptions(blocks=held)), [student], probe, settings)
        for held in (blocks, None)
    )
    assert found.angles.equals(expected.angles)
    assert found.provenance["teacher"]["depth"] == {"decoder": 4}


@pytest.mark.parametrize(
    ("family", "settings", "teacher", "student"),
    [
        ("bert", AnalysisSettings(), None, None),
        ("bert", AnalysisSettings(teacher_layers=(0, 2), vertices=(0,)), {"encoder": 2}, {"encoder": 1}),
        ("bert", AnalysisSettings(teacher_layers=(0, 4), vertices=(9,)), None, None),
        ("bert", AnalysisSettings(vertices=(1,), nulls="all"), None, None),
        ("bert", AnalysisSettings(reading="official"), None, {"encoder": 2}),
        ("t5", AnalysisSettings(teacher_layers=(0, 1), vertices=(2,)), {"decoder": 1}, {"decoder": 2}),
    ],
)
def test_which_blocks_are_held(family, settings, teacher, student, places):
    config = load_config(str(places / family))
    assert blocks_to_hold(config, settings, teacher=True) == teacher
    assert blocks_to_hold(config, settings, teacher=False) == student


@pytest.mark.parametrize(("there", "device"), [(True, "cuda"), (False, "cpu")])
def test_auto_is_an_accelerator_if_there_is_one(monkeypatch, there, device):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: there)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("cuda"))
    assert chosen_device("auto") == LoadOptions().place == device
    assert chosen_device("cpu") == LoadOptions(device="cpu").place == "cpu"
    # A run moves its models itself.
    assert loaded_for_training(None).place == "cpu"
