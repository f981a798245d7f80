"""A teacher on a device of its own, or partly on the disk, teaches as one beside its student."""

from __future__ import annotations

import json

import torch

from anglekit.distillation.training.teacher import TeacherForward
from anglekit.models.checkpoints import load_checkpoint
from anglekit.models.load_options import LoadOptions
from anglekit.runtime.placement import Placement

LAYERS = {"encoder": (0, 2, 3)}


def batch():
    ids = torch.randint(4, 20, (3, 7), generator=torch.Generator().manual_seed(0))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": torch.zeros(3)}


def test_a_teacher_on_the_disk_answers_as_a_whole_one(tmp_path, save_tiny):
    save_tiny(tmp_path / "teacher", "bert", depth=3)
    parts = json.dumps({"embeddings": "cpu", "pooler": "cpu", "encoder": "disk"})
    whole, spread = (
        TeacherForward(load_checkpoint(str(tmp_path / "teacher"), options).model, LAYERS, logits=False)
        for options in (LoadOptions(), LoadOptions(placement=Placement(device_map=parts)))
    )
    spread.to(torch.device("cpu"))
    expected, found = whole(batch()), spread(batch())
    for layer, state in expected.hidden["encoder"].items():
        assert torch.equal(state, found.hidden["encoder"][layer])
    assert spread.teacher.encoder.layer[0].output.dense.weight.is_meta


def test_a_teacher_with_a_device_does_not_follow_the_student(tiny_model):
    teacher = tiny_model("bert", head=True)
    forward = TeacherForward(teacher, LAYERS, device="cpu").to(torch.device("meta"))
    assert forward.teacher.device.type == "cpu"
    assert forward(batch()).logits.device.type == "cpu"
