"""Passes that fail inside a library are told in one line with the batch and the cause."""

from __future__ import annotations

import pytest
import torch

from anglekit.distillation.losses.weights import LossWeights
from anglekit.distillation.training.distillation_loss import DistillationLoss
from anglekit.errors import InputError, RunError
from anglekit.runtime.passes import told_failures


def test_a_token_without_a_row_is_named(tiny_model):
    teacher, student = (tiny_model("bert", seed=seed, head=True) for seed in (0, 1))
    loss = DistillationLoss(teacher, student, "none")
    batch = {"input_ids": torch.tensor([[2, 5, 99], [2, 5, 3]]), "labels": torch.tensor([0, 1])}
    with pytest.raises(
        InputError, match="the teacher has 24 rows of embeddings, and a batch of 2 examples, 3 tokens long"
    ):
        loss(batch)
    with pytest.raises(InputError, match=r"the student has 24 rows .* holds token number 99; resize its embeddings"):
        DistillationLoss(teacher, student, "none", weights=LossWeights(1.0, 0.0, 0.0))(batch)


def test_what_a_library_says_is_kept(tiny_model):
    model = tiny_model("bert")
    inputs = {"input_ids": torch.ones(2, 7, dtype=torch.int64)}
    words = (
        r"BertModel failed in a pass of x over a batch of 2 examples, 7 tokens long: KeyError: 'en_XX'; if the model"
    )
    with pytest.raises(InputError, match=words) as caught, told_failures("x", model, inputs):
        raise KeyError("en_XX")
    assert isinstance(caught.value.__cause__, KeyError)
    with (
        pytest.raises(RunError, match=r"no memory was left in a pass of x .*smaller"),
        told_failures("x", model, inputs),
    ):
        raise torch.OutOfMemoryError("CUDA out of memory")
    with pytest.raises(InputError, match=r"^ours$"), told_failures("x", model, inputs):
        raise InputError("ours")
    with pytest.raises(KeyboardInterrupt), told_failures("x", model, inputs):
        raise KeyboardInterrupt
