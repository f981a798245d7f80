"""The model itself: without a compiler's or a process group's wrapper, an adapter's shell, or a head."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from accelerate.utils import extract_model_from_parallel
from torch import nn
from transformers import PreTrainedModel

from anglekit.errors import InputError
from anglekit.models.memory.foreign import with_named_blocks
from anglekit.models.text_stack import headless, is_composite


def bare_model(
    model: nn.Module, blocks: str | Sequence[str | nn.Module] | nn.Module | None
) -> tuple[PreTrainedModel, str]:
    """Return a model without wrappers and head, and the adapter that it carries, in words.

    Args:
        model: as a program holds it.
        blocks: as of `with_named_blocks`; None: transformers knows the model.

    Raises:
        InputError: it is no model, or one that reads more than its texts.
    """
    if not isinstance(model, nn.Module):
        raise InputError(f"a {type(model).__name__} is no model", "give a torch model, a path or a hub id")
    bare: Any = extract_model_from_parallel(model, keep_torch_compile=False)
    adapter = ""
    if hasattr(bare, "peft_config") and hasattr(bare, "get_base_model"):
        kinds = {str(getattr(each.peft_type, "value", each.peft_type)).lower() for each in bare.peft_config.values()}
        if any(getattr(each, "is_prompt_learning", False) for each in bare.peft_config.values()):
            raise InputError(
                f"the adapter of the model in memory ({', '.join(kinds)}) adds tokens to each text",
                "give a model with LoRA, or without an adapter",
            )
        bare, adapter = bare.get_base_model(), f"{', '.join(sorted(kinds))} in memory"
    if blocks is not None or not isinstance(bare, PreTrainedModel):
        return with_named_blocks(bare, blocks), adapter
    if is_composite(bare.config):
        raise InputError(
            f"{type(bare).__name__} reads more than texts",
            "give the text model in it (model.language_model), or the directory that it is saved in",
        )
    return headless(bare), adapter


def check_apart(teacher: nn.Module, students: Mapping[str, nn.Module], *, trained: bool = False) -> None:
    """Check that no student has a module with weights that is the teacher's too; the keys name the students.

    Args:
        teacher: a model.
        students: by name.
        trained: whether the students will be trained: then they may share no weight either, but for frozen ones.

    Raises:
        InputError: one has, so that it is taught, and read, as a part of its own teacher.
    """
    weights = {id(weight) for weight in teacher.parameters()} if trained else set()
    own = {id(module) for module in teacher.modules() if next(module.parameters(recurse=False), None) is not None}
    for label, student in students.items():
        shared = next(
            (name or type(module).__name__ for name, module in student.named_modules() if id(module) in own), None
        )
        if shared is not None:
            raise InputError(
                f"the teacher and {label} share a module ({shared})",
                "give each a model of its own: copy.deepcopy(model)",
            )
        tied = (name for name, weight in student.named_parameters() if weight.requires_grad and id(weight) in weights)
        if (name := next(tied, None)) is not None:
            raise InputError(
                f"the teacher and {label} share a weight that is trained ({name}): the teacher would change too",
                "give each its own (.clone()), or freeze it: requires_grad_(False)",
            )
