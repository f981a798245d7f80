"""How an analysis is run: the settings of `analyze`, each declared once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from anglekit.errors import InputError
from anglekit.settings_fields import DATA, LENGTHS, MEASURED, check_settings, documented, setting
from anglekit.vocabulary import READINGS, FinalNorm, ProjectionKind, Reading

Effort = Literal["default", "all", "none"]
Prompts = Literal["alone", "included", "excluded"]


@documented
@dataclass(frozen=True)
class AnalysisSettings:
    """How an analysis is run.

    The official reading is what the paper's analysis code computes: inputs padded to `pad_to` and padding counted, the
    first and the last teacher layer, vertex layer 1, 1e-6 added to the product of lengths, Hugging Face's own last
    state. Of the prompts of causal models, `alone` is the text; `included` is text and target as one sequence, all
    tokens counting; `excluded` is the same with the target's tokens alone counting. Encoder-decoders always read both.
    The draws are the halves on which a projection is fitted and evaluated, the sample of tokens and the nulls.

    Raises:
        InputError: an unknown name or a number out of range.
    """

    reading: Reading = setting(
        "corrected", "corrected, or official: what the paper's analysis code computes.", names=READINGS, group=MEASURED
    )
    final_norm: FinalNorm = setting(
        "excluded",
        "Last state before a final norm (excluded) or behind it (included).",
        names=get_args(FinalNorm),
        group=MEASURED,
    )
    projection: ProjectionKind | None = setting(
        None,
        "For a student of another width: adapter, least-squares or procrustes.",
        names=get_args(ProjectionKind),
        group=MEASURED,
    )
    special_tokens: bool = setting(True, "Count special tokens, or leave them out.", group=MEASURED)
    max_length: int | None = setting(None, "Most tokens of a text; longer ones are truncated.", group=LENGTHS)
    target_max_length: int | None = setting(None, "Most tokens of a target.", group=LENGTHS)
    source_lang: str | None = setting(
        None,
        "Language of the texts, by its code in the tokenizer (mBART, NLLB, M2M-100): en_XX, eng_Latn, en.",
        metavar="CODE",
        shown="the tokenizer's",
        group=DATA,
    )
    target_lang: str | None = setting(
        None,
        "Language of the targets, by its code in the tokenizer.",
        metavar="CODE",
        shown="the tokenizer's",
        group=DATA,
    )
    prompts: Prompts = setting(
        "alone",
        "Causal models: read the text alone, or its target too and count the text's tokens or not.",
        names=get_args(Prompts),
        metavar="alone|included|excluded",
        flags=("--prompt-reading",),
        shown="included with --target, else alone",
        group=LENGTHS,
    )
    token_budget: int = setting(
        4096, "Most tokens of a batch, padding included.", flags=("--batch-tokens",), group=LENGTHS
    )
    pad_to: int = setting(128, "Padded length of the official reading.", group=LENGTHS, needs="reading=official")
    teacher_layers: tuple[int, ...] | None = setting(
        None, "Teacher layers to keep, e.g. 0,6,12; all by default.", group=MEASURED
    )
    vertices: tuple[int, ...] | None = setting(
        None, "Student layers to keep, e.g. 1,3; all by default.", group=MEASURED
    )
    seed: int = setting(0, "Seed of the random draws.", group=MEASURED)
    nulls: Effort = setting(
        "default",
        "Null baselines, vertex sweep and anisotropy: default (a few percent of the time), all (with a rotated and an "
        "untrained student and Gaussians of the layers' covariance) or none.",
        names=get_args(Effort),
        group=MEASURED,
    )
    similarity: Effort = setting(
        "default",
        "CKA between layers, with its error and chance: default (up to 256 examples), all (over the whole probe; "
        "linear CKA, Procrustes distance and mutual neighbours too; slow) or none.",
        names=get_args(Effort),
        group=MEASURED,
    )

    keep_extremes: bool = setting(
        False,
        "Keep for every angle the tokens where it is smallest and largest, with the words around them: the result then "
        "holds words of the probe.",
        group=MEASURED,
    )

    def __post_init__(self) -> None:
        check_settings(self)
        if self.reading == "official" and (self.teacher_layers is not None or self.vertices is not None):
            raise InputError(
                "the official reading has one vertex and one pair", "leave out --teacher-layers and --vertices"
            )
        if self.reading == "official" and not self.special_tokens:
            raise InputError("the official reading counts every position", "leave out --no-special-tokens")
