#!/usr/bin/env bash
# transformers 5.23.0 with torch 2.13.0: models that are cut to their first layers, or saved after they have run.
#
# Expected: `from_pretrained(place, num_hidden_layers=2)` gives the first two layers of a model, whose hidden states are
# those of the whole model, or an error; and `save_pretrained` after an evaluation pass saves the model that was loaded.
# Seen: MiniCPM3 scales each residual branch by 1 / sqrt(num_hidden_layers), and ESM C divides it by
# sqrt(num_hidden_layers / 36), so that the states behind the first block differ by 34% and 42% of their norm, without a
# word. Nemotron-H has as many layers as its list of block types and takes no notice of the number.
# RWKV divides weights of every block behind the first `rescale_every` in place when it evaluates, and again when what
# was saved then is loaded and evaluated: the logits are another model's. Back in training mode they are multiplied.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/python" -m pip install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6 \
  transformers==5.23.0
"$place/venv/bin/python" - <<'PYTHON' 2>"$place/progress" || { cat "$place/progress"; exit 1; }
import tempfile

import torch
import transformers as hf

IDS = torch.arange(5, 17)[None]
SIZES = dict(vocab_size=40, hidden_size=32, num_hidden_layers=4, num_attention_heads=4, intermediate_size=64)
LATENT = dict(q_lora_rank=16, kv_lora_rank=16, qk_nope_head_dim=8, qk_rope_head_dim=4, v_head_dim=8)
KINDS = ["linear_attention", "mlp", "full_attention", "mlp"]
NEMOTRON = dict(vocab_size=40, hidden_size=32, num_attention_heads=4, num_key_value_heads=4, intermediate_size=64)
NEMOTRON |= dict(layers_block_type=KINDS, mamba_num_heads=4, mamba_head_dim=8, n_groups=1, ssm_state_size=8, chunk_size=8)


def model_of(config):
    torch.manual_seed(0)
    model = hf.AutoModel.from_config(config).eval()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.normal_(std=0.3)
    return model


def states(model):
    with torch.no_grad():
        return model(input_ids=IDS, output_hidden_states=True).hidden_states


def first_states_differ_by(config):
    with tempfile.TemporaryDirectory() as directory:
        whole = model_of(config)
        whole.save_pretrained(directory)
        expected, again = states(whole), states(type(whole).from_pretrained(directory).eval())
        assert torch.allclose(expected[1], again[1], atol=1e-5), "the whole model comes back"
        cut = states(type(whole).from_pretrained(directory, num_hidden_layers=2).eval())
    return float((cut[1] - expected[1]).norm() / expected[1].norm()), len(cut)


for name, config, differs, entries in (
    ("BERT", hf.BertConfig(**SIZES), False, 3),
    ("Llama", hf.LlamaConfig(**SIZES), False, 3),
    ("MiniCPM3", hf.MiniCPM3Config(**SIZES, **LATENT, num_key_value_heads=4), True, 3),
    ("ESM C", hf.EsmcConfig(**SIZES), True, 3),
    ("Nemotron-H", hf.NemotronHConfig(**NEMOTRON), False, 5),
):
    found, number = first_states_differ_by(config)
    print(f"{name}, 2 of 4 layers: the state behind the first block differs by {found:.0%}, {number} hidden states")
    assert (found > 0.05) == differs and number == entries

rwkv = hf.RwkvConfig(vocab_size=40, hidden_size=32, num_hidden_layers=4, rescale_every=2)
model = model_of(rwkv)
before = model.blocks[3].feed_forward.value.weight.clone()
first = states(model)[-1]
with tempfile.TemporaryDirectory() as directory:
    model.save_pretrained(directory)
    again = states(type(model).from_pretrained(directory).eval())[-1]
halved = bool(torch.equal(model.blocks[3].feed_forward.value.weight * 2, before))
apart = float((again - first).norm() / first.norm())
print(f"RWKV: one evaluation pass halved weights of block 3: {halved}; saved and read again, states differ by {apart:.0%}")
assert halved and apart > 0.02
model.train()
states(model)
assert torch.equal(model.blocks[3].feed_forward.value.weight, before), "a pass in training mode multiplies them again"
print("unchanged")
PYTHON
