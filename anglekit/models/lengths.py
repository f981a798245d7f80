"""How many tokens a model's positions and its tokenizer take: one answer for probes, plans, training and generation.

The tables of positions are found by running a model on whole numbers alone. It is built with one block a stream and
without memory, and reads two short texts. Whole numbers (token ids, positions, masks) are computed as usual; of
fractions only the shapes are known. A table of which a longer text reads one entry more for each token more is a table
of positions: its size, less the entries before the first token's, is the limit, if the model then fails with one token
more. Neither the name of the model type nor any weight is needed.
"""

from __future__ import annotations

import copy
import inspect
import logging
import warnings
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map
from transformers import MODEL_MAPPING, AutoModel, PretrainedConfig, PreTrainedModel
from transformers import PreTrainedTokenizerBase as Tokenizer

from anglekit.errors import AnglekitError
from anglekit.models.architectures import blocks, model_streams
from anglekit.models.chosen_blocks import with_blocks
from anglekit.models.library_messages import quiet_transformers
from anglekit.vocabulary import Stream

#: Stands for no limit: more tokens than any text has. Tokenizers without a limit state 1e30.
UNLIMITED: Final = 10**9

_log = logging.getLogger(__name__)

# Two short texts, in tokens; the other stream of an encoder-decoder reads the first number.
_SHORT, _LONGER = 5, 8
# Fractions up to this number are computed, since whole numbers may follow from them; larger ones are only shapes.
_MOST_COMPUTED: Final = 1 << 12
# Whole numbers up to this number are held.
_MOST_HELD: Final = 1 << 28
_aten: Final = torch.ops.aten


def position_limits(model: PreTrainedModel | PretrainedConfig) -> dict[Stream, int | None]:
    """Return for each stream the most tokens that a model takes; None where there is no limit (T5's are relative).

    A table of positions has an end that no text may pass (`position_tables`). Where there is no such table (rotary or
    computed positions), the limit is the length that the configuration states, for which the model was trained; -1
    and the like state none.
    """
    config = model if isinstance(model, PretrainedConfig) else model.config
    stated = getattr(config, "max_position_embeddings", None)
    trained = stated if isinstance(stated, int) and stated >= 1 else None
    try:
        with quiet_transformers():
            tables: Mapping[Stream, int | None] = position_tables(model)
    except Exception as error:
        _log.debug("%s cannot be asked for its positions: %s", config.model_type, error)
        tables = {}
    return {stream: tables.get(stream) or trained for stream in model_streams(config)}


def position_limit(model: PreTrainedModel | PretrainedConfig, stream: Stream | None = None) -> int | None:
    """Return the most tokens that a stream's positions take, by default the first's; None without one."""
    limits = position_limits(model)
    return limits.get(stream) if stream is not None else next(iter(limits.values()))


def shared_limits(models: Iterable[PreTrainedModel | PretrainedConfig]) -> dict[Stream, int | None]:
    """Return for each stream the most tokens that all of these models take; None where none of them has a limit."""
    least: dict[Stream, int | None] = {}
    for model in models:
        for stream, limit in position_limits(model).items():
            known = least.get(stream)
            least[stream] = limit if known is None else min(known, limit or known)
    return least


def tokenizer_limit(tokenizer: Tokenizer) -> int | None:
    """Return the length to which a tokenizer says texts should be cut, or None."""
    limit = int(tokenizer.model_max_length)
    return limit if limit < UNLIMITED else None


def length_limit(tokenizer: Tokenizer, model: PreTrainedModel | PretrainedConfig, stream: Stream | None = None) -> int:
    """Return the most tokens that tokenizer and model allow, special ones included; `UNLIMITED` if neither limits."""
    return min(tokenizer_limit(tokenizer) or UNLIMITED, position_limit(model, stream) or UNLIMITED)


@dataclass(frozen=True)
class _LookUp:
    """What one operation read of a table: its first and last entry, counted from 0, and whether no block had begun."""

    operation: str
    size: int
    first: int
    last: int
    ahead: bool = False


@dataclass(frozen=True)
class _Reading:
    """What a model looked up for a text, and whether it came to the end."""

    looked_up: tuple[_LookUp, ...]
    ended: bool


@dataclass(frozen=True)
class _Candidate:
    """A number of tokens that may be the limit, and the look-up of which it is.

    Attributes:
        limit: the number.
        operation: of the look-up.
        ahead: whether it is read before the first block, so that no block need run.
        moving: whether a longer text reads further. A model that pads reads as much for both texts.
    """

    limit: int
    operation: str
    ahead: bool
    moving: bool


class _BlockReached(Exception):  # noqa: N818 - no error
    """The first block is about to run."""


# What was found, by class and the configuration of one block a stream: plans, probes and training ask about the same
# few, and students of a teacher's width differ from it in their depth alone.
_KNOWN: dict[tuple[type[PreTrainedModel] | None, type[PretrainedConfig], str], dict[Stream, int | None]] = {}
_MOST_KNOWN: Final = 64


def position_tables(model: PreTrainedModel | PretrainedConfig) -> Mapping[Stream, int | None]:
    """Return for each stream the most tokens that its tables of positions take; None where no table limits them.

    Args:
        model: a model, of which only class and configuration count, or a configuration.

    Raises:
        ValueError: transformers has no model of this configuration. Others, where it cannot be built.
    """
    config = model if isinstance(model, PretrainedConfig) else model.config
    kind = None if isinstance(model, PretrainedConfig) else type(model)
    streams = model_streams(config)
    try:
        return _tables(kind, with_blocks(config, {stream: [0] for stream in streams}), streams)
    except Exception:  # no model of one block exists (Funnel, Zamba): all blocks say the same, and more slowly
        return _tables(kind, copy.deepcopy(config), streams)


def _tables(
    kind: type[PreTrainedModel] | None, config: PretrainedConfig, streams: Sequence[Stream]
) -> Mapping[Stream, int | None]:
    """Find the tables of a configuration, which is changed, or return what was found before."""
    known = (kind, type(config), config.to_json_string())
    if known not in _KNOWN:
        with warnings.catch_warnings(), torch.random.fork_rng(devices=[]), torch.no_grad():
            warnings.simplefilter("ignore")
            bare = _built(kind, config)
            found = {stream: _limit(bare, stream, streams) for stream in streams}
        while len(_KNOWN) >= _MOST_KNOWN:
            _KNOWN.pop(next(iter(_KNOWN)), None)
        _KNOWN[known] = found
    return _KNOWN[known]


def _built(kind: type[PreTrainedModel] | None, config: PretrainedConfig) -> PreTrainedModel:
    """Build a model with shapes in place of weights; `config` is changed.

    What would fetch or need more than torch itself is left out.
    """
    config._attn_implementation = None
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    if hasattr(config, "_experts_implementation"):
        config._experts_implementation = "batched_mm"  # of the others, one needs values and one bfloat16
    if kind is None and type(config) not in MODEL_MAPPING:  # transformers itself would load all its models to say so
        raise ValueError(f"transformers has no model of {type(config).__name__}")
    with _ShapesAndIndices():
        made: PreTrainedModel = (
            AutoModel.from_config(config)  # type: ignore[no-untyped-call]
            if kind is None
            else kind(config)
        )
    for name, weight in list(made.named_parameters()):  # small ones were made after all
        owner, _, leaf = name.rpartition(".")
        setattr(made.get_submodule(owner), leaf, nn.Parameter(weight.detach().to("meta"), requires_grad=False))
    made.eval()  # type: ignore[no-untyped-call]
    return made


def _limit(model: PreTrainedModel, stream: Stream, streams: Sequence[Stream]) -> int | None:
    short, longer = (_read(model, stream, streams, length) for length in (_SHORT, _LONGER))
    candidates = sorted(_candidates(short.looked_up, longer.looked_up), key=lambda each: each.limit)
    whole = short.ended and longer.ended

    if not whole:  # behind the first block the model can be asked nothing more
        told = [each.limit for each in candidates if not each.ahead and each.moving and each.operation != "slice"]
        candidates = [each for each in candidates if each.ahead]
    else:
        told = []
    for ahead in (True, False):
        limits = sorted({each.limit for each in candidates if each.ahead is ahead})

        def ends(length: int, *, ahead: bool = ahead) -> bool:
            return _read(model, stream, streams, length, only_ahead=ahead).ended

        # What is too long for one table is too long with more tokens too. A loop over chunks (Kimi's linear attention)
        # makes hundreds of look-ups that limit nothing, so that not each of them can be tried.
        at = bisect_left(limits, True, key=lambda limit: not ends(limit + 1))
        if at < len(limits) and ends(limits[at]):
            told.append(limits[at])
    return min(told, default=None)


def _candidates(short: Sequence[_LookUp], longer: Sequence[_LookUp]) -> set[_Candidate]:
    """Return what may be limits: look-ups of tables of one size that move on with the length.

    Each of the one text is held against each of the other, since a text that is padded makes look-ups of its own;
    slices, of which loops over chunks of tokens make hundreds, only against that at the same place.
    """
    grouped: dict[tuple[str, int], tuple[list[_LookUp], list[_LookUp]]] = defaultdict(lambda: ([], []))
    for which, looked_up in enumerate((short, longer)):
        for each in looked_up:
            grouped[each.operation, each.size][which].append(each)
    more = _LONGER - _SHORT
    found = set()
    for (operation, size), pair in grouped.items():
        for one, other in zip(*pair, strict=False) if operation == "slice" else product(*map(set, pair)):
            if other.last - one.last == more and one.last >= _SHORT - 1:
                limit, moving = size - (one.last - (_SHORT - 1)), True
            elif one.first - other.first == more and one.last == other.last:  # read from its end
                limit, moving = one.first + _SHORT, True
            elif (one.first, one.last) == (other.first, other.last) and one.last - one.first >= _SHORT:
                limit, moving = size - one.first, False
            else:
                continue
            if limit >= _LONGER and (moving or operation == "embedding"):
                found.add(_Candidate(limit, operation, one.ahead, moving))
    return found


def _read(
    model: PreTrainedModel,
    stream: Stream,
    streams: Sequence[Stream],
    length: int,
    *,
    only_ahead: bool = False,
) -> _Reading:
    """Return what a model does with a text of that many tokens in one stream; `only_ahead` stops at its first block."""
    own = vars(model.config)
    # The padding's positions are no text's, and other special tokens may count apart too.
    special = {value for name, value in own.items() if name.endswith("token_id") and isinstance(value, int)}
    token = next(number for number in range(3, 1000) if number not in special)
    lengths = {"": length if stream == streams[0] else _SHORT}
    if len(streams) == 2:
        lengths["decoder_"] = length if stream == "decoder" else _SHORT
    taken = inspect.signature(model.forward).parameters
    with _ShapesAndIndices() as seen, _marked_before_first_block(model, stream, seen, stop=only_ahead):
        inputs: dict[str, Any] = {f"{of}input_ids": torch.full((1, long), token) for of, long in lengths.items()}
        inputs["attention_mask"] = torch.ones((1, lengths[""]), dtype=torch.long)
        if "use_cache" in taken:
            inputs["use_cache"] = False
        try:
            model(**inputs)
        except _BlockReached:
            return _Reading(tuple(seen.found), ended=True)
        except Exception:  # any class fails in its own way on a text that is too long; that it did is the answer
            return _Reading(tuple(seen.found), ended=False)
    return _Reading(tuple(seen.found), ended=True)


@contextmanager
def _marked_before_first_block(
    model: PreTrainedModel, stream: Stream, seen: _ShapesAndIndices, *, stop: bool
) -> Iterator[None]:
    """Mark as `ahead` what is looked up before a stream's first block, and with `stop` raise `_BlockReached` there."""

    def reached(*_: object) -> None:
        seen.found[:] = [replace(each, ahead=True) for each in seen.found]
        if stop:
            raise _BlockReached

    try:
        handle = blocks(model, stream)[0].register_forward_pre_hook(reached)
    except AnglekitError:  # there is no list of blocks, and so nothing ahead of it
        yield
        return
    try:
        yield
    finally:
        handle.remove()


class _ShapesAndIndices(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Computes with whole numbers, and gives fractions a shape only (they lie on the meta device).

    `found` holds each look-up in order.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found: list[_LookUp] = []

    def __torch_dispatch__(
        self,
        func: Any,  # noqa: ANN401 - an operation of torch
        types: Any,  # noqa: ANN401
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401 - whatever the operation returns
        options = dict(kwargs or {})
        self._look(func, args)
        tensors = [each for each in tree_flatten((args, options))[0] if isinstance(each, Tensor)]
        shapes_only = any(each.is_meta for each in tensors)
        if shapes_only and func is _aten._local_scalar_dense.default:
            return 0
        writes = func._schema.name.endswith("_")
        # Where values are made, the device says nothing yet: whole numbers are held wherever they were asked for.
        makes = options.get("device") is not None
        large = not writes and any(each.numel() > _MOST_COMPUTED for each in tensors)
        if not (shapes_only or makes or large):
            return func(*args, **options)
        meta = {**options, "device": torch.device("meta")} if makes else options
        made = func(*tree_map(_without_values, args), **tree_map(_without_values, meta))
        if shapes_only:
            # What an operation writes in place stays what it was.
            return args[0] if writes and args and isinstance(args[0], Tensor) else tree_map(_held_if_whole, made)
        fraction = isinstance(made, Tensor) and (made.is_floating_point() or made.is_complex())
        if isinstance(made, Tensor) and made.numel() > (_MOST_COMPUTED if fraction else _MOST_HELD):
            return made
        return func(*args, **{**options, "device": torch.device("cpu")} if makes else options)

    def _look(self, func: Any, args: tuple[Any, ...]) -> None:  # noqa: ANN401 - an operation of torch
        """Note what an operation reads of a table, and refuse an entry that is not there."""
        for operation, size, read in _look_ups(func, args):
            if isinstance(read, Tensor):
                if read.is_meta or read.numel() == 0 or read.dtype == torch.bool:
                    continue
                first, last = int(read.min()), int(read.max())
                if last >= size or first < -size:
                    raise IndexError(f"index {last} is out of range for a table of {size}")
            else:
                first, last = read
            self.found.append(_LookUp(operation, size, first, last))


def _look_ups(func: Any, args: tuple[Any, ...]) -> Iterator[tuple[str, int, Any]]:  # noqa: ANN401 - torch's
    """Yield of each table that an operation reads its name, the table's size, and the entries."""
    if func is _aten.embedding.default:
        yield "embedding", args[0].shape[0], args[1]
    elif func in (_aten.gather.default, _aten.index_select.default):
        yield "gather", args[0].shape[args[1]], args[2]
    elif func is _aten.index.Tensor:
        for dimension, index in enumerate(args[1]):
            if index is not None and dimension < args[0].ndim:
                yield "index", args[0].shape[dimension], index
    elif func is _aten.slice.Tensor:
        table, dimension, start, end = (*args, *(0, None, None)[len(args) - 1 :])[:4]
        size = table.shape[dimension]
        start, end = start or 0, size if end is None else min(end, size)
        start, end = (each + size if each < 0 else each for each in (start, end))
        if 0 <= start < end and (start, end) != (0, size):
            yield "slice", size, (start, end - 1)


def _without_values(each: Any) -> Any:  # noqa: ANN401 - an argument of an operation
    return each.to("meta") if isinstance(each, Tensor) and not each.is_meta else each


def _held_if_whole(each: Any) -> Any:  # noqa: ANN401 - a result of an operation
    """Return zeros for whole numbers that followed from fractions, and anything else as it is."""
    if not isinstance(each, Tensor) or each.is_floating_point() or each.is_complex() or each.numel() > _MOST_HELD:
        return each
    return torch.zeros(each.shape, dtype=each.dtype)
