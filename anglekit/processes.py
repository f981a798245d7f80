"""The processes of one launch (`accelerate launch`, `torchrun`): how they wait, fail and add up together."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor

from anglekit.errors import AnglekitError, InputError, RunError

__all__ = ["ALONE", "Processes", "launched_processes"]

# A process may wait for another one for as long as that one's share of the work takes.
_PATIENCE = timedelta(days=30)
# The most bytes of one message.
_MESSAGE_BYTES = 256 << 20


@dataclass(frozen=True)
class Processes:
    """One process and those that were launched with it.

    Attributes:
        rank: its number, from 0; the first process alone writes and prints.
        count: how many there are.
        group: the channel of torch.distributed over which tensors in main memory go (gloo); None for one process.
    """

    rank: int = 0
    count: int = 1
    group: Any = None

    @property
    def first(self) -> bool:
        """Whether this is the process that writes and prints."""
        return self.rank == 0

    @contextmanager
    def together(self) -> Iterator[None]:
        """Wait for one another at the end of a block; where it fails in one process, all of them fail with that error.

        The block itself must not wait for another process.

        Raises:
            AnglekitError: the block raised it in this process or, of all that did, in the one of the lowest rank.
            RunError: the block raised another error in another process, or that process is gone.
        """
        failure: Exception | None = None
        try:
            yield
        except Exception as error:
            failure = error
        if self.count > 1:
            outcomes: list[tuple[str, str] | None] = [None] * self.count
            with _named_loss():
                torch.distributed.all_gather_object(outcomes, _described(failure), group=self.group)
            failed = [(rank, outcome) for rank, outcome in enumerate(outcomes) if outcome is not None]
            if failed and (failure is None or isinstance(failure, AnglekitError)):
                raise _error_of(*failed[0]) from failure
        if failure is not None:
            raise failure

    def all(self, holds: bool) -> bool:
        """Return whether something holds in every process."""
        count = torch.tensor(int(holds))
        self.add_up(count)
        return int(count) == self.count

    def add_up(self, tensor: Tensor) -> None:
        """Put the sum over all processes of a tensor in main memory in its place, in every process."""
        if self.count > 1:
            with _named_loss():
                torch.distributed.all_reduce(tensor, group=self.group)

    def share_first(self, tensor: Tensor) -> None:
        """Put the first process's numbers into a tensor in main memory, in every process."""
        if self.count > 1:
            with _named_loss():
                torch.distributed.broadcast(tensor, src=0, group=self.group)

    def send_to_first(self, content: bytes) -> None:
        """Hand over to the first process, which reads it by `receive`."""
        buffer = torch.frombuffer(bytearray(content), dtype=torch.uint8)
        with _named_loss():
            torch.distributed.send(torch.tensor([len(buffer)]), dst=0, group=self.group)
            for start in range(0, len(buffer), _MESSAGE_BYTES):
                torch.distributed.send(buffer[start : start + _MESSAGE_BYTES], dst=0, group=self.group)

    def receive(self) -> Iterator[bytes]:
        """Yield what every other process sends, in the order of their ranks; for the first process."""
        for rank in range(1, self.count):
            size = torch.zeros(1, dtype=torch.int64)
            with _named_loss():
                torch.distributed.recv(size, src=rank, group=self.group)
                buffer = torch.empty(int(size), dtype=torch.uint8)
                for start in range(0, len(buffer), _MESSAGE_BYTES):
                    torch.distributed.recv(buffer[start : start + _MESSAGE_BYTES], src=rank, group=self.group)
            yield buffer.numpy().tobytes()


#: A process that was started by itself.
ALONE = Processes()


@contextmanager
def _named_loss() -> Iterator[None]:
    """Say what torch's message about a closed connection means."""
    try:
        yield
    except RuntimeError as error:
        raise RunError("another process of this launch has ended; see what it printed, and start all again") from error


def _described(error: Exception | None) -> tuple[str, str] | None:
    if error is None:
        return None
    if isinstance(error, AnglekitError):
        return ("input" if isinstance(error, InputError) else "run"), str(error)
    return "other", f"{type(error).__name__}: {error}"


def _error_of(rank: int, outcome: tuple[str, str]) -> AnglekitError:
    kind, message = outcome
    if kind == "input":
        return InputError(message)
    return RunError(message if kind == "run" else f"process {rank} failed with {message}")


@contextmanager
def launched_processes(device: str = "cpu") -> Iterator[tuple[Processes, str]]:
    """Join the processes of this launch for the length of a block; a process started by itself is alone.

    Args:
        device: where the models go; `cuda` becomes the process's own.

    Yields:
        The processes, and the device of this one.
    """
    if int(os.environ.get("WORLD_SIZE", "1") or 1) < 2:
        yield ALONE, device
        return
    from accelerate import PartialState

    joined = torch.distributed.is_initialized()
    state = PartialState(cpu=device.partition(":")[0] == "cpu", timeout=_PATIENCE)
    group = torch.distributed.new_group(backend="gloo", timeout=_PATIENCE)
    if device == "cuda":
        device = f"cuda:{state.local_process_index}"
    try:
        yield Processes(state.process_index, state.num_processes, group), device
    finally:
        if not joined:
            torch.distributed.destroy_process_group()
            PartialState._reset_state()
