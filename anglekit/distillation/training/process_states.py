"""Process-wide states: captured before something else runs in the process, and restored after."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from accelerate.state import GradientState
from torch import Tensor


@dataclass(frozen=True, eq=False)
class ProcessStates:
    """Process-wide states that every training loop reads and changes.

    Attributes:
        torch_cpu: the state of torch's default generator.
        torch_device: that of the accelerator, where one is used.
        numpy_state: the state of numpy's global generator.
        python_state: the state of the module `random`.
        sync_gradients: whether accelerate considers the present micro-batch the last of its optimiser step.
        dataloaders: those that accelerate considers in use.
    """

    torch_cpu: Tensor
    torch_device: Tensor | None
    numpy_state: Any
    python_state: Any
    sync_gradients: bool
    dataloaders: tuple[Any, ...]

    @classmethod
    def capture(cls, device: torch.device | None = None) -> ProcessStates:
        """Return the present states.

        Args:
            device: the accelerator whose generator dropout reads; None or the CPU has no other.
        """
        gradients = GradientState()
        on_cpu = device is None or device.type == "cpu"
        return cls(
            torch.get_rng_state(),
            None if on_cpu else torch.get_device_module(device).get_rng_state(),
            np.random.get_state(),  # noqa: NPY002 - the global state is what must be swapped
            random.getstate(),
            gradients.sync_gradients,
            tuple(gradients.dataloader_references),
        )

    def restore(self, device: torch.device | None = None) -> None:
        """Make these states the present ones."""
        torch.set_rng_state(self.torch_cpu)
        if self.torch_device is not None:
            torch.get_device_module(device).set_rng_state(self.torch_device)
        np.random.set_state(self.numpy_state)  # noqa: NPY002
        random.setstate(self.python_state)
        gradients = GradientState()
        gradients.sync_gradients = self.sync_gradients
        gradients.dataloader_references = list(self.dataloaders)
