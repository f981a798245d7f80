"""How large the built-in demo's models are and how long they train: chosen for two CPU cores and four minutes."""

from __future__ import annotations

from dataclasses import dataclass

from anglekit.errors import InputError

__all__ = ["DemoSettings"]


@dataclass(frozen=True)
class DemoSettings:
    """Sizes and schedules of `anglekit demo`.

    Both schedules are linear with warm-up, AdamW, gradient norm clipped at 1, no dropout.

    Raises:
        InputError: a size is not positive, the heads do not divide the width, or a student is deeper than the teacher.
    """

    train_rows: int = 48_000
    vocab_size: int = 256
    max_length: int = 32
    max_position_embeddings: int = 64
    teacher_layers: int = 6
    width: int = 64
    heads: int = 4
    intermediate: int = 128
    initializer_range: float = 0.05
    dropout: float = 0.0
    teacher_batch_size: int = 64
    weight_decay: float = 0.01
    warmup_fraction: float = 0.1
    max_grad_norm: float = 1.0
    teacher_steps: int = 1_500
    teacher_learning_rate: float = 1e-3
    student_layers: int = 3
    student_batch_size: int = 32
    student_steps: int = 600
    student_learning_rate: float = 2e-3
    probe_rows: int = 500

    def __post_init__(self) -> None:
        counts = {
            name: getattr(self, name)
            for name in (
                "train_rows",
                "vocab_size",
                "max_length",
                "teacher_layers",
                "width",
                "heads",
                "intermediate",
                "teacher_batch_size",
                "student_batch_size",
                "teacher_steps",
                "student_layers",
                "student_steps",
                "probe_rows",
            )
        }
        for name, value in counts.items():
            if value < 1:
                raise InputError(f"demo setting {name} is {value}: give a whole number of at least 1")
        if self.width % self.heads:
            raise InputError(
                f"demo setting heads is {self.heads}, which does not divide width {self.width}: give a divisor"
            )
        if self.student_layers > self.teacher_layers:
            raise InputError(
                f"demo setting student_layers is {self.student_layers}: "
                f"give at most teacher_layers, {self.teacher_layers}"
            )
