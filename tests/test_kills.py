"""Commands that are killed at random moments and started again: `make kills`, or ANGLEKIT_KILLS=N for N kills each."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.benchmarks.kill_resume import JOBS, contents

SCRIPT = Path(__file__).parent / "benchmarks" / "kill_resume.py"


@pytest.mark.skipif("ANGLEKIT_KILLS" not in os.environ, reason="kills have a target of their own: make kills")
@pytest.mark.parametrize("job", JOBS)
def test_killed_at_random_moments_it_ends_with_the_uninterrupted_result(job):
    kills = os.environ["ANGLEKIT_KILLS"]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, SCRIPT, kills, "0", job], env=environment, capture_output=True, text=True, timeout=3000
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{job}: survived {kills} of {kills} kills" in done.stdout


def test_what_tells_two_results_apart_is_seen(tmp_path):
    """The comparison itself: a byte, a number, a hidden file and an empty folder count; the time does not."""
    for name, loss, seconds in (("one", 0.5, 1.0), ("two", 0.5, 2.0), ("three", 0.25, 1.0)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "metrics.jsonl").write_text(f'{{"step": 1, "loss": {loss}, "eval_runtime": {seconds}}}\n')
        (tmp_path / name / "weights").write_bytes(b"12")
    one, two, three = (contents(tmp_path / name) for name in ("one", "two", "three"))
    assert one == two
    assert one != three
    (tmp_path / "two" / "weights").write_bytes(b"13")
    assert contents(tmp_path / "two") != one
    (tmp_path / "two" / "weights").write_bytes(b"12")
    for left in (".scratch", "folder"):
        (tmp_path / "two" / left).mkdir()
        assert contents(tmp_path / "two") != one
        (tmp_path / "two" / left).rmdir()
    assert contents(tmp_path / "two") == one
