"""Tables of known shapes: which columns of published data sets play which role, and rows that become texts.

A shape is told by its columns alone. Where a text is made of several columns, the made column is named after them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from anglekit.display.counts import counted
from anglekit.errors import InputError
from anglekit.tables.columns import NO_COLUMN
from anglekit.tables.kept_rows import KeptRows, Rows
from anglekit.tables.table import Table, is_missing

Row = Mapping[str, Any]
_ROWS_AT_ONCE: Final = 1024


@dataclass(frozen=True)
class Shape:
    """Columns by which a published kind of table is known.

    Attributes:
        name: the data sets that have it.
        needs: the columns by which it is known, all of them, in any case.
        roles: by role (`text`, `text_pair`, `label`, `target`, `choices`) the column that plays it; of a made one, the
            columns that it is made of, with ` + ` between.
        make: from a row to the rows that are made of it, by role; None: the columns are there already.
        lacks: columns that it never has.
    """

    name: str
    needs: tuple[str, ...]
    roles: Mapping[str, str]
    make: Callable[[Row], Iterator[dict[str, Any]]] | None = None
    lacks: tuple[str, ...] = field(default=())


def triples_text(triples: Iterable[Iterable[object]], *, lower_relations: bool = False) -> str:
    """Return [[subject, relation, object], ...] as "subject : relation : object | ...".

    With `lower_relations`, in the words of DART's own baselines, every relation is in lower case.
    """
    plain = [[" ".join(str(part).split()) for part in triple] for triple in triples]
    if lower_relations:
        plain = [[*one[:1], *(part.lower() for part in one[1:2]), *one[2:]] for one in plain]
    return " | ".join(" : ".join(one) for one in plain)


@dataclass(frozen=True)
class Turn:
    """A question about a story, in a conversation.

    Attributes:
        prompt: the story, the earlier questions with their answers, and the question.
        answers: the answer first, then those of other people; each once.
        alone: a prompt of the story and the question alone, and its answer: how the paper's code trains on it. The last
            question of a story has no answer there.
        last: whether it is the story's last question.
    """

    prompt: str
    answers: tuple[str, ...]
    alone: tuple[str, str]
    last: bool


@dataclass(frozen=True)
class Story:
    """A story with what was asked about it, from a row of CoQA.

    Attributes:
        story: its text.
        questions: in order.
        answers: one for each.
        others: the answers of other people, each with one for each question; of a training table there are none.
    """

    story: str
    questions: tuple[str, ...]
    answers: tuple[str, ...]
    others: tuple[tuple[str, ...], ...] = ()


def story_columns(names: Iterable[str]) -> tuple[str, ...] | None:
    """Return the columns of a table that hold stories and conversations about them, or None.

    The hub has two copies: `questions` as texts beside `answers.input_text`, and both as objects beside
    `additional_answers`, as in the original files.
    """
    there = list(names)
    asked, told = (
        next((one for one in (f"{what}.input_text", what) if one in there), None) for what in ("questions", "answers")
    )
    if asked is None or told is None or "story" not in there:
        return None
    return ("story", asked, told, *sorted(one for one in there if one.split(".")[0] == "additional_answers"))


def story_of(row: Row) -> Story:
    """Return the story, questions and answers of a row that has `story_columns`.

    Raises:
        InputError: there is no story or no question, or not one answer for each.
    """
    names = story_columns(row)
    if names is None:
        raise InputError("the row has no story, questions and answers", "give all three")
    _, asked, told, *more = names
    questions, answers = (_said(row[name], name) for name in (asked, told))
    if not questions or len(questions) != len(answers):
        raise InputError(
            f"{counted(len(questions), 'question')} came with {counted(len(answers), 'answer')}", "give one for each"
        )
    for name, texts in ((asked, questions), (told, answers)):
        if not all(text.strip() for text in texts):
            raise InputError(f"column {name!r} holds a blank text", "give every question an answer, or leave both out")
    others = [
        _said(answer, name)
        for name in more
        for answer in (
            row[name].values() if name == "additional_answers" and isinstance(row[name], Mapping) else [row[name]]
        )
    ]
    return Story(str(row["story"]), questions, answers, tuple(own for own in others if own))


def _said(cell: Any, column: str) -> tuple[str, ...]:  # noqa: ANN401 - a cell of a table
    """Return the texts of questions or answers: texts, objects with an `input_text`, or one object of lists."""
    if is_missing(cell):
        return ()
    if isinstance(cell, Mapping):
        cell = cell.get("input_text", [])
    held = [one["input_text"] if isinstance(one, Mapping) else one for one in _listed(cell, column)]
    return tuple("" if is_missing(one) else str(one) for one in held)


def turns_of(about: Story) -> list[Turn]:
    """Return the turns of a conversation about a story, in the words of lm-evaluation-harness (`coqa/utils.py`)."""
    turns, so_far = [], f"{about.story}\n\n"
    for number, (question, answer) in enumerate(zip(about.questions, about.answers, strict=True)):
        last = number == len(about.questions) - 1
        # Training tables fill the answers of others with one blank text.
        given = [answer, *(own[number] for own in about.others if number < len(own) and own[number].strip())]
        seen: dict[str, str] = {}
        for text in given:
            # As the harness leaves out what was said before in other case.
            seen.setdefault(text.lower(), text)
        alone = (f"{about.story}\n\nQ: {question}\n\n", "A:" if last else f"A: {answer}")
        turns.append(Turn(f"{so_far}Q: {question}\n\nA:", tuple(seen.values()), alone, last))
        so_far += f"Q: {question}\n\nA: {answer}\n\n"
    return turns


def _listed(cell: Any, column: str) -> list[Any]:  # noqa: ANN401 - a cell of a table
    """Return a list, also of a cell that holds it as json text (as csv does)."""
    if isinstance(cell, str):
        try:
            cell = json.loads(cell)
        except (ValueError, RecursionError) as error:
            raise InputError(f"column {column!r} holds {cell[:40]!r}, not a list") from error
    if not isinstance(cell, list):
        raise InputError(f"column {column!r} holds {str(cell)[:40]!r}, not a list")
    return cell


def _under(*parts: object) -> str:
    """Return texts below each other, a blank line between; those that are missing or blank are left out."""
    return "\n\n".join(str(part).strip() for part in parts if not is_missing(part) and str(part).strip())


def _instruction(row: Row) -> Iterator[dict[str, Any]]:
    more = row["input"] if "input" in row else row["context"]
    yield {"text": _under(row["instruction"], more), "target": row["output"] if "output" in row else row["response"]}


def _orca(row: Row) -> Iterator[dict[str, Any]]:
    yield {"text": _under(row["system_prompt"], row["question"]), "target": row["response"]}


def _dart(row: Row) -> Iterator[dict[str, Any]]:
    notes = row.get("annotations.text")
    if notes is None and "annotations" in row:
        notes = [one.get("text") for one in _listed(row["annotations"], "annotations") if isinstance(one, dict)]
    notes = row.get("references") or notes or row.get("target")
    yield {"text": triples_text(_listed(row["tripleset"], "tripleset")), "target": notes}


def _web_nlg(row: Row) -> Iterator[dict[str, Any]]:
    (first, *_) = _listed(row["modified_triple_sets.mtriple_set"], "modified_triple_sets.mtriple_set") or [[]]
    yield {"text": triples_text(str(one).split(" | ") for one in first), "target": row["lex.text"]}


def _concepts(row: Row) -> Iterator[dict[str, Any]]:
    yield {"text": " ".join(map(str, _listed(row["concepts"], "concepts"))), "target": row["target"]}


def _squad(row: Row) -> Iterator[dict[str, Any]]:
    yield {"text": _under(row["context"], row["question"]), "target": row["answers.text"]}


def _squad_paragraphs(row: Row) -> Iterator[dict[str, Any]]:
    for paragraph in _listed(row["paragraphs"], "paragraphs"):
        for asked in paragraph["qas"]:
            answers = [one["text"] for one in asked["answers"]]
            yield {"text": _under(paragraph["context"], asked["question"]), "target": answers}


def _coqa(row: Row) -> Iterator[dict[str, Any]]:
    read = story_of(row)
    for turn, answer in zip(turns_of(read), read.answers, strict=True):
        yield {"text": turn.prompt, "target": answer}


_ROLES: Final = {
    "human": "user",
    "user": "user",
    "prompter": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    "assistant": "assistant",
    "model": "assistant",
    "system": "system",
    "tool": "tool",
}


def _conversation(row: Row) -> Iterator[dict[str, Any]]:
    """Yield every answer of the assistant with the messages before it."""
    name = "messages" if "messages" in row else "conversations"
    before: list[dict[str, str]] = []
    for number, turn in enumerate(_listed(row[name], name)):
        told = turn if isinstance(turn, dict) else {}
        said = told["role"] if "role" in told else told.get("from")
        content = told["content"] if "content" in told else told.get("value")
        role = _ROLES.get(str(said).lower())
        if role is None or not isinstance(content, str):
            raise InputError(
                f"turn {number} of {name} holds {str(turn)[:60]!r}",
                "give each a role (user, assistant, system) and its content, or from (human, gpt) and value",
            )
        if role == "assistant" and before:
            yield {"text": list(before), "target": content}
        before.append({"role": role, "content": content})


def _labelled_choices(row: Row) -> Iterator[dict[str, Any]]:
    """Choices with letters of their own (ARC, CommonsenseQA, OpenBookQA); original files nest them in the question."""
    asked = next(row[name] for name in ("question_stem", "question.stem", "question") if name in row)
    nested = row.get("question.choices")
    if nested is None:
        texts, letters = row["choices.text"], row["choices.label"]
    else:
        texts, letters = [one["text"] for one in nested], [one["label"] for one in nested]
    letters = list(map(str, _listed(letters, "choices.label")))
    key = str(row["answerKey"])
    if key not in letters:
        raise InputError(
            f"answerKey is {key!r}, which none of the choices has", allowed=f"allowed: {', '.join(letters)}"
        )
    yield {"text": asked, "choices": texts, "label": letters.index(key)}


def _numbered(*columns: str, first: int) -> Callable[[Row], Any]:
    """Return what reads choices from columns of their own, and the label as the number of one, from `first`."""

    def read(row: Row) -> dict[str, Any]:
        label = row["answer"] if "label" not in row else row["label"]
        text = str(label).strip()
        if not text.isdecimal() or not 0 <= int(text) - first < len(columns):
            raise InputError(f"the label is {text!r}", allowed=f"allowed: {first} to {first + len(columns) - 1}")
        return {"choices": [row[name] for name in columns], "label": int(text) - first}

    return read


_PIQA, _COPA = _numbered("sol1", "sol2", first=0), _numbered("choice1", "choice2", first=0)
_WINOGRANDE = _numbered("option1", "option2", first=1)
_SOCIAL = _numbered("answerA", "answerB", "answerC", first=1)
_SWAG = _numbered("ending0", "ending1", "ending2", "ending3", first=0)


def _piqa(row: Row) -> Iterator[dict[str, Any]]:
    yield {"text": row["goal"], **_PIQA(row)}


def _copa(row: Row) -> Iterator[dict[str, Any]]:
    """The premise with "because" or "so", and choices that go on from it, as lm-evaluation-harness asks it."""
    found = _COPA(row)
    link = {"cause": "because", "effect": "so"}.get(str(row["question"]))
    if link is None:
        raise InputError(f"the question is {str(row['question'])[:40]!r}", allowed="allowed: cause, effect")
    choices = [one[:1].lower() + one[1:] if isinstance(one, str) else one for one in found["choices"]]
    yield {"text": f"{str(row['premise']).strip().rstrip('.')} {link}", "choices": choices, "label": found["label"]}


def _winogrande(row: Row) -> Iterator[dict[str, Any]]:
    """The sentence up to its gap, and what fills it with the rest of the sentence."""
    found = _WINOGRANDE(row)
    before, gap, after = str(row["sentence"]).partition("_")
    if not gap:
        raise InputError("the sentence has no gap '_'", "give WinoGrande's own sentences")
    yield {"text": before, "choices": [f"{one}{after}" for one in found["choices"]], "label": found["label"]}


def _social(row: Row) -> Iterator[dict[str, Any]]:
    yield {"text": _under(row["context"], row["question"]), **_SOCIAL(row)}


def _race(row: Row) -> Iterator[dict[str, Any]]:
    yield {"text": _under(row["article"], row["question"]), "choices": row["options"], "label": row["answer"]}


def _swag(row: Row) -> Iterator[dict[str, Any]]:
    yield {"text": row["startphrase"], **_SWAG(row)}


_CHOSEN: Final = {"choices": "choices.text", "label": "answerKey"}
SHAPES: Final = (
    # ---- a text or two, with a label ----
    Shape(
        "SNLI, MultiNLI or XNLI as published",
        ("sentence1", "sentence2", "gold_label"),
        {"text": "sentence1", "text_pair": "sentence2", "label": "gold_label"},
    ),
    Shape(
        "ANLI as published",
        ("uid", "context", "hypothesis", "label"),
        {"text": "context", "text_pair": "hypothesis", "label": "label"},
    ),
    Shape(
        "Quora's question pairs",
        ("question1", "question2", "is_duplicate"),
        {"text": "question1", "text_pair": "question2", "label": "is_duplicate"},
    ),
    Shape(
        "MRPC as published",
        ("quality", "#1 string", "#2 string"),
        {"text": "#1 string", "text_pair": "#2 string", "label": "quality"},
    ),
    Shape(
        "CoLA as published",
        ("code", "label", "mark", "sentence"),
        {"text": "sentence", "label": "label"},
    ),
    Shape(
        "STS-B",
        ("sentence1", "sentence2", "score"),
        {"text": "sentence1", "text_pair": "sentence2", "label": "score"},
        lacks=("label",),
    ),
    Shape(
        "SICK",
        ("sentence_a", "sentence_b", "label"),
        {"text": "sentence_a", "text_pair": "sentence_b", "label": "label"},
    ),
    Shape(
        "BoolQ",
        ("question", "passage", "answer"),
        {"text": "question", "text_pair": "passage", "label": "answer"},
    ),
    Shape(
        "BoolQ of SuperGLUE",
        ("question", "passage", "label"),
        {"text": "question", "text_pair": "passage", "label": "label"},
        lacks=("answer",),
    ),
    Shape(
        "reviews or articles with a title (Amazon, DBpedia)",
        ("title", "content", "label"),
        {"text": "content", "label": "label"},
    ),
    # ---- several choices ----
    Shape("HellaSwag", ("ctx", "endings", "label"), {"text": "ctx", "choices": "endings", "label": "label"}),
    Shape(
        "ARC, CommonsenseQA or OpenBookQA as published",
        ("question.stem", "question.choices", "answerkey"),
        {"text": "question.stem", "choices": "question.choices", "label": "answerKey"},
        _labelled_choices,
    ),
    Shape(
        "OpenBookQA",
        ("question_stem", "choices.text", "choices.label", "answerkey"),
        {"text": "question_stem", **_CHOSEN},
        _labelled_choices,
    ),
    Shape(
        "ARC or CommonsenseQA",
        ("question", "choices.text", "choices.label", "answerkey"),
        {"text": "question", **_CHOSEN},
        _labelled_choices,
    ),
    Shape(
        "PIQA",
        ("goal", "sol1", "sol2", "label"),
        {"text": "goal", "choices": "sol1 + sol2", "label": "label"},
        _piqa,
    ),
    Shape(
        "COPA",
        ("premise", "choice1", "choice2", "question", "label"),
        {"text": "premise + question", "choices": "choice1 + choice2", "label": "label"},
        _copa,
    ),
    Shape(
        "WinoGrande",
        ("sentence", "option1", "option2", "answer"),
        {"text": "sentence (up to its gap)", "choices": "option1 + option2 + sentence", "label": "answer"},
        _winogrande,
    ),
    Shape(
        "Social IQa",
        ("context", "question", "answera", "answerb", "answerc", "label"),
        {"text": "context + question", "choices": "answerA + answerB + answerC", "label": "label"},
        _social,
    ),
    Shape(
        "RACE",
        ("article", "question", "options", "answer"),
        {"text": "article + question", "choices": "options", "label": "answer"},
        _race,
    ),
    Shape(
        "SWAG",
        ("startphrase", "sent1", "sent2", "ending0", "ending1", "ending2", "ending3", "label"),
        {"text": "startphrase", "choices": "ending0 + ending1 + ending2 + ending3", "label": "label"},
        _swag,
    ),
    # ---- a text for a text ----
    Shape(
        "CoQA",
        ("story", "questions"),
        {"text": "story + questions", "target": "answers"},
        _coqa,
    ),
    Shape(
        "CoQA with the answers of others",
        ("story", "questions.input_text", "answers.input_text"),
        {"text": "story + questions.input_text", "target": "answers.input_text"},
        _coqa,
    ),
    Shape(
        "SQuAD as published",
        ("title", "paragraphs"),
        {"text": "paragraphs (context + question)", "target": "paragraphs (answers)"},
        _squad_paragraphs,
    ),
    Shape(
        "SQuAD",
        ("context", "question", "answers.text", "answers.answer_start"),
        {"text": "context + question", "target": "answers.text"},
        _squad,
    ),
    Shape(
        "Alpaca",
        ("instruction", "input", "output"),
        {"text": "instruction + input", "target": "output"},
        _instruction,
    ),
    Shape(
        "Dolly",
        ("instruction", "context", "response"),
        {"text": "instruction + context", "target": "response"},
        _instruction,
    ),
    Shape(
        "OpenOrca",
        ("system_prompt", "question", "response"),
        {"text": "system_prompt + question", "target": "response"},
        _orca,
    ),
    Shape(
        "conversations (UltraChat, chat models' messages)",
        ("messages",),
        {"text": "messages", "target": "messages (assistant)"},
        _conversation,
    ),
    Shape(
        "conversations (ShareGPT)",
        ("conversations",),
        {"text": "conversations", "target": "conversations (assistant)"},
        _conversation,
    ),
    Shape("DART of GEM", ("tripleset", "references"), {"text": "tripleset", "target": "references"}, _dart),
    Shape("DART", ("tripleset", "annotations.text"), {"text": "tripleset", "target": "annotations.text"}, _dart),
    Shape(
        "DART as published", ("tripleset", "annotations"), {"text": "tripleset", "target": "annotations.text"}, _dart
    ),
    Shape(
        "WebNLG",
        ("modified_triple_sets.mtriple_set", "lex.text"),
        {"text": "modified_triple_sets.mtriple_set", "target": "lex.text"},
        _web_nlg,
    ),
    Shape("CommonGen", ("concepts", "target"), {"text": "concepts", "target": "target"}, _concepts),
    Shape(
        "E2E",
        ("meaning_representation", "human_reference"),
        {"text": "meaning_representation", "target": "human_reference"},
    ),
    Shape("E2E as published", ("mr", "ref"), {"text": "mr", "target": "ref"}),
    Shape("CNN/DailyMail", ("article", "highlights"), {"text": "article", "target": "highlights"}),
    Shape("SAMSum", ("dialogue", "summary"), {"text": "dialogue", "target": "summary"}),
)
"""The known shapes; of those that fit the first one counts."""


def shape_of(names: Iterable[str]) -> Shape | None:
    """Return the known shape of a table with these columns, or None."""
    there = {name.lower() for name in names}
    fits = (one for one in SHAPES if there.issuperset(one.needs) and not there.intersection(one.lacks))
    return next(fits, None)


def conversations_of(table: Table, column: str) -> tuple[list[dict[str, str]], ...] | None:
    """Return the messages of each row where a made column holds conversations; None where it holds texts."""
    if table.origins is None or not any(isinstance(cell, list) for cell in table.first(column, 1)):
        return None
    return tuple(table.column(column))


def as_known_shape(table: Table, given: Iterable[str | None] = ()) -> Table:
    """Return a table of a known shape with its roles, and with the texts that are made of its columns.

    Where the user named a column (`given`), the columns stay as they are, and those of a made shape have no roles. A
    table that has roles already is returned as it is.

    Raises:
        InputError: it holds translations, and which of the languages is the source is not said; or a row does not
            hold what rows of its shape do.
    """
    if table.roles:
        return table
    named = any(name not in (None, NO_COLUMN) for name in given)
    names = table.names
    languages = [name for name in names if name.startswith("translation.")]
    if len(languages) > 1 and not named:
        raise InputError(
            f"{table.source} holds translations ({', '.join(languages[:8])}), and which one is the source is not said",
            f"name them, such as --source {languages[0]} --target {languages[1]} (--text, --target of a probe)",
        )
    shape = shape_of(names)
    if shape is None or (shape.make is not None and named):
        return table
    note = f"{table.source} is of a known shape: {shape.name}"
    if shape.make is None:
        own = {name.lower(): name for name in reversed(names)}
        roles = {role: own[column.lower()] for role, column in shape.roles.items()}
        return replace(table, roles=roles, shape=shape.name, notes=(*table.notes, note))
    made, origins = _made(table, shape)
    return replace(
        table,
        rows=made,
        roles=shape.roles,
        shape=shape.name,
        origins=origins,
        notes=(*table.notes, note),
        class_names={},
    )


def _made(table: Table, shape: Shape) -> tuple[KeptRows, tuple[int, ...]]:
    """Return the rows of made columns, and of each the number of the row that it was made of."""
    made, origins = KeptRows(table.source), list[int]()
    rows: list[dict[str, Any]] = []

    def keep() -> None:
        columns = {name: [row.get(role) for row in rows] for role, name in shape.roles.items()}
        made.add(Rows.of(columns))
        rows.clear()

    for number, row in enumerate(table.each_row()):
        try:
            for one in shape.make(row) if shape.make is not None else ():
                rows.append(one)
                origins.append(number)
        except InputError as error:
            file, place = table.file_row(number)
            raise InputError(
                f"{file}, row {place} (counted from 0), of the shape of {shape.name}: {error.arrived}",
                error.remedy,
                allowed=error.allowed,
            ) from error
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            file, place = table.file_row(number)
            raise InputError(
                f"{file}, row {place} (counted from 0), does not hold what rows of the shape of {shape.name} do",
                "correct it, or name the columns",
            ) from error
        if len(rows) >= _ROWS_AT_ONCE:
            keep()
    if rows:
        keep()
    if not made.n_rows:
        raise InputError(f"{table.source}, of the shape of {shape.name}, has nothing to make an example of")
    return made, tuple(origins)
