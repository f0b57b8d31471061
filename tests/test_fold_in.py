"""Users and items that are solved after training, against the dense float64 solution of their rows."""

import dataclasses

import numpy as np
import pytest
from scipy import sparse

from alscore import AlternatingLeastSquares, Interactions, NotPositiveDefiniteError, solvers
from alscore._data.canonical import canonical_csr
from alscore.solvers.fold_in import FoldIn
from alscore.solvers.half_sweeps import Side
from alscore.solvers.objective import Objective
from alscore.testing import exact_half_sweep, row_errors, run_half_sweep, tolerance

N_USERS, N_ITEMS, K = 90, 70, 6


def factors(n, basis, dtype=np.float64, seed=0):
    """Factors whose Gram matrix is diagonal and descends, the same factors rotated, or correlated factors."""
    rng = np.random.default_rng(seed)
    axes = np.linalg.qr(rng.standard_normal((n, K)))[0] * np.geomspace(30, 3, K)
    if basis == "correlated":
        axes[:, -1] += 2 * axes[:, -2]
    elif basis == "rotated":
        axes = axes @ np.linalg.qr(rng.standard_normal((K, K)))[0]
    return axes.astype(dtype)


def make(basis="canonical", dtype=np.float64, **parameters):
    model = AlternatingLeastSquares(num_threads=1, **parameters)
    model.user_factors, model.item_factors = factors(N_USERS, basis, dtype), factors(N_ITEMS, basis, dtype, seed=1)
    return model


def rows_for(side, n_rows, entries, seed=0):
    """Rows of likes and dislikes for one side. The third row is empty."""
    rng = np.random.default_rng(seed)
    n_columns = N_ITEMS if side == "user" else N_USERS
    rows = np.zeros((n_rows, n_columns))
    for row in rows:
        row[rng.permutation(n_columns)[:entries]] = rng.integers(1, 20, entries) * rng.choice([1, 1, -1], entries)
    rows[2:3] = 0
    return rows


def recalculate(model, side, ids, rows):
    return getattr(model, f"recalculate_{side}")(ids, rows)


def fixed_side(model, side):
    return model.item_factors if side == "user" else model.user_factors


# Recalculated users and items


# Few rows touch some factors of the fixed side, many rows all of them.
@pytest.mark.parametrize(("n_rows", "entries"), [(1, 5), (4, 12), (80, 30)])
@pytest.mark.parametrize("basis", ["canonical", "rotated", "correlated"])
@pytest.mark.parametrize("side", ["user", "item"])
def test_recalculated_rows_are_solved_exactly(side, basis, n_rows, entries, objective, dtype):
    rows = rows_for(side, n_rows, entries)
    model = make(basis, dtype, **objective)
    result = recalculate(model, side, np.arange(1000, 1000 + n_rows), sparse.csr_array(rows))
    expected = exact_half_sweep(rows, fixed_side(model, side), **objective)
    assert row_errors(result, expected).max() <= tolerance("half-sweep", dtype)
    assert result.dtype == dtype


@pytest.mark.parametrize("side", ["user", "item"])
def test_one_id_gives_one_vector(side):
    model, rows = make(), rows_for(side, 1, 9)
    one = recalculate(model, side, 1000, sparse.csr_array(rows))
    assert one.shape == (K,)
    np.testing.assert_array_equal(one, recalculate(model, side, [1000], sparse.csr_array(rows))[0])


@pytest.mark.parametrize("correlation", [1e-7, 2e-6, 3.4e-6, 1e-5])
def test_recalculated_users_on_factors_that_are_nearly_canonical(correlation):
    """Each correlation is below the rounding of float32, but their sum over many factors is not."""
    k, rng = 128, np.random.default_rng(0)
    gram = np.full((k, k), correlation) + (1 - correlation) * np.eye(k)
    axes = np.linalg.qr(rng.standard_normal((2000, k)))[0] @ np.linalg.cholesky(gram).T
    model = AlternatingLeastSquares(num_threads=1)
    model.user_factors = np.ones((1, k), np.float32)
    model.item_factors = (axes * np.geomspace(30, 3, k)).astype(np.float32)
    rows = (rng.random((5, 2000)) < 0.02) * rng.integers(1, 20, (5, 2000))
    result = model.recalculate_user(np.arange(5), sparse.csr_array(rows))
    expected = exact_half_sweep(rows, model.item_factors, regularization=0.01)
    assert row_errors(result, expected).max() <= tolerance("half-sweep", np.float32)


@pytest.mark.parametrize("scale", [1.0, 2000.0])
def test_recalculated_users_on_weak_correlated_factors(scale, dtype):
    axes = np.linalg.qr(np.random.default_rng(2).standard_normal((N_ITEMS, 3)))[0] * [scale, 3, 3]
    axes[:, 2] += 2 * axes[:, 1]
    model = AlternatingLeastSquares(num_threads=1)
    model.user_factors, model.item_factors = np.ones((1, 3), dtype), axes.astype(dtype)
    rows = rows_for("user", 2, 20)
    scores, oracle = (
        x @ model.item_factors.T.astype(np.float64)
        for x in (
            model.recalculate_user([0, 1], sparse.csr_array(rows)),
            exact_half_sweep(rows, model.item_factors, regularization=0.01),
        )
    )
    assert row_errors(scores, oracle).max() <= tolerance("half-sweep", dtype)


@pytest.mark.parametrize("basis", ["canonical", "rotated"])
def test_same_bits_for_any_number_of_threads(basis, dtype, isa, little_work_in_parallel):
    for side in ("user", "item"):
        rows = sparse.csr_array(rows_for(side, 80, 30))
        one, two, five = (
            recalculate(make(basis, dtype).set_params(num_threads=threads), side, np.arange(80), rows)
            for threads in (1, 2, 5)
        )
        assert one.tobytes() == two.tobytes() == five.tobytes()


def side_of(rows, dtype=np.float64, name="item", **parameters):
    objective = Objective(**{"regularization": 0.01, **parameters})
    return Side.of(name, objective, canonical_csr(sparse.csr_array(rows), dtype), K, 1)


class Counting(FoldIn):
    """A FoldIn that notes how many factors it copies and rotates."""

    def _touched(self, rows):
        rows, copied = super()._touched(rows)
        self.n_copied = len(copied)
        return rows, copied


@pytest.mark.parametrize(("n_rows", "entries", "n_copied"), [(2, 9, 18), (80, 30, N_USERS), (1, 0, 0)])
def test_few_rows_touch_few_factors(n_rows, entries, n_copied):
    """One new item must not cost a pass over all users."""
    rows, fixed = rows_for("item", n_rows, entries), factors(N_USERS, "rotated")
    fold_in = Counting(fixed, 1)
    solved = fold_in.solve(side_of(rows), solvers.resolve("cholesky"))
    assert row_errors(solved, exact_half_sweep(rows, fixed, regularization=0.01)).max() <= 1e-9
    if n_copied == N_USERS:
        assert fold_in.n_copied == N_USERS
    else:
        assert fold_in.n_copied == np.count_nonzero(rows.any(axis=0)) <= n_copied


class InPython:
    """An exact solver that keeps the original basis."""

    original_basis = True

    def sweep(self, half_sweep, out):
        for row, columns, weight, target, diagonal in half_sweep.rows():
            Y = half_sweep.factors[columns].astype(np.float64)
            system = half_sweep.gram + np.diag(diagonal) + Y.T @ (weight[:, None] * Y)
            out[row] = np.linalg.solve(system, Y.T @ target)


def arrays_of(**objects):
    """Return the bytes of every array that is an attribute of the objects, by the names of both."""
    return {
        (name, attribute): array.tobytes()
        for name, each in objects.items()
        for attribute, array in vars(each).items()
        if isinstance(array, np.ndarray)
    }


@pytest.mark.parametrize("solver", ["cholesky", "cg", "nonnegative", pytest.param(InPython(), id="in Python")])
@pytest.mark.parametrize(("n_rows", "entries"), [(2, 9), (80, 30)])
@pytest.mark.parametrize("basis", ["canonical", "rotated"])
def test_fold_in_modifies_neither_rows_nor_factors(basis, n_rows, entries, solver, dtype):
    matrix = canonical_csr(sparse.csr_array(rows_for("item", n_rows, entries)), dtype)
    parameters = {"regularization": 0.01, "regularization_exponent": 0.5}
    side = Side.of("item", Objective(**parameters), matrix, K, 1)
    fixed = factors(N_USERS, basis, dtype)
    fold_in, solver = FoldIn(fixed, 1), solvers.resolve(solver)
    assert fold_in.factors is fixed
    assert fixed.flags.writeable
    fields = {field.name: getattr(side, field.name) for field in dataclasses.fields(side)}
    before = arrays_of(side=side, fold_in=fold_in, matrix=matrix)
    assert len(before) >= 5 + 4 + 3

    first = fold_in.solve(side, solver)
    assert arrays_of(side=side, fold_in=fold_in, matrix=matrix) == before
    assert all(getattr(side, name) is value for name, value in fields.items())
    assert not any(np.shares_memory(first, array) for array in (fixed, side.strength, fold_in.gram))
    assert fold_in.solve(side, solver).tobytes() == first.tobytes()
    nonnegative = solvers.is_nonnegative(solver)
    expected = exact_half_sweep(matrix.toarray(), fixed, nonnegative, **parameters)
    assert row_errors(first, expected).max() <= tolerance("half-sweep", dtype)


@pytest.mark.parametrize("basis", ["canonical", "rotated", "correlated"])
def test_eigenvalues_and_eigenvectors_are_those_of_the_gram_matrix(basis, dtype):
    """For canonical factors they are the diagonal and the identity, without a rotation."""
    fixed = factors(N_USERS, basis, dtype)
    fold_in, gram = FoldIn(fixed, 1), fixed.astype(np.float64).T @ fixed
    np.testing.assert_allclose(fold_in.gram, gram, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(fold_in.eigenvalues, np.linalg.eigvalsh(gram)[::-1], rtol=1e-5)
    np.testing.assert_allclose((fold_in.axes * fold_in.eigenvalues) @ fold_in.axes.T, gram, atol=1e-5 * gram.max())
    np.testing.assert_allclose(fold_in.axes.T @ fold_in.axes, np.eye(K), atol=1e-12)
    assert np.array_equal(fold_in.axes, np.eye(K)) == (basis == "canonical")


@pytest.mark.parametrize(
    "form", [*("csc", "coo", "lil", "dok", "bsr"), "matrix", "int64 indices", "int8", "Interactions", "vector"]
)
def test_rows_of_any_form(form):
    model, rows = make(), sparse.csr_array(rows_for("user", 1, 9))
    long = rows.copy()
    long.indices, long.indptr = long.indices.astype(np.int64), long.indptr.astype(np.int64)
    given = {
        "matrix": sparse.csr_matrix(rows),
        "int64 indices": long,
        "int8": rows.astype(np.int8),
        "Interactions": Interactions(rows),
        "vector": sparse.coo_array(rows.toarray()[0]),
    }.get(form)
    result = model.recalculate_user(5, rows.asformat(form) if given is None else given)
    np.testing.assert_array_equal(result, model.recalculate_user(5, rows))


def test_training_rows_give_the_factors_back(plays, dtype):
    """A sweep ends with exact items. The users need one more exact half-sweep."""
    model = AlternatingLeastSquares(K, iterations=2, solver="cholesky", dtype=dtype, num_threads=1, random_state=0)
    model.fit(plays, show_progress=False)
    items = model.recalculate_item(np.arange(120), plays.T)
    assert row_errors(items, model.item_factors.astype(np.float64)).max() <= tolerance("half-sweep", dtype)

    users = model.recalculate_user(np.arange(300), plays)
    Y, start = model.item_factors.astype(np.float64), np.zeros((300, K), dtype)
    trained, rotated = run_half_sweep("cholesky", plays.toarray(), Y, start, regularization=0.01)
    assert row_errors(users @ Y.T, trained @ rotated.T.astype(np.float64)).max() <= tolerance("half-sweep", dtype)


def test_fold_in_is_exact_with_any_solver(plays, solver):
    model = AlternatingLeastSquares(K, iterations=2, solver=solver, num_threads=1, dtype=np.float64)
    model.fit(plays, show_progress=False)
    expected = exact_half_sweep(plays.toarray(), model.item_factors, regularization=0.01)
    result = model.recalculate_user(np.arange(300), plays)
    assert row_errors(result, expected).max() <= tolerance("half-sweep", np.float64)


def test_factors_keep_their_own_length_when_the_parameter_changes():
    model, rows = make(), sparse.csr_array(rows_for("user", 1, 9))
    before = model.recalculate_user(0, rows)
    model.set_params(factors=3, dtype=np.float32)
    np.testing.assert_array_equal(model.recalculate_user(0, rows), before)


@pytest.mark.parametrize(("side", "name"), [("user", "user_items"), ("item", "item_users")])
def test_rows_that_do_not_fit(side, name):
    model, rows = make(), sparse.csr_array(rows_for(side, 2, 9))
    for ids, given in ((5, rows), ([5], rows), ([5, 6, 7], rows), ([5, 6], rows[:, 1:]), ([5, 6], rows.T)):
        with pytest.raises(ValueError, match=f"{name} has shape .* one row for each id in {side}id"):
            recalculate(model, side, ids, given)
    with pytest.raises(TypeError, match=f"{name} must be a scipy sparse matrix"):
        recalculate(model, side, [5, 6], rows.toarray())
    with pytest.raises(IndexError, match=f"{side}id -1"):
        recalculate(model, side, [5, -1], rows)
    rows.data[-1] = np.nan
    with pytest.raises(ValueError, match=f"{name} holds nan at row 1"):
        recalculate(model, side, [5, 6], rows)


# Updates


def update(model, side, ids, rows):
    return getattr(model, f"partial_fit_{side}s")(ids, rows)


def own_side(model, side):
    return getattr(model, f"{side}_factors")


@pytest.mark.parametrize("basis", ["canonical", "rotated"])
@pytest.mark.parametrize("side", ["user", "item"])
def test_updated_rows_are_kept_and_new_ids_grow_the_model(side, basis, dtype):
    model, rows = make(basis, dtype), rows_for(side, 4, 9)
    before, fixed = own_side(model, side), fixed_side(model, side)
    n = len(before)
    ids = np.array([n + 3, 4, 7, n])
    assert update(model, side, ids, sparse.csr_array(rows)) is model

    after, expected = own_side(model, side), np.zeros((n + 4, K))
    expected[:n] = before
    expected[ids] = exact_half_sweep(rows, fixed, regularization=0.01)
    assert row_errors(after, expected).max() <= tolerance("half-sweep", dtype)
    untouched = np.setdiff1d(np.arange(n), ids)
    np.testing.assert_array_equal(after[untouched], before[untouched])
    assert not after[[n + 1, n + 2]].any()
    assert fixed_side(model, side) is fixed
    np.testing.assert_array_equal(before, own_side(make(basis, dtype), side))


def test_new_users_and_items_are_recommended_to_and_returned():
    model = make()
    model.partial_fit_users([N_USERS], sparse.csr_array(rows_for("user", 1, 9)))
    model.partial_fit_items([N_ITEMS], sparse.csr_array(np.ones((1, N_USERS + 1))))
    ids, scores = model.recommend(N_USERS, sparse.csr_array((1, N_ITEMS + 1)), N=N_ITEMS + 1)
    expected = model.item_factors @ model.user_factors[N_USERS]
    np.testing.assert_array_equal(ids, np.argsort(-expected, kind="stable"))
    np.testing.assert_allclose(scores, expected[ids], rtol=1e-9, atol=1e-9)
    assert model.similar_items(N_ITEMS, N=1)[0] == [N_ITEMS]
    assert model.similar_users(N_USERS, N=1)[0] == [N_USERS]


@pytest.mark.parametrize(("side", "n_columns"), [("user", N_ITEMS), ("item", N_USERS)])
def test_an_update_of_no_rows_changes_nothing(side, n_columns):
    model = make()
    before = model.user_factors, model.item_factors
    assert update(model, side, [], sparse.csr_array((0, n_columns))) is model
    for after, factors_before in zip((model.user_factors, model.item_factors), before, strict=True):
        np.testing.assert_array_equal(after, factors_before, strict=True)


@pytest.mark.parametrize("side", ["user", "item"])
def test_refused_updates_change_nothing(side):
    model, rows = make(), sparse.csr_array(rows_for(side, 3, 9))
    before = own_side(model, side)
    for ids, error, message in (
        ([5, 200, 5], ValueError, rf"{side}ids holds \[5\] more than once"),
        ([5, 200, -1], IndexError, f"{side}ids -1 "),
        ([5, 200, 2**31], IndexError, f"{side}ids 2147483648 "),
        ([5, 200], ValueError, "has shape"),
        (["a", "b", "c"], TypeError, f"{side}ids must be integer ids"),
    ):
        with pytest.raises(error, match=message):
            update(model, side, ids, rows)
    model.set_params(confidence="raw", alpha=1e-9, unobserved_weight=50.0, regularization=1e-9)
    full = sparse.csr_array(np.ones((3, rows.shape[1])))
    with pytest.raises(NotPositiveDefiniteError, match=f"{side} row 0"):
        update(model, side, [5, 200, 6], full)
    assert own_side(model, side) is before
