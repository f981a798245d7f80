"""The settings of a measurement of gradients; free of torch, so that a mistake is answered at once."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from anglekit.distillation.settings import EncodingSettings, TrainSettings
from anglekit.errors import InputError
from anglekit.settings_fields import DATA, MEASURED, SettingError, check_settings, documented, like, setting
from anglekit.vocabulary import ATTENTION_LOSSES

#: Fewer groups give no interval.
FEWEST_GROUPS: Final = 3
#: How a gradient is projected: first to so many times the dimensions, which are then folded in so many pieces.
PIECES: Final = 16
#: Patterns of signs in the first of these stages; few enough to stay in the cache.
PATTERNS: Final = 4
# The variance of a cosine of 0 after both stages, times the dimensions; see `Projection`.
_VARIANCE: Final = 1.0 + (1.0 + 1.0 / PATTERNS) / PIECES


def projected_error(dimensions: int) -> float:
    """Return the highest standard error of a cosine after a projection to so many dimensions; 0.0208 for 2,500."""
    return math.sqrt(_VARIANCE / dimensions)


def needed_dimensions(error: float) -> int:
    """Return the dimensions that keep the standard error of a cosine at or below `error`; 2,696 for 0.02."""
    return math.ceil(round(_VARIANCE / error**2, 6))


def check_measurable(hidden_loss: str, settings: GradientSettings) -> None:
    """Refuse hidden losses that are not of states, and single layers under one that compares layers.

    Raises:
        InputError: with the reason.
    """
    if hidden_loss in ATTENTION_LOSSES:
        raise InputError(
            f"hidden loss {hidden_loss!r} compares what attention makes, and gradients are measured of states",
            "take mse, or another loss of states",
        )
    if hidden_loss == "feature-dynamics" and settings.pairs:
        raise InputError(
            "hidden loss 'feature-dynamics' compares steps from layer to layer, and single layers have none",
            "leave the pairs out (--no-pairs), or take mse",
        )


@documented
@dataclass(frozen=True)
class GradientSettings:
    """How gradients are measured.

    Raises:
        SettingError: a value that is not allowed, or a projection too small for its stated error.

    Example:
        >>> GradientSettings(examples=256, pairs=False)
    """

    examples: int = setting(
        128,
        "Use that many examples, drawn at random.",
        at_least=FEWEST_GROUPS,
        flags=("--sample",),
        group=DATA,
    )
    group: int = setting(
        8, "Examples whose gradients are added up; intervals are over these groups.", at_least=1, group=MEASURED
    )
    pairs: bool = setting(
        True,
        "Measure each student layer with each teacher layer too, beside whole strategies.",
        group=MEASURED,
    )
    dimensions: int | None = setting(
        None,
        "Dimensions to which the gradients of a part of the weights are projected at random.",
        at_least=1,
        shown="exact where they fit into 2 GB, else as --error asks",
        group=MEASURED,
    )
    error: float = setting(
        0.02, "Largest standard error of a cosine that a projection may bring.", above=0.0, below=1.0, group=MEASURED
    )
    temperature: float | None = like(TrainSettings, "temperature")
    kl_direction: str | None = like(TrainSettings, "kl_direction")
    max_length: int | None = like(EncodingSettings, "max_length")
    target_max_length: int | None = like(EncodingSettings, "target_max_length")
    source_lang: str | None = like(EncodingSettings, "source_lang")
    target_lang: str | None = like(EncodingSettings, "target_lang")

    def __post_init__(self) -> None:
        check_settings(self)
        needed = needed_dimensions(self.error)
        if self.dimensions is not None and self.dimensions < needed:
            error = projected_error(self.dimensions)
            raise SettingError(
                "dimensions",
                f"is {self.dimensions}, whose standard error is up to {error:.3g}, and error is {self.error:g}",
                f"give {needed} or more, or error {math.ceil(1000 * error) / 1000:g}",
            )

        if self.examples < FEWEST_GROUPS * self.group:
            raise SettingError(
                "group",
                f"is {self.group} of {self.examples} examples",
                f"an interval needs {FEWEST_GROUPS} groups: give smaller ones, or more examples",
            )

    @property
    def projected_to(self) -> int:
        """The dimensions of a projection, where one is used."""
        return self.dimensions or needed_dimensions(self.error)
