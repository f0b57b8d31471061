"""Ranking quality on fixed splits: the tables of docs/quality.md. That page describes the protocol.

``python -m alscore.bench.quality --data FOLDER`` prints the tables in Markdown, row by row.
"""

import argparse
import functools
import gzip
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
from scipy import sparse

from alscore import datasets, solvers, splits, weighting
from alscore._data.canonical import canonical_csr, entry_rows, from_canonical, renumbered
from alscore.als import AlternatingLeastSquares
from alscore.baselines import EASE, ItemKNN, MostPopular
from alscore.bench import harness
from alscore.interactions import Interactions
from alscore.metrics.evaluation import evaluate

K = 20  # cut-off of both metrics

Weigh = Callable[[sparse.csr_array], sparse.csr_array]  # other values for the entries of a matrix
# Called with an interpreter, a folder, settings for contenders.py and a number of sweeps; leaves factors in the folder.
Train = Callable[[str, str, dict[str, Any], int], harness.Run]


class Part(NamedTuple):
    """A part of a split: train on `train`, give the model the users' rows in `fold_in`, and evaluate it on `test`.

    All three have the same items. `fold_in` and `test` have the same users: those of `train`, or other ones if
    `new_users` is true.
    """

    train: sparse.csr_array
    fold_in: sparse.csr_array
    test: sparse.csr_array
    new_users: bool = False


class Row(NamedTuple):
    """A row of a table: means over the parts that a method is evaluated on, and its seconds of training."""

    method: str
    parameters: str
    recall: float
    ndcg: float
    seconds: float | None = None


class Method(NamedTuple):
    """Candidate models and the weighting of the plays for them. The best one on a validation part is evaluated."""

    name: str
    models: Sequence[Any]
    weigh: Weigh


def evaluated(model: Any, part: Part, weigh: Weigh) -> tuple[float, float, float]:
    """Train on a part; return (Recall@20, NDCG@20, seconds of training)."""
    train = weigh(part.train)
    began = time.perf_counter()
    model.fit(train, show_progress=False)
    seconds = time.perf_counter() - began
    return *figures(model, part, weigh), seconds


def figures(model: Any, part: Part, weigh: Weigh) -> tuple[float, float]:
    """Return (Recall@20, NDCG@20) of a trained model. Test entries that are also in `fold_in` do not count."""
    evaluation = evaluate(
        model, weigh(part.fold_in), part.test, K, ("recall", "ndcg"), new_users=part.new_users, on_overlap="drop",
        show_progress=False,
    )  # fmt: skip
    return evaluation[f"recall@{K}"], evaluation[f"ndcg@{K}"]


def measure(methods: Sequence[Method], validation: Part, parts: Sequence[Part]) -> Iterator[Row]:
    """Give a row for each method: its best model on the validation part, evaluated on each of `parts`."""
    for name, models, weigh in methods:
        best = models[0]
        if len(models) > 1:
            best = max(models, key=lambda model: evaluated(model, validation, weigh)[1])
        figures = [evaluated(best, part, weigh) for part in parts]
        yield Row(name, f"`{best!r}`", *map(statistics.mean, zip(*figures, strict=True)))


def damped(plays: sparse.csr_array, by_user: float, by_item: float) -> sparse.csr_array:
    """Weight each entry by ``n_u**-by_user * n_i**-by_item``, scaled to a mean of 1.

    n_u and n_i are the numbers of entries of its user and of its item.
    """
    users, items = entry_rows(plays), plays.indices
    weights = np.bincount(users)[users] ** -by_user * np.bincount(items)[items] ** -by_item
    return from_canonical((weights / weights.mean()).astype(np.float32), items, plays.indptr, plays.shape)


def binary(plays: sparse.csr_array) -> sparse.csr_array:
    """Return the same entries with the value 1."""
    return weighting.clip(plays, 1, 1)


_NEIGHBOURS = 5, 10, 20, 50, 100, 200  # candidates for the number of neighbours
BASELINES = (
    Method("most popular", [MostPopular()], binary),
    Method("item-kNN", [ItemKNN(k) for k in _NEIGHBOURS], binary),
    Method("item-kNN, BM25 of log(1 + value)", [ItemKNN(k, "bm25") for k in _NEIGHBOURS], weighting.log),
    Method("EASE^R", [EASE(regularization) for regularization in (50, 100, 200, 500, 1000, 2000)], binary),
)


def movielens_1m(folder: Path) -> tuple[Part, Part]:
    """Read the m1 split of MovieLens 1M; return its validation part and its test part."""
    train, valid, test = (_item_lists(folder / f"{name}.txt.gz") for name in ("train", "valid", "test"))
    shape = tuple(np.max([part.shape for part in (train, valid, test)], axis=0))
    for part in (train, valid, test):
        part.resize(shape)
    return Part(train, train, valid), Part(train, train, test)


def _item_lists(path: Path) -> sparse.csr_array:
    """Read lines ``user item item …`` of ids."""
    with gzip.open(path, "rt") as lines:
        rows = [np.array(line.split(), np.int64) for line in lines]
    users = np.concatenate([np.full(len(row) - 1, row[0]) for row in rows])
    items = np.concatenate([row[1:] for row in rows])
    return canonical_csr(sparse.coo_array((np.ones(len(users), np.float32), (users, items))))


def epinions(folder: Path) -> tuple[Part, list[Part]]:
    """Read the folds; return a validation part, which is cut from the first fold's training part, and the folds."""
    names = "user", "item", "value", "time"
    read = functools.partial(Interactions.from_table, user="user", item="item", column_names=names, integers=names[:2])
    whole = read(folder / "dataset.tsv.gz")

    def matrix(path: Path) -> sparse.csr_array:
        part = read(path)
        codes = whole.users.get_indexer(part.users), whole.items.get_indexer(part.items)
        return weighting.clip(renumbered(part.matrix, *codes, whole.shape), 1, 1)

    folds = []
    for fold in range(5):
        train = matrix(folder / str(fold) / "train.tsv.gz")
        folds.append(Part(train, train, matrix(folder / str(fold) / "test.tsv.gz")))
    train, valid = splits.random_split(folds[0].train, test=0.2)
    return Part(train, train, valid), folds


def hetrec(folder: Path) -> tuple[Part, Part]:
    """Split the users of HetRec's Last.fm set; return the validation part and the test part.

    The validation part splits the users of the test part's training part. Artists with a single listener are left out:
    their only listener knows them already, and they are two thirds of the n items, for which EASE needs n² numbers.
    """
    plays = datasets.hetrec_lastfm_2k(folder, items="id").filter(min_item=2).matrix
    test = splits.user_split(plays, test=0.2, random_state=0)
    valid = splits.user_split(test.train, test=0.2, random_state=1)
    return Part(*valid[:3], new_users=True), Part(*test[:3], new_users=True)


_IRSPACK = "irspack-cholesky"  # the contender


def train_irspack(python: str, folder: str, settings: dict[str, Any], n_sweeps: int) -> harness.Run:
    """Train irspack in a process of the interpreter `python`, on the files in `folder`; its factors lie there too."""
    say = functools.partial(print, file=sys.stderr)
    jobs, _ = harness.find([_IRSPACK], {_IRSPACK: "irspack"}, "contenders.py", {_IRSPACK: python}, say)
    return harness.run(jobs[_IRSPACK], folder, settings, n_sweeps, lambda name: {})


def irspack(python: str, model: AlternatingLeastSquares, part: Part, weigh: Weigh, train: Train = train_irspack) -> Row:
    """Minimise the objective of `model` by exact sweeps of irspack, from the same initial factors.

    irspack runs under the interpreter `python`.
    """
    weighted = weigh(part.train)
    # irspack adds the unobserved weight to the value of an entry
    values = np.float32(model.alpha) * weighted.data - np.float32(model.unobserved_weight)
    plays = from_canonical(values, weighted.indices, weighted.indptr, weighted.shape)
    settings = {"alpha": 1.0, "threads": model.num_threads} | {
        name: getattr(model, name) for name in ("regularization", "unobserved_weight", "regularization_exponent")
    }
    with tempfile.TemporaryDirectory() as folder:
        sparse.save_npz(Path(folder, "plays.npz"), plays)
        np.save(
            Path(folder, "start.npy"),
            model._initial_factors(plays.shape[1], np.dtype(np.float32), solvers.resolve(model.solver)),
        )
        run = train(python, folder, settings, model.iterations)
        X, Y = (np.load(Path(folder, f"{_IRSPACK}.{side}.npy")) for side in "XY")
    seconds = sum(sweep["seconds"] for sweep in run["measured"])
    recall, ndcg = figures(SimpleNamespace(user_factors=X, item_factors=Y), part, weigh)
    return Row(f"iALS of irspack {run['version']}, exact", "the same", recall, ndcg, seconds)


class Models(NamedTuple):
    """The model of each data set."""

    movielens: AlternatingLeastSquares
    epinions: AlternatingLeastSquares
    hetrec: AlternatingLeastSquares


# The best of some hundreds of trials on the validation parts; docs/quality.md describes the search.
MODELS = Models(
    movielens=AlternatingLeastSquares(
        256, regularization=0.1, alpha=0.1, iterations=24, solver="cholesky", confidence="raw",
        unobserved_weight=0.045, regularization_exponent=0.5, random_state=0, num_threads=2,
    ),
    epinions=AlternatingLeastSquares(
        256, regularization=3.5, alpha=0.5, iterations=16, solver="cholesky", confidence="raw", unobserved_weight=0.05,
        random_state=0, num_threads=2,
    ),
    hetrec=AlternatingLeastSquares(
        128, regularization=0.12, alpha=0.85, iterations=16, solver="cholesky", unobserved_weight=0.12,
        regularization_exponent=0.5, random_state=0, num_threads=2,
    ),
)  # fmt: skip


def movielens_rows(folder: Path, model: AlternatingLeastSquares, python: str | None = None) -> Iterator[Row]:
    """Give the rows of the table of MovieLens 1M, that of irspack only with an interpreter that has irspack."""
    validation, test = movielens_1m(folder)

    def weigh(plays: sparse.csr_array) -> sparse.csr_array:
        # irspack cannot give an entry less confidence than pairs without an entry; 1 % of the entries would have less
        return weighting.clip(damped(plays, by_user=0.4, by_item=0.2), lower=0.5)

    variants = {"num_threads": 2}, {"num_threads": 1}, {"solver": "cg"}
    ours = [AlternatingLeastSquares(**model.get_params() | variant) for variant in variants]
    methods = [*BASELINES, *(Method("alscore", [each], weigh) for each in ours)]
    yield from measure(methods, validation, [test])
    if python:
        yield irspack(python, model, test, weigh)
    yield Row("UltraGCN", "as published", 0.27867, 0.26421)
    yield Row("SimpleX", "as published", 0.28019, 0.26697)


def epinions_rows(folder: Path, model: AlternatingLeastSquares) -> Iterator[Row]:
    """Give the rows of the table of Epinions: means over the folds."""
    validation, folds = epinions(folder)
    ours = Method("alscore", [model], functools.partial(damped, by_user=0.45, by_item=0.4))
    return measure([*BASELINES, ours], validation, folds)


def hetrec_rows(folder: Path, model: AlternatingLeastSquares) -> Iterator[Row]:
    """Give the rows of the table of HetRec's Last.fm set: users who are folded in."""
    validation, test = hetrec(folder)
    ours = Method("alscore", [model], lambda plays: weighting.normalize(weighting.log(plays)))
    return measure([*BASELINES, ours], validation, [test])


def main(argv: Sequence[str] | None = None, models: Models = MODELS) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser("python -m alscore.bench.quality", description=main.__doc__)
    parser.add_argument("--data", metavar="FOLDER", type=Path, required=True, help="folder that holds the data sets")
    parser.add_argument("--irspack", metavar="PYTHON", help="interpreter that has irspack; default: no row of irspack")
    args = parser.parse_args(argv)
    tables = {
        "MovieLens 1M": movielens_rows(args.data / "movielens-1m-m1", models.movielens, args.irspack),
        "Epinions": epinions_rows(args.data / "epinions-5fold", models.epinions),
        "Last.fm 2K": hetrec_rows(args.data / "hetrec2011-lastfm-2k", models.hetrec),
    }
    for heading, rows in tables.items():
        print(f"\n### {heading}\n\n| method | parameters | Recall@{K} | NDCG@{K} | seconds |\n|---|---|---|---|---|")
        for row in rows:
            seconds = "–" if row.seconds is None else f"{row.seconds:.1f}"
            print(f"| {row.method} | {row.parameters} | {row.recall:.4f} | {row.ndcg:.4f} | {seconds} |", flush=True)


if __name__ == "__main__":
    main()
