"""Which rows each term of the objective reads and counts, picked out here by loops over the batch."""

from __future__ import annotations

import pytest
import torch

from anglekit.distillation.losses.functional import cross_entropy, hidden_loss, kl_divergence
from anglekit.distillation.losses.objective import DistillationObjective, TeacherOutputs
from anglekit.distillation.losses.official import official_hidden_loss
from anglekit.distillation.losses.weights import LossWeights
from anglekit.errors import InputError

BATCH, TIME, WIDTH, CLASSES = 3, 5, 6, 7
ENCODER, DECODER = [(1, 2), (2, 4)], [(0, 1), (2, 3)]
PAIRS = {"encoder": ENCODER, "decoder": DECODER}


def drawn(*shape, seed):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def mask_of(lengths):
    return (torch.arange(TIME) < torch.tensor(lengths).unsqueeze(1)).long()


def batch_of(kind, seed=0):
    """A batch as a collator would make it, of texts of unequal lengths."""
    inputs = {
        "input_ids": torch.randint(1, 9, (BATCH, TIME), generator=torch.Generator().manual_seed(seed)),
        "attention_mask": mask_of([5, 2 + seed, 3]),
    }
    if kind == "classes":
        return inputs | {"labels": torch.tensor([0, 2, 1])}
    labels = torch.randint(0, CLASSES, (BATCH, TIME), generator=torch.Generator().manual_seed(seed + 1))
    labels[mask_of([4, 3, 2 + seed]) == 0] = -100
    if kind == "causal":
        labels[:, 0] = -100  # a prompt of one token
        labels[inputs["attention_mask"] == 0] = -100
        return inputs | {"labels": labels}
    decoder = torch.randint(1, 9, (BATCH, TIME), generator=torch.Generator().manual_seed(seed + 2))
    decoder[mask_of([3, 5, 4]) == 0] = 0
    return inputs | {"labels": labels, "decoder_input_ids": decoder}


def made(kind, seed=0):
    """Logits and states of student and teacher."""
    shape = (BATCH, CLASSES) if kind == "classes" else (BATCH, TIME, CLASSES)
    logits, taught = drawn(*shape, seed=seed + 10), drawn(*shape, seed=seed + 11)
    streams = PAIRS if kind == "two streams" else {"encoder": ENCODER} if kind == "classes" else {"decoder": DECODER}
    states, teacher = (
        {
            stream: {pair[side]: drawn(BATCH, TIME, WIDTH, seed=seed + 20 + 7 * side + pair[side]) for pair in pairs}
            for stream, pairs in streams.items()
        }
        for side in (0, 1)
    )
    return streams, logits, states, TeacherOutputs(taught, teacher)


def chosen(values, keep):
    """The rows of (batch, time, ...) or (batch, ...) at which `keep` holds, one below the other."""
    return torch.stack([values[place] for place in keep])


def expected(kind, inputs, logits, states, teacher, streams, *, prompt=False, decoder_mask=None):
    """Each term and its count by the corrected reading, and the places that it reads."""
    if kind == "classes":
        answered = read = [(b,) for b in range(BATCH)]
        labels = inputs["labels"]
    elif kind == "two streams":
        answered = read = [(b, t) for b in range(BATCH) for t in range(TIME) if inputs["labels"][b, t] != -100]
        labels = inputs["labels"]
    else:  # position t answers for token t + 1
        answered = [(b, t) for b in range(BATCH) for t in range(TIME - 1) if inputs["labels"][b, t + 1] != -100]
        real = [(b, t) for b in range(BATCH) for t in range(TIME - 1) if inputs["attention_mask"][b, t + 1]]
        read = real if prompt else answered
        labels = torch.cat([inputs["labels"][:, 1:], torch.full((BATCH, 1), -100)], dim=1)
    found = {
        "ce": cross_entropy(chosen(logits, answered), chosen(labels, answered)),
        "kl": kl_divergence(chosen(logits, read), chosen(teacher.logits, read)),
    }
    for stream in streams:
        mask = inputs["attention_mask"]
        if kind == "two streams" and stream == "decoder":
            mask = inputs["labels"] != -100 if decoder_mask is None else decoder_mask
        places = [(b, t) for b in range(BATCH) for t in range(TIME) if mask[b, t]]
        pairs = [
            (chosen(states[stream][s], places).unsqueeze(0), chosen(teacher.hidden[stream][t], places).unsqueeze(0))
            for s, t in streams[stream]
        ]
        found[f"hidden_{stream}"] = hidden_loss(pairs, None)
    return found


def assert_terms(found, wanted):
    assert list(found) == list(wanted)
    for name, term in wanted.items():
        torch.testing.assert_close(found[name].total, term.total, msg=name)
        assert int(found[name].count) == int(term.count), name


@pytest.mark.parametrize("kind", ["classes", "two streams", "causal"])
def test_every_term_reads_its_rows(kind):
    inputs = batch_of(kind)
    streams, logits, states, teacher = made(kind)
    objective = DistillationObjective(streams, causal=kind == "causal")
    assert_terms(
        objective.terms(inputs, logits, states, teacher), expected(kind, inputs, logits, states, teacher, streams)
    )
    # Each term by itself reads what it reads beside the others.
    for weights in (LossWeights(1, 0, 0), LossWeights(0, 1, 0), LossWeights(0, 0, 1)):
        alone = DistillationObjective(streams, weights, causal=kind == "causal")
        wanted = expected(kind, inputs, logits, states, teacher, streams)
        assert_terms(alone.terms(inputs, logits, states, teacher), {name: wanted[name] for name in alone.term_names})
    task = objective.task_loss(inputs, logits)
    torch.testing.assert_close(task.total, expected(kind, inputs, logits, states, teacher, streams)["ce"].total)


def test_a_decoder_has_its_own_mask_where_it_comes():
    inputs = batch_of("two streams") | {"decoder_attention_mask": mask_of([2, 5, 4])}
    streams, logits, states, teacher = made("two streams")
    wanted = expected(
        "two streams", inputs, logits, states, teacher, streams, decoder_mask=inputs["decoder_attention_mask"]
    )
    found = DistillationObjective(streams).terms(inputs, logits, states, teacher)
    assert_terms(found, wanted)


def test_the_padding_of_decoder_inputs_matters_to_the_official_reading_alone():
    inputs = batch_of("two streams")
    streams, logits, states, teacher = made("two streams")
    found = DistillationObjective(streams, pad_token_id=0).terms(inputs, logits, states, teacher)
    assert_terms(found, expected("two streams", inputs, logits, states, teacher, streams))


def test_the_kl_of_a_causal_model_may_read_the_prompt():
    inputs = batch_of("causal")
    streams, logits, states, teacher = made("causal")
    objective = DistillationObjective(streams, causal=True, kl_on_prompt=True)
    wanted = expected("causal", inputs, logits, states, teacher, streams, prompt=True)
    assert int(wanted["kl"].count) > int(wanted["ce"].count)
    assert_terms(objective.terms(inputs, logits, states, teacher), wanted)
    # Without a mask every token is a real one.
    bare = {name: value for name, value in inputs.items() if name != "attention_mask"}
    whole = expected(
        "causal", bare | {"attention_mask": torch.ones(BATCH, TIME)}, logits, states, teacher, streams, prompt=True
    )
    assert_terms(objective.terms(bare, logits, states, teacher), whole)


@pytest.mark.parametrize("kind", ["classes", "two streams", "causal"])
@pytest.mark.parametrize("masked", [True, False])
def test_an_optimiser_step_counts_what_its_batches_hold(kind, masked):
    batches = [batch_of(kind, seed) for seed in (0, 1)]
    if not masked:
        batches = [{name: value for name, value in one.items() if name != "attention_mask"} for one in batches]
    streams, logits, states, teacher = made(kind)
    objective = DistillationObjective(streams, causal=kind == "causal")
    counts = objective.counts(batches)
    found = [objective.terms(inputs, logits, states, teacher) for inputs in batches]
    assert list(counts) == list(found[0]) == list(objective.term_names)
    for name, count in counts.items():
        assert int(count) == sum(int(terms[name].count) for terms in found), name
    assert int(counts["ce"]) != int(found[0]["ce"].count)


@pytest.mark.parametrize(("kind", "family"), [("classes", "bert"), ("two streams", "t5"), ("causal", "causal")])
def test_the_official_reading_counts_batches(kind, family):
    inputs = batch_of(kind)
    streams, logits, states, teacher = made(kind)
    objective = DistillationObjective(
        streams, causal=kind == "causal", reading="official", family=family, pad_token_id=0
    )
    found = objective.terms(inputs, logits, states, teacher)
    corrected = expected(kind, inputs, logits, states, teacher, streams, prompt=True)
    counts = {name: float(count) for name, count in objective.counts([inputs, inputs]).items()}
    if kind == "causal":
        # The cross-entropy is pooled, the other terms are added up.
        assert counts == dict.fromkeys(found, 1) | {"ce": 2 * float(corrected["ce"].count)}
    else:
        assert {int(term.count) for term in found.values()} == {1}
        assert counts == dict.fromkeys(found, 2)
    torch.testing.assert_close(found["ce"].mean(), corrected["ce"].mean())
    own = (2.0 if kind == "two streams" else 1.0, "forward")
    for name, temperature, direction in (("given", 3.0, "forward"), ("own", *own)):
        given = {"temperature": temperature, "kl_direction": direction} if name == "given" else {}
        objective = DistillationObjective(
            streams, causal=kind == "causal", reading="official", family=family, pad_token_id=0, **given
        )
        kl = objective.terms(inputs, logits, states, teacher)["kl"]
        if kind == "classes":
            want = kl_divergence(logits, teacher.logits, temperature=temperature, direction=direction)
        else:
            mask = None if kind == "causal" else inputs["decoder_input_ids"] != 0
            want = kl_divergence(logits, teacher.logits, mask, temperature=temperature, direction=direction)
        share = inputs["attention_mask"].float().mean() if kind == "causal" else 1.0
        torch.testing.assert_close(kl.total, want.mean() * share)
    for stream, pairs in streams.items():
        mask = inputs["attention_mask"]
        if kind == "two streams" and stream == "decoder":
            mask = inputs["decoder_input_ids"] != 0
        both = [(states[stream][s], teacher.hidden[stream][t]) for s, t in pairs]
        torch.testing.assert_close(
            found[f"hidden_{stream}"].total, official_hidden_loss(both, mask, family=family).total
        )


def test_options_of_the_corrected_reading_reach_the_losses():
    inputs = batch_of("two streams")
    streams, logits, states, teacher = made("two streams")
    plain = DistillationObjective(streams).terms(inputs, logits, states, teacher)
    mask = inputs["labels"] != -100
    for option, value, name in (
        ("temperature", 2.0, "kl"),
        ("kl_direction", "reverse", "kl"),
        ("label_smoothing", 0.3, "ce"),
        ("hidden_loss", "cosine", "hidden_encoder"),
    ):
        found = DistillationObjective(streams, **{option: value}).terms(inputs, logits, states, teacher)[name].total
        assert abs(float(found - plain[name].total)) > 1e-3, option
        if name == "kl":
            wanted = kl_divergence(logits, teacher.logits, mask, **{option.removeprefix("kl_"): value})
        elif name == "ce":
            wanted = cross_entropy(logits, inputs["labels"], label_smoothing=value)
        else:
            both = [(states["encoder"][s], teacher.hidden["encoder"][t]) for s, t in ENCODER]
            wanted = hidden_loss(both, inputs["attention_mask"], kind=value)
        torch.testing.assert_close(found, wanted.total)


def test_the_objective_knows_what_it_reads():
    whole = DistillationObjective(PAIRS)
    assert whole.term_names == ("ce", "kl", "hidden_encoder", "hidden_decoder")
    assert (whole.reads_teacher_logits, whole.reads_teacher, whole.final_norm) == (True, True, "excluded")
    assert whole.student_layers == {"encoder": (1, 2), "decoder": (0, 2)}
    assert whole.teacher_layers == {"encoder": (2, 4), "decoder": (1, 3)}
    shared = DistillationObjective({"encoder": [(1, 3), (2, 3), (3, 1)], "decoder": []}, reading="official")
    assert (shared.teacher_layers, shared.final_norm) == ({"encoder": (1, 3)}, "included")
    alone = DistillationObjective(PAIRS, LossWeights(1, 0, 0))
    assert (alone.term_names, alone.reads_teacher, alone.student_layers) == (("ce",), False, {})
    hidden = DistillationObjective(PAIRS, LossWeights(0, 0, 1))
    assert (hidden.reads_teacher_logits, hidden.reads_teacher) == (False, True)
    assert DistillationObjective({}, LossWeights(0, 1, 3)).term_names == ("kl",)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reading": "oficial"}, "no reading 'oficial'; did you mean 'official'"),
        ({"hidden_loss": "msee"}, "no hidden loss 'msee'; did you mean 'mse'"),
        ({"family": "bertt"}, "no official losses for 'bertt'; did you mean 'bert'"),
        ({"kl_direction": "forwards"}, "no KL direction 'forwards'; did you mean 'forward'"),
        ({"temperature": 0.0}, "the temperature is 0.0"),
        ({"temperature": float("inf")}, "the temperature is inf"),
        ({"label_smoothing": 1.0}, "label smoothing is 1.0"),
        ({"label_smoothing": -0.1}, "label smoothing is -0.1"),
        ({"pairs": {}, "weights": LossWeights(0, 0, 1)}, "nothing would be trained"),
    ],
)
def test_what_cannot_be_is_refused(options, message):
    with pytest.raises(InputError, match=message):
        DistillationObjective(**{"pairs": PAIRS, **options})


def test_a_term_without_what_it_needs_is_refused():
    inputs = batch_of("two streams")
    streams, logits, states, teacher = made("two streams")
    unlabelled = {name: value for name, value in inputs.items() if name != "labels"}
    objective = DistillationObjective(streams)
    for ask in (lambda: objective.terms(unlabelled, logits, states, teacher), lambda: objective.counts([unlabelled])):
        with pytest.raises(InputError, match="the cross-entropy needs labels and a batch has none"):
            ask()
    with pytest.raises(InputError, match="the KL loss needs the teacher's logits"):
        objective.terms(inputs, logits, states, TeacherOutputs(None, teacher.hidden))
    with pytest.raises(InputError, match="student logits have shape"):
        objective.terms(inputs, logits, states, TeacherOutputs(teacher.logits[..., 1:], teacher.hidden))
    # Without labels hidden states and KL read every token.
    free = DistillationObjective(streams, LossWeights(0, 1, 1))
    found = free.terms(unlabelled, logits, states, teacher)
    assert int(found["kl"].count) == int(found["hidden_decoder"].count) == BATCH * TIME
    assert {name: int(count) for name, count in free.counts([unlabelled]).items()} == {
        name: int(term.count) for name, term in found.items()
    }


def test_embeddings_may_come_instead_of_ids():
    inputs = {"labels": torch.tensor([0, 2, 1]), "inputs_embeds": drawn(BATCH, TIME, 4, seed=1)}
    objective = DistillationObjective({"encoder": ENCODER})
    counts = objective.counts([inputs])
    assert {name: int(count) for name, count in counts.items()} == {"ce": 3, "kl": 3, "hidden_encoder": BATCH * TIME}
    ids = {"labels": torch.tensor([0, 2, 1]), "input_ids": torch.ones(BATCH, TIME, dtype=torch.int64)}
    assert {name: int(count) for name, count in objective.counts([ids]).items()} == {
        name: int(count) for name, count in counts.items()
    }
    other = {"labels": torch.tensor([0, 2, 1])} | {"pixels": drawn(BATCH, TIME, seed=2)}
    assert int(DistillationObjective({}, LossWeights(1, 1, 0)).counts([other])["kl"]) == BATCH
