"""What bfloat16 states cannot tell apart is said; float32 results say nothing of it."""

from __future__ import annotations

import pytest
import torch

from anglekit.analysis.analyze import analyze
from anglekit.geometry.angles import cosine_resolution
from anglekit.models.checkpoints import load_checkpoint
from anglekit.models.load_options import LoadOptions
from anglekit.results.geometry import Geometry


@pytest.fixture
def sources(tiny_model, save_tiny, tmp_path):
    """A teacher whose third block changes next to nothing, and a student."""
    teacher = tiny_model("llama", width=32, depth=4)
    with torch.no_grad():
        for weight in (teacher.layers[2].self_attn.o_proj.weight, teacher.layers[2].mlp.down_proj.weight):
            weight.mul_(1e-3)
    student = tiny_model("llama", width=32, depth=2, seed=1)
    return [str(save_tiny(tmp_path / name, model)) for name, model in (("teacher", teacher), ("student", student))]


def _geometry(sources, probe, dtype) -> Geometry:
    teacher, student = (load_checkpoint(source, LoadOptions(dtype=dtype)) for source in sources)
    return analyze(teacher, [student], probe)


def test_near_layers_are_named_in_half_precision(sources, probe, tmp_path):
    found = _geometry(sources, probe, "bfloat16")
    resolution = cosine_resolution(torch.bfloat16, 32)
    assert found.provenance["cosine_resolution"] == resolution
    said = [note for note in found.notes() if "bfloat16" in note]
    assert f"the cosine of two states by {resolution:.1g}" in said[0]
    assert said[1:] == [
        "decoder: the teacher's layers 2 and 3 are as near to each other as bfloat16 rounds their states: "
        "read them in float32"
    ]
    assert Geometry.load(found.save(tmp_path / "geometry")).notes() == found.notes()


def test_float32_says_nothing_of_rounding(sources, probe):
    found = _geometry(sources, probe, "float32")
    assert not {"cosine_resolution", "state_rounding"} & set(found.provenance)
    assert not [note for note in found.notes() if "round" in note or "float" in note]
