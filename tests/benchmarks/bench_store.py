"""The state store: an analysis whose teacher is read instead of run; the cost of writing, reading and of the names.

Run it alone on a quiet machine: `make bench`.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
from bench_analysis import bare_forward
from measuring import bert, checkpoint, paired_ratio, probe_of, report, review_texts, word_tokenizer

from anglekit.analysis.analyze import analyze
from anglekit.analysis.jobs.extract import extract_states, prepare_extraction
from anglekit.analysis.preparation import tokenized_probe
from anglekit.analysis.settings import AnalysisSettings
from anglekit.models.checkpoints import Checkpoint
from anglekit.runtime.workspace import Workspace
from anglekit.states.recorder import LayerRecorder, token_states
from anglekit.states.store import load_stored_teacher

SETTINGS = AnalysisSettings()


def bare_pass(teacher: Checkpoint, texts: list[str]) -> None:
    """Run the teacher over its batches and keep nothing, two batches at a time as the extraction does."""
    from anglekit.runtime.lanes import run_in_lanes

    probe = prepare_extraction(teacher, probe_of(texts), SETTINGS).probe
    with LayerRecorder(teacher.model, {"encoder": ()}) as recorder:
        run_in_lanes(
            probe.batches(),
            lambda batch, _slot: token_states(recorder, batch, Workspace()),
            lambda _batch, _states: None,
            2,
        )


def main() -> None:
    """Measure a 12 x 768 teacher and its 3-layer student."""
    quick = "--quick" in sys.argv
    texts = review_texts(100 if quick else 300)
    repeats = 3 if quick else 7
    tokenizer = word_tokenizer(texts)
    teacher = checkpoint("teacher", bert(12, 768, len(tokenizer)), tokenizer)
    student = checkpoint("student", bert(3, 768, len(tokenizer), seed=1), tokenizer)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "states"
        store = extract_states(out, teacher, probe_of(texts), SETTINGS)
        stored = load_stored_teacher(out)
        ratio, read, live = paired_ratio(
            lambda: analyze(stored, student, probe_of(texts)),
            lambda: analyze(teacher, student, probe_of(texts)),
            repeats,
        )
        report("analysis with the teacher from a store over running it", ratio, 0.30, store_s=read, live_s=live)

        ratio, write, bare = paired_ratio(
            lambda: extract_states(out, teacher, probe_of(texts), SETTINGS, overwrite=True),
            lambda: bare_pass(teacher, texts),
            repeats,
        )
        report("writing a store over a bare pass", ratio, 1.10, write_s=write, bare_s=bare)

        probe = tokenized_probe(teacher, [student], probe_of(texts), SETTINGS)
        reader = stored.store.reader(probe, {"encoder": range(13)})
        workspace, batches = Workspace(), list(probe.batches())
        files = [out / shard.file for shard in store.document.shards]

        def plain() -> None:
            for file in files:
                np.array(np.memmap(file, mode="r"))

        ratio, reading, copying = paired_ratio(
            lambda: [reader.token_states(batch, workspace) for batch in batches], plain, 3 * repeats
        )
        report("reading a store over copying its files from numpy.memmap", ratio, 2.0, read_s=reading, copy_s=copying)
        held = sum(shard.bytes for shard in store.document.shards)
        report(
            "size of a store over its states", held / prepare_extraction(teacher, probe_of(texts), SETTINGS).bytes, 1.02
        )
        batches = list(tokenized_probe(teacher, [student], probe_of(texts), SETTINGS).batches())
        ratio, run, bare = paired_ratio(
            lambda: analyze(stored, student, probe_of(texts)), lambda: bare_forward(student, student, batches), repeats
        )
        report("analysis from a store over two bare passes of the student", ratio, None, store_s=run, bare_s=bare)


if __name__ == "__main__":
    main()
