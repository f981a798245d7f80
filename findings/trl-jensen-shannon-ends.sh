#!/usr/bin/env bash
# trl 1.16.0: GKDTrainer.generalized_jsd_loss, the divergence that beta leads from KL (0) to reverse KL (1).
#
# Expected: beta near 0 gives nearly what beta = 0 gives, and the temperature is made up for by T^2 as in other trainers.
# Seen: the two ends are special cases. At beta = 0.001 the loss, and its gradient, are a thousandth of those at 0, since
# the generalised Jensen-Shannon divergence vanishes in proportion to beta; the same at 1. And T^2 is nowhere: temperature
# 4 leaves about a sixteenth. A sweep over beta at one learning rate compares learning rates more than divergences.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/python" -m pip install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6 \
  transformers==5.23.0 trl==1.16.0
HF_HUB_OFFLINE=1 TRL_EXPERIMENTAL_SILENCE=1 "$place/venv/bin/python" - <<'PYTHON'
import torch
from trl.experimental.gkd import GKDTrainer

torch.manual_seed(0)
student, teacher = torch.randn(2, 4, 11, requires_grad=True), torch.randn(2, 4, 11)
labels = torch.zeros(2, 4, dtype=torch.long)


def loss(**options):
    found = GKDTrainer.generalized_jsd_loss(student, teacher, labels=labels, **options)
    (gradient,) = torch.autograd.grad(found, student)
    return found.item(), float(gradient.norm())


log_student, log_teacher = student.detach().log_softmax(-1), teacher.log_softmax(-1)
forward = float((log_teacher.exp() * (log_teacher - log_student)).sum(-1).mean())
reverse = float((log_student.exp() * (log_student - log_teacher)).sum(-1).mean())
found = {}
for beta in (0.0, 0.001, 0.01, 0.5, 0.99, 0.999, 1.0):
    found[beta] = loss(beta=beta)
    print(f"beta {beta}: loss {found[beta][0]:.5f}, gradient {found[beta][1]:.5f}")
assert abs(found[0.0][0] - forward) < 1e-5 and abs(found[1.0][0] - reverse) < 1e-5
for near, end in ((0.001, 0.0), (0.999, 1.0)):
    for index, name in enumerate(("loss", "gradient")):
        times = found[end][index] / found[near][index]
        print(f"from beta {near} to {end} the {name} grows {times:.0f} times")
        assert 900 < times < 1100
at_one, at_four = (loss(beta=0.0, temperature=temperature)[0] for temperature in (1.0, 4.0))
print(f"temperature 1: {at_one:.4f}, temperature 4: {at_four:.4f}, {at_one / at_four:.1f} times smaller")
assert 12 < at_one / at_four < 20
print("unchanged: the loss jumps a thousandfold at both ends of beta, and is not scaled by T^2")
PYTHON
