"""Weights that are stored quantised are read as what they stand for, or refused; what is left over is noticed."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoModelForCausalLM, BitsAndBytesConfig, LlamaConfig, LlamaForCausalLM

from anglekit.analysis.analyze import analyze
from anglekit.distillation.students.create import create_student
from anglekit.distillation.tasks.models import load_trained
from anglekit.distillation.tasks.registry import task_by_name
from anglekit.errors import InputError
from anglekit.models.checkpoints import load_checkpoint
from anglekit.models.load_options import LoadOptions
from anglekit.models.stored.quantized import check_scales, left_out, stored_method

_BLOCK = 8


def _fp8(weight):
    """Return a weight in blocks of 8 bits, the scale of each block, and what both stand for."""
    rows, columns = weight.shape
    blocks = weight.reshape(rows // _BLOCK, _BLOCK, columns // _BLOCK, _BLOCK)
    scale = blocks.abs().amax((1, 3)) / 448
    stored = (blocks / scale[:, None, :, None]).to(torch.float8_e4m3fn)
    meant = stored.float() * scale[:, None, :, None]
    return stored.reshape(rows, columns).contiguous(), scale.contiguous(), meant.reshape(rows, columns)


def edit_config(directory: Path, **entries: object) -> None:
    file = directory / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **entries}))


@pytest.fixture
def quantized(tiny_model, save_tiny, tmp_path) -> tuple[Path, dict[str, torch.Tensor]]:
    """A Llama of 3 blocks stored in 8 bits, and the weights that it stands for."""
    directory = save_tiny(tmp_path / "fp8", tiny_model("llama", head=True))
    stored, meant = {}, {}
    for name, weight in load_file(directory / "model.safetensors").items():
        if "proj" in name:
            stored[name], stored[f"{name}_scale_inv"], meant[name] = _fp8(weight)
        else:
            stored[name] = meant[name] = weight
    save_file(stored, directory / "model.safetensors", metadata={"format": "pt"})
    told = {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [_BLOCK, _BLOCK]}
    edit_config(directory, quantization_config=told)
    return directory, meant


def test_the_weights_are_what_values_and_scales_stand_for(quantized):
    directory, meant = quantized
    found = load_checkpoint(str(directory))
    for name, weight in found.model.state_dict().items():
        assert torch.equal(weight, meant[f"model.{name}"]), name
    assert found.quantization == found.provenance()["quantization"] == "fp8, dequantised to float32"
    half = load_checkpoint(str(directory), LoadOptions(dtype="bfloat16"))
    assert {weight.dtype for weight in half.model.parameters()} == {torch.bfloat16}
    assert half.quantization == "fp8, dequantised to bfloat16"


def test_a_student_of_quantised_weights_is_plain(quantized, tmp_path, probe):
    directory, meant = quantized
    teacher = load_trained(str(directory), task_by_name("completion"))
    assert teacher.provenance().quantization == "fp8, dequantised to float32"
    made = create_student(teacher.model, init="teacher", layers=2)
    student = made if isinstance(made, torch.nn.Module) else made.model
    student.save_pretrained(tmp_path / "student")
    teacher.tokenizer.save_pretrained(tmp_path / "student")
    saved = load_checkpoint(str(tmp_path / "student"))
    assert saved.quantization is None
    assert torch.equal(saved.model.layers[0].mlp.up_proj.weight, meant["model.layers.0.mlp.up_proj.weight"])
    geometry = analyze(load_checkpoint(str(directory)), [saved], probe)
    assert geometry.provenance["teacher"]["quantization"] == "fp8, dequantised to float32"


def test_values_without_their_scales_are_refused(quantized):
    """transformers itself reads them as if they were plain weights, which they are not."""
    directory, meant = quantized
    config = json.loads((directory / "config.json").read_text())
    del config["quantization_config"]
    (directory / "config.json").write_text(json.dumps(config))
    silent = AutoModel.from_pretrained(directory, dtype=torch.float32)
    assert not torch.allclose(silent.layers[0].mlp.up_proj.weight, meant["model.layers.0.mlp.up_proj.weight"], atol=1)
    for load in (load_checkpoint, lambda source: load_trained(source, task_by_name("completion"))):
        with pytest.raises(InputError, match="holds 21 scales of quantised weights that are read by nothing"):
            load(str(directory))


@pytest.mark.parametrize("method", ["bitsandbytes", "gptq", "awq", "compressed-tensors", "hqq", "later"])
def test_a_method_without_its_package_is_named_in_one_line(method, quantized):
    if importlib.util.find_spec(method.replace("-", "_")) is not None:
        pytest.skip("the package is installed here")
    directory, _ = quantized
    told = {"quant_method": method, "bits": 4, "load_in_4bit": True}
    edit_config(directory, quantization_config=told)
    with pytest.raises(InputError, match=f"weights are quantised by {method}") as caught:
        load_checkpoint(str(directory))
    assert "\n" not in str(caught.value)
    assert "plain precision" in str(caught.value)


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("bits", [4, 8])
def test_bits_of_bitsandbytes_are_plain_weights(bits, tiny_model, save_tiny, tmp_path):
    """Rows of 16 values, which its four bits on the CPU read with the scales of other rows."""
    pytest.importorskip("bitsandbytes")
    plain = save_tiny(tmp_path / "plain", tiny_model("llama", head=True))
    options = BitsAndBytesConfig(load_in_4bit=bits == 4, load_in_8bit=bits == 8, bnb_4bit_quant_type="nf4")
    packed = AutoModelForCausalLM.from_pretrained(plain, quantization_config=options, dtype=torch.float32)
    packed.save_pretrained(tmp_path / "packed")
    found = load_checkpoint(str(tmp_path / "packed"))
    assert found.quantization == "bitsandbytes, dequantised to float32"
    meant = load_checkpoint(str(plain)).model.state_dict()
    for name, weight in found.model.state_dict().items():
        error = (weight - meant[name]).norm() / meant[name].norm()
        assert error <= (0.13 if bits == 4 else 0.01), name


def test_blocks_beyond_the_last_are_noticed(tiny_model, save_tiny, tmp_path):
    directory = save_tiny(tmp_path / "more", tiny_model("llama", head=True, depth=3))
    edit_config(directory, num_hidden_layers=2)
    found = load_checkpoint(str(directory))
    assert found.depth("decoder") == 2
    first = "model.layers.2.input_layernorm.weight"
    assert found.provenance()["left_out"] == f"9 weights beyond the 2 blocks, the first {first}"
    whole = load_checkpoint(str(save_tiny(tmp_path / "whole", tiny_model("llama", head=True))))
    assert "left_out" not in whole.provenance()


def test_no_usual_weight_is_taken_for_a_scale_or_for_left_out():
    model = LlamaForCausalLM(
        LlamaConfig(vocab_size=8, hidden_size=8, num_attention_heads=2, num_hidden_layers=2, intermediate_size=16)
    )
    usual = [*model.state_dict(), "logit_scale", "layer_scale.weight", "vision.layers.0.mlp.up_proj.weight_scale"]
    check_scales("source", model, usual)
    check_scales("source", model, ["model.layers.0.mlp.up_proj.input_scale"])
    for left in ("layers.0.mlp.up_proj.weight_scale", "model.layers.1.self_attn.q_proj.weight.quant_state.nf4"):
        with pytest.raises(InputError, match=left):
            check_scales("source", model, [*usual, left])
    assert left_out(model.state_dict(), 2) == ""
    # The second number is another list's: T5's blocks hold layers 0 to 2.
    assert left_out(["encoder.block.1.layer.2.DenseReluDense.wi.weight"], 2) == ""
    assert left_out(["mtp.layers.0.weight", "model.layers.0.weight"], 2).startswith("1 weights")
    assert stored_method(model.config) == ""
