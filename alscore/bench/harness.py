"""Contenders in turn, each in a process of its own, and the statistics of their seconds."""

import contextlib
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from alscore._core import kernel_table
from alscore._support.threads import resolve_threads
from alscore.bench import machine
from alscore.bench.benchmarks import OURS, Benchmark, Say

B = TypeVar("B", bound=Benchmark)

Job = dict[str, Any]  # how to start a contender: "command" and "env" of its process, "contender" its name, "package"
Run = dict[str, Any]  # the documents of one process: "package", "version", "python"; "measured", a list of documents
Inspect = Callable[[str], dict[str, Any]]  # called with a contender's name; reads the files that its process has left

_MAX_SPREAD = 1.3  # slowest time divided by the fastest; above it a median says little
_ENOUGH_REPEATS = 6  # from this number on, two equal contenders rarely come out in the same order in every repeat
_BLAS_TUNING_VARIABLES = "OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"


def settings_of(benchmark: type[B], options: dict[str, Any]) -> B:
    """Return a benchmark with these options, and with the number of threads in place of 0.

    Raises
    ------
    TypeError
        The benchmark has no such option.
    ValueError
        A wrong number of threads.
    """
    if "threads" in benchmark.options():
        options = options | {"threads": resolve_threads(options.get("threads", 0))}
    for name in options:
        if name not in (*benchmark.options(), "say"):
            raise TypeError(
                f"{benchmark.name} has no option {name!r}; its options are: {', '.join(benchmark.options())}"
            )
    return benchmark(**options)


def find(
    names: Iterable[str],
    packages: Mapping[str, str],
    script: str,
    python: Mapping[str, str],
    say: Say,
    isa: Iterable[str] = (),
) -> tuple[dict[str, Job], dict[str, str]]:
    """Return how to start each contender, and the reasons why the other contenders cannot be started here.

    Parameters
    ----------
    names : iterable of str
        Names of contenders. A name of ours may end in ``@`` and a kernel set, with which it then runs.
    packages : mapping
        The package that each contender needs.
    script : str
        Name of the file in this folder that runs a contender.
    python : mapping
        Interpreter of the contenders whose names begin with the key. The other contenders run under this interpreter.
    say : function
        Called with a message for each contender that is skipped.
    isa : iterable of str
        Kernel sets. Our contenders run once with each of them.

    Returns
    -------
    jobs : dict
        How to start each contender.
    skipped : dict
        Why a contender cannot be started, by its name.

    Raises
    ------
    ValueError
        A contender or an interpreter does not exist, an interpreter is for none of the contenders, or no contender can
        be started.
    """
    suffixes = [f"@{kernels}" for kernels in isa] or [""]
    names = [name + at for name in dict.fromkeys(names) for at in (suffixes if packages.get(name) == OURS else [""])]
    for prefix, path in python.items():
        if shutil.which(path) is None:
            raise ValueError(f"python for {prefix!r}: there is no interpreter {path!r}; give the path of an executable")
        if not any(name.startswith(prefix) for name in names):
            raise ValueError(f"python for {prefix!r}: no contender's name begins with it; they are: {', '.join(names)}")
    jobs: dict[str, Job] = {}
    skipped: dict[str, str] = {}
    for name in names:
        contender, _, kernels = name.partition("@")
        if contender not in packages or (kernels and packages[contender] != OURS):
            raise ValueError(f"no contender is named {name!r}; there are: {', '.join(packages)}")
        package = packages[contender]
        interpreter = next((path for prefix, path in python.items() if name.startswith(prefix)), sys.executable)
        env = _environment(interpreter, kernels)
        if kernels and kernels not in kernel_table.available():
            available = ", ".join(kernel_table.available())
            skipped[name] = f"this processor cannot run the kernel set {kernels!r}; it can run: {available}"
        elif not _importable(package, interpreter, env):
            skipped[name] = (
                f"{package} is not installed for {interpreter}: pip install {package}, or give an interpreter that has "
                f"it, --python {package}=PATH"
            )
        else:
            command = [interpreter, str(Path(__file__).with_name(script))]
            jobs[name] = {"command": command, "env": env, "contender": contender, "package": package}
    for name, reason in skipped.items():
        say(f"{name}: skipped, {reason}")
    if not jobs:
        raise ValueError("no contender is left to measure")
    return jobs, skipped


def _environment(interpreter: str, isa: str) -> dict[str, str]:
    # The BLAS of each process chooses its own kernels. A choice made for one BLAS must not slow down another one.
    env = {name: value for name, value in os.environ.items() if name not in _BLAS_TUNING_VARIABLES}
    if isa:
        env["ALSCORE_ISA"] = isa
    if interpreter == sys.executable:  # our contenders run the alscore that runs this benchmark, installed or not
        root = str(Path(__file__).parents[2])
        env["PYTHONPATH"] = os.pathsep.join(filter(None, (root, env.get("PYTHONPATH"))))
    return env


def _importable(package: str, interpreter: str, env: dict[str, str]) -> bool:
    code = "import importlib.util, sys; sys.exit(importlib.util.find_spec(sys.argv[1]) is None)"
    return subprocess.run([interpreter, "-c", code, package], env=env, stderr=subprocess.DEVNULL).returncode == 0


def run(job: Job, folder: str, settings: dict[str, Any], times: int, inspect: Inspect | None = None) -> Run:
    """Run one process of a contender, which writes one document for each of `times` measurements.

    Parameters
    ----------
    job : dict
        How to start the contender, from `find`.
    folder : str
        Holds what the contender reads.
    settings : dict
        Passed to the process as ``settings.json``.
    times : int
        Number of measurements.
    inspect : function, optional
        Called after each measurement with the contender's name, while the process waits and its results lie in
        `folder`. The dict that it returns is added to the document.

    Returns
    -------
    dict
        The documents.

    Raises
    ------
    RuntimeError
        The process failed. The message is the last line that the process wrote to stderr.
    """
    passed_on = {"warm_up": False, **settings, "times": times, "keep": inspect is not None}
    Path(folder, "settings.json").write_text(json.dumps(passed_on))
    command = [*job["command"], folder, job["contender"]]
    pipe = subprocess.PIPE
    with (
        tempfile.TemporaryFile() as stderr,
        subprocess.Popen(command, env=job["env"], stdin=pipe, stdout=pipe, stderr=stderr, bufsize=0) as process,
    ):
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            about = json.loads(process.stdout.readline() or "{}")
            measured = []
            for line in process.stdout:
                measured.append(json.loads(line))
                if inspect is not None:
                    measured[-1].update(inspect(job["contender"]))
                    with contextlib.suppress(BrokenPipeError):  # the process died; its exit code and stderr say more
                        process.stdin.write(b"\n")
        except BaseException as error:
            process.kill()
            if isinstance(error, (ValueError, OSError)):
                raise RuntimeError(f"{type(error).__name__}: {error}") from error
            raise
        process.wait()
        stderr.seek(0)
        complaints = stderr.read().decode(errors="replace").split("\n")
    if process.returncode:
        last = next((line.strip() for line in reversed(complaints) if line.strip()), "")
        raise RuntimeError(last or f"ended with exit code {process.returncode}")
    if len(measured) != times:
        raise RuntimeError(f"gave {len(measured)} of {times} measurements")
    return {**about, "measured": measured}


def alternate(
    names: Iterable[str], repeats: int, run: Callable[[str], Run], say: Say
) -> tuple[dict[str, list[Run]], dict[str, str]]:
    """Run every contender as ``run(name)``, then all of them in reverse order, and so on, `repeats` times.

    Returns
    -------
    runs : dict
        For each contender one run for each repeat.
    failed : dict
        For each other contender the reason. A contender that fails once is not run again.
    """
    runs: dict[str, list[Run]] = {name: [] for name in names}
    failed: dict[str, str] = {}
    for repeat in range(repeats):
        for name in list(runs)[:: -1 if repeat % 2 else 1]:  # no contender always follows the same other one
            try:
                runs[name].append(run(name))
            except RuntimeError as error:
                failed[name] = str(error)
                del runs[name]
                say(f"{name}: failed: {error}")
            else:
                seconds = ", ".join(f"{document['seconds']:.3f}" for document in runs[name][-1]["measured"])
                say(f"{name}: {seconds} s ({repeat + 1} of {repeats})")
    return runs, failed


def inspect_and_time(
    jobs: Mapping[str, Job],
    folder: str,
    settings: dict[str, Any],
    times: tuple[int, int],
    inspect: Inspect,
    say: Say,
    warm_up: bool = False,
) -> tuple[dict[str, list[Run]], dict[str, Run], dict[str, str]]:
    """Run each contender once to inspect its results, then ``settings["repeats"]`` times for its seconds.

    Parameters
    ----------
    times : tuple of int
        Number of measurements of a process that is inspected, and of a process that is timed.
    inspect : function
        As for `run`.
    warm_up : bool
        Whether a timed process first makes a measurement that it does not report.

    Returns
    -------
    runs : dict
        For each contender the timed runs.
    inspected : dict
        For each contender the run that was inspected.
    failed : dict
        As from `alternate`.
    """
    inspected, failed = alternate(jobs, 1, lambda name: run(jobs[name], folder, settings, times[0], inspect), say)
    timed = settings | {"warm_up": warm_up}
    runs, failed_later = alternate(
        inspected, settings["repeats"], lambda name: run(jobs[name], folder, timed, times[1]), say
    )
    return runs, {name: inspected[name][0] for name in runs}, failed | failed_later


def compare(seconds: Mapping[str, list[list[float]]], baseline: str) -> dict[str, dict[str, Any]]:
    """Compute statistics of each contender's seconds, given as one list for each repeat.

    Returns
    -------
    dict
        For each contender "median", "min" and "max" of all its seconds, and "spread", max divided by min. If the
        baseline was measured, also "ratio", "ratio_low" and "ratio_high": the median, minimum and maximum over the
        repeats of the contender's median in a repeat divided by the baseline's median in the same repeat.
    """
    medians = {name: [statistics.median(repeat) for repeat in repeats] for name, repeats in seconds.items()}
    rows = {}
    for name, repeats in seconds.items():
        every = [value for repeat in repeats for value in repeat]
        rows[name] = {
            "median": statistics.median(every),
            "min": min(every),
            "max": max(every),
            "spread": max(every) / min(every),
        }
        if baseline in seconds:
            ratios = [own / base for own, base in zip(medians[name], medians[baseline], strict=True)]
            rows[name] |= {
                "ratio": statistics.median(ratios),
                "ratio_low": min(ratios),
                "ratio_high": max(ratios),
            }
    return rows


def noise(rows: Mapping[str, dict[str, Any]], baseline: str, repeats: int, where: str = "") -> list[str]:
    """Return messages about the conclusions that the rows of `compare` do not allow."""
    if repeats == 1:
        return ["one repeat allows no conclusion about the spread: ask for more repeats"]
    messages = [
        f"{where}too noisy to tell {name} from {baseline}: "
        f"the ratio was {row['ratio_low']:.2f} to {row['ratio_high']:.2f}"
        for name, row in rows.items()
        if name != baseline and "ratio" in row and row["ratio_low"] <= 1 <= row["ratio_high"]
    ]
    messages += [
        f"{where}too noisy to rely on {name}: its slowest time was {row['spread']:.2f} times its fastest"
        for name, row in rows.items()
        if row["spread"] > _MAX_SPREAD
    ]
    if repeats < _ENOUGH_REPEATS and len(rows) > 1:
        messages.append(
            f"only {repeats} repeats: in 1 of {2 ** (repeats - 1)} such runs, one of two equal contenders is faster in "
            f"every repeat"
        )
    return messages


def chosen_baseline(baseline: str | None, jobs: Mapping[str, Job]) -> str:
    """Return `baseline`. If None, return our first contender, or the first of all if none is ours.

    Raises
    ------
    ValueError
        The baseline is not among the contenders.
    """
    if baseline is None:
        return next((name for name, job in jobs.items() if job["package"] == OURS), next(iter(jobs)))
    if baseline not in jobs:
        raise ValueError(f"baseline {baseline!r} is not among the contenders: {', '.join(jobs)}")
    return baseline


def compare_warm(runs: Mapping[str, list[Run]], baseline: str) -> dict[str, dict[str, Any]]:
    """Return the statistics of `compare` without the first measurement of each process, which warms it up.

    Each row also has "first", the median seconds of those first measurements, and "peak_bytes", the maximum of all
    measurements, or None where unknown.
    """
    seconds = {name: [[at["seconds"] for at in run["measured"][1:]] for run in each] for name, each in runs.items()}
    rows = compare(seconds, baseline)
    for name, row in rows.items():
        peaks = [at["peak_bytes"] for run in runs[name] for at in run["measured"]]
        row["peak_bytes"] = None if None in peaks else max(peaks)
        row["first"] = statistics.median(run["measured"][0]["seconds"] for run in runs[name])
    return rows


def shape(plays: Any) -> dict[str, int]:
    """Return the numbers of users, items and entries of a matrix."""
    return {"users": plays.shape[0], "items": plays.shape[1], "entries": int(plays.nnz)}


def outcome(
    settings: dict[str, Any], runs: Mapping[str, list[Run]], failed: dict[str, str], skipped: dict[str, str]
) -> dict[str, Any]:
    """Return what the outcomes of all benchmarks have in common: the conditions, and every measurement."""
    this = platform.python_version()
    versions = {}
    for first, *_ in runs.values():
        other_python = "" if first["python"] == this else f" (Python {first['python']})"
        versions[first["package"]] = first["version"] + other_python
    return {
        "settings": settings,
        "machine": machine.describe(),
        "not_passed_on": {name: os.environ[name] for name in _BLAS_TUNING_VARIABLES if name in os.environ},
        "versions": versions,
        "runs": runs,
        "failed": failed,
        "skipped": skipped,
    }
