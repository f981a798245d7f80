"""`anglekit plot`, through the command line's own entry."""

from __future__ import annotations

import itertools
import re
import stat
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import typer
from typer.testing import CliRunner

from anglekit.analysis.jobs.shards import merge_shards
from anglekit.comparison.evidence import read_evidence
from anglekit.errors import InputError, RunError
from anglekit.plots.inputs import read_figure_inputs
from anglekit.report.gather import gather
from anglekit.results.columns import COLUMNS
from anglekit.results.geometry import Geometry
from anglekit_cli.commands.plot import plot

app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False)
app.command("plot")(plot)
app.callback()(lambda: None)


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    """A small Geometry of two students with both streams, on disk."""
    rng = np.random.default_rng(0)
    students = {"copied": "teacher", "fresh": "random"}
    frames = {name: [] for name in COLUMNS}
    for student, stream, vertex in itertools.product(students, ("encoder", "decoder"), range(3)):
        key = {"student": student, "stream": stream, "vertex": vertex}
        for i, k in itertools.combinations(range(4), 2):
            numbers = {c: rng.uniform(0.1, 0.9) for c, kind in COLUMNS["angles"].items() if kind == "float64"}
            frames["angles"].append({**key, "teacher_i": i, "teacher_k": k, **numbers, "n_tokens": 50, "n_examples": 5})
        for number in range(400, 900, 20):
            frames["histograms"].append(
                {**key, "teacher_i": -1, "teacher_k": -1, "bin": number, "count": int(rng.integers(1, 30))}
            )
    tables = {
        name: pd.DataFrame(rows, columns=list(COLUMNS[name])).astype(dict(COLUMNS[name]))
        for name, rows in frames.items()
    }
    geometry = Geometry(
        **tables,
        settings={"reading": "corrected"},
        provenance={"students": [{"name": name, "init": init} for name, init in students.items()]},
        counts={},
    )
    return geometry.save(tmp_path_factory.mktemp("runs") / "mnli")


def run(*arguments: object):
    return CliRunner().invoke(app, ["plot", *map(str, arguments)])


@pytest.mark.parametrize(("suffix", "start"), [(".png", b"\x89PNG"), (".pdf", b"%PDF"), (".SVG", b"<?xml")])
@pytest.mark.parametrize("figure", ["figure1", "angles-heatmap"])
def test_writes_the_file_and_prints_its_path(
    saved: Path, tmp_path: Path, figure: str, suffix: str, start: bytes
) -> None:
    out = tmp_path / "new" / f"figure{suffix}"
    result = run(saved, "--figure", figure, "--out", out, "--dpi", 60)
    assert result.exit_code == 0, result.output
    assert result.output == f"{out}\n"
    assert out.read_bytes().startswith(start)
    assert [path.name for path in out.parent.iterdir()] == [out.name]
    assert stat.S_IMODE(out.stat().st_mode) & 0o400


def test_options_reach_the_figure(saved: Path, tmp_path: Path) -> None:
    out = tmp_path / "f.svg"
    arguments = (
        "--only-student",
        "cop*",
        "--streams",
        "decoder",
        "--vertices",
        1,
        "--figure-width",
        "column",
        "--dark",
    )
    labels = ("--task-name", "A", "--task-name", "B")
    assert run(saved, saved, "--figure", "figure1", "--out", out, *labels, *arguments).exit_code == 0
    content = out.read_text()
    assert "(b) A, decoder" in content
    assert "(c) B, decoder" in content
    assert "student layer 1, 6 pairs" in content
    assert "fresh" not in content
    assert "#15181c" in content
    assert 'width="218' in content  # 3.03 inches in points
    assert (
        run(saved, "--figure", "angles-heatmap", "--out", out, "--value", "acute_fraction", "--overwrite").exit_code
        == 0
    )
    assert "acute tokens (%)" in out.read_text()


def test_the_directorys_name_is_the_task(saved: Path, tmp_path: Path, monkeypatch) -> None:
    out = tmp_path / "f.svg"
    monkeypatch.chdir(saved)
    assert run(".", "--figure", "figure1", "--out", out).exit_code == 0
    assert "(b) mnli, encoder" in out.read_text()


def test_files_are_reproducible(saved: Path, tmp_path: Path) -> None:
    for name in ("a.pdf", "b.pdf"):
        assert run(saved, "--figure", "figure1", "--out", tmp_path / name).exit_code == 0
    assert (tmp_path / "a.pdf").read_bytes() == (tmp_path / "b.pdf").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--figure", "figur1", "--out", "f.png"), "no figure 'figur1'; did you mean 'figure1'?"),
        (("--figure", "figure1", "--out", "f.jpg"), "cannot write 'f.jpg': a figure's file ends in .png, .pdf, .svg"),
        (("--figure", "figure1", "--out", "f"), "cannot write 'f': a figure's file ends in"),
        (("--figure", "figure1", "--out", "f.png", "--only-student", "copid"), "did you mean 'copied'?"),
        (
            ("--figure", "figure1", "--out", "f.png", "--task-name", "a", "--task-name", "b"),
            "2 task labels for 1 Geometry",
        ),
        (("--figure", "figure1", "--out", "f.png", "--value", "mean_cosine"), "figure1 takes no value (--value)"),
        (("--figure", "angles-heatmap", "--out", "f.png", "--task-name", "a"), "angles-heatmap takes no task labels"),
        (("--figure", "angles-heatmap", "--out", "f.png", "--value", "cosine"), "no value 'cosine'"),
        (("--figure", "figure1", "--out", "f.png", "--dpi", "1"), "give one from 10 to 2400"),
        (("--figure", "figure1", "--out", "f.png", "--figure-width", "pag"), "did you mean 'page'?"),
        (
            ("--figure", "figure1", "--out", "f.png", "--streams", "x"),
            "--streams is 'x'; allowed: encoder, decoder, both",
        ),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(
    saved: Path, tmp_path: Path, monkeypatch, arguments: tuple[str, ...], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run(saved, *arguments)
    assert isinstance(result.exception, InputError)
    assert message in str(result.exception)
    assert "\n" not in str(result.exception)
    assert list(tmp_path.iterdir()) == []


def test_several_directories_for_one(saved: Path, tmp_path: Path) -> None:
    result = run(saved, saved, "--figure", "angles-heatmap", "--out", tmp_path / "f.png")
    assert "draws one directory, 2 were given" in str(result.exception)


def test_bad_directories_and_targets(saved: Path, tmp_path: Path) -> None:
    result = run(tmp_path / "absent", "--figure", "figure1", "--out", tmp_path / "f.png")
    assert isinstance(result.exception, InputError)
    (tmp_path / "folder.png").mkdir()
    result = run(saved, "--figure", "figure1", "--out", tmp_path / "folder.png")
    assert isinstance(result.exception, InputError)
    assert "is a directory" in str(result.exception)
    (tmp_path / "file").write_text("in the way")
    result = run(saved, "--figure", "figure1", "--out", tmp_path / "file" / "f.png")
    assert isinstance(result.exception, InputError)
    assert "a part of its path is a file" in str(result.exception)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder.png"]


def test_a_failed_write_leaves_the_old_file(saved: Path, tmp_path: Path, monkeypatch) -> None:
    out = tmp_path / "f.png"
    out.write_bytes(b"old")

    def full(self: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    result = run(saved, "--figure", "figure1", "--out", out, "--dpi", 60, "--overwrite")
    assert isinstance(result.exception, RunError)
    assert "No space left on device" in str(result.exception)
    assert out.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["f.png"]


def test_what_a_page_does_not_hold_is_on_further_pages(saved: Path, tmp_path: Path) -> None:
    options = ("--figure", "angles-heatmap", "--figure-width", "column", "--dpi", "20", "--out")
    tall = run(saved, *options, tmp_path / "tall.png")
    pages = sorted(path.name for path in tmp_path.iterdir())
    assert tall.exit_code == 0
    assert tall.stderr == ""
    assert pages == ["tall-2.png", "tall.png"]
    assert tall.stdout.split() == [str(tmp_path / name) for name in ("tall.png", "tall-2.png")]
    book = run(saved, *options, tmp_path / "tall.pdf")
    assert book.stdout == f"{tmp_path / 'tall.pdf'}\n"
    assert len(re.findall(rb"/Type /Page\b", (tmp_path / "tall.pdf").read_bytes())) == 2
    (tmp_path / "tall.png").unlink()
    refused = run(saved, *options, tmp_path / "tall.png")
    assert "tall-2.png exists; choose another file" in str(refused.exception)
    assert not (tmp_path / "tall.png").exists()


def test_a_figure_is_dressed_for_its_page(saved: Path, tmp_path: Path) -> None:
    plain, dressed = tmp_path / "plain.svg", tmp_path / "dressed.svg"
    own = tmp_path / "own.mplstyle"
    own.write_text("axes.facecolor: fff0e0\ntext.color: 112233\nfont.size: 30\n", encoding="utf-8")
    given = (saved, "--figure", "angles-heatmap", "--only-student", "cop*", "--streams", "encoder", "--vertices", "1")
    looks = ("--style", "ggplot", "--style", own, "--font", "DejaVu Serif", "--no-title", "--no-note")
    assert run(*given, "--out", plain).exit_code == 0
    assert run(*given, *looks, "--rename", "copied=Student $A$", "--out", dressed).exit_code == 0
    before, after = plain.read_text(), dressed.read_text()
    assert ("copied" in before, "Layer 0: embeddings" in before, "DejaVu Serif" in before) == (True, True, False)
    assert ("copied" in after, "Layer 0: embeddings" in after, "DejaVu Serif" in after) == (False, False, True)
    assert "#112233" in after
    assert "font: 30px" not in after
    two = (saved, "--figure", "angles-heatmap", "--streams", "encoder", "--vertices", "1")
    assert run(*two, "--rename", "copied=Student $A$", "--no-title", "--out", plain, "--overwrite").exit_code == 0
    assert "Student $A$" in plain.read_text()  # it tells two blocks apart


def test_bad_looks_are_one_line(saved: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.mplstyle").write_text("nothing here\n", encoding="utf-8")
    (tmp_path / "latin.mplstyle").write_bytes(b"font.family: Andr\xe9\n")
    for looks, words in (
        (("--style", "ggplt"), "no matplotlib style 'ggplt'; did you mean 'ggplot'? matplotlib has "),
        (
            ("--style", "absent.style"),
            "absent is not installed, or holds no such style; `python -m pip",
        ),
        (("--style", tmp_path / "absent.mplstyle"), "no style sheet"),
        (("--style", tmp_path / "empty.mplstyle"), "holds no setting of matplotlib"),
        (("--style", tmp_path / "latin.mplstyle"), "cannot be read as a style sheet"),
        (("--font", "DejaVu Sons"), "the font 'DejaVu Sons' is not installed here"),
        (("--rename", "forward"), "'forward' is no NAME=TEXT; give a student's name"),
        (("--rename", "copid=A"), "no student or strategy 'copid' to call 'A' (--rename); did you mean 'copied'?"),
        (
            ("--only-student", "x*"),
            "no student meets 'x*'; allowed: copied, fresh; others have to be analysed first (anglekit analyze",
        ),
    ):
        result = run(saved, "--figure", "angles-heatmap", "--out", tmp_path / "f.png", *looks)
        assert isinstance(result.exception, InputError), looks
        assert words in str(result.exception)
        assert "\n" not in str(result.exception)
    assert not (tmp_path / "f.png").exists()


def test_help_names_every_figure_and_value() -> None:
    from anglekit.plots.figures.angles_heatmap import ANGLE_VALUES
    from anglekit.plots.registry import FIGURES

    words = "".join(run("--help").output.split())
    for name in [*FIGURES, *ANGLE_VALUES]:
        assert name in words


def test_the_numbers_go_beside_the_figure_or_alone(saved: Path, tmp_path: Path) -> None:
    out, data = tmp_path / "f.svg", tmp_path / "f.csv"
    arguments = ("--figure", "angles-heatmap", "--only-student", "copied", "--value", "null_cosine")
    result = run(saved, *arguments, "--out", out, "--numbers", data)
    assert result.output == f"{out}\n{data}\n"
    numbers = pd.read_csv(data)
    table = Geometry.load(saved).angles.query("student == 'copied'")
    np.testing.assert_allclose(numbers["null_cosine"], table["null_cosine"])
    written = data.read_bytes()
    out.unlink()
    assert "f.csv exists; choose another file or" in str(run(saved, *arguments, "--numbers", data).exception)
    data.write_bytes(b"old")
    assert run(saved, *arguments, "--numbers", data, "--overwrite").exit_code == 0
    assert data.read_bytes() == written
    assert sorted(path.name for path in tmp_path.iterdir()) == ["f.csv"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--figure", "figure1"), "nothing to write; give a figure's file with --out"),
        (("--figure", "figure1", "--numbers", "f.txt"), "the numbers' file ends in .csv; change --numbers"),
        (
            ("--figure", "vertex-sweep", "--numbers", "f.csv"),
            "earlier anglekit; run `anglekit analyze --nulls default`",
        ),
        (("--figure", "scores-by-strategy", "--numbers", "f.csv"), "drawn from scores; give directories of"),
        (("--figure", "figure1", "--out", "f.png", "--null", "formula"), "figure1 takes no null (--null)"),
        (("--figure", "figure1", "--out", "f.png", "--score-margin", "1"), "figure1 takes no margin (--score-margin)"),
    ],
)
def test_bad_data_targets(saved: Path, tmp_path: Path, monkeypatch, arguments: tuple[str, ...], message: str) -> None:
    monkeypatch.chdir(tmp_path)
    result = run(saved, *arguments)
    assert isinstance(result.exception, InputError)
    assert message in str(result.exception)
    assert list(tmp_path.iterdir()) == []


def test_scores_are_drawn_from_a_sweep(tmp_path: Path) -> None:
    rows = [("none", "random", 0, "validation", 0.5), ("forward", "random", 0, "validation", 0.7)]
    file = tmp_path / "scores.csv"
    pd.DataFrame(rows, columns=["strategy", "init", "seed", "data", "accuracy"]).to_csv(file, index=False)
    out = tmp_path / "f.svg"
    result = run(file, "--figure", "scores-by-strategy", "--out", out, "--task-name", "MNLI", "--score-margin", 0.05)
    assert result.exit_code == 0, result.output
    assert "equivalence band, 0.05 high" in out.read_text()


def test_steps_are_read_from_the_directories_names(saved: Path, tmp_path: Path) -> None:
    geometry = Geometry.load(saved)
    places = [geometry.save(tmp_path / f"geometry-step-{step}") for step in (100, 5)]
    data = tmp_path / "f.csv"
    assert run(*places, "--figure", "training-angles", "--numbers", data).exit_code == 0
    assert sorted(pd.read_csv(data)["step"].unique()) == [5, 100]


@pytest.mark.parametrize("read", ["plot", "compare", "report", "merge"])
def test_a_misspelt_directory_is_answered_with_its_neighbour(read: str, tmp_path: Path) -> None:
    readers = {"plot": read_figure_inputs, "compare": read_evidence, "report": gather, "merge": merge_shards}
    (tmp_path / "geometry").mkdir()
    with pytest.raises(InputError, match=r"geometri.* \(did you mean '.*geometry'\?\); give"):
        readers[read]([tmp_path / "geometri"])
