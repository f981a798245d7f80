"""The model card of a finished run: README.md of its checkpoint, which the Hub shows and reads.

All numbers are those of the run's own files, and the intervals are those of `compare`. What comes from outside (names,
columns, labels) is escaped. Of paths only the last part is named.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pandas as pd
from huggingface_hub import EvalResult, ModelCardData
from matplotlib.figure import Figure

from anglekit.comparison.cells import score_cells, score_unit
from anglekit.comparison.statistics import level_rows
from anglekit.comparison.wording import level, weights_words
from anglekit.display.counts import counted
from anglekit.display.tables import TextTable, markdown_table, markdown_text
from anglekit.distillation.matching.plan import DistillationPlan
from anglekit.distillation.runs.directory import CARD_FILE, SCORES_FIGURE, RunConfig, RunDirectory, RunProvenance
from anglekit.distillation.students.given import HEAD_WORDS, GivenProvenance
from anglekit.distillation.tasks.registry import task_by_name
from anglekit.models.checkpoint_files import CORRECTIONS_CONFIG
from anglekit.plots.files import figure_bytes
from anglekit.plots.model_scores import draw_model_scores
from anglekit.results.example_scores import ExampleScores
from anglekit.results.scores import RunScores, ScoreRow
from anglekit.runtime.files import write_whole
from anglekit.vocabulary import (
    CONTROL_ARMS,
    MULTI_LABEL,
    RANDOM_TEACHER,
    REGRESSION,
    SCORE_RANGES,
    STRATEGIES,
    WITHOUT_TEACHER,
)

#: The line of the card's program that names the checkpoint.
THIS_DIRECTORY: Final = 'checkpoint = "."  # this directory, or its name on the Hub'
_DPI: Final = 150
_GENERATES: Final = (
    "text-generation",
    "tokens = model.generate(batch.input_ids, attention_mask=batch.attention_mask, max_new_tokens=40)\n"
    "print(tokenizer.decode(tokens[0], skip_special_tokens=True))",
)
# By transformers' auto class: what the Hub calls the task, and what the program does with a text.
_PROGRAMS: Final[Mapping[str, tuple[str, str]]] = {
    "AutoModelForSequenceClassification": (
        "text-classification",
        "print(model.config.id2label[model(**batch).logits.argmax(-1).item()])",
    ),
    "AutoModelForSeq2SeqLM": _GENERATES,
    "AutoModelForCausalLM": _GENERATES,
}
#: What the program does with the outputs for labels that are not one class.
_OUTPUTS_READ: Final[Mapping[str | None, str]] = {
    MULTI_LABEL: "print([model.config.id2label[n] for n, one in enumerate(model(**batch).logits[0]) if one > 0])",
    REGRESSION: "print(model(**batch).logits.item())",
}
_SETTINGS: Final = (
    *("epochs", "max_steps", "batch_size", "accumulation", "learning_rate", "schedule", "warmup", "optimizer"),
    *("weight_decay", "max_grad_norm", "label_smoothing", "class_weights", "max_length", "target_max_length", "select"),
    "lora_rank",
)


@dataclass(frozen=True, eq=False)
class CardFacts:
    """What a card is made of: the documents of a run.

    Attributes:
        name: of the run.
        config: what decided its result.
        plan: of a student; None of a model that was fine-tuned.
        provenance: versions, data and the model that it came from.
        scores: of the model, its teacher and the untrained student.
        examples: behind the scores.
        peft: whether the checkpoint has LoRA's corrections beside its weights.
    """

    name: str
    config: RunConfig
    plan: DistillationPlan | None
    provenance: RunProvenance
    scores: RunScores
    examples: ExampleScores
    peft: bool = False

    @property
    def model(self) -> str:
        """What the trained model is called among its scores."""
        return "model" if self.plan is None else "student"

    def levels(self) -> pd.DataFrame:
        """Return a row for each table, score and model, in this order, with its 95% interval over examples.

        Columns: `data, score, model, examples, value, low, high, chance, margin, text`; the last has the score and its
        interval in words, with as many digits as one point (`margin`) calls for. Intervals end where the score does.
        """
        scored: Mapping[str, Sequence[ScoreRow]] = {
            "teacher": self.scores.teacher,
            "student": self.scores.scores,
            "untrained": self.scores.untrained,
        }
        rows, by_example = [], {}
        for model, own in scored.items():
            for row in own:
                for score, value in row.items():
                    if score == "examples" or isinstance(value, bool) or not isinstance(value, int | float):
                        continue
                    data = str(row["data"])
                    rows.append((model, "", 0, data, score, float(value), ""))
                    if (model, data) in self.examples and math.isfinite(value):
                        by_example[model, "", 0, data, score] = self.examples.values(model, data, score)
        counts = {str(row["data"]): int(str(row["examples"])) for row in self.scores.scores if "examples" in row}
        table = pd.DataFrame(rows, columns=["strategy", "init", "seed", "data", "score", "value", "source"])
        found = []
        for cell in score_cells(table, by_example, counts)[0]:
            data, score = str(cell.place["data"]), str(cell.place["score"])
            of_models = {row["strategy"]: row for row in level_rows(cell)}
            margin = 0.01 * score_unit(row["mean"] for row in of_models.values())
            about = {"part": "score", "score": score, "margin": margin}
            for model in scored:
                if model not in of_models:
                    continue
                value, low, high = (of_models[model][name] for name in ("mean", "low", "high"))
                # The interval is a t interval, which knows no bounds.
                least, greatest = SCORE_RANGES.get(score, (-math.inf, math.inf))
                if math.isfinite(low):
                    low, high = max(low, least), min(high, greatest)
                words = level(value, about) if math.isfinite(value) else str(value)
                if math.isfinite(low):
                    words += f" ({level(low, about)} to {level(high, about)})"
                chance = self.scores.chance.get(data, {}).get(score, math.nan)
                named = self.model if model == "student" else model
                found.append((data, score, named, counts.get(data), value, low, high, chance, margin, words))
        columns = ["data", "score", "model", "examples", "value", "low", "high", "chance", "margin", "text"]
        return pd.DataFrame(found, columns=columns)


def model_card(facts: CardFacts) -> str:
    """Return the card: metadata as YAML, and the text in markdown. It shows `SCORES_FIGURE` where there are scores."""
    levels = facts.levels()
    parts = [f"# {markdown_text(facts.name)}", _summary(facts)]
    if len(levels):
        parts += ["## Scores", markdown_table(_score_table(levels, facts)), _score_note(levels, facts)]
        parts += [f"![Scores of the models, with 95% intervals]({SCORES_FIGURE})"]
    parts += ["## How to load it", _program(facts)]
    if facts.plan is not None:
        parts += ["## How it was taught", markdown_table(_facts_table(_taught(facts, facts.plan)))]
        if any(matching.student_layers for matching in facts.plan.matchings):
            parts.append(markdown_table(_map_table(facts.plan)))
            parts.append("Layer 0 is the embedding output, layer b + 1 the output of block b.")
    parts += ["## How it was trained", markdown_table(_facts_table(_trained(facts)))]
    parts += ["## Data", markdown_table(_data_table(facts))]
    versions = ", ".join(
        f"{markdown_text(name)} {markdown_text(one)}" for name, one in facts.provenance.versions.items()
    )
    parts.append(f"Made with {versions}.")
    return f"---\n{_metadata(facts, levels).to_yaml()}\n---\n\n" + "\n\n".join(parts) + "\n"


def scores_figure(facts: CardFacts) -> Figure | None:
    """Return the figure of the task's own score; None where nothing was scored."""
    levels = facts.levels()
    primary = facts.scores.primary or (None if levels.empty else levels["score"].iloc[0])
    shown = levels[(levels["score"] == primary) & levels["value"].map(math.isfinite)]
    return None if shown.empty else draw_model_scores(shown, str(primary))


def write_card(facts: CardFacts, checkpoint: Path) -> Figure | None:
    """Write the card into a checkpoint, with its figure, which is returned; None where nothing was scored."""
    figure = scores_figure(facts)
    if figure is not None:
        (checkpoint / SCORES_FIGURE).write_bytes(figure_bytes(figure, "png", dpi=_DPI))
    write_whole(checkpoint / CARD_FILE, model_card(facts))
    return figure


def finished_facts(directory: RunDirectory) -> CardFacts:
    """Return what the card of a finished run is made of, from its files.

    Raises:
        InputError: a file is missing or damaged.
    """
    return CardFacts(
        directory.path.resolve().name,
        *directory.origins(),
        directory.provenance(),
        directory.scores(),
        directory.kept_examples() or ExampleScores({}),
        (directory.checkpoint / CORRECTIONS_CONFIG).exists(),
    )


def _summary(facts: CardFacts) -> str:
    origin = markdown_text(facts.provenance.origin.source_name)
    task = markdown_text(facts.config.task)
    made = f"anglekit {markdown_text(facts.provenance.versions.get('anglekit', ''))}"
    plan = facts.plan
    if plan is None:
        return f"**{origin}**, fine-tuned on the task {task} by {made}."
    depth = " + ".join(counted(part.matching.student_blocks, "block", part.stream) for part in plan.streams)
    start = markdown_text(weights_words(plan.init))
    matching = "without layer matching"
    if _matches(plan):
        matching = f"under the layer matching *{markdown_text(plan.matched_as)}*"
    if not _is_taught(plan):
        control = "" if plan.control is None else f" It is the control *{plan.control}* of that teacher's students."
        return (
            f"A model with {depth}, from {start}, trained on the labels of the task {task} alone by {made}. It saw "
            f"neither predictions nor hidden states of the teacher **{origin}**.{control}"
        )
    taught = f"A student of **{origin}** with {depth}, from {start}, distilled on the task {task} {matching} by {made}."
    if plan.control == RANDOM_TEACHER and _matches(plan):
        predictions = ", while the KL is to the trained teacher's predictions" if plan.weights.kl > 0.0 else ""
        taught += (
            f" It is the control *{RANDOM_TEACHER}*: the hidden states that it was matched with are those of an "
            f"untrained teacher of the same shape{predictions}. Labels are those of the data."
        )
    return taught


def _matches(plan: DistillationPlan) -> bool:
    """Whether hidden states taught the student."""
    return plan.weights.hidden > 0.0 and any(matching.student_layers for matching in plan.matchings)


def _is_taught(plan: DistillationPlan) -> bool:
    """Whether any teacher taught the student."""
    return plan.weights.kl > 0.0 or _matches(plan)


def _score_table(levels: pd.DataFrame, facts: CardFacts) -> TextTable:
    models = [name for name in ("teacher", facts.model, "untrained") if (levels["model"] == name).any()]
    # No such level is known of texts that a model writes.
    constant = levels["chance"].notna().any()
    rows = []
    for (data, score), own in levels.groupby(["data", "score"], sort=False):
        texts = dict(zip(own["model"], own["text"], strict=True))
        chance, about = own["chance"].iloc[0], {"part": "score", "score": score, "margin": own["margin"].iloc[0]}
        examples = own["examples"].iloc[0]
        row = [str(data), "" if pd.isna(examples) else f"{int(examples):,}", str(score)]
        row += [texts.get(name, "") for name in models]
        rows.append((*row, *(["" if pd.isna(chance) else level(chance, about)] if constant else [])))
    columns = ("table", "examples", "score", *models, *(["one answer to all"] if constant else []))
    return TextTable("", columns, tuple(rows))


def _score_note(levels: pd.DataFrame, facts: CardFacts) -> str:
    constant = " *one answer to all*: what the best constant answer reaches." if levels["chance"].notna().any() else ""
    untrained = " *untrained* is the student before its first step." if facts.scores.untrained else ""
    return (
        f"In brackets: 95% intervals over examples. They are about this {facts.model}; another seed gives another one."
        f"{untrained}{constant}"
    )


def _program(facts: CardFacts) -> str:
    task = task_by_name(facts.config.task)
    auto = task.model_class.__name__
    lines = [
        f"from transformers import {auto}, AutoTokenizer",
        "",
        THIS_DIRECTORY,
        "tokenizer = AutoTokenizer.from_pretrained(checkpoint)",
        f"model = {auto}.from_pretrained(checkpoint)",
        'batch = tokenizer("a text", return_tensors="pt")',
        _OUTPUTS_READ.get(task.problem_type, _PROGRAMS[auto][1]),
    ]
    needs = "It needs the package peft: LoRA's corrections lie beside the weights.\n\n" if facts.peft else ""
    return needs + "```python\n" + "\n".join(lines) + "\n```"


def _facts_table(facts: Sequence[tuple[str, object]]) -> TextTable:
    return TextTable("", ("", ""), tuple((name, str(value)) for name, value in facts))


def _taught(facts: CardFacts, plan: DistillationPlan) -> list[tuple[str, object]]:
    strategy = STRATEGIES.get(plan.matched_as)
    on_labels, on_teacher = task_by_name(facts.config.task).loss_names
    terms = [f"{plan.weights.ce:g} x {on_labels}"]
    terms += [] if plan.control == WITHOUT_TEACHER else [f"{plan.weights.kl:g} x {on_teacher}"]
    if any(matching.student_layers for matching in plan.matchings):
        terms.append(f"{plan.weights.hidden:g} x hidden ({plan.hidden_loss})")
    origin = facts.provenance.origin
    teacher = "teacher" if _is_taught(plan) else "teacher, from which it did not learn"
    found: list[tuple[str, object]] = [
        (teacher, f"{origin.source_name} ({origin.architecture})"),
        ("teacher's sha256, head included", origin.sha256_with_head),
        ("matching", plan.matched_as + ("" if strategy is None else f": {strategy.description}")),
        ("initialisation", plan.init if plan.student is None else _given_words(plan, facts.provenance.student)),
        ("width", f"{plan.student_width} (the teacher's {plan.teacher_width})"),
        ("losses", f"{' + '.join(terms)}; {plan.reading} reading"),
    ]
    if plan.control is not None:
        found.insert(3, ("control", f"{plan.control}: {CONTROL_ARMS[plan.control].description}"))
    if plan.init == "teacher":
        found += [
            (f"{part.stream} blocks copied from", ", ".join(map(str, part.blocks)) + " (counted from 0)")
            for part in plan.streams
        ]
    return found


def _given_words(plan: DistillationPlan, student: object) -> str:
    if not isinstance(student, GivenProvenance):
        return plan.init
    return (
        f"{plan.init}: {student.source_name} ({student.architecture}, sha256 {student.sha256_with_head}), its head "
        f"{HEAD_WORDS[student.head]}"
    )


def _map_table(plan: DistillationPlan) -> TextTable:
    rows = [
        (one.stream, str(student), str(teacher))
        for one in plan.matchings
        for student, teacher in one.taught_by().items()
    ]
    return TextTable("", ("stream", "student layer", "taught by teacher layer"), tuple(rows), frozenset((1, 2)))


def _trained(facts: CardFacts) -> list[tuple[str, object]]:
    settings, scores = facts.config.settings, facts.scores
    found: list[tuple[str, object]] = [
        (name.replace("_", " "), settings[name]) for name in _SETTINGS if settings.get(name) is not None
    ]
    kept = "" if scores.selected_step == scores.steps else f", the best at step {scores.selected_step}"
    found += [("steps", f"{scores.steps:,}{kept}"), ("seconds of training", f"{scores.train_seconds:.0f}")]
    found += [("seed", facts.provenance.seed), ("precision", facts.provenance.precision)]
    labels = facts.config.labels
    return [*found, ("labels", ", ".join(labels))] if isinstance(labels, list) else found


def _data_table(facts: CardFacts) -> TextTable:
    rows = []
    for name, table in facts.provenance.data.items():
        columns = ", ".join(map(str, table.get("columns") or ()))
        rows.append(
            (
                name,
                _file(str(table.get("source", ""))),
                str(table.get("examples", "")),
                columns,
                str(table.get("sha256", "")),
            )
        )
    return TextTable("", ("table", "source", "examples", "columns", "sha256"), tuple(rows))


def _file(source: str) -> str:
    return source if source.startswith(("hub:", "builtin:")) else Path(source).name


def _metadata(facts: CardFacts, levels: pd.DataFrame) -> ModelCardData:
    """Return what the Hub reads. No licence: that is the user's to say."""
    origin, plan = facts.provenance.origin, facts.plan
    kind = _PROGRAMS[task_by_name(facts.config.task).model_class.__name__][0]
    hub = [
        str(table["source"]).split(":")[1]
        for table in facts.provenance.data.values()
        if str(table.get("source")).startswith("hub:")
    ]
    datasets = sorted({"/".join(name.split("/")[:2]) for name in hub})
    own = levels[(levels["model"] == facts.model) & levels["value"].map(math.isfinite)]
    results = [
        EvalResult(
            task_type=kind,
            dataset_type=_file(str(facts.provenance.data.get(row["data"], {}).get("source", ""))) or row["data"],
            dataset_name=row["data"],
            dataset_split=row["data"],
            metric_type=row["score"],
            metric_name=row["score"],
            metric_value=float(row["value"]),
        )
        for row in own.to_dict(orient="records")
    ]
    tags = ["anglekit"]
    if plan is not None:
        tags += ["distillation"] if _is_taught(plan) else []
        tags += ["layer-matching"] if _matches(plan) else []
    # A model that no teacher taught comes from one only where it was copied from it.
    comes_from = plan is None or _is_taught(plan) or plan.init == "teacher"
    optional: dict[str, Any] = {}
    if results:
        optional |= {
            "model_name": facts.name,
            "eval_results": results,
            "metrics": sorted({str(one) for one in own["score"]}),
        }
    return ModelCardData(
        library_name="transformers",
        pipeline_tag=kind,
        tags=tags,
        base_model=origin.source if origin.directory == "" and comes_from else None,
        datasets=datasets or None,
        **optional,
    )
