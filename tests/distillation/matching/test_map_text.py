"""Maps as a person types them."""

import pytest

from anglekit.distillation.matching.map_text import check_form, parse_copy_map, parse_layer_map
from anglekit.errors import InputError

ONE, TWO = ("decoder",), ("encoder", "decoder")


def test_one_stream_needs_no_name():
    assert parse_layer_map("1:4, 2:8,3:12", ONE) == {"decoder": ((1, 4), (2, 8), (3, 12))}
    assert parse_layer_map("decoder=0:0", ONE) == {"decoder": ((0, 0),)}
    assert parse_copy_map("0,6, 11", ONE) == {"decoder": (0, 6, 11)}


def test_two_streams_are_named_in_any_order_and_may_be_left_out():
    assert parse_layer_map("decoder=1:2;encoder=1:4,2:8", TWO) == {"decoder": ((1, 2),), "encoder": ((1, 4), (2, 8))}
    assert parse_copy_map(" encoder = 0,6", TWO) == {"encoder": (0, 6)}


@pytest.mark.parametrize(
    ("text", "streams", "message"),
    [
        ("1:4", TWO, "names no stream"),
        ("encoder=1:4;1:2", TWO, "names no stream"),
        ("encode=1:4", TWO, "did you mean 'encoder'"),
        ("encoder=1:4", ONE, "allowed: decoder"),
        ("encoder=1:4;encoder=2:8", TWO, "encoder twice"),
        ("1:4;2:8", ONE, "decoder twice"),
        ("1-4", ONE, "cannot read the map '1-4'"),
        ("1:4:5", ONE, "cannot read"),
        ("1:4,,2:8", ONE, "cannot read"),
        ("", ONE, "cannot read"),
        ("a:b", ONE, "STUDENT:TEACHER"),
    ],
)
def test_wrong_maps_are_named(text, streams, message):
    with pytest.raises(InputError, match=message):
        parse_layer_map(text, streams)


def test_wrong_copy_maps_are_named():
    with pytest.raises(InputError, match="blocks counted from 0"):
        parse_copy_map("1:4", ONE)


def test_a_map_of_another_form_is_refused_before_its_teacher_is_known() -> None:
    check_form("encoder=1:4;decoder=1:6", "0,3")
    check_form(None, None)
    for layer_map, copy_map in (("1-2", None), ("encoder=1:2;decoder=1", None), (None, "0,x")):
        with pytest.raises(InputError, match="cannot read the map"):
            check_form(layer_map, copy_map)
