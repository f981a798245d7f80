"""A setting is declared once: what its declaration refuses, and what is made of it."""

from __future__ import annotations

import math
from dataclasses import FrozenInstanceError, dataclass, fields
from typing import get_type_hints

import pytest

from anglekit.errors import InputError
from anglekit.settings_fields import (
    SettingError,
    all_optional,
    check_settings,
    declarations,
    documented,
    like,
    setting,
)


@documented
@dataclass(frozen=True)
class Own:
    """Settings for a test."""

    steps: int | None = setting(None, "Steps.", at_least=1)
    rate: float = setting(0.5, "Rate.", above=0.0)
    share: float = setting(0.0, "Share.", at_least=0.0, below=1.0)
    seed: int = setting(0, "Seed.", at_least=0, at_most=9)
    kind: str | None = setting(None, "Kind.", names=("forward", "reverse"))
    free: str = "no setting"

    def __post_init__(self) -> None:
        check_settings(self)


@dataclass(frozen=True)
class Other:
    """Settings that another class declares."""

    rate: float | None = like(Own, "rate", default=None, shown="its own")
    seed: int = like(Own, "seed")


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"steps": 0}, "steps is 0; allowed: at least 1"),
        ({"rate": 0.0}, "rate is 0.0; allowed: a finite number above 0"),
        ({"rate": math.inf}, "rate is inf; allowed: a finite number above 0"),
        ({"rate": math.nan}, "rate is nan; allowed: a finite number above 0"),
        ({"share": 1.0}, "share is 1.0; allowed: at least 0 and below 1"),
        ({"share": -0.1}, "share is -0.1; allowed: at least 0 and below 1"),
        ({"seed": 10}, "seed is 10; allowed: 0 to 9"),
        ({"seed": -1}, "seed is -1; allowed: 0 to 9"),
        ({"kind": "foward"}, "kind is 'foward'; did you mean 'forward'? allowed: forward, reverse"),
    ],
)
def test_what_is_not_allowed_is_one_line_that_names_the_setting(given, line):
    with pytest.raises(SettingError) as refused:
        Own(**given)
    assert str(refused.value) == line
    assert refused.value.setting == next(iter(given))


@pytest.mark.parametrize(
    "given",
    [{"steps": 1}, {"steps": None}, {"rate": 1e-9}, {"share": 0.0}, {"share": 0.999}, {"seed": 9}, {"kind": "reverse"}],
)
def test_the_ends_of_a_range_are_allowed(given):
    assert vars(Own(**given)).items() >= given.items()


def test_the_same_error_is_said_of_an_option_and_of_a_key():
    with pytest.raises(InputError) as refused:
        Own(steps=0)
    option = refused.value.named("--max-steps")
    assert str(option) == "--max-steps is 0; allowed: at least 1"
    assert (option.setting, option.exit_code) == ("steps", 2)
    assert str(option.named("own.yaml: training.steps")) == "own.yaml: training.steps is 0; allowed: at least 1"


def test_another_class_may_have_the_same_setting():
    assert Other() == Other(None, 0)
    assert declarations(Other)["rate"].shown == "its own"
    assert declarations(Own)["rate"].shown is None
    with pytest.raises(SettingError, match="seed is 10"):
        check_settings(Other(seed=10))


def test_the_docstring_lists_the_settings():
    assert Own.__doc__.startswith("Settings for a test.")
    assert "\n    steps: Steps.\n    rate: Rate.\n" in Own.__doc__
    assert "free" not in Own.__doc__


def test_a_class_of_what_was_given():
    @all_optional(Own, without=("seed",))
    class Given:
        """What a file gives."""

    assert [one.name for one in fields(Given)] == ["steps", "rate", "share", "kind"]
    assert set(vars(Given()).values()) == {None}
    assert Given(rate=2.0) == Given(None, 2.0)
    assert get_type_hints(Given)["rate"] == float | None
    with pytest.raises(FrozenInstanceError):
        Given().rate = 1.0
