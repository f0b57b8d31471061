"""Seconds of a sweep, and seconds until the objective is low."""

import contextlib
import itertools
import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy import sparse

from alscore.bench import harness, machine
from alscore.bench.benchmarks import OURS, Converge, Sweep, Training
from alscore.bench.contenders import CONTENDERS, TrainingContender
from alscore.solvers.loss import calculate_loss

_REFERENCE = "alscore-cholesky"


class Peaks(NamedTuple):
    """The most that a machine can do: float32 FMAs, and reading random rows of factors from memory."""

    flops_per_second: float
    bytes_per_second: float


def measured_peaks(factors: int, threads: int) -> Peaks:
    """Measure the peaks of this machine, for rows of `factors` numbers."""
    return Peaks(machine.fma_peak(threads), machine.gather_bandwidth(factors, threads))


def sweep(
    plays: Any,
    contenders: Sequence[str] = Sweep.contenders(),
    *,
    peaks: Callable[[int, int], Peaks] = measured_peaks,
    **options: Any,
) -> dict[str, Any]:
    """Time full sweeps, users then items.

    Each repeat is one process for each contender. It makes one sweep to warm up and then `sweeps` timed ones. The
    objectives come from an earlier process, whose seconds do not count.

    Parameters
    ----------
    plays : sparse matrix, shape (n_users, n_items)
    contenders : sequence of str
        Keys of `alscore.bench.contenders.CONTENDERS`. Contenders that are not installed are named and skipped.
    peaks : function
        Called with the number of factors and of threads, before and after the measurement. The higher of the two
        figures is used.
    **options
        Fields of `alscore.bench.benchmarks.Sweep`. They hold for every contender, translated into its own terms.

    Returns
    -------
    dict
        "settings", "data", "machine", "versions" and "runs" (every measurement).

        "results", a list with a dict for each contender: the statistics of `alscore.bench.harness.compare`; the float64
        "objective" after each sweep, the first of which is the one to warm up; and "peak_bytes", the peak of memory
        above the input, None where unknown. Our contenders also have "gather_share", the share of the peak of
        gathering. Our exact ones have "flops" (FLOP/s) and "fma_share", their share of the peak. Both count the
        minimum that our method needs for an exact sweep. Other packages may use another method. "note" says how to read
        the figures of a contender.

        "failed" and "skipped", contenders with the reason; "noise", messages about conclusions that the spread does not
        allow.

    Raises
    ------
    TypeError
        The benchmark has no such option.
    ValueError
        No such contender, baseline or interpreter.
    """
    settings = harness.settings_of(Sweep, options)
    jobs, skipped = _find(contenders, settings)
    baseline = harness.chosen_baseline(settings.baseline, jobs)
    conditions = settings.reported() | {"baseline": baseline}
    plays = sparse.csr_matrix(plays)
    before = peaks(settings.factors, settings.threads)
    n_sweeps = settings.sweeps + 1  # the first warms up
    with _folder(plays, settings) as folder:
        inspect = _objective(folder, plays, settings)
        runs, inspected, failed = harness.inspect_and_time(
            jobs, folder, conditions, (n_sweeps, n_sweeps), inspect, settings.say
        )
    after = peaks(settings.factors, settings.threads)
    best = Peaks(*map(max, before, after))  # another process may have disturbed one of the two
    compared = harness.compare_warm(runs, baseline)
    for name, row in compared.items():
        row["objective"] = _objectives(inspected[name])
        row |= _shares(_contender(name), plays, settings.factors, row["median"], best)
    return harness.outcome(conditions, runs, failed, skipped) | {
        "data": harness.shape(plays),
        "fma_peak": best.flops_per_second,
        "gather_bandwidth": best.bytes_per_second,
        "least_bytes": _least_bytes(plays, settings.factors),
        "results": [_about(name) | row for name, row in compared.items()],
        "noise": harness.noise(compared, baseline, settings.repeats),
    }


def converge(plays: Any, contenders: Sequence[str] = Converge.contenders(), **options: Any) -> dict[str, Any]:
    """Time how long contenders train until the objective is near the lowest that exact sweeps reach.

    Each repeat is one process for each contender. It makes one sweep that is thrown away, and then `sweeps` timed ones
    from the initial factors. The objectives come from an earlier process.

    Parameters
    ----------
    plays, contenders
        As for `sweep`.
    **options
        Fields of `alscore.bench.benchmarks.Converge`.

    Returns
    -------
    dict
        As from `sweep`, with "reference", the lowest objective of our exact sweeps, and "targets", the objectives to
        reach: within 1 % and 0.1 % of the reference, and the lowest last objective of a peer. Each result has
        "reached", for each target the statistics of the seconds until the end of the first sweep whose objective is no
        larger, or None; and "cumulated", the median seconds until the end of each sweep.

    Raises
    ------
    RuntimeError
        The exact sweeps of the reference failed.
    TypeError, ValueError
        As from `sweep`.
    """
    settings = harness.settings_of(Converge, options)
    jobs, skipped = _find(contenders, settings)
    baseline = harness.chosen_baseline(settings.baseline, jobs)
    conditions = settings.reported() | {"baseline": baseline}
    plays = sparse.csr_matrix(plays)
    with _folder(plays, settings) as folder:
        inspect = _objective(folder, plays, settings)
        reference_run = _reference_run(folder, conditions, inspect, settings)
        times = settings.sweeps, settings.sweeps
        runs, inspected, failed = harness.inspect_and_time(
            jobs, folder, conditions, times, inspect, settings.say, warm_up=True
        )
    objectives = {name: _objectives(run) for name, run in inspected.items()}
    cumulated = {
        name: [list(itertools.accumulate(at["seconds"] for at in run["measured"])) for run in each]
        for name, each in runs.items()
    }
    reference = min(_objectives(reference_run))
    targets = {"within 1 %": reference * 1.01, "within 0.1 %": reference * 1.001}
    if of_peers := [values[-1] for name, values in objectives.items() if _contender(name).package != OURS]:
        targets["best peer's"] = min(of_peers)
    reached = {
        label: harness.compare(until(target, objectives, cumulated), baseline) for label, target in targets.items()
    }
    noise = [
        message
        for label, rows in reached.items()
        for message in harness.noise(rows, baseline, settings.repeats, f"{label}: ")
    ]
    return harness.outcome(conditions, runs, failed, skipped) | {
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
        "reference_run": reference_run,
    }


def _reference_run(
    folder: str, conditions: dict[str, Any], inspect: harness.Inspect, settings: Converge
) -> harness.Run:
    packages = {_REFERENCE: CONTENDERS[_REFERENCE].package}
    jobs, _ = harness.find([_REFERENCE], packages, "contenders.py", {}, settings.say)
    try:
        return harness.run(jobs[_REFERENCE], folder, conditions, settings.reference_sweeps, inspect)
    except RuntimeError as error:
        raise RuntimeError(
            f"the reference, {settings.reference_sweeps} sweeps of {_REFERENCE}, failed: {error}"
        ) from error


def until(
    target: float, objectives: dict[str, list[float]], cumulated: dict[str, list[list[float]]]
) -> dict[str, list[list[float]]]:
    """Return the seconds of each repeat until the first sweep at or below the target, of contenders that reach it."""
    first = {
        name: next((sweep for sweep, value in enumerate(values) if value <= target), None)
        for name, values in objectives.items()
    }
    return {name: [[repeat[at]] for repeat in cumulated[name]] for name, at in first.items() if at is not None}


def _find(contenders: Sequence[str], settings: Training) -> tuple[dict[str, harness.Job], dict[str, str]]:
    packages = {name: contender.package for name, contender in CONTENDERS.items()}
    return harness.find(contenders, packages, "contenders.py", settings.python or {}, settings.say, settings.isa)


def _contender(name: str) -> TrainingContender:
    return CONTENDERS[name.partition("@")[0]]


def _about(name: str) -> dict[str, Any]:
    contender = _contender(name)
    return {"contender": name, "exact": contender.exact} | ({"note": contender.note} if contender.note else {})


def _shares(contender: TrainingContender, plays: Any, factors: int, seconds: float, peaks: Peaks) -> dict[str, float]:
    """Return FLOP/s and shares of the peaks, for our contenders: they are counted in our formulation."""
    if contender.package != OURS:
        return {}
    shares = {"gather_share": machine.gather_bytes(plays.nnz, factors) / seconds / peaks.bytes_per_second}
    if contender.exact:
        user_entries, item_entries = np.diff(plays.indptr), np.bincount(plays.indices, minlength=plays.shape[1])
        flops = machine.sweep_flops(user_entries, item_entries, factors) / seconds
        shares |= {"flops": flops, "fma_share": flops / peaks.flops_per_second}
    return shares


@contextlib.contextmanager
def _folder(plays: Any, settings: Training) -> Iterator[str]:
    """Give a temporary folder with what every contender reads: the plays, and the initial item factors."""
    shape = plays.shape[1], settings.factors
    with tempfile.TemporaryDirectory() as folder:
        sparse.save_npz(Path(folder, "plays.npz"), plays, compressed=False)
        start = np.random.default_rng(settings.seed).standard_normal(shape, np.float32)
        np.save(Path(folder, "start.npy"), start * np.float32(0.1 / math.sqrt(settings.factors)))
        yield folder


def _objective(folder: str, plays: Any, settings: Training) -> harness.Inspect:
    """Return a function that computes the objective of the factors that a contender has left in the folder."""

    def inspect(contender: str) -> dict[str, float]:
        X, Y = (np.load(Path(folder, f"{contender}.{side}.npy")) for side in "XY")
        value = calculate_loss(plays, X, Y, settings.regularization, settings.alpha)
        if not math.isfinite(value):
            raise RuntimeError("its factors are not finite")
        return {"objective": value}

    return inspect


def _objectives(run: harness.Run) -> list[float]:
    return [at["objective"] for at in run["measured"]]


def _least_bytes(plays: Any, factors: int) -> int:
    """Return the bytes that training needs above its input: the transpose of the input, and float32 factors."""
    return int(plays.nnz * (4 + 4) + (plays.shape[1] + 1) * 8 + sum(plays.shape) * factors * 4)
