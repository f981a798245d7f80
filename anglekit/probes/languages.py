"""Languages of multilingual sequence models: whose tokenizers put a language's code before or behind each text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from transformers import PreTrainedTokenizerBase as Tokenizer

from anglekit.errors import InputError, suggest
from anglekit.settings_fields import SettingError


def set_languages(tokenizer: Tokenizer, source: str | None, target: str | None) -> tuple[str, ...]:
    """Set the languages of a tokenizer that writes codes for them (mBART's, mBART-50's, NLLB's, M2M-100's, PLBart's).

    Without a target language NLLB and mBART-50 would put the source's code before targets, and keep it as their own
    target language from then on; M2M-100 would fail. So the tokenizer is told each time.

    Args:
        tokenizer: of any model; changed.
        source: the code of the sources' language, by the tokenizer's own name; None: the tokenizer's.
        target: that of the targets' language.

    Returns:
        A sentence for each language that nobody named, where the tokenizer has languages.

    Raises:
        SettingError: a language came for a tokenizer without any, or one that it does not know.
        InputError: it knows no target language and none came, and it writes no target without one.
    """
    known: Any = tokenizer
    if not (hasattr(tokenizer, "src_lang") and hasattr(tokenizer, "tgt_lang")):
        for name, code in (("source_lang", source), ("target_lang", target)):
            if code is not None:
                raise SettingError(
                    name, f"is {code!r}, and {type(tokenizer).__name__} writes no codes of languages", "leave it out"
                )
        return ()
    for name, code in (("source_lang", source), ("target_lang", target)):
        if code is not None and language_id(tokenizer, code) is None:
            raise SettingError(name, f"is {code!r}", allowed=suggest(code, sorted(_codes(tokenizer))))
    notes = []
    if source is not None:
        known.src_lang = _spelt(tokenizer, source)
    else:
        notes.append(f"sources are read as {known.src_lang}, the tokenizer's own language: --source-lang names another")
    if target is not None:
        known.tgt_lang = _spelt(tokenizer, target)
    elif known.tgt_lang is None:
        if hasattr(tokenizer, "lang_code_to_token"):
            raise InputError(
                f"{type(tokenizer).__name__} names no language of the targets", "name it, such as --target-lang fr"
            )
        notes.append(
            f"targets are read as {known.src_lang}, the sources' language, as the tokenizer names no other: give "
            "--target-lang"
        )
    else:
        notes.append(f"targets are read as {known.tgt_lang}, the tokenizer's own: --target-lang names another")
    return tuple(notes)


@contextmanager
def languages_as_found(tokenizers: Iterable[Tokenizer | None]) -> Iterator[None]:
    """Give tokenizers, which may be a caller's own, their languages back when the block is left, however it is left."""
    kept = [
        (known, known.src_lang, known.tgt_lang)
        for known in tokenizers
        if known is not None and hasattr(known, "src_lang") and hasattr(known, "tgt_lang")
    ]
    try:
        yield
    finally:
        for known, source, target in kept:
            changed: Any = known
            if (changed.src_lang, changed.tgt_lang) != (source, target):
                changed.src_lang, changed.tgt_lang = source, target


def language_id(tokenizer: Tokenizer, code: str) -> int | None:
    """Return the token of a language's code; None where the tokenizer does not know it."""
    known: Any = tokenizer
    if hasattr(tokenizer, "lang_code_to_token"):
        return int(known.get_lang_id(code)) if code in known.lang_code_to_token else None
    found = tokenizer.convert_tokens_to_ids(_spelt(tokenizer, code))
    return int(found) if isinstance(found, int) and found != tokenizer.unk_token_id else None


def generated_language(tokenizer: Tokenizer) -> dict[str, int]:
    """Return what makes a model write the tokenizer's target language, as settings of its generation.

    The code is the first token written where the tokenizer writes it before targets (mBART-50, NLLB, M2M-100), and
    the decoder starts with it where it is written behind them (mBART). {} where no target language is named.
    """
    code = getattr(tokenizer, "tgt_lang", None)
    number = language_id(tokenizer, code) if isinstance(code, str) and hasattr(tokenizer, "src_lang") else None
    if number is None:
        return {}
    before = tokenizer(text_target="a")["input_ids"][0] == number
    return {"forced_bos_token_id" if before else "decoder_start_token_id": number}


def _spelt(tokenizer: Tokenizer, code: str) -> str:
    """Return a code as the tokenizer's vocabulary spells it: PLBart's python is __python__."""
    spell: Any = getattr(tokenizer, "_convert_lang_code_special_format", None)
    return code if spell is None else str(spell(code))


def _codes(tokenizer: Tokenizer) -> list[str]:
    """Return the codes of languages that a tokenizer has; where it keeps no list, its tokens that look like some."""
    for name in ("lang_code_to_token", "lang_code_to_id"):
        if codes := getattr(tokenizer, name, None):
            return [str(code) for code in codes]
    return [token for token in map(str, tokenizer.all_special_tokens) if "_" in token]
