#!/usr/bin/env bash
# torchmetrics 1.9.0 with torch 2.13.0: Matthews correlation of a student that always answers one class.
#
# Expected: 0, as in scikit-learn 1.9.1 and as the coefficient of a constant is taken to be (the score of CoLA).
# Seen: a small number stands in for the zero in the denominator and in the numerator, and what is left is not small:
# +0.15 for the commonest class and -0.15 for the other of 100 examples at 80%, +0.08 of 1,000 at 90%, +0.025 of 1,043
# at 69%. It shrinks with the size of the table, so it is no property of the student.
# A collapsed student seems to be above chance, by more on a smaller validation table.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/python" -m pip install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6 scipy==1.17.1 \
  torchmetrics==1.9.0 scikit-learn==1.9.1
"$place/venv/bin/python" - <<'PYTHON'
import torch
from sklearn.metrics import matthews_corrcoef
from torchmetrics.functional.classification import binary_matthews_corrcoef, multiclass_matthews_corrcoef

for examples, share, expected in ((100, 0.80, 0.150), (1_000, 0.90, 0.084), (1_043, 0.69, 0.025)):
    labels = (torch.arange(examples) < int(examples * share)).long()
    for answer, sign in ((1, 1), (0, -1)):
        student = torch.full_like(labels, answer)
        binary = float(binary_matthews_corrcoef(student, labels))
        multiclass = float(multiclass_matthews_corrcoef(student, labels, num_classes=2))
        other = matthews_corrcoef(labels.numpy(), student.numpy())
        print(f"{examples} examples, {share:.0%} of class 1, always {answer}: {binary:+.3f}, scikit-learn {other}")
        assert abs(binary - sign * expected) < 1e-3 and binary == multiclass
        assert other == 0.0

draws = torch.Generator().manual_seed(0)
labels = torch.randint(2, (100,), generator=draws)
student = torch.where(torch.rand(100, generator=draws) < 0.8, labels, 1 - labels)
found, other = float(binary_matthews_corrcoef(student, labels)), matthews_corrcoef(labels.numpy(), student.numpy())
print(f"a student of both classes: {found:.4f}, scikit-learn {other:.4f}")
assert abs(found - other) < 1e-5
print("unchanged: a constant student is not at 0")
PYTHON
