"""A student whose weights are sharded over processes by FSDP trains as in one process and is saved whole."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest
import torch
import yaml
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import prepare_multi_gpu_env
from transformers import AutoModelForCausalLM

from anglekit.models.checkpoints import load_checkpoint
from anglekit.recipes.recipe_files import recipe_names
from tests.cli.launching import begin, needs_launcher
from tests.distillation.training.fsdp_training import train

SCRIPT = Path(__file__).parent / "fsdp_training.py"
CONFIG = files("anglekit.recipes") / "launch" / "fsdp-qwen3.yaml"


def forked(config: Path, out: Path) -> None:
    """Train in two processes with the environment in which accelerate would start them."""
    asked = ["--config_file", str(config), "--main_process_port", "0", str(SCRIPT)]
    given, _, _ = _validate_launch_command(launch_command_parser().parse_args(asked))
    told = {name: each for name, each in prepare_multi_gpu_env(given).items() if os.environ.get(name) != each}
    assert told["ACCELERATE_USE_FSDP"] == "true"
    program = "tests.distillation.training.fsdp_training:main"
    ended = begin(2, out, 2, folder=out, program=program, environment=told).wait()
    assert [each.code for each in ended] == [0, 0], ended[0].err[-3000:]


def launched(config: Path, out: Path) -> None:
    """Train in two processes that `accelerate launch` starts."""
    root = SCRIPT.parents[3]
    path = os.pathsep.join(str(root / part) for part in (".", "cli", "data"))
    environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", config, "--main_process_port", "0"]
    command += [SCRIPT, out, "2"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]


def test_the_configuration_is_no_recipe_and_says_what_accelerate_needs():
    config = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))
    assert config["distributed_type"] == "FSDP"
    assert config["fsdp_config"]["fsdp_transformer_layer_cls_to_wrap"] == "Qwen3DecoderLayer"
    assert not any("fsdp" in name for name in recipe_names())


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(torch.cpu.Stream, "record_event"), reason="this torch shards on accelerators only")
@pytest.mark.parametrize("shard", [forked, pytest.param(launched, marks=needs_launcher)])
def test_a_sharded_student_trains_as_in_one_process_and_is_saved_whole(shard, tmp_path):
    config = yaml.safe_load(CONFIG.read_text(encoding="utf-8")) | {"num_processes": 2, "mixed_precision": "no"}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    for name in ("sharded", "alone"):
        (tmp_path / name).mkdir()
    shard(tmp_path / "config.yaml", tmp_path / "sharded")
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
