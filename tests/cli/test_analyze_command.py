"""`anglekit analyze` as a person runs it, on tiny models: the numbers, and one line for every mistake."""

import json
import shutil
import sys

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3Model,
    T5Config,
    T5Model,
)

from anglekit.results.geometry import Geometry
from anglekit_cli.main import main

WORDS = ["a", "good", "bad", "film", "with", "no", "plot", "and", "great", "cast"]
TEXTS = ["a good film", "bad plot", "a great cast and no plot", "good", "a bad film with a good cast", "no film"]


@pytest.fixture(scope="module")
def zoo(tmp_path_factory):
    root = tmp_path_factory.mktemp("zoo")
    vocabulary = {token: n for n, token in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS])}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="[PAD]", unk_token="[UNK]")
    size = len(vocabulary)

    def bert(layers, width=16, kind=BertModel):
        torch.manual_seed(layers + width)
        return kind(
            BertConfig(
                vocab_size=size,
                num_hidden_layers=layers,
                hidden_size=width,
                num_attention_heads=2,
                intermediate_size=32,
                max_position_embeddings=32,
                initializer_range=0.5,
            )
        )

    def t5(layers):
        torch.manual_seed(layers)
        shape = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_heads": 2, "num_layers": layers}
        return T5Model(T5Config(vocab_size=size, **shape, decoder_start_token_id=0, pad_token_id=0))

    def qwen(layers):
        torch.manual_seed(layers)
        shape = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2, "num_key_value_heads": 1}
        return Qwen3Model(Qwen3Config(vocab_size=size, num_hidden_layers=layers, head_dim=8, **shape))

    made = {
        "teacher": bert(3, kind=BertForSequenceClassification),
        "student": bert(2),
        "shallow": bert(1),
        "narrow": bert(2, width=8),
        "t5-teacher": t5(2),
        "t5-student": t5(1),
        "qwen-teacher": qwen(2),
        "qwen-student": qwen(1),
    }
    for name, model in made.items():
        model.save_pretrained(root / name)
        tokenizer.save_pretrained(root / name)
    shutil.copytree(root / "student", root / "pickled")
    (root / "pickled" / "model.safetensors").rename(root / "pickled" / "pytorch_model.bin")
    shutil.copytree(root / "student", root / "coded")
    config = json.loads((root / "coded" / "config.json").read_text())
    changed = {**config, "model_type": "own", "auto_map": {"AutoModel": "code.Model"}}
    (root / "coded" / "config.json").write_text(json.dumps(changed))
    shutil.copytree(root / "student", root / "other-words")
    text = (root / "other-words" / "tokenizer.json").read_text().replace('"film"', '"movie"')
    (root / "other-words" / "tokenizer.json").write_text(text)
    shutil.copytree(root / "student", root / "truncated")
    weights = (root / "truncated" / "model.safetensors").read_bytes()
    (root / "truncated" / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    shutil.copytree(root / "teacher", root / "not-a-number")
    broken = bert(3)
    with torch.no_grad():
        broken.embeddings.word_embeddings.weight.fill_(float("nan"))
    broken.save_pretrained(root / "not-a-number")
    (root / "empty-dir").mkdir()
    rows = [f"{text}\t{TEXTS[(n + 1) % len(TEXTS)]}\n" for n, text in enumerate(TEXTS)]
    (root / "probe.tsv").write_text("sentence\ttarget\n" + "".join(rows))
    (root / "plain.csv").write_text("sentence\n" + "\n".join(TEXTS) + "\n")
    (root / "empty.tsv").write_text("")
    (root / "binary.tsv").write_bytes(b"sentence\n\x00\x01\x02")
    (root / "latin.tsv").write_bytes("sentence\ncaf\xe9\n".encode("latin-1"))
    return root


@pytest.fixture
def run(zoo, tmp_path, monkeypatch, capsys):
    def call(*words, probe="plain.csv", command="analyze"):
        known = {path.name for path in zoo.iterdir()}
        given = [str(zoo / word) if word in known else word for word in words]
        out = tmp_path / "out"
        monkeypatch.setattr(sys, "argv", ["anglekit", command, *given, "--probe", str(zoo / probe), "--out", str(out)])
        try:
            main()
            code = 0
        except SystemExit as stop:
            code = stop.code or 0
        captured = capsys.readouterr()
        return code, captured.out, captured.err, out

    return call


MISTAKES = {
    "no such directory": (["./nowhere", "student"], {}, "no such directory"),
    "no model": (["empty-dir", "student"], {}, "config.json is missing"),
    "pickle": (["teacher", "pickled"], {}, "--allow-pickle"),
    "remote code": (["teacher", "coded"], {}, "--trust-remote-code"),
    "truncated weights": (["teacher", "truncated"], {}, "cannot load"),
    "other tokenizer": (["teacher", "other-words"], {}, "do not read the same tokens"),
    "width": (["teacher", "narrow"], {}, "least-squares or procrustes"),
    "no adapter": (["teacher", "narrow", "--projection", "adapter"], {}, "no trained adapters"),
    "kinds": (["teacher", "qwen-student"], {}, "models of one kind"),
    "one layer": (["shallow", "student"], {}, "2 or more"),
    "empty probe": (["teacher", "student"], {"probe": "empty.tsv"}, "empty"),
    "binary probe": (["teacher", "student"], {"probe": "binary.tsv"}, "binary.tsv"),
    "not utf-8": (["teacher", "student"], {"probe": "latin.tsv"}, "UTF-8"),
    "no column": (["teacher", "student", "--text", "sentense"], {}, "sentence"),
    "no target": (["t5-teacher", "t5-student"], {}, "--target"),
    "no such layer": (["teacher", "student", "--teacher-layers", "0,9"], {}, "layer 9 does not exist"),
    "nulls": (["teacher", "student", "--nulls", "evry"], {}, "--nulls is 'evry'"),
    "similarity": (["teacher", "student", "--similarity", "some"], {}, "--similarity is 'some'"),
    "reading": (["teacher", "student", "--reading", "oficial"], {}, "official"),
    "dtype": (["teacher", "student", "--dtype", "float31"], {}, "float32"),
    "device": (["teacher", "student", "--device", "toaster"], {}, "is not a device; allowed: auto, cpu"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_and_nothing_is_written(run, mistake):
    words, options, expected = MISTAKES[mistake]
    code, out, err, directory = run(*words, **options)
    assert (code, out) == (2, "")
    assert len(err.strip().splitlines()) == 1
    assert expected in err
    assert list(directory.parent.iterdir()) == []


def test_an_output_that_exists_is_kept(run):
    assert run("teacher", "student", "-q")[0] == 0
    code, _, err, directory = run("teacher", "student", "-q")
    assert (code, "--overwrite" in err) == (2, True)
    assert run("teacher", "student", "-q", "--overwrite", "--no-special-tokens")[0] == 0
    assert Geometry.load(directory).settings["special_tokens"] is False


def test_teacher_and_student_the_wrong_way_round_are_noticed(run, zoo):
    code, out, err, _ = run("student", "teacher")
    assert (code, "the wrong" in err) == (0, False)
    assert "columns read: sentence (" in out
    assert "note: teacher has 3 blocks in its encoder and its teacher 2: if it is the teacher, name it first" in out
    note = zoo / "student" / "anglekit_student.json"
    note.write_text(json.dumps({"teacher": str(zoo / "teacher")}))
    try:
        code, _, err, _ = run("student", "teacher", "--overwrite")
    finally:
        note.unlink()
    assert (code, err.count("\n")) == (2, 1)
    assert "give them the other way round" in err


def test_states_that_are_all_nan_fail_the_run(run):
    code, _, err, directory = run("not-a-number", "student", "-q")
    assert (code, directory.exists()) == (1, False)
    assert "no angle is left" in err


def oracle(zoo, name_teacher, name_student, vertex, i, k):
    """Return all tokens' cosines by one unpadded forward pass an example and Hugging Face's own hidden states."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(zoo / name_teacher)
    teacher, student = (BertModel.from_pretrained(zoo / name).eval() for name in (name_teacher, name_student))
    cosines = []
    for text in TEXTS:
        inputs = {"input_ids": torch.tensor([tokenizer(text)["input_ids"]])}
        with torch.no_grad():
            t = teacher(**inputs, output_hidden_states=True).hidden_states
            s = student(**inputs, output_hidden_states=True).hidden_states[vertex][0].double()
        u, v = (t[layer][0].double() - s for layer in (i, k))
        cosines.append(((u * v).sum(1) / u.norm(dim=1) / v.norm(dim=1)).numpy())
    return cosines


def test_the_tables_equal_one_forward_pass_an_example(run, zoo):
    code, out, _, directory = run("teacher", "student", "--batch-tokens", "16")
    assert code == 0
    assert "chance" in out
    geometry = Geometry.load(directory)
    assert len(geometry.angles) == 3 * 6
    for vertex, i, k in ((0, 0, 3), (1, 1, 2), (2, 0, 1)):
        cosines = oracle(zoo, "teacher", "student", vertex, i, k)
        row = geometry.angles.query("vertex == @vertex and teacher_i == @i and teacher_k == @k").iloc[0]
        assert row.mean_cosine == pytest.approx(np.concatenate(cosines).mean(), abs=1e-6)
        assert row.n_tokens == sum(len(c) for c in cosines)
        assert row.n_examples == len(TEXTS)
    wrong = oracle(zoo, "teacher", "student", 1, 0, 3)
    row = geometry.angles.query("vertex == 1 and teacher_i == 1 and teacher_k == 2").iloc[0]
    assert abs(row.mean_cosine - np.concatenate(wrong).mean()) > 1e-3


def test_batches_change_nothing_and_students_share_a_pass(run, zoo, tmp_path):
    copy = shutil.copytree(zoo / "teacher", tmp_path / "copy")
    together = Geometry.load(run("teacher", "student", str(copy), "-q")[3])
    small = Geometry.load(run("teacher", "student", "-q", "--overwrite", "--batch-tokens", "9")[3])
    assert together.students == ["student", "copy"]
    first = together.angles[together.angles["student"] == "student"].drop(columns="student").reset_index(drop=True)
    other = small.angles.drop(columns=["student", "stream"])
    np.testing.assert_allclose(first.drop(columns="stream").to_numpy(), other.to_numpy(), rtol=1e-4, atol=1e-5)
    same = together.counts["by_student"]["copy"]["encoder"]["zero_direction"]
    assert {(entry["vertex"], entry["teacher_layer"]) for entry in same} == {(n, n) for n in range(4)}


def test_official_reading_counts_padding(run, zoo):
    code, _, _, directory = run("teacher", "student", "-q", "--reading", "official", "--pad-to", "16")
    assert code == 0
    geometry = Geometry.load(directory)
    row = geometry.angles.iloc[0]
    assert (row.vertex, row.teacher_i, row.teacher_k, row.n_tokens) == (1, 1, 3, 16 * len(TEXTS))
    tokenizer = PreTrainedTokenizerFast.from_pretrained(zoo / "teacher")
    inputs = tokenizer(TEXTS, padding="max_length", max_length=16, return_tensors="pt")
    inputs = {key: inputs[key] for key in ("input_ids", "attention_mask")}
    teacher, student = (BertModel.from_pretrained(zoo / name).eval() for name in ("teacher", "student"))
    with torch.no_grad():
        t = teacher(**inputs, output_hidden_states=True).hidden_states
        s = student(**inputs, output_hidden_states=True).hidden_states[1]
    u, v = t[1] - s, t[3] - s
    cosine = ((u * v).sum(-1) / (u.norm(dim=-1) * v.norm(dim=-1) + 1e-6)).double().numpy().reshape(-1)
    assert row.mean_cosine == pytest.approx(cosine.mean(), abs=1e-6)
    lines = (directory / "official_histogram_student.txt").read_text().splitlines()
    counts = np.array([int(line.split(",")[1]) for line in lines])
    assert len(lines) == 1000
    assert lines[0].startswith("-1.000,")
    assert np.abs(np.cumsum(counts) - np.cumsum(np.histogram(cosine, 1000, (-1, 1))[0])).max() <= 1


@pytest.mark.parametrize("family", ["t5", "qwen"])
def test_other_families_have_their_streams_and_final_norm(run, family):
    models = (f"{family}-teacher", f"{family}-student")
    probe = "probe.tsv" if family == "t5" else "plain.csv"
    excluded = Geometry.load(run(*models, "-q", probe=probe)[3])
    included = Geometry.load(run(*models, "-q", "--overwrite", "--final-norm", "included", probe=probe)[3])
    assert set(excluded.angles["stream"]) == ({"encoder", "decoder"} if family == "t5" else {"decoder"})
    last = excluded.angles.query("teacher_k == 2")["mean_cosine"].to_numpy()
    assert np.abs(last - included.angles.query("teacher_k == 2")["mean_cosine"].to_numpy()).max() > 1e-3
    inner = "teacher_k < 2 and vertex == 0"
    np.testing.assert_allclose(
        excluded.angles.query(inner)["mean_cosine"], included.angles.query(inner)["mean_cosine"], atol=1e-6
    )


@pytest.mark.parametrize("kind", ["least-squares", "procrustes"])
def test_a_narrow_student_is_projected_on_the_other_half(run, kind):
    code, out, _, directory = run("teacher", "narrow", "--projection", kind)
    assert code == 0
    assert "R²" in out
    geometry = Geometry.load(directory)
    assert len(geometry.projections) == 3
    assert geometry.counts["examples"] + geometry.counts["examples_used_for_projection"] == len(TEXTS)
    assert all(row["r_squared"] <= 1 for row in geometry.projections)


def test_nulls_are_shown_and_can_be_left_out(run):
    code, out, _, directory = run("teacher", "student", "--nulls", "all", "--similarity", "all")
    assert code == 0
    assert "permuted" in out
    geometry = Geometry.load(directory)
    assert len(geometry.nulls["null"].unique()) == 9
    assert len(geometry.similarity)
    code, out, _, directory = run("teacher", "student", "--overwrite", "--nulls", "none", "--similarity", "none")
    assert (code, "permuted" in out) == (0, False)
    assert len(Geometry.load(directory).nulls) == 0


def test_pairs_surely_above_and_below_the_permuted_cosine_are_counted_apart(run):
    _, out, _, directory = run("teacher", "student", "--json")
    geometry = Geometry.load(directory)
    permuted = geometry.nulls["null"] == "permuted-student"
    first = permuted & (geometry.nulls["vertex"] == 0)
    assert first.sum() == 6
    for row in json.loads(out)["rows"]:
        mine = geometry.nulls[permuted & (geometry.nulls["vertex"] == row["vertex"])]
        assert row["pairs_above_permuted"] == ((mine["p_adjusted"] <= 0.05) & (mine["observed_minus_null"] > 0)).sum()
        assert row["pairs_below_permuted"] == ((mine["p_adjusted"] <= 0.05) & (mine["observed_minus_null"] < 0)).sum()
        assert row["permuted_cosine"] == pytest.approx(mine["mean_cosine"].mean())
    geometry.nulls.loc[first, "joint_low"] = [0.1, 0.1, -0.3, -0.2, -0.2, -0.2]
    geometry.nulls.loc[first, "joint_high"] = [0.2, 0.2, -0.1, 0.2, 0.2, 0.2]
    row = next(row for row in geometry.summary_rows() if row["vertex"] == 0)
    assert (row["pairs_above_permuted"], row["pairs_below_permuted"]) == (2, 1)


def test_json_and_help(run, monkeypatch, capsys):
    code, out, _, _ = run("teacher", "student", "--json")
    assert (code, len(json.loads(out)["rows"])) == (0, 3)
    monkeypatch.setattr(sys, "argv", ["anglekit", "analyze", "--help"])
    with pytest.raises(SystemExit):
        main()
    assert "--projection" in capsys.readouterr().out
