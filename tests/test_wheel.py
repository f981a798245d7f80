"""What a user installs: the wheel holds the three packages with their data, and nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from configparser import ConfigParser
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = {"anglekit": "anglekit", "anglekit_cli": "cli/anglekit_cli", "anglekit_data": "data/anglekit_data"}
UNWANTED_FOLDERS = {"__pycache__", "tests", "findings", "benchmarks"}
UNWANTED_SUFFIXES = {".pyc", ".pyo", ".ipynb", ".safetensors"}


def source_files(root: Path) -> dict[str, bytes]:
    """Return what the wheel should hold of the packages: archive name -> content."""
    return {
        (PurePosixPath(package) / path.relative_to(root / folder).as_posix()).as_posix(): path.read_bytes()
        for package, folder in PACKAGES.items()
        for path in (root / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def wheel_problems(files: dict[str, bytes], expected: dict[str, bytes]) -> list[str]:
    """Return what is wrong with a wheel, given its files and those of the packages it is built from."""
    problems = []
    tops = {name.split("/")[0] for name in files}
    infos = {top for top in tops if top.endswith(".dist-info")}
    if tops - infos != set(PACKAGES) or len(infos) != 1:
        problems.append(f"top level holds {sorted(tops)}")
    packaged = {name: content for name, content in files.items() if name.split("/")[0] not in infos}
    problems += [f"missing {name}" for name in sorted(expected.keys() - packaged.keys())]
    problems += [f"not from a package: {name}" for name in sorted(packaged.keys() - expected.keys())]
    problems += [f"differs: {name}" for name in sorted(expected.keys() & packaged) if expected[name] != packaged[name]]
    problems += [f"no {package}/py.typed" for package in PACKAGES if f"{package}/py.typed" not in packaged]
    for name in packaged:
        path = PurePosixPath(name)
        if UNWANTED_FOLDERS & set(path.parts[:-1]) or path.suffix in UNWANTED_SUFFIXES or path.name.startswith("test_"):
            problems.append(f"does not belong in a wheel: {name}")
    cards = [name for name in packaged if name.startswith("anglekit_data/cards/") and name.endswith(".md")]
    problems += [] if cards else ["no data card"]
    problems += [f"empty data card: {name}" for name in cards if not packaged[name].strip()]
    for info in infos:
        problems += info_problems({name.removeprefix(f"{info}/"): content for name, content in files.items()})
    return problems


def info_problems(files: dict[str, bytes]) -> list[str]:
    """Return what is wrong with the metadata: the licence, the command, the extras."""
    problems = []
    if b"MIT License" not in files.get("licenses/LICENSE", b""):
        problems.append("no MIT LICENSE")
    entry_points = ConfigParser()
    entry_points.read_string(files.get("entry_points.txt", b"").decode())
    scripts = {section: dict(entry_points[section]) for section in entry_points.sections()}
    if scripts != {"console_scripts": {"anglekit": "anglekit_cli.main:main"}}:
        problems.append(f"entry points are {scripts}")
    metadata = files.get("METADATA", b"").decode().splitlines()
    wanted = ["Name: anglekit", "License-Expression: MIT", "Requires-Python: >=3.11", "Provides-Extra: hub"]
    problems += [f"metadata lacks {line!r}" for line in wanted if line not in metadata]
    return problems


@pytest.fixture(scope="module")
def wheel_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Build the wheel with the installed build backend (no isolation, so no network) and read it."""
    pytest.importorskip("hatchling", reason="the build backend comes with the extra `dev`")
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=120, env={**os.environ, "NO_COLOR": "1"})
    (wheel,) = folder.iterdir()
    assert wheel.name.endswith("-py3-none-any.whl")
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_the_wheel_holds_the_three_packages_and_nothing_else(wheel_files: dict[str, bytes]) -> None:
    assert wheel_problems(wheel_files, source_files(ROOT)) == []


@pytest.mark.parametrize(
    ("extra", "problem"),
    [
        ("cli/__init__.py", "top level holds"),
        ("tests/test_wheel.py", "top level holds"),
        ("anglekit/__pycache__/errors.cpython-311.pyc", "does not belong in a wheel"),
        ("anglekit/tests/test_angles.py", "does not belong in a wheel"),
        ("anglekit/left_over.py", "not from a package"),
        ("other-1.0.dist-info/METADATA", "top level holds"),
    ],
)
def test_a_file_too_many_is_noticed(wheel_files: dict[str, bytes], extra: str, problem: str) -> None:
    problems = wheel_problems({**wheel_files, extra: b"x"}, source_files(ROOT))
    assert any(text.startswith(problem) for text in problems)


@pytest.mark.parametrize(
    ("lost", "problem"),
    [
        ("anglekit_cli/py.typed", "no anglekit_cli/py.typed"),
        ("anglekit_data/cards/inference.md", "missing anglekit_data/cards/inference.md"),
        ("anglekit/errors.py", "missing anglekit/errors.py"),
        (".dist-info/licenses/LICENSE", "no MIT LICENSE"),
        (".dist-info/entry_points.txt", "entry points are {}"),
        (".dist-info/METADATA", "metadata lacks 'Name: anglekit'"),
    ],
)
def test_a_lost_file_is_noticed(wheel_files: dict[str, bytes], lost: str, problem: str) -> None:
    kept = {name: content for name, content in wheel_files.items() if not name.endswith(lost)}
    assert len(kept) == len(wheel_files) - 1
    assert problem in wheel_problems(kept, source_files(ROOT))


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("anglekit/errors.py", b"changed", "differs: anglekit/errors.py"),
        ("anglekit_data/cards/inference.md", b"\n", "empty data card: anglekit_data/cards/inference.md"),
    ],
)
def test_other_content_is_noticed(wheel_files: dict[str, bytes], name: str, content: bytes, problem: str) -> None:
    assert problem in wheel_problems({**wheel_files, name: content}, source_files(ROOT))
