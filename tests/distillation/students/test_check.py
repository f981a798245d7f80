"""A copied student is checked against the teacher's blocks run one after another."""

import copy

import pytest
import torch
import transformers as hf

from anglekit.distillation.students.check import block_differences, check_student, states_in_sequence
from anglekit.distillation.students.create import create_student
from anglekit.errors import InputError
from anglekit.models.architectures import blocks, model_streams

SIZES = {"vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 24}
BERT = hf.BertConfig(**SIZES)
T5 = hf.T5Config(vocab_size=40, d_model=16, d_kv=4, d_ff=24, num_layers=4, num_heads=4, decoder_start_token_id=0)
MINICPM = {"q_lora_rank": 8, "kv_lora_rank": 8, "qk_nope_head_dim": 4, "qk_rope_head_dim": 4, "v_head_dim": 4}


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


def test_a_right_student_passes_and_a_changed_one_is_named():
    teacher = teacher_of(BERT)
    chosen = {"encoder": (1, 3)}
    student = create_student(teacher, layers=2, init="teacher", copy_blocks=[1, 3]).eval()
    check_student(teacher, student, chosen)
    with pytest.raises(InputError, match=r"block 2 of a bert teacher .* as block 1 of this student"):
        check_student(teacher, student, {"encoder": (1, 2)})
    with torch.no_grad():
        student.embeddings.word_embeddings.weight.mul_(2)
    with pytest.raises(InputError, match="embeds tokens otherwise"):
        check_student(teacher, student, chosen)


@pytest.mark.parametrize(
    ("config", "copied", "reason"),
    [
        (hf.GPT2Config(vocab_size=40, n_embd=16, n_layer=4, n_head=4, scale_attn_by_inverse_layer_idx=True), (0, 2),
         r"attn\.scaling is 0\.1667 in the teacher, 0\.25 here"),
        (hf.DiffLlamaConfig(**SIZES, num_key_value_heads=4), (0, 3), r"lambda_init is 0\.5561 in the teacher, 0\.3555"),
        (hf.DebertaV2Config(**SIZES, conv_kernel_size=3, relative_attention=True), (1, 3), "needs block 0 first"),
    ],
)  # fmt: skip
def test_a_block_that_knows_its_place_is_refused_by_name(config, copied, reason):
    with pytest.raises(InputError, match=reason):
        create_student(teacher_of(config), layers=2, init="teacher", copy_blocks=list(copied))
    assert create_student(teacher_of(config), layers=2, init="teacher", copy_blocks=[0, 1])


def test_nothing_of_either_model_is_changed():
    teacher = teacher_of(BERT, hf.AutoModelForSequenceClassification)
    before = copy.deepcopy(teacher.state_dict())
    student = create_student(teacher, layers=2, init="teacher")
    assert student.training
    assert not teacher.training
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in student.modules())


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
