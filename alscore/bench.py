"""Benchmarks: contenders on one machine in one run, each in a process of its own, in alternation.

`sweep` compares full sweeps (both sides) on the same interactions, from the same start, minimising the same
objective: every contender is given the confidences 1 + alpha r, in its own terms. A new contender is one function in
CONTENDERS.
"""

import importlib.util
import json
import math
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

# A contender yields (seconds, user factors, item factors) after each sweep.
Sweeps = Iterator[tuple[float, np.ndarray, np.ndarray]]


def _alscore(solver: str, plays: Any, start: np.ndarray, settings: dict[str, Any]) -> Sweeps:
    from alscore import _threads, als, solvers
    from alscore.interactions import canonical_csr
    from alscore.objective import Objective

    resolved, objective = solvers.resolve(solver), Objective(settings["regularization"], settings["alpha"])
    matrix = canonical_csr(plays)
    users = als.Side.of("user", objective, matrix, start.shape[1], settings["threads"])
    items = users.transposed("item")
    X, Y = np.zeros((matrix.shape[0], start.shape[1]), start.dtype), start.copy()
    with _threads.one_blas_thread():
        while True:
            began = time.perf_counter()
            users.update(resolved, Y, X)
            items.update(resolved, X, Y)
            yield time.perf_counter() - began, X, Y


def _implicit(use_cg: bool, plays: Any, start: np.ndarray, settings: dict[str, Any]) -> Sweeps:
    import warnings

    warnings.filterwarnings("ignore")  # on BLAS threads: one_blas_thread below does what they ask for
    from implicit.cpu.als import AlternatingLeastSquares

    from alscore import _threads

    confidences = sparse.csr_matrix(plays, dtype=np.float32)
    confidences.data = 1 + np.float32(settings["alpha"]) * confidences.data
    sweeps = settings["sweeps"] + 1
    model = AlternatingLeastSquares(
        factors=start.shape[1], regularization=settings["regularization"], alpha=1.0, dtype=np.float32, use_cg=use_cg,
        iterations=sweeps, num_threads=settings["threads"],
    )  # fmt: skip
    model.user_factors, model.item_factors = np.zeros((plays.shape[0], start.shape[1]), np.float32), start.copy()
    done: list[tuple[float, np.ndarray, np.ndarray]] = []
    # its fit has no way to stop between sweeps: factors are copied after each, outside of the seconds it reports
    with _threads.one_blas_thread():
        model.fit(
            confidences,
            show_progress=False,
            callback=lambda i, seconds, loss: done.append(
                (seconds, model.user_factors.copy(), model.item_factors.copy())
                if settings["objective"]
                else (seconds, model.user_factors, model.item_factors)
            ),
        )
    yield from done


CONTENDERS: dict[str, tuple[str, Callable[..., Sweeps], Any]] = {
    "alscore-cholesky": ("alscore", _alscore, "cholesky"),
    "alscore-cg": ("alscore", _alscore, "cg"),
    "alscore-auto": ("alscore", _alscore, "auto"),
    "implicit-cholesky": ("implicit", _implicit, False),
    "implicit-cg": ("implicit", _implicit, True),
}


def _work(folder: str, name: str, settings: dict[str, Any]) -> dict[str, Any]:
    """In the contender's own process: one sweep to warm up, then `sweeps` that count."""
    from alscore import calculate_loss

    plays = sparse.load_npz(Path(folder, "plays.npz"))
    start = np.load(Path(folder, "start.npy"))
    _, contender, variant = CONTENDERS[name]
    seconds, objective = [], []
    for sweep, (elapsed, X, Y) in zip(
        range(settings["sweeps"] + 1), contender(variant, plays, start, settings), strict=False
    ):
        if sweep > 0:
            seconds.append(elapsed)
        if settings["objective"]:
            objective.append(calculate_loss(plays, X, Y, settings["regularization"], settings["alpha"]))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return {"seconds": seconds, "objective": objective, "peak_bytes": peak}


def _run(folder: str, name: str, settings: dict[str, Any]) -> dict[str, Any]:
    code = (
        f"import json, sys; from alscore.bench import _work; "
        f"json.dump(_work({folder!r}, {name!r}, {settings!r}), sys.stdout)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{name} failed: {done.stderr.strip().splitlines()[-1] if done.stderr else done.returncode}")
    return json.loads(done.stdout)  # type: ignore[no-any-return]


def sweep(
    plays: Any,
    contenders: list[str],
    factors: int = 128,
    threads: int = 0,
    sweeps: int = 2,
    repeats: int = 3,
    regularization: float = 0.01,
    alpha: float = 1.0,
    seed: int = 0,
    say: Callable[[str], Any] = lambda message: None,
) -> dict[str, Any]:
    """Time full sweeps of several contenders, in turn, `repeats` times over.

    Parameters
    ----------
    plays : sparse matrix, shape (n_users, n_items)
    contenders : list of str
        Keys of CONTENDERS; the first is the baseline of the ratios. What is not installed is named and skipped.
    factors, threads, sweeps, repeats, regularization, alpha, seed
        Each repetition is one process that runs one sweep to warm up and then `sweeps` that count; threads=0 takes all
        CPUs.
    say : function
        Is told what happens.

    Returns
    -------
    dict
        "shape", "entries", the settings, and "results": for each contender median, min and max seconds of a sweep,
        "ratio" (its median over the baseline's), peak memory in bytes, and the float64 objective after each sweep,
        that which warms up included.
    """
    from alscore import _threads

    names = []
    for name in contenders:
        if name not in CONTENDERS:
            raise ValueError(f"no contender is named {name!r}; there are: {', '.join(CONTENDERS)}")
        package = CONTENDERS[name][0]
        if importlib.util.find_spec(package) is None:
            say(f"{name}: skipped, {package} is not installed (pip install 'alscore[peers]')")
        else:
            names.append(name)
    settings: dict[str, Any] = {
        "factors": factors,
        "threads": threads or _threads.available_cpus(),
        "sweeps": sweeps,
        "repeats": repeats,
        "regularization": regularization,
        "alpha": alpha,
    }
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    with tempfile.TemporaryDirectory() as folder:
        sparse.save_npz(Path(folder, "plays.npz"), sparse.csr_matrix(plays), compressed=False)
        start = np.random.default_rng(seed).standard_normal((plays.shape[1], factors), np.float32)
        np.save(Path(folder, "start.npy"), start * np.float32(0.1 / math.sqrt(factors)))
        for repeat in range(repeats):
            for name in names:
                run = _run(folder, name, {**settings, "objective": repeat == 0})
                runs[name].append(run)
                say(f"{name}: {', '.join(f'{s:.3f}' for s in run['seconds'])} s")
    results = []
    for name in names:
        seconds = [second for run in runs[name] for second in run["seconds"]]
        results.append(
            {
                "contender": name,
                "median": statistics.median(seconds),
                "min": min(seconds),
                "max": max(seconds),
                "peak_bytes": min(run["peak_bytes"] for run in runs[name][1:] or runs[name]),
                "objective": runs[name][0]["objective"],
            }
        )
        results[-1]["ratio"] = results[-1]["median"] / results[0]["median"]
    return {"shape": list(plays.shape), "entries": int(plays.nnz), **settings, "results": results}
