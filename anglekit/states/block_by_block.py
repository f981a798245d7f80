"""A model larger than memory, run over many batches block after block, so that each weight is read once.

Every batch's pass is an unchanged call of the model, in a coroutine of its own (greenlet). Before a block whose weights
lie in files it waits. When all wait there, the block is read, one pass after the other goes through it to the next such
block, and its weights are dropped; the next block is read meanwhile.
"""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from typing import Any

import greenlet
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from anglekit.models.stored.offloaded import offloaded_blocks
from anglekit.vocabulary import Stream


def run_block_by_block(
    model: PreTrainedModel,
    streams: Sequence[Stream],
    passes: Sequence[Callable[[], None]],
    *,
    lanes: int = 1,
    on_block: Callable[[], object] = lambda: None,
) -> dict[str, bytes]:
    """Make passes of a model whose blocks stay in their files (`Placement.offload`), side by side.

    What every pass holds while it waits (a state of its tokens, its masks) is in memory at once, with two blocks.
    A model that runs its blocks in another order than they stand, or one of them again, has them read again.

    Args:
        model: in evaluation mode.
        streams: the model's, in the order in which a pass runs them.
        passes: each calls the model once, without gradients, and leaves no other thread's mark on it.
        lanes: how many passes compute at once, each with its share of the threads.
        on_block: called when all passes are through a block.

    Returns:
        The digests of the weights that were read (`tensor_digest`), by name.

    Raises:
        AnglekitError: as the passes raise it, the first one's.
    """
    blocks = offloaded_blocks(model, streams)
    digests: dict[str, bytes] = {}
    before = torch.get_num_threads()
    with ExitStack() as stack:
        for number, each in enumerate(blocks):
            gate = each.block.register_forward_pre_hook(partial(_wait, number))
            stack.callback(gate.remove)
        reader = stack.enter_context(ThreadPoolExecutor(1, "anglekit-reading"))
        crews = [
            _Crew(stack.enter_context(ThreadPoolExecutor(1, f"anglekit-lane-{lane}")), passes[lane::lanes])
            for lane in range(lanes)
        ]
        stack.callback(torch.set_num_threads, before)
        for lane, crew in enumerate(crews):
            stack.callback(crew.stop)
            crew.begin(max(1, (before + lane) // lanes) if lanes > 1 else before)
        _settle(crews)
        ahead: tuple[int, Future[dict[str, tuple[Tensor, bytes]]]] | None = None
        while waiting := [number for crew in crews for number in crew.waiting]:
            number = min(waiting)
            read = ahead[1] if ahead is not None and ahead[0] == number else reader.submit(blocks[number].read)
            found = read.result()
            digests |= {name: digest for name, (_, digest) in found.items()}
            blocks[number].bring_in({name: tensor for name, (tensor, _) in found.items()})
            del found, read
            ahead = (number + 1, reader.submit(blocks[number + 1].read)) if number + 1 < len(blocks) else None
            try:
                for crew in crews:
                    crew.go_on(number)
                _settle(crews)
            finally:
                blocks[number].let_go()
            on_block()
    return digests


def _settle(crews: Sequence[_Crew]) -> None:
    """Wait for all lanes; of several that failed the first one's error is raised."""
    errors = [crew.ended() for crew in crews]
    for error in errors:
        if error is not None:
            raise error


def _wait(number: int, _block: nn.Module, _args: Any) -> None:  # noqa: ANN401 - whatever a block takes
    """Hand over to the lane until the block's weights are there; a call from elsewhere passes."""
    here = greenlet.getcurrent()
    if isinstance(here, _Pass) and here.open != number:
        here.waits_for = number
        here.parent.switch()


class _Pass(greenlet.greenlet):  # type: ignore[misc]  # greenlet brings no types
    """A pass that waits in front of a block.

    Attributes:
        waits_for: the number of the block.
        open: the number of the block whose weights are there, None before the first.
    """

    waits_for: int | None = None
    open: int | None = None


class _Crew:
    """The passes of one lane; all of them run in its thread.

    Attributes:
        waiting: by the number of a block the passes that wait in front of it.
    """

    def __init__(self, thread: ThreadPoolExecutor, passes: Sequence[Callable[[], None]]) -> None:
        self._thread, self._made = thread, passes
        self.waiting: dict[int, list[_Pass]] = {}
        self._running: Future[None] | None = None

    def begin(self, threads: int) -> None:
        """Start every pass and let it go to its first block, in the lane's thread."""
        self._running = self._thread.submit(self._begin, threads)

    def go_on(self, number: int) -> None:
        """Let the passes that wait for a block go through it and on to the next one, in the lane's thread."""
        self._running = self._thread.submit(self._go_on, number)

    def ended(self) -> BaseException | None:
        """Wait for what was started last; return what it raised."""
        return None if self._running is None else self._running.exception()

    def stop(self) -> None:
        """End the passes that wait: their `finally` clauses run."""
        self._thread.submit(self._stop).result()

    def _begin(self, threads: int) -> None:
        torch.set_num_threads(threads)  # of this thread
        for call in self._made:
            one = _Pass(call)
            # A coroutine would otherwise begin with an empty context, which holds numpy's error state, for example.
            one.gr_context = contextvars.copy_context()
            self._run(one)

    def _go_on(self, number: int) -> None:
        here = self.waiting.get(number, [])
        # Those that come to this block again stand behind the others.
        for _ in range(len(here)):
            one = here.pop(0)
            one.open = number
            self._run(one)
            one.open = None
        if not here:
            self.waiting.pop(number, None)

    def _run(self, one: _Pass) -> None:
        # Each pass switches the mode of this thread on and off; around all of them it is on throughout.
        with torch.inference_mode():
            one.switch()
        if not one.dead:
            assert one.waits_for is not None
            self.waiting.setdefault(one.waits_for, []).append(one)

    def _stop(self) -> None:
        for passes in self.waiting.values():
            for one in passes:
                one.throw(greenlet.GreenletExit)
        self.waiting = {}
