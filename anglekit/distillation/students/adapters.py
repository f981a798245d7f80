"""Adapters: the linear maps W from the student's width to the teacher's that hidden losses train, without a bias.

(The paper's language models have one: the official reading.)

They live outside the student and are saved beside it (`projections.save_adapters`), never inside its checkpoint.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from anglekit.distillation.matching.strategies import LayerMatching
from anglekit.errors import InputError
from anglekit.vocabulary import Stream


class LayerAdapters(nn.ModuleDict):
    """One linear map for each (stream, student layer); empty where the widths agree.

    The names of its weights are "encoder.3.weight", as in the file that `projections.save_adapters` writes.
    """

    def __init__(
        self, layers: Sequence[tuple[Stream, int]], student_width: int, teacher_width: int, *, bias: bool = False
    ) -> None:
        super().__init__()
        self.layers = tuple(layers)
        for stream, layer in layers:
            if stream not in self:
                self[stream] = nn.ModuleDict()
            self._of_stream(stream)[str(layer)] = nn.Linear(student_width, teacher_width, bias=bias)

    def project(self, stream: Stream, layer: int, states: Tensor) -> Tensor:
        """Map states (..., student width) to (..., teacher width); without any adapter, return them as they are.

        Raises:
            InputError: there are adapters, but none for this layer.
        """
        if not self.layers:
            return states
        if (stream, layer) not in self.layers:
            raise InputError(f"the {stream}'s layer {layer} has no adapter", "only matched layers have one")
        return cast("Tensor", self._of_stream(stream)[str(layer)](states))

    def weights(self) -> dict[tuple[Stream, int], Tensor]:
        """Return each weight, (teacher width, student width), by (stream, student layer)."""
        return {(stream, layer): self.get_parameter(f"{stream}.{layer}.weight") for stream, layer in self.layers}

    def biases(self) -> dict[tuple[Stream, int], Tensor]:
        """Return each bias, (teacher width,), by (stream, student layer); empty where they have none."""
        found = dict(self.named_parameters())
        named = {(stream, layer): found.get(f"{stream}.{layer}.bias") for stream, layer in self.layers}
        return {place: bias for place, bias in named.items() if bias is not None}

    def _of_stream(self, stream: Stream) -> nn.ModuleDict:
        return cast("nn.ModuleDict", self[stream])


def create_adapters(
    matchings: Sequence[LayerMatching], *, student_width: int, teacher_width: int, seed: int = 0, bias: bool = False
) -> LayerAdapters:
    """Make the adapters that the matched layers need: one for each where the widths differ, otherwise none.

    Weights are uniform in +-1/sqrt(student width), torch's own initialisation of a linear layer, from a generator of
    their own: the student's random weights do not repeat in them, and the global random state is left alone.

    Args:
        matchings: of each stream.
        student_width: the student's hidden size.
        teacher_width: the teacher's.
        seed: of the weights.
        bias: whether they have one, which starts at zero.

    Raises:
        InputError: a width below 1.

    Example:
        >>> adapters = create_adapters([matching], student_width=256, teacher_width=768)
        >>> adapters.project("encoder", 1, states).shape  # states (batch, time, 256)
        torch.Size([8, 128, 768])
    """
    layers = [(matching.stream, layer) for matching in matchings for layer in matching.student_layers]
    return adapters_of_layers(layers, student_width=student_width, teacher_width=teacher_width, seed=seed, bias=bias)


def adapters_of_layers(
    layers: Sequence[tuple[Stream, int]], *, student_width: int, teacher_width: int, seed: int, bias: bool = False
) -> LayerAdapters:
    """Make an adapter for each of these student layers, as `create_adapters` does."""
    if min(student_width, teacher_width) < 1:
        raise InputError(f"widths {student_width} and {teacher_width} came", allowed="allowed: at least 1")
    with torch.random.fork_rng(devices=[]):
        needed = layers if student_width != teacher_width else []
        adapters = LayerAdapters(needed, student_width, teacher_width, bias=bias)
    digest = hashlib.sha256(f"adapters:{seed}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
    for weight in adapters.weights().values():
        bound = 1.0 / math.sqrt(student_width)
        nn.init.uniform_(weight, -bound, bound, generator=generator)
    for each in adapters.biases().values():
        nn.init.zeros_(each)
    return adapters
