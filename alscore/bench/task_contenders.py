"""Contenders in all tasks except training, and the process in which each one runs: ``task_contenders.py FOLDER NAME``.

FOLDER/settings.json names the task. A contender prepares the task, untimed, and returns the function to time. That
function returns an array, the contender's result. As in `contenders`, only contenders of ours import alscore.
"""

from __future__ import annotations

import csv
import functools
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from scipy import sparse

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from alscore._support.arrays import Floats, Ints
    from alscore.als import AlternatingLeastSquares

    TimedFunction = Callable[[], NDArray[Any]]


def _alscore_topn(folder: str, settings: dict[str, Any]) -> TimedFunction:
    return _recommending(_alscore_model, folder, settings)


def _implicit_topn(folder: str, settings: dict[str, Any]) -> TimedFunction:
    return _recommending(_implicit_model, folder, settings)


def _recommending(model_of: Callable[..., Any], folder: str, settings: dict[str, Any]) -> TimedFunction:
    plays, users, X, Y = _trained(folder)
    model, top = model_of(X, Y, settings["threads"]), min(settings["top"], len(Y))
    return _calling(lambda user, rows: model.recommend(user, rows, N=top)[0], plays, users, settings)


def _calling(call: Callable[..., Any], plays: Any, users: Ints, settings: dict[str, Any]) -> TimedFunction:
    """Call for all users at once, or once for each user; rows of single users are cut out before, untimed."""
    if not settings["one_by_one"]:
        return lambda: call(users, plays[users])
    rows = [plays[user] for user in users]
    return lambda: np.array([call(user, row) for user, row in zip(users, rows, strict=True)])


def _numpy_topn(folder: str, settings: dict[str, Any]) -> TimedFunction:
    """Brute force: the scores of a block of users by GEMM, then a partition."""
    from threadpoolctl import threadpool_limits

    plays, users, X, Y = _trained(folder)
    top = min(settings["top"], len(Y))
    block_users = max(1, (1 << 25) // len(Y))  # users whose scores take 128 MB together
    threadpool_limits(settings["threads"], user_api="blas")

    def best_of(these: Ints) -> Ints:
        scores = X[these] @ Y.T
        seen = plays[these]
        scores[np.repeat(np.arange(len(these)), np.diff(seen.indptr)), seen.indices] = -np.inf
        ids = np.argpartition(scores, -top, axis=1)[:, -top:]
        best = np.take_along_axis(scores, ids, 1)
        ids[np.isneginf(best)] = -1
        return np.take_along_axis(ids, np.argsort(-best, axis=1), 1)

    return lambda: np.concatenate([best_of(users[at : at + block_users]) for at in range(0, len(users), block_users)])


def _alscore_load(folder: str, settings: dict[str, Any]) -> TimedFunction:
    from alscore import datasets

    def read() -> NDArray[Any]:
        interactions = datasets.lastfm_360k(settings["path"])
        assert interactions.report is not None  # datasets.lastfm_360k always sets it
        return np.array([interactions.report.read, *interactions.shape, interactions.nnz])

    return read


def _pandas_load(folder: str, settings: dict[str, Any]) -> TimedFunction:
    import pandas as pd

    def read() -> NDArray[Any]:
        table = pd.read_csv(
            settings["path"],
            sep="\t",
            lineterminator="\n",
            header=None,
            usecols=[0, 2, 3],
            dtype={0: "category", 2: "category"},
            quoting=csv.QUOTE_NONE,
            keep_default_na=False,
        )
        users, items = table[0].cat, table[2].cat
        shape = len(users.categories), len(items.categories)
        plays = sparse.csr_matrix((table[3].to_numpy(np.float32), (users.codes, items.codes)), shape)
        return np.array([len(table), *shape, plays.nnz])

    return read


def _bytes_load(folder: str, settings: dict[str, Any]) -> TimedFunction:
    """Only read and decompress the bytes, for which every reader has to wait."""
    from alscore.datasets._archives import open_data
    from alscore.datasets.lastfm import PLAYS_FILE

    def read() -> NDArray[Any]:
        with open_data(settings["path"], PLAYS_FILE) as stream:
            buffer = bytearray(1 << 18)
            while stream.readinto(buffer):
                pass
        return np.array([])

    return read


def _saved_load(folder: str, settings: dict[str, Any]) -> TimedFunction:
    """Interactions that were saved before the timing, mapped into memory."""
    from alscore import datasets
    from alscore.interactions import Interactions

    path = Path(folder, "saved.als")
    interactions = datasets.lastfm_360k(settings["path"])
    assert interactions.report is not None  # datasets.lastfm_360k always sets it
    rows = interactions.report.read
    interactions.save(path)
    del interactions  # their memory would hide the memory that opening takes

    def read() -> NDArray[Any]:
        interactions = Interactions.load(path)
        return np.array([rows, *interactions.shape, interactions.nnz])

    return read


def _alscore_evaluate(folder: str, settings: dict[str, Any]) -> TimedFunction:
    from alscore.metrics.evaluation import evaluate

    plays, _, X, Y = _trained(folder)
    test, n = sparse.load_npz(Path(folder, "test.npz")), settings["top"]
    model = _alscore_model(X, Y, settings["threads"])

    def metrics() -> NDArray[Any]:
        evaluation = evaluate(
            model, plays, test, n, ("ndcg", "recall"), num_threads=settings["threads"], show_progress=False
        )
        return np.array([evaluation[f"ndcg@{n}"], evaluation[f"recall@{n}"]])

    return metrics


def _implicit_evaluate(folder: str, settings: dict[str, Any]) -> TimedFunction:
    from implicit.evaluation import ranking_metrics_at_k

    plays, _, X, Y = _trained(folder)
    test = sparse.load_npz(Path(folder, "test.npz"))
    model = _implicit_model(X, Y, settings["threads"])

    def metrics() -> NDArray[Any]:
        by_name = ranking_metrics_at_k(
            model, plays, test, K=min(settings["top"], len(Y)), show_progress=False, num_threads=settings["threads"]
        )
        return np.array([by_name["ndcg"]])  # implicit computes no recall

    return metrics


def _folding_in(model_of: Callable[..., Any], folder: str, settings: dict[str, Any]) -> TimedFunction:
    plays, users, X, Y = _trained(folder)
    model = model_of(X, Y, settings["threads"])
    return _calling(model.recalculate_user, plays, users, settings)


def _alscore_foldin(folder: str, settings: dict[str, Any]) -> TimedFunction:
    return _folding_in(_alscore_model, folder, settings)


def _implicit_foldin(folder: str, settings: dict[str, Any]) -> TimedFunction:
    return _folding_in(_implicit_model, folder, settings)


def _alscore_half_sweep(folder: str, settings: dict[str, Any]) -> TimedFunction:
    from alscore import solvers
    from alscore._data.canonical import canonical_csr
    from alscore._support.threads import one_blas_thread
    from alscore.als import AlternatingLeastSquares
    from alscore.solvers.half_sweeps import Side

    plays, users, X, Y = _trained(folder)
    objective = AlternatingLeastSquares()._objective()
    solver = solvers.resolve("cholesky")

    def half_sweep() -> NDArray[Any]:
        rows = Side.of("user", objective, canonical_csr(plays[users]), X.shape[1], settings["threads"])
        solved = np.zeros((len(users), X.shape[1]), X.dtype)
        with one_blas_thread():
            rows.update(solver, Y, solved)
        return solved

    return half_sweep


def _alscore_update(sweeps: int | None, folder: str, settings: dict[str, Any]) -> TimedFunction:
    """`partial_fit` from the factors of the older plays; or if `sweeps` is None, a fit from the beginning."""
    import copy

    from alscore.als import AlternatingLeastSquares

    plays, _, X, Y = _trained(folder)
    before = AlternatingLeastSquares(
        X.shape[1], num_threads=settings["threads"], random_state=settings["seed"], iterations=settings["sweeps"]
    )
    before.user_factors, before.item_factors = X, Y

    def update() -> NDArray[Any]:
        model = copy.copy(before)
        if sweeps is None:
            model.fit(plays, show_progress=False)
        else:
            model.partial_fit(plays, sweeps, show_progress=False)
        return np.concatenate([model.user_factors, model.item_factors])

    return update


def _trained(folder: str) -> tuple[sparse.csr_matrix, Ints, Floats, Floats]:
    users, X, Y = (np.load(Path(folder, name + ".npy")) for name in ("users", "X", "Y"))
    return sparse.load_npz(Path(folder, "plays.npz")), users, X, Y


def _alscore_model(X: Floats, Y: Floats, threads: int) -> AlternatingLeastSquares:
    from alscore.als import AlternatingLeastSquares

    model = AlternatingLeastSquares(factors=X.shape[1], num_threads=threads)
    model.user_factors, model.item_factors = X, Y
    return model


def _implicit_model(X: Floats, Y: Floats, threads: int) -> Any:
    from implicit.cpu.als import AlternatingLeastSquares

    model = AlternatingLeastSquares(factors=X.shape[1], num_threads=threads)
    model.user_factors, model.item_factors = X, Y
    return model


class TaskContender(NamedTuple):
    """A way to do a task. ``prepare(folder, settings)`` returns the function to time; it needs `package`."""

    package: str
    prepare: Callable[..., TimedFunction]


CONTENDERS = {
    "topn": {
        "alscore": TaskContender("alscore", _alscore_topn),
        "implicit": TaskContender("implicit", _implicit_topn),
        "numpy": TaskContender("numpy", _numpy_topn),
    },
    "foldin": {
        "alscore": TaskContender("alscore", _alscore_foldin),
        "alscore-half-sweep": TaskContender("alscore", _alscore_half_sweep),
        "implicit": TaskContender("implicit", _implicit_foldin),
    },
    "load": {
        "alscore": TaskContender("alscore", _alscore_load),
        "pandas": TaskContender("pandas", _pandas_load),
        "bytes": TaskContender("alscore", _bytes_load),
        "saved": TaskContender("alscore", _saved_load),
    },
    "evaluate": {
        "alscore": TaskContender("alscore", _alscore_evaluate),
        "implicit": TaskContender("implicit", _implicit_evaluate),
    },
    "update": {
        "alscore": TaskContender("alscore", functools.partial(_alscore_update, 1)),
        "alscore-2-sweeps": TaskContender("alscore", functools.partial(_alscore_update, 2)),
        "alscore-fit": TaskContender("alscore", functools.partial(_alscore_update, None)),
    },
}


def main(folder: str, name: str) -> None:
    """Run one contender in the task that FOLDER/settings.json names."""
    from contenders import speak  # type: ignore[import-not-found]  # the file beside this script

    task = json.loads(Path(folder, "settings.json").read_text())["bench"]
    package, prepare = CONTENDERS[task][name]

    def measurements(settings: dict[str, Any]) -> Iterator[tuple[float, dict[str, Any]]]:
        timed = prepare(folder, settings)
        return (_time(timed) for _ in range(settings["times"]))

    speak(folder, name, package, measurements)


def _time(timed: TimedFunction) -> tuple[float, dict[str, Any]]:
    began = time.perf_counter()
    result = timed()
    return time.perf_counter() - began, {"result": result}


if __name__ == "__main__":
    main(*sys.argv[1:])
