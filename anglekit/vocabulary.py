"""The names that results are labelled with; free of torch, so that reading and drawing results starts at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, get_args

Stream = Literal["encoder", "decoder"]
STREAMS: tuple[Stream, ...] = get_args(Stream)
BOTH = "both"

#: Whether the last layer of a model is its state before or after the final norm.
FinalNorm = Literal["excluded", "included"]

#: "official" repeats what the paper's code computes, padding counted; "corrected" is what the paper means.
Reading = Literal["corrected", "official"]
READINGS: tuple[Reading, ...] = get_args(Reading)


#: Which texts may share a batch so that each has the states that it has alone: texts of any length, padded; only texts
#: of one length; or none. The later ones ask for more.
Batching = Literal["padded", "equal lengths", "alone"]
BATCHINGS: tuple[Batching, ...] = get_args(Batching)


@dataclass(frozen=True)
class Strategy:
    """A way to choose the teacher layer of each student layer: what it does, and where it comes from.

    Attributes:
        description: in words.
        source: the paper.
        formula: the teacher layer m(j) of student layer j of k, or what is made of the teacher's layers T_1 to T_n; S_j
            is the student's state. "" for controls.
        combines: how a student layer is taught by several teacher layers: "mean", "attention", "linear", "gate",
            "transport", or "draw" where one of them is drawn anew each epoch; "" where by one.
    """

    description: str
    source: str
    formula: str = ""
    combines: str = ""


_PAPER = "Yu, Wen and Mou, arXiv 2502.04499"

#: The strategies of layer matching, in the order in which they are shown. `distillation/matching/strategies.py` has
#: their maps, `distillation/students/mixtures.py` what is made of several teacher layers.
STRATEGIES: Mapping[str, Strategy] = {
    "none": Strategy("no hidden loss", "Hinton et al. 2015, arXiv 1503.02531", "no m"),
    "forward": Strategy(
        "student block j is taught by the j-th of evenly spaced teacher blocks",
        "Sun et al. 2019, arXiv 1908.09355 (Patient Knowledge Distillation, skip)",
        "m(j) = ceil(j n / k)",
    ),
    "reverse": Strategy("the same teacher blocks in reverse order", _PAPER, "m(j) = ceil((k + 1 - j) n / k)"),
    "all-to-one": Strategy(
        "every student layer is taught by the teacher's middle layer", _PAPER, "m(j) = floor(n / 2)"
    ),
    "random": Strategy(
        "one random order of the same teacher blocks, drawn once per run", _PAPER, "m(j) = ceil(p(j) n / k), p drawn"
    ),
    "pkd-skip": Strategy(
        "as forward without the last student layer and the embedding",
        "Sun et al. 2019, arXiv 1908.09355 (PKD-skip)",
        "m(j) = ceil(j n / k), j < k",
    ),
    "pkd-last": Strategy(
        "the layers below the student's last are taught by those below the teacher's last",
        "Sun et al. 2019, arXiv 1908.09355 (PKD-last)",
        "m(j) = n - k + j, j < k",
    ),
    "uniform": Strategy(
        "as forward, and the embedding by the embedding in every family; the head is taught by the KL",
        "Jiao et al. 2020, arXiv 1909.10351 (TinyBERT)",
        "m(0) = 0, m(j) = ceil(j n / k)",
    ),
    "last": Strategy(
        "the student's last layer alone is taught, by the teacher's last",
        "Ko et al. 2023, arXiv 2302.01530 (CR-ILD)",
        "m(k) = n",
    ),
    "one-to-one": Strategy(
        "the student's middle layer alone is taught, by the teacher's middle layer",
        "Romero et al. 2015, arXiv 1412.6550 (FitNets)",
        "m(ceil(k / 2)) = floor(n / 2)",
    ),
    "in-order-random": Strategy(
        "as many teacher layers as the student has, drawn anew each epoch and kept in order",
        "Haidar et al. 2022, arXiv 2109.10164 (RAIL-KD)",
        "m(1) < ... < m(k) drawn from 1 to n",
        "draw",
    ),
    "contiguous-mean": Strategy(
        "student layer j is taught by the mean of the j-th of k contiguous parts of the teacher",
        "Passban et al. 2021, arXiv 2012.14022 (ALP-KD's parts, without its attention)",
        "mean of T_i, ceil((j - 1) n / k) < i <= ceil(j n / k)",
        "mean",
    ),
    "layer-attention": Strategy(
        "each token of a student layer attends to all teacher layers",
        "Passban et al. 2021, arXiv 2012.14022 (ALP-KD)",
        "sum over i of a_i T_i, a = softmax over i of S_j . T_i",
        "attention",
    ),
    "group-combination": Strategy(
        "student layer j is taught by a learned linear combination of the j-th of k contiguous parts of the teacher",
        "Wu et al. 2020, arXiv 2010.03034 (CKD, regular combination)",
        "W_j [T_i; ...; T_l] of the j-th part",
        "linear",
    ),
    "gated": Strategy(
        "learned gates pass teacher layers on, one after another; student layer j is taught by what has come so far",
        "Lin et al. 2023, Sensors 23(3) 1483 (LAD)",
        "A_1 = T_1, A_i = g T_i + (1 - g) A_(i-1), g = sigmoid(W_i A_(i-1) + b_i); S_j by A at ceil(j n / k)",
        "gate",
    ),
    "optimal-transport": Strategy(
        "every student layer by every teacher layer, weighted by a transport plan of least loss, made for each batch",
        "Li et al. 2020, arXiv 2010.06133 (BERT-EMD)",
        "k x sum of f_ij d(S_i, T_j), f of least cost between the layers' weights",
        "transport",
    ),
    "angle-aware": Strategy(
        "the ascending layers whose directions, seen from the student, make the smallest angles with all others",
        "a rule of ours, read from a Geometry",
        "m(1) < ... < m(k) of least sum over j of the mean over i of angle_j(T_m(j), T_i)",
    ),
}

#: What `Strategy.combines` makes a mixture of states with.
MIXTURES = ("mean", "attention", "linear", "gate")
#: The strategies that the paper compares: what a sweep trains where none are named.
PAPER_STRATEGIES = ("none", "forward", "reverse", "all-to-one", "random")
#: The strategy that reads a Geometry.
ANGLE_AWARE = "angle-aware"
#: The strategies that draw, from the run's seed.
DRAWN = ("random", "in-order-random")

#: The strategy without matching, to which the matching ones are compared.
NONE = "none"

#: The control arms and what each takes away. A control's name stands where a strategy's does (in notes, scores and
#: Geometries), but nobody compares it with the matching strategies as if it were one of them.
CONTROL_ARMS: Mapping[str, Strategy] = {
    "alone": Strategy("none without its KL: labels only, no teacher", "a control of ours"),
    "random-teacher": Strategy(
        "a matching strategy whose hidden states are an untrained teacher's; labels and KL as they are",
        "a control of ours",
    ),
}
CONTROLS = tuple(CONTROL_ARMS)
WITHOUT_TEACHER, RANDOM_TEACHER = CONTROLS


#: What controls are called where their own names could be taken for weights or a strategy.
CONTROL_LABELS: Final[Mapping[str, str]] = {WITHOUT_TEACHER: "labels alone", RANDOM_TEACHER: "untrained teacher"}


def matches_layers(strategy: str) -> bool:
    """Whether a strategy is compared with others by the layers that it matches: neither `none` nor a control is."""
    return strategy != NONE and strategy not in CONTROLS


#: Equal bins of the cosine on [-1, 1] in a histogram; the last one holds 1.
N_BINS = 1000

#: A difference of mean cosines below this is rounding of float32 states, whatever its standard error.
COSINE_RESOLUTION = 1e-6


#: What a saved Geometry says of itself; a directory that holds it is one.
GEOMETRY_FILE = "geometry.json"
GRADIENTS_FILE = "gradients.json"

#: The file in which a state store says of itself; a directory that holds it is one.
STORE_FILE = "states.json"

#: How states may be stored.
STORED_NAMES = ("float32", "bfloat16", "float16", "int8")

#: What the trainer writes beside a student's weights: its initialisation, strategy, seed and teacher.
STUDENT_FILE = "anglekit_student.json"

#: The ladder: every null and what it keeps.
NULLS: Mapping[str, str] = {
    "formula": "closed form for independent vectors of the same lengths",
    "gaussian-norm": "independent isotropic Gaussian directions, every token's lengths kept",
    "gaussian-covariance": "independent Gaussians with each layer's mean and covariance",
    "permuted-student": "the student's states of another example, the teacher's pairing kept",
    "permuted-all": "every teacher layer and the student from examples of their own",
    "rotated-student": "the student's states rotated by one random orthogonal matrix",
    "fresh-student": "an untrained student of the same shape and a seed of its own, brought to the student's lengths",
    "origin": "vertex at the origin: the teacher's plain cosine",
    "centroid": "vertex at the mean of the token's teacher states",
}

#: The nulls that cost next to nothing.
DEFAULT_NULLS = ("formula", "gaussian-norm", "permuted-student", "permuted-all", "origin", "centroid")

View = Literal["raw", "centred", "standardised", "dropped"]

#: The ways to look at states; `dropped` is raw without the dominant dimensions.
VIEWS: tuple[View, ...] = get_args(View)

#: Where the weights of a student come from that anglekit makes.
Init = Literal["random", "teacher"]
INITS: tuple[Init, ...] = get_args(Init)

#: The initialisation of a student that was there before is `given:NAME`, so that two of them stay two everywhere.
GIVEN = "given"


def given_init(name: str) -> str:
    """Return the initialisation of the given student of this name."""
    return f"{GIVEN}:{name}"


def given_name(init: str) -> str | None:
    """Return the name of the given student that an initialisation is of; None for one that anglekit makes."""
    kind, _, name = init.partition(":")
    return name or None if kind == GIVEN else None


def is_init(init: str) -> bool:
    """Return whether this is the name of an initialisation."""
    return init in INITS or given_name(init) is not None


#: The kinds of tasks: each is itself a task, for one's own data.
CLASSIFICATION, SEVERAL_LABELS, NUMBERS, SEQ2SEQ, LANGUAGE_MODEL, COMPLETION, MULTIPLE_CHOICE = (
    *("classification", "multi-label", "regression", "seq2seq", "language-model"),
    *("completion", "multiple-choice"),
)
#: Kinds whose labels are classes, and all that have labels.
CLASSED = (CLASSIFICATION, SEVERAL_LABELS)
LABELLED = (*CLASSED, NUMBERS)
#: The tasks and their kinds, in the order of `distillation.tasks.registry`, which says what each is.
TASK_KINDS: Mapping[str, str] = {
    CLASSIFICATION: CLASSIFICATION,
    SEVERAL_LABELS: SEVERAL_LABELS,
    NUMBERS: NUMBERS,
    **dict.fromkeys(("mnli", "qqp", "qnli", "sst2", "mrpc", "cola", "rte", "wnli"), CLASSIFICATION),
    "stsb": NUMBERS,
    **dict.fromkeys((SEQ2SEQ, "dart", "wmt16-en-ro"), SEQ2SEQ),
    LANGUAGE_MODEL: LANGUAGE_MODEL,
    COMPLETION: COMPLETION,
    MULTIPLE_CHOICE: MULTIPLE_CHOICE,
    "hellaswag": MULTIPLE_CHOICE,
    "coqa": COMPLETION,
}
TASK_NAMES = tuple(TASK_KINDS)
#: The classes of tasks that have some, in the order of the published data's numbers.
TASK_LABELS: Mapping[str, tuple[str, ...]] = {
    "mnli": ("entailment", "neutral", "contradiction"),
    "qqp": ("not_duplicate", "duplicate"),
    "sst2": ("negative", "positive"),
    "mrpc": ("not_equivalent", "equivalent"),
    "cola": ("unacceptable", "acceptable"),
    **dict.fromkeys(("qnli", "rte"), ("entailment", "not_entailment")),
    "wnli": ("not_entailment", "entailment"),
}
#: The streams that a model needs for the tasks of a kind; classifiers may have any.
TASK_STREAMS: Mapping[str, tuple[Stream, ...]] = {
    SEQ2SEQ: STREAMS,
    **dict.fromkeys((LANGUAGE_MODEL, COMPLETION, MULTIPLE_CHOICE), ("decoder",)),
}

#: What labels a head with outputs for labels is for: transformers' own `problem_type`.
ProblemType = Literal["single_label_classification", "multi_label_classification", "regression"]
SINGLE_LABEL, MULTI_LABEL, REGRESSION = PROBLEM_TYPES = get_args(ProblemType)

#: Precisions of models and of forward passes.
PRECISIONS = ("float32", "bfloat16", "float16")

#: The hidden losses, in the order of `distillation.losses.functional`, `relations` and
#: `attention_relations`, which compute them.
HIDDEN_LOSS_NAMES = (
    *("mse", "normalized-mse", "cosine", "layer-norm-mse", "feature-dynamics"),
    *("gram", "relational", "cka", "procrustes", "infonce"),
    *("minilm", "minilm-v2"),
)
#: Those that compare relations inside each side, so that a narrower student needs no adapter.
WIDTH_FREE_LOSSES = ("gram", "relational", "cka", "procrustes", "minilm", "minilm-v2")
#: Those that compare what the layers' self-attention does: its maps and values, or its queries, keys and values.
ATTENTION_MAPS = "minilm"
#: The one with relation heads of its own.
RELATION_HEADS_OF = "minilm-v2"
ATTENTION_LOSSES = (ATTENTION_MAPS, RELATION_HEADS_OF)
#: How predictions are compared, in the order of `distillation.losses.divergences`, which has their formulas.
KL_DIRECTIONS = ("forward", "reverse", "jensen-shannon", "skew", "top-k")

#: How a student of another width is brought to its teacher's.
ProjectionKind = Literal["adapter", "least-squares", "procrustes"]

#: The least and the greatest value that a score can have; a score of another name may have any.
SCORE_RANGES: Mapping[str, tuple[float, float]] = {
    "accuracy": (0.0, 1.0),
    "accuracy_normalized": (0.0, 1.0),
    "f1": (0.0, 1.0),
    "macro_f1": (0.0, 1.0),
    "micro_f1": (0.0, 1.0),
    "subset_accuracy": (0.0, 1.0),
    "exact_match": (0.0, 1.0),
    "normalized_exact_match": (0.0, 1.0),
    "matthews": (-1.0, 1.0),
    "pearson": (-1.0, 1.0),
    "spearman": (-1.0, 1.0),
    "last_turn_exact_match": (0.0, 1.0),
    "bleu": (0.0, 100.0),
    "multi_bleu": (0.0, 100.0),
    "bleu_romanian": (0.0, 100.0),
    "chrf": (0.0, 100.0),
    "perplexity": (1.0, float("inf")),
    "token_accuracy": (0.0, 1.0),
}

#: Scores that are the share of examples that are right, each of which is right or wrong by itself; a validation tells
#: which ones are.
RIGHT_OR_WRONG = frozenset({"accuracy", "accuracy_normalized", "exact_match", "normalized_exact_match"})

#: Scores that fall as a model learns; they have no upper end.
LOWER_IS_BETTER = frozenset({"perplexity"})
