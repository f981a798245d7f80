"""From a model's configuration to that of a model with only some of its blocks: lists and rules are renumbered.

Which kind of block stands where is written in three ways: a list with an entry for each block (`layer_types`), a list
of the blocks of one kind (`mlp_only_layers`), and a rule over their numbers (`first_k_dense_replace`). All three follow
the chosen blocks, or the choice is refused; a constant that falls with the depth is written so that it stays.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice, pairwise, product
from typing import Any, Final

from transformers import PretrainedConfig

from anglekit.errors import InputError, foreign_failures
from anglekit.models.architectures import depth, model_streams, stream_config
from anglekit.models.sources import OWN_DEPTH_KEYS, SHARED_DEPTH_KEYS
from anglekit.vocabulary import Stream

# What the name of a setting says when a list of it has an entry for each block.
_BY_BLOCK: Final = ("layer", "block", "window", "pattern", "indexer", "limits")
_BY_BLOCK_IN_FULL: Final = ("intermediate_size", "hidden_act")
# The same, where the list names blocks.
_NUMBERS_OF_BLOCKS: Final = ("layers", "indices", "idxs", "layer_ids")
# A rule is fitted to no more blocks, and with no more values of its settings; no student is as deep.
_MOST_BLOCKS: Final = 256
_MOST_TRIED: Final = 50_000
# Each entry names the block whose keys and values this one reads.
_SOURCES: Final = "kv_source_layers"


@dataclass(frozen=True)
class _Rule:
    """Settings that decide by a block's number what kind it is.

    Attributes:
        names: of the settings, all of them whole numbers.
        holds: from their values, a block's number and the depth, whether the block is of the kind.
        values: from a depth, all values of the settings that are worth trying.
        types: the model types that it speaks of; empty for every type that has the settings.
        switch: a setting without which it does not hold; "" for none.
        stream: the stream that it speaks of; None for that of a model with one.
    """

    names: tuple[str, ...]
    holds: Callable[[Sequence[int], int, int], bool]
    values: Callable[[int], Iterable[tuple[int, ...]]]
    types: frozenset[str] = frozenset()
    switch: str = ""
    stream: Stream | None = None


def _numbers(depth: int) -> Iterator[tuple[int, ...]]:
    return product(range(depth + 1))


def _periods(depth: int) -> Iterator[tuple[int, ...]]:
    """Periods and offsets; a period above the depth with the last offset holds for none."""
    return ((period, offset) for period in range(1, depth + 2) for offset in range(period))


def _spans(depth: int) -> Iterator[tuple[int, ...]]:
    return ((start, end, every) for every, start, end in product(range(1, depth + 2), range(depth), range(depth)))


def _every(values: Sequence[int], block: int, _depth: int) -> bool:
    return values[0] > 0 and (block + 1) % values[0] == 0


def _spread(values: Sequence[int], block: int, depth: int) -> bool:
    """So many sparse blocks as Switch Transformers spreads them; none are a step as long as the stack."""
    step = depth // values[0] if values[0] > 0 else depth
    return step == 1 or (step > 0 and block % step == 1)


_NLLB: Final = frozenset(("nllb-moe",))
_RULES: Final = (
    _Rule(("first_k_dense_replace",), lambda values, block, _: block < values[0], _numbers),
    _Rule(("num_dense_layers",), lambda values, block, _: block < values[0], _numbers),
    _Rule(("num_kv_shared_layers",), lambda values, block, depth: block >= depth - values[0], _numbers),
    _Rule(("attn_layer_period", "attn_layer_offset"), lambda v, block, _: v[0] > 0 and block % v[0] == v[1], _periods),
    _Rule(
        ("expert_layer_period", "expert_layer_offset"), lambda v, block, _: v[0] > 0 and block % v[0] == v[1], _periods
    ),
    _Rule(
        ("moe_layer_start_index", "moe_layer_end_index", "moe_layer_interval"),
        lambda v, block, depth: (
            v[0] <= block <= (v[1] if v[1] >= 0 else depth - 1) and v[2] > 0 and (block + 1) % v[2] == 0
        ),
        _spans,
    ),
    _Rule(("encoder_sparse_step",), _every, _numbers, _NLLB, stream="encoder"),
    _Rule(("decoder_sparse_step",), _every, _numbers, _NLLB, stream="decoder"),
    # PEGASUS-X shifts the window of every second block, and no setting says of which.
    _Rule((), lambda _values, block, _: block % 2 == 1, lambda _: (), switch="stagger_local_blocks", stream="encoder"),
    _Rule(("num_sparse_encoder_layers",), _spread, _numbers, stream="encoder"),
    _Rule(("num_sparse_decoder_layers",), _spread, _numbers, stream="decoder"),
)


def with_blocks(config: PretrainedConfig, blocks: Mapping[Stream, Sequence[int]]) -> PretrainedConfig:
    """Return the configuration of a model that has only some of this one's blocks.

    Args:
        config: left as it is.
        blocks: for each stream the blocks, in the order of the new model.

    Raises:
        InputError: the depth cannot be set, or no rule of this type gives the chosen blocks their kinds.
    """
    fewer = copy.deepcopy(config)
    if any(stream_config(config, stream) is not config for stream in blocks):
        for stream, chosen in blocks.items():
            part = stream_config(config, stream)
            setattr(fewer, stream, with_blocks(part, {model_streams(part)[0]: chosen}))
        return fewer
    whole = {stream: depth(config, stream) for stream in model_streams(config)}
    _renumber_lists(config, fewer, blocks, whole)
    _renumber_rules(config, fewer, blocks, whole)
    for stream, chosen in blocks.items():
        _check_sources(config, _shared_sources(config, stream), chosen)
    by_block = config.to_dict().get("per_layer_config")
    _set_depths(fewer, blocks, whole)
    if by_block:
        (chosen,) = blocks.values()
        old = {int(block): settings for block, settings in by_block.items()}
        fewer.per_layer_config = {new: old[block] for new, block in enumerate(chosen) if block in old}
    return fewer


def check_shape(config: PretrainedConfig) -> None:
    """Check a configuration by what its type demands of one.

    Raises:
        InputError: it would make no model.
    """
    with foreign_failures(
        lambda reason: InputError(f"no {config.model_type} of this shape exists: {reason}", "choose another")
    ):
        config.validate()  # type: ignore[attr-defined, unused-ignore]  # added by huggingface_hub's `strict`


def _set_depths(fewer: PretrainedConfig, blocks: Mapping[Stream, Sequence[int]], whole: Mapping[Stream, int]) -> None:
    streams = model_streams(fewer)
    for stream, chosen in blocks.items():
        own = OWN_DEPTH_KEYS[stream if len(streams) == 2 else "decoder"]
        # With two streams, the shared names are the encoder's.
        shared = () if len(streams) == 2 and stream == "decoder" else SHARED_DEPTH_KEYS
        # xLSTM states its depth twice, and builds its blocks by the second.
        twice = ("num_blocks",) if getattr(fewer, "num_blocks", None) == whole[stream] else ()
        for name in (*own, *shared, *twice):
            if isinstance(getattr(fewer, name, None), int):
                try:
                    setattr(fewer, name, len(chosen))
                except NotImplementedError:
                    # ProphetNet's is the sum of the other two.
                    continue
        if depth(fewer, stream) != len(chosen):
            raise InputError(
                f"the number of blocks of a {fewer.model_type} cannot be set: it follows from other settings",
                "choose a teacher of another type",
            )


# ---- lists ----


def _renumber_lists(
    config: PretrainedConfig,
    fewer: PretrainedConfig,
    blocks: Mapping[Stream, Sequence[int]],
    whole: Mapping[Stream, int],
) -> None:
    for name, value in vars(config).items():
        if name.startswith("_") or not isinstance(value, list | tuple) or not value:
            continue
        stream = _stream_of(name, whole)
        chosen, number = list(blocks[stream]), whole[stream]
        if name == "block_types":
            # RecurrentGemma repeats its kinds of blocks to the end.
            setattr(fewer, name, [value[block % len(value)] for block in chosen])
        elif name == _SOURCES and len(value) == number and all(type(each) is int for each in value):
            _check_sources(config, dict(enumerate(value)), chosen)
            setattr(fewer, name, [chosen.index(value[block]) for block in chosen])
        elif _names_blocks(name, value, number):
            setattr(fewer, name, [new for new, block in enumerate(chosen) if block in value])
        elif len(value) == number and (name in _BY_BLOCK_IN_FULL or any(part in name for part in _BY_BLOCK)):
            setattr(fewer, name, [value[block] for block in chosen])
    kinds = getattr(fewer, "attention_layers", None)
    if hasattr(fewer, "attention_types") and isinstance(kinds, list):
        # GPT-Neo reads its list from a short form of it.
        fewer.attention_types = [[[kind], 1] for kind in kinds]


def _stream_of(name: str, whole: Mapping[Stream, int]) -> Stream:
    """Return the stream that a setting speaks of; names that say nothing are the encoder's."""
    return next((stream for stream in whole if stream in name), next(iter(whole)))


def _names_blocks(name: str, value: Sequence[Any], number: int) -> bool:
    """Whether a list names blocks: whole numbers in ascending order, and not merely as many as there are blocks."""
    if not name.endswith(_NUMBERS_OF_BLOCKS) or not all(type(each) is int and 0 <= each < number for each in value):
        return False
    ascending = all(before < after for before, after in pairwise(value))
    return ascending and (len(value) < number or list(value) == list(range(number)))


def _check_sources(config: PretrainedConfig, sources: Mapping[int, int], chosen: Sequence[int]) -> None:
    """Refuse a choice of blocks of which one reads the keys of a block that is not chosen."""
    for block in chosen:
        if (source := sources.get(block, block)) not in chosen:
            raise InputError(
                f"block {block} of a {config.model_type} reads the keys of block {source}, which is not chosen",
                f"choose block {source} too",
            )


def _shared_sources(config: PretrainedConfig, stream: Stream) -> dict[int, int]:
    """Return whose keys and values each of the last blocks reads where these have none of their own.

    Gemma 3n and 4: they read those of the last block with its own whose attention is of their kind.
    """
    number, shared = depth(config, stream), getattr(config, "num_kv_shared_layers", None)
    if type(shared) is not int or not 0 < shared < number:
        return {}
    kinds = config.layer_types
    if len(kinds) != number:
        return {}
    last = {kind: block for block, kind in enumerate(kinds[: number - shared])}
    return {block: last[kinds[block]] for block in range(number - shared, number) if kinds[block] in last}


# ---- rules ----


def _rules_of(config: PretrainedConfig, stream: Stream) -> list[tuple[_Rule, tuple[int, ...]]]:
    """Return the rules of a stream with their values."""
    streams = model_streams(config)
    found = []
    for rule in _RULES:
        values = [value for name in rule.names if type(value := getattr(config, name, None)) is int]
        if rule.types and config.model_type not in rule.types:
            continue
        if rule.switch and not getattr(config, rule.switch, False):
            continue
        if (rule.stream or streams[0]) == stream and len(values) == len(rule.names):
            found.append((rule, tuple(values)))
    return found


def _renumber_rules(
    config: PretrainedConfig,
    fewer: PretrainedConfig,
    blocks: Mapping[Stream, Sequence[int]],
    whole: Mapping[Stream, int],
) -> None:
    for stream, chosen in blocks.items():
        for rule, old in _rules_of(config, stream):
            wanted = [rule.holds(old, block, whole[stream]) for block in chosen]
            values = _values_for(rule, old, wanted)
            if values is None:
                names, numbers = " and ".join(rule.names) or rule.switch, ",".join(map(str, chosen))
                near = fitting_blocks(config, stream, chosen)
                raise InputError(
                    f"no {names} gives blocks {numbers} of a {config.model_type} teacher their kinds in a model of "
                    f"{len(chosen)}",
                    f"copy blocks {','.join(map(str, near))}" if near else "choose other blocks",
                )
            for name, number in zip(rule.names, values, strict=True):
                setattr(fewer, name, number)
        if isinstance(sparse := getattr(fewer, f"num_sparse_{stream}_layers", None), int):
            setattr(fewer, f"{stream}_sparse_step", len(chosen) // sparse if sparse > 0 else len(chosen))
    _renumber_sparse_steps(config, fewer, blocks, whole)
    _keep_scales(config, fewer, blocks, whole)


def _kinds(rule: _Rule, values: Sequence[int], number: int) -> list[bool]:
    return [rule.holds(values, block, number) for block in range(number)]


def _tried(rule: _Rule, old: tuple[int, ...], number: int) -> Iterator[tuple[int, ...]]:
    """Yield the values of a rule that are tried: what was there comes first, so that a rule that still fits stays."""
    return chain((old,), islice(rule.values(number), _MOST_TRIED))


def _values_for(rule: _Rule, old: tuple[int, ...], wanted: Sequence[bool]) -> tuple[int, ...] | None:
    tried = _tried(rule, old, len(wanted)) if len(wanted) <= _MOST_BLOCKS else iter((old,))
    return next((values for values in tried if _kinds(rule, values, len(wanted)) == list(wanted)), None)


def fitting_blocks(config: PretrainedConfig, stream: Stream, chosen: Sequence[int]) -> tuple[int, ...]:
    """Return the blocks nearest to the chosen ones, in ascending order, whose kinds some rules of the type allow.

    Blocks whose keys others of them read are among them. They are the chosen ones where those fit, and none where none
    fit.
    """
    rules, number, sources = _rules_of(config, stream), depth(config, stream), _shared_sources(config, stream)
    kinds_of = [(rule, old, _kinds(rule, old, number)) for rule, old in rules]
    placed = all(
        _values_for(rule, old, [kinds[block] for block in chosen]) is not None for rule, old, kinds in kinds_of
    )
    if placed and _with_sources(chosen, sources) == list(chosen):
        return tuple(chosen)
    if len(chosen) > _MOST_BLOCKS:
        return ()
    mine = list(zip(*(kinds for _, _, kinds in kinds_of), strict=True))
    possible = (
        dict.fromkeys(tuple(_kinds(rule, values, len(chosen))) for values in _tried(rule, old, len(chosen)))
        for rule, old, _ in kinds_of
    )
    best: tuple[int, ...] = ()
    for kinds in islice(product(*possible), _MOST_TRIED):
        wanted = list(zip(*kinds, strict=True))
        latest = _latest(mine, wanted)
        found: list[int] = []
        for block, kind, last in zip(chosen, wanted, latest, strict=False):
            alike = (each for each in range(found[-1] + 1 if found else 0, last + 1) if mine[each] == kind)
            _, nearest = min((abs(each - block), each) for each in alike)
            found.append(nearest)
        whole = _with_sources(found, sources)
        if whole and (not best or _apart(whole, chosen) < _apart(best, chosen)):
            best = tuple(whole)
    return best


def _latest(mine: Sequence[tuple[bool, ...]], wanted: Sequence[tuple[bool, ...]]) -> list[int]:
    """Return for each wanted kind the last block that leaves room for those that follow; none if there is no room."""
    found: list[int] = []
    for kind in reversed(wanted):
        before = range(found[-1] if found else len(mine))
        if (last := next((block for block in reversed(before) if mine[block] == kind), None)) is None:
            return []
        found.append(last)
    return found[::-1]


def _with_sources(chosen: Sequence[int], sources: Mapping[int, int]) -> list[int]:
    """Return a choice in which blocks whose keys others read stand for their nearest neighbours, or none."""
    found = list(chosen)
    needed = {sources[block] for block in chosen if block in sources}
    for source in sorted(needed - set(chosen), reverse=True):
        spare = [place for place, block in enumerate(found) if block not in sources and block not in needed]
        if not spare:
            return []
        found[min(spare, key=lambda place: abs(found[place] - source))] = source
    return found if found == list(chosen) else sorted(found)


def _apart(left: Sequence[int], right: Sequence[int]) -> int:
    return sum(abs(one - other) for one, other in zip(left, right, strict=True))


def _renumber_sparse_steps(
    config: PretrainedConfig,
    fewer: PretrainedConfig,
    blocks: Mapping[Stream, Sequence[int]],
    whole: Mapping[Stream, int],
) -> None:
    """Write the sparse blocks of Qwen's mixtures of experts as a list, which can say what their step cannot."""
    step = getattr(config, "decoder_sparse_step", None)
    dense = getattr(config, "mlp_only_layers", None)
    if len(whole) != 1 or not isinstance(step, int) or not isinstance(dense, list | tuple | type(None)):
        return
    if not hasattr(config, "mlp_only_layers"):
        return
    (chosen,) = blocks.values()
    sparse = [block not in (dense or ()) and (block + 1) % max(step, 1) == 0 for block in chosen]
    fewer.mlp_only_layers = [new for new, one in enumerate(sparse) if not one]
    fewer.decoder_sparse_step = 1


def _keep_scales(
    config: PretrainedConfig,
    fewer: PretrainedConfig,
    blocks: Mapping[Stream, Sequence[int]],
    whole: Mapping[Stream, int],
) -> None:
    """Keep what a model divides by its depth as it was."""
    if config.model_type in ("minicpm", "minicpm3") and isinstance(getattr(config, "scale_depth", None), int | float):
        ((stream, chosen),) = blocks.items()
        fewer.scale_depth = config.scale_depth * math.sqrt(len(chosen) / whole[stream])
