"""The callback in TRL's own distillation: it measures the student, and the training does not notice."""

from __future__ import annotations

import pytest
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from anglekit.distillation.training.angle_callback import AngleCallback
from anglekit.models.checkpoints import Checkpoint
from anglekit.probes.data import ProbeData

pytest.importorskip("trl", reason="trl is not installed")

ROWS = [
    {"messages": [{"role": "user", "content": text}, {"role": "assistant", "content": answer}]}
    for text, answer in (("a film", "good"), ("a plot", "bad"), ("the cast", "great"), ("a good film", "no"))
]
TEMPLATE = (
    "{% for message in messages %}{{ message['content'] }} {% endfor %}{% if add_generation_prompt %} {% endif %}"
)


def qwen(vocabulary, layers):
    torch.manual_seed(layers)
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2, "num_key_value_heads": 1}
    config = Qwen3Config(
        vocab_size=vocabulary, num_hidden_layers=layers, head_dim=8, attention_dropout=0.1, **shape, pad_token_id=0
    )
    config.eos_token_id = None
    return Qwen3ForCausalLM(config)


def trained(place, tokenizer, name, callback=None):
    """Return the weights and the losses after a few steps of a TRL trainer, which samples from the student."""
    from datasets import Dataset

    shared = {
        "max_steps": 3,
        "per_device_train_batch_size": 2,
        "report_to": [],
        "logging_steps": 1,
        "save_strategy": "no",
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "learning_rate": 1e-2,
    }
    student, teacher = qwen(len(tokenizer), 2), qwen(len(tokenizer), 3).eval()
    if name == "GKDTrainer":
        from trl.experimental.gkd import GKDConfig, GKDTrainer

        config = GKDConfig(str(place), **shared, max_length=32, max_new_tokens=4, lmbda=0.5, disable_dropout=False)
        trainer = GKDTrainer(
            student, teacher, config, train_dataset=Dataset.from_list(ROWS), processing_class=tokenizer
        )
    else:
        from trl import DistillationConfig, DistillationTrainer

        config = DistillationConfig(str(place), **shared, max_completion_length=4)
        rows = [{"prompt": row["messages"][:1]} for row in ROWS]
        trainer = DistillationTrainer(
            student, teacher, args=config, train_dataset=Dataset.from_list(rows), processing_class=tokenizer
        )
    if callback is not None:
        callback.attach(trainer)
    trainer.train()
    losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    return {key: value.clone() for key, value in student.state_dict().items()}, losses


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["GKDTrainer", "DistillationTrainer"])
def test_trl_trains_the_same_bit_for_bit(tmp_path, tiny_tokenizer, name):
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = TEMPLATE
    tokenizer.eos_token = tokenizer.pad_token
    teacher = Checkpoint("teacher", "teacher", qwen(len(tokenizer), 3).model.eval(), tokenizer, ("decoder",), None)
    texts = ("a good film", "bad plot", "a great cast")
    probe = ProbeData("test", "0" * 64, texts, None, None, tuple(range(3)), 0, "text", None, None)
    callback = AngleCallback(teacher, probe, every=1)
    alone, losses = trained(tmp_path, tokenizer, name)
    watched, watched_losses = trained(tmp_path, tokenizer, name, callback)
    assert [row["step"] for row in callback.history] == [0, 1, 2, 3]
    assert len({row["decoder_angle_degrees"] for row in callback.history}) == 4
    assert losses == watched_losses
    assert len(losses) == 3
    assert all(torch.equal(alone[key], watched[key]) for key in alone)
    before = qwen(len(tokenizer), 2).state_dict()
    assert any(not torch.equal(before[key], alone[key]) for key in alone)
