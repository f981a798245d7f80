"""Directories that one process at a time may write."""

import subprocess
import sys

import pytest

from anglekit.errors import InputError
from anglekit.runtime.locks import DirectoryLock

HOLD = "import sys; from pathlib import Path; from anglekit.runtime.locks import DirectoryLock; \
lock = DirectoryLock(Path(sys.argv[1]), 'run.lock'); print('held', flush=True); input()"


def test_a_directory_is_held_by_one_and_leaves_no_trace(tmp_path):
    directory = tmp_path / "a" / "run"
    lock = DirectoryLock(directory, "run.lock")
    assert (directory / "run.lock").exists()
    with pytest.raises(InputError, match="run is in use by another run; wait for it or name another directory"):
        DirectoryLock(directory, "run.lock")
    lock.release()
    assert not directory.exists()
    with DirectoryLock(directory, "run.lock"):
        lock.release()  # a second time: it is not this one's any more
        assert (directory / "run.lock").exists()
        (directory / "result").touch()
    assert [path.name for path in directory.iterdir()] == ["result"]


def test_a_process_that_is_killed_holds_nothing(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(InputError, match="in use by another reproduction"):
            DirectoryLock(tmp_path, "run.lock", holder="reproduction")
        other.kill()
        other.wait()
    assert (tmp_path / "run.lock").exists()
    DirectoryLock(tmp_path, "run.lock").release()
    assert not (tmp_path / "run.lock").exists()


def test_a_lock_file_that_its_holder_removes_between_opening_and_locking_is_not_taken(tmp_path, monkeypatch):
    fcntl = pytest.importorskip("fcntl")
    first = DirectoryLock(tmp_path, "run.lock")
    flock = fcntl.flock

    def late(descriptor, operation):
        if operation & fcntl.LOCK_EX:
            first.release()
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    with pytest.raises(InputError, match="in use"):
        DirectoryLock(tmp_path, "run.lock")
    monkeypatch.undo()
    DirectoryLock(tmp_path, "run.lock").release()


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"cannot write to .*file/run: Not a directory; name a directory"):
        DirectoryLock(tmp_path / "file" / "run", "run.lock")
