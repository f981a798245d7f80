"""What a run says that its teacher and its student cost."""

from __future__ import annotations

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification

from anglekit.distillation.runs.costs import measure_costs


@pytest.fixture(scope="module")
def models():
    torch.manual_seed(0)
    sizes = {"vocab_size": 50, "num_attention_heads": 2, "intermediate_size": 32, "hidden_size": 16}
    return {
        "teacher": BertForSequenceClassification(BertConfig(num_hidden_layers=24, **sizes)).train(),
        "student": BertForSequenceClassification(BertConfig(num_hidden_layers=1, **sizes)).eval(),
    }


def batch():
    return {"input_ids": torch.randint(3, 50, (4, 12)), "attention_mask": torch.ones(4, 12, dtype=torch.long)}


def test_models_are_counted_timed_and_left_as_they_were(models):
    before = {name: {key: value.clone() for key, value in model.state_dict().items()} for name, model in models.items()}
    found = measure_costs(models, {**batch(), "labels": torch.zeros(4, dtype=torch.long), "other": "text"})
    for name, model in models.items():
        cost = found[name]
        assert cost.parameters == sum(each.numel() for each in model.parameters())
        assert 0 < cost.milliseconds_low <= cost.milliseconds <= cost.milliseconds_high
        assert (cost.examples, cost.tokens, cost.device, cost.dtype) == (4, 48, "cpu", "float32")
        assert all(torch.equal(before[name][key], value) for key, value in model.state_dict().items())
        assert all(parameter.grad is None for parameter in model.parameters())
    # 24 blocks take longer than one, whatever else the machine does.
    assert found["teacher"].milliseconds_low > found["student"].milliseconds_low
    assert [model.training for model in models.values()] == [True, False]


def test_dropout_is_off_so_that_no_random_number_is_drawn(models):
    before = torch.get_rng_state()
    given = batch()
    drawn = torch.get_rng_state()
    measure_costs(models, given)
    assert torch.equal(torch.get_rng_state(), drawn)
    assert not torch.equal(before, drawn)


def test_without_a_batch_nothing_is_measured(models):
    assert measure_costs(models, {}) == {}
