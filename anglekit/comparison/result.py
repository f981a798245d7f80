"""What a comparison found, and how it is written: tables for people, rows as csv, everything as json."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any, Final

import pandas as pd

from anglekit.comparison.cells import in_order
from anglekit.comparison.choice import Choice, choices, weights_words_apart
from anglekit.comparison.equivalence import Verdict
from anglekit.comparison.family import Family
from anglekit.comparison.gaps import Gap
from anglekit.comparison.statistics import BETWEEN
from anglekit.comparison.verdict import Headline, headline
from anglekit.comparison.wording import gap, interval_words, level, needed_words
from anglekit.display.counts import counted
from anglekit.display.html import element, joined, notebook_table
from anglekit.display.tables import TextTable, aligned_text, latex_table, markdown_table, markdown_text, printable
from anglekit.errors import InputError, suggest
from anglekit.results.document import UNRECORDED
from anglekit.results.scores import StoppedStrategy

_MOST_OBTUSE_ROWS, _MOST_OBTUSE_PAIRS = 20, 6
_ANGLE = (
    "An angle is the mean over tokens of the angle, each pair of teacher layers weighing the same; examples count by "
    "their tokens."
)
_MOST_SHORT_LINES, _MOST_SHORT_NOTES, _MOST_SHORT_REASONS = 25, 3, 6


@dataclass(frozen=True, eq=False)
class Comparison:
    """What a comparison found.

    Attributes:
        verdict: "equivalent", "different", "undecided" or "no verdict", on the scores; without scores on the angles.
        families: a verdict for each kind of measure and initialisation.
        differences: a row for each cell and paired difference: `part, measure, init, stream, vertex, data, score, kind`
            ("between" matching strategies, "over none" or "control"), `strategy_a, strategy_b, difference` (a - b, in
            degrees or the score's own unit), its 95% interval `low, high`, the interval that decides "equivalent",
            `test_low, test_high` (90%), and the one that decides "different" and holds for all pairs at once,
            `joint_low, joint_high` (95%), `standard_error, verdict, margin, about` ("strategies" or "these students"),
            `n_seeds, n_examples`, what would decide (`needed_seeds, needed_examples, needed_factor`); for angles also
            the pair of teacher layers `pair_i, pair_k` whose angle differs most (`pair_difference`), and how many pairs
            are acute under one only (`sides_differ`).
        spreads: a row for each cell: the spread between matching strategies (largest minus smallest, with an interval
            that holds for all pairs at once) against their change over none, and the verdict.
        controls: a row for each cell and control arm: what matching gains over none, what the control gains over it,
            what matching gains beyond the control, and the control's share of the gain.
        levels: the mean of each strategy in each cell, with its 95% interval; `by_example`: whether examples count as
            chance in it, or only seeds.
        obtuse: pairs of teacher layers whose mean cosine is below 0; a mean over pairs hides them.
        averaging: for each student and layer, the mean over tokens and pairs beside the range over pairs.
        notes: what a reader should know.
        settings: margins and levels.
        primary: the task's own score, which the verdict is about; None without scores.
        teacher: the teacher's scores, by the words of the column `measure`.
        stopped: strategies that a sweep stopped as hopeless; no verdict is about them, and the headline names them.
        teacher_gaps: by strategy and initialisation, the score minus the teacher's, paired by example, on the score and
            table on which strategies are chosen; empty where scores are not known by example.
        weights_gaps: how far the best strategy of the best-scoring weights is above that of others, by their
            initialisation.
    """

    verdict: Verdict
    families: tuple[Family, ...]
    differences: pd.DataFrame
    spreads: pd.DataFrame
    controls: pd.DataFrame
    levels: pd.DataFrame
    obtuse: pd.DataFrame
    averaging: pd.DataFrame
    notes: tuple[str, ...]
    settings: Mapping[str, Any]
    primary: str | None = None
    teacher: Mapping[str, float] = field(default_factory=dict)
    stopped: tuple[StoppedStrategy, ...] = ()
    teacher_gaps: Mapping[tuple[str, str], Gap] = field(default_factory=dict)
    weights_gaps: Mapping[str, Gap] = field(default_factory=dict)

    @cached_property
    def headline(self) -> Headline:
        """What comes first in every output: the task's own score with its verdict, then the angles."""
        return headline(
            *(self.families, self.levels, self.spreads, self.controls),
            primary=self.primary,
            teacher=self.teacher,
            stopped=self.stopped,
            choices=self.choices,
            weights=self.weights_sentences,
        )

    @cached_property
    def choices(self) -> tuple[Choice, ...]:
        """For each kind of weights which strategy to use by the task's own score; the best-scoring weights first."""
        if self.chosen_on is None:
            return ()
        return choices(self.families, self.levels, self.differences, *self.chosen_on)

    @property
    def chosen_on(self) -> tuple[str, str] | None:
        """The score and the evaluation table by which strategies are chosen; None without scores."""
        scores = self.levels[self.levels["part"] == "score"]
        own = scores[scores["score"] == self.primary] if self.primary in set(scores["score"]) else scores
        return None if own.empty else (str(own["score"].iloc[0]), str(own["data"].iloc[0]))

    @property
    def weights_sentences(self) -> str:
        """How far the best of other weights is below the best of all, in sentences; empty for one kind of weights."""
        if len(self.choices) < 2 or self.chosen_on is None:
            return ""
        own = self.differences[self.differences["score"] == self.chosen_on[0]]
        unit = {"part": "score", "score": self.chosen_on[0], "margin": float(own["margin"].iloc[0])}
        return weights_words_apart(self.choices, self.weights_gaps, unit)

    @property
    def sentence(self) -> str:
        """The first line of the headline."""
        return self.headline.line

    def tables(self) -> list[TextTable]:
        """Return the tables for people: spreads, controls, means, pairs at their farthest layer, obtuse pairs."""
        tables = [
            *(_spread_table(self), _control_table(self), _level_table(self), _pair_table(self), _obtuse_table(self))
        ]
        return [table for table in tables if table.rows]

    def method_lines(self) -> list[str]:
        """Return how the verdicts were reached, one or two sentences per line: margins, tests, what an angle is."""
        settings = self.settings
        default = settings["default_margins"]
        found = [("angle", "", settings["margin_degrees"])] if settings["margin_degrees"] is not None else []
        found += [("score", measure.partition(", ")[0], value) for measure, value in settings["score_margins"].items()]
        margins = dict.fromkeys(
            f"{gap(value, {'part': part, 'score': score, 'margin': value})} between {part}s"
            f"{' (the default)' if default[part] else ''}"
            for part, score, value in found
        )
        obtuse = len(self.averaging) and self.obtuse.empty
        return [
            f"Margins, the largest difference that does not matter: {'; '.join(margins)}.",
            f"Equivalent: the {settings['test_level']:.0%} interval of every pair lies inside the margin. Different: "
            "a pair's interval lies beyond it, one that holds for all pairs at once at 95%. Differences are paired by "
            "seed and example, whose variances are taken together.",
            *([_ANGLE] if settings["margin_degrees"] is not None else []),
            *(["No pair of teacher layers is obtuse on average."] if obtuse else []),
        ]

    def document(self) -> dict[str, Any]:
        """Return everything as plain json: tables as lists of records, unknown numbers as null."""
        frames = {
            name: json.loads(getattr(self, name).to_json(orient="records"))
            for name in ("differences", "spreads", "controls", "levels", "obtuse", "averaging")
        }
        families = [
            {
                "part": one.part,
                "init": one.init,
                "verdict": one.verdict,
                "about": one.about,
                "n_seeds": one.n_seeds,
                "told_from_chance": one.told,
                "reference": None if one.reference is None else asdict(one.reference),
            }
            for one in self.families
        ]
        return {
            "verdict": self.verdict,
            "primary": self.primary,
            "teacher": dict(self.teacher),
            "headline": self.headline.line,
            "beneath": list(self.headline.beneath),
            "families": families,
            "stopped": [asdict(one) for one in self.stopped],
            **frames,
            "notes": list(self.notes),
            "settings": dict(self.settings),
        }

    def text(self, form: str) -> str:
        """Return the comparison as text that ends in a line break.

        Args:
            form: a name in `FORMATS`; "terminal" has at most 25 lines, "csv" holds only the paired differences.

        Raises:
            InputError: there is no such form.
        """
        if form not in FORMATS:
            raise InputError(f"no format {form!r}", allowed=suggest(form, FORMATS))
        return FORMATS[form](self)

    def __repr__(self) -> str:
        """Return the first line of the verdict."""
        return f"<Comparison: {self.headline.line}>"

    def _repr_html_(self) -> str:
        """Show the answer, its reasons and the tables in a notebook; all tables but the first are folded."""
        first, folded = self.tables()[:1], self.tables()[1:]
        return element(
            "div",
            element("p", element("strong", self.headline.line)),
            element("ul", *(element("li", one) for one in self.headline.beneath)) if self.headline.beneath else None,
            *(joined(element("p", table.title), notebook_table(table)) for table in first),
            *(element("details", element("summary", table.title), notebook_table(table)) for table in folded),
            element("ul", *(element("li", f"note: {note}") for note in self.notes)) if self.notes else None,
            element("p", element("small", " ".join(self.method_lines()))),
        )


def _size(row: Mapping[str, Any], key: str, *, signed: bool = False) -> str:
    value = row[key]
    return "" if pd.isna(value) else gap(float(value), row, signed=signed)


def _init(init: object) -> str:
    return "" if init == UNRECORDED else str(init)


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(key): value for key, value in row.items()} for row in frame.to_dict(orient="records")]


def _spread_table(comparison: Comparison) -> TextTable:
    rows = []
    for row in _records(comparison.spreads):
        share = row["spread_by_change"]
        rows.append(
            (
                row["measure"],
                _init(row["init"]),
                str(row["n_strategies"]),
                str(int(row["n_seeds"])),
                _size(row, "spread"),
                "" if pd.isna(row["spread"]) else interval_words(row, "spread_low", "spread_high"),
                _size(row, "change_over_none", signed=True),
                "" if pd.isna(row["change_over_none"]) else interval_words(row, "change_low", "change_high"),
                "" if pd.isna(share) else f"{share:.0%}",
                row["verdict"] or "",
            )
        )
    header = ("measure", "init", "strategies", "seeds", "spread", "95%, all pairs at once", "over none", "95% interval")
    title = "Spread between matching strategies, and the mean change of matching over none"
    return TextTable(title, (*header, "spread / change", "verdict"), tuple(rows), frozenset({2, 3, 4, 5, 6, 7, 8}))


def _control_table(comparison: Comparison) -> TextTable:
    margins = {(row["measure"], row["init"]): row["margin"] for row in _records(comparison.spreads)}
    rows = []
    for found in _records(comparison.controls):
        row = found | {"margin": margins[found["measure"], found["init"]]}
        cells = []
        for name in ("gain", "from_control", "beyond_control"):
            cells += [_size(row, name, signed=True)]
            cells += ["" if pd.isna(row[name]) else interval_words(row, f"{name}_low", f"{name}_high")]
        share = "" if pd.isna(row["share"]) else f"{row['share']:.0%}"
        rows.append((row["measure"], _init(row["init"]), row["control"], str(int(row["n_seeds"])), *cells, share))
    gains = [(name, "95% interval") for name in ("matching over none", "control over none", "matching over control")]
    header = ("measure", "init", "control", "seeds", *(name for pair in gains for name in pair), "share")
    title = "What the controls explain of the gain of matching (its mean over strategies) over none"
    return TextTable(title, header, tuple(rows), frozenset(range(3, 11)))


def _level_table(comparison: Comparison) -> TextTable:
    strategies = in_order(comparison.levels["strategy"])
    margins = {
        (row["measure"], row["init"]): row["margin"]
        for row in (*_records(comparison.differences), *_records(comparison.spreads))
    }
    rows = []
    for (part, measure, init), group in comparison.levels.groupby(["part", "measure", "init"], sort=False):
        score = group["score"].iloc[0]
        found = dict(zip(group["strategy"], group["mean"], strict=True))
        margin = margins.get((measure, init), 1.0 if part == "angle" else 0.01)
        unit = {"part": part, "score": score, "margin": margin}
        cells = [level(float(found[name]), unit) if name in found else "" for name in strategies]
        rows.append((str(measure), _init(init), *cells))
    return TextTable("Means", ("measure", "init", *strategies), tuple(rows), frozenset(range(2, 2 + len(strategies))))


def _pair_table(comparison: Comparison) -> TextTable:
    between = comparison.differences[comparison.differences["kind"] == BETWEEN]
    rows = []
    # Each score has its own row. For angles, two strategies get one row per stream: the layer where they differ most.
    grouped = between.assign(place=between["measure"].where(between["part"] == "score", between["stream"]))
    for _, group in grouped.groupby(["part", "init", "place", "strategy_a", "strategy_b"], sort=False):
        row = _records(group.iloc[[int(group["difference"].abs().to_numpy().argmax())]])[0]
        pair = "" if pd.isna(row["pair_difference"]) else f"{row['pair_difference']:+z.1f}°"
        rows.append(
            (
                row["measure"],
                _init(row["init"]),
                f"{row['strategy_a']} - {row['strategy_b']}",
                _size(row, "difference", signed=True),
                interval_words(row, "low", "high"),
                row["verdict"],
                needed_words(row),
                pair and f"{pair} ({int(row['pair_i'])}, {int(row['pair_k'])})",
                interval_words(row, "joint_low", "joint_high"),
            )
        )
    header = ("measure", "init", "strategies", "difference", "95%, this pair alone", "verdict", "would decide")
    title = "Paired differences between matching strategies; angles at the layer where they are farthest apart"
    columns = (*header, "farthest teacher pair", "95%, all pairs at once")
    return TextTable(title, columns, tuple(rows), frozenset({3, 4, 7, 8}))


def _obtuse_table(comparison: Comparison) -> TextTable:
    arm = ["strategy", "init", "seed", "stream", "vertex"]
    means = comparison.averaging.set_index(arm)
    rows = []
    for key, group in comparison.obtuse.groupby(arm, sort=False):
        strategy, init, seed, stream, vertex = key
        named = [
            f"({pair['teacher_i']}, {pair['teacher_k']}) {pair['mean_angle_degrees']:.1f}°" + "?" * (not pair["surely"])
            for pair in _records(group.head(_MOST_OBTUSE_PAIRS))
        ]
        more = len(group) - len(named)
        mean = means.loc[[key]].iloc[0]
        rows.append(
            (
                str(strategy),
                _init(init),
                "" if int(str(seed)) < 0 else str(seed),
                f"{stream} layer {vertex}",
                f"{float(mean['mean_angle_degrees']):.1f}°",
                f"{len(group)} of {int(mean['pairs'])}",
                ", ".join(named) + (f" and {more} more" if more else ""),
            )
        )
    title = "Obtuse pairs of teacher layers, which the mean over pairs hides (?: not surely obtuse)"
    if len(rows) > _MOST_OBTUSE_ROWS:
        title += f"; the first {_MOST_OBTUSE_ROWS} of {len(rows)} layers"
    header = ("strategy", "init", "seed", "layer", "mean over pairs", "obtuse", "pairs")
    return TextTable(title, header, tuple(rows[:_MOST_OBTUSE_ROWS]), frozenset({2, 4, 5}))


def _closing(comparison: Comparison) -> list[str]:
    return [*comparison.method_lines(), *(f"note: {note}" for note in comparison.notes)]


def _opening(comparison: Comparison) -> list[str]:
    return comparison.headline.text.splitlines()


def _full(comparison: Comparison) -> str:
    blocks = ["\n".join(_opening(comparison))]
    blocks += [f"{table.title}:\n{aligned_text(table)}" for table in comparison.tables()]
    blocks.append("\n".join(_closing(comparison)))
    return "\n\n".join(printable(block, keep="\n") for block in blocks) + "\n"


def _short(comparison: Comparison) -> str:
    """Return at most 25 lines: the headline, the spreads, the margins and the first notes."""
    opening = _opening(comparison)
    more = len(opening) - 1 - _MOST_SHORT_REASONS
    if more > 0:
        opening = [*opening[: 1 + _MOST_SHORT_REASONS], f"  (and {more} more)"]
    notes = [f"note: {note}" for note in comparison.notes[:_MOST_SHORT_NOTES]]
    unseen = len(comparison.notes) - len(notes)
    closing = [comparison.method_lines()[0], *notes, *([f"(and {counted(unseen, 'more note')})"] if unseen > 0 else [])]
    closing.append("Means, paired differences, obtuse pairs and how it was decided: --full.")
    room = _MOST_SHORT_LINES - len(opening) - len(closing) - 4
    table = _short_spreads(comparison, room)
    blocks = [opening, *([[f"{table.title}:", *aligned_text(table).splitlines()]] if table.rows else []), closing]
    return "\n\n".join(printable("\n".join(block), keep="\n") for block in blocks) + "\n"


def _short_spreads(comparison: Comparison, most: int) -> TextTable:
    """Return the table of spreads with the scores first, and without the columns that need a second look."""
    ordered = comparison.spreads.sort_values("part", ascending=False, kind="stable")
    whole = _spread_table(replace(comparison, spreads=ordered))
    columns = [0, 1, 3, 4, 5, 6, 9]

    def kept(row: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(row[column] for column in columns)

    left = len(whole.rows) - most
    rows = whole.rows if left <= 0 else whole.rows[:most]
    title = whole.title + (f" (the first {len(rows)} of {len(whole.rows)})" if left > 0 else "")
    return TextTable(title, kept(whole.columns), tuple(map(kept, rows)), frozenset({2, 3, 4, 5}))


def _markdown(comparison: Comparison) -> str:
    lines = [f"**{markdown_text(comparison.headline.line)}**", ""]
    lines += [f"- {markdown_text(one)}" for one in comparison.headline.beneath]
    for table in comparison.tables():
        lines += ["", f"### {markdown_text(table.title)}", "", markdown_table(table)]
    lines += ["", *(f"- {markdown_text(line)}" for line in _closing(comparison))]
    return "\n".join(lines) + "\n"


def _latex(comparison: Comparison) -> str:
    lines = ["% Needs \\usepackage{booktabs} and \\usepackage[T1]{fontenc}."]
    lines += [
        f"% {printable(line)}"
        for line in (comparison.headline.line, *comparison.headline.beneath, *_closing(comparison))
    ]
    return "\n\n".join(["\n".join(lines), *map(latex_table, comparison.tables())]) + "\n"


#: How a comparison is written, by name.
FORMATS: Final[Mapping[str, Callable[[Comparison], str]]] = {
    "terminal": _short,
    "full": _full,
    "csv": lambda comparison: str(comparison.differences.to_csv(index=False, lineterminator="\n")),
    "markdown": _markdown,
    "latex": _latex,
    "json": lambda comparison: json.dumps(comparison.document(), indent=2, ensure_ascii=False, allow_nan=False) + "\n",
}
