#!/usr/bin/env bash
# repsim 0.1.5: CKA with the unbiased HSIC estimator (estimator="song").
#
# Expected: HSIC(X, Y) / sqrt(HSIC(X, X) HSIC(Y, Y)) with that estimator throughout, the debiased CKA: 1 for a layer and
# its double, whatever the number of examples.
# Seen: repsim.hsic gives the unbiased estimates, but repsim.cka divides by the biased ones of X with X and Y with Y: a
# layer and its double give 0.93 with 256 examples of 64 numbers and 0.79 with 64, while the diagonal is set to 1. So the
# number falls with fewer examples and more dimensions, and cannot be set beside a debiased CKA of another library.
# estimator="lange" does the same. estimator="gretton", the default, is the CKA of Kornblith et al. 2019 (kernel "linear").
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/python" -m pip install --quiet --disable-pip-version-check repsim==0.1.5 numpy==2.4.6
"$place/venv/bin/python" - <<'PYTHON'
import numpy as np
import repsim

rng = np.random.default_rng(0)


def song(x, y):
    """Song et al. 2012, eq. 5."""
    n = len(x)
    k, m = (each @ each.T for each in (x - x.mean(0), y - y.mean(0)))
    np.fill_diagonal(k, 0)
    np.fill_diagonal(m, 0)
    product = (k * m).sum() + k.sum() * m.sum() / ((n - 1) * (n - 2)) - 2 * (k.sum(0) @ m.sum(0)) / (n - 2)
    return product / (n * (n - 3))


def gretton(x, y):
    return np.linalg.norm((x - x.mean(0)).T @ (y - y.mean(0))) ** 2 / (len(x) - 1) ** 2


for n, low, high in ((256, 0.90, 0.95), (64, 0.72, 0.85)):
    shared = rng.standard_normal((n, 16))
    x, y = (shared @ rng.standard_normal((16, 64)) + 2 * rng.standard_normal((n, 64)) for _ in range(2))
    found = repsim.cka([x, y], "linear", "song")[0, 1]
    debiased = song(x, y) / np.sqrt(song(x, x) * song(y, y))
    mixed = song(x, y) / np.sqrt(gretton(x, x) * gretton(y, y))
    double = repsim.cka([x, 2 * x], "linear", "song")
    print(f"{n} examples of 64: repsim {found:.4f}, debiased CKA {debiased:.4f}, unbiased over biased {mixed:.4f}; "
          f"a layer and its double {double[0, 1]:.4f}, on the diagonal {double[0, 0]:.4f}")
    assert np.allclose(repsim.hsic([x, y], "linear", "song"), [[song(a, b) for b in (x, y)] for a in (x, y)])
    assert abs(found - mixed) < 1e-9 and abs(found - debiased) > 0.02
    assert low < double[0, 1] < high and double[0, 0] == 1.0
    assert abs(repsim.cka([x, 2 * x], "linear", "gretton")[0, 1] - 1) < 1e-9
print("unchanged: with estimator='song' the numerator is unbiased and the denominator is not")
PYTHON
