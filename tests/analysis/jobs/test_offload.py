"""A teacher whose blocks stay in their files, run block after block, against the same teacher run whole."""

import json
from dataclasses import replace

import pytest
import torch

from anglekit.analysis.analyze import analyze
from anglekit.analysis.jobs import extract
from anglekit.analysis.jobs.extract import extract_states
from anglekit.analysis.jobs.job import save_analysis
from anglekit.analysis.settings import AnalysisSettings
from anglekit.errors import InputError
from anglekit.models.check import facts_of, know_facts
from anglekit.models.checkpoints import load_checkpoint
from anglekit.models.load_options import LoadOptions
from anglekit.models.stored.offloaded import OffloadedBlock
from anglekit.runtime.placement import Placement
from anglekit.states.block_by_block import run_block_by_block
from anglekit.states.store import StateStore
from anglekit_cli.main import main

BY_BLOCKS = LoadOptions(device="cpu", placement=Placement(offload="blocks"))
WHOLE = LoadOptions(device="cpu")
FEW = AnalysisSettings(token_budget=64, nulls="none", similarity="none")
DEPTH = 4


@pytest.fixture(scope="module")
def places(tmp_path_factory, save_tiny):
    place = tmp_path_factory.mktemp("offloaded")
    for family in ("bert", "t5", "qwen3"):
        save_tiny(place / family, family, depth=DEPTH)
        save_tiny(place / f"{family}-student", family, depth=2, seed=1)
    return place


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(extract, "SHARD_BYTES", 6_000)


@pytest.fixture
def reads(monkeypatch):
    """The names of the blocks that are read, in order."""
    found = []
    read = OffloadedBlock.read
    monkeypatch.setattr(OffloadedBlock, "read", lambda self: found.append(self.name) or read(self))
    return found


def shards_of(store: StateStore) -> list[bytes]:
    return [(store.directory / shard.file).read_bytes() for shard in store.document.shards]


@pytest.mark.parametrize("family", ["bert", "t5", "qwen3"])
def test_the_states_are_those_of_the_whole_model_and_each_block_is_read_once(
    family, places, probe, reads, tmp_path, monkeypatch
):
    directory = str(places / family)
    whole = extract_states(tmp_path / "whole", load_checkpoint(directory, WHOLE), probe, FEW, stored="int8")
    teacher = load_checkpoint(directory, BY_BLOCKS)
    assert teacher.sha256 == ""
    weights = dict(teacher.model.named_parameters())
    blocks = [name for name, weight in weights.items() if weight.is_meta]
    assert blocks
    assert not any(weight.is_meta for name, weight in weights.items() if "embed" in name or "shared" in name)
    assert facts_of(teacher.model) == facts_of(load_checkpoint(directory, WHOLE).model)
    assert not reads, "the check of a model reads none of them"

    store = extract_states(tmp_path / "store", teacher, probe, FEW, stored="int8")
    assert store.document == whole.document
    assert len(shards_of(store)) > 2
    assert shards_of(store) == shards_of(whole)
    assert reads == list(dict.fromkeys(reads)), "in order, each once"
    assert len(reads) == DEPTH * (2 if family == "t5" else 1)
    assert all(weight.is_meta for name, weight in teacher.model.named_parameters() if name in blocks)

    read = OffloadedBlock.read
    last = reads[-1]

    def other(self):
        return {
            name: (tensor * 1.01 if self.name == last else tensor, digest)
            for name, (tensor, digest) in read(self).items()
        }

    monkeypatch.setattr(OffloadedBlock, "read", other)
    wrong = extract_states(tmp_path / "wrong", teacher, probe, FEW, stored="int8")
    assert shards_of(wrong) != shards_of(whole), "control: other weights of the last block are seen"


def test_an_analysis_is_that_of_the_whole_teacher_and_leaves_no_states(places, probe, tmp_path):
    teacher, student = (str(places / name) for name in ("bert", "bert-student"))
    by_blocks, whole = (analyze(teacher, student, probe, options=each) for each in (BY_BLOCKS, WHOLE))
    for table in ("angles", "layers", "nulls", "examples"):
        assert getattr(by_blocks, table).equals(getattr(whole, table))
    assert by_blocks.provenance == whole.provenance

    loaded = load_checkpoint(teacher, BY_BLOCKS)
    job = (loaded, [load_checkpoint(student, WHOLE)], probe, FEW)
    saved = save_analysis(tmp_path / "geometry", *job, save_every=1)
    assert saved.angles.equals(analyze(teacher, student, probe, FEW, options=WHOLE).angles)
    assert not (tmp_path / "geometry.unfinished").exists()
    again = save_analysis(tmp_path / "geometry", *job, save_every=1)
    assert again.angles.equals(saved.angles), "a result that is there is taken for what it is"


def test_texts_that_hold_too_much_between_blocks_go_in_rounds_and_a_stopped_run_goes_on(
    places, probe, reads, tmp_path, monkeypatch
):
    directory = str(places / "bert")
    whole = extract_states(tmp_path / "whole", load_checkpoint(directory, WHOLE), probe, FEW)
    teacher = load_checkpoint(directory, BY_BLOCKS)
    monkeypatch.setattr(extract, "IN_FLIGHT_BYTES", 40_000)
    run, rounds = run_block_by_block, []

    def stopped(*args, **options):
        rounds.append(len(args[2]))
        if len(rounds) == 2:
            raise KeyboardInterrupt
        return run(*args, **options)

    monkeypatch.setattr(extract, "run_block_by_block", stopped)
    with pytest.raises(KeyboardInterrupt):
        extract_states(tmp_path / "store", teacher, probe, FEW)
    kept = {file.name for file in (tmp_path / "store.unfinished").glob("states-*")}
    assert kept
    assert not (tmp_path / "store").exists()
    store = extract_states(tmp_path / "store", teacher, probe, FEW)
    assert len(rounds) > 2
    assert sum(rounds[:1] + rounds[2:]) == sum(rounds) - rounds[1], "the first round is not computed again"
    assert len(reads) == DEPTH * (len(rounds) - 1)
    assert store.document == whole.document
    assert shards_of(store) == shards_of(whole)
    before = len(rounds)
    assert extract_states(tmp_path / "store", teacher, probe, FEW).document == whole.document
    assert len(rounds) == before, "the store that is there is returned"


def test_an_unfinished_store_of_other_weights_is_refused(places, probe, save_tiny, tmp_path, monkeypatch):
    save_tiny(tmp_path / "model", "bert", depth=DEPTH)
    monkeypatch.setattr(extract, "run_block_by_block", lambda *_args, **_options: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        extract_states(tmp_path / "store", load_checkpoint(str(tmp_path / "model"), BY_BLOCKS), probe, FEW)
    save_tiny(tmp_path / "model", "bert", depth=DEPTH, seed=5)
    with pytest.raises(InputError, match="unfinished store of other weights;"):
        extract_states(tmp_path / "store", load_checkpoint(str(tmp_path / "model"), BY_BLOCKS), probe, FEW)


def test_blocks_that_run_in_another_order_or_again_are_read_as_they_come(places, reads, monkeypatch):
    """Of whichever order a model calls its blocks in, a pass is that of the whole model."""
    directory = str(places / "bert")
    ids = torch.arange(5, 17).view(2, 6)
    models = [load_checkpoint(directory, each).model for each in (BY_BLOCKS, WHOLE)]
    for model in models:
        # Block 1 hands on to block 3, which so runs before block 2 and again behind it.
        layers = model.encoder.layer
        monkeypatch.setattr(layers[1], "forward", lambda *args, last=layers[3], **more: last(*args, **more))
    found = {}
    with torch.inference_mode():
        run_block_by_block(
            models[0],
            ["encoder"],
            [lambda row=row: found.update({row: models[0](ids[row : row + 1]).last_hidden_state}) for row in range(2)],
        )
        expected = models[1](ids).last_hidden_state
    torch.testing.assert_close(torch.cat([found[0], found[1]]), expected)
    assert [name[-1] for name in reads if name[-1] in "3"] == ["3", "3"]


def test_an_error_in_a_pass_is_raised_and_leaves_the_model_as_it_was(places):
    model = load_checkpoint(str(places / "bert"), BY_BLOCKS).model
    ids = torch.arange(5, 17).view(2, 6)
    before = model(ids).last_hidden_state
    ended = []

    def waits():
        try:
            model(ids)
        finally:
            ended.append("let go")

    def fails():
        model(ids)
        raise InputError("it failed")

    with pytest.raises(InputError, match="it failed"):
        run_block_by_block(model, ["encoder"], [fails, waits, waits], lanes=2)
    assert ended == ["let go", "let go"]
    assert torch.equal(model(ids).last_hidden_state, before)
    assert not model.encoder.layer[0]._forward_pre_hooks


def test_what_blocks_in_files_do_not_go_with_is_said_in_one_line(places, probe, tmp_path, capsys, monkeypatch):
    for other in ({"device_map": "auto"}, {"max_memory": "cpu=1GB"}):
        with pytest.raises(InputError):
            Placement(offload="blocks", **other)
    with pytest.raises(InputError, match="did you mean 'blocks'"):
        Placement(offload="block")
    teacher = load_checkpoint(str(places / "bert"), BY_BLOCKS)
    student = load_checkpoint(str(places / "bert-student"), WHOLE)
    with pytest.raises(InputError, match="official reading"):
        analyze(teacher, student, probe, AnalysisSettings(reading="official", pad_to=32))
    (tmp_path / "probe.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in probe.texts))
    command = [str(places / "bert"), str(places / "bert-student"), "--probe", str(tmp_path / "probe.jsonl")]
    for asked, said in (
        (("--shard", "1/2"), "--offload blocks reads each weight once, and the texts are shared"),
        (("--reading", "official"), "--offload blocks keeps the states of the texts' own tokens"),
    ):
        given = ["--out", str(tmp_path / "g"), "--offload", "blocks", *asked]
        monkeypatch.setattr("sys.argv", ["anglekit", "analyze", *command, *given])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 2
        assert said in capsys.readouterr().err
        assert not (tmp_path / "g").exists()


def test_a_model_that_changes_in_a_pass_is_refused(places, probe, tmp_path):
    teacher = load_checkpoint(str(places / "bert"), BY_BLOCKS)
    know_facts(teacher.model, replace(facts_of(teacher.model), restless="modes"))
    with pytest.raises(InputError, match="a bert changes itself in a pass"):
        extract_states(tmp_path / "store", teacher, probe, FEW)
