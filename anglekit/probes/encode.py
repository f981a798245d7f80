"""Texts, or prompts with what follows them, to lists of token ids; `tokenize` makes probes of these."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase as Tokenizer

# Few texts are tokenised at once, so that the tokenizer's own objects (about 200 bytes a token) stay few.
_CHUNK_EXAMPLES = 512
_CHUNK_CHARACTERS = 200_000


def chunks(texts: Sequence[str], pairs: Sequence[str] | None = None) -> Iterator[slice]:
    """Cut examples into slices of few examples and few characters."""
    start = characters = 0
    for position, text in enumerate(texts):
        size = len(text) + (0 if pairs is None else len(pairs[position]))
        full = position - start == _CHUNK_EXAMPLES or characters + size > _CHUNK_CHARACTERS
        if position > start and full:
            yield slice(start, position)
            start, characters = position, 0
        characters += size
    if start < len(texts):
        yield slice(start, len(texts))


def encode_texts(
    tokenizer: Tokenizer,
    texts: Sequence[str],
    pairs: Sequence[str] | None = None,
    *,
    max_length: int | None = None,
    as_target: bool = False,
    special_tokens: bool = True,
    special_mask: bool = False,
) -> dict[str, list[list[int]]]:
    """Tokenise texts (or pairs), some at a time.

    Texts are cut to `max_length`, but truncation is switched off in the tokenizer afterwards. `as_target` says that
    they are targets, which some tokenizers (Marian's) treat differently.

    Returns:
        Each of the tokenizer's outputs, with one list for each text: `input_ids`, and `token_type_ids` and
        `special_tokens_mask` where there are some.
    """
    encoded: dict[str, list[list[int]]] = {"input_ids": []}
    language = getattr(tokenizer, "tgt_lang", "")
    for part in chunks(texts, pairs):
        given: dict[str, Any] = {"text_target": list(texts[part])} if as_target else {"text": list(texts[part])}
        if pairs is not None:
            given["text_pair"] = list(pairs[part])
        found = tokenizer(
            **given,
            truncation=max_length is not None,
            max_length=max_length,
            add_special_tokens=special_tokens,
            return_attention_mask=False,
            return_special_tokens_mask=special_mask,
            verbose=False,
        )
        for name, rows in found.items():
            encoded.setdefault(name, []).extend(rows)
    if language is None:
        # NLLB and mBART-50 take the sources' language where none is named, and would keep it for good.
        tokenizer.tgt_lang = None
    # Truncation stays switched on inside a fast tokenizer and would be saved with it.
    if (backend := getattr(tokenizer, "backend_tokenizer", None)) is not None:
        backend.no_truncation()
    return encoded


def joined(prompt: str, completion: str) -> str:
    """Return the completion as it follows its prompt: after a blank, unless one of the two already has it."""
    bare = not prompt or prompt[-1].isspace() or completion[:1].isspace()
    return completion if bare else f" {completion}"


def encode_completions(
    tokenizer: Tokenizer, prompts: Sequence[str], completions: Sequence[str], *, ends: bool
) -> tuple[list[list[int]], list[int]]:
    """Tokenise prompts together with what follows them.

    Prompt and completion are split as by lm-evaluation-harness (`HFLM._encode_pair`): blanks at the end of a prompt go
    to its completion, both are tokenised as one text, and the prompt's tokens are as many as the prompt alone gives;
    the rest are the completion's. The tokenizer's begin-of-text token comes first where it puts one there itself, or
    where the prompt is empty; otherwise no special token is added in front. With `ends`, the end-of-text token ends it.

    Returns:
        The token ids of each example, and for each how many of them are the prompt's.
    """
    stripped = [prompt.rstrip() for prompt in prompts]
    whole = [prompt + completion for prompt, completion in zip(prompts, completions, strict=True)]
    together = encode_texts(tokenizer, whole, special_tokens=False)["input_ids"]
    alone = encode_texts(tokenizer, stripped, special_tokens=False)["input_ids"]
    front, behind = beginning(tokenizer), ending(tokenizer) if ends else []
    # Where the prompt is empty, the completion's first token is predicted from this.
    stand_in = ending(tokenizer) if tokenizer.bos_token_id is None else [int(tokenizer.bos_token_id)]
    ids, lengths = [], []
    for tokens, prompt in zip(together, alone, strict=True):
        first = front or ([] if prompt else stand_in)
        ids.append([*first, *tokens, *behind])
        lengths.append(len(first) + min(len(prompt), max(len(tokens) - 1, 0)))
    return ids, lengths


def beginning(tokenizer: Tokenizer) -> list[int]:
    """Return the begin-of-text token if the tokenizer puts one before every text."""
    begin = tokenizer.bos_token_id
    return [int(begin)] if begin is not None and tokenizer("a")["input_ids"][:1] == [begin] else []


def ending(tokenizer: Tokenizer) -> list[int]:
    """Return the end-of-text token, if there is one."""
    return [] if tokenizer.eos_token_id is None else [int(tokenizer.eos_token_id)]
