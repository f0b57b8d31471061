"""Contenders in recommending, reading and ranking, and the process that each runs in: ``FOLDER NAME``.

FOLDER/settings.json says which task. A contender prepares, untimed, and returns the function to time, the answer of
which is an array. As in `contenders`, nothing of alscore is imported before ours runs.
"""

from __future__ import annotations

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

    Timed = Callable[[], NDArray[Any]]


def _alscore_topn(folder: str, settings: dict[str, Any]) -> Timed:
    return _recommending(_alscore_model, folder, settings)


def _implicit_topn(folder: str, settings: dict[str, Any]) -> Timed:
    return _recommending(_implicit_model, folder, settings)


def _recommending(model_of: Callable[..., Any], folder: str, settings: dict[str, Any]) -> Timed:
    plays, users, X, Y = _trained(folder)
    model, top = model_of(X, Y, settings["threads"]), min(settings["top"], len(Y))
    return _asking(lambda user, rows: model.recommend(user, rows, N=top)[0], plays, users, settings)


def _asking(call: Callable[..., Any], plays: Any, users: Ints, settings: dict[str, Any]) -> Timed:
    """Call for all users at once, or for each alone with its row at hand."""
    if not settings["one_by_one"]:
        return lambda: call(users, plays[users])
    rows = [plays[user] for user in users]
    return lambda: np.array([call(user, row) for user, row in zip(users, rows, strict=True)])


def _numpy_topn(folder: str, settings: dict[str, Any]) -> Timed:
    """Brute force: scores of a block of users by GEMM, then a partition."""
    from threadpoolctl import threadpool_limits

    plays, users, X, Y = _trained(folder)
    block, top = max(1, (1 << 25) // len(Y)), min(settings["top"], len(Y))  # scores of 128 MB
    threadpool_limits(settings["threads"], user_api="blas")

    def best_of(these: Ints) -> Ints:
        scores = X[these] @ Y.T
        seen = plays[these]
        scores[np.repeat(np.arange(len(these)), np.diff(seen.indptr)), seen.indices] = -np.inf
        ids = np.argpartition(scores, -top, axis=1)[:, -top:]
        best = np.take_along_axis(scores, ids, 1)
        ids[np.isneginf(best)] = -1
        return np.take_along_axis(ids, np.argsort(-best, axis=1), 1)

    return lambda: np.concatenate([best_of(users[at : at + block]) for at in range(0, len(users), block)])


def _alscore_load(folder: str, settings: dict[str, Any]) -> Timed:
    from alscore import datasets

    def read() -> NDArray[Any]:
        interactions = datasets.lastfm_360k(settings["path"])
        assert interactions.report is not None  # it was read
        return np.array([interactions.report.read, *interactions.shape, interactions.nnz])

    return read


def _pandas_load(folder: str, settings: dict[str, Any]) -> Timed:
    import csv

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


def _bytes_load(folder: str, settings: dict[str, Any]) -> Timed:
    """What every reader has to wait for: the bytes, decompressed."""
    from alscore.datasets._archives import open_data
    from alscore.datasets.lastfm import PLAYS_FILE

    def read() -> NDArray[Any]:
        with open_data(settings["path"], PLAYS_FILE) as stream:
            buffer = bytearray(1 << 18)
            while stream.readinto(buffer):
                pass
        return np.array([])

    return read


def _saved_load(folder: str, settings: dict[str, Any]) -> Timed:
    """Interactions that were saved before, mapped into memory."""
    from alscore import datasets
    from alscore.interactions import Interactions

    path = Path(folder, "saved.als")
    interactions = datasets.lastfm_360k(settings["path"])
    assert interactions.report is not None  # it was read
    rows = interactions.report.read
    interactions.save(path)
    del interactions  # whose memory would hide what opening takes

    def read() -> NDArray[Any]:
        interactions = Interactions.load(path)
        return np.array([rows, *interactions.shape, interactions.nnz])

    return read


def _alscore_evaluate(folder: str, settings: dict[str, Any]) -> Timed:
    from alscore.metrics.evaluation import evaluate

    plays, _, X, Y = _trained(folder)
    held, n = sparse.load_npz(Path(folder, "held.npz")), settings["top"]
    model = _alscore_model(X, Y, settings["threads"])

    def judge() -> NDArray[Any]:
        found = evaluate(
            model, plays, held, n, ("ndcg", "recall"), num_threads=settings["threads"], show_progress=False
        )
        return np.array([found[f"ndcg@{n}"], found[f"recall@{n}"]])

    return judge


def _implicit_evaluate(folder: str, settings: dict[str, Any]) -> Timed:
    from implicit.evaluation import ranking_metrics_at_k

    plays, _, X, Y = _trained(folder)
    held = sparse.load_npz(Path(folder, "held.npz"))
    model = _implicit_model(X, Y, settings["threads"])

    def evaluate() -> NDArray[Any]:
        metrics = ranking_metrics_at_k(
            model, plays, held, K=min(settings["top"], len(Y)), show_progress=False, num_threads=settings["threads"]
        )
        return np.array([metrics["ndcg"]])  # it has no recall

    return evaluate


def _folding_in(model_of: Callable[..., Any], folder: str, settings: dict[str, Any]) -> Timed:
    plays, users, X, Y = _trained(folder)
    model = model_of(X, Y, settings["threads"])
    return _asking(model.recalculate_user, plays, users, settings)


def _alscore_foldin(folder: str, settings: dict[str, Any]) -> Timed:
    return _folding_in(_alscore_model, folder, settings)


def _implicit_foldin(folder: str, settings: dict[str, Any]) -> Timed:
    return _folding_in(_implicit_model, folder, settings)


def _alscore_half_sweep(folder: str, settings: dict[str, Any]) -> Timed:
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
        found = np.zeros((len(users), X.shape[1]), X.dtype)
        with one_blas_thread():
            rows.update(solver, Y, found)
        return found

    return half_sweep


def _alscore_update(sweeps: int | None, folder: str, settings: dict[str, Any]) -> Timed:
    """From the factors of the older plays; or with no sweeps given, from nothing."""
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


class Contender(NamedTuple):
    package: str
    prepare: Callable[..., Timed]


CONTENDERS = {
    "topn": {
        "alscore": Contender("alscore", _alscore_topn),
        "implicit": Contender("implicit", _implicit_topn),
        "numpy": Contender("numpy", _numpy_topn),
    },
    "foldin": {
        "alscore": Contender("alscore", _alscore_foldin),
        "alscore-half-sweep": Contender("alscore", _alscore_half_sweep),
        "implicit": Contender("implicit", _implicit_foldin),
    },
    "load": {
        "alscore": Contender("alscore", _alscore_load),
        "pandas": Contender("pandas", _pandas_load),
        "bytes": Contender("alscore", _bytes_load),
        "saved": Contender("alscore", _saved_load),
    },
    "evaluate": {
        "alscore": Contender("alscore", _alscore_evaluate),
        "implicit": Contender("implicit", _implicit_evaluate),
    },
    "update": {
        "alscore": Contender("alscore", functools.partial(_alscore_update, 1)),
        "alscore-2-sweeps": Contender("alscore", functools.partial(_alscore_update, 2)),
        "alscore-fit": Contender("alscore", functools.partial(_alscore_update, None)),
    },
}


def main(folder: str, name: str) -> None:
    """Run one contender, in the task that FOLDER/settings.json names."""
    from contenders import speak  # type: ignore[import-not-found]  # a neighbour, for a script

    task = json.loads(Path(folder, "settings.json").read_text())["bench"]
    package, prepare = CONTENDERS[task][name]

    def measurements(settings: dict[str, Any]) -> Iterator[tuple[float, dict[str, Any]]]:
        timed = prepare(folder, settings)
        return (_time(timed) for _ in range(settings["times"]))

    speak(folder, name, package, measurements)


def _time(timed: Timed) -> tuple[float, dict[str, Any]]:
    began = time.perf_counter()
    answer = timed()
    return time.perf_counter() - began, {"answer": answer}


if __name__ == "__main__":
    main(*sys.argv[1:])
