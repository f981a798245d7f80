"""The distillation trainer on tiny BERTs: what the loss is, what it does not depend on, what reaches a checkpoint."""

from __future__ import annotations

import json
import math
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, TrainerCallback

from anglekit.distillation.losses.objective import DistillationObjective, TeacherOutputs
from anglekit.distillation.losses.weights import LossWeights
from anglekit.distillation.matching.strategies import layer_matching
from anglekit.distillation.students.adapters import create_adapters
from anglekit.distillation.training.teacher import TeacherForward
from anglekit.distillation.training.trainer import DistillationTrainer
from anglekit.errors import InputError, ReaderWarning, RunError
from anglekit.models.check import facts_of
from anglekit.models.projections import ADAPTER_FILE, load_adapters, stored_adapters
from tests.distillation.tiny_trainers import (
    arguments,
    examples,
    make_student,
    make_teacher,
    make_trainer,
    objective_for,
)


def gradients(trainer, batches):
    """Return the student's gradient after one optimiser step's backward passes over these micro-batches."""
    trainer.model.zero_grad()
    counts = trainer._get_num_items_in_batch(batches, trainer.args.device)
    total = 0.0
    trainer.model.train()
    for batch in batches:
        loss = trainer.compute_loss(trainer.model, batch, num_items_in_batch=counts)
        loss.backward()
        total += loss.item()
    flat = [p.grad.flatten() for p in trainer.model.parameters() if p.grad is not None]
    return torch.cat(flat), total


def collated(trainer, rows):
    return trainer.data_collator(rows)


def padded(batch, extra):
    """Return the same batch with more padding."""
    more = dict(batch)
    for key, value in (("input_ids", 0), ("attention_mask", 0)):
        more[key] = torch.nn.functional.pad(batch[key], (0, extra), value=value)
    return more


def test_loss_is_the_weighted_sum_computed_by_hand(tmp_path):
    trainer = make_trainer(tmp_path, dropout=0.0, weights=LossWeights(0.5, 2.0, 3.0))
    batch = collated(trainer, examples(4))
    trainer.model.train()
    loss = trainer.compute_loss(trainer.model, batch)

    student, teacher = trainer.model.eval(), trainer.teacher_forward.teacher
    labels = batch["labels"]
    inputs = {key: value for key, value in batch.items() if key != "labels"}
    s = student(**inputs, output_hidden_states=True)
    t = teacher(**inputs, output_hidden_states=True)
    ce = torch.nn.functional.cross_entropy(s.logits, labels)
    probabilities = t.logits.softmax(-1)
    kl = (probabilities * (t.logits.log_softmax(-1) - s.logits.log_softmax(-1))).sum(-1).mean()
    valid = batch["attention_mask"].bool()
    hidden = sum(
        ((s.hidden_states[a] - t.hidden_states[b])[valid] ** 2).mean() for a, b in trainer.objective.pairs["encoder"]
    )
    assert loss.item() == pytest.approx((0.5 * ce + 2.0 * kl + 3.0 * hidden).item(), rel=1e-5)


@pytest.mark.parametrize("hidden_loss", ["mse", "normalized-mse", "cosine", "layer-norm-mse"])
def test_accumulation_does_not_change_the_gradient(tmp_path, hidden_loss):
    trainer = make_trainer(tmp_path, dropout=0.0, hidden_loss=hidden_loss)
    rows = examples(8)
    whole, whole_loss = gradients(trainer, [collated(trainer, rows)])
    halves, halves_loss = gradients(trainer, [collated(trainer, rows[:4]), collated(trainer, rows[4:])])
    uneven, uneven_loss = gradients(trainer, [collated(trainer, rows[:1]), collated(trainer, rows[1:])])
    assert whole_loss == pytest.approx(halves_loss, rel=1e-5)
    assert whole_loss == pytest.approx(uneven_loss, rel=1e-5)
    scale = whole.abs().max()
    assert (whole - halves).abs().max() < 1e-5 * scale
    assert (whole - uneven).abs().max() < 1e-5 * scale


def test_padding_does_not_change_the_gradient(tmp_path):
    trainer = make_trainer(tmp_path, dropout=0.0)
    batch = collated(trainer, examples(5))
    near, near_loss = gradients(trainer, [batch])
    far, far_loss = gradients(trainer, [padded(batch, 9)])
    assert near_loss == pytest.approx(far_loss, rel=1e-5)
    assert (near - far).abs().max() < 1e-5 * near.abs().max()


def test_training_on_padded_batches_warns_where_padding_changes_the_states(tmp_path, monkeypatch):
    told = "anglekit.distillation.training.trainer.facts_of"
    monkeypatch.setattr(told, lambda model: replace(facts_of(model), batching="equal lengths"))
    with pytest.warns(ReaderWarning, match="depend on padding, and training pads its batches") as warned:
        make_trainer(tmp_path)
    assert [str(each.message).split()[4] for each in warned] == ["student", "teacher"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make_trainer(tmp_path, weights=LossWeights(1.0, 1.0, 0.0))


def test_official_reading_does_depend_on_how_the_batch_is_cut(tmp_path):
    """The negative control of the two tests above: the paper's normalisation divides by the micro-batch's size."""
    trainer = make_trainer(tmp_path, dropout=0.0, reading="official")
    rows = examples(8)
    whole, _ = gradients(trainer, [collated(trainer, rows)])
    halves, _ = gradients(trainer, [collated(trainer, rows[:4]), collated(trainer, rows[4:])])
    assert (whole - halves).abs().max() > 1e-2 * whole.abs().max()


@pytest.mark.parametrize(("batch_size", "accumulation"), [(4, 2), (2, 4)])
def test_accumulated_training_ends_where_one_batch_training_ends(tmp_path, batch_size, accumulation):
    ends = []
    for size, parts in ((8, 1), (batch_size, accumulation)):
        args = arguments(
            tmp_path / f"{size}",
            per_device_train_batch_size=size,
            gradient_accumulation_steps=parts,
            train_sampling_strategy="sequential",
            max_steps=3,
        )
        trainer = make_trainer(tmp_path, dropout=0.0, args=args)
        trainer.train()
        ends.append(torch.cat([p.detach().flatten() for p in trainer.model.parameters()]))
    # AdamW divides by the gradient's size, which makes something of rounding where a gradient is nearly zero.
    assert (ends[0] - ends[1]).abs().mean() < 1e-6


def test_every_term_is_logged_as_the_mean_since_the_last_log(tmp_path):
    args = arguments(tmp_path, max_steps=6, logging_steps=3, learning_rate=0.0)
    trainer = make_trainer(tmp_path, dropout=0.0, args=args)
    trainer.train()
    logs = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert [entry["step"] for entry in logs] == [3, 6]
    for entry in logs:
        parts = entry["loss_ce"] + entry["loss_kl"] + 3.0 * entry["loss_hidden"]
        assert entry["loss"] == pytest.approx(parts, rel=1e-5)
        assert min(entry["loss_ce"], entry["loss_kl"], entry["loss_hidden"]) > 0.0


def test_terms_of_weight_zero_are_neither_computed_nor_logged(tmp_path):
    trainer = make_trainer(tmp_path, weights=LossWeights(1.0, 0.0, 3.0))
    trainer.train()
    entry = next(entry for entry in trainer.state.log_history if "loss" in entry)
    assert "loss_kl" not in entry
    assert {"loss_ce", "loss_hidden"} <= set(entry)


def test_teacher_runs_only_as_far_as_the_losses_read(tmp_path):
    calls = {"whole": 0, "body": 0}
    teacher = make_teacher()
    facts_of(teacher)
    teacher.register_forward_hook(lambda *_: calls.__setitem__("whole", calls["whole"] + 1))
    teacher.base_model.register_forward_hook(lambda *_: calls.__setitem__("body", calls["body"] + 1))
    for weights, whole, body in (
        (LossWeights(1.0, 0.0, 0.0), 0, 0),
        (LossWeights(1.0, 0.0, 3.0), 0, 2),
        (LossWeights(1.0, 1.0, 3.0), 2, 2),
    ):
        calls.update(whole=0, body=0)
        trainer = make_trainer(tmp_path, teacher=teacher, weights=weights, args=arguments(tmp_path, max_steps=2))
        trainer.train()
        assert calls == {"whole": whole, "body": body}


def test_teacher_stays_in_evaluation_mode_without_gradients_and_unchanged(tmp_path):
    teacher = make_teacher(dropout=0.5)
    before = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    trainer = make_trainer(tmp_path, teacher=teacher)
    trainer.train()
    assert not any(module.training for module in teacher.modules())
    assert all(weight.grad is None for weight in teacher.parameters())
    assert all(torch.equal(before[name], tensor) for name, tensor in teacher.state_dict().items())


def test_teacher_keeps_only_the_matched_layers():
    teacher = make_teacher()
    outputs = TeacherForward(teacher, {"encoder": (2, 4)})({"input_ids": torch.tensor([[2, 5, 3]])})
    assert set(outputs.hidden["encoder"]) == {2, 4}
    assert not outputs.logits.requires_grad
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in teacher.modules())


def test_teacher_never_reaches_the_checkpoint(tmp_path):
    args = arguments(tmp_path, save_strategy="steps", save_steps=2, max_steps=2)
    trainer = make_trainer(tmp_path, args=args, width=16)
    trainer.train()
    saved = load_file(tmp_path / "checkpoint-2" / "model.safetensors")
    assert set(saved) == set(trainer.model.state_dict())
    assert not any("teacher" in name or "adapter" in name for name in saved)
    optimised = sum(len(group["params"]) for group in trainer.optimizer.param_groups)
    assert optimised == len(list(trainer.model.parameters())) + len(list(trainer.adapters.parameters()))
    reloaded, report = AutoModelForSequenceClassification.from_pretrained(
        tmp_path / "checkpoint-2", output_loading_info=True
    )
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert reloaded.config.num_hidden_layers == 2


def test_adapters_are_trained_and_saved_beside_the_student(tmp_path):
    args = arguments(tmp_path, save_strategy="steps", save_steps=3, max_steps=3)
    trainer = make_trainer(tmp_path, args=args, width=16)
    before = {place: weight.detach().clone() for place, weight in trainer.adapters.weights().items()}
    trainer.train()
    stored = load_adapters(tmp_path / "checkpoint-3")
    assert set(stored) == set(before) == {("encoder", 0), ("encoder", 1), ("encoder", 2)}
    for place, weight in stored.items():
        assert not torch.equal(weight, before[place])
        assert torch.equal(weight, trainer.adapters.weights()[place])


def test_adapters_that_are_not_to_be_trained_stay_and_are_marked(tmp_path):
    adapters = create_adapters(objective_for()[1], student_width=16, teacher_width=32, seed=0)
    adapters.requires_grad_(False)
    before = [weight.clone() for weight in adapters.parameters()]
    args = arguments(tmp_path, save_strategy="steps", save_steps=2, max_steps=2)
    trainer = make_trainer(tmp_path, args=args, width=16, adapters=adapters)
    trainer.train()
    assert all(torch.equal(old, new) for old, new in zip(before, adapters.parameters(), strict=True))
    assert load_adapters(tmp_path / "checkpoint-2") is None
    assert not stored_adapters(tmp_path / "checkpoint-2").trained


def test_gradients_of_adapters_are_clipped_with_the_student(tmp_path):
    trainer = make_trainer(tmp_path, width=16)
    trainer.create_optimizer()
    gradients(trainer, [collated(trainer, examples(4))])
    weights = [*trainer.model.parameters(), *trainer.adapters.parameters()]
    before = torch.linalg.vector_norm(torch.stack([w.grad.norm() for w in weights if w.grad is not None]))
    trainer.args.max_grad_norm = before.item() / 4
    assert trainer._clip_grad_norm(trainer.model).item() == pytest.approx(before.item(), rel=1e-5)
    after = torch.linalg.vector_norm(torch.stack([w.grad.norm() for w in weights if w.grad is not None]))
    assert after.item() == pytest.approx(before.item() / 4, rel=1e-3)


def test_evaluation_reports_the_cross_entropy_and_asks_no_teacher(tmp_path):
    def no_teacher(_inputs):
        raise AssertionError("evaluation ran the teacher")

    trainer = make_trainer(tmp_path, teacher_forward=no_teacher, eval_dataset=examples(6))
    metrics = trainer.evaluate()
    batch = collated(trainer, examples(6))
    with torch.no_grad():
        expected = trainer.model.eval()(**batch).loss.item()
    assert metrics["eval_loss"] == pytest.approx(expected, rel=1e-4)


def test_a_shared_teacher_forward_gives_the_same_student(tmp_path):
    ends = []
    for shared in (False, True):
        teacher = make_teacher()
        provider = TeacherForward(teacher, {"encoder": (0, 2, 4)}) if shared else None
        trainer = make_trainer(tmp_path, teacher=None if shared else teacher, teacher_forward=provider)
        trainer.train()
        ends.append(trainer.model.state_dict())
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


def test_training_depends_on_its_seed_and_not_on_what_ran_before(tmp_path):
    ends = []
    for seed, noise in ((5, 0), (5, 17), (6, 0)):
        trainer = make_trainer(tmp_path, dropout=0.2, args=arguments(tmp_path, seed=seed, data_seed=1))
        torch.manual_seed(noise)
        trainer.train()
        ends.append(torch.cat([p.detach().flatten() for p in trainer.model.parameters()]))
    assert torch.equal(ends[0], ends[1])
    assert not torch.equal(ends[0], ends[2])


@pytest.mark.parametrize("term", ["ce", "kl", "hidden_encoder"])
def test_a_term_that_turns_nan_stops_the_run_and_keeps_the_last_checkpoint(tmp_path, term):
    teacher = make_teacher()
    plain = TeacherForward(teacher, {"encoder": (0, 2, 4)})
    seen = []

    def poisoned(inputs):
        seen.append(1)
        outputs = plain(inputs)
        if len(seen) < 4 or term == "ce":
            return outputs
        if term == "kl":
            return TeacherOutputs(outputs.logits * float("nan"), outputs.hidden)
        broken = {layer: state * float("nan") for layer, state in outputs.hidden["encoder"].items()}
        return TeacherOutputs(outputs.logits, {"encoder": broken})

    class PoisonHead(TrainerCallback):
        def on_step_begin(self, args, state, control, model=None, **kwargs):
            if term == "ce" and state.global_step == 3:
                model.classifier.bias.data.fill_(float("nan"))

    args = arguments(tmp_path, max_steps=6, save_strategy="steps", save_steps=2, logging_steps=6)
    weights = LossWeights(1.0, 0.0 if term == "ce" else 1.0, 3.0)
    trainer = make_trainer(tmp_path, teacher_forward=poisoned, args=args, callbacks=[PoisonHead()], weights=weights)
    with pytest.raises(RunError, match=f"the {term} loss was not finite at step 4; .*checkpoint-2"):
        trainer.train()
    saved = load_file(tmp_path / "checkpoint-2" / "model.safetensors")
    assert all(torch.isfinite(tensor).all() for tensor in saved.values())
    assert not (tmp_path / "checkpoint-4").exists()


def test_before_anything_is_learned_no_learning_rate_is_blamed(tmp_path):
    def infinite(outputs):
        return TeacherOutputs(outputs.logits - math.inf, outputs.hidden)

    args = arguments(tmp_path, max_steps=1, save_strategy="no", logging_steps=1)
    forward = make_trainer(tmp_path).teacher_forward
    trainer = make_trainer(tmp_path, teacher_forward=lambda batch: infinite(forward(batch)), args=args)
    with pytest.raises(RunError, match=r"at step 1; no checkpoint .*; nothing was learned before, .*infinity"):
        trainer.train()


def test_a_gradient_that_is_not_finite_is_not_saved(tmp_path):
    class PoisonGradient(TrainerCallback):
        def on_step_begin(self, args, state, control, model=None, **kwargs):
            weight = model.classifier.weight
            if state.global_step == 1:
                weight.register_hook(lambda gradient: gradient * math.nan)

    args = arguments(tmp_path, max_steps=2, save_strategy="steps", save_steps=2)
    trainer = make_trainer(tmp_path, args=args, callbacks=[PoisonGradient()])
    with pytest.raises(RunError, match="the gradient was not finite at step 2; no checkpoint"):
        trainer.train()
    assert not (tmp_path / "checkpoint-2").exists()


def test_hooks_are_gone_after_training(tmp_path):
    trainer = make_trainer(tmp_path)
    trainer.train()
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in trainer.model.modules())


def test_tensorboard_gets_the_terms(tmp_path, monkeypatch):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "events"))
    trainer = make_trainer(tmp_path, args=arguments(tmp_path, report_to=["tensorboard"]))
    trainer.train()
    events = EventAccumulator(str(tmp_path / "events")).Reload()
    assert {"train/loss_ce", "train/loss_kl", "train/loss_hidden"} <= set(events.Tags()["scalars"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"teacher": None}, "needs a teacher and none came"),
        ({"teacher_forward": lambda _inputs: TeacherOutputs()}, "both a teacher and a teacher_forward"),
        ({"width": 16, "adapters": None}, "16 wide and the teacher 32"),
        ({"compute_loss_func": lambda *_a, **_k: None}, "compute_loss_func would replace"),
        ({"pairs": {"encoder": ((3, 4),)}}, "layer 3 does not exist in the encoder"),
        ({"pairs": {"encoder": ((2, 5),)}}, "layer 5 does not exist in the encoder"),
        ({"pairs": {"decoder": ((2, 2),)}}, "has no decoder stream"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_training(tmp_path, change, message):
    options = {"args": arguments(tmp_path), "teacher": make_teacher()} | change
    student = make_student(width=options.pop("width", 32))
    objective = DistillationObjective(options.pop("pairs", objective_for()[0].pairs))
    with pytest.raises(InputError, match=message):
        DistillationTrainer(student, objective=objective, **options)


def test_an_optimizer_without_the_adapters_is_refused(tmp_path):
    student = make_student(width=16)
    optimizer = torch.optim.AdamW(student.parameters())
    with pytest.raises(InputError, match="leaves the adapters out"):
        make_trainer(tmp_path, student=student, width=16, optimizers=(optimizer, None))


def test_an_adapter_of_another_shape_is_refused(tmp_path):
    adapters = create_adapters(objective_for()[1], student_width=8, teacher_width=32, seed=0)
    with pytest.raises(InputError, match="the adapter of encoder layer 0 is"):
        make_trainer(tmp_path, width=16, adapters=adapters)
    others = create_adapters(
        [layer_matching(None, teacher_blocks=4, student_blocks=2, explicit=[(2, 4)])],
        student_width=16,
        teacher_width=32,
        seed=0,
    )
    with pytest.raises(InputError, match="matched layer 0 has no adapter"):
        make_trainer(tmp_path, width=16, adapters=others)


def test_the_saved_state_can_be_read(tmp_path):
    args = arguments(tmp_path, save_strategy="steps", save_steps=2, max_steps=2, logging_steps=1)
    make_trainer(tmp_path, args=args).train()
    state = json.loads(Path(tmp_path / "checkpoint-2" / "trainer_state.json").read_text())
    assert "loss_hidden" in state["log_history"][0]
    assert not (tmp_path / "checkpoint-2" / ADAPTER_FILE).exists()
