#!/usr/bin/env bash
# transformers 5.23.0: what `hidden_states[k]` of `output_hidden_states=True` is, in models of many types.
#
# Expected: as in BERT and Llama, entry 0 is what enters block 0, entry k the output of block k - 1, and the last entry the
# last hidden state, so that one index means one layer in every type.
# Seen: in Mamba, Mamba-2 and FalconMamba entry 0 is already the output of block 0; there are as many entries all the same,
# since the last block's output comes twice, before and behind the final norm. CLIP's text model gives its last entry
# before the final norm, where Llama gives it behind. HRM-Text counts every run of its few blocks as a layer, and CANINE has
# entries of blocks of two kinds: there the index says nothing about the number of a block.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/python" -m pip install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6 transformers==5.23.0
HF_HUB_OFFLINE=1 "$place/venv/bin/python" - <<'PYTHON'
import torch
import transformers as hf

hf.logging.set_verbosity_error()
SIZES = {"vocab_size": 99, "hidden_size": 32, "num_hidden_layers": 4, "pad_token_id": 0}
HEADS = {**SIZES, "num_attention_heads": 4, "intermediate_size": 64, "max_position_embeddings": 64}
MODELS = {
    "bert": (hf.BertModel(hf.BertConfig(**HEADS)), "encoder.layer"),
    "llama": (hf.LlamaModel(hf.LlamaConfig(**HEADS, num_key_value_heads=4)), "layers"),
    "clip_text_model": (hf.CLIPTextModel(hf.CLIPTextConfig(**HEADS, eos_token_id=3)), "encoder.layers"),
    "mamba": (hf.MambaModel(hf.MambaConfig(**SIZES)), "layers"),
    "mamba2": (hf.Mamba2Model(hf.Mamba2Config(**SIZES, num_heads=8, head_dim=8, n_groups=1)), "layers"),
    "falcon_mamba": (hf.FalconMambaModel(hf.FalconMambaConfig(**SIZES)), "layers"),
    "hrm_text": (hf.AutoModel.from_config(hf.AutoConfig.for_model("hrm_text", **HEADS)), None),
    "canine": (hf.CanineModel(hf.CanineConfig(**{**HEADS, "num_hash_buckets": 64, "local_transformer_stride": 4})), None),
}
found = {}
for name, (model, path) in MODELS.items():
    torch.manual_seed(0)
    model.eval()
    for key, weight in model.named_parameters():  # norms unlike each other, layers unlike each other
        if weight.ndim == 1:
            torch.nn.init.uniform_(weight, 0.5, 1.5)
        elif weight.ndim == 2 and not key.endswith("A_log"):
            torch.nn.init.normal_(weight, std=0.2)
    seen = []
    if path is not None:
        blocks = model.get_submodule(path)
        blocks[0].register_forward_pre_hook(lambda _, args, kwargs: seen.append((args or (kwargs["hidden_states"],))[0].clone()), with_kwargs=True)
        for block in blocks:
            block.register_forward_hook(lambda _, args, output: seen.append((output if torch.is_tensor(output) else output[0]).clone()))
    with torch.no_grad():
        output = model(input_ids=torch.arange(5, 21)[None], output_hidden_states=True)
    given, last = output.hidden_states, output.last_hidden_state

    def which(entry):
        states = [("enters block 0", seen[0])] + [(f"output of block {b}", state) for b, state in enumerate(seen[1:])] if seen else []
        names = [words for words, state in [*states, ("last_hidden_state", last)] if state.shape == entry.shape and torch.allclose(state, entry, atol=1e-6)]
        return " = ".join(names) or f"another state, {tuple(entry.shape)}"

    found[name] = [which(entry) for entry in given]
    print(f"{name}: {len(given)} entries, depth {model.config.num_hidden_layers}")
    for index, words in enumerate(found[name] if path is not None else ()):
        print(f"    [{index}] {words}")

usual = ["enters block 0", *(f"output of block {block}" for block in range(3))]
assert found["bert"] == [*usual, "output of block 3 = last_hidden_state"]
assert found["llama"] == [*usual, "last_hidden_state"]
assert found["clip_text_model"] == [*usual, "output of block 3"]
for name in ("mamba", "mamba2", "falcon_mamba"):
    assert found[name] == [*(f"output of block {block}" for block in range(4)), "last_hidden_state"], name
assert len(found["hrm_text"]) != 5 and len(found["canine"]) != 5
print("unchanged: one index of hidden_states is not one layer")
PYTHON
