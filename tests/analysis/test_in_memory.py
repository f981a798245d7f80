"""What a program holds in memory, analysed: models, texts, loaders, and models that transformers does not know."""

from __future__ import annotations

import copy

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure
from torch import nn
from torch.utils.data import DataLoader

import anglekit
from anglekit.errors import InputError
from anglekit.probes.in_memory import probe_in_memory
from anglekit.report.gather import gather

FAMILIES = ("bert", "t5", "qwen3")
TEXTS = ["the film was good", "a dull plot and a very bad ending", "we saw it"]
TARGETS = ["good film", "bad", "the cast was good"]


class Block(nn.Module):
    """A block of a model that is nobody's: a token sees those before it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, width)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        return states + torch.tanh(self.linear(states + states.cumsum(1) / 4))


class OwnModel(nn.Module):
    """Takes tokens alone, by position, and gives logits."""

    def __init__(self, depth: int, vocabulary: int = 24, width: int = 16) -> None:
        super().__init__()
        self.table = nn.Embedding(vocabulary, width)
        self.trunk = nn.ModuleDict({"blocks": nn.ModuleList(Block(width) for _ in range(depth))})
        self.head = nn.Linear(width, vocabulary)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        states = self.table(tokens)
        for block in self.trunk["blocks"]:
            states = block(states)
        return self.head(states)


class TorchEncoder(nn.Module):
    """An embedding under torch's own encoder, which packs padded texts when it evaluates."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.table = nn.Embedding(24, 16)
        self.encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 2, 32, batch_first=True), depth)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None) -> torch.Tensor:
        padding = None if attention_mask is None else attention_mask == 0
        return self.encoder(self.table(input_ids), src_key_padding_mask=padding)

    def states(self, ids: list[int]) -> torch.Tensor:
        """Return the states of one text, layer after layer: (layers, tokens, width)."""
        layers = [self.table(torch.tensor([ids]))]
        for block in self.encoder.layers:
            layers.append(block(layers[-1]))
        return torch.cat(layers).detach()


@pytest.fixture(scope="module", params=FAMILIES)
def pair(request, tiny_model, tiny_tokenizer):
    """A family, a teacher with its head in training mode, a student, their tokenizer, and the decoder's texts."""
    family = request.param
    teacher = tiny_model(family, seed=1, head=True).train()
    targets = TARGETS if family == "t5" else None
    return family, teacher, tiny_model(family, seed=2, depth=2), tiny_tokenizer(), targets


def tables_of(geometry):
    """Return the tables without the student's name."""
    return [getattr(geometry, table).drop(columns="student") for table in ("angles", "layers", "nulls", "examples")]


def assert_equal_tables(one, other):
    for mine, theirs in zip(tables_of(one), tables_of(other), strict=True):
        pd.testing.assert_frame_equal(mine, theirs, check_exact=True)


def test_models_and_texts_in_memory_give_what_their_directories_give(pair, save_tiny, tmp_path):
    _, teacher, student, tok, targets = pair
    places = [save_tiny(tmp_path / name, each) for name, each in (("large", teacher), ("small", student))]
    modes = [module.training for module in teacher.modules()]
    hooks = [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in teacher.modules()]

    found = anglekit.analyze(teacher, student, TEXTS, tokenizer=tok, targets=targets)

    assert [module.training for module in teacher.modules()] == modes
    assert any(modes)
    assert hooks == [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in teacher.modules()]
    assert all(weight.requires_grad and weight.grad is None for weight in teacher.parameters())
    assert "in memory" in found.provenance["teacher"]["source"]
    assert found.students == ["student"]
    stored = anglekit.analyze(places[0], {"mine": places[1]}, TEXTS, targets=targets)
    assert stored.students == ["mine"]
    assert_equal_tables(found, stored)
    mixed = anglekit.analyze(anglekit.Checkpoint.of(teacher, tok), [places[1]], TEXTS, targets=targets)
    assert_equal_tables(mixed, stored)
    assert mixed.provenance["students"][0]["sha256"] == found.provenance["students"][0]["sha256"]


def test_a_loader_of_model_inputs_gives_what_its_texts_give(pair):
    family, teacher, student, tok, targets = pair
    side = "left" if family == "qwen3" else "right"
    rows = [dict(tok(text)) for text in TEXTS]
    if family == "t5":
        rows = [{**row, "labels": tok(target)["input_ids"]} for row, target in zip(rows, TARGETS, strict=True)]
    length = 16

    def padded(batch):
        put = torch.full((len(batch), length), 0), torch.zeros(len(batch), length, dtype=torch.int64)
        for number, row in enumerate(batch):
            n = len(row["input_ids"])
            at = slice(0, n) if side == "right" else slice(length - n, length)
            put[0][number, at], put[1][number, at] = torch.tensor(row["input_ids"]), 1
        given = {"input_ids": put[0], "attention_mask": put[1]}
        if family == "t5":
            labels = [row["labels"] + [-100] * (length - len(row["labels"])) for row in batch]
            given["labels"] = torch.tensor(labels)
        return given

    loader = DataLoader(rows, batch_size=2, collate_fn=padded)
    expected = anglekit.analyze(teacher, student, TEXTS, tokenizer=tok, targets=targets)

    assert_equal_tables(anglekit.analyze(teacher, student, loader, tokenizer=tok), expected)
    if side == "left":  # unpadded, and without a tokenizer: which tokens are special is not known
        alone = anglekit.analyze(teacher, student, rows)
        pd.testing.assert_frame_equal(alone.angles, expected.angles, check_exact=True)
        assert set(alone.anisotropy["tokens"]) == {"all", "content"}


def test_the_kinds_of_texts_in_memory_are_one_probe():
    frame = pd.DataFrame({"text": [*TEXTS, None], "target": [*TARGETS, "a"]})
    plain = probe_in_memory(TEXTS)
    assert probe_in_memory(frame["text"]).texts == probe_in_memory(text for text in TEXTS).texts == plain.texts
    table = probe_in_memory(frame)
    assert (table.texts, table.targets, table.skipped_rows) == (tuple(TEXTS), tuple(TARGETS), 1)
    pairs = probe_in_memory(list(zip(TEXTS, TARGETS, strict=True)))
    assert (pairs.texts, pairs.text_pairs) == (tuple(TEXTS), tuple(TARGETS))
    assert plain.sha256 != pairs.sha256
    assert len(repr(plain)) < 100


@pytest.mark.parametrize(("family", "named"), [("bert", "encoder.layer"), ("qwen3", "layers")])
def test_named_blocks_give_what_the_library_s_own_give(tiny_model, tiny_tokenizer, family, named):
    tok, teacher, student = tiny_tokenizer(), tiny_model(family, seed=1), tiny_model(family, seed=2, depth=2)
    expected = anglekit.analyze(teacher, student, TEXTS, tokenizer=tok)

    blocks = [teacher.get_submodule(f"{named}.{number}") for number in range(3)]
    foreign = [
        anglekit.Checkpoint.of(copy.deepcopy(teacher), tok, blocks=[f"{named}.{number}" for number in range(3)]),
        anglekit.Checkpoint.of(student, tok, blocks=named),
    ]

    assert foreign[0].sha256 == anglekit.Checkpoint.of(teacher, blocks=blocks).sha256
    assert_equal_tables(anglekit.analyze(foreign[0], foreign[1], TEXTS), expected)


def test_a_model_of_one_s_own_is_read_by_its_blocks(tiny_tokenizer):
    torch.manual_seed(0)
    teacher, student = OwnModel(4).train(), OwnModel(2)
    ids = torch.tensor([[5, 6, 7, 8]])

    seen = anglekit.Checkpoint.of(teacher, tiny_tokenizer(), blocks="trunk.blocks")
    geometry = anglekit.analyze(seen, anglekit.Checkpoint.of(student, blocks="trunk.blocks"), TEXTS)

    assert teacher.training
    assert repr(seen) == "<Checkpoint OwnModel: OwnModel, 4 blocks of decoder, 16 wide, float32 on cpu>"
    assert geometry.provenance["teacher"]["architecture"] == "OwnModel"
    assert set(geometry.angles["teacher_k"]) == {1, 2, 3, 4}
    expected = float(teacher.table(ids).detach().norm(dim=-1).mean())
    embedded = anglekit.analyze(seen, anglekit.Checkpoint.of(student, blocks="trunk.blocks"), {"input_ids": ids})
    norm = embedded.layers.query("side_a == 'teacher' and layer_a == 0 and side_b == 'teacher' and layer_b == 0")
    assert float(norm["mean_norm"].iloc[0]) == pytest.approx(expected, abs=1e-6)


def test_torch_s_own_encoder_hands_on_padded_states(tiny_tokenizer):
    torch.manual_seed(0)
    tok, models = tiny_tokenizer(), [TorchEncoder(3).eval(), TorchEncoder(2).eval()]
    fast = torch.backends.mha.get_fastpath_enabled()

    found = anglekit.analyze(*(anglekit.Checkpoint.of(each, tok, blocks="encoder.layers") for each in models), TEXTS)

    assert torch.backends.mha.get_fastpath_enabled() == fast
    acc = anglekit.GeometryAccumulator(4, 3, 16)
    for number, text in enumerate(TEXTS):
        ids = tok(text)["input_ids"]
        acc.update(*(each.states(ids) for each in models), np.full(len(ids), number))
    expected = acc.compute().angles
    assert set(found.angles.pop("student")) == {"TorchEncoder"}
    pd.testing.assert_frame_equal(found.angles, expected.drop(columns="student"), rtol=1e-4, atol=1e-5)


def test_what_cannot_be_analysed_in_memory_is_refused_in_a_line(tiny_model, tiny_tokenizer, monkeypatch):
    tok, teacher, student = tiny_tokenizer(), tiny_model("bert", seed=1), tiny_model("bert", seed=2, depth=2)
    sharing = copy.deepcopy(student)
    sharing.embeddings = teacher.embeddings
    own = OwnModel(2)
    monkeypatch.setattr(nn.Module, "__call__", lambda *_args, **_options: pytest.fail("a model ran"))
    ids = torch.tensor([[4, 5, 6], [4, 5, 5]])
    cases = [
        (teacher, [], TEXTS, "no student"),
        (teacher, 3, TEXTS, "int is no student"),
        (teacher, [student, 3], TEXTS, "student 2 is a int"),
        (teacher, {"a/b": student}, TEXTS, "no name of a student"),
        (teacher, teacher, TEXTS, "the teacher and the student share a module"),
        (teacher, {"mine": sharing}, TEXTS, r"the teacher and student mine share a module \(embeddings"),
        (teacher, "nowhere/at/all", TEXTS, "no such directory"),
        (teacher, student, [], "is empty"),
        (teacher, student, 3, "int is no probe"),
        (teacher, student, [3], "holds int, not a text"),
        (teacher, student, [("a", 3)], "not two texts"),
        (teacher, student, "one text", "one string.*give texts as a list"),
        (teacher, student, ["", " "], "all 2 are blank"),
        (teacher, student, ids, 'Tensor of torch.int64.*{"input_ids": ids}'),
        (teacher, student, [{"pixel_values": ids}], "no input_ids but pixel_values"),
        (teacher, student, DataLoader([ids, ids]), "item 0 of the probe holds Tensor"),
        (teacher, student, [{"input_ids": ids.float()}], "float32"),
        (teacher, student, [{"input_ids": [4, 5, 0]}], "token 0 at the end of a row may be padding"),
        (teacher, student, [{"input_ids": ids, "attention_mask": ids[:1]}], "attention_mask .* 1 x 3.* 2 x 3"),
        (teacher, student, [{"input_ids": ids, "attention_mask": ids != 5}], "amid a row"),
    ]
    for first, second, given, expected in cases:
        with pytest.raises(InputError, match=expected) as caught:
            anglekit.analyze(first, second, given, tokenizer=tok)
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="without a tokenizer"):
        anglekit.analyze(teacher, student, TEXTS)
    with pytest.raises(InputError, match="2 targets"):
        anglekit.analyze(teacher, student, TEXTS, tokenizer=tok, targets=TARGETS[:2])
    for given, expected in ((None, r"no model of transformers.*trunk.blocks \(2\)"), ("trunk", "trunk.blocks")):
        with pytest.raises(InputError, match=expected):
            anglekit.Checkpoint.of(own, blocks=given if given is None else f"{given}.block")


def test_token_ids_that_the_models_lack_or_would_read_otherwise_are_refused(tiny_model, tiny_tokenizer):
    teacher, student = tiny_model("t5", seed=1), tiny_model("t5", seed=2, depth=2)
    ids, labels = torch.tensor([[4, 5, 6]]), torch.tensor([[4, 5, 3]])
    cases = [
        ({"input_ids": ids + 90, "labels": labels}, {}, "token 96"),
        ({"input_ids": ids}, {}, "nothing for its decoder; give labels"),
        (
            {"input_ids": ids, "labels": torch.tensor([[4, -100, 5]])},
            {},
            "nothing for its decoder: labels .* amid a row",
        ),
        ({"input_ids": ids, "labels": labels, "inputs_embeds": ids}, {}, "inputs_embeds, which"),
        ({"input_ids": ids, "labels": labels}, {"max_length": 5}, "max_length=5 is for texts"),
        ({"input_ids": ids, "labels": labels}, {"special_tokens": False}, "no tokenizer"),
    ]
    for given, options, expected in cases:
        with pytest.raises(InputError, match=expected):
            anglekit.analyze(teacher, student, given, anglekit.AnalysisSettings(**options))


def test_the_programs_of_the_front_door_run(pair, tmp_path):
    family, teacher, student, tok, targets = pair
    states = [
        each.base_model(**tok(TEXTS[0], return_tensors="pt"), **extra, output_hidden_states=True)
        for extra in ([{"decoder_input_ids": torch.tensor([[0, 5]])}] if family == "t5" else [{}])
        for each in (teacher, student)
    ]
    t, s = (
        [state.detach() for state in getattr(each, "encoder_hidden_states", None) or each.hidden_states]
        for each in states
    )
    ax = Figure().subplots()

    g = anglekit.analyze(teacher, student, TEXTS, tokenizer=tok, targets=targets)
    acc = anglekit.GeometryAccumulator(4, 3, 16)
    acc.update(t, s)
    from_arrays = acc.compute()
    drawn = anglekit.draw("layer-norms", g, ax=ax) if family != "t5" else anglekit.draw("layer-norms", g)
    assert drawn is ax if family != "t5" else len(drawn.axes) == 2
    assert from_arrays.angles["n_tokens"].eq(6).all()
    assert anglekit.draw("figure1", from_arrays).axes
    assert gather([g, from_arrays]).geometries[1].geometry is from_arrays
    again = anglekit.Geometry.load(from_arrays.save(tmp_path / "arrays"))
    pd.testing.assert_frame_equal(again.angles, from_arrays.angles)
    pytest.importorskip("xarray", reason="the extra `xarray` is not installed")
    chosen = g.to_xarray()["mean_cosine"].sel(vertex=1)
    assert chosen.sizes == {"student": 1, "stream": len(g.angles["stream"].unique()), "teacher_i": 3, "teacher_k": 3}
