"""How a comparison is written: its tables in every form, the rows as csv, everything as json."""

from __future__ import annotations

import inspect
import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from anglekit.comparison.compare import Comparison, compare
from anglekit.comparison.result import FORMATS
from anglekit.comparison.statistics import DIFFERENCE_COLUMNS
from anglekit.errors import InputError
from anglekit_cli.commands.compare import compare as compare_command
from tests.comparison.compare_corpus import FIVE, make_geometry, score_rows, write_sweep

ANGLES = dict.fromkeys(FIVE, 60.0) | {"none": 70.0, "reverse": 66.0}


@pytest.fixture(scope="module")
def comparison(tmp_path_factory) -> Comparison:
    """Angles and scores of five strategies, some pairs of layers obtuse."""
    scores = score_rows(dict.fromkeys(FIVE, 0.85) | {"none": 0.80}, noise=0.01)
    sweep = write_sweep(tmp_path_factory.mktemp("scores") / "sweep", scores, warnings=["random equals | forward"])
    return compare([make_geometry(ANGLES, obtuse=("reverse",)), sweep])


def test_the_defaults_are_those_of_the_command() -> None:
    given = {name: parameter.default for name, parameter in inspect.signature(compare_command).parameters.items()}
    settings = compare([make_geometry({"forward": 60.0, "reverse": 61.0}, examples=20)]).settings
    assert settings["margin_degrees"] == given["angle_margin"]
    assert settings["default_margins"] == {"angle": True, "score": True}
    assert (settings["interval_level"], settings["test_level"]) == (0.95, 0.9)
    assert settings["score_margins"] == {}


def test_tables_that_nothing_fills_have_their_columns() -> None:
    """Of one matching strategy alone there is no pair, no spread and no change."""
    found = compare([make_geometry({"forward": 60.0, "none": 61.0}, examples=20)])
    assert set(found.differences["kind"]) == {"over none"}
    assert [row[-2:] for row in found.tables()[0].rows] == [("", "")] * 2  # no share and no verdict without a pair
    assert list(found.differences)[: len(DIFFERENCE_COLUMNS)] == list(DIFFERENCE_COLUMNS)
    apart = make_geometry({"forward": 60.0}, seeds=(1,), examples=20), make_geometry({"reverse": 60.0}, examples=20)
    with pytest.raises(InputError, match=r"no two strategies share a seed \(forward: 1; reverse: 0\); train them on"):
        compare(apart)


def test_every_table_has_its_title_and_its_numbers_stand_flush_right(comparison) -> None:
    farthest = ("farthest teacher pair", "95%, all pairs at once")
    tables = comparison.tables()
    begins = ("Spread between matching", "Means", "Paired differences between", "Obtuse pairs of teacher layers")
    assert [table.title.startswith(begin) for table, begin in zip(tables, begins, strict=True)] == [True] * 4
    interval = "95% interval"
    assert [table.columns for table in tables] == [
        (
            "measure",
            "init",
            "strategies",
            "seeds",
            "spread",
            "95%, all pairs at once",
            "over none",
            interval,
            "spread / change",
            "verdict",
        ),
        ("measure", "init", *FIVE),
        ("measure", "init", "strategies", "difference", "95%, this pair alone", "verdict", "would decide", *farthest),
        ("strategy", "init", "seed", "layer", "mean over pairs", "obtuse", "pairs"),
    ]
    for table in tables:
        assert {len(row) for row in table.rows} == {len(table.columns)}
        for column, name in enumerate(table.columns):
            cells = [row[column] for row in table.rows if row[column]]
            numbers = bool(cells) and all(re.match(r"[-+]?\d", cell) for cell in cells)
            # An interval beside its number, and what would decide, are words.
            if (table.title[:6], name) not in (("Paired", "95%, this pair alone"), ("Paired", "would decide")):
                assert (column in table.numeric) == numbers, (table.title, name)


def number(cell: str) -> float:
    return float(re.match(r"[-+]?[\d.]+", cell).group())


def scale(cell: str) -> float:
    """Shares are written in percent and points."""
    return 100.0 if cell.endswith(("%", " points")) else 1.0


def test_the_tables_say_what_the_frames_hold(comparison) -> None:
    spread, means, pairs, obtuse = comparison.tables()
    for table, frame in ((spread, comparison.spreads), (means, comparison.levels.drop_duplicates("measure"))):
        assert [row[0] for row in table.rows] == list(frame["measure"])
    for row, (_, found) in zip(spread.rows, comparison.spreads.iterrows(), strict=True):
        assert number(row[4]) == pytest.approx(scale(row[4]) * found["spread"], abs=0.051)
        assert number(row[6]) == pytest.approx(scale(row[6]) * found["change_over_none"], abs=0.051)
        assert row[9] == found["verdict"]
        assert row[8] == f"{found['spread_by_change']:.0%}"
    levels = comparison.levels.set_index(["measure", "strategy"])["mean"]
    for row in means.rows:
        for strategy, cell in zip(means.columns[2:], row[2:], strict=True):
            assert number(cell) == pytest.approx(scale(cell) * levels[row[0], strategy], abs=0.051)
    between = comparison.differences[comparison.differences["kind"] == "between"]
    assert len(pairs.rows) == 2 * 6  # four strategies: six pairs of angles, of which one layer each, and six of scores
    for row in pairs.rows:
        first, second = row[2].split(" - ")
        own = between[(between["strategy_a"] == first) & (between["strategy_b"] == second)]
        own = own[own["part"] == ("angle" if row[0].startswith("angle") else "score")]
        farthest = own.loc[own["difference"].abs().idxmax()]
        assert (row[0], row[5]) == (farthest["measure"], farthest["verdict"])
        assert number(row[3]) == pytest.approx(scale(row[3]) * farthest["difference"], abs=0.051)
    assert [row[:2] for row in obtuse.rows] == [("reverse", "random")] * 2
    assert all(row[5] == "1 of 6" and row[6] == "(0, 3) 101.5°" for row in obtuse.rows)


def test_nothing_is_noted_that_is_not_so(comparison) -> None:
    """All strategies, none among them: what the sweep warned of, and what old scores and one seed of angles lack."""
    assert [note.partition(": ")[2][:24] for note in comparison.notes] == [
        *("15 of 15 students came w", "fewer than 3 seeds, so t", "random equals | forward"),
    ]


def test_how_the_verdicts_were_reached_is_said(comparison) -> None:
    lines = comparison.method_lines()
    assert "2.0° between angles (the default); 1.0 points between scores (the default)" in lines[0]
    assert "Equivalent: the 90% interval of every pair lies inside the margin" in lines[1]
    assert lines[2].startswith("An angle is the mean over tokens of the angle, each pair of teacher layers weighing")
    assert len(lines) == 3  # some pairs are obtuse
    own = compare([make_geometry(ANGLES)], margin=3.0).method_lines()
    assert own[0] == "Margins, the largest difference that does not matter: 3.0° between angles."
    assert own[-1] == "No pair of teacher layers is obtuse on average."


def test_the_json_is_the_whole_of_it(comparison) -> None:
    text = comparison.text("json")
    assert text.endswith("}\n")
    assert text.startswith("{\n  ")
    found = json.loads(text, parse_constant=pytest.fail)
    assert found == comparison.document()
    said = comparison.headline
    assert (found["verdict"], found["headline"], found["beneath"]) == (
        comparison.verdict,
        said.line,
        list(said.beneath),
    )
    facts = ("part", "init", "verdict", "about", "n_seeds", "told_from_chance", "reference")
    first, second = ([one[name] for name in facts] for one in found["families"])
    assert first == ["score", "random", comparison.families[0].verdict, "strategies", 3, None, None]
    assert second == ["angle", "random", comparison.families[1].verdict, "these students", 1, None, None]
    assert found["settings"] == json.loads(json.dumps(dict(comparison.settings)))
    assert (found["primary"], found["teacher"]) == ("accuracy", {})
    assert found["notes"] == list(comparison.notes)
    assert len(found) == 6 + 9
    for name in ("differences", "spreads", "levels", "obtuse", "averaging"):
        assert len(found[name]) == len(getattr(comparison, name)) > 0
    assert "°" in text


def test_the_csv_is_the_paired_differences(comparison) -> None:
    text = comparison.text("csv")
    assert "\r" not in text
    assert "\n\n" not in text
    read = pd.read_csv(io.StringIO(text), keep_default_na=False, na_values=[""])
    assert list(read) == list(comparison.differences)
    np.testing.assert_allclose(read["difference"], comparison.differences["difference"])
    assert set(read["strategy_b"]) >= {"none"}


def test_markdown_and_latex_and_the_terminal_hold_the_answer_and_every_table(comparison) -> None:
    written = {form: comparison.text(form) for form in ("terminal", "full", "markdown", "latex")}
    assert set(written) | {"csv", "json"} == set(FORMATS)
    for form, text in written.items():
        assert text.endswith("\n")
        assert not text.endswith("\n\n")
        plain = text.replace("\\", "")
        assert comparison.headline.line.split(":")[0].replace("°", "") in plain.replace("°", "").replace("^circ", ""), (
            form
        )
        assert "None" not in text, form
        assert "nan" not in text, form
    blocks = written["full"].split("\n\n")
    assert blocks[0] == comparison.headline.text
    tables = comparison.tables()
    assert len(blocks) == 2 + len(tables)
    assert [block.splitlines()[0] for block in blocks[1:-1]] == [f"{table.title}:" for table in tables]
    assert blocks[-1].splitlines()[-1].startswith("note: ")
    lines = written["markdown"].splitlines()
    assert lines[0].startswith("**")
    assert lines[0].endswith("**")
    assert [line for line in lines if line.startswith("### ")] == [f"### {table.title}" for table in tables]
    assert sum(line.startswith("- ") for line in lines) == len(
        (*comparison.headline.beneath, *comparison.method_lines(), *comparison.notes)
    )
    # A heading and a table stand apart; the bar of a note would split a cell and is escaped.
    assert all(lines[n - 1] == lines[n + 1] == "" for n, line in enumerate(lines) if line.startswith("### "))
    assert "random equals \\| forward" in written["markdown"]
    latex = written["latex"]
    assert latex.startswith("% Needs \\usepackage{booktabs}")
    assert latex.count("\\begin{tabular}") == latex.count("\\end{tabular}") == len(tables)


def test_the_terminal_shows_at_most_25_lines_and_names_what_it_leaves_out(comparison) -> None:
    lines = comparison.text("terminal").splitlines()
    assert "\n".join(lines).startswith(comparison.headline.text)
    assert len(lines) <= 25
    table = lines.index("Spread between matching strategies, and the mean change of matching over none:")
    assert lines[table + 1].split()[:2] == ["measure", "init"]
    assert lines[table + 2].split()[:3] == ["accuracy,", "validation", "random"]
    assert lines[-1] == "Means, paired differences, obtuse pairs and how it was decided: --full."
    # More layers, initialisations and notes than there is room for.
    spreads = pd.concat([comparison.spreads.assign(init=init) for init in ("a", "b", "c", "d", "e", "f", "g")] * 2)
    many = replace(comparison, spreads=spreads, notes=tuple(f"number {one}" for one in range(9)))
    lines = many.text("terminal").splitlines()
    assert len(lines) == 25
    shown = sum(line.startswith("accuracy, validation") for line in lines)
    assert 0 < shown < 14
    assert any(line.endswith(f"over none (the first {shown} of {len(spreads)}):") for line in lines)
    assert [line for line in lines if line.startswith("note: ")] == [f"note: number {one}" for one in range(3)]
    assert "(and 6 more notes)" in lines
    assert sum(line.startswith("  ") for line in lines) == 7
    one = replace(comparison, notes=tuple(f"number {one}" for one in range(4))).text("terminal")
    assert "(and 1 more note)" in one
    full = many.text("full").splitlines()
    assert sum(line.startswith("note: ") for line in full) == 9
    assert sum(line.startswith("accuracy, validation") for line in full) > 14


def test_a_notebook_shows_the_answer_and_folds_all_tables_but_the_first(comparison) -> None:
    class Reader(HTMLParser):
        def __init__(self) -> None:
            super().__init__()
            self.open: list[str] = []
            self.texts: dict[str, list[str]] = {}
            self.counts: dict[str, int] = {}

        def handle_starttag(self, tag, attrs) -> None:
            self.open.append(tag)
            self.counts[tag] = self.counts.get(tag, 0) + 1

        def handle_endtag(self, tag) -> None:
            assert self.open.pop() == tag

        def handle_data(self, data) -> None:
            self.texts.setdefault(self.open[-1], []).append(data)

    reader = Reader()
    reader.feed(comparison._repr_html_())
    assert reader.open == []
    tables = comparison.tables()
    assert reader.texts["strong"] == [comparison.headline.line]
    assert reader.texts["li"] == [*comparison.headline.beneath, *(f"note: {note}" for note in comparison.notes)]
    assert tables[0].title in reader.texts["p"]
    assert reader.texts["summary"] == [table.title for table in tables[1:]]
    assert (reader.counts["details"], reader.counts["table"]) == (len(tables) - 1, len(tables))
    assert " ".join(comparison.method_lines()) in reader.texts["small"]
    assert (reader.counts["ul"], reader.counts["div"] > 0) == (2, True)
    assert comparison._repr_html_().startswith("<div><p><strong>")
    bare = replace(comparison, notes=())._repr_html_()
    assert bare.count("<ul>") == 1
    assert "note:" not in bare


def test_a_form_that_is_none_is_refused(comparison) -> None:
    with pytest.raises(InputError, match="no format 'markdwn'; did you mean 'markdown'"):
        comparison.text("markdwn")


def test_many_obtuse_layers_and_pairs_are_cut_short(comparison) -> None:
    row = comparison.obtuse.iloc[0]
    more = [row.to_dict() | {"teacher_i": i, "teacher_k": k, "surely": k % 2 == 0} for i in range(4) for k in (4, 5)]
    arms = [one | {"seed": seed} for seed in range(25) for one in more]
    means = pd.concat([comparison.averaging.assign(seed=seed) for seed in range(25)])
    table = replace(comparison, obtuse=pd.DataFrame(arms), averaging=means).tables()[-1]
    assert table.title.endswith("; the first 20 of 25 layers")
    assert [line[2] for line in table.rows] == [str(seed) for seed in range(20)]
    assert table.rows[0][6].count("°") == 6
    assert table.rows[0][6].count("°?") == 3
    assert table.rows[0][6].endswith(" and 2 more")
    two = pd.DataFrame([row.to_dict() | {"teacher_k": k, "mean_angle_degrees": 95.04 + k} for k in (2, 3)])
    assert replace(comparison, obtuse=two).tables()[-1].rows[0][6] == "(0, 2) 97.0°, (0, 3) 98.0°"
    wide = [row.to_dict() | {"strategy": name, "vertex": layer} for name, layer in (("b", 2), ("a", 9), ("b", 1))]
    views = pd.DataFrame([comparison.averaging.iloc[0].to_dict() | one for one in wide])
    in_order = replace(comparison, obtuse=pd.DataFrame(wide), averaging=views).tables()[-1]
    assert [(line[0], line[3]) for line in in_order.rows] == [
        ("b", "encoder layer 2"),
        ("a", "encoder layer 9"),
        ("b", "encoder layer 1"),
    ]
    unseeded = replace(
        comparison, obtuse=comparison.obtuse.assign(seed=-1), averaging=comparison.averaging.assign(seed=-1)
    )
    assert unseeded.tables()[-1].rows[0][2] == ""


def test_spreads_and_levels_are_those_of_the_differences(comparison) -> None:
    """The spread is the largest difference; its share of the change takes the unfavourable ends of both."""
    differences = comparison.differences
    for _, row in comparison.spreads.iterrows():
        own = differences[differences["measure"] == row["measure"]]
        between, over = own[own["kind"] == "between"], own[own["strategy_a"] == "matching (mean)"].iloc[0]
        assert row["spread"] == pytest.approx(between["difference"].abs().max())
        assert row["spread_low"] <= row["spread"] <= row["spread_high"]
        assert tuple(row[["change_over_none", "change_low", "change_high"]]) == tuple(
            over[["difference", "low", "high"]]
        )
        assert row["spread_by_change"] == pytest.approx(row["spread"] / abs(row["change_over_none"]))
        ends = sorted((abs(over["low"]), abs(over["high"])))
        assert over["low"] * over["high"] > 0
        assert row["spread_by_change_low"] == pytest.approx(row["spread_low"] / ends[1])
        assert row["spread_by_change_high"] == pytest.approx(row["spread_high"] / ends[0])
        assert (row["n_strategies"], row["n_seeds"]) == (4, over["n_seeds"])
    levels = comparison.levels.set_index(["measure", "strategy"])
    for measure, of_measure in differences[differences["kind"] == "over none"].groupby("measure"):
        for _, row in of_measure[of_measure["strategy_a"] != "matching (mean)"].iterrows():
            change = levels.loc[(measure, row["strategy_a"]), "mean"] - levels.loc[(measure, "none"), "mean"]
            assert row["difference"] == pytest.approx(change, abs=1e-9)
    angles = comparison.levels["part"] == "angle"
    assert set(comparison.levels[angles]["n_examples"]) == {200}
    assert set(comparison.levels[~angles]["n_examples"]) == {1000}
    assert set(comparison.levels[~angles]["n_seeds"]) == {3}
    assert (comparison.levels["low"] < comparison.levels["mean"]).all()


def test_where_matching_changes_nothing_the_spread_has_no_share_of_it(tmp_path) -> None:
    """Nor where the mean over strategies is that of none but for rounding, which a share would make billions of."""
    for place, forward, reverse in (("same", 0.8, 0.8), ("either side", 0.7, 0.9)):
        scores = {"none": 0.8, "forward": forward, "reverse": reverse}
        row = compare([write_sweep(tmp_path / place, score_rows(scores, noise=0.0))]).spreads.iloc[0]
        assert row["spread"] == pytest.approx(reverse - forward)
        assert abs(row["change_over_none"]) < 1e-12
        assert np.isnan(row["spread_by_change"])
    little = score_rows({"none": 0.8, "forward": 0.801, "reverse": 0.804}, noise=0.0)  # within the margin of 0.01
    row = compare([write_sweep(tmp_path / "little", little)]).spreads.iloc[0]
    assert row["spread_by_change"] == pytest.approx(0.003 / 0.0025)


def test_initialisations_stand_in_the_order_in_which_they_came_and_unknown_ones_are_blank(tmp_path) -> None:
    rows = score_rows({"forward": 0.8, "reverse": 0.81, "none": 0.7}, inits=("teacher", "random"))
    rows.sort(key=lambda row: row["init"], reverse=True)
    means = next(table for table in compare([write_sweep(tmp_path / "sweep", rows)]).tables() if table.title == "Means")
    assert [row[1] for row in means.rows] == ["teacher", "random"]
    unknown = compare([make_geometry({"mine": 60.0, "yours": 66.0}, inits=(None,), seeds=(None,), obtuse=("mine",))])
    assert {table.title[:6]: {row[1] for row in table.rows} for table in unknown.tables()} == {
        "Spread": {""},
        "Means": {""},
        "Paired": {""},
        "Obtuse": {""},
    }


def test_controls_say_how_much_of_the_gain_they_explain(tmp_path) -> None:
    """Of five points that matching gains over none, hidden states of an untrained teacher give three."""
    scores = {"alone": 0.70, "none": 0.80, "random-teacher": 0.83, "forward": 0.85, "reverse": 0.85}
    found = compare([write_sweep(tmp_path / "sweep", score_rows(scores, noise=0.0001, seeds=range(5)))])
    rows = found.controls.set_index("control")
    assert list(rows.index) == ["alone", "random-teacher"]
    assert rows["gain"].tolist() == pytest.approx([0.05, 0.05], abs=0.001)
    for control, given, share in (("alone", -0.10, np.nan), ("random-teacher", 0.03, 0.6)):
        row = rows.loc[control]
        assert row["from_control"] == pytest.approx(given, abs=0.001)
        assert row["beyond_control"] == pytest.approx(0.05 - given, abs=0.001)
        assert row["share"] == pytest.approx(share, abs=0.03, nan_ok=True)
        assert row["from_control_low"] < row["from_control"] < row["from_control_high"]
    assert set(found.differences.loc[found.differences["kind"] == "between", "strategy_a"]) == {"forward"}
    table = found.tables()[1]
    assert table.title.startswith("What the controls explain")
    assert [row[2:5:2] for row in table.rows] == [("alone", "+5.0 points"), ("random-teacher", "+5.0 points")]
    assert [row[-1] for row in table.rows] == ["", f"{found.controls['share'].iloc[1]:.0%}"]
    assert "matching an untrained teacher: +" in found.headline.reasons[0]
    assert "the labels alone: -" in found.headline.reasons[0]
    assert "the labels alone: -10.0 points; matching" in found.headline.reasons[0]
    # Where the gain may be none, no share of it is given.
    small = scores | {"forward": 0.8002, "reverse": 0.7999}
    assert compare([write_sweep(tmp_path / "none", score_rows(small, seeds=range(5)))]).controls["share"].isna().all()
    assert compare([make_geometry(ANGLES)]).controls.empty
