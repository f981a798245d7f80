"""Where a model's weights go: on one device, spread over several by a map, partly on the disk, or in 8 bits."""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

from anglekit.errors import InputError
from anglekit.settings_fields import HARDWARE, SettingError, check_settings, documented, setting

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn
    from transformers import PreTrainedModel

#: The maps that accelerate makes by itself.
DEVICE_MAPS: Final = ("auto", "balanced", "balanced_low_0", "sequential")
#: The device that is chosen where none is named, and what it means; the other names are torch's.
AUTO: Final = "auto"
AUTO_HELP: Final = "auto takes an accelerator if there is one"
#: What may stay in its files while a model runs.
OFFLOADS: Final = ("blocks",)
#: Precisions of weights that bitsandbytes makes while they are loaded.
QUANTIZATIONS: Final = ("8bit", "4bit")

_SIZE = re.compile(r"\d+(\.\d+)?\s*[KMGT]?i?B", re.IGNORECASE)


@documented
@dataclass(frozen=True)
class Placement:
    """How a model too large for one device is loaded.

    A map in json, `{"embeddings": "cpu", "encoder": 0}`, gives every part a device; `disk` leaves a part in its file.

    Raises:
        InputError: an unknown name, a map or sizes that cannot be read, or bitsandbytes is not installed.
    """

    device_map: str | None = setting(
        None,
        "Spread each model that has no device of its own over devices, and the disk where they are too small; "
        'as json the device of every part: \'{"embeddings": "cpu", "encoder": "disk"}\'.',
        metavar="auto|balanced|balanced_low_0|sequential|JSON",
        shown="one device",
        group=HARDWARE,
    )
    max_memory: str | None = setting(
        None, "With --device-map auto: the most of each device, 0=10GiB,cpu=30GiB.", shown="all", group=HARDWARE
    )
    offload_folder: str | None = setting(
        None,
        "With --device-map or --offload: where weights go that the disk holds and no safetensors file has.",
        group=HARDWARE,
    )
    offload: str | None = setting(
        None,
        "Leave the teacher's blocks in their safetensors files and run all texts through block after block, so that "
        "each weight is read once: for a model that is larger than the memory.",
        names=OFFLOADS,
        metavar="blocks",
        shown="no",
        group=HARDWARE,
    )
    quantization: str | None = setting(
        None,
        "Quantise weights while they are loaded (needs bitsandbytes).",
        names=QUANTIZATIONS,
        metavar="8bit|4bit",
        shown="no",
        group=HARDWARE,
    )

    def __post_init__(self) -> None:
        check_settings(self)
        if self.quantization is not None and importlib.util.find_spec("bitsandbytes") is None:
            raise SettingError(
                "quantization",
                f"{self.quantization} needs the `bitsandbytes` package, which is not installed",
                "install it: pip install bitsandbytes, or load with --dtype bfloat16",
            )
        if self.max_memory is not None and self.device_map is None:
            raise SettingError(
                "max_memory", f"{self.max_memory!r} came without a device map, which it belongs to", "add one"
            )
        if self.offload_folder is not None and self.device_map is None and self.offload is None:
            raise SettingError(
                "offload_folder",
                f"{self.offload_folder!r} came without a device map or offloaded blocks, to which it belongs",
                "add one of them",
            )
        other = "device_map" if self.device_map is not None else "quantization"
        if self.offload is not None and getattr(self, other) is not None:
            raise SettingError("offload", f"{self.offload!r} came with {other}", "choose one of the two")
        if self.parts is not None and self.max_memory is not None:
            raise SettingError(
                "max_memory",
                f"{self.max_memory!r} came with a device map that names every part",
                "take the device map auto",
            )
        self.sizes  # noqa: B018 - read here, so that a mistake is found before anything is loaded

    @property
    def spread(self) -> bool:
        """Whether transformers places the model, so that it must not be moved."""
        return any(each is not None for each in (self.device_map, self.quantization, self.offload))

    @property
    def parts(self) -> dict[str, str | int] | None:
        """The parts of a map in json and their devices; None where accelerate makes the map, or there is none."""
        if self.device_map is None or self.device_map in DEVICE_MAPS:
            return None
        allowed = f"allowed: {', '.join(DEVICE_MAPS)}, or json such as " + '{"embeddings": "cpu", "encoder": "disk"}'

        def refusal(problem: str) -> SettingError:
            return SettingError("device_map", f"{self.device_map!r} {problem}", allowed=allowed)

        if not self.device_map.lstrip().startswith("{"):
            raise refusal("is not known")
        try:
            found = json.loads(self.device_map)
        except (ValueError, RecursionError) as error:
            raise refusal(f"is not json ({error})") from error
        if not found or not all(type(device) in (str, int) for device in found.values()):
            raise refusal("does not name a device for each part")
        for part, device in found.items():
            if device != "disk":  # which is always there
                check_device(device, "device_map", "names the device")
            inside = next((other for other in found if other != part and other.startswith(part and f"{part}.")), None)
            if inside is not None:
                raise SettingError(
                    "device_map",
                    f"names both {part!r} and {inside!r}, which lies in it",
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
                raise SettingError(
                    "max_memory",
                    f"{self.max_memory!r} is not a list of devices and sizes",
                    "give for example 0=10GiB,cpu=30GiB",
                )
            sizes[int(device) if device.isdecimal() else device] = size
        return sizes

    def loading(self, dtype: torch.dtype) -> dict[str, Any]:
        """Return the extra arguments of `from_pretrained`; `dtype` is the type of what is not quantised."""
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


def check_offload(offload: str | None, *, shared: bool, official: bool = False) -> None:
    """Raise the InputError for blocks that stay in their files where that cannot be.

    Args:
        offload: what `Placement.offload` says.
        shared: several jobs or processes share the texts.
        official: the reading is the official one.
    """
    if offload is not None and official:
        raise InputError(
            f"--offload {offload} keeps the states of the texts' own tokens, and the official reading counts padding",
            "leave out --offload or --reading official",
        )
    if offload is not None and shared:
        raise InputError(
            f"--offload {offload} reads each weight once, and the texts are shared among jobs or processes",
            "start one; or extract the teacher's states once (anglekit extract --offload blocks), and share the "
            "analysis of these",
        )


def chosen_device(device: str) -> str:
    """Return the device that a name means: that of `auto` is an accelerator if there is one, else the processor."""
    if device != AUTO:
        return device
    import torch

    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return "cpu" if found is None else found.type


def check_device(device: str | int, setting: str, problem: str = "is") -> None:
    """Raise a SettingError for a device that cannot be used here; in the message `problem` stands before the device."""
    if device == "cpu":  # is always there, and known without torch
        return
    import torch

    if isinstance(device, str):
        try:
            torch.device(device)
        except RuntimeError as error:  # whose text lists every backend that torch has ever had
            auto = f"{AUTO}, " if setting == "device" else ""
            raise SettingError(
                setting,
                f"{problem} {device!r}, which is not a device",
                allowed=f"allowed: {auto}cpu, cuda, cuda:1, mps",
            ) from error
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0].partition(". ")[0]  # the rest names every backend that torch has ever had
        raise SettingError(setting, f"{problem} {device!r}, which cannot be used here ({reason})", "use cpu") from error


def is_placed(model: PreTrainedModel) -> bool:
    """Return whether hooks or packed weights tie a model to where it is, so that it must not be moved."""
    return hasattr(model, "_hf_hook") or bool(getattr(model, "is_quantized", False))


def compute_device(model: PreTrainedModel) -> torch.device:
    """Return the device for a model's inputs: that of its weights, or for a spread model that of its first part."""
    import torch

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


def whole_state(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield a model's weights in the order of their names; those on the disk are read one at a time."""
    for name, tensor in sorted(model.state_dict().items()):
        yield name, read_weight(model, name, tensor)


def read_weight(model: nn.Module, name: str, tensor: Tensor) -> Tensor:
    """Return a weight of a model's `state_dict`, read from the disk if it is there.

    Raises:
        InputError: it was not loaded.
    """
    if not tensor.is_meta:
        return tensor.detach()
    owner, _, leaf = name.rpartition(".")
    stored = getattr(getattr(model.get_submodule(owner), "_hf_hook", None), "weights_map", None)
    if stored is None:
        raise InputError(f"the weight {name} of {type(model).__name__} was not loaded", "load the whole model")
    return cast("Tensor", stored[leaf].detach().to(tensor.dtype))
