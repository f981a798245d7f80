"""Recorded layers against Hugging Face's own hidden states, on tiny models of every family."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
import transformers

from anglekit.errors import InputError
from anglekit.models.architectures import model_streams
from anglekit.models.check import evaluation_mode, final_norm_module
from anglekit.probes.data import ProbeData
from anglekit.probes.tokenize import tokenize_probe
from anglekit.states.recorder import LayerRecorder, forward_inputs, token_states

DEPTH, WIDTH = 3, 16
FINAL_NORM = {"modernbert", "t5", "gpt2", "llama", "qwen3"}
FAMILIES = ["bert", "roberta", "distilbert", "modernbert", "bart", "t5", "gpt2", "llama", "qwen3"]
_COMMON = {"vocab_size": 24, "pad_token_id": 0, "hidden_size": WIDTH, "num_hidden_layers": DEPTH}
_BERT = {**_COMMON, "num_attention_heads": 2, "intermediate_size": 32, "max_position_embeddings": 64}
_OTHERS = {
    "roberta": ("RobertaConfig", "RobertaModel", _BERT),
    "distilbert": (
        "DistilBertConfig",
        "DistilBertModel",
        {"vocab_size": 24, "pad_token_id": 0, "dim": WIDTH, "n_layers": DEPTH, "n_heads": 2, "hidden_dim": 32},
    ),
    "modernbert": (
        "ModernBertConfig",
        "ModernBertModel",
        {**_BERT, "bos_token_id": 2, "eos_token_id": 3, "cls_token_id": 2, "sep_token_id": 3},
    ),
}


@pytest.fixture(scope="module")
def models(tiny_model):
    """One model of each family, in evaluation mode, its norms' weights drawn at random so that they matter."""
    built = {}
    for number, family in enumerate(FAMILIES):
        if family in _OTHERS:
            config, plain, sizes = _OTHERS[family]
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(number)
                model = getattr(transformers, plain)(getattr(transformers, config)(**sizes)).eval()
        else:
            model = tiny_model(family, width=WIDTH, depth=DEPTH, seed=number)
        generator = torch.Generator().manual_seed(number)
        for name, weight in model.named_parameters():
            if "norm" in name.lower() and weight.ndim == 1:
                torch.nn.init.uniform_(weight, 0.5, 2.0, generator=generator)
        built[family] = model
    return built


@pytest.fixture(scope="module")
def batch_of(words, tiny_tokenizer):
    """`batch_of(model)`: the first batch of a padded probe for this model."""
    rng = np.random.default_rng(0)
    texts, targets = (tuple(" ".join(rng.choice(words, size)) for size in sizes) for sizes in ((3, 9, 5), (6, 2, 4)))
    data = ProbeData("memory", "0" * 64, texts, None, targets, (0, 1, 2), 0, "text", None, "target")

    def make(model, **options):
        streams = model_streams(model.config)
        probe = tokenize_probe(
            data,
            tiny_tokenizer(),
            needs_target=len(streams) == 2,
            max_length=None,
            decoder_start_token_id=3,
            text_stream=streams[0],
            **options,
        )
        return next(iter(probe.batches()))

    return make


def all_layers(model):
    return {stream: range(DEPTH + 1) for stream in model_streams(model.config)}


def recorded(model, batch, **options):
    with LayerRecorder(model, all_layers(model), **options) as recorder:
        return token_states(recorder, batch)


def hugging_face(model, batch):
    """The library's own states of the tokens that count: for each stream, a list over layers."""
    with torch.inference_mode():
        output = model.base_model(**forward_inputs(model, batch), output_hidden_states=True)
    streams = model_streams(model.config)
    names = {s: f"{s}_hidden_states" if len(streams) == 2 else "hidden_states" for s in streams}
    return {s: [x.flatten(0, 1)[batch.token_index(s)] for x in output[name]] for s, name in names.items()}


def installed_hooks(model):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


@pytest.mark.parametrize("family", FAMILIES)
def test_layers_equal_hugging_faces_hidden_states(models, batch_of, family):
    model = models[family]
    batch = batch_of(model)
    assert batch.attention_mask is not None
    expected = hugging_face(model, batch)
    found = {kind: recorded(model, batch, final_norm=kind) for kind in ("included", "excluded")}
    for stream, layers in expected.items():
        assert len(layers) == DEPTH + 1
        for kind, states in found.items():
            assert states[stream].layers == tuple(range(DEPTH + 1))
            assert states[stream].states[0].shape == (len(batch.token_example(stream)), WIDTH)
            for layer in range(DEPTH):
                assert torch.equal(states[stream].states[layer], layers[layer]), (kind, stream, layer)
        assert torch.equal(found["included"][stream].states[-1], layers[-1])


@pytest.mark.parametrize("family", FAMILIES)
def test_the_final_norm_lies_between_excluded_and_included(models, batch_of, family):
    model = models[family]
    batch = batch_of(model)
    excluded, included = (recorded(model, batch, final_norm=kind) for kind in ("excluded", "included"))
    for stream in model_streams(model.config):
        norm = final_norm_module(model, stream)
        before, after = excluded[stream].states[-1], included[stream].states[-1]
        assert (norm is not None) == (family in FINAL_NORM)
        if norm is None:
            assert torch.equal(before, after)
        else:
            with torch.inference_mode():
                torch.testing.assert_close(norm(before), after)
            assert (before - after).abs().max() > 0.1


@pytest.mark.parametrize("family", FAMILIES)
def test_layers_differ_from_each_other(models, batch_of, family):
    """The negative control: equality with the wrong layer would be seen."""
    for states in recorded(models[family], batch_of(models[family])).values():
        for below, above in zip(states.states, states.states[1:], strict=False):
            assert (below - above).abs().max() > 1e-3


@pytest.mark.parametrize("family", ["bert", "t5", "gpt2"])
def test_a_head_changes_no_state(tiny_model, batch_of, family):
    headed = tiny_model(family, head=True, width=WIDTH, depth=DEPTH)
    batch = batch_of(headed)
    for stream, states in recorded(headed, batch).items():
        expected = recorded(headed.base_model, batch)[stream].states
        assert all(torch.equal(a, b) for a, b in zip(states.states, expected, strict=True))


@pytest.mark.parametrize("family", ["bert", "modernbert", "t5", "llama"])
def test_padding_changes_no_state(models, batch_of, family):
    model = models[family]
    together = batch_of(model)
    states = recorded(model, together)
    alone = batch_of(model, token_budget=1)
    assert len(alone.examples) == 1
    position = together.examples.tolist().index(int(alone.examples))
    for stream, single in recorded(model, alone).items():
        own = together.token_example(stream) == position
        for a, b in zip(states[stream].states, single.states, strict=True):
            torch.testing.assert_close(a[own], b, rtol=1e-4, atol=1e-4)


def test_only_the_layers_asked_for_are_kept_in_order(models, batch_of):
    model = models["bart"]
    batch = batch_of(model)
    expected = hugging_face(model, batch)
    with LayerRecorder(model, {"decoder": [3, 1, 1]}) as recorder:
        found = token_states(recorder, batch)
    assert list(found) == ["decoder"]
    assert found["decoder"].layers == (1, 3)
    for layer, states in zip((1, 3), found["decoder"].states, strict=True):
        assert torch.equal(states, expected["decoder"][layer])
    assert recorder.states == {"decoder": {}}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_model_is_left_as_found(models, batch_of, family):
    model = copy.deepcopy(models[family])
    hooks, weights = installed_hooks(model), {name: w.clone() for name, w in model.state_dict().items()}
    model.train()
    next(model.modules()).training = False
    modes = [module.training for module in model.modules()]
    gradients = [weight.requires_grad for weight in model.parameters()]
    recorder = LayerRecorder(model, all_layers(model))
    assert installed_hooks(model) == hooks
    with evaluation_mode(model), recorder:
        assert not any(module.training for module in model.modules())
        assert installed_hooks(model) > hooks
        token_states(recorder, batch_of(model))
    assert installed_hooks(model) == hooks
    assert [module.training for module in model.modules()] == modes
    assert [weight.requires_grad for weight in model.parameters()] == gradients
    assert all(torch.equal(weight, weights[name]) for name, weight in model.state_dict().items())


def test_the_model_is_left_as_found_when_something_fails_inside(models):
    model = copy.deepcopy(models["bert"]).train()
    hooks = installed_hooks(model)
    with pytest.raises(KeyError, match="inside"), evaluation_mode(model), LayerRecorder(model, {"encoder": [0, 3]}):
        raise KeyError("inside")
    assert installed_hooks(model) == hooks
    assert all(module.training for module in model.modules())


def test_gradients_flow_through_what_is_recorded(models, batch_of):
    model = copy.deepcopy(models["bert"])
    with LayerRecorder(model, {"encoder": [2]}) as recorder:
        model(**forward_inputs(model, batch_of(model)))
    recorder.states["encoder"][2].square().sum().backward()
    gradients = [block.output.dense.weight.grad for block in model.encoder.layer]
    assert gradients[0].abs().max() > 0
    assert gradients[1].abs().max() > 0
    assert gradients[2] is None
    recorder.clear()
    assert recorder.states == {"encoder": {}}


@pytest.mark.parametrize("layer", [-1, DEPTH + 1, 99])
def test_a_layer_that_does_not_exist_is_refused(models, layer):
    pattern = f"layer {layer} does not exist in the encoder of BertModel; layers run from 0 .embedding. to {DEPTH}"
    with pytest.raises(InputError, match=pattern):
        LayerRecorder(models["bert"], {"encoder": [0, layer]})


@pytest.mark.parametrize(("family", "stream", "has"), [("bert", "decoder", "encoder"), ("gpt2", "encoder", "decoder")])
def test_a_stream_that_does_not_exist_is_refused(models, family, stream, has):
    with pytest.raises(InputError, match=f"has no {stream} stream; it has: {has}"):
        LayerRecorder(models[family], {stream: [0]})


def test_an_unknown_final_norm_is_refused(models):
    with pytest.raises(InputError, match="final norm 'maybe' is not known; allowed: excluded, included"):
        LayerRecorder(models["bert"], {"encoder": [0]}, "maybe")


def test_inputs_hold_what_the_model_reads_and_nothing_else(models, batch_of):
    def keys(family):
        batch = batch_of(models[family])
        return set(forward_inputs(models[family], replace(batch, token_type_ids=torch.ones_like(batch.input_ids))))

    batch = batch_of(models["bert"])
    types = torch.ones_like(batch.input_ids)
    found = forward_inputs(models["bert"], replace(batch, token_type_ids=types))
    assert torch.equal(found["token_type_ids"], types)
    assert torch.equal(found["input_ids"], batch.input_ids)
    assert torch.equal(found["attention_mask"], batch.attention_mask)
    text = {"input_ids", "attention_mask"}
    assert keys("bert") == {*text, "token_type_ids"}
    assert keys("modernbert") == keys("distilbert") == text
    assert keys("gpt2") == keys("llama") == {*text, "use_cache"}
    assert forward_inputs(models["gpt2"], batch_of(models["gpt2"]))["use_cache"] is False
    assert keys("t5") == keys("bart") == {*text, "decoder_input_ids", "decoder_attention_mask", "use_cache"}


def test_a_batch_without_padding_needs_no_mask(models, batch_of):
    batch = batch_of(models["bert"], token_budget=1)
    assert "attention_mask" not in forward_inputs(models["bert"], batch)
    expected = hugging_face(models["bert"], batch)["encoder"]
    assert all(
        torch.equal(a, b) for a, b in zip(recorded(models["bert"], batch)["encoder"].states, expected, strict=True)
    )


@pytest.mark.parametrize("precisions", [(torch.float32, torch.float64), (torch.float64, torch.float32)])
def test_states_of_several_precisions_keep_the_digits_of_the_best(models, batch_of, precisions):
    """One block answers in another precision than the last: neither may lose digits, whichever comes first."""
    model = copy.deepcopy(models["bert"])
    model.pooler = None  # it would not take what the last block gives
    seen = {}
    # Layers 1 and 3 leave their blocks with digits that float32 cannot hold, where the precision is float64.
    for layer, precision in zip((1, DEPTH), precisions, strict=True):

        def other(_module, _args, output, layer=layer, precision=precision):
            state = output.to(precision) * (1 + 1e-9)
            seen[layer] = state.flatten(0, 1)
            return state

        model.encoder.layer[layer - 1].register_forward_hook(other)
    if precisions[0] == torch.float64:
        model.encoder.layer[1].register_forward_pre_hook(lambda _module, args: (args[0].float(), *args[1:]))
    batch = batch_of(model)
    found = recorded(model, batch)["encoder"].states
    assert found.dtype == torch.float64
    index = batch.token_index("encoder")
    for layer, state in seen.items():
        assert torch.equal(found[layer], state[index].double())
    assert torch.equal(found[0], recorded(models["bert"], batch)["encoder"].states[0].double())


def test_a_block_may_get_its_state_by_name(models):
    """As some models give it: `hidden_states=`."""
    model = copy.deepcopy(models["bert"])
    state = torch.randn(1, 4, WIDTH)
    with LayerRecorder(model, {"encoder": [0, 1]}) as recorder:
        model.encoder.layer[0](hidden_states=state)
    assert torch.equal(recorder.states["encoder"][0], state)
    assert set(recorder.states["encoder"]) == {0, 1}
    recorder.clear()
    assert recorder.states == {"encoder": {}}
