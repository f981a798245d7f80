"""How a run scored its own student, so that whoever scores it again gets the same numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from anglekit.distillation.settings import ScoringSettings
from anglekit.errors import InputError
from anglekit.models.checkpoints import checkpoint_of
from anglekit.runtime.files import read_json_object

__all__ = ["run_scoring"]

_TYPES: Mapping[str, tuple[type, ...]] = {
    "max_length": (int,),
    "target_max_length": (int,),
    "beams": (int,),
    "max_new_tokens": (int,),
    "length_penalty": (int, float),
}
_PLAIN_PENALTY = 1.0


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
    try:
        settings = ScoringSettings(**found)
    except InputError as error:
        raise InputError(f"{file} holds settings that no run has ({error})", remedy) from error
    return replace(settings, length_penalty=None) if settings.length_penalty == _PLAIN_PENALTY else settings
