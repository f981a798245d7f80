"""Sequence to sequence: columns, losses on the target alone, generation, scores, reloaded and swept students."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, PretrainedConfig

from anglekit.distillation.losses.objective import DistillationObjective
from anglekit.distillation.matching.plan import DistillationPlan
from anglekit.distillation.runs.evaluate import evaluate
from anglekit.distillation.runs.train import finetune
from anglekit.distillation.settings import DataSettings, EncodingSettings, GenerationSettings, ScoringSettings
from anglekit.distillation.tasks.generation import generate_texts
from anglekit.distillation.tasks.models import load_trained
from anglekit.distillation.tasks.registry import task_by_name
from anglekit.distillation.tasks.scores import corpus_scores, exact_matches, normalized_exact_matches
from anglekit.distillation.training.teacher import TeacherForward
from anglekit.errors import InputError
from anglekit.models.checkpoints import load_checkpoint
from tests.distillation.run_corpus import quick
from tests.distillation.scored_examples import assert_examples_give_scores, scored_with_care
from tests.distillation.seq2seq_corpus import FAMILIES, make_seq2seq_world, seq2seq_student
from tests.distillation.swept_students import assert_swept_as_alone
from tests.more_cases import more, of_families

TASK = task_by_name("seq2seq")


@pytest.fixture(scope="module", params=FAMILIES)
def world(request, tmp_path_factory, tiny_model, tiny_tokenizer, words):
    family = request.param
    made = make_seq2seq_world(tmp_path_factory.mktemp(family), family, tiny_model, tiny_tokenizer(), words)
    return made | {"family": family}


def rows(path, *values):
    path.write_text("".join(json.dumps(value) + "\n" for value in values), encoding="utf-8")
    return str(path)


# ---- columns ----


def test_columns_are_found_named_and_reached_into(tmp_path):
    table = rows(tmp_path / "t.jsonl", {"text": "a", "translation": {"en": "one", "ro": ["unu", "un"]}, "target": "b"})
    usual = TASK.read(rows(tmp_path / "usual.jsonl", {"text": "a", "target": "b"}))
    with pytest.raises(InputError, match=r"holds translations .*, and which one is the source is not said"):
        TASK.read(table)
    assert (usual.sources, usual.targets, usual.columns) == (("a",), (("b",),), ("text", "target"))
    known = task_by_name("wmt16-en-ro").read(table)
    assert known.sources == ("translate English to Romanian: one",)
    assert known.targets == (("unu", "un"),)
    named = TASK.read(table, DataSettings(source="translation.en", target="text", prefix="say: "))
    assert (named.sources, named.targets) == (("say: one",), (("a",),))
    assert named.provenance()["prefix"] == "say: "


@pytest.mark.parametrize(
    ("row", "settings", "message"),
    [
        ({"source": "a", "target": ""}, {}, r"has 0 target in row 1 \(counted from 0\), column 'target'"),
        ({"source": None, "target": "b"}, {}, "has no source in row 1"),
        ({"source": "a", "target": [3]}, {}, "row 1 .* holds int '3', not text"),
        ({"source": "a", "target": "b"}, {"target": "tagret"}, "no column 'tagret' for --target"),
        ({"source": "a", "target": "b"}, {"target": "source"}, "both name column 'source'"),
        ({"source": "a", "target": "b"}, {"source": "source.en"}, "no column 'source.en' for --source"),
    ],
)
def test_wrong_columns_are_refused(tmp_path, row, settings, message):
    table = rows(tmp_path / "t.jsonl", {"source": "a", "target": "b"}, row)
    with pytest.raises(InputError, match=message):
        TASK.read(table, DataSettings(**settings))


# ---- tokens and losses ----


def test_every_reference_is_trained_on_and_the_first_one_validated(tmp_path, tiny_tokenizer):
    table = TASK.read(rows(tmp_path / "t.jsonl", {"source": "a film", "target": ["the plot", "bad"]}))
    tokenizer = tiny_tokenizer()
    usable = EncodingSettings(16)
    trained = TASK.tokenize(table, tokenizer, usable, PretrainedConfig(), training=True)
    scored = TASK.tokenize(table, tokenizer, usable, PretrainedConfig(), training=False)
    ids = tokenizer(["a film", "the plot", "bad"])["input_ids"]
    assert [trained[0], trained[1]] == [{"input_ids": ids[0], "labels": one} for one in ids[1:]]
    assert (len(trained), len(scored), trained.lengths) == (2, 1, [8, 7])


def test_a_target_that_is_too_long_is_refused_unless_it_may_be_cut(tmp_path, tiny_tokenizer):
    table = TASK.read(
        rows(tmp_path / "t.jsonl", {"source": "a", "target": "bad"}, {"source": "a", "target": "a " * 70})
    )
    tokenizer = tiny_tokenizer()
    message = (
        r"has a target of 72 tokens in row 1 \(counted from 0\), column 'target'; the model allows 64: .*--target-max"
    )
    with pytest.raises(InputError, match=message):
        TASK.tokenize(table, tokenizer, EncodingSettings(16), PretrainedConfig(), training=True)
    cut = TASK.tokenize(table, tokenizer, EncodingSettings(16, 10), PretrainedConfig(), training=True)
    assert cut.lengths == [3 + 3, 3 + 10]
    with pytest.raises(InputError, match="--target-max-length is 65; allowed for this model: 2 to 64"):
        TASK.encoding(EncodingSettings(None, 65), tokenizer, PretrainedConfig())
    tokenizer.pad_token, tokenizer.name_or_path = None, "my-bart"
    with pytest.raises(InputError, match="the tokenizer of my-bart has no pad token; set one"):
        TASK.tokenize(table, tokenizer, EncodingSettings(16, 10), PretrainedConfig(), training=True)


def test_no_loss_depends_on_padding(world):
    """Each example alone and all of them in one padded batch have the same sums; a wrong mask has not."""
    loaded = load_trained(world["teacher"], TASK)
    model, tokenizer = loaded.model, loaded.tokenizer
    table = TASK.read(world["dev"])
    examples = TASK.tokenize(table, tokenizer, EncodingSettings(16), model.config, training=True)
    collate = TASK.collator(tokenizer)
    pairs = {"encoder": ((0, 0), (1, 3)), "decoder": ((0, 0), (2, 4))}
    objective = DistillationObjective(pairs, **TASK.objective_options(tokenizer))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        student = type(model)(model.config).eval()
    forwards = [TeacherForward(one, {"encoder": (0, 1, 3), "decoder": (0, 2, 4)}) for one in (student, model)]

    def sums(chosen):
        batch = dict(collate([examples[index] for index in chosen]))
        batch["decoder_input_ids"] = model.prepare_decoder_input_ids_from_labels(labels=batch["labels"])
        ours, theirs = (forward(batch) for forward in forwards)
        return objective.terms(batch, ours.logits, ours.hidden, theirs)

    together, apart = sums(range(5)), [sums([index]) for index in range(5)]
    for name, term in together.items():
        torch.testing.assert_close(term.total, sum(one[name].total for one in apart), rtol=2e-4, atol=1e-4)
    targets = sum(len(examples[index]["labels"]) for index in range(5))
    assert [int(together[name].count) for name in ("ce", "kl", "hidden_decoder")] == [targets] * 3
    assert int(together["hidden_encoder"].count) == sum(len(examples[index]["input_ids"]) for index in range(5))


@of_families("bart", others=("t5", "marian"))
def test_a_stream_can_be_switched_off(world, tmp_path):
    result = seq2seq_student(world, tmp_path / "run", match_streams=("decoder",))
    plan = DistillationPlan.from_json(json.loads((tmp_path / "run" / "plan.json").read_text()))
    assert {one.stream: one.strategy for one in plan.matchings} == {"encoder": "none", "decoder": "forward"}
    assert plan.strategy == "forward"
    first = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[0])
    assert "loss_hidden" in first
    assert load_checkpoint(result.checkpoint).training.taught_by["encoder"] == {}
    with pytest.raises(InputError, match="--match-streams names 'decodr'; did you mean 'decoder'"):
        seq2seq_student(world, tmp_path / "other", match_streams=("decodr",))


# ---- scores ----


def test_scores_are_sacrebleus_own_and_say_so():
    texts, references = ["the cat sat on the mat", "a dog"], [["the cat sat on the mat", "it sat"], ["a dog"]]
    found = corpus_scores(("bleu", "chrf"), texts, references)
    assert found.values == pytest.approx({"bleu": 100.0, "chrf": 100.0})
    assert found.signatures["bleu"].startswith("nrefs:var|case:mixed|eff:no|tok:13a|smooth:exp|version:")
    worse = corpus_scores(("bleu",), ["the cat sat on a mat", "a dog"], references).values
    # Precisions 7/8, 4/6, 2/4 and 1/3, no brevity penalty.
    assert worse["bleu"] == pytest.approx(100 * (7 / 8 * 4 / 6 * 2 / 4 * 1 / 3) ** 0.25)
    with pytest.raises(InputError, match="give one text for each"):
        corpus_scores(("bleu",), ["a"], references)


def test_exact_match():
    assert exact_matches([" yes", "No"], [["yes"], ["no", "none"]]).tolist() == [True, False]
    assert normalized_exact_matches([" yes", "The no!"], [["Yes."], ["none", "no"]]).tolist() == [True, True]
    assert normalized_exact_matches(["yes no"], [["no yes"]]).tolist() == [False]


def test_generation_is_the_models_own_and_no_habit_of_its_changes_it(world):
    loaded = load_trained(world["teacher"], TASK)
    own = loaded.model.generation_config
    examples = TASK.tokenize(
        TASK.read(world["dev"]), loaded.tokenizer, EncodingSettings(16), loaded.model.config, training=False
    )
    settings = GenerationSettings(3, 7)
    loaded.model.train()
    texts = generate_texts(loaded.model, loaded.tokenizer, examples, 5, settings, loaded.tokenizer.pad_token_id)
    assert loaded.model.training
    assert loaded.model.generation_config is own
    loaded.model.eval()
    own.update(no_repeat_ngram_size=0, min_length=0)
    for index, text in enumerate(texts):
        ids = torch.tensor([examples[index]["input_ids"]])
        found = loaded.model.generate(input_ids=ids, num_beams=3, max_new_tokens=7, do_sample=False)
        assert text == loaded.tokenizer.decode(found[0], skip_special_tokens=True).strip()


def test_a_text_ends_where_the_decoders_positions_do(world, tmp_path):
    """T5's are relative and have no end; BART and Marian have 64."""
    loaded = load_trained(world["teacher"], TASK)
    chosen = TASK.generation(GenerationSettings(1), loaded.tokenizer, loaded.model.config)
    bounded = loaded.model.config.model_type != "t5"
    assert chosen.max_new_tokens == (64 if bounded else 128)
    examples = TASK.tokenize(
        TASK.read(world["dev"]), loaded.tokenizer, EncodingSettings(32), loaded.model.config, training=False
    )
    # An untrained model writes on and on, to the last position.
    written = generate_texts(loaded.model, loaded.tokenizer, examples, 13, chosen, loaded.tokenizer.pad_token_id)
    assert len(written) == 13
    if bounded:
        with pytest.raises(InputError, match="--max-new-tokens is 65; this model writes 1 to 64"):
            seq2seq_student(world, tmp_path / "run", settings=quick(max_new_tokens=65))
        assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"beams": 0}, "beams is 0; allowed: at least 1"),
        ({"max_new_tokens": 0}, "max_new_tokens is 0"),
        ({"length_penalty": float("nan")}, "length_penalty is nan"),
        ({"target_max_length": 1}, "target_max_length is 1"),
    ],
)
def test_settings_are_checked_before_anything_is_read(change, message):
    with pytest.raises(InputError, match=message):
        quick(**change)
    with pytest.raises(InputError, match=message):
        evaluate(["nowhere"], task="seq2seq", data=["nothing.jsonl"], scoring=ScoringSettings(**change))


def test_the_wrong_kind_of_model_is_refused(world, tmp_path, save_tiny):
    bert = save_tiny(tmp_path / "bert", "bert")
    with pytest.raises(InputError, match=r"task seq2seq needs an encoder-decoder and .* is a bert model with encoder"):
        seq2seq_student(world | {"teacher": str(bert)}, tmp_path / "run")
    assert not (tmp_path / "run").exists()


# ---- whole runs ----


@of_families("bart")  # one family learns it in the time of a test
def test_fine_tuning_learns_and_a_wrong_target_scores_less(world, tmp_path):
    lines = [json.loads(line) for line in Path(world["dev"]).read_text().splitlines()]
    wrong = rows(tmp_path / "wrong.jsonl", *({"source": one["source"], "target": one["source"]} for one in lines))
    result = finetune(
        world["teacher"],
        task="seq2seq",
        train=world["train"],
        validation=[world["dev"], wrong],
        out=tmp_path / "run",
        settings=quick(max_steps=300, learning_rate=3e-3, beams=1, max_new_tokens=8, evaluate_every=100, select="best"),
    )
    own, other = result.scores["bleu"]
    assert own > 30 > 2 * other
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert max(line.get("eval_bleu", 0) for line in lines) == pytest.approx(own)


def lengths(run):
    settings = json.loads((run / "run_config.json").read_text())["settings"]
    return {name: settings[name] for name in ("max_length", "target_max_length") if settings[name] is not None}


def test_a_reloaded_student_generates_the_same_and_its_ties_hold(world, tmp_path):
    result = seq2seq_student(world, tmp_path / "run", init="teacher")
    stored = json.loads((tmp_path / "run" / "scores.json").read_text())
    assert stored["scoring"]["dev"]["generation"] == {"beams": 2, "max_new_tokens": 8, "length_penalty": 1.0}
    assert stored["scoring"]["dev"]["signatures"]["bleu"].startswith("nrefs:1|case:mixed")
    again = evaluate([result.directory], task="seq2seq", data=[world["dev"]])
    assert again.scores[["bleu", "chrf"]].to_dict("records") == result.scores[["bleu", "chrf"]].to_dict("records")
    assert again.scoring == stored["scoring"]
    assert again.settings == {str(result.directory): {"beams": 2, "max_new_tokens": 8, **lengths(tmp_path / "run")}}
    # What is asked for counts more than the run, and its checkpoint by itself is any checkpoint.
    other = evaluate(
        [result.directory], task="seq2seq", data=[world["dev"]], scoring=ScoringSettings(beams=1, max_new_tokens=3)
    )
    assert other.scoring["dev"]["generation"] == {"beams": 1, "max_new_tokens": 3, "length_penalty": 1.0}
    assert not {"beams", "max_new_tokens"} & set(other.settings[str(result.directory)])
    bare = evaluate([result.checkpoint], task="seq2seq", data=[world["dev"]], scoring=ScoringSettings(max_new_tokens=8))
    assert bare.scoring["dev"]["generation"]["beams"] != 2
    assert bare.settings == {}
    model, report = AutoModelForSeq2SeqLM.from_pretrained(result.checkpoint, output_loading_info=True)
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    ties = {model.get_encoder().embed_tokens.weight.data_ptr(), model.get_decoder().embed_tokens.weight.data_ptr()}
    assert ties | {model.get_output_embeddings().weight.data_ptr()} == {model.get_input_embeddings().weight.data_ptr()}
    assert len(AutoTokenizer.from_pretrained(result.checkpoint)) == 24


@of_families("t5")  # other families have no such bias
def test_a_copied_t5_keeps_the_block_of_its_position_bias(world, tmp_path):
    result = seq2seq_student(world, tmp_path / "run", init="teacher", settings=quick(seed=3, learning_rate=1e-12))
    ours, theirs = (load_file(Path(one) / "model.safetensors") for one in (result.checkpoint, Path(world["teacher"])))
    for stream in ("encoder", "decoder"):
        name = f"{stream}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
        torch.testing.assert_close(ours[name], theirs[name])
    with pytest.raises(InputError, match="needs block 0 first"):
        seq2seq_student(world, tmp_path / "b", init="teacher", copy_blocks={"encoder": (1, 3), "decoder": (0, 3)})


@pytest.mark.parametrize(
    ("world", "reading", "init"),
    [
        ("t5", "corrected", "teacher"),
        ("marian", "official", "random"),
        pytest.param("bart", "corrected", "teacher", marks=more),
        pytest.param("bart", "official", "random", marks=more),
        pytest.param("t5", "official", "random", marks=more),
        pytest.param("marian", "corrected", "teacher", marks=more),
    ],
    indirect=["world"],
)
def test_swept_students_equal_their_own_runs(world, tmp_path, reading, init):
    settings = quick(beams=1, max_new_tokens=6, accumulation=2, max_steps=3)
    grid = {"task": "seq2seq", "strategies": ("forward", "reverse"), "init": init}
    assert_swept_as_alone(world, tmp_path, seq2seq_student, settings=settings, reading=reading, **grid)


def test_examples_of_generated_texts_give_the_scores(world):
    report = scored_with_care(TASK, load_trained(world["teacher"], TASK), world["dev"], GenerationSettings(2, 6))
    assert_examples_give_scores(report, ("bleu", "chrf"))
