"""Draw the gallery: every figure family, from the saved results in data/gallery, with its numbers and its command.

Run it from the repository's root: `make figures`.
"""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from anglekit.plots.registry import FIGURES
from anglekit_cli.main import app

ROOT = Path(__file__).resolve().parents[1]
FIGURES_HOME = "figures"
INFERENCE = "data/gallery/inference"
SWEEP = "data/gallery/inference-sweep"
STEPS = [
    f"data/gallery/training/{strategy}/geometry-step-{step}"
    for strategy in ("none", "forward")
    for step in range(0, 601, 100)
]
#: Few enough students that curves can be told apart: one of each kind.
FEW = " ".join(
    f"--only-student {strategy}-{init}-seed0" for init in ("random", "teacher") for strategy in ("none", "forward")
)
ONE = "--only-student forward-teacher-seed0"

#: What is drawn: a figure's name, from what, and with which options.
GALLERY: dict[str, tuple[list[str], str]] = {
    "figure1": ([INFERENCE], f"--task-name 'built-in inference' {FEW}"),
    "angles-heatmap": ([INFERENCE], ONE),
    "null-heatmap": ([INFERENCE], ONE),
    "acute-fraction": ([INFERENCE], FEW),
    "layer-distance": ([INFERENCE], ONE),
    "layer-cosine": ([INFERENCE], ONE),
    "layer-cka": ([INFERENCE], ONE),
    "similarity-chance": ([INFERENCE], FEW),
    "layer-norms": ([INFERENCE], FEW),
    "anisotropy": ([INFERENCE], FEW),
    "dominant-dimensions": ([INFERENCE], ONE),
    "vertex-sweep": ([INFERENCE], FEW),
    "layer-trajectories": ([INFERENCE], FEW),
    "training-angles": (STEPS, ""),
    "matching-distance": (STEPS, ""),
    "learning-curves": ([SWEEP], ""),
    "scores-by-strategy": ([SWEEP], "--score-margin 0.02"),
    "score-cost": ([SWEEP], ""),
    "control-gain": ([SWEEP], ""),
    "angle-spread": ([INFERENCE, SWEEP], ""),
}

INTRODUCTION = """# Gallery

Every figure that `anglekit plot` draws, from the saved results in `data/gallery`, with its numbers (`.csv`) and the
command that makes it; `make figures` makes them all anew, and a test compares their numbers.

The teacher is the 6-layer, 64-wide BERT that `anglekit demo` trains on its built-in sentence pairs (92.9% on the
validation split), the students have 3 layers and 600 training steps. `data/gallery/README.md` says how the results were
made.
"""


def arguments(name: str, *targets: str) -> list[str]:
    """Return the arguments of `anglekit plot` for one picture."""
    places, options = GALLERY[name]
    return ["plot", *places, "--figure", name, *shlex.split(options), *targets]


def targets(name: str) -> list[str]:
    """Return where a picture and its numbers go."""
    return ["--out", f"{FIGURES_HOME}/{name}.png", "--numbers", f"{FIGURES_HOME}/{name}.csv", "--dpi", "150"]


def page() -> str:
    """Return the gallery's page."""
    parts = [INTRODUCTION]
    for name in GALLERY:
        family = FIGURES[name]
        command = shlex.join(["anglekit", *arguments(name, *targets(name))])
        parts.append(f"## {family.title}\n\n![{family.title}]({name}.png)\n\n{family.reading}\n\n    {command}\n")
    return "\n".join(parts)


def main() -> None:
    """Draw everything."""
    os.chdir(ROOT)
    for name in GALLERY:
        # In one process: the imports take longer than a drawing.
        app([*arguments(name, *targets(name)), "--overwrite"], standalone_mode=False, prog_name="anglekit")
    (ROOT / FIGURES_HOME / "README.md").write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
