"""How a run scored its own student, so that whoever scores it again gets the same numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from anglekit.distillation.tasks.data import EncodingSettings
from anglekit.distillation.tasks.generation import GenerationSettings
from anglekit.errors import InputError
from anglekit.models.checkpoints import checkpoint_of
from anglekit.runtime.files import read_json_object

__all__ = ["ScoringSettings", "run_scoring"]

_TYPES: Mapping[str, tuple[type, ...]] = {
    "max_length": (int,),
    "target_max_length": (int,),
    "beams": (int,),
    "max_new_tokens": (int,),
    "length_penalty": (int, float),
}
_PLAIN_PENALTY = 1.0


@dataclass(frozen=True)
class ScoringSettings:
    """Lengths and generation, on which scores depend; None leaves the choice to the task.

    Attributes:
        max_length: tokens of an example.
        target_max_length: tokens to which targets are cut.
        beams: of generation.
        max_new_tokens: where a generated text ends at the latest.
        length_penalty: of generation with beams; None is 1.
    """

    max_length: int | None = None
    target_max_length: int | None = None
    beams: int | None = None
    max_new_tokens: int | None = None
    length_penalty: float | None = None

    def or_else(self, others: ScoringSettings) -> ScoringSettings:
        """Return these settings, with the others where none is given."""
        return replace(self, **{name: value for name, value in vars(others).items() if getattr(self, name) is None})

    def given(self) -> dict[str, Any]:
        """Return those that leave no choice."""
        return {name: value for name, value in vars(self).items() if value is not None}

    def encoding(self) -> EncodingSettings:
        """Return the lengths.

        Raises:
            InputError: one that is not allowed.
        """
        return EncodingSettings(self.max_length, self.target_max_length)

    def generation(self) -> GenerationSettings:
        """Return the settings of generation.

        Raises:
            InputError: one that is not allowed.
        """
        return GenerationSettings(
            self.beams, self.max_new_tokens, _PLAIN_PENALTY if self.length_penalty is None else self.length_penalty
        )


def run_scoring(source: str, task: str) -> ScoringSettings:
    """Return the settings under which a run directory's student was scored; none for any other source or task.

    Raises:
        InputError: the run's settings are damaged.
    """
    file = Path(source) / "run_config.json"
    if checkpoint_of(source) == source or not file.exists():
        return ScoringSettings()
    remedy = f"give {Path(source) / 'checkpoint'} itself to score it under the task's settings"
    config = read_json_object(file, remedy)
    if config.get("task") != task:
        return ScoringSettings()
    recorded: Any = config.get("settings")
    found = {name: recorded.get(name) for name in _TYPES} if isinstance(recorded, dict) else {}
    if not found or not all(value is None or type(value) in _TYPES[name] for name, value in found.items()):
        raise InputError(f"{file} does not hold the settings of a run", remedy)
    settings = ScoringSettings(**found)
    if settings.length_penalty == _PLAIN_PENALTY:
        settings = replace(settings, length_penalty=None)
    try:
        settings.encoding()
        settings.generation()
    except InputError as error:
        raise InputError(f"{file} holds settings that no run has ({error})", remedy) from error
    return settings
