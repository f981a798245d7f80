"""Where a model's weights go: on one device, spread over several by a map, partly on the disk, or in 8 bits."""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor
from transformers import PreTrainedModel

from anglekit.errors import InputError, suggest

__all__ = [
    "DEVICE_MAPS",
    "QUANTIZATIONS",
    "Placement",
    "check_device",
    "compute_device",
    "device_names",
    "is_placed",
    "whole_state",
]

#: The maps that accelerate makes by itself.
DEVICE_MAPS: Final = ("auto", "balanced", "balanced_low_0", "sequential")
#: Precisions of weights that bitsandbytes makes while they are loaded.
QUANTIZATIONS: Final = ("8bit", "4bit")

_SIZE = re.compile(r"\d+(\.\d+)?\s*[KMGT]?i?B", re.IGNORECASE)


@dataclass(frozen=True)
class Placement:
    """How a model that one device does not hold is loaded.

    Attributes:
        device_map: a name of `DEVICE_MAPS`, or as json the device of every part: `{"embeddings": "cpu", "encoder": 0}`;
            `disk` leaves a part in its file. None: the whole model goes to one device.
        max_memory: with a map that is made, the most that each device holds: `0=10GiB,cpu=30GiB`.
        offload_folder: where weights that the disk holds are written if their file cannot be read in place.
        quantization: a name of `QUANTIZATIONS`; None keeps the precision that was asked for.

    Raises:
        InputError: an unknown name, a map or sizes that cannot be read, or bitsandbytes is not installed.
    """

    device_map: str | None = None
    max_memory: str | None = None
    offload_folder: str | None = None
    quantization: str | None = None

    def __post_init__(self) -> None:
        if self.quantization is not None:
            if self.quantization not in QUANTIZATIONS:
                hint = suggest(self.quantization, QUANTIZATIONS)
                raise InputError(f"--quantization {self.quantization!r} is not known", hint)
            if importlib.util.find_spec("bitsandbytes") is None:
                raise InputError(
                    f"--quantization {self.quantization} needs the `bitsandbytes` package, which is not installed",
                    "install it: pip install bitsandbytes, or load with --dtype bfloat16",
                )
        parts = self.parts
        for option, value in (("--max-memory", self.max_memory), ("--offload-folder", self.offload_folder)):
            if value is not None and self.device_map is None:
                raise InputError(f"{option} {value!r} came without --device-map, which it belongs to", "add one")
        if parts is not None and self.max_memory is not None:
            raise InputError(
                f"--max-memory {self.max_memory!r} came with a device map that names every part",
                "take --device-map auto",
            )
        self.sizes  # noqa: B018 - read here, so that a mistake is found before anything is loaded

    @property
    def spread(self) -> bool:
        """Whether transformers places the model, so that it must not be moved."""
        return self.device_map is not None or self.quantization is not None

    @property
    def parts(self) -> dict[str, str | int] | None:
        """The map's own parts and their devices; None where it is made by accelerate, or there is none."""
        if self.device_map is None or self.device_map in DEVICE_MAPS:
            return None
        allowed = f"allowed: {', '.join(DEVICE_MAPS)}, or json such as " + '{"embeddings": "cpu", "encoder": "disk"}'
        if not self.device_map.lstrip().startswith("{"):
            raise InputError(f"--device-map {self.device_map!r} is not known", allowed)
        try:
            found = json.loads(self.device_map)
        except (ValueError, RecursionError) as error:
            raise InputError(f"--device-map {self.device_map!r} is not json ({error})", allowed) from error
        if not found or not all(type(device) in (str, int) for device in found.values()):
            raise InputError(f"--device-map {self.device_map!r} does not name a device for each part", allowed)
        for part, device in found.items():
            if device != "disk":  # which is always there
                check_device(device, "--device-map names the device")
            inside = next((other for other in found if other != part and other.startswith(part and f"{part}.")), None)
            if inside is not None:
                raise InputError(
                    f"--device-map names both {part!r} and {inside!r}, which lies in it",
                    "name parts that lie beside each other",
                )
        return {str(part): device for part, device in found.items()}

    @property
    def sizes(self) -> dict[str | int, str] | None:
        """The most that each device holds, as accelerate takes it."""
        if self.max_memory is None:
            return None
        sizes: dict[str | int, str] = {}
        for entry in self.max_memory.split(","):
            device, equals, size = (each.strip() for each in entry.partition("="))
            if not (equals and (device == "cpu" or device.isdecimal()) and _SIZE.fullmatch(size)):
                raise InputError(
                    f"--max-memory {self.max_memory!r} is not a list of devices and sizes",
                    "give for example 0=10GiB,cpu=30GiB",
                )
            sizes[int(device) if device.isdecimal() else device] = size
        return sizes

    def loading(self, dtype: torch.dtype) -> dict[str, Any]:
        """Return what `from_pretrained` is told beside the usual.

        Args:
            dtype: in which what is not quantised computes.
        """
        told: dict[str, Any] = {}
        if self.device_map is not None:
            told["device_map"] = self.parts or self.device_map
        if self.sizes is not None:
            told["max_memory"] = self.sizes
        if self.offload_folder is not None:
            told["offload_folder"] = self.offload_folder
        if self.quantization is not None:
            from transformers import BitsAndBytesConfig

            told["quantization_config"] = (
                BitsAndBytesConfig(load_in_8bit=True)  # type: ignore[no-untyped-call]
                if self.quantization == "8bit"
                else BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype=dtype)  # type: ignore[no-untyped-call]
            )
        return told


def check_device(device: str | int, what: str) -> None:
    """Refuse a device that is not there.

    Args:
        device: its name, or the number of an accelerator.
        what: the option or the place that names it, as the message begins.

    Raises:
        InputError: it cannot be used here.
    """
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{what} {device!r}, which cannot be used here ({reason})", "use cpu") from error


def is_placed(model: PreTrainedModel) -> bool:
    """Return whether hooks or packed weights tie a model to where it is, so that it must not be moved."""
    return hasattr(model, "_hf_hook") or bool(getattr(model, "is_quantized", False))


def compute_device(model: PreTrainedModel) -> torch.device:
    """Return the device that a model's inputs go to: its weights' own, or for a spread model that of its first part."""
    hook = getattr(model, "_hf_hook", None)
    device = getattr(hook, "execution_device", None)
    if isinstance(device, Mapping):
        device = next((each for each in device.values() if each != "disk"), "cpu")
    return model.device if device is None else torch.device(device)


def device_names(model: PreTrainedModel) -> str:
    """Return the devices that hold a model, the first part's before the others: `cuda:0, cpu, disk`."""
    if not hasattr(model, "_hf_hook"):
        return str(model.device)
    places: Mapping[str, Any] = getattr(model, "hf_device_map", {})
    named = [f"cuda:{place}" if isinstance(place, int) else str(place) for place in places.values()]
    return ", ".join(dict.fromkeys([str(compute_device(model)), *named]))


def whole_state(model: PreTrainedModel) -> Iterator[tuple[str, Tensor]]:
    """Yield a model's weights in the order of their names, those that the disk holds read one at a time."""
    for name, tensor in sorted(model.state_dict().items()):
        if not tensor.is_meta:
            yield name, tensor.detach()
            continue
        owner, _, leaf = name.rpartition(".")
        stored = getattr(getattr(model.get_submodule(owner), "_hf_hook", None), "weights_map", None)
        if stored is None:
            raise InputError(f"the weight {name} of {type(model).__name__} was not loaded", "load the whole model")
        yield name, stored[leaf].detach().to(tensor.dtype)
