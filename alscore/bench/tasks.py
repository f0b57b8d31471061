"""Seconds to recommend, to read and to rank."""

import functools
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from alscore._support.arrays import Floats, Ints
from alscore._support.threads import resolve_threads
from alscore.als import AlternatingLeastSquares
from alscore.bench import harness
from alscore.bench.task_contenders import CONTENDERS
from alscore.solvers.loss import calculate_loss

_TRAINING_SWEEPS = 5  # enough that norms and scores are spread as in a finished model
_TIMES = 2  # in each timed process, the first of them to warm up


def topn(
    plays: Any,
    contenders: Sequence[str] = ("alscore", "implicit", "numpy"),
    *,
    factors: int = 128,
    top: int = 10,
    users: int | None = None,
    one_by_one: bool = False,
    random_factors: bool = False,
    threads: int = 0,
    repeats: int = 3,
    seed: int = 0,
    baseline: str | None = None,
    python: Mapping[str, str] | None = None,
    say: harness.Say = lambda message: None,
) -> dict[str, Any]:
    """Time the best items for many users, those that they have played left out, from the same trained factors.

    Parameters
    ----------
    plays : sparse matrix, shape (n_users, n_items)
    contenders : sequence of str
        Keys of ``alscore.bench.task_contenders.CONTENDERS["topn"]``; "numpy" is brute force.
    factors, threads, repeats, baseline, python, say
        As for `alscore.bench.sweep`.
    top : int
        Items for each user.
    users : int, optional
        Size of a random sample of the users; all by default.
    one_by_one : bool
        Each user in a call of its own, not all in one. ("numpy" makes no difference.)
    random_factors : bool
        Standard normal factors instead of trained ones: without any structure that a search could use.
    seed : int
        Of the training and of the sample.

    Returns
    -------
    dict
        As from `alscore.bench.sweep`; each result has "users_per_second", "first", the median seconds of the first
        time in each process, which counts nowhere else, and where alscore is among the contenders "same_ids", the
        share of places of the answer that hold the same item as in the answer of alscore.
    """
    settings = {
        "bench": "topn",
        "top": top,
        "one_by_one": one_by_one,
        "random_factors": random_factors,
        "factors": factors,
        "threads": resolve_threads(threads),
        "seed": seed,
    }
    plays = sparse.csr_matrix(plays)
    sample = _sample(plays, users, seed)
    save = _save_random if random_factors else _save_trained
    prepare = functools.partial(save, plays, sample, settings)
    answer, kept = _measure(settings, contenders, prepare, repeats, baseline, python, say)
    for row in answer["results"]:
        row["users_per_second"] = len(sample) / row["median"]
        if "alscore" in kept:
            row["same_ids"] = float((kept[row["contender"]] == kept["alscore"]).mean())
    return answer | {"data": harness.shape(plays) | {"asked": len(sample)}}


def foldin(
    plays: Any,
    contenders: Sequence[str] = ("alscore", "implicit"),
    *,
    factors: int = 128,
    users: int | None = None,
    one_by_one: bool = False,
    threads: int = 0,
    repeats: int = 3,
    seed: int = 0,
    baseline: str | None = None,
    python: Mapping[str, str] | None = None,
    say: harness.Say = lambda message: None,
) -> dict[str, Any]:
    """Time solving users from their rows on trained item factors.

    Parameters
    ----------
    plays, factors, users, one_by_one, threads, repeats, seed, baseline, python, say
        As for `topn`.
    contenders : sequence of str
        Keys of ``alscore.bench.task_contenders.CONTENDERS["foldin"]``. "alscore-half-sweep" is what training does for
        these rows, the Gram matrix and the rotation of all items included.

    Returns
    -------
    dict
        As from `alscore.bench.sweep`; each result has "users_per_second" and "first", as from `topn`.
    """
    settings = {
        "bench": "foldin",
        "one_by_one": one_by_one,
        "factors": factors,
        "threads": resolve_threads(threads),
        "seed": seed,
    }
    plays = sparse.csr_matrix(plays)
    sample = _sample(plays, users, seed)
    prepare = functools.partial(_save_trained, plays, sample, settings)
    answer, _ = _measure(settings, contenders, prepare, repeats, baseline, python, say)
    for row in answer["results"]:
        row["users_per_second"] = len(sample) / row["median"]
    return answer | {"data": harness.shape(plays) | {"asked": len(sample)}}


def load(
    path: Any,
    contenders: Sequence[str] = ("alscore", "pandas", "bytes", "saved"),
    *,
    repeats: int = 3,
    baseline: str | None = None,
    python: Mapping[str, str] | None = None,
    say: harness.Say = lambda message: None,
) -> dict[str, Any]:
    """Time reading a file of Last.fm 360K into a sparse matrix.

    Parameters
    ----------
    path : str or path
        As for `alscore.datasets.lastfm_360k`; "pandas" reads no archive with more than one member.
    contenders : sequence of str
        Keys of ``alscore.bench.task_contenders.CONTENDERS["load"]``. "bytes" decompresses, and makes nothing of it;
        "saved" opens what `Interactions.save` wrote of the same file.
    repeats, baseline, python, say
        As for `alscore.bench.sweep`.

    Returns
    -------
    dict
        As from `alscore.bench.sweep`; each result has "peak_bytes", and all but that of "bytes" the "rows" read,
        "users", "items", "entries" and "rows_per_second".
    """
    from alscore.datasets.lastfm import plays_file

    settings = {"bench": "load", "path": str(plays_file(path).resolve(strict=True))}
    answer, kept = _measure(settings, contenders, lambda folder: None, repeats, baseline, python, say)
    for row in answer["results"]:
        row |= dict(zip(("rows", "users", "items", "entries"), kept[row["contender"]].tolist(), strict=False))
        if "rows" in row:
            row["rows_per_second"] = row["rows"] / row["median"]
    return answer


def evaluate(
    plays: Any,
    contenders: Sequence[str] = ("alscore", "implicit"),
    *,
    factors: int = 128,
    top: int = 10,
    users: int | None = None,
    threads: int = 0,
    repeats: int = 3,
    seed: int = 0,
    baseline: str | None = None,
    python: Mapping[str, str] | None = None,
    say: harness.Say = lambda message: None,
) -> dict[str, Any]:
    """Time NDCG and recall of users, on a tenth of their entries that training did not see.

    Parameters
    ----------
    plays, factors, top, users, threads, repeats, baseline, python, say
        As for `topn`.
    contenders : sequence of str
        Keys of ``alscore.bench.task_contenders.CONTENDERS["evaluate"]``.
    seed : int
        Of the training, of the sample, and of which entries are held out.

    Returns
    -------
    dict
        As from `alscore.bench.sweep`; each result has "ndcg" and, if the contender computes it, "recall", the means
        over the users who have held-out entries, and "users_per_second" of these.
    """
    settings = {"bench": "evaluate", "top": top, "factors": factors, "threads": resolve_threads(threads), "seed": seed}
    plays = sparse.csr_matrix(plays)
    rows = np.repeat(np.arange(plays.shape[0]), np.diff(plays.indptr))
    out = (np.random.default_rng(seed).random(plays.nnz) < 0.1) & np.isin(rows, _sample(plays, users, seed))
    held, seen = (
        sparse.csr_matrix((plays.data[some], (rows[some], plays.indices[some])), plays.shape) for some in (out, ~out)
    )

    judged = int(np.count_nonzero(np.diff(held.indptr)))

    def prepare(folder: str) -> None:
        sparse.save_npz(Path(folder, "held.npz"), held, compressed=False)
        _save_trained(seen, np.arange(plays.shape[0]), settings, folder)

    answer, kept = _measure(settings, contenders, prepare, repeats, baseline, python, say)
    for row in answer["results"]:
        row |= dict(zip(("ndcg", "recall"), kept[row["contender"]].tolist(), strict=False))
        row["users_per_second"] = judged / row["median"]
    return answer | {"data": harness.shape(plays) | {"asked": judged}}


def update(
    plays: Any,
    contenders: Sequence[str] = ("alscore", "alscore-fit"),
    *,
    factors: int = 128,
    sweeps: int = 15,
    threads: int = 0,
    repeats: int = 3,
    seed: int = 0,
    baseline: str | None = None,
    python: Mapping[str, str] | None = None,
    say: harness.Say = lambda message: None,
) -> dict[str, Any]:
    """Time `partial_fit` after one entry in twenty came new, and a fit of everything from nothing.

    One user and one item in a hundred are new with all of their entries.

    Parameters
    ----------
    plays, factors, threads, repeats, baseline, python, say
        As for `topn`.
    contenders : sequence of str
        Keys of ``alscore.bench.task_contenders.CONTENDERS["update"]``.
    sweeps : int
        Of the fit, and of the one on the older entries.
    seed : int
        Of both fits, and of which entries of known users and items are new.

    Returns
    -------
    dict
        As from `alscore.bench.sweep`; each result has the "objective" on all entries.
    """
    settings: dict[str, Any] = {
        "bench": "update",
        "sweeps": sweeps,
        "factors": factors,
        "threads": resolve_threads(threads),
        "seed": seed,
    }
    plays = sparse.csr_matrix(plays)
    older = plays[: -(-99 * plays.shape[0] // 100), : -(-99 * plays.shape[1] // 100)].copy()
    before = 0.95 * plays.nnz / max(older.nnz, 1)
    older.data[np.random.default_rng(seed).random(older.nnz) >= before] = 0

    def prepare(folder: str) -> None:
        model = AlternatingLeastSquares(
            factors, iterations=sweeps, num_threads=settings["threads"], random_state=seed
        ).fit(older, show_progress=False)
        _save(plays, np.arange(plays.shape[0]), model.user_factors, model.item_factors, folder)

    answer, kept = _measure(settings, contenders, prepare, repeats, baseline, python, say)
    for row in answer["results"]:
        X, Y = np.split(kept[row["contender"]], [plays.shape[0]])
        row["objective"] = calculate_loss(plays, X, Y, AlternatingLeastSquares().regularization)
    return answer | {"data": harness.shape(plays)}


def _sample(plays: Any, users: int | None, seed: int) -> Ints:
    """All users, or so many of them at random, ascending."""
    if users is None or users >= plays.shape[0]:
        return np.arange(plays.shape[0])
    return np.sort(np.random.default_rng(seed).choice(plays.shape[0], users, replace=False))


def _save_trained(plays: Any, users: Ints, settings: dict[str, Any], folder: str) -> None:
    model = AlternatingLeastSquares(
        settings["factors"],
        iterations=_TRAINING_SWEEPS,
        num_threads=settings["threads"],
        random_state=settings["seed"],
    ).fit(plays, show_progress=False)
    _save(plays, users, model.user_factors, model.item_factors, folder)


def _save_random(plays: Any, users: Ints, settings: dict[str, Any], folder: str) -> None:
    rng = np.random.default_rng(settings["seed"])
    X, Y = (rng.standard_normal((size, settings["factors"]), np.float32) for size in plays.shape)
    _save(plays, users, X, Y, folder)


def _save(plays: Any, users: Ints, X: Floats, Y: Floats, folder: str) -> None:
    sparse.save_npz(Path(folder, "plays.npz"), plays, compressed=False)
    for name, array in (("users", users), ("X", X), ("Y", Y)):
        np.save(Path(folder, f"{name}.npy"), array)


def _measure(
    settings: dict[str, Any],
    contenders: Sequence[str],
    prepare: Callable[[str], None],
    repeats: int,
    baseline: str | None,
    python: Mapping[str, str] | None,
    say: harness.Say,
) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Run a task in a folder that `prepare` fills; return the measurements, and the answer of each contender."""
    packages = {name: contender.package for name, contender in CONTENDERS[settings["bench"]].items()}
    jobs, skipped = harness.find(contenders, packages, "task_contenders.py", python or {}, say)
    settings = settings | {"repeats": repeats, "baseline": harness.chosen_baseline(baseline, jobs)}
    kept: dict[str, NDArray[Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        prepare(folder)

        def keep(name: str) -> dict[str, Any]:
            kept[name] = np.load(Path(folder, f"{name}.answer.npy"))
            return {}

        runs, _, failed = harness.look_and_time(jobs, folder, settings, (1, _TIMES), keep, say)
    compared = harness.compare_warm(runs, settings["baseline"])
    results = [{"contender": name, **row} for name, row in compared.items()]
    answer = harness.answer(settings, runs, failed, skipped)
    return answer | {"results": results, "noise": harness.noise(compared, settings["baseline"], repeats)}, kept
