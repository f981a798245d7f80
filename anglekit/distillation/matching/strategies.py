"""Which teacher layer teaches which student layer, and which teacher blocks a student may be copied from.

Layers are numbered as everywhere in anglekit: 0 is the embedding output, `b + 1` the output of block `b`. Blocks count
from 0. The maps are those of Yu, Wen and Mou, "Revisiting Intermediate-Layer Matching in Knowledge Distillation:
Layer-Selection Strategy Doesn't Matter (Much)", arXiv 2502.04499, and of their public code.
"""

from __future__ import annotations

import random
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from anglekit.errors import InputError, suggest
from anglekit.readings import OFFICIAL_ORDER_SEED, decisions
from anglekit.runtime.files import convert_document
from anglekit.vocabulary import (
    ANGLE_AWARE,
    DRAWN,
    NONE,
    RANDOM_TEACHER,
    STRATEGIES,
    STREAMS,
    Reading,
    Stream,
    matches_layers,
)

#: The strategy name of a map that the user wrote. It is not in `STRATEGIES`, for nobody asks for it by name.
EXPLICIT: Final = "explicit"


@dataclass(frozen=True)
class ModelFamily:
    """How the paper treats a kind of model.

    Attributes:
        description: in words.
        matches_embedding: whether the embedding outputs are matched too (in `all-to-one`: whether the student's
            embedding also goes to the one layer).
        copy_spans_ends: whether blocks are copied from evenly spaced places that include the first and the last block,
            instead of from the supervised blocks.
        needs_first_block: whether only block 0 of the teacher fits block 0 of the student.
        official_losses: the family's name in `losses.official.OFFICIAL`.
    """

    description: str
    matches_embedding: bool
    copy_spans_ends: bool
    needs_first_block: bool
    official_losses: str


MODEL_FAMILIES: Final[Mapping[str, ModelFamily]] = {
    "bert": ModelFamily("encoder-only", True, False, False, "bert"),
    # Block 0 of ModernBERT is the only one without a norm before its attention.
    "modernbert": ModelFamily("encoder-only whose block 0 differs", True, True, True, "bert"),
    "bart": ModelFamily("encoder-decoder", True, False, False, "bart"),
    # Block 0 of T5 alone holds the relative-position bias that every block uses.
    "t5": ModelFamily("encoder-decoder whose block 0 holds the position bias", True, True, True, "t5"),
    "causal": ModelFamily("decoder-only language model", False, True, False, "causal"),
}

# Model types that their streams alone would put into another family.
_FAMILY_OF_TYPE: Final[Mapping[str, str]] = {
    "modernbert": "modernbert",
    "t5": "t5",
    "mt5": "t5",
    "umt5": "t5",
    "longt5": "t5",
    "switch_transformers": "t5",
}

_COPIES_AS_PUBLISHED: Final[Mapping[tuple[str, int, int], tuple[int, ...]]] = {
    ("t5", 12, 9): (0, 1, 2, 5, 6, 7, 9, 10, 11),
}


def family_of(model_type: str, streams: Sequence[str]) -> str:
    """Return the name in `MODEL_FAMILIES` of a model type of transformers.

    Types that no table lists go by their streams: both as BART, a decoder alone as Llama, an encoder alone as BERT.
    """
    by_streams: dict[tuple[str, ...], str] = {STREAMS: "bart", ("decoder",): "causal"}
    return _FAMILY_OF_TYPE.get(model_type) or by_streams.get(tuple(streams), "bert")


class LayerMatching(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which teacher layer teaches each student layer of one stream.

    Attributes:
        stream: "encoder" or "decoder".
        strategy: a name in `STRATEGIES`, or "explicit".
        teacher_blocks: the teacher's depth in this stream.
        student_blocks: the student's depth; more than the teacher's only in a user's own map.
        pairs: (student layer, teacher layer), ascending by student layer, each student layer at most once; 0 is the
            embedding output, b + 1 the output of block b.
        seed: the seed of the draw for strategies that draw (`vocabulary.DRAWN`), None otherwise.
        groups: (student layer, teacher layers) of student layers that are taught by several, each ascending; what is
            made of them is `STRATEGIES[strategy].combines`. Pairs and groups are both empty for "none", and only then.

    Raises:
        InputError: any of this does not hold.
    """

    stream: Stream
    strategy: str
    teacher_blocks: int
    student_blocks: int
    pairs: tuple[tuple[int, int], ...]
    seed: int | None = None
    groups: tuple[tuple[int, tuple[int, ...]], ...] = ()

    def __post_init__(self) -> None:
        if self.stream not in STREAMS:
            raise InputError(f"no stream {self.stream!r}", allowed=suggest(self.stream, STREAMS))
        _check_strategy(self.strategy, (*STRATEGIES, EXPLICIT))
        # A map of the user's own may be of a given student deeper than its teacher, and leave a stream unmatched.
        by_hand = self.strategy in (EXPLICIT, NONE)
        deepest = max(self.teacher_blocks, self.student_blocks) if by_hand else self.teacher_blocks
        check_depths(deepest, self.student_blocks, self.stream)
        if (self.strategy == "none") != (not self.student_layers):
            raise InputError(
                f"the {self.stream}'s strategy is {self.strategy!r} with {len(self.student_layers)} matched layers",
                "'none' matches no layer and every other strategy at least one",
            )
        if (self.strategy in DRAWN) != (self.seed is not None):
            raise InputError(
                f"strategy {self.strategy!r} came with seed {self.seed}",
                f"'random' records its seed (so does {DRAWN[1]!r}), the others have none",
            )
        if bool(self.groups) != bool(self.combines):
            raise InputError(
                f"the {self.stream}'s strategy is {self.strategy!r} with {len(self.groups)} groups of teacher layers",
                "those that combine layers need them, and the others have none",
            )
        if any(list(teachers) != sorted(set(teachers)) or not teachers for _, teachers in self.groups):
            raise InputError(f"a group of teacher layers is {self.groups}", "name each layer once, in ascending order")
        limits = {"student": self.student_blocks, "teacher": self.teacher_blocks}
        for pair in (*self.pairs, *((student, teacher) for student, group in self.groups for teacher in group)):
            for layer, (role, deepest) in zip(pair, limits.items(), strict=True):
                if not 0 <= layer <= deepest:
                    raise InputError(
                        f"the {self.stream} map names {role} layer {layer}",
                        allowed=f"allowed: 0 (embedding) to {deepest}",
                    )
        named = [layer for part in (self.pairs, self.groups) for layer, _ in part]
        if len(named) != len(set(named)) or any(
            [layer for layer, _ in part] != sorted(layer for layer, _ in part) for part in (self.pairs, self.groups)
        ):
            raise InputError(
                f"the {self.stream} map has student layers {named}",
                "name each at most once, in ascending order",
            )

    @property
    def student_layers(self) -> tuple[int, ...]:
        """The matched student layers, ascending."""
        return tuple(sorted(layer for part in (self.pairs, self.groups) for layer, _ in part))

    @property
    def teacher_layers(self) -> tuple[int, ...]:
        """The teacher layers that are needed, ascending, each once."""
        return tuple(sorted({t for _, t in self.pairs} | {t for _, group in self.groups for t in group}))

    @property
    def combines(self) -> str:
        """What is made of the teacher layers of a group; "" where there are no groups."""
        return STRATEGIES[self.strategy].combines if self.strategy in STRATEGIES else ""

    def taught_by(self) -> dict[int, str]:
        """Return for each matched student layer its teacher layer's number, or what is made of several: mean(1-4)."""
        made = {student: f"{self.combines}({group[0]}-{group[-1]})" for student, group in self.groups}
        return dict(sorted(({student: str(teacher) for student, teacher in self.pairs} | made).items()))

    @property
    def unmatched_layers(self) -> tuple[int, ...]:
        """The student layers, embedding included, that no teacher layer teaches."""
        return tuple(layer for layer in range(self.student_blocks + 1) if layer not in self.student_layers)

    def in_words(self) -> str:
        """Return one sentence that says which layer teaches which."""
        if not self.student_layers:
            return f"{self.stream}: no hidden layer of the student is taught."
        one = {student: layer_name(teacher) for student, teacher in self.pairs}
        taught = ", ".join(f"{layer_name(s)} by {one.get(s, made)}" for s, made in self.taught_by().items())
        drawn = f" (drawn with seed {self.seed})" if self.seed is not None else ""
        return f"{self.stream}, {self.strategy}{drawn}: student {taught} of the teacher."

    def table(self) -> list[dict[str, Any]]:
        """Return a row for every student layer; `taught_by` is the teacher layer, or None where none or several are."""
        teacher_of = dict(self.pairs)
        made = {student: self.taught_by()[student] for student, _ in self.groups}
        return [
            {
                "stream": self.stream,
                "student_layer": layer,
                "taught_by": teacher_of.get(layer),
                "student": layer_name(layer),
                "teacher": layer_name(teacher_of[layer]) if layer in teacher_of else made.get(layer, "not matched"),
            }
            for layer in range(self.student_blocks + 1)
        ]

    def coincides_with(self) -> tuple[str, ...]:
        """Return the other fixed strategies that teach every block from the same layer (embeddings aside).

        One draw of "random" in k! equals "forward", and one "reverse"; with one student block both always do.
        """
        if self.groups:
            return ()
        mine = tuple(teacher for student, teacher in self.pairs if student > 0)
        forward = tuple(block + 1 for block in supervised_blocks(self.teacher_blocks, self.student_blocks))
        middle = (_middle_layer(self.teacher_blocks),) * self.student_blocks
        fixed = {"forward": forward, "reverse": forward[::-1], "all-to-one": middle}
        return tuple(name for name, target in fixed.items() if name != self.strategy and target == mine)

    def to_json(self) -> dict[str, Any]:
        """Return the matching as values that `json` can write."""
        return dict(msgspec.to_builtins(self))

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> LayerMatching:
        """Read what `to_json` wrote.

        Raises:
            InputError: a key is missing or unknown, or the values do not make a matching.
        """
        return convert_document(values, cls, "the layer matching", "take one that anglekit wrote")


def layer_matching(
    strategy: str | None,
    *,
    teacher_blocks: int,
    student_blocks: int,
    stream: Stream = "encoder",
    family: str = "bert",
    seed: int | None = None,
    explicit: Sequence[tuple[int, int]] | None = None,
    reading: Reading = "corrected",
) -> LayerMatching:
    """Return the matching of one stream by a strategy's name, or from the user's own map.

    Args:
        strategy: a name in `STRATEGIES`; None (or "explicit") with an explicit map.
        teacher_blocks: the teacher's depth in this stream.
        student_blocks: the student's depth.
        stream: "encoder" or "decoder".
        family: a name in `MODEL_FAMILIES`; decides whether embeddings are matched.
        seed: of the random order; one is drawn and recorded where none is given. Encoder and decoder draw different
            orders from one seed. The other strategies ignore it.
        explicit: (student layer, teacher layer) pairs in any order; of "angle-aware" those that its rule chose.
        reading: official takes the order of "random" that the paper's language models always have, whatever the seed.

    Raises:
        InputError: an unknown name, "angle-aware" without pairs, a strategy beside an explicit map, a student deeper
            than its teacher, too few blocks for the strategy, or a map that names a layer twice or one that does not
            exist.

    Example:
        >>> layer_matching("reverse", teacher_blocks=12, student_blocks=3).pairs
        ((0, 0), (1, 12), (2, 8), (3, 4))
    """
    if explicit is not None:
        if strategy not in (None, EXPLICIT, ANGLE_AWARE):
            raise InputError(f"strategy {strategy!r} came together with an explicit map", "give one of the two")
        pairs = tuple(sorted((int(s), int(t)) for s, t in explicit))
        return LayerMatching(stream, strategy or EXPLICIT, teacher_blocks, student_blocks, pairs)
    name = _check_strategy(strategy or "", tuple(STRATEGIES))
    embedding = _family(family).matches_embedding
    if name == "none":
        return LayerMatching(stream, name, teacher_blocks, student_blocks, ())
    if name == ANGLE_AWARE:
        raise needs_geometry()
    check_depths(teacher_blocks, student_blocks, stream)
    drawn = (draw_seed() if seed is None else seed) if name in DRAWN else None
    if name == "all-to-one":
        one = _middle_layer(teacher_blocks)
        students = range(0 if embedding else 1, student_blocks + 1)
        return LayerMatching(stream, name, teacher_blocks, student_blocks, tuple((s, one) for s in students))
    if STRATEGIES[name].combines:
        groups = _groups(STRATEGIES[name].combines, teacher_blocks, student_blocks)
        own = ((0, 0),) if embedding and name not in DRAWN else ()
        return LayerMatching(stream, name, teacher_blocks, student_blocks, own, drawn, groups)
    if name in _BY_PAIRS:
        pairs = _BY_PAIRS[name](teacher_blocks, student_blocks)
        if not pairs:
            raise InputError(
                f"strategy {name!r} matches the layers below the last, and the student's {stream} has one block",
                "give it two, or take forward or last",
            )
        return LayerMatching(stream, name, teacher_blocks, student_blocks, pairs)
    targets = [block + 1 for block in supervised_blocks(teacher_blocks, student_blocks)]
    if name == "reverse":
        targets.reverse()
    elif name == "random" and decisions(reading, _family(family).official_losses).random_order == "fixed":
        drawn = OFFICIAL_ORDER_SEED
        targets = [targets[place] for place in _official_order(student_blocks)]
    elif name == "random":
        # Sorting by `random()` keeps the order stable over Python versions, which `shuffle` does not promise.
        source = random.Random(f"{drawn}:{stream}")
        targets = [target for _, target in sorted((source.random(), target) for target in targets)]
    pairs = ((0, 0),) if embedding else ()
    pairs += tuple((layer + 1, target) for layer, target in enumerate(targets))
    return LayerMatching(stream, name, teacher_blocks, student_blocks, pairs, drawn)


def _official_order(number: int) -> list[int]:
    """Return the order of the paper's language models: that of nine layers is 6, 4, 0, 7, 5, 8, 3, 2, 1.

    Its code states no order; it is torch's permutation from the trainer's seed (inferred: the nine numbers agree).
    """
    import torch

    order: list[int] = torch.randperm(number, generator=torch.Generator().manual_seed(OFFICIAL_ORDER_SEED)).tolist()
    return order


def needs_geometry() -> InputError:
    """Return the error of the strategy that reads a Geometry where none came."""
    return InputError(
        f"strategy {ANGLE_AWARE!r} reads the angles of a Geometry and none came",
        "give the directory of an analysis of a student of this depth (--geometry)",
    )


def ordered_draw(seed: int, stream: Stream, epoch: int, layers: Sequence[int], number: int) -> tuple[int, ...]:
    """Return the teacher layers of an epoch of "in-order-random": so many of these, ascending.

    Args:
        seed: of the run.
        stream: each draws its own.
        epoch: from 0.
        layers: to draw from.
        number: at most as many as there are layers.
    """
    source = random.Random(f"{seed}:{stream}:{epoch}")
    keys = sorted((source.random(), layer) for layer in layers)
    return tuple(sorted(layer for _, layer in keys[:number]))


def _groups(combines: str, teacher_blocks: int, student_blocks: int) -> tuple[tuple[int, tuple[int, ...]], ...]:
    """Return the teacher layers of each student layer of a strategy that combines them."""
    ends = [block + 1 for block in supervised_blocks(teacher_blocks, student_blocks)]
    parts = list(zip([1, *(end + 1 for end in ends)], ends, strict=False))
    first_and_last = {
        "mean": parts,
        "linear": parts,
        "gate": [(1, end) for end in ends],
        "attention": [(1, teacher_blocks)] * student_blocks,
        "transport": [(1, teacher_blocks)] * student_blocks,
        "draw": [(1, teacher_blocks)] * student_blocks,
    }[combines]
    return tuple((place + 1, tuple(range(first, last + 1))) for place, (first, last) in enumerate(first_and_last))


def _uniform(teacher_blocks: int, student_blocks: int) -> tuple[tuple[int, int], ...]:
    return tuple(enumerate((0, *(block + 1 for block in supervised_blocks(teacher_blocks, student_blocks)))))


#: The strategies whose map is the same in every family of models, from the depths of teacher and student.
_BY_PAIRS: Final[Mapping[str, Callable[[int, int], tuple[tuple[int, int], ...]]]] = {
    "pkd-skip": lambda n, k: _uniform(n, k)[1:-1],
    "pkd-last": lambda n, k: tuple((j, n - k + j) for j in range(1, k)),
    "uniform": _uniform,
    "last": lambda n, k: ((k, n),),
    "one-to-one": lambda n, k: (((k + 1) // 2, _middle_layer(n)),),
}


def controlled_strategies(
    controls: Sequence[str], strategies: Sequence[str], random_teacher_of: str | None = None
) -> dict[str, str]:
    """Return by control the strategy of which it takes something away.

    Of `alone` that is "none". Of `random-teacher` it is `random_teacher_of` where that is among the strategies, or else
    forward, or else the first that matches layers.

    Raises:
        InputError: `random-teacher` came and no strategy matches layers.
    """
    found = dict.fromkeys(controls, NONE)
    if RANDOM_TEACHER in found:
        matching = [name for name in strategies if matches_layers(name)]
        if not matching:
            raise InputError(
                f"control {RANDOM_TEACHER!r} came and no strategy matches layers (strategies: {', '.join(strategies)})",
                "add one that does, such as forward",
            )
        wanted = (name for name in (random_teacher_of, "forward") if name in matching)
        found[RANDOM_TEACHER] = next(wanted, None) or matching[0]
    return found


def draw_seed() -> int:
    """Return a fresh seed from the system's entropy, in [0, 2^31)."""
    return secrets.randbelow(2**31)


def supervised_blocks(teacher_blocks: int, student_blocks: int) -> tuple[int, ...]:
    """Return the teacher blocks that teach, evenly spaced and ending with the last.

    Student block j gets block ceil((j + 1) n / k) - 1 of n teacher blocks for k student blocks: the last block of the
    j-th of k equal parts. This gives every map of the paper's code (12 to 1, 2, 3, 4, 6, 9; 28 to 7; 32 to 8; 36 to 9;
    40 to 10).
    """
    return tuple(-(-(j + 1) * teacher_blocks // student_blocks) - 1 for j in range(student_blocks))


def copy_map(teacher_blocks: int, student_blocks: int, family: str = "bert") -> tuple[int, ...]:
    """Return the teacher block that each student block is copied from, ascending.

    BERT and BART copy the supervised blocks. T5 and causal models copy blocks that span both ends: block
    min(floor(j n / (k - 1)), n - 1), block 0 where k = 1. This gives the paper's T5 12 to 3 and 6, Qwen3 36 to 9 and
    Llama 32 to 8; its T5 12 to 9 follows no rule and is kept as published.

    Raises:
        InputError: an unknown family, or a student deeper than its teacher.
    """
    spans_ends = _family(family).copy_spans_ends
    check_depths(teacher_blocks, student_blocks)
    if not spans_ends:
        return supervised_blocks(teacher_blocks, student_blocks)
    published = _COPIES_AS_PUBLISHED.get((family, teacher_blocks, student_blocks))
    if published is not None:
        return published
    steps = max(student_blocks - 1, 1)
    return tuple(min(j * teacher_blocks // steps, teacher_blocks - 1) for j in range(student_blocks))


def check_copied_blocks(
    blocks: Sequence[int], *, teacher_blocks: int, student_blocks: int, family: str, stream: Stream = "encoder"
) -> tuple[int, ...]:
    """Return a user's copy map when it can be copied.

    Raises:
        InputError: not one block for each student block, a block that does not exist or comes twice, or a first block
            other than 0 where the family needs it (T5, ModernBERT).
    """
    copied = tuple(blocks)
    if len(copied) != student_blocks:
        raise InputError(
            f"the {stream} copy map names {len(copied)} blocks for a student of {student_blocks}", "name one for each"
        )
    if len(set(copied)) != len(copied):
        raise InputError(f"the {stream} copy map {list(copied)} names a block twice", "name distinct blocks")
    for block in copied:
        if not 0 <= block < teacher_blocks:
            raise InputError(
                f"the {stream} copy map names block {block}", allowed=f"allowed: 0 to {teacher_blocks - 1}"
            )
    if _family(family).needs_first_block and copied[0] != 0:
        raise InputError(
            f"the {stream} copy map begins with block {copied[0]}",
            "a student of this type needs block 0 first, for no other block fits its place",
        )
    return copied


def check_depths(teacher_blocks: int, student_blocks: int, stream: Stream = "encoder", remedy: str = "") -> None:
    """Check that a student of this depth can be made; `remedy` is added to the message.

    Raises:
        InputError: a depth below 1, or a student deeper than its teacher.
    """
    if not 1 <= student_blocks <= teacher_blocks:
        raise InputError(
            f"the student's {stream} has {student_blocks} blocks and the teacher's {teacher_blocks}",
            remedy,
            allowed=f"allowed: 1 to {max(teacher_blocks, 1)}",
        )


def layer_name(layer: int) -> str:
    """Return "embedding" for layer 0 and "layer n" otherwise."""
    return "embedding" if layer == 0 else f"layer {layer}"


def _middle_layer(teacher_blocks: int) -> int:
    """`hidden_states[n // 2]`: 6 of 12; never the embedding, so 1 of 1."""
    return max(teacher_blocks // 2, 1)


def _check_strategy(name: str, allowed: Sequence[str]) -> str:
    if name not in allowed:
        raise InputError(f"no strategy {name!r}", allowed=suggest(name, allowed))
    return name


def _family(name: str) -> ModelFamily:
    if name not in MODEL_FAMILIES:
        raise InputError(f"no model family {name!r}", allowed=suggest(name, MODEL_FAMILIES))
    return MODEL_FAMILIES[name]
