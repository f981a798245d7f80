"""What Trainer's users expect goes on working: resuming, precision, checkpointed activations, orders, other models."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerCallback
from transformers.trainer_callback import PrinterCallback

from anglekit.distillation.losses.objective import DistillationObjective
from anglekit.distillation.losses.weights import LossWeights
from anglekit.distillation.settings import recomputation_argument
from anglekit.distillation.training.batch_order import LengthGroupedOrder
from anglekit.distillation.training.trainer import DistillationTrainer
from anglekit.errors import InputError
from anglekit.models.projections import ADAPTER_FILE, load_adapters
from tests.distillation.tiny_trainers import arguments, examples, make_student, make_teacher, make_trainer


def weights_of(trainer):
    """Return the student's and the adapters' weights."""
    adapters = {} if trainer.adapters is None else trainer.adapters.state_dict()
    return {**trainer.model.state_dict(), **{f"adapter.{name}": tensor for name, tensor in adapters.items()}}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


class StopAt(TrainerCallback):
    """Ends training in the way a kill does: between two steps."""

    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            raise KeyboardInterrupt


@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize("stop", [5, 7])
def test_a_killed_run_resumes_bit_for_bit(tmp_path, stop, accumulation):
    """24 examples in batches of 4 make epochs of 6 (or 3) steps: 4 and 6 lie inside an epoch and at its end."""
    options = {
        "max_steps": 10,
        "save_strategy": "steps",
        "save_steps": 2,
        "eval_strategy": "steps",
        "eval_steps": 2,
        "gradient_accumulation_steps": accumulation,
        "warmup_steps": 2,
    }

    def trainer(directory, **more):
        args = arguments(directory, **options)
        return make_trainer(directory, dropout=0.3, width=16, args=args, eval_dataset=examples(5), **more)

    whole = trainer(tmp_path / "whole")
    whole.train()
    killed = trainer(tmp_path / "killed", callbacks=[StopAt(stop)])
    with pytest.raises(KeyboardInterrupt):
        killed.train()
    assert not same(weights_of(whole), weights_of(killed))
    resumed = trainer(tmp_path / "killed")
    resumed.train(resume_from_checkpoint=True)
    assert resumed.state.global_step == 10
    assert same(weights_of(whole), weights_of(resumed))
    ours, theirs = (t.optimizer.state_dict()["state"] for t in (whole, resumed))
    assert all(torch.equal(ours[key]["exp_avg"], theirs[key]["exp_avg"]) for key in ours)


@pytest.mark.parametrize("accumulation", [1, 2])
def test_a_run_killed_behind_its_last_step_takes_no_further_one(tmp_path, accumulation):
    """The end lies inside an epoch, and the schedule leaves it a learning rate."""
    options = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2, "lr_scheduler_type": "constant"}

    def trainer():
        args = arguments(tmp_path, gradient_accumulation_steps=accumulation, **options)
        return make_trainer(tmp_path, dropout=0.3, width=16, args=args)

    whole = trainer()
    whole.train()
    assert (tmp_path / "checkpoint-4").is_dir()
    resumed = trainer()
    resumed.train(resume_from_checkpoint=True)
    assert (resumed.state.global_step, resumed.control.should_training_stop) == (4, True)
    assert same(weights_of(whole), weights_of(resumed))


def test_a_resumed_run_with_a_changed_adapter_differs(tmp_path):
    """The negative control: were adapters not restored, the test above could not see it."""
    args = arguments(tmp_path / "a", max_steps=4, save_strategy="steps", save_steps=2)
    whole = make_trainer(tmp_path, width=16, args=args)
    whole.train()
    resumed = make_trainer(tmp_path, width=16, args=args)
    resumed._restore_beside = lambda _directory: None
    resumed.train(resume_from_checkpoint=str(tmp_path / "a" / "checkpoint-2"))
    assert not same(weights_of(whole), weights_of(resumed))


def test_a_checkpoint_without_this_runs_adapters_is_refused(tmp_path):
    args = arguments(tmp_path / "a", max_steps=2, save_strategy="steps", save_steps=2)
    make_trainer(tmp_path, width=16, args=args).train()
    (tmp_path / "a" / "checkpoint-2" / ADAPTER_FILE).unlink()
    with pytest.raises(InputError, match="does not hold this run's adapters"):
        make_trainer(tmp_path, width=16, args=args).train(resume_from_checkpoint=True)


def test_the_best_student_comes_back_with_its_adapters(tmp_path):
    options = {
        "max_steps": 6,
        "save_strategy": "steps",
        "save_steps": 2,
        "eval_strategy": "steps",
        "eval_steps": 2,
        "load_best_model_at_end": True,
        "metric_for_best_model": "score",
        "greater_is_better": True,
    }
    scores = iter([1.0, 3.0, 2.0])
    trainer = make_trainer(
        tmp_path,
        width=16,
        args=arguments(tmp_path, **options),
        eval_dataset=examples(4),
        compute_metrics=lambda _prediction: {"score": next(scores)},
    )
    trainer.train()
    best = Path(trainer.state.best_model_checkpoint)
    assert best.name == "checkpoint-4"
    stored = load_adapters(best)
    assert all(torch.equal(stored[place], weight) for place, weight in trainer.adapters.weights().items())
    saved = load_file(best / "model.safetensors")
    assert all(torch.equal(saved[name], tensor) for name, tensor in trainer.model.state_dict().items())


@pytest.mark.parametrize("strategy", ["random", "group_by_length"])
def test_the_data_seed_alone_sets_the_order(tmp_path, strategy):
    class Lengths(list):
        @property
        def lengths(self):
            return [len(row["input_ids"]) for row in self]

    def order(seed, data_seed):
        seen = []
        args = arguments(
            tmp_path, seed=seed, data_seed=data_seed, train_sampling_strategy=strategy, max_steps=12, learning_rate=0.0
        )
        trainer = make_trainer(tmp_path, dropout=0.1, args=args, train_dataset=Lengths(examples(24)))
        plain = trainer.data_collator
        trainer.data_collator = lambda rows: seen.append([row["input_ids"] for row in rows]) or plain(rows)
        trainer.train()
        return seen

    first = order(1, 0)
    assert first == order(2, 0)
    assert first != order(1, 9)
    assert first[:6] != first[6:12]


def test_grouping_by_length_leaves_less_padding_and_misses_no_example():
    lengths = [1 + (7 * place) % 50 for place in range(203)]
    order = LengthGroupedOrder(lengths, 8, seed=4)
    indices = list(order)
    assert sorted(indices) == list(range(203))
    assert len(order) == 203

    def padded(places):
        batches = [places[start : start + 8] for start in range(0, len(places), 8)]
        return sum(len(batch) * max(lengths[place] for place in batch) for batch in batches)

    assert padded(indices) < 0.8 * padded(list(range(203)))
    again = list(order)
    order.set_epoch(1)
    assert again == indices != list(order)


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.filterwarnings("ignore:.*use_reentrant.*:UserWarning")
def test_checkpointed_activations_give_the_same_student(tmp_path, reentrant):
    ends, recomputation = [], recomputation_argument()
    for options in (
        {},
        {recomputation: True, f"{recomputation}_kwargs": {"use_reentrant": reentrant}},
    ):
        # Plain descent: AdamW makes large steps of gradients that differ by rounding alone.
        trainer = make_trainer(tmp_path, dropout=0.1, args=arguments(tmp_path, optim="sgd", **options))
        trainer.train()
        ends.append(trainer.model.state_dict())
    assert all(torch.allclose(ends[0][name], ends[1][name], atol=1e-6) for name in ends[0])


def test_half_precision_trains_near_full_precision(tmp_path):
    losses = []
    for options in ({}, {"bf16": True}):
        trainer = make_trainer(tmp_path, width=16, args=arguments(tmp_path, max_steps=8, **options))
        trainer.train()
        losses.append([entry["loss"] for entry in trainer.state.log_history if "loss" in entry])
        assert all(weight.dtype == torch.float32 for weight in trainer.model.parameters())
    assert losses[0] == pytest.approx(losses[1], rel=0.02)
    assert losses[0] != losses[1]


@pytest.mark.parametrize("schedule", ["linear", "cosine", "constant_with_warmup"])
def test_schedules_reach_the_adapters_too(tmp_path, schedule):
    args = arguments(tmp_path, lr_scheduler_type=schedule, warmup_steps=2, max_steps=4)
    trainer = make_trainer(tmp_path, width=16, args=args)
    seen = []

    class Watch(TrainerCallback):
        def on_optimizer_step(self, args, state, control, optimizer=None, **kwargs):
            seen.append([group["lr"] for group in optimizer.param_groups])

    trainer.add_callback(Watch())
    trainer.train()
    assert all(len(rates) == 3 and len(set(rates)) == 1 for rates in seen)
    assert seen[0][0] < seen[1][0]


def test_training_learns_what_the_teacher_knows(tmp_path):
    """A student of the teacher's shape comes to agree with it within a few steps."""
    teacher = make_teacher(layers=2)
    teacher.classifier.weight.data.mul_(20.0)
    objective = DistillationObjective({"encoder": ((0, 0), (1, 1), (2, 2))}, LossWeights(0.0, 1.0, 3.0))
    agreement = {}
    for name in ("taught", "untaught"):
        student = make_student(seed=8)
        trainer = DistillationTrainer(
            student,
            arguments(tmp_path, max_steps=80 if name == "taught" else 1, learning_rate=3e-3),
            objective=objective,
            teacher=teacher,
            train_dataset=examples(64),
            data_collator=make_trainer(tmp_path).data_collator,
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
        batch = trainer.data_collator(examples(64))
        with torch.no_grad():
            ours, theirs = student.eval()(**batch).logits, teacher(**batch).logits
        agreement[name] = (ours.softmax(-1) - theirs.softmax(-1)).abs().mean().item()
    assert agreement["taught"] < 0.3 * agreement["untaught"]


@pytest.mark.parametrize("family", ["t5", "bart", "gpt2", "llama", "qwen3"])
@pytest.mark.parametrize("reading", ["corrected", "official"])
def test_models_that_predict_tokens_train_with_both_streams(tmp_path, tiny_model, family, reading):
    teacher = tiny_model(family, depth=4, head=True, seed=0)
    student = tiny_model(family, depth=2, head=True, seed=1)
    streams = ("encoder", "decoder") if family in ("t5", "bart") else ("decoder",)
    objective = DistillationObjective(
        dict.fromkeys(streams, ((1, 2), (2, 4))),
        reading=reading,
        family=family if family in ("t5", "bart") else "causal",
        causal=len(streams) == 1,
        pad_token_id=0,
    )
    rows = [row["input_ids"] for row in examples(16)]

    def collate(batch):
        ids = torch.nn.utils.rnn.pad_sequence([torch.tensor(row) % 20 + 4 for row in batch], batch_first=True)
        return {"input_ids": ids, "attention_mask": (ids != 0).long(), "labels": ids.masked_fill(ids == 0, -100)}

    trainer = DistillationTrainer(
        student, arguments(tmp_path), objective=objective, teacher=teacher, train_dataset=rows, data_collator=collate
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    entry = next(entry for entry in trainer.state.log_history if "loss" in entry)
    expected = {"loss_ce", "loss_kl", "loss_hidden"}
    if len(streams) == 2:
        expected |= {"loss_hidden_encoder", "loss_hidden_decoder"}
        assert entry["loss_hidden"] == pytest.approx(entry["loss_hidden_encoder"] + entry["loss_hidden_decoder"])
    assert {name for name in entry if name.startswith("loss_")} == expected


@pytest.mark.parametrize("family", ["t5", "gpt2"])
def test_token_losses_do_not_depend_on_padding_or_on_the_cut(tmp_path, tiny_model, family):
    """The same for token predictions as `test_trainer` shows for classes."""
    both = family == "t5"
    teacher, student = (tiny_model(family, depth=depth, head=True, seed=depth) for depth in (4, 2))
    for model in (teacher, student):
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
            elif isinstance(getattr(module, "dropout", None), float):
                module.dropout = 0.0
    streams = ("encoder", "decoder") if both else ("decoder",)
    objective = DistillationObjective(dict.fromkeys(streams, ((1, 2), (2, 4))), causal=not both)
    trainer = DistillationTrainer(student, arguments(tmp_path), objective=objective, teacher=teacher)
    rows = [torch.tensor(row["input_ids"]) % 20 + 4 for row in examples(6)]

    def batch(some, more=0):
        ids = torch.nn.functional.pad(torch.nn.utils.rnn.pad_sequence(some, batch_first=True), (0, more))
        return {"input_ids": ids, "attention_mask": (ids != 0).long(), "labels": ids.masked_fill(ids == 0, -100)}

    def gradient(batches):
        student.zero_grad()
        student.train()
        counts = trainer._get_num_items_in_batch(batches, torch.device("cpu"))
        for part in batches:
            trainer.compute_loss(student, part, num_items_in_batch=counts).backward()
        return torch.cat([p.grad.flatten() for p in student.parameters() if p.grad is not None])

    whole = gradient([batch(rows)])
    for other in ([batch(rows, 5)], [batch(rows[:1]), batch(rows[1:])]):
        assert (whole - gradient(other)).abs().max() < 2e-5 * whole.abs().max()
