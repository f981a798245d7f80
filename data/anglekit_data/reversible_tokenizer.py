"""A word-level tokenizer whose tokens become the same text again: for models that write (BART, T5, causal models)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

from anglekit.errors import InputError, suggest

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

__all__ = ["FORMS", "train_reversible_tokenizer"]

FORMS: dict[str, tuple[str, ...]] = {
    "bart": ("<s>", "<pad>", "</s>", "<unk>"),
    "t5": ("<pad>", "</s>", "<unk>"),
    "causal": ("<pad>", "</s>", "<unk>"),
}
"""The special tokens of each form in the order of their ids, which are the defaults of BART's and T5's settings."""


def train_reversible_tokenizer(
    texts: Iterable[str], vocab_size: int, form: str, max_length: int = 512
) -> PreTrainedTokenizerFast:
    """Make a tokenizer whose tokens are the most frequent words, with the blank before them, and punctuation marks.

    Case is kept, and decoding gives back every text whose words are all in the vocabulary and whose blanks are single
    and inside. Ties are broken alphabetically, whatever the version of the `tokenizers` library.

    Args:
        texts: sentences, in any order.
        vocab_size: the most entries that the vocabulary may have, the special tokens included.
        form: `bart` writes `<s> a </s>`, `t5` writes `a </s>`, `causal` adds nothing; `</s>` ends texts in all.
        max_length: the length in tokens to which the tokenizer truncates when asked to truncate.

    Raises:
        InputError: the form is unknown, the vocabulary has no room for a word, or the texts hold none.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    if form not in FORMS:
        raise InputError(f"tokenizer form {form!r} does not exist: {suggest(form, FORMS)}")
    special = FORMS[form]
    if vocab_size <= len(special):
        raise InputError(
            f"vocabulary size {vocab_size} leaves no room for words: give more than the {len(special)} special tokens"
        )
    splitter = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Metaspace(prepend_scheme="always"),
            pre_tokenizers.Split(Regex(r"▁?[^\w\s▁]+"), behavior="isolated"),
        ]
    )
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(word for word, _ in splitter.pre_tokenize_str(text) if word != "▁")
    if not counts:
        raise InputError("the tokenizer's texts hold no word: give at least one text that is not blank")
    frequent = sorted(counts, key=lambda word: (-counts[word], word))[: vocab_size - len(special)]
    vocabulary = {token: index for index, token in enumerate([*special, *frequent])}

    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = splitter
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
    template = {"bart": "<s> {} </s>", "t5": "{} </s>", "causal": "{}"}[form]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=template.format("$A"),
        pair=template.format("$A $B"),
        special_tokens=[(token, vocabulary[token]) for token in special if token in template.split()],
    )
    named = {"bos_token": "<s>"} if form == "bart" else {}
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        model_max_length=max_length,
        model_input_names=["input_ids", "attention_mask"],
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        **named,
    )
