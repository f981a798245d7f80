#!/usr/bin/env bash
# keras 3.15.1: keras.distillation.LogitsDistillation with its default loss, "kl_divergence".
#
# Expected: the name and an instance of KLDivergence are the same loss, T^2 times the divergence of the softmaxed logits,
# as the documentation says of "Temperature for softmax scaling".
# Seen: only the instance is softmaxed. The name, which is the default, becomes a plain function, so that the divergence
# is taken of logits / T cut off at 1e-7 and 1 and is not scaled: where every logit of both is above T, the loss is 0 and
# so is its gradient, whatever the two predict, and a student whose logits are all high has a lower loss than the
# teacher itself. "categorical_crossentropy", an example in the documentation, is not softmaxed either: 10 added to all
# of the teacher's logits, which changes no probability, more than doubles it.
# Who distils with the default of Keras does not bring the student's probabilities nearer to the teacher's.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/python" -m pip install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6 keras==3.15.1
KERAS_HOME="$place" KERAS_BACKEND=torch CUDA_VISIBLE_DEVICES="" "$place/venv/bin/python" - <<'PYTHON'
import keras
import torch
from keras.distillation import LogitsDistillation

T = 2.0
teacher = torch.tensor([[9.0, 5.0, 4.0], [4.0, 8.0, 3.0]])
student = torch.tensor([[3.0, 4.0, 7.0], [9.0, 3.0, 5.0]], requires_grad=True)
assert not (teacher.argmax(-1) == student.argmax(-1)).any()


def distilled(loss, teacher_logits, student_logits):
    chosen = {} if loss is None else {"loss": loss}
    found = LogitsDistillation(temperature=T, **chosen).compute_loss(teacher_logits, student_logits)
    (gradient,) = torch.autograd.grad(found, student_logits)
    return found.item(), float(gradient.abs().max())


log_teacher, log_student = ((logits.detach() / T).log_softmax(-1) for logits in (teacher, student))
divergence = float((log_teacher.exp() * (log_teacher - log_student)).sum(-1).mean())
print(f"T^2 KL by hand: {T * T * divergence:.4f}")
for name, loss in (("default", None), ("by name", "kl_divergence"), ("instance", keras.losses.KLDivergence())):
    value, gradient = distilled(loss, teacher, student)
    print(f"{name:8} loss {value:.4f}, largest gradient {gradient:.4f}")
    if name == "instance":
        assert abs(value - T * T * divergence) < 1e-4 and gradient > 0.1
    else:
        assert value == 0.0 and gradient == 0.0

centred = [logits - logits.mean(-1, keepdim=True) for logits in (teacher, student)]
value, _ = distilled(None, *centred)
print(f"default, both centred (the same probabilities): loss {value:.4f}")
assert value > 1.0

small = torch.tensor([[1.8, 1.0, 0.4]])
itself, high = (distilled(None, small, logits.requires_grad_())[0] for logits in (small.clone(), torch.full_like(small, 9.0)))
print(f"default, teacher of small logits: the teacher itself {itself:.4f}, a student of equal high logits {high:.4f}")
assert high < itself - 0.1

from_logits = keras.losses.CategoricalCrossentropy(from_logits=True)
for name, loss in (("by name", "categorical_crossentropy"), ("from logits", from_logits)):
    before, after = (distilled(loss, logits, student)[0] for logits in (teacher, teacher + 10))
    print(f"cross-entropy {name}: {before:.3f}, and {after:.3f} with 10 added to the teacher's logits")
    assert after > 2 * before
print("unchanged: the default loss sees no softmax")
PYTHON
