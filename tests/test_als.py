"""The estimator: training, its parameters and input, and the model that remains when training is stopped."""

import copy
import pickle
import signal
import threading

import numpy as np
import pytest
import sklearn.exceptions
from scipy import sparse
from sklearn.base import clone, is_classifier
from sklearn.utils.validation import check_is_fitted

from alscore import AlternatingLeastSquares, Interactions, NotPositiveDefiniteError, Recommender, evaluate, splits
from alscore.solvers import Cholesky, ConjugateGradient, resolve
from alscore.solvers.half_sweeps import zero_factors
from alscore.testing import exact_half_sweep, loss, row_errors, run_half_sweep, tolerance
from alscore.tuning import validator

EXACT = resolve("cholesky")


def train(matrix, callback=None, **parameters):
    parameters = {"factors": 8, "iterations": 3, "num_threads": 1, "random_state": 0, **parameters}
    return AlternatingLeastSquares(**parameters).fit(matrix, show_progress=False, callback=callback)


def assert_same_bits(model, other):
    assert model.user_factors.tobytes() == other.user_factors.tobytes()
    assert model.item_factors.tobytes() == other.item_factors.tobytes()


@pytest.fixture(scope="module")
def many_plays():
    """A matrix whose both sides have many times the rows that the Gram matrix and the rotation take at a time."""
    rng = np.random.default_rng(0)
    users, items = rng.integers(3500, size=27_000), rng.integers(2600, size=27_000)
    return sparse.csr_array((np.rint(100 ** rng.random(27_000)), (users, items)), shape=(3500, 2600))


# Training


@pytest.mark.parametrize("solver", ["cg", "auto"])
def test_first_sweep_forgets_the_random_item_factors(plays, solver):
    """The users are solved on the random item factors. The items then start from 0."""
    model = train(plays, factors=5, solver=solver, dtype=np.float64, iterations=1, regularization=0.5)
    start = model._initial_factors(plays.shape[1], np.dtype(np.float64), resolve(model.solver))
    dense = plays.toarray()
    X, _ = run_half_sweep(solver, dense, start, np.zeros((len(dense), 5)), regularization=0.5)
    Y, X = run_half_sweep(solver, dense.T, X, np.zeros((dense.shape[1], 5)), regularization=0.5)
    np.testing.assert_allclose(model.user_factors @ model.item_factors.T, X @ Y.T, atol=1e-9)


@pytest.mark.parametrize("shape", [(1, 1), (7, 16), (100, 33)])
def test_factors_begin_with_a_cache_line(shape, dtype):
    factors = zero_factors(*shape, np.dtype(dtype))
    assert factors.shape == shape
    assert factors.dtype == dtype
    assert factors.ctypes.data % 64 == 0
    assert not factors.any()
    assert factors.flags.c_contiguous


def test_same_bits_for_any_number_of_threads(many_plays, solver, dtype, isa, little_work_in_parallel):
    one, two, five = (
        train(many_plays, solver=solver, dtype=dtype, factors=9, iterations=2, num_threads=threads)
        for threads in (1, 2, 5)
    )
    assert_same_bits(one, two)
    assert_same_bits(one, five)


def test_loss_is_the_same_for_any_number_of_threads(many_plays, dtype, little_work_in_parallel):
    losses = [[], [], []]
    for threads, seen in zip((1, 2, 5), losses, strict=True):
        train(
            many_plays,
            lambda iteration, seconds, loss, seen=seen: seen.append(loss),
            dtype=dtype,
            iterations=2,
            num_threads=threads,
        )
    assert losses[0] == losses[1] == losses[2]


def test_zero_regularization_reconstructs_a_binary_matrix(solver):
    likes = np.random.default_rng(0).random((12, 9)) < 0.4
    model = train(sparse.csr_array(likes), factors=9, regularization=0.0, solver=solver, iterations=100)
    np.testing.assert_allclose(model.user_factors @ model.item_factors.T, likes, atol=1e-3)


OBJECTIVES = [
    {},
    {"confidence": "log", "alpha": 20.0, "epsilon": 0.5},
    {"confidence": "raw", "alpha": 2.0, "unobserved_weight": 0.3},
    {"regularization": 0.001, "regularization_exponent": 0.8, "unobserved_weight": 0.1},
    {"regularization": 0.01, "regularization_exponent": 1.0, "regularization_count": "entries"},
]


@pytest.mark.parametrize("parameters", OBJECTIVES)
def test_callback_gets_the_objective(plays, parameters, dtype, solver):
    seen = []
    model = train(plays, lambda *arguments: seen.append(arguments), dtype=dtype, solver=solver, **parameters)
    assert [iteration for iteration, _, _ in seen] == [0, 1, 2]
    assert all(seconds > 0 for _, seconds, _ in seen)
    expected = loss(
        plays.toarray(),
        model.user_factors,
        model.item_factors,
        **{"regularization": model.regularization, **parameters},
    )
    assert seen[-1][2] == pytest.approx(expected, rel=tolerance("loss", dtype))


def test_exact_training_lowers_the_objective_in_every_sweep(plays, dtype):
    losses = []
    train(plays, lambda *arguments: losses.append(arguments[2]), solver="cholesky", dtype=dtype, iterations=8)
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.9 * losses[0]


@pytest.mark.parametrize(("shape", "factors"), [((60, 300), 64), ((30, 12), 17)])
@pytest.mark.parametrize("unobserved_weight", [0.0, 1e-6, 1e-3])
def test_exact_training_lowers_the_objective_of_ill_conditioned_rows(shape, factors, unobserved_weight):
    rng = np.random.default_rng(0)
    strong = sparse.csr_array((rng.random(shape) < 0.3) * np.rint(1e5 ** rng.random(shape)))
    model = train(strong, factors=factors, unobserved_weight=unobserved_weight, solver="cholesky", iterations=8,
                  calculate_training_loss=True)  # fmt: skip
    losses = np.array(model.training_loss)
    assert np.all(np.diff(losses) <= tolerance("descent", np.float32) * losses[:-1])
    dense = {"regularization": 0.01, "unobserved_weight": unobserved_weight}
    oracle = loss(strong.toarray(), model.user_factors, model.item_factors, **dense)
    np.testing.assert_allclose(losses[-1], oracle, rtol=1e-5)


@pytest.mark.parametrize("regularization", [1e-8, 1e-7, 1e-6, 1e-5])
def test_tiny_regularization_with_more_factors_than_items(regularization):
    binary = sparse.csr_array((np.random.default_rng(0).random((30, 12)) < 0.3).astype(float))
    results = [
        train(binary, factors=150, regularization=regularization, solver="cholesky", iterations=8, dtype=dtype)
        for dtype in (np.float32, np.float64)
    ]
    low, high = (loss(binary.toarray(), m.user_factors, m.item_factors, regularization=regularization) for m in results)
    np.testing.assert_allclose(low, high, rtol=0.02)


def test_regularization_of_empty_rows_does_not_overflow(plays, dtype):
    """λ_u = λ n_u**-2 is infinite for a user without entries."""
    plays = plays.tolil()
    plays[3] = 0
    options = {"unobserved_weight": 0.0, "regularization_exponent": -2.0, "regularization": 0.1}
    model = train(plays, iterations=2, calculate_training_loss=True, solver="cholesky", dtype=dtype, **options)
    assert np.isfinite(model.training_loss).all()
    users, items = (np.flatnonzero(np.diff(matrix.indptr)) for matrix in (plays.tocsr(), plays.tocsc()))
    dense, X, Y = plays.toarray()[np.ix_(users, items)], model.user_factors, model.item_factors
    assert not np.delete(X, users, axis=0).any()
    assert not np.delete(Y, items, axis=0).any()
    expected = exact_half_sweep(dense.T, X[users], **options)
    assert row_errors(Y[items], expected).max() <= 10 * tolerance("half-sweep", dtype)
    oracle = loss(dense, X[users], Y[items], **options)
    assert model.training_loss[-1] == pytest.approx(oracle, rel=tolerance("loss", dtype))


def test_training_loss_is_kept_only_where_it_was_computed(plays):
    assert len(train(plays, iterations=3, calculate_training_loss=True).training_loss) == 3
    assert train(plays, iterations=3).training_loss == []


def test_tol_stops_at_the_first_sweep_that_improves_less(plays):
    without, stopped = [], []
    train(plays, lambda iteration, seconds, loss: without.append(loss), iterations=20)
    train(plays, lambda iteration, seconds, loss: stopped.append(loss), iterations=20, tol=0.01)
    improvement = -np.diff(without) / without[:-1]
    sweeps = 2 + int(np.argmax(improvement < 0.01))
    assert 2 < sweeps < 20
    assert stopped == without[:sweeps]


def test_factors_are_in_the_canonical_basis(plays, dtype, solver):
    model = train(plays, dtype=dtype, solver=solver)
    item_factors = model.item_factors.astype(np.float64)
    gram = item_factors.T @ item_factors
    eigenvalues = np.diag(gram)
    off_diagonal = gram - np.diag(eigenvalues)
    assert (np.diff(eigenvalues) <= 0).all()
    assert abs(off_diagonal).max() <= 1e3 * np.finfo(dtype).eps * eigenvalues[0]
    largest = np.take_along_axis(item_factors, abs(item_factors).argmax(axis=0)[None], axis=0)
    assert (largest > 0).all()


def test_canonical_basis_keeps_the_scores(plays):
    inside = []

    class Spy:
        def sweep(self, half_sweep, out):
            EXACT.sweep(half_sweep, out)
            inside.append((half_sweep.factors.copy(), out.copy()))

    model = train(plays, solver=Spy(), dtype=np.float64)
    X, Y = inside[-1]
    np.testing.assert_allclose(model.user_factors @ model.item_factors.T, X @ Y.T, atol=1e-12)


def test_no_iterations_leave_users_at_zero(plays):
    model = train(plays, iterations=0)
    assert not model.user_factors.any()
    assert np.linalg.matrix_rank(model.item_factors) == 8


# Seeds


@pytest.mark.parametrize("make", [int, np.random.default_rng, np.random.RandomState])
def test_equal_seeds_give_equal_bits(plays, make):
    assert_same_bits(train(plays, random_state=make(3)), train(plays, random_state=make(3)))


@pytest.mark.parametrize("make", [np.random.default_rng, np.random.RandomState])
def test_a_generator_gives_other_factors_each_time(plays, make):
    generator = make(3)
    first, second = (train(plays, random_state=generator) for _ in range(2))
    assert (first.item_factors != second.item_factors).any()


def test_other_seeds_give_other_initial_factors(plays):
    models = [train(plays, random_state=seed, iterations=0) for seed in (0, 1, None, None)]
    assert len({model.item_factors.tobytes() for model in models}) == 4


@pytest.mark.parametrize("make", [int, np.random.RandomState])
def test_both_precisions_have_the_same_initial_factors(plays, make):
    narrow, wide = (
        train(plays, dtype=dtype, random_state=make(3), iterations=1, solver="cholesky")
        for dtype in (np.float32, np.float64)
    )
    wide_scores = wide.user_factors @ wide.item_factors.T
    difference = narrow.user_factors @ narrow.item_factors.T - wide_scores
    assert np.linalg.norm(difference) <= tolerance("fit", np.float32) * np.linalg.norm(wide_scores)


def test_second_fit_does_not_continue_the_first(plays):
    model = train(plays)
    first = model.user_factors
    model.fit(plays, show_progress=False)
    assert model.user_factors.tobytes() == first.tobytes()
    assert model.user_factors is not first


# Continued training


def scores(model):
    return model.user_factors.astype(np.float64) @ model.item_factors.T.astype(np.float64)


def test_partial_fit_on_the_same_interactions_is_more_sweeps_and_then_users(plays):
    model = train(plays, iterations=2, solver="cholesky", dtype=np.float64)
    assert model.partial_fit(plays, iterations=2, show_progress=False) is model
    Y = train(plays, iterations=4, solver="cholesky", dtype=np.float64).item_factors
    X = exact_half_sweep(plays.toarray(), Y, regularization=0.01)
    np.testing.assert_allclose(scores(model), X @ Y.T, atol=1e-9)


def test_new_users_and_items_with_entries_for_each_other_only_leave_0(plays):
    # The last ten items are a known one and nine new ones.
    both = sparse.block_diag([plays[:, :119], np.ones((30, 10))], format="csr")
    model = train(both[:300, :120], regularization=1)
    without_sweeps = copy.deepcopy(model).partial_fit(both, iterations=0, show_progress=False)
    assert not scores(without_sweeps)[300:, 119:].any()
    assert not without_sweeps.item_factors[119:].any()
    model.partial_fit(both, iterations=5, show_progress=False)
    assert scores(model)[300:, 119:].min() > 0.5


def test_new_users_are_solved_first_and_new_items_on_all_users(plays, dtype):
    weights = {"regularization": 0.01, "regularization_exponent": 0.7, "unobserved_weight": 0.5}
    model = train(plays[:280, :100], dtype=dtype, **weights)
    Y = model.item_factors
    X = np.concatenate([model.user_factors, exact_half_sweep(plays[280:, :100].toarray(), Y, **weights)])
    Y = np.concatenate([Y, exact_half_sweep(plays[:, 100:].T.toarray(), X, **weights)])
    model.partial_fit(plays, iterations=0, show_progress=False)
    assert row_errors(scores(model), X @ Y.T).max() <= 10 * tolerance("half-sweep", dtype)


@pytest.mark.parametrize("shape", [(300, 100), (280, 120), (280, 100)])
def test_partial_fit_continues_with_sweeps_over_all_rows(plays, shape, dtype):
    """A sweep solves the users from the item factors alone, so it does not depend on the earlier user factors."""
    model = train(plays[: shape[0], : shape[1]], dtype=dtype, solver="cholesky")
    start = copy.deepcopy(model).partial_fit(plays, iterations=0, show_progress=False)
    model.partial_fit(plays, iterations=1, show_progress=False)
    X = exact_half_sweep(plays.toarray(), start.item_factors, regularization=0.01)
    Y = exact_half_sweep(plays.T.toarray(), X, regularization=0.01)
    X = exact_half_sweep(plays.toarray(), Y, regularization=0.01)
    assert row_errors(scores(model), X @ Y.T).max() <= 10 * tolerance("half-sweep", dtype)


def test_update_comes_within_a_percent_of_a_full_retrain():
    rng = np.random.default_rng(0)
    taste = rng.standard_normal((300, 4)) @ rng.standard_normal((4, 120))
    plays = sparse.csr_array(np.rint(np.exp(taste)) * (rng.random((300, 120)) < 0.3))
    before = plays[:290]
    before.data[rng.random(before.nnz) < 0.05] = 0
    model = train(before, iterations=15).partial_fit(plays, show_progress=False)
    updated, retrained = (
        loss(plays.toarray(), m.user_factors, m.item_factors, regularization=0.01)
        for m in (model, train(plays, iterations=15))
    )
    assert updated <= 1.01 * retrained


def test_partial_fit_ends_in_the_canonical_basis(plays):
    model = train(plays[:280, :100], dtype=np.float64).partial_fit(plays, show_progress=False)
    gram = model.item_factors.T @ model.item_factors
    eigenvalues = np.diag(gram)
    assert (np.diff(eigenvalues) <= 0).all()
    assert abs(gram - np.diag(eigenvalues)).max() <= 1e-12 * eigenvalues[0]


def test_partial_fit_reports_as_fit_does(plays):
    model, seen = train(plays[:280], calculate_training_loss=True), []
    model.partial_fit(plays, 2, False, lambda *arguments: seen.append(arguments))
    assert [iteration for iteration, _, _ in seen] == [0, 1]
    assert model.training_loss == [value for *_, value in seen]
    assert model.training_loss[0] > model.training_loss[1]
    Y = model.item_factors
    assert model.training_loss[-1] > loss(plays.toarray(), model.user_factors, Y, regularization=0.01)


def test_partial_fit_that_is_stopped_leaves_a_usable_model(plays):
    def interrupt(iteration, seconds, loss):
        signal.raise_signal(signal.SIGINT)

    model = train(plays[:280, :100])
    expected = copy.deepcopy(model).set_params(warm_start=True, iterations=1).fit(plays, False)
    with pytest.raises(KeyboardInterrupt):
        model.partial_fit(plays, 5, False, interrupt)
    assert_same_bits(model, expected)


def test_partial_fit_keeps_the_basis_of_a_solver_that_asks_for_it(plays):
    class Kept:
        original_basis = True

        def __init__(self):
            self.problems = []

        def sweep(self, half_sweep, out):
            self.problems.append((half_sweep.side, len(out), half_sweep.gram is not None))
            out[:] = 1

    solver = Kept()
    model = train(plays[:280, :100], solver=solver, iterations=0)
    before = model.item_factors
    model.partial_fit(plays, 1, False)
    new, swept = [("user", 20, True), ("item", 20, True)], [("user", 300, True), ("item", 120, True)]
    assert solver.problems == [*new, *swept, swept[0]]
    assert (model.item_factors == 1).all()
    model = train(plays[:280, :100], solver=solver, iterations=0).partial_fit(plays, 0, False)
    np.testing.assert_array_equal(model.item_factors[:100], before)


@pytest.mark.parametrize(("rows", "columns"), [(299, 120), (300, 119), (1, 1)])
def test_fewer_users_or_items_than_the_model_has(plays, rows, columns):
    model = train(plays)
    before = model.user_factors
    with pytest.raises(ValueError, match=rf"shape \({rows}, {columns}\), less than the \(300, 120\) of the model"):
        model.partial_fit(plays[:rows, :columns], show_progress=False)
    assert model.user_factors is before


@pytest.mark.parametrize(("parameter", "said"), [({"factors": 9}, "factors=9"), ({"dtype": "float64"}, "float64")])
@pytest.mark.parametrize("use", ["fit", "partial_fit"])
def test_parameters_that_differ_from_those_of_the_factors_are_refused(plays, parameter, said, use):
    model = train(plays).set_params(warm_start=True, **parameter)
    with pytest.raises(ValueError, match=f"the model has factors=8, float32; .* say .*{said}.*warm_start=False"):
        getattr(model, use)(plays, show_progress=False)


@pytest.mark.parametrize("iterations", [-1, 1.5, True, None])
def test_wrong_number_of_iterations(plays, iterations):
    with pytest.raises(ValueError, match="iterations must be an integer of at least 0"):
        train(plays).partial_fit(plays, iterations, False)


def test_update_that_cannot_be_solved_changes_nothing(plays):
    model = train(plays[:280])
    before = model.user_factors
    model.set_params(confidence="raw", alpha=1e-9, unobserved_weight=50.0, regularization=1e-9)
    with pytest.raises(NotPositiveDefiniteError, match="user row"):
        model.partial_fit(sparse.csr_array(np.ones((300, 120))), show_progress=False)
    assert model.user_factors is before


def test_warm_start_continues_with_new_users_and_items(plays):
    warm = train(plays[:280, :100], warm_start=True)
    fresh = copy.deepcopy(warm).partial_fit(plays, 0, False)
    X = exact_half_sweep(plays.toarray(), fresh.item_factors, regularization=0.01)
    Y = exact_half_sweep(plays.T.toarray(), X, regularization=0.01)
    warm.set_params(iterations=1, solver="cholesky").fit(plays, show_progress=False)
    assert row_errors(scores(warm), X @ Y.T).max() <= 10 * tolerance("half-sweep", np.float32)


@pytest.mark.parametrize("solver", ["cholesky", "cg"])
def test_warm_start_on_the_same_interactions_is_more_sweeps(plays, solver):
    model = train(plays, iterations=2, solver=solver, dtype=np.float64, warm_start=True)
    model.fit(plays, show_progress=False)
    expected = train(plays, iterations=4, solver=solver, dtype=np.float64)
    np.testing.assert_allclose(scores(model), scores(expected), atol=1e-9)


def test_warm_start_without_factors_starts_at_random(plays):
    assert_same_bits(train(plays, warm_start=True), train(plays))


def test_warm_start_from_assigned_factors(plays):
    source = train(plays, iterations=2, dtype=np.float64)
    model = AlternatingLeastSquares(8, iterations=1, num_threads=1, warm_start=True, dtype=np.float64)
    model.user_factors, model.item_factors = source.user_factors, source.item_factors
    model.fit(plays, show_progress=False)
    np.testing.assert_allclose(scores(model), scores(train(plays, iterations=3, dtype=np.float64)), atol=1e-9)


# Input


def with_explicit_zeros(plays):
    full = sparse.coo_array(np.ones(plays.shape))
    full.data[:] = plays.toarray().ravel()
    full.data[full.data == 0] = np.resize([0.0, -0.0], np.count_nonzero(full.data == 0))
    return full


def with_duplicates(plays):
    coo = plays.tocoo()
    parts = np.concatenate([coo.data - 0.5, np.full(coo.nnz, 0.5)])
    return sparse.coo_array((parts, (np.tile(coo.row, 2), np.tile(coo.col, 2))), plays.shape)


def with_long_indices(plays):
    long = plays.copy()
    long.indices, long.indptr = long.indices.astype(np.int64), long.indptr.astype(np.int64)
    return long


FORMATS = {
    **{f: lambda plays, f=f: plays.asformat(f) for f in ("csr", "csc", "coo", "lil", "dok", "bsr")},
    "matrix": sparse.csr_matrix,
    "int16": lambda plays: plays.astype(np.int16),
    "uint8": lambda plays: plays.astype(np.uint8),
    "float64": lambda plays: plays.astype(np.float64),
    "int64 indices": with_long_indices,
    "explicit zeros": with_explicit_zeros,
    "duplicates": with_duplicates,
    "Interactions": Interactions,
}


@pytest.mark.parametrize("form", FORMATS)
def test_every_form_of_input_trains_the_same_model(plays, form):
    matrix = FORMATS[form](plays)
    before = pickle.dumps(matrix)
    assert_same_bits(train(matrix), train(plays))
    assert pickle.dumps(matrix) == before


def test_memory_mapped_input(plays, tmp_path):
    for name in ("data", "indices", "indptr"):
        np.save(tmp_path / f"{name}.npy", getattr(plays, name))
    data, indices, indptr = (np.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in ("data", "indices", "indptr"))
    mapped = sparse.csr_array((data, indices, indptr), plays.shape)
    assert_same_bits(train(mapped), train(plays))


@pytest.mark.parametrize("shape", [(0, 0), (0, 5), (5, 0), (5, 4)])
def test_no_entries_give_zero_factors(shape, solver, dtype):
    model = train(sparse.csr_array(shape), solver=solver, dtype=dtype)
    assert model.user_factors.shape == (shape[0], 8)
    assert model.item_factors.shape == (shape[1], 8)
    assert not model.user_factors.any()
    assert not model.item_factors.any()


@pytest.mark.parametrize("shape", [(1, 6), (6, 1), (1, 1), (3, 4)])
def test_more_factors_than_users_or_items(shape, solver, dtype):
    losses = []
    model = train(
        sparse.csr_array(np.ones(shape)),
        lambda *arguments: losses.append(arguments[2]),
        factors=20,
        solver=solver,
        dtype=dtype,
        regularization=0.001,
        iterations=10,
    )
    np.testing.assert_allclose(model.user_factors @ model.item_factors.T, 1, atol=0.01)
    assert losses[-1] == pytest.approx(
        loss(np.ones(shape), model.user_factors, model.item_factors, regularization=0.001), rel=1e-5
    )


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_name_the_row(plays, value):
    broken = plays.astype(np.float64)
    broken.data[broken.indptr[4]] = value
    with pytest.raises(ValueError, match=r"user_items holds .* at row 4"):
        train(broken)


def test_index_out_of_range_names_the_row(plays):
    broken = plays.copy()
    broken.indices = broken.indices.copy()
    broken.indices[broken.indptr[4]] = 120
    with pytest.raises(ValueError, match="column index 120 at row 4"):
        train(broken)


@pytest.mark.parametrize("wrong", [np.eye(3), None, [[1, 2]], "plays.tsv"])
def test_an_argument_that_is_not_a_sparse_matrix_is_refused(wrong):
    with pytest.raises(TypeError, match="user_items must be a scipy sparse matrix"):
        train(wrong)


@pytest.mark.parametrize("parameters", [{"alpha": 1e37}, {"alpha": 1e30, "confidence": "raw"}])
def test_confidence_beyond_float32_is_refused(plays, parameters):
    large = plays * np.float32(1e10)
    with pytest.raises(ValueError, match=r"alpha times the largest value does not fit float32.*float64"):
        train(large, **parameters)
    assert np.isfinite(train(large, dtype=np.float64, **parameters).user_factors).all()


# Parameters

WRONG = [
    ("factors", [0, -1, 2.0, True, "8", None]),
    ("iterations", [-1, 1.5, True, None]),
    ("regularization", [-1.0, np.nan, np.inf, None, "0.1", True]),
    ("alpha", [0.0, -1.0, np.nan, None]),
    ("epsilon", [0.0, -1.0, np.inf]),
    ("unobserved_weight", [-0.1, np.nan, None]),
    ("regularization_exponent", [np.nan, "1"]),
    ("regularization_count", ["entry", None]),
    ("confidence", ["linaer", None]),
    ("tol", [-0.1, 1.0, np.nan]),
    ("dtype", [np.float16, np.int32]),
    ("num_threads", [-1, 1.5, True, None]),
    ("solver", ["lu"]),
]


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in WRONG for value in values])
def test_wrong_parameter_is_named(plays, name, value):
    with pytest.raises(ValueError, match=name):
        train(plays, **{name: value})


def test_problem_without_any_regularization_is_refused(plays):
    with pytest.raises(ValueError, match="regularization a value above 0"):
        train(plays, regularization=0.0, unobserved_weight=0.0)


def test_numpy_scalars_are_taken(plays):
    model = train(plays, factors=np.int64(8), regularization=np.float32(0.25), iterations=np.int8(3))
    assert_same_bits(model, train(plays, regularization=0.25))


def test_factors_of_a_narrow_type_do_not_overflow(plays):
    for factors in (np.uint8(200), np.int16(200)):
        model = train(plays, factors=factors, iterations=1)
        assert model.item_factors.shape == (120, 200)
        assert_same_bits(model, train(plays, factors=200, iterations=1))


def test_get_and_set_params():
    model = AlternatingLeastSquares(factors=7)
    before = model.get_params()
    assert before["factors"] == 7
    assert model.set_params(alpha=3.0, solver=Cholesky()) is model
    assert model.get_params() == {**before, "alpha": 3.0, "solver": Cholesky()}
    with pytest.raises(ValueError, match="unknown parameters: 'k'; AlternatingLeastSquares has factors, "):
        model.set_params(alpha=5.0, k=3)
    assert model.alpha == 3.0


def test_clone_copies_parameters_without_factors(plays):
    model = train(plays, solver=ConjugateGradient(steps=2), alpha=2.0)
    cloned = clone(model)
    assert cloned.get_params() == model.get_params()
    assert cloned.user_factors is None
    assert cloned.training_loss == []


def test_scikit_learn_accepts_it_as_an_estimator():
    assert not is_classifier(AlternatingLeastSquares())  # `is_classifier` reads the tags


def test_scikit_learn_knows_whether_the_model_is_fitted(plays):
    model = AlternatingLeastSquares()
    with pytest.raises(sklearn.exceptions.NotFittedError):
        check_is_fitted(model)
    model.item_factors = np.ones((3, 2))
    with pytest.raises(sklearn.exceptions.NotFittedError):
        check_is_fitted(model)
    check_is_fitted(train(plays, iterations=0))


@pytest.mark.parametrize("y", [np.zeros(300), [0] * 300])
def test_fit_refuses_y(plays, y):
    with pytest.raises(TypeError, match=r"show_progress must be True or False.*fit takes no y"):
        AlternatingLeastSquares().fit(plays, y)


def test_pickle_keeps_the_fitted_model(plays):
    model = train(plays, solver=ConjugateGradient(steps=2))
    restored = pickle.loads(pickle.dumps(model))
    assert_same_bits(restored, model)
    assert restored.get_params() == model.get_params()


@pytest.mark.parametrize(
    ("parameters", "text"),
    [
        ({}, "AlternatingLeastSquares()"),
        ({"factors": 64, "tol": 0.001}, "AlternatingLeastSquares(factors=64, tol=0.001)"),
        ({"solver": Cholesky(), "alpha": 1}, "AlternatingLeastSquares(alpha=1, solver=Cholesky())"),
    ],
)
def test_repr_shows_the_parameters_that_are_not_default(parameters, text):
    assert repr(AlternatingLeastSquares(**parameters)) == text


# Stopped training


def test_interrupt_leaves_a_usable_model(plays):
    def interrupt(iteration, seconds, loss):
        if iteration == 1:
            signal.raise_signal(signal.SIGINT)

    model = AlternatingLeastSquares(factors=8, iterations=1000, num_threads=1, random_state=0)
    with pytest.raises(KeyboardInterrupt):
        model.fit(plays, show_progress=False, callback=interrupt)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    # two complete sweeps
    assert_same_bits(model, train(plays, iterations=2))


def test_interrupt_within_a_half_sweep_stops_training_after_it(plays):
    half_sweeps = []

    class Interrupted:
        def sweep(self, half_sweep, out):
            EXACT.sweep(half_sweep, out)
            half_sweeps.append(half_sweep.side)
            if len(half_sweeps) == 3:
                signal.raise_signal(signal.SIGINT)

    model = AlternatingLeastSquares(factors=8, solver=Interrupted(), num_threads=1)
    with pytest.raises(KeyboardInterrupt):
        model.fit(plays, show_progress=False)
    assert half_sweeps == ["user", "item", "user"]
    ids, scores = model.recommend(1, plays[[1]], N=5)
    assert (ids >= 0).all()
    assert np.isfinite(scores).all()


def test_second_interrupt_stops_at_once(plays):
    survived = []

    def interrupt(iteration, seconds, loss):
        for _ in range(2):
            signal.raise_signal(signal.SIGINT)
            survived.append(iteration)

    with pytest.raises(KeyboardInterrupt):
        train(plays, interrupt)
    assert survived == [0]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_own_interrupt_handler_is_left_in_place(plays):
    caught = []
    previous = signal.signal(signal.SIGINT, lambda signum, frame: caught.append(signum))
    try:
        model = train(plays, lambda *arguments: signal.raise_signal(signal.SIGINT))
    finally:
        signal.signal(signal.SIGINT, previous)
    assert caught == [signal.SIGINT] * 3
    assert_same_bits(model, train(plays))


def test_exception_in_the_callback_leaves_a_usable_model(plays):
    def fail(iteration, seconds, loss):
        if iteration == 1:
            raise LookupError("enough")

    model = AlternatingLeastSquares(factors=8, num_threads=1, random_state=0)
    with pytest.raises(LookupError, match="enough"):
        model.fit(plays, show_progress=False, callback=fail)
    assert_same_bits(model, train(plays, iterations=2))
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_row_that_cannot_be_solved_keeps_the_former_factors(plays):
    class Fails:
        def sweep(self, half_sweep, out):
            raise ArithmeticError("row 3")

    model = train(plays)
    before = pickle.loads(pickle.dumps(model))
    with pytest.raises(ArithmeticError, match="row 3"):
        model.set_params(solver=Fails()).fit(plays, show_progress=False)
    assert_same_bits(model, before)


def test_fit_outside_of_the_main_thread(plays):
    models = []
    thread = threading.Thread(target=lambda: models.append(train(plays)))
    thread.start()
    thread.join()
    assert_same_bits(models[0], train(plays))


def test_progress_bar_shows_the_loss(plays, capsys):
    model = AlternatingLeastSquares(factors=2, iterations=2, calculate_training_loss=True, num_threads=1).fit(plays)
    assert f"loss={model.training_loss[-1]:.6g}" in capsys.readouterr().err


@pytest.mark.parametrize("train", ["fit", "partial_fit"])
def test_progress_bar_counts_sweeps_unless_it_is_switched_off(plays, capsys, train):
    model = AlternatingLeastSquares(factors=2, num_threads=1).fit(plays, show_progress=False)
    assert capsys.readouterr() == ("", "")
    model.set_params(iterations=3)
    getattr(model, train)(plays, **{"iterations": 3} if train == "partial_fit" else {})
    out, err = capsys.readouterr()
    assert out == ""
    assert "3/3" in err
    assert "sweep" in err


# Validation in each sweep


@pytest.fixture(scope="module")
def split(plays):
    return splits.leave_k_out(plays, 0.3)


@pytest.fixture(scope="module")
def user_split(plays):
    return splits.user_split(plays, 0.3, k=0.4)


def validated(matrix, validation, callback=None, **parameters):
    parameters = {"factors": 8, "iterations": 6, "num_threads": 1, "random_state": 0, **parameters}
    model = AlternatingLeastSquares(**parameters)
    return model.fit(matrix, show_progress=False, callback=callback, validation=validation)


def each_sweep(matrix, **parameters):
    """Return models of 1, 2, … 6 sweeps, each fitted afresh."""
    return [train(matrix, iterations=n, **parameters) for n in range(1, 7)]


def test_validation_keeps_the_best_sweep(split, solver, dtype):
    models = each_sweep(split.train, solver=solver, dtype=dtype)
    scores = [evaluate(model, *split, 10, ["ndcg"])["ndcg@10"] for model in models]
    model = validated(split.train, split, solver=solver, dtype=dtype)
    assert model.validation_scores == scores
    assert 0 < np.argmax(scores) < 5
    assert_same_bits(model, models[np.argmax(scores)])


def test_validation_on_new_users_by_another_metric(user_split):
    models = each_sweep(user_split.train)
    scores = [evaluate(model, user_split.fold_in, user_split.test, 3, ["recall"], new_users=True) for model in models]
    scores = [score["recall@3"] for score in scores]
    model = validated(user_split.train, validator(user_split, "recall@3"))
    assert model.validation_scores == scores
    assert_same_bits(model, models[np.argmax(scores)])
    assert validated(user_split.train, user_split).validation_scores != scores


def test_validation_by_a_function_of_the_model(plays):
    seen = []

    def nearness(model):
        seen.append(model)
        return -abs(len(seen) - 4)

    model = validated(plays, nearness)
    assert model.validation_scores == [-3, -2, -1, 0, -1, -2]
    for scored, trained in zip(seen, each_sweep(plays), strict=True):
        assert_same_bits(scored, trained)
        assert not scored.user_factors.flags.writeable
    assert_same_bits(model, seen[3])


def test_in_case_of_a_tie_the_earliest_sweep_is_kept(plays):
    assert_same_bits(validated(plays, lambda model: 0), train(plays, iterations=1))


def test_validation_does_not_change_training(plays):
    losses = [[], []]
    counts = iter(range(6))
    for validation, seen in zip((None, lambda model: next(counts)), losses, strict=True):
        model = validated(plays, validation, lambda iteration, seconds, loss, seen=seen: seen.append(loss))
    assert losses[0] == losses[1]
    assert_same_bits(model, train(plays, iterations=6))


def test_validation_with_tol(plays):
    counts = iter(range(1000))
    stopped = train(plays, iterations=1000, tol=0.01)
    model = validated(plays, lambda model: next(counts), iterations=1000, tol=0.01)
    assert len(model.validation_scores) == len(stopped.training_loss) < 1000
    assert_same_bits(model, stopped)


def test_validation_of_a_warm_start(split):
    scores, models = [], []
    for n in range(1, 7):
        again = train(split.train, iterations=2, warm_start=True).set_params(iterations=n)
        models.append(again.fit(split.train, show_progress=False))
        scores.append(evaluate(again, *split, 10, ["ndcg"])["ndcg@10"])
    model = train(split.train, iterations=2, warm_start=True).set_params(iterations=6)
    model.fit(split.train, show_progress=False, validation=split)
    assert model.validation_scores == scores
    assert_same_bits(model, models[np.argmax(scores)])


def test_validation_scores_are_those_of_the_last_training(split):
    model = validated(split.train, split)
    assert AlternatingLeastSquares().validation_scores == []
    assert model.partial_fit(split.train, show_progress=False).validation_scores == []
    assert validated(split.train, split, iterations=0).validation_scores == []


def test_validation_scores_a_solver_that_keeps_the_basis_in_that_basis(plays):
    class Original:
        original_basis = True

        def sweep(self, half_sweep, out):
            out[:] = np.arange(out.size).reshape(out.shape) % 7 + (half_sweep.side == "item")

    model = validated(plays, lambda model: model.item_factors[0, 0], iterations=1, solver=Original())
    assert model.validation_scores == [1]
    assert_same_bits(model, train(plays, iterations=1, solver=Original()))


@pytest.mark.parametrize("stop", [lambda: signal.raise_signal(signal.SIGINT), lambda: 1 / 0])
def test_validation_that_is_stopped_leaves_the_best_so_far(plays, stop):
    scores = iter([0.2, 0.3, 0.1])

    def score_model(model):
        score = next(scores)
        if score == 0.1:
            stop()
        return score

    model = AlternatingLeastSquares(factors=8, num_threads=1, random_state=0)
    with pytest.raises((KeyboardInterrupt, ZeroDivisionError)):
        model.fit(plays, show_progress=False, validation=score_model)
    assert_same_bits(model, train(plays, iterations=2))
    assert model.validation_scores[:2] == [0.2, 0.3]


@pytest.mark.parametrize("score", [np.nan, -np.inf, None, "0.5", np.ones(2)])
def test_validation_must_be_a_finite_number(plays, score):
    model = AlternatingLeastSquares(factors=8, num_threads=1, random_state=0)
    with pytest.raises(ValueError, match="validation must return a finite number, not "):
        model.fit(plays, show_progress=False, validation=lambda model: score)
    assert_same_bits(model, train(plays, iterations=1))


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        (lambda train, test: (train, test, "ndcg@10"), TypeError, r"validation must be \(train, test\), a Split"),
        (lambda train, test: test, TypeError, "not csr_array"),
        (lambda train, test: (train, -abs(test)), ValueError, "no entry above 0"),
        (lambda train, test: (train.toarray(), test.toarray()), TypeError, "must be a scipy sparse matrix"),
    ],
)
def test_wrong_validation_is_refused_before_training(split, wrong, error, message):
    model = AlternatingLeastSquares(num_threads=1)
    with pytest.raises(error, match=message):
        model.fit(split.train, show_progress=False, validation=wrong(*split))
    assert model.item_factors is None


def labelled(matrix, prefix=""):
    return Interactions(matrix, *([f"{prefix}{id}" for id in range(n)] for n in matrix.shape))


@pytest.mark.parametrize("make", [lambda split: split, validator])
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda split, new: (split.train[:, :-1], split), r"user_items has shape \(300, 119\) and the parts"),
        (lambda split, new: (new.train[:, :-1], new), r"user_items has shape \(210, 119\) and the parts"),
        (lambda split, new: (split.train + split.test, split), "is in both parts.*: train without the held-out entr"),
        (
            lambda split, new: (labelled(split.train), (labelled(split.train, "x"), labelled(split.test, "x"))),
            "user_items and validation have different users",
        ),
        (
            lambda split, new: (labelled(new.train), new._replace(fold_in=labelled(new.fold_in, "x"))),
            "user_items and validation have different items",
        ),
        (
            lambda split, new: (labelled(new.train), new._replace(fold_in=labelled(new.fold_in))),
            "validation is by new users, but '0' is trained on: train without them",
        ),
    ],
)
def test_validation_of_other_data_leaves_the_model(split, user_split, wrong, message, make):
    model = train(split.train, iterations=1)
    before = model.item_factors
    user_items, validation = wrong(split, user_split)
    with pytest.raises(ValueError, match=message):
        model.fit(user_items, show_progress=False, validation=make(validation))
    assert model.item_factors is before


def test_parts_of_a_validation_that_do_not_belong_together_are_refused(split):
    for parts, message in (
        ((labelled(split.train), labelled(split.test, "x")), "the parts of validation have different users"),
        ((split.train, split.test[:-1]), "must have the same users and items"),
        ((split.train + split.test, split.test), "is in both parts.*: leave them out of one part$"),
    ):
        with pytest.raises(ValueError, match=message):
            validator(parts)


def test_progress_bar_shows_the_validation(split, capsys):
    model = AlternatingLeastSquares(factors=2, iterations=2, num_threads=1).fit(split.train, validation=split)
    assert f"validation={model.validation_scores[-1]:.4f}" in capsys.readouterr().err


def test_recommender_passes_the_validation_on(plays):
    labels = [f"user {id}" for id in range(plays.shape[0])], [f"item {id}" for id in range(plays.shape[1])]
    split = splits.leave_k_out(Interactions(plays, *labels), 0.3)
    model = AlternatingLeastSquares(factors=8, iterations=6, num_threads=1, random_state=0)
    recommender = Recommender(model).fit(split.train, show_progress=False, validation=split)
    assert_same_bits(recommender.model, validated(split.train, split))
    with pytest.raises(ValueError, match="user_items and validation have different users"):
        recommender.fit(labelled(split.train.matrix), show_progress=False, validation=split)
    with pytest.raises(ValueError, match="is in both parts"):
        recommender.fit(Interactions(plays, *labels), show_progress=False, validation=split)
