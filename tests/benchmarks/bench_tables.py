"""Reading a large jsonl: time and peak memory against `datasets.load_dataset` on the same file, in turns.

Each reader runs in a process of its own, from its import to a table whose every row can be had, on disk with both:
`datasets` writes an Arrow cache, a fresh one each time, and we a temporary file; we hash and check the file's bytes
too. The file is of 1 GB (100 MB with --quick), of short rows, and lies in the page cache. Each then reads the whole
text column once.
"""

from __future__ import annotations

import json
import random
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

WORDS = (
    *("the", "a", "film", "of", "in", "and", "quiet", "loud", "harbour", "engine"),
    *("letter", "garden", "river", "teacher", "student", "layer", "angle", "small"),
)

OURS = """
from anglekit.tables.read import read_table
table = read_table(sys.argv[1])
read = time.time() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
characters = sum(len(text) for piece in table.rows.pieces(["text"]) for text in piece["text"])
rows = len(table)
"""
THEIRS = """
import tempfile, datasets
datasets.disable_progress_bars()
cache = tempfile.TemporaryDirectory(dir=sys.argv[2])
rows_read = datasets.load_dataset("json", data_files=sys.argv[1], split="train", cache_dir=cache.name)
read = time.time() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
characters = sum(len(text) for batch in rows_read.iter(4096) for text in batch["text"])
rows = len(rows_read)
"""
AROUND = """
import json, resource, sys, time
start = time.time()
{}
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps([*read, time.time() - start, peak, rows, characters]))
"""


def write(path: Path, megabytes: int) -> None:
    """Write rows of a sentence of 5 to 40 words, a label, and a score and a language in an object; 260 bytes each."""
    draw = random.Random(0)
    parts = [" ".join(draw.choices(WORDS, k=draw.randint(3, 25))) for _ in range(5000)]
    size = row = 0
    with path.open("w", encoding="utf-8") as file:
        while size < megabytes * 1_000_000:
            text = f'{draw.choice(parts)} caf\u00e9 "{draw.choice(parts)}"'
            told = {"id": f"row-{row}", "text": text, "label": row % 3, "meta": {"lang": "en", "score": row / 7}}
            size += file.write(json.dumps(told, ensure_ascii=row % 2 == 0) + "\n")
            row += 1


def measured(code: str, *arguments: str) -> list[float]:
    """Return seconds and peak memory in KiB to read, the same with the column, and the rows and characters read."""
    told = subprocess.run(
        [sys.executable, "-c", AROUND.format(code), *arguments], check=True, capture_output=True, text=True
    )
    return [float(number) for number in json.loads(told.stdout.splitlines()[-1])]


def main() -> None:
    """Take turns between the two readers."""
    megabytes, repeats = (100, 1) if "--quick" in sys.argv else (1000, 3)
    ours, theirs = [], []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.jsonl"
        write(path, megabytes)
        for number in range(repeats):
            for mine in (True, False) if number % 2 else (False, True):
                (ours if mine else theirs).append(measured(OURS if mine else THEIRS, str(path), folder))
    assert {tuple(one[4:]) for one in ours} == {tuple(one[4:]) for one in theirs}
    one, other = ([statistics.median(values) for values in zip(*each, strict=True)] for each in (ours, theirs))
    for what, place, goal in (
        ("seconds to read", 0, 1.0),
        ("peak memory to read", 1, 0.5),
        ("seconds with a column", 2, 1.0),
        ("peak memory with a column", 3, 0.5),
    ):
        ratio = float(f"{one[place] / other[place]:.3g}")
        told = {"ours": round(one[place], 1), "datasets": round(other[place], 1), "megabytes": megabytes}
        print(json.dumps({"name": f"jsonl: {what}, over datasets", "ratio": ratio, "goal": goal, **told}), flush=True)


if __name__ == "__main__":
    main()
