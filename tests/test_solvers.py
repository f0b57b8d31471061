"""Solvers: the built-in solvers against a float64 oracle, and solvers of other packages."""

import ctypes
import dataclasses
import itertools

import numpy as np
import pytest
from scipy import sparse

from alscore import AlternatingLeastSquares, solvers
from alscore._data.canonical import canonical_csr
from alscore.als import Side
from alscore.solvers import Auto, Cholesky, CompiledSolver, ConjugateGradient, NonNegative, NotPositiveDefiniteError
from alscore.solvers.objective import Objective
from alscore.testing import (
    check_solver,
    exact_half_sweep,
    loss,
    random_problem,
    row_errors,
    run_half_sweep,
    tolerance,
)


def lengths(k):
    """Lengths of rows on both sides of every choice that depends on the length."""
    return sorted({0, 1, 2, 7, k // 2, max(k - 1, 0), k, k + 1, 2 * k, 4 * k})


def solve(solver, user_items, item_factors, dtype=np.float64, **parameters):
    """Factors by `solver`, from initial factors of 0, and by the oracle, in the same basis."""
    start = np.zeros((len(user_items), item_factors.shape[1]), dtype)
    x, rotated = run_half_sweep(solver, user_items, item_factors, start, **parameters)
    return x, exact_half_sweep(user_items, rotated, **parameters)


def test_builtin_solvers_conform(solver, isa):
    assert check_solver(solver, exact=solver == "cholesky") == ("float32", "float64")


EXACT_CASES = [
    (1, 1e3, {"regularization": 1e-3}),
    (2, 1e3, {"regularization": 100.0, "dislikes": True}),
    (3, 1e3, {"regularization": 1e-3, "confidence": "log", "alpha": 100.0, "epsilon": 0.1}),
    # confidences from 0.5 on, unobserved weight 1: weights of both signs, and exactly 0
    (16, 1e3, {"regularization": 0.1, "confidence": "raw", "alpha": 0.5}),
    (17, 1e3, {"regularization": 0.01, "confidence": "raw", "unobserved_weight": 2.5, "dislikes": True}),
    (64, 1e3, {"regularization": 1e-3, "unobserved_weight": 0.1, "regularization_exponent": 0.7}),
    (100, 1e3, {"regularization": 0.1, "dislikes": True}),
    (128, 1e3, {"regularization": 100.0}),
    (200, 1e3, {"regularization": 1e-3}),
    (2, 1e5, {"regularization": 1e-3}),
    (17, 1e5, {"regularization": 1.0, "dislikes": True, "unobserved_weight": 0.01}),
    (64, 1e5, {"regularization": 1e-3}),
    (128, 1e5, {"regularization": 100.0, "regularization_exponent": -0.5}),
    (200, 1e5, {"regularization": 0.01}),
]


@pytest.mark.parametrize(("k", "largest", "parameters"), EXACT_CASES)
def test_exact_solver_equals_oracle(k, largest, parameters, dtype, isa):
    parameters = dict(parameters)
    user_items, item_factors = random_problem(k, lengths(k), largest, parameters.pop("dislikes", False))
    x, oracle = solve("cholesky", user_items, item_factors, dtype, **parameters)
    operation = "half-sweep" if largest <= 1e3 else "half-sweep, strong"
    assert row_errors(x, oracle).max() <= tolerance(operation, dtype)


ENTRIES_ALONE_CASES = [
    (17, 1e5, {"regularization": 0.01, "unobserved_weight": 1e-3}),
    (64, 1e5, {"regularization": 1e-3, "unobserved_weight": 0.0}),
    (128, 1e3, {"regularization": 1e-3, "unobserved_weight": 1e-6}),
]


@pytest.mark.parametrize(("k", "largest", "parameters"), ENTRIES_ALONE_CASES)
def test_float32_rows_beyond_refinement_are_solved_in_float64(k, largest, parameters, isa):
    user_items, item_factors = random_problem(k, lengths(k), largest)
    x, oracle = solve("cholesky", user_items, item_factors, np.float32, **parameters)
    assert row_errors(x, oracle).max() <= tolerance("half-sweep", np.float32)


@pytest.mark.parametrize("k", [16, 64])
def test_ill_conditioned_factors_cost_a_digit(k, dtype):
    user_items, item_factors = random_problem(k, lengths(k), decay=1e-3)
    x, oracle = solve("cholesky", user_items, item_factors, dtype, regularization=1e-3)
    assert row_errors(x, oracle).max() <= 10 * tolerance("half-sweep", dtype)


@pytest.mark.parametrize("weak", [0.3, 0.02])
def test_weak_directions_are_not_rounding(weak, dtype):
    rng = np.random.default_rng(0)
    turn = np.linalg.qr(rng.standard_normal((4, 4)))[0]
    item_factors = rng.standard_normal((200, 4)) * [100, 1, 1, weak] @ turn
    user_items = np.rint(1e2 ** rng.random((20, 200))) * (rng.random((20, 200)) < 0.1)
    x, oracle = solve("cholesky", user_items, item_factors, dtype, regularization=0.01)
    assert row_errors(x, oracle).max() <= 100 * tolerance("half-sweep", dtype)


@pytest.mark.parametrize("k", [1, 2, 3])
def test_sums_that_cancel_keep_their_digits(k, isa):
    rng = np.random.default_rng(1)
    user_items = np.rint(1e3 ** rng.random((200, 30))) * (rng.random((200, 30)) < 0.5)
    x, oracle = solve("cholesky", user_items, rng.standard_normal((30, k)), np.float32, regularization=0.1)
    assert row_errors(x, oracle).max() <= tolerance("half-sweep", np.float32)


def test_zero_regularization_is_solved_where_the_system_is_definite(dtype, isa):
    user_items, item_factors = random_problem(16, lengths(16))
    x, oracle = solve("cholesky", user_items, item_factors, dtype, regularization=0.0)
    assert row_errors(x, oracle).max() <= tolerance("half-sweep", dtype)


def test_zero_regularization_leaves_undetermined_directions_at_zero(solver, dtype):
    rng = np.random.default_rng(0)
    item_factors, user_items = rng.standard_normal((6, 20)), rng.integers(0, 3, (9, 6)).astype(float)
    start = rng.standard_normal((9, 20)).astype(dtype)
    x, rotated = run_half_sweep(solver, user_items, item_factors, start, regularization=0.0)
    assert np.isfinite(x).all()
    if solver == "cholesky":
        # six independent items in 20 dimensions: many x meet every preference; the one of least norm is expected
        least_norm = np.linalg.lstsq(item_factors, (user_items > 0).T)[0].T
        np.testing.assert_allclose(x @ rotated.T, user_items > 0, atol=1e-4)
        np.testing.assert_allclose(np.linalg.norm(x, axis=1), np.linalg.norm(least_norm, axis=1), rtol=1e-3)


@pytest.mark.parametrize("confidence", [1e-1, 1e-2, 1e-3, 1e-4, 1e-6, 1e-8])
def test_cancelling_weights_are_solved_or_refused(confidence, dtype, isa):
    item_factors = random_problem(16, [64])[1]
    user_items = np.full((1, len(item_factors)), confidence)
    try:
        x, oracle = solve("cholesky", user_items, item_factors, dtype, regularization=1e-3, confidence="raw")
    except NotPositiveDefiniteError:
        assert confidence < 0.01
        assert dtype == np.float32
    else:
        assert row_errors(x, oracle).max() <= tolerance("half-sweep, cancelling", dtype)


@pytest.mark.parametrize("least", [0.5, 0.05, 0.01])
def test_mixed_weights_that_cancel_are_refined(least, isa):
    rng = np.random.default_rng(0)
    item_factors = random_problem(16, [64])[1]
    user_items = np.where(rng.random((20, len(item_factors))) < 0.5, least, 1.0 + 9 * rng.random((20, 1)))
    x, oracle = solve("cholesky", user_items, item_factors, np.float32, regularization=1e-3, confidence="raw")
    assert row_errors(x, oracle).max() <= tolerance("half-sweep", np.float32)


def test_system_beyond_float32_and_the_digits_of_float64_is_refused(isa):
    item_factors = random_problem(8, [1])[1]
    user_items = np.zeros((1, len(item_factors)))
    user_items[0, 3] = 1e30
    with pytest.raises(NotPositiveDefiniteError, match="user row 0"):
        solve("cholesky", user_items, item_factors, np.float32, regularization=1e-9, unobserved_weight=0.0)


@pytest.mark.parametrize("name", ["user", "item"])
def test_indefinite_system_names_the_row(name, dtype):
    # row 2 has so little confidence in every entry that rounding decides the sign of its system
    strength = np.ones((4, 300))
    strength[2] = 1e-30
    objective = Objective(regularization=1e-30, confidence="raw")
    matrix = canonical_csr(sparse.csr_array(strength), dtype=dtype)
    side = Side(name, objective, matrix.indptr, matrix.indices, matrix.data, 300, 1)
    fixed = np.random.default_rng(0).standard_normal((300, 64)).astype(dtype)
    with pytest.raises(NotPositiveDefiniteError, match=f"{name} row 2: .*raise regularization"):
        side.update(solvers.resolve("cholesky"), fixed, np.zeros((4, 64), dtype))


OBJECTIVES = [
    {"regularization": 0.01},
    {"regularization": 1.0, "confidence": "log", "alpha": 20.0, "regularization_exponent": 0.5},
    {"regularization": 0.1, "confidence": "raw", "alpha": 2.0, "unobserved_weight": 0.3},
]


@pytest.mark.parametrize("parameters", OBJECTIVES)
def test_objective_never_rises_between_exact_half_sweeps(parameters, dtype):
    rng = np.random.default_rng(0)
    user_items = rng.integers(-3, 20, (60, 40)) * (rng.random((60, 40)) < 0.3)
    X, Y = np.zeros((60, 8), dtype), rng.standard_normal((40, 8)).astype(dtype)
    losses = []
    for _ in range(6):
        X, Y = run_half_sweep("cholesky", user_items, Y, X, **parameters)
        losses.append(loss(user_items, X, Y, **parameters))
        Y, X = run_half_sweep("cholesky", user_items.T, X, Y, **parameters)
        losses.append(loss(user_items, X, Y, **parameters))
    slack = 1 + tolerance("descent", dtype)
    assert losses[-1] < 0.9 * losses[0]
    assert all(after <= slack * before for before, after in itertools.pairwise(losses))


def test_cg_converges_to_the_exact_solution(dtype, isa):
    user_items, item_factors = random_problem(17, lengths(17), 100, dislikes=True)
    x, oracle = solve(ConjugateGradient(steps=200), user_items, item_factors, dtype, regularization=0.1)
    assert row_errors(x, oracle).max() <= tolerance("half-sweep", dtype)


def test_cg_on_rows_that_outgrow_the_cache(isa):
    user_items, item_factors = random_problem(128, [1100, 3, 1203], 10)
    x, oracle = solve(ConjugateGradient(steps=100), user_items, item_factors, np.float32, regularization=0.1)
    assert row_errors(x, oracle).max() <= tolerance("half-sweep", np.float32)


def test_cg_starts_from_the_last_factors(dtype):
    user_items, item_factors = random_problem(17, lengths(17), 100)
    solution = exact_half_sweep(user_items, item_factors, regularization=0.1).astype(dtype)
    one_step = ConjugateGradient(steps=1)
    x, rotated = run_half_sweep(one_step, user_items, item_factors, solution, regularization=0.1)
    oracle = exact_half_sweep(user_items, rotated, regularization=0.1)
    assert row_errors(x, oracle).max() <= tolerance("half-sweep", dtype)
    cold, _ = solve(one_step, user_items, item_factors, dtype, regularization=0.1)
    assert row_errors(cold, oracle).max() > 0.1


def test_cg_stops_each_row_at_its_tolerance():
    user_items, item_factors = random_problem(16, lengths(16), 100)
    tol, by_steps = 1e-3, []
    for steps in range(1, 60):
        x, rotated = run_half_sweep(
            ConjugateGradient(steps), user_items, item_factors, np.zeros((len(user_items), 16)), regularization=0.1
        )
        by_steps.append(x)
    stopped, _ = solve(ConjugateGradient(steps=60, tol=tol), user_items, item_factors, regularization=0.1)
    energy = (rotated**2).sum(axis=0) + 0.1
    for row, x in enumerate(stopped):
        c, p = 1 + user_items[row], user_items[row] > 0
        b = rotated.T @ (c * p)

        def residual(x, c=c, b=b):
            return np.sqrt(((b - rotated.T @ (c * (rotated @ x)) - 0.1 * x) ** 2 / energy).sum())

        enough = next(i for i, xs in enumerate(by_steps) if residual(xs[row]) <= tol * residual(0 * x))
        np.testing.assert_array_equal(x, by_steps[enough][row])


def test_auto_takes_steps_only_on_long_rows_of_many_factors():
    user_items, item_factors = random_problem(64, [5, 64, 65, 300, 200], 100)
    start = np.random.default_rng(0).standard_normal((5, 64))
    start[4] = 0

    def run(solver):
        return run_half_sweep(solver, user_items, item_factors, start, regularization=0.1)[0]

    auto, exact, cg = run(Auto(steps=1)), run("cholesky"), run(ConjugateGradient(steps=1))
    np.testing.assert_array_equal(auto[[0, 1, 4]], exact[[0, 1, 4]])  # row 4 starts from zeros
    np.testing.assert_array_equal(auto[2:4], cg[2:4])
    assert row_errors(cg, exact).min() > 1e-3
    np.testing.assert_array_equal(run(Auto(steps=2)), exact)  # 64 factors are few for 2 steps


def test_cg_solves_very_long_rows_exactly():
    user_items, item_factors = random_problem(8, [5, 127, 128, 10_000], 100)
    exact, cg = (solve(solver, user_items, item_factors, regularization=0.1)[0] for solver in ("cholesky", "cg"))
    np.testing.assert_array_equal(cg[2:], exact[2:])
    assert row_errors(cg, exact)[:2].min() > 0


@pytest.mark.parametrize("option", [ConjugateGradient, Auto])
@pytest.mark.parametrize(
    ("name", "value"),
    [("steps", 0), ("steps", 2.0), ("steps", True), ("steps", 2**70), ("tol", -0.1), ("tol", 1.0), ("tol", "x")],
)
def test_wrong_options_are_refused(option, name, value):
    with pytest.raises(ValueError, match=f"{name} must be"):
        option(**{name: value})


def test_options_may_be_numpy_integers():
    assert ConjugateGradient(steps=np.int64(4)).capsule() is not None


# Non-negative factors


def test_nonnegative_solver_conforms(isa):
    assert check_solver("nonnegative", exact=True) == ("float32", "float64")


NONNEGATIVE_CASES = [
    (64, 1e3, {"regularization": 1e-3}),
    (64, 1e3, {"regularization": 0.1, "dislikes": True}),
    (100, 1e5, {"regularization": 1e-3}),
    # the systems consist almost only of the rows' own entries and have condition 1e6: some take 50 steps
    (100, 1e3, {"regularization": 0.01, "unobserved_weight": 1e-3}),
]


@pytest.mark.parametrize("signs", [True, False])
@pytest.mark.parametrize(("k", "largest", "parameters"), NONNEGATIVE_CASES)
def test_nonnegative_solver_equals_oracle(k, largest, parameters, signs, dtype):
    parameters = dict(parameters)
    user_items, item_factors = random_problem(k, lengths(k), largest, parameters.pop("dislikes", False))
    item_factors = (item_factors if signs else abs(item_factors)).astype(dtype)
    oracle = exact_half_sweep(user_items, item_factors, nonnegative=True, **parameters)
    operation = "half-sweep" if largest <= 1e3 else "half-sweep, strong"
    for start in (0 * oracle, oracle[:, ::-1]):
        x, _ = run_half_sweep("nonnegative", user_items, item_factors, start.astype(dtype), **parameters)
        assert x.min() >= 0
        assert row_errors(x, oracle).max() <= tolerance(operation, dtype)


def test_nonnegative_factor_that_is_0_on_the_fixed_side_is_0(dtype):
    user_items, item_factors = random_problem(5, lengths(5))
    item_factors[:, 2] = 0
    start = np.ones((len(user_items), 5), dtype)
    x, _ = run_half_sweep("nonnegative", user_items, item_factors, start, regularization=0.0)
    assert not x[:, 2].any()
    others = np.delete(item_factors, 2, axis=1).astype(dtype)
    oracle = exact_half_sweep(user_items, others, nonnegative=True, regularization=0.0)
    assert row_errors(np.delete(x, 2, axis=1), oracle).max() <= tolerance("half-sweep", dtype)


def test_nonnegative_rows_without_a_unique_minimum_are_refused(dtype):
    user_items, item_factors = random_problem(4, [0, 9])
    item_factors = abs(item_factors[:, [0, 1, 2, 1]])
    with pytest.raises(NotPositiveDefiniteError, match=r"user row 1: .*raise regularization"):
        solve("nonnegative", user_items, item_factors, dtype, regularization=0.0)


def test_nonnegative_fit(plays, dtype):
    model = AlternatingLeastSquares(
        8, regularization=0.1, iterations=12, solver="nonnegative", dtype=dtype, random_state=0
    )
    model.calculate_training_loss = True
    model.fit(plays, show_progress=False)
    X, Y, losses = model.user_factors, model.item_factors, np.array(model.training_loss)
    assert min(X.min(), Y.min()) >= 0
    assert (losses[1:] <= (1 + tolerance("descent", dtype)) * losses[:-1]).all()
    # nearly a fixed point of half-sweeps by the oracle
    dense = plays.toarray()
    items = exact_half_sweep(dense.T, X, nonnegative=True, regularization=0.1)
    assert row_errors(Y, items).max() <= tolerance("half-sweep", dtype)
    users = exact_half_sweep(dense, items, nonnegative=True, regularization=0.1)
    assert loss(dense, users, items, regularization=0.1) > 0.99 * losses[-1]
    # better than the clipped factors of a fit without the constraint
    free = AlternatingLeastSquares(8, regularization=0.1, dtype=dtype, random_state=0).fit(plays, show_progress=False)
    clipped = exact_half_sweep(dense, np.maximum(free.item_factors, 0), True, regularization=0.1)
    assert losses[-1] < loss(dense, clipped, np.maximum(free.item_factors, 0), regularization=0.1)


def test_nonnegative_fold_in_and_new_rows(plays):
    model = AlternatingLeastSquares(8, iterations=3, solver=NonNegative(), dtype=np.float64, random_state=0)
    model.fit(plays[:200, :100], show_progress=False)
    known = plays[[20, 250]][:, :100]
    oracle = exact_half_sweep(known.toarray(), model.item_factors, nonnegative=True, regularization=0.01)
    assert row_errors(model.recalculate_user([0, 1], known), oracle).max() <= tolerance("half-sweep", np.float64)
    model.partial_fit(plays, show_progress=False)
    assert model.item_factors.shape == (120, 8)
    assert min(model.user_factors.min(), model.item_factors.min()) >= 0


def test_nonnegative_start():
    model = AlternatingLeastSquares(4, iterations=0, solver="nonnegative", random_state=0).fit(
        sparse.eye_array(9, format="csr"), show_progress=False
    )
    assert model.item_factors.min() > 0


def test_nonnegative_bits_do_not_depend_on_threads(plays, little_work_in_parallel):
    models = [
        AlternatingLeastSquares(9, iterations=4, solver="nonnegative", num_threads=threads, random_state=0).fit(
            plays, show_progress=False
        )
        for threads in (1, 2, 5)
    ]
    for model in models[1:]:
        assert model.user_factors.tobytes() == models[0].user_factors.tobytes()
        assert model.item_factors.tobytes() == models[0].item_factors.tobytes()


# Plug-ins


class PythonSolver:
    """Exact, in numpy."""

    def sweep(self, half_sweep, out):
        out[:] = 0
        for row, columns, weight, target, diag in half_sweep.rows():
            y = half_sweep.factors[columns].astype(np.float64)
            system = np.diag(diag) + y.T @ (weight[:, None] * y)
            if half_sweep.gram is not None:
                system += half_sweep.gram
            out[row] = np.linalg.solve(system, y.T @ target)


class OriginalBasis(PythonSolver):
    original_basis = True


@pytest.mark.parametrize("plugin", [PythonSolver, OriginalBasis])
def test_solver_in_python_conforms(plugin):
    assert check_solver(plugin(), exact=True) == ("float32", "float64")


def fit(solver, plays, dtype=np.float64):
    model = AlternatingLeastSquares(5, solver=solver, dtype=dtype, num_threads=1, random_state=0)
    return model.fit(plays, show_progress=False)


class Published:
    """An option object of another package."""

    def capsule(self):
        return Cholesky().capsule()


@pytest.mark.parametrize("form", [Cholesky(), Cholesky, Published(), Published, Published().capsule()])
def test_forms_of_one_solver_give_the_same_bits(form, plays):
    np.testing.assert_array_equal(fit(form, plays).user_factors, fit("cholesky", plays).user_factors)


@pytest.mark.parametrize("form", [PythonSolver(), PythonSolver, OriginalBasis()])
def test_fit_with_a_solver_in_python(form, plays):
    models = fit(form, plays), fit("cholesky", plays)
    scores, expected = (model.user_factors @ model.item_factors.T for model in models)
    assert np.linalg.norm(scores - expected) <= tolerance("fit", np.float64) * np.linalg.norm(expected)


def test_unknown_name_lists_the_installed_solvers():
    with pytest.raises(ValueError, match="no solver is named 'lu'; installed: auto, cg, cholesky"):
        solvers.resolve("lu")


@pytest.mark.parametrize("wrong", [None, 3, object()])
def test_other_objects_are_refused_as_solvers(wrong):
    with pytest.raises(TypeError, match="solver must be a name"):
        solvers.resolve(wrong)


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Install a distribution of the given name that registers a solver."""

    def install(distribution, solver):
        folder = tmp_path / f"{distribution}-1.0.dist-info"
        folder.mkdir(parents=True)
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
        (folder / "entry_points.txt").write_text(f"[alscore.solvers]\nlu = {solver}\n")
        forget()

    def forget():
        solvers.registered.cache_clear()
        solvers.by_name.cache_clear()

    monkeypatch.syspath_prepend(tmp_path)
    yield install
    forget()


def test_registered_solver_is_found_by_name(install):
    install("other", "alscore.solvers:Cholesky")
    assert isinstance(solvers.resolve("lu"), CompiledSolver)


def test_name_registered_twice_is_refused(install):
    install("other", "other:LU")
    install("another", "another:LU")
    with pytest.raises(ValueError, match=r"two packages register the solver 'lu': .*:LU from .*, and .*:LU from .*"):
        solvers.resolve("lu")
    assert isinstance(solvers.resolve("cholesky"), CompiledSolver)


@pytest.mark.parametrize(
    ("solver", "reason"),
    [("no_module:LU", "ModuleNotFoundError: No module"), ("json:LU", "AttributeError: module 'json'")],
)
def test_registered_solver_that_cannot_be_imported_is_named(install, solver, reason):
    install("other", solver)
    with pytest.raises(ImportError, match=rf"the solver 'lu' \({solver} from other 1.0\) cannot be imported: {reason}"):
        solvers.resolve("lu")


def c_struct(*fields):
    return type("Struct", (ctypes.Structure,), {"_fields_": fields})


SIZE, ADDRESS = ctypes.c_size_t, ctypes.c_void_p
WORKSPACE = ctypes.CFUNCTYPE(SIZE, ADDRESS, ctypes.c_int64, ctypes.c_int64, SIZE)
NO_MEMORY = WORKSPACE(lambda params, k, n_max, size: 0)
SOLVER = c_struct(
    ("version", ctypes.c_uint32),
    ("flags", ctypes.c_uint32),
    ("params", ADDRESS),
    ("workspace", WORKSPACE),
    ("solve_f32", ADDRESS),
    ("solve_f64", ADDRESS),
)
ORIGINAL_BASIS, NONNEGATIVE = 1, 4


def solve_function(solve, real):
    """C function for the struct of one row in this precision."""
    arrays = [(name, ctypes.POINTER(real)) for name in ("factors", "weight", "target", "diag", "gram", "x")]
    cols = ("cols", ctypes.POINTER(ctypes.c_int32))
    ahead = ("n_next", ctypes.c_int64), ("cols_next", ctypes.POINTER(ctypes.c_int32))
    row = c_struct(("n", ctypes.c_int64), ("k", ctypes.c_int64), cols, *arrays, *ahead)
    function = ctypes.CFUNCTYPE(ctypes.c_int, ADDRESS, ctypes.POINTER(row), ADDRESS)
    return function(lambda params, row, work: solve(row.contents))


class CSolver:
    """A plug-in as alscore.h describes it, whose `solve(row)` is Python: it gets a row's struct and returns a code."""

    alive = []  # noqa: RUF012  # a capsule borrows its struct and functions

    def __init__(
        self, solve, flags=0, version=1, name=b"alscore.solver.v1", reals=("float", "double"), workspace=NO_MEMORY
    ):
        offered = {real: solve_function(solve, getattr(ctypes, f"c_{real}")) for real in reals}
        addresses = (ctypes.cast(offered.get(real), ADDRESS) for real in ("float", "double"))
        self._name, self._struct = name, SOLVER(version, flags, None, workspace, *addresses)
        self.alive.append((self, offered))

    def capsule(self):
        new = ctypes.pythonapi.PyCapsule_New
        new.restype, new.argtypes = ctypes.py_object, [ADDRESS, ctypes.c_char_p, ADDRESS]
        return new(ctypes.addressof(self._struct), self._name, None)


def exact_row(row):
    cols = np.ctypeslib.as_array(row.cols, (row.n,))
    y = np.ctypeslib.as_array(row.factors, (cols.max() + 1, row.k))[cols].astype(np.float64)
    weight, target = (np.ctypeslib.as_array(array, (row.n,)) for array in (row.weight, row.target))
    system = np.diag(np.ctypeslib.as_array(row.diag, (row.k,))) + y.T @ (weight[:, None] * y)
    if row.gram:
        system += np.ctypeslib.as_array(row.gram, (row.k, row.k))
    np.ctypeslib.as_array(row.x, (row.k,))[:] = np.linalg.solve(system, y.T @ target)
    return 0


@pytest.mark.parametrize("flags", [0, ORIGINAL_BASIS])
def test_compiled_solver_conforms(flags):
    assert check_solver(CSolver(exact_row, flags), exact=True) == ("float32", "float64")


def test_compiled_solver_without_a_workspace_conforms():
    assert check_solver(CSolver(exact_row, workspace=WORKSPACE()), exact=True) == ("float32", "float64")


def test_original_basis_gets_the_gram_matrix_and_factors_that_are_not_rotated():
    user_items, item_factors = random_problem(3, [2])
    grams = []

    def solve_row(row):
        grams.append(np.ctypeslib.as_array(row.gram, (3, 3)).copy())
        return exact_row(row)

    plugin = CSolver(solve_row, ORIGINAL_BASIS)
    _, fixed = run_half_sweep(
        plugin, user_items, item_factors, np.zeros((1, 3)), regularization=1.0, unobserved_weight=0.5
    )
    np.testing.assert_array_equal(fixed, item_factors)
    np.testing.assert_allclose(grams[0], 0.5 * item_factors.T @ item_factors, rtol=1e-12)


def test_a_row_comes_with_the_row_that_follows():
    user_items, item_factors = random_problem(3, [2, 5, 1, 4, 4])
    solved, announced = [], []

    def solve_row(row):
        solved.append(row.cols[: row.n])
        announced.append(row.cols_next[: row.n_next])
        return exact_row(row)

    # the 64 longest rows are taken one at a time: only the rows after them know which row follows
    longest = np.ones((64, len(item_factors)))
    run_half_sweep(
        CSolver(solve_row), np.vstack([user_items, longest]), item_factors, np.zeros((69, 3)), regularization=1.0
    )
    assert [len(cols) for cols in solved[64:]] == [5, 4, 4, 2, 1]
    assert announced[:64] == [[]] * 64
    assert announced[64:] == [*solved[65:], []]


def test_compiled_solver_of_one_precision(plays):
    plugin = CSolver(exact_row, reals=("float",))
    assert check_solver(plugin, exact=True) == ("float32",)
    with pytest.raises(TypeError, match="does not offer float64: choose the other dtype"):
        fit(plugin, plays, np.float64)


def test_workspace_beyond_the_memory_is_refused_before_the_loop():
    solved, user_items, item_factors = [], *random_problem(3, [2])
    plugin = CSolver(solved.append, workspace=WORKSPACE(lambda params, k, n_max, size: 2**60))
    with pytest.raises(MemoryError, match=r"cannot allocate 1 x .* bytes of scratch memory"):
        run_half_sweep(plugin, user_items, item_factors, np.zeros((1, 3)), regularization=1.0)
    assert not solved


def test_solver_of_no_precision_does_not_conform():
    with pytest.raises(AssertionError, match="refuses both"):
        check_solver(CSolver(exact_row, reals=()))


def test_error_code_of_a_compiled_solver_names_the_row(plays):
    # user rows 0 and 7 are empty, so row 1 is the first that fails
    plugin = CSolver(lambda row: 7)
    with pytest.raises(RuntimeError, match="user row 1: the solver failed with its error code 7"):
        fit(plugin, plays)


def test_result_that_is_not_finite_names_the_row(plays):
    def solve_row(row):
        row.x[0] = np.nan
        return 0

    with pytest.raises(FloatingPointError, match="user row 1: the solution is not finite"):
        fit(CSolver(solve_row), plays)


def test_solver_of_another_version_is_refused():
    with pytest.raises(ValueError, match="version 2 of the contract, this alscore has 1: rebuild"):
        solvers.resolve(CSolver(exact_row, version=2))
    with pytest.raises(ValueError, match=r"compiled for 'alscore.solver.v2', this alscore has .*v1': rebuild"):
        solvers.resolve(CSolver(exact_row, name=b"alscore.solver.v2"))


@pytest.mark.parametrize("name", [b"numpy.random.bitgen", b"x", b"alscore.solver", None])
def test_capsule_of_another_name_is_refused(name):
    with pytest.raises(TypeError, match=r"a PyCapsule named 'alscore\.solver\.v1'"):
        solvers.resolve(CSolver(exact_row, name=name))


# Faults that check_solver must find


class KeepsEmptyRows(PythonSolver):
    def sweep(self, half_sweep, out):
        empty = np.diff(half_sweep.indptr) == 0
        before = out[empty].copy()
        super().sweep(half_sweep, out)
        out[empty] = before


class NotFinite(PythonSolver):
    def sweep(self, half_sweep, out):
        super().sweep(half_sweep, out)
        out[3:4] = np.inf


class WritesInput(PythonSolver):
    def sweep(self, half_sweep, out):
        super().sweep(half_sweep, out)
        half_sweep.strength[-1] += 1


class DependsOnThreads(PythonSolver):
    def sweep(self, half_sweep, out):
        super().sweep(half_sweep, out)
        out[5:6] *= 1 + 1e-6 * (half_sweep.num_threads == 5)


class Overshoots(PythonSolver):
    def sweep(self, half_sweep, out):
        super().sweep(half_sweep, out)
        out[1:2] *= 30


class IsInexact(PythonSolver):
    def sweep(self, half_sweep, out):
        super().sweep(half_sweep, out)
        out[2:3] *= 1 + 1e-4


class Negative(PythonSolver):
    nonnegative = True


class Clipped(Negative):
    """The exact solution without the constraint, clipped at 0."""

    def sweep(self, half_sweep, out):
        super().sweep(half_sweep, out)
        np.maximum(out, 0, out=out)


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (KeepsEmptyRows, "not 0: row of 0 entries, with defaults, k=1, float32"),
        (NotFinite, "not finite: row of 3 entries"),
        (WritesInput, "modified strength"),
        (DependsOnThreads, "other bits on 5 threads: row of 5 entries"),
        (Overshoots, "the objective rose: row of 1 entries"),
        (IsInexact, "errors up to 1.0e-04: row of 2 entries"),
        (Negative, "negative: row of .* entries"),
        (Clipped, "errors up to|the objective rose"),
    ],
)
def test_conformance_suite_finds(broken, message):
    with pytest.raises(AssertionError, match=message):
        check_solver(broken(), exact=True)


class Tampering:
    """Passes a half-sweep to the built-in solver with one attribute changed."""

    def __init__(self, **changes):
        self.changes = changes

    def sweep(self, half_sweep, out):
        changed = {name: change(getattr(half_sweep, name)) for name, change in self.changes.items()}
        solvers.resolve("cholesky").sweep(dataclasses.replace(half_sweep, **changed), out)


def test_order_of_the_rows_does_not_matter():
    user_items, item_factors = random_problem(8, [3, 40, 0, 12])
    x, oracle = solve("cholesky", user_items, item_factors, regularization=0.1)
    other, _ = solve(Tampering(order=lambda order: order[::-1].copy()), user_items, item_factors, regularization=0.1)
    assert row_errors(x, oracle).max() <= tolerance("half-sweep", np.float32)
    np.testing.assert_array_equal(other, x)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("order", lambda order: order + 1),
        ("order", lambda order: -1 - order),
        ("indices", lambda indices: indices + 1000),
        ("indices", lambda indices: -1 - indices),
        ("indptr", lambda indptr: indptr * 2),
        ("indptr", lambda indptr: indptr[::-1].copy()),
        ("factors", lambda factors: factors[:3]),
        ("order", lambda order: order * 0),
        ("num_threads", lambda num_threads: 0),
        ("diag", lambda diag: diag[:-1]),
        ("regularization", lambda regularization: np.ones(3)),
    ],
)
def test_half_sweep_that_points_outside_of_its_arrays_is_refused(name, change):
    user_items, item_factors = random_problem(8, [3, 40, 0, 12])
    with pytest.raises(ValueError, match="half-sweep"):
        run_half_sweep(Tampering(**{name: change}), user_items, item_factors, np.zeros((4, 8)), regularization=0.1)


def test_original_basis_gets_regularization_as_it_is():
    diagonals = []

    class Looking(OriginalBasis):
        def sweep(self, half_sweep, out):
            diagonals.extend(diag for *_, diag in half_sweep.rows())

    user_items, item_factors = random_problem(4, [3, 40])
    run_half_sweep(Looking(), user_items, 1e4 * item_factors, np.zeros((2, 4), np.float32), regularization=0.01)
    np.testing.assert_array_equal(diagonals, np.full((2, 4), 0.01))


@pytest.mark.parametrize("flags", [ORIGINAL_BASIS, NONNEGATIVE])
def test_fit_and_fold_in_keep_the_basis_of_a_solver_that_asks_for_it(flags, plays):
    starts = []

    def solve_row(row):
        exact_row(row)
        x = np.ctypeslib.as_array(row.x, (row.k,))
        x[:] = np.maximum(x, 0)
        starts.append(np.ctypeslib.as_array(row.factors, (1, row.k)).min())
        return 0

    model = AlternatingLeastSquares(6, iterations=3, solver=CSolver(solve_row, flags), random_state=0, num_threads=1)
    model.fit(plays, show_progress=False)
    assert min(model.user_factors.min(), model.item_factors.min()) >= 0
    assert (starts[0] >= 0) == (flags == NONNEGATIVE)
    row = plays[[1]]
    ids, scores = model.recommend([1], row, recalculate_user=True)
    x = np.maximum(exact_half_sweep(row.toarray(), model.item_factors, regularization=0.01)[0], 0)
    np.testing.assert_allclose(scores[0], (model.item_factors @ x)[ids[0]], rtol=1e-4)
