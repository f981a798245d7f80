"""A sample of the census: what the shipped table says of a type is found again by building and running it."""

import json
import sys
from collections import Counter
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import nn

from anglekit.models.supported import census_versions, supported_types
from tests.census import run
from tests.census.small_configs import small_config, takes_text
from tests.census.small_models import inputs_for, model_of, small_model, some_ids
from tests.census.table import page, supported_row
from tests.census.truth import measure
from tests.census.verdicts import judge

# One of each kind: encoder, decoder, both; no final norm and one; a mixture of experts, a state space, a hybrid, text
# models inside; states by length first and padded behind; what looks at padding; shared blocks, which are refused.
SAMPLE = (
    *("bert", "qwen3", "t5", "mixtral", "mamba", "jamba", "gemma3"),
    *("xlnet", "longformer", "fnet", "albert", "deberta-v2", "clip"),
)


@pytest.mark.parametrize("name", SAMPLE)
def test_the_table_says_what_a_run_finds(name, tmp_path):
    row = judge(name, tmp_path)
    faults = {question: said for question, said in row["verdicts"].items() if run.is_fault(said)}
    assert faults == {}
    assert supported_row(json.loads(json.dumps(row))) == supported_types()[name]


def test_text_types_are_told_from_others():
    assert [name for name in (*SAMPLE, "vit", "wav2vec2") if takes_text(name)] == list(SAMPLE)
    assert set(SAMPLE) < set(supported_types())
    assert not {"vit", "wav2vec2"} & set(supported_types())


@pytest.fixture
def llama():
    return model_of(small_config("llama"))


def test_the_measured_truth_of_a_known_model(llama):
    ((stream, truth),) = measure(llama).items()
    assert (stream, truth.blocks, truth.depth, truth.final_norm) == ("decoder", "layers", 4, "norm")
    assert truth.causal
    assert not truth.repeated
    assert truth.layout == "batch first"
    assert (truth.entries, truth.hidden_states) == (5, [])
    assert truth.padding_error < 1e-4


class _Later(nn.Module):
    """Adds the mean over all tokens, later ones too."""

    def __init__(self, block):
        super().__init__()
        self.block = block

    def forward(self, hidden_states, *args, **kwargs):
        return self.block(hidden_states + hidden_states.mean(1, keepdim=True), *args, **kwargs)


class _LengthFirst(nn.Module):
    """Hands over (length, batch, width), and takes it but in the first place."""

    def __init__(self, block, *, first):
        super().__init__()
        self.block, self.first = block, first

    def forward(self, hidden_states, *args, **kwargs):
        states = hidden_states if self.first else hidden_states.transpose(0, 1)
        return self.block(states, *args, **kwargs).transpose(0, 1)


def test_another_order_of_batch_and_length_is_noticed(llama):
    inputs = inputs_for(llama, some_ids(3, 10))
    before = llama(**inputs).last_hidden_state
    for number, block in enumerate(llama.layers):
        llama.layers[number] = _LengthFirst(block, first=number == 0)
    llama.norm.register_forward_pre_hook(lambda _, args: (args[0].transpose(0, 1),))
    assert torch.allclose(llama(**inputs).last_hidden_state, before, atol=1e-5)
    (truth,) = measure(llama).values()
    assert truth.layout == "length first"
    assert truth.causal


def test_watching_leaves_a_model_as_it_was(llama):
    before = {path: module.forward for path, module in llama.named_modules()}
    measure(llama)
    assert {path: module.forward for path, module in llama.named_modules()} == before
    assert not any("forward" in vars(module) for module in llama.modules())


def test_layers_of_a_small_model_differ_and_one_seed_gives_one_model():
    one, again, other = small_model("bert"), small_model("bert"), small_model("bert", seed=1)
    ids = inputs_for(one, some_ids(2, 6))
    with torch.no_grad():
        states = one(**ids, output_hidden_states=True).hidden_states
        same, unlike = (model(**ids).last_hidden_state for model in (again, other))
    assert all(float((a - b).abs().max()) > 0.1 for a, b in pairwise(states))
    assert torch.equal(states[-1], same)
    assert not torch.allclose(states[-1], unlike, atol=0.1)


def test_a_change_of_the_table_is_told_cell_by_cell():
    bert, gpt2 = supported_types()["bert"], supported_types()["gpt2"]
    after = {"bert": replace(bert, padding="dependent"), "new": gpt2}
    assert run.changes({"bert": bert, "gpt2": gpt2}, after) == [
        "gpt2: gone",
        "bert: padding 'independent' -> 'dependent'",
        "new: new",
    ]
    assert run.changes({"bert": bert}, {"bert": bert}) == []


def test_the_page_of_types_shows_the_shipped_table():
    shown = (run.ROOT / "MODELS.md").read_text(encoding="utf-8")
    assert shown == page(census_versions(), supported_types())
    number = Counter(found.states for found in supported_types().values())
    told = " ".join((run.ROOT / "README.md").read_text(encoding="utf-8").split())
    assert (
        f"Of {len(supported_types())} types in {census_versions().partition(',')[0]}, {number['right']} are right, "
        f"{number['refused']} refused and {number['not built']} could not be built small." in told
    )


def test_totals_count_the_verdicts_of_each_question():
    rows = [
        {"verdicts": {"states": "right", "copied": "WRONG: 0.5"}},
        {"verdicts": {"states": "refused: why"}},
        {"verdicts": {"states": "TRACEBACK: IndexError"}},
    ]
    lines = {line.split()[0]: line.split()[1:] for line in run.totals(rows).splitlines()[1:]}
    assert lines["states"] == ["1", "1", "0", "1"]
    assert lines["copied"] == ["0", "0", "1", "0"]


_ANSWERS = """
import json, sys
for line in sys.stdin:
    if line.strip() == "ends":
        sys.exit(3)
    print(json.dumps({"type": line.strip()}), flush=True)
"""


def test_a_worker_answers_and_one_that_ended_is_replaced():
    worker = run.Worker((sys.executable, "-c", _ANSWERS))
    try:
        assert worker.judge("bert") == {"type": "bert"}
        first = worker.process
        assert worker.judge("gpt2") == {"type": "gpt2"}
        assert worker.process is first
        assert worker.judge("ends")["problem"] == "not run: the process ended (3)"
        assert worker.judge("t5") == {"type": "t5"}
        assert worker.process is not first
    finally:
        worker.stop()


def test_a_worker_that_takes_too_long_is_replaced(monkeypatch):
    monkeypatch.setattr(run, "_MOST_SECONDS", 0.2)
    worker = run.Worker((sys.executable, "-c", "import time; time.sleep(60)"))
    try:
        assert worker.judge("bert")["problem"] == "not run: took more than 0 s"
        assert worker.process is None
    finally:
        worker.stop()
