"""The plan: what it records, what it warns of, and what spoils a comparison of arms."""

import json

import pytest
import transformers as hf
from msgspec.structs import replace

from anglekit.distillation.losses.weights import LossWeights
from anglekit.distillation.matching.plan import DistillationPlan, named_differences, plan_distillation
from anglekit.distillation.matching.plan_text import plan_text
from anglekit.distillation.matching.plan_warnings import comparison_warnings, plan_warnings
from anglekit.distillation.matching.strategies import layer_matching
from anglekit.distillation.students.create import create_student
from anglekit.errors import InputError
from anglekit.vocabulary import ANGLE_AWARE, PAPER_STRATEGIES, STRATEGIES

BERT = hf.BertConfig()
T5 = hf.T5Config(d_model=768, d_kv=64, d_ff=3072, num_layers=12, num_heads=12)
TINY = hf.BertConfig(vocab_size=20, hidden_size=16, num_hidden_layers=6, num_attention_heads=4, intermediate_size=24)


def plan(strategy="forward", config=BERT, **options):
    if not options.keys() & {"layers", "encoder_layers", "decoder_layers"}:
        options["layers"] = 3
    return plan_distillation(config, teacher="a-teacher", strategy=strategy, **options)


def seed_of(order):
    """A seed whose random order is that of another strategy (or of none)."""
    return next(
        seed
        for seed in range(100)
        if layer_matching("random", teacher_blocks=12, student_blocks=3, seed=seed).coincides_with() == order
    )


def test_a_plan_says_what_is_matched_and_copied():
    made = plan(init="teacher")
    assert (made.strategy, made.family, made.teacher_width, made.student_width) == ("forward", "bert", 768, 768)
    assert made.streams[0].matching.pairs == ((0, 0), (1, 4), (2, 8), (3, 12))
    assert made.streams[0].blocks == (3, 7, 11)
    assert not made.needs_adapters
    assert plan_warnings(made) == ()


def test_encoder_decoders_have_a_map_and_a_copy_map_for_each_stream():
    made = plan("reverse", T5, encoder_layers=3, decoder_layers=6, init="teacher")
    assert [part.stream for part in made.streams] == ["encoder", "decoder"]
    assert [part.blocks for part in made.streams] == [(0, 6, 11), (0, 2, 4, 7, 9, 11)]
    assert made.streams[1].matching.pairs[1] == (1, 12)


def test_the_plan_makes_the_student_that_it_describes():
    teacher = hf.BertForSequenceClassification(TINY)
    made = plan(config=TINY, layers=2, init="teacher", copy_blocks=[1, 4], seed=9)
    student = create_student(teacher, **made.student_options())
    assert student.config.num_hidden_layers == 2
    weight = "encoder.layer.1.output.dense.weight"
    taken = teacher.bert.get_parameter("encoder.layer.4.output.dense.weight")
    assert student.bert.get_parameter(weight).equal(taken)
    narrow = plan(config=TINY, layers=2, width=8, seed=9)
    assert create_student(teacher, **narrow.student_options()).config.hidden_size == 8
    assert narrow.needs_adapters
    assert narrow.matchings[0].student_layers == (0, 1, 2)


@pytest.mark.parametrize("strategy", [name for name in STRATEGIES if name != ANGLE_AWARE])
@pytest.mark.parametrize("options", [{"init": "teacher"}, {"width": 384}])
def test_every_plan_survives_json(strategy, options):
    weights = LossWeights(1, 0.5, 2)
    made = plan(strategy, **options, weights=weights, training={"learning_rate": 1e-5, "epochs": 3})
    again = DistillationPlan.from_json(json.loads(json.dumps(made.to_json())))
    assert again == made
    assert again.facts() == made.facts()


def test_seeds_are_recorded():
    drawn = plan("random")
    assert drawn.streams[0].matching.seed == drawn.seed
    assert plan("random", seed=drawn.seed) == drawn
    assert plan("forward").seed == 0
    assert len({plan("random").seed for _ in range(5)}) == 5


def test_differences_name_what_changed():
    a, b = plan(seed=1, training={"epochs": 3}), plan("reverse", seed=2, training={"epochs": 3, "batch": 8})
    words = named_differences(a.facts(), b.facts())
    assert "seed: 1 here, 2 there" in words
    assert "strategy: forward here, reverse there" in words
    assert "batch: absent here, 8 there" in words
    assert len(words) == 4, "the map is the fourth"
    assert named_differences({"a": 1, "b": 2}, {"b": 3, "c": None}) == ["a: 1 here, absent there", "b: 2 here, 3 there"]


@pytest.mark.parametrize(
    ("options", "difference"),
    [
        ({"reading": "official"}, "reading: corrected here, official there"),
        ({"init": "teacher"}, "init: random here, teacher there"),
        ({"width": 384}, "student width: 768 here, 384 there"),
        ({"hidden_loss": "cosine"}, "hidden loss: mse here, cosine there"),
        (
            {"weights": LossWeights(1.0, 0.0, 3.0)},
            "weights (ce, kl, hidden): (1.0, 1.0, 3.0) here, (1.0, 0.0, 3.0) there",
        ),
        ({"train_adapters": False}, "trained adapters: True here, False there"),
        ({"freeze_embeddings": True}, "frozen embeddings: False here, True there"),
        ({"strategy": "none"}, "encoder map: 0:0,1:4,2:8,3:12 here, none there"),
        ({"layers": 2}, "student encoder blocks: 3 here, 2 there"),
        ({"config": hf.BertConfig(num_hidden_layers=6)}, "teacher encoder blocks: 12 here, 6 there"),
    ],
)
def test_all_that_makes_another_student_is_a_fact(options, difference):
    assert difference in named_differences(plan().facts(), plan(**options).facts())


def test_a_causal_plan_leaves_the_embedding_alone():
    gpt2 = plan(config=hf.GPT2Config(n_layer=6))
    assert gpt2.streams[0].matching == layer_matching(
        "forward", teacher_blocks=6, student_blocks=3, stream="decoder", family="causal", seed=gpt2.seed
    )
    assert 0 not in dict(gpt2.streams[0].matching.pairs)
    assert 0 in dict(plan().streams[0].matching.pairs)


def test_copied_blocks_are_facts_of_students_that_copy():
    assert plan(init="teacher").facts()["encoder blocks copied"] == "3,7,11"
    assert "encoder blocks copied" not in plan().facts()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"family": "bertt"}, "no model family 'bertt'; did you mean 'bert'"),
        ({"init": "randm"}, "no initialisation 'randm'; did you mean 'random'"),
        ({"hidden_loss": "msee"}, "no hidden loss 'msee'; did you mean 'mse'"),
        ({"reading": "oficial"}, "no reading 'oficial'; did you mean 'official'"),
        ({"streams": ()}, "a plan needs each stream once"),
        ({"streams": plan().streams * 2}, "a plan needs each stream once"),
    ],
)
def test_a_plan_of_what_is_not_is_refused(changes, message):
    with pytest.raises(InputError, match=message):
        replace(plan(), **changes)


def test_a_map_of_ones_own_may_leave_a_stream_unmatched():
    made = plan(None, T5, layer_map={"decoder": [(1, 3)]})
    assert made.strategy == "explicit"
    assert [m.strategy for m in made.matchings] == ["none", "explicit"]
    assert "map of your own" in plan_text(made)


def test_the_description_is_a_table():
    assert (
        plan_text(plan(init="teacher", seed=4))
        == """\
teacher   a-teacher (bert): 12 encoder blocks, width 768
student   3 encoder blocks, width 768, copied from the teacher, seed 4
strategy  forward: student block j is taught by the j-th of evenly spaced teacher blocks
loss      1 x cross-entropy + 1 x KL + 3 x hidden (mse), corrected reading

encoder
  student layer  taught by      copied from
  0 (embedding)  0 (embedding)  embedding
  1 (block 0)    4 (block 3)    block 3
  2 (block 1)    8 (block 7)    block 7
  3 (block 2)    12 (block 11)  block 11"""
    )


def test_a_narrow_student_of_two_streams_and_a_map_of_ones_own_are_described():
    two = plan_text(plan("reverse", T5, width=384, encoder_layers=2, decoder_layers=1, weights=LossWeights(0.5, 1, 2)))
    head, encoder, decoder = two.split("\n\n")
    assert head.splitlines() == [
        "teacher   a-teacher (t5): 12 encoder + 12 decoder blocks, width 768",
        "student   2 encoder + 1 decoder blocks, width 384, initialised at random, seed 0",
        "heads     12 heads of 32; the teacher 12 heads of 64",
        f"strategy  reverse: {STRATEGIES['reverse'].description}",
        "loss      0.5 x cross-entropy + 1 x KL + 2 x hidden (mse), corrected reading",
        "adapters  5, each 384 to 768, no bias",
    ]
    rows = [line.split() for line in encoder.splitlines()]
    assert rows[0] == ["encoder"]
    assert rows[1] == ["student", "layer", "taught", "by", "copied", "from"]
    assert rows[3] == ["1", "(block", "0)", "12", "(block", "11)", "-"]
    assert decoder.splitlines()[0] == "decoder"
    own = plan_text(plan(None, layer_map={"encoder": [(1, 4)]}, reading="official")).splitlines()
    assert own[2] == "strategy  explicit: a map of your own"
    assert own[3].endswith("official reading")
    assert "official reading, where the paper's code differs from a careful run" in own
    roberta = hf.RobertaConfig(num_hidden_layers=12)
    never = plan_text(plan("forward", roberta, layers=3, reading="official"))
    assert "a careful run (its program for bert; roberta it never ran)" in never
    assert [line.split()[-2:] for line in own[-4:]] == [["-", "-"], ["3)", "-"], ["-", "-"], ["-", "-"]]
    none = plan_text(plan("none")).splitlines()
    assert none[3] == "loss      1 x cross-entropy + 1 x KL, corrected reading"


@pytest.mark.parametrize("twin", ["forward", "reverse"])
def test_a_random_draw_in_disguise_is_warned_of(twin):
    (warning,) = plan_warnings(plan("random", seed=seed_of((twin,))))
    assert f"equals strategy '{twin}'; choose another seed" in warning
    assert any("every order of so few blocks" in text for text in plan_warnings(plan("random", layers=2)))
    assert plan_warnings(plan("random", seed=seed_of(()))) == ()


WIDTHS = "the widths differ (384 and 768)"
UNTRAINED = (
    f"{WIDTHS} and no hidden loss trains an adapter: the student can be analysed only with a fitted projection "
    "(least-squares or procrustes)"
)


@pytest.mark.parametrize(
    ("options", "messages"),
    [
        (
            {"strategy": None, "layer_map": {"encoder": [(1, 4), (2, 8), (3, 12)]}},
            ["the encoder's explicit map teaches every block as strategy 'forward' does"],
        ),
        (
            {"layers": 1},
            [
                "the encoder's forward map teaches every block as strategy 'reverse' does",
            ],
        ),
        ({"strategy": "none", "width": 384}, [UNTRAINED]),
        (
            {"width": 384, "weights": LossWeights(1, 1, 0)},
            [UNTRAINED, "the hidden loss has weight 0, so strategy 'forward' trains the same student as 'none'"],
        ),
        (
            {"width": 384, "train_adapters": False},
            [f"{WIDTHS} and the adapters are not trained: the hidden loss pulls through random projections"],
        ),
        (
            {"strategy": None, "width": 384, "layer_map": {"encoder": [(3, 12)]}},
            [
                f"{WIDTHS} and the encoder's embedding, layer 1, layer 2 is not matched, so no adapter is trained "
                "there: its angles need a fitted projection"
            ],
        ),
        (
            {"freeze_embeddings": True},
            [
                "frozen random embeddings: the embeddings (and the head tied to them) are initialised at random and "
                "never trained; do not freeze them, or use --init teacher"
            ],
        ),
        (
            {"weights": LossWeights(1, 1, 0)},
            ["the hidden loss has weight 0, so strategy 'forward' trains the same student as 'none'"],
        ),
    ],
)
def test_traps_are_warned_of(options, messages):
    assert list(plan_warnings(plan(**options))) == messages


@pytest.mark.parametrize(
    "options",
    [
        {"strategy": "none"},
        {"strategy": "all-to-one"},
        {"width": 384},
        {"freeze_embeddings": True, "init": "teacher"},
        {"train_adapters": False},
        {"strategy": "none", "weights": LossWeights(1, 1, 0)},
    ],
)
def test_sound_plans_are_not_warned_of(options):
    """Negative control of the warnings."""
    assert plan_warnings(plan(**options)) == ()


def arms(**changes):
    """The paper's grid, with a seed whose random order is a strategy of its own."""
    grid = [plan(s, init=i, seed=seed_of(())) for s in PAPER_STRATEGIES for i in ("random", "teacher")]
    return [replace(made, **changes) if made.strategy == "none" else made for made in grid]


def test_a_clean_grid_has_nothing_to_report():
    assert comparison_warnings(arms()) == ()
    assert comparison_warnings([]) == ()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"training": {"learning_rate": 2e-5}}, "learning_rate is 2e-05 for none and absent for forward, reverse"),
        ({"streams": plan("none", layers=6).streams}, "student encoder blocks is 6 for none and 3 for forward"),
        ({"weights": LossWeights(1, 2, 3)}, "weights (ce, kl, hidden)"),
        ({"seed": 4}, "'none' has no arm with init random"),
    ],
)
def test_arms_that_differ_in_more_than_the_strategy_are_named(changes, message):
    assert any(message in warning for warning in comparison_warnings(arms(**changes)))


def test_an_init_that_one_strategy_lacks_is_named():
    short = [made for made in arms() if not (made.strategy == "none" and made.init == "teacher")]
    (warning,) = comparison_warnings(short)
    assert warning == (
        f"strategy 'none' has no arm with init teacher and seed {seed_of(())}, which others have; compare strategies "
        "within one initialisation and seed"
    )
    (both,) = comparison_warnings([made for made in arms() if made.strategy != "none"] + [plan("none", seed=77)])[:1]
    assert both.startswith("strategy 'forward' has no arm with init random and seed 77")


def test_several_arms_that_one_strategy_lacks_are_all_named():
    grid = [plan(name, init=init, seed=50) for name in ("none", "forward") for init in ("random", "teacher")]
    (warning,) = comparison_warnings(
        [grid[0], *grid[2:], plan("none", init="teacher", seed=50), plan("reverse", seed=50)]
    )
    assert warning.startswith("strategy 'reverse' has no arm with init teacher and seed 50, which others have")
    more = [
        plan(name, init=init, seed=seed) for name in ("forward",) for init in ("random", "teacher") for seed in (1, 2)
    ]
    found = comparison_warnings([*more, plan("none", seed=1)])
    assert "init random and seed 2, init teacher and seed 1, init teacher and seed 2, which" in found[0]


def test_two_names_for_one_student_are_named():
    seed = seed_of(("forward",))
    (warning,) = comparison_warnings([plan(s, seed=seed) for s in ("forward", "random")])
    assert "forward, random train the same student" in warning


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: plan("foward"), "did you mean 'forward'"),
        (lambda: plan(None), "no strategy ''"),
        (lambda: plan(layer_map={"encoder": [(1, 1)]}), "one of the two"),
        (lambda: plan(None, layer_map={"decoder": [(1, 1)]}), "allowed: encoder"),
        (lambda: plan(layers=13), "allowed: 1 to 12"),
        (lambda: plan_distillation(BERT, teacher="t", strategy="none"), "--layers or --width"),
        (lambda: plan(init="techer"), "did you mean 'teacher'"),
        (lambda: plan(width=384, init="teacher"), "use --init random"),
        (lambda: plan(width=769), "allowed: 1 to 768"),
        (lambda: plan(seed=-1), "the seed is -1"),
        (lambda: plan(hidden_loss="mes"), "did you mean 'mse'"),
        (lambda: plan(reading="offical"), "did you mean 'official'"),
        (lambda: replace(plan(), streams=()), "each stream once"),
        (lambda: replace(plan(), student_width=800), "allowed: 1 to 768"),
        (lambda: replace(plan(init="teacher"), student_width=384), "use --init random"),
        (lambda: DistillationPlan.from_json({}), "the plan has format .None.; expected"),
        (lambda: DistillationPlan.from_json({"format": "anglekit-plan-1"}), "damaged .missing required field"),
        (lambda: DistillationPlan.from_json({**plan().to_json(), "extra": 1}), "contains unknown field extra"),
    ],
)
def test_wrong_input_is_named(call, message):
    with pytest.raises(InputError, match=message):
        call()
