"""What all tests share; and what keeps a worker's start and its garbage collector cheap.

The process that hands out the tests reads this file too and needs no model: torch and transformers are imported by the
fixtures that use them.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import Phase, settings

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

    from anglekit.models.checkpoints import Checkpoint
    from anglekit.probes.data import ProbeData
    from anglekit.results.geometry import Geometry

# For `make mutants`: what fails need not be made small, and must fail each time.
settings.register_profile("mutants", phases=[Phase.explicit, Phase.generate], database=None, derandomize=True)


# A full collection walks the objects of every imported module, a quarter of a second, and every trainer asks for one:
# what is there before the tests begin, and what each file leaves, is taken out of its way.
@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


# Processes that tests start are forks of this one as it is before the first test.
@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> None:
    launching = sys.modules.get("tests.cli.launching")
    if launching is not None and not session.config.option.collectonly:
        launching.server()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> Generator[None, object, object]:
    result = yield
    if nextitem is not None and nextitem.path != item.path:
        gc.collect()
        gc.freeze()
    return result


@pytest.fixture
def nothing_frozen() -> Iterator[None]:
    """The garbage collector as a process has it that never froze anything."""
    gc.unfreeze()
    yield
    gc.freeze()


@pytest.fixture
def two_threads() -> Iterator[None]:
    """Two threads for torch, as on a machine with two cores; the suite runs with one."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def words() -> tuple[str, ...]:
    """The tokenizer's words, from which probe texts are made."""
    from tests.tiny_models import WORDS

    return WORDS


@pytest.fixture(scope="session")
def tiny_model() -> Callable[..., PreTrainedModel]:
    """`tiny_model(family, width=16, depth=3, seed=0, head=False)`."""
    from tests import tiny_models

    return tiny_models.tiny_model


@pytest.fixture(scope="session")
def tiny_tokenizer() -> Callable[..., PreTrainedTokenizerFast]:
    """`tiny_tokenizer(words)`."""
    from tests import tiny_models

    return tiny_models.tiny_tokenizer


@pytest.fixture(scope="session")
def save_tiny() -> Callable[..., Path]:
    """`save_tiny(directory, family_or_model, tokenizer=..., **model options)` writes a checkpoint directory."""
    from tests import tiny_models

    return tiny_models.save_tiny


@pytest.fixture(scope="session")
def probe(words) -> ProbeData:
    """Twenty-four examples of 1 to 20 words, with targets of 1 to 7."""
    import numpy as np

    from anglekit.probes.data import ProbeData

    rng = np.random.default_rng(3)
    texts = tuple(" ".join(rng.choice(words, size)) for size in rng.integers(1, 21, 24))
    targets = tuple(" ".join(rng.choice(words, size)) for size in rng.integers(1, 8, 24))
    return ProbeData("memory", "0" * 64, texts, None, targets, tuple(range(24)), 0, "text", None, "target")


@pytest.fixture(scope="session")
def checkpoint() -> Callable[..., Checkpoint]:
    """`checkpoint(family, name, **model options)`: what `load_checkpoint` would return."""
    from tests import tiny_models

    return tiny_models.tiny_checkpoint


@pytest.fixture(scope="session")
def bert_pair(checkpoint) -> tuple[Checkpoint, Checkpoint]:
    return checkpoint("bert", "teacher", seed=1), checkpoint("bert", "student", seed=2, depth=2)


@pytest.fixture(scope="session")
def bert_geometry(bert_pair, probe) -> Geometry:
    from anglekit.analysis.analyze import analyze

    return analyze(bert_pair[0], bert_pair[1:], probe)
