"""Probes to tokens: truncation is counted; targets become decoder inputs, or follow their prompts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from itertools import chain
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from anglekit.display.counts import counted
from anglekit.errors import InputError
from anglekit.models.lengths import tokenizer_limit
from anglekit.probes.batches import TokenizedProbe, TokenRuns
from anglekit.probes.data import ProbeData
from anglekit.probes.encode import chunks, encode_completions, encode_texts, joined
from anglekit.vocabulary import Stream

#: Settings of transformers' tokenizers by which the same text becomes other tokens.
_READING_SETTINGS: Final = (
    *("do_lower_case", "strip_accents", "tokenize_chinese_chars", "normalization", "remove_space", "keep_accents"),
    *("add_prefix_space", "add_bos_token", "add_eos_token", "split_special_tokens", "legacy", "legacy_behaviour"),
    *("src_lang", "tgt_lang"),
)
#: What a fast tokenizer does with a text before and behind the splitting into tokens.
_STAGES: Final = ("normalizer", "pre_tokenizer", "post_processor")


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
        model_max_length: the most tokens that the models can take, or None if their positions have no limit.

    Raises:
        InputError: no targets, text pairs, a length out of range, or nothing left that counts.
    """
    if data.targets is None:
        raise InputError(
            f"{data.source} has no target column, and --prompt-reading needs one", "name it: --target completion"
        )
    if data.text_pairs is not None:
        raise InputError(f"{data.source} holds pairs of texts, which no prompt is", "give --text-pair -")
    if token_budget < 1:
        raise InputError(f"a budget of {token_budget} tokens a batch is too small", "give 1 or more")
    limit = _length_limit("--max-length", max_length, tokenizer, model_max_length, None)
    if limit is not None and limit < 2:
        raise InputError(f"--max-length {limit} leaves no room for a prompt and its target", "give 2 or more")
    special = None if keep_special_tokens else special_token_ids(tokenizer)
    ids: list[np.ndarray] = []
    counted: list[np.ndarray] = []
    lost = np.zeros(len(data.texts), dtype=np.int64)
    for chunk in chunks(data.texts, data.targets):
        texts, targets = data.texts[chunk], data.targets[chunk]
        follows = [joined(text, target) for text, target in zip(texts, targets, strict=True)]
        rows, prompts = encode_completions(tokenizer, texts, follows, ends=False)
        for place, (row, prompt) in enumerate(zip(rows, prompts, strict=True), chunk.start):
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
    return _probe(
        data,
        tokenizer,
        runs,
        None,
        lost,
        reads_targets=True,
        text_stream="decoder",
        token_budget=token_budget,
        max_length=limit,
    )


def tokenize_probe(
    data: ProbeData,
    tokenizer: PreTrainedTokenizerBase,
    *,
    needs_target: bool,
    max_length: int | None,
    target_max_length: int | None = None,
    keep_special_tokens: bool = True,
    token_budget: int = 4096,
    pad_to: int | None = None,
    decoder_start_token_id: int | None = None,
    model_max_length: int | None = None,
    model_max_target_length: int | None = None,
    text_stream: Stream = "encoder",
) -> TokenizedProbe:
    """Tokenise probe data, truncate where needed and count the tokens that are cut off.

    Args:
        data: the probe.
        tokenizer: the models' tokenizer; pairs are encoded as it encodes pairs.
        needs_target: whether the models are encoder-decoders. Their decoder reads the target teacher-forced: the start
            token followed by all target tokens but the last, as T5 and BART make it of their labels.
        max_length: the most tokens of a text (or pair), special tokens included; None: as many as tokenizer and model
            allow, whichever is less.
        target_max_length: the same for targets.
        keep_special_tokens: whether special tokens count. The forward pass reads them in any case.
        token_budget: the most padded tokens of a batch, both streams together; a longer example is a batch alone.
        pad_to: truncate and pad every sequence to exactly this length, keep file order, count every position, padding
            included (the reading of the paper's code).
        decoder_start_token_id: the model's, needed with `needs_target`; it counts as a special token.
        model_max_length: the most tokens that the models can take, or None if their positions have no limit.
        model_max_target_length: the same for targets.
        text_stream: `encoder`, or `decoder` for decoder-only models.

    Raises:
        InputError: no targets where they are needed, an option out of range, or nothing left that counts.
    """
    if token_budget < 1:
        raise InputError(f"a budget of {token_budget} tokens a batch is too small", "give 1 or more")
    if pad_to is not None and pad_to < 1:
        raise InputError(f"--pad-to {pad_to} is too small", "give 1 or more")
    for most in (model_max_length, model_max_target_length if needs_target else None):
        if pad_to is not None and most is not None and pad_to > most:
            raise InputError(f"--pad-to {pad_to} is more than the {most} tokens that the model takes")
    if pad_to is not None and not keep_special_tokens:
        raise InputError("--pad-to counts every position, so special tokens cannot be dropped", "give one of the two")
    if needs_target and decoder_start_token_id is None:
        raise InputError("the model's config names no decoder_start_token_id, and its decoder cannot start without one")
    if needs_target and data.targets is None:
        raise InputError(
            f"{data.source} has no target column, and an encoder-decoder needs one for its decoder",
            "name it, e.g. --target summary; of texts in memory: targets=[...]",
        )
    if needs_target and text_stream != "encoder":
        raise InputError("an encoder-decoder reads the text in its encoder", "text_stream must be 'encoder'")
    text_limit = _length_limit("--max-length", max_length, tokenizer, model_max_length, pad_to)
    target_limit = _length_limit("--target-max-length", target_max_length, tokenizer, model_max_target_length, pad_to)
    special = None if keep_special_tokens else special_token_ids(tokenizer)

    text, lost = _tokenize(tokenizer, data.texts, data.text_pairs, text_limit, special)
    target = None
    if needs_target and data.targets is not None and decoder_start_token_id is not None:
        labels, target_lost = _tokenize(tokenizer, data.targets, None, target_limit, special, as_target=True)
        target = shifted_right(labels, decoder_start_token_id)
        lost = lost + target_lost
    return _probe(
        data,
        tokenizer,
        text,
        target,
        lost,
        reads_targets=target is not None,
        text_stream=text_stream,
        token_budget=token_budget,
        pad_to=pad_to,
        max_length=text_limit,
        target_max_length=target_limit if needs_target else None,
    )


def _probe(
    data: ProbeData,
    tokenizer: PreTrainedTokenizerBase,
    text: TokenRuns,
    target: TokenRuns | None,
    lost: NDArray[np.int64],
    *,
    reads_targets: bool,
    text_stream: Stream,
    token_budget: int,
    max_length: int | None,
    pad_to: int | None = None,
    target_max_length: int | None = None,
) -> TokenizedProbe:
    """Return a probe of the examples that have a token that counts and, where targets are read, a target."""
    _check_words_kept(data, tokenizer, text)
    counts = text.counted_lengths() > 0
    if target is not None:
        counts &= target.counted_lengths() > 0
    if reads_targets:
        counts &= np.array([bool(each) for each in data.targets or ()])
    kept = np.flatnonzero(counts)
    if len(kept) == 0:
        missing = "with a target " if reads_targets else ""
        raise InputError(f"{data.source} has no example {missing}left with a token that counts", "give other data")
    rows = np.array(data.rows, dtype=np.int64)[kept]
    read = [text.select(kept)] + ([] if target is None else [target.select(kept)])
    return TokenizedProbe(
        text=read[0],
        target=None if target is None else read[1],
        rows=rows,
        clusters=clusters_of(rows, read),
        lost_tokens=lost[kept],
        text_stream=text_stream,
        token_budget=token_budget,
        pad_to=pad_to,
        pad_id=0 if tokenizer.pad_token_id is None else int(tokenizer.pad_token_id),
        pad_type_id=int(tokenizer.pad_token_type_id),
        max_length=max_length,
        target_max_length=target_max_length,
        skipped_examples=len(data.rows) - len(kept),
    )


def _check_words_kept(data: ProbeData, tokenizer: PreTrainedTokenizerBase, text: TokenRuns) -> None:
    """Refuse a tokenizer that makes no token of any text but unknown and special ones: it belongs to another model.

    A tokenizer without an unknown token drops what it does not know, as a foreign one does that transformers reads as
    a byte-level Qwen2 tokenizer. Texts that spell a special token are none of its losses.

    Raises:
        InputError: all texts that hold more than spaces are lost.
    """
    names = [str(token) for token in tokenizer.all_special_tokens]
    nothing = np.append(special_token_ids(tokenizer), -1 if tokenizer.unk_token_id is None else tokenizer.unk_token_id)
    tried, example = 0, ""
    pairs = data.text_pairs or [""] * len(data.texts)
    for words, pair, start, length in zip(data.texts, pairs, text.starts, text.lengths, strict=True):
        whole = f"{words} {pair}".strip()
        if not whole:
            continue
        if not np.isin(text.ids[start : start + length], nothing).all() or any(name in whole for name in names):
            return
        tried, example = tried + 1, example or whole
    if tried:
        shown = example if len(example) <= 40 else f"{example[:37]}..."
        raise InputError(
            f"the tokenizer ({type(tokenizer).__name__} of {len(tokenizer)} tokens) knows nothing of the "
            f"{counted(tried, 'text')} of {data.source} with words in {'it' if tried == 1 else 'them'}: of {shown!r} "
            "it keeps special and unknown tokens at most",
            "put the tokenizer that the model was trained with beside it (one of another kind is read otherwise there "
            "than it was saved), or give texts in its language",
        )


def clusters_of(rows: NDArray[np.int64], read: Sequence[TokenRuns]) -> NDArray[np.int64]:
    """Return for each example the row number of the first one of which the models read the same tokens."""
    first: dict[bytes, int] = {}
    clusters = np.empty_like(rows)
    for position, row in enumerate(rows.tolist()):
        found = hashlib.sha256()
        for runs in read:
            here = slice(int(runs.starts[position]), int(runs.starts[position] + runs.lengths[position]))
            found.update(int(runs.lengths[position]).to_bytes(8, "little") + runs.ids[here].tobytes())
            if runs.type_ids is not None:
                found.update(runs.type_ids[here].tobytes())
        clusters[position] = first.setdefault(found.digest(), row)
    return clusters


def _length_limit(
    option: str,
    wanted: int | None,
    tokenizer: PreTrainedTokenizerBase,
    model_max_length: int | None,
    pad_to: int | None,
) -> int | None:
    """Return the most tokens of a text: as wanted, or what tokenizer and model allow; None without any limit."""
    if wanted is not None and wanted < 1:
        raise InputError(f"{option} {wanted} is too small", "give 1 or more")
    if wanted is not None and model_max_length is not None and wanted > model_max_length:
        raise InputError(f"{option} {wanted} is more than the {model_max_length} tokens that the model takes")
    limits = [wanted, pad_to]
    if wanted is None:
        limits += [model_max_length, tokenizer_limit(tokenizer)]
    return min((limit for limit in limits if limit is not None), default=None)


def special_token_ids(tokenizer: PreTrainedTokenizerBase) -> NDArray[np.int32]:
    """Return the ids of special tokens; the unknown token is none (it stands for a word) unless it has another use."""
    others = {getattr(tokenizer, f"{use}_token_id") for use in ("bos", "eos", "sep", "cls", "pad", "mask")}
    ids = {int(token) for token in tokenizer.all_special_ids}
    if tokenizer.unk_token_id not in others:
        ids.discard(tokenizer.unk_token_id)
    return np.array(sorted(ids), dtype=np.int32)


def _tokenize(
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    pairs: Sequence[str] | None,
    limit: int | None,
    special: NDArray[np.int32] | None,
    as_target: bool = False,
) -> tuple[TokenRuns, NDArray[np.int64]]:
    """Return the token runs and for each example the number of tokens that truncation cut off.

    Texts are first tokenised whole, which gives the exact number. Those that are too long are tokenised again.
    """
    added = tokenizer.num_special_tokens_to_add(pair=pairs is not None)
    if limit is not None and limit <= added:
        raise InputError(f"a maximal length of {limit} tokens leaves no room beside {added} special ones", "give more")
    ids: list[NDArray[np.int32]] = []
    counted: list[NDArray[np.bool_]] = []
    type_ids: list[NDArray[np.int8]] = []
    lengths = np.zeros(len(texts), dtype=np.int64)
    lost = np.zeros(len(texts), dtype=np.int64)
    for chunk in chunks(texts, pairs):
        first, second = list(texts[chunk]), None if pairs is None else list(pairs[chunk])
        form: dict[str, Any] = {"as_target": as_target, "special_mask": special is not None}
        encoded = encode_texts(tokenizer, first, second, **form)
        whole = [len(sequence) for sequence in encoded["input_ids"]]
        long = [place for place, length in enumerate(whole) if limit is not None and length > limit]
        if long:
            cut_second = None if second is None else [second[place] for place in long]
            cut = encode_texts(tokenizer, [first[place] for place in long], cut_second, max_length=limit, **form)
            for name, values in cut.items():
                for place, value in zip(long, values, strict=True):
                    encoded[name][place] = value
        lengths[chunk] = [len(sequence) for sequence in encoded["input_ids"]]
        lost[chunk] = whole - lengths[chunk]
        chunk_ids = _flat(encoded["input_ids"], np.int32)
        ids.append(chunk_ids)
        if special is not None:
            added_mask = _flat(encoded["special_tokens_mask"], np.bool_)
            counted.append(~(added_mask | np.isin(chunk_ids, special)))
        if "token_type_ids" in encoded and not as_target:
            type_ids.append(_flat(encoded["token_type_ids"], np.int8))
    if limit is not None and lengths.max(initial=0) > limit:
        raise InputError(
            f"{type(tokenizer).__name__} does not truncate to {limit} tokens", "give another maximal length"
        )
    runs = TokenRuns(
        ids=np.concatenate(ids),
        starts=np.cumsum(lengths) - lengths,
        lengths=lengths,
        counted=np.concatenate(counted) if counted else None,
        type_ids=np.concatenate(type_ids) if type_ids else None,
    )
    return runs, lost


def _flat(sequences: list[list[int]], dtype: type[np.generic]) -> NDArray[Any]:
    return np.fromiter(chain.from_iterable(sequences), dtype=dtype, count=sum(map(len, sequences)))


def shifted_right(labels: TokenRuns, start_id: int) -> TokenRuns:
    """Return each sequence without its last token and with the start token, which never counts as content, in front."""
    filled = labels.starts[labels.lengths > 0]
    ids, counted = np.empty_like(labels.ids), None
    ids[1:] = labels.ids[:-1]
    ids[filled] = start_id
    if labels.counted is not None:
        counted = np.empty_like(labels.counted)
        counted[1:] = labels.counted[:-1]
        counted[filled] = False
    return TokenRuns(ids, labels.starts, labels.lengths, counted, None)


def read_alike(
    data: ProbeData,
    tokenizer_a: PreTrainedTokenizerBase,
    tokenizer_b: PreTrainedTokenizerBase,
    *,
    entries: int,
    reads_targets: bool = False,
    continued: bool = False,
) -> NDArray[np.bool_]:
    """Return which examples two tokenizers turn into the same token ids, all of them below `entries`; (examples,).

    Examples are compared whole, with their pairs and, where they are read, their targets.

    Args:
        data: the probe.
        tokenizer_a: one tokenizer.
        tokenizer_b: the other.
        entries: how many token ids both models have (`shared_vocabulary`).
        reads_targets: whether a decoder reads the targets.
        continued: whether the targets follow their texts, as in `tokenize_continued_probe`.
    """
    continues = continued and data.targets is not None
    alike = np.ones(len(data.texts), dtype=np.bool_)
    for chunk in chunks(data.texts, data.targets if continues else data.text_pairs):
        part = data.select(range(chunk.start, chunk.stop))
        both = [_ids_read(part, each, reads_targets, continues) for each in (tokenizer_a, tokenizer_b)]
        for place, (one, other) in enumerate(zip(*both, strict=True), chunk.start):
            alike[place] = one == other and all(max(ids, default=0) < entries for ids in one)
    return alike


def _ids_read(
    data: ProbeData, tokenizer: PreTrainedTokenizerBase, reads_targets: bool, continued: bool
) -> list[tuple[list[int], ...]]:
    """Return all ids that a model reads of each example: its text's, which of them are the prompt's, its target's.

    Token types are left out: models that take none (DistilBERT) have tokenizers that give none, and read the same.
    """
    if continued and data.targets is not None:
        follows = [joined(text, target) for text, target in zip(data.texts, data.targets, strict=True)]
        rows, prompts = encode_completions(tokenizer, data.texts, follows, ends=False)
        return [(row, [0] * prompt) for row, prompt in zip(rows, prompts, strict=True)]
    encoded = encode_texts(tokenizer, data.texts, data.text_pairs)
    read = [encoded["input_ids"]]
    if reads_targets and data.targets is not None:
        read.append(encode_texts(tokenizer, data.targets, as_target=True)["input_ids"])
    return list(zip(*read, strict=True))


def unlike_words(
    text: str,
    tokenizer_a: PreTrainedTokenizerBase,
    tokenizer_b: PreTrainedTokenizerBase,
    entries: int | None = None,
) -> str:
    """Say in words how two tokenizers read a text differently, or which token of it is beyond the shared `entries`."""
    shown = text if len(text) <= 40 else f"{text[:37]}..."
    one, other = (encode_texts(each, [text])["input_ids"][0] for each in (tokenizer_a, tokenizer_b))
    apart = settings_apart(tokenizer_a, tokenizer_b)
    why = f" ({'; '.join(apart)})" if apart else ""
    if len(one) != len(other):
        return f"they split {shown!r} differently, into {len(one)} and {len(other)} tokens{why}"
    if one == other and entries is not None and max(one, default=0) >= entries:
        place = next(place for place, number in enumerate(one) if number >= entries)
        token = tokenizer_a.convert_ids_to_tokens(one[place])
        return (
            f"token {place + 1} of {shown!r} is {token!r}, number {one[place]} in both, and the models share "
            f"embeddings of numbers below {entries} alone"
        )
    place = next((place for place, ids in enumerate(zip(one, other, strict=True)) if ids[0] != ids[1]), 0)
    return f"token {place + 1} of {shown!r} is number {one[place]} and {other[place]}{why}"


def settings_apart(tokenizer_a: PreTrainedTokenizerBase, tokenizer_b: PreTrainedTokenizerBase) -> tuple[str, ...]:
    """Return in words which settings of two tokenizers differ that change how a text is read.

    Where none of transformers' settings does, the stages of the tokenizers themselves are named that do.
    """
    both = tokenizer_a, tokenizer_b
    values = {
        name: tuple(getattr(each, "init_kwargs", {}).get(name, getattr(each, name, None)) for each in both)
        for name in _READING_SETTINGS
    }
    found = [f"{name} is {one} and {other}" for name, (one, other) in values.items() if one != other]
    backends = [getattr(each, "backend_tokenizer", None) for each in both]
    if found or None in backends:
        return tuple(found)
    stages = [json.loads(backend.to_str()) for backend in backends if backend is not None]
    return tuple(f"their {name.replace('_', '-')}s differ" for name in _STAGES if stages[0][name] != stages[1][name])
