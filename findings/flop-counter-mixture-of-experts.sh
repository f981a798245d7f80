#!/usr/bin/env bash
# transformers 5.23.0 with torch 2.13.0: FLOPs of a mixture of experts (Qwen3-MoE, Mixtral).
#
# Expected: FlopCounterMode counts the experts' products whichever way they are computed.
# Seen: the default experts_implementation is "grouped_mm", whose kernel is in no formula: on the CPU all experts count
# 0, about two thirds of the pass here. On the meta device that kernel refuses float32 ("Expected inputs of BF16
# type"), and "eager" fails on nonzero(), which has no meta form. Only "batched_mm" runs on the meta device; it counts
# what "eager" counts on the CPU (both with eager attention, see flop-counter-attention-on-cpu.sh).
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/python" -m pip install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6 transformers==5.23.0
HF_HUB_OFFLINE=1 "$place/venv/bin/python" - <<'PYTHON'
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, AutoModelForCausalLM

SHAPE = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
FAMILIES = {
    "qwen3_moe": {"moe_intermediate_size": 48, "num_experts": 4, "num_experts_per_tok": 2, "head_dim": 16},
    "mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2},
}


def flops(family, device, **options):
    config = AutoConfig.for_model(family, num_key_value_heads=2, **SHAPE, **FAMILIES[family])
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(config, attn_implementation="eager", **options).eval()
    ids = torch.zeros(2, 8, dtype=torch.long, device=device)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(input_ids=ids)
    return model.config._experts_implementation, counter.get_total_flops()


def failure(family, **options):
    try:
        flops(family, "meta", **options)
    except (RuntimeError, NotImplementedError) as error:
        return f"{type(error).__name__}: {str(error)[:60]}"
    return None


for family in FAMILIES:
    chosen, by_default = flops(family, "cpu")
    _, eager = flops(family, "cpu", experts_implementation="eager")
    _, batched = flops(family, "meta", experts_implementation="batched_mm")
    print(f"{family}: default {chosen}, {by_default} FLOPs on the CPU; eager {eager}; batched_mm on meta {batched}")
    assert chosen == "grouped_mm"
    assert by_default < eager / 2
    assert batched == eager
    refused, unknown = failure(family), failure(family, experts_implementation="eager")
    print(f"{family} on meta: default -> {refused}; eager -> {unknown}")
    assert refused is not None and "BF16" in refused
    assert unknown is not None and "nonzero" in unknown
print("unchanged: the default experts count nothing on the CPU and do not run on meta in float32")
PYTHON
