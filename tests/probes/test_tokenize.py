"""Probes of causal models with targets: what is read, what counts, and that padding and batches do not matter."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import torch

from anglekit.analysis.analyze import analyze
from anglekit.analysis.settings import AnalysisSettings
from anglekit.errors import InputError
from anglekit.models.checkpoints import load_checkpoint
from anglekit.probes.data import ProbeData, read_probe
from anglekit.probes.tokenize import tokenize_continued_probe, tokenize_probe
from anglekit.states.recorder import LayerRecorder, token_states

TEXTS = ("the film was", "we saw it and liked", "a cast")
TARGETS = ("good", "the bright plot", "")


def probe(texts=TEXTS, targets=TARGETS, pairs=None):
    rows = tuple(range(len(texts)))
    return ProbeData("memory", "0" * 64, texts, pairs, targets, rows, 0, "text", None, "target")


@pytest.fixture
def tokenizer(tiny_tokenizer):
    made = tiny_tokenizer()
    made.add_special_tokens({"eos_token": "[SEP]", "bos_token": "[CLS]"})
    return made


@pytest.mark.parametrize(("prompts_count", "special"), [(True, True), (True, False), (False, True)])
def test_text_and_target_are_one_sequence_and_what_counts_is_chosen(tokenizer, prompts_count, special):
    tokens = tokenize_continued_probe(probe(), tokenizer, prompts_count=prompts_count, keep_special_tokens=special)
    assert (tokens.skipped_examples, tokens.n_examples) == (1, 2)
    expected = {
        row: [2, *tokenizer(f"{TEXTS[row]} {TARGETS[row]}", add_special_tokens=False)["input_ids"]] for row in (0, 1)
    }
    counting = {(True, True): (5, 9), (True, False): (4, 8), (False, True): (1, 3)}[prompts_count, special]
    for batch in tokens.batches():
        for place, row in enumerate(batch.examples.tolist()):
            read = batch.input_ids[place][: len(expected[row])].tolist()
            assert read == expected[row]
            assert int((batch.token_example("decoder") == place).sum()) == counting[row]


def test_a_long_sequence_loses_the_beginning_of_its_text(tokenizer):
    tokens = tokenize_continued_probe(probe(), tokenizer, prompts_count=True, max_length=5)
    rows = {
        int(batch.examples[0]): batch.input_ids[0].tolist() for batch in tokens.batches() if len(batch.examples) == 1
    }
    ids = tokenizer("and liked the bright plot", add_special_tokens=False)["input_ids"]
    found = [row for batch in tokens.batches() for row in batch.input_ids.tolist()]
    assert ids in found, rows
    assert tokens.lost_tokens.tolist() == [0, 4]


@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        (probe(targets=None), {}, "has no target column, and --prompt-reading needs one"),
        (probe(pairs=TEXTS), {}, "holds pairs of texts"),
        (probe(targets=("", "", "")), {}, "no example with a target left"),
        (probe(), {"max_length": 1}, "leaves no room for a prompt"),
        (probe(), {"token_budget": 0}, "too small"),
    ],
)
def test_wrong_probes_are_refused(tokenizer, data, options, message):
    with pytest.raises(InputError, match=message):
        tokenize_continued_probe(data, tokenizer, prompts_count=True, **options)


@pytest.fixture
def pair(tmp_path, save_tiny, tokenizer):
    return [
        load_checkpoint(str(save_tiny(tmp_path / f"m{seed}", "qwen3", tokenizer=tokenizer, depth=3 - seed, seed=seed)))
        for seed in (0, 1)
    ]


def test_angles_at_the_targets_tokens_alone_do_not_depend_on_batches(pair):
    def angles(prompts, budget=4096, targets=TARGETS):
        settings = AnalysisSettings(prompts=prompts, token_budget=budget, nulls="none", similarity="none")
        return analyze(pair[0], pair[1:], probe(targets=targets), settings).angles

    together, apart = angles("excluded"), angles("excluded", 1)
    assert together["n_tokens"].unique().tolist() == [4]
    pd.testing.assert_frame_equal(together, apart, rtol=1e-5, atol=1e-6)
    assert angles("included")["n_tokens"].unique().tolist() == [14]
    # Another target is another probe; without it the prompts are the same.
    other = ("dull", "the bad plot", "")
    column = "mean_cosine"
    assert not np.allclose(angles("excluded", targets=other)[column], together[column], atol=1e-4)
    np.testing.assert_allclose(angles("alone", targets=other)[column], angles("alone")[column])


def test_a_states_position_is_that_of_its_token(pair):
    tokens = tokenize_continued_probe(probe(), pair[0].tokenizer, prompts_count=False)
    recorder = LayerRecorder(pair[0].model, {"decoder": (0, 2)})
    for batch in tokens.batches():
        with recorder:
            found = token_states(recorder, batch)["decoder"].states
        with torch.no_grad():
            embedded = pair[0].model.get_input_embeddings()(batch.input_ids).flatten(0, 1)
        index = batch.token_index("decoder")
        torch.testing.assert_close(found[0], embedded[index])


def test_excluded_prompts_are_for_causal_models_only(tmp_path, save_tiny):
    models = [load_checkpoint(str(save_tiny(tmp_path / f"t{seed}", "t5", seed=seed))) for seed in (0, 1)]
    with pytest.raises(
        InputError, match=r"--prompt-reading excluded is for causal language models and .* encoder and decoder"
    ):
        analyze(models[0], models[1:], probe(), AnalysisSettings(prompts="excluded"))
    with pytest.raises(InputError, match="prompts is 'exluded'; did you mean 'excluded'"):
        AnalysisSettings(prompts="exluded")


def test_a_named_target_is_read_from_the_table(tmp_path):
    file = tmp_path / "t.jsonl"
    file.write_text(
        "".join(json.dumps({"prompt": a, "completion": b}) + "\n" for a, b in zip(TEXTS, TARGETS, strict=True))
    )
    read = read_probe(str(file), text="prompt", target="completion")
    assert (read.targets, read.target_column) == (TARGETS, "completion")


def test_examples_of_which_the_models_read_the_same_are_one_cluster(tokenizer):
    """Case, truncation and padding can make texts alike; another target, or another second text, tells them apart."""
    texts = ("the film was good", "a cast", "the film was good", "the film was bright", "a  cast", "a cast")
    targets = ("good", "we saw", "good", "good", "we saw", "it")

    def clusters(**given):
        rows, pairs = (3, 4, 5, 6, 7, 9), given.pop("pairs", None)
        data = ProbeData("memory", "0" * 64, texts, pairs, targets, rows, 0, "text", None, "target")
        options = {"needs_target": False, "max_length": None, **given}
        return tokenize_probe(data, tokenizer, **options).clusters.tolist()

    assert clusters() == [3, 4, 3, 6, 4, 4]
    assert clusters(max_length=5) == [3, 4, 3, 3, 4, 4]  # both special tokens, and the first three words
    assert clusters(needs_target=True, decoder_start_token_id=1) == [3, 4, 3, 6, 4, 9]
    assert clusters(pairs=("a", "a", "it", "a", "a", "a")) == [3, 4, 5, 6, 4, 4]
    continued = ProbeData("memory", "0" * 64, texts, None, targets, tuple(range(6)), 0, "text", None, "target")
    assert tokenize_continued_probe(continued, tokenizer, prompts_count=True).clusters.tolist() == [0, 1, 0, 3, 1, 5]
