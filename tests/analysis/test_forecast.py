"""What a dry run says: the sizes of the models that would be loaded, and the analysis's own refusals."""

from __future__ import annotations

import json

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from typer.testing import CliRunner

from anglekit.analysis.forecast import forecast_analysis, memory_now, peak_memory
from anglekit.analysis.settings import AnalysisSettings
from anglekit.errors import InputError
from anglekit.geometry.compiled import choice
from anglekit.models.checkpoints import load_checkpoint
from anglekit.models.load_options import LoadOptions
from anglekit.probes.data import read_probe
from anglekit.runtime.placement import Placement
from anglekit_cli.main import app


@pytest.fixture(scope="module")
def place(tmp_path_factory, save_tiny, words):
    place = tmp_path_factory.mktemp("planned")
    for family in ("bert", "qwen3", "gpt2", "t5", "bart"):
        save_tiny(place / family, family, depth=3, head=family == "qwen3")
        save_tiny(place / f"{family}-student", family, depth=2, seed=1)
    rows = [{"text": " ".join(words[: 3 + row % 5]), "target": " ".join(words[: 2 + row % 3])} for row in range(12)]
    (place / "probe.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return place


def plan_of(place, family, settings=None, options=None, probe="probe.jsonl"):
    options = options or LoadOptions()
    data = read_probe(str(place / probe))
    sources = str(place / family), [str(place / f"{family}-student")]
    return forecast_analysis(*sources, data, settings or AnalysisSettings(), [options, options])


@pytest.mark.parametrize("family", ["bert", "qwen3", "gpt2", "t5", "bart"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_weights_are_those_that_a_run_would_hold(family, dtype, place):
    options = LoadOptions(dtype=dtype)
    plan = plan_of(place, family, options=options)
    model = load_checkpoint(str(place / family), options).model
    assert plan.models[0].parameters == sum(weight.numel() for weight in model.parameters())
    held = [*model.parameters(), *model.buffers()]
    assert plan.models[0].bytes == {"cpu": sum(tensor.numel() * tensor.element_size() for tensor in held)}
    assert plan.parts["cpu"]["weights"] == sum(each.bytes["cpu"] for each in plan.models)
    assert 0 < plan.parts["cpu"]["program"] < plan.peak()


@pytest.mark.parametrize("family", ["bert", "gpt2", "qwen3"])
def test_the_passes_cost_what_a_counter_counts_and_hold_what_they_make(family, place):
    """The FLOPs that torch counts in a real pass; memory of no less than its largest output and no more than all."""
    texts = [{"text": "the film was good"}] * 12
    (place / "equal.jsonl").write_text("".join(json.dumps(row) + "\n" for row in texts), encoding="utf-8")
    plan = plan_of(place, family, probe="equal.jsonl")
    assert (plan.batches, plan.padded_tokens, plan.tokens) == (1, 12 * 6, 12 * 6)
    counted, largest, all_of_them = 0, 0, 0
    for name in (family, f"{family}-student"):
        model, sizes = load_checkpoint(str(place / name), LoadOptions()).model, list[int]()
        for module in model.modules():
            module.register_forward_hook(lambda _module, _args, output, sizes=sizes: sizes.append(bytes_of(output)))
        with torch.inference_mode(), FlopCounterMode(display=False) as counter:
            model(torch.ones(12, 6, dtype=torch.int64))
        counted += counter.get_total_flops()
        largest, all_of_them = max(largest, *sizes), max(all_of_them, sum(sizes))
    assert plan.flops == pytest.approx(counted, rel=0.2)
    assert largest <= plan.parts["cpu"]["pass"] <= all_of_them


def bytes_of(output):
    """Return the bytes of a tensor; what holds several counts as nothing, for their modules were counted."""
    return output.numel() * output.element_size() if isinstance(output, torch.Tensor) else 0


def test_no_weight_is_read(place, monkeypatch):
    def read(*_args, **_options):
        raise AssertionError("a weight was read")

    monkeypatch.setattr("transformers.PreTrainedModel.from_pretrained", read)
    assert plan_of(place, "bert").examples == 12


def test_what_the_disk_holds_takes_no_memory_but_for_one_module(place):
    parts = {"embeddings": "cpu", "pooler": "cpu", "encoder": "disk"}
    spread = LoadOptions(placement=Placement(device_map=json.dumps(parts)))
    plan, whole = plan_of(place, "bert", options=spread), plan_of(place, "bert")
    assert set(plan.models[0].bytes) == {"cpu", "disk"}
    assert sum(plan.models[0].bytes.values()) == whole.models[0].bytes["cpu"]
    assert plan.parts["cpu"]["weights"] < whole.parts["cpu"]["weights"]
    assert plan.parts["cpu"]["weights from disk"] > 0
    auto = LoadOptions(placement=Placement(device_map="auto", max_memory="cpu=4KB"))
    assert "disk" in plan_of(place, "bert", options=auto).models[0].bytes


def test_half_precision_is_read_beside_the_file(place):
    data = plan_of(place, "bert", options=LoadOptions(dtype="bfloat16"))
    assert data.models[0].stored == pytest.approx(2 * data.models[0].bytes["cpu"], rel=0.2)


def test_more_layers_and_students_take_more(place):
    few = plan_of(place, "bert", AnalysisSettings(teacher_layers=(0, 1), vertices=(1,)))
    all_layers = plan_of(place, "bert")
    for name in ("states", "sums", "sample"):
        assert few.parts["cpu"][name] < all_layers.parts["cpu"][name]


def test_what_the_analysis_refuses_the_dry_run_refuses(place):
    with pytest.raises(InputError, match="layer"):
        plan_of(place, "bert", AnalysisSettings(teacher_layers=(1,)))


def test_a_part_without_a_device_is_named(place):
    options = LoadOptions(placement=Placement(device_map='{"embeddings": "cpu", "pooler": "cpu"}'))
    with pytest.raises(InputError, match=r"names no device for encoder\.layer\.0"):
        plan_of(place, "bert", options=options)


def test_memory_is_read_in_bytes():
    assert 50 << 20 < memory_now() <= peak_memory() * 1.01


def command(place, *more):
    arguments = ["analyze", str(place / "bert"), str(place / "bert-student"), "--probe", str(place / "probe.jsonl")]
    return CliRunner().invoke(app, [*arguments, "--text", "text", "--target", "-", "--out", str(place / "out"), *more])


def test_the_command_prints_the_plan_and_writes_nothing(place):
    found = command(place, "--dry-run", "--teacher-layers", "0,1")
    assert found.exit_code == 0, found.output
    assert "the first 1 of 3 blocks" in found.output
    assert "memory of cpu: about" in found.output
    assert not (place / "out").exists()
    summary = json.loads(command(place, "--dry-run", "--json").stdout)
    assert summary["examples"] == 12
    assert summary["memory_bytes"]["cpu"]["peak"] > summary["models"][0]["bytes"]["cpu"]


def test_devices_of_teacher_and_student(place):
    refused = command(place, "--teacher-device", "cuda:77")
    assert isinstance(refused.exception, InputError)
    assert "'cuda:77', which cannot be used here" in str(refused.exception)
    parts = json.dumps({"embeddings": "cpu", "pooler": "cpu", "encoder": "disk"})
    found = command(place, "--device-map", parts, "--student-device", "cpu", "--quiet")
    assert found.exit_code == 0, found.output
    written = json.loads((place / "out" / "geometry.json").read_text(encoding="utf-8"))
    assert written["provenance"]["device"] == "cpu, disk"


def test_many_layers_without_numba_are_told_how_they_would_be_faster(monkeypatch, place):
    hint = "anglekit[compiled]"
    assert hint not in plan_of(place, "bert").text()
    monkeypatch.setattr(choice, "COMPILED_ANGLES", 1)
    monkeypatch.setattr(choice.importlib.util, "find_spec", lambda name: None)
    assert hint in plan_of(place, "bert").text()
