"""Errors reach the other processes of a launch with their fields."""

from __future__ import annotations

import json

import pytest

from anglekit.errors import AnglekitError, InputError, RunError
from anglekit.runtime.processes import ALONE, Processes
from anglekit.settings_fields import SettingError


def together_after(monkeypatch, error: Exception) -> AnglekitError:
    """Return what the second process raises where the first one failed."""

    def gathered(_self: Processes, own: object) -> list[object]:
        with pytest.MonkeyPatch.context() as patch:
            sent: list[object] = []
            patch.setattr(Processes, "gather", lambda _self, value: sent.append(value) or [None, None])
            with pytest.raises(type(error)), Processes(0, 2).together():
                raise error
        return [json.loads(json.dumps(sent[0])), own]

    monkeypatch.setattr(Processes, "gather", gathered)
    with pytest.raises(AnglekitError) as raised, Processes(1, 2).together():
        pass
    return raised.value


@pytest.mark.parametrize(
    "error",
    [
        InputError("x.csv has no column 'a'", "name another", allowed="b, c", setting="text"),
        InputError("a; b", "c; d"),
        SettingError("seed", "is -1", "give 0 or more", allowed="0 to 9", name="--seed"),
        RunError("the disk is full; make room"),
    ],
)
def test_an_error_of_ours_is_the_same_in_every_process(monkeypatch, error):
    found = together_after(monkeypatch, error)
    assert type(found) is type(error)
    assert (str(found), vars(found)) == (str(error), vars(error))


def test_another_error_names_its_process(monkeypatch):
    found = together_after(monkeypatch, KeyError("x"))
    assert (type(found), str(found)) == (RunError, "process 0 failed with KeyError: 'x'")


def test_a_process_alone_raises_what_was_raised():
    with pytest.raises(KeyError), ALONE.together():
        raise KeyError("x")
