"""anglekit: see a teacher's layers from inside its student.

The public names are loaded on first use, so that `import anglekit` (and `anglekit --help`) does not import torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from anglekit.errors import AnglekitError as AnglekitError
    from anglekit.errors import InputError as InputError
    from anglekit.errors import RunError as RunError

__version__ = "0.1.0"

_HOMES = {
    "AnglekitError": "anglekit.errors",
    "InputError": "anglekit.errors",
    "RunError": "anglekit.errors",
}

__all__ = sorted(_HOMES)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - the module's attributes have many types
    """Import the public name `name` from the module that defines it."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'anglekit' has no attribute {name!r}")
    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Return the public names."""
    return [*__all__, "__version__"]
