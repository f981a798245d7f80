"""A student whose weights are sharded over processes by FSDP trains as in one process and is saved whole."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM

from anglekit.models.checkpoints import load_checkpoint
from anglekit.recipes.recipe_files import recipe_names
from tests.distillation.training.fsdp_training import main as train

SCRIPT = Path(__file__).parent / "fsdp_training.py"
CONFIG = files("anglekit.recipes") / "launch" / "fsdp-qwen3.yaml"


def run(*command: str) -> None:
    root = SCRIPT.parents[3]
    path = os.pathsep.join(str(root / part) for part in (".", "cli", "data"))
    environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, *command], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]


def test_the_configuration_is_no_recipe_and_says_what_accelerate_needs():
    config = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))
    assert config["distributed_type"] == "FSDP"
    assert config["fsdp_config"]["fsdp_transformer_layer_cls_to_wrap"] == "Qwen3DecoderLayer"
    assert not any("fsdp" in name for name in recipe_names())


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(torch.cpu.Stream, "record_event"), reason="this torch shards on accelerators only")
def test_a_sharded_student_trains_as_in_one_process_and_is_saved_whole(tmp_path):
    config = yaml.safe_load(CONFIG.read_text(encoding="utf-8")) | {"num_processes": 2, "mixed_precision": "no"}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    for name in ("sharded", "alone"):
        (tmp_path / name).mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launch = ("-m", "accelerate.commands.launch", "--config_file", str(tmp_path / "config.yaml"))
    run(*launch, "--main_process_port", str(port), str(SCRIPT), str(tmp_path / "sharded"), "2")
    train(tmp_path / "alone", 4)
    sharded, alone = (
        json.loads((tmp_path / name / "found.json").read_text(encoding="utf-8")) for name in ("sharded", "alone")
    )
    assert (sharded["sharded"], alone["sharded"]) == (True, False)
    assert len(sharded["losses"]) == len(alone["losses"]) == 3
    for one, other in zip(sharded["losses"], alone["losses"], strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-4)
        assert one["grad_norm"] == pytest.approx(other["grad_norm"], rel=1e-3)
    saved = [AutoModelForCausalLM.from_pretrained(tmp_path / name / "student") for name in ("sharded", "alone")]
    for one, other in zip(*(model.state_dict().items() for model in saved), strict=True):
        assert one[0] == other[0]
        assert one[1].allclose(other[1], atol=1e-4)
    assert load_checkpoint(str(tmp_path / "sharded" / "student")).depth("decoder") == 2
