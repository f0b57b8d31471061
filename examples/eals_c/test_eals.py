import alscore_eals
import numpy as np

from alscore.testing import check_solver, exact_half_sweep, random_problem, row_errors, run_half_sweep, tolerance


def test_conforms():
    assert check_solver("eals") == check_solver(alscore_eals) == ("float32", "float64")


def test_passes_converge_to_the_exact_solution():
    user_items, item_factors = random_problem(8, [1, 5, 40], 100, dislikes=True)
    x = np.zeros((3, 8))
    for _ in range(400):
        x, item_factors = run_half_sweep("eals", user_items, item_factors, x, regularization=0.1)
    oracle = exact_half_sweep(user_items, item_factors, regularization=0.1)
    assert row_errors(x, oracle).max() <= tolerance("half-sweep", np.float64)
