"""How an analysis is run: the options of `analyze`, checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from anglekit.errors import InputError, suggest
from anglekit.models.projections import ProjectionKind
from anglekit.vocabulary import FinalNorm, Reading

__all__ = ["AnalysisSettings", "Effort", "Prompts"]

Effort = Literal["default", "all", "none"]
Prompts = Literal["alone", "included", "excluded"]


@dataclass(frozen=True)
class AnalysisSettings:
    """How an analysis is run.

    Attributes:
        reading: `corrected`, or `official`: what the paper's analysis code computes (inputs padded to `pad_to` and
            padding counted, the first and the last teacher layer, vertex layer 1, 1e-6 added to the product of
            lengths, Hugging Face's own last state).
        final_norm: `excluded` takes the last state before a final norm, `included` behind it.
        projection: how a student of another width is brought to the teacher's; None: the widths must agree.
        special_tokens: whether special tokens count.
        max_length: the most tokens of a text; None: what tokenizer and models allow.
        target_max_length: the same for targets.
        prompts: what a causal model reads: `alone`, the text; `included`, text and target as one sequence, all tokens
            counting; `excluded`, the same with the target's tokens alone counting. Encoder-decoders always read both.
        token_budget: the most padded tokens of a batch.
        pad_to: the padded length of the official reading.
        teacher_layers: the teacher layers to keep in every stream; None: all.
        vertices: the student layers to keep in every stream; None: all.
        seed: of the halves on which a projection is fitted and evaluated, of the sample of tokens and of the nulls.
        nulls: which null baselines, with the sweep of the vertex and the anisotropy: `default` those that cost about 1%
            of the forward passes, `all` the rest as well (Gaussians with the layers' covariance, a rotated student, an
            untrained student; every view of every kind of token), `none`.
        similarity: `default`: the debiased CKA of up to 256 examples; `all`: of the whole probe where the memory
            allows, with the minibatch estimate, linear CKA, Procrustes distance and mutual neighbours; `none`.

    Raises:
        InputError: an unknown name or a number out of range.
    """

    reading: Reading = "corrected"
    final_norm: FinalNorm = "excluded"
    projection: ProjectionKind | None = None
    special_tokens: bool = True
    max_length: int | None = None
    target_max_length: int | None = None
    prompts: Prompts = "alone"
    token_budget: int = 4096
    pad_to: int = 128
    teacher_layers: tuple[int, ...] | None = None
    vertices: tuple[int, ...] | None = None
    seed: int = 0
    nulls: Effort = "default"
    similarity: Effort = "default"

    def __post_init__(self) -> None:
        for option, value, allowed in (
            ("reading", self.reading, get_args(Reading)),
            ("final-norm", self.final_norm, get_args(FinalNorm)),
            ("prompts", self.prompts, get_args(Prompts)),
            ("nulls", self.nulls, get_args(Effort)),
            ("similarity", self.similarity, get_args(Effort)),
            ("projection", self.projection, (None, *get_args(ProjectionKind))),
        ):
            if value not in allowed:
                names = [name for name in allowed if name is not None]
                raise InputError(f"--{option} {value!r} is not known", allowed=suggest(str(value), names))
        if self.reading == "official" and (self.teacher_layers is not None or self.vertices is not None):
            raise InputError(
                "the official reading has one vertex and one pair", "leave out --teacher-layers and --vertices"
            )
        if self.reading == "official" and not self.special_tokens:
            raise InputError("the official reading counts every position", "leave out --no-special-tokens")
