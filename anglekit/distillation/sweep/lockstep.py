"""Training loops that take turns in one thread, so that several students can read one teacher's answer to a batch.

Each loop is an unchanged `Trainer.train()` in a coroutine of its own (greenlet). A callback hands over after every
micro-batch, and process-wide states are swapped with the turn: the random states of torch, numpy and Python, and
accelerate's record of the data loaders that are being read. Every loop thus computes what it would compute alone.
"""

from __future__ import annotations

import contextvars
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import greenlet
import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from anglekit.distillation.training.process_states import ProcessStates

#: How far a loop is: finished optimiser steps, micro-batches of the step that has begun, and (where there is more to be
#: done between two of them, as after a validation) a 1 once that is done.
Position = tuple[int, ...]

# All loops begin, and learn at which step they go on, before the first one trains.
_NOT_BEGUN: Position = (-1, 0)


@dataclass(frozen=True, eq=False)
class Outcome:
    """How a training loop ended.

    Attributes:
        error: what it raised, or None.
        seconds: the time of its own turns.
    """

    error: Exception | None
    seconds: float


#: A training loop; it calls `pass_on` of its turn where other loops may run.
TrainingLoop = Callable[["Turn"], None]


class Turn:
    """A loop's place among those that take turns.

    Attributes:
        position: the last one that the loop reported.
        number: the loop's number, which decides ties.
        error: what the loop raised, or None.
    """

    def __init__(self, rounds: _Rounds, number: int, loop: TrainingLoop) -> None:
        self.position = _NOT_BEGUN
        self.number = number
        self.error: Exception | None = None
        self._rounds = rounds
        self._seconds = 0.0
        self._since = 0.0
        self._states: ProcessStates | None = None
        self._coroutine = greenlet.greenlet(lambda: loop(self))
        # A coroutine would otherwise begin with an empty context, which holds numpy's error state, for example.
        self._coroutine.gr_context = contextvars.copy_context()

    @property
    def over(self) -> bool:
        """Whether the loop returned or raised."""
        return bool(self._coroutine.dead)

    @property
    def seconds(self) -> float:
        """The time of the loop's own turns so far, the present one included."""
        running = greenlet.getcurrent() is self._coroutine
        return self._seconds + (self._rounds.clock() - self._since if running else 0.0)

    def pass_on(self, position: Position) -> None:
        """Report how far the loop is, and let the others run until it is the one that is furthest behind."""
        self.position = position
        if self._rounds.next_turn() is not self:
            self._rounds.hub.switch()

    def run(self) -> None:
        """Run the loop until it passes on or ends; keep what it raises, unless that should end the process."""
        if self._states is not None:
            self._states.restore(self._rounds.device)
        self._since = self._rounds.clock()
        try:
            self._coroutine.switch()
        except Exception as error:
            # The frames hold the student and its optimiser.
            traceback.clear_frames(error.__traceback__)
            self.error = error
        finally:
            self._seconds += self._rounds.clock() - self._since
            self._states = None if self.over else ProcessStates.capture(self._rounds.device)

    def stop(self) -> None:
        """End a loop that is waiting: its `finally` clauses run, and what it held is closed."""
        if not self.over:
            self._coroutine.throw(greenlet.GreenletExit)


class _Rounds:
    """Who is next: always the loop that is furthest behind, the first of several."""

    def __init__(
        self,
        loops: Sequence[TrainingLoop],
        device: torch.device | None,
        when_all_passed: Callable[[], None],
        clock: Callable[[], float],
    ) -> None:
        self.hub = greenlet.getcurrent()
        self.device = device
        self.clock = clock
        self.turns = [Turn(self, number, loop) for number, loop in enumerate(loops)]
        self._when_all_passed = when_all_passed
        self._front = _NOT_BEGUN

    def next_turn(self) -> Turn | None:
        waiting = [turn for turn in self.turns if not turn.over]
        chosen = min(waiting, key=lambda turn: (turn.position, turn.number), default=None)
        if chosen is None or chosen.position > self._front:
            self._front = self._front if chosen is None else chosen.position
            self._when_all_passed()
        return chosen


def take_turns(
    loops: Sequence[TrainingLoop],
    *,
    device: torch.device | None = None,
    when_all_passed: Callable[[], None] = lambda: None,
    clock: Callable[[], float] = time.perf_counter,
) -> list[Outcome]:
    """Run training loops side by side in this thread, the one that is furthest behind first.

    Loops that start at different positions (resumed at different steps) meet: those that are ahead wait. A loop that
    raises ends alone. An interruption ends all: waiting loops are unwound, so that their `finally` clauses run, and it
    is raised again. The caller's random states are left as they were.

    Args:
        loops: each called with its `Turn`.
        device: the accelerator whose random state is swapped too.
        when_all_passed: called when every loop that is not over has left the position of the one furthest behind.
        clock: measures the loops' seconds.

    Returns:
        How each loop ended, in the order of `loops`.
    """
    before = ProcessStates.capture(device)
    rounds = _Rounds(loops, device, when_all_passed, clock)
    try:
        while (turn := rounds.next_turn()) is not None:
            turn.run()
    finally:
        with ExitStack() as closing:
            closing.callback(before.restore, device)
            for turn in rounds.turns:
                closing.callback(turn.stop)
    return [Outcome(turn.error, turn.seconds) for turn in rounds.turns]


class HandOver(TrainerCallback):
    """Lets the other training loops run when this one begins and after each of its micro-batches.

    By then a step's gradients are freed, so waiting loops hold only weights and optimiser (with gradient accumulation
    also the gradients). Validation and saving happen at the beginning of the loop's next turn.

    Args:
        turn: the loop's turn.
    """

    def __init__(self, turn: Turn) -> None:
        self.turn = turn
        self._micro_batches = 0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        """Report where the loop begins; a resumed one begins at its last checkpoint."""
        self.turn.pass_on((state.global_step, 0))

    def on_substep_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        """Hand over between the micro-batches of one optimiser step."""
        self._micro_batches += 1
        self.turn.pass_on((state.global_step, self._micro_batches))

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        """Hand over after an optimiser step."""
        self._micro_batches = 0
        self.turn.pass_on((state.global_step, 0))
