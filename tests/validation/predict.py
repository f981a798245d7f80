"""What is measured before the first step of each sweep of data/validation/protocol.md.

    python tests/validation/predict.py [--work DIR] [--reviews DIR] [PATTERN ...]

Writes data/validation/predictors.csv and choices.csv; sweeps that are there are not measured again.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pandas as pd

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(ROOT)]

from anglekit.advice.predictors import Predictors, measure_predictors  # noqa: E402
from anglekit.parameter_space.measure import open_measurement  # noqa: E402
from anglekit.parameter_space.settings import GradientSettings  # noqa: E402
from anglekit.recipes.reproduction_stages import cpu_threads  # noqa: E402
from anglekit.runtime.files import write_whole  # noqa: E402
from tests.validation.run import asked  # noqa: E402
from tests.validation.sweeps import (  # noqa: E402
    DEPTHS,
    MIDDLE,
    Condition,
    Workplace,
    columns_of,
    every_layer_by,
    streams_of,
    task_of,
)

NUMBERS = ROOT / "data" / "validation" / "predictors.csv"
CHOICES = ROOT / "data" / "validation" / "choices.csv"


def measured(work: Workplace, condition: Condition) -> Predictors:
    """Return what the untrained student of seed 0 shows."""
    train, _ = work.tables(condition.task, condition.examples)
    teacher = work.teacher(condition.task)
    streams = streams_of(teacher)
    single = {
        f"depth-{depth}": dict(every_layer_by(depth, condition.layers, streams)) for depth in sorted((*DEPTHS, MIDDLE))
    }
    opened = open_measurement(
        teacher,
        maps=single,
        settings=GradientSettings(pairs=False),
        probe=train,
        task=task_of(condition.task),
        layers=condition.layers,
        init=condition.init,
        hidden_loss=condition.hidden_loss,
        data=columns_of(condition.task),
        device="cpu",
    )
    return measure_predictors(opened, depths=list(single))


def rows_of(condition: Condition, found: Predictors) -> pd.DataFrame:
    """Return a row for each target, arm that may be chosen, and predictor."""
    tables = {
        "best strategy": found.strategies,
        "best depth": found.depths,
    }
    return pd.concat(
        [
            table.rename_axis("arm").reset_index().melt("arm", var_name="predictor").assign(target=target)
            for target, table in tables.items()
        ]
    ).assign(condition=condition.name)[["condition", "target", "arm", "predictor", "value"]]


def main() -> int:
    """Measure what is asked for and is not there."""
    work, chosen = asked(__doc__ or "")
    known = set(pd.read_csv(NUMBERS)["condition"]) if NUMBERS.exists() else set()
    wanted = [each for each in chosen if each.name not in known]
    for number, condition in enumerate(wanted, 1):
        start = time.perf_counter()
        with cpu_threads(1):
            found = measured(work, condition)
        row = pd.DataFrame([{"condition": condition.name, **found.numbers}])
        for file, frame in ((NUMBERS, row), (CHOICES, rows_of(condition, found))):
            whole = pd.concat([pd.read_csv(file), frame], ignore_index=True) if file.exists() else frame
            write_whole(file, whole.to_csv(index=False, float_format="%.6g"))
        print(f"{number} of {len(wanted)}: {condition.name}, {time.perf_counter() - start:.0f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
