#!/usr/bin/env bash
# mlxtend 0.25.0: mcnemar, with its defaults (chi-squared, continuity correction), of two models that answer alike.
#
# Expected: no evidence of a difference gives p = 1, or "not defined".
# Seen: where no example is right in one model and wrong in the other, chi-squared is infinite and p is 0.0, the strongest
# evidence there can be; exact=True gives 1. With one such example on either side the correction overshoots: chi-squared
# 0.5 and p = 0.48 for a table that is perfectly symmetric, where both the exact test and the uncorrected one give 1.
# Two students with the same answers (two seeds at chance that predict one class) are called different.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/python" -m pip install --quiet --disable-pip-version-check mlxtend==0.25.0 numpy==2.4.6 scipy==1.17.1
"$place/venv/bin/python" - <<'PYTHON'
import warnings

import numpy as np
from mlxtend.evaluate import mcnemar, mcnemar_table

warnings.simplefilter("ignore", RuntimeWarning)
labels = np.arange(100) % 2
one_class = np.zeros(100, dtype=int)
for name, other, expected in (
    ("the same answers", one_class, (np.inf, 0.0)),
    ("one example each way", np.where(np.arange(100) < 2, 1, 0), (0.5, 0.4795)),
):
    table = mcnemar_table(y_target=labels, y_model1=one_class, y_model2=other)
    chi2, p = mcnemar(table)
    _, exact = mcnemar(table, exact=True)
    print(f"{name}, table {table.tolist()}: chi-squared {chi2}, p = {p:.4f}; exact p = {exact}")
    assert chi2 == expected[0] and abs(p - expected[1]) < 1e-4
    assert exact == 1.0
_, uncorrected = mcnemar(table, corrected=False)
print(f"without the correction p = {uncorrected}")
assert uncorrected == 1.0
print("unchanged: two models with the same answers have p = 0")
PYTHON
