"""The paper's normalisations against loops that spell them out, in float64."""

import numpy as np
import pytest
import torch

from anglekit.distillation.losses.functional import hidden_loss
from anglekit.distillation.losses.objective import DistillationObjective, TeacherOutputs
from anglekit.distillation.losses.official import OFFICIAL, official_decoder_mask, official_hidden_loss
from anglekit.errors import InputError
from anglekit.readings import READING_ITEMS, decisions, reading_rows

FAMILIES = sorted(OFFICIAL)


def states(seed=0, batch=3, time=4, width=5, layers=2):
    generator = torch.Generator().manual_seed(seed)
    shape = (batch, time, width)
    pairs = [
        tuple(torch.randn(shape, generator=generator, dtype=torch.float64) * 2 + 0.5 for _ in range(2))
        for _ in range(layers)
    ]
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 0, 0]])
    return pairs, mask


def oracle(family, pairs, mask):
    """The paper README's sentences, token by token."""
    batch, time = mask.shape
    valid = [(b, x) for b in range(batch) for x in range(time) if mask[b, x]]
    layers = []
    for s, t in ((s.numpy(), t.numpy()) for s, t in pairs):
        if family == "t5":
            s, t = ((h - h.mean()) / np.sqrt(h.var() + 1e-5) for h in (s, t))
        if family == "bert":
            layers.append(sum(np.sum((s[i] - t[i]) ** 2) for i in valid) / len(valid))
        elif family in ("bart", "t5"):
            layers.append(sum(np.mean((s[i] - t[i]) ** 2) for i in valid) / len(valid))
        else:
            u, v = (h / np.linalg.norm(h, axis=-1, keepdims=True) for h in (s, t))
            layers.append(np.mean(np.sum((u - v) ** 2, axis=-1)) * len(valid) / (batch * time))
    if family in ("bert", "causal"):
        return sum(layers) / len(layers) / (batch if family == "bert" else 1)
    return sum(layers)


@pytest.mark.parametrize("family", FAMILIES)
def test_official_hidden_loss_equals_the_papers_sentences(family):
    pairs, mask = states()
    term = official_hidden_loss(pairs, mask, family=family)
    assert term.count == 1
    assert term.mean().item() == pytest.approx(oracle(family, pairs, mask), rel=1e-12)


@pytest.mark.parametrize("family", FAMILIES)
def test_official_readings_differ_from_each_other(family):
    """Negative control: the oracle tells the families apart."""
    pairs, mask = states()
    for other in set(FAMILIES) - {family}:
        value = official_hidden_loss(pairs, mask, family=other).total.item()
        assert value != pytest.approx(oracle(family, pairs, mask), rel=1e-3)


@pytest.mark.parametrize("family", FAMILIES)
def test_gradcheck_of_official_losses(family):
    pairs, mask = states(batch=3, time=4, width=3, layers=1)
    student = pairs[0][0].requires_grad_()
    assert torch.autograd.gradcheck(
        lambda s: official_hidden_loss([(s, pairs[0][1])], mask, family=family).total, (student,)
    )


def test_bart_is_the_corrected_mse_of_one_batch_and_bert_shrinks_with_the_batch():
    pairs, mask = states()
    torch.testing.assert_close(official_hidden_loss(pairs, mask, family="bart").total, hidden_loss(pairs, mask).mean())
    twice = [tuple(torch.cat([x, x]) for x in pair) for pair in pairs]
    once = official_hidden_loss(pairs, mask, family="bert").total
    torch.testing.assert_close(official_hidden_loss(twice, torch.cat([mask, mask]), family="bert").total, once / 2)


@pytest.mark.parametrize(("family", "depends"), [("bert", False), ("bart", False), ("t5", True), ("causal", True)])
def test_which_readings_depend_on_padding(family, depends):
    pairs, mask = states()
    padded = [tuple(torch.nn.functional.pad(x, (0, 0, 0, 3), value=9.0) for x in pair) for pair in pairs]
    wider = torch.nn.functional.pad(mask, (0, 3))
    a = official_hidden_loss(pairs, mask, family=family).total.item()
    b = official_hidden_loss(padded, wider, family=family).total.item()
    assert (a != pytest.approx(b, rel=1e-9)) == depends


def test_micro_batches_average_as_in_the_authors_loops():
    pairs, mask = states()
    parts = [official_hidden_loss([(s[[i]], t[[i]]) for s, t in pairs], mask[[i]], family="bert") for i in range(3)]
    pooled = (parts[0] + parts[1] + parts[2]).mean()
    assert pooled.item() == pytest.approx(sum(p.total.item() for p in parts) / 3)


def test_family_settings_are_the_papers():
    found = {family: decisions("official", family) for family in FAMILIES}
    assert {f: (o.temperature, o.kl_direction, o.kl_positions, o.accumulation) for f, o in found.items()} == {
        "bert": (1.0, "forward", "labels", "averaged"),
        "bart": (1.0, "forward", "decoder-inputs", "averaged"),
        "t5": (2.0, "forward", "decoder-inputs", "averaged"),
        "causal": (1.0, "forward", "all", "summed"),
    }


def test_the_causal_loss_at_the_papers_width_is_455_times_what_means_and_sums_the_other_way_round_give():
    generator = torch.Generator().manual_seed(0)
    pairs = [tuple(torch.randn(1, 2, 4096, generator=generator) for _ in range(2)) for _ in range(9)]
    unit = [tuple(x / x.norm(dim=-1, keepdim=True) for x in pair) for pair in pairs]
    other = sum((s - t).square().mean() for s, t in unit)
    ratio = official_hidden_loss(pairs, None, family="causal").total / other
    assert ratio.item() == pytest.approx(4096 / 9, rel=1e-4)


# ---- whole batches: every term of every family against the README's sentences, token by token ----

_TIME, _CLASSES, _WIDTH = 5, 7, 6
#: Tokens of each row of a source, and of a target.
_LENGTHS, _TARGETS = (5, 3, 2), (4, 2, 5)
_PAD = {"bart": 1, "t5": 0}
#: What the decoder starts with: BART its end-of-text token, T5 its pad token.
_START = {"bart": 2, "t5": 0}


def _decoder_inputs(family):
    """Shift targets to the right as the models do; behind a short row's end its last token is read once more."""
    rows = []
    for length in _TARGETS:
        target = [10 + place for place in range(length)] + [_PAD[family]] * (_TIME - length)
        rows.append([_START[family], *target[:-1]])
    return torch.tensor(rows)


def _batch(family):
    inputs = {
        "input_ids": torch.full((3, _TIME), 3),
        "attention_mask": torch.tensor([[1] * n + [0] * (_TIME - n) for n in _LENGTHS]),
    }
    if family == "bert":
        return inputs | {"labels": torch.tensor([0, 6, 2])}
    if family == "causal":  # a prompt of one token each
        return inputs | {"labels": torch.tensor([[-100] + [4] * (n - 1) + [-100] * (_TIME - n) for n in _LENGTHS])}
    labels = torch.tensor([[4] * n + [-100] * (_TIME - n) for n in _TARGETS])
    return inputs | {"labels": labels, "decoder_input_ids": _decoder_inputs(family)}


def _log_softmax(row, temperature):
    scaled = row / temperature
    return scaled - scaled.max() - np.log(np.exp(scaled - scaled.max()).sum())


def _kl_of(student, teacher, temperature):
    p, q = _log_softmax(teacher, temperature), _log_softmax(student, temperature)
    return temperature**2 * float(np.sum(np.exp(p) * (p - q)))


def _wanted(family, inputs, logits, states, teacher_logits, teacher, pairs):
    """All terms of a batch, each a number, as the README of the facts has them."""
    ours, theirs = logits.numpy(), teacher_logits.numpy()
    mask, labels = inputs["attention_mask"].numpy(), inputs["labels"].numpy()
    if family == "bert":
        entropy = [-_log_softmax(row, 1.0)[label] for row, label in zip(ours, labels, strict=True)]
        divergence = np.mean([_kl_of(a, b, 1.0) for a, b in zip(ours, theirs, strict=True)])
    elif family == "causal":
        rows = [(b, t) for b in range(3) for t in range(_TIME - 1) if labels[b, t + 1] != -100]
        entropy = [-_log_softmax(ours[b, t], 1.0)[labels[b, t + 1]] for b, t in rows]
        every = [_kl_of(ours[b, t], theirs[b, t], 1.0) for b in range(3) for t in range(_TIME)]
        divergence = np.mean(every) * mask.mean()
    else:
        rows = [(b, t) for b in range(3) for t in range(_TIME) if labels[b, t] != -100]
        entropy = [-_log_softmax(ours[row], 1.0)[labels[row]] for row in rows]
        read = [(b, t) for b in range(3) for t in range(_TIME) if inputs["decoder_input_ids"][b, t] != _PAD[family]]
        heat = 2.0 if family == "t5" else 1.0
        divergence = np.mean([_kl_of(ours[row], theirs[row], heat) for row in read])
    terms = {"ce": np.mean(entropy), "kl": divergence}
    for stream, own in pairs.items():
        seen = inputs["attention_mask"]
        if stream == "decoder" and family != "causal":
            seen = inputs["decoder_input_ids"] != _PAD[family]
        both = [(states[stream][s], teacher[stream][t]) for s, t in own]
        terms[f"hidden_{stream}"] = oracle(family, both, seen.int())
    return terms


def _states(layers, seed):
    generator = torch.Generator().manual_seed(seed)
    return {n: torch.randn(3, _TIME, _WIDTH, generator=generator, dtype=torch.float64) * 2 for n in layers}


_MAPS = {
    "forward": {family: [(1, 4), (2, 8)] if family == "causal" else [(0, 0), (1, 4), (2, 8)] for family in FAMILIES},
    # Every student state to one teacher layer, the embedding among them but for language models.
    "all-to-one": {family: [(s, 6) for s in ((1, 2) if family == "causal" else (0, 1, 2))] for family in FAMILIES},
}


@pytest.mark.parametrize("strategy", sorted(_MAPS))
@pytest.mark.parametrize("family", FAMILIES)
def test_every_term_of_a_batch_equals_the_papers_sentences(family, strategy):
    streams = {"bert": ("encoder",), "causal": ("decoder",)}.get(family, ("encoder", "decoder"))
    pairs = dict.fromkeys(streams, _MAPS[strategy][family])
    states = {stream: _states((0, 1, 2), seed) for seed, stream in enumerate(streams)}
    teacher = {stream: _states((0, 4, 6, 8), seed + 5) for seed, stream in enumerate(streams)}
    shape = (3, _CLASSES) if family == "bert" else (3, _TIME, _CLASSES)
    generator = torch.Generator().manual_seed(9)
    logits, theirs = (torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2))
    inputs = _batch(family)
    objective = DistillationObjective(
        pairs, reading="official", family=family, causal=family == "causal", pad_token_id=_PAD.get(family)
    )
    found = objective.terms(inputs, logits, states, TeacherOutputs(theirs, teacher))
    wanted = _wanted(family, inputs, logits, states, theirs, teacher, pairs)
    assert {name: term.mean().item() for name, term in found.items()} == pytest.approx(wanted, rel=1e-6)


def test_the_papers_decoder_positions_are_not_those_of_the_labels():
    """Unequal rows: T5 loses each row's first target, and shorter rows gain a position behind their end."""
    labels = _batch("t5")["labels"] != -100
    t5, bart = (official_decoder_mask(_decoder_inputs(family), _PAD[family]) for family in ("t5", "bart"))
    assert labels.sum(1).tolist() == list(_TARGETS)
    assert bart.sum(1).tolist() == [5, 3, 5]
    assert t5.sum(1).tolist() == [4, 2, 4]
    assert not t5[:, 0].any()


@pytest.mark.parametrize(("family", "shares"), [("bert", (1, 1, 1)), ("causal", (1, 2, 2))])
def test_an_accumulated_step_weighs_its_terms_as_the_papers_loops_do(family, shares):
    """Language models: the cross-entropy is divided by the step's tokens, KL and hidden loss are added up."""
    stream = {"bert": "encoder", "causal": "decoder"}[family]
    objective = DistillationObjective(
        {stream: [(1, 4)]}, reading="official", family=family, causal=family == "causal", pad_token_id=0
    )
    batches = [_batch(family)] * 2
    counts = objective.counts(batches)
    generator = torch.Generator().manual_seed(1)
    shape = (3, _CLASSES) if family == "bert" else (3, _TIME, _CLASSES)
    logits, theirs = (torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2))
    states, teacher = ({stream: _states((1, 4), seed)} for seed in (0, 1))
    once = objective.terms(batches[0], logits, states, TeacherOutputs(theirs, teacher))
    whole = {name: sum(term.mean(counts[name]).item() for _ in batches) for name, term in once.items()}
    alone = {name: term.mean().item() for name, term in once.items()}
    assert [whole[name] / alone[name] for name in once] == pytest.approx(shares)


def test_the_decoder_mask_drops_the_start_token():
    mask = official_decoder_mask(torch.tensor([[0, 5, 6, 0], [0, 7, 0, 0]]), pad_token_id=0)
    assert mask.tolist() == [[False, True, True, False], [False, True, False, False]]


def test_a_family_without_readings_and_an_unknown_reading_are_named():
    with pytest.raises(InputError, match="did you mean 'bart'"):
        decisions("official", "barrt")
    with pytest.raises(InputError, match="did you mean 'official'"):
        decisions("offical", "bart")


def test_the_table_of_readings_says_what_differs():
    titles = {family: {row[0] for row in reading_rows(family)} for family in FAMILIES}
    assert "dropout of the teacher" in titles["bart"] & titles["t5"]
    assert not {"dropout of the teacher"} & (titles["bert"] | titles["causal"])
    assert len(reading_rows()) == len(READING_ITEMS)
    assert all(all(cell for cell in row) for row in reading_rows())


def test_no_pairs_is_zero_and_wrong_input_is_named():
    pairs, mask = states()
    assert official_hidden_loss([], mask, family="t5").mean().item() == 0.0
    with pytest.raises(InputError, match="did you mean 'bert'"):
        official_hidden_loss(pairs, mask, family="brt")
    with pytest.raises(InputError, match="without valid tokens"):
        official_hidden_loss(pairs, mask * 0, family="bert")
