import numpy as np
import pytest
from alscore_ialspp import IALSpp

from alscore.testing import check_solver, exact_half_sweep, random_problem, row_errors, run_half_sweep, tolerance


@pytest.mark.parametrize("solver", ["ialspp", IALSpp(1), IALSpp(16)])
def test_conforms(solver):
    assert check_solver(solver) == ("float32", "float64")


def test_a_block_of_all_the_factors_is_the_exact_solution():
    user_items, item_factors = random_problem(40, [0, 7, 40, 300], 100, dislikes=True)
    x, rotated = run_half_sweep(IALSpp(40), user_items, item_factors, np.zeros((4, 40)), regularization=0.1)
    oracle = exact_half_sweep(user_items, rotated, regularization=0.1)
    assert row_errors(x, oracle).max() <= tolerance("half-sweep", np.float64)


def test_passes_converge_to_the_exact_solution():
    user_items, item_factors = random_problem(50, [1, 30, 300], 100, dislikes=True)
    x = np.zeros((3, 50))
    for _ in range(400):
        x, item_factors = run_half_sweep(IALSpp(16), user_items, item_factors, x, regularization=0.1)
    oracle = exact_half_sweep(user_items, item_factors, regularization=0.1)
    assert row_errors(x, oracle).max() <= tolerance("half-sweep", np.float64)


@pytest.mark.parametrize("block", [0, 2.0, True])
def test_wrong_block_is_refused(block):
    with pytest.raises(ValueError, match="block must be"):
        IALSpp(block)
