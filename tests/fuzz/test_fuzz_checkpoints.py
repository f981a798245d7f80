"""Damaged checkpoints: configurations of other models, damaged weights and tokenizers, programs beside them."""

from __future__ import annotations

import json
import math
import shutil
from functools import partial
from pathlib import Path

import pytest
import torch

from anglekit.models.checkpoints import Checkpoint, load_checkpoint
from anglekit.models.projections import save_adapters
from tests.fuzz.harness import Campaign, Case, Program, cases, fresh
from tests.fuzz.mutations import damaged_json_file, damaged_safetensors

FAMILIES = ("bert", "t5", "gpt2", "llama", "bart", "qwen3")


@pytest.fixture(scope="module")
def originals(save_tiny, tmp_path_factory) -> list[Path]:
    """A checkpoint of each family, one of them sharded, with adapters and a student's note beside some."""
    made = []
    for family in FAMILIES:
        directory = tmp_path_factory.mktemp("originals") / family
        sharded = {"max_shard_size": "10KB"} if family in ("gpt2", "bart") else None
        save_tiny(directory, family, depth=2, save_options=sharded)
        save_adapters(directory, {("decoder" if family == "gpt2" else "encoder", 1): torch.ones(24, 16)}, trained=True)
        (directory / "anglekit_student.json").write_text('{"init": "random", "strategy": "forward", "seed": 3}')
        made.append(directory)
    return made


#: Entries that are refused, or that a model is not built for.
MORE: dict[str, object] = {
    "auto_map": {"AutoConfig": "own.Own", "AutoModel": "own.Own"},
    "attn_implementation": "own/kernels",
    "architectures": ["pipeline"],
    "num_labels": 200,
    "id2label": {"x": 1},
    "num_hidden_layers": 200,
    "hidden_size": 4096,
    "d_model": 4096,
    "vocab_size": 10**7,
    "max_position_embeddings": 10**6,
    "layer_types": ["full_attention"] * 3,
    "use_cache": 5,
    "torch_dtype": "float999",
}


def plant_programs(directory: Path, place: Path) -> None:
    """Put programs beside the weights: a module, and pickles."""
    (directory / "own.py").write_text(f"open({str(Program(place).file)!r}, 'w')\n\n\nclass Own:\n    pass\n")
    for name in ("pytorch_model.bin", "training_args.bin"):
        torch.save(Program(place), directory / name)


def damage(case: Case, directory: Path, place: Path) -> None:
    """Damage one or two files of a checkpoint."""
    rng = case.rng
    for _ in range(rng.choice((1, 1, 2))):
        weights = sorted(each for each in directory.glob("model*.safetensors") if each.is_file())
        index = directory / "model.safetensors.index.json"
        action = rng.choice(
            ("config", "config", "config", "weights", "weights", "tokenizer", "beside", "index", "links")
        )
        if action == "config" and not (directory / "config.json").is_symlink():
            damaged_json_file(case, directory / "config.json", MORE)
        elif action == "weights" and weights:
            damaged_safetensors(case, rng.choice(weights))
        elif action == "tokenizer":
            file = directory / rng.choice(("tokenizer.json", "tokenizer_config.json"))
            if file.is_file():
                damaged_json_file(case, file, MORE)
        elif action == "index" and index.is_file():
            outside = rng.choice(
                (str(place / "outside.safetensors"), "../outside.safetensors", "pytorch_model.bin", ".")
            )
            if rng.random() < 0.5:
                damaged_json_file(case, index, {"weight_map": {"x": outside}})
            else:
                content = json.loads(index.read_text())
                content["weight_map"][rng.choice(sorted(content["weight_map"]))] = outside
                index.write_text(json.dumps(content))
                case.did.append(f"index names {outside}")
        elif action == "links":
            file = rng.choice(sorted(each for each in directory.iterdir() if each.suffix in (".json", ".safetensors")))
            file.unlink()
            target = rng.choice(("/dev/null", "nowhere", file.name, ".", str(place / "outside.safetensors")))
            file.symlink_to(target)
            case.did.append(f"{file.name} links to {target}")
        else:
            damage_beside(case, directory, place)


def damage_beside(case: Case, directory: Path, place: Path) -> None:
    rng = case.rng
    action = rng.choice(("adapters", "note", "generation", "lora", "pickle only"))
    case.did.append(action)
    if action == "adapters" and (directory / "anglekit_adapters.safetensors").is_file():
        damaged_safetensors(case, directory / "anglekit_adapters.safetensors")
    elif action == "note" and (directory / "anglekit_student.json").is_file():
        damaged_json_file(case, directory / "anglekit_student.json")
    elif action == "generation":
        (directory / "generation_config.json").write_text('{"max_length": 5, "bos_token_id": 1, "do_sample": false}')
        damaged_json_file(case, directory / "generation_config.json")
    elif action == "lora":
        config = {"peft_type": "LORA", "r": 2, "target_modules": ["query"], "base_model_name_or_path": str(place)}
        (directory / "adapter_config.json").write_text(json.dumps(config))
        damaged_json_file(case, directory / "adapter_config.json", {"r": 1000})
        if rng.random() < 0.5:
            shutil.copy(directory / "anglekit_adapters.safetensors", directory / "adapter_model.safetensors")
    elif action == "pickle only":
        for file in directory.glob("model*"):
            file.unlink()


def sane(checkpoint: Checkpoint) -> None:
    assert checkpoint.streams
    assert checkpoint.width > 0
    assert all(checkpoint.depth(stream) >= 0 for stream in checkpoint.streams)
    assert len(checkpoint.sha256) == 64
    size = sum(parameter.numel() for parameter in checkpoint.model.parameters())
    assert 0 < size < math.inf
    json.dumps(checkpoint.provenance())


def test_checkpoints(originals, tmp_path):
    campaign = Campaign(place := tmp_path / "place")
    shutil.copy(originals[0] / "model.safetensors", place / "outside.safetensors")
    for case in cases("checkpoint", few=60):
        original = case.rng.choice(originals)
        case.did.append(original.name)
        directory = fresh(original, place / "model")
        if case.rng.random() < 0.3:
            plant_programs(directory, place)
        damage(case, directory, place)
        campaign.judge(case, partial(load_checkpoint, str(directory)), str(directory), sane)
    campaign.finish()
