"""Lanes: several batches on their way through the models at once, each with its share of the processor's threads.

On a CPU, two passes side by side with one thread each are done before two passes in turn with two threads: threads that
share a pass wait for each other after every operation.
"""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Generic, TypeVar

import torch
from transformers import PreTrainedModel

from anglekit.runtime.placement import is_placed

Item = TypeVar("Item")
Made = TypeVar("Made")

# More would hold more batches in memory at once.
_MOST_LANES = 2


def lane_count(models: Sequence[PreTrainedModel], devices: Iterable[torch.device], *, held: bool = False) -> int:
    """Return how many batches may be on their way at once: 2 where it is faster and safe, else 1.

    It is faster where all models compute on a CPU with two threads to give. It is not safe where something in a model
    changes from pass to pass: weights that hooks bring from elsewhere (unless they are `held` for all passes), rotary
    tables that are made for each length, or code that does not come with transformers.
    """
    if torch.get_num_threads() < _MOST_LANES or not torch.backends.openmp.is_available():  # type: ignore[no-untyped-call]
        return 1
    # Both settings belong to one thread; a lane's own thread would not see them.
    if torch.get_default_device().type != "cpu" or torch.is_autocast_enabled("cpu"):
        return 1
    steady = all(device.type == "cpu" for device in devices) and all(_is_steady(model, held=held) for model in models)
    return _MOST_LANES if steady else 1


def _is_steady(model: PreTrainedModel, *, held: bool) -> bool:
    if (is_placed(model) and not held) or not type(model).__module__.startswith("transformers."):
        return False
    for module in model.modules():
        kinds = getattr(module, "rope_type", None)
        for kind in kinds.values() if isinstance(kinds, Mapping) else (kinds,):
            if kind is not None and ("dynamic" in kind or kind == "longrope"):
                return False
    return True


def run_in_lanes(
    items: Iterator[Item],
    produce: Callable[[Item, int], Made],
    consume: Callable[[Item, Made], None],
    lanes: int,
) -> None:
    """Make something of every item, several at a time, and use it, one at a time and in the items' order.

    The order of use does not depend on which lane was faster: a lane that overtakes the other leaves what it made and
    goes on, as long as there is a free slot. The first error ends all lanes and is raised here. The number of torch's
    threads is restored at the end.

    Args:
        items: read by one lane at a time.
        produce: makes something of an item. Its second argument is the number of a slot, below `slot_count`: no other
            item uses that slot's memory until what was made in it has been used.
        consume: uses what was made.
        lanes: as many as `lane_count` says; one lane runs here, the others in threads of their own.
    """
    if lanes == 1:
        for item in items:
            consume(item, produce(item, 0))
        return
    before = torch.get_num_threads()
    queue = _Queue(items, produce, consume, slot_count(lanes))
    shares = [max(1, (before + lane) // lanes) for lane in range(lanes)]
    modes = torch.is_inference_mode_enabled(), torch.is_grad_enabled()
    others = [
        threading.Thread(
            target=contextvars.copy_context().run,
            args=(queue.work_alike, threads, modes),
            name=f"anglekit-lane-{lane}",
            daemon=True,
        )
        for lane, threads in enumerate(shares[1:], 1)
    ]
    try:
        for thread in others:
            thread.start()
        queue.work(shares[0])
    finally:
        for thread in others:
            thread.join()
        torch.set_num_threads(before)
    if queue.error is not None:
        raise queue.error


def slot_count(lanes: int) -> int:
    """Return how many batches are held at most: one in each lane, and one that overtook another."""
    return 1 if lanes == 1 else lanes + 1


class _Queue(Generic[Item, Made]):
    """What the lanes share: the items that are left, what was made and waits for its turn, and the first error."""

    def __init__(
        self,
        items: Iterator[Item],
        produce: Callable[[Item, int], Made],
        consume: Callable[[Item, Made], None],
        slots: int,
    ) -> None:
        self._items = enumerate(items)
        self._produce = produce
        self._consume = consume
        self._changed = threading.Condition()
        self._free = list(range(slots))
        self._made: dict[int, tuple[Item, Made, int]] = {}
        self._turn = 0
        self._consuming = False
        self.error: BaseException | None = None

    def work_alike(self, threads: int, modes: tuple[bool, bool]) -> None:
        """Work in a thread of its own, in the modes of the thread that started it."""
        inference, gradients = modes
        with torch.inference_mode(inference), torch.set_grad_enabled(gradients and not inference):
            self.work(threads)

    def work(self, threads: int) -> None:
        """Take items until there are none, or until a lane has failed."""
        try:
            # Each thread sets the number for itself.
            torch.set_num_threads(threads)
            while (taken := self._take()) is not None:
                number, item, slot = taken
                made = self._produce(item, slot)
                with self._changed:
                    self._made[number] = item, made, slot
                while (following := self._next_turn()) is not None:
                    item, made, slot = following
                    self._consume(item, made)
                    del item, made, following
                    self._end_turn(slot)
        except BaseException as error:  # an interruption too must end the other lanes
            with self._changed:
                self.error = self.error or error
                self._changed.notify_all()

    def _take(self) -> tuple[int, Item, int] | None:
        """Wait for a free slot and return the next item with its number; None where all is done or failed."""
        with self._changed:
            self._changed.wait_for(lambda: bool(self._free) or self.error is not None)
            taken = None if self.error is not None else next(self._items, None)
            return None if taken is None else (*taken, self._free.pop())

    def _next_turn(self) -> tuple[Item, Made, int] | None:
        """Return what is to be used next; None if it is not made yet, or if the other lane will use it."""
        with self._changed:
            if self._consuming or self._turn not in self._made or self.error is not None:
                return None
            self._consuming = True
            return self._made.pop(self._turn)

    def _end_turn(self, slot: int) -> None:
        with self._changed:
            self._consuming = False
            self._turn += 1
            self._free.append(slot)
            self._changed.notify_all()
