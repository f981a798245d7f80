"""`anglekit compare`, through the command line's own entry."""

from __future__ import annotations

import io
import json
import re
import stat
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import typer
from typer.testing import CliRunner

from anglekit.comparison.compare import compare as run_compare
from anglekit.display.tables import latex_text, markdown_text
from anglekit.errors import InputError, RunError
from anglekit_cli.commands.compare import compare
from tests.comparison.compare_corpus import FIVE, make_geometry, score_rows, write_sweep

app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False)
app.command("compare")(compare)
app.callback()(lambda: None)

ALIKE = dict.fromkeys(FIVE, 60.0) | {"none": 70.0}


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> tuple[Path, Path]:
    """A Geometry with an obtuse pair, and a sweep of three seeds."""
    root = tmp_path_factory.mktemp("compared")
    geometry = make_geometry(ALIKE, noise=1.0, obtuse=("reverse",)).save(root / "geometry")
    scores = {"none": 0.80, "forward": 0.85, "reverse": 0.85, "all-to-one": 0.85, "random": 0.82}
    return geometry, write_sweep(root / "sweep", score_rows(scores, noise=0.0005))


def run(*arguments: object):
    return CliRunner().invoke(app, ["compare", *map(str, arguments)])


def test_the_whole_has_the_answer_and_its_tables(world) -> None:
    result = run(*world, "--full")
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert lines[0] == run_compare(world).headline.line
    assert lines[0].startswith("On accuracy (3 seeds): ")
    assert lines[1].startswith("  Scores on validation (1,000 examples, 3 seeds): ")
    for line in (
        "Spread between matching strategies, and the mean change of matching over none:",
        "Means:",
        "Paired differences between matching strategies; angles at the layer where they are farthest apart:",
        "Obtuse pairs of teacher layers, which the mean over pairs hides (?: not surely obtuse):",
    ):
        assert line in lines
    assert "(0, 3) 101.5°" in result.output
    assert "2.0° between angles (the default); 1.0 points between scores (the default)" in result.output
    assert re.search(
        r"accuracy, validation +random +forward - random +\+3\.0 points +\d\.\d to \d\.\d points +different",
        result.output,
    )


def test_margins_are_stated_as_given(world) -> None:
    result = run(*world, "--angle-margin", 9, "--score-margin", 0.05)
    assert "equivalent within 5.0 points" in result.output.splitlines()[0]
    assert "9.0° between angles; 5.0 points between scores." in result.output


def test_at_most_25_lines_are_printed_and_they_begin_alike(world) -> None:
    short, whole = (run(*world, *more).output.splitlines() for more in ((), ("--full",)))
    assert len(short) <= 25 < len(whole)
    said = run_compare(world).headline.text.splitlines()
    assert short[: len(said)] == whole[: len(said)] == said
    assert short[-1].endswith(": --full.")


def test_quiet_prints_the_first_line_alone(world) -> None:
    result = run(*world, "--quiet")
    assert result.output == f"{run_compare(world).headline.line}\n"


def test_json_holds_everything_and_no_nan(world) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    document = json.loads(run(*world, "--json").output, parse_constant=refuse)
    assert document["verdict"] == "different"
    assert [family["verdict"] for family in document["families"]] == ["different", "equivalent"]
    # Two layers x (6 pairs + 5 over none), and the scores' once.
    assert len(document["differences"]) == 3 * 11
    assert {row["strategy"] for row in document["obtuse"]} == {"reverse"}
    assert len(document["averaging"]) == 10
    assert document["settings"]["margin_degrees"] == 2.0
    said = run_compare(world).headline
    assert (document["headline"], document["beneath"]) == (said.line, list(said.beneath))


def test_csv_holds_every_paired_difference(world) -> None:
    frame = pd.read_csv(io.StringIO(run(*world, "--format", "csv").output), keep_default_na=False, na_values=[""])
    assert len(frame) == 3 * 11
    assert set(frame["strategy_b"]) >= {"none", "random"}
    assert frame["verdict"].isin(["equivalent", "different", "undecided"]).all()


@pytest.mark.parametrize(
    ("suffix", "holds"),
    [
        (".md", "|---|---|---:|"),
        (".tex", "\\toprule"),
        (".csv", "part,measure,init,"),
        (".TXT", "Means:"),
        (".json", '"verdict": "different"'),
    ],
)
def test_a_file_is_written_by_its_suffix(world, tmp_path: Path, suffix: str, holds: str) -> None:
    out = tmp_path / "new" / f"answer{suffix}"
    result = run(*world, "--out", out, "--quiet")
    assert result.exit_code == 0, result.output
    assert holds in out.read_text(encoding="utf-8")
    assert [path.name for path in out.parent.iterdir()] == [out.name]
    assert stat.S_IMODE(out.stat().st_mode) & 0o400


def test_nothing_is_left_to_chance(world) -> None:
    assert run(*world, "--json").output == run(*world, "--json").output


def test_tables_in_latex_have_as_many_cells_as_columns(world) -> None:
    text = run(*world, "--format", "latex").output
    for columns, body in re.findall(r"\\begin\{tabular\}\{([lr]+)\}\n(.*?)\\end\{tabular\}", text, flags=re.DOTALL):
        rows = [line for line in body.splitlines() if line.endswith("\\\\")]
        assert len(rows) > 1
        assert {len(re.findall(r"(?<!\\)&", row)) + 1 for row in rows} == {len(columns)}
    assert "$-$" in text
    assert "°" not in "".join(line for line in text.splitlines() if not line.startswith("%"))


HOSTILE = "a|b_c*&%$#{~^\\<b>\n\x1b[31mé"


def test_names_are_escaped(tmp_path: Path) -> None:
    assert markdown_text(HOSTILE) == r"a\|b\_c\*&%$\#{\~^\\\<b\> ?\[31mé"
    assert latex_text(HOSTILE) == (
        r"a\textbar{}b\_c*\&\%\$\#\{\textasciitilde{}\textasciicircum{}\textbackslash{}"
        r"\textless{}b\textgreater{} ?[31mé"
    )
    rows = score_rows({"forward": 0.8, HOSTILE: 0.8}, data=["dev|set"])
    comparison = run_compare([write_sweep(tmp_path / "sweep", rows)])
    for form in ("terminal", "markdown", "latex"):
        text = comparison.text(form)
        assert "\x1b" not in text
        assert all("a" not in line[:2] or "[31m" not in line for line in text.splitlines() if line.startswith("["))
    table = [line for line in comparison.text("markdown").splitlines() if line.startswith("|")]
    cells = {len(re.findall(r"(?<!\\)\|", line)) for line in table if "dev" in line}
    assert cells <= {len(re.findall(r"(?<!\\)\|", line)) for line in table if "measure" in line}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--angle-margin", "0"), "--angle-margin is 0; allowed: a number above 0"),
        (("--angle-margin", "-2"), "--angle-margin is -2; allowed: a number above 0"),
        (("--score-margin", "0"), "--score-margin is 0; allowed: a number above 0"),
        (("--format", "latx"), "--format is 'latx'; did you mean 'latex'?"),
        (("--format", "csv", "--json"), "--json and --format csv came; give one of the two"),
        (
            ("--out", "answer.doc"),
            "cannot write 'answer.doc': a comparison's file ends in .txt, .csv, .md, .tex, .json",
        ),
        (("--out", "file/answer.md"), "cannot be made: a part of its path is a file"),
        (("nowhere", "--score-margin", "0"), "--score-margin is 0; allowed: a number above 0"),
        (("nowhere", "--out", "answer.md"), "nowhere does not exist; give a directory of `anglekit analyze`"),
        ((".", "--out", "answer.md"), ". holds no Geometry and no scores"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(
    world, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    result = run(*world, *arguments)
    assert isinstance(result.exception, InputError)
    assert message in str(result.exception)
    assert "\n" not in str(result.exception)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_different_probes_and_one_strategy_are_refused(world, tmp_path: Path) -> None:
    other = make_geometry({"other": 60.0}, probe="d" * 64).save(tmp_path / "other")
    assert "differ in the probe" in str(run(world[0], other).exception)
    one = make_geometry({"forward": 60.0}, seeds=(0, 1)).save(tmp_path / "one")
    assert "all students are of one strategy, forward" in str(run(one).exception)


def test_a_file_that_cannot_be_written_is_left_as_it_was(
    world, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "answer.md"
    out.write_text("before")

    def fail(self: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", fail)
    refused = run(*world, "--out", out)
    assert "answer.md exists; choose another file or allow overwriting (--overwrite)" in str(refused.exception)
    result = run(*world, "--out", out, "--overwrite")
    assert isinstance(result.exception, RunError)
    assert "No space left on device" in str(result.exception)
    assert out.read_text() == "before"
    assert [path.name for path in tmp_path.iterdir()] == ["answer.md"]


def test_exit_codes_of_the_command_itself(world, tmp_path: Path) -> None:
    def call(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "anglekit_cli", "compare", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, timeout=120)

    done = call(*world, "--quiet")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{run_compare(world).headline.line}\n"
    refused = call(tmp_path / "nowhere")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.count("\n") == 1
