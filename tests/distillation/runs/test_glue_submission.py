"""Files for GLUE's test server."""

from pathlib import Path

import pytest
from transformers import AutoModelForSequenceClassification
from typer.testing import CliRunner

from anglekit.distillation.runs.evaluate import evaluate
from anglekit.distillation.runs.glue_submission import GLUE_FILES, glue_submission
from anglekit.errors import InputError
from anglekit.vocabulary import TASK_LABELS
from anglekit_cli.main import app


@pytest.fixture(scope="module")
def world(tmp_path_factory, tiny_model, tiny_tokenizer, words):
    root = tmp_path_factory.mktemp("glue")
    config = tiny_model("bert", width=16, depth=2, head=True).config
    made = {}
    for task, names in (("mnli", TASK_LABELS["mnli"]), ("sst2", TASK_LABELS["sst2"]), ("stsb", ("score",))):
        # In another order than the server's numbers.
        own = dict(enumerate(reversed(names)))
        config.num_labels, config.id2label, config.label2id = len(names), own, {v: k for k, v in own.items()}
        config.problem_type, config.initializer_range = "regression" if task == "stsb" else None, 2.0
        AutoModelForSequenceClassification.from_config(config).save_pretrained(root / task)
        tiny_tokenizer().save_pretrained(root / task)
        made[task] = str(root / task)
    head = {"mnli": "premise\thypothesis", "sst2": "sentence", "stsb": "sentence1\tsentence2"}
    for task, columns in head.items():
        pairs = "\t" in columns
        rows = [f"{a} film\t{b} plot" if pairs else f"{a} film {b}" for a, b in zip(words, words[::-1], strict=True)]
        (root / f"{task}.tsv").write_text("\n".join([columns, *rows]) + "\n")
        made[f"{task} data"] = str(root / f"{task}.tsv")
    return made


@pytest.mark.parametrize("task", ["mnli", "sst2", "stsb"])
def test_every_row_has_the_models_answer_as_the_server_names_it(world, task, tmp_path):
    tables = [f"{name}={world[f'{task} data']}" for name in ("matched", "mismatched")[: len(GLUE_FILES[task])]]
    found = glue_submission(world[task], task=task, data=tables)
    assert tuple(found) == GLUE_FILES[task]
    first, *lines = next(iter(found.values())).splitlines()
    assert first == "index\tprediction"
    answers = [line.split("\t") for line in lines]
    assert [int(number) for number, _ in answers] == list(range(20))
    if task == "stsb":
        assert all(0.0 <= float(said) <= 5.0 for _, said in answers)
        return
    # The same model scored against its own answers is always right.
    plain = Path(world[f"{task} data"]).read_text().splitlines()
    names = [said if task == "mnli" else TASK_LABELS[task][int(said)] for _, said in answers]
    assert set(names) <= set(TASK_LABELS[task])
    labelled = tmp_path / "labelled.tsv"
    labelled.write_text("\n".join([f"{plain[0]}\tlabel", *map("\t".join, zip(plain[1:], names, strict=True))]) + "\n")
    assert evaluate(world[task], task=task, data=str(labelled)).scores["accuracy"][0] == 1.0


def test_the_command_writes_the_files_and_refuses_what_the_server_has_not(world, tmp_path):
    data = world["mnli data"]
    arguments = ["evaluate", world["mnli"], "--task", "mnli", "--data", f"m={data}", "--data", f"mm={data}"]
    arguments += ["--glue-submission", str(tmp_path / "out")]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert sorted(one.name for one in (tmp_path / "out").iterdir()) == ["MNLI-m.tsv", "MNLI-mm.tsv"]
    for task, tables, message in (
        ("mnli", [data], r"1 tables, and mnli has 2 \(MNLI-m.tsv, MNLI-mm.tsv\); give the test tables in this order"),
        ("classification", [data], "came with task classification; "),
    ):
        with pytest.raises(InputError, match=message):
            glue_submission(world["mnli"], task=task, data=tables)
