"""Choices and answers as lm-evaluation-harness itself scores them, on local tables; skipped without `lm-eval`."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from anglekit.distillation.settings import EncodingSettings, GenerationSettings
from anglekit.distillation.tasks.causal import log_likelihoods
from anglekit.distillation.tasks.registry import task_by_name
from anglekit.distillation.tasks.scores import last_turn_matches
from anglekit.distillation.tasks.task import ScoredModel
from tests.distillation.causal_corpus import write_rows

lm_eval = pytest.importorskip("lm_eval", reason="lm-eval is not installed")

PARTS = ("a man", "stirs the pot", "[header]", " [title]", "slowly,", "two  dogs", "it's", "Zoë", "runs", "12 kg")


def swag_rows(number: int) -> list[dict[str, object]]:
    """Return rows as HellaSwag has them, with WikiHow's marks, double blanks and endings of many lengths."""
    draw = random.Random(0)

    def some(least: int, most: int) -> str:
        return " ".join(draw.choices(PARTS, k=draw.randint(least, most)))

    return [
        {
            "activity_label": draw.choice(("Baking", "Playing chess")),
            "ctx_a": some(1, 4),
            "ctx_b": some(0, 2) if row % 3 else "",
            "endings": [f"{draw.choice(('', ' '))}{some(1, 7)}." for _ in range(4)],
            "label": str(row % 4),
        }
        for row in range(number)
    ]


def byte_tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    """Return byte-level BPE, whose tokens begin with the blank between a prompt and what follows."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet, special = pre_tokenizers.ByteLevel.alphabet(), ["<|endoftext|>"]
    tokenizer.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=330, special_tokens=special, initial_alphabet=alphabet)
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=special[0], pad_token=special[0])


def tiny_qwen3(vocabulary: int) -> Qwen3ForCausalLM:
    """Return a model whose choices differ with their texts."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = Qwen3Config(
            vocab_size=vocabulary,
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=8,
            intermediate_size=32,
            max_position_embeddings=512,
            initializer_range=0.3,
        )
        return Qwen3ForCausalLM(config).eval()


def test_hellaswags_likelihoods_and_scores_are_the_harnesss(tmp_path: Path):
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    rows = swag_rows(40)
    file = write_rows(tmp_path / "swag.jsonl", *rows)
    tokenizer = byte_tokenizer([str(row) for row in rows])
    model = tiny_qwen3(len(tokenizer))
    theirs = Path(lm_eval.__file__).parent / "tasks" / "hellaswag" / "hellaswag.yaml"
    (tmp_path / "local.yaml").write_text(
        f"include: {theirs}\ntask: local_swag\ntag: local\ndataset_path: json\n"
        f"dataset_kwargs:\n  data_files:\n    validation: {file}\ntraining_split: null\n"
    )
    told = lm_eval.simple_evaluate(
        model=HFLM(pretrained=model, tokenizer=tokenizer, batch_size=16, device="cpu"),
        tasks=["local_swag"],
        task_manager=TaskManager(include_path=str(tmp_path), include_defaults=False),
        bootstrap_iters=0,
    )
    samples = sorted(told["samples"]["local_swag"], key=lambda one: one["doc_id"])
    likelihoods = [float(choice[0][0]) for one in samples for choice in one["resps"]]

    task = task_by_name("hellaswag")
    table = task.read(file)
    examples = task.tokenize(table, tokenizer, EncodingSettings(512), model.config, training=False)
    found, _, _ = log_likelihoods(model, examples.scored, task.collator(tokenizer), 16)
    assert found == pytest.approx(likelihoods, abs=1e-4)
    report = task.score_values(examples, ScoredModel(model, tokenizer, 16, GenerationSettings()))
    for ours, name in (("accuracy", "acc"), ("accuracy_normalized", "acc_norm")):
        assert report.examples[ours].tolist() == [one[name] for one in samples]
        assert report.scores[ours] == pytest.approx(told["results"]["local_swag"][f"{name},none"])
    # The two are two measures here, and neither is met by all or none.
    assert len({report.scores[name] for name in ("accuracy", "accuracy_normalized")} | {0.0, 1.0}) == 4


def test_coqas_prompts_answers_and_exact_match_are_the_harnesss(tmp_path: Path):
    coqa = pytest.importorskip(
        "lm_eval.tasks.coqa.utils", reason="lm-eval's CoQA needs an older transformers", exc_type=ModuleNotFoundError
    )
    draw = random.Random(0)
    said = ("the cat", "Cat.", "cat", "a dog", "dog", "no", "in 1932", "No, the dog!", "")
    rows = []
    for number in range(30):
        turns, others = 1 + number % 4, number % 3
        row = {"story": f"story {number}", "questions": {"input_text": [f"question {turn}?" for turn in range(turns)]}}
        row |= {"answers": {"input_text": draw.choices(said[:-1], k=turns)}}
        more = {str(one): {"input_text": draw.choices(said[:-1], k=turns)} for one in range(others)}
        rows.append(row | {"additional_answers": more})
    table = task_by_name("coqa").read(write_rows(tmp_path / "coqa.jsonl", *rows))
    last = np.flatnonzero(table.last_turn)
    assert [table.prompts[turn] for turn in last] == [coqa.doc_to_text(doc) for doc in rows]
    assert [list(table.completions[turn]) for turn in last] == [coqa.doc_to_target(doc) for doc in rows]
    texts = [f" {draw.choice(said)}{draw.choice(('', chr(10) + 'Q: and?'))}" for _ in rows]
    em = [coqa.process_results(doc, [text])["em"] for doc, text in zip(rows, texts, strict=True)]
    assert last_turn_matches(texts, [table.completions[turn] for turn in last]).tolist() == pytest.approx(em)
    assert 0.0 < np.mean(em) < 1.0
