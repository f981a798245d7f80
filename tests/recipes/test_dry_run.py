"""What a recipe would cost: parameters counted exactly, FLOPs against a counter, and the command's other outputs."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest
import torch
import yaml
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig
from typer.testing import CliRunner

from anglekit.errors import InputError
from anglekit.models.cost import Tokens
from anglekit.readings import decisions
from anglekit.recipes.dry_run import config_cost, dry_run
from anglekit.recipes.own_sources import with_own_sources
from anglekit.recipes.plans import architecture
from anglekit.recipes.recipe_files import load_recipe, recipe_file, recipe_names
from anglekit.recipes.teacher_from_scratch import model_with_head
from anglekit.recipes.transforms import Form, transform_rows
from anglekit.tables.read import read_table
from anglekit.tables.table import Table
from anglekit_cli.main import app


def command(*arguments: str):
    return CliRunner().invoke(app, ["reproduce", *arguments])


# ---- counts ----


@pytest.mark.parametrize(
    ("name", "parameters"),
    # BERT-base with a head of two classes; the others as their papers' and model cards' rounded numbers.
    [("mnli", 109.5e6), ("dart", 406e6), ("wmt16-en-ro", 223e6), ("hellaswag", 8.19e9)],
)
def test_the_teachers_have_the_parameters_that_they_are_known_for(name, parameters):
    recipe = load_recipe(name)
    cost = config_cost(architecture(recipe), classifies=name == "mnli")
    assert cost.parameters == pytest.approx(parameters, rel=0.005)


@pytest.mark.parametrize(
    ("config", "classifies", "tokens"),
    [
        ({"model_type": "bert", "hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 2,
          "intermediate_size": 256, "vocab_size": 300}, True, Tokens(32)),
        ({"model_type": "t5", "d_model": 64, "d_kv": 32, "d_ff": 256, "num_layers": 3, "num_decoder_layers": 2,
          "num_heads": 2, "vocab_size": 300, "decoder_start_token_id": 0}, False, Tokens(32, 24)),
        ({"model_type": "bart", "d_model": 64, "encoder_layers": 2, "decoder_layers": 3, "encoder_attention_heads": 2,
          "decoder_attention_heads": 2, "encoder_ffn_dim": 256, "decoder_ffn_dim": 256, "vocab_size": 300}, False,
         Tokens(24, 32)),
        ({"model_type": "qwen3", "hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 2, "head_dim": 32,
          "num_key_value_heads": 1, "intermediate_size": 256, "vocab_size": 300}, False, Tokens(32)),
    ],
    ids=["bert", "t5", "bart", "qwen3"],
)  # fmt: skip
def test_flops_are_those_that_a_counter_counts(config, classifies, tokens):
    made = AutoConfig.for_model(**config, attn_implementation="eager")
    cost = config_cost(made, classifies=classifies)
    model = model_with_head(made, classifies=classifies)
    assert cost.parameters == sum(weight.numel() for weight in model.parameters())
    inputs = {"input_ids": torch.ones(1, int(tokens.text), dtype=torch.long)}
    if tokens.target:
        inputs["decoder_input_ids"] = torch.ones(1, int(tokens.target), dtype=torch.long)
    with FlopCounterMode(display=False) as counter:
        loss = model(**inputs).logits.sum()
    forward = counter.get_total_flops()
    with FlopCounterMode(display=False) as counter:
        loss.backward()
    assert cost.forward_flops(tokens) == pytest.approx(forward, rel=0.1)
    assert cost.step_flops(tokens) == pytest.approx(forward + counter.get_total_flops(), rel=0.1)
    # With LoRA the matrices are frozen: gradients pass through them and are taken of next to nothing.
    for weight in model.parameters():
        weight.requires_grad = weight.ndim == 1
    loss = model(**inputs).logits.sum()
    with FlopCounterMode(display=False) as counter:
        loss.backward()
    assert cost.step_flops(tokens, lora=True) == pytest.approx(forward + counter.get_total_flops(), rel=0.1)


def test_training_memory_by_optimiser():
    cost = config_cost(
        AutoConfig.for_model("bert", num_hidden_layers=1, hidden_size=24, num_attention_heads=2), classifies=True
    )
    assert cost.training_bytes("adamw") == 16 * cost.parameters
    assert cost.training_bytes("adafactor") == 8 * cost.parameters
    lora = cost.training_bytes("adamw", lora_rank=4)
    assert 4 * cost.parameters < lora < 16 * cost.parameters
    whole = cost.activation_bytes(4, Tokens(100))
    assert cost.activation_bytes(4, Tokens(100), half=True) == pytest.approx(whole / 2, rel=0.05)
    assert cost.activation_bytes(4, Tokens(100), recomputed=True) < whole / 10
    assert cost.activation_bytes(8, Tokens(100)) == 2 * whole
    # One block, 24 wide, two heads whose attention drops: 66 x 24 and 18 x 2 x 100 bytes for each of 400 tokens.
    assert whole == 400 * (66 * 24 + 18 * 2 * 100)


# ---- plans ----


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_can_be_planned_without_the_hub(name, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    recipe = load_recipe(name)
    planned = dry_run(recipe)
    stages = {one.name: one for one in planned.stages}
    assert set(stages) == {
        *(["teacher"] if recipe.teacher.training else []),
        *(f"{kind}-{variant.name}" for kind in ("sweep", "geometry") for variant in recipe.variants),
    }
    assert all(one.flops > 0 and one.memory_bytes > 0 and one.tokens > 0 for one in planned.stages)
    text = planned.text()
    assert "FLOPs: forward 2 x parameters" in text
    assert "AdamW in float32 16 bytes a parameter" in text
    assert json.loads(json.dumps(planned.summary()))["recipe"] == name


def test_a_plan_grows_with_what_is_trained():
    recipe = load_recipe("mnli")
    whole, part = dry_run(recipe), dry_run(recipe, scale=0.01)
    assert [one.steps for one in whole.stages] == [36_816, 122_720, None]
    assert [one.steps for one in part.stages] == [369, 1_228, None]
    assert 0.009 < part.stages[1].flops / whole.stages[1].flops < 0.05
    two = dry_run(with_own_sources(recipe, seeds=(0, 1)))
    assert two.stages[1].flops == pytest.approx(2 * whole.stages[1].flops)
    assert two.stages[1].memory_bytes == whole.stages[1].memory_bytes
    few = dry_run(replace(recipe, students=replace(recipe.students, side_by_side=2)))
    assert few.stages[1].memory_bytes < whole.stages[1].memory_bytes
    assert few.stages[1].flops > whole.stages[1].flops


def with_controls(recipe, *controls):
    return replace(recipe, students=replace(recipe.students, controls=controls, side_by_side=100))


def test_a_plan_counts_the_arms_and_the_passes_of_controls():
    recipe = with_own_sources(load_recipe("mnli"), seeds=(0, 1))
    whole, alone, random, both = (
        {one.name: one for one in dry_run(with_controls(recipe, *controls)).stages}
        for controls in ((), ("alone",), ("random-teacher",), ("alone", "random-teacher"))
    )
    assert whole.keys() == both.keys()
    sweeps = [each["sweep-3-layers"] for each in (whole, alone, random, both)]
    assert [one.what.partition(" students")[0] for one in sweeps] == ["train 20", "train 24", "train 24", "train 28"]
    assert sweeps[3].what.endswith(", 4 of them without a teacher, 4 of them beside an untrained teacher for each seed")
    student = (sweeps[1].flops - sweeps[0].flops) / 4
    steps, teacher = sweeps[0].steps, config_cost(architecture(recipe), classifies=True)
    forward = steps * 32 * teacher.forward_flops(Tokens(recipe.data.tokens or 128))
    assert recipe.students.training.settings().batch_size == 32
    assert student > 0
    # The untrained teacher of a seed runs once a batch, for students from both inits.
    assert sweeps[2].flops - sweeps[1].flops == pytest.approx(2 * forward)
    assert sweeps[3].flops - sweeps[2].flops == pytest.approx(4 * student)
    assert sweeps[2].memory_bytes - sweeps[1].memory_bytes == pytest.approx(2 * 4 * teacher.parameters)
    assert all(both["geometry-3-layers"].flops > each["geometry-3-layers"].flops for each in (whole, alone, random))


def test_a_plan_says_what_controls_are_controls_of():
    maps = dry_run(with_controls(load_recipe("mnli"), "alone", "random-teacher")).maps
    assert any(line.startswith("3-layers, alone (control of none): encoder: no hidden layer") for line in maps)
    start = "3-layers, random-teacher (control of forward, by an untrained teacher): encoder, forward"
    assert any(line.startswith(start) for line in maps)


def test_a_plan_counts_local_files_and_a_local_teacher(tmp_path, save_tiny):
    (tmp_path / "train.csv").write_text("premise,hypothesis,label\n" + "a,b,neutral\n" * 64)
    own = with_own_sources(
        load_recipe("mnli"),
        teacher=str(save_tiny(tmp_path / "bert", "bert", depth=4)),
        train=str(tmp_path / "train.csv"),
        validation=[str(tmp_path / "train.csv")],
    )
    planned = dry_run(own)
    assert planned.stages[0].steps == 3 * 2
    assert "64 train examples, counted" in planned.notes
    assert any("layer 3 by layer 4" in line for line in planned.maps)


def test_a_plan_without_numbers_of_rows_says_what_to_do():
    recipe = load_recipe("mnli")
    unknown = replace(recipe, data=replace(recipe.data, train_examples=None))
    with pytest.raises(InputError, match=r"state data\.train_examples in the recipe, or give --train FILE"):
        dry_run(unknown)
    with pytest.raises(InputError, match="--scale is 2"):
        dry_run(recipe, scale=2)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_type": "brt"}, "teacher.config makes no model"),
        ({"model_type": "bert", "hidden_size": 30, "num_attention_heads": 12}, "no bert model of this shape exists"),
        ({"model_type": "bert", "hidden_size": "wide"}, "teacher.config makes no model"),
    ],
)
def test_a_shape_that_is_no_model_is_refused_in_one_line(config, message):
    recipe = load_recipe("mnli")
    with pytest.raises(InputError, match=message) as error:
        dry_run(replace(recipe, teacher=replace(recipe.teacher, config=config)))
    assert "\n" not in str(error.value)


# ---- the command ----


def test_the_list_holds_every_recipe():
    ran = command("--list")
    assert ran.exit_code == 0
    assert [line.split()[0] for line in ran.output.splitlines()] == ["name", *recipe_names()]
    rows = json.loads(command("--list", "--json").output)
    assert {row["name"]: row["published"] for row in rows}["qqp"] == "21"


def test_a_recipe_is_shown_as_it_is_and_can_be_used(tmp_path):
    shown = command("sst2", "--show").output
    assert shown == recipe_file("sst2").read_text()
    (tmp_path / "mine.yaml").write_text(shown)
    assert load_recipe(tmp_path / "mine.yaml") == load_recipe("sst2")


def test_the_command_plans():
    assert re.search(
        r"sweep-3-layers +train 10 students of [\d.]+ M parameters +1,228",
        command("mnli", "--dry-run", "--scale", "0.01").output,
    )
    planned = json.loads(command("mnli", "--dry-run", "--json", "--seeds", "0-2").output)
    assert planned["stages"][1]["what"].startswith("train 30 students")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "no recipe came; name one of `anglekit reproduce --list`"),
        (("mnli",), "--out is missing; name a directory, or plan with --dry-run"),
        (("mnly", "--dry-run"), "did you mean 'mnli'?"),
        (("mnli", "--dry-run", "--seeds", "x"), "--seeds is 'x'"),
        (("mnli", "--dry-run", "--scale", "0"), "--scale is 0; allowed: above 0, up to 1"),
        (
            ("builtin-inference", "--out", "x", "--device", "tpu"),
            "--device is 'tpu'; did you mean 'cpu'?",
        ),
    ],
)
def test_what_the_command_refuses_is_one_line(arguments, message):
    ran = command(*arguments)
    assert isinstance(ran.exception, InputError)
    assert message in str(ran.exception)


# ---- rows that are no text yet ----


TRAINED, SCORED = (Form(decisions("corrected", "causal"), training=training) for training in (True, False))


def table_of(tmp_path, rows) -> Table:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return read_table(str(path))


def test_triples_become_text(tmp_path):
    row = {"tripleset": [["Mars", "moons", "2"], ["Mars", "IS  a", "planet"]], "target": "Mars has two moons."}
    (made,) = transform_rows(table_of(tmp_path, [row]), "triples", SCORED)
    assert made == {"source": "Mars : moons : 2 | Mars : is a : planet", "target": "Mars has two moons."}
    (many,) = transform_rows(table_of(tmp_path, [row | {"references": ["a", "b"]}]), "triples", SCORED)
    assert many["target"] == ["a", "b"]


def test_a_conversation_asks_every_question(tmp_path):
    row = {"story": "Ann sat.", "questions": ["Who?", "What?"], "answers": {"input_text": ["Ann", "sat"]}}
    first, second = transform_rows(table_of(tmp_path, [row]), "conversation", TRAINED)
    assert first == {"prompt": "Ann sat.\n\nQ: Who?\n\nA:", "completion": "Ann"}
    assert second == {"prompt": "Ann sat.\n\nQ: Who?\n\nA: Ann\n\nQ: What?\n\nA:", "completion": "sat"}


def test_a_conversation_is_scored_at_its_last_question_and_trained_in_the_text_of_the_reading(tmp_path):
    row = {"story": "Ann sat.", "questions": ["Who?", "What?"], "answers": {"input_text": ["Ann", "sat"]}}
    row |= {"additional_answers": {"0": {"input_text": ["Ann", "she sat"]}, "1": {"input_text": ["Ann B", "Sat"]}}}
    (last,) = transform_rows(table_of(tmp_path, [row]), "conversation", SCORED)
    assert last == {"prompt": "Ann sat.\n\nQ: Who?\n\nA: Ann\n\nQ: What?\n\nA:", "completion": ["sat", "she sat"]}
    official = Form(decisions("official", "causal"), training=True)
    assert transform_rows(table_of(tmp_path, [row]), "conversation", official) == [
        {"prompt": "Ann sat.\n\nQ: Who?\n\n", "completion": "A: Ann"},
        {"prompt": "Ann sat.\n\nQ: What?\n\n", "completion": "A:"},
    ]


def test_a_translation_has_the_prefix_of_the_reading(tmp_path):
    row = {"translation": {"en": "A house.", "ro": "O casa."}}

    def source(reading, *, training):
        form = Form(decisions(reading, "t5"), training=training)
        (made,) = transform_rows(table_of(tmp_path, [row]), "translation", form)
        assert made["target"] == "O casa."
        return made["source"]

    assert source("official", training=True) == "tA house."
    assert source("official", training=False) == "t house."
    for training in (True, False):
        assert source("corrected", training=training) == "translate English to Romanian: A house."


def test_text_that_is_there_is_taken(tmp_path):
    rows = [{"source": "x", "target": "y", "other": 1}]
    assert transform_rows(table_of(tmp_path, rows), "triples", SCORED) == [{"source": "x", "target": "y"}]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"text": "x"}, "this recipe needs source, target, or what they are made of: tripleset"),
        ({"tripleset": "no list", "target": "y"}, "row 0 (counted from 0): tripleset is 'no list'; expected a list"),
        ({"tripleset": 3, "target": "y"}, "tripleset is '3'; expected a list"),
    ],
)
def test_rows_that_cannot_become_text_are_named(tmp_path, row, message):
    with pytest.raises(InputError, match=re.escape(message)):
        transform_rows(table_of(tmp_path, [row]), "triples", SCORED)


def test_questions_without_answers_are_named(tmp_path):
    row = {"story": "s", "questions": ["a", "b"], "answers": ["x"]}
    with pytest.raises(InputError, match="2 questions came with 1 answer;"):
        transform_rows(table_of(tmp_path, [row]), "conversation", TRAINED)


def test_the_oracle_of_flops_would_notice_a_wrong_formula():
    config = yaml.safe_load("{hidden_size: 64, num_hidden_layers: 3, num_attention_heads: 2, intermediate_size: 256}")
    cost = config_cost(AutoConfig.for_model("bert", vocab_size=30_000, **config), classifies=True)
    # Counting the embedding table as if it were multiplied would be far off.
    assert cost.parameters > 5 * cost.multiplied_text
