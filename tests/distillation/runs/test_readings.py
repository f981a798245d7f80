"""The official reading of whole runs: what the paper's programs do beside their losses."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSeq2SeqLM

from anglekit.distillation.matching.strategies import layer_matching
from anglekit.distillation.runs.train import distill, finetune
from anglekit.distillation.settings import TrainSettings
from anglekit.distillation.sweep.sweep import sweep
from anglekit.distillation.training.teacher import TeacherForward
from anglekit.errors import InputError
from anglekit.models.checkpoints import load_checkpoint
from anglekit.models.projections import stored_adapters
from anglekit.runtime.files import read_json_object
from tests.distillation.causal_corpus import causal_student, make_causal_world
from tests.distillation.run_corpus import make_world, quick, student
from tests.distillation.seq2seq_corpus import make_seq2seq_world, seq2seq_student


@pytest.fixture(scope="module")
def bart(tmp_path_factory, tiny_model, tiny_tokenizer, words):
    return make_seq2seq_world(tmp_path_factory.mktemp("bart"), "bart", tiny_model, tiny_tokenizer(), words)


@pytest.fixture(scope="module")
def causal(tmp_path_factory, tiny_model, tiny_tokenizer, words):
    return make_causal_world(tmp_path_factory.mktemp("qwen3"), "qwen3", tiny_model, tiny_tokenizer(), words)


@pytest.fixture(scope="module")
def bert(tmp_path_factory, tiny_model, tiny_tokenizer, words):
    return make_world(tmp_path_factory.mktemp("bert"), tiny_model, tiny_tokenizer(), words)


def plan_of(directory):
    return read_json_object(Path(directory) / "plan.json", "")


def weights_of(checkpoint):
    return AutoModelForSeq2SeqLM.from_pretrained(checkpoint).state_dict()


def test_settings_take_what_a_reading_decides_and_keep_what_was_given():
    def under(family, reading="official", **given):
        return TrainSettings(**given).under(reading, family, validates=True, scores=("accuracy", "token_accuracy"))

    assert (under("bert").max_grad_norm, under("bart").max_grad_norm, under("t5").max_grad_norm) == (1.0, 0.0, 0.0)
    assert (under("bert").select, under("bart").select, under("causal").select) == ("last", "best", "best")
    assert (under("causal").select_by, under("bart").select_by) == ("token_accuracy", None)
    assert (under("causal").adapter_learning_rate, under("causal").cut) == (2e-5, "end")
    # 100 examples in batches of 8 are 13 steps, and 0.3 of them are 4.
    assert under("t5", batch_size=8).evaluation_steps(100) == 4
    careful = under("bart", "corrected")
    assert (careful.max_grad_norm, careful.select, careful.cut, careful.evaluate_every) == (1.0, "last", "prompt", None)
    own = under("bart", max_grad_norm=2.0, select="last", evaluate_every=7)
    assert (own.max_grad_norm, own.select, own.evaluation_steps(100)) == (2.0, "last", 7)
    alone = TrainSettings().under("official", "bart", validates=False)
    assert (alone.select, alone.evaluate_every) == ("last", None)


def test_a_teacher_in_training_mode_drops_the_same_for_the_same_batch_and_leaves_the_process_alone(bart):
    teacher = AutoModelForSeq2SeqLM.from_pretrained(bart["teacher"])
    batch = {"input_ids": torch.tensor([[5, 6, 7]]), "decoder_input_ids": torch.tensor([[3, 5, 6]])}
    layers = {"encoder": (2,), "decoder": (4,)}
    careful = TeacherForward(teacher, layers)(batch)
    before = torch.get_rng_state()
    dropping = TeacherForward(teacher, layers, dropout=True)
    first, again = dropping(batch), dropping(batch)
    other = dropping({**batch, "input_ids": torch.tensor([[5, 6, 8]])})
    assert torch.equal(torch.get_rng_state(), before)
    assert not teacher.training
    for stream, layer in (("encoder", 2), ("decoder", 4)):
        assert torch.equal(first.hidden[stream][layer], again.hidden[stream][layer])
        assert not torch.allclose(first.hidden[stream][layer], careful.hidden[stream][layer])
    assert not torch.allclose(first.logits, other.logits)


def test_a_bart_student_keeps_its_tables_and_is_the_same_alone_and_in_a_sweep(bart, tmp_path):
    settings = quick(max_steps=2, beams=1, max_new_tokens=2)
    alone = seq2seq_student(
        bart, tmp_path / "alone", init="random", reading="official", settings=quick(**vars(settings) | {"seed": 0})
    )
    plan = plan_of(tmp_path / "alone")
    assert plan["freeze_embeddings"]
    assert (plan["training"]["max_grad_norm"], plan["training"]["select"]) == (0.0, "best")
    swept = sweep(
        bart["teacher"],
        strategies=("none", "forward"),
        inits=("random",),
        seeds=(0,),
        task="seq2seq",
        train=bart["train"],
        validation=[bart["dev"]],
        layers=2,
        reading="official",
        settings=settings,
        out=tmp_path / "sweep",
    )
    one, other = weights_of(alone.checkpoint), weights_of(swept.arms["forward-random-seed0"].checkpoint)
    assert all(torch.equal(value, other[name]) for name, value in one.items())
    none = weights_of(swept.arms["none-random-seed0"].checkpoint)
    assert torch.equal(none["model.shared.weight"], one["model.shared.weight"]), "frozen, from one seed"


def test_a_narrow_bert_student_keeps_its_adapters_untrained_and_can_be_analysed(bert, tmp_path):
    made = student(bert, tmp_path / "run", width=16, reading="official")
    stored = stored_adapters(Path(made.checkpoint))
    assert (stored.trained, dict(stored.biases)) == (False, {})
    assert load_checkpoint(made.checkpoint).adapters is None
    assert plan_of(tmp_path / "run")["heads"] == "2 heads of 8; the teacher 2 heads of 16"


def test_a_narrow_language_model_has_biased_adapters_with_a_rate_of_their_own(causal, tmp_path):
    settings = quick(seed=3, max_new_tokens=3, max_steps=4, evaluate_every=2, select="last", adapter_learning_rate=1e-9)
    made = causal_student(causal, tmp_path / "run", width=16, reading="official", settings=settings)
    stored = stored_adapters(Path(made.checkpoint))
    assert stored.trained
    # The rate of their own is next to nothing: the biases began at zero.
    assert {tuple(bias.shape) for bias in stored.biases.values()} == {(32,)}
    assert 0.0 < max(bias.abs().max().item() for bias in stored.biases.values()) < 1e-7


def test_the_best_language_model_is_chosen_by_its_token_accuracy(causal, tmp_path):
    settings = quick(seed=3, max_new_tokens=3, max_steps=4, evaluate_every=2)
    made = causal_student(causal, tmp_path / "run", reading="official", init="teacher", settings=settings)
    assert 0.0 <= made.scores["token_accuracy"][0] <= 1.0
    assert plan_of(tmp_path / "run")["training"]["select_by"] == "token_accuracy"


def test_random_is_always_one_order_for_the_papers_language_models():
    order = [6, 4, 0, 7, 5, 8, 3, 2, 1]
    for seed in (0, 1):
        made = layer_matching(
            "random",
            teacher_blocks=36,
            student_blocks=9,
            stream="decoder",
            family="causal",
            seed=seed,
            reading="official",
        )
        assert [teacher for _, teacher in made.pairs] == [4 * (place + 1) for place in order]
    own = layer_matching("random", teacher_blocks=36, student_blocks=9, family="causal", seed=0)
    assert own.pairs != made.pairs


@pytest.mark.parametrize("task", ["regression", "multi-label"])
def test_a_task_that_the_papers_code_lacks_has_no_official_reading(bert, tmp_path, task):
    options = {"task": task, "train": bert["train"], "out": tmp_path / "run"}
    with pytest.raises(InputError, match=f"official came with task {task}, and the paper's code .*; take --reading"):
        distill(bert["teacher"], strategy="forward", layers=2, reading="official", **options)
    with pytest.raises(InputError, match="take --reading corrected"):
        finetune(bert["teacher"], reading="official", **options)
    assert not (tmp_path / "run").exists()
