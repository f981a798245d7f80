"""Scores of models on a run's tables: the trained one's, and those that it is compared with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from transformers import PreTrainedModel

from anglekit.distillation.settings import TrainSettings
from anglekit.distillation.tasks.prepared_data import PreparedData
from anglekit.distillation.tasks.task import ScoreReport
from anglekit.distillation.training.progress import FollowsScoring
from anglekit.errors import InputError
from anglekit.models.checkpoints import weights_hash
from anglekit.results.example_scores import ExampleColumns, ExampleScores, ScoredModel
from anglekit.results.scores import ScoreRow


def score_model(
    model: PreTrainedModel, data: PreparedData, settings: TrainSettings, follows: FollowsScoring, what: str
) -> dict[str, ScoreReport]:
    """Return a model's scores on every evaluation table, by the table's name; `what` names the model in the bar."""
    passes = sum(data.task.scoring_passes(one) for one in data.evaluations.values())
    with follows.scoring(what, passes) as advance:
        return {
            name: data.task.score(
                model,
                one,
                data.tokenizer,
                batch_size=settings.eval_batch_size,
                generation=settings.generation,
                advance=advance,
            )
            for name, one in data.evaluations.items()
        }


class ReferenceScores:
    """What the teacher and untrained students answer to each example; a model is scored once, whoever asks for it.

    The students of a sweep share it: they have one teacher, and many of them begin with the same weights.

    Args:
        data: with the evaluation tables.
        settings: how models are scored; the same for all that ask.
        follows: shows how far scoring is.
        shared: whether several students ask, so that they are told apart by a hash of their weights.
    """

    def __init__(
        self, data: PreparedData, settings: TrainSettings, follows: FollowsScoring, *, shared: bool = False
    ) -> None:
        self._data = data
        self._settings = settings
        self._follows = follows
        self._shared = shared
        self._found: dict[str, dict[str, ExampleColumns]] = {}

    def teacher(self, model: PreTrainedModel) -> Mapping[str, ExampleColumns]:
        """Return the examples of the only teacher by table."""
        return self._of("teacher", model, "the teacher")

    def untrained(self, model: PreTrainedModel) -> Mapping[str, ExampleColumns]:
        """Return the examples of a student by table, as it is now: before its first step."""
        key = weights_hash(model) if self._shared else "student"
        return self._of(key, model, "untrained students")

    def _of(self, key: str, model: PreTrainedModel, what: str) -> Mapping[str, ExampleColumns]:
        if key in self._found:
            self.pass_over()
        else:
            reports = score_model(model, self._data, self._settings, self._follows, what)
            self._found[key] = {name: report.examples for name, report in reports.items()}
        return self._found[key]

    def pass_over(self) -> None:
        """Tell the bar that a model need not be scored."""
        self._follows.without_scoring(sum(map(self._data.task.scoring_passes, self._data.evaluations.values())))


def holds_examples(found: ExampleScores, models: Sequence[ScoredModel], data: PreparedData) -> bool:
    """Return whether there are the examples of these models on every evaluation table, and all scores follow."""
    try:
        for name, examples in data.evaluations.items():
            for model in models:
                if (model, name) not in found or found.n_examples(model, name) != examples.n_rows:
                    return False
                for score in data.task.scores:
                    found.score(model, name, score)
    except InputError:
        return False
    return True


def rows_of_examples(found: ExampleScores, model: ScoredModel, scores: Sequence[str]) -> list[ScoreRow]:
    """Return a row for each table on which a model has examples, as scores.json holds them."""
    rows: list[ScoreRow] = []
    for own, data in found.tables:
        if own == model:
            values = {score: found.score(model, data, score) for score in scores}
            rows.append({"data": data, "examples": found.n_examples(model, data), **values})
    return rows
