"""What `AngleCallback` costs: a training with it over the same training without, and a measurement over bare passes.

The real pair where it is installed: a 2-layer student is fine-tuned on reviews, 32 at a time, and looked at before the
first step and after every 50 on a probe of 200 reviews. Run it alone on a quiet machine: `make bench`.
"""

from __future__ import annotations

import statistics
import sys
import tempfile

import torch
from bench_analysis import bare_forward
from bench_distillation_step import BATCH, collate, rows
from measuring import bert, checkpoint, paired_ratio, probe_of, real_pair, report, review_texts, word_tokenizer
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from anglekit.analysis.preparation import tokenized_probe
from anglekit.analysis.settings import AnalysisSettings
from anglekit.distillation.training.angle_callback import AngleCallback
from anglekit.models.checkpoints import Checkpoint

EVERY, PROBE = 50, 200


def teacher_checkpoint() -> Checkpoint:
    """Return the real teacher, or one of its shape."""
    found = real_pair()
    if found is not None:
        return checkpoint("teacher", found[0], found[2])
    tokenizer = word_tokenizer(review_texts())
    return checkpoint("teacher", bert(6, 384, len(tokenizer)), tokenizer)


def trainer_of(config: BertConfig, steps: int, output: str) -> Trainer:
    """Return a trainer of a student of two blocks."""
    torch.manual_seed(0)
    student = BertForSequenceClassification(BertConfig.from_dict({**config.to_dict(), "num_hidden_layers": 2}))
    arguments = TrainingArguments(
        output_dir=output,
        max_steps=steps,
        per_device_train_batch_size=BATCH,
        learning_rate=1e-5,
        logging_steps=EVERY,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )
    data = rows(None, config.vocab_size, steps * BATCH)
    trainer = Trainer(student, arguments, train_dataset=data, data_collator=collate)
    trainer.remove_callback(PrinterCallback)
    return trainer


def main() -> None:
    """Take turns between the two trainings."""
    steps, repeats = (EVERY, 1) if "--quick" in sys.argv else (2 * EVERY, 3)
    teacher, probe = teacher_checkpoint(), probe_of(review_texts(PROBE))
    with tempfile.TemporaryDirectory() as output:
        plain, watched = (trainer_of(teacher.model.config, steps, output) for _ in range(2))
        callback = AngleCallback(teacher, probe, every=EVERY).attach(watched)
        ratio, with_it, without = paired_ratio(watched.train, plain.train, repeats)
        seconds = [row["seconds"] for row in callback.history]
        student = checkpoint("student", watched.model.base_model, teacher.tokenizer)
        batches = list(tokenized_probe(teacher, [student], probe, AnalysisSettings()).batches())
        over_passes, measured, bare = paired_ratio(
            lambda: callback._measure(watched.args, watched.state, watched.control, watched.model),
            lambda: bare_forward(teacher, student, batches),
            2 * repeats + 1,
        )
    report(
        f"training with AngleCallback over without, every {EVERY} steps of {BATCH} on {PROBE} reviews",
        ratio,
        None,
        with_s=round(with_it, 2),
        without_s=round(without, 2),
        measurement_s=round(statistics.median(seconds), 3),
    )
    report(
        f"one measurement of AngleCallback over bare passes, {PROBE} reviews",
        over_passes,
        None,
        measurement_s=round(measured, 3),
        bare_s=round(bare, 3),
    )


if __name__ == "__main__":
    main()
