"""Every command and program of the README and of the pages in docs runs, on tiny models of the names used there."""

from __future__ import annotations

import copy
import re
import shlex
import sys
from pathlib import Path

import pytest
from transformers import BertConfig, BertForSequenceClassification, Qwen3Config, Qwen3ForCausalLM

from anglekit.recipes import reproduce
from anglekit.recipes.recipe_files import recipe_names
from anglekit_cli.main import app, main
from tests.recipes.small_recipes import write_small_demo

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = {path.name: path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs" / "pages").glob("*.md"))}
TEXT = "\n".join([README, *PAGES.values()])
COMMANDS = re.findall(r"^    (anglekit .+)$", TEXT, flags=re.MULTILINE)
PROGRAMS = re.findall(r"^```python\n(.+?)^```$", TEXT, flags=re.MULTILINE | re.DOTALL)
# The README tells its story from the end; what makes a directory runs before what reads it.
ORDER = (
    "finetune", "plan", "distill", "evaluate", "gradients", "advise", "extract", "analyze", "plot", "sweep", "compare",
    "report", "reproduce", "demo", "models",
)  # fmt: skip
# What makes the commands end soon.
SHORTER = {
    "finetune": "--max-steps 2",
    "distill": "--max-steps 2",
    "sweep": "--max-steps 2 --seeds 0 --strategies forward,reverse",
    "report": "--processes 1",
    "gradients": "--group 2",
    "advise": "--group 2",
}
# What runs in the place of the recipe that is shown, and as the demo.
SMALL_RECIPE = "small.yaml"
SENTENCES = ("a good film", "bad plot", "a great cast and no plot", "good", "a bad film with a good cast", "no film")


def shortened(command: str) -> list[str]:
    words = shlex.split(command)[1:]
    more = SHORTER.get(words[0], "")
    if words[0] == "sweep" and "--student" not in words:
        more += " --inits random"
    if words[0] == "reproduce" and "--out" in words and "--dry-run" not in words:
        assert words[1] in recipe_names()
        words[1] = SMALL_RECIPE
    return [*words, *more.split()]


@pytest.fixture
def place(tmp_path, tiny_tokenizer, monkeypatch):
    """Return a directory that holds the model and the tables that the README names."""
    root = tmp_path
    tokenizer = tiny_tokenizer()
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        num_hidden_layers=12,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
        num_labels=2,
    )
    shapes = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2, "num_key_value_heads": 1}
    causal = Qwen3Config(vocab_size=len(tokenizer), num_hidden_layers=4, head_dim=8, pad_token_id=0, **shapes)
    shorter = copy.copy(config)
    shorter.num_hidden_layers = 3
    for name, model in {
        "bert-base-uncased": BertForSequenceClassification(config),
        "pruned": BertForSequenceClassification(shorter),
        "teacher-lm": Qwen3ForCausalLM(causal),
    }.items():
        model.save_pretrained(root / name)
        tokenizer.save_pretrained(root / name)
    rows = "".join(f"{text}\t{number % 2}\n" for number, text in enumerate(SENTENCES * 2))
    for table in ("train.tsv", "dev.tsv"):
        (root / table).write_text(f"sentence\tlabel\n{rows}", encoding="utf-8")
    write_small_demo(root / SMALL_RECIPE, ("forward", "reverse"))
    monkeypatch.setattr(reproduce, "DEMO_RECIPE", SMALL_RECIPE)
    monkeypatch.chdir(root)
    return root


def test_the_readme_shows_every_command():
    shown = set(re.findall(r"^    anglekit (\w+)", README, flags=re.MULTILINE))
    assert shown == {command.callback.__name__ for command in app.registered_commands} - {"merge", "push"}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:'pin_memory' argument")
def test_every_command_and_every_program_runs(place, monkeypatch):
    """In an order that they can have. One test, because each rests on what the others left."""
    for command in sorted(COMMANDS, key=lambda line: ORDER.index(line.split()[1])):
        monkeypatch.setattr(sys, "argv", ["anglekit", *shortened(command)])
        with pytest.raises(SystemExit) as stop:
            main()
        assert stop.value.code == 0, command
    for name in ("figure1.png", "angles.pdf", "report.html", "thorough/nulls.parquet", "runs/sweep/scores.csv"):
        assert (place / name).stat().st_size > 0
    assert not (place / "runs/mnli").exists()
    assert len(PROGRAMS) == 10
    for program in PROGRAMS:
        exec(compile(program, "README.md", "exec"), {})


LINK = re.compile(r"\]\((?!http)([^)#]+)\)")
LINKS = dict.fromkeys(LINK.findall(README), ROOT) | {
    path: ROOT / "docs" / "pages" for page in PAGES.values() for path in LINK.findall(page)
}


@pytest.mark.parametrize("path", sorted(LINKS))
def test_what_the_pages_link_to_exists(path):
    assert (LINKS[path] / path).exists()
