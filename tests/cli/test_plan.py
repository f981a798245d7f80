"""`anglekit plan` on real configuration files: the table, the warnings, JSON and wrong input."""

import json

import pytest
import transformers as hf
import typer
from typer.testing import CliRunner

from anglekit.distillation.matching.plan import DistillationPlan
from anglekit.distillation.matching.plan_warnings import plan_warnings
from anglekit.errors import InputError
from anglekit_cli.commands.plan import plan


@pytest.fixture(scope="module")
def teachers(tmp_path_factory):
    """Directories with a configuration and weights that cannot be read: the command must not try."""
    root = tmp_path_factory.mktemp("teachers")
    hf.BertConfig().save_pretrained(root / "bert")
    hf.T5Config(num_layers=12).save_pretrained(root / "t5")
    for name in ("bert", "t5"):
        (root / name / "model.safetensors").write_text("not weights")
    return root


def run(*arguments):
    app = typer.Typer()
    app.command()(plan)
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_it_prints_who_teaches_whom(teachers):
    result = run(teachers / "bert", "--strategy", "forward", "--layers", 3, "--init", "teacher")
    assert result.exit_code == 0
    lines = [line.split() for line in result.output.splitlines()]
    assert ["2", "(block", "1)", "8", "(block", "7)", "block", "7"] in lines
    assert "warning" not in result.output


def test_a_student_that_is_there_is_planned_by_its_configuration(teachers, tmp_path):
    config = hf.DistilBertConfig(n_layers=5, dim=96, n_heads=4, architectures=["DistilBertForMaskedLM"])
    config.save_pretrained(tmp_path / "small")
    (tmp_path / "small" / "model.safetensors").write_text("not weights")
    result = run(teachers / "bert", "--strategy", "forward", "--student", f"mine={tmp_path / 'small'}")
    told = " ".join(result.output.split())
    assert f"student 5 encoder blocks, width 96, given, mine (distilbert, {tmp_path / 'small'})" in told
    assert "head that in the checkpoint of DistilBertForMaskedLM, where it is the task's; else made anew" in told
    assert "adapters 6, each 96 to 768, no bias" in told
    # 12 blocks to 5: the last of each of five equal parts.
    assert [int(line.split()[3]) for line in result.output.splitlines() if "(block" in line] == [3, 5, 8, 10, 12]
    for options, message in (
        (("--strategy", "forward", "--student", teachers / "t5"), "is a t5 model with encoder and decoder, and its"),
        (("--strategy", "forward", "--student", tmp_path / "small", "--layers", 3), "--layers and --student came"),
    ):
        assert message in str(run(teachers / "bert", *options).exception)
    turned = run(tmp_path / "small", "--strategy", "forward", "--student", teachers / "bert")
    assert "bert has 12 encoder blocks and its teacher 5; give them the other way round" in str(turned.exception)


def test_a_composite_teacher_is_planned_as_the_text_model_inside(tmp_path):
    hf.Gemma3Config(text_config={"num_hidden_layers": 12, "hidden_size": 64}).save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_text("not weights")
    result = run(tmp_path, "--strategy", "forward", "--layers", 3)
    assert result.output.startswith("The teacher is the text model inside a gemma3 model, which reads text alone.\n")
    assert "(gemma3_text): 12 decoder blocks, width 64" in result.output
    told = json.loads(run(tmp_path, "--strategy", "forward", "--layers", 3, "--json").output)
    assert (told["composite"], told["plan"]["model_type"]) == ("gemma3", "gemma3_text")


def test_a_teacher_that_reads_no_text_is_refused(tmp_path):
    hf.ViTConfig().save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_text("not weights")
    refused = run(tmp_path, "--strategy", "forward", "--layers", 3)
    assert isinstance(refused.exception, InputError)
    assert str(refused.exception) == "model type 'vit' reads images, not text; choose a model that reads text"


def test_it_warns(teachers):
    result = run(teachers / "bert", "--strategy", "none", "--layers", 3, "--width", 384)
    assert "warning: the widths differ (384 and 768) and no hidden loss trains an adapter" in result.output


def test_it_says_which_copied_block_would_be_made_otherwise(tmp_path):
    hf.DiffLlamaConfig(num_hidden_layers=8, vocab_size=100).save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_text("not weights")
    options = (tmp_path, "--strategy", "forward", "--layers", 2)
    result = run(*options, "--init", "teacher")
    assert "warning: the decoder's block 7 would be made otherwise as block 1 of the student" in result.output
    assert "self_attn.lambda_init is 0.7265 in the teacher, 0.3555 here" in result.output
    assert "otherwise" not in run(*options, "--init", "teacher", "--copy", "0,1").output
    assert "otherwise" not in run(*options).output


def test_a_control_is_planned_with_what_it_is_a_control_of(teachers):
    alone = run(teachers / "bert", "--control", "alone", "--layers", 3).output.splitlines()
    assert alone[2].startswith("control   alone, of the strategy below without its KL")
    assert alone[3].startswith("strategy  none")
    options = ("--control", "random-teacher", "--strategy", "reverse", "--layers", 3, "--json")
    plan = json.loads(run(teachers / "bert", *options).output)["plan"]
    assert (plan["strategy"], plan["control"], plan["streams"][0]["matching"]["strategy"]) == (
        *("random-teacher", "random-teacher"),
        "reverse",
    )


def test_json_is_the_plan_itself(teachers):
    result = run(teachers / "bert", "--strategy", "random", "--layers", 3, "--seed", 7, "--json")
    values = json.loads(result.output)
    made = DistillationPlan.from_json(values["plan"])
    assert (made.strategy, made.seed) == ("random", 7)
    assert values["warnings"] == list(plan_warnings(made))


def test_maps_of_ones_own(teachers):
    maps = ["--map", "encoder=1:6;decoder=1:6,2:12", "--copy", "encoder=0,3;decoder=0,5"]
    result = run(teachers / "t5", *maps, "--encoder-layers", 2, "--decoder-layers", 2, "--init", "teacher", "--json")
    values = json.loads(result.output)["plan"]
    assert [part["matching"]["pairs"] for part in values["streams"]] == [[[1, 6]], [[1, 6], [2, 12]]]
    assert [part["blocks"] for part in values["streams"]] == [[0, 3], [0, 5]]


@pytest.mark.parametrize(
    ("teacher", "options", "message"),
    [
        ("bert", ["--layers", "3"], "neither came"),
        ("bert", ["--layers", "3", "--strategy", "none", "--map", "1:1"], "both came"),
        ("bert", ["--layers", "3", "--strategy", "foward"], "did you mean 'forward'"),
        ("bert", ["--layers", "13", "--strategy", "forward"], "allowed: 1 to 12"),
        ("bert", ["--layers", "3", "--map", "1:13"], "teacher layer 13"),
        ("bert", ["--layers", "3", "--map", "1:1,1:2"], "at most once"),
        ("bert", ["--strategy", "forward"], "--layers or --width"),
        ("bert", ["--layers", "3", "--strategy", "forward", "--width", "384", "--init", "teacher"], "--init random"),
        ("bert", ["--layers", "3", "--strategy", "forward", "--copy", "0,1,2"], "copies nothing"),
        ("t5", ["--layers", "3", "--map", "1:1"], "names no stream"),
        ("bert", ["--layers", "3", "--control", "alnoe"], "--control is 'alnoe'; did you mean 'alone'"),
        ("bert", ["--layers", "3", "--control", "alone", "--strategy", "forward"], "--control alone matches no layers"),
        ("bert", ["--layers", "3", "--control", "alone", "--map", "1:1"], "and --map came"),
        ("bert", ["--layers", "3", "--control", "random-teacher"], "--strategy and --map: neither came"),
        ("bert", ["--layers", "3", "--control", "random-teacher", "--strategy", "none"], "give one that does"),
        ("nowhere", ["--layers", "3", "--strategy", "forward"], "nowhere"),
    ],
)
def test_wrong_input_is_one_line(teachers, teacher, options, message):
    result = run(teachers / teacher, *options)
    assert isinstance(result.exception, InputError)
    assert message in str(result.exception)
    assert "\n" not in str(result.exception)
