"""Probes of causal language models that go on: each text is a prompt, and its target is read behind it."""

from __future__ import annotations

import numpy as np
from transformers import PreTrainedTokenizerBase

from anglekit.errors import InputError
from anglekit.probe_batches import TokenizedProbe, TokenRuns
from anglekit.probe_tokens import length_limit, special_token_ids
from anglekit.probes import ProbeData
from anglekit.prompt_tokens import encode_completions, joined

__all__ = ["tokenize_continued_probe"]

_CHUNK_EXAMPLES = 512


def tokenize_continued_probe(
    data: ProbeData,
    tokenizer: PreTrainedTokenizerBase,
    *,
    prompts_count: bool,
    max_length: int | None = None,
    keep_special_tokens: bool = True,
    token_budget: int = 4096,
    model_max_length: int | None = None,
) -> TokenizedProbe:
    """Tokenise texts with their targets behind them, teacher-forced, as a causal model is trained on them.

    A sequence that is too long loses the beginning of its text, and where the target alone is too long, the target's
    end. The end-of-text token is not read: nothing is predicted from it.

    Args:
        data: the probe, with targets.
        tokenizer: the models' tokenizer.
        prompts_count: whether the text's tokens count beside the target's; they are read in any case.
        max_length: the most tokens of a sequence; None: as many as tokenizer and model allow, whichever is less.
        keep_special_tokens: whether special tokens count.
        token_budget: the most padded tokens of a batch; a longer example is a batch alone.
        model_max_length: the most tokens that the models can take, or None if their positions have no end.

    Raises:
        InputError: no targets, text pairs, a length out of range, or nothing left that counts.
    """
    if data.targets is None:
        raise InputError(f"{data.source} has no target column, and --prompts needs one; name it: --target completion")
    if data.text_pairs is not None:
        raise InputError(f"{data.source} holds pairs of texts, which no prompt is; give --text-pair -")
    if token_budget < 1:
        raise InputError(f"a budget of {token_budget} tokens a batch is too small; give 1 or more")
    limit = length_limit("--max-length", max_length, tokenizer, model_max_length, None)
    if limit is not None and limit < 2:
        raise InputError(f"--max-length {limit} leaves no room for a prompt and its target; give 2 or more")
    special = None if keep_special_tokens else special_token_ids(tokenizer)
    ids: list[np.ndarray] = []
    counted: list[np.ndarray] = []
    lost = np.zeros(len(data.texts), dtype=np.int64)
    for start in range(0, len(data.texts), _CHUNK_EXAMPLES):
        texts, targets = (side[start : start + _CHUNK_EXAMPLES] for side in (data.texts, data.targets))
        follows = [joined(text, target) for text, target in zip(texts, targets, strict=True)]
        rows, prompts = encode_completions(tokenizer, texts, follows, ends=False)
        for place, (row, prompt) in enumerate(zip(rows, prompts, strict=True), start):
            cut = 0 if limit is None else min(max(len(row) - limit, 0), prompt - 1)
            kept = np.array(row[cut:][:limit], dtype=np.int32)
            counts = np.arange(len(kept)) >= (0 if prompts_count else prompt - cut)
            if special is not None:
                counts &= ~np.isin(kept, special)
            lost[place] = len(row) - len(kept)
            ids.append(kept)
            counted.append(counts)
    lengths = np.array([len(row) for row in ids], dtype=np.int64)
    runs = TokenRuns(np.concatenate(ids), np.cumsum(lengths) - lengths, lengths, np.concatenate(counted), None)
    usable = np.flatnonzero((runs.counted_lengths() > 0) & np.array([bool(target) for target in data.targets]))
    if len(usable) == 0:
        raise InputError(f"{data.source} has no example with a target left with a token that counts; give other data")
    return TokenizedProbe(
        text=runs.select(usable),
        target=None,
        rows=np.array(data.rows, dtype=np.int64)[usable],
        lost_tokens=lost[usable],
        text_stream="decoder",
        token_budget=token_budget,
        pad_to=None,
        pad_id=0 if tokenizer.pad_token_id is None else int(tokenizer.pad_token_id),
        pad_type_id=int(tokenizer.pad_token_type_id),
        max_length=limit,
        target_max_length=None,
        skipped_examples=len(data.rows) - len(usable),
    )
