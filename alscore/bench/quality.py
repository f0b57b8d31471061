"""Quality on fixed splits: the tables of docs/quality.md, which says what is judged and how.

``python -m alscore.bench.quality --data FOLDER`` prints them, in Markdown, as they are ready.
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

from alscore import datasets, splits, weighting
from alscore._data.canonical import canonical_csr, entry_rows, from_canonical, recoded
from alscore.als import AlternatingLeastSquares
from alscore.baselines import EASE, ItemKNN, MostPopular
from alscore.bench import harness
from alscore.interactions import Interactions
from alscore.metrics.evaluation import evaluate

K = 20


class Part(NamedTuple):
    """Train on `train`, tell the model of users as in `known`, and see whether it finds `test`.

    All are csr_arrays over the same items, `known` and `test` of the same users: those of `train`, or `new_users`.
    """

    train: sparse.csr_array
    known: sparse.csr_array
    test: sparse.csr_array
    new_users: bool = False


class Row(NamedTuple):
    """A row of a table: means over the parts that a method is judged on, and its seconds of training."""

    method: str
    parameters: str
    recall: float
    ndcg: float
    seconds: float | None = None


class Method(NamedTuple):
    """Models to choose from by their NDCG on a part for validation, and what is done to plays before they see them."""

    name: str
    models: Sequence[Any]
    weigh: Callable[[Any], Any]


def judged(model: Any, part: Part, weigh: Callable[[Any], Any]) -> tuple[float, float, float]:
    """Train on a part; return (Recall@20, NDCG@20, seconds of training)."""
    train = weigh(part.train)
    began = time.perf_counter()
    model.fit(train, show_progress=False)
    seconds = time.perf_counter() - began
    return *figures(model, part, weigh), seconds


def figures(model: Any, part: Part, weigh: Callable[[Any], Any]) -> tuple[float, float]:
    """Return (Recall@20, NDCG@20) of a trained model; a test item that is known already does not count."""
    found = evaluate(
        model, weigh(part.known), part.test, K, ("recall", "ndcg"), new_users=part.new_users, on_overlap="drop",
        show_progress=False,
    )  # fmt: skip
    return found[f"recall@{K}"], found[f"ndcg@{K}"]


def measure(methods: Sequence[Method], validation: Part, parts: Sequence[Part]) -> Iterator[Row]:
    """Give a row for each method: its model that is best on the part for validation, judged on each of `parts`."""
    for name, models, weigh in methods:
        best = models[0]
        if len(models) > 1:
            best = max(models, key=lambda model: judged(model, validation, weigh)[1])
        figures = [judged(best, part, weigh) for part in parts]
        yield Row(name, f"`{best!r}`", *map(statistics.mean, zip(*figures, strict=True)))


def damped(plays: sparse.csr_array, by_user: float, by_item: float) -> sparse.csr_array:
    """Weigh entries by ``n_u**-by_user * n_i**-by_item``, n the numbers of them, scaled to a mean of 1."""
    users, items = entry_rows(plays), plays.indices
    weights = np.bincount(users)[users] ** -by_user * np.bincount(items)[items] ** -by_item
    return from_canonical((weights / weights.mean()).astype(np.float32), items, plays.indptr, plays.shape)


def who_has_what(plays: sparse.csr_array) -> sparse.csr_array:
    """Weigh all entries alike."""
    return weighting.clip(plays, 1, 1)


_NEIGHBOURS = 5, 10, 20, 50, 100, 200
BASELINES = (
    Method("most popular", [MostPopular()], who_has_what),
    Method("item-kNN", [ItemKNN(k) for k in _NEIGHBOURS], who_has_what),
    Method("item-kNN, log(1 + plays)", [ItemKNN(k, "bm25") for k in _NEIGHBOURS], weighting.log),
    Method("EASE^R", [EASE(regularization) for regularization in (50, 100, 200, 500, 1000, 2000)], who_has_what),
)


def movielens_1m(folder: Path) -> tuple[Part, Part]:
    """Read the m1 split of MovieLens 1M; return its part for validation and the one to test on."""
    train, valid, test = (_item_lists(folder / f"{name}.txt.gz") for name in ("train", "valid", "test"))
    shape = tuple(np.max([part.shape for part in (train, valid, test)], axis=0))
    for part in (train, valid, test):
        part.resize(shape)
    return Part(train, train, valid), Part(train, train, test)


def _item_lists(path: Path) -> sparse.csr_array:
    """Read lines ``user item item …`` of numbers from 0."""
    with gzip.open(path, "rt") as lines:
        rows = [np.array(line.split(), np.int64) for line in lines]
    users = np.concatenate([np.full(len(row) - 1, row[0]) for row in rows])
    items = np.concatenate([row[1:] for row in rows])
    return canonical_csr(sparse.coo_array((np.ones(len(users), np.float32), (users, items))))


def epinions(folder: Path) -> tuple[Part, list[Part]]:
    """Read the folds; return a part for validation, of the first fold's training part, and the folds."""
    names = "user", "item", "value", "time"
    read = functools.partial(Interactions.from_table, user="user", item="item", column_names=names, integers=names[:2])
    whole = read(folder / "dataset.tsv.gz")

    def matrix(path: Path) -> sparse.csr_array:
        part = read(path)
        codes = whole.users.get_indexer(part.users), whole.items.get_indexer(part.items)
        return weighting.clip(recoded(part.matrix, *codes, whole.shape), 1, 1)

    folds = []
    for fold in range(5):
        train = matrix(folder / str(fold) / "train.tsv.gz")
        folds.append(Part(train, train, matrix(folder / str(fold) / "test.tsv.gz")))
    train, valid = splits.random_split(folds[0].train, test=0.2)
    return Part(train, train, valid), folds


def hetrec(folder: Path) -> tuple[Part, Part]:
    """Split the users of HetRec's Last.fm set, and those to train on once more; return validation and test.

    Without artists of one listener, whom nobody could be recommended, and whom EASE would take two thirds of its n for.
    """
    plays = datasets.hetrec_lastfm_2k(folder, items="id").filter(min_item=2).matrix
    test = splits.user_split(plays, test=0.2, random_state=0)
    valid = splits.user_split(test.train, test=0.2, random_state=1)
    return Part(*valid[:3], new_users=True), Part(*test[:3], new_users=True)


def irspack(python: str, model: AlternatingLeastSquares, part: Part, weigh: Callable[[Any], Any]) -> Row:
    """Let irspack, under the interpreter `python`, minimise the same objective from the same start, exactly."""
    weighed = weigh(part.train)
    above = np.float32(model.alpha) * weighed.data - np.float32(model.unobserved_weight)  # which irspack adds
    plays = from_canonical(above, weighed.indices, weighed.indptr, weighed.shape)
    name, say = "irspack-cholesky", functools.partial(print, file=sys.stderr)
    jobs, _ = harness.find([name], {name: "irspack"}, "contenders.py", {name: python}, say)
    settings = {"alpha": 1.0, "threads": model.num_threads} | {
        name: getattr(model, name) for name in ("regularization", "unobserved_weight", "regularization_exponent")
    }
    with tempfile.TemporaryDirectory() as folder:
        sparse.save_npz(Path(folder, "plays.npz"), plays)
        np.save(Path(folder, "start.npy"), model._first_factors(plays.shape[1], np.dtype(np.float32)))
        run = harness.run(jobs[name], folder, settings, model.iterations, lambda name: {})
        X, Y = (np.load(Path(folder, f"{name}.{side}.npy")) for side in "XY")
    seconds = sum(sweep["seconds"] for sweep in run["measured"])
    found = figures(SimpleNamespace(user_factors=X, item_factors=Y), part, weigh)
    return Row(f"iALS of irspack {run['version']}, exact", "the same", *found, seconds)


# The best on the validation parts of some hundreds of trials, of which docs/quality.md tells.
_MOVIELENS = AlternatingLeastSquares(
    256, regularization=0.1, alpha=0.1, iterations=24, solver="cholesky", confidence="raw", unobserved_weight=0.045,
    regularization_exponent=0.5, random_state=0, num_threads=2,
)  # fmt: skip
_EPINIONS = AlternatingLeastSquares(
    256, regularization=3.5, alpha=0.5, iterations=16, solver="cholesky", confidence="raw", unobserved_weight=0.05,
    random_state=0, num_threads=2,
)  # fmt: skip
_HETREC = AlternatingLeastSquares(
    128, regularization=0.12, alpha=0.85, iterations=16, solver="cholesky", unobserved_weight=0.12,
    regularization_exponent=0.5, random_state=0, num_threads=2,
)  # fmt: skip


def movielens_rows(folder: Path, python: str | None = None) -> Iterator[Row]:
    """Rows of the table of MovieLens 1M; of irspack too, where there is an interpreter that has it."""
    validation, test = movielens_1m(folder)

    def weigh(plays: sparse.csr_array) -> sparse.csr_array:
        # irspack cannot give an entry a lower confidence than no entry has, as 1 % of them would have
        return weighting.clip(damped(plays, by_user=0.4, by_item=0.2), lower=0.5)

    ways = {"num_threads": 2}, {"num_threads": 1}, {"solver": "cg"}
    ours = [AlternatingLeastSquares(**_MOVIELENS.get_params() | way) for way in ways]
    methods = [*BASELINES, *(Method("alscore", [model], weigh) for model in ours)]
    yield from measure(methods, validation, [test])
    if python:
        yield irspack(python, _MOVIELENS, test, weigh)
    yield Row("UltraGCN", "as published", 0.27867, 0.26421)
    yield Row("SimpleX", "as published", 0.28019, 0.26697)


def epinions_rows(folder: Path) -> Iterator[Row]:
    """Rows of the table of Epinions: means of the folds."""
    validation, folds = epinions(folder)
    ours = Method("alscore", [_EPINIONS], functools.partial(damped, by_user=0.45, by_item=0.4))
    return measure([*BASELINES, ours], validation, folds)


def hetrec_rows(folder: Path) -> Iterator[Row]:
    """Rows of the table of HetRec's Last.fm set: users who are folded in."""
    validation, test = hetrec(folder)
    ours = Method("alscore", [_HETREC], lambda plays: weighting.normalize(weighting.log(plays)))
    return measure([*BASELINES, ours], validation, [test])


def main(argv: Sequence[str] | None = None) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser("python -m alscore.bench.quality", description=main.__doc__)
    parser.add_argument("--data", metavar="FOLDER", type=Path, required=True, help="that holds the sets")
    parser.add_argument("--irspack", metavar="PYTHON", help="interpreter that has irspack; default: without its row")
    args = parser.parse_args(argv)
    tables = {
        "MovieLens 1M": movielens_rows(args.data / "movielens-1m-m1", args.irspack),
        "Epinions": epinions_rows(args.data / "epinions-5fold"),
        "Last.fm 2K": hetrec_rows(args.data / "hetrec2011-lastfm-2k"),
    }
    for heading, rows in tables.items():
        print(f"\n### {heading}\n\n| method | parameters | Recall@{K} | NDCG@{K} | seconds |\n|---|---|---|---|---|")
        for row in rows:
            seconds = "–" if row.seconds is None else f"{row.seconds:.1f}"
            print(f"| {row.method} | {row.parameters} | {row.recall:.4f} | {row.ndcg:.4f} | {seconds} |", flush=True)


if __name__ == "__main__":
    main()
