"""A word-level tokenizer in BERT's manner, made from a list of texts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

from anglekit.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

__all__ = ["SPECIAL_TOKENS", "train_tokenizer"]

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def train_tokenizer(texts: Iterable[str], vocab_size: int, max_length: int = 512) -> PreTrainedTokenizerFast:
    """Make a tokenizer whose tokens are the most frequent lower-cased words and punctuation marks of the texts.

    Words are counted here rather than by a trainer of the `tokenizers` library, so that ties are broken the same way
    (alphabetically) whatever the version.

    Args:
        texts: sentences, in any order.
        vocab_size: the most entries that the vocabulary may have, the five of `SPECIAL_TOKENS` included.
        max_length: the length in tokens to which the tokenizer truncates when asked to truncate.

    Returns:
        A tokenizer that writes `[CLS] a [SEP]` or `[CLS] a [SEP] b [SEP]`, with token types 0 and 1. A word that is
        not in the vocabulary becomes `[UNK]`.

    Raises:
        InputError: the vocabulary has no room for a word, or the texts hold none.
    """
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    if vocab_size <= len(SPECIAL_TOKENS):
        raise InputError(
            f"vocabulary size {vocab_size} leaves no room for words: give more than the "
            f"{len(SPECIAL_TOKENS)} special tokens"
        )
    normalizer = normalizers.BertNormalizer(lowercase=True)
    splitter = pre_tokenizers.BertPreTokenizer()
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(word for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text)))
    if not counts:
        raise InputError("the tokenizer's texts hold no word: give at least one text that is not blank")
    frequent = sorted(counts, key=lambda word: (-counts[word], word))[: vocab_size - len(SPECIAL_TOKENS)]
    vocabulary = {token: index for index, token in enumerate([*SPECIAL_TOKENS, *frequent])}

    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = splitter
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(token, vocabulary[token]) for token in ("[CLS]", "[SEP]")],
    )
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        model_max_length=max_length,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    )
