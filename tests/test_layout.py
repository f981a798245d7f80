"""The rules of the house: who may import whom, what starts fast, what lies where."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

import anglekit

ROOT = Path(__file__).resolve().parents[1]
PACKAGE_FOLDERS = ("anglekit", "cli/anglekit_cli", "data/anglekit_data")
#: The floors of the house, from the top: what a room may import lies on a lower floor, or in the room itself.
FLOORS: tuple[tuple[str, ...], ...] = (
    ("anglekit_cli",),
    ("anglekit.report",),
    ("anglekit",),
    ("anglekit.losses",),
    ("anglekit.recipes", "anglekit.advice"),
    ("anglekit.parameter_space",),
    ("anglekit.distillation",),
    ("anglekit.analysis",),
    ("anglekit.plots", "anglekit.states"),
    ("anglekit.comparison", "anglekit.probes"),
    ("anglekit.results", "anglekit.tables", "anglekit.models", "anglekit.geometry"),
    ("anglekit.display", "anglekit_data", "anglekit.runtime"),
    ("anglekit.settings_fields", "anglekit.readings"),
    ("anglekit.errors", "anglekit.vocabulary"),
)
MOST_FILES = 16
#: All that the mathematics may import beside the standard library, and what it may not take from that.
PURE_LIBRARIES = ("torch", "numpy", "numba")
NOT_PURE = ("os", "io", "pathlib", "json", "shutil", "tempfile", "subprocess")
HEAVY = ("torch", "transformers", "pandas", "numpy", "matplotlib", "scipy")
#: Libraries that may use modules that not every system has.
OTHERS = (
    "torch",
    "transformers",
    "pandas",
    "matplotlib.pyplot",
    "seaborn",
    "accelerate",
    "typer",
    "datasets",
    "peft",
    "psutil",
)
#: Modules that not every system has, and what we use in their place.
POSIX_ONLY = ("fcntl", "grp", "pwd", "resource", "termios")


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


def heavy_after(*statements: str) -> list[list[str]]:
    """Return which of the heavy modules a fresh interpreter holds after each of the statements, one after the other."""
    found = f"print(*sorted(set({HEAVY!r}) & set(sys.modules)))"
    program = "; ".join(["import sys", *(f"{statement}; {found}" for statement in statements)])
    path = [str(ROOT), str(ROOT / "cli"), str(ROOT / "data")]
    program = f"import sys; sys.path[:0] = {path!r}; {program}"
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=120)
    return [line.split() for line in done.stdout.splitlines()]


def modules(root: Path) -> dict[str, Path]:
    """Return the files of the three packages by dotted name; a package has the name of its folder."""
    found = {}
    for folder in PACKAGE_FOLDERS:
        for path in sorted((root / folder).rglob("*.py")):
            parts = path.relative_to((root / folder).parent).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def room_of(module: str) -> str:
    """Return the room of a module: the first folder below anglekit, or the package of the command line or the data."""
    parts = module.split(".")
    return ".".join(parts[:2]) if parts[0] == "anglekit" else parts[0]


@cache
def import_graph(root: Path) -> dict[str, set[str]]:
    """Return what each file imports of the others, at any time and for type checkers too."""
    files = modules(root)
    graph = {}
    for module, path in files.items():
        package = module if path.name == "__init__.py" else module.rpartition(".")[0]
        names = imports_of(path.read_text(encoding="utf-8"), package, when="ever")
        # `from a import b` gives a and a.b: where a.b is a file, a is only the way there.
        ways = {name.rpartition(".")[0] for name in names if name in files}
        graph[module] = {name for name in names if name in files and name not in ways} - {module}
    return graph


def imports_up(graph: dict[str, set[str]]) -> list[str]:
    """Return the imports that lead to the same floor, or up, in another room."""
    floor = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
    return [
        f"{module} -> {other}"
        for module in sorted(graph)
        for other in sorted(graph[module])
        if room_of(module) != room_of(other) and floor[room_of(module)] >= floor[room_of(other)]
    ]


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Return the groups of files that import each other in circles of any length."""
    reached = {module: reachable(graph, module) for module in graph}
    found = {frozenset({other for other in reached[module] if module in reached[other]}) for module in graph}
    return sorted(sorted(circle) for circle in found if circle)


def reachable(graph: dict[str, set[str]], start: str) -> set[str]:
    """Return all files that a file leads to."""
    seen: set[str] = set()
    waiting = [start]
    while waiting:
        fresh = graph[waiting.pop()] - seen
        seen |= fresh
        waiting += fresh
    return seen


def full_folders(paths: list[Path]) -> list[str]:
    """Return the folders that hold more Python files than one can look over."""
    counts = Counter(path.parent for path in paths)
    return sorted(folder.name for folder, count in counts.items() if count > MOST_FILES)


def unmirrored_tests(root: Path) -> list[str]:
    """Return the folders of tests that have no folder of code: tests/a/b tests anglekit/a/b."""
    elsewhere = {"benchmarks", "census", "cli", "data", "fuzz", "simulations", "validation"}
    folders = {path.parent.relative_to(root / "tests") for path in (root / "tests").rglob("test_*.py")}
    return sorted(
        folder.as_posix()
        for folder in folders
        if folder.parts and folder.parts[0] not in elsewhere and not (root / "anglekit" / folder).is_dir()
    )


def imported_tests(source: str) -> set[str]:
    """Return the modules of tests that a file imports."""
    return {name for name in imports_of(source, "tests", when="ever") if name.rpartition(".")[2].startswith("test_")}


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


def test_imports_run_down_or_stay_in_the_room() -> None:
    graph = import_graph(ROOT)
    assert {room_of(module) for module in graph} == {room for rooms in FLOORS for room in rooms}
    assert imports_up(graph) == []


def test_no_files_import_each_other_in_a_circle() -> None:
    assert circles(import_graph(ROOT)) == []


def test_no_folder_holds_too_many_files() -> None:
    assert full_folders(python_files(*PACKAGE_FOLDERS)) == []


def test_tests_mirror_the_folders() -> None:
    assert unmirrored_tests(ROOT) == []


@pytest.mark.parametrize("path", python_files("tests"), ids=lambda path: path.stem)
def test_no_test_imports_another(path: Path) -> None:
    assert imported_tests(path.read_text(encoding="utf-8")) == set()


PURE = python_files("anglekit/geometry", "anglekit/distillation/losses")


@pytest.mark.parametrize("path", PURE, ids=lambda path: path.stem)
def test_the_mathematics_sees_tensors_and_numbers_only(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    assert not forbidden_imports(source, module_of(path, ROOT), NOT_PURE)
    roots = {name.partition(".")[0] for name in imports_of(source, module_of(path, ROOT), when="ever")}
    assert roots <= {*sys.stdlib_module_names, *PURE_LIBRARIES, "anglekit"}
    opens = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Name) and node.id == "open"]
    assert not opens


def without_posix(monkeypatch: pytest.MonkeyPatch, names: list[str]) -> None:
    """Import modules anew where the modules of POSIX alone are missing; libraries of others are loaded before."""
    for library in OTHERS:
        importlib.import_module(library)
    ours = {name.partition(".")[0] for name in names}
    for loaded in [name for name in sys.modules if name.partition(".")[0] in ours]:
        monkeypatch.delitem(sys.modules, loaded)
    for hidden in POSIX_ONLY:
        monkeypatch.setitem(sys.modules, hidden, None)
    for name in names:
        importlib.import_module(name)
    # What was imported here is forgotten again: a class must not be there twice for other tests.
    for again in [name for name in sys.modules if name.partition(".")[0] in ours]:
        del sys.modules[again]


def test_the_library_imports_where_no_posix_module_is(monkeypatch: pytest.MonkeyPatch) -> None:
    without_posix(monkeypatch, [name for name in modules(ROOT) if not name.endswith("__main__")])


def test_an_import_of_a_posix_module_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "needs_posix.py").write_text("import fcntl", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="fcntl"):
        without_posix(monkeypatch, ["needs_posix"])


@pytest.mark.parametrize("path", python_files("cli/anglekit_cli"), ids=lambda path: path.stem)
def test_no_command_imports_anything_heavy_before_it_runs(path: Path) -> None:
    package = module_of(path, ROOT / "cli")
    assert not forbidden_imports(path.read_text(encoding="utf-8"), package, HEAVY, when="loading")


@pytest.mark.parametrize("statement", ["import anglekit_cli.main", "import anglekit", "import anglekit_data"])
def test_importing_loads_nothing_heavy(statement: str) -> None:
    assert heavy_after(statement) == [[]]


def test_reading_comparing_and_drawing_results_needs_no_torch() -> None:
    names = ("results.geometry", "comparison.compare", "comparison.result", "plots.registry", "plots.inputs")
    statement = "; ".join(f"import anglekit.{name}" for name in (*names, "report.build", "runtime.files"))
    (light,) = heavy_after(statement)
    assert "pandas" in light
    assert {"torch", "transformers"}.isdisjoint(light)


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
        "import anglekit.distillation.losses.functional as losses",
        "from anglekit import distillation",
        "from ..distillation.losses import hidden_loss",
        "from .. import distillation",
        "def inside():\n    from anglekit.distillation.losses.functional import hidden_loss",
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
    before, after = heavy_after("import json", "import numpy")
    assert before == []
    assert "numpy" in after


def test_an_import_up_is_noticed() -> None:
    graph = {"anglekit.geometry.sums": {"anglekit.analysis.run"}, "anglekit.analysis.run": {"anglekit.geometry.sums"}}
    assert imports_up(graph) == ["anglekit.geometry.sums -> anglekit.analysis.run"]
    assert imports_up({"anglekit.plots.files": {"anglekit.states.recorder"}, "anglekit.states.recorder": set()})


def test_a_circle_is_noticed() -> None:
    graph = {"a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": set()}
    assert circles(graph) == [["a", "b", "c"]]
    assert circles({"a": {"b"}, "b": {"c"}, "c": set()}) == []


def test_a_full_folder_is_noticed(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.py" for number in range(MOST_FILES + 1)]
    assert full_folders(paths) == [tmp_path.name]
    assert full_folders(paths[1:]) == []


def test_a_folder_of_tests_without_code_is_noticed(tmp_path: Path) -> None:
    for folder in ("tests/geometry", "tests/nowhere", "tests/fuzz", "anglekit/geometry"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "test_one.py").touch()
    assert unmirrored_tests(tmp_path) == ["nowhere"]


@pytest.mark.parametrize(
    "source", ["from tests.cli.test_main import run", "from tests.cli import test_main", "import tests.cli.test_main"]
)
def test_a_test_that_imports_another_is_noticed(source: str) -> None:
    assert imported_tests(source) == {"tests.cli.test_main"}


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
