"""The processes of one launch (`accelerate launch`, `torchrun`): how they wait, fail and add up together."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore, ProcessGroupGloo, Store
from torch.distributed.rendezvous import rendezvous

from anglekit.errors import AnglekitError, InputError, RunError
from anglekit.runtime.placement import chosen_device
from anglekit.settings_fields import SettingError

# How long processes that were started together may take to find each other.
_MEETING = timedelta(minutes=10)
# A process may wait as long as another one's share of the work takes.
_PATIENCE = timedelta(days=30)
# The most bytes of one message.
_MESSAGE_BYTES = 256 << 20
# The variables by which accelerate and `Trainer` know that they are one of several processes.
_LAUNCH = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")


@dataclass(frozen=True)
class Processes:
    """One process and those that were launched with it.

    Attributes:
        rank: its number, from 0; the first process alone writes and prints.
        count: how many there are.
        group: gloo's channel of torch.distributed, over which tensors in main memory go; None for one process.
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
        """Wait for one another at the end of a block; if it fails in one process, all processes fail with that error.

        The block itself must not wait for another process.

        Raises:
            AnglekitError: the block raised it here or in another process; of several, the lowest rank's is raised.
            RunError: the block raised an error of another kind in another process, or that process is gone.
        """
        failure: Exception | None = None
        try:
            yield
        except Exception as error:
            failure = error
        if self.count > 1:
            failed = [
                (rank, outcome) for rank, outcome in enumerate(self.gather(_described(failure))) if outcome is not None
            ]
            if failed and (failure is None or isinstance(failure, AnglekitError)):
                raise _error_of(*failed[0]) from failure
        if failure is not None:
            raise failure

    def all(self, holds: bool) -> bool:
        """Return whether something holds in every process."""
        return all(self.gather(holds))

    def alike(self, value: Any) -> bool:  # noqa: ANN401 - whatever json takes
        """Return whether all processes have the same value, as json."""
        return len({json.dumps(each, sort_keys=True) for each in self.gather(value)}) == 1

    def gather(self, value: Any) -> list[Any]:  # noqa: ANN401 - whatever json takes
        """Return the values of all processes, as json gives them back, in the order of their ranks."""
        if self.count == 1:
            return [json.loads(json.dumps(value))]
        content = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)
        sizes = torch.zeros(self.count, dtype=torch.int64)
        sizes[self.rank] = len(content)
        self.add_up(sizes)
        padded = torch.zeros(int(sizes.max()), dtype=torch.uint8)
        padded[: len(content)] = content
        found = [torch.empty_like(padded) for _ in range(self.count)]
        with _named_loss():
            self.group.allgather([found], [padded]).wait()
        return [
            json.loads(each[:size].numpy().tobytes().decode()) for each, size in zip(found, sizes.tolist(), strict=True)
        ]

    def add_up(self, tensor: Tensor) -> None:
        """Replace a tensor in main memory, in every process, by its sum over all processes."""
        if self.count > 1:
            with _named_loss():
                self.group.allreduce([tensor]).wait()

    def share_first(self, tensor: Tensor) -> None:
        """Replace a tensor's values in main memory, in every process, by the first process's."""
        if self.count > 1:
            with _named_loss():
                self.group.broadcast(tensor, 0).wait()

    def send_to_first(self, content: bytes) -> None:
        """Send content to the first process, which reads it by `receive`."""
        buffer = torch.frombuffer(bytearray(content), dtype=torch.uint8)
        with _named_loss():
            self.group.send([torch.tensor([len(buffer)])], 0, 0).wait()
            for start in range(0, len(buffer), _MESSAGE_BYTES):
                self.group.send([buffer[start : start + _MESSAGE_BYTES]], 0, 0).wait()

    def receive(self) -> Iterator[bytes]:
        """Yield what every other process sends, in the order of their ranks; for the first process."""
        for rank in range(1, self.count):
            size = torch.zeros(1, dtype=torch.int64)
            with _named_loss():
                self.group.recv([size], rank, 0).wait()
                buffer = torch.empty(int(size), dtype=torch.uint8)
                for start in range(0, len(buffer), _MESSAGE_BYTES):
                    self.group.recv([buffer[start : start + _MESSAGE_BYTES]], rank, 0).wait()
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


# Errors with fields, from which another process makes them again; the more special kind first.
_WITH_FIELDS: Mapping[str, tuple[type[InputError], tuple[str, ...]]] = {
    "setting": (SettingError, ("setting", "problem", "remedy", "allowed", "name")),
    "input": (InputError, ("arrived", "remedy", "allowed", "setting")),
}


def _described(error: Exception | None) -> tuple[str, dict[str, str]] | None:
    """Return the kind of an error and its fields."""
    if error is None:
        return None
    for kind, (made, names) in _WITH_FIELDS.items():
        if isinstance(error, made):
            return kind, {name: getattr(error, name) for name in names}
    if isinstance(error, AnglekitError):
        return "run", {"message": str(error)}
    return "other", {"message": f"{type(error).__name__}: {error}"}


def _error_of(rank: int, outcome: tuple[str, dict[str, str]]) -> AnglekitError:
    kind, fields = outcome
    if kind in _WITH_FIELDS:
        return _WITH_FIELDS[kind][0](**fields)
    message = fields["message"]
    return RunError(message if kind == "run" else f"process {rank} failed with {message}")


@contextmanager
def launched_processes(device: str = "cpu") -> Iterator[tuple[Processes, str]]:
    """Join the processes of this launch during a block; a process started by itself is alone.

    Yields:
        The processes, and the device of this one: for `cuda` its own; `auto` is one that is there.

    Raises:
        InputError: what the launcher says about them is incomplete.
        RunError: they did not find each other.
    """
    processes, device = _met(), chosen_device(device)
    if device == "cuda" and processes.count > 1:
        device = f"cuda:{os.environ.get('LOCAL_RANK', processes.rank)}"
    yield processes, device


@contextmanager
def processes_apart() -> Iterator[Processes]:
    """Join the processes of this launch during a block in which each trains by itself, on its own device.

    During the block, accelerate and `Trainer` see a single process.

    Raises:
        InputError: what the launcher says about them is incomplete.
        RunError: they did not find each other.
    """
    processes = _met()
    before = {name: os.environ.get(name) for name in (*_LAUNCH, "CUDA_VISIBLE_DEVICES")}
    if processes.count > 1:
        devices = torch.cuda.device_count()
        if devices > 1:
            own = int(before["LOCAL_RANK"] or processes.rank) % devices
            visible = before["CUDA_VISIBLE_DEVICES"]
            os.environ["CUDA_VISIBLE_DEVICES"] = str(own) if visible is None else visible.split(",")[own].strip()
        for name in _LAUNCH:
            os.environ.pop(name, None)
    try:
        yield processes
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _met() -> Processes:
    """Return this process with a channel to those that were launched with it; torch's default group is left alone."""
    found = {name: os.environ.get(name) or "" for name in ("WORLD_SIZE", "RANK", "MASTER_PORT")}
    if found["WORLD_SIZE"] in ("", "1"):
        return ALONE
    if not all(value.isdecimal() for value in found.values()) or not os.environ.get("MASTER_ADDR"):
        given = ", ".join(f"{name}={value}" for name, value in found.items())
        raise InputError(
            f"the environment does not say which processes belong together ({given})", "use accelerate launch"
        )
    try:
        store, rank, count = next(rendezvous("env://", timeout=_MEETING))
        # A short wait notices processes that never come; the work itself may take long.
        _gloo("meeting", store, rank, count, _MEETING).barrier().wait()
        group = _gloo("work", store, rank, count, _PATIENCE)
    except (RuntimeError, ValueError) as error:  # torch's own errors derive from the first
        where = f"{os.environ['MASTER_ADDR']}:{found['MASTER_PORT']}"
        reason = " ".join(str(error).split())[:200]
        raise RunError(
            f"the {found['WORLD_SIZE']} processes of this launch did not meet at {where} ({reason}); start all again"
        ) from error
    return Processes(rank, count, group)


def _gloo(name: str, store: Store, rank: int, count: int, patience: timedelta) -> Any:  # noqa: ANN401 - untyped
    return ProcessGroupGloo(PrefixStore(f"anglekit-{name}", store), rank, count, patience)
