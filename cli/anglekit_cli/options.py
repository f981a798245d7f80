"""Options that commands share, and options made from settings: each is written once, with its help.

A parameter annotated `Annotated[TrainSettings, Options(...)]` becomes one option per setting; the command receives the
checked settings. Type, default and help are the dataclass's own.
"""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import typer

from anglekit.distillation.losses.weights import LossWeights
from anglekit.distillation.settings import (
    DataSettings,
    HubSettings,
    ScoringSettings,
    TrainSettings,
    names_listed,
    split_name,
    student_sources,
)
from anglekit.errors import InputError, suggest
from anglekit.models.load_options import LoadOptions, check_roles, checkpoint_of
from anglekit.models.sources import check_one_kind, check_source, plain_shape
from anglekit.runtime.launch import launched_together
from anglekit.runtime.placement import Placement, check_device
from anglekit.settings_fields import (
    DATA,
    FIGURE,
    LOSSES,
    MEASURED,
    OUTPUT,
    STUDENT,
    Declaration,
    SettingError,
    changed,
    check_read_by,
    declarations,
)
from anglekit.vocabulary import (
    ANGLE_AWARE,
    ATTENTION_LOSSES,
    CLASSIFICATION,
    CONTROLS,
    GEOMETRY_FILE,
    HIDDEN_LOSS_NAMES,
    LABELLED,
    MIXTURES,
    NONE,
    RANDOM_TEACHER,
    READINGS,
    RELATION_HEADS_OF,
    STRATEGIES,
    TASK_KINDS,
    TASK_NAMES,
    TASK_STREAMS,
    WITHOUT_TEACHER,
)

if TYPE_CHECKING:
    from anglekit.analysis.preparation import Shard
    from anglekit.distillation.runs.directory import IfExists

# ---- options made of settings ----


@dataclass(frozen=True)
class Options:
    """Marks a command's parameter, whose type is a dataclass of settings: its settings become options.

    Attributes:
        only: the settings that become options; (): all that are declared.
        without: settings that do not become options.
        prefix: stands before each option's name.
        defaults: other defaults than the dataclass's, by setting.
        changes: other declarations than the dataclass's, by setting.
    """

    only: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    prefix: str = ""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    changes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def declared(self, kind: type) -> dict[str, Declaration]:
        """Return the declarations of the settings that are options."""
        found = declarations(kind)
        return {
            name: replace(found[name], **self.changes.get(name, {}))
            for name in self.only or found
            if name not in self.without
        }

    def parameters(self, kind: type) -> Iterator[inspect.Parameter]:
        """Yield typer's parameters, one for each setting."""
        hints, defaults = get_type_hints(kind), {one.name: one.default for one in fields(kind)} | dict(self.defaults)
        for name, declared in self.declared(kind).items():
            default, hint = defaults[name], _option_type(hints[name])
            flags = declared.flags or (self.flag(name, declared),)
            if hint is bool and default is not False:
                flags = (f"{flags[0]}/--no-{flags[0].removeprefix('--')}",)
            option = _option(declared, flags)
            yield inspect.Parameter(
                self.prefix + name,
                inspect.Parameter.KEYWORD_ONLY,
                default=default,
                annotation=Annotated[hint | None if default is None else hint, option],
            )

    def settings(self, kind: type, values: dict[str, Any]) -> Any:  # noqa: ANN401 - of the kind
        """Remove the options' values from a command's values; return the settings. A SettingError names the option."""
        hints, given = get_type_hints(kind), {}
        declared = self.declared(kind)
        try:
            for name in declared:
                value = values.pop(self.prefix + name)
                if value is not None:
                    given[name] = (
                        layer_numbers(name, value) if get_origin(_without_none(hints[name])) is tuple else value
                    )
            return kind(**given)
        except SettingError as error:
            known = declared.get(error.setting, Declaration(""))
            raise error.named(self.flag(error.setting, known)) from error

    def flag(self, name: str, declared: Declaration) -> str:
        """Return the first name of a setting's option."""
        return declared.flags[0] if declared.flags else f"--{(self.prefix + name).replace('_', '-')}"


def takes_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Return a command for typer, with every parameter marked by `Options` replaced by its options."""
    hints = get_type_hints(command, include_extras=True)
    groups: dict[str, tuple[type, Options]] = {}
    parameters: list[inspect.Parameter] = []
    for name, parameter in inspect.signature(command).parameters.items():
        kind, *marks = get_args(hints[name]) if get_origin(hints[name]) is Annotated else (hints[name],)
        options = next((mark for mark in marks if isinstance(mark, Options)), None)
        if options is None:
            parameters.append(parameter.replace(annotation=hints[name]))
        else:
            groups[name] = kind, options
            parameters += options.parameters(kind)

    def run(**values: Any) -> None:  # noqa: ANN401 - what typer has parsed
        made = {name: options.settings(kind, values) for name, (kind, options) in groups.items()}
        command(**values, **made)

    run.__name__, run.__doc__ = command.__name__, command.__doc__
    run.__annotations__ = {one.name: one.annotation for one in parameters}
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return run


def option_of(kind: type, name: str) -> Any:  # noqa: ANN401 - what typer's Option gives
    """Return the option of one setting, for a command that has to know whether it was given."""
    declared = declarations(kind)[name]
    return _option(declared, declared.flags or (f"--{name.replace('_', '-')}",))


def _option(declared: Declaration, flags: Sequence[str]) -> Any:  # noqa: ANN401 - as `option_of`
    return typer.Option(
        *flags,
        help=declared.help,
        metavar=declared.metavar,
        show_default=declared.shown or True,
        rich_help_panel=declared.group or None,
    )


def _without_none(hint: Any) -> Any:  # noqa: ANN401 - a type
    if get_origin(hint) in (Union, types.UnionType):
        (hint,) = (one for one in get_args(hint) if one is not type(None))
    return hint


def _option_type(hint: Any) -> Any:  # noqa: ANN401 - a type
    """Return what typer parses: names and lists are texts, which the settings check."""
    return str if get_origin(hint := _without_none(hint)) in (Literal, tuple) else hint


def layer_numbers(name: str, text: str) -> tuple[int, ...]:
    """Return the layers in a list as `0,6,12`, for the setting of that name.

    Raises:
        SettingError: it is something else.
    """
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts or not all(part.isdecimal() for part in parts):
        raise SettingError(
            name, f"{text!r} is not a list of layers", "give numbers such as 0,6,12 (0 is the embedding)"
        )
    return tuple(int(part) for part in parts)


# ---- options that several commands have ----

_TABLES = (
    ".jsonl, .json, .csv, .tsv (also .gz, .bz2, .xz, .zst), .parquet, a folder or a quoted pattern of them, "
    "hub:NAME[/CONFIG]:SPLIT or builtin:NAME[:SPLIT]"
)

Teacher = Annotated[str, typer.Argument(metavar="TEACHER", help="Directory or hub id of a trained teacher.")]
Task = Annotated[
    str,
    typer.Option(
        help="For your own data: classification, multi-label, regression, seq2seq, language-model, completion or "
        "multiple-choice. Known data: mnli, qqp, qnli, sst2, mrpc, cola, rte, wnli, stsb, dart, wmt16-en-ro, "
        "hellaswag, coqa.",
        rich_help_panel=DATA,
    ),
]
Train = Annotated[str, typer.Option(help=f"Training table: {_TABLES}.", rich_help_panel=DATA)]
Probe = Annotated[str, typer.Option(help=f"Probe texts: {_TABLES}.", rich_help_panel=DATA)]
Out = Annotated[
    Path,
    typer.Option(help="Directory of the run: checkpoint, scores, metrics, plan, provenance.", rich_help_panel=OUTPUT),
]
Validation = Annotated[
    list[str] | None,
    typer.Option(
        help="Table to score on, also NAME=TABLE; repeat it for more. The first one validates in training.",
        rich_help_panel=DATA,
    ),
]
Strategy = Annotated[
    str | None, typer.Option(metavar="NAME", help=f"{', '.join(STRATEGIES)}.", rich_help_panel=STUDENT)
]
GeometryToRead = Annotated[
    Path | None,
    typer.Option(
        "--geometry",
        metavar="DIR",
        help=f"Directory of an analysis, from whose angles strategy {ANGLE_AWARE} chooses.",
        rich_help_panel=STUDENT,
    ),
]
Control = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Make a control: alone (labels only; takes no --strategy), or random-teacher (the strategy, with the "
        "hidden states of an untrained teacher).",
        rich_help_panel=STUDENT,
    ),
]
LayerMap = Annotated[
    str | None,
    typer.Option(
        "--map",
        metavar="MAP",
        help="Your own map instead of --strategy, student:teacher layers with 0 the embedding: 1:4,2:8,3:12, or "
        "'encoder=1:6;decoder=1:12'.",
        rich_help_panel=STUDENT,
    ),
]
Copy = Annotated[
    str | None,
    typer.Option(
        metavar="BLOCKS",
        help="The teacher block that each student block is copied from, counted from 0: 3,7,11, or "
        "'encoder=0,6;decoder=0,6'.",
        show_default="the paper's",
        rich_help_panel=STUDENT,
    ),
]
Layers = Annotated[
    int | None, typer.Option(help="Blocks of a student.", show_default="the teacher's", rich_help_panel=STUDENT)
]
EncoderLayers = Annotated[
    int | None,
    typer.Option(help="Blocks of a student's encoder alone.", show_default="the teacher's", rich_help_panel=STUDENT),
]
DecoderLayers = Annotated[
    int | None,
    typer.Option(help="Blocks of a student's decoder alone.", show_default="the teacher's", rich_help_panel=STUDENT),
]
Width = Annotated[
    int | None,
    typer.Option(
        help="A width below the teacher's; needs random weights.", show_default="the teacher's", rich_help_panel=STUDENT
    ),
]
HiddenLoss = Annotated[
    str, typer.Option(metavar="NAME", help=f"{', '.join(HIDDEN_LOSS_NAMES)}.", rich_help_panel=LOSSES)
]
Reading = Annotated[
    str, typer.Option(help="corrected, or official: the whole run as the paper's code has it.", rich_help_panel=LOSSES)
]
Init = Annotated[
    str | None,
    typer.Option(
        metavar="random|teacher",
        help="Where the student's weights come from.",
        show_default="random",
        rich_help_panel=STUDENT,
    ),
]
_A_STUDENT = (
    "of the teacher's kind, of its own depth, width and type, instead of one that is made: layers are matched by "
    "relative depth, widths that differ get adapters, and a head of the task is kept"
)
Student = Annotated[
    str | None,
    typer.Option(metavar="[NAME=]DIR", help=f"Directory or hub id of a student {_A_STUDENT}.", rich_help_panel=STUDENT),
]
Students = Annotated[
    list[str] | None,
    typer.Option(
        "--student",
        metavar="[NAME=]DIR",
        help=f"Directory or hub id of a student {_A_STUDENT}. Repeat it for more; the name stands in an init's place. "
        "Students that are made are trained beside them with --inits.",
        rich_help_panel=STUDENT,
    ),
]
MatchStreams = Annotated[
    str | None,
    typer.Option(
        metavar="NAMES", help="encoder, decoder or both: what is matched.", show_default="all", rich_help_panel=STUDENT
    ),
]
Resume = Annotated[
    bool, typer.Option("--resume", help="Go on with the run in the directory, if there is one.", rich_help_panel=OUTPUT)
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace the run in the directory.", rich_help_panel=OUTPUT)
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar and no table.", rich_help_panel=OUTPUT)]
AsJson = Annotated[bool, typer.Option("--json", help="Print the scores as json.", rich_help_panel=OUTPUT)]
ProbeColumns = Annotated[
    DataSettings,
    Options(
        only=("text", "text_pair", "target", "limit", "columns"),
        changes={
            "target": {"help": "Column of the target, read teacher-forced."},
            "limit": {"help": "Use that many examples, drawn at random.", "flags": ("--sample",)},
        },
    ),
]

Directories = Annotated[
    list[Path],
    typer.Argument(metavar="DIR...", help="Directories of `anglekit analyze`, `sweep` or `distill`, mixed at will."),
]
TaskNames = Annotated[
    list[str] | None,
    typer.Option(
        "--task-name",
        metavar="NAME",
        help="How a task is called, for each DIR in order.",
        show_default="DIR's name",
        rich_help_panel=FIGURE,
    ),
]
AngleMargin = Annotated[
    float,
    typer.Option(
        metavar="DEGREES",
        help="The largest difference between angles that does not matter, in degrees.",
        rich_help_panel=MEASURED,
    ),
]
ScoreMargin = Annotated[
    float | None,
    typer.Option(
        metavar="NUMBER",
        help="The largest difference between scores that does not matter, in their unit.",
        show_default="one point: 0.01 of scores up to 1, else 1",
        rich_help_panel=MEASURED,
    ),
]

# Settings of the KL to the teacher's predictions.
_OF_THE_KL = ("temperature", "kl_direction", "kl_on_prompt")
_IN_PYTHON_ONLY = ("resumable", "eval_batch_size")
Training = Annotated[TrainSettings, Options(without=_IN_PYTHON_ONLY)]
SweepTraining = Annotated[TrainSettings, Options(without=(*_IN_PYTHON_ONLY, "seed"))]
# Fine-tuning has no teacher.
FineTuning = Annotated[
    TrainSettings,
    Options(
        without=(*_IN_PYTHON_ONLY, *_OF_THE_KL, "relation_heads", "teacher_device", "teacher_cache"),
        defaults={"seed": 0},
    ),
]
Columns = Annotated[DataSettings, Options()]
Publishing = Annotated[HubSettings, Options()]
Loading = Annotated[LoadOptions, Options(only=("revision", "allow_pickle", "trust_remote_code"))]
TeacherPlacement = Annotated[
    Placement,
    Options(
        only=("device_map",),
        prefix="teacher_",
        changes={
            "device_map": {
                "help": "Spread the teacher over devices, and the disk where they are too small; as json every part's "
                "device."
            }
        },
    ),
]


def place_of(out: Path | None, dry_run: bool) -> Path:
    """Return the directory to be written, which only a dry run, that writes nothing, can do without.

    Raises:
        InputError: none came.
    """
    if out is None and not dry_run:
        raise InputError("--out is missing", "name the directory to be written; only --dry-run needs none")
    return out or Path()


def if_exists(resume: bool, overwrite: bool, out: Path, *, of_sweep: bool = False) -> IfExists:
    """Return what to do with a run or sweep that is already there; refuse both options together, and it with neither.

    Processes that were launched together are not ended here: the library lets all of them end with one line.
    """
    if resume and overwrite:
        raise InputError("--resume and --overwrite came together", "give one of the two")
    if not resume and not overwrite and out.exists() and not launched_together():
        from anglekit.results.scores import check_no_run, check_no_sweep

        if out.is_file():
            raise InputError(f"{out} is a file", f"name a directory for the {'sweep' if of_sweep else 'run'}")
        (check_no_sweep if of_sweep else check_no_run)(out)
    return "resume" if resume else "overwrite" if overwrite else "refuse"


def teacher_loading(load: LoadOptions, settings: TrainSettings, placement: Placement) -> LoadOptions:
    """Return how a command loads its teacher; refuse a device and a map together, and a device that is not there."""
    device, spread = settings.teacher_device, placement.device_map
    if device is not None and spread is not None:
        raise InputError(f"--teacher-device {device!r} and --teacher-device-map {spread!r} came", "give one of the two")
    if device is not None:
        check_device(device, "teacher_device")
    return replace(load, device=device or "cpu", placement=placement)


def parse_shard(text: str | None) -> Shard | None:
    """Return the part of a job that `--shard 2/4` names; None: all."""
    if text is None:
        return None
    number, slash, of = text.partition("/")
    if not (slash and number.isdecimal() and of.isdecimal()) or len(text) > 18:
        raise InputError(f"--shard {text!r} is not a part", "give one such as 2/4, the second of four")
    from anglekit.analysis.preparation import Shard

    return Shard(int(number), int(of))


def names_of(option: str, text: str | None) -> tuple[str, ...] | None:
    """Return the names in a list with commas; refuse one with an empty place."""
    if text is None:
        return None
    found = tuple(name.strip() for name in text.split(","))
    if not all(found):
        raise InputError(f"{option} is {text!r} and names nothing in one place", "give names with commas between")
    return found


def columns_read(columns: Mapping[str, Sequence[str]], notes: Mapping[str, Sequence[str]] | None = None) -> str:
    """Return in a line which columns were read of each table, and a line for each note on how they were read.

    Tables of the same columns stand together.
    """
    tables: dict[tuple[str, ...], list[str]] = {}
    for name, read in columns.items():
        tables.setdefault(tuple(read), []).append(name)
    line = "columns read: " + "; ".join(f"{', '.join(read)} ({', '.join(names)})" for read, names in tables.items())
    told = dict.fromkeys(note for own in (notes or {}).values() for note in own)
    return "\n".join([line, *(f"note: {note}" for note in told)])


def rows_left_out(left_out: Mapping[str, Mapping[str, int]]) -> str:
    """Return in a line which rows of each table were left out, and why."""
    from anglekit.distillation.tasks.labelled.label_cells import left_out_words

    return "left out: " + "; ".join(f"{left_out_words(rows)} ({name})" for name, rows in left_out.items())


# ---- what is refused before anything heavy is loaded ----


def check_form(form: str, allowed: Sequence[str], *, as_json: bool) -> None:
    """Refuse an unknown form of what is printed, and one beside --json; the first of the allowed is the default."""
    check_names("--format", [form], allowed)
    if as_json and form != allowed[0]:
        raise InputError(f"--json and --format {form} came", "give one of the two")


def check_names(option: str, given: Sequence[str] | None, allowed: Sequence[str]) -> None:
    """Refuse names that an option does not have."""
    for name in given or ():
        if name not in allowed:
            raise InputError(f"{option} is {name!r}", allowed=suggest(name, allowed))


def check_effects(came: Mapping[str, bool], reason: str) -> None:
    """Refuse the first option that came although it can change nothing.

    Args:
        came: by option, whether it was given (for one with a default: whether it has another value).
        reason: why it changes nothing, as "came without --resume".
    """
    for option, given in came.items():
        if given:
            raise InputError(f"{option} {reason}, and has no effect", "leave it out")


def check_task(task: str, *settings: object, scored: bool = True) -> None:
    """Refuse an unknown task, and settings that are not at their defaults and that it does not read.

    Args:
        task: its name.
        settings: objects of settings.
        scored: whether there is a table to score on.
    """
    check_names("--task", [task], TASK_NAMES)
    check_read_by(task, TASK_KINDS[task], *settings)
    for one in settings:
        if isinstance(one, TrainSettings) and not scored:
            without = {"--select": one.select == "best", "--evaluate-every": one.evaluate_every is not None}
            without |= {"--beams": one.beams is not None, "--max-new-tokens": one.max_new_tokens is not None}
            check_effects(without, "came without --validation, on which it works")
        if isinstance(one, TrainSettings | ScoringSettings) and one.beams == 1:
            check_effects({"--length-penalty": one.length_penalty not in (None, 1.0)}, "came with one beam")


def check_teaching(
    settings: TrainSettings,
    weights: LossWeights,
    *,
    hidden_loss: str,
    matches: bool,
    match_streams: str | None,
    control: str | None = None,
) -> None:
    """Refuse settings of losses that no student is taught by.

    Args:
        settings: of the training.
        weights: of the losses.
        hidden_loss: its name.
        matches: whether any student is taught by the teacher's layers.
        match_streams: what was given for it.
        control: the student's, if it is one.
    """
    usual = TrainSettings()
    heads = {"--relation-heads": settings.relation_heads is not None}
    hidden = {"--hidden-loss": hidden_loss != "mse", "--match-streams": match_streams is not None} | heads
    said = {f"--{name.replace('_', '-')}": getattr(settings, name) != getattr(usual, name) for name in _OF_THE_KL}
    kept = {"--teacher-cache": settings.teacher_cache is not None}
    if control == RANDOM_TEACHER:
        check_effects(kept, f"came with --control {control}, whose untrained teacher is not kept")
    if control == WITHOUT_TEACHER:
        check_effects(kept, f"came with --control {control}, which has no teacher")
        alone = hidden | {"--alpha-hidden": weights.hidden != LossWeights().hidden} | said
        alone |= {"--alpha-kl": weights.kl != LossWeights().kl}
        check_effects(alone, f"came with --control {control}, which has no teacher")
    if not matches:
        check_effects(hidden, f"came with strategy {NONE}, which matches no layers")
    if not weights.hidden:
        check_effects(hidden, "came with --alpha-hidden 0")
    if hidden_loss != RELATION_HEADS_OF:
        check_effects(heads, f"came with --hidden-loss {hidden_loss} (only {RELATION_HEADS_OF} has any)")
    if not weights.kl:
        check_effects(said, "came with --alpha-kl 0")


def check_students(
    teacher: str, given: Sequence[str], made: Mapping[str, object], *, mapped: bool = False
) -> tuple[str, ...]:
    """Return the sources of students that are there already; refuse them beside options of a student that is made.

    Args:
        teacher: its source.
        given: each `[NAME=]DIR`.
        made: by option, what was given for a student that is made; None where nothing was.
        mapped: whether a map by hand was given.
    """
    sources = tuple(student_sources(given).values())
    if sources and (came := [option for option, value in made.items() if value is not None]):
        raise InputError(
            f"{came[0]} and --student came, and the student has its own shape and weights", "leave one of them out"
        )
    for source in sources:
        check_roles(teacher, source)
        check_one_kind(checkpoint_of(teacher), checkpoint_of(source), mapped=mapped)
    return sources


def check_losses(hidden_loss: str, reading: str, strategies: Sequence[str | None] = ()) -> None:
    """Refuse an unknown hidden loss or reading, and losses of attention beside a mixture of states, which has none."""
    check_names("--hidden-loss", [hidden_loss], HIDDEN_LOSS_NAMES)
    check_names("--reading", [reading], READINGS)
    made = {name: STRATEGIES[name].combines for name in strategies if name is not None and name in STRATEGIES}
    mixing = next((name for name, combines in made.items() if combines in MIXTURES), None)
    if hidden_loss in ATTENTION_LOSSES and reading == "corrected" and mixing is not None:
        raise InputError(
            f"--hidden-loss {hidden_loss} compares what attention makes, and strategy {mixing} makes a mixture of "
            "states, which has no attention",
            "take a strategy of single layers, such as last, forward or optimal-transport",
        )


def check_matching(strategy: str | None, layer_map: str | None, control: str | None = None) -> None:
    """Refuse an unknown strategy or control, and anything but exactly one of strategy and map, which `alone` lacks."""
    check_names("--control", [control] if control is not None else (), CONTROLS)
    if control == WITHOUT_TEACHER and layer_map is None and strategy in (None, NONE):
        return
    if control == WITHOUT_TEACHER:
        given = f"--strategy {strategy}" if layer_map is None else "--map"
        raise InputError(f"--control {control} matches no layers, and {given} came", "leave one of the two out")
    if (strategy is None) == (layer_map is None):
        got = "neither" if strategy is None else "both"
        raise InputError(f"--strategy and --map: {got} came", "give one of the two")
    check_names("--strategy", [strategy] if strategy is not None else (), tuple(STRATEGIES))
    if control == RANDOM_TEACHER and strategy == NONE:
        raise InputError(
            f"--control {control} came with --strategy {NONE}, which matches no layers",
            "give one that does, such as forward",
        )


def check_strategies(strategies: Sequence[str | None], geometry: Path | None, copied: str | None) -> None:
    """Refuse a copy map beside combined layers, and a strategy without the Geometry that it reads or the reverse."""
    combining = next(
        (name for name in strategies if name is not None and name in STRATEGIES and STRATEGIES[name].combines), None
    )
    if copied is not None and combining is not None:
        raise InputError(
            f"--copy came with strategy {combining}, whose student layers have no teacher block of their own",
            "leave --copy out: blocks are then copied as for forward",
        )
    if ANGLE_AWARE in strategies and geometry is None:
        raise InputError(
            f"strategy {ANGLE_AWARE} came without the Geometry from whose angles it chooses",
            "give the directory of an analysis of a student of this depth: --geometry DIR",
        )
    if geometry is None:
        return
    if ANGLE_AWARE not in strategies:
        raise InputError(f"--geometry came, and only strategy {ANGLE_AWARE} reads one", "leave it out")
    if not (geometry / GEOMETRY_FILE).is_file():
        raise InputError(f"--geometry is {geometry}, which holds no {GEOMETRY_FILE}", "give the --out of an analysis")


def check_sources(
    models: Sequence[str],
    tables: Sequence[str] = (),
    named_tables: Sequence[str] | None = None,
    *,
    columns: DataSettings | None = None,
    task: str | None = None,
    load: LoadOptions | None = None,
    labelled_by: Sequence[str] = (),
) -> None:
    """Refuse models and tables that do not exist, columns that the tables lack, and models that cannot do the task.

    So are labels that a run would refuse (`look_at_labels`); those of tables are the labels of the models that
    `labelled_by` names. A model that the hub is asked for by a plain name is said to be one.

    Processes that were launched together are not ended here: the library lets all of them end with one line.
    """
    from anglekit.tables.read import check_columns

    if launched_together():
        return
    load = load or LoadOptions()
    named, names = ({}, None) if columns is None else (vars(columns), columns.names)
    roles = ("text", "text_pair", "label", "source", "target", "prompt", "completion")
    given = {role: named[role] for role in roles if named.get(role) is not None}
    # Only where examples may have several labels is each in a column of its own.
    labels = names_listed(given.pop("label", "")) if task == "multi-label" else ()
    for source in (*tables, *(split_name(entry)[1] for entry in named_tables or ())):
        for several in [{"label": name} for name in labels] or [{}]:
            check_columns(source, given | several, names)
        if columns is not None and task is not None and TASK_KINDS[task] == CLASSIFICATION:
            check_classified(source, columns, task == CLASSIFICATION)
    if columns is not None and task is not None and TASK_KINDS[task] in LABELLED:
        from anglekit.distillation.tasks.labelled.first_look import look_at_labels

        read = [*tables, *(split_name(entry)[1] for entry in named_tables or ())]
        trained = [checkpoint_of(model) for model in labelled_by]
        look_at_labels(read, task, columns, trained=trained, trains=bool(tables))
    for model in dict.fromkeys(models):
        if note := check_source(model, revision=load.revision, own_code=load.trust_remote_code):
            typer.echo(f"note: {note}", err=True)
        needed = () if task is None else TASK_STREAMS.get(TASK_KINDS[task], ())
        shape = plain_shape(checkpoint_of(model)) if needed else None
        if shape is not None and shape.streams != needed:
            raise InputError(
                f"task {task} needs a model with {' and '.join(needed)}, and {model} is a {shape.type} model with "
                f"{' and '.join(shape.streams)}",
                "choose another task or model",
            )


def check_classified(source: str, columns: DataSettings, finds_texts: bool = True) -> None:
    """Refuse a table without a column of texts or of labels, as far as its header tells: that of json is every row.

    A task that knows its columns' names finds its texts itself.
    """
    from anglekit.tables.columns import find_column, find_text_columns
    from anglekit.tables.read import read_table
    from anglekit.tables.shapes import as_known_shape

    # Whatever else says how the table is read is left to the run.
    plain = set(changed(columns)) <= {"text", "text_pair", "label", "limit", "columns"}
    if not plain or not source.lower().endswith((".csv", ".tsv", ".parquet")):
        return
    given = (columns.text, columns.text_pair, columns.label)
    table = as_known_shape(read_table(source, limit=1, column_names=columns.names), given)
    if finds_texts:
        find_text_columns(table, columns.text, columns.text_pair)
    find_column(table, "label", columns.label)


def check_target(out: Path, what: str, suffixes: Sequence[str], option: str = "--out") -> None:
    """Refuse a file that cannot be written; `what` describes it, for example "a report's file"."""
    if out.suffix.lower() not in suffixes:
        raise InputError(f"cannot write {out.name!r}: {what} ends in {', '.join(suffixes)}", f"change {option}")
    if out.is_dir():
        raise InputError(f"{out} is a directory", f"give a file with {option}")
    if any(parent.exists() and not parent.is_dir() for parent in out.parents):
        raise InputError(f"{out} cannot be made: a part of its path is a file", f"choose another {option}")


def check_new(out: Path, *, overwrite: bool) -> None:
    """Refuse a file that is there, unless it may be replaced: it may be a run's own record."""
    if out.exists() and not overwrite:
        raise InputError(f"{out} exists", "choose another file or allow overwriting (--overwrite)")
