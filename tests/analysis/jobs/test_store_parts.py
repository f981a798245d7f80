"""State stores that separate jobs write, joined to the one that a single job writes."""

import json

import pytest

from anglekit.analysis.jobs import extract
from anglekit.analysis.jobs.extract import extract_states
from anglekit.analysis.jobs.store_parts import merge_stores
from anglekit.analysis.preparation import Shard
from anglekit.analysis.settings import AnalysisSettings
from anglekit.errors import InputError
from anglekit.states.store import StateStore
from anglekit_cli.main import main

FEW = AnalysisSettings(token_budget=64, nulls="none", similarity="none")


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(extract, "SHARD_BYTES", 6_000)


@pytest.fixture
def teacher(checkpoint):
    return checkpoint("t5", "teacher", seed=1)


def content(store):
    return [(store.directory / shard.file).read_bytes() for shard in store.document.shards]


def test_parts_in_any_order_are_the_store_of_one_job(teacher, probe, tmp_path):
    whole = extract_states(tmp_path / "whole", teacher, probe, FEW, stored="int8")
    assert len(content(whole)) > 2
    parts = [
        extract_states(tmp_path / f"part-{number}", teacher, probe, FEW, stored="int8", part=Shard(number, 2))
        for number in (2, 1)
    ]
    assert sum(part.n_examples for part in parts) == whole.n_examples
    merged = merge_stores([part.directory for part in parts], tmp_path / "merged")
    assert merged.document == whole.document
    assert content(merged) == content(whole)
    assert content(parts[0]) != content(whole), "control"
    assert not (tmp_path / "merged.unfinished").exists()
    again = extract_states(tmp_path / "part-1", teacher, probe, FEW, stored="int8", part=Shard(1, 2))
    assert again.document == parts[1].document, "a part that is there is not written again"
    with pytest.raises(InputError, match="exists"):
        extract_states(tmp_path / "part-1", teacher, probe, FEW, stored="int8", part=Shard(2, 2))


def test_what_are_not_all_parts_of_one_store_is_refused(teacher, checkpoint, probe, tmp_path):
    one, two = (
        extract_states(tmp_path / str(number), teacher, probe, FEW, part=Shard(number, 2)).directory
        for number in (1, 2)
    )
    whole = extract_states(tmp_path / "whole", teacher, probe, FEW).directory
    other = extract_states(tmp_path / "other", checkpoint("t5", "teacher", seed=5), probe, FEW, part=Shard(2, 2))
    fewer = extract_states(tmp_path / "fewer", teacher, probe.select(range(20)), FEW, part=Shard(2, 2))
    for parts, message in (
        ([one], r"part 2/2 is missing; give all 2"),
        ([one, two, one], r"are both part 1/2; give each once"),
        ([one, whole], r"is a whole store"),
        ([one, other.directory], r"are parts of unlike stores \(model differs\)"),
        ([one, fewer.directory], r"are parts of unlike stores \(plan_sha256 differs\)"),
        ([one, tmp_path / "gone"], r"is no state store"),
    ):
        with pytest.raises(InputError, match=message):
            merge_stores(parts, tmp_path / "merged")
    with pytest.raises(InputError, match=r"--shard 99/99 would get none; share them among fewer jobs"):
        extract_states(tmp_path / "none", teacher, probe, FEW, part=Shard(99, 99))
    assert not list(tmp_path.glob("merged*"))


def test_the_commands(save_tiny, probe, tmp_path, monkeypatch, capsys):
    save_tiny(tmp_path / "bert", "bert")
    (tmp_path / "texts.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in probe.texts))

    def run(*words):
        monkeypatch.setattr("sys.argv", ["anglekit", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 0
        return capsys.readouterr().out

    given = ("extract", tmp_path / "bert", "--data", tmp_path / "texts.jsonl", "--batch-tokens", 64)
    parts = [tmp_path / str(number) for number in (1, 2)]
    for number, part in enumerate(parts, 1):
        assert f"This is part {number}/2; join all 2" in run(*given, "--out", part, "--shard", f"{number}/2")
    assert "24 different texts" in run("merge", *parts, "--out", tmp_path / "merged")
    run(*given, "--out", tmp_path / "whole", "--quiet")
    assert content(StateStore(tmp_path / "merged")) == content(StateStore(tmp_path / "whole"))
