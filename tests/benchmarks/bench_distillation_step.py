"""A distillation step against a bare loop with the same forward passes, backward pass, clipping and optimiser.

Run it alone on a quiet machine: `make bench`.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from measuring import paired_ratio, real_pair, report, review_texts
from torch.utils.data import DataLoader
from transformers import BertConfig, BertForSequenceClassification, PreTrainedModel, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from anglekit.distillation.matching import LayerMatching, layer_matching
from anglekit.distillation.objective import DistillationObjective
from anglekit.distillation.trainer import DistillationTrainer

BATCH = 32


def classifier(config: BertConfig) -> BertForSequenceClassification:
    torch.manual_seed(0)
    return BertForSequenceClassification(config)


def rows(length: int | None, vocabulary: int, count: int) -> list[dict[str, torch.Tensor]]:
    """Return examples of the lengths of movie reviews, or all of one length."""
    generator = torch.Generator().manual_seed(0)
    texts = review_texts(count)
    lengths = [length or min(len(texts[i % len(texts)].split()) + 2, 64) for i in range(count)]
    return [
        {"input_ids": torch.randint(5, vocabulary, (n,), generator=generator), "labels": torch.tensor(i % 2)}
        for i, n in enumerate(lengths)
    ]


def collate(batch: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    ids = torch.nn.utils.rnn.pad_sequence([row["input_ids"] for row in batch], batch_first=True)
    labels = torch.stack([row["labels"] for row in batch])
    return {"input_ids": ids, "attention_mask": (ids != 0).long(), "labels": labels}


def bare_loop(
    teacher: PreTrainedModel,
    student: PreTrainedModel,
    matching: LayerMatching,
    data: list[dict[str, torch.Tensor]],
    device: torch.device,
) -> Callable[[], object]:
    """Return a loop as it would be written by hand: three losses, no logging, no checks."""
    optimizer = torch.optim.AdamW(student.parameters(), lr=1e-5, fused=True)

    def batches() -> Iterator[dict[str, torch.Tensor]]:
        for batch in DataLoader(data, BATCH, collate_fn=collate):  # type: ignore[arg-type]
            yield {key: value.to(device) for key, value in batch.items()}

    def run() -> None:
        student.train()
        for batch in batches():
            labels = batch.pop("labels")
            with torch.no_grad():
                t = teacher(**batch, output_hidden_states=True)
            s = student(**batch, output_hidden_states=True)
            mask = batch["attention_mask"][..., None]
            loss = F.cross_entropy(s.logits, labels)
            loss = loss + F.kl_div(
                s.logits.log_softmax(-1), t.logits.log_softmax(-1), reduction="batchmean", log_target=True
            )
            for ours, theirs in matching.pairs:
                squares = (s.hidden_states[ours] - t.hidden_states[theirs]).square() * mask
                loss = loss + 3.0 * squares.sum() / (mask.sum() * squares.shape[-1])
            loss.backward()
            torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
        if device.type == "cuda":
            torch.cuda.synchronize()

    return run


def measure(name: str, teacher_config: BertConfig, layers: int, length: int | None, steps: int, repeats: int) -> None:
    student_config = BertConfig.from_dict({**teacher_config.to_dict(), "num_hidden_layers": layers})
    matching = layer_matching("forward", teacher_blocks=teacher_config.num_hidden_layers, student_blocks=layers)
    data = rows(length, teacher_config.vocab_size, steps * BATCH)
    with tempfile.TemporaryDirectory() as output:
        arguments = TrainingArguments(
            output_dir=output,
            max_steps=steps,
            per_device_train_batch_size=BATCH,
            learning_rate=1e-5,
            logging_steps=50,
            logging_nan_inf_filter=False,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            train_sampling_strategy="sequential",
            dataloader_pin_memory=False,
        )
        trainer = DistillationTrainer(
            classifier(student_config),
            arguments,
            objective=DistillationObjective({"encoder": matching.pairs}),
            teacher=classifier(teacher_config),
            train_dataset=data,
            data_collator=collate,
        )
        trainer.remove_callback(PrinterCallback)
        device = arguments.device
        teacher = classifier(teacher_config).eval().to(device)
        bare = bare_loop(teacher, classifier(student_config).to(device), matching, data, device)

        def run() -> None:
            trainer.train()
            if device.type == "cuda":
                torch.cuda.synchronize()

        ratio, ours, theirs = paired_ratio(run, bare, repeats)
    per_step = {"step_ms": round(1000 * ours / steps, 1), "bare_ms": round(1000 * theirs / steps, 1)}
    report(f"distillation step over a bare loop, {name}", ratio, 1.05, device=device.type, **per_step)


def main() -> None:
    quick = "--quick" in sys.argv
    base = BertConfig(num_hidden_layers=12)
    steps, repeats = (4, 3) if quick else (10, 5)
    measure("12 x 768 teacher, 3-layer student, reviews", base, 3, None, steps, repeats)
    pair = real_pair()
    if pair is not None:
        config = BertConfig.from_dict(pair[0].config.to_dict())
        measure("real 6 x 384 teacher, 2-layer student, reviews", config, 2, None, 4 * steps, repeats)


if __name__ == "__main__":
    main()
