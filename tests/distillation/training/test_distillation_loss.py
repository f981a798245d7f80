"""A training loop of one's own, on a BERT, a T5 and a Qwen3: what the models say is not asked."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from transformers import Qwen3ForSequenceClassification, Qwen3ForTokenClassification

import anglekit
from anglekit.distillation.training.distillation_loss import DistillationLoss, match_layers, objective_for
from anglekit.distillation.training.trainer import DistillationTrainer
from anglekit.errors import InputError
from tests.distillation.tiny_trainers import arguments

FAMILIES = ("bert", "t5", "qwen3")


def batches_of(family, tokenizer, words):
    """Texts of unequal lengths with the labels that the model type takes."""
    texts = [" ".join(words[n : n + 2 + n % 5]) for n in range(12)]
    for start in range(0, len(texts), 4):
        batch = dict(tokenizer(texts[start : start + 4], return_tensors="pt", padding=True))
        batch.pop("token_type_ids", None)
        labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
        yield batch | {"labels": torch.tensor([0, 1, 1, 0]) if family == "bert" else labels}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_plain_loop_trains_a_student(family, tiny_model, tiny_tokenizer, words):
    teacher = tiny_model(family, depth=4, head=True)
    batches = list(batches_of(family, tiny_tokenizer(), words))
    before = copy.deepcopy(teacher.state_dict())
    # The program of the documentation.
    torch.manual_seed(0)  # of the dropout
    student = anglekit.create_student(teacher, layers=2, init="teacher")
    loss = anglekit.DistillationLoss(teacher, student, "reverse", temperature=2.0)
    optimizer = torch.optim.AdamW(loss.parameters(), lr=1e-3)
    first, *_ = values = [loss(batch).item() for batch in batches]
    for _ in range(6):
        for batch in batches:
            loss(batch).backward()
            optimizer.step()
            optimizer.zero_grad()
    after = [loss(batch).item() for batch in batches]
    assert all(new < 0.95 * old for new, old in zip(after, values, strict=True)), (first, after)
    assert all(torch.equal(weight, before[name]) for name, weight in teacher.state_dict().items())
    assert loss.objective.causal is (family == "qwen3")
    streams = {"bert": ["encoder"], "t5": ["encoder", "decoder"], "qwen3": ["decoder"]}
    assert list(loss.objective.pairs) == streams[family]
    assert not loss.adapters.layers


@pytest.mark.parametrize("family", FAMILIES)
def test_the_terms_are_those_of_the_models_own_outputs(family, tiny_model, tiny_tokenizer, words):
    teacher, student = tiny_model(family, depth=4, head=True), tiny_model(family, depth=2, seed=1, head=True)
    batch = next(batches_of(family, tiny_tokenizer(), words))
    loss = DistillationLoss(teacher, student, "forward")
    terms = loss.terms(batch)
    with torch.no_grad():
        ours, theirs = (model(**batch, output_hidden_states=True) for model in (student, teacher))
    # transformers shifts a causal model's labels itself.
    torch.testing.assert_close(terms["ce"].mean(), ours.loss)
    rows, labels = ours.logits, batch["labels"]
    if family == "qwen3":
        rows, labels = rows[:, :-1], labels[:, 1:]
    taught = theirs.logits[:, : rows.shape[1]] if family == "qwen3" else theirs.logits
    kept = labels.reshape(-1) != -100
    log_s, log_t = (F.log_softmax(x.reshape(-1, x.shape[-1])[kept], -1) for x in (rows, taught))
    torch.testing.assert_close(terms["kl"].mean(), (log_t.exp() * (log_t - log_s)).sum(-1).mean())
    pairs = loss.objective.pairs
    stream = "decoder" if family == "qwen3" else "encoder"
    states = [getattr(each, "encoder_hidden_states", None) or each.hidden_states for each in (ours, theirs)]
    mask = batch["attention_mask"].bool()
    inner = [pair for pair in pairs[stream] if pair[0] < 2]
    assert inner
    # Layers within the stack: the last one is taken before the final norm, which these outputs are not.
    found = DistillationLoss(
        teacher, student, anglekit.DistillationObjective({stream: inner}, anglekit.LossWeights(0, 0, 1))
    ).terms(batch)[f"hidden_{stream}"]
    wanted = sum(((states[0][s] - states[1][t])[mask] ** 2).mean(-1).sum() for s, t in inner)
    torch.testing.assert_close(found.total, wanted)
    wrapped = torch.nn.Sequential()  # a wrapper, such as of data parallelism
    wrapped.forward = student.forward
    assert torch.equal(loss(batch, wrapped), loss(batch))
    total = sum(loss.objective.weights.of(name) * term.mean() for name, term in terms.items())
    torch.testing.assert_close(loss(batch), total)


def test_a_trainer_asks_for_a_strategy_alone_and_takes_the_same_loss(tiny_model, tiny_tokenizer, words, tmp_path):
    teacher, student = tiny_model("qwen3", depth=4, head=True), tiny_model("qwen3", depth=2, seed=1, head=True)
    batch = next(batches_of("qwen3", tiny_tokenizer(), words))
    rows = [{name: value[row] for name, value in batch.items()} for row in range(4)]
    loss = DistillationLoss(teacher, student, "forward")(batch).item()
    trainer = DistillationTrainer(
        student, arguments(tmp_path), objective="forward", teacher=teacher, train_dataset=rows,
        data_collator=lambda rows: {name: torch.stack([row[name] for row in rows]) for name in rows[0]},
    )  # fmt: skip
    assert trainer.objective.causal
    found = trainer.compute_loss(student.train(), batch)
    assert found.item() == pytest.approx(loss, rel=1e-6)
    # Saying so oneself overrides what the model says.
    plain = DistillationLoss(teacher, student, "forward", causal=False)(batch).item()
    assert abs(plain - loss) > 1e-3
    with pytest.raises(InputError, match="without a teacher"):
        DistillationTrainer(student, arguments(tmp_path), objective="forward")
    with pytest.raises(InputError, match="did you mean 'forward'"):
        DistillationLoss(teacher, student, "foward")
    with pytest.raises(InputError, match=r"4 blocks and the teacher's 2; allowed: 1 to 2; .* the wrong way round"):
        DistillationLoss(student, teacher, "forward")


def test_labels_are_shifted_for_language_models_of_one_stream_alone(tiny_model):
    qwen = tiny_model("qwen3", head=True)
    kinds = [kind(qwen.config) for kind in (Qwen3ForSequenceClassification, Qwen3ForTokenClassification)]
    models = [qwen, *kinds, tiny_model("bert", head=True), tiny_model("t5", head=True), tiny_model("gpt2", head=True)]
    objective = anglekit.DistillationObjective()
    assert [objective_for(None, model, objective).causal for model in models] == [True, *[False] * 4, True]
    families = [objective_for(None, model, objective).family for model in models]
    assert families == ["causal", "causal", "causal", "bert", "t5", "causal"]
    given = anglekit.DistillationObjective(causal=False, family="bart")
    assert objective_for(None, qwen, given).causal is False
    assert objective_for(None, qwen, given).family == "bart"
    # Without a model the objective does not guess.
    batch = {"input_ids": torch.ones(1, 3, dtype=torch.long), "labels": torch.ones(1, 3, dtype=torch.long)}
    with pytest.raises(InputError, match="does not say whether they are shifted; give causal=True"):
        objective.task_loss(batch, torch.zeros(1, 3, 4))


def test_a_narrower_student_has_adapters_that_are_trained_with_it(tiny_model, tiny_tokenizer, words):
    teacher, student = tiny_model("bert", depth=4, head=True), tiny_model("bert", depth=2, width=8, head=True)
    loss = DistillationLoss(teacher, student, match_layers(teacher, student, "all-to-one"))
    assert loss.adapters.layers == (("encoder", 0), ("encoder", 1), ("encoder", 2))
    assert len(loss.parameters()) == len(list(student.parameters())) + 3
    loss(next(batches_of("bert", tiny_tokenizer(), words))).backward()
    assert all(weight.grad.any() for weight in loss.adapters.parameters())
    with pytest.raises(InputError, match="has no adapter"):
        DistillationLoss(teacher, student, "forward", adapters=DistillationLoss(
            teacher, student, anglekit.DistillationObjective({"encoder": [(1, 2)]})).adapters)  # fmt: skip


def cut(model, entries):
    small = copy.deepcopy(model)
    small.resize_token_embeddings(entries)
    return small


@pytest.mark.parametrize("family", ["qwen3", "t5"])
def test_padded_rows_change_no_loss(family, tiny_model, tiny_tokenizer, words):
    """The KL over shared entries equals that of models cut to one size, to 1e-7."""
    tokenizer = tiny_tokenizer()
    teacher, student = (tiny_model(family, depth=depth, seed=depth, head=True).double() for depth in (4, 2))
    wide = cut(teacher, 40)
    with torch.no_grad():  # rows that would matter if they were read
        wide.get_output_embeddings().weight[len(tokenizer) :] = 9.0
    shared = anglekit.shared_vocabulary(tokenizer, tokenizer, wide, student)
    assert (shared.relation, shared.teacher_entries) == ("padded", 40)
    batch = next(batches_of(family, tokenizer, words))
    expected = DistillationLoss(cut(teacher, shared.entries), cut(student, shared.entries), "forward").terms(batch)
    found = DistillationLoss(wide, student, "forward", shared_entries=shared.entries).terms(batch)
    assert found["kl"].mean().item() == pytest.approx(expected["kl"].mean().item(), rel=1e-7)
    with pytest.raises(InputError, match=r"the teacher's vocabulary has 40 entries.*shared_vocabulary"):
        DistillationLoss(wide, student, "forward")


def test_tokens_that_one_model_lacks_may_pad_and_are_refused_where_they_are_read(tiny_model, tiny_tokenizer, words):
    tokenizer = tiny_tokenizer()
    teacher, student = (cut(tiny_model("qwen3", depth=depth, head=True), len(tokenizer)) for depth in (4, 2))
    more = tiny_tokenizer()
    more.add_special_tokens({"pad_token": "<pad>"})
    student.resize_token_embeddings(len(more))
    shared = anglekit.shared_vocabulary(tokenizer, more, teacher, student)
    assert (shared.relation, shared.entries) == ("appended", len(tokenizer))
    loss = DistillationLoss(teacher, student, "forward", shared_entries=shared.entries)
    usual, other = (next(batches_of("qwen3", each, words)) for each in (tokenizer, more))
    assert other["input_ids"].max() == more.pad_token_id > usual["input_ids"].max()
    assert loss(other).item() == pytest.approx(loss(usual).item(), rel=1e-6)
    other["input_ids"][0, 0] = more.pad_token_id
    with pytest.raises(InputError, match=f"input_ids hold token {len(tokenizer)}, and teacher and student share"):
        loss(other)
    usual["labels"][0, 1] = len(tokenizer)
    with pytest.raises(InputError, match="labels hold token"):
        loss(usual)


def test_models_that_do_not_go_together_are_refused(tiny_model):
    bert, t5, qwen = (tiny_model(family, depth=3, head=True) for family in FAMILIES)
    other = tiny_model("bert", head=False)
    classifier = Qwen3ForSequenceClassification(qwen.config)
    three, sharing = copy.deepcopy(bert), copy.deepcopy(bert)
    sharing.bert.encoder.layer[0] = bert.bert.encoder.layer[0]
    three.config.num_labels = 3
    cases = [
        (lambda: DistillationLoss(bert, bert), "are one model"),
        (lambda: DistillationLoss(bert, sharing), r"the student share a module \(bert.encoder.layer.0"),
        (lambda: DistillationLoss(bert, t5), "models of one kind"),
        (lambda: DistillationLoss(classifier, qwen), "a Qwen3ForSequenceClassification and the student a Qwen3ForCaus"),
        (lambda: DistillationLoss(bert, three), "tells 2 labels apart and the student 3"),
        (lambda: DistillationLoss(bert, other, "forwards"), "did you mean 'forward'"),
        (lambda: DistillationLoss(bert, copy.deepcopy(bert), temperature=0), "temperature"),
    ]
    for call, expected in cases:
        with pytest.raises(InputError, match=expected):
            call()


def test_a_weight_in_common_is_refused_unless_it_is_frozen(tiny_model):
    teacher, student = (tiny_model("bert", depth=depth, head=True) for depth in (3, 2))
    words = teacher.get_input_embeddings().weight
    student.get_input_embeddings().weight = words
    with pytest.raises(InputError, match=r"share a weight that is trained \(bert.embeddings.word_embeddings.weight\)"):
        DistillationLoss(teacher, student)
    words.requires_grad_(False)
    assert DistillationLoss(teacher, student).student is student
