"""The mergeable states: what they sum, how they merge, in which pieces and precisions they may be fed."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from anglekit.geometry import accumulator as streaming
from anglekit.geometry import products
from anglekit.geometry import sums as sums_module
from anglekit.geometry.accumulator import SumsAccumulator, accumulate_batch
from anglekit.geometry.angles import tangential_cosine, vertex_cosine
from anglekit.geometry.similarity import centred_cosines
from anglekit.geometry.sums import GeometrySums, cosine_bins, cosine_standard_error
from anglekit.vocabulary import N_BINS

LAYERS, VERTICES, WIDTH = 3, 2, 5
PAIRS = [(0, 1), (0, 2), (1, 2)]


def draw(lengths, *, seed=0, width=WIDTH, student_width=None):
    generator = torch.Generator().manual_seed(seed)
    n = sum(lengths)
    teacher = [torch.randn(n, width, generator=generator) + 0.5 for _ in range(LAYERS)]
    student = [torch.randn(n, student_width or width, generator=generator) for _ in range(VERTICES)]
    return teacher, student, torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))


def feed(accumulator, teacher, student, example, rows, clusters=None):
    """Give whole examples, whose numbers in the probe are `rows`, as one batch."""
    keep = torch.isin(example, torch.tensor(rows, dtype=torch.int64))
    position = {row: place for place, row in enumerate(rows)}
    local = torch.tensor([position[int(e)] for e in example[keep]], dtype=torch.int64)
    given_clusters = None if clusters is None else torch.tensor(clusters)
    states = [t[keep] for t in teacher], [s[keep] for s in student]
    accumulator.update(*states, local, torch.tensor(rows), given_clusters)


def sums_of(teacher, student, example, batches=None, **options):
    accumulator = SumsAccumulator(LAYERS, len(student), teacher[0].shape[1], student[0].shape[1], **options)
    for rows in [list(range(int(example.max()) + 1))] if batches is None else batches:
        feed(accumulator, teacher, student, example, rows)
    return accumulator.state()


def assert_same(found, expected, *, exact=False):
    for (name, a), (_, b) in zip(found.tensors().items(), expected.tensors().items(), strict=True):
        close = (0.0, 0.0) if exact or not a.is_floating_point() else (1e-9, 1e-9)
        torch.testing.assert_close(a, b, rtol=close[0], atol=close[1], msg=lambda text, name=name: f"{name}: {text}")


def cosines(teacher, student, vertex):
    return np.stack([vertex_cosine(teacher[i], teacher[k], student[vertex]).numpy() for i, k in PAIRS])


lengths_of = st.lists(st.integers(1, 4), min_size=1, max_size=6)


@settings(max_examples=25, deadline=None)
@given(lengths=lengths_of, seed=st.integers(0, 10**6))
def test_angle_sums_equal_plain_loops(lengths, seed):
    teacher, student, example = draw(lengths, seed=seed)
    sums = sums_of(teacher, student, example).angles
    for vertex in range(VERTICES):
        cosine = cosines(teacher, student, vertex)
        np.testing.assert_allclose(sums.cosine[vertex], cosine.sum(1), atol=1e-9)
        np.testing.assert_allclose(sums.cosine_squared[vertex], (cosine**2).sum(1), atol=1e-9)
        np.testing.assert_allclose(sums.angle[vertex], np.degrees(np.arccos(cosine)).sum(1), atol=1e-5)
        assert sums.acute[vertex].tolist() == (cosine > 0).sum(1).tolist()
        assert sums.count[vertex].tolist() == [sum(lengths)] * len(PAIRS)
        for pair, (i, k) in enumerate(PAIRS):
            assert float(sums.tangential[vertex, pair]) == pytest.approx(
                float(tangential_cosine(teacher[i], teacher[k], student[vertex]).sum()), abs=1e-9
            )
            bins = np.histogram(cosine[pair], bins=N_BINS, range=(-1, 1))[0]
            assert np.array_equal(sums.histogram[vertex, pair].numpy(), bins)


@settings(max_examples=25, deadline=None)
@given(lengths=lengths_of, seed=st.integers(0, 10**6), gap=st.booleans())
def test_sums_by_example_equal_plain_loops(lengths, seed, gap):
    teacher, student, example = draw(lengths, seed=seed)
    if gap:
        student[0][0] = teacher[1][0]  # the first token loses the pairs (0, 1) and (1, 2) at vertex 0
    state = sums_of(teacher, student, example)
    sums = state.angles
    for vertex in range(VERTICES):
        cosine = cosines(teacher, student, vertex)
        for pair in range(len(PAIRS)):
            count = square = product = count_square = 0.0
            for e in range(len(lengths)):
                values = [c for c, owner in zip(cosine[pair], example, strict=True) if owner == e and not np.isnan(c)]
                y, n = sum(values), len(values)
                count += n > 0
                square, product, count_square = square + y * y, product + y * n, count_square + n * n
            assert int(sums.example_count[vertex, pair]) == count
            assert float(sums.example_square[vertex, pair]) == pytest.approx(square, abs=1e-9)
            assert float(sums.example_product[vertex, pair]) == pytest.approx(product, abs=1e-9)
            assert float(sums.example_count_square[vertex, pair]) == count_square
        for e in range(len(lengths)):
            own = cosine[:, example.numpy() == e]
            assert float(state.examples.cosine[vertex, e]) == pytest.approx(np.nansum(own), abs=1e-9)
            degrees = np.degrees(np.arccos(own[:, ~np.isnan(own).all(0)]))  # of a token: over its defined pairs
            assert float(state.examples.angle[vertex, e]) == pytest.approx(np.nanmean(degrees, 0).sum(), abs=1e-5)
            assert int(state.examples.n_cosines[vertex, e]) == (~np.isnan(own)).sum()
            assert int(state.examples.n_tokens[vertex, e]) == (~np.isnan(own)).any(0).sum()
    assert state.examples.example.tolist() == list(range(len(lengths)))


def test_layer_sums_equal_numpy_on_all_tokens():
    teacher, student, example = draw([4, 3, 5])
    state = sums_of(teacher, student, example)
    sides = {name: [x.double().numpy() for x in states] for name, states in (("t", teacher), ("s", student))}
    blocks = {
        ("t", "t"): (state.teacher_teacher, state.teacher, state.teacher),
        ("t", "s"): (state.teacher_student, state.teacher, state.vertex),
        ("s", "s"): (state.student_student, state.student, state.student),
    }
    for (name_a, name_b), (block, side_a, side_b) in blocks.items():
        centred = centred_cosines(
            block.product, side_a.state, side_b.state, side_a.squared, side_b.squared, state.n_complete
        )
        for i, a in enumerate(sides[name_a]):
            for j, b in enumerate(sides[name_b]):
                norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
                assert float(block.cosine[i, j]) == pytest.approx(((a * b).sum(1) / norms).sum(), abs=1e-9)
                assert float(block.distance[i, j]) == pytest.approx(np.linalg.norm(a - b, axis=1).sum(), abs=1e-5)
                x, y = a - a.mean(0), b - b.mean(0)
                expected = (x * y).sum() / np.sqrt((x * x).sum() * (y * y).sum())
                assert float(centred[i, j]) == pytest.approx(expected, abs=1e-9)
    np.testing.assert_allclose(state.teacher.norm, [np.linalg.norm(t, axis=1).sum() for t in sides["t"]], rtol=1e-12)


@settings(max_examples=30, deadline=None)
@given(lengths=lengths_of, seed=st.integers(0, 10**6), data=st.data())
def test_any_split_of_the_stream_gives_every_sum_of_the_whole(lengths, seed, data):
    teacher, student, example = draw(lengths, seed=seed)
    order = data.draw(st.permutations(range(len(lengths))))
    cuts = [*sorted(data.draw(st.sets(st.integers(1, len(lengths)), max_size=len(lengths)))), len(lengths)]
    # Batches hold whole examples in any order of arrival; inside a batch they stay in the order of the tokens.
    batches = [sorted(order[a:b]) for a, b in zip([0, *cuts], cuts, strict=False) if b > a]
    whole = sums_of(teacher, student, example)
    assert_same(sums_of(teacher, student, example, batches), whole)
    parts = [sums_of(teacher, student, example, [rows]) for rows in batches]
    merged = GeometrySums.zeros(LAYERS, VERTICES, WIDTH)
    for part in parts:
        merged = part + merged
    assert_same(merged, whole)


def test_merging_is_associative_and_zeros_is_the_identity():
    teacher, student, example = draw([3, 1, 4])
    a, b, c = (sums_of(teacher, student, example, [[row]]) for row in range(3))
    zeros = GeometrySums.zeros(LAYERS, VERTICES, WIDTH)
    assert_same((a + b) + c, a + (b + c))
    assert_same(a + b, b + a, exact=True)
    assert_same(zeros + a, a, exact=True)
    assert_same(a + zeros, a, exact=True)
    assert_same(zeros + zeros, zeros, exact=True)


def test_merging_changes_neither_part():
    teacher, student, example = draw([3, 2])
    a, b = (sums_of(teacher, student, example, [[row]]) for row in range(2))
    before = {name: value.clone() for name, value in a.tensors().items()}
    total = a + b
    total.angles.cosine.zero_()
    assert all(torch.equal(value, before[name]) for name, value in a.tensors().items())


def test_half_the_stream_and_a_wrong_merge_differ_from_the_whole():
    teacher, student, example = draw([3, 4])
    whole = sums_of(teacher, student, example)
    first, second = (sums_of(teacher, student, example, [[row]]) for row in range(2))
    swapped = sums_of(teacher[::-1], student, example, [[1]])
    for wrong in (first, second, first + swapped):
        with pytest.raises(AssertionError):
            assert_same(wrong, whole)
    assert_same(first + second, whole)


def test_an_example_in_two_states_or_batches_is_refused():
    teacher, student, example = draw([3, 2])
    state = sums_of(teacher, student, example)
    with pytest.raises(ValueError, match="an example is in both"):
        state + sums_of(teacher, student, example, [[1]])
    with pytest.raises(ValueError, match="an example is in both"):
        sums_of(teacher, student, example, [[0, 1], [0]])


def test_states_of_different_kinds_do_not_add():
    projected, plain = GeometrySums.zeros(LAYERS, VERTICES, WIDTH, 3), GeometrySums.zeros(LAYERS, VERTICES, WIDTH)
    with pytest.raises(TypeError, match="only sums of one kind"):
        projected + plain


def test_no_tokens_leave_the_identity_and_one_token_counts_once():
    accumulator = SumsAccumulator(LAYERS, VERTICES, WIDTH)
    none = torch.zeros(0, dtype=torch.int64)
    accumulator.update([torch.zeros(0, WIDTH)] * LAYERS, [torch.zeros(0, WIDTH)] * VERTICES, none, none)
    assert_same(accumulator.state(), GeometrySums.zeros(LAYERS, VERTICES, WIDTH), exact=True)
    accumulate_batch([], [], [], none, none)
    state = sums_of(*draw([1]))
    assert (int(state.n_tokens), int(state.n_complete)) == (1, 1)
    assert bool((state.angles.count == 1).all())
    assert bool((state.angles.histogram.sum(-1) == 1).all())


def test_a_teacher_of_one_layer_has_no_pairs_but_layer_sums():
    accumulator = SumsAccumulator(1, 1, WIDTH)
    states = torch.randn(4, WIDTH, generator=torch.Generator().manual_seed(0))
    accumulator.update([states], [states + 1], torch.zeros(4, dtype=torch.int64), torch.tensor([0]))
    assert accumulator.state().angles.count.shape == (1, 0)
    assert int(accumulator.state().teacher_student.n_cosine) == 4


@pytest.mark.parametrize(("run", "block"), [(1, 1 << 20), (1 << 20, 1), (1, 1)])
def test_runs_and_blocks_that_cut_an_example_change_nothing(monkeypatch, run, block):
    drawn = draw([5, 40, 3, 1, 30])
    projected = draw([5, 40, 3, 1, 30], student_width=3)
    projections = [torch.randn(WIDTH, 3, generator=torch.Generator().manual_seed(2)) for _ in range(VERTICES)]
    whole, whole_projected = sums_of(*drawn), sums_of(*projected, projections=projections)
    monkeypatch.setattr(streaming, "_PIECE_BYTES", {"cpu": run})
    monkeypatch.setattr(streaming, "_FEWEST_TOKENS", 1 if run == 1 else 128)
    monkeypatch.setattr(products, "_THREAD_BLOCK_BYTES", block)
    assert min(streaming._run_length(SumsAccumulator(LAYERS, VERTICES, WIDTH)), block) < 40
    assert_same(sums_of(*drawn), whole)
    assert_same(sums_of(*projected, projections=projections), whole_projected)


@pytest.mark.parametrize("piece", [1, 8 * 79 * 2, 8 * 79 * 3])
def test_angles_taken_piece_by_piece_change_nothing(monkeypatch, piece):
    """One pair at a time; some pairs of a vertex; all pairs of a vertex."""
    states = draw([5, 40, 3, 1, 30])
    states[0][1][7] = torch.nan  # nowhere an angle
    states[1][0][9] = states[0][2][9]  # no direction
    whole = sums_of(*states)
    monkeypatch.setattr(streaming, "_PIECE_BYTES", {"cpu": piece})
    assert_same(sums_of(*states), whole)
    assert int(whole.angles.count.min()) == 78 - 1
    assert int(whole.angles.zero_direction.sum()) == 1


@pytest.mark.parametrize(("narrow", "wide"), [(torch.int16, torch.int32), (torch.int32, torch.int64)])
def test_a_bin_of_more_tokens_than_its_type_holds(narrow, wide):
    most = torch.iinfo(narrow).max
    teacher, student, _ = draw([1])

    def one_more(state, row):
        accumulator = SumsAccumulator(LAYERS, VERTICES, WIDTH, sums=state)
        accumulator.update(teacher, student, torch.zeros(1, dtype=torch.int64), torch.tensor([row]))
        return accumulator.state()

    state = one_more(None, 0)
    assert state.angles.histogram.dtype == torch.int16
    state.angles.histogram = state.angles.histogram.to(narrow)
    place = (1, 1, int(state.angles.histogram[1, 1].argmax()))
    state.angles.histogram[place] = most
    state.n_tokens.fill_(most)
    for more in (state + one_more(None, 1), one_more(state, 2)):
        assert more.angles.histogram.dtype == wide
        assert int(more.angles.histogram[place]) == most + 1
    # What the narrow type makes of it.
    assert int(torch.tensor(most, dtype=narrow) + 1) < 0


def test_counts_that_move_to_an_accelerator_are_at_least_int32(monkeypatch):
    state = sums_of(*draw([4, 2]))
    assert state.to("cpu").angles.histogram.dtype == torch.int16
    monkeypatch.setattr(sums_module, "_narrowest", lambda device: torch.int32)
    moved = state.to("cpu")
    assert moved.angles.histogram.dtype == torch.int32
    assert torch.equal(moved.angles.histogram, state.angles.histogram.to(torch.int32))


def test_students_fed_together_end_as_if_alone():
    teacher, narrow, example = draw([4, 2], student_width=3)
    _, plain, _ = draw([4, 2], seed=1)
    projections = [torch.randn(WIDTH, 3, generator=torch.Generator().manual_seed(2)) for _ in range(VERTICES)]
    together = [
        SumsAccumulator(LAYERS, VERTICES, WIDTH, 3, projections=projections),
        SumsAccumulator(LAYERS, VERTICES, WIDTH),
    ]
    accumulate_batch(together, teacher, [narrow, plain], example, torch.arange(2))
    assert_same(together[0].state(), sums_of(teacher, narrow, example, projections=projections), exact=True)
    assert_same(together[1].state(), sums_of(teacher, plain, example), exact=True)


def test_projections_equal_projecting_beforehand():
    teacher, student, example = draw([4, 3], student_width=3)
    generator = torch.Generator().manual_seed(5)
    projections = [torch.randn(WIDTH, 3, generator=generator) for _ in range(VERTICES)]
    found = sums_of(teacher, student, example, projections=projections)
    ready = [s.double() @ p.double().T for s, p in zip(student, projections, strict=True)]
    expected = sums_of(teacher, ready, example)
    for name in ("angles", "vertex", "teacher_student", "teacher", "examples"):
        assert_same(getattr(found, name), getattr(expected, name))
    assert_same(found.student_student, sums_of([s[:, :3] for s in teacher], student, example).student_student)
    swapped = sums_of(teacher, student, example, projections=projections[::-1])
    assert (swapped.angles.cosine - found.angles.cosine).abs().max() > 0.1


def test_bfloat16_states_are_summed_as_their_own_values():
    teacher, student, example = draw([6, 5], width=32)
    rounded = [[x.bfloat16() for x in side] for side in (teacher, student)]
    found = sums_of(*rounded, example)
    assert_same(found, sums_of(*[[x.double() for x in side] for side in rounded], example), exact=True)
    mean = found.angles.cosine / found.angles.count
    exact = sums_of(teacher, student, example).angles
    error = (mean - exact.cosine / exact.count).abs().max()
    assert 0 < float(error) < 5e-3


def test_a_copied_layer_is_counted_and_the_official_reading_gives_it_cosine_0():
    teacher, student, example = draw([3, 4])
    student[1] = teacher[2].clone()
    corrected = sums_of(teacher, student, example).angles
    assert corrected.zero_direction.tolist() == [[0, 0, 0], [0, 0, 7]]
    assert corrected.count[1].tolist() == [7, 0, 0]
    assert corrected.histogram[1].sum(-1).tolist() == [7, 0, 0]
    official = sums_of(teacher, student, example, epsilon=1e-6).angles
    assert official.count[1].tolist() == [7, 7, 7]
    assert official.cosine[1, 1:].tolist() == [0.0, 0.0]
    assert official.histogram[1, 1:, N_BINS // 2].tolist() == [7, 7]
    assert official.angle[1, 1:].tolist() == pytest.approx([630.0, 630.0])


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("side", ["teacher", "student"])
def test_states_that_are_not_finite_are_counted_by_layer_and_hurt_no_other(value, side):
    teacher, student, example = draw([3, 4])
    (teacher if side == "teacher" else student)[1][4, 2] = value
    state = sums_of(teacher, student, example)
    assert state.teacher.n_nonfinite.tolist() == [0, int(side == "teacher"), 0]
    assert state.student.n_nonfinite.tolist() == [0, int(side == "student")]
    assert (int(state.n_tokens), int(state.n_complete)) == (7, 6)
    assert all(bool(torch.isfinite(values).all()) for values in state.tensors().values())
    clean = draw([3, 4])
    keep = torch.arange(7) != 4
    without = sums_of([t[keep] for t in clean[0]], [s[keep] for s in clean[1]], example[keep])
    complete = sums_of(*clean)
    for vertex in range(VERTICES):
        for pair, layers in enumerate(PAIRS):
            hit = 1 in layers if side == "teacher" else vertex == 1
            expected = (without if hit else complete).angles
            assert state.angles.count[vertex, pair] == (6 if hit else 7)
            for name in ("cosine", "tangential", "tangential_angle", "null", "angle"):
                found = float(getattr(state.angles, name)[vertex, pair])
                assert found == pytest.approx(float(getattr(expected, name)[vertex, pair]), abs=1e-9), name
    for side_sums, layers, name in ((state.teacher, clean[0], "teacher"), (state.student, clean[1], "student")):
        # A length needs its own state alone.
        own = [layer[keep] if name == side and number == 1 else layer for number, layer in enumerate(layers)]
        lengths = torch.stack([layer.double().norm(dim=-1).sum() for layer in own])
        torch.testing.assert_close(side_sums.norm, lengths)
    for name in ("state", "squared"):  # from tokens that are finite on every side
        torch.testing.assert_close(getattr(state.teacher, name), getattr(without.teacher, name))
    torch.testing.assert_close(state.teacher_student.product, without.teacher_student.product)


def test_zero_states_are_counted_and_give_no_cosine():
    teacher, student, example = draw([3, 2])
    teacher[0][1:3] = 0
    student[1][4] = 0
    state = sums_of(teacher, student, example)
    assert state.teacher.n_zero.tolist() == [2, 0, 0]
    assert state.student.n_zero.tolist() == [0, 1]
    assert state.teacher_student.n_cosine.tolist() == [[3, 2], [5, 4], [5, 4]]
    assert bool((state.teacher_student.n_distance == 5).all())
    assert state.angles.tangential_count[:, 0].tolist() == [3, 2]
    assert bool((state.angles.count == 5).all())


def test_bins_are_a_thousand_equal_ones_and_the_last_holds_1():
    edges = torch.tensor([-1.0, -0.998, -0.5, 0.0, 0.5, 0.9979, 0.9981, 1.0], dtype=torch.float64)
    assert cosine_bins(edges).tolist() == [0, 1, 250, 500, 750, 998, 999, 999]
    cosine = torch.rand(5000, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2 - 1
    expected = np.histogram(cosine.numpy(), bins=N_BINS, range=(-1, 1))[0]
    assert np.array_equal(torch.bincount(cosine_bins(cosine), minlength=N_BINS).numpy(), expected)


def test_an_example_without_a_cosine_is_no_example_of_that_pair():
    """The student's first vertex lies on a teacher layer in all tokens of the second example."""
    teacher, student, example = draw([3, 4, 2])
    student[0][3:7] = teacher[1][3:7]
    angles = sums_of(teacher, student, example).angles
    assert angles.example_count[0].tolist() == [2 if 1 in pair else 3 for pair in PAIRS]
    assert angles.example_count[1].tolist() == [3] * len(PAIRS)
    assert angles.count[0].tolist() == [5 if 1 in pair else 9 for pair in PAIRS]


def error_by_cluster(cosine, example, cluster):
    """The clustered standard error of one row's cosines by plain loops, and how many clusters there are."""
    known = np.isfinite(cosine)
    held = np.array(cluster)[example.numpy()]
    names = sorted(set(held[known].tolist()))
    y = np.array([cosine[known & (held == name)].sum() for name in names])
    n = np.array([(known & (held == name)).sum() for name in names])
    residual = y - y.sum() / n.sum() * n
    return np.sqrt(len(names) / (len(names) - 1) * (residual**2).sum()) / n.sum(), len(names)


@settings(max_examples=40, deadline=None)
@given(
    cluster=st.lists(st.integers(0, 3), min_size=2, max_size=8),
    batch=st.lists(st.integers(0, 2), min_size=8, max_size=8),
    seed=st.integers(0, 10**6),
)
def test_examples_that_read_the_same_are_one_in_the_standard_error(cluster, batch, seed):
    """Whatever batches they come in, and in whichever of two states that are added up."""
    first = [cluster.index(each) for each in cluster]
    lengths = [1 + each for each in first]
    teacher, student, example = draw(lengths, seed=seed)
    teacher[0][example == 0] = student[0][example == 0]  # an example that lacks an angle in some rows
    rows = [[e for e in range(len(cluster)) if batch[e] == number] for number in range(3)]
    split = sorted({f for f in first if len({batch[e] for e in range(len(first)) if first[e] == f}) > 1})
    states = [
        SumsAccumulator(LAYERS, VERTICES, WIDTH, split_clusters=split if len(set(first)) < len(first) else None)
        for _ in range(2)
    ]
    for number, examples in enumerate(rows):
        if examples:
            feed(states[number % 2], teacher, student, example, examples, [first[e] for e in examples])
    sums = states[0].state() + states[1].state()
    assert_same(sums.with_tensors(sums.tensors()), sums, exact=True)
    error, clusters = cosine_standard_error(sums.angles), sums.angles.n_clusters()
    for vertex, (pair, (i, k)) in itertools.product(range(VERTICES), enumerate(PAIRS)):
        cosine = vertex_cosine(teacher[i], teacher[k], student[vertex]).numpy()
        known = {first[e] for e in example[np.isfinite(cosine)].tolist()}
        assert int(clusters[vertex, pair]) == len(known)
        assert int(sums.angles.example_count[vertex, pair]) == len(set(example[np.isfinite(cosine)].tolist()))
        if len(known) < 2:
            assert np.isnan(error[vertex, pair])
        else:
            assert error[vertex, pair] == pytest.approx(error_by_cluster(cosine, example, first)[0], abs=1e-9)


def test_repeats_counted_as_new_examples_would_make_the_error_too_small():
    """Each of ten examples is there nine times: the error is that of the ten, not a third of it."""
    teacher, student, example = draw([2] * 10)
    copies = [torch.cat([side] * 9) for side in teacher], [torch.cat([side] * 9) for side in student]
    together = torch.cat([example + 10 * copy for copy in range(9)])
    once = SumsAccumulator(LAYERS, VERTICES, WIDTH)
    once.update(teacher, student, example, torch.arange(10))
    found = {}
    for split in (None, ()):
        often = SumsAccumulator(LAYERS, VERTICES, WIDTH, split_clusters=split)
        often.update(*copies, together, torch.arange(90), torch.arange(90) % 10)
        found[split] = cosine_standard_error(often.state().angles) / cosine_standard_error(once.state().angles)
    np.testing.assert_allclose(found[()], 1.0, rtol=1e-9)
    np.testing.assert_allclose(found[None], np.sqrt(90 / 89 / (10 / 9)) / 3, rtol=1e-9)
