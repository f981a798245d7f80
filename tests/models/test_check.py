"""What a few tiny passes show of a model, against the model itself run by hand, on types of every kind."""

import contextlib
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from transformers import AutoConfig, AutoModel
from transformers.modeling_outputs import BaseModelOutputWithPastAndCrossAttentions

from anglekit.errors import InputError
from anglekit.models.architectures import blocks, model_streams, settle_streams
from anglekit.models.check import (
    StreamFacts,
    adopt_facts,
    check_model,
    evaluation_mode,
    facts_of,
    final_norm_module,
    laid_out,
)
from anglekit.states.recorder import LayerRecorder
from tests.tiny_types import KINDS, PLAIN, build


def text_inputs(model, lengths=(5, 7), first=10):
    """Texts of unequal length, each of ids of its own, padded and with a mask."""
    longest = max(lengths)
    ids = torch.zeros(len(lengths), longest, dtype=torch.long)
    for row, length in enumerate(lengths):
        ids[row, :length] = torch.arange(length) + first + row * longest
    mask = (torch.arange(longest) < torch.tensor(lengths)[:, None]).long()
    inputs = {"input_ids": ids, "attention_mask": mask}
    if len(model_streams(model.config)) == 2:
        inputs |= {"decoder_input_ids": ids.flip(0), "decoder_attention_mask": mask.flip(0)}
    return inputs


def run(model, inputs, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return model(**inputs, **options, **({"use_cache": False} if "decoder" in model_streams(model.config) else {}))


def recorded(model, inputs, final_norm="excluded"):
    layers = {stream: range(number + 1) for stream, number in facts_of(model).n_blocks.items()}
    with LayerRecorder(model, layers, final_norm) as recorder:
        output = run(model, inputs, output_hidden_states=True)
    return recorder.states, output


def test_a_model_of_many_languages_says_which_one_it_reads():
    sizes = {"vocab_size": 40, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1}
    config = transformers.XmodConfig(**sizes, num_attention_heads=2, languages=["en_XX", "de_DE"])
    model = transformers.XmodModel(config).eval()
    for told, nearest in ((None, ""), ("en", "did you mean 'en_XX'.*")):
        config.default_language = told
        with pytest.raises(InputError, match=f"its default_language is {told!r}; {nearest}.*en_XX, de_DE; write one"):
            check_model(model)
    model.set_default_language("de_DE")
    assert check_model(model).n_blocks == {"encoder": 1}


def test_quantised_weights_that_do_not_run_are_not_taken_for_a_model_without_text():
    sizes = {"vocab_size": 40, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1}
    for quantised, line in ((True, "quantised weights of its sizes: .*--quantization 8bit"), (False, "on texts alone")):
        model = transformers.BertModel(transformers.BertConfig(**sizes, num_attention_heads=2)).eval()
        model.is_quantized = quantised
        model.encoder.layer[0].intermediate.dense.weight = nn.Parameter(torch.zeros(8, 7))  # bitsandbytes cut it
        with pytest.raises(InputError, match=f"cannot run (with )?{line}"):
            check_model(model)


def own_states(output, stream, streams):
    return output[f"{stream}_hidden_states" if len(streams) == 2 else "hidden_states"]


RIGHT = {
    "bert": {"encoder": StreamFacts()},
    "longformer": {"encoder": StreamFacts(padded=True)},
    "xlnet": {"encoder": StreamFacts(turned=True)},
    "deberta with a convolution": {"encoder": StreamFacts(entering=frozenset({1}))},
    "gpt2": {"decoder": StreamFacts()},
    "led": {"encoder": StreamFacts(padded=True), "decoder": StreamFacts()},
    "longformer, whole windows": {"encoder": StreamFacts(padded=True)},
    "led, whole windows": {"encoder": StreamFacts(padded=True), "decoder": StreamFacts()},
    "fsmt": {"encoder": StreamFacts(turned=True), "decoder": StreamFacts(turned=True)},
    "prophetnet": {"encoder": StreamFacts(), "decoder": StreamFacts(padded=True)},
}


@pytest.mark.parametrize("kind", RIGHT)
def test_states_are_the_models_own_whatever_its_blocks_hand_over(kind):
    model = build(kind)
    inputs = text_inputs(model)
    facts = facts_of(model)
    with torch.no_grad():
        states, output = recorded(model, inputs)
    assert set(facts.streams) == set(RIGHT[kind])
    for stream, found in facts.streams.items():
        expected = RIGHT[kind][stream]
        assert (found.turned, found.padded, found.entering) == (expected.turned, expected.padded, expected.entering)
        own = own_states(output, stream, facts.streams)
        for layer in range(facts.n_blocks[stream]):
            assert states[stream][layer].shape == (2, 7, 32)
            torch.testing.assert_close(states[stream][layer], own[layer][:, :7], rtol=1e-5, atol=1e-6)
        below, above = states[stream][0], states[stream][1]
        assert (below - above).abs().max() > 1e-2, "equality with another layer would be seen"


@pytest.mark.parametrize("kind", ["longformer", "led"])
def test_where_short_texts_fill_whole_windows_one_block_tells_what_all_would(kind):
    narrow, wide = build(kind), build(f"{kind}, whole windows")
    seen, passes = [], []
    for number, block in enumerate(blocks(wide, "encoder")):
        block.register_forward_hook(lambda _block, _args, _output, number=number: seen.append(number))
        computing = block.self_attn if kind == "led" else block.attention
        computing.register_forward_hook(lambda _module, _args, _output, number=number: passes.append(number))
    facts, usual = check_model(wide), check_model(narrow)
    assert facts.batching == usual.batching == "padded"
    for stream, found in facts.streams.items():
        assert replace(found, own_states="") == replace(usual.streams[stream], own_states="")
        assert found.own_states == f"{facts.n_blocks[stream] + 1} entries, entry k is layer k"
    last = facts.n_blocks["encoder"] - 1
    assert seen.count(0) == seen.count(last) == passes.count(0) == 2
    assert passes.count(last) == 0
    passes.clear()
    with torch.no_grad():
        run(wide, text_inputs(wide))
    assert passes.count(last) == 1, "every block is as it was"


def test_whole_windows_of_texts_that_change_each_other_are_noticed():
    wide = build("longformer, whole windows")
    wide.encoder.layer[0].register_forward_hook(
        lambda _module, _args, output: (output[0] - output[0].mean(0, keepdim=True), *output[1:])
    )
    assert check_model(wide).batching == "alone"


@pytest.mark.parametrize("kind", ["bert", "longformer", "xlnet", "fsmt", "prophetnet"])
def test_gradients_of_one_texts_states_reach_its_own_tokens_alone(kind):
    """The corrected states are the losses' too: rows of another text, or of padding, would bring its gradients."""
    model = build(kind)
    inputs = text_inputs(model)
    states, _ = recorded(model, inputs)
    stream = next(iter(states))
    model.zero_grad()
    states[stream][2][0, :5].square().sum().backward()
    table = model.get_input_embeddings().weight.grad
    touched = set(torch.nonzero(table.abs().sum(1)).flatten().tolist())
    assert touched <= {0, *inputs["input_ids"][0].tolist()}
    assert touched >= set(inputs["input_ids"][0, :5].tolist())


REFUSED = {
    "squeezebert": r"SqueezeBertModel \(type squeezebert\) .* block 0 came 0 times in a pass \(it is bypassed\)",
    "albert, blocks in a group": r"AlbertModel \(type albert\) .* block 0 came 3 times in a pass \(it is shared\)",
    "xlm": r"XLMModel \(type xlm\) .* not its own hidden states",
    "reformer": r"ReformerModel \(type reformer\) .* two streams of states",
    "canine": r"CanineModel \(type canine\) .* another length than the text",
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_not_one_state_for_each_token_is_refused_in_one_line(kind):
    with pytest.raises(InputError, match=REFUSED[kind]) as refused:
        LayerRecorder(build(kind), {"encoder": (0, 1)})
    assert str(refused.value).count("\n") == 0
    assert refused.value.remedy


def test_a_model_that_needs_more_than_texts_is_refused():
    config = transformers.BrosConfig(**PLAIN)
    with pytest.raises(
        InputError, match=r"BrosModel \(type bros\) cannot run on texts alone: You have to specify bbox"
    ):
        check_model(transformers.BrosModel(config))


NORMS = {
    "bert": "",
    "bart": "",
    "gpt2": "ln_f",
    "llama": "norm",
    "mamba": "norm_f",
    "esm": "encoder.emb_layer_norm_after",
    "megatron-bert": "encoder.ln",
    "ctrl": "layernorm",
    "roberta-prelayernorm": "LayerNorm",
    "rwkv": "ln_out",
    "opt of two widths": "",
}


@pytest.mark.parametrize("kind", NORMS)
def test_the_final_norm_is_found_whatever_it_is_called(kind):
    model = build(kind)
    for stream, facts in facts_of(model).streams.items():
        assert facts.final_norm == NORMS[kind]
        assert facts.last_state == ("norm" if NORMS[kind] else "other" if kind == "opt of two widths" else "block")
        norm = final_norm_module(model, stream)
        if norm is None or kind == "rwkv":  # which halves the last state before
            continue
        with torch.no_grad():
            before, output = recorded(model, text_inputs(model, (7, 7)))
            made = norm(before[stream][facts_of(model).n_blocks[stream]])
        assert (made - output.last_hidden_state).abs().max() < 1e-5
        assert (made - before[stream][facts_of(model).n_blocks[stream]]).abs().max() > 1e-2


def test_an_end_of_another_width_is_refused_only_where_it_is_asked_for():
    model = build("opt of two widths")
    states, output = recorded(model, text_inputs(model))
    assert output.last_hidden_state.shape[-1] == 16
    assert states["decoder"][3].shape == (2, 7, 32)
    with pytest.raises(InputError, match=r"ends in states 16 wide and its layers are 32 wide; .*--final-norm excluded"):
        LayerRecorder(model, {"decoder": (0, 3)}, "included")
    with LayerRecorder(model, {"decoder": (0, 2)}, "included"):
        pass


CAUSAL = {
    "bert": False,
    "bert decoder": True,
    "bert-generation": False,
    "xlnet": False,
    "gpt2": True,
    "mamba": True,
    "ctrl": True,
    "rwkv": True,
    "fnet": False,
    "longformer": False,
}
#: Those whose own operations do not take bfloat16 on a CPU.
SINGLE = ("rwkv", "fnet", "longformer")


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [(kind, dtype) for kind in CAUSAL for dtype in (torch.float32, torch.bfloat16)[: 1 if kind in SINGLE else 2]],
)
def test_a_later_token_tells_encoder_from_decoder(kind, dtype):
    causal = CAUSAL[kind]
    facts = check_model(build(kind, dtype))
    assert tuple(facts.streams) == ("decoder" if causal else "encoder",)
    assert next(iter(facts.streams.values())).causal is causal


def test_an_encoder_decoders_streams_are_told_apart():
    facts = check_model(build("bart"))
    assert [facts.streams[stream].causal for stream in ("encoder", "decoder")] == [False, True]


def test_where_no_token_tells_on_another_the_configuration_is_believed():
    model = build("bert")
    with torch.no_grad():
        for layer in model.encoder.layer:
            layer.attention.output.dense.weight.zero_()
    assert check_model(model).streams["encoder"].causal is None


def test_the_passes_win_over_the_configuration():
    """A GPT-2 whose blocks were made to look ahead is an encoder, and so is the next configuration of its kind."""

    class LookingAhead(nn.Module):
        def __init__(self, block):
            super().__init__()
            self.block = block

        def forward(self, hidden_states, *args, **kwargs):
            ahead = hidden_states + hidden_states.flip(1) * 0.1
            return self.block(ahead, *args, **kwargs)

    model = build("gpt2")
    told = model_streams(model.config)
    model.h[1] = LookingAhead(model.h[1])
    try:
        assert told == ("decoder",)
        assert tuple(check_model(model).streams) == ("encoder",)
        assert model_streams(transformers.GPT2Config()) == ("encoder",)
    finally:
        settle_streams(model.config, told)
    assert model_streams(transformers.GPT2Config()) == ("decoder",)


@pytest.mark.parametrize(
    ("kind", "batching"),
    [
        *(("bert", "padded"), ("gpt2", "padded"), ("mamba", "padded"), ("bart", "padded"), ("longformer", "padded")),
        *(("fnet", "equal lengths"), ("convbert", "equal lengths"), ("big_bird in full", "padded")),
    ],
)
def test_padding_that_changes_a_texts_states_is_noticed(kind, batching):
    model = build(kind)
    assert facts_of(model).batching == batching
    assert facts_of(model).batchable == (batching == "padded")
    if len(facts_of(model).streams) == 1:
        alone, both = text_inputs(model, (5,)), text_inputs(model, (5, 7))
        alone.pop("attention_mask")
        with torch.no_grad():
            one, two = (run(model, inputs).last_hidden_state[0, :5] for inputs in (alone, both))
        assert ((one - two).abs().max() < 1e-4) == (batching == "padded"), "by hand"


def test_texts_that_change_each_others_states_are_noticed():
    model = build("bert")
    model.encoder.layer[1].register_forward_hook(lambda _module, _args, state: state - state.mean(0, keepdim=True))
    assert check_model(model).batching == "alone"


def test_half_precision_is_not_taken_for_padding():
    for kind in ("bert", "gpt2", "llama"):
        assert check_model(build(kind, torch.bfloat16)).batching == "padded"


def test_a_model_is_left_as_it_was_found():
    for kind in ("bert", "rwkv", "big_bird"):
        model = build(kind)
        model.train()
        next(iter(model.modules())).eval()
        before = {name: value.clone() for name, value in model.state_dict().items()}
        modes = [module.training for module in model.modules()]
        kinds = [type(module) for module in model.modules()]
        random = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
        check_model(model)
        assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
        assert [module.training for module in model.modules()] == modes
        assert [type(module) for module in model.modules()] == kinds
        assert torch.equal(torch.get_rng_state(), random[0])
        assert np.array_equal(np.random.get_state()[1], random[1])  # noqa: NPY002
        assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
        assert all(weight.grad is None for weight in model.parameters())


def test_a_way_of_attention_that_a_short_text_changes_is_set_back():
    """BigBird attends in full, for good, once it has read a short text: what comes behind must not depend on it."""
    model = build("big_bird")
    facts = facts_of(model)
    assert (facts.restless, facts.batching) == ("modes", "equal lengths")
    long, short = text_inputs(model, (17,)), text_inputs(model, (5,))
    with torch.no_grad(), LayerRecorder(model, {"encoder": (1, 3)}) as recorder:
        found = []
        for inputs in (long, short, long):
            run(model, inputs)
            found.append(recorder.states["encoder"][3])
    assert [state.shape[1] for state in found] == [17, 5, 17], "sparse attention pads to its blocks"
    assert torch.equal(found[0], found[2])
    with torch.no_grad(), contextlib.ExitStack() as hooks:
        handle = model.encoder.layer[2].register_forward_hook(lambda _m, _a, state: found.append(state))
        hooks.callback(handle.remove)
        run(model, short)
        run(model, long)
    assert not torch.allclose(found[-1][:, :17], found[0], atol=1e-4), "without a recorder the short text tells"


def test_rwkvs_weights_are_its_own_after_the_check():
    assert facts_of(build("rwkv")).restless == "weights"


def test_weights_that_are_elsewhere_are_not_run():
    with torch.device("meta"):
        model = AutoModel.from_config(AutoConfig.for_model("llama", **KINDS["llama"][1]))
    facts = facts_of(model)
    assert facts.unchecked == "weights are offloaded"
    assert facts.streams["decoder"].final_norm == "norm", "by its name"


def test_a_model_is_checked_once_with_and_without_its_head():
    model = transformers.BertForMaskedLM(transformers.BertConfig(**PLAIN)).eval()
    passes = []
    model.bert.register_forward_hook(lambda *_: passes.append(1))
    first = facts_of(model)
    assert passes
    passes.clear()
    assert facts_of(model.bert) is facts_of(model) is first
    twin = transformers.BertModel(transformers.BertConfig(**PLAIN)).eval()
    twin.register_forward_hook(lambda *_: passes.append(1))
    adopt_facts(twin, model)
    assert facts_of(twin) is first
    assert not passes
    twin.encoder.layer = twin.encoder.layer[:2]
    twin.config.num_hidden_layers = 2
    assert facts_of(twin).n_blocks == {"encoder": 2}
    assert passes


def test_a_layer_that_does_not_come_is_named_and_no_memory_is_read(tiny_model):
    model = tiny_model("bert")
    facts_of(model)
    model.encoder.forward = lambda state, *_args, **_kwargs: BaseModelOutputWithPastAndCrossAttentions(
        model.encoder.layer[0](state)
    )
    with (
        LayerRecorder(model, {"encoder": (0, 1, 2)}),
        pytest.raises(InputError, match=r"layer 2 of the encoder of BertModel \(type bert\) came 0 times in a pass"),
    ):
        model(torch.tensor([[2, 5, 3]]))


def test_more_states_than_tokens_are_refused_in_the_pass_where_they_come(tiny_model):
    model = tiny_model("bert")
    facts_of(model)
    model.encoder.layer[1].register_forward_hook(lambda _m, _a, state: torch.cat([state, state[:, :1]], 1))
    with (
        LayerRecorder(model, {"encoder": (2,)}),
        pytest.raises(InputError, match=r"states of shape \(1, 4, 16\) for 1 texts of 3 tokens"),
    ):
        model(torch.tensor([[2, 5, 3]]))


def test_states_that_are_overwritten_are_copied(tiny_model):
    model = tiny_model("bert")
    kept = tiny_model("bert")
    with torch.no_grad(), LayerRecorder(kept, {"encoder": (1,)}) as recorder:
        kept(torch.tensor([[2, 5, 3]]))
    expected = recorder.states["encoder"][1]
    model.encoder.layer[1].register_forward_pre_hook(lambda _module, args: (args[0].mul_(2).div_(2).add_(0), *args[1:]))
    assert not facts_of(model).streams["encoder"].overwritten, "values that end as they were are no harm"
    model = tiny_model("bert")
    model.encoder.layer[1].register_forward_hook(lambda _module, args, _state: args[0].mul_(3))
    assert facts_of(model).streams["encoder"].overwritten
    with torch.no_grad(), LayerRecorder(model, {"encoder": (1,)}) as recorder:
        model(torch.tensor([[2, 5, 3]]))
    assert torch.equal(recorder.states["encoder"][1], expected)


@given(
    batch=st.integers(1, 4),
    length=st.integers(1, 6),
    width=st.integers(1, 3),
    behind=st.integers(0, 4),
    turned=st.booleans(),
)
def test_laying_out_undoes_turning_and_padding(batch, length, width, behind, turned):
    state = torch.randn(batch, length, width)
    given_over = torch.cat([state, torch.randn(batch, behind, width)], 1)
    given_over = given_over.transpose(0, 1) if turned else given_over
    facts = StreamFacts(turned=turned, padded=behind > 0)
    assert torch.equal(laid_out(given_over, facts, batch, length), state)
    with pytest.raises(InputError):
        laid_out(given_over, facts, batch, length + behind + 1)


def test_evaluation_mode_gives_every_module_its_own_mode_back(tiny_model):
    model = tiny_model("bert")
    model.encoder.layer[0].train()
    with evaluation_mode(model):
        assert not any(module.training for module in model.modules())
    assert model.encoder.layer[0].training
    assert not model.encoder.layer[1].training
