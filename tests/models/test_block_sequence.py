"""Chosen blocks run one after another, beside the blocks called by hand and the model's own hidden states."""

import copy

import pytest
import torch
import transformers as hf

from anglekit.models.architectures import blocks, model_streams
from anglekit.models.block_sequence import (
    block_differences,
    difference,
    first_states,
    random_inputs,
    states_in_sequence,
    with_weights_of,
    without_rescaling,
)

SIZES = {"vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 24}
BERT = hf.BertConfig(**SIZES)
T5 = hf.T5Config(vocab_size=40, d_model=16, d_kv=4, d_ff=24, num_layers=4, num_heads=4, decoder_start_token_id=0)
RWKV = hf.RwkvConfig(vocab_size=40, hidden_size=16, num_hidden_layers=4, attention_hidden_size=16, rescale_every=2)


def teacher_of(config, auto=hf.AutoModel):
    torch.manual_seed(1)
    model = auto.from_config(config).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return model


def inputs(model):
    ids = torch.arange(3, 15).reshape(2, 6)
    names = ["input_ids", "decoder_input_ids"] if len(model_streams(model.config)) == 2 else ["input_ids"]
    return {name: ids + at for at, name in enumerate(names)}


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (1, 3), (3, 1), (2, 3, 0, 1)])
def test_the_sequence_is_that_of_the_blocks_called_by_hand(order):
    teacher = teacher_of(BERT)
    states = states_in_sequence(teacher, {"encoder": order}, inputs(teacher))["encoder"]
    with torch.no_grad():
        expected = [teacher.embeddings(inputs(teacher)["input_ids"])]
        for number in order:
            expected.append(teacher.encoder.layer[number](expected[-1]))
    assert all(torch.allclose(ours, theirs, atol=1e-6) for ours, theirs in zip(states[:-1], expected, strict=True))
    assert torch.equal(states[-1], states[-2]), "BERT has nothing behind its last block"
    assert not teacher.encoder.layer[0]._forward_hooks


def test_all_blocks_of_both_streams_are_the_models_own_states():
    teacher = teacher_of(T5)
    everything = {"encoder": range(4), "decoder": range(4)}
    states = states_in_sequence(teacher, everything, inputs(teacher))
    with torch.no_grad():
        own = teacher(**inputs(teacher), output_hidden_states=True, use_cache=False)
    for stream in everything:
        theirs = own[f"{stream}_hidden_states"]
        assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(states[stream][:4], theirs[:4], strict=True))
    assert torch.allclose(states["decoder"][-1], own.last_hidden_state, atol=1e-6)


def test_differences_of_blocks_are_said_in_words():
    teacher = teacher_of(BERT)
    first, second = blocks(teacher, "encoder")[:2]
    assert block_differences(first, second) == []
    changed = copy.deepcopy(second)
    changed.attention.self.scaling = 0.25
    changed.output.LayerNorm = torch.nn.Identity()
    found = block_differences(first, changed)
    assert "attention.self.scaling is 0.5 in the teacher, 0.25 here" in found
    assert "output.LayerNorm is LayerNorm in the teacher, Identity here" in found


def test_first_states_are_those_of_the_whole_pass_and_the_rest_is_not_run():
    teacher = teacher_of(T5)
    everything = states_in_sequence(teacher, {"encoder": range(4), "decoder": range(4)}, random_inputs(teacher))
    calls = []
    teacher.decoder.block[2].register_forward_hook(lambda *_: calls.append(1))
    first = first_states(teacher, "decoder", 2, random_inputs(teacher))
    assert [difference(a, b) for a, b in zip(first, everything["decoder"][:3], strict=True)] == [0.0] * 3
    assert not calls


def test_a_model_with_anothers_weights_takes_no_memory_and_computes_the_same():
    teacher = teacher_of(BERT)
    again = with_weights_of(type(teacher), copy.deepcopy(BERT), teacher.state_dict(), teacher.device)
    assert again.embeddings.word_embeddings.weight.data_ptr() == teacher.embeddings.word_embeddings.weight.data_ptr()
    order = {"encoder": range(4)}
    pairs = zip(
        *(states_in_sequence(m, order, random_inputs(teacher))["encoder"] for m in (again, teacher)), strict=True
    )
    assert max(difference(a, b) for a, b in pairs) == 0.0
    without = with_weights_of(type(teacher), BERT, {}, teacher.device)
    assert all(parameter.is_meta for parameter in without.parameters())


def test_rwkv_is_left_with_the_weights_that_it_has():
    """One pass in evaluation mode halves weights of late blocks; inside the block they are whole and stay so."""
    teacher = teacher_of(RWKV)
    before = copy.deepcopy(teacher.state_dict())
    with torch.no_grad():
        teacher(torch.arange(3, 9)[None])
        changed = teacher.blocks[3].feed_forward.value.weight
        assert torch.equal(changed, before["blocks.3.feed_forward.value.weight"] / 2), "negative control"
        with without_rescaling(teacher):
            teacher(torch.arange(3, 9)[None])
            assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
        states = teacher(torch.arange(3, 9)[None], output_hidden_states=True)[0]
        fresh = teacher_of(RWKV)(torch.arange(3, 9)[None], output_hidden_states=True)[0]
    assert torch.equal(states, fresh), "evaluation is as it was"


def test_the_random_tokens_are_ordinary():
    teacher = teacher_of(hf.BertConfig(**SIZES, pad_token_id=0, bos_token_id=1, eos_token_id=[2, 3]))
    assert int(random_inputs(teacher)["input_ids"].min()) > 3
