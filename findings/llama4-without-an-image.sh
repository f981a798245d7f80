#!/usr/bin/env bash
# transformers 5.24.0 (5.23.0 beside it), torch 2.13.0: Llama 4 as it is published, a language model with a vision tower.
#
# Expected: it reads text without an image, as with 5.23.0 and as most of its use is.
# Seen: with 5.24.0 every pass without an image, with a loss or not, and `generate` end in an AttributeError behind the last
# block: the output of the language model is asked for `image_outputs`. Its own `language_model` is right, and so is
# `AutoModelForCausalLM` of the text's configuration, which is what anglekit runs.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/python" -m pip install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6 transformers==5.24.0
cat >"$place/run.py" <<'PYTHON'
import torch
import transformers

sizes = {"vocab_size": 99, "hidden_size": 32, "intermediate_size": 64, "intermediate_size_mlp": 64, "num_hidden_layers": 2}
heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8}
experts = {"num_local_experts": 2, "num_experts_per_tok": 1}
tokens = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}
tower = {"hidden_size": 32, "intermediate_size": 128, "num_hidden_layers": 1, "num_attention_heads": 4, "image_size": 16}
ends = {"patch_size": 8, "vision_output_dim": 32, "projector_input_dim": 32, "projector_output_dim": 32}
config = transformers.Llama4Config(text_config=sizes | heads | experts | tokens, vision_config=tower | ends)
torch.manual_seed(0)
model = transformers.Llama4ForConditionalGeneration(config).eval()
ids = torch.randint(4, 80, (2, 7))
passes = {
    "a pass": lambda: model(ids),
    "a loss": lambda: model(ids, labels=ids),
    "generate": lambda: model.generate(ids, max_new_tokens=2, do_sample=False),
    "language_model": lambda: model.language_model(ids),
}
failed = []
for name, run in passes.items():
    try:
        with torch.no_grad():
            run()
    except AttributeError as error:
        failed.append(name)
        print(f"{transformers.__version__}, {name}: {error}")
assert failed == ([] if transformers.__version__ == "5.23.0" else ["a pass", "a loss", "generate"]), failed
PYTHON
cd "$place"
export HF_HUB_OFFLINE=1
venv/bin/python run.py 2>progress || { cat progress; exit 1; }
venv/bin/python -m pip install --quiet --disable-pip-version-check transformers==5.23.0
venv/bin/python run.py 2>progress || { cat progress; exit 1; }
echo "unchanged: with 5.24.0 Llama 4 reads no text without an image, with 5.23.0 it does"
