"""Whether the students of a sweep are those that their own runs give."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from anglekit.distillation.sweep.sweep import sweep


def saved_weights(run: Any) -> dict[str, Tensor]:
    return load_file(Path(run.checkpoint) / "model.safetensors")


def assert_swept_as_alone(
    world: dict[str, str],
    place: Path,
    student: Callable[..., Any],
    *,
    task: str,
    strategies: Sequence[str],
    init: str,
    settings: Any,
    weights: Callable[[Any], dict[str, Tensor]] = saved_weights,
    **options: Any,
) -> None:
    """Bit for bit, with the same scores and examples; and the strategies' students differ from each other.

    Args:
        world: the teacher and the tables.
        place: where to run.
        student: distils one by itself: (world, out, strategy=, init=, settings=, **options).
        task: of the sweep.
        strategies: two of them.
        init: of the students.
        settings: of the training, but for the seed.
        weights: of a run or of an arm.
        options: of the sweep and of the runs alike.
    """
    swept = sweep(
        world["teacher"],
        strategies=strategies,
        inits=(init,),
        seeds=(3,),
        task=task,
        train=world["train"],
        validation=[world["dev"]],
        out=place / "sweep",
        layers=2,
        settings=settings,
        **options,
    )
    assert swept.teacher_passes * len(swept.arms) == swept.teacher_answers
    found = []
    for strategy, arm in zip(strategies, swept.arms.values(), strict=True):
        own = {"strategy": strategy, "init": init, "settings": replace(settings, seed=3)}
        alone = student(world, place / strategy, **own, **options)
        found.append(weights(arm))
        assert all(torch.equal(value, found[-1][name]) for name, value in weights(alone).items())
        assert arm.scores.equals(alone.scores)
        ours, theirs = (Path(one.directory) / "examples.parquet" for one in (arm, alone))
        assert ours.read_bytes() == theirs.read_bytes()
    assert not all(torch.equal(value, found[1][name]) for name, value in found[0].items())
