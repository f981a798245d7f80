"""When angles are taken in compiled loops, and the threads that run them; without numba itself."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray

#: So many angles a token are taken in compiled loops.
COMPILED_ANGLES = 10_000


def worth_loops(n_vertices: int, n_layers: int, device: torch.device, epsilon: float) -> bool:
    """Say whether a token has so many angles that the loops are worth loading, and they can take them.

    Loading them takes half a second, and compiling them once on a machine ten to fifteen. They know no epsilon.
    """
    return device.type == "cpu" and not epsilon and n_vertices * math.comb(n_layers, 2) >= COMPILED_ANGLES


def in_loops(n_vertices: int, n_layers: int, device: torch.device, epsilon: float) -> bool:
    """Say whether angles are taken in loops: it is worth it, and numba is installed."""
    return worth_loops(n_vertices, n_layers, device, epsilon) and importlib.util.find_spec("numba") is not None


def in_threads(work: Callable[[NDArray[np.int64]], None], numbers: NDArray[np.int64]) -> None:
    """Do some work for all numbers, a part of them in each of as many threads as torch has."""
    threads = min(torch.get_num_threads(), len(numbers))
    if threads < 2:
        work(numbers)
        return
    with ThreadPoolExecutor(threads) as pool:
        # Taking the results raises what was raised.
        list(pool.map(work, np.array_split(numbers, threads)))
