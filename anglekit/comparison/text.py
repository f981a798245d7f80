"""A comparison as text: tables for the terminal, markdown and LaTeX, all rows as csv, everything as json."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

import pandas as pd

from anglekit.comparison.cells import in_order
from anglekit.comparison.compare import Comparison
from anglekit.comparison.sentence import amount, interval_words, needed_words
from anglekit.comparison.sources import UNRECORDED
from anglekit.comparison.statistics import BETWEEN
from anglekit.errors import InputError, suggest

__all__ = [
    "FORMATS",
    "Table",
    "closing_lines",
    "comparison_document",
    "comparison_tables",
    "latex_text",
    "markdown_text",
    "render",
]

_MOST_OBTUSE_ROWS, _MOST_OBTUSE_PAIRS = 20, 6


@dataclass(frozen=True)
class Table:
    """A table of texts.

    Attributes:
        title: what it shows.
        header: a name for each column.
        rows: texts, as many in each row as columns.
        numeric: which columns are flush right.
    """

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numeric: frozenset[int] = frozenset()


def comparison_tables(comparison: Comparison) -> list[Table]:
    """Return the tables for people: spread against change, means, pairs at their farthest layer, obtuse pairs."""
    tables = [_spread_table(comparison), _level_table(comparison), _pair_table(comparison), _obtuse_table(comparison)]
    return [table for table in tables if table.rows]


def comparison_document(comparison: Comparison) -> dict[str, Any]:
    """Return everything as plain json: tables as lists of records, unknown numbers as null."""
    frames = {
        name: json.loads(getattr(comparison, name).to_json(orient="records"))
        for name in ("differences", "spreads", "levels", "obtuse", "averaging")
    }
    families = [
        {key: value for key, value in asdict(family).items() if key in ("part", "init", "verdict", "n_seeds")}
        for family in comparison.families
    ]
    return {
        "verdict": comparison.verdict,
        "sentence": comparison.sentence,
        "reasons": list(comparison.reasons),
        "families": families,
        **frames,
        "notes": list(comparison.notes),
        "settings": dict(comparison.settings),
    }


def render(comparison: Comparison, form: str) -> str:
    """Return a comparison as text that ends in a line break.

    Args:
        comparison: what was found.
        form: a name in `FORMATS`.

    Raises:
        InputError: there is no such form.
    """
    if form not in FORMATS:
        raise InputError(f"no format {form!r}", allowed=suggest(form, FORMATS))
    return FORMATS[form](comparison)


def _size(row: Mapping[str, Any], key: str, *, signed: bool = False) -> str:
    value = row[key]
    return "" if pd.isna(value) else amount(float(value), row["part"], row["margin"], signed=signed)


def _init(init: object) -> str:
    return "" if init == UNRECORDED else str(init)


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(key): value for key, value in row.items()} for row in frame.to_dict(orient="records")]


def _spread_table(comparison: Comparison) -> Table:
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
    header = ("measure", "init", "strategies", "seeds", "spread", "95% interval", "over none", "95% interval")
    title = "Spread between matching strategies, and the mean change of matching over none"
    return Table(title, (*header, "spread / change", "verdict"), tuple(rows), frozenset({2, 3, 4, 5, 6, 7, 8}))


def _level_table(comparison: Comparison) -> Table:
    strategies = in_order(comparison.levels["strategy"])
    margins = {
        (row["measure"], row["init"]): row["margin"]
        for row in (*_records(comparison.differences), *_records(comparison.spreads))
    }
    rows = []
    for (part, measure, init), group in comparison.levels.groupby(["part", "measure", "init"], sort=False):
        found = dict(zip(group["strategy"], group["mean"], strict=True))
        margin = margins.get((measure, init), 1.0 if part == "angle" else 0.01)
        cells = [amount(float(found[name]), str(part), margin) if name in found else "" for name in strategies]
        rows.append((str(measure), _init(init), *cells))
    return Table("Means", ("measure", "init", *strategies), tuple(rows), frozenset(range(2, 2 + len(strategies))))


def _pair_table(comparison: Comparison) -> Table:
    between = comparison.differences[comparison.differences["kind"] == BETWEEN]
    rows = []
    # Every score is a row; a pair of strategies has one row for all layers of a stream, that where it is farthest.
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
            )
        )
    header = ("measure", "init", "strategies", "difference", "95% interval", "verdict", "would decide")
    title = "Paired differences between matching strategies; angles at the layer where they are farthest apart"
    return Table(title, (*header, "farthest teacher pair"), tuple(rows), frozenset({3, 4, 7}))


def _obtuse_table(comparison: Comparison) -> Table:
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
    return Table(title, header, tuple(rows[:_MOST_OBTUSE_ROWS]), frozenset({2, 4, 5}))


_ANGLE = "An example's angle is that of its mean cosine over tokens and pairs; examples count by their tokens."


def closing_lines(comparison: Comparison) -> list[str]:
    """Return how the verdicts were reached, a sentence or two a line: margins, tests, what an angle is."""
    settings = comparison.settings
    default = settings["default_margins"]
    found = [("angle", settings["margin_degrees"])] if settings["margin_degrees"] is not None else []
    found += [("score", value) for value in dict.fromkeys(settings["score_margins"].values())]
    margins = [
        f"{amount(value, part, value)} between {part}s{' (the default)' if default[part] else ''}"
        for part, value in found
    ]
    obtuse = len(comparison.averaging) and comparison.obtuse.empty
    return [
        f"Margins, the largest difference that does not matter: {'; '.join(margins)}.",
        f"Verdicts take two one-sided tests at 5%: the {settings['test_level']:.0%} interval inside the margin, or "
        "beyond it. Differences are paired by seed and example; examples are resampled whole, one draw for all "
        f"students ({settings['draws']} draws, seed {settings['seed']}).",
        *([_ANGLE] if settings["margin_degrees"] is not None else []),
        *(["No pair of teacher layers is obtuse on average."] if obtuse else []),
    ]


def _closing(comparison: Comparison) -> list[str]:
    return [*closing_lines(comparison), *(f"note: {note}" for note in comparison.notes)]


def _terminal(comparison: Comparison) -> str:
    blocks = ["\n".join([comparison.sentence, *(f"  {reason}" for reason in comparison.reasons)])]
    for table in comparison_tables(comparison):
        cells = [tuple(_printable(cell) for cell in row) for row in (table.header, *table.rows)]
        # Columns in which no row says anything are left out.
        kept = [column for column in range(len(table.header)) if any(row[column] for row in cells[1:])]
        widths = {column: max(len(row[column]) for row in cells) for column in kept}
        lines = [
            "  ".join(
                row[column].rjust(widths[column]) if column in table.numeric else row[column].ljust(widths[column])
                for column in kept
            ).rstrip()
            for row in cells
        ]
        blocks.append("\n".join([f"{table.title}:", *lines]))
    blocks.append("\n".join(_closing(comparison)))
    return "\n\n".join(_printable(block, keep="\n") for block in blocks) + "\n"


def _printable(text: str, keep: str = "") -> str:
    """Return text without control characters, which a name from a file may hold."""
    return "".join(character if character.isprintable() or character in keep else "?" for character in text)


def markdown_text(text: str) -> str:
    """Return text that markdown shows as it is, on one line."""
    escaped = "".join(f"\\{character}" if character in r"\`*_[]<>|#~" else character for character in text)
    return _printable(" ".join(escaped.split()))


def _markdown(comparison: Comparison) -> str:
    lines = [f"**{markdown_text(comparison.sentence)}**", ""]
    lines += [f"- {markdown_text(reason)}" for reason in comparison.reasons]
    for table in comparison_tables(comparison):
        lines += ["", f"### {markdown_text(table.title)}", ""]
        lines.append(f"| {' | '.join(markdown_text(name) for name in table.header)} |")
        lines.append(
            f"|{'|'.join('---:' if column in table.numeric else '---' for column in range(len(table.header)))}|"
        )
        lines += [f"| {' | '.join(markdown_text(cell) for cell in row)} |" for row in table.rows]
    lines += ["", *(f"- {markdown_text(line)}" for line in _closing(comparison))]
    return "\n".join(lines) + "\n"


_LATEX: Final[Mapping[str, str]] = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "%": r"\%", "_": r"\_",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "°": r"$^\circ$", "<": r"\textless{}",
    ">": r"\textgreater{}", "|": r"\textbar{}", '"': r"\textquotedbl{}",
}  # fmt: skip


def latex_text(text: str) -> str:
    """Return text that LaTeX sets as it is."""
    return _printable("".join(_LATEX.get(character, character) for character in " ".join(text.split())))


def _latex_number(cell: str) -> str:
    """Return a cell with signs as LaTeX sets them in numbers."""
    return " ".join(
        f"$-${word[1:]}" if word[:1] == "-" and len(word) > 1 else word for word in latex_text(cell).split()
    )


def _latex(comparison: Comparison) -> str:
    lines = ["% Needs \\usepackage{booktabs} and \\usepackage[T1]{fontenc}."]
    lines += [f"% {_printable(line)}" for line in (comparison.sentence, *comparison.reasons, *_closing(comparison))]
    for table in comparison_tables(comparison):
        columns = "".join("r" if column in table.numeric else "l" for column in range(len(table.header)))
        lines += ["", "\\begin{table}", "\\centering", f"\\caption{{{latex_text(table.title)}.}}"]
        lines += [f"\\begin{{tabular}}{{{columns}}}", "\\toprule"]
        lines.append(" & ".join(latex_text(name) for name in table.header) + " \\\\")
        lines.append("\\midrule")
        for row in table.rows:
            cells = [
                _latex_number(cell) if column in table.numeric else latex_text(cell) for column, cell in enumerate(row)
            ]
            lines.append(" & ".join(cells) + " \\\\")
        lines += ["\\bottomrule", "\\end{tabular}", "\\end{table}"]
    return "\n".join(lines) + "\n"


def _csv(comparison: Comparison) -> str:
    return str(comparison.differences.to_csv(index=False, lineterminator="\n"))


def _json(comparison: Comparison) -> str:
    return json.dumps(comparison_document(comparison), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


#: How a comparison is written, by name.
FORMATS: Final[Mapping[str, Callable[[Comparison], str]]] = {
    "terminal": _terminal,
    "csv": _csv,
    "markdown": _markdown,
    "latex": _latex,
    "json": _json,
}
