"""States that are stored and read back, against the model that is run."""

import json
import shutil
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open

from anglekit.analysis.analyze import analyze
from anglekit.analysis.jobs import extract
from anglekit.analysis.jobs.extract import extract_states, prepare_extraction
from anglekit.analysis.settings import AnalysisSettings
from anglekit.errors import InputError
from anglekit.states.recorder import LayerRecorder, token_states
from anglekit.states.store import StateStore, example_digests, load_stored_teacher, restored, rounded
from anglekit_cli.main import main

FAMILIES = ("bert", "t5", "qwen3")


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    """Several shards of a few batches each."""
    monkeypatch.setattr(extract, "SHARD_BYTES", 20_000)


@pytest.fixture(scope="module")
def batches_of_few():
    return AnalysisSettings(token_budget=64, nulls="none", similarity="none")


@pytest.mark.parametrize("family", FAMILIES)
def test_an_analysis_of_stored_states_is_that_of_the_model(family, checkpoint, probe, batches_of_few, tmp_path):
    teacher = checkpoint(family, "teacher", seed=1)
    student = checkpoint(family, "student", seed=2, depth=2)
    whole = replace(batches_of_few, nulls="default", similarity="default")
    store = extract_states(tmp_path / "states", teacher, probe, batches_of_few)
    assert len(store.document.shards) > 2
    live, read = (analyze(each, student, probe, whole) for each in (teacher, tmp_path / "states"))
    assert live.angles.equals(read.angles)
    assert live.layers.equals(read.layers)
    assert live.nulls.equals(read.nulls)
    origin = read.document.provenance.teacher
    assert (origin.sha256, origin.states) == (teacher.sha256, "stored as float32")
    assert live.document.provenance.teacher.states is None


def test_other_batches_and_fewer_texts_read_the_same_states(checkpoint, probe, batches_of_few, tmp_path):
    """An example is found by its tokens, wherever it stands: in a part of the data, in other batches, without pads."""
    teacher = checkpoint("bert", "teacher", seed=1)
    extract_states(tmp_path / "states", teacher, probe, batches_of_few)
    stored = load_stored_teacher(tmp_path / "states")
    few = probe.select([17, 3, 9, 4])
    other = replace(batches_of_few, token_budget=4096, special_tokens=False)
    tokens = replace(extract.tokenized_probe(stored, [], few, other), token_budget=4096)
    layers = {"encoder": (0, 2)}
    reader = stored.store.reader(tokens, layers)
    with LayerRecorder(teacher.model, layers) as recorder:
        for batch in tokens.batches():
            found, expected = reader.token_states(batch)["encoder"], token_states(recorder, batch)["encoder"]
            assert found.layers == expected.layers
            torch.testing.assert_close(found.states, expected.states, rtol=1e-5, atol=1e-6)
            assert (found.states[0] - found.states[1]).abs().max() > 0.1, "another layer would be seen"


@pytest.mark.parametrize("stored", ["bfloat16", "float16", "int8"])
def test_fewer_bits_are_measured_and_said(stored, checkpoint, probe, batches_of_few, tmp_path):
    teacher, student = checkpoint("bert", "teacher", seed=1), checkpoint("bert", "student", seed=2, depth=2)
    store = extract_states(tmp_path / "states", teacher, probe, batches_of_few, stored=stored)
    whole = extract_states(tmp_path / "whole", teacher, probe, batches_of_few)
    sizes = [sum(shard.bytes for shard in each.document.shards) for each in (store, whole)]
    assert sizes[0] < 0.7 * sizes[1]
    rounding = store.document.rounding
    assert 0 < rounding.mean_degrees < rounding.most_degrees < 2
    most = {"bfloat16": 2**-8, "float16": 2**-11, "int8": 16**0.5 / 127 / 2}[stored]
    assert most / 16 < rounding.distance <= most
    exact, read = (analyze(each, student, probe, batches_of_few) for each in (teacher, tmp_path / "states"))
    error = (exact.angles["mean_angle_degrees"] - read.angles["mean_angle_degrees"]).abs().max()
    assert 0 < error < rounding.most_degrees
    provenance = read.document.provenance
    assert provenance.dtype == f"float32, stored as {stored}"
    assert f"stored as {stored}: directions between layers turned by" in provenance.teacher.states
    assert provenance.cosine_resolution > 5e-5


@settings(deadline=None, max_examples=30)
@given(
    seed=st.integers(0, 2**31),
    shape=st.tuples(st.integers(1, 5), st.integers(1, 3), st.integers(1, 9)),
    scale=st.sampled_from([0.0, 1e-30, 1e-3, 1.0, 1e30]),
)
def test_eight_bits_err_by_half_a_step_of_each_states_own_scale(seed, shape, scale):
    states = torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * scale
    small, scales = rounded(states, "int8")
    error = (restored(small, scales).double() - states.double()).abs()
    largest = states.double().abs().amax(-1, keepdim=True)
    assert bool((error <= largest / 127 * 0.5001 + 1e-44).all())
    if scale == 1.0 and shape[2] > 1:
        wrong = restored(small, scales * 1.01).double()
        assert bool(((wrong - states.double()).abs().amax(-1) > (largest / 127 * 0.5001)[..., 0]).any()), "control"


def test_layers_are_chosen_and_others_refused(checkpoint, probe, batches_of_few, tmp_path):
    teacher, student = checkpoint("bert", "teacher", seed=1), checkpoint("bert", "student", seed=2, depth=2)
    store = extract_states(tmp_path / "states", teacher, probe, batches_of_few, layers=[3, 0, 1])
    assert store.document.layers == {"encoder": [0, 1, 3]}
    geometry = analyze(str(tmp_path / "states"), student, probe, batches_of_few)
    assert geometry.document.settings.teacher_layers == {"encoder": [0, 1, 3]}
    expected = analyze(teacher, student, probe, replace(batches_of_few, teacher_layers=(0, 1, 3)))
    assert geometry.angles.equals(expected.angles)
    with pytest.raises(InputError, match=r"holds no layer 2 of the encoder; it holds: 0, 1, 3"):
        analyze(str(tmp_path / "states"), student, probe, replace(batches_of_few, teacher_layers=(0, 2)))
    with pytest.raises(InputError, match=r"has no layer 7; layers run from 0 \(embedding\) to 3"):
        prepare_extraction(teacher, probe, batches_of_few, layers=[7])


def test_what_does_not_belong_is_refused_in_one_line(checkpoint, probe, batches_of_few, tmp_path):
    teacher, student = checkpoint("bert", "teacher", seed=1), checkpoint("bert", "student", seed=2, depth=2)
    extract_states(tmp_path / "states", teacher, probe.select(range(20)), batches_of_few)
    stored = load_stored_teacher(tmp_path / "states")
    refused = {
        r"holds no states of 4 of 24 texts \(the first is row 20\)": (stored, probe, batches_of_few),
        r"the official reading counts padding": (stored, probe, AnalysisSettings(reading="official", pad_to=32)),
        r"holds no states of \d+ of 20 texts": (
            stored,
            probe.select(range(20)),
            replace(batches_of_few, max_length=4),
        ),
    }
    for words, (source, texts, how) in refused.items():
        with pytest.raises(InputError, match=words) as error:
            analyze(source, student, texts, how)
        assert "\n" not in str(error.value)
    again = extract_states(tmp_path / "states", teacher, probe.select(range(20)), batches_of_few)
    assert again.n_examples == stored.store.n_examples, "it is there already"
    for texts, layers in ((probe, None), (probe.select(range(20)), [0, 1])):
        with pytest.raises(InputError, match="exists"):
            extract_states(tmp_path / "states", teacher, texts, batches_of_few, layers=layers)
    with pytest.raises(InputError, match="cannot be stored as 'float8'"):
        prepare_extraction(teacher, probe, batches_of_few, stored="float8")


def test_a_model_and_texts_in_memory_are_stored_too(tiny_model, tiny_tokenizer, probe, tmp_path):
    teacher, student = tiny_model("bert", seed=1), tiny_model("bert", seed=2, depth=2)
    texts, tokenizer = list(probe.texts), tiny_tokenizer()
    store = extract_states(tmp_path / "states", teacher, texts, tokenizer=tokenizer)
    assert repr(store) == f"StateStore(model: {len(set(texts))} texts, encoder 4 layers, float32)"
    read = analyze(tmp_path / "states", student, texts, tokenizer=tokenizer)
    live = analyze(teacher, student, texts, tokenizer=tokenizer)
    assert read.angles["mean_cosine"].equals(live.angles["mean_cosine"])


def test_a_token_without_a_row_is_told_before_anything_runs(tiny_model, tiny_tokenizer, tmp_path):
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens(["zing"])
    with pytest.raises(InputError, match="has 24 rows of embeddings, and the probe holds token number 24; resize"):
        extract_states(tmp_path / "states", tiny_model("bert"), ["the film was zing"], tokenizer=tokenizer)
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_shard_is_named(checkpoint, probe, batches_of_few, tmp_path):
    teacher = checkpoint("bert", "teacher", seed=1)
    store = extract_states(tmp_path / "states", teacher, probe, batches_of_few)
    name = store.document.shards[1].file
    file = tmp_path / "states" / name
    content = file.read_bytes()
    for wrong in (content[:-1], b"\xff" * len(content), content.replace(b'"dtype":"F32"', b'"dtype":"I32"')):
        file.write_bytes(wrong)
        with pytest.raises(InputError, match=rf"shard .*{name} is damaged: .*; extract the states again"):
            StateStore(tmp_path / "states")
    file.unlink()
    with pytest.raises(InputError, match=rf"shard .*{name} is missing; extract the states again, with --overwrite$"):
        StateStore(tmp_path / "states")
    (tmp_path / "states" / "states.json").write_text('{"format": 99}')
    with pytest.raises(InputError, match=r"states\.json"):
        StateStore(tmp_path / "states")


def test_a_disk_that_is_too_small_is_said_before_anything_runs(
    checkpoint, probe, batches_of_few, tmp_path, monkeypatch
):
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: shutil._ntuple_diskusage(10, 10, 1000))
    with pytest.raises(InputError, match=r"the states take 0\.1 MB more and the disk of .* has 0\.0;") as error:
        extract_states(tmp_path / "states", checkpoint("bert", "teacher", seed=1), probe, batches_of_few)
    assert "int8" in str(error.value)
    assert not (tmp_path / "states").exists()


def test_a_stopped_extraction_goes_on_and_other_texts_do_not(checkpoint, probe, batches_of_few, tmp_path, monkeypatch):
    teacher = checkpoint("bert", "teacher", seed=1)
    whole = extract_states(tmp_path / "whole", teacher, probe, batches_of_few)
    saved, save = [], extract._ShardFile.finish

    def stopped(shard):
        if len(saved) == 2:
            raise KeyboardInterrupt
        saved.append(shard.new.file.name)
        save(shard)

    monkeypatch.setattr(extract._ShardFile, "finish", stopped)
    with pytest.raises(KeyboardInterrupt):
        extract_states(tmp_path / "states", teacher, probe, batches_of_few)
    assert not (tmp_path / "states").exists()
    monkeypatch.setattr(extract._ShardFile, "finish", lambda shard: (saved.append(shard.new.file.name), save(shard)))
    with pytest.raises(InputError, match="unfinished store of other texts"):
        extract_states(tmp_path / "states", teacher, probe.select(range(12)), batches_of_few)
    with pytest.raises(InputError, match="unfinished store of other weights;"):
        extract_states(tmp_path / "states", checkpoint("bert", "teacher", seed=5), probe, batches_of_few)
    with pytest.raises(InputError, match=r"unfinished store of other layers and precision \(--states-dtype\);"):
        extract_states(tmp_path / "states", teacher, probe, batches_of_few, layers=[1], stored="int8")
    store = extract_states(tmp_path / "states", teacher, probe, batches_of_few)
    assert sorted(saved) == [each.file for each in whole.document.shards], "none was written twice"
    for one, other in zip(store.document.shards, whole.document.shards, strict=True):
        assert (tmp_path / "states" / one.file).read_bytes() == (tmp_path / "whole" / other.file).read_bytes()
    assert not (tmp_path / "states.unfinished").exists()
    assert sorted(entry.name for entry in (tmp_path / "states").iterdir() if entry.name[0] != "s") == ["model"]


@pytest.mark.parametrize("step", ["put_in_place", "_complete"])
def test_stopped_before_its_last_steps_it_knows_of_what_the_states_are(
    step, checkpoint, probe, batches_of_few, tmp_path, monkeypatch
):
    """A whole store that has not got its name yet is not taken for one of other weights."""
    teacher, trained = checkpoint("bert", "teacher", seed=1), checkpoint("bert", "teacher", seed=5)
    with monkeypatch.context() as stopped:
        stopped.setattr(extract, step, lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            extract_states(tmp_path / "states", teacher, probe, batches_of_few)
    with pytest.raises(InputError, match="unfinished store of other weights;"):
        extract_states(tmp_path / "states", trained, probe, batches_of_few)
    monkeypatch.setattr(extract._ShardFile, "add", lambda *_: pytest.fail("it was there"))
    store = extract_states(tmp_path / "states", teacher, probe, batches_of_few)
    assert store.document.model.sha256 == teacher.sha256
    assert not (tmp_path / "states" / "plan.json").exists()


def test_states_of_which_nothing_says_whose_they_are_are_not_taken(checkpoint, probe, batches_of_few, tmp_path):
    teacher, trained = checkpoint("bert", "teacher", seed=1), checkpoint("bert", "teacher", seed=5)
    extract_states(tmp_path / "states", teacher, probe, batches_of_few)
    (tmp_path / "states").rename(tmp_path / "other.unfinished")
    with pytest.raises(InputError, match=r"holds states-00000.safetensors and no plan.json, which says .*remove the"):
        extract_states(tmp_path / "other", trained, probe, batches_of_few)
    assert not (tmp_path / "other").exists()


def test_a_shard_that_was_cut_meanwhile_is_written_again(checkpoint, probe, batches_of_few, tmp_path, monkeypatch):
    teacher = checkpoint("bert", "teacher", seed=1)
    whole = extract_states(tmp_path / "whole", teacher, probe, batches_of_few)
    with monkeypatch.context() as stopped:
        stopped.setattr(extract, "_complete", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            extract_states(tmp_path / "states", teacher, probe, batches_of_few)
    cut = tmp_path / "states.unfinished" / whole.document.shards[1].file
    cut.write_bytes(cut.read_bytes()[:-100])
    extract_states(tmp_path / "states", teacher, probe, batches_of_few)
    for shard in whole.document.shards:
        assert (tmp_path / "states" / shard.file).read_bytes() == (tmp_path / "whole" / shard.file).read_bytes()


def test_a_store_of_something_else_says_what_differs(checkpoint, probe, batches_of_few, tmp_path):
    teacher = checkpoint("bert", "teacher", seed=1)
    extract_states(tmp_path / "states", teacher, probe, batches_of_few)

    def refused(words, *arguments, **options):
        with pytest.raises(InputError, match=rf"states exists and holds states of other {words}; choose .*--overwrite"):
            extract_states(tmp_path / "states", *arguments, **options)

    refused("weights", checkpoint("bert", "teacher", seed=5), probe, batches_of_few)
    refused("texts", teacher, probe.select(range(12)), batches_of_few)
    refused("texts", teacher, probe, replace(batches_of_few, max_length=4))
    refused("layers", teacher, probe, batches_of_few, layers=[0, 1])
    refused(r"precision \(--states-dtype\)", teacher, probe, batches_of_few, stored="bfloat16")
    refused("settings", teacher, probe, replace(batches_of_few, final_norm="included"))


def test_a_link_to_a_store_is_replaced_and_the_store_stays(checkpoint, probe, batches_of_few, tmp_path):
    teacher = checkpoint("bert", "teacher", seed=1)
    extract_states(tmp_path / "moved", teacher, probe, batches_of_few)
    (tmp_path / "states").symlink_to(tmp_path / "moved")
    store = extract_states(
        tmp_path / "states", checkpoint("bert", "other", seed=5), probe, batches_of_few, overwrite=True
    )
    assert store.document.model.name == "other"
    assert StateStore(tmp_path / "moved").document.model.name == "teacher"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["moved", "states"]
    (tmp_path / "nowhere").symlink_to(tmp_path / "gone")
    with pytest.raises(InputError, match="nowhere is a link to what does not exist; choose another directory"):
        extract_states(tmp_path / "nowhere", teacher, probe, batches_of_few)


def test_shards_hold_little_beside_the_states(checkpoint, probe, batches_of_few, tmp_path, monkeypatch):
    monkeypatch.setattr(extract, "SHARD_BYTES", 64 << 20)
    teacher = checkpoint("bert", "teacher", seed=1, width=128)
    planned = prepare_extraction(teacher, probe, batches_of_few)
    store = extract_states(tmp_path / "states", teacher, probe, batches_of_few)
    (shard,) = store.document.shards
    assert planned.bytes == shard.tokens["encoder"] * 4 * 128 * 4
    assert shard.bytes < 1.02 * planned.bytes
    with safe_open(tmp_path / "states" / shard.file, framework="numpy") as opened:
        held = opened.get_tensor("digests")
        order = np.argsort(opened.get_tensor("rows"))
    assert np.array_equal(held[order], example_digests(planned.probe))


def test_text_and_target_name_an_example_together(checkpoint, probe, batches_of_few):
    teacher = checkpoint("t5", "teacher", seed=1)
    planned = prepare_extraction(teacher, probe, batches_of_few).probe
    swapped = replace(
        planned,
        target=replace(planned.target, starts=planned.target.starts[::-1], lengths=planned.target.lengths[::-1]),
    )
    same = (example_digests(planned) == example_digests(swapped)).all(1)
    assert same.sum() < 3


def test_the_commands_extract_and_analyse(save_tiny, words, tmp_path, monkeypatch, capsys):
    teacher = save_tiny(tmp_path / "teacher", "bert", seed=1)
    student = save_tiny(tmp_path / "student", "bert", seed=2, depth=2)
    texts = tmp_path / "texts.jsonl"
    texts.write_text("".join(json.dumps({"text": " ".join(words[:n])}) + "\n" for n in range(2, 14)))

    def told(*arguments, code=0):
        monkeypatch.setattr(sys, "argv", ["anglekit", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == code
        return capsys.readouterr()

    extracts = ("extract", teacher, "--data", texts, "--out", tmp_path / "states", "--teacher-layers", "0,2,3")
    planned = told(*extracts, "--dry-run").out
    assert planned.startswith("12 texts, 114 tokens (encoder), stored as float32: 0.0 MB")
    plain = ("extract", teacher, "--data", texts)
    assert told(*plain, "--dry-run").out.startswith("12 texts, 114 tokens")
    assert "--out is missing; name the directory" in told(*plain, code=2).err
    dry = ("analyze", teacher, student, "--probe", texts)
    assert "no weight was read" in told(*dry, "--dry-run").out
    assert "--out is missing; name the directory" in told(*dry, code=2).err
    assert not (tmp_path / "states").exists()
    assert "teacher: 12 different texts (text)" in told(*extracts).out
    short = told(*plain, "--out", tmp_path / "short", "--text", "text", "--max-length", "8").out
    assert "STUDENT --probe" in short
    assert short.endswith(" --text text --max-length 8 --out geometry\n")
    assert f"It was in {tmp_path / 'states'} already" in told(*extracts).out
    analyses = ("analyze", tmp_path / "states", student, "--probe", texts, "--out", tmp_path / "geometry")
    told(*analyses, "--quiet")
    assert (tmp_path / "geometry" / "geometry.json").is_file()
    refused = {
        ("--overwrite", "--dry-run"): "is a state store, and --dry-run estimates what running a teacher takes",
        ("--overwrite", "--teacher-layers", "0,1"): "holds no layer 1 of the encoder; it holds: 0, 2, 3",
    }
    for options, words_of in refused.items():
        assert words_of in told(*analyses, *options, code=2).err
    assert (
        "is a state store, which holds no model"
        in told("analyze", teacher, tmp_path / "states", *analyses[3:], "--overwrite", code=2).err
    )
    assert "--states-dtype is 'int4'" in told(*extracts, "--states-dtype", "int4", code=2).err
    assert "--teacher-layers '0,x' is not a list of layers" in told(*extracts[:-1], "0,x", code=2).err
