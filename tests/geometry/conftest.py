"""A probe, tiny checkpoints in memory and one analysis that many tests look at."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from anglekit.checkpoints import Checkpoint, weights_hash
from anglekit.geometry.analyze import analyze
from anglekit.geometry.results import Geometry
from anglekit.probes import ProbeData


@pytest.fixture(scope="session")
def probe(words) -> ProbeData:
    """Twenty-four examples of 1 to 20 words, with targets of 1 to 7."""
    rng = np.random.default_rng(3)
    texts = tuple(" ".join(rng.choice(words, size)) for size in rng.integers(1, 21, 24))
    targets = tuple(" ".join(rng.choice(words, size)) for size in rng.integers(1, 8, 24))
    return ProbeData("memory", "0" * 64, texts, None, targets, tuple(range(24)), 0, "text", None, "target")


@pytest.fixture(scope="session")
def checkpoint(tiny_model, tiny_tokenizer) -> Callable[..., Checkpoint]:
    """`checkpoint(family, name, **model options)`: what `load_checkpoint` would return."""

    def make(family: str, name: str, **options: int) -> Checkpoint:
        model = tiny_model(family, **options)
        streams = {"bert": ("encoder",), "t5": ("encoder", "decoder"), "bart": ("encoder", "decoder")}
        return Checkpoint(
            name, name, model, tiny_tokenizer(), streams.get(family, ("decoder",)), None, {}, weights_hash(model)
        )

    return make


@pytest.fixture(scope="session")
def bert_pair(checkpoint) -> tuple[Checkpoint, Checkpoint]:
    return checkpoint("bert", "teacher", seed=1), checkpoint("bert", "student", seed=2, depth=2)


@pytest.fixture(scope="session")
def bert_geometry(bert_pair, probe) -> Geometry:
    return analyze(bert_pair[0], bert_pair[1:], probe)
