"""The rules of the house: who may import whom, what starts fast, how long a file may be."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import anglekit

ROOT = Path(__file__).resolve().parents[1]
PACKAGE_FOLDERS = ("anglekit", "cli/anglekit_cli", "data/anglekit_data")
PURE_FILES = tuple(
    ROOT / "anglekit" / name
    for name in (
        *(
            f"geometry/{name}.py"
            for name in (
                "accumulators",
                "angles",
                "anisotropy",
                "bootstrap",
                "cka",
                "equivalence",
                "null_sums",
                "nulls",
                "products",
                "similarity",
            )
        ),
        "distillation/losses.py",
    )
)
NOT_PURE = ("transformers", "pathlib", "matplotlib", "os", "io", "pandas", "seaborn")
HEAVY = ("torch", "transformers", "pandas", "numpy", "matplotlib", "scipy")
LONGEST_FILE = 400


def python_files(*folders: str) -> list[Path]:
    """Return the python files below folders of the repository."""
    files = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
    assert files
    return files


def module_of(path: Path, root: Path) -> str:
    """Return the dotted name of the package that holds a file: what its relative imports start from."""
    return ".".join(path.relative_to(root).parent.parts)


def imports_of(source: str, package: str, *, when: str) -> set[str]:
    """Return the dotted names that a file imports; `from a import b` gives a and a.b.

    Args:
        source: Its text.
        package: The dotted package that holds it, for relative imports.
        when: "ever" for every import, "loading" for those that happen when the module is imported: not those inside
            functions, and not those for type checkers alone.

    Returns:
        The names.
    """
    names = set()
    for node in nodes(ast.parse(source), when):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            start = ".".join(package.split(".")[: len(package.split(".")) - node.level + 1]) if node.level else ""
            module = ".".join(part for part in (start, node.module) if part)
            names |= {module, *(f"{module}.{alias.name}" for alias in node.names)}
    return names


def nodes(node: ast.AST, when: str) -> Iterator[ast.AST]:
    """Yield a node and those below it, but none that do not run on loading if `when` is "loading"."""
    yield node
    for child in ast.iter_child_nodes(node):
        if when == "loading":
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
                continue
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                for other in child.orelse:
                    yield from nodes(other, when)
                continue
        yield from nodes(child, when)


def forbidden_imports(source: str, package: str, forbidden: tuple[str, ...], *, when: str = "ever") -> set[str]:
    """Return the imports of a file that are, or lie below, one of the forbidden names."""
    return {
        name
        for name in imports_of(source, package, when=when)
        if any(name == banned or name.startswith(f"{banned}.") for banned in forbidden)
    }


def heavy_after(statement: str) -> list[str]:
    """Return which of the heavy modules a fresh interpreter holds after a statement."""
    program = f"import sys; {statement}; print(*sorted(set({HEAVY!r}) & set(sys.modules)))"
    path = [str(ROOT), str(ROOT / "cli"), str(ROOT / "data")]
    program = f"import sys; sys.path[:0] = {path!r}; {program}"
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=120)
    return done.stdout.split()


def too_long(paths: list[Path]) -> list[str]:
    """Return the names of the files of more than 400 lines."""
    return [path.name for path in paths if len(path.read_text(encoding="utf-8").splitlines()) > LONGEST_FILE]


def stray_packages(root: Path) -> list[str]:
    """Return the __init__.py files that would make a top-level package of a folder, or packages of the tests."""
    top = [f"{folder}/__init__.py" for folder in ("cli", "data", "figures") if (root / folder / "__init__.py").exists()]
    return top + [path.relative_to(root).as_posix() for path in sorted((root / "tests").rglob("__init__.py"))]


def missing_names(names: list[str], get: Callable[[str], object]) -> list[str]:
    """Return the names that cannot be imported."""
    missing = []
    for name in names:
        try:
            get(name)
        except (AttributeError, ImportError):
            missing.append(name)
    return missing


def typed_homes(source: str) -> dict[str, str]:
    """Return the names that a file imports for others (`from home import name as name`), and from where."""
    return {
        alias.name: node.module
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.ImportFrom) and node.module is not None
        for alias in node.names
        if alias.asname == alias.name
    }


@pytest.mark.parametrize("path", python_files("anglekit/geometry"), ids=lambda path: path.stem)
def test_geometry_never_imports_distillation(path: Path) -> None:
    package = module_of(path, ROOT)
    assert not forbidden_imports(path.read_text(encoding="utf-8"), package, ("anglekit.distillation",))


@pytest.mark.parametrize("path", PURE_FILES, ids=lambda path: path.stem)
def test_the_mathematics_sees_no_models_files_or_plots(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    assert not forbidden_imports(source, module_of(path, ROOT), NOT_PURE)
    opens = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Name) and node.id == "open"]
    assert not opens


@pytest.mark.parametrize("path", python_files("cli/anglekit_cli"), ids=lambda path: path.stem)
def test_no_command_imports_anything_heavy_before_it_runs(path: Path) -> None:
    package = module_of(path, ROOT / "cli")
    assert not forbidden_imports(path.read_text(encoding="utf-8"), package, HEAVY, when="loading")


@pytest.mark.parametrize("statement", ["import anglekit_cli.main", "import anglekit", "import anglekit_data"])
def test_importing_loads_nothing_heavy(statement: str) -> None:
    assert heavy_after(statement) == []


def test_reading_comparing_and_drawing_results_needs_no_torch() -> None:
    names = ("geometry.results", "geometry.compare", "geometry.compare_text", "plots.registry", "plots.sources")
    statement = "; ".join(f"import anglekit.{name}" for name in (*names, "report.build", "whole_file"))
    assert {"torch", "transformers"}.isdisjoint(heavy_after(statement))
    assert "torch" in heavy_after("import anglekit.geometry.nulls")


def test_no_file_is_too_long() -> None:
    assert too_long(python_files(*PACKAGE_FOLDERS, "tests")) == []


def test_no_folder_is_a_package_by_accident() -> None:
    assert stray_packages(ROOT) == []


def test_every_public_name_can_be_imported() -> None:
    assert anglekit.__all__ == sorted(set(anglekit.__all__))
    assert missing_names(anglekit.__all__, lambda name: getattr(anglekit, name)) == []


def test_type_checkers_see_the_names_that_exist() -> None:
    source = (ROOT / "anglekit" / "__init__.py").read_text(encoding="utf-8")
    homes = typed_homes(source)
    assert sorted(homes) == anglekit.__all__
    for name, home in homes.items():
        assert getattr(importlib.import_module(home), name) is getattr(anglekit, name)


@pytest.mark.parametrize(
    "source",
    [
        "from anglekit.distillation import losses",
        "import anglekit.distillation.losses as losses",
        "from anglekit import distillation",
        "from ..distillation.losses import hidden_loss",
        "from .. import distillation",
        "def inside():\n    from anglekit.distillation.losses import hidden_loss",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import anglekit.distillation",
    ],
)
def test_a_forbidden_import_is_noticed(source: str) -> None:
    assert forbidden_imports(source, "anglekit.geometry", ("anglekit.distillation",))


@pytest.mark.parametrize(
    "source", ["import anglekit.distillations", "from .angles import angle_degrees", "x = 'anglekit.distillation'"]
)
def test_an_allowed_import_is_left_alone(source: str) -> None:
    assert not forbidden_imports(source, "anglekit.geometry", ("anglekit.distillation",))


@pytest.mark.parametrize(
    "source",
    [
        "import torch",
        "from torch import nn",
        "try:\n    import pandas as pd\nexcept ImportError:\n    pd = None",
        "class Command:\n    import matplotlib.pyplot as plt",
        "if TYPE_CHECKING:\n    pass\nelse:\n    import numpy",
    ],
)
def test_an_import_on_loading_is_noticed(source: str) -> None:
    assert forbidden_imports(source, "anglekit_cli", HEAVY, when="loading")


@pytest.mark.parametrize("source", ["def run():\n    import torch", "if TYPE_CHECKING:\n    import torch"])
def test_an_import_that_waits_is_left_alone(source: str) -> None:
    assert not forbidden_imports(source, "anglekit_cli", HEAVY, when="loading")
    assert forbidden_imports(source, "anglekit_cli", HEAVY) == {"torch"}


def test_a_heavy_import_is_noticed() -> None:
    assert "numpy" in heavy_after("import numpy")


def test_a_long_file_is_noticed(tmp_path: Path) -> None:
    longest, longer = tmp_path / "longest.py", tmp_path / "longer.py"
    longest.write_text("x = 1\n" * LONGEST_FILE)
    longer.write_text("x = 1\n" * (LONGEST_FILE + 1))
    assert too_long([longest, longer]) == ["longer.py"]


@pytest.mark.parametrize("folder", ["cli", "data", "figures", "tests", "tests/geometry"])
def test_a_stray_package_is_noticed(tmp_path: Path, folder: str) -> None:
    (tmp_path / folder).mkdir(parents=True)
    (tmp_path / folder / "__init__.py").touch()
    assert stray_packages(tmp_path) == [f"{folder}/__init__.py"]


def test_a_name_that_is_not_there_is_noticed() -> None:
    assert missing_names(["analyze", "analyse"], lambda name: getattr(anglekit, name)) == ["analyse"]


def test_a_name_imported_for_use_alone_is_not_taken_for_a_public_one() -> None:
    source = "from typing import Any\nfrom anglekit.errors import InputError as InputError"
    assert typed_homes(source) == {"InputError": "anglekit.errors"}
