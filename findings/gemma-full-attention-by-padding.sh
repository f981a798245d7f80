#!/usr/bin/env bash
# transformers 5.23.0: GemmaModel with use_bidirectional_attention=True (PaliGemma sets it in its text model).
#
# Expected: every token sees every token of its text, with and without padding, whatever computes the attention.
# Seen: only with scaled dot-product attention, and only in a batch without padding. One padded text beside it makes the
# attention of all texts of the batch causal, and eager attention is causal always: the setting turns off the causal
# flag of the fused kernel, but where a mask is built it is the causal one. Nothing is said.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/python" -m pip install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6 transformers==5.23.0
HF_HUB_OFFLINE=1 "$place/venv/bin/python" - <<'PYTHON'
import torch
import transformers as hf

hf.logging.set_verbosity_error()
config = hf.GemmaConfig(
    vocab_size=99, hidden_size=32, intermediate_size=64, num_hidden_layers=4, num_attention_heads=4,
    num_key_value_heads=4, head_dim=8, pad_token_id=0, use_bidirectional_attention=True,
)
model = hf.GemmaModel(config).eval()
torch.manual_seed(0)
for weight in model.parameters():
    if weight.ndim == 2:
        torch.nn.init.normal_(weight, std=0.2)
ids = torch.arange(5, 21).reshape(2, 8)
changed = ids.clone()
changed[0, -1] += 30
full = torch.ones_like(ids)
padded = full.clone()
padded[1, 5:] = 0
moved = {}
for attention in ("sdpa", "eager"):
    model.set_attn_implementation(attention)
    for name, mask in (("no padding", full), ("the other text padded", padded)):
        with torch.no_grad():
            one, other = (model(input_ids=each, attention_mask=mask).last_hidden_state[0, :-1] for each in (ids, changed))
        moved[attention, name] = float((one - other).abs().max())
        print(f"{attention}, {name}: another last token moves the states before it by {moved[attention, name]:.2f}")
assert moved.pop(("sdpa", "no padding")) > 0.1
assert set(moved.values()) == {0.0}
print("unchanged: full attention is causal beside padding, and always with eager attention")
PYTHON
