"""Whether what a task says of each example gives the scores that it says of the whole table."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from anglekit.distillation.settings import EncodingSettings, GenerationSettings
from anglekit.distillation.tasks.task import ScoreReport
from anglekit.results.example_scores import ExampleScores


def scored_with_care(task: Any, loaded: Any, source: str, generation: GenerationSettings | None = None) -> ScoreReport:
    """Score a table, and check that this left the model and the random states alone and was followed to its end."""
    settled = task.for_trained(loaded.model.config)
    config, tokenizer = loaded.model.config, loaded.tokenizer
    examples = settled.tokenize(
        settled.read(source, name="dev"), tokenizer, EncodingSettings(32), config, training=False
    )
    loaded.model.train()
    before = (torch.get_rng_state(), np.random.get_state()[1].tolist())  # noqa: NPY002 - the state that training reads
    steps: list[int] = []
    report = settled.score(loaded.model, examples, tokenizer, batch_size=5, generation=generation, advance=steps.append)
    assert loaded.model.training
    loaded.model.eval()
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == np.random.get_state()[1].tolist()  # noqa: NPY002
    assert sum(steps) == settled.scoring_passes(examples) > len(steps) > 1
    return report


def assert_examples_give_scores(report: ScoreReport, names: tuple[str, ...]) -> ExampleScores:
    """Check the scores of a report against its examples, and that there is one of each for every example."""
    found = ExampleScores({("student", "dev"): report.examples})
    assert {len(values) for values in report.examples.values()} == {report.scores["examples"]}
    for name in names:
        value = report.scores[name]
        assert found.score("student", "dev", name) == pytest.approx(value, abs=1e-12 * max(1.0, abs(value)))
        assert found.values("student", "dev", name).mean() == pytest.approx(value, abs=1e-12 * max(1.0, abs(value)))
    return found
