"""Text from data: literal, drawable, no longer than its place."""

from __future__ import annotations

import warnings

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anglekit.plots.ground import new_figure
from anglekit.plots.panels.labels import fit, number_ranges, plain, shorten_middle, text_extent, text_width, wrap
from anglekit.plots.style import LIGHT_THEME, context


@pytest.fixture
def figure():
    with context(LIGHT_THEME):
        yield new_figure(3.0, 2.0)


@pytest.mark.parametrize(
    ("text", "drawn"),
    [
        ("great", "great"),
        ("Ġgreat", "Ġgreat"),
        ("▁coût", "▁coût"),
        ("a$b$c", r"a\$b\$c"),
        ("中", "\\u4e2d"),
        ("\n", "\\u000a"),
        ("\x00", "\\u0000"),
        ("😀", "😀"),
        ("\U0001f9ff", "\\U0001f9ff"),
    ],
)
def test_plain(text: str, drawn: str) -> None:
    assert plain(text) == drawn


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=12))
def test_any_text_draws_without_a_warning(text: str) -> None:
    with context(LIGHT_THEME), warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = new_figure(2.0, 1.0)
        figure.text(0, 0.5, plain(text))
        figure.draw_without_rendering()


def test_without_escaping_a_missing_glyph_warns() -> None:
    with context(LIGHT_THEME):
        figure = new_figure(2.0, 1.0)
        figure.text(0, 0.5, "中")
        with pytest.warns(UserWarning, match="missing from font"):
            figure.draw_without_rendering()


@given(st.text(st.characters(exclude_characters="…"), max_size=60), st.integers(1, 40))
def test_shorten_middle_keeps_both_ends(text: str, limit: int) -> None:
    short = shorten_middle(text, limit)
    assert len(short) == min(len(text), limit)
    if len(text) <= limit:
        assert short == text
    else:
        head, tail = short.split("…")
        assert text.startswith(head)
        assert text.endswith(tail)
        assert abs(len(head) - len(tail)) <= 1


@pytest.mark.parametrize("room", [0.5, 1.0, 2.0])
def test_fit_stays_within_its_room_and_uses_it(figure, room: float) -> None:
    name = "a-student-with-a-very-long-name-of-which-both-ends-tell"
    text = fit(figure, name, room, 7.5, frame=lambda part: f"({part})")
    assert text_width(figure, text, 7.5) <= room
    assert text.startswith("(a")
    assert text.endswith("l)")
    longer = plain(shorten_middle(name, len(text) - 1))
    assert text_width(figure, f"({longer})", 7.5) > room


def test_fit_leaves_a_short_name_alone(figure) -> None:
    assert fit(figure, "short", 2.0) == "short"


def test_measured_text_is_drawn_as_wide(figure) -> None:
    drawn = figure.text(0.1, 0.5, plain("cost $5 or $6"), fontsize=7.5)
    assert text_width(figure, plain("cost $5 or $6"), 7.5) == pytest.approx(
        drawn.get_window_extent().width / figure.dpi, abs=0.02
    )
    assert text_extent(figure, "$T_{12}$", 10, math=True)[0] < text_width(figure, "T_{12}", 10)


def test_wrap_breaks_at_spaces(figure) -> None:
    words = "the angle at the student's state between two of the teacher's"
    lines = wrap(figure, words, 1.2)
    assert " ".join(lines) == words
    assert len(lines) > 1
    assert all(text_width(figure, line, 7.0) <= 1.2 for line in lines)


def test_wrap_keeps_together_what_a_no_break_space_joins(figure) -> None:
    lines = wrap(figure, "words before layer\u00a0b\u00a0+\u00a01 and words after it", 1.2)
    assert " ".join(lines) == "words before layer b + 1 and words after it"
    assert any("layer b + 1" in line for line in lines)
    assert all(text_width(figure, line, 7.0) <= 1.2 for line in lines)


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        ([0, 1, 2, 3], "0 to 3"),
        ([1], "1"),
        ([6, 1, 4, 5], "1, 4 to 6"),
        ([2, 2], "2"),
        ([4, 5, 7], "4, 5, 7"),
        ([], ""),
    ],
)
def test_number_ranges(numbers: list[int], words: str) -> None:
    assert number_ranges(numbers) == words
