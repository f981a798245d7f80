"""The style: safe for colour-blind readers, local, readable in the files it is for."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.colors import to_rgb

from anglekit.errors import InputError
from anglekit.plots.ground import new_figure
from anglekit.plots.style import (
    LIGHT_THEME,
    NIGHT_THEME,
    SMALL_FONT_SIZE,
    Theme,
    context,
    figure_width,
    round_ticks,
)
from anglekit.vocabulary import CONTROLS, GIVEN, INITS, PAPER_STRATEGIES
from tests.plots.vision import VISION, linear

TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.072175], [0.0193339, 0.119192, 0.9503041]]
)


def lab(colour: str, vision: str) -> np.ndarray:
    seen = np.clip(np.array(VISION[vision]) @ linear(np.array(to_rgb(colour))), 0, 1)
    xyz = TO_XYZ @ seen / np.array([0.95047, 1.0, 1.08883])
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def smallest_difference(colours: list[str]) -> float:
    return min(
        float(np.linalg.norm(lab(a, vision) - lab(b, vision)))
        for a, b in itertools.combinations(colours, 2)
        for vision in VISION
    )


def contrast(colour: str, ground: str) -> float:
    low, high = sorted(float(np.dot(TO_XYZ[1], linear(np.array(to_rgb(each))))) for each in (colour, ground))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("look", [LIGHT_THEME, NIGHT_THEME], ids=["light", "dark"])
class TestTheme:
    def test_initialisations_differ_for_every_vision(self, look: Theme) -> None:
        assert set(look.init) == {*INITS, GIVEN}
        assert smallest_difference([look.init[each] for each in INITS]) > 60
        assert smallest_difference(list(look.init.values())) > 48

    def test_strategies_differ_for_every_vision(self, look: Theme) -> None:
        assert smallest_difference([style.colour for style in look.strategies.values()]) > 20

    def test_text_and_lines_stand_out(self, look: Theme) -> None:
        assert contrast(look.ink, look.background) > 12
        for colour in look.init_text.values():
            assert contrast(colour, look.background) >= 4.5
        for colour in [*look.init.values(), *(style.colour for style in look.strategies.values()), *look.neutral]:
            assert contrast(colour, look.background) >= 2.9

    def test_strategies_have_their_own_markers(self, look: Theme) -> None:
        assert set(look.strategies) == {*PAPER_STRATEGIES, *CONTROLS}
        assert len({style.marker for style in look.strategies.values()}) == len(PAPER_STRATEGIES) + len(CONTROLS)


def test_red_and_green_of_one_lightness_would_fail() -> None:
    assert smallest_difference(["#D04040", "#7A7A20"]) < 20


def test_initialisations_have_the_papers_hues() -> None:
    red, green, blue = to_rgb(LIGHT_THEME.init["random"])
    assert red > green > blue
    red, green, blue = to_rgb(LIGHT_THEME.init["teacher"])
    assert blue > green > red


def test_context_is_local_and_overrides_the_callers_settings() -> None:
    before = dict(mpl.rcParams)
    with mpl.rc_context({"font.size": 31, "axes.grid": True}):
        with context(LIGHT_THEME):
            assert mpl.rcParams["font.size"] < 10
            assert not mpl.rcParams["axes.grid"]
            assert mpl.rcParams["pdf.fonttype"] == 42
            assert mpl.rcParams["svg.fonttype"] == "none"
            assert (
                min(mpl.rcParams[key] for key in ("font.size", "axes.labelsize", "legend.fontsize")) >= SMALL_FONT_SIZE
            )
        assert mpl.rcParams["font.size"] == 31
    assert dict(mpl.rcParams) == before


def test_import_and_drawing_leave_the_backend_alone() -> None:
    code = (
        "import matplotlib as mpl\n"
        "assert mpl.get_backend(auto_select=False) is None\n"
        "settings = {k: mpl.rcParams[k] for k in mpl.rcParams if k != 'backend'}\n"
        "import anglekit.plots.registry\n"
        "from anglekit.plots.ground import new_figure\n"
        "from anglekit.plots.style import LIGHT_THEME, context\n"
        "with context(LIGHT_THEME):\n"
        "    new_figure(2, 2).savefig('/dev/null', format='png')\n"
        "assert mpl.get_backend(auto_select=False) is None\n"
        "assert settings == {k: mpl.rcParams[k] for k in mpl.rcParams if k != 'backend'}\n"
        "import matplotlib.pyplot as plt\n"
        "assert plt.get_fignums() == []\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "MPLBACKEND"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("end", "integer", "expected"),
    [
        (2.9, False, [0, 1, 2]),
        (0.8, False, [0, 0.2, 0.4, 0.6, 0.8]),
        (3, True, [0, 1, 2, 3]),
        (12, True, [0, 4, 8, 12]),
        (40, True, [0, 10, 20, 30, 40]),
        (80, True, [0, 20, 40, 60, 80]),
    ],
)
def test_ticks_are_at_numbers_that_are_easily_read(end: float, integer: bool, expected: list[float]) -> None:
    ticks = round_ticks(4, integer=integer).tick_values(0, end)
    assert [float(tick) for tick in ticks if tick <= end] == pytest.approx(expected)


def test_widths() -> None:
    assert figure_width("column") < figure_width("page")
    with pytest.raises(InputError, match=r"no figure width 'pages'; did you mean 'page'\? allowed: column, page"):
        figure_width("pages")


def test_new_figure_has_its_size() -> None:
    assert tuple(new_figure(3.0, 2.0).get_size_inches()) == (3.0, 2.0)
