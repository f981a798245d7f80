#!/usr/bin/env bash
# peft 0.21.2, transformers 5.23.0: an adapter trained on a classifier, read beside the base model without its head.
#
# Expected: `PeftModel.from_pretrained(AutoModel.from_pretrained(base), adapter)` is the encoder with its corrections, as
# `AutoModel.from_pretrained(adapter)` is, or it fails.
# Seen: it is the plain base model, to the last bit. The adapter's weights are named after the classifier ("bert.encoder"),
# those of the encoder are "encoder"; none fits, LoRA's second factors stay 0, and only a UserWarning lists the names.
# States that are compared with the base's show no effect of the training at all. transformers' own way is right.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/python" -m pip install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6 \
  transformers==5.23.0 peft==0.21.2
cd "$place"
HF_HUB_OFFLINE=1 "$place/venv/bin/python" - <<'PYTHON'
import warnings

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModel, BertConfig, BertForSequenceClassification

torch.manual_seed(0)
sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
BertForSequenceClassification(BertConfig(vocab_size=30, **sizes)).save_pretrained("base")
classifier = BertForSequenceClassification.from_pretrained("base")
trained = get_peft_model(classifier, LoraConfig(task_type="SEQ_CLS", target_modules=["query", "value"], r=2)).eval()
with torch.no_grad():
    for weight in trained.parameters():
        if weight.requires_grad:
            weight.add_(0.3 * torch.randn_like(weight))
trained.save_pretrained("adapter")
ids = torch.tensor([[2, 5, 6, 7, 3]])
with torch.no_grad():
    meant = trained(input_ids=ids, output_hidden_states=True).hidden_states[-1]
    base = AutoModel.from_pretrained("base").eval()(ids)[0]
    by_transformers = AutoModel.from_pretrained("adapter").eval()(ids)[0]
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        by_peft = PeftModel.from_pretrained(AutoModel.from_pretrained("base"), "adapter").eval()(input_ids=ids)[0]
print("corrections move the last states by", float((meant - base).abs().max()))
print("AutoModel.from_pretrained(adapter) is off by", float((by_transformers - meant).abs().max()))
print("PeftModel on the headless base is off by", float((by_peft - meant).abs().max()))
print("and from the plain base by", float((by_peft - base).abs().max()))
print("told:", sorted({(one.category.__name__, str(one.message)[:60]) for one in told if "missing" in str(one.message)}))
assert torch.equal(by_transformers, meant) and torch.equal(by_peft, base) and not torch.allclose(meant, base, atol=0.1)
PYTHON
