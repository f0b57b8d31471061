"""Contenders in recommending, reading and ranking, and the process that each runs in: ``FOLDER NAME``.

FOLDER/settings.json says which task. A contender prepares, untimed, and returns the function to time, the answer of
which is an array. As in `contenders`, nothing of alscore is imported before ours runs.
"""

import importlib
import json
import platform
import sys
import time
from collections import namedtuple
from pathlib import Path

import numpy as np
from scipy import sparse


def _alscore_topn(folder, settings):
    from alscore import retrieval

    plays, users, X, Y = _trained(folder)
    return lambda: retrieval.top_n(X[users], Y, settings["top"], exclude=plays[users], num_threads=settings["threads"])[
        0
    ]


def _implicit_topn(folder, settings):
    plays, users, X, Y = _trained(folder)
    model = _implicit_model(X, Y, settings["threads"])
    return lambda: model.recommend(users, plays[users], N=settings["top"])[0]


def _numpy_topn(folder, settings):
    """Brute force: scores of a block of users by GEMM, then a partition."""
    from threadpoolctl import threadpool_limits

    plays, users, X, Y = _trained(folder)
    block, top = max(1, (1 << 25) // len(Y)), min(settings["top"], len(Y))  # scores of 128 MB
    threadpool_limits(settings["threads"], user_api="blas")

    def best_of(these):
        scores = X[these] @ Y.T
        seen = plays[these]
        scores[np.repeat(np.arange(len(these)), np.diff(seen.indptr)), seen.indices] = -np.inf
        ids = np.argpartition(scores, -top, axis=1)[:, -top:]
        best = np.take_along_axis(scores, ids, 1)
        ids[np.isneginf(best)] = -1
        return np.take_along_axis(ids, np.argsort(-best, axis=1), 1)

    return lambda: np.concatenate([best_of(users[at : at + block]) for at in range(0, len(users), block)])


def _alscore_load(folder, settings):
    from alscore import datasets

    def read():
        interactions = datasets.lastfm_360k(settings["path"])
        return np.array([interactions.report.read, *interactions.shape, interactions.nnz])

    return read


def _pandas_load(folder, settings):
    import pandas as pd

    def read():
        table = pd.read_csv(
            settings["path"], sep="\t", header=None, quoting=3, usecols=[0, 2, 3], keep_default_na=False
        )
        (users, user_labels), (items, item_labels) = pd.factorize(table[0]), pd.factorize(table[2])
        shape = len(user_labels), len(item_labels)
        plays = sparse.coo_matrix((table[3].to_numpy(np.float32), (users, items)), shape).tocsr()
        return np.array([len(table), *shape, plays.nnz])

    return read


def _alscore_evaluate(folder, settings):
    from alscore import retrieval

    plays, users, X, Y = _trained(folder)
    held = sparse.load_npz(Path(folder, "held.npz"))
    n = settings["top"]

    def evaluate():
        asked = users[np.diff(held.indptr)[users] > 0]
        mine = held[asked]
        ids, _ = retrieval.top_n(X[asked], Y, n, exclude=plays[asked], num_threads=settings["threads"])
        entries = np.diff(mine.indptr)
        row = np.arange(len(asked), dtype=np.int64)
        wanted = np.repeat(row, entries) * len(Y) + mine.indices
        hits = np.isin(row[:, None] * len(Y) + ids, wanted) & (ids >= 0)
        gain = 1 / np.log2(np.arange(n) + 2)
        ideal = gain.cumsum()[np.minimum(entries, n) - 1]
        return np.array([(hits @ gain / ideal).mean(), (hits.sum(1) / entries).mean()])

    return evaluate


def _implicit_evaluate(folder, settings):
    from implicit.evaluation import ranking_metrics_at_k

    plays, _, X, Y = _trained(folder)
    held = sparse.load_npz(Path(folder, "held.npz"))
    model = _implicit_model(X, Y, settings["threads"])

    def evaluate():
        metrics = ranking_metrics_at_k(
            model, plays, held, K=settings["top"], show_progress=False, num_threads=settings["threads"]
        )
        return np.array([metrics["ndcg"]])  # it has no recall

    return evaluate


def _trained(folder):
    plays = sparse.load_npz(Path(folder, "plays.npz"))
    return (plays, *(np.load(Path(folder, name + ".npy")) for name in ("users", "X", "Y")))


def _implicit_model(X, Y, threads):
    from implicit.cpu.als import AlternatingLeastSquares

    model = AlternatingLeastSquares(factors=X.shape[1], num_threads=threads)
    model.user_factors, model.item_factors = X, Y
    return model


Contender = namedtuple("Contender", "package prepare")

CONTENDERS = {
    "topn": {
        "alscore": Contender("alscore", _alscore_topn),
        "implicit": Contender("implicit", _implicit_topn),
        "numpy": Contender("numpy", _numpy_topn),
    },
    "load": {
        "alscore": Contender("alscore", _alscore_load),
        "pandas": Contender("pandas", _pandas_load),
    },
    "evaluate": {
        "alscore": Contender("alscore", _alscore_evaluate),
        "implicit": Contender("implicit", _implicit_evaluate),
    },
}


def main(folder, name):
    """Speak the protocol of `contenders`: a line about the package, then one for each of settings["times"]."""
    from contenders import peak, reset_peak  # a neighbour, for a script

    settings = json.loads(Path(folder, "settings.json").read_text())
    package, prepare = CONTENDERS[settings["bench"]][name]
    version = importlib.import_module(package).__version__
    print(json.dumps({"package": package, "version": version, "python": platform.python_version()}), flush=True)
    timed = prepare(folder, settings)
    before = reset_peak()
    for _ in range(settings["times"]):
        began = time.perf_counter()
        answer = timed()
        seconds = time.perf_counter() - began
        if settings["keep"]:
            np.save(Path(folder, name + ".answer.npy"), answer)
        print(json.dumps({"seconds": seconds, "peak_bytes": peak() - before}), flush=True)
        if settings["keep"]:
            sys.stdin.readline()


if __name__ == "__main__":
    main(*sys.argv[1:])
