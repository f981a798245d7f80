"""A student narrower than its teacher: which widths are possible, and the heads that it then has. Free of torch."""

from __future__ import annotations

from typing import Final

from anglekit.errors import InputError

#: Under these names a configuration states a number of heads.
HEAD_NAMES: Final = (
    *("num_attention_heads", "encoder_attention_heads", "decoder_attention_heads", "num_heads", "n_heads", "n_head"),
)


def check_width(old: int, new: int) -> None:
    """Refuse a width that a student of a teacher of width `old` cannot have.

    Raises:
        InputError: it is below 1, or not below the teacher's.
    """
    if not 1 <= new < old:
        raise InputError(f"the student's width is {new} and the teacher's {old}", allowed=f"allowed: 1 to {old}")


def fewer_heads(heads: int, old: int, new: int) -> int:
    """Return the number of heads for the new width: in proportion, or the nearest number that divides the width.

    A head of even size stays even, for rotary embeddings turn pairs of its dimensions.

    Raises:
        InputError: no number of heads fits the width.
    """
    if heads * new % old == 0:
        return heads * new // old
    even = old // heads % 2 == 0
    possible = [number for number in divisors(new) if not (even and new // number % 2)]
    if not possible:
        raise InputError(
            f"a student of width {new} cannot split it into heads of even size",
            f"choose an even width, best a multiple of {old // heads}",
        )
    return min(possible, key=lambda number: (abs(number - heads * new / old), number))


def divisors(number: int) -> list[int]:
    """Return the numbers that divide a number, in ascending order."""
    return [divisor for divisor in range(1, number + 1) if number % divisor == 0]
