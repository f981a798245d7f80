"""Input that was once read, or ended in an error of another kind: each is refused in one line. Limits are low here."""

from __future__ import annotations

import json
import shutil
import struct

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

from anglekit.comparison.evidence import read_evidence
from anglekit.distillation.runs.directory import RunDirectory
from anglekit.distillation.sweep.directory import SweepDirectory
from anglekit.distillation.tasks.text_columns import text_lists, texts_of
from anglekit.errors import InputError, foreign_failures, suggest
from anglekit.models import checkpoint_files
from anglekit.models.checkpoint_files import check_counts
from anglekit.models.checkpoints import load_checkpoint
from anglekit.models.projections import load_adapters
from anglekit.results import files as results_files
from anglekit.results.columns import COLUMNS
from anglekit.results.geometry import Geometry
from anglekit.results.training_records import log_of_line
from anglekit.runtime.files import MOST_JSON_BYTES
from anglekit.tables import kept_rows
from anglekit.tables.read import Table, read_table
from anglekit.vocabulary import STUDENT_FILE
from tests.comparison.compare_corpus import write_run
from tests.fuzz.damaged_geometries import documented
from tests.fuzz.mutations import MOST_DEEP
from tests.plots.full_geometry import full_geometry


@pytest.fixture
def bert(save_tiny, tmp_path):
    return save_tiny(tmp_path / "bert", "bert", depth=2)


@pytest.fixture
def saved(tmp_path):
    return documented(full_geometry(("none", "forward"), ("random",))).save(tmp_path / "geometry")


def edit(file, **entries):
    file.write_text(json.dumps({**json.loads(file.read_text()), **entries}))


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"transformers_weights": "other.safetensors"}, "names the weights 'other.safetensors'"),
        ({"attn_implementation": "own/kernel"}, "asks for a kernel of the hub"),
        ({"text_config": {"auto_map": {}}}, "brings its own code"),
        ({"num_hidden_layers": 200}, "says num_hidden_layers is 200"),
        ({"num_hidden_layers": -1}, "says num_hidden_layers is -1; allowed: 0 or more"),
        ({"num_labels": 200}, "says num_labels is 200"),
        ({"num_hidden_layers": 60}, "far larger than the 39 weights"),
        ({"hidden_size": 2048}, "far larger than the 6,192 values"),
        ({"layer_norm_eps": "x"}, "cannot load"),
    ],
)
def test_configurations(bert, entries, message):
    edit(bert / "config.json", **entries)
    with pytest.raises(InputError, match=message):
        load_checkpoint(str(bert))


@pytest.mark.parametrize(
    "name", ["../outside.safetensors", "/x/outside.safetensors", "weights.bin", "a\\b.safetensors"]
)
def test_an_index_names_files_beside_it_alone(bert, name):
    shutil.move(bert / "model.safetensors", bert.parent / "outside.safetensors")
    (bert / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": {"w": name}}))
    with pytest.raises(InputError, match="only safetensors files beside it are read"):
        load_checkpoint(str(bert))


def test_a_tokenizer_brings_no_code(bert):
    edit(bert / "tokenizer_config.json", auto_map={"AutoTokenizer": ["own.Own", None]})
    with pytest.raises(InputError, match=r"brings its own code \(auto_map in tokenizer_config.json\)"):
        load_checkpoint(str(bert))


def test_a_correction_has_the_rank_of_a_stored_matrix(bert):
    (bert / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 1000}')
    with pytest.raises(InputError, match="says r is 1000"):
        load_checkpoint(str(bert))


def test_a_students_note_says_text_and_numbers(bert):
    (bert / STUDENT_FILE).write_text('{"seed": [1]}')
    with pytest.raises(InputError, match="seed: expected int"):
        load_checkpoint(str(bert))


def test_an_adapters_layer_is_a_number_that_layers_have(tmp_path):
    save_file({f"encoder.{'1' * 5000}.weight": torch.ones(2, 2)}, tmp_path / "anglekit_adapters.safetensors")
    with pytest.raises(InputError, match="expected names such as"):
        load_adapters(tmp_path)


def test_counts_of_a_recipe():
    with pytest.raises(InputError, match=r"x says encoder_layers is 200.*correct it"):
        check_counts("x", {"encoder_layers": 200}, "correct it")


@pytest.mark.parametrize(
    ("table", "column", "value", "message"),
    [
        ("histograms", "bin", 1000, "bin 1000"),
        ("histograms", "count", -1, "count -1"),
        ("angles", "teacher_k", 10**9, "teacher_k 1000000000"),
        ("angles", "mean_cosine", 57.0, "mean_cosine 57"),
        ("angles", "mean_angle_degrees", np.inf, "mean_angle_degrees inf"),
        ("angles", "student", "x", "student 'x'"),
        ("layers", "stream", "x", "stream 'x'"),
        ("angles", "n_tokens", "many", "the column 'n_tokens' is"),
    ],
)
def test_tables_hold_what_an_analysis_writes(saved, table, column, value, message):
    file = saved / f"{table}.parquet"
    frame = pd.read_parquet(file)
    if frame.empty:
        names = {"student": "none-random-seed0", "stream": "encoder"}
        frame = pd.DataFrame([{name: names.get(name, 0) for name in COLUMNS[table]}])
    frame[column] = value
    frame.to_parquet(file, index=False)
    with pytest.raises(InputError, match=f"is damaged .{message}"):
        Geometry.load(saved)


def test_rows_that_come_twice_are_refused(saved):
    file = saved / "angles.parquet"
    frame = pd.read_parquet(file)
    pd.concat([frame, frame]).to_parquet(file, index=False)
    with pytest.raises(InputError, match="two rows for"):
        Geometry.load(saved)


def test_an_official_histogram_lies_in_its_directory(saved):
    document = json.loads((saved / "geometry.json").read_text())
    document["settings"]["reading"] = "official"
    document["provenance"]["students"][0]["name"] = "../../x"
    (saved / "geometry.json").write_text(json.dumps(document))
    with pytest.raises(InputError, match="the students lack proper names"):
        Geometry.load(saved)


@pytest.mark.parametrize(
    ("part", "value", "wrong"),
    [
        ("projections", [{"vertex": 0}], r"projections\[0\]: missing required field student"),
        ("counts", {"by_student": {"x": {"encoder": {}}}}, r"counts.by_student\[...\]\[...\]: missing required field"),
        ("counts", {"examples": 10**30}, "counts.examples: expected int <= "),
        ("sketch_tokens", [{"student": "x", "points": 3}], r"sketch_tokens\[0\].points: expected array"),
    ],
)
def test_a_document_has_the_form_that_is_read(saved, part, value, wrong):
    edit(saved / "geometry.json", **{part: value})
    with pytest.raises(InputError, match=f"geometry.json is damaged .{wrong}"):
        Geometry.load(saved)


def test_cells_that_begin_with_many_brackets_are_text():
    table = Table("x", pd.DataFrame({"c": ["[" * 3_000]}, dtype=object), "0")
    assert text_lists(table, "c", "target") == (("[" * 3_000,),)


@pytest.mark.parametrize(("text", "message"), [("\ud800", "half of a surrogate"), ("x" * 1_000_001, "1,000,001 char")])
def test_texts_for_training_can_be_tokenised(text, message):
    table = Table("x", pd.DataFrame({"c": [text]}, dtype=object), "0")
    for read in (texts_of, text_lists):
        with pytest.raises(InputError, match=message):
            read(table, "c", "target")


def test_rows_of_json_share_their_keys(tmp_path, monkeypatch):
    monkeypatch.setattr(kept_rows, "_MORE_PLACES", 1000)
    file = tmp_path / "x.jsonl"
    file.write_text("\n".join(json.dumps({f"k{row}.{n}": 1 for n in range(3)}) for row in range(100)))
    with pytest.raises(InputError, match="nearly every row others"):
        read_table(str(file))


def test_a_message_is_one_printable_line():
    error = InputError("a\nb \x1b[2J \ud800 " + "x" * 10_000 + " do this")
    assert str(error).isprintable()
    assert len(str(error)) < 2100
    assert str(error).startswith("a b \\x1b[2J \\ud800 ")
    assert str(error).endswith("do this")
    assert len(suggest("x" * 10**6, map(str, range(10**6)))) < 1000


def test_a_panic_of_an_extension_is_refused_and_an_interrupt_is_not():
    class PanicException(BaseException):
        """What a Rust extension raises: no Exception."""

    def refused(reason: str) -> InputError:
        return InputError(reason, "do this")

    with pytest.raises(InputError, match="index out of range; do this"), foreign_failures(refused):
        raise PanicException("index\nout of range")
    with pytest.raises(KeyboardInterrupt), foreign_failures(refused):
        raise KeyboardInterrupt


@pytest.mark.parametrize("scores", [3, [3], [{"accuracy": [1]}]])
def test_stored_scores_are_rows_of_numbers(tmp_path, scores):
    content = {"scores": scores, "steps": 1, "selected_step": 1, "train_seconds": 1.0}
    (tmp_path / "scores.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"scores\.json is damaged \(scores"):
        RunDirectory(tmp_path, "resume", writes=False).scores()


@pytest.mark.parametrize("seed", [float("inf"), "1", None, [1]])
def test_a_runs_seed_is_a_whole_number(tmp_path, seed):
    run = write_run(tmp_path / "forward", "forward", 0.5)
    edit(run / "checkpoint" / STUDENT_FILE, seed=seed)
    with pytest.raises(InputError, match=r"anglekit_student.json is damaged \(seed: |is not the run of a distilled"):
        read_evidence([run])


@pytest.mark.parametrize("arms", [None, [3], [{"strategy": "none", "init": "random", "name": "../x", "seed": 0}]])
def test_stored_arms_are_directories_of_the_sweep(tmp_path, arms):
    content = {"format": "anglekit-sweep-1", "arms": arms, "student": {}, "data": {}}
    (tmp_path / "sweep.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"sweep\.json(: no arm is called| is damaged \(arms)"):
        SweepDirectory(tmp_path, "resume")


@pytest.mark.parametrize("line", ["{", "3", '{"step": "x"}', "[" * 3_000])
def test_lines_that_are_no_log_are_dropped(line):
    assert log_of_line(line) is None
    assert log_of_line('{"step": 3}') == {"step": 3}


@pytest.mark.parametrize("content", [b"", b"PAR1", b"text" * 10])
def test_what_is_no_parquet_is_refused(tmp_path, content):
    file = tmp_path / "x.parquet"
    file.write_bytes(content)
    with pytest.raises(InputError, match=r"x\.parquet is not a readable parquet file"):
        read_table(str(file))


def test_files_that_are_larger_than_any_of_their_kind_are_not_read(bert, monkeypatch):
    monkeypatch.setattr(checkpoint_files, "_MOST_TOKENIZER_BYTES", 100)
    with pytest.raises(InputError, match=r"tokenizer\.json is larger than"):
        load_checkpoint(str(bert))
    monkeypatch.undo()
    with (bert / "config.json").open("a") as file:
        file.write(" " * MOST_JSON_BYTES)
    with pytest.raises(InputError, match="it is larger than 8 MiB"):
        load_checkpoint(str(bert))


def test_a_document_that_is_nested_deeply_is_refused(saved):
    (saved / "geometry.json").write_text('{"a":' * MOST_DEEP + "1" + "}" * MOST_DEEP)
    with pytest.raises(InputError, match=r"geometry\.json is not readable json"):
        Geometry.load(saved)


def test_an_index_of_very_many_files_is_refused(save_tiny, tmp_path, monkeypatch):
    sharded = save_tiny(tmp_path / "sharded", "bert", depth=2, save_options={"max_shard_size": "10KB"})
    load_checkpoint(str(sharded))
    monkeypatch.setattr(checkpoint_files, "_MOST_FILES", 1)
    with pytest.raises(InputError, match="at most 1 are read"):
        load_checkpoint(str(sharded))


@pytest.mark.parametrize("shape", [[4, 5], [400, 500]])
def test_weights_that_claim_more_than_their_file_holds_are_refused(bert, shape):
    header = json.dumps({"w": {"dtype": "F32", "shape": shape, "data_offsets": [0, 4 * shape[0] * shape[1]]}}).encode()
    (bert / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(64))
    with pytest.raises(InputError, match=r"cannot load .*model\.safetensors"):
        load_checkpoint(str(bert))


def test_a_table_of_far_more_rows_than_its_bytes_hold_is_refused(saved, monkeypatch):
    monkeypatch.setattr(results_files, "_ROWS_PER_BYTE", 0)
    monkeypatch.setattr(results_files, "_MORE_ROWS", 2)
    with pytest.raises(InputError, match=r"angles\.parquet is damaged \(it claims [\d,]+ rows\)"):
        Geometry.load(saved)


def test_names_in_a_table_are_short(saved):
    file = saved / "angles.parquet"
    frame = pd.read_parquet(file)
    frame.assign(student="x" * 301).to_parquet(file, index=False)
    with pytest.raises(InputError, match="has names of more than 300 characters"):
        Geometry.load(saved)
