"""What is refused from config.json alone, the plan refuses too, in the same words."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModel, BartConfig, BertConfig, DistilBertConfig, GPT2Config, LlamaConfig, T5Config

from anglekit.distillation.losses.objective import DistillationObjective
from anglekit.distillation.matching.map_text import parse_copy_map, parse_layer_map
from anglekit.distillation.matching.plain_plan import check_plain_attention, check_plain_plan
from anglekit.distillation.matching.plan import plan_distillation
from anglekit.distillation.training.attention_recorder import check_attention, show_maps
from anglekit.errors import InputError
from anglekit.models.architectures import model_streams

CONFIGS = {
    "bert": BertConfig(num_hidden_layers=4, hidden_size=64, num_attention_heads=4),
    "distilbert": DistilBertConfig(n_layers=4, dim=64, n_heads=4),
    "gpt2": GPT2Config(n_layer=4, n_embd=64, n_head=4),
    "llama": LlamaConfig(num_hidden_layers=4, hidden_size=64, num_attention_heads=4, num_key_value_heads=2),
    "t5": T5Config(num_layers=4, num_decoder_layers=3, d_model=64, num_heads=4),
    "bart": BartConfig(encoder_layers=4, decoder_layers=3, d_model=64),
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    root = tmp_path_factory.mktemp("configs")
    for name, config in CONFIGS.items():
        config.save_pretrained(root / name)
    return root


def refusal(check, *args, **given):
    try:
        check(*args, **given)
    except InputError as error:
        return str(error)
    return ""


depths = st.none() | st.integers(-1, 6)
pairs = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=3)
shapes = st.fixed_dictionaries(
    {"layers": depths, "encoder_layers": st.none() | depths, "width": st.none() | st.integers(-1, 80)}
)


def both(saved, name, shape, mapped, copied):
    """Return what the quick check and the whole plan say of a student."""
    streams = model_streams(CONFIGS[name])
    stream = "" if len(streams) == 1 else "encoder="
    layer_map = None if mapped is None else stream + ",".join(f"{s}:{t}" for s, t in mapped)
    copy_map = None if copied is None else stream + ",".join(map(str, copied))
    quick = refusal(check_plain_plan, str(saved / name), **shape, layer_map=layer_map, copy_map=copy_map)
    whole = refusal(
        plan_distillation,
        CONFIGS[name],
        teacher=name,
        strategy="forward" if mapped is None else None,
        init="random" if copied is None else "teacher",
        **shape,
        layer_map=None if layer_map is None else parse_layer_map(layer_map, streams),
        copy_blocks=None if copy_map is None else parse_copy_map(copy_map, streams),
    )
    return quick, whole


@settings(max_examples=60, deadline=None)
@given(
    name=st.sampled_from(sorted(CONFIGS)),
    shape=shapes,
    mapped=st.none() | pairs,
    copied=st.none() | st.lists(st.integers(0, 5), min_size=1, max_size=4),
)
def test_the_quick_check_refuses_nothing_that_a_plan_allows(saved, name, shape, mapped, copied):
    quick, whole = both(saved, name, shape, mapped, copied)
    assert whole or not quick


@pytest.mark.parametrize("name", CONFIGS)
def test_single_mistakes_are_found_in_the_words_of_the_plan(saved, name):
    plain = dict.fromkeys(("layers", "encoder_layers", "width"))
    for shape, mapped, copied in (
        ({"layers": 5}, None, None),
        ({"layers": 0}, None, None),
        ({"layers": 2}, [(1, 5)], None),
        ({"layers": 2}, [(3, 1)], None),
        ({"layers": 2}, None, [0, 5]),
        ({"layers": 2}, None, [0]),
    ):
        quick, whole = both(saved, name, plain | shape, mapped, copied)
        assert quick == whole != "", (shape, mapped, copied)
    assert both(saved, name, plain | {"layers": 2}, [(1, 2)], None) == ("", "")
    if len(model_streams(CONFIGS[name])) == 1:
        assert both(saved, name, plain | {"width": 33}, None, None)[0].startswith("a student of width 33 cannot")
        assert both(saved, name, plain | {"width": 48}, None, None)[0] == ""


@pytest.mark.parametrize("family", ["bert", "gpt2", "llama", "t5", "bart"])
@pytest.mark.parametrize("student", [None, {"width": 8}, {"width": 24}])
def test_heads_that_do_not_fit_are_refused_from_config_json_in_the_same_words(family, student, save_tiny, tmp_path):
    """The tiny models have two heads: 16 relation heads fit width 16 alone, 5 no width."""
    places = {"teacher": save_tiny(tmp_path / "teacher", family)}
    places |= {} if student is None else {"student": save_tiny(tmp_path / "student", family, **student)}
    models = {role: AutoModel.from_pretrained(place) for role, place in places.items()}
    for hidden_loss, heads in (("minilm-v2", 2), ("minilm-v2", 16), ("minilm-v2", 5), ("minilm", None)):
        settings = {"hidden_loss": hidden_loss, "relation_heads": heads}
        named = {role: str(place) for role, place in places.items()}
        quick = refusal(check_plain_attention, **{"student": None, **named}, **settings)
        pairs = dict.fromkeys(model_streams(models["teacher"].config), ((1, 1),))
        objective = DistillationObjective(pairs, **settings)
        for model in models.values():
            show_maps(objective, model)
        late = refusal(check_attention, objective, models.get("student", models["teacher"]), models["teacher"])
        assert quick == late
        assert bool(quick) == (heads is not None and any(w % heads for w in (16, (student or {}).get("width", 16))))


def test_another_number_of_heads_is_refused_where_maps_are_compared(saved, tmp_path):
    BertConfig(num_hidden_layers=2, hidden_size=64, num_attention_heads=2).save_pretrained(tmp_path)
    told = {"teacher": str(saved / "bert"), "student": str(tmp_path)}
    with pytest.raises(InputError, match=r"the student has 2 heads \(2 of values\) and the teacher 4 heads \(4 of val"):
        check_plain_attention(**told, hidden_loss="minilm")
    check_plain_attention(**told, hidden_loss="minilm-v2", relation_heads=16)
    check_plain_attention(**told, hidden_loss="mse")
    with pytest.raises(InputError, match="16 relation heads came, and queries, keys and values are 40, 64 wide"):
        check_plain_attention(str(saved / "bert"), hidden_loss="minilm-v2", relation_heads=16, width=40)
