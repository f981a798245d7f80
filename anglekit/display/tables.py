"""A table of texts, written for a terminal, in markdown and in LaTeX."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class TextTable:
    """A table of texts.

    Attributes:
        title: what it shows; may be empty.
        columns: a name for each column.
        rows: texts; each row has one for each column.
        numeric: the positions of the columns that are flush right.
        note: a sentence about the table; may be empty.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numeric: frozenset[int] = frozenset()
    note: str = ""

    @property
    def filled(self) -> list[int]:
        """The positions of the columns with text in some row; all positions where there is no row."""
        return [column for column in range(len(self.columns)) if not self.rows or any(row[column] for row in self.rows)]


def frame_table(frame: pd.DataFrame, title: str = "") -> TextTable:
    """Return a data frame of one or more rows as texts; fractional numbers get four digits after the point."""
    rows = tuple(
        tuple(f"{value:.4f}" if isinstance(value, float) else str(value) for value in row)
        for row in frame.itertuples(index=False)
    )
    numeric = frozenset(column for column, value in enumerate(frame.iloc[0]) if not isinstance(value, str))
    return TextTable(title, tuple(map(str, frame.columns)), rows, numeric)


def aligned_text(table: TextTable) -> str:
    """Return column names and rows for a terminal, columns two spaces apart; empty columns are left out."""
    lines = [[printable(cell) for cell in line] for line in (table.columns, *table.rows)]
    widths = {column: max(len(line[column]) for line in lines) for column in table.filled}

    def padded(cell: str, column: int) -> str:
        return cell.rjust(widths[column]) if column in table.numeric else cell.ljust(widths[column])

    return "\n".join("  ".join(padded(line[column], column) for column in widths).rstrip() for line in lines)


def printable(text: str, *, keep: str = "", stray: str = "?") -> str:
    """Return text with `stray` in place of each control character not in `keep`: names may hold any character."""
    return "".join(character if character.isprintable() or character in keep else stray for character in text)


def markdown_table(table: TextTable) -> str:
    """Return a table in markdown."""
    rules = ("---:" if column in table.numeric else "---" for column in range(len(table.columns)))
    head, *rows = (" | ".join(markdown_text(cell) for cell in line) for line in (table.columns, *table.rows))
    return "\n".join([f"| {head} |", f"|{'|'.join(rules)}|", *(f"| {row} |" for row in rows)])


def markdown_text(text: str) -> str:
    """Return text escaped so that markdown shows it as it is, on one line."""
    escaped = "".join(f"\\{character}" if character in r"\`*_[]<>|#~" else character for character in text)
    return printable(" ".join(escaped.split()))


_LATEX: Final[Mapping[str, str]] = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "%": r"\%", "_": r"\_",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "°": r"$^\circ$", "<": r"\textless{}",
    ">": r"\textgreater{}", "|": r"\textbar{}", '"': r"\textquotedbl{}",
}  # fmt: skip


def latex_table(table: TextTable) -> str:
    """Return a floating table with its title as caption; it needs the packages booktabs and fontenc (T1)."""
    sides = "".join("r" if column in table.numeric else "l" for column in range(len(table.columns)))
    rows = (
        [_latex_number(cell) if column in table.numeric else latex_text(cell) for column, cell in enumerate(row)]
        for row in table.rows
    )
    return "\n".join(
        [
            *("\\begin{table}", "\\centering", f"\\caption{{{latex_text(table.title)}.}}"),
            *(f"\\begin{{tabular}}{{{sides}}}", "\\toprule"),
            " & ".join(latex_text(name) for name in table.columns) + " \\\\",
            "\\midrule",
            *(" & ".join(row) + " \\\\" for row in rows),
            *("\\bottomrule", "\\end{tabular}", "\\end{table}"),
        ]
    )


def latex_text(text: str) -> str:
    """Return text escaped so that LaTeX sets it as it is."""
    return printable("".join(_LATEX.get(character, character) for character in " ".join(text.split())))


def _latex_number(cell: str) -> str:
    """Return a cell with minus signs in LaTeX's form."""
    return " ".join(
        f"$-${word[1:]}" if word[:1] == "-" and len(word) > 1 else word for word in latex_text(cell).split()
    )
