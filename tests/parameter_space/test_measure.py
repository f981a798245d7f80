"""Gradients of whole measurements against plain autograd over every parameter, in double precision."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoModelForSequenceClassification, AutoTokenizer

import anglekit
from anglekit.distillation.runs.train import load_teacher_and_data
from anglekit.distillation.settings import TrainSettings
from anglekit.distillation.tasks.registry import task_by_name
from anglekit.distillation.training.teacher import TeacherForward
from anglekit.errors import InputError, RunError
from anglekit.models.checkpoints import load_config
from anglekit.models.load_options import LoadOptions
from anglekit.parameter_space.measure import gradients, open_measurement, parts_of
from anglekit.parameter_space.settings import GradientSettings
from anglekit.results.gradients import GradientGeometry
from tests.distillation.causal_corpus import make_causal_world, write_repetitions
from tests.distillation.run_corpus import write_reviews, write_teacher
from tests.distillation.seq2seq_corpus import write_reversals, write_seq2seq_teacher

FEW = GradientSettings(examples=12, group=3)


@pytest.fixture(scope="module")
def classifier(tmp_path_factory, tiny_model, tiny_tokenizer, words):
    place = tmp_path_factory.mktemp("classifier")
    return write_teacher(place / "teacher", tiny_model, tiny_tokenizer()), write_reviews(place / "r.tsv", words, 12)


@pytest.fixture(scope="module")
def measured(classifier) -> GradientGeometry:
    teacher, table = classifier
    return gradients(
        teacher, probe=table, task="classification", layers=2, init="teacher", settings=FEW, seed=3, device="cpu"
    )


def mean_gradients(student, teacher, batch, maps, norms=None, decoder_labels=False):
    """Return by loss the gradient over every parameter, of plain float64 models and the whole probe at once.

    `norms` returns by stream the norm behind a model's last block, for types that have one.
    """
    asked = {"output_hidden_states": True, **batch}
    before = {}
    for model in (student, teacher):
        for stream, norm in (norms(model) if norms else {}).items():
            place = (model, stream)
            norm.register_forward_pre_hook(lambda _module, args, place=place: before.__setitem__(place, args[0]))
    with torch.no_grad():
        said = teacher(**asked)
    got = student(**asked)
    labels = batch["labels"]
    if labels.dim() == 1:
        ours, theirs, targets = got.logits, said.logits, labels
    else:
        shift = 0 if decoder_labels else 1
        ours, theirs = (each.logits[:, : each.logits.shape[1] - shift] for each in (got, said))
        targets = labels[:, shift:]
        kept = targets != -100
        ours, theirs, targets = ours[kept], theirs[kept], targets[kept]
    losses = {
        "ce": F.cross_entropy(ours, targets),
        "kl": F.kl_div(ours.log_softmax(-1), theirs.log_softmax(-1), reduction="batchmean", log_target=True),
    }
    if decoder_labels:
        states = {
            "encoder": (got.encoder_hidden_states, said.encoder_hidden_states, batch["attention_mask"] != 0),
            "decoder": (got.decoder_hidden_states, said.decoder_hidden_states, labels != -100),
        }
    else:
        (stream,) = next(iter(maps.values()))
        states = {stream: (got.hidden_states, said.hidden_states, batch["attention_mask"] != 0)}
    # Where a norm stands behind the last block, its state is the one before that norm.
    for stream, (own, its, mask) in states.items():
        last = [before.get((model, stream)) for model in (student, teacher)]
        if last[0] is not None:
            states[stream] = ([*own[:-1], last[0]], [*its[:-1], last[1]], mask)

    def distance(stream, j, i):
        own, its, mask = states[stream]
        return ((own[j][mask] - its[i][mask]) ** 2).mean(-1).mean()

    for name, by_stream in maps.items():
        losses[name] = sum(distance(stream, j, i) for stream, pairs in by_stream.items() for j, i in pairs)
    losses["task"] = losses["ce"] + losses["kl"]
    weights = [weight for weight in student.parameters() if weight.requires_grad]
    found = {}
    for name, loss in losses.items():
        each = torch.autograd.grad(loss, weights, retain_graph=True, allow_unused=True)
        found[name] = torch.cat(
            [torch.zeros(w.numel()) if g is None else g.reshape(-1) for g, w in zip(each, weights, strict=True)]
        )
    return found


# Where both passes are float32, plain autograd itself leaves double precision by 1.3e-6 on some processors.
FLOAT32 = 5e-6


def check_against(table: pd.DataFrame, expected: dict[str, torch.Tensor], tolerance: float = FLOAT32) -> None:
    rows = table[table["part"] == "all"].set_index(["loss_a", "loss_b"])
    assert len(rows) == len(expected) * (len(expected) - 1) // 2
    for (a, b), row in rows.iterrows():
        cosine = float(F.cosine_similarity(expected[a], expected[b], dim=0))
        assert row["cosine"] == pytest.approx(cosine, abs=tolerance), (a, b)
        assert row["norm_a"] == pytest.approx(float(expected[a].norm()), rel=1e-4)


def in_double(kind, source):
    return kind.from_pretrained(source).double().eval()


def student_of(kind, source, **shape):
    teacher = kind.from_pretrained(source)
    return anglekit.create_student(teacher, **shape).double().eval()


def test_a_classifier_has_the_gradients_of_plain_autograd(classifier, measured):
    source, table = classifier
    teacher = in_double(AutoModelForSequenceClassification, source)
    student = student_of(AutoModelForSequenceClassification, source, layers=2, init="teacher", seed=3)
    rows = pd.read_csv(table, sep="\t")
    batch = dict(AutoTokenizer.from_pretrained(source)(rows["text"].tolist(), padding=True, return_tensors="pt"))
    batch["labels"] = torch.tensor([["negative", "positive"].index(label) for label in rows["label"]])
    maps = measured.provenance["students"][0]["maps"]
    assert maps["forward"] == {"encoder": [[0, 0], [1, 2], [2, 4]]}
    expected = mean_gradients(student, teacher, batch, maps)
    check_against(measured.strategies, expected)

    opened = open_measurement(
        source, probe=table, task="classification", layers=2, init="teacher", settings=FEW, seed=3, device="cpu"
    )
    opened.teacher.model.double()
    measurement = opened.student(0)
    measurement.model.double()
    tables = measurement.tables(measurement.gradients(opened.batches, opened.answers))
    check_against(tables.strategies, expected, tolerance=1e-7)


def read_as_a_run(source, table, task):
    """Return the whole probe as one batch, in the tokens that a run reads."""
    loaded, prepared, _ = load_teacher_and_data(
        source,
        load_config(source, LoadOptions()),
        task_by_name(task),
        TrainSettings(device="cpu"),
        train=table,
        validation=(),
        data=None,
        load=None,
    )
    collate = prepared.task.collator(loaded.tokenizer)
    return collate([prepared.train[number] for number in range(len(prepared.train))])


def test_a_language_model_has_them(tmp_path, tiny_model, tiny_tokenizer, words):
    world = make_causal_world(tmp_path, "llama", tiny_model, tiny_tokenizer(), words)
    table = write_repetitions(tmp_path / "probe.jsonl", words, 9)
    measured = gradients(
        world["teacher"],
        probe=table,
        task="language-model",
        layers=2,
        init="teacher",
        strategies=["forward", "all-to-one"],
        settings=GradientSettings(examples=9, group=3, pairs=False),
        device="cpu",
    )
    teacher = in_double(AutoModelForCausalLM, world["teacher"])
    student = student_of(AutoModelForCausalLM, world["teacher"], layers=2, init="teacher", seed=0)
    expected = mean_gradients(
        student,
        teacher,
        read_as_a_run(world["teacher"], table, "language-model"),
        measured.provenance["students"][0]["maps"],
        norms=lambda model: {"decoder": model.model.norm},
    )
    check_against(measured.strategies, expected)
    assert not len(measured.layers)


def test_an_encoder_decoder_has_them_of_both_streams(tmp_path, tiny_model, tiny_tokenizer, words):
    source = write_seq2seq_teacher(tmp_path / "teacher", "t5", tiny_model, tiny_tokenizer())
    table = write_reversals(tmp_path / "probe.jsonl", words, 9)
    measured = gradients(
        source,
        probe=table,
        task="seq2seq",
        layers=2,
        init="teacher",
        settings=GradientSettings(examples=9, group=3),
        device="cpu",
    )
    teacher = in_double(AutoModelForSeq2SeqLM, source)
    student = student_of(AutoModelForSeq2SeqLM, source, layers=2, init="teacher", seed=0)
    expected = mean_gradients(
        student,
        teacher,
        read_as_a_run(source, table, "seq2seq"),
        measured.provenance["students"][0]["maps"],
        norms=lambda model: {"encoder": model.encoder.final_layer_norm, "decoder": model.decoder.final_layer_norm},
        decoder_labels=True,
    )
    check_against(measured.strategies, expected)
    assert set(measured.layers["stream_a"]) == {"encoder", "decoder"}


def test_layers_with_the_same_weights_have_no_gradient(measured):
    """The student's embedding is the teacher's: its own loss is 0, and so is the gradient, whose angle is none."""
    layers = measured.layers[measured.layers["part"] == "all"]
    places = ["student_layer_a", "teacher_layer_a", "student_layer_b", "teacher_layer_b"]
    assert len(layers) == 15 * 14 // 2
    cosines = {tuple(row[place] for place in places): row["cosine"] for _, row in layers.iterrows()}
    for (a, i, b, k), cosine in cosines.items():
        assert np.isnan(cosine) == ((0, 0) in ((a, i), (b, k)))
    # What one student layer is taught pulls its weights in more alike directions than what two are taught.
    same = [cosine for (a, _, b, _), cosine in cosines.items() if a == b and not np.isnan(cosine)]
    other = [cosine for (a, _, b, _), cosine in cosines.items() if a != b and not np.isnan(cosine)]
    assert np.mean(same) > np.mean(other) + 0.1


def test_parts_hold_every_weight_once(tiny_model):
    for family in ("bert", "t5", "bart", "llama"):
        model = tiny_model(family, head=True)
        parts = parts_of(model)
        places = sorted(itertools.chain(*parts.values()))
        assert places == list(range(len([weight for weight in model.parameters() if weight.requires_grad])))
        assert {"embeddings", *(name for name in parts if "block 3" in name)} <= set(parts)


def test_a_projection_keeps_to_its_error_and_small_parts_whole(classifier, measured):
    teacher, table = classifier
    projected = gradients(
        teacher,
        probe=table,
        task="classification",
        layers=2,
        init="teacher",
        settings=GradientSettings(examples=12, group=3, dimensions=1725, error=0.025),
        seed=3,
        device="cpu",
    )
    both = measured.strategies.merge(
        projected.strategies, on=["student", "part", "loss_a", "loss_b"], suffixes=("", "_projected")
    )
    assert len(both) == len(measured.strategies)
    both = both[both["cosine"].notna()]
    off = (both["cosine"] - both["cosine_projected"]).abs()
    assert (off <= 4 * both["projection_error_projected"] + 1e-6).all()
    blocks, head = both["part"].str.startswith("block"), both["part"] == "head"
    assert (off[blocks] > 1e-5).any()
    assert (both.loc[head, "projection_error_projected"] == 0.0).all()
    assert off[head].max() < 1e-6
    assert projected.provenance["students"][0]["projected_parts"] == ["embeddings", "block 1", "block 2"]


def test_the_teachers_cache_changes_nothing(classifier, measured, tmp_path):
    teacher, table = classifier
    for _ in range(2):  # filled, then read
        again = gradients(
            teacher,
            probe=table,
            task="classification",
            layers=2,
            init="teacher",
            settings=FEW,
            seed=3,
            device="cpu",
            teacher_cache=str(tmp_path / "cache"),
        )
        pd.testing.assert_frame_equal(again.strategies, measured.strategies, atol=2e-5)


def test_the_teacher_runs_once_for_several_students_with_a_cache(classifier, tmp_path, monkeypatch):
    source, table = classifier
    passes = []
    plain = TeacherForward.__call__
    monkeypatch.setattr(TeacherForward, "__call__", lambda self, inputs: passes.append(1) or plain(self, inputs))
    options = {"probe": table, "task": "classification", "layers": 2, "settings": FEW, "seed": 3, "device": "cpu"}
    for init in ("teacher", "random"):
        opened = open_measurement(source, init=init, teacher_cache=str(tmp_path / "cache"), **options)
        for _ in range(2):
            opened.student(0).gradients(opened.batches, opened.answers)
        opened.answers.close()
    assert len(passes) == len(opened.batches) == 4


def test_students_that_are_there_are_named_with_their_step(classifier, measured, tmp_path):
    source, table = classifier
    student = anglekit.create_student(
        AutoModelForSequenceClassification.from_pretrained(source), layers=2, init="teacher", seed=3
    )
    places = [tmp_path / "one", tmp_path / "two"]
    for step, place in enumerate(places):
        student.save_pretrained(place)
        AutoTokenizer.from_pretrained(source).save_pretrained(place)
        (place / "trainer_state.json").write_text(json.dumps({"global_step": 10 * step}))
    found = gradients(
        source,
        [str(places[0]), f"later={places[1]}"],
        probe=table,
        task="classification",
        settings=FEW,
        seed=3,
        device="cpu",
    )
    assert found.students == ("one", "later")
    assert dict(zip(found.strategies["student"], found.strategies["step"], strict=True)) == {"one": 0, "later": 10}
    own = found.strategies[found.strategies["student"] == "later"]
    np.testing.assert_allclose(own["cosine"], measured.strategies["cosine"], atol=1e-6)


def test_what_was_found_is_saved_and_read(measured, tmp_path):
    measured.save(tmp_path / "found")
    again = GradientGeometry.load(tmp_path / "found")
    pd.testing.assert_frame_equal(again.strategies, measured.strategies)
    pd.testing.assert_frame_equal(again.layers, measured.layers)
    assert again.sentences() == measured.sentences()
    assert len(again.agreement()) == 4
    assert len(again.between_strategies("block 2")) == 6
    with pytest.raises(InputError, match="exists"):
        measured.save(tmp_path / "found")
    (tmp_path / "found" / "layers.parquet").write_bytes(b"no table")
    with pytest.raises(InputError, match="cannot be read"):
        GradientGeometry.load(tmp_path / "found")
    with pytest.raises(InputError, match=r"holds no gradients\.json"):
        GradientGeometry.load(tmp_path)


class TestRefused:
    def test_a_projection_too_small_for_its_error(self):
        with pytest.raises(InputError, match=r"dimensions is 100, .* up to 0.104, and error is 0.05; give 432 or more"):
            GradientSettings(dimensions=100, error=0.05)

    def test_too_few_groups(self):
        with pytest.raises(InputError, match="group is 8 of 16 examples; an interval needs 3 groups"):
            GradientSettings(examples=16)

    def test_a_probe_of_fewer_rows(self, classifier, tmp_path, words):
        table = write_reviews(tmp_path / "four.tsv", words, 4)
        with pytest.raises(InputError, match="4 examples in groups of 3 are 1 groups"):
            gradients(classifier[0], probe=table, task="classification", layers=2, settings=FEW, device="cpu")

    def test_losses_of_attention_and_of_steps(self, classifier):
        teacher, table = classifier
        for loss, said in (
            ("minilm", "compares what attention makes"),
            ("feature-dynamics", "single layers have none"),
        ):
            with pytest.raises(InputError, match=said):
                gradients(teacher, probe=table, task="classification", layers=2, hidden_loss=loss)

    def test_a_probe_without_labels(self, classifier, tmp_path):
        (tmp_path / "plain.tsv").write_text("text\na film\nthe plot\n")
        with pytest.raises(InputError, match="label"):
            gradients(classifier[0], probe=str(tmp_path / "plain.tsv"), task="classification", layers=2, settings=FEW)

    def test_weights_without_gradients(self, classifier, monkeypatch):
        teacher, table = classifier

        def quantised(*given, **options):
            made = anglekit.create_student(*given, **options)
            made.base_model.encoder.layer[0].output.dense.weight.requires_grad_(False)
            made.base_model.encoder.layer[0].output.dense.weight.data = torch.zeros(4, dtype=torch.int8)
            return made

        monkeypatch.setattr("anglekit.parameter_space.measure.create_student", quantised)
        with pytest.raises(InputError, match="weights of type int8 without gradients, as a quantised model has"):
            gradients(teacher, probe=table, task="classification", layers=2, settings=FEW, device="cpu")

    def test_a_gradient_that_is_not_finite(self, classifier, monkeypatch):
        teacher, table = classifier

        def broken(*given, **options):
            made = anglekit.create_student(*given, **options)
            made.classifier.weight.data[0, 0] = float("inf")
            return made

        monkeypatch.setattr("anglekit.parameter_space.measure.create_student", broken)
        with pytest.raises(RunError, match="the gradient of ce is not finite in the"):
            gradients(teacher, probe=table, task="classification", layers=2, settings=FEW, device="cpu")

    def test_a_shape_beside_a_student(self, classifier, tmp_path):
        source, table = classifier
        with pytest.raises(InputError, match="layers came with students that are there already"):
            gradients(source, [source_copy(source, tmp_path)], probe=table, task="classification", layers=2)


def source_copy(source, place):
    student = anglekit.create_student(AutoModelForSequenceClassification.from_pretrained(source), layers=2)
    student.save_pretrained(place / "student")
    return str(place / "student")
