"""The gallery shows every figure, and its saved numbers are those that the saved results give today."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pandas as pd
import pytest
from pandas.testing import assert_frame_equal

from anglekit.plots.registry import FIGURES
from anglekit_cli.main import main

ROOT = Path(__file__).resolve().parents[1]
_SPEC = importlib.util.spec_from_file_location("gallery", ROOT / "figures" / "draw.py")
assert _SPEC is not None
gallery = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(gallery)


def test_every_figure_is_in_the_gallery():
    assert set(gallery.GALLERY) == set(FIGURES)
    for name in gallery.GALLERY:
        assert (ROOT / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_the_page_shows_todays_commands_and_readings():
    assert (ROOT / "figures" / "README.md").read_text(encoding="utf-8") == gallery.page()


@pytest.mark.parametrize("name", list(gallery.GALLERY))
def test_the_numbers_are_those_of_the_saved_results(name, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    target = tmp_path / "numbers.csv"
    monkeypatch.setattr(sys, "argv", ["anglekit", *gallery.arguments(name, "--numbers", str(target))])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 0
    drawn = pd.read_csv(ROOT / "figures" / f"{name}.csv")
    assert_frame_equal(pd.read_csv(target), drawn, rtol=1e-6, atol=1e-9)
    number = drawn.select_dtypes("number").dropna(axis=1, how="all").columns[-1]
    with pytest.raises(AssertionError):
        assert_frame_equal(pd.read_csv(target), drawn.assign(**{number: drawn[number] + 1}), rtol=1e-6, atol=1e-9)
