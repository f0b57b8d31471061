"""Training and its sides: one sweep at a time, against exact half-sweeps in float64."""

import numpy as np
import pytest
from scipy import sparse

from alscore import solvers
from alscore._data.canonical import canonical_csr
from alscore.solvers.fold_in import FoldIn
from alscore.solvers.half_sweeps import Side, canonical_signs, principal_axes, with_ridge
from alscore.solvers.objective import Objective
from alscore.solvers.training import Training, initial_factors, resized
from alscore.testing import exact_half_sweep, loss, row_errors, tolerance

N_USERS, N_ITEMS, K = 50, 40, 6


class InPython:
    """An exact solver that keeps the original basis. It notes the factors that each half-sweep starts with."""

    original_basis = warm_start = True

    def __init__(self):
        self.starts = []

    def sweep(self, half_sweep, out):
        self.starts.append((half_sweep.side, out.copy()))
        out[:] = 0
        for row, columns, weight, target, diagonal in half_sweep.rows():
            Y = half_sweep.factors[columns].astype(np.float64)
            gram = 0 if half_sweep.gram is None else half_sweep.gram.astype(np.float64)
            out[row] = np.linalg.solve(gram + np.diag(diagonal) + Y.T @ (weight[:, None] * Y), Y.T @ target)


SOLVERS = {
    "rotated": lambda: "cholesky",
    "rotated, few steps": lambda: "cg",
    "nonnegative": lambda: "nonnegative",
    "in Python": InPython,
}
EXACT = [name for name in SOLVERS if name != "rotated, few steps"]


@pytest.fixture(scope="module")
def values():
    """Likes and dislikes, with an empty row and an empty column."""
    rng = np.random.default_rng(0)
    values = rng.integers(1, 20, (N_USERS, N_ITEMS)) * rng.choice([1, 1, 1, -1], (N_USERS, N_ITEMS))
    values *= rng.random((N_USERS, N_ITEMS)) < 0.3
    values[3] = values[:, 5] = 0
    return values.astype(float)


def users_of(values, dtype=np.float64, **parameters):
    objective = Objective(**{"regularization": 0.01, **parameters})
    return Side.of("user", objective, canonical_csr(sparse.csr_array(values), dtype), K, 1)


def initial_of(values, dtype=np.float64, seed=0):
    """Random item factors >= 0: every solver can start from them."""
    return np.abs(np.random.default_rng(seed).standard_normal((values.shape[1], K))).astype(dtype)


def begin(values, solver, dtype=np.float64, *, random_start=False, wants_loss=False, **parameters):
    users, Y = users_of(values, dtype, **parameters), initial_of(values, dtype)
    X = initial_of(values.T, dtype, seed=1)
    options = {"random_start": random_start, "wants_loss": wants_loss}
    return Training(users, users.transposed("item"), X, Y, solvers.resolve(solver), **options)


def scores(X, Y):
    return X.astype(np.float64) @ Y.T.astype(np.float64)


def bits(training):
    return training.X.tobytes(), training.Y.tobytes()


# Sweeps


@pytest.mark.parametrize("name", EXACT)
def test_a_sweep_is_two_exact_half_sweeps(values, name, objective, dtype):
    training, nonnegative = begin(values, SOLVERS[name](), dtype, **objective), name == "nonnegative"
    Y = initial_of(values, dtype)
    for _ in range(2):
        X = exact_half_sweep(values, Y, nonnegative, **objective)
        Y = exact_half_sweep(values.T, X, nonnegative, **objective)
        assert training.sweep() is True
        assert row_errors(scores(training.X, training.Y), X @ Y.T).max() <= 10 * tolerance("half-sweep", dtype)
        assert (training.X.dtype, training.Y.dtype) == (dtype, dtype)
        if solvers.keeps_basis(training.solver):
            assert row_errors(training.Y, Y).max() <= 10 * tolerance("half-sweep", dtype)
        X, Y = training.X.astype(np.float64), training.Y.astype(np.float64)


@pytest.mark.parametrize("name", EXACT)
def test_each_half_is_exact(values, name, dtype):
    training, nonnegative = begin(values, SOLVERS[name](), dtype), name == "nonnegative"
    Y = initial_of(values, dtype)
    training.solve_users()
    X = exact_half_sweep(values, Y, nonnegative, regularization=0.01)
    assert row_errors(scores(training.X, training.Y), X @ Y.T).max() <= tolerance("half-sweep", dtype)
    X = training.X.astype(np.float64)
    training.solve_items()
    Y = exact_half_sweep(values.T, X, nonnegative, regularization=0.01)
    assert row_errors(scores(training.X, training.Y), X @ Y.T).max() <= tolerance("half-sweep", dtype)


@pytest.mark.parametrize("name", SOLVERS)
def test_losses_are_the_objective_after_each_sweep(values, name, objective, dtype):
    training, expected = begin(values, SOLVERS[name](), dtype, wants_loss=True, **objective), []
    for _ in range(3):
        training.sweep()
        expected.append(loss(values, training.X, training.Y, **objective))
    assert training.losses == pytest.approx(expected, rel=tolerance("loss", dtype))
    assert len(set(training.losses)) == 3


@pytest.mark.parametrize("name", SOLVERS)
def test_losses_change_no_bits_and_are_only_computed_on_demand(values, name, dtype):
    with_losses, without = (begin(values, SOLVERS[name](), dtype, wants_loss=wants) for wants in (True, False))
    for _ in range(2):
        with_losses.sweep()
        without.sweep()
    assert bits(with_losses) == bits(without)
    assert len(with_losses.losses) == 2
    assert without.losses == []


@pytest.mark.parametrize("name", SOLVERS)
def test_a_sweep_that_is_stopped_ends_between_its_halves(values, name):
    stopped, users_only = (begin(values, SOLVERS[name](), wants_loss=True) for _ in range(2))
    before, calls = bits(stopped), []

    def stops():
        calls.append(bits(stopped))
        return True

    assert stopped.sweep(stops) is False
    users_only.solve_users()
    assert before != bits(stopped) == bits(users_only)
    assert calls == [bits(users_only)]
    assert stopped.losses == []


def test_a_sweep_that_is_not_stopped_is_complete(values):
    watched, plain = begin(values, "cholesky"), begin(values, "cholesky")
    calls = []
    assert watched.sweep(lambda: bool(calls.append("between the halves")))
    plain.sweep()
    assert calls == ["between the halves"]
    assert bits(watched) == bits(plain)


@pytest.mark.parametrize(
    ("losses", "tol", "expected"),
    [
        ([], 0.5, False),
        ([8.0], 0.5, False),
        ([8.0, 7.0], None, False),
        ([8.0, 7.0], 0.124, False),
        ([8.0, 7.0], 0.125, False),
        ([8.0, 7.0], 0.126, True),
        # A share of the loss before, not of the loss now.
        ([8.0, 4.0], 0.75, True),
        ([100.0, 8.0, 7.0], 0.126, True),
        ([8.0, 8.0, 4.0], 0.2, False),
        ([8.0, 8.0], 0.0, False),
        ([8.0, 8.0], 0.001, True),
        ([8.0, 8.5], 0.0, True),
    ],
)
def test_convergence_compares_the_last_two_losses(values, losses, tol, expected):
    training = begin(values, "cholesky")
    training.losses += losses
    assert training.converged(tol) is expected


# Results


@pytest.mark.parametrize("random_start", [False, True])
@pytest.mark.parametrize("name", SOLVERS)
def test_so_far_is_a_copy_and_leaves_training_unaffected(values, name, random_start, dtype):
    options = {"random_start": random_start, "wants_loss": True}
    watched, plain, ended = (begin(values, SOLVERS[name](), dtype, **options) for _ in range(3))
    for sweeps in range(3):
        before = bits(watched)
        X, Y = watched.so_far()
        assert bits(watched) == before
        assert not any(np.shares_memory(one, other) for one in (X, Y) for other in (watched.X, watched.Y))

        for _ in range(sweeps):
            ended.sweep()
        copies = X.tobytes(), Y.tobytes()
        assert copies == tuple(factors.tobytes() for factors in ended.finished())
        ended = begin(values, SOLVERS[name](), dtype, **options)

        watched.sweep()
        plain.sweep()
        assert bits(watched) == bits(plain)
        assert watched.losses == plain.losses
        assert (X.tobytes(), Y.tobytes()) == copies


@pytest.mark.parametrize("name", ["rotated", "rotated, few steps"])
def test_finished_factors_are_in_the_canonical_basis(values, name, dtype):
    training = begin(values, SOLVERS[name](), dtype)
    training.sweep()
    before = scores(training.X, training.Y)
    X, Y = training.finished()
    assert X is training.X
    assert Y is training.Y
    gram = Y.T.astype(np.float64) @ Y
    eigenvalues = np.diag(gram)
    assert (np.diff(eigenvalues) <= 0).all()
    assert abs(gram - np.diag(eigenvalues)).max() <= 100 * np.finfo(dtype).eps * eigenvalues[0]
    np.testing.assert_allclose(eigenvalues, np.linalg.eigvalsh(gram)[::-1], rtol=1e-4)
    assert (Y[abs(Y).argmax(axis=0), np.arange(K)] > 0).all()
    assert row_errors(scores(X, Y), before).max() <= tolerance("half-sweep", dtype)


@pytest.mark.parametrize("name", ["nonnegative", "in Python"])
def test_finished_factors_of_a_solver_that_keeps_the_basis_are_not_rotated(values, name, dtype):
    training = begin(values, SOLVERS[name](), dtype)
    training.sweep()
    before = bits(training)
    X, Y = training.finished()
    assert (X.tobytes(), Y.tobytes()) == before
    assert X is training.X
    assert Y is training.Y


# Where training starts


def test_training_afresh_starts_with_users_of_0_and_forgets_the_initial_items_once(values):
    solver, initial = InPython(), initial_of(values)
    training = Training.afresh(users_of(values), initial.copy(), solver)
    assert not training.X.any()
    np.testing.assert_array_equal(training.Y, initial)
    training.sweep()
    X = exact_half_sweep(values, initial, regularization=0.01)
    Y = exact_half_sweep(values.T, X, regularization=0.01)
    assert row_errors(scores(training.X, training.Y), X @ Y.T).max() <= 10 * tolerance("half-sweep", np.float64)
    X, Y = training.X.copy(), training.Y.copy()
    training.sweep()
    zero = np.zeros
    expected = [("user", zero(X.shape)), ("item", zero(Y.shape)), ("user", X), ("item", Y)]
    assert [(side, start.tobytes()) for side, start in solver.starts] == [(s, a.tobytes()) for s, a in expected]


@pytest.mark.parametrize("random_start", [False, True])
def test_only_a_random_start_forgets_the_item_factors(values, random_start):
    solver = InPython()
    training = begin(values, solver, random_start=random_start)
    X, Y = training.X.copy(), training.Y.copy()
    training.sweep()
    (_, users), (_, items) = solver.starts
    np.testing.assert_array_equal(users, X)
    np.testing.assert_array_equal(items, 0 * Y if random_start else Y)


def test_restart_makes_the_next_sweep_forget_the_item_factors(values):
    solver = InPython()
    training = begin(values, solver)
    training.sweep()
    training.restart()
    before = bits(training)
    training.sweep()
    Y = training.Y.copy()
    training.sweep()
    starts = [start for side, start in solver.starts if side == "item"]
    assert before != bits(training)
    np.testing.assert_array_equal(starts[0], initial_of(values))
    assert not starts[1].any()
    np.testing.assert_array_equal(starts[2], Y)


# Continued training


KNOWN_USERS, KNOWN_ITEMS = 44, 35


@pytest.fixture(scope="module")
def grown(values):
    """Values with new users and items, and the factors that are known of the old ones.

    The new user 46 and the new item 37 have an entry for each other only. So have the new user 47 and the known item
    8, whose factors are 0. Item 9 has factors of 0 too, but an entry of a user with factors. Item 38 has no entries.
    """
    grown = values.copy()
    grown[[46, 47]] = grown[:, [8, 9, 37, 38]] = 0
    grown[46, 37] = grown[47, 8] = grown[0, 9] = 2
    X, Y = (initial_of(matrix)[:n].copy() for matrix, n in ((grown.T, KNOWN_USERS), (grown, KNOWN_ITEMS)))
    X[[3, 7]] = 0
    Y[[5, 8, 9]] = 0
    return grown, X, Y


LOST = [8, 37]  # these items have entries, but the factors of all their users are 0


def continue_with(grown, solver="cholesky", dtype=np.float64, initial=None, **parameters):
    values, X, Y = grown
    known = X.astype(dtype), Y.astype(dtype)
    for array in known:
        array.flags.writeable = False

    def fold_in():
        assert len(values) > KNOWN_USERS
        return FoldIn(known[1], 1)

    users = users_of(values, dtype, **parameters)
    return Training.continued(users, known, solvers.resolve(solver), fold_in, initial), known


@pytest.mark.parametrize("name", EXACT)
def test_continued_training_solves_new_users_and_then_new_items(grown, name, objective, dtype):
    (values, X, Y), nonnegative = grown, name == "nonnegative"
    training, known = continue_with(grown, SOLVERS[name](), dtype, **objective)
    X, Y = X.astype(dtype), Y.astype(dtype)
    new_users = exact_half_sweep(values[KNOWN_USERS:, :KNOWN_ITEMS], Y, nonnegative, **objective)
    X = np.concatenate([X, new_users])
    Y = np.concatenate([Y, exact_half_sweep(values[:, KNOWN_ITEMS:].T, X, nonnegative, **objective)])
    assert row_errors(training.X, X).max() <= 10 * tolerance("half-sweep", dtype)
    assert row_errors(training.Y, Y).max() <= 10 * tolerance("half-sweep", dtype)
    assert training.X[:KNOWN_USERS].tobytes() == known[0].tobytes()
    assert training.Y[:KNOWN_ITEMS].tobytes() == known[1].tobytes()
    # These stay at 0 without initial factors.
    assert not training.X[[46, 47]].any()
    assert not training.Y[[*LOST, 38]].any()


def test_items_whose_users_are_all_0_get_initial_factors(grown, dtype):
    numbers = []

    def initial(n):
        numbers.append(n)
        return np.arange(1, n * K + 1).reshape(n, K)

    training, _ = continue_with(grown, dtype=dtype, initial=initial)
    without, _ = continue_with(grown, dtype=dtype)
    assert numbers == [len(LOST)]
    np.testing.assert_array_equal(training.Y[LOST], np.arange(1, 2 * K + 1).reshape(2, K))
    others = np.setdiff1d(np.arange(N_ITEMS), LOST)
    assert training.Y[others].tobytes() == without.Y[others].tobytes()
    assert not training.Y[[9, 38]].any()  # a user of item 9 has factors, and item 38 has no entry
    training.sweep()
    assert training.Y[9].any()
    assert scores(training.X, training.Y)[46, 37] > 0
    without.sweep()
    assert scores(without.X, without.Y)[46, 37] == 0


def test_continued_training_folds_in_and_draws_only_where_it_must(grown):
    def none(n):
        assert n == 0
        return np.zeros((0, K))

    values, X, Y = grown
    values = values[:KNOWN_USERS].copy()
    values[0, [8, 37]] = 1
    training, _ = continue_with((values, X, Y), initial=none)  # its `fold_in` fails without new users
    assert training.X.tobytes() == X.tobytes()
    assert len(training.Y) == N_ITEMS
    np.testing.assert_allclose(
        training.Y[KNOWN_ITEMS:], exact_half_sweep(values[:, KNOWN_ITEMS:].T, X, regularization=0.01), rtol=1e-8
    )


@pytest.mark.parametrize("grows", [True, False])
def test_continued_training_does_not_modify_the_known_factors(grown, grows):
    values, X, Y = grown
    if not grows:
        grown = values[:KNOWN_USERS, :KNOWN_ITEMS], X, Y
    training, known = continue_with(grown)
    assert not any(np.shares_memory(a, b) for a in known for b in (training.X, training.Y))
    for _ in range(2):
        training.sweep()
    training.finished()
    assert [array.tobytes() for array in known] == [X.tobytes(), Y.tobytes()]


def test_continued_training_continues_the_item_factors(grown):
    """The known item factors are not random: a solver that starts warm gets them."""
    values, X, Y = grown
    solver = InPython()
    training, _ = continue_with((values[:KNOWN_USERS, :KNOWN_ITEMS], X, Y), solver)
    training.sweep()
    (_, users), (_, items) = solver.starts
    np.testing.assert_array_equal(users, X)
    np.testing.assert_array_equal(items, Y)


# Sides


def assert_same_side(side, expected):
    assert (side.name, side.objective, side.n_columns) == (expected.name, expected.objective, expected.n_columns)
    for name in ("indptr", "indices", "strength", "order", "regularization"):
        one, other = getattr(side, name), getattr(expected, name)
        np.testing.assert_array_equal(one, other, err_msg=name, strict=True)


def test_a_side_has_the_rows_of_its_matrix_the_longest_first(values, objective, dtype):
    users = users_of(values, dtype, **objective)
    entries = np.count_nonzero(values, axis=1)
    assert users.order.tolist() == sorted(range(N_USERS), key=lambda user: -entries[user])
    assert users.n_columns == N_ITEMS
    strength = values if objective.get("confidence") != "log" else np.sign(values) * np.log1p(abs(values) / 0.5)
    rows = sparse.csr_array((users.strength, users.indices, users.indptr), values.shape).toarray()
    np.testing.assert_allclose(rows, strength, rtol=2 * np.finfo(dtype).eps)
    size = entries + (0 if objective.get("regularization_count") else objective.get("unobserved_weight", 1.0) * N_ITEMS)
    expected = objective["regularization"] * size ** objective.get("regularization_exponent", 0.0)
    np.testing.assert_allclose(np.broadcast_to(users.regularization, N_USERS), expected, rtol=1e-12)


def test_a_transposed_side_is_that_of_the_transposed_matrix(values, objective, dtype):
    expected = users_of(values.T, dtype, **objective)
    expected.name = "item"
    assert_same_side(users_of(values, dtype, **objective).transposed("item"), expected)


@pytest.mark.parametrize("first_row", [0, 1, 17, N_USERS - 1, N_USERS])
@pytest.mark.parametrize("n_columns", [0, 6, N_ITEMS])
def test_a_part_of_a_side_is_that_of_the_part_of_the_matrix(values, first_row, n_columns):
    parameters = {"regularization": 0.1, "regularization_exponent": 0.7, "confidence": "log"}
    part = users_of(values, **parameters).part(first_row, n_columns)
    assert_same_side(part, users_of(values[first_row:, :n_columns], **parameters))


# Eigenvalues, their ridge, and signs


def test_principal_axes_descend_and_are_at_least_0():
    """The Gram matrix of three factors of length 20 has 17 eigenvalues of 0. Rounding may make them negative."""
    factors = np.random.default_rng(0).standard_normal((3, 20))
    gram = factors.T @ factors - 1e-12 * np.eye(20)
    eigenvalues, eigenvectors = principal_axes(gram)
    assert eigenvectors.flags.c_contiguous
    assert (np.diff(eigenvalues) <= 0).all()
    np.testing.assert_allclose(eigenvalues[:3], np.linalg.svd(factors)[1] ** 2, rtol=1e-11)
    np.testing.assert_array_equal(eigenvalues[3:], np.zeros(17))
    np.testing.assert_allclose(eigenvectors.T @ eigenvectors, np.eye(20), atol=1e-13)
    np.testing.assert_allclose((eigenvectors * eigenvalues) @ eigenvectors.T, gram, atol=1e-11)


@pytest.mark.parametrize(("dtype", "share"), [("float32", 16 * 2.0**-23), ("float64", 1e-12)])
def test_the_ridge_raises_only_eigenvalues_that_are_rounding_errors(dtype, share):
    eigenvalues = np.array([50.0, 1e-3, 50 * 1.01e-12, 50 * 0.99e-12, 1e-30, 0.0])
    before = eigenvalues.copy()
    raised = with_ridge(eigenvalues, np.dtype(dtype))
    np.testing.assert_array_equal(eigenvalues, before)
    np.testing.assert_array_equal(raised[:3], eigenvalues[:3])
    np.testing.assert_allclose(raised[3:], 50 * share, rtol=1e-12)
    np.testing.assert_array_equal(with_ridge(np.zeros(2), np.dtype(dtype)), [np.finfo(dtype).tiny] * 2)
    assert with_ridge(np.zeros(0), np.dtype(dtype)).shape == (0,)


def test_signs_make_the_number_of_largest_magnitude_positive():
    lowest, highest = np.array([-2.0, -1.0, -3.0, 0.0, -2.0]), np.array([1.0, 2.0, 0.0, 3.0, 2.0])
    assert canonical_signs(lowest, highest).tolist() == [-1, 1, -1, 1, 1]


# Initial factors


@pytest.mark.parametrize("random_state", [3, np.random.default_rng, np.random.RandomState])
def test_initial_factors_are_normal_and_the_same_in_both_precisions(random_state):
    narrow, wide, nonnegative = (
        initial_factors(3000, 16, np.dtype(dtype), 3 if random_state == 3 else random_state(3), nonnegative)
        for dtype, nonnegative in (("float32", False), ("float64", False), ("float64", True))
    )
    assert (narrow.dtype, wide.dtype) == (np.float32, np.float64)
    np.testing.assert_allclose(wide, narrow, rtol=1e-6)
    np.testing.assert_array_equal(nonnegative, abs(wide))
    assert wide.std() == pytest.approx(0.1 / 4, rel=0.02)
    assert abs(wide.mean()) < 0.001
    within = np.mean(abs(wide) < 0.1 / 4)  # one standard deviation
    assert within == pytest.approx(0.6827, abs=0.01)


@pytest.mark.parametrize(("wrong", "error"), [(-1, ValueError), ("seed", TypeError), (1.5, TypeError)])
def test_what_is_not_a_seed_is_refused(wrong, error):
    with pytest.raises(error, match="random_state must be None, an integer >= 0, a Generator or a RandomState, not"):
        initial_factors(3, 2, np.dtype("float32"), wrong)


def test_resized_factors_are_a_copy_with_rows_of_0(dtype):
    factors = initial_of(np.zeros((0, 5)), dtype)
    for n in (5, 8):
        larger = resized(factors, n)
        assert larger.dtype == dtype
        assert larger.shape == (n, K)
        assert larger[:5].tobytes() == factors.tobytes()
        assert not larger[5:].any()
        assert not np.shares_memory(larger, factors)
