"""Students of ten kinds of teacher, built from tiny configurations: shape, copied weights, saving, seeds."""

import copy

import numpy as np
import pytest
import torch
import transformers as hf

from anglekit.distillation.matching.strategies import copy_map
from anglekit.distillation.students.create import create_student, model_family, student_config, student_depths
from anglekit.errors import InputError
from anglekit.models.architectures import blocks, depth, model_streams, width
from tests.census.small_configs import small_config
from tests.census.small_models import inputs_for, model_of, some_ids

VOCABULARY = 40
_BLOCK = {"hidden_size": 16, "num_hidden_layers": 6, "num_attention_heads": 4, "intermediate_size": 24}
_SEQ2SEQ = {
    "d_model": 16,
    "encoder_layers": 6,
    "decoder_layers": 6,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 24,
    "decoder_ffn_dim": 24,
    "decoder_start_token_id": 2,
    "forced_eos_token_id": None,
}
_T5 = {"d_model": 16, "d_kv": 4, "d_ff": 24, "num_layers": 6, "num_heads": 4, "decoder_start_token_id": 0}
_SLIDING = {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 3}

CONFIGS = {
    "bert": (hf.BertConfig, _BLOCK),
    "roberta": (hf.RobertaConfig, _BLOCK),
    "distilbert": (hf.DistilBertConfig, {"dim": 16, "n_layers": 6, "n_heads": 4, "hidden_dim": 24}),
    "modernbert": (hf.ModernBertConfig, {**_BLOCK, "cls_token_id": 1, "sep_token_id": 2}),
    "bart": (hf.BartConfig, _SEQ2SEQ),
    "marian": (hf.MarianConfig, {**_SEQ2SEQ, "decoder_vocab_size": VOCABULARY}),
    "t5": (hf.T5Config, _T5),
    "gpt2": (hf.GPT2Config, {"n_embd": 16, "n_layer": 6, "n_head": 4}),
    "llama": (hf.LlamaConfig, {**_BLOCK, "num_key_value_heads": 2}),
    "qwen3": (hf.Qwen3Config, {**_BLOCK, **_SLIDING, "num_key_value_heads": 2, "head_dim": 8}),
}
GENERATIVE = ["bart", "marian", "t5", "gpt2", "llama", "qwen3"]


def config_of(name):
    kind, values = CONFIGS[name]
    return kind(vocab_size=VOCABULARY, pad_token_id=0, bos_token_id=1, eos_token_id=2, **values)


def build(name, auto=hf.AutoModel):
    """A teacher whose every weight is random: biases and norm gains that start equal would hide a wrong copy."""
    model = auto.from_config(config_of(name)).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:  # Marian's sinusoids are fixed and not saved
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return model


def language_model(name):
    return build(name, hf.AutoModelForSeq2SeqLM if "d_model" in CONFIGS[name][1] else hf.AutoModelForCausalLM)


def outputs(model):
    ids = torch.arange(3, 15).reshape(2, 6)
    inputs = {"input_ids": ids}
    if model.config.is_encoder_decoder:
        inputs["decoder_input_ids"] = ids.flip(1)
    with torch.no_grad():
        return model.eval()(**inputs, output_hidden_states=True)


def weights(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def same(left, right):
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("auto", [hf.AutoModel, hf.AutoModelForSequenceClassification])
@pytest.mark.parametrize("init", ["random", "teacher"])
def test_a_saved_student_loads_without_anglekit_and_computes_the_same(name, auto, init, tmp_path):
    if name == "marian" and auto is not hf.AutoModel:
        auto = hf.AutoModelForSeq2SeqLM  # Marian has no classifier
    teacher = build(name, auto)
    student = create_student(teacher, layers=2, init=init, seed=3)
    assert type(student) is type(teacher)
    assert student.training
    student.save_pretrained(tmp_path)
    loaded = auto.from_pretrained(tmp_path)
    assert same(weights(loaded), weights(student))
    if name in ("bart", "t5") and auto is not hf.AutoModel:
        return  # their classifiers want an end-of-sentence token; the weights above say enough
    assert torch.equal(outputs(loaded)[0], outputs(student)[0])


@pytest.mark.parametrize("name", CONFIGS)
def test_depth_changes_and_nothing_else(name):
    teacher = build(name)
    student = create_student(teacher, layers=2)
    for stream in model_streams(teacher.config):
        assert depth(student.config, stream) == len(blocks(student, stream)) == 2
    assert width(student.config) == 16
    assert outputs(student)[0].shape == outputs(teacher)[0].shape
    assert depth(teacher.config, model_streams(teacher.config)[-1]) == 6, "the teacher's configuration was changed"


@pytest.mark.parametrize("name", CONFIGS)
def test_chosen_blocks_embeddings_and_norms_are_copied(name):
    teacher = build(name)
    student = create_student(teacher, layers=3, init="teacher")
    homes = []
    for stream in model_streams(teacher.config):
        ours, theirs = blocks(student, stream), blocks(teacher, stream)
        for j, block in enumerate(copy_map(6, 3, model_family(teacher.config))):
            copied = weights(theirs[block])
            assert same(weights(ours[j]), {key: copied[key] for key in weights(ours[j])})
        assert not same(weights(ours[1]), weights(theirs[1])), "negative control: block 1 is not block 1's copy"
        homes += [id(p) for p in ours.parameters()]
    rest = {name for name, parameter in student.named_parameters() if id(parameter) not in homes}
    assert rest
    assert all(torch.equal(student.get_parameter(name), teacher.get_parameter(name)) for name in rest)


@pytest.mark.parametrize("name", CONFIGS)
def test_a_full_copy_is_the_teacher_itself(name):
    """The strongest check of the copy: as many layers as the teacher must give the teacher's outputs."""
    teacher = build(name)
    assert torch.equal(outputs(create_student(teacher, layers=6, init="teacher"))[0], outputs(teacher)[0])
    assert not torch.equal(outputs(create_student(teacher, layers=6, init="random"))[0], outputs(teacher)[0])


@pytest.mark.parametrize("name", GENERATIVE)
def test_language_models_keep_head_ties_and_generation(name):
    """Greedy decoding with and without the cache agrees only if every copied block knows its new place."""
    teacher = language_model(name)
    teacher.generation_config.num_beams = 3
    student = create_student(teacher, layers=2, init="teacher").eval()
    assert student.generation_config.num_beams == 3
    assert torch.equal(student.get_output_embeddings().weight, teacher.get_output_embeddings().weight)
    tied = teacher.get_output_embeddings().weight is teacher.get_input_embeddings().weight
    assert (student.get_output_embeddings().weight is student.get_input_embeddings().weight) == tied
    ids = torch.arange(3, 13).reshape(2, 5)
    options = {"max_new_tokens": 8, "num_beams": 1, "output_logits": True, "return_dict_in_generate": True}
    steps = [
        student.generate(ids, attention_mask=torch.ones_like(ids), use_cache=cache, **options).logits
        for cache in (True, False)
    ]
    assert len(steps[0]) == 8
    torch.testing.assert_close(steps[0], steps[1], rtol=1e-4, atol=1e-4)


def test_the_pooler_is_copied_and_the_classifier_is_not():
    teacher = build("bert", hf.AutoModelForSequenceClassification)
    student = create_student(teacher, layers=3, init="teacher")
    assert same(weights(student.bert.pooler), weights(teacher.bert.pooler))
    assert not torch.equal(student.classifier.weight, teacher.classifier.weight)
    assert torch.equal(student.classifier.bias, torch.zeros(2)), "a fresh head starts at zero"


def test_a_masked_language_models_head_follows_the_embeddings():
    teacher = build("bert", hf.AutoModelForMaskedLM)
    student = create_student(teacher, layers=3, init="teacher")
    assert same(weights(student.cls), weights(teacher.cls))
    assert student.cls.predictions.decoder.weight is student.bert.embeddings.word_embeddings.weight


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("new", [8, 12, 10])
def test_a_narrower_student_runs_and_keeps_its_number_of_heads_where_it_can(name, new):
    teacher = build(name)
    student = create_student(teacher, layers=2, width=new)
    assert width(student.config) == new
    assert outputs(student).last_hidden_state.shape[-1] == new
    config, old = student.config, teacher.config
    size = {"t5": "d_kv", "qwen3": "head_dim", "llama": "head_dim"}.get(name)
    if new == 8:
        assert config.num_attention_heads == 4
        assert getattr(config, "num_key_value_heads", None) == getattr(old, "num_key_value_heads", None)
        assert size is None or getattr(config, size) == getattr(old, size) // 2
    elif new == 12 and name != "qwen3":  # heads of size 3 would not be even
        assert config.num_attention_heads == 3
    inner = next(
        n for n in ("intermediate_size", "d_ff", "encoder_ffn_dim", "hidden_dim", "n_inner") if hasattr(old, n)
    )
    if getattr(old, inner) is not None:
        assert getattr(config, inner) == 24 * new // 16


def test_the_papers_widths():
    t5 = hf.T5Config(d_model=768, d_kv=64, num_heads=12, num_layers=12, d_ff=3072)
    for kind, old, heads, new in [
        (hf.BertConfig(), 768, 12, 384),
        (hf.BertConfig(), 768, 12, 576),
        (hf.BartConfig(), 1024, 16, 512),
        (hf.BartConfig(), 1024, 16, 768),
        (t5, 768, 12, 384),
        (t5, 768, 12, 576),
    ]:
        assert (width(kind), kind.num_attention_heads) == (old, heads)
        chosen = dict.fromkeys(model_streams(kind), (3, 7, 11))
        student = student_config(kind, blocks=chosen, new_width=new)
        assert student.num_attention_heads == heads
        assert getattr(student, "d_kv", new // heads) == new // heads
        inner = next(name for name in ("intermediate_size", "encoder_ffn_dim", "d_ff") if hasattr(student, name))
        assert getattr(student, inner) == 4 * new


@pytest.mark.parametrize(
    ("kind", "heads", "size"),
    [
        ("qwen2_vl_text", 2, ("head_dim", None)),  # sections of the rotary embedding fix a head's size
        ("hunyuan_vl_text", 4, ("head_dim", 8)),
        ("minicpm3", 4, ("qk_rope_head_dim", 4)),  # latent attention: neither is a part of the width
        ("deepseek_v32", 4, ("head_dim", 4)),
        ("xlnet", 4, ("d_head", 4)),
        ("lilt", 2, ("channel_shrink_ratio", 4)),  # heads of 12: 6 is no multiple of the ratio
    ],
)
def test_heads_of_a_fixed_size_keep_it_and_the_narrower_student_runs(kind, heads, size):
    config = small_config(kind)
    student = create_student(model_of(config), layers=2, width=width(config) // 2)
    assert student.config.num_attention_heads == heads
    assert getattr(student.config, size[0], None) == size[1]
    with torch.no_grad():
        student(**inputs_for(student, some_ids(1, 7)))


def test_a_width_without_whole_heads_of_the_fixed_size_is_refused():
    config = small_config("qwen2_vl_text")
    with pytest.raises(InputError, match=r"no whole number of heads of 8, .* choose a multiple of 8"):
        student_config(config, blocks={"decoder": (0, 1)}, new_width=20)


def test_settings_listed_by_layer_follow_the_blocks():
    teacher = build("qwen3")
    assert teacher.config.layer_types == ["full_attention"] * 3 + ["sliding_attention"] * 3
    student = create_student(teacher, layers=2, init="teacher", copy_blocks=[1, 4])
    assert student.config.layer_types == ["full_attention", "sliding_attention"]
    for init in ("random", "teacher"):
        modern = create_student(build("modernbert"), layers=3, init=init)
        assert modern.config.layer_types == [build("modernbert").config.layer_types[b] for b in (0, 3, 5)]


def test_encoder_and_decoder_have_their_own_depth_and_copy_map():
    teacher = build("t5")
    student = create_student(
        teacher,
        encoder_layers=2,
        decoder_layers=3,
        init="teacher",
        copy_blocks={"encoder": [0, 4], "decoder": [0, 1, 2]},
    )
    assert same(weights(blocks(student, "encoder")[1]), weights(blocks(teacher, "encoder")[4]))
    assert same(weights(blocks(student, "decoder")[2]), weights(blocks(teacher, "decoder")[2]))
    assert student_depths(teacher.config, encoder_layers=2) == {"encoder": 2, "decoder": 6}


def test_seeds_decide_and_the_global_random_state_is_left_alone():
    teacher = build("bert", hf.AutoModelForSequenceClassification)
    torch.manual_seed(5)
    np.random.seed(5)  # noqa: NPY002 - the legacy global state is what must stay untouched
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    first = create_student(teacher, layers=2, seed=1)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])  # noqa: NPY002
    torch.rand(3)
    assert same(weights(first), weights(create_student(teacher, layers=2, seed=1)))
    assert not same(weights(first), weights(create_student(teacher, layers=2, seed=2)))
    copies = [create_student(teacher, layers=2, init="teacher", seed=seed) for seed in (1, 2)]
    assert same(weights(copies[0].bert), weights(copies[1].bert))
    assert not torch.equal(copies[0].classifier.weight, copies[1].classifier.weight)


def test_the_teacher_is_left_as_found_and_its_precision_kept():
    teacher = build("llama").to(torch.bfloat16)
    before, config = weights(teacher), copy.deepcopy(teacher.config.to_dict())
    student = create_student(teacher, layers=2, init="teacher")
    with torch.no_grad():
        next(student.parameters()).zero_()
    assert same(weights(teacher), before)
    assert teacher.config.to_dict() == config
    assert not teacher.training
    assert student.dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("bert", {}, "--layers or --width"),
        ("bert", {"layers": 7}, "allowed: 1 to 6"),
        ("bert", {"layers": 0}, "allowed: 1 to 6"),
        ("bert", {"layers": 2, "init": "teachers"}, "did you mean 'teacher'"),
        ("bert", {"layers": 2, "width": 17}, "allowed: 1 to 16"),
        ("bert", {"layers": 2, "width": 9}, "even width"),
        ("bert", {"layers": 2, "width": 8, "init": "teacher"}, "use --init random"),
        ("bert", {"layers": 2, "copy_blocks": [0, 1]}, "copies nothing"),
        ("bert", {"layers": 2, "init": "teacher", "copy_blocks": [0, 6]}, "block 6; allowed: 0 to 5"),
        ("bert", {"layers": 2, "init": "teacher", "copy_blocks": {"decoder": [0, 1]}}, "stream 'decoder'"),
        ("bert", {"decoder_layers": 2}, "has no decoder"),
        ("gpt2", {"encoder_layers": 2}, "has no encoder"),
        ("bart", {"layers": 2, "encoder_layers": 2}, "one or the other"),
        ("bart", {"layers": 2, "init": "teacher", "copy_blocks": [0, 1]}, "needs its stream"),
        ("t5", {"layers": 2, "init": "teacher", "copy_blocks": {"encoder": [1, 2]}}, "needs block 0 first"),
        ("modernbert", {"layers": 2, "init": "teacher", "copy_blocks": [1, 2]}, "needs block 0 first"),
    ],
)
def test_wrong_input_is_named(name, options, message):
    with pytest.raises(InputError, match=message):
        create_student(build(name), **options)


def test_weights_that_do_not_fit_are_named():
    teacher = build("bert")
    teacher.embeddings.word_embeddings = torch.nn.Embedding(50, 16)
    with pytest.raises(InputError, match=r"embeddings\.word_embeddings\.weight has no counterpart"):
        create_student(teacher, layers=2, init="teacher")
