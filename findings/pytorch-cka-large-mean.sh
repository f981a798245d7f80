#!/usr/bin/env bash
# pytorch-cka 1.1.1 with torch 2.13.0: CKA of float32 features that lie far from 0.
#
# Expected: CKA does not depend on a shift (the estimator centres), so features and features plus a constant give one number,
# and a layer with itself gives 1.
# Seen: cka_from_features takes the products of the features as they are, in float32, and keeps the result within [0, 1].
# Two layers with a CKA of 0.68 give 0.63 where the mean is 10 standard deviations, and exactly 1.0 or 0.0 from 30 on; with
# one dimension far from 0, as transformers have, a layer with itself gave 0.0. No warning, and every value is possible.
# In float64 it is right up to means of some hundred standard deviations. Negative estimates of the unbiased HSIC become 0:
# unrelated layers are 0 in half of the cases and above 0 on average.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/python" -m pip install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6 pytorch-cka==1.1.1
"$place/venv/bin/python" - <<'PYTHON'
import torch
from cka import cka_from_features

torch.set_num_threads(1)
torch.manual_seed(0)
N, WIDTH = 256, 64
shared = torch.randn(N, 16)
x, y = (shared @ torch.randn(16, WIDTH) + 2 * torch.randn(N, WIDTH) for _ in range(2))
spread = x.std()


def cka(a, b):
    return cka_from_features(a, b).item()


right = cka(x.double(), y.double())
assert 0.6 < right < 0.75 and abs(cka(x, y) - right) < 1e-4
wrong = []
for mean in (10, 30, 100, 300, 1000):
    a, b = x + mean * spread, y + mean * spread
    found, double = cka(a, b), cka(a.double(), b.double())
    wrong.append(abs(found - right))
    print(f"mean of {mean:4} standard deviations: {found:.4f} in float32, {double:.4f} in float64; without it {right:.4f}")
    if mean <= 100:
        assert abs(double - right) < 1e-4
# Which wrong number it is depends on the processor.
assert max(wrong) > 0.25 and sum(error > 0.05 for error in wrong) >= 3
own = []
for far in (10, 30, 100, 300):
    a = x.clone()
    a[:, 3] += far * spread
    own.append(cka(a, a))
    print(f"one dimension {far:4} standard deviations from 0: the layer with itself {own[-1]:.4f}")
assert max(abs(each - 1) for each in own) > 0.002
unrelated = torch.tensor([cka(torch.randn(32, 64), torch.randn(32, 64)) for _ in range(400)])
print(f"unrelated layers: mean {unrelated.mean():.4f}, exactly 0 in {(unrelated == 0).float().mean():.0%}")
assert 0.4 < (unrelated == 0).float().mean() < 0.6 and unrelated.mean() > 0.01
print("unchanged: float32 products of features that are not centred, cut to [0, 1]")
PYTHON
