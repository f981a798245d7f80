"""How long `anglekit --help` takes."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

from measuring import report


def main() -> None:
    """Report the median of several starts over the 0.4 s that it may take."""
    seconds = []
    for _ in range(7):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", "anglekit_cli", "--help"], check=True, capture_output=True)
        seconds.append(time.perf_counter() - start)
    middle = statistics.median(seconds)
    report("anglekit --help over 0.4 s", middle / 0.4, 1.0, seconds=round(middle, 3))


if __name__ == "__main__":
    main()
