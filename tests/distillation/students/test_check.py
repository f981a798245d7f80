"""A copied student is checked against the teacher's blocks run one after another."""

import copy

import pytest
import torch
import transformers as hf

from anglekit.distillation.students.check import check_kinds, check_saved, check_student
from anglekit.distillation.students.create import create_student
from anglekit.errors import InputError
from anglekit.models.architectures import model_streams

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


@pytest.mark.parametrize(
    ("config", "kept"),
    [
        (hf.EsmConfig(**SIZES, pad_token_id=0, position_embedding_type="rotary", mask_token_id=4), (0, 3)),
        (hf.RwkvConfig(vocab_size=40, hidden_size=16, num_hidden_layers=4, attention_hidden_size=16, rescale_every=2),
         (0, 3)),
        (hf.MiniCPM3Config(**SIZES, **MINICPM, num_key_value_heads=4), (1, 2)),
        (hf.LongformerConfig(**SIZES, attention_window=[4, 8, 8, 4]), (0, 3)),
        (hf.LongformerConfig(**SIZES, attention_window=4), (1, 3)),
    ],
)  # fmt: skip
def test_what_was_refused_or_wrong_without_need_is_right(config, kept, tmp_path):
    teacher = teacher_of(config)
    with torch.no_grad():
        teacher(torch.arange(5, 13)[None])
    student = create_student(teacher, layers=2, init="teacher", copy_blocks=list(kept)).eval()
    stream = model_streams(config)[0]
    check_student(teacher, student, {stream: kept})
    with torch.no_grad():
        student(torch.arange(5, 13)[None])
    student.save_pretrained(tmp_path)
    check_student(teacher, hf.AutoModel.from_pretrained(tmp_path), {stream: kept})


def test_a_part_for_each_block_follows_the_blocks():
    teacher = teacher_of(hf.EsmConfig(**SIZES, pad_token_id=0, position_embedding_type="rotary", mask_token_id=4))
    student = create_student(teacher, layers=2, init="teacher", copy_blocks=[3, 1])
    heads = teacher.contact_head.regression.weight.reshape(4, 4)
    assert torch.equal(student.contact_head.regression.weight.reshape(2, 4), heads[[3, 1]])


def test_a_random_student_of_another_kind_is_refused():
    sizes = {**SIZES, "num_key_value_heads": 4, "head_dim": 4, "num_experts": 2, "num_experts_per_tok": 1}
    config = hf.Qwen3MoeConfig(**sizes, moe_intermediate_size=8, mlp_only_layers=[0, 1])
    teacher = teacher_of(config)
    student = create_student(teacher, layers=2)
    check_kinds(teacher, student, {"decoder": (0, 3)})
    check_kinds(teacher, create_student(teacher, layers=2, width=8), {"decoder": (0, 3)})
    with pytest.raises(InputError, match="block 1 of the qwen3_moe student is of another kind than block 1"):
        check_kinds(teacher, student, {"decoder": (0, 1)})


def test_a_student_that_does_not_come_back_is_refused():
    student = create_student(teacher_of(BERT), layers=2, init="teacher")
    check_saved(student)
    student.config.num_hidden_layers = 3
    with pytest.raises(InputError, match=r"does not come back .* encoder\.layer\.2"):
        check_saved(student)
    student.config.num_hidden_layers = 2
    student.encoder.layer[1].attention.self.scaling = 3.0
    with pytest.raises(InputError, match=r"does not come back .* encoder's states differ"):
        check_saved(student)


def test_what_a_model_computes_itself_keeps_its_precision():
    teacher = teacher_of(hf.LlamaConfig(**SIZES)).to(torch.bfloat16)
    student = create_student(teacher, layers=2, init="teacher")
    assert student.dtype == torch.bfloat16
    assert student.rotary_emb.inv_freq.dtype == torch.float32, "as from_pretrained leaves it"


@pytest.mark.parametrize("copied", [(0, 1), (0, 2)])
def test_a_teacher_on_the_disk_is_run_as_well(copied, tmp_path):
    config = hf.GPT2Config(vocab_size=40, n_embd=16, n_layer=4, n_head=4, scale_attn_by_inverse_layer_idx=True)
    teacher_of(config).save_pretrained(tmp_path)
    parts = {"wte": "cpu", "wpe": "cpu", "drop": "cpu", "ln_f": "cpu", "h.0": "cpu"}
    spread = hf.AutoModel.from_pretrained(tmp_path, device_map=parts | dict.fromkeys(("h.1", "h.2", "h.3"), "disk"))
    assert spread.h[2].attn.c_attn.weight.is_meta
    if copied == (0, 1):
        student = create_student(spread, layers=2, init="teacher", copy_blocks=copied)
        assert torch.equal(student.h[1].attn.c_attn.weight, teacher_of(config).h[1].attn.c_attn.weight)
    else:
        with pytest.raises(InputError, match=r"block 2 of a gpt2 .* copy the first blocks, which keep their places$"):
            create_student(spread, layers=2, init="teacher", copy_blocks=copied)


def test_a_width_that_a_type_cannot_have_is_said():
    """Phi turns half of each head, in pairs of numbers: with heads of five or three it cannot run."""
    shape = {"num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    teacher = teacher_of(hf.PhiConfig(vocab_size=40, hidden_size=32, **shape))
    assert create_student(teacher, layers=1, init="teacher")
    assert create_student(teacher, layers=1, width=16)
    with pytest.raises(InputError, match="no phi student of this shape can run"):
        create_student(teacher, layers=1, width=20)


def test_a_block_that_keeps_its_keys_for_others_is_of_the_same_kind():
    """In transformers 5.24 Gemma 4 marks the last block of each kind of attention, whether others read it or not."""
    shape = {"num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8}
    kinds = ["sliding_attention", "full_attention"] * 2
    sizes = {"vocab_size": 40, "hidden_size": 32, "intermediate_size": 64, "hidden_size_per_layer_input": 0}
    config = hf.Gemma4TextConfig(**sizes, **shape, layer_types=kinds, num_kv_shared_layers=0, pad_token_id=0)
    teacher = teacher_of(config)
    marked = [block.self_attn.store_full_length_kv for block in teacher.layers]
    assert marked in ([False] * 4, [False, False, True, True])
    assert create_student(teacher, layers=2, init="random")


def test_a_weight_that_only_the_first_block_has_is_named():
    teacher = teacher_of(hf.RwkvConfig(vocab_size=40, hidden_size=16, num_hidden_layers=4, attention_hidden_size=16))
    with pytest.raises(InputError, match=r"block 1 of the teacher's decoder has no pre_ln\.weight .* block 0 of this"):
        create_student(teacher, layers=2, init="teacher", copy_blocks=[1, 2])
