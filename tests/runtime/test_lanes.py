"""Several batches on their way at once, used one at a time and in order."""

from __future__ import annotations

import contextvars
import threading
import time
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from anglekit.runtime.lanes import run_in_lanes, slot_count


@given(
    delays=st.lists(st.sampled_from([0.0, 0.0005, 0.002]), max_size=12),
    slow=st.sampled_from([0.0, 0.001]),
    lanes=st.integers(1, 3),
)
@settings(max_examples=40, deadline=None)
def test_everything_is_used_once_and_in_order_whatever_takes_longer(delays, slow, lanes):
    used: list[tuple[int, int]] = []
    held: dict[int, int] = {}
    guard = threading.Lock()

    def produce(number: int, slot: int) -> int:
        with guard:
            assert slot not in held, "the memory of a slot was given away before what lies in it was used"
            assert slot < slot_count(lanes)
            held[slot] = number
        time.sleep(delays[number])
        return slot

    def consume(number: int, slot: int) -> None:
        assert held[slot] == number
        time.sleep(slow)
        used.append((number, slot))
        with guard:
            del held[slot]

    run_in_lanes(iter(range(len(delays))), produce, consume, lanes)
    assert [number for number, _ in used] == list(range(len(delays)))
    assert not held


@pytest.mark.parametrize(("lanes", "meets"), [(2, True), (1, False)])
def test_two_lanes_work_at_once_and_one_does_not(lanes, meets):
    met = threading.Barrier(2)

    def produce(_number: int, _slot: int) -> bool:
        try:
            met.wait(timeout=5 if meets else 0.05)
        except threading.BrokenBarrierError:
            return False
        return True

    found: list[bool] = []
    run_in_lanes(iter(range(2)), produce, lambda _number, together: found.append(together), lanes)
    assert found == [meets, meets]


def test_a_lane_that_overtakes_goes_on_but_not_without_end():
    first_ends = threading.Event()
    begun: list[int] = []

    def produce(number: int, _slot: int) -> int:
        begun.append(number)
        if number == 0:
            assert first_ends.wait(5)
        elif number == 2:  # the third slot: behind it there is none until the first item was used
            threading.Timer(0.05, first_ends.set).start()
        else:
            assert number < 2 or first_ends.is_set()
        return number

    used: list[int] = []
    run_in_lanes(iter(range(6)), produce, lambda number, _made: used.append(number), 2)
    assert used == list(range(6))
    assert begun[:3] in ([0, 1, 2], [1, 0, 2], [1, 2, 0])


@pytest.mark.parametrize("lanes", [1, 2])
@pytest.mark.parametrize("where", ["items", "produce", "consume"])
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_the_first_error_ends_all_lanes_and_is_raised(lanes, where, error, two_threads):
    def items() -> Iterator[int]:
        for number in range(100):
            if where == "items" and number == 5:
                raise error("five")
            yield number

    def produce(number: int, _slot: int) -> int:
        if where == "produce" and number == 5:
            raise error("five")
        return number

    used: list[int] = []

    def consume(number: int, _made: int) -> None:
        if where == "consume" and number == 5:
            raise error("five")
        used.append(number)

    threads = threading.active_count()
    with pytest.raises(error, match="five"):
        run_in_lanes(items(), produce, consume, lanes)
    assert used == list(range(len(used)))
    assert len(used) <= 5
    assert threading.active_count() == threads
    assert torch.get_num_threads() == 2


def test_each_lane_gets_its_share_of_the_threads_and_all_come_back(two_threads):
    met = threading.Barrier(2)

    def produce(_number: int, _slot: int) -> int:
        met.wait(5)
        return torch.get_num_threads()

    shares: list[int] = []
    run_in_lanes(iter(range(2)), produce, lambda _number, threads: shares.append(threads), 2)
    assert shares == [1, 1]
    assert torch.get_num_threads() == 2


MARK = contextvars.ContextVar("mark", default="unset")


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad, torch.enable_grad])
def test_lanes_work_in_the_mode_and_context_of_the_thread_that_began(mode):
    met = threading.Barrier(2)

    def state(*_: object) -> tuple[bool, bool, str]:
        return torch.is_inference_mode_enabled(), torch.is_grad_enabled(), MARK.get()

    def produce(*_: object) -> tuple[bool, bool, str]:
        met.wait(5)
        return state()

    found: list[object] = []
    token = MARK.set("set")
    with mode():
        here = state()
        run_in_lanes(iter(range(2)), produce, lambda _number, made: found.append(made), 2)
    MARK.reset(token)
    assert found == [here, here]
    assert here[2] == "set"
