#!/usr/bin/env bash
# torch 2.13.0: torch.utils.flop_counter.FlopCounterMode and the CPU.
#
# Expected: the count depends on the shapes alone.
# Seen: on the CPU, scaled_dot_product_attention counts 0 with and without a mask or gradients, because its fused kernel
# is in no formula; so do an LSTM and TransformerEncoderLayer's fast path (eval mode without gradients). On the meta
# device, the same calls are taken apart into matrix products and counted in full. A causal mask halves nothing.
# A forecast of FLOPs that runs on the CPU therefore misses all attention, by a share that grows with the length.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/python" -m pip install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6
"$place/venv/bin/python" - <<'PYTHON'
import torch
from torch.nn.functional import scaled_dot_product_attention
from torch.utils.flop_counter import FlopCounterMode


def flops(function):
    with FlopCounterMode(display=False) as counter:
        function()
    return counter.get_total_flops()


BATCH, HEADS, LENGTH, WIDTH = 2, 4, 32, 16
full = 2 * (2 * BATCH * HEADS * LENGTH * LENGTH * WIDTH)
for device, attention in (("cpu", 0), ("meta", full)):
    for gradients in (False, True):
        shape = (BATCH, HEADS, LENGTH, WIDTH)
        q, k, v = (torch.randn(shape, device=device, requires_grad=gradients) for _ in range(3))
        mask = torch.ones(BATCH, 1, LENGTH, LENGTH, dtype=torch.bool, device=device)
        for name, options in (("plain", {}), ("mask", {"attn_mask": mask}), ("causal", {"is_causal": True})):
            found = flops(lambda: scaled_dot_product_attention(q, k, v, **options))
            print(f"{device:4} gradients={gradients} {name:6} attention: {found} FLOPs, by shape {full}")
            assert found == attention, found

    lstm, steps = torch.nn.LSTM(8, 8, device=device), torch.randn(5, 3, 8, device=device)
    found, by_shape = flops(lambda: lstm(steps)), 2 * 5 * 3 * (8 * 32 + 8 * 32)
    print(f"{device:4} LSTM: {found} FLOPs, by shape {by_shape}")
    assert found == (0 if device == "cpu" else by_shape), found

    layer = torch.nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, device=device).eval()
    texts = torch.randn(4, 10, 16, device=device)
    with torch.no_grad():
        found = flops(lambda: layer(texts))
    print(f"{device:4} TransformerEncoderLayer, eval mode, no gradients: {found} FLOPs")
    assert (found == 0) == (device == "cpu"), found
    print(f"{device:4} Linear: {flops(lambda: torch.nn.Linear(16, 4, device=device)(texts))} FLOPs, by shape {2 * 40 * 16 * 4}")
print("unchanged: attention counts nothing on the CPU")
PYTHON
