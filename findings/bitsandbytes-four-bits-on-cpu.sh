#!/usr/bin/env bash
# bitsandbytes 0.50.2: dequantize_4bit on the CPU, of weights that quantize_4bit has packed on the same CPU.
#
# Expected: what comes back is off by the rounding to 16 values, for normal weights 9.2% (NF4) of their length in blocks
# of 64, whatever the shape of the weight: blocks run over the flattened values.
# Seen: where the rows are a multiple of 16 values long but not of the block (32, 80, 96, 112, 160, ...), the vectorised
# kernel works row by row and takes other blocks' scales: errors of 15 to 40%, without a word. Rows of 100 or 312 values
# take another way and are right, as is the same packed weight when its shape is given as one row. A model of such a
# width that transformers turns back with `model.dequantize()` is another model. Seen on a core with AVX-512.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/python" -m pip install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6 packaging
"$place/venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps bitsandbytes==0.50.2
"$place/venv/bin/python" - <<'PYTHON'
import copy

import torch
from bitsandbytes.functional import dequantize_4bit, quantize_4bit

BLOCK = 64
wrong, right = [], []
for columns in (32, 64, 80, 96, 100, 128, 160, 312, 320):
    torch.manual_seed(0)
    weight = torch.randn(64, columns)
    packed, state = quantize_4bit(weight, quant_type="nf4", blocksize=BLOCK)
    one_row = copy.copy(state)
    one_row.shape = torch.Size([weight.numel()])
    errors = [
        float((found.reshape(weight.shape) - weight).norm() / weight.norm())
        for found in (dequantize_4bit(packed, state), dequantize_4bit(packed, one_row))
    ]
    print(f"rows of {columns}: error {errors[0]:.1%}; as one row {errors[1]:.1%}")
    (wrong if errors[0] > 0.12 else right).append(columns)
    assert errors[1] < 0.1
assert wrong == [32, 80, 96, 160] and right == [64, 100, 128, 312, 320], (wrong, right)
PYTHON
