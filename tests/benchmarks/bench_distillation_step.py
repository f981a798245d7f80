"""A distillation step against a bare loop with the same forward passes, backward pass, clipping and optimiser.

BERT classifying, T5 with both streams matched and Qwen3 on prompts with completions. Run it alone on a quiet machine:
`make bench`; `--only=t5` measures one.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from measuring import paired_ratio, real_pair, report, review_texts
from torch.utils.data import DataLoader
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    PreTrainedModel,
    Qwen3Config,
    Qwen3ForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
    TrainingArguments,
)
from transformers.trainer_callback import PrinterCallback

from anglekit.distillation.losses.objective import DistillationObjective
from anglekit.distillation.matching.strategies import layer_matching
from anglekit.distillation.tasks.causal import CausalBatches
from anglekit.distillation.tasks.data import PaddedBatches
from anglekit.distillation.training.trainer import DistillationTrainer
from anglekit.vocabulary import Stream

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


@dataclass(frozen=True)
class Case:
    """What is distilled: matched layers by stream, and the batches; `make` gives the model of a depth."""

    name: str
    make: Callable[[int], PreTrainedModel]
    teacher_blocks: int
    student_blocks: int
    data: list[dict[str, torch.Tensor]]
    collate: Callable[[list[dict[str, torch.Tensor]]], dict[str, torch.Tensor]]
    batch: int
    streams: tuple[Stream, ...] = ("encoder",)
    causal: bool = False

    @property
    def pairs(self) -> dict[Stream, tuple[tuple[int, int], ...]]:
        depths = {"teacher_blocks": self.teacher_blocks, "student_blocks": self.student_blocks}
        family = "causal" if self.causal else "bert"
        return {one: layer_matching("forward", stream=one, family=family, **depths).pairs for one in self.streams}


def read(model: PreTrainedModel, batch: dict[str, torch.Tensor], streams: Sequence[Stream]) -> tuple[Any, list[Any]]:
    """Return logits and each stream's states of one forward pass, as a person would ask for them."""
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    cache = {} if streams == ("encoder",) else {"use_cache": False}
    output = model(**inputs, **cache, output_hidden_states=True)
    if len(streams) == 2:
        return output.logits, [output.encoder_hidden_states, output.decoder_hidden_states]
    return output.logits, [output.hidden_states]


def losses_by_hand(case: Case, batch: dict[str, torch.Tensor], student: Any, teacher: Any) -> torch.Tensor:
    """Return the three losses, each over the tokens that count."""
    (ours, our_states), (theirs, their_states) = student, teacher
    labels = batch["labels"]
    if labels.dim() == 2:
        if case.causal:
            ours, theirs, labels = ours[:, :-1], theirs[:, :-1], labels[:, 1:]
        kept = labels != -100
        ours, theirs, labels = ours[kept], theirs[kept], labels[kept]
    loss = F.cross_entropy(ours, labels)
    loss = loss + F.kl_div(ours.log_softmax(-1), theirs.log_softmax(-1), reduction="batchmean", log_target=True)
    for stream, mine, other in zip(case.streams, our_states, their_states, strict=True):
        of_target = stream == "decoder" and not case.causal
        mask = ((batch["labels"] != -100) if of_target else batch["attention_mask"] != 0)[..., None]
        for s, t in case.pairs[stream]:
            squares = (mine[s] - other[t]).square() * mask
            loss = loss + 3.0 * squares.sum() / (mask.sum() * squares.shape[-1])
    return loss


def bare_loop(
    case: Case, teacher: PreTrainedModel, student: PreTrainedModel, device: torch.device
) -> Callable[[], object]:
    """Return a loop as it would be written by hand: three losses, no logging, no checks."""
    optimizer = torch.optim.AdamW(student.parameters(), lr=1e-5, fused=True)

    def run() -> None:
        student.train()
        for batch in DataLoader(case.data, case.batch, collate_fn=case.collate):  # type: ignore[arg-type]
            batch = {key: value.to(device) for key, value in batch.items()}
            if len(case.streams) == 2:
                batch["decoder_input_ids"] = student.prepare_decoder_input_ids_from_labels(labels=batch["labels"])
            with torch.no_grad():
                taught = read(teacher, batch, case.streams)
            losses_by_hand(case, batch, read(student, batch, case.streams), taught).backward()
            torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
        if device.type == "cuda":
            torch.cuda.synchronize()

    return run


def measure(case: Case, repeats: int) -> None:
    steps = len(case.data) // case.batch
    with tempfile.TemporaryDirectory() as output:
        arguments = TrainingArguments(
            output_dir=output,
            max_steps=steps,
            per_device_train_batch_size=case.batch,
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
            case.make(case.student_blocks),
            arguments,
            objective=DistillationObjective(case.pairs, causal=case.causal),
            teacher=case.make(case.teacher_blocks),
            train_dataset=case.data,
            data_collator=case.collate,
        )
        trainer.remove_callback(PrinterCallback)
        device = arguments.device
        teacher, student = case.make(case.teacher_blocks).eval().to(device), case.make(case.student_blocks).to(device)
        bare = bare_loop(case, teacher, student, device)

        def run() -> None:
            trainer.train()
            if device.type == "cuda":
                torch.cuda.synchronize()

        ratio, ours, theirs = paired_ratio(run, bare, repeats)
    per_step = {"step_ms": round(1000 * ours / steps, 1), "bare_ms": round(1000 * theirs / steps, 1)}
    report(f"distillation step over a bare loop, {case.name}", ratio, 1.05, device=device.type, **per_step)


def bert_case(name: str, config: BertConfig, student_blocks: int, steps: int) -> Case:
    def make(blocks: int) -> PreTrainedModel:
        return classifier(BertConfig.from_dict({**config.to_dict(), "num_hidden_layers": blocks}))

    data = rows(None, config.vocab_size, steps * BATCH)
    return Case(name, make, config.num_hidden_layers, student_blocks, data, collate, BATCH)


def t5_case(steps: int) -> Case:
    """Return T5 of the width of t5-small, 6 and 6 blocks to 2 and 2, on 8 pairs of the lengths of reviews."""

    def make(blocks: int) -> PreTrainedModel:
        torch.manual_seed(0)
        return T5ForConditionalGeneration(
            T5Config(num_layers=blocks, num_decoder_layers=blocks, decoder_start_token_id=0)
        )

    data = [
        {"input_ids": row["input_ids"].tolist(), "labels": row["input_ids"].flip(0).tolist()}
        for row in rows(None, 32000, steps * 8)
    ]
    streams: tuple[Stream, ...] = ("encoder", "decoder")
    return Case("T5 6+6 x 512, 2+2-layer student", make, 6, 2, data, PaddedBatches(0), 8, streams)


def qwen3_case(steps: int) -> Case:
    """Return Qwen3 of 8 blocks to 2, on 8 prompts with their completions, of the lengths of reviews."""

    def make(blocks: int) -> PreTrainedModel:
        torch.manual_seed(0)
        shape = {"hidden_size": 512, "intermediate_size": 1536, "num_attention_heads": 8, "num_key_value_heads": 4}
        return Qwen3ForCausalLM(
            Qwen3Config(vocab_size=32000, num_hidden_layers=blocks, head_dim=64, tie_word_embeddings=True, **shape)
        )

    data = [
        {"input_ids": row["input_ids"].tolist(), "unlabelled": len(row["input_ids"]) // 2}
        for row in rows(None, 32000, steps * 8)
    ]
    return Case("Qwen3 8 x 512, 2-layer student", make, 8, 2, data, CausalBatches(0), 8, ("decoder",), causal=True)


def main() -> None:
    quick = "--quick" in sys.argv
    chosen = next((argument.removeprefix("--only=") for argument in sys.argv if argument.startswith("--only=")), "")
    steps, repeats = (4, 3) if quick else (10, 5)
    cases = {
        "bert": lambda: bert_case(
            "12 x 768 teacher, 3-layer student, reviews", BertConfig(num_hidden_layers=12), 3, steps
        ),
        "t5": lambda: t5_case(2 * steps),
        "qwen3": lambda: qwen3_case(2 * steps),
    }
    if (pair := real_pair()) is not None:
        config = BertConfig.from_dict(pair[0].config.to_dict())
        cases["real"] = lambda: bert_case("real 6 x 384 teacher, 2-layer student, reviews", config, 2, 4 * steps)
    for name, make in cases.items():
        if chosen in ("", name):
            measure(make(), repeats)


if __name__ == "__main__":
    main()
