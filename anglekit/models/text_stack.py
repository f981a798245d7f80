"""The text model inside a composite one (Gemma 3, Qwen3-VL, LLaVA): its configuration, and how its weights are loaded.

A composite model reads images or sound beside text, and its configuration holds one for each part. On `input_ids` alone
the text model inside computes what the composite computes, so it is what is analysed, cut and distilled. Everything
else in this package sees its configuration, as if the checkpoint held nothing more.
"""

from __future__ import annotations

import copy
import importlib
import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final, cast

import torch
import transformers
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PretrainedConfig, PreTrainedModel
from transformers.models.auto import modeling_auto

from anglekit.errors import InputError
from anglekit.models.architectures import depth, model_streams
from anglekit.models.chosen_blocks import with_blocks
from anglekit.models.stored.corrections import merge_corrections
from anglekit.models.stored.offloaded import blocks_on_disk

# Text models for which transformers has no class with a head, and the types that compute the same on plain text (rotary
# angles of three equal positions are those of one) with their settings. `load_text_model` runs both on a text before it
# trusts this table.
_SAME_ON_TEXT: Final[Mapping[str, tuple[str, Mapping[str, Any]]]] = {
    "qwen2_vl_text": ("qwen2", {}),
    "qwen2_5_vl_text": ("qwen2", {}),
    "qwen2_5_omni_text": ("qwen2", {}),
    "qwen3_vl_text": ("qwen3", {}),
    # The router of this one normalises without being told to.
    "qwen3_vl_moe_text": ("qwen3_moe", {"norm_topk_prob": True}),
    "qwen3_omni_moe_text": ("qwen3_moe", {}),
    "glm4v_text": ("glm4", {}),
    "glm4v_moe_text": ("glm4_moe", {}),
    "paddleocr_vl_text": ("llama", {}),
    "granite4_vision_text": ("granite", {}),
    "granite_docling_text": ("granite", {}),
}
# Settings of a text model that the composite around it does not read.
_UNREAD_BY_THE_WHOLE: Final[Mapping[str, Mapping[str, Any]]] = {
    "aya_vision": {"logit_scale": 1.0},
    "cohere2_vision": {"logit_scale": 1.0},
}
# Entries that belong to a configuration's type or file, or to positions in three dimensions.
_NOT_SHARED: Final = ("model_type", "architectures", "transformers_version", "_name_or_path")
_NOT_SHARED_ROPE: Final = ("mrope_section", "mrope_interleaved")

# What a model reads instead of text, by the name of its first input.
_READS: Final[Mapping[str, str]] = {
    "pixel_values": "images",
    "pixel_values_videos": "videos",
    "inference_session": "videos",
    "input_features": "sound",
    "input_values": "sound",
    "audio_mel": "sound",
}
_NO_CLASS: Final = f"has no model in transformers {transformers.__version__} that reads text by itself"
# A configuration with one of these reads codes of sound, several for each place, though their name is input_ids.
_OF_SOUND: Final = ("num_codebooks", "n_codebooks", "codec_config", "codebook_size")

# Heads that may stand beside the base of a composite model.
_HEADS: Final = ("lm_head", "score", "classifier", "classification_head", "embed_out")

_CHECKED_TOKENS: Final = 8
# Relative differences of the last states between which lie another order of the same sums and another model.
_TOLERANCE, _HALF_TOLERANCE = 1e-3, 0.1


# ---- configurations; no weights are read ----


def text_config(config: PretrainedConfig) -> PretrainedConfig:
    """Return the configuration of the text model inside a composite one; that of a model which reads text, itself.

    Encoder-decoders whose two parts have configurations of their own (T5Gemma) are returned as they are.

    Raises:
        InputError: there is no text model, or it does not run by itself on text alone.
    """
    inner = _inside(config)
    if inner is config:
        if (problem := _reads_no_text(config)) is not None:
            raise _refusal(config, problem)
        return config
    if crossed := getattr(inner, "cross_attention_layers", None):
        raise _refusal(config, f"has blocks that read images and are skipped on text ({_listed(crossed)})")
    # An encoder-decoder inside is one with an encoder of its own (BART), which auto classes list.
    if config.is_encoder_decoder and not (inner.is_encoder_decoder and _listed_class(AutoModel, inner)):
        raise _refusal(config, f"holds a {inner.model_type} that does not run on text alone")
    if getattr(inner, "encoder_hidden_size", None) and inner.is_decoder:
        raise _refusal(config, f"holds a {inner.model_type} whose blocks read images")
    if model_class(AutoModel, inner) is None:
        raise _refusal(config, f"holds a {inner.model_type}, which {_NO_CLASS}")
    return _with_a_head(inner, _UNREAD_BY_THE_WHOLE.get(str(config.model_type), {}))


def is_composite(config: PretrainedConfig) -> bool:
    """Return whether the text model is only a part of what a configuration describes."""
    return _inside(config) is not config


def model_class(auto_class: Any, config: PretrainedConfig) -> Any:  # noqa: ANN401 - the auto classes share no base
    """Return what loads a model of this configuration: the auto class, or for a type that it does not know its own.

    Text towers (SigLIP's, Emu3's) have public classes that no auto class lists. None: there is no class at all.
    """
    if _listed_class(auto_class, config) is not None:
        return auto_class
    kind = auto_class.__name__.removeprefix("AutoModel")
    named = [each for each in _classes_of(config) if each[0].endswith(kind or "Model")]
    # The plainest name: BlipTextModel, not BlipTextLMHeadModel.
    return min(named, key=lambda each: len(each[0]))[1] if named else None


def check_head(auto_class: Any, config: PretrainedConfig) -> None:  # noqa: ANN401 - the auto classes share no base
    """Refuse a type of model that transformers has no class of this kind for, before anything is loaded.

    Raises:
        InputError: there is none; a checkpoint's own code is not looked at.
    """
    if type(config).__module__.startswith("transformers.") and model_class(auto_class, config) is None:
        kind = auto_class.__name__.removeprefix("AutoModel")
        raise InputError(
            f"transformers {transformers.__version__} has no class {kind or 'Model'} for model type "
            f"{config.model_type!r}",
            "choose another task or model",
        )


def _classes_of(config: PretrainedConfig) -> Iterator[tuple[str, type[PreTrainedModel]]]:
    """Yield the public classes of models that read text and have exactly this type of configuration."""
    place = type(config).__module__
    if not place.startswith("transformers."):
        return
    try:
        module = importlib.import_module(place.replace("configuration_", "modeling_"))
    except ImportError:  # a configuration without a model, or one whose packages are not installed
        return
    for name, found in vars(module).items():
        if (
            inspect.isclass(found)
            and issubclass(found, PreTrainedModel)
            and found.config_class is type(config)
            and hasattr(transformers, name)
            and "input_ids" in inspect.signature(found.forward).parameters
        ):
            yield name, found


def _inside(config: PretrainedConfig) -> PretrainedConfig:
    """Return the part of a configuration that is about text; the configuration itself where it has no such part."""
    encoder, decoder = getattr(config, "encoder", None), getattr(config, "decoder", None)
    if config.is_encoder_decoder and isinstance(encoder, PretrainedConfig) and isinstance(decoder, PretrainedConfig):
        problem = "reads not only text" if encoder.get_text_config() is not encoder else _reads_no_text(encoder)
        if problem is not None and problem != _NO_CLASS:  # a part need not be a model that can be loaded alone
            raise _refusal(config, f"has an encoder ({encoder.model_type}) that {problem}")
        return config
    try:
        inner = config.get_text_config()
    except ValueError as error:
        raise _refusal(config, "has several text models inside, and none of them is the whole") from error
    return inner if isinstance(inner, PretrainedConfig) else config


def _refusal(config: PretrainedConfig, problem: str) -> InputError:
    return InputError(f"model type {config.model_type!r} {problem}", "choose a model that reads text")


def _listed(values: object) -> str:
    return ", ".join(map(str, values)) if isinstance(values, list | tuple) else str(values)


def _reads_no_text(config: PretrainedConfig) -> str | None:
    """Return in words what keeps a type that is not composite from running on text; None where it does run."""
    # These need not be imported to know it, nor can it be known of code that a checkpoint brings.
    if config.model_type in _KNOWN_TO_READ_TEXT or not type(config).__module__.startswith("transformers."):
        return None
    if any(getattr(config, name, None) for name in _OF_SOUND):
        return "reads codes of sound, not text"
    found = _listed_class(AutoModel, config)
    if found is None:
        found = model_class(AutoModel, config)
    if found is None:
        return _NO_CLASS
    inputs = dict(list(inspect.signature(found.forward).parameters.items())[1:])
    if "input_ids" not in inputs:
        first = next(iter(inputs), "nothing")
        return f"reads {_READS.get(first, first)}, not text"
    needed = [
        name
        for name, each in inputs.items()
        if each.default is each.empty and each.kind is each.POSITIONAL_OR_KEYWORD and name != "input_ids"
    ]
    return f"does not run on text alone: it needs {_listed(needed)}" if needed else None


def _listed_class(auto_class: Any, config: PretrainedConfig) -> Any:  # noqa: ANN401 - the auto classes share no base
    """Return the class that an auto class lists for a configuration; None where there is none that can be imported."""
    mapping = auto_class._model_mapping
    try:
        found = mapping.get(type(config), None)
    except (ValueError, ImportError, AttributeError):  # a name in the list that the package does not give out
        return None
    return found[0] if isinstance(found, tuple | list) else found


def _known_to_read_text() -> frozenset[str]:
    """Return the types with a class of a language model, those that write what they hear left out."""
    listed = (
        *modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES,
        *modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        *modeling_auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
    )
    other = (
        *modeling_auto.MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING_NAMES,
        *modeling_auto.MODEL_FOR_TEXT_TO_WAVEFORM_MAPPING_NAMES,
    )
    return frozenset(listed) - frozenset(other)


_KNOWN_TO_READ_TEXT: Final = _known_to_read_text()


def _with_a_head(inner: PretrainedConfig, settings: Mapping[str, Any]) -> PretrainedConfig:
    """Return the configuration of a type that has a language model's class, if one computes the same on plain text."""
    kind = str(inner.model_type)
    same, more = _SAME_ON_TEXT.get(kind, (kind, {}))
    if same == kind:
        fitted = copy.deepcopy(inner)
        for name, value in settings.items():
            setattr(fitted, name, value)
        return fitted
    told = {name: value for name, value in inner.to_dict().items() if name not in _NOT_SHARED}
    if same == "glm4" and not told.get("head_dim"):
        told["head_dim"] = inner.hidden_size // inner.num_attention_heads  # which GLM 4 takes for 128
    if isinstance(rope := told.get("rope_parameters"), dict):
        shared = {name: value for name, value in rope.items() if name not in _NOT_SHARED_ROPE}
        # GLM 4.5V turns all of a head where nothing is said, GLM 4 the half.
        told["rope_parameters"] = {"partial_rotary_factor": 1.0, **shared} if same.startswith("glm4") else shared
    return AutoConfig.for_model(same, **{**told, **more, **settings})


# ---- weights ----


def load_text_model(
    auto_class: Any,  # noqa: ANN401 - the auto classes share no base
    source: str,
    whole: PretrainedConfig,
    config: PretrainedConfig,
    arguments: Mapping[str, Any],
    *,
    blocks_run_on: str | None = None,
) -> tuple[PreTrainedModel, dict[str, Any]]:
    """Load the text model out of a composite checkpoint; its other parts get no memory.

    The composite's own class reads the files, so that transformers' own renaming of old weights applies; all its parts
    but the text model and the heads are taken away while the model has no memory yet. The text model is then put under
    the class of the wanted head. On a few tokens, both must compute the same.

    Args:
        auto_class: `AutoModel` or a sibling of it, for the text model.
        source: a directory or hub id.
        whole: the composite's configuration; left as it is.
        config: what `text_config` made of it, of all blocks or of the first ones.
        arguments: of `from_pretrained`.
        blocks_run_on: leave the text model's blocks in their files and put the rest of it on this device; None: as the
            arguments say.

    Returns:
        The text model, and the report of `from_pretrained` in the names of the text model.

    Raises:
        InputError: there is no class for such a head, or the composite computes something else on text.
    """
    check_head(auto_class, config)
    wanted = _listed_class(auto_class, config) or model_class(auto_class, config)
    whole = copy.deepcopy(whole)
    inner = _inside(whole)
    kind, same_type = str(inner.model_type), type(inner) is type(config)
    if same_type:
        fitted = copy.deepcopy(config)
    else:
        (stream,) = model_streams(config)
        fitted = with_blocks(inner, {model_streams(inner)[0]: range(depth(config, stream))})
    _replace_part(whole, inner, fitted)
    holder_class, whole = _whole_class(whole, fitted, headed=auto_class is not AutoModel)
    tied = bool(getattr(whole, "tie_word_embeddings", False) or getattr(fitted, "tie_word_embeddings", False))
    stripped: Any = _stripped(holder_class, kind, heads=tied or auto_class is not AutoModel)
    if blocks_run_on is not None:
        with torch.device("meta"):
            empty = stripped(copy.deepcopy(whole))
        arguments = {**arguments, "device_map": blocks_on_disk(empty, _text_part(empty, kind), blocks_run_on)}
    holder, report = stripped.from_pretrained(source, config=whole, **arguments)
    if getattr(holder, "_hf_peft_config_loaded", False):
        # Before weights are taken over by their names, which corrections change.
        merge_corrections(holder)
    root = _text_part(holder, kind)
    loaded = {id(tensor): name for name, tensor in _tensors(holder)}
    model = _under_its_head(holder, root, wanted, None if same_type else copy.deepcopy(config))
    if auto_class is AutoModel and model.base_model is not model:
        raise _refusal(whole, f"holds a {kind} that changes its states behind the last block")
    _check_same(holder, root, model)
    nn.Module.eval(model)
    return model, _renamed(report, loaded, model)


def _whole_class(
    config: PretrainedConfig, inner: PretrainedConfig, *, headed: bool
) -> tuple[type[PreTrainedModel], PretrainedConfig]:
    """Return the class that a composite checkpoint was saved from and its configuration.

    With `headed` it is one that has a language model's head, if there is one. Of a model that reads more files than
    weights (the voices of Qwen2.5-Omni, which are pickled) it is the class of that part which holds the text model.
    """
    base = _listed_class(AutoModel, config)
    auto = transformers
    lists = (
        *(auto.AutoModelForImageTextToText, getattr(auto, "AutoModelForMultimodalLM", AutoModel)),
        auto.AutoModelForSeq2SeqLM,
        *(auto.AutoModelForCausalLM, AutoModel),
    )
    named = [getattr(transformers, str(name), None) for name in config.architectures or ()]
    listed = [*named, *(_listed_class(one, config) for one in lists), *(each for _, each in _classes_of(config))]
    # Some types (ShieldGemma 2) are listed with the class of another.
    exact = [each for each in listed if getattr(each, "config_class", None) is type(config)]
    known = [*exact, *(each for each in listed[len(named) :] if each is not None)]
    if not known:
        raise _refusal(config, "has no class in transformers that loads it")
    found = next((each for each in exact if each is not base), known[0]) if headed else known[0]
    if "from_pretrained" not in vars(found):
        return found, config
    for part in vars(config).values():
        if isinstance(part, PretrainedConfig) and part is not inner and part.get_text_config() is inner:
            return _whole_class(part, inner, headed=headed)
    raise _refusal(config, "is loaded in a way of its own")


def _stripped(whole: type[PreTrainedModel], kind: str, *, heads: bool) -> type[PreTrainedModel]:
    """Return a class whose models hold nothing but the text model of type `kind`, the way to it, and heads.

    It has its parent's name and module, by which transformers finds how weights are renamed.
    """

    def build(self: PreTrainedModel, config: PretrainedConfig) -> None:
        whole.__init__(self, config)
        text = _text_part(self, kind)
        _strip(self, self, text, heads=heads)
        held = {name for name, _ in (*self.named_parameters(remove_duplicate=False), *self.named_buffers())}
        tied = getattr(self, "all_tied_weights_keys", None)
        root = next(name for name, module in self.named_modules() if module is text)
        if isinstance(tied, dict):
            for name, other in tied.items():
                if name in held and name.startswith(f"{root}.") and other not in held:
                    raise _refusal(config, f"shares weights of its text model ({name}) with another part")
            self.all_tied_weights_keys = {name: other for name, other in tied.items() if {name, other} <= held}

    names = {"__module__": whole.__module__, "__qualname__": whole.__qualname__}
    return type(whole.__name__, (whole,), {"__init__": build, **names})


def _strip(model: nn.Module, place: nn.Module, root: nn.Module, *, heads: bool) -> None:
    # What lies on the way to the text model would initialise weights of the parts that are gone.
    setattr(place, "_is_hf_initialized", True)  # noqa: B010 - no attribute of a module
    for name, child in list(place.named_children()):
        is_head = place is model and (isinstance(child, nn.Linear) or name in _HEADS)
        if child is root or (heads and is_head):
            continue
        if any(each is root for each in child.modules()):
            _strip(model, child, root, heads=heads)
        else:
            setattr(place, name, nn.Identity())


def _text_part(model: PreTrainedModel, kind: str) -> PreTrainedModel:
    """Return the outermost part of a composite model that is a model of type `kind`."""
    found: list[tuple[str, PreTrainedModel]] = []
    for name, module in model.named_modules():
        of_kind = bool(name) and isinstance(module, PreTrainedModel) and module.config.model_type == kind
        if of_kind and not any(name.startswith(f"{other}.") for other, _ in found):
            found.append((name, cast("PreTrainedModel", module)))
    of_text = [each for each in found if any(word in each[0] for word in ("text", "language"))]
    found = of_text if len(found) > 1 else found
    if len(found) != 1:
        number = "no part" if not found else f"{len(found)} parts"
        raise _refusal(model.config, f"has {number} of type {kind}")
    return found[0][1]


def _replace_part(config: PretrainedConfig, old: PretrainedConfig, new: PretrainedConfig) -> None:
    """Put a configuration in the place of a part of another, however deep, in place."""
    for name, value in list(vars(config).items()):
        if value is old:
            setattr(config, name, new)
        elif isinstance(value, PretrainedConfig):
            _replace_part(value, old, new)


def _under_its_head(
    holder: PreTrainedModel, root: PreTrainedModel, wanted: type[PreTrainedModel], config: PretrainedConfig | None
) -> PreTrainedModel:
    """Return a model of the wanted class with the text model's weights; nothing is copied.

    Args:
        holder: the composite model, in which only the text model and heads are left.
        root: the text model in it, with or without a head.
        wanted: the class.
        config: of the new model, if it is of another type than the text model.
    """
    base = headless(root)
    with torch.device("meta"):
        model = wanted(config or base.config)
    nn.Module.to(model, dtype=holder.dtype)
    if config is None and type(base) is wanted:
        for name, child in model.named_children():
            if getattr(base, name, None) is None:  # a pooler that the composite makes without
                with torch.random.fork_rng(devices=[]):
                    _make_anew(base, child)
                setattr(base, name, child)
        _stay_placed(holder, root, base)
        return base
    place = next((name for name, module in model.named_modules() if name and type(module) is type(base)), None)
    if place is None:
        _take_over(headless(model), base)
    else:
        model.set_submodule(place, base)
    new_base = headless(model)
    head = holder.get_output_embeddings() or root.get_output_embeddings()  # type: ignore[no-untyped-call]
    for name, child in list(model.named_children()):
        if model is new_base or any(each is base or each is new_base for each in child.modules()):
            continue
        if child is model.get_output_embeddings():  # type: ignore[no-untyped-call]
            old = head
        else:
            old = getattr(root, name, None) or getattr(holder, name, None)
        if isinstance(old, nn.Module) and _sizes(old) == _sizes(child):
            setattr(model, name, old)
            continue
        _make_anew(base, child)
    if getattr(model.config, "tie_word_embeddings", False):
        model.tie_weights()
    generation = getattr(holder, "generation_config", None)
    if model.can_generate() and generation is not None:
        model.generation_config = copy.deepcopy(generation)
    _stay_placed(holder, root, model)
    return model


def _make_anew(base: PreTrainedModel, part: nn.Module) -> None:
    """Give a part without memory the weights with which its type begins, from the global random state."""
    part.to_empty(device=base.device)
    for module in part.modules():
        base._init_weights(module)  # type: ignore[no-untyped-call]


def headless(model: PreTrainedModel) -> PreTrainedModel:
    """Return a text model without its head, also where its class names no base (Llama 4's)."""
    if model.base_model is not model:
        return cast("PreTrainedModel", model.base_model)
    plain = model_class(AutoModel, model.config)
    plain = _listed_class(AutoModel, model.config) or plain
    inner = (each for each in model.modules() if type(each) is plain)
    return cast("PreTrainedModel", next(inner, model))


def _sizes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}


def _take_over(new: PreTrainedModel, old: PreTrainedModel) -> None:
    """Give a model without memory the weights and buffers of another whose names and shapes are the same."""
    tensors = {**dict(old.named_parameters(remove_duplicate=False)), **dict(old.named_buffers(remove_duplicate=False))}
    for name, empty in (
        *list(new.named_parameters(remove_duplicate=False)),
        *list(new.named_buffers(remove_duplicate=False)),
    ):
        if name not in tensors or tensors[name].shape != empty.shape:
            raise InputError(
                f"the {old.config.model_type} inside has no {name} of the size that a {new.config.model_type} has",
                "choose another model",
            )
        owner, _, leaf = name.rpartition(".")
        place = new.get_submodule(owner)
        (place._parameters if leaf in place._parameters else place._buffers)[leaf] = cast("Any", tensors[name])
    hooked = [(name, module._hf_hook) for name, module in old.named_modules() if hasattr(module, "_hf_hook")]
    if hooked:  # of a model that is spread over devices
        from accelerate.hooks import add_hook_to_module

        for name, hook in hooked:
            add_hook_to_module(new.get_submodule(name), cast("Any", hook))


def _stay_placed(holder: PreTrainedModel, root: PreTrainedModel, model: PreTrainedModel) -> None:
    """Carry over what says that a model is spread over devices or quantised."""
    for name in ("is_quantized", "hf_quantizer", "quantization_method", "is_loaded_in_8bit", "is_loaded_in_4bit"):
        if name in vars(holder):
            setattr(model, name, getattr(holder, name))
    if (told := getattr(holder.config, "quantization_config", None)) is not None:
        model.config.quantization_config = told
    if isinstance(mapped := getattr(holder, "hf_device_map", None), dict):
        inside = next(name for name, module in holder.named_modules() if module is headless(root))
        places = {name.removeprefix(f"{inside}."): place for name, place in mapped.items()}
        setattr(model, "hf_device_map", places)  # noqa: B010 - no attribute of a module
    if hasattr(holder, "_hf_hook") and not hasattr(model, "_hf_hook"):
        from accelerate.hooks import add_hook_to_module

        add_hook_to_module(model, holder._hf_hook)


def _renamed(report: Mapping[str, Any], before: Mapping[int, str], model: PreTrainedModel) -> dict[str, Any]:
    """Return what `from_pretrained` reported about the weights that are left, by their names in the text model.

    `before` has the names in the composite, by the identity of the weight.
    """
    names: dict[str, str] = {}
    missing: set[str] = set()
    for name, tensor in _tensors(model):
        if id(tensor) in before:
            names.setdefault(before[id(tensor)], name)
        elif name in model.state_dict():
            missing.add(name)  # of a new head
    missing |= {names[name] for name in report["missing_keys"] if name in names}
    wrong = [(names[entry[0]], *entry[1:]) for entry in report.get("mismatched_keys", ()) if entry[0] in names]
    return {**report, "missing_keys": missing, "mismatched_keys": wrong}


def _tensors(model: PreTrainedModel) -> Sequence[tuple[str, Tensor]]:
    return [*model.named_parameters(), *model.named_buffers()]


def _check_same(holder: PreTrainedModel, root: PreTrainedModel, model: PreTrainedModel) -> None:
    """Compare a text model with the composite that it is from, on a few tokens.

    A text tower that its composite does not run without an image is compared with nothing: it is the composite's own.

    Raises:
        InputError: they differ.
    """
    placed = hasattr(holder, "_hf_hook") or getattr(holder, "is_quantized", False)
    if placed or any(weight.is_meta for weight in model.parameters()):
        return
    inputs = _plain_tokens(holder.config, model)
    base = headless(model)
    for own in dict.fromkeys((model, base)):
        # Without its head, the whole hands on states in the place of logits, scaled or capped.
        what = "last_hidden_state" if own is base else "logits"
        states = _output(own, inputs, what)
        for other in _around(holder, root):
            if other is own:
                return
            theirs = _output_if_it_runs(other, inputs, what)
            if theirs is None or states is None or theirs.shape != states.shape:
                continue
            limit = _TOLERANCE if states.dtype in (torch.float32, torch.float64) else _HALF_TOLERANCE
            difference = float((states - theirs).float().norm() / theirs.float().norm().clamp_min(1e-12))
            if difference <= limit:
                return
            raise _refusal(
                holder.config,
                f"computes something else on text than the {model.config.model_type} inside (by {difference:.2g} of "
                "the last states)",
            )


def _output_if_it_runs(model: PreTrainedModel, inputs: Mapping[str, Tensor], what: str) -> Tensor | None:
    try:
        return _output(model, inputs, what)
    except Exception:  # whatever a forward pass says about an image that is not there
        return None


def _around(holder: PreTrainedModel, root: PreTrainedModel) -> Iterator[PreTrainedModel]:
    """Yield the models that hold the text model, the outermost first, and at last the text model itself."""
    for _, module in holder.named_modules():
        if isinstance(module, PreTrainedModel) and any(each is root for each in module.modules()):
            yield module
    if (base := headless(root)) is not root:
        yield base


def _plain_tokens(whole: PretrainedConfig, model: PreTrainedModel) -> dict[str, Tensor]:
    """Return a short text of tokens that stand for nothing special, as a model's inputs."""
    special = {
        value
        for config in (whole, model.config)
        for name, value in config.to_dict().items()
        if isinstance(value, int) and name.endswith(("_token_id", "_token_index"))
    }
    size = int(model.config.vocab_size)
    plain = [token for token in range(size) if token not in special][: 4 * _CHECKED_TOKENS : 4]
    ids = torch.tensor([plain], device=model.device)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    return {**inputs, "decoder_input_ids": ids} if model.config.is_encoder_decoder else inputs


def _output(model: PreTrainedModel, inputs: Mapping[str, Tensor], what: str) -> Tensor | None:
    """Return one of a model's outputs, or None where it has no such output."""
    nn.Module.eval(model)
    with torch.no_grad(), _without_cache(model):
        found = getattr(model(**inputs), what, None)
    return found if isinstance(found, Tensor) else None


@contextmanager
def _without_cache(model: PreTrainedModel) -> Iterator[None]:
    """Let a model keep no keys and values: a cache cannot be made for linear attention alone."""
    parts = {id(part.config): part.config for part in model.modules() if isinstance(part, PreTrainedModel)}
    caching = [config for config in parts.values() if getattr(config, "use_cache", None)]
    for config in caching:
        config.use_cache = False
    try:
        yield
    finally:
        for config in caching:
            config.use_cache = True
