"""Tokens in their sentences: the words around the tokens with the smallest and the largest angles."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from msgspec import Struct
from torch import Tensor

from anglekit.geometry.sums import token_place
from anglekit.probes.batches import ProbeBatch
from anglekit.vocabulary import Stream

# Tokens on either side, and the most characters that are kept of them.
_AROUND, _MOST_CHARACTERS, _LONGEST_TOKEN = 20, 240, 80


class TokenText(Struct, frozen=True, array_like=True):
    """A token as its tokenizer writes it, and the text before and after it; numbers where there is no tokenizer."""

    before: str
    token: str
    after: str


@dataclass
class TokenTexts:
    """Texts of tokens, by stream and number (`geometry.extremes.token_numbers`); grows in place.

    Attributes:
        tokenizer: the teacher's, or None.
        found: the texts.
    """

    tokenizer: Any
    found: dict[tuple[Stream, int], TokenText] = field(default_factory=dict)

    def add(self, batch: ProbeBatch, stream: Stream, numbers: Iterable[int]) -> None:
        """Take the texts of the numbered tokens that are of this batch; those of others pass by."""
        ids, mask = batch.input_ids, batch.attention_mask
        if stream == "decoder" and batch.decoder_input_ids is not None:
            ids, mask = batch.decoder_input_ids, batch.decoder_attention_mask
        lines = {row: line for line, row in enumerate(batch.examples.tolist())}
        for number in numbers:
            row, place = token_place(number)
            if row in lines and (stream, number) not in self.found:
                line = lines[row]
                real = ids.shape[1] if mask is None else int(mask[line].sum())
                self.found[stream, number] = self._text(ids[line, :real], place)

    def _text(self, ids: Tensor, place: int) -> TokenText:
        tokens = ids.tolist()
        # The official reading counts padding, which lies behind the text.
        token = tokens[place] if place < len(tokens) else None
        before = self._words(tokens[max(0, place - _AROUND) : place])[-_MOST_CHARACTERS:]
        after = self._words(tokens[place + 1 : place + 1 + _AROUND])[:_MOST_CHARACTERS]
        return TokenText(before, "(padding)" if token is None else self._piece(token), after)

    def _words(self, tokens: Sequence[int]) -> str:
        if self.tokenizer is None:
            return " ".join(map(str, tokens))
        return str(self.tokenizer.decode(tokens, clean_up_tokenization_spaces=False)) if tokens else ""

    def _piece(self, token: int) -> str:
        piece = token if self.tokenizer is None else self.tokenizer.convert_ids_to_tokens(token)
        return str(piece)[:_LONGEST_TOKEN]
