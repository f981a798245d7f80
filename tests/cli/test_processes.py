"""`anglekit analyze` on several processes over torch.distributed (gloo), and as jobs that are merged."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from anglekit.results.geometry import Geometry
from tests.analysis.same_geometry import assert_same
from tests.cli.launching import COUNTS, needs_launcher, together


@pytest.fixture(scope="module")
def shelf(tmp_path_factory, save_tiny, words) -> Path:
    """Checkpoints and a probe of sixty texts."""
    root = tmp_path_factory.mktemp("shelf")
    save_tiny(root / "teacher", "bert", seed=1)
    save_tiny(root / "student", "bert", seed=2, depth=2)
    save_tiny(root / "narrow", "bert", seed=3, depth=2, width=8)
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(words, size)) for size in rng.integers(1, 21, 60)]
    (root / "probe.tsv").write_text("sentence\n" + "\n".join(texts) + "\n")
    return root


EVERYTHING = (
    *("analyze", "teacher", "student", "narrow", "--probe", "probe.tsv", "--projection", "least-squares"),
    *("--nulls", "all", "--similarity", "all", "--batch-tokens", "100"),
)


@pytest.mark.slow
def test_one_process_and_several_give_one_geometry(shelf, tmp_path):
    found = []
    for count in COUNTS:
        ended = together(count, *EVERYTHING, "--out", tmp_path / str(count), folder=shelf)
        assert [each.code for each in ended] == [0] * count
        assert "Written to" in ended[0].out
        assert all((each.out, each.err) == ("", "") for each in ended[1:])
        found.append(Geometry.load(tmp_path / str(count)))
    for other in found[1:]:
        assert_same(other, found[0])
        assert other.provenance == found[0].provenance
        assert other.settings == found[0].settings
    assert [path.name for path in sorted(tmp_path.iterdir())] == [str(count) for count in COUNTS]


@pytest.mark.slow
def test_a_process_without_a_batch_and_shards_of_several_processes(shelf, tmp_path):
    """One batch for two processes; and a job of two processes is a shard like any other."""
    pair = ("analyze", "teacher", "student", "--probe", "probe.tsv", "--quiet")
    for count in (1, 2):
        ended = together(count, *pair, "--batch-tokens", "100000", "--out", tmp_path / f"one-{count}", folder=shelf)
        assert [(each.code, each.out, each.err) for each in ended] == [(0, "", "")] * count
    assert_same(Geometry.load(tmp_path / "one-2"), Geometry.load(tmp_path / "one-1"))
    options = (*pair, "--batch-tokens", "100")
    for number, count in ((1, 2), (2, 1)):
        out = tmp_path / f"part-{number}"
        ended = together(count, *options, "--shard", f"{number}/2", "--out", out, folder=shelf)
        assert [each.code for each in ended] == [0] * count
    merged = together(1, "merge", tmp_path / "part-2", tmp_path / "part-1", "--out", tmp_path / "merged", folder=shelf)
    assert (merged[0].code, merged[0].err) == (0, "")
    assert "60 examples" in merged[0].out
    together(1, *options, "--out", tmp_path / "whole", folder=shelf)
    assert_same(Geometry.load(tmp_path / "merged"), Geometry.load(tmp_path / "whole"))


@pytest.mark.slow
def test_a_mistake_is_said_once_and_ends_every_process_alike(shelf, tmp_path):
    (tmp_path / "there").mkdir()
    for arguments, word in (
        (("teacher", "./gone", "--out", tmp_path / "out"), "no such directory"),
        (("teacher", "student", "--out", tmp_path / "there"), "--overwrite"),
        (
            (
                "teacher",
                "narrow",
                "--projection",
                "procrustes",
                *("--sample", "4", "--max-length", "3"),
                "--out",
                tmp_path / "out",
            ),
            "more probe",
        ),
    ):
        ended = together(2, "analyze", "--probe", "probe.tsv", *arguments, "--quiet", folder=shelf)
        assert [each.code for each in ended] == [2, 2]
        assert ended[0].err.count("\n") == 1
        assert word in ended[0].err
        assert (ended[0].out, ended[1].out, ended[1].err) == ("", "", "")
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


@pytest.fixture
def two_shelves(shelf, tmp_path) -> tuple[Path, Path]:
    """A shelf, and one inside it that has no student."""
    folder = tmp_path / "shelf"
    shutil.copytree(shelf, folder)
    (folder / "elsewhere").mkdir()
    shutil.copytree(folder / "teacher", folder / "elsewhere" / "teacher")
    shutil.copy(folder / "probe.tsv", folder / "elsewhere")
    return folder, folder / "elsewhere"


FAILING = ("analyze", "teacher", "./student", "--probe", "probe.tsv", "--out", "out", "--quiet")


@pytest.mark.slow
def test_what_fails_in_one_process_ends_all(two_shelves):
    """The second process does not see the student that the first one reads."""
    folder, second = two_shelves
    ended = together(2, *FAILING, folder=folder, second=second)
    assert [each.code for each in ended] == [2, 2]
    assert ended[0].err.count("anglekit: ") == ended[0].err.count("\n") == 1
    assert "cannot load './student'" in ended[0].err or "no such directory" in ended[0].err
    assert (ended[0].out, ended[1].out, ended[1].err) == ("", "", "")
    assert not (folder / "out").exists()
    assert not (second / "out").exists()


@needs_launcher
def test_what_fails_in_one_process_ends_a_launch_of_torch(two_shelves):
    folder, _ = two_shelves
    hide = (
        "import os, shutil, sys; os.environ['RANK'] == '1' and os.chdir('elsewhere');"
        "from anglekit_cli.main import main; main()"
    )
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    command += ["--no-python", sys.executable, "-c", hide, *FAILING]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=180, check=False
    )
    assert done.returncode != 0
    assert done.stderr.count("anglekit: ") == 1
    assert "anglekit: cannot load './student'" in done.stderr or "no such directory" in done.stderr
    assert not (folder / "out").exists()
