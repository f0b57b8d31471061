"""Seconds of a sweep, and seconds to an objective."""

import contextlib
import itertools
import math
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

from alscore._support.threads import resolve_threads
from alscore.bench import harness, machine
from alscore.bench.contenders import CONTENDERS, Contender
from alscore.solvers.loss import calculate_loss

_REFERENCE = "alscore-cholesky"


def sweep(
    plays: Any,
    contenders: Sequence[str],
    *,
    factors: int = 128,
    threads: int = 0,
    sweeps: int = 2,
    repeats: int = 3,
    regularization: float = 0.01,
    alpha: float = 1.0,
    seed: int = 0,
    isa: Sequence[str] = (),
    baseline: str | None = None,
    python: Mapping[str, str] | None = None,
    say: harness.Say = lambda message: None,
) -> dict[str, Any]:
    """Time full sweeps, users then items, of several contenders, in turn, `repeats` times over.

    Parameters
    ----------
    plays : sparse matrix, shape (n_users, n_items)
    contenders : sequence of str
        Keys of `alscore.bench.contenders.CONTENDERS`. What is not installed is named and skipped.
    factors, threads, regularization, alpha
        For every contender, translated into its own terms; threads=0 takes all CPUs of this process.
    sweeps, repeats : int
        Each repeat is one process, which does one sweep to warm up and then `sweeps` that count. The objectives come
        from a process before them, none of whose seconds count.
    seed : int
        Of the first item factors, the same for all.
    isa : sequence of str
        Kernel sets: each contender of ours runs once with each.
    baseline : str, optional
        The contender that ratios are taken to. Default: the first of ours.
    python : mapping, optional
        The path of an interpreter for all contenders whose name starts with the key.
    say : function
        Is told what happens.

    Returns
    -------
    dict
        "settings", "data", "machine", "versions" and "runs" (every measurement); "results", a list with a dict for
        each contender, whose statistics are those of `alscore.bench.harness.compare`, with the float64 objective after
        each sweep, the one to warm up included, and peak memory above the input in bytes, None where unknown; for ours
        also the share of the peak of gathering, and for our exact ones FLOP/s and their share of the peak: of what an
        exact sweep needs at least in our formulation, which others may not follow; "note", how to read its figures;
        "failed" and "skipped", contenders with the reason; "noise", what the spread does not allow to conclude.

    Raises
    ------
    ValueError
        No such contender, baseline or interpreter.
    """
    jobs, skipped = _find(contenders, isa, python, say)
    baseline = harness.chosen_baseline(baseline, jobs)
    settings = {
        "bench": "sweep", "factors": factors, "threads": resolve_threads(threads), "sweeps": sweeps,
        "repeats": repeats, "regularization": regularization, "alpha": alpha, "seed": seed, "baseline": baseline,
    }  # fmt: skip
    plays = sparse.csr_matrix(plays)
    before = _peaks(settings)
    with _folder(plays, settings) as folder:
        look = _objective(folder, plays, settings)
        # one more, to warm up
        runs, looked, failed = harness.look_and_time(jobs, folder, settings, (sweeps + 1, sweeps + 1), look, say)
    # the higher, if something else ran during one
    fma_peak, gather_peak = (max(pair) for pair in zip(before, _peaks(settings), strict=True))
    needed = machine.sweep_flops(np.diff(plays.indptr), np.bincount(plays.indices, minlength=plays.shape[1]), factors)
    compared = harness.compare_warm(runs, baseline)
    for name, row in compared.items():
        row["objective"] = _objectives(looked[name])
        contender = _contender(name)
        if contender.package == harness.OURS:  # they count what our formulation needs
            row["gather_share"] = machine.gather_bytes(plays.nnz, factors) / row["median"] / gather_peak
            if contender.exact:
                row["flops"] = needed / row["median"]
                row["fma_share"] = row["flops"] / fma_peak
    return harness.answer(settings, runs, failed, skipped) | {
        "data": harness.shape(plays),
        "fma_peak": fma_peak,
        "gather_bandwidth": gather_peak,
        "least_bytes": _least_bytes(plays, factors),
        "results": [_about(name) | row for name, row in compared.items()],
        "noise": harness.noise(compared, baseline, repeats),
    }


def converge(
    plays: Any,
    contenders: Sequence[str],
    *,
    factors: int = 128,
    threads: int = 0,
    sweeps: int = 15,
    reference_sweeps: int = 30,
    repeats: int = 3,
    regularization: float = 0.01,
    alpha: float = 1.0,
    seed: int = 0,
    isa: Sequence[str] = (),
    baseline: str | None = None,
    python: Mapping[str, str] | None = None,
    say: harness.Say = lambda message: None,
) -> dict[str, Any]:
    """Time how long contenders train until the objective comes near to what exact sweeps can reach.

    Parameters
    ----------
    sweeps : int
        In each process, all of them counted, after one that is thrown away. The objectives come from a process before.
    reference_sweeps : int
        Exact sweeps of ours, the least objective of which is the reference.
    plays, contenders, factors, threads, repeats, regularization, alpha, seed, isa, baseline, python, say
        As for `sweep`.

    Returns
    -------
    dict
        As from `sweep`, with "reference" and "targets", the objectives to reach: within 1 % and 0.1 % of the
        reference, and the one that the best peer has in the end. Each result has under "reached", for each target, the
        statistics of the seconds until the first sweep whose objective is no larger, or None; under "cumulated" the
        median seconds until the end of each sweep.
    """
    jobs, skipped = _find(contenders, isa, python, say)
    baseline = harness.chosen_baseline(baseline, jobs)
    settings = {
        "bench": "converge", "factors": factors, "threads": resolve_threads(threads), "sweeps": sweeps,
        "reference_sweeps": reference_sweeps, "repeats": repeats, "regularization": regularization, "alpha": alpha,
        "seed": seed, "baseline": baseline,
    }  # fmt: skip
    plays = sparse.csr_matrix(plays)
    with _folder(plays, settings) as folder:
        look = _objective(folder, plays, settings)
        exact, _ = _find([_REFERENCE], (), None, say)
        try:
            longest = harness.run(exact[_REFERENCE], folder, settings, reference_sweeps, look)
        except RuntimeError as error:
            raise RuntimeError(f"the reference, {reference_sweeps} sweeps of {_REFERENCE}, failed: {error}") from error
        runs, looked, failed = harness.look_and_time(
            jobs, folder, settings, (sweeps, sweeps), look, say, warm_up=True
        )  # fmt: skip
    objectives = {name: _objectives(one) for name, one in looked.items()}
    cumulated = {
        name: [list(itertools.accumulate(at["seconds"] for at in one["measured"])) for one in mine]
        for name, mine in runs.items()
    }
    reference = min(_objectives(longest))
    targets = {"within 1 %": reference * 1.01, "within 0.1 %": reference * 1.001}
    if peers := [values[-1] for name, values in objectives.items() if _contender(name).package != harness.OURS]:
        targets["best peer's"] = min(peers)
    reached = {
        label: harness.compare(until(target, objectives, cumulated), baseline) for label, target in targets.items()
    }
    noise = [said for label, rows in reached.items() for said in harness.noise(rows, baseline, repeats, f"{label}: ")]
    return harness.answer(settings, runs, failed, skipped) | {
        "data": harness.shape(plays),
        "reference": reference,
        "targets": targets,
        "results": [
            _about(name)
            | {
                "objective": objectives[name],
                "cumulated": np.median(cumulated[name], axis=0).tolist(),
                "reached": {label: rows.get(name) for label, rows in reached.items()},
            }
            for name in runs
        ],
        "noise": list(dict.fromkeys(noise)),
        "reference_run": longest,
    }


def until(
    target: float, objectives: dict[str, list[float]], cumulated: dict[str, list[list[float]]]
) -> dict[str, list[list[float]]]:
    """Seconds of each repeat until the first sweep at or below the target, for contenders that come to it."""
    first = {
        name: next((sweep for sweep, value in enumerate(values) if value <= target), None)
        for name, values in objectives.items()
    }
    return {name: [[one[at]] for one in cumulated[name]] for name, at in first.items() if at is not None}


def _find(
    contenders: Sequence[str], isa: Sequence[str], python: Mapping[str, str] | None, say: harness.Say
) -> tuple[dict[str, harness.Job], dict[str, str]]:
    packages = {name: contender.package for name, contender in CONTENDERS.items()}
    return harness.find(contenders, packages, "contenders.py", python or {}, say, isa)


def _contender(name: str) -> Contender:
    return CONTENDERS[name.partition("@")[0]]


def _about(name: str) -> dict[str, Any]:
    contender = _contender(name)
    return {"contender": name, "exact": contender.exact} | ({"note": contender.note} if contender.note else {})


def _peaks(settings: dict[str, Any]) -> tuple[float, float]:
    """FLOP/s and bytes/s that this machine can reach."""
    threads = settings["threads"]
    return machine.fma_peak(threads), machine.gather_bandwidth(settings["factors"], threads)


@contextlib.contextmanager
def _folder(plays: Any, settings: dict[str, Any]) -> Iterator[str]:
    """A temporary folder with what every contender reads: the plays, and the item factors to start from."""
    shape = plays.shape[1], settings["factors"]
    with tempfile.TemporaryDirectory() as folder:
        sparse.save_npz(Path(folder, "plays.npz"), plays, compressed=False)
        start = np.random.default_rng(settings["seed"]).standard_normal(shape, np.float32)
        np.save(Path(folder, "start.npy"), start * np.float32(0.1 / math.sqrt(settings["factors"])))
        yield folder


def _objective(folder: str, plays: Any, settings: dict[str, Any]) -> Callable[[str], dict[str, float]]:
    """What tells the objective of the factors that a contender has left in the folder."""

    def look(contender: str) -> dict[str, float]:
        X, Y = (np.load(Path(folder, f"{contender}.{side}.npy")) for side in "XY")
        value = calculate_loss(plays, X, Y, settings["regularization"], settings["alpha"])
        if not math.isfinite(value):
            raise RuntimeError("its factors are not finite")
        return {"objective": value}

    return look


def _objectives(looked: harness.Run) -> list[float]:
    return [at["objective"] for at in looked["measured"]]


def _least_bytes(plays: Any, factors: int) -> int:
    """What training cannot do without above its input: the input's transpose and the float32 factors."""
    return int(plays.nnz * (4 + 4) + (plays.shape[1] + 1) * 8 + sum(plays.shape) * factors * 4)
