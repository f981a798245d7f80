#!/usr/bin/env bash
# transformers 5.24.0, torch 2.13.0: the layout of Gemma 4 E2B and E4B, whose last blocks read the keys and values of others.
#
# Expected: `logits_to_keep` saves work in the head alone, and hooks on the blocks see every token, while generating too.
# Seen: the last blocks compute the kept tokens only. Hooks there see one token of the prompt in `generate` and in a pass
# with `logits_to_keep=1`, those of earlier blocks all of them. Asking for `output_hidden_states` as well brings all tokens
# back; Gemma 3 always shows all.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/python" -m pip install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6 transformers==5.24.0
cd "$place"
export HF_HUB_OFFLINE=1
venv/bin/python - <<'PYTHON' 2>progress || { cat progress; exit 1; }
import torch
from transformers import Gemma3ForCausalLM, Gemma3TextConfig, Gemma4ForCausalLM, Gemma4TextConfig

sizes = {"vocab_size": 99, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 6, "num_attention_heads": 4}
heads = {"num_key_value_heads": 2, "head_dim": 8, "layer_types": ["sliding_attention", "full_attention"] * 3}
tokens = {"sliding_window": 16, "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}
shared = {"num_kv_shared_layers": 2, "hidden_size_per_layer_input": 8, "vocab_size_per_layer_input": 99}
plain = sizes | heads | tokens
torch.manual_seed(0)
gemma4 = Gemma4ForCausalLM(Gemma4TextConfig(**plain, **shared, global_head_dim=8)).eval()
gemma3 = Gemma3ForCausalLM(Gemma3TextConfig(**plain)).eval()
ids = torch.randint(4, 90, (2, 7))


def tokens_by_block(model, run):
    seen = []

    def note(_block, _given, output):
        seen.append((output[0] if isinstance(output, tuple) else output).shape[1])

    hooks = [block.register_forward_hook(note) for block in model.model.layers]
    with torch.no_grad():
        run(model)
    for hook in hooks:
        hook.remove()
    return seen


runs = {
    "a pass": lambda model: model(ids),
    "logits_to_keep=1": lambda model: model(ids, logits_to_keep=1),
    "generate": lambda model: model.generate(ids, max_new_tokens=1, do_sample=False),
    "logits_to_keep=1, output_hidden_states": lambda model: model(ids, logits_to_keep=1, output_hidden_states=True),
}
for name, run in runs.items():
    found = tokens_by_block(gemma4, run)
    print(f"{name}: tokens seen behind each block of Gemma 4 {found}, of Gemma 3 {tokens_by_block(gemma3, run)}")
    assert found == ([7, 7, 7, 7, 1, 1] if name in ("logits_to_keep=1", "generate") else [7] * 6)
    assert tokens_by_block(gemma3, run) == [7] * 6
PYTHON
echo "unchanged: hooks on the last blocks of Gemma 4 E2B and E4B see one token of the prompt while generating"
