"""Print the table of this example: CPU seconds and objective of each solver after some sweeps."""

import argparse
import time

from alscore import AlternatingLeastSquares, calculate_loss, datasets

SWEEPS = (1, 3, 5, 7)
SOLVERS = ("cholesky", "auto", "cg", "ialspp")


def progress(plays, solver, factors):
    """(CPU seconds of training, objective) after each of SWEEPS. The time to compute the objective is not counted."""
    objective = {"regularization": 30, "confidence": "log"}
    model = AlternatingLeastSquares(factors, solver=solver, iterations=1, num_threads=1, random_state=0, **objective)
    seconds, results = 0.0, []
    for sweep in range(1, max(SWEEPS) + 1):
        start = time.process_time()
        model.set_params(warm_start=sweep > 1).fit(plays, show_progress=False)
        seconds += time.process_time() - start
        if sweep in SWEEPS:
            results.append((seconds, calculate_loss(plays, model.user_factors, model.item_factors, **objective)))
    return results


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=40_000)
    parser.add_argument("--items", type=int, default=1_500)
    parser.add_argument("--factors", type=int, default=512)
    arguments = parser.parse_args()
    plays = datasets.synthetic(arguments.users, arguments.items, seed=0)
    print("|".join(["", f"{plays.shape[0]:,} × {plays.shape[1]:,}, {plays.nnz:,} entries", *map(str, SWEEPS), ""]))
    for solver in SOLVERS:
        cells = [f"{seconds:.1f} s, {loss / 1e6:.3f} M" for seconds, loss in progress(plays, solver, arguments.factors)]
        print("|".join(["", solver, *cells, ""]), flush=True)


if __name__ == "__main__":
    main()
