"""Options are made of settings, and a typing mistake is answered before anything heavy is loaded."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Literal

import pytest
import typer
from transformers.trainer_utils import SchedulerType
from typer.testing import CliRunner

from anglekit.distillation.losses.functional import HIDDEN_LOSSES
from anglekit.distillation.losses.relations import RELATIONS
from anglekit.distillation.settings import SCHEDULES, TrainSettings
from anglekit.distillation.tasks.registry import TASKS
from anglekit.models.checkpoints import DTYPES
from anglekit.settings_fields import SettingError, check_settings, setting
from anglekit.vocabulary import ATTENTION_LOSSES, HIDDEN_LOSS_NAMES, PRECISIONS, TASK_KINDS, TASK_NAMES, TASK_STREAMS
from anglekit_cli.main import app as whole_app
from anglekit_cli.options import Options, takes_settings

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Size:
    """Settings for a test."""

    width: int = setting(4, "Of it all.", at_least=1, flags=("--broad", "-b"))
    layers: tuple[int, ...] | None = setting(None, "Which.", shown="all")
    kind: Literal["one", "two"] = setting("one", "What.", names=("one", "two"))
    loud: bool = setting(False, "Aloud.")
    sure: bool = setting(True, "Surely.")
    maybe: bool | None = setting(None, "Perhaps.", shown="no")
    hidden: int = setting(7, "Not an option.")

    def __post_init__(self) -> None:
        check_settings(self)


def parsed(*arguments, options=None):
    """Return the settings that a command received."""
    app, seen = typer.Typer(rich_markup_mode=None), []
    size = Annotated[Size, options or Options(without=("hidden",), prefix="my_")]

    def command(name: str, *, size) -> None:
        """Take settings."""
        seen.append((name, size))

    command.__annotations__ = {"name": str, "size": size, "return": None}
    app.command()(takes_settings(command))
    result = CliRunner().invoke(app, ["here", *arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return seen[0] if seen else result


def test_no_option_gives_the_defaults():
    assert parsed() == ("here", Size())


def test_every_kind_of_setting_is_an_option():
    given = ("--broad", "3", "--my-layers", "0, 6,12", "--my-kind", "two", "--my-loud", "--no-my-sure", "--no-my-maybe")
    assert parsed(*given) == ("here", Size(3, (0, 6, 12), "two", True, False, False))
    assert parsed("-b", "2", "--my-maybe")[1] == Size(2, maybe=True)


def test_help_and_defaults_are_the_declarations():
    text = " ".join(parsed("--help").output.split())
    assert "Of it all. [default: 4]" in text
    assert "Which. [default: (all)]" in text
    assert "--my-loud Aloud. " in text
    assert "--my-sure / --no-my-sure" in text
    assert "Not an option" not in text


def test_a_command_may_have_its_own_default_and_words():
    options = Options(only=("width",), defaults={"width": 9}, changes={"width": {"help": "Of this."}})
    assert parsed(options=options)[1].width == 9
    assert "Of this. [default: 9]" in " ".join(parsed("--help", options=options).output.split())


@pytest.mark.parametrize(
    ("given", "line"),
    [
        (("-b", "0"), "--broad is 0; allowed: at least 1"),
        (("--my-kind", "tow"), "--my-kind is 'tow'; did you mean 'two'? allowed: one, two"),
        (("--my-layers", "1,a"), "--my-layers '1,a' is not a list of layers; give numbers such as 0,6,12"),
    ],
)
def test_a_refusal_names_the_option(given, line):
    with pytest.raises(SettingError) as refused:
        parsed(*given)
    assert str(refused.value).startswith(line)


def test_every_setting_of_training_is_an_option_of_distill():
    options = {parameter.name for parameter in typer.main.get_command(whole_app).commands["distill"].params}
    assert {one.name for one in fields(TrainSettings)} - options == {"resumable", "eval_batch_size"}


def test_one_word_of_device_means_one_thing():
    commands = typer.main.get_command(whole_app).commands
    given = {
        (name, one.default, "auto takes an accelerator if there is one" in one.help)
        for name in commands
        for one in commands[name].params
        if one.name == "device"
    }
    assert given == {
        (name, "auto", True)
        for name in (
            "analyze",
            "extract",
            "evaluate",
            "finetune",
            "distill",
            "sweep",
            "reproduce",
            "gradients",
            "advise",
        )
    }


def test_the_names_known_without_torch_are_the_library_s():
    assert tuple(TASKS) == TASK_NAMES
    for name, kind in TASK_KINDS.items():
        assert isinstance(TASKS[name], type(TASKS[kind]))
        assert TASKS[name].streams == TASK_STREAMS.get(kind)
    assert (*HIDDEN_LOSSES, "feature-dynamics", *RELATIONS, *ATTENTION_LOSSES) == HIDDEN_LOSS_NAMES
    assert tuple(DTYPES) == PRECISIONS
    assert {str(kind.value) for kind in SchedulerType} <= set(SCHEDULES)


MISTAKES = [
    "distill t --strategy foward --layers 2 --task sst2 --train train.tsv --out o",
    "distill t --strategy forward --layers 2 --task sst --train train.tsv --out o",
    "distill t --strategy forward --layers 2 --task sst2 --train trian.tsv --out o",
    "distill t --strategy forward --layers 2 --task sst2 --train train.tsv --validation d=dve.tsv --out o",
    "distill ./nowhere --strategy forward --layers 2 --task sst2 --train train.tsv --out o",
    "distill t --strategy forward --layers 2 --task sst2 --train train.tsv --label labl --out o",
    "distill t --strategy forward --layers 2 --task sst2 --train train.tsv --init teecher --out o",
    "distill t --strategy forward --layers 2 --task sst2 --train train.tsv --hidden-loss mes --out o",
    "distill t --strategy gated --layers 2 --task sst2 --train train.tsv --hidden-loss minilm-v2 --out o",
    "sweep t --layers 2 --task sst2 --train train.tsv --hidden-loss minilm-v2 --teacher-cache c --out o",
    "distill t --strategy forward --layers 2 --task sst2 --train train.tsv --relation-heads 2 --out o",
    "distill t --strategy forward --layers 2 --task sst2 --train train.tsv --schedule liner --out o",
    "sweep t --strategies none,foward --layers 2 --task sst2 --train train.tsv --out o",
    "sweep t --seeds 0-x --layers 2 --task sst2 --train train.tsv --out o",
    "sweep t --inits radom --layers 2 --task sst2 --train train.tsv --out o",
    "finetune t --task sst2 --train train.tsv --text sentense --out o",
    "evaluate t --task sst2 --data dve.tsv",
    "evaluate t --task sst2 --data train.tsv --dtype float31",
    "analyze t t --probe prob.tsv --out o",
    "analyze t t --probe train.tsv --text sentense --out o",
    "analyze t t --probe train.tsv --prompt-reading alon --out o",
    "analyze ./nowhere t --probe train.tsv --out o",
    "analyze tt t --probe train.tsv --out o",
    "analyze c t --probe train.tsv --out o",
    "analyze org/name t --probe train.tsv --out o",
    "plan t --strategy foward",
    "plan ./nowhere --strategy forward",
    "plot t --figure figur --out x.png",
    "reproduce mnly --out o",
    "reproduce mnli --train trian.tsv --out o",
    "compare ./nowhere",
]

AGAINST_CONFIG = {
    "distill b --strategy forward --layers 9 --task sst2 --train train.tsv --out o": (
        "the student's encoder has 9 blocks and the teacher's 6; allowed: 1 to 6"
    ),
    "plan b --strategy forward --layers 2 --width 33": "a student of width 33 cannot split it into heads of even size",
    "plan b --strategy forward --layers 2 --width 128": "the student's width is 128 and the teacher's 64",
    "plan b --map 1:9 --layers 2": "the encoder map names teacher layer 9",
    "plan b --map encodr=1:2 --layers 2": "the map 'encodr=1:2' names stream 'encodr'; did you mean 'encoder'?",
    "plan b --strategy forward --layers 2 --copy 0,9 --init teacher": "the encoder copy map names block 9",
    "plan s2s --strategy forward --decoder-layers 3": "the student's decoder has 3 blocks and the teacher's 2",
    "sweep b --layers 9 --task sst2 --train train.tsv --out o": "the student's encoder has 9 blocks",
    "sweep b --map 1:2 --task sst2 --train train.tsv --out o": "No such option: --map",
    "distill b --student s --map 3:1 --task sst2 --train train.tsv --out o": "the encoder map names student layer 3",
    "analyze b s --probe train.tsv --out o --vertices 1,99": "layer 99 does not exist in s; ",
    "analyze b s --probe train.tsv --out o --teacher-layers 0,9": "layer 9 does not exist in b",
    "extract b --data train.tsv --out o --teacher-layers 9": "layer 9 does not exist in b",
    "finetune b --task seq2seq --train train.tsv --out o": "task seq2seq needs a model with encoder and decoder",
    "evaluate b --task language-model --data train.tsv": "task language-model needs a model with decoder, and b",
    "finetune b --task sst2 --train bare.tsv --out o": "bare.tsv has no column with a usual name for --label",
    "evaluate b --task sst2 --data bare.tsv --text sentense": "bare.tsv has no column 'sentense' for --text",
}
_DISTILL = "distill t --strategy forward --layers 2 --task sst2 --train train.tsv --out o"
_DATA = "--train train.tsv --validation train.tsv --out o"
WITHOUT_EFFECT = {
    f"{_DISTILL} --lora-alpha 16": "--lora-alpha came without --lora-rank and has no effect; add --lora-rank, or leave",
    f"{_DISTILL} --lora-merge": "--lora-merge came without --lora-rank",
    f"{_DISTILL} --hub-private": "--hub-private came without --push-to-hub and has no effect",
    f"{_DISTILL} --beams 4": "--beams came, and task sst2 does not read it; it is for seq2seq and completion; leave it",
    f"{_DISTILL} --max-new-tokens 4": "--max-new-tokens came, and task sst2 does not read it",
    f"{_DISTILL} --target label": "--target came, and task sst2 does not read it; it is for seq2seq",
    f"{_DISTILL} --kl-on-prompt": "--kl-on-prompt came, and task sst2",
    f"{_DISTILL} --select best": "--select came without --validation",
    f"{_DISTILL} --evaluate-every 5": "--evaluate-every came without --validation",
    f"{_DISTILL} --warmup 5 --schedule constant": "--warmup came, and a constant schedule has none",
    f"{_DISTILL} --alpha-kl 0 --temperature 2": "--temperature came with --alpha-kl 0, and has no effect",
    f"{_DISTILL} --alpha-hidden 0 --hidden-loss cosine": "--hidden-loss came with --alpha-hidden 0",
    f"distill t --strategy none --layers 2 --task sst2 {_DATA} --hidden-loss cosine": "--hidden-loss came with",
    f"distill t --control alone --layers 2 --task sst2 {_DATA} --kl-direction reverse": "--kl-direction came",
    f"distill t --control alone --layers 2 --task sst2 {_DATA} --teacher-cache c": "--teacher-cache came with --contr",
    f"{_DISTILL} --control random-teacher --teacher-cache c": "--teacher-cache came with --control random-teacher, who",
    f"sweep t --strategies none --layers 2 --task sst2 {_DATA} --match-streams encoder": "--match-streams came with",
    f"finetune t --task seq2seq {_DATA} --label label": "--label came, and task seq2seq",
    f"finetune t --task seq2seq {_DATA} --beams 1 --length-penalty 2": "--length-penalty came with one beam",
    f"finetune t --task language-model {_DATA} --target-max-length 9": "--target-max-length came, and task language-m",
    "evaluate t --task sst2 --data train.tsv --beams 4": "--beams came, and task sst2",
    "evaluate t --task sst2 --data train.tsv --overwrite": "--overwrite came without --examples",
    "analyze t t --probe train.tsv --out o --pad-to 64": "--pad-to came without --reading official",
    "analyze t t --probe train.tsv --out o --save-every 5": "--save-every came without --resume",
    "compare t --overwrite": "--overwrite came without --out",
    "compare t --full --json": "--full is about the printed tables",
    "models bert --streams decoder": "--streams came with one type, bert",
    "plot t --figure figure1 --numbers o.csv --dpi 100": "--dpi came without --out",
}


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """Return by mistake its exit code, its line and whether torch was loaded, from one fresh interpreter."""
    place = tmp_path_factory.mktemp("place")
    (place / "t").mkdir()
    (place / "t" / "config.json").write_text('{"model_type": "bert"}')
    (place / "c").mkdir()
    (place / "c" / "config.json").write_text('{"model_type": "cpmant"}')
    for name, blocks in (("b", 6), ("s", 2)):
        shape = {"num_hidden_layers": blocks, "hidden_size": 64, "num_attention_heads": 4}
        (place / name).mkdir()
        (place / name / "config.json").write_text(json.dumps({"model_type": "bert"} | shape))
    (place / "s2s").mkdir()
    (place / "s2s" / "config.json").write_text('{"model_type": "bart", "encoder_layers": 4, "decoder_layers": 2}')
    (place / "bare.tsv").write_text("sentence\tlable\na good film\t1\n")
    (place / "train.tsv").write_text("sentence\tlabel\na good film\t1\nbad plot\t0\n")
    program = f"""
import contextlib, io, json, sys
sys.path[:0] = {[str(ROOT), str(ROOT / "cli"), str(ROOT / "data")]!r}
from anglekit_cli.main import main
answers = {{}}
for mistake in {[*MISTAKES, *WITHOUT_EFFECT, *AGAINST_CONFIG]!r}:
    sys.argv = ["anglekit", *mistake.split()]
    with contextlib.redirect_stderr(io.StringIO()) as said:
        try:
            main()
        except SystemExit as stop:
            answers[mistake] = stop.code, said.getvalue(), "torch" in sys.modules or "transformers" in sys.modules
print(json.dumps(answers))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=120, cwd=place
    )
    assert sorted(path.name for path in place.iterdir()) == ["b", "bare.tsv", "c", "s", "s2s", "t", "train.tsv"]
    return json.loads(done.stdout)


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_typing_mistake_is_answered_without_torch(answers, mistake):
    code, line, heavy = answers[mistake]
    assert (code, heavy) == (2, False)
    assert line.startswith("anglekit: ")
    assert line.count("\n") == 1


def test_what_config_and_headers_tell_is_answered_without_torch(answers):
    _check_answers(answers, AGAINST_CONFIG)


def test_an_option_without_effect_is_refused(answers):
    _check_answers(answers, WITHOUT_EFFECT)


def _check_answers(answers, expected):
    for mistake, words in expected.items():
        code, line, heavy = answers[mistake]
        assert (code, heavy, line.count("\n")) == (2, False, 1), mistake
        assert line.startswith(f"anglekit: {words}"), line
