"""Two batches of an analysis at once: the same result, and only where it is safe."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch

from anglekit.analysis.analyze import analyze
from anglekit.analysis.preparation import tokenized_probe
from anglekit.analysis.settings import AnalysisSettings
from anglekit.runtime.lanes import lane_count
from anglekit.states.recorder import LayerRecorder, token_states
from tests.analysis.naive_analysis import assert_close
from tests.analysis.same_geometry import assert_same

CPU = torch.device("cpu")


def test_one_batch_at_a_time_where_more_would_not_be_safe_or_faster(checkpoint, two_threads):
    bert = checkpoint("bert", "bert").model
    qwen = checkpoint("qwen3", "qwen").model
    assert lane_count([bert, qwen], [CPU, CPU]) == 2
    assert lane_count([bert, qwen], [CPU, torch.device("cuda", 0)]) == 1
    qwen.rotary_emb.rope_type = "dynamic"
    assert lane_count([bert, qwen], [CPU, CPU]) == 1
    bert._hf_hook = object()
    assert lane_count([bert], [CPU]) == 1
    del bert._hf_hook
    with torch.autocast("cpu", torch.bfloat16):
        assert lane_count([bert], [CPU]) == 1
    own = type("OwnModel", (type(bert),), {"__module__": "somebody"})(bert.config)
    assert lane_count([own], [CPU]) == 1
    torch.set_num_threads(1)
    assert lane_count([bert], [CPU]) == 1


def test_a_recorder_serves_a_thread_at_a_time_its_own_batch(checkpoint, probe):
    """Passes of two threads through one recorded model do not mix what they record."""
    one = checkpoint("bert", "one")
    batches = list(tokenized_probe(one, [one], probe, AnalysisSettings(token_budget=20)).batches())
    assert len(batches) > 3
    with LayerRecorder(one.model.eval(), {"encoder": (0, 1, 2)}) as recorder:
        alone = [token_states(recorder, batch)["encoder"].states for batch in batches]
        with ThreadPoolExecutor(4) as pool:
            together = list(pool.map(lambda batch: token_states(recorder, batch)["encoder"].states, 5 * batches))
    for found, expected in zip(together, 5 * alone, strict=True):
        assert torch.equal(found, expected)


@pytest.mark.parametrize("family", ["bert", "t5", "gpt2", "qwen3"])
def test_an_analysis_in_two_lanes_is_that_of_one(family, checkpoint, probe, monkeypatch, two_threads):
    pair = checkpoint(family, "teacher", seed=1), checkpoint(family, "student", seed=2, depth=2)
    chosen = AnalysisSettings(token_budget=30)
    names: set[str] = set()
    forward = pair[1].model.forward

    def noted(*arguments: object, **named: object) -> object:
        names.add(threading.current_thread().name)
        return forward(*arguments, **named)

    monkeypatch.setattr(pair[1].model, "forward", noted)
    two = analyze(pair[0], [pair[1]], probe, chosen)
    assert names == {threading.main_thread().name, "anglekit-lane-1"}
    torch.set_num_threads(1)
    names.clear()
    one = analyze(pair[0], [pair[1]], probe, chosen)
    assert names == {threading.main_thread().name}
    assert_same(two, one)
    other = replace(checkpoint(family, "other", seed=3, depth=2), name="student")
    with pytest.raises(AssertionError):
        assert_close(analyze(pair[0], [other], probe, chosen), one)
