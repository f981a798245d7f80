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
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(ROOT)]

from tests.simulations.harness import Case, failures, label, measured, read_lines, table  # noqa: E402

#: The studies: modules of this folder, and what a row of their table is.
STUDIES = {
    "scores": ("seeds", "examples", "strategies"),
    "angles": ("seeds", "examples"),
    "power": ("init", "seeds"),
    "similarity": ("rows", "width", "model"),
    "chance": ("kind", "tie", "examples"),
}
RESULTS = HERE / "results.jsonl"


def all_cases() -> list[Case]:
    """Return the cases of all studies."""
    return [case for name in STUDIES for case in importlib.import_module(f"tests.simulations.{name}").cases()]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, write, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("patterns", nargs="*", help="parts of the names of cells")
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--again", action="store_true", help="also the cells that the file has")
    given = parser.parse_args(arguments)
    chosen = [case for case in all_cases() if not given.patterns or any(one in case.name for one in given.patterns)]
    lines = {label(line): line for line in read_lines(given.out.read_text("utf-8"))} if given.out.exists() else {}
    for case in chosen:
        if given.again or lines.get(case.name, {}).get("runs", 0) < given.runs:
            line = measured(case, given.runs, given.seed)
            lines[label(line)] = line
            with given.out.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
            print(json.dumps(line), flush=True)
    done = [lines[case.name] for case in chosen]
    for study, by in STUDIES.items():
        if own := [line for line in done if line["study"] == study]:
            print(f"\n{study}, in percent\n\n{table(own, by)}")
    outside = failures(done)
    print(*(f"\noutside: {one}" for one in outside), sep="")
    return int(bool(outside))


if __name__ == "__main__":
    raise SystemExit(main())
