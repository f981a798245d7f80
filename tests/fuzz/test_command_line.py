"""Damaged input through the commands: exit code 2, one line on the standard error, nothing written."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from anglekit_cli.main import main
from tests.fuzz.damaged_geometries import damage_geometry, documented
from tests.fuzz.damaged_recipes import write_recipe
from tests.fuzz.damaged_tables import write_table
from tests.fuzz.harness import Campaign, Case, cases, fresh
from tests.fuzz.mutations import damaged_file, damaged_json_file, damaged_safetensors
from tests.plots.full_geometry import full_geometry


@pytest.fixture(scope="module")
def original(save_tiny, tmp_path_factory) -> Path:
    """A checkpoint, a Geometry and a probe."""
    root = tmp_path_factory.mktemp("world")
    save_tiny(root / "model", "bert", depth=2, width=8)
    shutil.copytree(root / "model", root / "copy")
    documented(full_geometry(("none", "forward"), ("random",))).save(root / "geometry")
    (root / "probe.csv").write_text("text\nthe film was good\n")
    return root


def command(case: Case, world: Path) -> list[str]:
    """Damage one input of a command and return its words."""
    rng = case.rng
    model, copy, out = str(world / "model"), str(world / "copy"), str(world / "out")
    what = rng.choice(("model", "model", "probe", "geometry", "geometry", "recipe"))
    case.did.append(what)
    if what == "model":
        file = rng.choice(sorted((world / "model").glob("*.json")))
        if rng.random() < 0.4:
            damaged_safetensors(case, world / "model" / "model.safetensors")
        else:
            damaged_json_file(case, file, {"auto_map": {"AutoModel": "own.Own"}, "num_hidden_layers": 200})
        more = ["--nulls", "none", "--similarity", "none", "--quiet"]
        if rng.random() < 0.3:
            return ["plan", model, "--strategy", "forward", "--layers", "1"]
        pair = rng.sample((model, copy), 2)
        return ["analyze", *pair, "--probe", str(world / "probe.csv"), "--out", out, *more]
    if what == "probe":
        file = world / f"damaged{rng.choice(('.csv', '.tsv', '.jsonl', '.parquet'))}"
        write_table(case, file)
        if rng.random() < 0.5:
            damaged_file(case, file)
        options = ["--nulls", "none", "--similarity", "none", "--quiet", "--sample", "2", "--max-length", "16"]
        return ["analyze", model, copy, "--probe", str(file), "--out", out, *options]
    if what == "geometry":
        damage_geometry(case, world / "geometry", world)
        geometry = str(world / "geometry")
        return rng.choice(
            (
                ["plot", geometry, "--figure", "acute-fraction", "--out", f"{out}.svg"],
                ["compare", geometry, "--out", f"{out}.md"],
                ["merge", geometry, geometry, "--out", out],
            )
        )
    write_recipe(case, world / "recipe.yaml")
    return ["reproduce", str(world / "recipe.yaml"), "--dry-run"]


def test_commands(original, tmp_path, monkeypatch, capfd):
    campaign = Campaign(tmp_path / "place")
    world = campaign.place / "world"
    for case in cases("command", few=15):
        fresh(original, world)
        words = command(case, world)
        case.did.append(" ".join(words)[:200])
        monkeypatch.setattr("sys.argv", ["anglekit", *words])

        def run() -> None:
            capfd.readouterr()
            with pytest.raises(SystemExit) as ended:
                main()
            error = capfd.readouterr().err
            if ended.value.code == 0:
                for written in world.glob("out*"):
                    shutil.rmtree(written) if written.is_dir() else written.unlink()
                return
            assert ended.value.code in (1, 2), ended.value.code
            assert len(error.splitlines()) == 1, error[:500]
            assert error.startswith("anglekit: "), error[:500]
            assert not [each for each in world.iterdir() if "out" in each.name and each.name != "outside"]

        campaign.judge(case, run, "")
    campaign.finish()
