"""Steps that leave a head out, whose logits the losses make: the same losses and gradients, and no whole logits."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers import Gemma2Config, Gemma2ForCausalLM

from anglekit.distillation.losses import divergences
from anglekit.distillation.losses.head_logits import HeadLogits
from anglekit.distillation.losses.weights import LossWeights
from anglekit.distillation.sweep.shared_teacher import SharedTeacher
from anglekit.distillation.training.distillation_loss import DistillationLoss
from anglekit.distillation.training.head_apart import HeadApart
from anglekit.distillation.training.teacher import TeacherForward


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setitem(divergences.CHUNK_ENTRIES, "cpu", 200)
    monkeypatch.setattr(divergences, "HEAD_CHUNK_ENTRIES", 300)


@pytest.fixture
def widths_made(monkeypatch):
    """What heads are asked for: the rows of each product that a linear layer makes."""
    rows = []
    plain = nn.Linear.forward

    def counted(self, states):
        rows.append((self, states.shape))
        return plain(self, states)

    monkeypatch.setattr(nn.Linear, "forward", counted)
    return rows


def batch_of(tokenizer, words):
    texts = [" ".join(words[n : n + 2 + n % 5]) for n in range(4)]
    batch = dict(tokenizer(texts, return_tensors="pt", padding=True))
    batch.pop("token_type_ids", None)
    return batch | {"labels": batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)}


def gradients(loss, batch):
    terms = loss.terms(batch)
    value = loss(batch)
    value.backward()
    found = {name: weight.grad.clone() for name, weight in loss.student.named_parameters() if weight.grad is not None}
    loss.student.zero_grad()
    return {name: float(term.mean().detach()) for name, term in terms.items()}, found


@pytest.mark.parametrize("family", ["qwen3", "t5"])
@pytest.mark.parametrize(
    "weights", [LossWeights(1.0, 1.0, 3.0), LossWeights(0.0, 1.0, 0.0), LossWeights(0.5, 0.0, 1.0)]
)
def test_losses_and_gradients_are_those_of_whole_logits(
    family, weights, tiny_model, tiny_tokenizer, words, monkeypatch, widths_made
):
    teacher, student = (tiny_model(family, depth=n, seed=n, head=True).double() for n in (4, 2))
    student.eval()  # no dropout, which two passes would draw anew
    batch = batch_of(tiny_tokenizer(), words)
    whole, expected = gradients(DistillationLoss(teacher, student, "forward", weights=weights), batch)
    monkeypatch.setitem(divergences.CHUNK_ENTRIES, "cpu", 200)
    monkeypatch.setattr(divergences, "HEAD_CHUNK_ENTRIES", 300)
    loss = DistillationLoss(teacher, student, "forward", weights=weights)
    loss(batch)  # tries the heads on a few tokens
    widths_made.clear()
    terms, found = gradients(loss, batch)
    assert terms == pytest.approx(whole, rel=1e-9)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value)
    heads = {student.get_output_embeddings(), *([teacher.get_output_embeddings()] if weights.kl else [])}
    assert not [shape for layer, shape in widths_made if layer in heads]
    assert not any("forward" in head.__dict__ for head in heads)


def test_a_head_behind_which_logits_are_capped_stays(small_chunks, tiny_tokenizer, words):
    tokenizer = tiny_tokenizer()
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2, "num_key_value_heads": 1}
    config = Gemma2Config(vocab_size=len(tokenizer), num_hidden_layers=2, head_dim=8, **sizes)
    assert config.final_logit_softcapping
    model = Gemma2ForCausalLM(config).eval()
    with torch.no_grad():
        model.lm_head.weight.mul_(100.0)
    batch = {name: value for name, value in batch_of(tokenizer, words).items() if name != "labels"}
    apart = HeadApart(model)
    with torch.no_grad(), apart.left_out(batch) as kept:
        logits = model(**batch).logits
    assert not kept
    assert logits.abs().max() <= config.final_logit_softcapping


def test_random_states_and_the_head_are_left_as_they_are(small_chunks, tiny_model, tiny_tokenizer, words):
    model = tiny_model("t5", depth=2, head=True).train()
    batch = batch_of(tiny_tokenizer(), words)
    given = {"input_ids": batch["input_ids"], "decoder_input_ids": batch["input_ids"]}
    apart = HeadApart(model)
    drawn = None

    def fail():
        nonlocal drawn
        with apart.left_out(given):
            drawn = torch.rand(1)
            raise ZeroDivisionError

    torch.manual_seed(0)
    with pytest.raises(ZeroDivisionError):
        fail()
    assert drawn == torch.rand(1, generator=torch.Generator().manual_seed(0))
    assert "forward" not in model.get_output_embeddings().__dict__


def test_a_head_that_is_hooked_or_under_autocast_stays(small_chunks, tiny_model, tiny_tokenizer, words):
    model = tiny_model("qwen3", depth=2, head=True).eval()
    batch = {name: value for name, value in batch_of(tiny_tokenizer(), words).items() if name != "labels"}
    apart = HeadApart(model)
    with torch.autocast("cpu", dtype=torch.bfloat16), apart.left_out(batch) as kept:
        model(**batch)
    assert not kept
    hook = model.get_output_embeddings().register_forward_hook(lambda *_: None)
    with apart.left_out(batch) as kept:
        model(**batch)
    assert not kept
    hook.remove()
    with apart.left_out(batch) as kept:
        assert model(**batch).logits.shape[-1] == 0
    torch.testing.assert_close(kept[0].made(), model(**batch).logits)


def test_a_sweep_shares_the_logits_that_a_run_alone_has(small_chunks, tiny_model, tiny_tokenizer, words):
    """Products of fewer rows round otherwise, so both must make them in the same chunks."""
    teacher, student = tiny_model("qwen3", depth=4, head=True), tiny_model("qwen3", depth=2, seed=1, head=True)
    objective = DistillationLoss(teacher, student, "forward").objective
    batch = batch_of(tiny_tokenizer(), words)
    shared = SharedTeacher(teacher, [objective])(batch).logits
    alone = TeacherForward(teacher, objective.teacher_layers, head_apart=True)(batch).logits
    assert isinstance(shared, HeadLogits)
    assert isinstance(alone, HeadLogits)
    assert torch.equal(shared.states, alone.states)
    assert isinstance(TeacherForward(teacher, objective.teacher_layers)(batch).logits, torch.Tensor)
