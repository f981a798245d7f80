"""One size and one speed for an architecture: students that differ in weights alone take the same time, up to noise."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from anglekit.results.training_records import ARCHITECTURE_COLUMNS, COST_COLUMNS, architecture_costs


def costs(*rows):
    """Return costs of runs: strategy, model, parameters, milliseconds and device."""
    frame = pd.DataFrame(rows, columns=["strategy", "model", "parameters", "milliseconds", "device"])
    shared = {"init": "random", "seed": 0, "milliseconds_low": 0.0, "milliseconds_high": 9.0}
    return frame.assign(**shared, examples=16, tokens=320)[list(COST_COLUMNS)]


def run(strategy, teacher, student, parameters=100, device="cpu"):
    return [(strategy, "teacher", 400, teacher, device), (strategy, "student", parameters, student, device)]


def test_a_busy_hour_slows_both_and_the_ratio_is_that_of_the_times() -> None:
    found = architecture_costs(costs(*run("none", 10.0, 5.0), *run("forward", 40.0, 10.0), *run("reverse", 12.0, 4.0)))
    teacher, student = found.to_dict(orient="records")
    assert (teacher["model"], teacher["parameters"], teacher["milliseconds"], teacher["runs"]) == (
        "teacher",
        400,
        12.0,
        3,
    )
    assert (student["smaller"], student["faster"], student["faster_low"], student["faster_high"]) == (
        4.0,
        3.0,
        2.0,
        4.0,
    )
    assert student["milliseconds"] == pytest.approx(4.0)
    assert teacher["milliseconds"] / student["milliseconds"] == pytest.approx(student["faster"])


def test_sizes_and_devices_are_kept_apart() -> None:
    found = architecture_costs(
        costs(*run("none", 10.0, 5.0), *run("forward", 10.0, 8.0, 300), *run("reverse", 2.0, 1.0, device="cuda"))
    )
    students = found[found["model"] == "student"]
    assert list(zip(students["parameters"], students["device"], students["faster"], strict=True)) == [
        (100, "cpu", 2.0),
        (100, "cuda", 2.0),
        (300, "cpu", 1.25),
    ]
    assert list(found["device"][found["model"] == "teacher"]) == ["cpu", "cuda"]


def test_without_a_teacher_on_its_device_a_student_has_its_own_time_alone() -> None:
    (alone,) = architecture_costs(costs(*run("none", 10.0, 5.0)[1:])).to_dict(orient="records")
    assert (alone["milliseconds"], np.isnan(alone["faster"]), np.isnan(alone["smaller"])) == (5.0, True, True)
    assert list(architecture_costs(costs()).columns) == list(ARCHITECTURE_COLUMNS)
    assert architecture_costs(costs()).empty
