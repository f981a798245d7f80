"""A plan as text for a terminal: who teaches whom, in a table that needs no manual."""

from __future__ import annotations

import textwrap

from anglekit.display.tables import TextTable, aligned_text
from anglekit.distillation.matching.plan import DistillationPlan, PlannedStudent, StreamPlan
from anglekit.distillation.matching.strategies import EXPLICIT, MODEL_FAMILIES, layer_name
from anglekit.distillation.students.given import HEAD_WORDS
from anglekit.readings import OFFICIAL_TYPES, reading_rows
from anglekit.vocabulary import NONE, RANDOM_TEACHER, STRATEGIES, WITHOUT_TEACHER

_CONTROL_WORDS = {
    WITHOUT_TEACHER: "of the strategy below without its KL: the student learns from labels only, and no teacher runs",
    RANDOM_TEACHER: (
        "of the strategy below: hidden states are those of an untrained teacher of the same shape, which runs once a "
        "batch beside the trained one; labels and KL stay"
    ),
}


def plan_text(plan: DistillationPlan) -> str:
    """Return the plan's teacher, student, strategy and losses, and a table for each stream."""
    depth = " + ".join(f"{part.matching.student_blocks} {part.stream}" for part in plan.streams)
    teacher_depth = " + ".join(f"{part.matching.teacher_blocks} {part.stream}" for part in plan.streams)
    made = "copied from the teacher" if plan.init == "teacher" else "initialised at random"
    start = made if plan.student is None else f"given, {plan.student.name} ({_given_words(plan.student)})"
    strategy = plan.matched_as
    about = "a map of your own" if strategy == EXPLICIT else STRATEGIES[strategy].description
    terms = [f"{plan.weights.ce:g} x cross-entropy"]
    terms += [] if plan.control == WITHOUT_TEACHER else [f"{plan.weights.kl:g} x KL"]
    terms += [f"{plan.weights.hidden:g} x hidden ({plan.hidden_loss})"] if strategy != NONE else []
    lines = [
        f"teacher   {plan.teacher} ({plan.model_type}): {teacher_depth} blocks, width {plan.teacher_width}",
        f"student   {depth} blocks, width {plan.student_width}, {start}, seed {plan.seed}",
        f"strategy  {strategy}: {about}",
        f"loss      {' + '.join(terms)}, {plan.reading} reading",
    ]
    if plan.heads:
        lines.insert(2, f"heads     {plan.heads}")
    if plan.student is not None:
        lines.insert(2, f"head      {_head_words(plan.student)}")
    if plan.control is not None:
        lines.insert(2, f"control   {plan.control}, {_CONTROL_WORDS[plan.control]}")
    if plan.needs_adapters:
        number = sum(len(matching.student_layers) for matching in plan.matchings)
        how = ("with a bias" if plan.adapter_bias else "no bias") + ("" if plan.train_adapters else ", never trained")
        lines.append(f"adapters  {number}, each {plan.student_width} to {plan.teacher_width}, {how}")
    if plan.student is not None and plan.student.entries is not None:
        theirs, own = plan.student.entries
        lines.append(
            f"entries   {theirs} of the teacher's vocabulary, {own} of the student's: a KL of tokens is over the "
            "first that both share, each side renormalised"
        )
    if plan.reading == "official":
        ran = OFFICIAL_TYPES[MODEL_FAMILIES[plan.family].official_losses]
        never = "" if plan.model_type in ran else f" (its program for {', '.join(ran)}; {plan.model_type} it never ran)"
        lines += [
            "",
            f"official reading, where the paper's code differs from a careful run{never}",
            textwrap.indent(_differs(plan), "  "),
        ]
    for part in plan.streams:
        lines += ["", part.stream, textwrap.indent(aligned_text(_table(plan, part)), "  ")]
    return "\n".join(lines)


def _differs(plan: DistillationPlan) -> str:
    """Return the items in which the readings of the plan's family differ, as a table."""
    rows = reading_rows(MODEL_FAMILIES[plan.family].official_losses)
    return aligned_text(TextTable("", ("item", "official", "corrected"), tuple(row[:3] for row in rows)))


def _given_words(student: PlannedStudent) -> str:
    return f"{student.model_type}, {student.source}"


def _head_words(student: PlannedStudent) -> str:
    saved = f" of {student.saved_as}" if student.saved_as else ""
    if student.head is None and student.saved_as.endswith("Model") and "Head" not in student.saved_as:
        return (
            f"none in the checkpoint ({student.saved_as}): made anew from the seed, unless it is tied to the embeddings"
        )
    if student.head is None:
        return f"that in the checkpoint{saved}, where it is the task's; else made anew from the seed"
    return HEAD_WORDS[student.head] + (saved if student.head == "kept" else "")


def _table(plan: DistillationPlan, part: StreamPlan) -> TextTable:
    rows, made = [], part.matching.taught_by() if part.matching.groups else {}
    for row in part.matching.table():
        layer = row["student_layer"]
        origin = "embedding" if layer == 0 else f"block {part.blocks[layer - 1]}"
        taught_by = made.get(layer, "-") if row["taught_by"] is None else _numbered(row["taught_by"])
        rows.append((_numbered(layer), taught_by, origin if plan.init == "teacher" else "-"))
    return TextTable("", ("student layer", "taught by", "copied from"), tuple(rows))


def _numbered(layer: int) -> str:
    """Return "0 (embedding)" or "4 (block 3)": layers count the embedding, blocks do not."""
    return f"{layer} ({layer_name(0)})" if layer == 0 else f"{layer} (block {layer - 1})"
