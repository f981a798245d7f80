"""The answer in numbers: what every strategy scores, what it gains over none, and how much smaller and faster it is."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import pandas as pd

from anglekit.comparison.cells import in_order
from anglekit.comparison.compare import default_score_margin
from anglekit.comparison.result import Comparison
from anglekit.comparison.statistics import CONTROL, OVER_NONE
from anglekit.comparison.verdict import score_words
from anglekit.comparison.wording import SHARES, gap, interval_words, level, weights_words
from anglekit.display.html import Markup, element
from anglekit.report.gather import Findings, ReportedScores
from anglekit.results.example_scores import STUDENT, TEACHER
from anglekit.vocabulary import LOWER_IS_BETTER, NONE, matches_layers

# Of the small drawing in a row: width, height and margin, in pixels.
_WIDE, _HIGH, _SIDE = 150, 18, 6
_NOT_RECORDED: Final = "not recorded"


@dataclass(frozen=True)
class Answer:
    """What one row says: a strategy from one kind of weights, or the teacher.

    Attributes:
        name: the strategy.
        weights: what its students started from, in words.
        arm: strategy and initialisation; None for the teacher.
        score: its mean; NaN where unknown, as the others.
        low: of the 95% interval.
        high: of the 95% interval.
        over_none: the difference from `none`, with its interval in words; empty where there is none.
        n_seeds: how many students there are.
        parameters: of one.
        milliseconds: of a forward pass of the batch that both were timed on. A student's is its part of the teacher's
            in its own run times the teacher's median over runs: runs of a busy hour are slow for both.
        smaller: how many times fewer parameters than the teacher has.
        faster: how many times faster than the teacher, the mean over runs that timed both.
        faster_range: the least and the most of these.
    """

    name: str
    weights: str
    arm: tuple[str, str] | None
    score: float
    low: float = math.nan
    high: float = math.nan
    over_none: str = ""
    n_seeds: int = 0
    parameters: float = math.nan
    milliseconds: float = math.nan
    smaller: float = math.nan
    faster: float = math.nan
    faster_range: tuple[float, float] = (math.nan, math.nan)


@dataclass(frozen=True)
class AnswerTable:
    """The rows on one score of one table.

    Attributes:
        score: its name.
        data: the evaluation table.
        unit: by which a number of it is written (`comparison.wording.level`).
        rows: the teacher first.
        chance: what one answer to every example reaches; NaN where unknown.
        compared: whether intervals and differences are known.
    """

    score: str
    data: str
    unit: Mapping[str, Any]
    rows: tuple[Answer, ...]
    chance: float
    compared: bool


def answer_tables(findings: Findings) -> list[AnswerTable]:
    """Return a table for each source of scores that cannot be put together with the others, on its primary score."""
    return [_answers(scored, findings.comparison) for scored in findings.scored]


def _answers(scored: ReportedScores, comparison: Comparison | None) -> AnswerTable:
    table, score = scored.table, scored.primary
    own = table[table["score"] == score]
    data = str(own["data"].iloc[0])
    own = own[own["data"] == data]
    margin = default_score_margin(own["value"])
    known = _compared_rows(comparison, score, data)
    if comparison is not None and len(comparison.differences):
        margins = comparison.differences.loc[comparison.differences["score"] == score, "margin"]
        margin = float(margins.iloc[0]) if len(margins) else margin
    unit = {"part": "score", "score": score, "margin": margin}
    costs = _costs(scored.records.costs)
    teacher = costs.get((TEACHER, TEACHER), {})
    rows = []
    taught = scored.teacher.get((data, score), math.nan)
    if math.isfinite(taught) or teacher:
        rows.append(Answer("teacher", "", None, taught, **teacher))
    for init, group in own.groupby("init", sort=False):
        for strategy in in_order(group["strategy"]):
            values = group.loc[group["strategy"] == strategy, "value"]
            arm = (strategy, str(init))
            found = {"score": float(values.mean())} | known.get(arm, {})
            rows.append(
                Answer(strategy, weights_words(str(init)), arm, n_seeds=len(values), **found, **costs.get(arm, {}))
            )
    chance = scored.chance.get((data, score), math.nan)
    return AnswerTable(score, data, unit, tuple(rows), chance, compared=bool(known))


def _compared_rows(comparison: Comparison | None, score: str, data: str) -> dict[tuple[str, str], dict[str, Any]]:
    """Return mean, interval and difference from none by strategy and initialisation, as the comparison has them."""
    if comparison is None:
        return {}

    def of_score(frame: pd.DataFrame) -> pd.DataFrame:
        return frame[(frame["part"] == "score") & (frame["score"] == score) & (frame["data"] == data)]

    found: dict[tuple[str, str], dict[str, Any]] = {
        (row["strategy"], str(row["init"])): {"score": row["mean"], "low": row["low"], "high": row["high"]}
        for row in of_score(comparison.levels).to_dict(orient="records")
    }
    for row in of_score(comparison.differences).to_dict(orient="records"):
        if row["kind"] not in (OVER_NONE, CONTROL) or row["strategy_b"] != NONE:
            continue
        arm = (row["strategy_a"], str(row["init"]))
        if arm in found:
            named = {str(key): value for key, value in row.items()}
            change = f"{gap(float(row['difference']), named, signed=True)} ({interval_words(named, 'low', 'high')})"
            # The unit stands above the column.
            found[arm]["over_none"] = change.replace(" points", "")
    return found


def _costs(costs: pd.DataFrame) -> dict[tuple[str, str], dict[str, Any]]:
    """Return the sizes and speeds of each arm, and under (teacher, teacher) the teacher's own."""
    if costs.empty:
        return {}
    keys = ["strategy", "init", "seed"]
    teachers = costs[costs["model"] == TEACHER].set_index(keys)
    found: dict[tuple[str, str], dict[str, Any]] = {}
    if len(teachers):
        found[TEACHER, TEACHER] = {
            "parameters": float(teachers["parameters"].iloc[0]),
            "milliseconds": float(teachers["milliseconds"].median()),
        }
    students = costs[costs["model"] == STUDENT].set_index(keys)
    beside = teachers[["parameters", "milliseconds", "device"]].add_suffix("_teacher")
    together = students.join(beside, how="left")
    for (strategy, init), own in together.groupby(level=["strategy", "init"], sort=False):
        # Times are compared within a run, where both were taken in turns on one kind of device.
        faster = (own["milliseconds_teacher"] / own["milliseconds"])[own["device"] == own["device_teacher"]].dropna()
        times = teachers["milliseconds"].median() / faster if len(faster) else own["milliseconds"]
        smaller = own["parameters_teacher"] / own["parameters"]
        found[str(strategy), str(init)] = {
            "parameters": float(own["parameters"].mean()),
            "milliseconds": float(times.median()),
            "smaller": float(smaller.mean()),
            **(
                {"faster": float(faster.mean()), "faster_range": (float(faster.min()), float(faster.max()))}
                if len(faster)
                else {}
            ),
        }
    return found


def answer_markup(answers: AnswerTable, costs: pd.DataFrame, keys: Mapping[tuple[str, str], Sequence[str]]) -> Markup:
    """Return the table as HTML: a small drawing of the score with its interval, and every number as text.

    Args:
        answers: what it says.
        costs: of the runs, for what was timed.
        keys: the students' keys in the page, by strategy and initialisation.
    """
    name = score_words(answers.score)
    sized = any(math.isfinite(row.parameters) for row in answers.rows)
    taught = answers.rows[0].score if answers.rows and answers.rows[0].arm is None else math.nan
    ends = _ends(answers)
    several = len({row.weights for row in answers.rows if row.arm is not None}) > 1
    interval = " (95% interval)" if answers.compared else ""
    head = ["strategy", *(["weights"] if several else []), f"{name}, drawn", f"{name}{interval}"]
    points = ", points" if answers.score in SHARES else ""
    head += [f"over none{points} (95% interval)"] if answers.compared else []
    head += ["of the teacher"] if math.isfinite(taught) else []
    head += ["parameters (times smaller)", "forward pass (times faster)"] if sized else []
    rows = []
    for row in answers.rows:
        cells = [element("th", row.name, scope="row"), *([element("td", _short(row.weights))] if several else [])]
        cells += [element("td", _score_drawing(row, answers, ends, taught), class_="dot")]
        value = level(row.score, answers.unit) if math.isfinite(row.score) else ""
        if math.isfinite(row.low):
            value += f" ({level(row.low, answers.unit)} to {level(row.high, answers.unit)})"
        cells += [element("td", value, class_="number")]
        cells += [element("td", row.over_none, class_="number")] if answers.compared else []
        if math.isfinite(taught):
            kept = "" if row.arm is None or not taught else f"{row.score / taught:.1%}"
            cells += [element("td", kept, class_="number")]
        if sized:
            cells += [element("td", text, class_="number") for text in _cost_words(row)]
        shown = " ".join(keys.get(row.arm, ())) if row.arm is not None else ""
        rows.append(element("tr", *cells, data_students=shown or None))
    marks = ["dot and bar: mean and 95% interval" if answers.compared else "dot: mean over seeds"]
    marks += ["dashed: the teacher"] if math.isfinite(taught) else []
    marks += ["dotted: one answer to every example"] if math.isfinite(answers.chance) else []
    note = f"{name} on {answers.data or 'the evaluation table'}; {', '.join(marks)}. "
    note += _timed_words(costs) if sized else f"Sizes and speeds: {_NOT_RECORDED}; runs of this version record them."
    return element(
        "section",
        element(
            "div",
            element(
                "table",
                element("caption", f"{name}, size and speed by strategy", class_="unseen"),
                element("thead", element("tr", *(element("th", one, scope="col") for one in head))),
                element("tbody", *rows),
                class_="answer-table",
            ),
            class_=f"scroll{' tall' if len(rows) > 14 else ''}",
            role="region",
            aria_label=f"{name} by strategy",
            tabindex="0",
        ),
        element("p", note, class_="note"),
        class_="answer",
    )


def _short(weights: str) -> str:
    """Return what stands in the column of weights."""
    return weights.removeprefix("the ").removesuffix(" weights")


def brief_sentences(answers: AnswerTable) -> list[str]:
    """Return the answer for a reader in a hurry: a sentence for each kind of weights, the highest-scoring first.

    Which matching strategy scores highest, how much over none and of the teacher's score, and what it costs. Whether
    strategies differ at all is the verdict's to say.
    """
    falls = answers.score in LOWER_IS_BETTER
    taught = answers.rows[0] if answers.rows and answers.rows[0].arm is None else None
    found = []
    for weights in dict.fromkeys(row.weights for row in answers.rows if row.arm is not None):
        rows = [row for row in answers.rows if row.weights == weights and row.arm is not None]
        able = [row for row in rows if matches_layers(row.name) and math.isfinite(row.score)]
        if len(able) < 2:
            continue
        best = sorted(able, key=lambda row: row.score, reverse=not falls)[0]
        rank = -best.score if not falls else best.score
        found.append((rank, best))
    ordered = [best for _, best in sorted(found, key=lambda each: each[0])]
    # What holds for all is said once.
    return [_brief(best, answers, taught, costs=number == 0) for number, best in enumerate(ordered)]


def _brief(best: Answer, answers: AnswerTable, taught: Answer | None, *, costs: bool) -> str:
    place = "lowest" if answers.score in LOWER_IS_BETTER else "highest"
    words = f"From {best.weights}" if best.weights else "Of the matching strategies"
    words += f", {best.name} scores {place}: {score_words(answers.score)} {level(best.score, answers.unit)}"
    if costs and taught is not None and math.isfinite(taught.score):
        words += f" (teacher {level(taught.score, answers.unit)}"
        words += f"; one answer to all {level(answers.chance, answers.unit)})" if math.isfinite(answers.chance) else ")"
    if best.over_none:
        unit = " points" if answers.score in SHARES else ""
        change, _, interval = best.over_none.partition(" (")
        words += f", {change}{unit} over none" + (f" (95% interval {interval}" if interval else "")
    spared = []
    if costs and math.isfinite(best.smaller):
        spared.append(f"{best.smaller:.1f} times fewer parameters than the teacher")
    if costs and math.isfinite(best.faster):
        spared.append(f"a forward pass {best.faster:.1f} times as fast")
    return f"{words}{'; ' if spared else ''}{' and '.join(spared)}."


def _ends(answers: AnswerTable) -> tuple[float, float]:
    values = [answers.chance, *(value for row in answers.rows for value in (row.score, row.low, row.high))]
    known = [value for value in values if math.isfinite(value)]
    low, high = (min(known), max(known)) if known else (0.0, 1.0)
    # A score of which all rows are alike keeps its place in the middle.
    least = 5 * float(answers.unit["margin"])
    more = max(0.0, least - (high - low)) / 2
    return low - more, high + more


def _score_drawing(row: Answer, answers: AnswerTable, ends: tuple[float, float], taught: float) -> Markup:
    def x(value: float) -> float:
        return round(_SIDE + (_WIDE - 2 * _SIDE) * (value - ends[0]) / (ends[1] - ends[0]), 1)

    middle = _HIGH / 2
    marks = []
    for value, kind in ((taught, "teacher-mark"), (answers.chance, "level-mark")):
        if math.isfinite(value):
            marks.append(element("line", x1=x(value), x2=x(value), y1=1, y2=_HIGH - 1, class_=kind))
    if math.isfinite(row.low):
        marks.append(element("line", x1=x(row.low), x2=x(row.high), y1=middle, y2=middle, class_="reach"))
    told = level(row.score, answers.unit) if math.isfinite(row.score) else "unknown"
    if math.isfinite(row.score):
        marks.append(element("circle", cx=x(row.score), cy=middle, r=4))
    init = None if row.arm is None else row.arm[1]
    kind = f"from-{init}" if init in ("random", "teacher") else "from-other"
    label = f"{row.name}: {told}"
    return element("svg", *marks, viewBox=f"0 0 {_WIDE} {_HIGH}", class_=kind, role="img", aria_label=label)


def _cost_words(row: Answer) -> tuple[str, str]:
    """Return the size and the speed of a row, with how many times smaller and faster than the teacher it is."""
    size = "" if not math.isfinite(row.parameters) else number_words(row.parameters)
    if math.isfinite(row.smaller):
        size += f" ({row.smaller:.1f})"
    speed = ""
    if math.isfinite(row.milliseconds):
        speed = f"{row.milliseconds:,.0f} ms" if row.milliseconds >= 100 else f"{row.milliseconds:.3g} ms"
    if math.isfinite(row.faster):
        low, high = row.faster_range
        several = f"; {low:.1f} to {high:.1f}" if row.n_seeds > 1 else ""
        speed += f" ({row.faster:.1f}{several})"
    return size, speed


def number_words(number: float) -> str:
    """Return a large number in words: `110 million`, `41,200`."""
    for size, word in ((1e9, "billion"), (1e6, "million")):
        if number >= size:
            return f"{number / size:.3g} {word}"
    return f"{number:,.0f}"


def _timed_words(costs: pd.DataFrame) -> str:
    examples, tokens = (sorted({int(one) for one in costs[name]}) for name in ("examples", "tokens"))
    devices = ", ".join(dict.fromkeys(map(str, costs["device"])))
    return (
        "Times: the median of a few forward passes over one batch of "
        f"{_range_words(examples)} examples ({_range_words(tokens)} tokens) on {devices}, teacher and student in turns "
        "when the run ended; generation is not timed."
    )


def _range_words(numbers: Sequence[int]) -> str:
    return f"{numbers[0]:,}" if len(numbers) < 2 else f"{numbers[0]:,} to {numbers[-1]:,}"
