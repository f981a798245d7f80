"""Measures the error rates that the product states, on data whose truth is known: one JSON line a cell, then tables.

    python tests/simulations/run.py [--runs N] [--seed N] [--out FILE] [--again] [PATTERN ...]

Runs the cells whose name holds one of the patterns, all by default, 1,000 runs each; a cell that the file has is not
run again unless asked. Exit code 1 where a rate is outside its bounds. README.md beside this file holds the tables of
the last full run and says what is drawn.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(ROOT)]

from tests.simulations.harness import Case, failures, label, measured, read_lines, table  # noqa: E402

#: The modules of studies.
MODULES = ("scores", "corpus", "angles", "power", "similarity", "chance", "stopping")
#: The studies: what a row of its table is, and what is drawn.
STUDIES: dict[str, tuple[tuple[str, ...], str]] = {
    "scores": (
        ("seeds", "examples", "strategies"),
        "Accuracies near 0.85: seeds and examples are crossed, some examples are easy for all students and some for "
        "one strategy. The seeds' noise is near 0 (0.0005), like the margin (0.01), or far above it (0.05). The truth "
        "is equal, with a margin of 0.01, or exactly at the margin, 0.05. With two seeds it is about these students. "
        "Two strategies stand beside none, four are alone, and five are none and four.",
    ),
    "tables": (
        ("seeds", "strategies"),
        "The same of runs that kept no scores of examples: intervals are over seeds and speak of their table alone.",
    ),
    "unequal": (
        ("seeds", "truth"),
        "Strategies with unlike numbers of seeds, none first where there are three: each pair is compared on the seeds "
        "that it shares. A pair that shares fewer than three is about these students, and so is its truth.",
    ),
    "corpus": (
        ("score", "seeds", "examples"),
        "BLEU and macro F1, which are no means over examples: each example's influence stands in for its score.",
    ),
    "angles": (
        ("noise", "seeds", "examples"),
        "Few examples of 4 to 70 tokens, with one seed and with three. `demo`: differences vary as among the demo's "
        "students. `tokens`: the noise is mostly the tokens' own, so that long examples, which weigh most, vary least; "
        "intervals are then too wide, never too narrow, and only 93% at least is asked for.",
    ),
    "power": (
        ("init", "seeds"),
        "Students like the demo's (data/gallery): how often so many seeds decide, and how often three seeds foretell "
        "(`needed_seeds`) that so many, or fewer, are enough.",
    ),
    "similarity": (
        ("rows", "width", "model"),
        "Layers of a teacher and a student that know nothing of each other: how often the most similar of all pairs is "
        "called similar, and how often it would be without the correction for the search.",
    ),
    "chance": (
        ("kind", "tie", "examples"),
        "Students that know nothing of the teacher (tie 0), or something: how often any of 63 pairs is surely above or "
        "below chance and is not, how often a pair is, and what the intervals hold.",
    ),
    "stopping": (
        ("shape", "looks", "examples"),
        "Sweeps of four strategies with known learning curves, stopped by the rule of `sweep --stop-hopeless`. "
        "`wrong`: a strategy is stopped that truly ends within a point of the best. `stopped`: of those that do "
        "not, how many are. `steps saved`: of all strategies' steps. Beside it two rules that are not used: a "
        "strategy surely below now, at a level shared by all looks, is taken to stay there; and the same with each "
        "look tested at 5% as if it were the only one. `equal`: all alike; `margin`: three are a point below from "
        "the start on; `one better`: by ten points; `spread`: ends of 85, 80, 70 and 50%; `crossing`: the slowest "
        "ends best; `in turn`: flat, then a steep rise, the later the better; `never`: two never learn; `sudden`: "
        "one rises at the end, faster than any had before, which breaks what the rule assumes.",
    ),
}
RESULTS, BEFORE = HERE / "results.jsonl", HERE / "before.jsonl"

INTRODUCTION = """# How often the statistics are wrong

`make simulations` draws students whose truth is known, asks the functions that `compare` calls, and counts: how often a
95% interval holds the truth (93 to 97% is asked for), how often students are called equivalent whose difference is the
margin, and how often students are called different that are not (at most 5%, over all pairs together).
`make simulations RUNS=100 CELLS=angles` runs a part. A cell writes a JSON line to `results.jsonl` and is not run again;
the seed decides its draws. A study is a module with `cases()` (`harness.py`) and a line in `run.py`, which writes this
page.

Tables give percent, the lowest to the highest over the cells of a row. With 1,000 runs, a rate of 95 or 5 has an error
of 0.7. Bold: a cell is outside its bounds by more than two of its errors.
"""


def all_cases() -> list[Case]:
    """Return the cases of all studies."""
    return [case for name in MODULES for case in importlib.import_module(f"tests.simulations.{name}").cases()]


def page(lines: Sequence[Mapping[str, Any]], before: Sequence[Mapping[str, Any]]) -> str:
    """Return README.md: what each study draws, and its table; and what version 0.1.0 said in some of the cells."""
    parts = [INTRODUCTION]
    for study, (by, drawn) in STUDIES.items():
        if own := [line for line in lines if line["study"] == study]:
            parts.append(f"## {study}\n\n{drawn}\n\n{table(own, by)}\n")
    if before:
        names = {label(line) for line in before}
        parts.append("## What version 0.1.0 said\n\nSome of the same cells, judged by 0.1.0 and now.\n")
        for title, own in (("0.1.0", before), ("now", [line for line in lines if label(line) in names])):
            parts.append(
                f"{title}:\n\n{table(own, ('study', 'seeds', 'examples', 'strategies', 'seed_sd', 'truth'))}\n"
            )
    return "\n".join(parts)


def known_lines(file: Path) -> list[dict[str, Any]]:
    """Return what was measured before; nothing where there is no such file."""
    return read_lines(file.read_text(encoding="utf-8")) if file.exists() else []


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, write, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("patterns", nargs="*", help="parts of the names of cells")
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--again", action="store_true", help="also the cells that the file has")
    given = parser.parse_args(arguments)
    cases = all_cases()
    chosen = [case for case in cases if not given.patterns or any(one in case.name for one in given.patterns)]
    lines = {label(line): line for line in known_lines(given.out)}
    for case in chosen:
        if given.again or lines.get(case.name, {}).get("runs", 0) < given.runs:
            line = measured(case, given.runs, given.seed)
            lines[case.name] = line
            with given.out.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
            print(json.dumps(line), flush=True)
    done = [lines[case.name] for case in chosen]
    for study, (by, _) in STUDIES.items():
        if own := [line for line in done if line["study"] == study]:
            print(f"\n{study}, in percent\n\n{table(own, by)}")
    outside = failures(done)
    print(*(f"\noutside: {one}" for one in outside), sep="")
    if given.out == RESULTS:
        ordered = [lines[case.name] for case in cases if case.name in lines]
        RESULTS.write_text("".join(json.dumps(line) + "\n" for line in ordered), encoding="utf-8")
        (HERE / "README.md").write_text(page(ordered, known_lines(BEFORE)), encoding="utf-8")
    return int(bool(outside))


if __name__ == "__main__":
    raise SystemExit(main())
