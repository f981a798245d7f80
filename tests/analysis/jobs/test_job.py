"""An analysis that is stopped goes on where it was and ends with the result of the uninterrupted one, byte for byte."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from anglekit.analysis.jobs import unfinished as keeping
from anglekit.analysis.jobs.job import save_analysis
from anglekit.analysis.jobs.unfinished import UnfinishedAnalysis, unfinished_directory
from anglekit.analysis.preparation import Shard, prepare
from anglekit.analysis.settings import AnalysisSettings
from anglekit.errors import InputError, RunError

ALL = AnalysisSettings(nulls="all", similarity="all", token_budget=30, projection="least-squares")


class Stopped(BaseException):
    """What no handler of the program takes for an error."""


@pytest.fixture(scope="module")
def job(checkpoint, bert_pair, probe):
    """`job(out, **changes)` analyses a student of the teacher's width and a narrower one, and keeps what it has."""
    students = [bert_pair[1], checkpoint("bert", "narrow", seed=3, depth=2, width=8)]

    def run(out, *, options=ALL, data=probe, **changes):
        return save_analysis(out, bert_pair[0], students, data, options, **{"save_every": 1, **changes})

    return run


def files_of(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


@pytest.fixture(scope="module")
def uninterrupted(job, tmp_path_factory) -> dict[str, bytes]:
    out = tmp_path_factory.mktemp("uninterrupted") / "out"
    job(out, save_every=None)
    return files_of(out)


def stop_after(monkeypatch, saves: int) -> None:
    """Stop the run behind so many saves."""
    real, left = UnfinishedAnalysis.save, iter(range(saves))

    def save(self, *what):
        real(self, *what)
        if next(left, None) is None:
            raise Stopped

    monkeypatch.setattr(UnfinishedAnalysis, "save", save)


@pytest.mark.parametrize("every", [1, 2])
def test_stopped_after_any_save_it_ends_as_if_it_had_not_been(every, job, uninterrupted, tmp_path):
    out, stops = tmp_path / "out", 0
    while not out.exists():
        with pytest.MonkeyPatch.context() as patch:
            # A run saves at its start, if nothing was kept, and then behind every batch or two.
            stop_after(patch, 1 if stops == 0 else 0)
            try:
                job(out, save_every=every)
            except Stopped:
                stops += 1
                assert unfinished_directory(out).is_dir()
    assert stops >= 3
    assert files_of(out) == uninterrupted
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_resumed_run_reads_no_batch_twice(job, tmp_path, monkeypatch):
    read = []
    real = keeping.UnfinishedAnalysis.save
    monkeypatch.setattr(
        UnfinishedAnalysis, "save", lambda self, *what: (read.append(what[1].n_batches), real(self, *what))
    )
    with pytest.MonkeyPatch.context() as patch:
        stop_after(patch, 3)
        with pytest.raises(Stopped):
            job(tmp_path / "out")
    job(tmp_path / "out")
    assert read == sorted(set(read))
    assert read[-1] > 4


def test_the_same_run_started_again_finds_its_result(job, tmp_path):
    out = tmp_path / "out"
    first = job(out)
    before = out.stat().st_mtime_ns, files_of(out)
    again = job(out)
    assert again.counts == first.counts
    assert (out.stat().st_mtime_ns, files_of(out)) == before
    with pytest.raises(InputError, match=r"holds another analysis \(settings: seed differs\)"):
        job(out, options=replace(ALL, seed=1))
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    with pytest.raises(InputError, match="exists"):
        job(out, save_every=None)


def test_what_was_kept_of_another_analysis_is_refused(job, bert_pair, probe, tmp_path):
    out = tmp_path / "out"
    with pytest.MonkeyPatch.context() as patch:
        stop_after(patch, 2)
        with pytest.raises(Stopped):
            job(out)
    kept = files_of(unfinished_directory(out))
    for changes, message in (
        ({"options": replace(ALL, seed=1)}, r"one with other settings \(seed 1, not 0\)"),
        ({"options": replace(ALL, vertices=(1,))}, r"one with other settings \(vertices \(1,\), not None\)"),
        ({"data": replace(probe, texts=probe.texts[:20], rows=probe.rows[:20])}, "one with other examples or tokens"),
        ({"save_every": 0}, "--save-every 0 batches cannot be"),
    ):
        with pytest.raises(InputError, match=message):
            job(out, **changes)
    (unfinished_directory(out) / "process-2-of-2.safetensors").write_bytes(b"")
    with pytest.raises(InputError, match="another number of processes than 1"):
        job(out)
    (unfinished_directory(out) / "process-2-of-2.safetensors").unlink()
    assert files_of(unfinished_directory(out)) == kept
    spec = prepare(bert_pair[0], bert_pair[1:], probe, ALL, None).spec
    with pytest.raises(InputError, match="was left by --shard 1/1, not 1/2"):
        UnfinishedAnalysis(unfinished_directory(out), shard=Shard(1, 2)).load(spec)


def test_damage_and_foreign_files_are_named(job, tmp_path):
    out = tmp_path / "out"
    directory = unfinished_directory(out)
    directory.mkdir()
    (directory / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match=r"holds 'mine.txt', which is not of an analysis"):
        job(out)
    assert (directory / "mine.txt").read_text() == "mine"
    (directory / "mine.txt").unlink()
    file = directory / "process-1-of-1.safetensors"
    for content in (b"", b"\xff" * 100, b"\x10" + bytes(7) + b'{"__metadata__":'):
        file.write_bytes(content)
        with pytest.raises(InputError, match="is damaged"):
            job(out)
    file.unlink()
    directory.rmdir()
    directory.write_text("mine")
    with pytest.raises(InputError, match="is a file"):
        job(out)
    assert not out.exists()


def test_a_second_run_is_refused_while_the_first_one_runs(job, tmp_path):
    out = tmp_path / "out"
    with (
        UnfinishedAnalysis(unfinished_directory(out)).held(),
        pytest.raises(InputError, match="in use by another run"),
    ):
        job(out)
    assert list(tmp_path.iterdir()) == []
    job(out)


def test_a_full_disk_leaves_what_was_kept(job, uninterrupted, tmp_path, monkeypatch):
    out = tmp_path / "out"
    real, room = keeping.write_measurement, iter(range(3))

    def full(path, *what):
        real(path, *what)
        if next(room, None) is None:
            path.write_bytes(path.read_bytes()[:100])
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(keeping, "write_measurement", full)
    with pytest.raises(RunError, match=r"cannot write .*process-1-of-1.safetensors: No space left on device"):
        job(out)
    monkeypatch.undo()
    assert sorted(files_of(unfinished_directory(out))) == ["process-1-of-1.safetensors"]
    job(out)
    assert files_of(out) == uninterrupted
