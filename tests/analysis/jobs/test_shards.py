"""Shards saved by separate jobs: merged they are one job's Geometry; what does not belong together is refused."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from anglekit.analysis.analyze import analyze, measure
from anglekit.analysis.jobs.shards import (
    SHARD_FILE,
    SUMS_FILE,
    _document_hash,
    _file_hash,
    merge_shards,
    shard_geometry,
)
from anglekit.analysis.measurement import measurement_bytes, measurement_from_bytes
from anglekit.analysis.preparation import Shard
from anglekit.analysis.settings import AnalysisSettings
from anglekit.errors import AnglekitError, InputError
from anglekit.results.geometry import Geometry
from tests.analysis.same_geometry import assert_same

ALL = AnalysisSettings(nulls="all", similarity="all", token_budget=60)
PLAIN = AnalysisSettings(token_budget=60)


@pytest.fixture(scope="module")
def taught(checkpoint):
    """A narrow student with trained adapters."""
    rng = np.random.default_rng(0)
    adapters = {("encoder", layer): torch.from_numpy(rng.normal(size=(16, 8))).float() for layer in (0, 1, 2)}
    return replace(checkpoint("bert", "taught", seed=4, depth=2, width=8), adapters=adapters)


@pytest.fixture(scope="module")
def save_shard(bert_pair, taught, probe, tmp_path_factory):
    """`save_shard("2/3", **changes)` writes one and returns its directory."""
    root = tmp_path_factory.mktemp("shards")

    def save(which: str, options=PLAIN, *, students=(bert_pair[1], taught), teacher=bert_pair[0], data=probe) -> Path:
        shard = Shard(*map(int, which.split("/")))
        spec, measured = measure(teacher, students, data, options, shard=shard)
        name = f"{which.replace('/', '-')}-{len(list(root.iterdir()))}"
        return shard_geometry(spec, measured, shard).save(root / name)

    return save


@pytest.fixture(scope="module")
def three(save_shard) -> list[Path]:
    return [save_shard(f"{number}/3") for number in (1, 2, 3)]


@pytest.mark.parametrize("options", [ALL, PLAIN, replace(PLAIN, reading="official", pad_to=24)])
def test_merged_shards_are_one_jobs_geometry(options, save_shard, bert_pair, taught, probe, tmp_path):
    students = [bert_pair[1]] if options.reading == "official" else [bert_pair[1], taught]
    whole = analyze(bert_pair[0], students, probe, options)
    directories = [save_shard(f"{number}/3", options, students=students) for number in (3, 1, 2)]
    merged = Geometry.load(merge_shards(directories).save(tmp_path / "merged"))
    assert_same(merged, Geometry.load(whole.save(tmp_path / "whole")))
    assert merged.provenance == whole.provenance
    assert not (tmp_path / "merged" / SUMS_FILE).exists()
    part = Geometry.load(directories[0])
    assert part.provenance["shard"] == "3/3"
    assert 0 < part.counts["examples"] < whole.counts["examples"]
    with pytest.raises(AssertionError):
        assert_same(part, whole)


def test_a_shard_that_got_no_batch_merges_too(save_shard, bert_pair, taught, probe):
    options = AnalysisSettings()
    directories = [save_shard(f"{number}/4", options) for number in range(1, 5)]
    assert any(Geometry.load(each).counts["examples"] == 0 for each in directories)
    assert_same(merge_shards(directories), analyze(bert_pair[0], [bert_pair[1], taught], probe, options))


def test_both_streams_survive_the_wire(checkpoint, probe):
    pair = checkpoint("t5", "teacher", seed=1), checkpoint("t5", "student", seed=2, depth=2)
    spec, measured = measure(pair[0], pair[1:], probe, ALL)
    content = measurement_bytes(measured)
    assert measurement_bytes(measurement_from_bytes(spec, content)) == content
    assert measurement_from_bytes(spec, content).samples["decoder"].states[1].shape[:2] == (3, 3)


def test_what_does_not_make_a_whole_is_named(three, save_shard, tmp_path, bert_geometry):
    one, two, third = three
    with pytest.raises(InputError, match=r"shard 2/3 missing; give all 3"):
        merge_shards([one, third])
    with pytest.raises(InputError, match=r"shards 1/3, 3/3 missing"):
        merge_shards([two])
    with pytest.raises(InputError, match=r"1-3-\d+ and .*1-3-\d+ are both shard 1/3"):
        merge_shards([one, two, one, third])
    with pytest.raises(InputError, match=r"is shard 1/3 and .* shard 2/2"):
        merge_shards([one, save_shard("2/2"), third])
    with pytest.raises(InputError, match=r"holds no sums to merge"):
        merge_shards([bert_geometry.save(tmp_path / "plain")])
    with pytest.raises(InputError, match=r"no directory .*gone"):
        merge_shards([tmp_path / "gone"])
    with pytest.raises(InputError, match=r"no shard to merge"):
        merge_shards([])


def test_shards_of_another_analysis_are_refused(three, save_shard, bert_pair, taught, checkpoint, probe, monkeypatch):
    one, _, third = three
    student = bert_pair[1]
    other_adapter = {**taught.adapters, ("encoder", 1): taught.adapters["encoder", 1] + 1}
    cases = {
        r"another teacher \(hash": {"teacher": replace(checkpoint("bert", "teacher", seed=7), name="teacher")},
        r"another student \(student": {"students": (checkpoint("bert", "student", seed=8, depth=2), taught)},
        r"1 students, not 2": {"students": (student,)},
        r"other settings \(seed 1, not 0\)": {"options": replace(PLAIN, seed=1)},
        r"other settings \(token-budget 70, not 60\)": {"options": replace(PLAIN, token_budget=70)},
        r"another probe \(hash 1111": {"data": replace(probe, sha256="1" * 64)},
        r"another column \(text sentence, not text\)": {"data": replace(probe, text_column="sentence")},
        r"other examples or tokens": {"data": replace(probe, texts=probe.texts[:20], rows=probe.rows[:20])},
        r"other layers, widths or adapters": {"students": (student, replace(taught, adapters=other_adapter))},
    }
    for message, changes in cases.items():
        with pytest.raises(InputError, match=message):
            merge_shards([one, save_shard("2/3", **changes), third])
    monkeypatch.setattr(
        "anglekit.analysis.preparation._version", lambda name: "99.1" if name == "torch" else version(name)
    )
    with pytest.raises(InputError, match=r"another major version of torch \(99.1, not 2"):
        merge_shards([one, save_shard("2/3"), third])


def rewritten(directory: Path, target: Path, change) -> Path:
    """Copy a shard with its description or sums changed and every hash made right again, as a forger would."""
    shutil.copytree(directory, target)
    document = json.loads((target / SHARD_FILE).read_text())
    with safe_open(target / SUMS_FILE, "pt") as file:
        metadata, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    metadata = change(document, tensors, metadata) or metadata
    save_file(tensors, target / SUMS_FILE, metadata=metadata)
    document.pop("sha256")
    document["sums_sha256"] = _file_hash(target / SUMS_FILE)
    document["sha256"] = _document_hash(document)
    (target / SHARD_FILE).write_text(json.dumps(document))
    return target


def test_a_forgery_that_changes_nothing_merges(three, tmp_path, bert_pair, taught, probe):
    copies = [rewritten(each, tmp_path / each.name, lambda *_: None) for each in three]
    assert_same(merge_shards(copies), analyze(bert_pair[0], [bert_pair[1], taught], probe, PLAIN))


def test_damage_is_one_line(three, tmp_path):
    messages = ((SUMS_FILE, "is not the one that"), (SHARD_FILE, "is damaged|is not readable json"))
    for number, (file, message) in enumerate(messages):
        for at in (0.1, 0.5, 0.95):
            copy = tmp_path / f"flipped-{number}-{at}"
            shutil.copytree(three[1], copy)
            content = bytearray((copy / file).read_bytes())
            content[int(at * len(content))] ^= 0x15
            (copy / file).write_bytes(content)
            with pytest.raises(InputError, match=message):
                merge_shards([three[0], copy, three[2]])
    copy = tmp_path / "lost"
    shutil.copytree(three[1], copy)
    (copy / SUMS_FILE).unlink()
    with pytest.raises(InputError, match=r"sums.safetensors cannot be read"):
        merge_shards([three[0], copy, three[2]])


def wrong_shape(_document, tensors, _metadata):
    tensors["sums.encoder.0.angles.count"] = torch.zeros(2, 2, dtype=torch.int64)


def wrong_type(_document, tensors, _metadata):
    tensors["sums.encoder.0.angles.cosine"] = tensors["sums.encoder.0.angles.cosine"].float()


def one_lost(_document, tensors, _metadata):
    del tensors["samples.encoder.priority"]


def one_more(_document, tensors, _metadata):
    tensors["stowaway"] = torch.zeros(1)


def no_facts(_document, _tensors, _metadata):
    return {"anglekit": "[]"}


def more_batches(_document, _tensors, metadata):
    return {"anglekit": json.dumps({**json.loads(metadata["anglekit"]), "n_batches": 10**9})}


def fewer_batches(_document, _tensors, metadata):
    return {"anglekit": json.dumps({**json.loads(metadata["anglekit"]), "n_batches": 0})}


def wider(document, _tensors, _metadata):
    document["subject"]["teacher_width"] = 10**6


def climbing_name(document, _tensors, _metadata):
    name = "../../student"
    document["subject"]["names"][0] = name
    document["subject"]["described"]["provenance"]["students"][0]["name"] = name


def text_for_number(document, _tensors, _metadata):
    document["subject"]["settings"]["seed"] = "0"


def unknown_reading(document, _tensors, _metadata):
    document["subject"]["settings"]["reading"] = "mine"


FORGERIES = {
    wrong_shape: r"angles.count is torch.int64 \(2, 2\); expected torch.int64 \(3, 6\)",
    wrong_type: r"angles.cosine is torch.float32",
    one_lost: r"lacks 'samples.encoder.priority'",
    one_more: r"holds 'stowaway', which does not belong",
    no_facts: r"does not say what it holds",
    more_batches: r"counts 1000000000 batches of \d+",
    fewer_batches: r"the shards hold \d+ batches of \d+",
    wider: r"other layers, widths or adapters",
    climbing_name: r"shard.json is damaged \(subject: 'names' is not as expected",
    text_for_number: r"shard.json is damaged \(subject.settings.seed: expected int, got str",
    unknown_reading: r"shard.json is damaged \(subject.settings.reading: invalid enum value 'mine'",
}


@pytest.mark.parametrize("change", FORGERIES, ids=lambda change: change.__name__)
def test_a_forgery_is_one_line(change, three, tmp_path):
    with pytest.raises(InputError, match=FORGERIES[change]):
        merge_shards([three[0], rewritten(three[1], tmp_path / "forged", change), three[2]])


def sums_around_zero(_document, tensors, _metadata):
    for name in [name for name in tensors if ".reference." in name]:
        del tensors[name]


def test_sums_of_an_earlier_version_are_refused_in_words(save_shard, tmp_path):
    one, two = (save_shard(f"{number}/2", ALL) for number in (1, 2))
    with pytest.raises(
        InputError, match=r"is of an earlier version: its sums for CKA were taken around 0.*make it again"
    ):
        merge_shards([rewritten(one, tmp_path / "earlier", sums_around_zero), two])


def test_random_forgeries_of_the_description_never_get_through_as_a_traceback(three, tmp_path):
    rng = np.random.default_rng(5)
    junk = [None, -1, 2**80, 0.5, "x", [], {}, [[[]]], {"a": {}}, True, [1, "b"], float("nan")]

    def leaves(value, path=()):
        items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        for key, each in items:
            yield (*path, key)
            yield from leaves(each, (*path, key))

    messages = []
    for number in range(150):
        target = tmp_path / "forged"
        shutil.copytree(three[1], target)
        document = json.loads((target / SHARD_FILE).read_text())
        places = list(leaves(document["subject"]))
        *path, last = places[rng.integers(len(places))]
        at = document["subject"]
        for key in path:
            at = at[key]
        at[last] = junk[number % len(junk)]
        document.pop("sha256")
        document["sha256"] = _document_hash(document)
        (target / SHARD_FILE).write_text(json.dumps(document))
        try:
            merge_shards([target, three[2], three[0]]).save(tmp_path / "out", overwrite=True)
        except AnglekitError as error:
            messages.append(str(error))
        shutil.rmtree(target)
    assert len(messages) > 75
    assert all(message and "\n" not in message for message in messages)
