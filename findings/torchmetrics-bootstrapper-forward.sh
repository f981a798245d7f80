#!/usr/bin/env bash
# torchmetrics 1.9.0 with torch 2.13.0: BootStrapper, the wrapper that gives a metric its bootstrap mean and deviation.
#
# Expected: metric(preds, target) for each batch and compute() at the end give what update() and compute() give, as for
# every metric of the library (forward "accumulates", and Lightning's loops call it).
# Seen: forward resets the bootstrap copies, which are not states of the wrapper and are not put back. compute() then
# knows the last batch alone: with four batches of 50 of which the last is all wrong, accuracy is 0.00 +- 0.00 in place
# of 0.75 +- 0.03. Nothing warns. The metric without the wrapper is right either way.
# An error bar of a student's score that was gathered in an evaluation loop is that of its last batch.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/python" -m pip install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6 torchmetrics==1.9.0
"$place/venv/bin/python" - <<'PYTHON'
import warnings

import torch
from torchmetrics.classification import BinaryAccuracy
from torchmetrics.wrappers import BootStrapper

warnings.simplefilter("error")
torch.manual_seed(0)
labels = torch.ones(50, dtype=torch.long)
found = {}
for how in ("update", "forward"):
    plain, bootstrapped = BinaryAccuracy(), BootStrapper(BinaryAccuracy(), num_bootstraps=200)
    for right in (1, 1, 1, 0):
        for metric in (plain, bootstrapped):
            (metric.update if how == "update" else metric)(labels * right, labels)
    accuracy, result = float(plain.compute()), bootstrapped.compute()
    found[how] = float(result["mean"]), float(result["std"])
    print(f"{how}: accuracy {accuracy:.2f}, bootstrapped {found[how][0]:.3f} +- {found[how][1]:.3f}")
    assert accuracy == 0.75
assert abs(found["update"][0] - 0.75) < 0.02 and abs(found["update"][1] - (0.75 * 0.25 / 200) ** 0.5) < 0.01
assert found["forward"] == (0.0, 0.0)
print("unchanged: after forward, compute() knows only the last batch")
PYTHON
