"""The table of readings: every item is decided for every family, and what the paper's code never trained is refused."""

from __future__ import annotations

from dataclasses import fields

import pytest

from anglekit.distillation.matching.strategies import MODEL_FAMILIES
from anglekit.errors import InputError
from anglekit.readings import (
    OFFICIAL_FAMILIES,
    OFFICIAL_TASKS,
    OFFICIAL_TYPES,
    READING_ITEMS,
    Decisions,
    check_reading,
    decisions,
    reading_rows,
)
from anglekit.vocabulary import TASK_KINDS, TASK_NAMES


def test_the_table_and_what_is_decided_have_the_same_items_and_families():
    assert list(READING_ITEMS) == [one.name for one in fields(Decisions)]
    assert all(set(item.official) <= set(OFFICIAL_FAMILIES) and item.source for item in READING_ITEMS.values())
    assert set(OFFICIAL_TASKS) == set(OFFICIAL_TYPES) == set(OFFICIAL_FAMILIES)
    assert {one.official_losses for one in MODEL_FAMILIES.values()} == set(OFFICIAL_FAMILIES)
    for family in OFFICIAL_FAMILIES:
        differing = [
            item.title
            for item in READING_ITEMS.values()
            if item.value("official", family) != item.value("corrected", family)
        ]
        assert [row[0] for row in reading_rows(family)] == differing


@pytest.mark.parametrize("family", OFFICIAL_FAMILIES)
def test_a_reading_is_of_the_tasks_that_a_program_of_the_papers_trains(family):
    for task in TASK_NAMES:
        check_reading("corrected", task, family)
        if TASK_KINDS[task] in OFFICIAL_TASKS[family]:
            check_reading("official", task, family)
            continue
        with pytest.raises(InputError, match=rf"^--reading official came with task {task}.*--reading corrected$"):
            check_reading("official", task, family)
    check_reading("official", None, family)


@pytest.mark.parametrize("task", ["regression", "stsb", "multi-label"])
def test_a_task_of_no_program_is_refused_before_a_model_is_read(task):
    with pytest.raises(InputError, match="compares classes and texts alone"):
        check_reading("official", task)


def test_an_unknown_reading_or_family_names_those_that_there_are():
    with pytest.raises(InputError, match="did you mean 'official'"):
        decisions("offical", "bert")  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"no official losses for 'gpt'; .*causal"):
        decisions("official", "gpt")
