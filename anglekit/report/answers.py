"""The answer in numbers: what every strategy scores, how far from the others, and how much smaller and faster it is."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import pandas as pd

from anglekit.comparison.cells import in_order
from anglekit.comparison.choice import Choice
from anglekit.comparison.compare import default_score_margin
from anglekit.comparison.crossed import LEAST_SEEDS
from anglekit.comparison.gaps import Gap
from anglekit.comparison.result import Comparison
from anglekit.comparison.statistics import BETWEEN, CONTROL, LEVEL, OVER_NONE
from anglekit.comparison.wording import SHARES, gap, interval_words, level, score_words, weights_words
from anglekit.display.html import Markup, element, joined
from anglekit.report.gather import Findings, ReportedScores
from anglekit.results.chance import MISMATCHED, UNRELATED
from anglekit.results.example_scores import STUDENT, TEACHER
from anglekit.results.student_t import t_quantile, wilson_interval
from anglekit.results.training_records import architecture_costs
from anglekit.vocabulary import (
    CONTROL_ARMS,
    CONTROL_LABELS,
    LOWER_IS_BETTER,
    NONE,
    RIGHT_OR_WRONG,
    STRATEGIES,
)

# Of the small drawing in a row: width, height and margin, in pixels.
_WIDE, _HIGH, _SIDE = 150, 18, 6
#: A table of more rows scrolls in its own box where the screen is small.
_FEW_ROWS: Final = 10
_NOT_RECORDED: Final = "not recorded"
#: What the angles are compared with.
_NULLS: Final = (
    (
        MISMATCHED,
        "the angle between the same two layers of the teacher, seen from the student's state of another example: what "
        "it would be if text and student had nothing to do with each other",
    ),
    (
        UNRELATED,
        "what the angle would be if student and layers had the lengths that they have and directions with nothing in "
        "common, also not between the layers",
    ),
)


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
        behind: the difference from the best strategy from the same weights, with the interval that holds for all pairs
            at once, in words, or that it is that one; empty for `none` and for controls.
        verdict: on that difference; empty where there is none.
        n_seeds: how many students there are.
        parameters: of one.
    """

    name: str
    weights: str
    arm: tuple[str, str] | None
    score: float
    low: float = math.nan
    high: float = math.nan
    over_none: str = ""
    behind: str = ""
    verdict: str = ""
    n_seeds: int = 0
    parameters: float = math.nan


@dataclass(frozen=True)
class AnswerTable:
    """The rows on one score of one table.

    Attributes:
        score: its name.
        data: the evaluation table.
        unit: by which a number of it is written (`comparison.wording.level`).
        rows: the teacher first, then from the best mean to the worst.
        chance: what one answer to every example reaches; NaN where unknown.
        compared: whether intervals and differences are known.
        sizes: of teacher and students, a row for each architecture (`architecture_costs`).
        choices: which strategy to use, the best-scoring weights first; empty where nothing is compared.
        teacher_gaps: of strategy and initialisation, the difference from the teacher with its interval, where known.
        weights: how far the best of other weights is below the best of all, in sentences; empty for one kind.
        varies: over what the intervals of students' scores are; empty where nothing is compared.
    """

    score: str
    data: str
    unit: Mapping[str, Any]
    rows: tuple[Answer, ...]
    chance: float
    compared: bool
    sizes: pd.DataFrame
    choices: tuple[Choice, ...] = ()
    teacher_gaps: Mapping[tuple[str, str], Gap] = field(default_factory=dict)
    weights: str = ""
    varies: str = ""

    @property
    def teacher(self) -> Answer | None:
        """The teacher's row, where its score is known."""
        first = self.rows[0] if self.rows else None
        return first if first is not None and first.arm is None and math.isfinite(first.score) else None


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
    costs = scored.records.costs
    sizes = {arm: float(group["parameters"].median()) for arm, group in _by_arm(costs[costs["model"] == STUDENT])}
    rows = []
    for init, group in own.groupby("init", sort=False):
        for strategy in in_order(group["strategy"]):
            values = group.loc[group["strategy"] == strategy, "value"]
            arm = (strategy, str(init))
            found = {"score": float(values.mean()), "parameters": sizes.get(arm, math.nan)} | known.get(arm, {})
            rows.append(Answer(strategy, weights_words(str(init)), arm, n_seeds=len(values), **found))
    sign = 1 if score in LOWER_IS_BETTER else -1
    rows.sort(key=lambda row: sign * row.score)
    taught = scored.teacher.get((data, score), math.nan)
    if math.isfinite(taught):
        low, high = _teacher_interval(taught, score, scored.n_examples.get(data))
        rows.insert(0, Answer(TEACHER, "", None, taught, low, high))
    return AnswerTable(
        score,
        data,
        unit,
        tuple(rows),
        scored.chance.get((data, score), math.nan),
        bool(known),
        architecture_costs(costs),
        comparison.choices if comparison is not None and known else (),
        comparison.teacher_gaps if comparison is not None and comparison.chosen_on == (score, data) else {},
        comparison.weights_sentences if comparison is not None and known else "",
        _varies(comparison, score, data) if comparison is not None and known else "",
    )


def _varies(comparison: Comparison, score: str, data: str) -> str:
    """Return over what the intervals of students' scores are, as far as seeds and examples are known."""
    levels = comparison.levels
    own = levels[(levels["part"] == "score") & (levels["score"] == score) & (levels["data"] == data)]
    if not own["by_example"].any():
        return "over seeds alone, as no predictions by example came: it holds on this table"
    if (own["about"] == "these students").all():
        return f"over examples alone, as fewer than {LEAST_SEEDS} seeds tell nothing of other students"
    return "over seeds and examples"


def _by_arm(costs: pd.DataFrame) -> list[tuple[tuple[str, str], pd.DataFrame]]:
    return [((str(one), str(init)), group) for (one, init), group in costs.groupby(["strategy", "init"], sort=False)]


def _teacher_interval(value: float, score: str, examples: int | None) -> tuple[float, float]:
    """Return the 95% interval over examples of a share of right answers; NaN for other scores."""
    if score not in RIGHT_OR_WRONG or not examples:
        return math.nan, math.nan
    return wilson_interval(value, examples, float(t_quantile((1 + LEVEL) / 2, math.inf)))


def _compared_rows(comparison: Comparison | None, score: str, data: str) -> dict[tuple[str, str], dict[str, Any]]:
    """Return mean, interval and differences by strategy and initialisation, as the comparison has them."""
    if comparison is None:
        return {}

    def of_score(frame: pd.DataFrame) -> list[dict[str, Any]]:
        own = frame[(frame["part"] == "score") & (frame["score"] == score) & (frame["data"] == data)]
        return [{str(key): value for key, value in row.items()} for row in own.to_dict(orient="records")]

    found: dict[tuple[str, str], dict[str, Any]] = {
        (row["strategy"], str(row["init"])): {"score": row["mean"], "low": row["low"], "high": row["high"]}
        for row in of_score(comparison.levels)
    }
    best = {one.init: one.best for one in comparison.choices}
    for row in of_score(comparison.differences):
        init, pair = str(row["init"]), (row["strategy_a"], row["strategy_b"])
        if row["kind"] in (OVER_NONE, CONTROL) and pair[1] == NONE and (pair[0], init) in found:
            found[pair[0], init]["over_none"] = _difference_words(row, "low", "high")
        if row["kind"] == BETWEEN and best.get(init) in pair:
            if pair[0] == best[init]:
                turned = {"joint_low": -row["joint_high"], "joint_high": -row["joint_low"]}
                row = {**row, **turned, "difference": -row["difference"]}
            other = pair[1] if pair[0] == best[init] else pair[0]
            words = _difference_words(row, "joint_low", "joint_high")
            found[other, init] |= {"behind": words, "verdict": row["verdict"]}
            found[best[init], init]["behind"] = "the lowest" if score in LOWER_IS_BETTER else "the highest"
    return found


def _difference_words(row: Mapping[str, Any], low: str, high: str) -> str:
    """Return a signed difference with its interval; its unit stands above the column."""
    interval = interval_words(row, low, high).replace(" (cut at 100)", ", cut at 100")
    return f"{gap(float(row['difference']), row, signed=True)} ({interval})".replace(" points", "")


def answer_markup(answers: AnswerTable, keys: Mapping[tuple[str, str], Sequence[str]]) -> Markup:
    """Return the table as HTML: a small drawing of the score with its interval, and every number as text.

    Args:
        answers: what it says.
        keys: the students' keys in the page, by strategy and initialisation.
    """
    name, teacher = score_words(answers.score), answers.teacher
    best = "lowest" if answers.score in LOWER_IS_BETTER else "highest"
    ends = _ends(answers)
    several = len({row.weights for row in answers.rows if row.arm is not None}) > 1
    sizes = len({row.parameters for row in answers.rows if math.isfinite(row.parameters)}) > 1
    points = ", points" if answers.score in SHARES else ""
    drawn = f"{name}, drawn"
    head = ["strategy", *(["weights"] if several else []), drawn]
    head += [f"{name}{' (95%, this score alone)' if answers.compared else ''}"]
    head += [f"from the teacher{points} (kept)"] if teacher is not None else []
    if answers.compared:
        head += [
            f"over none{points} (95%, this pair alone)",
            f"from the {best} of its weights{points} (95%, all pairs at once)",
            "told apart",
        ]
    head += ["parameters"] if sizes else []
    heads = [element("th", one, scope="col", class_="dot" if one == drawn else None) for one in head]

    def cells(row: Answer) -> list[Markup]:
        found = [element("th", _name(row.name), scope="row")]
        found += [element("td", _short(row.weights))] if several else []
        drawn = _score_drawing(row, answers, ends, teacher.score if teacher is not None else math.nan)
        found += [element("td", drawn, class_="dot", data_value=_sort_value(row.score))]
        value = level(row.score, answers.unit)
        if math.isfinite(row.low):
            value += f" ({level(row.low, answers.unit)} to {level(row.high, answers.unit)})"
        found += [element("td", value, class_="number", data_value=_sort_value(row.score))]
        if teacher is not None:
            found += [_teacher_cell(row, teacher, answers)]
        if answers.compared:
            for text in (row.over_none, row.behind):
                kind = "number cut" if "cut at" in text else "number"
                found += [element("td", text, class_=kind, data_value=_first_number(text))]
            mark = element("span", row.verdict, class_=f"mark {row.verdict.replace(' ', '-')}") if row.verdict else ""
            found += [element("td", mark)]
        if sizes:
            words = number_words(row.parameters) if math.isfinite(row.parameters) else ""
            found += [element("td", words, class_="number", data_value=_sort_value(row.parameters))]
        return found

    students = [row for row in answers.rows if row.arm is not None]
    rows = [
        element("tr", *cells(row), data_students=" ".join(keys.get(row.arm or ("", ""), ())) or None)
        for row in students
    ]
    marks = ["dot and bar: mean and 95% interval" if answers.compared else "dot: mean over seeds"]
    marks += ["dashed: the teacher"] if teacher is not None else []
    marks += ["dotted: guessing"] if math.isfinite(answers.chance) else []
    note = f"{name} on {answers.data or 'the evaluation table'}; {', '.join(marks)}."
    return element(
        "section",
        element("p", "Scroll the table sideways for more columns \N{RIGHTWARDS ARROW}", class_="note more-columns"),
        element(
            "div",
            element(
                "table",
                element("caption", f"{name} by strategy", class_="unseen"),
                element("thead", element("tr", *heads)),
                element("tbody", element("tr", *cells(teacher))) if teacher is not None else None,
                element("tbody", *rows),
                class_="answer-table sortable",
            ),
            class_=f"scroll{' tall' if len(rows) > _FEW_ROWS else ''}",
            role="region",
            aria_label=f"{name} by strategy",
            tabindex="0",
        ),
        element(
            "p",
            " ".join([note, *([_deciding_words(answers)] if answers.compared else []), size_sentence(answers.sizes)]),
            class_="note",
        ),
        class_="answer",
    )


def _deciding_words(answers: AnswerTable) -> str:
    """Return which of the table's intervals decides."""
    margin = gap(float(answers.unit["margin"]), answers.unit)
    return (
        "Told apart: by the interval of the paired difference, which holds for all pairs at once and must lie beyond "
        f"the margin of {margin}; not by the intervals of single scores."
    )


def _name(strategy: str) -> Markup | str:
    if strategy not in CONTROL_LABELS:
        return strategy
    return joined(CONTROL_LABELS[strategy], " ", element("small", "control"))


def _short(weights: str) -> str:
    """Return what stands in the column of weights."""
    return weights.removeprefix("the ").removesuffix(" weights")


def _sort_value(number: float) -> str | None:
    return f"{number:.12g}" if math.isfinite(number) else None


def _first_number(text: str) -> str | None:
    if text.startswith("the "):
        return "0"
    return text.partition(" ")[0].replace("+", "").rstrip("°%") or None


def _teacher_cell(row: Answer, teacher: Answer, answers: AnswerTable) -> Markup:
    """Return how far a row is from the teacher, and the share of its score that is kept."""
    if row.arm is None:
        return element("td", "")
    far = gap(row.score - teacher.score, answers.unit, signed=True).replace(" points", "")
    kept = f" ({row.score / teacher.score:.1%})" if teacher.score and answers.score not in LOWER_IS_BETTER else ""
    return element("td", f"{far}{kept}", class_="number", data_value=_sort_value(row.score - teacher.score))


def size_sentence(sizes: pd.DataFrame) -> str:
    """Return the size and speed of teacher and students, one of each for an architecture, in a sentence."""
    if sizes.empty:
        return f"Sizes and speeds: {_NOT_RECORDED}; runs of this version record them."
    several = len(set(sizes["device"])) > 1
    parts = []
    for row in sizes.to_dict(orient="records"):
        student = row["model"] != TEACHER
        smaller = f" ({row['smaller']:.1f} times smaller)" if student and math.isfinite(row["smaller"]) else ""
        faster = ""
        if student and math.isfinite(row["faster"]):
            runs = f"; single runs {row['faster_low']:.1f} to {row['faster_high']:.1f}" if row["runs"] > 1 else ""
            faster = f" ({row['faster']:.1f} times as fast{runs})"
        named = f"{row['runs']} {'students' if row['runs'] > 1 else 'student'}" if student else "teacher"
        where = f" on {row['device']}" if several else ""
        parts.append(
            f"{named} {number_words(row['parameters'])} parameters{smaller}, {milliseconds_words(row['milliseconds'])} "
            f"for a batch{where}{faster}"
        )
    return f"Size and speed: {'; '.join(parts)}."


def glossary(tables: Sequence[AnswerTable], costs: Sequence[pd.DataFrame], *, angles: bool = False) -> Markup | None:
    """Return a line on every strategy, control, kind of weights and other word of the page, folded; None without any.

    Args:
        tables: what the page says.
        costs: of the runs of each table, for what was timed.
        angles: whether the page shows angles.
    """
    arms = [row.arm for answers in tables for row in answers.rows if row.arm is not None]
    if not arms and not angles:
        return None
    lines: list[tuple[object, str]] = []
    for name in in_order(strategy for strategy, _ in arms):
        known = STRATEGIES.get(name) or CONTROL_ARMS.get(name)
        meant = known.description if known is not None else "a strategy of the user's"
        if name == NONE:
            meant = f"{meant}: the student learns from labels and the teacher's predictions, and no layers are matched"
        called = f" (in commands and figures: {name})" if name in CONTROL_LABELS else ""
        lines.append((_name(name), f"{meant}{called}"))
    inits = {init for _, init in arms}
    if "random" in inits:
        lines.append(("new weights", "drawn at random, as of a model that nobody trained (in figures: random init)"))
    if "teacher" in inits:
        lines.append(("teacher's weights", "the teacher's own blocks are copied into the student (teacher init)"))
    if any(answers.compared for answers in tables):
        lines.append(("surely", "with 95% confidence, for all pairs of strategies together"))
        lines.append(("margin", "the largest difference that is taken not to matter; smaller ones decide nothing"))
        lines.append(
            (
                "different, equivalent, undecided",
                "the interval of the paired difference lies beyond the margin, inside it, or neither; with few seeds "
                "the intervals of two single scores can lie apart and the test still be undecided",
            )
        )
        varies = dict.fromkeys(answers.varies for answers in tables if answers.varies)
        lines.append(("interval", f"of a student's score {'; '.join(varies)}; the teacher's is over examples alone"))
        lines.append(
            (
                "this pair alone, all pairs at once, for equivalence",
                "an interval holds at 95% for one difference, or for all pairs of strategies together, which is wider "
                "and decides different; the 90% interval of a pair decides equivalent",
            )
        )
    if any(math.isfinite(answers.chance) for answers in tables):
        lines.append(("guessing", "one answer to every example, the commonest: what a score is without any knowledge"))
    lines += [(word, meant) for word, meant in _NULLS if angles]
    lines += [("time of a batch", _timed_words(one)) for one in costs if len(one)]
    return element(
        "details",
        element("summary", "What the strategies and other words mean"),
        element(
            "dl", *(joined(element("dt", word), element("dd", f"{meant.removesuffix('.')}.")) for word, meant in lines)
        ),
        id="glossary",
        class_="glossary",
    )


def brief_answers(answers: AnswerTable) -> list[tuple[str, str]]:
    """Return the answer for a reader in a hurry, for each kind of weights, the best-scoring first.

    Each is what to use, a sentence, and why: by how much over the next strategy and over none, how surely, how far
    below the teacher, and, in the first, how far above other weights and how much smaller and faster the students are.
    Empty where nothing is compared.
    """
    by_arm = {row.arm: row for row in answers.rows}
    found = []
    for number, choice in enumerate(answers.choices):
        more = []
        taken = by_arm.get((choice.use or choice.best, choice.init))
        if answers.teacher is not None and taken is not None:
            more.append(_below_teacher(taken, answers.teacher, answers))
        if number == 0:
            more += [answers.weights] if answers.weights else []
            more += _spared(answers, taken)
        found.append((choice.first(weights_words(choice.init)), choice.rest(*more)))
    return found


def _below_teacher(row: Answer, teacher: Answer, answers: AnswerTable) -> str:
    far = row.score - teacher.score
    known = answers.teacher_gaps.get(row.arm) if row.arm is not None else None
    sure = ""
    if known is not None and math.isfinite(known.low):
        low, high = sorted(math.copysign(1.0, far) * end for end in (known.low, known.high))
        words = interval_words({**answers.unit, "low": low, "high": high}, "low", "high").replace(" points", "")
        sure = f" (95%, paired by example: {words})"
    side = "above" if far > 0 else "below"
    taught = level(teacher.score, answers.unit)
    return f"The teacher has {taught}: {row.name} is {gap(abs(far), answers.unit)}{sure} {side} it."


def _spared(answers: AnswerTable, taken: Answer | None) -> list[str]:
    """Return how much smaller and faster the students are, by the architecture of the row that is used."""
    own = answers.sizes[answers.sizes["model"] != TEACHER]
    if taken is not None and math.isfinite(taken.parameters):
        own = own[own["parameters"] == taken.parameters]
    if own.empty:
        return ["Sizes and speeds are not recorded."]
    row = own.iloc[0]
    parts = [f"{row['smaller']:.1f} times smaller than the teacher"] if math.isfinite(row["smaller"]) else []
    parts += [f"{row['faster']:.1f} times as fast"] if math.isfinite(row["faster"]) else []
    return [f"The student is {' and '.join(parts)}."] if parts else []


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
    marks.append(element("circle", cx=x(row.score), cy=middle, r=4))
    init = None if row.arm is None else row.arm[1]
    kind = f"from-{init}" if init in ("random", "teacher") else "from-other"
    label = f"{row.name}: {level(row.score, answers.unit)}"
    return element("svg", *marks, viewBox=f"0 0 {_WIDE} {_HIGH}", class_=kind, role="img", aria_label=label)


def milliseconds_words(milliseconds: float) -> str:
    """Return a time with three digits: `4.82 ms`, `1,250 ms`."""
    return f"{milliseconds:,.0f} ms" if milliseconds >= 100 else f"{milliseconds:.3g} ms"


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
        f"{_range_words(examples)} examples ({_range_words(tokens)} tokens) on {devices}, once through the "
        "model; teacher and student in turns when a run ended. Students of one size count as one architecture: their "
        "time is the median over runs of the part of the teacher's that each took. How single runs differ is noise. "
        "Generation is not timed."
    )


def _range_words(numbers: Sequence[int]) -> str:
    return f"{numbers[0]:,}" if len(numbers) < 2 else f"{numbers[0]:,} to {numbers[-1]:,}"
