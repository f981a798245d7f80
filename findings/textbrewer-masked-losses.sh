#!/usr/bin/env bash
# textbrewer 0.2.1.post1 with torch 2.13.0: losses between hidden layers, with and without a mask.
#
# Expected: a mask of ones changes nothing, and a difference between two attention scores counts whatever its sign.
# Seen: without a mask, att_mse_loss and att_mse_sum_loss replace every score below -0.001 by 0, so that student and
# teacher scores of -1 and -5 differ by nothing; with a mask of ones the same tensors differ by 16. With a mask of ones,
# mmd_loss divides the Gram matrices by the length and not by the width: it is (width / length)^2 times the loss without
# a mask, 576 times for 768 numbers and 32 tokens. hid_mse_loss, cos_loss and fsp_loss do not change.
# Whoever sets a loss of this library beside another one must state which way it was called.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/python" -m pip install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6
"$place/venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps textbrewer==0.2.1.post1
"$place/venv/bin/python" - <<'PYTHON'
import importlib
import importlib.util
import sys
import types
from pathlib import Path

import torch

# The losses are plain functions of tensors: they are loaded without the trainers beside them, which want transformers.
folder = Path(next(iter(importlib.util.find_spec("textbrewer").submodule_search_locations)))
package = types.ModuleType("textbrewer")
package.__path__ = [str(folder)]
sys.modules["textbrewer"] = package
losses = importlib.import_module("textbrewer.losses")

torch.manual_seed(0)
BATCH, HEADS, LENGTH, WIDTH = 2, 3, 32, 768
ones = torch.ones(BATCH, LENGTH)


def both_ways(name, student, teacher):
    loss = getattr(losses, name)
    found = [float(loss(student, teacher, mask=mask)) for mask in (None, ones)]
    print(f"{name:17} without a mask {found[0]:.6g}, with a mask of ones {found[1]:.6g}")
    return found


scores = [torch.full((BATCH, HEADS, LENGTH, LENGTH), value) for value in (-1.0, -5.0)]
plain, masked = both_ways("att_mse_loss", *scores)
assert plain == 0.0 and abs(masked - 16.0) < 1e-5
plain, masked = both_ways("att_mse_sum_loss", *scores)
assert plain == 0.0 and abs(masked - (4.0 * HEADS) ** 2) < 1e-3

states = [torch.randn(BATCH, LENGTH, WIDTH) for _ in range(4)]
plain, masked = both_ways("mmd_loss", states[:2], states[2:])
print(f"mmd_loss: {masked / plain:.1f} times, (width / length)^2 is {(WIDTH / LENGTH) ** 2:.1f}")
assert abs(masked / plain / (WIDTH / LENGTH) ** 2 - 1) < 1e-3
for name in ("hid_mse_loss", "cos_loss"):
    plain, masked = both_ways(name, *states[:2])
    assert abs(masked / plain - 1) < 1e-5
plain, masked = both_ways("fsp_loss", states[:2], states[2:])
assert abs(masked / plain - 1) < 1e-4
print("unchanged: a mask of ones changes mmd_loss, and negative scores count only under a mask")
PYTHON
