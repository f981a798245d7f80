"""Whether a model of which only the first blocks are held computes in them what the whole model computes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from transformers import PretrainedConfig, PreTrainedModel

from anglekit.errors import AnglekitError, InputError, foreign_failures
from anglekit.models.architectures import blocks, depth, model_streams
from anglekit.models.block_sequence import (
    block_differences,
    can_run,
    difference,
    first_states,
    random_inputs,
    rounding,
    with_weights_of,
)
from anglekit.runtime.placement import is_placed
from anglekit.vocabulary import Stream

# No model has as many; of a configuration that says so nothing is built.
_MOST_BLOCKS = 1000


def same_first_blocks(held: PreTrainedModel, whole: PretrainedConfig) -> bool:
    """Return whether the blocks of a shortened model compute what they compute in the whole one.

    The whole model is built without its weights and given those that are held; both run a few random tokens up to the
    end of the held blocks. Of a model that is offloaded or quantised the blocks are only built, and compared by their
    parts and constants.

    Args:
        held: the last of its streams has fewer blocks than `whole` says, the first ones.
        whole: the configuration of the whole model.
    """
    stream = model_streams(whole)[-1]
    if depth(whole, stream) > _MOST_BLOCKS:
        return False
    number = depth(held.config, stream)
    try:
        with foreign_failures(lambda reason: InputError(f"the whole {whole.model_type} cannot be run: {reason}")):
            if is_placed(held) or not can_run(held):
                return _made_alike(type(held), whole, held.config, stream, number)
            entire = with_weights_of(type(held), whole, held.state_dict(), held.device)
            inputs = random_inputs(held)
            pairs = zip(
                first_states(held, stream, number, inputs), first_states(entire, stream, number, inputs), strict=True
            )
            return all(difference(ours, theirs) <= rounding(held) for ours, theirs in pairs)
    except AnglekitError:
        # Some weight has a part for each block, and is needed from the start.
        return False


def of_the_whole(held: PreTrainedModel, whole: PretrainedConfig, report: Mapping[str, Any]) -> set[str]:
    """Return the names of the stored weights that fit the whole model and not the held one.

    Args:
        held: as for `same_first_blocks`.
        whole: the configuration of the whole model.
        report: what transformers says of the weights that it loaded.
    """
    stored = {str(name): tuple(shape) for name, shape, *_ in report.get("mismatched_keys", ())}
    if not stored:
        return set()
    entire = with_weights_of(type(held), whole, {}, torch.device("cpu")).state_dict()
    return {name for name, shape in stored.items() if name in entire and tuple(entire[name].shape) == shape}


def _made_alike(
    kind: type[PreTrainedModel], whole: PretrainedConfig, fewer: PretrainedConfig, stream: Stream, number: int
) -> bool:
    entire, held = (with_weights_of(kind, config, {}, torch.device("cpu")) for config in (whole, fewer))
    pairs = zip(blocks(entire, stream)[:number], blocks(held, stream), strict=True)
    return not any(block_differences(theirs, ours) for theirs, ours in pairs)
