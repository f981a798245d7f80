"""What is worth a warning in one plan, and in a set of plans that are to be compared."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from anglekit.distillation.matching.plan import DistillationPlan
from anglekit.distillation.matching.strategies import layer_name
from anglekit.vocabulary import NONE, RANDOM_TEACHER, WITHOUT_TEACHER

# What arms of a comparison may differ in: the strategy with its map, and the axes of a sweep's grid.
_FREE = ("strategy", "init", "seed", "encoder map", "decoder map")


def plan_warnings(plan: DistillationPlan) -> tuple[str, ...]:
    """Return one sentence for each trap in a plan."""
    found = [*_coincidences(plan), *_adapters(plan)]
    found += [
        f"the student's {one.stream} has {one.student_blocks} blocks and the teacher's {one.teacher_blocks}: it is the "
        "deeper one"
        for one in plan.matchings
        if one.student_blocks > one.teacher_blocks
    ]
    if plan.freeze_embeddings and plan.init == "random":
        found.append(
            "frozen random embeddings: the embeddings (and the head tied to them) are initialised at random and never "
            "trained; do not freeze them, or use --init teacher"
        )
    if plan.matched_as == "uniform" and plan.weights.kl == 0:
        found.append("strategy 'uniform' matches the head by the KL, which has weight 0")
    if plan.weights.hidden == 0 and plan.matched_as != NONE:
        found.append(f"the hidden loss has weight 0, so strategy {plan.strategy!r} trains the same student as 'none'")
    return tuple(found)


def _coincidences(plan: DistillationPlan) -> list[str]:
    """Say where a random or user-made map, or a one-block student, is another strategy in disguise."""
    found = []
    for matching in plan.matchings:
        for twin in matching.coincides_with():
            if matching.strategy == "random":
                # Two blocks have two orders, and both have a name.
                few = matching.student_blocks < 3
                advice = (
                    "every order of so few blocks is one of them" if few else "choose another seed to tell them apart"
                )
                found.append(
                    f"the {matching.stream}'s random order, drawn with seed {matching.seed}, equals strategy {twin!r}; "
                    f"{advice}"
                )
            else:
                found.append(
                    f"the {matching.stream}'s {matching.strategy} map teaches every block as strategy {twin!r} does"
                )
    return found


def _adapters(plan: DistillationPlan) -> list[str]:
    """Say which adapters would not be trained; an untrained one says nothing about the student."""
    if plan.student_width == plan.teacher_width:
        return []
    widths = f"the widths differ ({plan.student_width} and {plan.teacher_width})"
    if plan.matched_as == NONE or plan.weights.hidden == 0 or not plan.compares_states:
        return [
            f"{widths} and no hidden loss trains an adapter: the student can be analysed only with a fitted projection "
            "(least-squares or procrustes)"
        ]
    found = []
    if plan.reads_untrained_teacher:
        found.append(
            f"{widths} and the adapters of control {RANDOM_TEACHER!r} lead to its untrained teacher: angles at the "
            "trained one need a fitted projection (least-squares or procrustes)"
        )
    if not plan.train_adapters:
        found.append(f"{widths} and the adapters are not trained: the hidden loss pulls through random projections")
    for matching in plan.matchings:
        if matching.unmatched_layers:
            layers = ", ".join(layer_name(layer) for layer in matching.unmatched_layers)
            found.append(
                f"{widths} and the {matching.stream}'s {layers} is not matched, so no adapter is trained there: its "
                "angles need a fitted projection"
            )
    return found


def comparison_warnings(plans: Sequence[DistillationPlan]) -> tuple[str, ...]:
    """Return what spoils a comparison of strategies: anything but the strategy that differs between its arms.

    Initialisations and seeds may differ when every strategy has the same ones. Arms that would train the same student
    under two names are named too. Controls differ by what they are for.

    Args:
        plans: the arms, in any order.
    """
    arms = [plan for plan in plans if plan.control is None]
    controls = [plan for plan in plans if plan.control is not None]
    return (*_other_differences(arms), *_uneven_grid(plans), *_equal_arms(arms), *_idle_controls(arms, controls))


def _idle_controls(arms: Sequence[DistillationPlan], controls: Sequence[DistillationPlan]) -> list[str]:
    """Say which control takes nothing away."""
    if any(plan.control == WITHOUT_TEACHER for plan in controls) and any(plan.weights.kl == 0 for plan in arms):
        return [f"the KL has weight 0, so control {WITHOUT_TEACHER!r} trains the same student as {NONE!r}"]
    return []


def _other_differences(plans: Sequence[DistillationPlan]) -> list[str]:
    values: dict[tuple[str, str], dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    all_facts = [plan.facts() for plan in plans]
    copied = [name for facts in all_facts for name in facts if name.endswith("blocks copied")]
    for facts, plan in zip(all_facts, plans, strict=True):
        for name in dict.fromkeys(name for other in all_facts for name in other):
            # Only arms that copy have a copy map to compare.
            if name not in _FREE and (name in facts or name not in copied):
                # Given students have shapes of their own, and are compared with themselves.
                of = plan.init if name.startswith("student ") else ""
                arms = values[name, of][str(facts.get(name, "absent"))]
                if plan.strategy not in arms:
                    arms.append(plan.strategy)
    return [
        f"the arms differ in more than the strategy: {name} is "
        + " and ".join(f"{value} for {', '.join(arms)}" for value, arms in by_value.items())
        for (name, _), by_value in values.items()
        if len(by_value) > 1
    ]


def _uneven_grid(plans: Sequence[DistillationPlan]) -> list[str]:
    cells: dict[str, set[tuple[str, int]]] = defaultdict(set)
    for plan in plans:
        cells[plan.strategy].add((plan.init, plan.seed))
    everywhere = set().union(*cells.values()) if cells else set()
    return [
        f"strategy {strategy!r} has no arm with "
        + ", ".join(f"init {init} and seed {seed}" for init, seed in sorted(everywhere - present))
        + ", which others have; compare strategies within one initialisation and seed"
        for strategy, present in cells.items()
        if everywhere - present
    ]


def _equal_arms(plans: Sequence[DistillationPlan]) -> list[str]:
    names: dict[str, list[str]] = defaultdict(list)
    for plan in plans:
        facts = plan.facts()
        del facts["strategy"]
        names[repr(facts)].append(plan.strategy)
    return [
        f"the arms {', '.join(same)} train the same student: their maps and all else agree"
        for same in names.values()
        if len(same) > 1
    ]
