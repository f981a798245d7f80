"""The table of model types: read, written, asked for; and what the streams of a configuration are taken from."""

from dataclasses import replace

import pytest
import transformers

from anglekit.errors import InputError
from anglekit.models.architectures import model_streams
from anglekit.models.supported import (
    COLUMNS,
    TABLE,
    census_versions,
    read_table,
    supported_type,
    supported_types,
    table_text,
)


def test_the_shipped_table_is_read_as_it_was_written():
    text = TABLE.read_text(encoding="utf-8")
    versions, types = read_table(text)
    assert table_text(versions, types) == text
    assert versions == census_versions()
    assert versions.startswith("transformers 5.")
    assert list(types) == sorted(types)
    assert len(types) > 300


def test_what_is_given_by_stream_is_given_for_each_stream():
    for name, found in supported_types().items():
        assert len(found.final_norm) == len(found.last_hidden_state) == len(found.blocks), name
        assert set(found.streams) <= {"encoder", "decoder"}
        assert not found.streams or len(found.streams) == len(found.blocks)


def test_cells_with_marks_of_the_format_come_back():
    odd = replace(supported_type("bert"), notes='one, "two"; three', blocks=("encoder.layer",))
    assert read_table(table_text("v", {"bert": odd}))[1] == {"bert": odd}
    assert tuple(odd.row()) == COLUMNS


def test_an_unknown_type_is_refused_with_the_nearest_names():
    with pytest.raises(InputError, match=r"nearest: .*qwen3") as refusal:
        supported_type("qwen-3")
    assert census_versions() in str(refusal.value)
    with pytest.raises(InputError) as refusal:
        supported_type("?" * 5000)
    assert "nearest" not in str(refusal.value)


@pytest.mark.parametrize(
    ("kind", "streams"),
    [
        # causal, though transformers has no causal language model of the type
        ("qwen2_vl_text", ("decoder",)),
        ("qwen3_vl_text", ("decoder",)),
        ("mistral4", ("decoder",)),
        # not causal, though transformers has a causal language model and no masked one
        ("xlnet", ("encoder",)),
        ("bert-generation", ("encoder",)),
        ("bert", ("encoder",)),
        ("gpt2", ("decoder",)),
        ("t5", ("encoder", "decoder")),
    ],
)
def test_streams_are_those_that_the_census_found(kind, streams):
    assert model_streams(transformers.AutoConfig.for_model(kind)) == streams


def test_a_configuration_may_say_otherwise_than_its_type():
    gemma = transformers.Gemma3TextConfig
    assert model_streams(gemma()) == ("decoder",)
    assert model_streams(gemma(use_bidirectional_attention=True)) == ("encoder",)
    assert model_streams(transformers.BertConfig(is_decoder=True)) == ("decoder",)
    # The encoder of an encoder-decoder alone: the table knows two streams, the configuration one.
    assert model_streams(transformers.T5Config(is_encoder_decoder=False)) == ("encoder",)


def test_a_type_that_the_census_does_not_know_goes_by_its_language_models():
    class OwnConfig(transformers.PretrainedConfig):
        model_type = "census_does_not_know_this"

    assert model_streams(OwnConfig()) == ("encoder",)
