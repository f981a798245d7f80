"""Loading checkpoints: what comes back, what identifies it, and what is refused."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import transformers
from huggingface_hub import constants
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModel, Qwen2Config, Qwen2Tokenizer, XLMRobertaConfig, XLMRobertaModel

from anglekit.errors import InputError
from anglekit.models.checkpoints import (
    Checkpoint,
    StudentNote,
    load_checkpoint,
    load_config,
    load_tokenizer,
    student_names,
    unique_names,
    weights_hash,
)
from anglekit.models.load_options import LoadOptions, check_roles
from anglekit.models.projections import save_adapters
from anglekit.models.sources import check_source
from anglekit.vocabulary import STUDENT_FILE
from tests.tiny_models import tiny_checkpoint

STREAMS = {
    "bert": ("encoder",),
    "t5": ("encoder", "decoder"),
    "bart": ("encoder", "decoder"),
    "gpt2": ("decoder",),
    "llama": ("decoder",),
    "qwen3": ("decoder",),
}


@pytest.fixture
def bert(save_tiny, tmp_path) -> Path:
    return save_tiny(tmp_path / "bert", "bert")


def edit_config(directory: Path, **entries: object) -> None:
    file = directory / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **entries}))


def without_weight(directory: Path, name: str) -> None:
    file = directory / "model.safetensors"
    tensors = load_file(file)
    kept = {key: tensor.clone() for key, tensor in tensors.items() if not key.endswith(name)}
    assert len(kept) == len(tensors) - 1
    save_file(kept, file, metadata={"format": "pt"})


def pickled(directory: Path) -> None:
    weights = directory / "model.safetensors"
    torch.save(load_file(weights), directory / "pytorch_model.bin")
    weights.unlink()


@pytest.mark.parametrize("family", STREAMS)
def test_every_family_loads_headless_with_its_own_weights(family, tiny_model, save_tiny, tmp_path):
    model = tiny_model(family, head=True, seed=5)
    checkpoint = load_checkpoint(str(save_tiny(tmp_path / "model", model)))
    assert checkpoint.name == "model"
    assert checkpoint.streams == STREAMS[family]
    assert checkpoint.width == 16
    assert {checkpoint.depth(stream) for stream in checkpoint.streams} == {3}
    assert type(checkpoint.model) is type(tiny_model(family))
    assert not any(module.training for module in checkpoint.model.modules())
    assert checkpoint.tokenizer is not None
    assert checkpoint.adapters is None
    assert checkpoint.training == StudentNote()
    # A head's model keeps the body's weights under a prefix; T5 and BART under the same or the bare names.
    saved = {name.split(".", 1)[1] if "." in name else name: tensor for name, tensor in model.state_dict().items()}
    saved |= model.state_dict()
    loaded = checkpoint.model.state_dict()
    assert all(torch.equal(saved[name], tensor) for name, tensor in loaded.items())


@pytest.mark.parametrize("family", STREAMS)
def test_the_hash_knows_neither_shards_nor_head(family, tiny_model, save_tiny, tmp_path):
    model = tiny_model(family, head=True)
    headed = save_tiny(tmp_path / "headed", model)
    plain = save_tiny(tmp_path / "plain", model.base_model)
    sharded = save_tiny(tmp_path / "sharded", model, save_options={"max_shard_size": "10KB"})
    assert len(list(sharded.glob("model-*.safetensors"))) > 1
    hashes = {load_checkpoint(str(path)).sha256 for path in (headed, plain, sharded)}
    assert len(hashes) == 1


def test_a_bert_without_its_pooler_has_one_hash_at_every_load(tiny_model, save_tiny, tmp_path):
    directory = save_tiny(tmp_path / "poolerless", "bert")
    without_weight(directory, "pooler.dense.weight")
    without_weight(directory, "pooler.dense.bias")
    assert load_checkpoint(str(directory)).sha256 == load_checkpoint(str(directory)).sha256


def test_the_hash_tells_a_changed_weight_and_a_renamed_one(tiny_model):
    model = tiny_model("bert")
    before = weights_hash(model)
    assert before == weights_hash(tiny_model("bert"))
    assert before != weights_hash(tiny_model("bert", seed=1))
    with torch.no_grad():
        model.encoder.layer[0].output.dense.weight[0, 0] += 1e-3
    assert weights_hash(model) != before


def test_bfloat16_reaches_weights_and_hash(bert):
    half = load_checkpoint(str(bert), LoadOptions(dtype="bfloat16"))
    assert {weight.dtype for weight in half.model.parameters()} == {torch.bfloat16}
    assert half.sha256 != load_checkpoint(str(bert)).sha256


def test_provenance_is_json_and_names_the_training(bert):
    (bert / STUDENT_FILE).write_text(json.dumps({"init": "random", "strategy": "forward", "seed": 3, "other": 1}))
    checkpoint = load_checkpoint(str(bert))
    provenance = json.loads(json.dumps(checkpoint.provenance()))
    assert provenance == {
        "source": str(bert),
        "model_type": "bert",
        "architecture": "BertModel",
        "width": 16,
        "depth": {"encoder": 3},
        "sha256": checkpoint.sha256,
        "init": "random",
        "strategy": "forward",
        "seed": 3,
    }


@pytest.mark.parametrize("content", ["{", "[1]"])
def test_a_damaged_training_record_is_refused(bert, content):
    (bert / STUDENT_FILE).write_text(content)
    with pytest.raises(InputError, match=STUDENT_FILE):
        load_checkpoint(str(bert))


def test_adapters_beside_a_student_are_found(bert):
    weight = torch.randn(24, 16)
    save_adapters(bert, {("encoder", 2): weight}, trained=True)
    adapters = load_checkpoint(str(bert)).adapters
    assert adapters is not None
    assert list(adapters) == [("encoder", 2)]
    assert torch.equal(adapters["encoder", 2], weight)


def test_untrained_adapters_are_left_alone(bert):
    """The paper's BERT students have them: an analysis fits a projection instead."""
    save_adapters(bert, {("encoder", 2): torch.randn(24, 16)}, trained=False)
    assert load_checkpoint(str(bert)).adapters is None


def test_a_checkpoint_without_tokenizer_has_none(tiny_model, tmp_path):
    tiny_model("bert").save_pretrained(tmp_path / "bare")
    assert load_checkpoint(str(tmp_path / "bare")).tokenizer is None


@pytest.mark.parametrize("kind", ["qwen2", "bert"])
def test_the_tokenizer_that_was_saved_is_read_whatever_the_models_type(tmp_path, tiny_tokenizer, kind):
    # AutoTokenizer takes Qwen2's own class, which loses every word of a tokenizer of words.
    sizes = {
        "vocab_size": 24,
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
    }
    AutoModel.from_config(AutoConfig.for_model(kind, **sizes, intermediate_size=32)).save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    tokenizer = load_checkpoint(str(tmp_path)).tokenizer
    assert tokenizer("the good film").input_ids == tiny_tokenizer()("the good film").input_ids


def test_a_tokenizer_of_its_types_own_class_stays_of_that_class(tmp_path):
    words = {token: number for number, token in enumerate(("<|endoftext|>", "g", "o", "d", "go"))}
    own = Qwen2Tokenizer(vocab=words, merges=[("g", "o")])
    own.save_pretrained(tmp_path)
    Qwen2Config().save_pretrained(tmp_path)
    read = load_tokenizer(str(tmp_path), LoadOptions())
    assert type(read) is Qwen2Tokenizer
    assert read("good").input_ids == own("good").input_ids == [4, 2, 3]


def test_a_damaged_tokenizer_is_refused(bert):
    (bert / "tokenizer.json").write_text("{")
    with pytest.raises(InputError, match="tokenizer"):
        load_checkpoint(str(bert))


def test_missing_weights_are_refused(bert):
    without_weight(bert, "encoder.layer.1.output.dense.weight")
    with pytest.raises(InputError, match=r"lacks 1 weights.*encoder\.layer\.1\.output\.dense\.weight"):
        load_checkpoint(str(bert))


def test_weights_of_the_wrong_shape_are_refused(bert):
    edit_config(bert, intermediate_size=40)
    with pytest.raises(InputError, match=r"has the wrong shape|size mismatch"):
        load_checkpoint(str(bert))


@pytest.mark.parametrize("before", ["module.", "_orig_mod.", "model.bert."])
def test_the_names_of_a_wrapper_are_told_from_missing_weights(bert, before):
    held = load_file(bert / "model.safetensors")
    save_file({before + name: weight for name, weight in held.items()}, bert / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match=f"has '{before}' before the names of its weights"):
        load_checkpoint(str(bert))
    _, *others = held  # the control: one is missing under any name
    save_file({before + name: held[name] for name in others}, bert / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match=r"lacks \d+ weights"):
        load_checkpoint(str(bert))


def test_a_tokenizer_of_sentencepiece_alone_is_one(tmp_path):
    """As the oldest checkpoints of XLM-R and mBART are; the tokens are the library's own, shifted by one."""
    sentencepiece = pytest.importorskip("sentencepiece")
    (tmp_path / "corpus.txt").write_text("the film was good\nthe plot was dull\n" * 20)
    sentencepiece.SentencePieceTrainer.train(
        input=str(tmp_path / "corpus.txt"), model_prefix=str(tmp_path / "made"), vocab_size=20, minloglevel=2
    )
    sizes = {"vocab_size": 40, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1}
    XLMRobertaModel(XLMRobertaConfig(**sizes, num_attention_heads=2)).save_pretrained(tmp_path / "model")
    shutil.copy(tmp_path / "made.model", tmp_path / "model" / "sentencepiece.bpe.model")
    tokenizer = load_tokenizer(str(tmp_path / "model"), LoadOptions())
    assert tokenizer is not None
    own = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "made.model")).encode("the film was good")
    assert tokenizer("the film was good")["input_ids"] == [0, *(number + 1 for number in own), 2]


def test_pickled_weights_need_permission(bert):
    expected = load_checkpoint(str(bert)).sha256
    pickled(bert)
    with pytest.raises(InputError, match="--allow-pickle"):
        load_checkpoint(str(bert))
    assert load_checkpoint(str(bert), LoadOptions(allow_pickle=True)).sha256 == expected


@pytest.fixture
def on_the_hub(bert, tmp_path, monkeypatch):
    """Return the place of a hub's model `org/name` in the cache, to which a directory can be copied."""
    place = tmp_path / "models--org--name"
    (place / "refs").mkdir(parents=True)
    (place / "refs" / "main").write_text("1f")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    return place / "snapshots" / "1f"


def test_pickled_weights_of_the_hub_need_permission_too(bert, on_the_hub):
    shutil.copytree(bert, on_the_hub)
    expected = load_checkpoint("org/name").sha256
    pickled(on_the_hub)
    with pytest.raises(InputError, match=r"org/name has only pickled weights, .*--allow-pickle"):
        load_checkpoint("org/name")
    assert load_checkpoint("org/name", LoadOptions(allow_pickle=True)).sha256 == expected


@pytest.fixture(params=["a directory", "a hub's model"])
def coded(request, bert, on_the_hub):
    """Return the source of a checkpoint whose code must not run, and its directory."""
    edit_config(bert, auto_map={"AutoConfig": "configuration_mine.MyConfig", "AutoModel": "modeling_mine.MyModel"})
    for name in ("configuration_mine", "modeling_mine", "tokenizer_mine"):
        (bert / f"{name}.py").write_text("raise SystemExit('code was run')")
    shutil.copytree(bert, on_the_hub)
    return (str(bert), bert) if request.param == "a directory" else ("org/name", on_the_hub)


def test_code_of_a_known_type_is_set_aside(coded, tmp_path):
    source, _ = coded
    note = f"{source} brings code of its own (auto_map), which is not run: transformers has type bert itself"
    assert check_source(source) == note
    assert check_source(source, own_code=True) == ""
    loaded = load_checkpoint(source)
    assert type(loaded.model) is transformers.BertModel
    assert loaded.provenance()["code_set_aside"] == note
    # A student saved with it would name files that it does not have.
    loaded.model.save_pretrained(tmp_path / "student")
    assert "auto_map" not in (tmp_path / "student" / "config.json").read_text()
    assert load_checkpoint(str(tmp_path / "student")).sha256 == loaded.sha256


@pytest.mark.parametrize("entries", [{"model_type": "mine"}, {"other": {"auto_map": {"AutoModel": "mine.Mine"}}}])
def test_code_of_another_type_needs_permission(coded, entries):
    source, directory = coded
    edit_config(directory, **entries)
    for load in (load_config, load_checkpoint):
        with pytest.raises(InputError, match=rf"^{source} brings its own code \(auto_map in config.json\); .*--trust"):
            load(source)


def test_code_of_a_tokenizer_needs_permission(coded):
    source, directory = coded
    file = directory / "tokenizer_config.json"
    file.write_text(
        json.dumps({**json.loads(file.read_text()), "auto_map": {"AutoTokenizer": ["tokenizer_mine.T", None]}})
    )
    with pytest.raises(InputError, match=rf"^{source} brings its own code \(auto_map in tokenizer_config.json\)"):
        load_checkpoint(source)


def test_weights_of_another_architecture_need_its_code(coded):
    """A type that is transformers' own by name alone: ALiBi and gated layers under the name of bert."""
    source, directory = coded
    weights = load_file(directory / "model.safetensors")
    weights["encoder.layer.0.mlp.gated_layers.weight"] = torch.ones(2, 2)
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"holds encoder.layer.0.mlp.gated_layers.weight, .* by --trust-remote-code"):
        load_checkpoint(source)


def test_truncated_weights_are_refused(bert):
    weights = bert / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(InputError, match="cannot load"):
        load_checkpoint(str(bert))


def test_a_missing_shard_is_refused(save_tiny, tmp_path):
    directory = save_tiny(tmp_path / "sharded", "bert", save_options={"max_shard_size": "10KB"})
    next(directory.glob("model-00001*.safetensors")).unlink()
    with pytest.raises(InputError, match=r"model-00001.*is missing"):
        load_checkpoint(str(directory))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("{", "not readable json"),
        ("[" * 100_000, "not readable json"),
        ("[]", "not a json object"),
        ("{}", "cannot load"),
        ('{"model_type": "no-such-model"}', "cannot load .*; correct its files, or save it again"),
        ('{"model_type": "bert", "hidden_size": "wide"}', "cannot load"),
    ],
)
def test_a_damaged_config_is_refused(bert, content, expected):
    (bert / "config.json").write_text(content)
    with pytest.raises(InputError, match=expected):
        load_checkpoint(str(bert))


def test_a_config_that_is_not_text_is_refused(bert):
    (bert / "config.json").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(InputError, match="not readable json"):
        load_checkpoint(str(bert))


def test_paths_without_a_model_are_refused(bert, tmp_path):
    (tmp_path / "empty").mkdir()
    cases = {
        str(tmp_path / "nowhere"): "no such directory",
        str(tmp_path / "empty"): "config.json is missing",
        str(bert / "config.json"): "is a file",
        "": "no model|no such directory",
        "no such id!": "checkpoint directory or a hub id",
    }
    for source, expected in cases.items():
        with pytest.raises(InputError, match=expected):
            load_checkpoint(source)
    (bert / "model.safetensors").unlink()
    with pytest.raises(InputError, match="holds no weights"):
        load_checkpoint(str(bert))


def test_unknown_options_are_refused():
    with pytest.raises(InputError, match="float32"):
        LoadOptions(dtype="float23")
    for device in ("nowhere", "meta:x"):
        with pytest.raises(InputError, match="is not a device; allowed: auto, cpu"):
            LoadOptions(device=device)


def test_messages_are_one_line(bert):
    weights = bert / "model.safetensors"
    weights.write_bytes(b"not weights at all")
    with pytest.raises(InputError) as caught:
        load_checkpoint(str(bert))
    assert "\n" not in str(caught.value)


def test_students_of_directories_that_end_alike_are_called_after_those_above(tmp_path):
    def named(name: str, place: str) -> Checkpoint:
        (tmp_path / place).mkdir(parents=True, exist_ok=True)
        return replace(first, name=name, source=str(tmp_path / place))

    first = tiny_checkpoint("bert", "checkpoint-100")
    forward, reverse = (named("checkpoint-100", f"{name}/checkpoint-100") for name in ("forward", "reverse"))
    assert student_names([forward, reverse, named("other", "other")]) == ["forward", "reverse", "other"]
    beside = named("forward", "another/forward")
    assert student_names([forward, reverse, beside]) == ["forward-checkpoint-100", "reverse", "forward"]
    deeper = named("checkpoint-100", "twice/forward/checkpoint-100")
    assert student_names([forward, deeper]) == [f"{tmp_path.name}-forward", "twice-forward"]
    assert student_names([forward, deeper, forward]) == ["checkpoint-100", "checkpoint-100-2", "checkpoint-100-3"]
    runs = [named("forward-random-seed0", f"{sweep}/forward-random-seed0/checkpoint") for sweep in "ab"]
    assert student_names(runs) == ["a-forward-random-seed0", "b-forward-random-seed0"]
    assert student_names([replace(first, source="BertModel in memory")] * 2) == ["checkpoint-100", "checkpoint-100-2"]


def test_unique_names():
    assert unique_names(["a", "b", "a", "a"]) == ["a", "b", "a-2", "a-3"]
    assert unique_names(["a", "a-2", "a"]) == ["a", "a-2", "a-3"]
    assert unique_names([]) == []


def test_a_run_directory_is_its_checkpoint_and_gives_its_name(bert, tmp_path):
    run = tmp_path / "forward-random"
    shutil.copytree(bert, run / "checkpoint")
    plain = load_checkpoint(str(run))
    assert (plain.name, Path(plain.source).name) == ("checkpoint", "checkpoint")
    (run / "run_config.json").write_text("{}")
    assert load_checkpoint(str(run)).name == load_checkpoint(str(run / "checkpoint")).name == "forward-random"


def test_a_teacher_and_its_student_are_told_apart_by_the_run_record(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("teacher", "run/checkpoint", "other"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "config.json").write_text("{}")
    (tmp_path / "run" / "checkpoint" / STUDENT_FILE).write_text('{"teacher": "./teacher", "seed": 0}')
    check_roles("teacher", "run")
    check_roles("run", "other")  # a student may teach another one
    with pytest.raises(InputError, match=r"run came as the teacher and \S+teacher as its student.*other way round"):
        check_roles("run", str(tmp_path / "teacher"))
    for one, other in (("run", "run/checkpoint"), ("org/name", "org/name")):
        with pytest.raises(InputError, match="are one checkpoint"):
            check_roles(one, other)
