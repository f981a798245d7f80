"""Runs commands in several processes each, as a launcher would, from one interpreter that has imported everything.

Reads requests from its standard input, a JSON line each: how many processes, in which folder, in which one the second
of them, the command's arguments, and a folder for what the processes print (`kill_resume.start`). Answers each with a
line of the exit codes by rank.
"""

from __future__ import annotations

import gc
import json
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

from kill_resume import Job, import_everything, start


def main() -> None:
    """Serve until there are no more requests."""
    import_everything()
    # What was imported is looked at by no process's garbage collector, and stays one copy in memory.
    gc.freeze()
    for line in sys.stdin:
        asked = json.loads(line)
        job = Job(tuple(asked["arguments"]), asked["count"])
        folder, second, streams = (Path(asked[name]) for name in ("folder", "second", "streams"))
        children = start(job, folder, again=False, streams=streams, second=second)
        codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        sys.stdout.write(json.dumps(codes) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
