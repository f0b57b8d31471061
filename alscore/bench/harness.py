"""Contenders in turn, each in a process of its own, and what their times allow to conclude."""

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
from typing import Any

from alscore._core import kernel_table
from alscore.bench import machine

Say = Callable[[str], Any]
Job = dict[str, Any]  # what starts a contender: "command" and "env" of its process, its name there, its "package"
Run = dict[str, Any]  # what one process said: "package", "version", "python", and "measured", a dict for each time

OURS = "alscore"  # the package
_TOO_WIDE = 1.3  # slowest time over the fastest, from which on a median says little
_ENOUGH = 6  # repeats, of which equal contenders rarely come out in one order only
_TUNED = "OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"


def find(
    names: Iterable[str],
    packages: Mapping[str, str],
    script: str,
    python: Mapping[str, str],
    say: Say,
    isa: Iterable[str] = (),
) -> tuple[dict[str, Job], dict[str, str]]:
    """How to start each contender, and why those cannot be started that are not here.

    Parameters
    ----------
    names : iterable of str
        One of ours may end in ``@`` and the kernel set that it is to use.
    packages : mapping
        What each contender needs to be importable.
    script : str
        The file beside this one that runs a contender.
    python : mapping
        Interpreter of the contenders whose names start with the key; the others run under this one.
    say : function
        Is told what is skipped.
    isa : iterable of str
        Kernel sets, with each of which ours run.

    Raises
    ------
    ValueError
        There is no such contender or interpreter, or an interpreter is for none of the contenders.
    """
    sets = [f"@{one}" for one in isa] or [""]
    names = [name + at for name in dict.fromkeys(names) for at in (sets if packages.get(name) == OURS else [""])]
    for prefix, path in python.items():
        if shutil.which(path) is None:
            raise ValueError(f"python for {prefix!r}: there is no interpreter {path!r}; give the path of an executable")
        if not any(name.startswith(prefix) for name in names):
            raise ValueError(f"python for {prefix!r}: no contender's name starts so; they are: {', '.join(names)}")
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
            there = ", ".join(kernel_table.available())
            skipped[name] = f"this processor cannot run the kernel set {kernels!r}, but {there}"
        elif not _importable(package, interpreter, env):
            skipped[name] = (
                f"{package} is not installed for {interpreter}: pip install {package}, or give an interpreter that has "
                f"it, --python {package}=PATH"
            )
        else:
            command = [interpreter, str(Path(__file__).with_name(script))]
            jobs[name] = {"command": command, "env": env, "contender": contender, "package": package}
    for name, why in skipped.items():
        say(f"{name}: skipped, {why}")
    if not jobs:
        raise ValueError("no contender is left to measure")
    return jobs, skipped


def _environment(interpreter: str, isa: str) -> dict[str, str]:
    # The BLAS of each process chooses its own kernels: a choice made for one BLAS must not slow down another's.
    env = {name: value for name, value in os.environ.items() if name not in _TUNED}
    if isa:
        env["ALSCORE_ISA"] = isa
    if interpreter == sys.executable:  # ours is the alscore that runs this benchmark, installed or not
        here = str(Path(__file__).parents[2])
        env["PYTHONPATH"] = os.pathsep.join(filter(None, (here, env.get("PYTHONPATH"))))
    return env


def _importable(package: str, interpreter: str, env: dict[str, str]) -> bool:
    code = "import importlib.util, sys; sys.exit(importlib.util.find_spec(sys.argv[1]) is None)"
    return subprocess.run([interpreter, "-c", code, package], env=env, stderr=subprocess.DEVNULL).returncode == 0


def run(
    job: Job, folder: str, settings: dict[str, Any], times: int, look: Callable[[str], dict[str, Any]] | None = None
) -> Run:
    """Run one process of a contender, which is to say one document for each of `times`.

    `look` is called after each with the contender's name, while the process stands still and its results lie in
    `folder`; what it returns joins the document.

    Raises
    ------
    RuntimeError
        The process failed; the message is the last line that it wrote to stderr.
    """
    wanted = {"warm_up": False, **settings, "times": times, "keep": look is not None}
    Path(folder, "settings.json").write_text(json.dumps(wanted))
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
                if look is not None:
                    measured[-1].update(look(job["contender"]))
                    with contextlib.suppress(BrokenPipeError):  # it died, and its exit code and stderr say more
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
    """Run all contenders as ``run(name)``, then all again in reverse, and so on, `repeats` times over.

    Returns
    -------
    runs : dict
        For each contender one run for each repeat.
    failed : dict
        Why a contender is not among them: who fails once is out.
    """
    runs: dict[str, list[Run]] = {name: [] for name in names}
    failed: dict[str, str] = {}
    for repeat in range(repeats):
        for name in list(runs)[:: -1 if repeat % 2 else 1]:  # so that none always follows the same other
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


def look_and_time(
    jobs: Mapping[str, Job],
    folder: str,
    settings: dict[str, Any],
    times: tuple[int, int],
    look: Callable[[str], dict[str, Any]],
    say: Say,
    warm_up: bool = False,
) -> tuple[dict[str, list[Run]], dict[str, Run], dict[str, str]]:
    """Run each contender once to look at its results, then ``settings["repeats"]`` times for its seconds alone.

    Parameters
    ----------
    times : tuple of int
        Of each process that is looked at, and of each that is timed.
    look
        As for `run`.
    warm_up : bool
        Whether the processes that are timed throw away a first time of their own accord.

    Returns
    -------
    runs : dict
        For each contender the timed runs.
    looked : dict
        For each contender the run that was looked at.
    failed : dict
        As from `alternate`.
    """
    looked, failed = alternate(jobs, 1, lambda name: run(jobs[name], folder, settings, times[0], look), say)
    timed = settings | {"warm_up": warm_up}
    runs, later = alternate(
        looked, settings["repeats"], lambda name: run(jobs[name], folder, timed, times[1]), say
    )  # fmt: skip
    return runs, {name: looked[name][0] for name in runs}, failed | later


def compare(seconds: Mapping[str, list[list[float]]], baseline: str) -> dict[str, dict[str, Any]]:
    """Statistics of each contender's seconds, of which there is one list for each repeat.

    Returns
    -------
    dict
        For each contender "median", "min" and "max" of all its seconds; "spread", max over min; and where the baseline
        was measured "ratio", "ratio_low" and "ratio_high": median, least and most, over the repeats, of the
        contender's median in a repeat over the baseline's in the same.
    """
    middles = {name: [statistics.median(repeat) for repeat in repeats] for name, repeats in seconds.items()}
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
            ratios = [mine / its for mine, its in zip(middles[name], middles[baseline], strict=True)]
            rows[name] |= {
                "ratio": statistics.median(ratios),
                "ratio_low": min(ratios),
                "ratio_high": max(ratios),
            }
    return rows


def noise(rows: Mapping[str, dict[str, Any]], baseline: str, repeats: int, where: str = "") -> list[str]:
    """What the rows of `compare` do not allow to conclude, in plain words."""
    if repeats == 1:
        return ["one repeat allows no conclusion about the spread: ask for more"]
    found = [
        f"{where}too noisy to tell {name} from {baseline}: "
        f"the ratio was {row['ratio_low']:.2f} to {row['ratio_high']:.2f}"
        for name, row in rows.items()
        if name != baseline and "ratio" in row and row["ratio_low"] <= 1 <= row["ratio_high"]
    ]
    found += [
        f"{where}too noisy to rely on {name}: its slowest time was {row['spread']:.2f} times its fastest"
        for name, row in rows.items()
        if row["spread"] > _TOO_WIDE
    ]
    if repeats < _ENOUGH and len(rows) > 1:
        found.append(
            f"{repeats} repeats: of two equal contenders one would always look faster in 1 of {2 ** (repeats - 1)} "
            f"such runs"
        )
    return found


def chosen_baseline(baseline: str | None, jobs: Mapping[str, Job]) -> str:
    """`baseline`, or the first contender of ours, or the first at all.

    Raises
    ------
    ValueError
        It is not among the contenders.
    """
    if baseline is None:
        return next((name for name, job in jobs.items() if job["package"] == OURS), next(iter(jobs)))
    if baseline not in jobs:
        raise ValueError(f"baseline {baseline!r} is not among the contenders: {', '.join(jobs)}")
    return baseline


def compare_warm(runs: Mapping[str, list[Run]], baseline: str) -> dict[str, dict[str, Any]]:
    """`compare` without the first time in each process, the warm-up.

    Besides, "first" is the median of those, and "peak_bytes" the most of all, if known.
    """
    seconds = {name: [[at["seconds"] for at in run["measured"][1:]] for run in mine] for name, mine in runs.items()}
    rows = compare(seconds, baseline)
    for name, row in rows.items():
        peaks = [at["peak_bytes"] for run in runs[name] for at in run["measured"]]
        row["peak_bytes"] = None if None in peaks else max(peaks)
        row["first"] = statistics.median(run["measured"][0]["seconds"] for run in runs[name])
    return rows


def shape(plays: Any) -> dict[str, int]:
    """How large a matrix of plays is."""
    return {"users": plays.shape[0], "items": plays.shape[1], "entries": int(plays.nnz)}


def answer(
    settings: dict[str, Any], runs: Mapping[str, list[Run]], failed: dict[str, str], skipped: dict[str, str]
) -> dict[str, Any]:
    """What every benchmark tells: the conditions of the measurement, and all that was measured."""
    this = platform.python_version()
    versions = {}
    for first, *_ in runs.values():
        elsewhere = "" if first["python"] == this else f" (Python {first['python']})"
        versions[first["package"]] = first["version"] + elsewhere
    return {
        "settings": settings,
        "machine": machine.describe(),
        "not_passed_on": {name: os.environ[name] for name in _TUNED if name in os.environ},
        "versions": versions,
        "runs": runs,
        "failed": failed,
        "skipped": skipped,
    }
