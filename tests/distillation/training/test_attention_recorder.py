"""Queries, keys, values and maps of real models of each kind, and what cannot be read."""

from __future__ import annotations

import pytest
import torch
import transformers

from anglekit import DistillationLoss
from anglekit.distillation.losses.objective import DistillationObjective
from anglekit.distillation.training.attention_recorder import AttentionRecorder
from anglekit.errors import InputError
from tests.tiny_models import tiny_model

IDS = torch.tensor([[2, 5, 6, 7, 3], [2, 8, 9, 3, 0]])
BATCH = {"input_ids": IDS, "attention_mask": (IDS != 0).long()}


def qwen(width, *, heads, value_heads, depth=2):
    config = transformers.Qwen3Config(
        vocab_size=24, hidden_size=width, num_hidden_layers=depth, num_attention_heads=heads, pad_token_id=0,
        num_key_value_heads=value_heads, head_dim=8, intermediate_size=32, max_position_embeddings=64,
    )  # fmt: skip
    torch.manual_seed(0)
    return transformers.Qwen3ForCausalLM(config).eval()


def pair(family):
    """Return teacher, student and a batch of a family; students are narrower where `minilm-v2` alone is asked."""
    if family == "qwen3":
        teacher, student = qwen(32, heads=4, value_heads=2, depth=3), qwen(16, heads=2, value_heads=1)
        return teacher, student, BATCH | {"labels": IDS.masked_fill(IDS == 0, -100)}
    teacher, student = tiny_model(family, width=16, depth=3, head=True), tiny_model(family, depth=2, seed=1, head=True)
    if family == "bert":
        return teacher, student, BATCH | {"labels": torch.tensor([0, 1])}
    return teacher, student, BATCH | {"labels": IDS.masked_fill(IDS == 0, -100)}


def maps_again(kept, scale, bias, causal):
    """Return the attention that queries and keys make, from the definition."""
    split = [part.unflatten(-1, (kept.heads, -1)).transpose(1, 2) for part in (kept.queries, kept.keys)]
    scores = split[0] @ split[1].transpose(-1, -2) * scale + bias
    scores = scores.masked_fill(BATCH["attention_mask"][:, None, None] == 0, -1e9)
    if causal:
        scores = scores.masked_fill(torch.ones(5, 5).triu(1).bool(), -1e9)
    return scores.softmax(-1)


@pytest.mark.parametrize("family", ["bert", "gpt2", "t5"])
def test_what_is_recorded_is_what_the_model_attends_with(family):
    model = tiny_model(family, head=True)
    model.set_attn_implementation("eager")
    stream = "decoder" if family == "gpt2" else "encoder"
    more = {"decoder_input_ids": IDS} if family == "t5" else {}
    with torch.no_grad(), AttentionRecorder(model, {stream: [1, 3]}, maps=True) as recorder:
        told = model(**BATCH, **more, output_attentions=True)
    attentions = told.encoder_attentions if family == "t5" else told.attentions
    bias = 0.0
    if family == "t5":
        bias = model.encoder.block[0].layer[0].SelfAttention.compute_bias(5, 5).detach()
    for layer in (1, 3):
        kept = recorder.states[stream][layer]
        torch.testing.assert_close(kept.attention, attentions[layer - 1])
        again = maps_again(kept, 1.0 if family == "t5" else 8**-0.5, bias, family == "gpt2")
        real = BATCH["attention_mask"].bool()
        rows = [each.transpose(1, 2)[real] for each in (again, kept.attention)]
        torch.testing.assert_close(*rows, atol=1e-5, rtol=1e-4)
    others = recorder.states[stream][1].keys, recorder.states[stream][1].queries
    assert not torch.allclose(*others)  # or the check above could not tell them apart


def test_the_decoder_of_an_encoder_decoder_gives_its_own_attention_not_that_to_the_encoder():
    model = tiny_model("t5", head=True)
    with torch.no_grad(), AttentionRecorder(model, {"decoder": [2]}) as recorder:
        model(**BATCH, decoder_input_ids=IDS[:, :3])
    assert recorder.states["decoder"][2].keys.shape == (2, 3, 16)


@pytest.mark.parametrize("family", ["bert", "gpt2", "qwen3", "t5"])
def test_each_family_trains_towards_its_teachers_relations(family):
    teacher, student, batch = pair(family)
    loss = DistillationLoss(teacher, student, "forward", hidden_loss="minilm-v2", relation_heads=2)
    assert not loss.adapters.layers
    optimizer = torch.optim.Adam(loss.parameters(), lr=3e-3)
    found = []
    for _ in range(6):
        optimizer.zero_grad()
        terms = loss.terms(batch)
        hidden = sum(term.mean() for name, term in terms.items() if name.startswith("hidden"))
        hidden.backward()
        optimizer.step()
        found.append(float(hidden.detach()))
    assert found[-1] < 0.9 * found[0], found
    assert not loss._step._attention.states[next(iter(loss.objective.student_layers))]
    # And the student that is its teacher has nothing to learn.
    again = DistillationLoss(teacher, type(teacher)(teacher.config).eval(), "forward", hidden_loss="minilm-v2")
    again.student.load_state_dict(teacher.state_dict())
    assert all(
        float(term.mean().detach()) < 1e-5 for name, term in again.terms(batch).items() if name.startswith("hidden")
    )


def test_maps_are_distributions_also_under_dropout_and_the_modes_stay():
    teacher, student, batch = pair("bert")
    for model in (teacher, student):
        model.set_attn_implementation("eager")
    student.train()
    assert student.config.attention_probs_dropout_prob > 0
    loss = DistillationLoss(teacher, student, "last", hidden_loss="minilm")
    assert torch.isfinite(loss(batch))
    assert all(module.training for module in student.modules())
    with AttentionRecorder(student, {"encoder": [2]}, maps=True) as recorder:
        student(**{name: each for name, each in batch.items() if name != "labels"})
    torch.testing.assert_close(recorder.states["encoder"][2].attention.sum(-1), torch.ones(2, 2, 5))


def test_what_cannot_be_read_is_refused_before_a_pass(monkeypatch):
    teacher, student, _ = pair("bert")
    monkeypatch.setattr(type(teacher), "forward", None)  # a pass would fail
    with pytest.raises(InputError, match="gives no maps; load it with attn_implementation='eager'"):
        DistillationLoss(teacher, student, "forward", hidden_loss="minilm")
    with pytest.raises(InputError, match="3 relation heads came, and queries, keys and values are 16 wide"):
        DistillationLoss(teacher, student, "forward", hidden_loss="minilm-v2", relation_heads=3)
    with pytest.raises(InputError, match="relation_heads came with hidden loss 'mse'"):
        DistillationLoss(teacher, student, "forward", relation_heads=2)
    narrow = tiny_model("bert", width=16, depth=2)
    narrow.config.num_attention_heads = 4
    for model in (teacher, student, narrow):
        model.set_attn_implementation("eager")
    with pytest.raises(InputError, match="head by head, and the student has 4 heads"):
        DistillationLoss(teacher, narrow, "forward", hidden_loss="minilm", weights=_hidden_alone())
    neox = transformers.GPTNeoXForCausalLM(
        transformers.GPTNeoXConfig(
            vocab_size=24, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16
        )
    )
    with pytest.raises(InputError, match=r"cannot be read one by one \(its query_key_value is fused\)"):
        AttentionRecorder(neox, {"decoder": [1]})
    mamba = transformers.MambaForCausalLM(
        transformers.MambaConfig(vocab_size=24, hidden_size=16, num_hidden_layers=2, state_size=4, expand=1)
    )
    with pytest.raises(InputError, match=r"cannot be read one by one \(0 modules have all three\)"):
        AttentionRecorder(mamba, {"decoder": [1]})


def _hidden_alone():
    from anglekit import LossWeights

    return LossWeights(0.0, 0.0, 1.0)


def test_maps_that_embeddings_lack_are_refused():
    for pairs, said in (([(0, 0)], "only the embedding"), ([(1, 0)], "is taught by the embedding")):
        with pytest.raises(InputError, match=said):
            DistillationObjective({"encoder": pairs}, hidden_loss="minilm-v2")
    assert DistillationObjective({"encoder": [(0, 0), (1, 2)]}, hidden_loss="minilm-v2").student_layers == {
        "encoder": (1,)
    }
