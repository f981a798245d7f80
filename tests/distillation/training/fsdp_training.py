"""Trains a tiny Qwen3 student; started by `accelerate launch` it is sharded, started alone it is not."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import torch
from accelerate import PartialState
from accelerate.utils import DistributedType
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel, Qwen3Config, Qwen3ForCausalLM, TrainingArguments

import anglekit


def qwen3(layers: int) -> PreTrainedModel:
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2, "num_key_value_heads": 2}
    config = Qwen3Config(vocab_size=64, num_hidden_layers=layers, head_dim=16, pad_token_id=0, **sizes)
    return Qwen3ForCausalLM(config)


def train(out: Path, batch: int) -> None:
    teacher = qwen3(4)
    student = anglekit.create_student(teacher, layers=2, init="teacher")
    matching = anglekit.layer_matching("forward", teacher_blocks=4, student_blocks=2)
    generator = torch.Generator().manual_seed(0)
    texts = torch.randint(1, 64, (16, 12), generator=generator)
    rows = [{"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids} for ids in texts]
    arguments = TrainingArguments(
        str(out / "trainer"),
        max_steps=3,
        per_device_train_batch_size=batch,
        logging_steps=1,
        learning_rate=1e-3,
        train_sampling_strategy="sequential",
        report_to=[],
        use_cpu=True,
        save_strategy="no",
        disable_tqdm=True,
    )
    if os.environ.get("ACCELERATE_USE_FSDP") == "true":
        # accelerate shards on accelerators alone: on processors the same code runs once it takes them for some.
        assert arguments.device.type == "cpu"
        PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU
    trainer = anglekit.DistillationTrainer(
        student,
        arguments,
        objective=anglekit.DistillationObjective({"decoder": matching.pairs}),
        teacher=teacher,
        train_dataset=rows,
    )
    trainer.train()
    sharded = all(isinstance(weight, DTensor) for weight in trainer.model.parameters())
    trainer.save_model(str(out / "student"))
    if trainer.is_world_process_zero():
        losses = [entry for entry in trainer.state.log_history if "loss_hidden" in entry]
        (out / "found.json").write_text(json.dumps({"sharded": sharded, "losses": losses}), encoding="utf-8")


def main() -> None:
    train(Path(sys.argv[1]), int(sys.argv[2]))


if __name__ == "__main__":
    main()
