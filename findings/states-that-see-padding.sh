#!/usr/bin/env bash
# transformers 5.23.0: one text alone and the same text in a padded batch, with its attention mask.
#
# Expected: an encoder that takes an attention mask gives the same states at the text's own tokens either way.
# Seen: FNet mixes over all positions and ignores the mask; YOSO, Nyströmformer and ConvBERT take it, but hashing,
# landmarks and the convolution reach into the padding. Their states are far off, so that results depend on which texts
# share a batch. BERT, beside them, differs by nothing.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/python" -m pip install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6 transformers==5.23.0
HF_HUB_OFFLINE=1 "$place/venv/bin/python" - <<'PYTHON'
import torch
import transformers as hf

hf.logging.set_verbosity_error()
SIZES = {
    "vocab_size": 99, "hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 64,
    "max_position_embeddings": 64, "pad_token_id": 0,
}
MORE = {
    "bert": {}, "fnet": {}, "yoso": {}, "convbert": {"embedding_size": 32, "conv_kernel_size": 3, "head_ratio": 2},
    "nystromformer": {"num_landmarks": 8, "segment_means_seq_len": 8, "conv_kernel_size": 5},
}
far = {}
for name, more in MORE.items():
    torch.manual_seed(0)
    model = hf.AutoModel.from_config(hf.AutoConfig.for_model(name, **SIZES, **more)).eval()
    for weight in model.parameters():
        if weight.ndim == 2:
            torch.nn.init.normal_(weight, std=0.2)
    text, longer = torch.arange(5, 11), torch.arange(20, 30)
    ids = torch.stack([torch.cat([text, torch.zeros(4, dtype=torch.long)]), longer])
    mask = (ids != 0).long()
    with torch.no_grad():
        torch.manual_seed(0)
        together = model(input_ids=ids, attention_mask=mask).last_hidden_state[0, :6]
        torch.manual_seed(0)
        alone = model(input_ids=text[None], attention_mask=torch.ones(1, 6, dtype=torch.long)).last_hidden_state[0]
    far[name] = float((together - alone).abs().max() / alone.square().mean().sqrt())
    print(f"{name}: states of one text differ by {far[name]:.1e} of their size between alone and in a padded batch")
assert far.pop("bert") < 1e-4
assert min(far.values()) > 0.1
print("unchanged: four encoders' states depend on the padding, mask or no mask")
PYTHON
