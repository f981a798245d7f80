#!/usr/bin/env bash
# torchdistill 1.1.5 with torch 2.13.0: KDLoss, documented as alpha CE + (1 - alpha) tau^2 KL.
#
# Expected: the formula for every alpha from 0 to 1, and a softmax over the vocabulary of (batch, length, vocabulary).
# Seen: with alpha = 0 (the teacher alone) or without targets the loss is KL without tau^2, and beta is ignored: at
# temperature 4 it is 16 times smaller than with alpha = 1e-9. The softmax runs over dimension 1, the classes of a
# classifier but the positions of a language model: a student that prefers other words at every position has loss 0,
# and one with the teacher's very probabilities has a loss above 1.
# A sweep over alpha jumps at 0, and a causal student must hand its logits over as (batch * length, vocabulary).
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/python" -m pip install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6
"$place/venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps torchdistill==1.1.5
"$place/venv/bin/python" - <<'PYTHON'
import torch
from torch.nn.functional import cross_entropy, kl_div
from torchdistill.losses.mid_level import KDLoss

torch.manual_seed(0)
TEMPERATURE = 4.0


def loss(student, teacher, targets, temperature=TEMPERATURE, **options):
    found = KDLoss("", "output", "", "output", temperature=temperature, **options)
    return float(found({"": {"output": student}}, {"": {"output": teacher}}, targets))


student, teacher, targets = torch.randn(8, 5), torch.randn(8, 5), torch.randint(5, (8,))
hard = float(cross_entropy(student, targets))
log_student, teacher_probabilities = (student / TEMPERATURE).log_softmax(-1), (teacher / TEMPERATURE).softmax(-1)
soft = float(kl_div(log_student, teacher_probabilities, reduction="batchmean"))
for alpha in (0.5, 1e-9, 0.0):
    formula = alpha * hard + (1 - alpha) * TEMPERATURE**2 * soft
    found = loss(student, teacher, targets, alpha=alpha)
    print(f"alpha {alpha:g}: {found:.5f}, by the formula {formula:.5f}")
    assert abs(found - (soft if alpha == 0 else formula)) < 1e-5
for options in ({"alpha": 0.5}, {"alpha": 0.0, "beta": 10.0}):
    found = loss(student, teacher, None if options["alpha"] else targets, **options)
    print(f"{options}, {'no targets' if options['alpha'] else 'targets'}: {found:.5f}, KL without tau^2 {soft:.5f}")
    assert abs(found - soft) < 1e-6

teacher = torch.randn(2, 6, 50)
other_words = teacher + 10 * torch.randn(50)
same_words = teacher + 3 * torch.randn(2, 6, 1)
agreement = (other_words.argmax(-1) == teacher.argmax(-1)).float().mean()
assert agreement < 0.1 and torch.allclose(same_words.softmax(-1), teacher.softmax(-1), atol=1e-5)
students = (("other words", other_words, -1e-4, 1e-4), ("the teacher's probabilities", same_words, 1.0, 1e9))
for name, logits, least, most in students:
    found = loss(logits, teacher, None, temperature=1.0, alpha=0.0)
    print(f"(batch, length, vocabulary), student has {name}: loss {found:.5f}")
    assert least < found < most
print("unchanged: no tau^2 at alpha = 0, and the softmax runs over positions")
PYTHON
