"""A student that several processes train together, each on a share of every batch, is the student of one process."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file
from transformers import BertConfig, BertForSequenceClassification

from anglekit.models.projections import ADAPTER_FILE
from tests.cli.launching import together
from tests.distillation.run_corpus import write_reviews


@pytest.fixture
def teacher(tmp_path, tiny_model, tiny_tokenizer):
    """A classifier without dropout, whose draws would differ between processes."""
    shape = tiny_model("bert", width=32, depth=4).config.to_dict()
    still = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "initializer_range": 0.2}
    names = {"id2label": {0: "negative", 1: "positive"}, "label2id": {"negative": 0, "positive": 1}}
    torch.manual_seed(0)
    BertForSequenceClassification(BertConfig(**shape | still | names)).save_pretrained(tmp_path / "teacher")
    tiny_tokenizer().save_pretrained(tmp_path / "teacher")
    return "teacher"


@pytest.mark.slow
def test_two_processes_train_the_student_and_its_adapters_as_one_does(teacher, tmp_path, words):
    """By gradient descent, whose step is as long as the gradient; AdamW's hides one that is not averaged."""
    train = write_reviews(tmp_path / "train.tsv", words, 32)
    given = ("distill", teacher, "--strategy", "forward", "--layers", 2, "--width", 16, "--task", "classification")
    given += ("--train", train, "--optimizer", "sgd", "--learning-rate", "0.001", "--schedule", "constant")
    # Clipped to one length, gradients of any scale would do.
    given += ("--max-grad-norm", "0", "--device", "cpu", "--quiet")
    left = {}
    for name, count, batch, steps in (("start", 1, 8, 1), ("one", 1, 8, 4), ("two", 2, 4, 4)):
        ended = together(count, *given, "--batch-size", batch, "--max-steps", steps, "--out", name, folder=tmp_path)
        assert [each.code for each in ended] == [0] * count, ended[0].err
        checkpoint = tmp_path / name / "checkpoint"
        left[name] = {file: load_file(checkpoint / file) for file in ("model.safetensors", ADAPTER_FILE)}
    for file, weights in left["one"].items():
        moved = max((left["start"][file][each] - weight).abs().max() for each, weight in weights.items())
        assert moved > 1e-3
        for each, weight in weights.items():
            torch.testing.assert_close(left["two"][file][each], weight, rtol=0, atol=1e-5)
