#!/usr/bin/env bash
# transformers 5.23.0: RwkvModel, in evaluation mode, with `rescale_every` (6 in the published models).
#
# Expected: a forward pass leaves the weights as they are; a model that has run and is saved is the model that was loaded.
# Seen: the first pass in evaluation mode divides the output matrices of the later blocks in place, by 2 for every
# `rescale_every` blocks. `save_pretrained` then writes the divided weights, the flag that says so is not saved, and the
# model that is loaded again divides them once more: other logits, without a word. Back in training mode the first pass
# multiplies again, so that saving from there is right.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/python" -m pip install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6 transformers==5.23.0
HF_HUB_OFFLINE=1 "$place/venv/bin/python" - "$place/saved" <<'PYTHON'
import sys
import torch
import transformers as hf

hf.logging.set_verbosity_error()
torch.manual_seed(0)
config = hf.RwkvConfig(vocab_size=99, hidden_size=32, attention_hidden_size=32, num_hidden_layers=4, rescale_every=2)
model = hf.RwkvForCausalLM(config).eval()
with torch.no_grad():
    for weight in model.parameters():
        if weight.ndim == 2:
            weight.normal_(std=0.3)
ids = torch.arange(5, 15)[None]
before = {name: weight.clone() for name, weight in model.state_dict().items()}
with torch.no_grad():
    logits = model(ids, use_cache=False).logits
    again = model(ids, use_cache=False).logits
changed = [name for name, weight in model.state_dict().items() if not torch.equal(weight, before[name])]
print(f"weights that one pass has changed: {', '.join(changed)}")
model.save_pretrained(sys.argv[1])
loaded = hf.RwkvForCausalLM.from_pretrained(sys.argv[1]).eval()
with torch.no_grad():
    read = loaded(ids, use_cache=False).logits
apart, drift = float((read - logits).abs().max()), float((again - logits).abs().max())
print(f"logits of size {float(logits.abs().max()):.2f}; the same model again: {drift:.1e} apart; saved and loaded: {apart:.2f} apart")
assert changed and all(name.endswith((".attention.output.weight", ".feed_forward.value.weight")) for name in changed)
assert drift < 1e-4 and apart > 0.01
print("unchanged: a pass in evaluation mode changes the weights that are saved")
PYTHON
