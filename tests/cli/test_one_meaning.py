"""One word means one thing in all commands: every option of every command beside those of the same name."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple, get_args, get_type_hints

import pytest
import typer

from anglekit_cli.main import EARLIER_NAMES, app


class Use(NamedTuple):
    """An option in one command: what its help says, and what kind of value it takes."""

    flag: str
    command: str
    says: str
    takes: str
    negated: tuple[str, ...] = ()


#: Options whose help is not the same words everywhere: what all of it says, as a pattern. The words that commands share
#: (an option made of one setting, or of one annotation) need no entry. A new meaning must take a new name.
SAID_DIFFERENTLY = {
    "--data": r"^(Texts|Table to score on)\b.*",
    "--device": r"auto takes an accelerator if there is one",
    "--dry-run": r"^Print .*(and stop|load no weights)",
    "--format": r"^What to print: terminal,",
    "--json": r"^Print .* as json\.$",
    "--max-length": r"^Most tokens of (a text|an example)",
    "--out": r"^(Directory (of|for) |Where to write it|Write it to a file)",
    "--overwrite": r"^(Replace|Remove) ",
    "--probe": r"^(Probe texts|Texts for --angles-every|Table that the geometry is measured on)",
    "--quiet": r"^(No |Print the first line only)",
    "--reading": r"^corrected, or official: ",
    "--resume": r"\b[Gg]o on\b",
    "--seed": r"random (draws|order|matching)|^Of everything random",
    "--seeds": r"0,1,2 or 0-4",
    "--shard": r"the I-th of N parts\b.* for anglekit merge",
    "--source-lang": r"^Language of the (sources|texts), by its code in the tokenizer",
    "--target-lang": r"^Language of the targets, by its code in the tokenizer",
    "--strategies": r"^Some of .*forward, .*, with commas",
    "--streams": r"\bthese streams: encoder, decoder or both\b",
    "--student": r"^Directory or hub id of a student",
    "--target": r"[Cc]olumn of the target",
    "--target-max-length": r"[Tt]okens .*targets?\b",
    "--teacher-device": r"^(Where the teacher goes|The teacher's own)",
    "--train": r"^Training table",
    "--validation": r"^Table to score on",
    "--vertices": r"^Student layers to (keep|draw)",
}  # fmt: skip
#: One thing or several of it: the singular and the plural are one word.
ONE_OR_MORE = {"--control", "--init", "--null", "--seed", "--strategy"}
#: A verb without a value (keep a table on the disk), and the noun of another word (encoder, decoder).
VERBS = {"--stream"}


def uses() -> list[Use]:
    """Return every option of every command, as the help shows it."""
    found = []
    for name, command in typer.main.get_command(app).commands.items():
        hints = get_type_hints(command.callback)
        for option in command.params:
            if option.param_type_name == "option":
                takes = str(taken(hints[option.name]))
                negated = tuple(option.secondary_opts)
                found += [Use(flag, name, option.help, takes, negated) for flag in option.opts if flag.startswith("--")]
    return found


def taken(hint: Any) -> Any:
    """Return the type of one value of a parameter that may be given once, several times or not at all."""
    inner = [one for one in get_args(hint) if one is not type(None)]
    return taken(inner[0]) if inner else hint


def plural(flag: str) -> str:
    return re.sub("y$", "ie", flag) + "s"


def of_two_meanings(found: Iterable[Use]) -> set[str]:
    """Return the flags that mean more than one thing."""
    by_flag: dict[str, list[Use]] = {}
    for use in found:
        by_flag.setdefault(use.flag, []).append(use)
    wrong = {flag for flag in by_flag if plural(flag) in by_flag and flag not in ONE_OR_MORE | VERBS}
    for flag, same in by_flag.items():
        said = {use.says for use in same}
        pattern = SAID_DIFFERENTLY.get(flag, "$^")
        in_other_words = len(said) > 1 and not all(re.search(pattern, words) for words in said)
        if in_other_words or len({use.takes for use in same}) > 1:
            wrong.add(flag)
    return wrong


def test_one_word_means_one_thing_in_all_commands():
    assert of_two_meanings(uses()) == set()


def test_what_is_said_to_be_worded_differently_is():
    said: dict[str, set[str]] = {}
    for use in uses():
        said.setdefault(use.flag, set()).add(use.says)
    assert [flag for flag in SAID_DIFFERENTLY if len(said.get(flag, ())) < 2] == []
    assert [flag for flag in ONE_OR_MORE if not {flag, plural(flag)} <= set(said)] == []


@pytest.mark.parametrize(
    ("flag", "other"),
    [
        ("--label", Use("--label", "plot", "A task's name for each DIR, in order.", "<class 'str'>")),
        ("--layers", Use("--layers", "extract", "Layers to keep, e.g. 0,6,12.", "<class 'str'>")),
        ("--layers", Use("--layers", "extract", "Blocks of a student.", "<class 'str'>")),
        ("--limit", Use("--limit", "analyze", "Use that many examples, drawn at random.", "<class 'int'>")),
        ("--student", Use("--student", "plot", "Draw this student only.", "<class 'str'>")),
        ("--prompt", Use("--prompts", "analyze", "Read the text alone.", "<class 'str'>")),
        ("--seed", Use("--seed", "plot", "What is sown.", "<class 'int'>")),
    ],
)
def test_a_second_meaning_is_found(flag, other):
    assert of_two_meanings([*uses(), other]) == {flag}


# ---- options named in messages ----

ROOT = Path(__file__).resolve().parents[2]
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]*")
#: No options of ours: of torchrun, of a page's style, and the beginning of names.
FOREIGN = {"--ground", "--ink", "--multi", "--no-", "--num"}


def named_options(text: str) -> set[str]:
    """Return what looks like an option in the literal texts of a module, but for its docstrings."""
    tree = ast.parse(text)
    told = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    literals = (
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in told
    )
    return {found for literal in literals for found in OPTION.findall(literal)}


def test_messages_name_options_that_are_there():
    real = {flag for use in uses() for flag in (use.flag, *use.negated)} | {"--help", "--verbose", "--version"}
    earlier = {old for command in ("plot", "report") for old in EARLIER_NAMES[command]}
    wrong = []
    for path in sorted(path for folder in ("anglekit", "cli") for path in (ROOT / folder).rglob("*.py")):
        place = path.relative_to(ROOT).as_posix()
        if place == "cli/anglekit_cli/main.py":
            continue  # it lists earlier names
        allowed = real - earlier if place.startswith(("anglekit/plots/", "anglekit/report/")) else real
        text = path.read_text(encoding="utf-8")
        if not set(OPTION.findall(text)) <= allowed | FOREIGN:  # parsing all of them takes seconds
            wrong += [(place, name) for name in named_options(text) - allowed - FOREIGN]
    assert wrong == []


def test_an_option_that_is_not_there_is_found():
    text = '"""Of --this."""\ndef f(x):\n    """Or --that."""\n    fail(f"give --task-nam {x} or (--out), not a--b")\n'
    assert named_options(text) == {"--task-nam", "--out"}
