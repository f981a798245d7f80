"""The census: what every text type of the installed transformers does, what anglekit makes of it, and what changed.

    make census                       every type; rewrites anglekit/models/supported.csv and MODELS.md
    make census TYPES=bert,gpt2       these alone, and only their rows
    make census WORKERS=4

Rows go into census/rows.jsonl as they come: a census that was interrupted goes on where it stopped, unless `--fresh`.
"""

from __future__ import annotations

import argparse
import json
import queue
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import torch
import transformers

from anglekit.models.supported import TABLE, SupportedType, read_table, table_text
from tests.census.small_configs import text_types
from tests.census.table import page, supported_row
from tests.census.verdicts import QUESTIONS

ROOT: Final = Path(__file__).resolve().parents[2]
_ROWS: Final = ROOT / "census" / "rows.jsonl"
_PAGE: Final = ROOT / "MODELS.md"
_MOST_SECONDS: Final = 120.0
# A worker imports the code of every type it meets; a new one begins with none.
_TYPES_OF_A_WORKER: Final = 80


class Worker:
    """A process that judges types; started again when it ends or takes too long."""

    def __init__(self, command: Sequence[str] = (sys.executable, "-m", "tests.census.worker")) -> None:
        self.command = command
        self.process: subprocess.Popen[str] | None = None
        self.reader: threading.Thread | None = None
        self.lines: queue.Queue[str] = queue.Queue()
        self.judged = 0

    def judge(self, name: str) -> dict[str, Any]:
        """Return a type's row; one that says so where the process ended or took too long."""
        if self.process is None or self.judged >= _TYPES_OF_A_WORKER:
            self.stop()
            self._start()
        assert self.process is not None
        assert self.process.stdin is not None
        self.judged += 1
        try:
            self.process.stdin.write(f"{name}\n")
            self.process.stdin.flush()
            line = self.lines.get(timeout=_MOST_SECONDS)
        except queue.Empty:
            problem = f"took more than {_MOST_SECONDS:.0f} s"
        except BrokenPipeError:
            problem = f"the process ended ({self.process.wait()})"
        else:
            if line:
                row: dict[str, Any] = json.loads(line)
                return row
            problem = f"the process ended ({self.process.wait()})"
        self.stop()
        row = {"type": name, "model": "", "problem": f"not run: {problem}", "truth": {}, "verdicts": {}}
        return {**row, "seconds": 0.0}

    def stop(self) -> None:
        """End the process."""
        if self.process is None or self.reader is None:
            return
        self.process.kill()
        self.process.wait()
        self.reader.join()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with suppress(OSError):  # what was not read any more
                    pipe.close()
        self.process = None

    def _start(self) -> None:
        self.judged, self.lines = 0, queue.Queue()
        self.process = subprocess.Popen(
            list(self.command),
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.reader = threading.Thread(target=_forward, args=(self.process, self.lines), daemon=True)
        self.reader.start()


def _forward(process: subprocess.Popen[str], lines: queue.Queue[str]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        lines.put(line)
    lines.put("")


def judge_all(names: Sequence[str], workers: int, path: Path) -> list[dict[str, Any]]:
    """Judge types in several processes, each row appended to a file as it comes; return the rows."""
    waiting: queue.Queue[str] = queue.Queue()
    for name in names:
        waiting.put(name)
    rows: list[dict[str, Any]] = []
    lock, start = threading.Lock(), time.perf_counter()

    def work() -> None:
        worker = Worker()
        while True:
            try:
                name = waiting.get_nowait()
            except queue.Empty:
                break
            row = worker.judge(name)
            with lock, path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
                rows.append(row)
                bad = [f"{question} {said}" for question, said in row["verdicts"].items() if is_fault(said)]
                line = "; ".join(bad)[:150] or row["problem"][:100]
                print(f"{len(rows)}/{len(names)} {time.perf_counter() - start:.0f} s {name} {line}", flush=True)
        worker.stop()

    threads = [threading.Thread(target=work) for _ in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return rows


def is_fault(verdict: str) -> bool:
    """Return whether a verdict is one that nobody should see: wrong numbers, or a traceback."""
    return verdict.startswith(("WRONG", "TRACEBACK"))


def totals(rows: Iterable[Mapping[str, Any]]) -> str:
    """Return how many types are right, refused, wrong or end in a traceback, question by question."""
    kinds = ("right", "refused", "WRONG", "TRACEBACK")
    counts = {question: Counter[str]() for question in QUESTIONS}
    for row in rows:
        for question, said in row["verdicts"].items():
            counts[question][said.partition(":")[0]] += 1
    width = max(map(len, QUESTIONS))
    lines = [" " * width + "".join(f"{kind.lower():>11}" for kind in kinds)]
    lines += [f"{each:<{width}}" + "".join(f"{counts[each][kind]:>11}" for kind in kinds) for each in QUESTIONS]
    return "\n".join(lines)


def changes(before: Mapping[str, SupportedType], after: Mapping[str, SupportedType]) -> list[str]:
    """Return in lines what is not as in an earlier table: types that came or went, and cells."""
    lines = [f"{name}: gone" for name in sorted(before.keys() - after.keys())]
    for name in sorted(after):
        if name not in before:
            lines.append(f"{name}: new")
            continue
        old, new = before[name].row(), after[name].row()
        lines += [f"{name}: {cell} {old[cell]!r} -> {new[cell]!r}" for cell in new if new[cell] != old[cell]]
    return lines


def main() -> int:
    """Run the census; exit 1 where a type is wrong or ends in a traceback."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("types", nargs="*", help="the types to judge; all by default")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rows", type=Path, default=_ROWS, help="where rows are kept")
    parser.add_argument("--fresh", action="store_true", help="judge all again, whatever is kept")
    parser.add_argument("--check", action="store_true", help="say what changed; leave the table as it is")
    given = parser.parse_args()
    names = [name for argument in given.types for name in argument.split(",")] or text_types()
    given.rows.parent.mkdir(parents=True, exist_ok=True)
    if given.fresh or given.types:
        given.rows.unlink(missing_ok=True)
    kept = [json.loads(line) for line in given.rows.read_text("utf-8").splitlines()] if given.rows.exists() else []
    known = {row["type"] for row in kept}
    rows = kept + judge_all([name for name in names if name not in known], given.workers, given.rows)
    before = read_table(TABLE.read_text("utf-8"))[1]
    found = {row["type"]: supported_row(row) for row in rows}
    after = {**before, **found} if given.types else found
    print("\n".join(["", f"{len(rows)} types", totals(rows), "", *changes(before, after)]))
    if not given.check:
        versions = f"transformers {transformers.__version__}, torch {torch.__version__.partition('+')[0]}"
        TABLE.write_text(table_text(versions, after), encoding="utf-8")
        _PAGE.write_text(page(versions, after), encoding="utf-8")
    return int(any(is_fault(said) for row in rows for said in (row["problem"], *row["verdicts"].values())))


if __name__ == "__main__":
    sys.exit(main())
