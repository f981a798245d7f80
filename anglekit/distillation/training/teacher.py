"""The teacher's side of a distillation step: a forward pass that keeps only what the losses read."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from anglekit.distillation.losses.objective import TeacherOutputs
from anglekit.distillation.training.attention_recorder import AttentionRecorder
from anglekit.distillation.training.head_apart import HeadApart
from anglekit.models.architectures import model_streams
from anglekit.runtime.passes import told_failures
from anglekit.runtime.placement import compute_device, is_placed
from anglekit.states.recorder import LayerRecorder
from anglekit.vocabulary import FinalNorm, Stream

#: Anything that returns `TeacherOutputs` for a batch's model inputs (labels included). `TeacherForward` runs the
#: teacher; a sweep gives several trainers one provider that runs it once for all of them.
TeacherProvider = Callable[[Mapping[str, Any]], TeacherOutputs]


def accepted_inputs(model: nn.Module, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the inputs that a model's forward pass accepts, without labels.

    Teacher and student may be of different classes, so a batch for one can hold keys that the other does not know.
    """
    names = _argument_names(type(model).forward)
    return {key: value for key, value in inputs.items() if key in names and key != "labels"}


@cache
def _argument_names(forward: Callable[..., Any]) -> frozenset[str]:
    return frozenset(inspect.signature(forward).parameters)


class TeacherForward:
    """Runs a teacher without gradients, in evaluation mode unless told otherwise, and keeps the matched layers only.

    The head is skipped if no loss reads logits. The teacher does not run at all if no loss reads any of its outputs.

    Args:
        teacher: with its head if `logits` is wanted. It is put into evaluation mode, and left in it.
        layers: for each stream, the teacher layers that losses read.
        logits: whether a loss reads the logits.
        final_norm: whether the last layer's state is taken before or after the final norm.
        device: where the teacher runs; None: on the student's device. Its outputs are moved to the device of the
            inputs. A teacher that is spread over devices or quantised stays where it is.
        attention: of each layer record what its self-attention makes instead of its state.
        maps: with it, its attention distributions too.
        dropout: run it in training mode, as the paper's BART and T5 teachers. What is dropped follows from the batch
            itself, so that it is the same in every arm of a sweep and after a resume, and the global random state is
            left as it is.
        head_apart: leave logits of a large vocabulary unmade, for losses that read them chunk by chunk.

    Raises:
        InputError: a stream or layer that the teacher does not have, or an attention that cannot be read.
    """

    def __init__(
        self,
        teacher: PreTrainedModel,
        layers: Mapping[Stream, Sequence[int]],
        *,
        logits: bool = True,
        final_norm: FinalNorm = "excluded",
        device: torch.device | str | None = None,
        attention: bool = False,
        maps: bool = False,
        dropout: bool = False,
        head_apart: bool = False,
    ) -> None:
        teacher.eval()  # type: ignore[no-untyped-call]
        self.teacher = teacher
        self.layers = {stream: tuple(wanted) for stream, wanted in layers.items() if wanted}
        self.logits = logits
        self.final_norm = final_norm
        self.dropout = dropout
        self._head = HeadApart(teacher) if head_apart and logits else None
        self.device = None if device is None else torch.device(device)
        self._recorder = LayerRecorder(teacher, {} if attention else self.layers, final_norm)
        self._attention = AttentionRecorder(teacher, self.layers if attention else {}, maps=maps, role="teacher")
        self._extra = {"use_cache": False} if "decoder" in model_streams(teacher.config) else {}

    def to(self, device: torch.device) -> TeacherForward:
        """Move the teacher to the student's device, unless it has one of its own, and return self."""
        if not is_placed(self.teacher):
            nn.Module.to(self.teacher, self.device or device)
        return self

    def __call__(self, inputs: Mapping[str, Any]) -> TeacherOutputs:
        """Return what the losses read for one batch, on the device of its inputs."""
        if not (self.logits or self.layers):
            return TeacherOutputs()
        if self.teacher.training:
            self.teacher.eval()  # type: ignore[no-untyped-call]
        network = self.teacher if self.logits else self.teacher.base_model
        recorder = self._recorder
        # Not inference mode: its tensors cannot be saved for the student's backward pass.
        here = compute_device(self.teacher)
        given = {key: _sent(value, here) for key, value in accepted_inputs(network, inputs).items()}
        back = next((value.device for value in inputs.values() if isinstance(value, Tensor)), here)
        mode = _training_mode(self.teacher, given) if self.dropout else nullcontext()
        apart = nullcontext(()) if self._head is None or back != here else self._head.left_out(given)
        failures = told_failures("the teacher", network, given)
        with failures, torch.no_grad(), apart as kept, mode, recorder, self._attention:
            outputs = network(**given, **self._extra)
        hidden = {
            stream: {layer: state.to(back) for layer, state in own.items()} for stream, own in recorder.states.items()
        }
        attention = {
            stream: {layer: each.to(back) for layer, each in own.items()}
            for stream, own in self._attention.states.items()
        }
        recorder.clear()
        self._attention.clear()
        logits = None
        if self.logits:
            logits = kept[-1] if kept else outputs.logits.to(back)
        return TeacherOutputs(logits, hidden, attention, disposable=True)


@contextmanager
def _training_mode(teacher: PreTrainedModel, inputs: Mapping[str, Any]) -> Iterator[None]:
    """Put a teacher into training mode, with random states that a batch decides, and all back afterwards."""
    digest = hashlib.sha256()
    for name, value in sorted(inputs.items()):
        if isinstance(value, Tensor):
            content = value.detach().cpu().reshape(-1).contiguous().view(torch.uint8).numpy()
            digest.update(f"{name} {tuple(value.shape)}".encode() + content.tobytes())
    here = compute_device(teacher)
    with torch.random.fork_rng(devices=[here] if here.type == "cuda" else []):
        seed = int.from_bytes(digest.digest()[:7], "big")
        # Not `torch.manual_seed`, which would reseed every accelerator as well.
        torch.default_generator.manual_seed(seed)
        if here.type == "cuda":
            with torch.cuda.device(here):
                torch.cuda.manual_seed(seed)
        # By its own name: mypy reads the decorated method of `PreTrainedModel` as unbound.
        nn.Module.train(teacher)
        try:
            yield
        finally:
            nn.Module.eval(teacher)


def _sent(value: Any, device: torch.device) -> Any:  # noqa: ANN401 - a batch may hold more than tensors
    return value.to(device) if isinstance(value, Tensor) else value
