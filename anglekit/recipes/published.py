"""The scores that the paper published, and a reproduction's own beside them."""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Final

import msgspec
import pandas as pd

from anglekit.display.tables import TextTable, aligned_text
from anglekit.errors import InputError, suggest
from anglekit.readings import reading_rows
from anglekit.recipes.plans import reading_family
from anglekit.recipes.recipe import Published, Recipe
from anglekit.vocabulary import CONTROL_ARMS

SOURCE: Final = (
    "Z. Yu, Y. Wen, L. Mou: Revisiting Intermediate-Layer Matching in Knowledge Distillation: Layer-Selection Strategy "
    "Doesn't Matter (Much), Findings of IJCNLP-AACL 2025, pp. 1686-1694, arXiv 2502.04499"
)
#: model, layers, width, init, strategy: who; data, score: what; ours: the mean over `seeds` seeds, in the paper's unit.
_RESULT_COLUMNS: Final = (
    *("model", "layers", "width", "init", "strategy", "data", "score"),
    *("ours", "low", "high", "seeds", "published", "difference"),
)
#: Scores that we compute as fractions and papers print in percent.
_FRACTIONS: Final = frozenset(
    (
        *(
            "accuracy",
            "accuracy_normalized",
            "token_accuracy",
            "last_turn_exact_match",
            "f1",
            "macro_f1",
            "micro_f1",
            "subset_accuracy",
        ),
        *("matthews", "pearson", "spearman", "exact_match", "normalized_exact_match"),
    )
)
#: A student this many points below the teacher has not learnt what there is to learn.
_FAR_BELOW: Final = 10.0
#: Up to so many layers a random order is likely enough to be forward's.
_FEW_ORDERS: Final = 4


@dataclass(frozen=True)
class PublishedScore:
    """One number of the paper.

    Attributes:
        table: "classification", "generation" or "llm".
        task: as the paper's tables name it, `mnli-matched` for example.
        metric: "accuracy", "f1", "bleu" or "exact-match"; in percent, or BLEU points.
        model: "teacher", "teacher-previous-work" (a number that the paper quotes) or "student".
        init: "random" or "teacher"; "" for teachers.
        strategy: how the student was matched; "" for teachers.
        value: from 0 to 100.
    """

    table: str
    task: str
    metric: str
    model: str
    init: str
    strategy: str
    value: float


@cache
def published_scores() -> tuple[PublishedScore, ...]:
    """Return all numbers, in the order of the paper's tables."""
    text = (files("anglekit.recipes") / "published.csv").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return msgspec.convert(list(csv.DictReader(lines)), tuple[PublishedScore, ...], strict=False)


def published_of(recipe: Recipe) -> tuple[PublishedScore, ...]:
    """Return the numbers that belong beside a recipe's result: of its tasks and metrics."""
    if recipe.published is None:
        return ()
    tasks, metrics = set(recipe.published.tasks.values()), set(recipe.published.scores.values())
    return tuple(one for one in published_scores() if one.task in tasks and one.metric in metrics)


def check_published(wanted: Published) -> None:
    """Check that the paper has the tasks and metrics that a recipe names.

    Raises:
        InputError: it does not have one of them; the message suggests the nearest.
    """
    for what, names in (("task", wanted.tasks.values()), ("metric", wanted.scores.values())):
        known = sorted({getattr(one, what) for one in published_scores()})
        for name in names:
            if name not in known:
                raise InputError(f"the paper's tables have no {what} {name!r}", allowed=suggest(name, known))


def result_frame(recipe: Recipe, scores: pd.DataFrame) -> pd.DataFrame:
    """Return ours beside the paper's, in the paper's units (percent, or BLEU points), from what `write_scores` wrote.

    The columns are `_RESULT_COLUMNS`, with a row for each kind of model, validation table and score; `published` and
    `difference` (ours - published) are missing where the paper has no number, and `difference` where the two cannot be
    compared (`Published.unlike`).
    """
    published = {(one.task, one.metric, one.model, one.init, one.strategy): one.value for one in published_of(recipe)}
    unlike = recipe.published is not None and recipe.published.unlike
    rows: list[dict[str, Any]] = []
    who = ["model", "layers", "width", "init", "strategy", "data"]
    plain = scores.astype({"layers": object, "width": object})
    for key, group in plain.groupby(who, sort=False, dropna=False):
        facts: dict[str, Any] = dict(zip(who, key, strict=True))
        facts |= {name: _whole(facts[name]) for name in ("layers", "width")}
        for score in recipe.scores:
            values = group[score].astype(float) * (100.0 if score in _FRACTIONS else 1.0)
            known = _published_key(recipe, facts, score)
            number = None if known is None else published.get(known)
            ours = float(values.mean())
            rows.append(
                {
                    **facts,
                    "score": score,
                    "ours": ours,
                    "low": float(values.min()),
                    "high": float(values.max()),
                    "seeds": len(values),
                    "published": number,
                    "difference": None if number is None or unlike else ours - number,
                }
            )
    return pd.DataFrame(rows, columns=list(_RESULT_COLUMNS)).astype({"published": float, "difference": float})


def _whole(number: Any) -> int | None:  # noqa: ANN401 - a cell of a data frame
    return None if pd.isna(number) else int(number)


def _published_key(recipe: Recipe, facts: dict[str, Any], score: str) -> tuple[str, str, str, str, str] | None:
    known = recipe.published
    if known is None or facts["data"] not in known.tasks or score not in known.scores:
        return None
    if facts["model"] == "student" and (facts["layers"], facts["width"]) != (known.layers, None):
        return None
    return known.tasks[facts["data"]], known.scores[score], facts["model"], facts["init"], facts["strategy"]


def result_text(recipe: Recipe, result: pd.DataFrame, scale: float) -> str:
    """Return the result as tables for a terminal, one a variant, validation table and score, with what to beware of."""
    lines: list[str] = []
    students = result[result["model"] == "student"]
    for (layers, width), variant in students.groupby(["layers", "width"], sort=False, dropna=False):
        wide = _whole(width)
        shape = f"students of {_whole(layers)} layers" + ("" if wide is None else f", {wide} wide")
        for (data, score), group in variant.groupby(["data", "score"], sort=False):
            teacher = result[(result["model"] == "teacher") & (result["data"] == data) & (result["score"] == score)]
            percent = ", in percent" if score in _FRACTIONS else ""
            lines += ["", f"{recipe.name}, {data}, {score}{percent}: {shape}"]
            lines.append(_table(pd.concat([teacher, group])))
    return "\n".join([*lines, "", *_caveats(recipe, scale), *_far_below(result)])


def _far_below(result: pd.DataFrame) -> list[str]:
    """Return a line for each kind of student whose best is far below the teacher."""
    own = result[result["score"] == result["score"].iloc[0]]
    teacher = own[own["model"] == "teacher"].set_index("data")["ours"]
    students = own[own["model"] == "student"].groupby(["layers", "width", "init", "data"], sort=False, dropna=False)
    lines = []
    for (layers, _, init, data), best in students["ours"].max().items():
        if teacher[data] - best > _FAR_BELOW:
            start = "copied" if init == "teacher" else init
            lines.append(
                f"beware: from {start} weights the best student of {_whole(layers)} layers is "
                f"{teacher[data] - best:.1f} below the teacher ({data}: {teacher[data]:.1f}): such students may show "
                "how fast they learn, not where they would end"
            )
    return lines


def _table(rows: pd.DataFrame) -> str:
    with_range, with_published = bool((rows["seeds"] > 1).any()), bool(rows["published"].notna().any())
    columns = ("from", "strategy", "ours", *(("lowest", "highest") if with_range else ()))
    columns += ("published", "difference") if with_published else ()
    cells = []
    for row in rows.to_dict(orient="records"):
        more = [f"{row['low']:.2f}", f"{row['high']:.2f}"] if with_range else []
        if with_published:
            more.append("-" if pd.isna(row["published"]) else f"{row['published']:.2f}")
            more.append("-" if pd.isna(row["difference"]) else f"{row['difference']:+.2f}")
        teacher = row["model"] == "teacher"
        cells.append(
            (
                "teacher's own" if teacher else {"teacher": "the teacher", "random": "random"}[row["init"]],
                "" if teacher else row["strategy"],
                f"{row['ours']:.2f}",
                *more,
            )
        )
    return aligned_text(TextTable("", columns, tuple(cells), frozenset(range(2, len(columns)))))


def confounds(recipe: Recipe) -> tuple[str, ...]:
    """Return what else than the strategy differs, or is not known, in a reproduction: of its reading and its recipe."""
    found = []
    if recipe.learning_rates:
        rates: dict[float, list[str]] = {}
        for name in recipe.students.strategies:
            rates.setdefault(recipe.learning_rates.get(name, 0.0), []).append(name)
        if len(rates) > 1:
            told = "; ".join(f"{', '.join(names)} at {rate:g}" for rate, names in rates.items())
            found.append(f"strategies are trained at different learning rates ({told}); --equal-rates takes one")
    if len(recipe.students.seeds) == 1:
        found.append("one seed: what it makes cannot be told from what the strategy makes")
    if "random" in recipe.students.strategies:
        for number in recipe.students.layers:
            if number <= _FEW_ORDERS:
                orders = math.factorial(number)
                found.append(f"random over {number} layers equals forward in one draw of {orders}")
    if recipe.losses.reading == "official":
        found += recipe.confounds
        titles = [row[0] for row in reading_rows(reading_family(recipe))]
        found.append(f"the official reading differs from a careful run in: {', '.join(titles)} (anglekit plan)")
    return tuple(found)


def _caveats(recipe: Recipe, scale: float) -> list[str]:
    """Return what a reader should know before taking a difference for a finding."""
    students = recipe.students
    seeds = ", ".join(map(str, students.seeds))
    many = len(students.seeds) > 1
    lines = [
        f"ours: {'the mean over seeds' if many else 'one run of each student, seed'} {seeds}"
        + ("" if many else "; how much another seed would change is not known from it"),
    ]
    lines += [f"{control}: {CONTROL_ARMS[control].description}" for control in students.controls]
    if recipe.published is None:
        lines.append("published: no numbers of the paper are carried for this recipe")
    else:
        lines.append(
            "published: Yu, Wen and Mou 2025, arXiv 2502.04499; its seeds and number of runs are not known here"
        )
        if recipe.published.unlike:
            lines.append(f"no differences: {recipe.published.unlike}")
        if recipe.published.note:
            lines.append(f"beware: {recipe.published.note}")
    if scale < 1.0:
        lines.append(
            f"beware: --scale {scale:g}: teacher and students made {scale:.4g} of the recipe's steps; what they reach "
            "says nothing about the paper"
        )
    if recipe.losses.reading == "corrected" and recipe.published is not None:
        lines.append("beware: the losses are the corrected ones, not those of the paper's code (losses.reading)")
    lines += [f"confound: {one}" for one in confounds(recipe)]
    quoted = [one for one in published_of(recipe) if one.model == "teacher-previous-work"]
    if quoted:
        numbers = ", ".join(f"{one.task} {one.metric} {one.value:.2f}" for one in quoted)
        lines.append(f"quoted there for a teacher of earlier work: {numbers}")
    return lines
