"""The recipes of the tasks that write, run on local files: BART, T5 and Qwen3 of a few units, two steps each."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import yaml

from anglekit.distillation.settings import DataSettings
from anglekit.errors import InputError
from anglekit.recipes import reproduction_stages as stages
from anglekit.recipes.own_sources import with_own_sources
from anglekit.recipes.plans import architecture, plans_of
from anglekit.recipes.published import confounds
from anglekit.recipes.recipe import Tokenizer
from anglekit.recipes.recipe_files import load_recipe, recipe_file, recipe_names
from anglekit.recipes.reproduce import reproduce, stage_names
from anglekit.recipes.reproduction_directory import ReproductionDirectory, confounds_beside
from anglekit.results.geometry import Geometry
from tests.more_cases import more

FAMILIES = {"wmt16-en-ro": "t5", "dart": "bart", "hellaswag": "qwen3", "coqa": "qwen3"}
BESIDE = {"wmt16-en-ro": (25.90, 22.65), "dart": (48.80, 47.94), "hellaswag": (63.11, 37.85), "coqa": (75.02, 35.40)}


def rows_of(name: str, words) -> list[dict[str, object]]:
    """Return sixteen rows as the hub's own table of a task has them."""
    draw = random.Random(0)

    def some(number: int) -> str:
        return " ".join(draw.choices(words, k=number))

    makers = {
        "wmt16-en-ro": lambda _row: {"translation": {"en": some(5), "ro": some(4)}},
        "dart": lambda _row: {
            "tripleset": [[some(1), some(1), some(2)], ["the", "FILM", "saw"]],
            "references": [some(5), some(4)],
        },
        "mnli": lambda row: {"premise": some(4), "hypothesis": some(2), "label": row % 3},
        "qnli": lambda row: {"question": some(4), "sentence": some(2), "label": row % 2},
        "qqp": lambda row: {"question1": some(4), "question2": some(2), "label": row % 2},
        "sst2": lambda row: {"sentence": some(4), "label": row % 2},
        "hellaswag": lambda row: {
            "activity_label": "film",
            "ctx_a": some(4),
            "ctx_b": some(2),
            "ctx": some(6),
            "endings": [some(3) for _ in range(4)],
            "label": str(row % 4),
        },
        "coqa": lambda _row: {
            "story": some(6),
            "questions": {"input_text": [some(2), some(2)], "turn_id": [1, 2]},
            "answers": {"span_start": [0, 0], "input_text": [some(1), some(1)], "turn_id": [1, 2]},
            "additional_answers": {"0": {"span_start": [0, 0], "input_text": [some(1), some(2)], "turn_id": [1, 2]}},
        },
    }
    return [makers[name](row) for row in range(16)]


def name_of_data(recipe: str) -> str:
    """Return the name of a recipe of another depth or width without that."""
    return recipe.removesuffix("-depth").removesuffix("-width")


def shortened(name: str, folder: Path, model: Path, words) -> Path:
    """Write the recipe of the paper with local files, a tiny teacher, two steps and LoRA of rank 4."""
    recipe = yaml.safe_load(recipe_file(name).read_text())
    table = folder / "rows.jsonl"
    table.write_text("".join(f"{json.dumps(row)}\n" for row in rows_of(name_of_data(name), words)))
    for part in ("teacher", "students"):
        training = recipe[part].get("training")
        if training is None:
            continue
        training.pop("epochs", None)
        if "lora_rank" in training:
            training["lora_rank"] = 4
        training |= {"max_steps": 2, "batch_size": 4, "accumulation": 1, "evaluate_every": 2, "warmup": 0}
        training |= {"max_length": 32, "learning_rate": 1e-3, "precision": "float32"}
        if "target_max_length" in training:
            training["target_max_length"] = 16
        if "beams" in training or "max_new_tokens" in training:
            training["max_new_tokens"] = 6
    wide = bool(recipe["students"].get("widths"))
    recipe["students"] |= {"layers": [2], "strategies": ["none", "forward"], "inits": ["random" if wide else "teacher"]}
    recipe["students"] |= {"seeds": [0]} | ({"widths": [8]} if wide else {})
    if "published" in recipe:
        recipe["published"]["layers"] = 2
    recipe["teacher"]["model"] = str(model)
    recipe["data"] |= {"train": str(table), "validation": dict.fromkeys(recipe["data"]["validation"], str(table))}
    recipe["analysis"] |= {"probe": str(table), "limit": 8, "dtype": "float32"}
    place = folder / f"{name}.yaml"
    place.write_text(yaml.safe_dump(recipe))
    return place


@more
@pytest.mark.parametrize("reading", ["official", "corrected"])
@pytest.mark.parametrize("name", [name for name in recipe_names() if not name.startswith("builtin")])
def test_every_recipe_of_the_paper_runs_in_both_readings(name, reading, tmp_path, save_tiny, words):
    family = FAMILIES.get(name_of_data(name), "bert")
    model = save_tiny(tmp_path / "model", family, depth=4, width=16, head=family != "bert")
    recipe = with_own_sources(load_recipe(shortened(name, tmp_path, model, words)), reading=reading)
    found = reproduce(recipe, tmp_path / "run", device="cpu")
    assert set(found.seconds) == set(stage_names(recipe))
    assert found.result["ours"].notna().all()
    assert found.summary()["reading"] == reading
    told = tuple(f"{name}: {one}" for one in found.summary()["confounds"])
    assert confounds_beside(tmp_path / "run" / f"sweep-{recipe.variants[0].name}") == told != ()
    assert ("differs from a careful run in" in found.text) == (reading == "official")


@pytest.mark.parametrize("name", FAMILIES)
def test_a_recipe_of_a_task_that_writes_runs(name, tmp_path, save_tiny, words):
    model = save_tiny(tmp_path / "model", FAMILIES[name], depth=4, head=True)
    recipe = load_recipe(shortened(name, tmp_path, model, words))
    found = reproduce(recipe, tmp_path / "run", device="cpu")
    assert set(found.seconds) == set(stage_names(recipe))
    published = found.result[found.result["published"].notna()]
    by_arm = dict(zip(published["strategy"], published["published"], strict=True))
    assert (by_arm[""], by_arm["forward"]) == BESIDE[name]
    scores = pd.read_csv(tmp_path / "run" / "scores.csv")
    assert set(recipe.scores) <= set(scores.columns)
    assert scores[list(recipe.scores)].notna().all().all()
    streams = {"decoder"} if FAMILIES[name] == "qwen3" else {"encoder", "decoder"}
    # The language models are large: one student at a time in memory.
    names = ["none-teacher-seed0", "forward-teacher-seed0"]
    places = [f"-{one}" for one in names] if recipe.students.side_by_side == 1 else [""]
    geometries = [Geometry.load(tmp_path / "run" / f"geometry-2-layers{place}") for place in places]
    assert [student for geometry in geometries for student in geometry.students] == names
    assert all(set(geometry.angles["stream"]) == streams for geometry in geometries)
    assert geometries[0].settings["prompts"] == ("included" if name == "coqa" else "alone")
    assert (tmp_path / "run" / "figure.png").read_bytes().startswith(b"\x89PNG")


def test_the_analysis_reads_sources_behind_their_prefix(tmp_path, save_tiny, words):
    model = save_tiny(tmp_path / "model", "t5", depth=4, head=True)
    recipe = load_recipe(shortened("wmt16-en-ro", tmp_path, model, words))
    prefix = "translate English to Romanian: "
    columns = DataSettings(source="translation.en", target="translation.ro", prefix=prefix)
    recipe = replace(recipe, data=replace(recipe.data, transform=None, columns=columns))
    read = stages.transform_data(recipe, tmp_path / "data")
    assert read.data == recipe.data
    assert (read.analysis.text, read.analysis.target) == ("source", "target")
    first = json.loads(Path(read.analysis.probe).read_text().splitlines()[0])
    row = rows_of("wmt16-en-ro", words)[0]["translation"]
    assert first == {"source": f"translate English to Romanian: {row['en']}", "target": row["ro"]}
    plain = replace(recipe, data=replace(recipe.data, columns=replace(recipe.data.columns, prefix=None)))
    assert stages.transform_data(plain, tmp_path / "none") == plain
    assert not (tmp_path / "none").exists()


def test_a_prefix_before_what_has_no_sources_is_refused(tmp_path, save_tiny, words):
    model = save_tiny(tmp_path / "model", "qwen3", depth=4, head=True)
    recipe = load_recipe(shortened("hellaswag", tmp_path, model, words))
    columns = replace(recipe.data.columns, prefix="Say: ")
    with pytest.raises(InputError, match="has a prefix and task hellaswag no sources"):
        stages.transform_data(replace(recipe, data=replace(recipe.data, columns=columns)), tmp_path / "data")


@pytest.mark.parametrize(("name", "score"), [("dart", "multi_bleu"), ("coqa", "last_turn_exact_match")])
def test_a_table_without_the_references_of_a_published_score_is_refused(name, score, tmp_path, save_tiny, words):
    model = save_tiny(tmp_path / "model", FAMILIES[name], depth=4, head=True)
    place = shortened(name, tmp_path, model, words)
    rows = [{**row, "references": None, "target": "a film"} for row in rows_of(name, words)]
    rows = [{key: cell for key, cell in row.items() if cell and key != "additional_answers"} for row in rows]
    (tmp_path / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    said = f"one reference in each row, and the score {score} is of several; give"
    with pytest.raises(InputError, match=said):
        reproduce(load_recipe(place), tmp_path / "run", device="cpu")
    assert not (tmp_path / "run").exists()
    # What an earlier process began stays, whatever it had done.
    (tmp_path / "run").mkdir()
    with ReproductionDirectory(tmp_path / "run") as begun:
        begun.begin({"scale": 1.0}, {})
    with pytest.raises(InputError, match="another reproduction"):
        reproduce(load_recipe(place), tmp_path / "run", device="cpu")
    assert (tmp_path / "run" / "reproduce.json").exists()


def test_a_strategy_without_a_recorded_rate_is_refused_and_equal_rates_are_one(tmp_path):
    recipe = load_recipe("qnli")
    assert recipe.learning_rates["random"] == recipe.learning_rates["none"] / 2
    assert not with_own_sources(recipe, equal_rates=True).learning_rates
    assert not with_own_sources(recipe, reading="corrected").learning_rates
    more_strategies = replace(recipe, students=replace(recipe.students, strategies=("none", "pkd-last")))
    with pytest.raises(InputError, match=r"no learning rate is recorded for strategy 'pkd-last'; .*--equal-rates"):
        plans_of(more_strategies, architecture(more_strategies))
    decoder = replace(recipe, teacher=replace(recipe.teacher, config={"model_type": "llama"}))
    with pytest.raises(InputError, match="task qnli and a teacher of the family causal"):
        plans_of(decoder, architecture(decoder))


def test_confounds_are_those_of_the_recipe_and_its_reading():
    told = "\n".join(confounds(load_recipe("qnli")))
    assert "none, forward, reverse at 2e-05; all-to-one, random at 1e-05" in told
    assert "random over 3 layers equals forward in one draw of 6" in told
    assert "students of 6 layers" in told
    careful = "\n".join(confounds(with_own_sources(load_recipe("qnli"), reading="corrected", seeds=(0, 1))))
    assert careful == "random over 3 layers equals forward in one draw of 6"
    assert "dropout of the teacher" in "\n".join(confounds(load_recipe("dart")))


def test_every_value_of_the_papers_training_says_where_it_is_from():
    sources = ("teacher script", "student script", "code", "paper", "inferred", "unknown", "ours")
    for name in (name for name in recipe_names() if not name.startswith("builtin")):
        inside = False
        for line in recipe_file(name).read_text().splitlines():
            inside = line.strip() == "training:" or (inside and line.startswith("    "))
            if inside and line.strip() != "training:":
                said = line.partition("#")[2].strip()
                assert said.startswith(sources), (name, line)


def test_of_several_references_the_analysis_reads_the_first(tmp_path, save_tiny, words):
    model = save_tiny(tmp_path / "model", "t5", depth=4, head=True)
    recipe = load_recipe(shortened("wmt16-en-ro", tmp_path, model, words))
    lines = [{"source": "the film", "target": "a plot", "references": ["a plot", "the plot"]} for _ in range(12)]
    own = tmp_path / "own.jsonl"
    own.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    columns = replace(recipe.data.columns, source="source", target="references", prefix="")
    data = replace(recipe.data, train=str(own), validation={"validation": str(own)}, columns=columns, transform=None)
    several = replace(recipe, data=data, published=None, analysis=replace(recipe.analysis, probe=str(own)))
    found = reproduce(several, tmp_path / "run", device="cpu")
    assert found.result["ours"].notna().all()


def test_ones_own_table_may_have_the_usual_columns(tmp_path):
    (tmp_path / "own.csv").write_text("source,target\na,b\n")
    (tmp_path / "named.jsonl").write_text('{"translation": {"en": "a", "ro": "b"}}\n')
    recipe = load_recipe("wmt16-en-ro")
    own = with_own_sources(recipe, train=str(tmp_path / "own.csv")).data.columns
    assert (own.source, own.target, own.prefix) == ("source", "target", "")
    # What the transform makes of it has the usual names.
    named = with_own_sources(recipe, train=str(tmp_path / "named.jsonl")).data.columns
    assert (named.source, named.target, named.prefix) == (None, None, "")


@pytest.mark.parametrize(
    ("kind", "config", "task", "table"),
    [
        ("t5", {"model_type": "t5", "d_model": 8, "d_kv": 4, "d_ff": 8, "num_layers": 3, "num_decoder_layers": 3,
                "num_heads": 2, "decoder_start_token_id": 0}, "seq2seq", "pairs"),
        pytest.param("bart", {"model_type": "bart", "d_model": 8, "encoder_layers": 3, "decoder_layers": 3,
                  "encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 8,
                  "decoder_ffn_dim": 8, "max_position_embeddings": 64}, "seq2seq", "pairs", marks=more),
        ("causal", {"model_type": "llama", "hidden_size": 8, "num_hidden_layers": 3, "num_attention_heads": 2,
                    "num_key_value_heads": 2, "intermediate_size": 8, "max_position_embeddings": 64},
         "multiple-choice", "choices"),
    ],
)  # fmt: skip
def test_a_teacher_that_writes_can_be_made_from_scratch(kind, config, task, table, tmp_path, save_tiny, words):
    name = "wmt16-en-ro" if table == "pairs" else "hellaswag"
    recipe = load_recipe(shortened(name, tmp_path, save_tiny(tmp_path / "unused", "t5"), words))
    lines = [
        {"source": "the film", "target": "a plot."} if table == "pairs" else
        {"prompt": "the film", "choices": ["was good.", "was bad."], "label": number % 2}
        for number in range(12)
    ]  # fmt: skip
    (tmp_path / "own.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    own = str(tmp_path / "own.jsonl")
    columns = (
        {"source": "source", "target": "target"} if table == "pairs" else {"prompt": "prompt", "choices": "choices"}
    )
    data = replace(
        recipe.data, train=own, validation={"validation": own}, columns=replace(type(recipe.data.columns)(), **columns)
    )
    teacher = replace(
        recipe.teacher,
        model=None,
        config=config,
        tokenizer=Tokenizer(kind, vocab_size=40, max_length=64),
        training=replace(recipe.students.training, target_max_length=None),
    )
    text = "prompt" if table == "choices" else None
    scratch = replace(
        recipe,
        task=task,
        teacher=teacher,
        data=data,
        analysis=replace(recipe.analysis, probe=own, text=text),
        scores=recipe.scores[:1],
        published=None,
    )
    found = reproduce(scratch, tmp_path / "run", device="cpu")
    assert "untrained" in stage_names(scratch)
    assert found.result["ours"].notna().all()
