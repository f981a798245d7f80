"""The paper's normalisations against loops that spell them out, in float64."""

import numpy as np
import pytest
import torch

from anglekit.distillation.losses.functional import hidden_loss
from anglekit.distillation.losses.official import OFFICIAL, official_decoder_mask, official_hidden_loss
from anglekit.errors import InputError

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
            layers.append(np.mean((u - v) ** 2) * len(valid) / (batch * time))
    return sum(layers) / len(layers) / batch if family == "bert" else sum(layers)


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
    assert {f: (o.temperature, o.kl_direction, o.kl_on_prompt) for f, o in OFFICIAL.items()} == {
        "bert": (1.0, "forward", False),
        "bart": (1.0, "forward", False),
        "t5": (2.0, "forward", False),
        "causal": (1.0, "reverse", True),
    }


def test_the_decoder_mask_drops_the_start_token():
    mask = official_decoder_mask(torch.tensor([[0, 5, 6, 0], [0, 7, 0, 0]]), pad_token_id=0)
    assert mask.tolist() == [[False, True, True, False], [False, True, False, False]]


def test_no_pairs_is_zero_and_wrong_input_is_named():
    pairs, mask = states()
    assert official_hidden_loss([], mask, family="t5").mean().item() == 0.0
    with pytest.raises(InputError, match="did you mean 'bert'"):
        official_hidden_loss(pairs, mask, family="brt")
    with pytest.raises(InputError, match="without valid tokens"):
        official_hidden_loss(pairs, mask * 0, family="bert")
