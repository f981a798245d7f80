"""Sums of shards and of unfinished analyses that no analysis writes, or that were damaged."""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path

import msgspec
import numpy as np
import pytest

from anglekit.analysis.analyze import measure
from anglekit.analysis.jobs.shards import (
    SHARD_FILE,
    SUMS_FILE,
    _document_hash,
    _file_hash,
    merge_shards,
    shard_geometry,
)
from anglekit.analysis.jobs.unfinished import UnfinishedAnalysis
from anglekit.analysis.measurement import read_metadata
from anglekit.analysis.preparation import Shard
from anglekit.analysis.settings import AnalysisSettings
from anglekit.analysis.spec import AnalysisSpec
from anglekit.models.checkpoints import load_checkpoint
from anglekit.probes.data import read_probe
from anglekit.results.geometry import Geometry
from tests.fuzz.harness import Campaign, Case, cases, fresh
from tests.fuzz.mutations import damaged_file, damaged_json, damaged_json_file, damaged_safetensors


@pytest.fixture(scope="module")
def original(save_tiny, words, tmp_path_factory) -> Path:
    """A directory with the two shards of an analysis, `1` and `2`, and an unfinished one, `kept`."""
    root = tmp_path_factory.mktemp("measured")
    teacher = load_checkpoint(str(save_tiny(root / "teacher", "bert", width=8, depth=2, seed=1)))
    student = load_checkpoint(str(save_tiny(root / "student", "bert", width=8, depth=1, seed=2)))
    rng = np.random.default_rng(0)
    probe = root / "probe.jsonl"
    probe.write_text("\n".join(json.dumps({"text": " ".join(rng.choice(words, 5))}) for _ in range(24)))
    settings = AnalysisSettings(token_budget=40)
    for number in (1, 2):
        shard = Shard(number, 2)
        spec, measured = measure(teacher, [student], read_probe(str(probe)), settings, shard=shard)
        shard_geometry(spec, measured, shard).save(root / "made" / str(number))
        (root / "made" / "kept").mkdir(exist_ok=True)
        UnfinishedAnalysis(root / "made" / "kept", shard=shard).save(spec, measured)
    return root / "made"


def rewrite(case: Case, shard: Path) -> None:
    """Write a shard anew with other values."""
    rng = case.rng
    sums, file = shard / SUMS_FILE, shard / SHARD_FILE
    document = json.loads(file.read_text(encoding="utf-8"))
    if rng.random() < 0.5:
        damaged_safetensors(case, sums)
    else:
        more = {
            "of": 10**9,
            "names": ["../x"],
            "layers": {"encoder": {"teacher": list(range(3000)), "students": [[0]]}},
        }
        document = damaged_json(case, document, more)
    if not isinstance(document, dict):
        file.write_text(json.dumps(document))
        return
    document.pop("sha256", None)
    document["sums_sha256"] = _file_hash(sums)
    try:
        document["sha256"] = _document_hash(document)
    except UnicodeEncodeError:  # half of a surrogate pair has no hash
        document["sha256"] = ""
    file.write_text(json.dumps(document))


def damage(case: Case, place: Path) -> None:
    shard = place / case.rng.choice("12")
    action = case.rng.choice(("rewrite", "rewrite", "rewrite", "document", "sums", "swap"))
    case.did.append(action)
    if action == "rewrite":
        rewrite(case, shard)
    elif action == "document":
        damaged_json_file(case, shard / SHARD_FILE)
    elif action == "sums":
        damaged_file(case, shard / SUMS_FILE)
    else:
        shutil.copy(place / "1" / SUMS_FILE, place / "2" / SUMS_FILE)


def sane(geometry: Geometry) -> None:
    assert geometry.students
    assert (geometry.angles["n_tokens"] >= 0).all()


def test_shards(original, tmp_path):
    campaign = Campaign(place := tmp_path / "place")
    for case in cases("shards", few=80):
        directory = fresh(original, place / "shards")
        damage(case, directory)
        shards = [directory / "1", directory / "2"]
        with np.errstate(all="ignore"):
            campaign.judge(case, partial(merge_shards, shards), str(directory), sane)
    campaign.finish()


def test_unfinished_analyses(original, tmp_path):
    campaign = Campaign(place := tmp_path / "place")
    kept = UnfinishedAnalysis(place / "kept", shard=Shard(2, 2))
    measured_spec = msgspec.json.decode(read_metadata(original / "kept" / kept.file.name)["subject"], type=AnalysisSpec)
    for case in cases("unfinished", few=60):
        fresh(original / "kept", kept.directory)
        damaged_safetensors(case, kept.file)
        campaign.judge(case, partial(kept.load, measured_spec), str(kept.directory))
    campaign.finish()
