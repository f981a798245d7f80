"""Small files that claim to be enormous are refused before anything of that size is made."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz.test_fuzz_geometries import documented
from tests.plots.full_geometry import full_geometry

# What bombs may take beyond the libraries: its file, parsed, and the pieces that are read of it.
_MOST_MIB = 700


@pytest.mark.slow
def test_bombs(save_tiny, tmp_path):
    checkpoint = save_tiny(tmp_path / "original", "bert", depth=2)
    geometry = documented(full_geometry()).save(tmp_path / "analysed")
    (tmp_path / "place").mkdir()
    script = Path(__file__).with_name("bombs.py")
    command = [sys.executable, str(script), *map(str, (tmp_path / "place", checkpoint, geometry))]
    root = script.parents[2]
    ran = subprocess.run(
        command,
        cwd=root,
        env={"PATH": "", "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "MPLBACKEND": "Agg"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    found = [json.loads(line) for line in ran.stdout.splitlines() if line.startswith("{")]
    assert len(found) > 20
    wrong = [each for each in found if not each["outcome"].startswith("refused: ")]
    assert not wrong, wrong
    # The peak of the process only grows, so that all of them together took no more.
    grown = {each["bomb"]: each["grown"] for each in found}
    assert sum(grown.values()) < _MOST_MIB, grown
