"""Causal language models: what is labelled, how choices and texts are scored, and whole runs of the three tasks."""

from __future__ import annotations

import json
import math
from functools import partial

import numpy as np
import pytest
import torch
from transformers import PretrainedConfig

from anglekit.distillation.losses.functional import IGNORE_INDEX
from anglekit.distillation.losses.objective import DistillationObjective
from anglekit.distillation.runs.evaluate import evaluate
from anglekit.distillation.runs.train import finetune
from anglekit.distillation.settings import DataSettings, EncodingSettings, GenerationSettings, ScoringSettings
from anglekit.distillation.tasks.causal import log_likelihoods
from anglekit.distillation.tasks.data import TokenizedExamples
from anglekit.distillation.tasks.models import load_trained
from anglekit.distillation.tasks.multiple_choice import right_choices
from anglekit.distillation.tasks.registry import task_by_name
from anglekit.errors import InputError
from anglekit.probes.encode import encode_completions
from tests.distillation.causal_corpus import (
    FAMILIES,
    causal_student,
    causal_tokenizer,
    make_causal_world,
    write_rows,
)
from tests.distillation.run_corpus import quick
from tests.distillation.scored_examples import assert_examples_give_scores, scored_with_care
from tests.distillation.swept_students import assert_swept_as_alone
from tests.more_cases import more

COMPLETION, CHOICE, TEXT = (task_by_name(name) for name in ("completion", "multiple-choice", "language-model"))


@pytest.fixture(scope="module", params=FAMILIES)
def world(request, tmp_path_factory, tiny_model, tiny_tokenizer, words):
    return make_causal_world(tmp_path_factory.mktemp(request.param), request.param, tiny_model, tiny_tokenizer(), words)


@pytest.fixture
def tokenizer(tiny_tokenizer):
    return causal_tokenizer(tiny_tokenizer())


def ids_of(tokenizer, text):
    return tokenizer(text, add_special_tokens=False)["input_ids"]


# ---- columns and tokens ----


def test_choices_are_right_by_number_letter_or_text(tmp_path):
    rows = [{"question": "a", "choices": ["film", "plot"], "answer": given} for given in (1, "1", "B", "plot")]
    table = CHOICE.read(write_rows(tmp_path / "t.jsonl", *rows))
    assert table.right == (1, 1, 1, 1)
    assert (table.columns, table.prompts[0]) == (("question", "choices", "answer"), "a")
    apart = write_rows(tmp_path / "apart.jsonl", {"prompt": "a", "good": "x", "bad": "y z", "label": 0})
    read = CHOICE.read(apart, DataSettings(choices="good, bad"))
    assert (read.choices, read.columns) == ((("x", "y z"),), ("prompt", "good", "bad", "label"))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "a", "choices": [], "label": 0}, r"has 0 choices in row 1 \(counted from 0\), column 'choices'"),
        ({"prompt": "a", "choices": ["x"], "label": 0}, "has 1 choices in row 1 .* at least 2 choices"),
        ({"prompt": "a", "choices": None, "label": 0}, "has 0 choices in row 1"),
        ({"prompt": "a", "choices": ["x", "y"], "label": 2}, "has label '2' and 2 choices; allowed: 0 to 1, A to B"),
        ({"prompt": "a", "choices": ["x", "y"], "label": None}, "has label None"),
        ({"prompt": "", "choices": ["x", "y"], "label": 0}, "has no prompt in row 1"),
    ],
)
def test_wrong_choices_are_refused(tmp_path, row, message):
    table = write_rows(tmp_path / "t.jsonl", {"prompt": "a", "choices": ["x", "y"], "label": 0}, row)
    with pytest.raises(InputError, match=message):
        CHOICE.read(table)


def test_a_table_without_choices_is_refused(tmp_path):
    table = write_rows(tmp_path / "t.jsonl", {"prompt": "a", "label": 0})
    with pytest.raises(InputError, match=r"no column with a usual name for --choices \(choices, endings"):
        CHOICE.read(table)


def test_hellaswag_and_coqa_become_prompts(tmp_path):
    row = {"activity_label": "Baking", "ctx_a": "A cook stirs [x] it.", "ctx_b": "then she"}
    row |= {"endings": ["a", "b [title] c"]}
    swag = task_by_name("hellaswag").read(write_rows(tmp_path / "h.jsonl", row | {"label": "1"}))
    assert (swag.prompts, swag.choices, swag.right) == (
        ("Baking: A cook stirs it. Then she",),
        (("a", "b. c"),),
        (1,),
    )
    wikihow = write_rows(tmp_path / "w.jsonl", row | {"ctx_b": "", "label": "1"})  # none has a second part
    assert task_by_name("hellaswag").read(wikihow).prompts == ("Baking: A cook stirs it.",)
    talk = {"story": "A cat sat.", "questions": ["Who?", "Why?"], "answers": {"input_text": ["a cat", "unknown"]}}
    coqa = task_by_name("coqa").read(write_rows(tmp_path / "c.jsonl", talk))
    assert coqa.prompts == ("A cat sat.\n\nQ: Who?\n\nA:", "A cat sat.\n\nQ: Who?\n\nA: a cat\n\nQ: Why?\n\nA:")
    assert coqa.completions == (("a cat",), ("unknown",))


def test_the_completion_alone_is_labelled_and_the_end_is_learnt(tmp_path, tokenizer):
    row = {"prompt": "the film was ", "completion": ["good", "bad"]}
    table = COMPLETION.read(write_rows(tmp_path / "t.jsonl", row, {"prompt": "we", "completion": "saw it"}))

    def labels(encoding, *, training=True):
        examples = COMPLETION.tokenize(table, tokenizer, encoding, PretrainedConfig(), training=training)
        return COMPLETION.collator(tokenizer)([examples[index] for index in range(len(examples))])

    batch = labels(EncodingSettings(16))
    bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
    first = [bos, *ids_of(tokenizer, "the film was good"), eos]
    assert batch["input_ids"][0].tolist() == first
    assert batch["labels"][0].tolist() == [IGNORE_INDEX] * 4 + first[4:]
    # The pad token is the end-of-text token, and only the real one is labelled.
    third = [bos, *ids_of(tokenizer, "we saw it"), eos]
    assert batch["input_ids"][2].tolist() == [*third, eos]
    assert batch["labels"][2].tolist() == [IGNORE_INDEX] * 2 + third[2:] + [IGNORE_INDEX]
    assert batch["attention_mask"][2].tolist() == [1] * 5 + [0]
    assert len(labels(EncodingSettings(16), training=False)["labels"]) == 2
    assert (labels(EncodingSettings(16, loss_on_prompt=True))["labels"] == IGNORE_INDEX).sum() == 1


def test_a_long_prompt_loses_its_beginning_and_a_long_completion_is_refused(tmp_path, tokenizer):
    rows = {"prompt": "a film was good and bad", "completion": "but dull"}
    table = COMPLETION.read(write_rows(tmp_path / "t.jsonl", rows))
    examples = COMPLETION.tokenize(table, tokenizer, EncodingSettings(6), PretrainedConfig(), training=True)
    expected = [tokenizer.bos_token_id, *ids_of(tokenizer, "and bad but dull"), tokenizer.eos_token_id]
    assert examples[0] == {"input_ids": expected, "unlabelled": 3}
    message = r"t.jsonl, row 0 \(counted from 0\), has a completion of 3 tokens; the maximal length is 3 .*--max-le"
    with pytest.raises(InputError, match=message):
        COMPLETION.tokenize(table, tokenizer, EncodingSettings(3), PretrainedConfig(), training=True)


def test_texts_are_read_in_windows_that_predict_each_token_once(tmp_path, tokenizer):
    table = TEXT.read(write_rows(tmp_path / "t.jsonl", {"text": "a film was good and bad"}, {"text": "we saw it"}))
    examples = TEXT.tokenize(table, tokenizer, EncodingSettings(4), PretrainedConfig(), training=True)
    windows = [examples[index]["input_ids"] for index in range(len(examples))]
    predicted = [token for window in windows for token in window[1:]]
    eos = tokenizer.eos_token_id
    assert predicted == [*ids_of(tokenizer, "a film was good and bad"), eos, *ids_of(tokenizer, "we saw it"), eos]
    assert max(map(len, windows)) == 4


def test_a_tokenizer_without_any_token_to_pad_with_is_refused(tmp_path, tokenizer):
    table = TEXT.read(write_rows(tmp_path / "t.jsonl", {"text": "a film"}))
    tokenizer.eos_token = None
    with pytest.raises(InputError, match=r"no pad token and no end-of-text token .* set one .* and save it again"):
        TEXT.tokenize(table, tokenizer, EncodingSettings(4), PretrainedConfig(), training=True)


def test_an_empty_prompt_is_predicted_from_the_begin_of_text(tokenizer):
    ids, lengths = encode_completions(tokenizer, ["", "a "], ["film", " film"], ends=False)
    bos = tokenizer.bos_token_id
    assert ids == [[bos, *ids_of(tokenizer, "film")], [bos, *ids_of(tokenizer, "a film")]]
    assert lengths == [1, 2]


# ---- scores ----


def test_choices_are_scored_as_the_harness_defines_it():
    likelihoods = np.array([-4.0, -6.0, -3.0, -1.0])
    choices = (("ab", "abcdef"), ("x", "y"))
    # Raw, the short one wins with -4; per character, the long one with -1 against -2.
    for right, raw, normalized in (((0, 1), [True, True], [False, True]), ((1, 1), [False, True], [True, True])):
        found = right_choices(likelihoods, choices, right)
        assert (found["accuracy"].tolist(), found["accuracy_normalized"].tolist()) == (raw, normalized)


def test_log_likelihoods_equal_a_sum_over_tokens_and_ignore_padding(world):
    loaded = load_trained(world["teacher"], CHOICE)
    table = CHOICE.read(world["dev"])
    examples = CHOICE.tokenize(table, loaded.tokenizer, EncodingSettings(32), loaded.model.config, training=False)
    sums, counts, right = log_likelihoods(loaded.model, examples.scored, CHOICE.collator(loaded.tokenizer), 7)
    assert len(sums) == 3 * len(table)
    for index in range(9):
        one = examples.scored[index]
        with torch.no_grad():
            logs = loaded.model(torch.tensor([one["input_ids"]])).logits[0].double().log_softmax(-1)
        places = range(one["unlabelled"], len(one["input_ids"]))
        assert counts[index] == len(places) == 1
        assert right[index] == sum(int(logs[p - 1].argmax()) == one["input_ids"][p] for p in places)
        assert sums[index] == pytest.approx(sum(logs[p - 1, one["input_ids"][p]].item() for p in places), abs=1e-4)


def test_perplexity_weighs_tokens_not_texts(world):
    loaded = load_trained(world["teacher"], TEXT)
    table = TEXT.read(world["dev"])
    examples = TEXT.tokenize(table, loaded.tokenizer, EncodingSettings(32), loaded.model.config, training=False)
    report = TEXT.score(loaded.model, examples, loaded.tokenizer, batch_size=4)
    losses, tokens = [], []
    for index in range(len(examples)):
        ids = torch.tensor([examples[index]["input_ids"]])
        with torch.no_grad():
            losses.append(loaded.model(ids, labels=ids).loss.item())
        tokens.append(ids.shape[1] - 1)
    assert report.scores["examples"] == 19
    assert report.scores["perplexity"] == pytest.approx(math.exp(np.average(losses, weights=tokens)), rel=1e-4)
    assert report.scores["perplexity"] != pytest.approx(math.exp(np.mean(losses)), rel=1e-4)


def test_texts_generated_together_are_those_generated_alone(world):
    loaded = load_trained(world["teacher"], COMPLETION)
    prompts = TokenizedExamples({"input_ids": [[5, 6], [7, 8, 9, 10], [11], list(range(4, 16))]})
    settings = GenerationSettings(1, 5)
    together = COMPLETION.continuations(loaded.model, loaded.tokenizer, prompts, 4, settings)
    assert together == COMPLETION.continuations(loaded.model, loaded.tokenizer, prompts, 1, settings)
    assert len(set(together)) > 1
    with pytest.raises(InputError, match="--max-new-tokens is 64 and the model reads 64 in all"):
        COMPLETION.continuations(loaded.model, loaded.tokenizer, prompts, 4, GenerationSettings(1, 64))


# ---- losses and runs ----


@pytest.mark.parametrize(("on_prompt", "wide"), [(None, False), (True, True), (False, False)])
def test_kl_reads_the_prompt_on_request(world, on_prompt, wide):
    loaded = load_trained(world["teacher"], COMPLETION)
    table = COMPLETION.read(world["dev"])
    examples = COMPLETION.tokenize(table, loaded.tokenizer, EncodingSettings(32), loaded.model.config, training=True)
    batch = COMPLETION.collator(loaded.tokenizer)([examples[index] for index in range(4)])
    objective = DistillationObjective(kl_on_prompt=on_prompt, **COMPLETION.objective_options(loaded.tokenizer))
    counts = objective.counts([batch])
    completion = int((batch["labels"] != IGNORE_INDEX).sum())
    assert int(counts["ce"]) == completion == 8
    assert int(counts["kl"]) == (int(batch["attention_mask"].sum()) - 4 if wide else completion)


@pytest.mark.parametrize(
    ("world", "task"),
    [
        ("gpt2", "completion"),
        ("llama", "multiple-choice"),
        *(pytest.param("gpt2", "multiple-choice", marks=more), pytest.param("llama", "completion", marks=more)),
        *(pytest.param("qwen3", task, marks=more) for task in ("completion", "multiple-choice")),
    ],
    indirect=["world"],
)
def test_fine_tuning_learns(world, tmp_path, task):
    result = finetune(
        world["teacher"],
        task=task,
        train=world["train"],
        validation=[f"own={world['train']}"],
        out=tmp_path / "run",
        settings=quick(max_steps=150, learning_rate=5e-3, max_new_tokens=3, evaluate_every=50, select="best"),
    )
    before = evaluate(
        [world["teacher"]], task=task, data=[f"own={world['train']}"], scoring=ScoringSettings(max_new_tokens=3)
    )
    name = task_by_name(task).selection_score
    assert result.scores[name][0] > before.scores[name][0] + 0.2


def test_the_best_perplexity_is_the_smallest(world, tmp_path):
    settings = quick(max_steps=60, learning_rate=3e-2, evaluate_every=10, select="best")
    result = finetune(
        world["teacher"],
        task="language-model",
        train=world["train"],
        validation=[world["dev"]],
        out=tmp_path / "run",
        settings=settings,
    )
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    seen = {line["step"]: line["eval_perplexity"] for line in lines if "eval_perplexity" in line}
    assert seen[result.selected_step] == min(seen.values()) < max(seen.values())
    assert result.scores["perplexity"][0] == pytest.approx(min(seen.values()))


@pytest.mark.parametrize("task", ["completion", "multiple-choice", "language-model"])
def test_a_reloaded_student_scores_the_same(world, tmp_path, task):
    result = causal_student(world, tmp_path / "run", task=task, init="teacher")
    again = evaluate([result.directory], task=task, data=[world["dev"]], scoring=ScoringSettings(max_new_tokens=3))
    assert again.scores.drop(columns="checkpoint").to_dict("records") == result.scores.to_dict("records")


@pytest.mark.parametrize(
    ("world", "task", "reading", "init"),
    [
        ("qwen3", "completion", "corrected", "teacher"),
        ("gpt2", "language-model", "official", "random"),
        *(pytest.param(name, "completion", "corrected", "teacher", marks=more) for name in ("gpt2", "llama")),
        *(pytest.param(name, "language-model", "official", "random", marks=more) for name in ("qwen3", "llama")),
    ],
    indirect=["world"],
)
def test_swept_students_equal_their_own_runs(world, tmp_path, task, reading, init):
    settings = quick(max_new_tokens=3, accumulation=2, max_steps=3)
    grid = {"task": task, "strategies": ("forward", "all-to-one"), "init": init}
    alone = partial(causal_student, task=task)
    assert_swept_as_alone(world, tmp_path, alone, settings=settings, reading=reading, **grid)


@pytest.mark.parametrize("task", [COMPLETION, CHOICE, TEXT], ids=lambda task: task.name)
def test_what_each_example_adds_gives_the_scores(world, task):
    loaded = load_trained(world["teacher"], task)
    report = scored_with_care(task, loaded, world["dev"], GenerationSettings(1, 3))
    assert_examples_give_scores(report, task.scores)


def test_an_example_of_plain_text_is_a_text_whatever_its_windows(world):
    """The same text in one window and in several: its tokens are counted once, and so are the texts."""
    loaded = load_trained(world["teacher"], TEXT)
    table = TEXT.read(world["dev"])
    counts = []
    for length in (32, 4):
        encoding = EncodingSettings(length)
        examples = TEXT.tokenize(table, loaded.tokenizer, encoding, loaded.model.config, training=False)
        report = TEXT.score(loaded.model, examples, loaded.tokenizer, batch_size=4)
        assert_examples_give_scores(report, ("perplexity",))
        counts.append(report.examples["perplexity:tokens"].tolist())
    assert len(examples) > len(table)
    assert counts[0] == counts[1]


def test_chance_of_choices_is_the_commonest_place_of_the_right_one(world):
    loaded = load_trained(world["teacher"], CHOICE)
    table = CHOICE.read(world["dev"])
    examples = CHOICE.tokenize(table, loaded.tokenizer, EncodingSettings(32), loaded.model.config, training=False)
    share = max(table.right.count(place) for place in set(table.right)) / len(table)
    assert CHOICE.chance(examples) == {"accuracy": share, "accuracy_normalized": share}
    assert TEXT.chance(examples) == {}
