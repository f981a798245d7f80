"""Adapters alone in a directory load with their base as the model that peft makes of both, or are refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from peft import (
    AdaLoraConfig,
    IA3Config,
    LoHaConfig,
    LoKrConfig,
    LoraConfig,
    OFTConfig,
    PrefixTuningConfig,
    PromptTuningConfig,
    VBLoRAConfig,
    VeraConfig,
    get_peft_model,
)
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from anglekit.analysis.analyze import analyze
from anglekit.distillation.tasks.models import load_trained
from anglekit.distillation.tasks.registry import task_by_name
from anglekit.errors import InputError
from anglekit.models.checkpoints import load_checkpoint, weights_hash

# peft asks transformers for something by its old name, and says much about what it saves.
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")

_TARGETS = ["query", "value"]
_METHODS = {
    "lora": LoraConfig(target_modules=_TARGETS, r=2),
    "pattern": LoraConfig(target_modules=r"bert\.encoder\.layer\.\d+\.attention\.self\.(query|value)", r=2),
    "dora": LoraConfig(target_modules=_TARGETS, r=2, use_dora=True),
    "rslora-with-biases": LoraConfig(target_modules=_TARGETS, r=2, use_rslora=True, bias="lora_only"),
    "tokens": LoraConfig(target_modules=_TARGETS, r=2, trainable_token_indices=[5, 6]),
    "embeddings": LoraConfig(target_modules=_TARGETS, r=2, modules_to_save=["word_embeddings"]),
    "adalora": AdaLoraConfig(target_modules=_TARGETS, init_r=4, target_r=2, total_step=10),
    "ia3": IA3Config(target_modules=["key", "output.dense"], feedforward_modules=["output.dense"]),
    "loha": LoHaConfig(target_modules=_TARGETS, r=2),
    "lokr": LoKrConfig(target_modules=_TARGETS, r=2),
    "vera": VeraConfig(target_modules=_TARGETS, r=4),
    "vblora": VBLoRAConfig(target_modules=_TARGETS, num_vectors=4, vector_length=4, topk=2),
    "oft": OFTConfig(target_modules=_TARGETS, oft_block_size=4),
}


def _trained(model, config, seed=0):
    """Return peft's model with corrections that differ from 0."""
    wrapped = get_peft_model(model, config)
    torch.manual_seed(seed)
    with torch.no_grad():
        for weight in wrapped.parameters():
            if weight.requires_grad:
                weight.add_(0.3 * torch.randn_like(weight))
    return wrapped.eval()


def _saved(wrapped, directory: Path, base: object) -> Path:
    wrapped.save_pretrained(directory)
    edit(directory, base_model_name_or_path=str(base))
    return directory


def edit(directory: Path, **entries: object) -> None:
    file = directory / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **entries}))


@pytest.fixture
def base(tiny_model, save_tiny, tmp_path) -> Path:
    return save_tiny(tmp_path / "base", tiny_model("bert", head=True, depth=2))


def _states(model, ids):
    with torch.no_grad():
        return model(input_ids=ids, output_hidden_states=True).hidden_states


@pytest.mark.parametrize("method", _METHODS)
def test_an_adapter_alone_is_its_base_and_its_corrections(method, base, tmp_path):
    model = AutoModelForSequenceClassification.from_pretrained(base)
    ids = torch.tensor([[2, 5, 6, 7, 3]])
    plain = _states(model, ids)
    wrapped = _trained(model, _METHODS[method])
    found = load_checkpoint(str(_saved(wrapped, tmp_path / "adapter", base)))
    expected = _states(wrapped, ids)
    for ours, theirs in zip(_states(found.model, ids), expected, strict=True):
        assert torch.allclose(ours, theirs, atol=2e-5)
    # A negative control: the corrections matter.
    assert not torch.allclose(plain[-1], expected[-1], atol=1e-2)
    assert found.name == "adapter"
    assert found.tokenizer is not None
    assert not any("lora" in name or "base_layer" in name for name, _ in found.model.named_parameters())
    kind = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())["peft_type"].lower()
    assert found.provenance()["adapter"] == f"{kind} on {base}"


def test_a_head_that_was_trained_whole_comes_along(tiny_model, save_tiny, tmp_path):
    """The base has no head, and peft saves no number of labels."""
    base = save_tiny(tmp_path / "base", "bert")
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=5)
    wrapped = _trained(model, LoraConfig(task_type="SEQ_CLS", target_modules=_TARGETS, r=2))
    adapter = _saved(wrapped, tmp_path / "adapter", "../base")
    loaded = load_trained(str(adapter), task_by_name("classification"))
    ids = torch.tensor([[2, 5, 6, 7, 3]])
    with torch.no_grad():
        assert torch.allclose(loaded.model(ids).logits, wrapped(input_ids=ids).logits, atol=2e-5)
    assert loaded.model.config.num_labels == 5
    assert loaded.provenance().adapter == f"lora on {adapter / '../base'}"
    headless = load_checkpoint(str(adapter))
    assert weights_hash(headless.model) == weights_hash(loaded.model.base_model)


@pytest.mark.parametrize("family", ["gpt2", "t5", "bart", "llama"])
def test_every_family_takes_its_adapters(family, tiny_model, save_tiny, tmp_path):
    base = save_tiny(tmp_path / "base", tiny_model(family, head=True))
    model = tiny_model(family, head=True)
    wrapped = _trained(model, LoraConfig(target_modules="all-linear", r=2, fan_in_fan_out=family == "gpt2"))
    found = load_checkpoint(str(_saved(wrapped, tmp_path / "adapter", base)))
    merged = wrapped.merge_and_unload().base_model.state_dict()
    for name, weight in found.model.state_dict().items():
        assert torch.allclose(weight, merged[name], atol=2e-5), name


def test_teacher_and_student_may_be_adapters(base, tmp_path, probe):
    sources = []
    for seed in range(2):
        model = AutoModelForSequenceClassification.from_pretrained(base)
        wrapped = _trained(model, LoraConfig(target_modules=_TARGETS, r=2), seed=seed)
        sources.append(str(_saved(wrapped, tmp_path / f"adapter{seed}", base)))
    geometry = analyze(load_checkpoint(sources[0]), [load_checkpoint(sources[1])], probe)
    assert geometry.provenance["teacher"]["adapter"] == f"lora on {base}"


@pytest.mark.parametrize("config", [PromptTuningConfig, PrefixTuningConfig])
def test_states_before_each_text_are_no_corrections(config, tiny_model, save_tiny, tmp_path):
    base = save_tiny(tmp_path / "base", tiny_model("gpt2", head=True))
    model = AutoModelForCausalLM.from_pretrained(base)
    made = get_peft_model(model, config(task_type="CAUSAL_LM", num_virtual_tokens=3))
    adapter = _saved(made, tmp_path / "adapter", base)
    with pytest.raises(InputError, match=f"{made.active_peft_config.peft_type.value}: states of its own, put before"):
        load_checkpoint(str(adapter))


@pytest.mark.parametrize(
    ("entries", "problem"),
    [
        ({"base_model_name_or_path": None}, "names no base model"),
        ({"base_model_name_or_path": "./not-there"}, "the base model ./not-there of the adapter .* is not there"),
        ({"peft_type": "LATER"}, "corrections of the kind 'LATER'"),
        ({"peft_type": "XLORA"}, "weighed anew for each text"),
        ({"layer_replication": [[0, 2], [1, 3]]}, "blocks that the base model does not have"),
        ({"r": 10**7}, "says r is 1e\\+07"),
        ({"r": 3}, "does not fit its base model"),
        ({"target_modules": ["no_such_layer"]}, "does not fit its base model"),
    ],
)
def test_what_cannot_be_added_is_refused_in_one_line(entries, problem, base, tmp_path):
    model = AutoModelForSequenceClassification.from_pretrained(base)
    adapter = _saved(_trained(model, LoraConfig(target_modules=_TARGETS, r=2)), tmp_path / "adapter", base)
    edit(adapter, **entries)
    with pytest.raises(InputError, match=problem) as caught:
        load_checkpoint(str(adapter))
    assert "\n" not in str(caught.value)


def test_an_adapter_of_another_model_is_refused(base, tiny_model, save_tiny, tmp_path):
    model = AutoModelForSequenceClassification.from_pretrained(base)
    adapter = _saved(_trained(model, LoraConfig(target_modules=_TARGETS, r=2)), tmp_path / "adapter", base)
    others = {"wide": tiny_model("bert", width=32), "shallow": tiny_model("bert", depth=1), "gpt2": tiny_model("gpt2")}
    for name, other in others.items():
        edit(adapter, base_model_name_or_path=str(save_tiny(tmp_path / name, other)))
        with pytest.raises(InputError, match=f"does not fit its base model .*{name}"):
            load_checkpoint(str(adapter))


def test_corrections_that_lack_a_part_are_refused(base, tmp_path):
    model = AutoModelForSequenceClassification.from_pretrained(base)
    adapter = _saved(_trained(model, LoraConfig(target_modules=_TARGETS, r=2)), tmp_path / "adapter", base)
    file = adapter / "adapter_model.safetensors"
    stored = load_file(file)
    del stored[min(stored)]
    save_file(stored, file)
    with pytest.raises(InputError, match="has no counterpart"):
        load_checkpoint(str(adapter))


def test_several_adapters_in_one_directory_are_named(base, tmp_path):
    model = AutoModelForSequenceClassification.from_pretrained(base)
    wrapped = get_peft_model(model, LoraConfig(target_modules=_TARGETS, r=2), adapter_name="one")
    wrapped.add_adapter("two", LoraConfig(target_modules=_TARGETS, r=2))
    wrapped.save_pretrained(tmp_path / "both")
    with pytest.raises(InputError, match=r"adapters in folders of their own: one, two; give one of them"):
        load_checkpoint(str(tmp_path / "both"))
    edit(tmp_path / "both" / "two", base_model_name_or_path=str(base))
    assert load_checkpoint(str(tmp_path / "both" / "two")).name == "two"


def test_pickled_corrections_are_refused(base, tmp_path):
    model = AutoModelForSequenceClassification.from_pretrained(base)
    adapter = _saved(_trained(model, LoraConfig(target_modules=_TARGETS, r=2)), tmp_path / "adapter", base)
    stored = load_file(adapter / "adapter_model.safetensors")
    torch.save(stored, adapter / "adapter_model.bin")
    (adapter / "adapter_model.safetensors").unlink()
    with pytest.raises(InputError, match="save the adapter as safetensors"):
        load_checkpoint(str(adapter))
