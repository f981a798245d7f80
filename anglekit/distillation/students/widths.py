"""A student narrower than its teacher: which widths are possible, and the heads that it then has. Free of torch."""

from __future__ import annotations

import math
from typing import Final

from anglekit.errors import InputError

#: Under these names a configuration states the size of a head apart from width and number.
HEAD_SIZE_NAMES: Final = ("head_dim", "d_kv", "d_head")
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


def narrower_heads(heads: int, old: int, new: int, smallest: int = 1, multiple: int = 1) -> int:
    """Return the number of heads for the new width: as many as before where they divide it, else the nearest that do.

    The heads get smaller, as in the paper's narrower students (BERT 12 x 32 of 12 x 64). A head of even size stays
    even, for rotary embeddings turn pairs of its dimensions, and has at least the `smallest` size. Every size is a
    multiple of `multiple`.

    Raises:
        InputError: no number of heads fits the width.
    """
    even = old // heads % 2 == 0
    step = math.lcm(multiple, 2 if even else 1)
    possible = [number for number in divisors(new) if new // number >= smallest and new // number % step == 0]
    if not possible:
        raise InputError(
            f"a student of width {new} cannot split it into heads of "
            + ("even size" if step == 2 else f"a multiple of {step}"),
            f"choose an even width, best a multiple of {step * heads}",
        )
    # Where they do not fit, about the teacher's size of head.
    return heads if heads in possible else min(possible, key=lambda one: (abs(one - heads * new / old), one))


def divisors(number: int) -> list[int]:
    """Return the numbers that divide a number, in ascending order."""
    return [divisor for divisor in range(1, number + 1) if number % divisor == 0]
