"""Word-level tokenizers made from a list of texts: as BERT's, or so that tokens decode to the same text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

from anglekit.errors import InputError, suggest

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

SPECIAL_TOKENS: dict[str, tuple[str, ...]] = {
    "words": ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"),
    "bart": ("<s>", "<pad>", "</s>", "<unk>"),
    "t5": ("<pad>", "</s>", "<unk>"),
    "causal": ("<pad>", "</s>", "<unk>"),
}
"""The special tokens of each kind in the order of their ids, which are the defaults of BART's and T5's settings."""

# How a text, and a pair of texts, is written.
_FORMS = {
    "words": ("[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1"),
    "bart": ("<s> $A </s>", "<s> $A $B </s>"),
    "t5": ("$A </s>", "$A $B </s>"),
    "causal": ("$A", "$A $B"),
}


def train_word_tokenizer(
    texts: Iterable[str], vocab_size: int, kind: str, max_length: int = 512
) -> PreTrainedTokenizerFast:
    """Make a tokenizer whose tokens are the most frequent words and punctuation marks of the texts.

    Words are counted here rather than by a trainer of the `tokenizers` library, so that ties are broken the same way
    (alphabetically) whatever the version. A word that is not in the vocabulary becomes the unknown token.

    Args:
        texts: sentences, in any order.
        vocab_size: the most entries that the vocabulary may have, the special tokens included.
        kind: `words` takes words in lower case and writes `[CLS] a [SEP]` or `[CLS] a [SEP] b [SEP]`, with token types
            0 and 1. The others are for models that write: case is kept, a word's token holds the blank before it, and
            decoding gives back every text whose words are all in the vocabulary and whose blanks are single and
            inside. `bart` writes `<s> a </s>`, `t5` writes `a </s>`, `causal` adds nothing; `</s>` ends texts in all.
        max_length: the length in tokens to which the tokenizer truncates when asked to truncate.

    Raises:
        InputError: the kind is unknown, the vocabulary has no room for a word, or the texts hold none.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    if kind not in SPECIAL_TOKENS:
        raise InputError(f"tokenizer kind {kind!r} does not exist", allowed=suggest(kind, SPECIAL_TOKENS))
    special = SPECIAL_TOKENS[kind]
    if vocab_size <= len(special):
        raise InputError(
            f"vocabulary size {vocab_size} leaves no room for words",
            f"give more than the {len(special)} special tokens",
        )
    normalizer = decoder = None
    splitter: pre_tokenizers.PreTokenizer
    if kind == "words":
        normalizer = normalizers.BertNormalizer(lowercase=True)
        splitter = pre_tokenizers.BertPreTokenizer()
    else:
        punctuation = pre_tokenizers.Split(Regex(r"▁?[^\w\s▁]+"), behavior="isolated")
        splitter = pre_tokenizers.Sequence([pre_tokenizers.Metaspace(prepend_scheme="always"), punctuation])
        decoder = decoders.Metaspace(prepend_scheme="always")
    counts: Counter[str] = Counter()
    # A story is read once for each of its endings: what comes again is split once.
    for text, times in Counter(texts).items():
        normal = text if normalizer is None else normalizer.normalize_str(text)
        for word, _ in splitter.pre_tokenize_str(normal):
            if word != "▁":
                counts[word] += times
    if not counts:
        raise InputError("the tokenizer's texts hold no word", "give at least one text that is not blank")
    frequent = sorted(counts, key=lambda word: (-counts[word], word))[: vocab_size - len(special)]
    vocabulary = {token: index for index, token in enumerate([*special, *frequent])}
    single, pair = _FORMS[kind]
    unknown = next(token for token in special if "unk" in token.lower())

    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=unknown))
    tokenizer.pre_tokenizer = splitter
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    if decoder is not None:
        tokenizer.decoder = decoder
    tokenizer.post_processor = processors.TemplateProcessing(
        single=single, pair=pair, special_tokens=[(one, vocabulary[one]) for one in special if one in single.split()]
    )
    if kind == "words":
        names = {"pad": "[PAD]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
        inputs = ["input_ids", "token_type_ids", "attention_mask"]
    else:
        names = {"pad": "<pad>", "eos": "</s>"} | ({"bos": "<s>"} if kind == "bart" else {})
        inputs = ["input_ids", "attention_mask"]
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        model_max_length=max_length,
        model_input_names=inputs,
        unk_token=unknown,
        **{f"{name}_token": token for name, token in names.items()},
    )
