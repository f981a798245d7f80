"""What a setting is, declared once, in its dataclass: default, help and allowed values.

`check_settings` refuses what the declaration does not allow, the command line makes its options of it, and recipes
their keys. Free of torch, so that a mistake is answered before anything heavy is loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields, replace
from typing import Any, Final, TypeVar, get_type_hints

from anglekit.errors import InputError, suggest

_KEY: Final = "anglekit"
#: What a command's options stand under in its help, in this order.
DATA: Final = "Data"
STUDENT: Final = "Student and matching"
LOSSES: Final = "Losses"
OPTIMISER: Final = "Optimiser and schedule"
MEASURED: Final = "What is measured"
LENGTHS: Final = "Lengths and generation"
LORA: Final = "LoRA"
FIGURE: Final = "Figure"
OUTPUT: Final = "Output"
HARDWARE: Final = "Hardware"
LOADING: Final = "Loading"
GROUPS: Final = (DATA, STUDENT, LOSSES, OPTIMISER, MEASURED, LENGTHS, LORA, FIGURE, OUTPUT, HARDWARE, LOADING)
T = TypeVar("T")


class SettingError(InputError):
    """A setting has a value that is not allowed.

    The line begins with the setting's name in Python; `named` says the same of an option or of a recipe's key.

    Attributes:
        name: what the line calls the setting.
        problem: what is wrong, without the name: "is 0".
    """

    def __init__(self, setting: str, problem: str, remedy: str = "", *, allowed: str = "", name: str = "") -> None:
        self.name, self.problem = name or setting, problem
        super().__init__(f"{self.name} {problem}", remedy, allowed=allowed, setting=setting)

    def named(self, name: str) -> SettingError:
        """Return the same error about the setting under the name by which the user gave it."""
        return SettingError(self.setting, self.problem, self.remedy, allowed=self.allowed, name=name)


@dataclass(frozen=True)
class Declaration:
    """What is known of a setting beside its name, type and default.

    Attributes:
        help: one line for a person.
        names: the only values; () where they are not names.
        at_least: the smallest number.
        above: a bound below every number.
        at_most: the largest number.
        below: a bound above every number.
        metavar: what the command line shows in the value's place; None: the type.
        shown: what it shows in the default's place; None: the default.
        flags: the option's names; (): made of the setting's name.
        group: what its option stands under in the help, one of `GROUPS`; "": among those of no group.
        needs: another setting of the same dataclass without which it has no effect; with `=VALUE` at the end, one that
            must have this value.
        tasks: the kinds of task that read it (`vocabulary.TASK_KINDS`); (): all, or it belongs to no task.
    """

    help: str
    names: tuple[str, ...] = ()
    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None
    below: float | None = None
    metavar: str | None = None
    shown: str | None = None
    flags: tuple[str, ...] = ()
    group: str = ""
    needs: str = ""
    tasks: tuple[str, ...] = ()

    def check(self, name: str, value: object) -> None:
        """Raise the SettingError of a value that is not allowed; None leaves the choice to others and always is."""
        if value is None:
            return
        if self.names and value not in self.names:
            raise SettingError(name, f"is {value!r}", allowed=suggest(str(value), self.names))
        bounds = (self.at_least, self.above, self.at_most, self.below)
        if isinstance(value, int | float) and bounds != (None,) * 4 and not self._holds(value):
            raise SettingError(name, f"is {value}", allowed=f"allowed: {self._range()}")

    def _holds(self, value: float) -> bool:
        # Comparisons with NaN are false, and so is that of infinity with itself.
        return (
            -float("inf") < value < float("inf")
            and (self.at_least is None or value >= self.at_least)
            and (self.above is None or value > self.above)
            and (self.at_most is None or value <= self.at_most)
            and (self.below is None or value < self.below)
        )

    def _range(self) -> str:
        if self.at_least is not None and self.at_most is not None:
            return f"{self.at_least:g} to {self.at_most}"
        low = f"at least {self.at_least:g}" if self.above is None else f"above {self.above:g}"
        if self.below is not None:
            return f"{low} and below {self.below:g}"
        kind = isinstance(self.at_least if self.above is None else self.above, float)
        return low if not kind else f"a finite number {low}" if self.above is not None else f"a finite number of {low}"


def one_or_more(given: object) -> tuple[Any, ...]:
    """Return what came as a tuple; a text, a number, a path or any other thing that is no collection is one.

    So `compare("runs/sweep")` compares one directory, and not ten of one letter each.
    """
    if isinstance(given, Iterable) and not isinstance(given, str | bytes):
        return tuple(given)
    return (given,)


def setting(default: Any, help: str, **declared: Any) -> Any:  # noqa: ANN401, A002 - a dataclass's field
    """Return a dataclass's field with its declaration.

    Args:
        default: its default.
        help: one line for a person.
        declared: further fields of `Declaration`.
    """
    return field(default=default, metadata={_KEY: Declaration(help, **declared)})


def like(kind: type, name: str, *, default: Any = MISSING, **changes: Any) -> Any:  # noqa: ANN401 - as `setting`
    """Return a field declared as that of another dataclass.

    Args:
        kind: the other dataclass.
        name: its field.
        default: where it is another one.
        changes: fields of `Declaration` that are others.
    """
    source: Field[Any] = kind.__dataclass_fields__[name]  # type: ignore[attr-defined]
    declared = replace(source.metadata[_KEY], **changes)
    return field(default=source.default if default is MISSING else default, metadata={_KEY: declared})


def declarations(kind: type) -> Mapping[str, Declaration]:
    """Return the declarations of a dataclass's settings, in order."""
    return {one.name: one.metadata[_KEY] for one in fields(kind) if _KEY in one.metadata}


def check_settings(settings: Any) -> None:  # noqa: ANN401 - any dataclass
    """Raise the SettingError of the first value that its declaration does not allow, or that would have no effect."""
    declared = declarations(type(settings))
    for name, one in declared.items():
        one.check(name, getattr(settings, name))
    for name in changed(settings):
        needed, equals, value = declared[name].needs.partition("=")
        if needed and (getattr(settings, needed) != value if equals else not getattr(settings, needed)):
            option = f"--{needed.replace('_', '-')}{f' {value}' if equals else ''}"
            raise SettingError(name, f"came without {option} and has no effect", f"add {option}, or leave it out")


def changed(settings: Any) -> list[str]:  # noqa: ANN401 - any dataclass
    """Return the names of the declared settings that are not at their defaults."""
    defaults = {one.name: one.default for one in fields(settings)}
    return [name for name in declarations(type(settings)) if getattr(settings, name) != defaults[name]]


def check_read_by(task: str, kind: str, *several: Any) -> None:  # noqa: ANN401 - dataclasses
    """Refuse settings that a task does not read.

    Args:
        task: its name.
        kind: of which kind it is.
        several: objects of settings, whose declarations say which kinds read what.

    Raises:
        SettingError: one of them is not at its default, and no effect could come of it.
    """
    for settings in several:
        declared = declarations(type(settings))
        for name in changed(settings):
            if declared[name].tasks and kind not in declared[name].tasks:
                raise SettingError(
                    name,
                    f"came, and task {task} does not read it",
                    "leave it out",
                    allowed=f"it is for {' and '.join(declared[name].tasks)}",
                )


def documented(kind: type[T]) -> type[T]:
    """Add the settings' help to a dataclass's docstring, for readers of the documentation."""
    lines = "".join(f"\n    {name}: {declared.help}" for name, declared in declarations(kind).items())
    kind.__doc__ = f"{kind.__doc__ or ''}\n\nAttributes:{lines}\n"
    return kind


def all_optional(kind: type, *, without: Collection[str] = ()) -> Callable[[type[T]], type[T]]:
    """Return a decorator that makes a frozen dataclass of a class, with the settings of another one.

    Each of them may be None, which is its default: whoever reads the class knows what was given.

    Args:
        kind: the other dataclass.
        without: its settings that the class does not have.
    """

    def decorate(own: type[T]) -> type[T]:
        for name, hint in get_type_hints(kind).items():
            if name in declarations(kind) and name not in without:
                own.__annotations__[name] = hint | None
                setattr(own, name, like(kind, name, default=None))
        return dataclass(frozen=True)(own)

    return decorate
