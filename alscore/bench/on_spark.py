"""Training and recommending on Apache Spark: ours and MLlib's in one session, on the same plays."""

import contextlib
import importlib.metadata
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from alscore._support.arrays import Floats
from alscore._support.threads import resolve_threads
from alscore._support.version import __version__
from alscore.bench import harness
from alscore.solvers.loss import calculate_loss

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

CONTENDERS = {"alscore-cholesky": "alscore", "alscore-cg": "alscore", "alscore-auto": "alscore", "mllib": "pyspark"}
_COLUMNS = {"userCol": "user", "itemCol": "item", "ratingCol": "plays"}
_HALF_SWEEP = {"alscore": "runJob at ", "pyspark": "aggregate at ALS.scala"}  # how the name of its job begins
_JAVA = 17
_SAMPLED = 0.05  # seconds between two looks at the memory of Spark's Python workers


def spark(
    plays: Any,
    contenders: Sequence[str],
    *,
    factors: int = 64,
    threads: int = 0,
    blocks: int = 0,
    iterations: int = 2,
    repeats: int = 3,
    regularization: float = 0.1,
    alpha: float = 1.0,
    seed: int = 0,
    top: int = 10,
    users: int | None = None,
    memory: str = "8g",
    baseline: str | None = None,
    say: harness.Say = lambda message: None,
) -> dict[str, Any]:
    """Time iterations and recommendations of several contenders in one Spark session, in turn, `repeats` times over.

    Both minimise the same objective: the regularization of a row is multiplied by the number of its entries, as in
    `pyspark.ml.recommendation.ALS` with implicitPrefs. An iteration lasts from the end of one job to the end of the job
    after the next, as Spark itself tells it; the first of a fit does not count. Before anything counts, each contender
    trains and recommends once, to warm up Java's compiler and the Python workers.

    MLlib takes a third to a half of the time where Java finds a native BLAS, such as Debian's libopenblas0-pthread,
    that runs on one thread (OPENBLAS_NUM_THREADS=1): "native_blas" in the settings tells.

    Parameters
    ----------
    plays : sparse matrix, shape (n_users, n_items), or int
        An int: about so many interactions, made by Spark itself (`made_plays`); MLlib, whose ids have 32 bits, is left
        out then, and there is no objective.
    contenders : sequence of str
        Keys of `CONTENDERS`.
    factors, regularization, alpha, seed
        For every contender, in MLlib's terms.
    threads : int
        Spark's in ``local[threads]``, where this starts the session; 0 for all CPUs of this process.
    blocks : int
        Of users, and of items; 0 for one to a thread.
    iterations, repeats : int
    top : int
        Recommendations for each user; 0 to time none.
    users : int, optional
        Recommend to so many of them. Default: to all.
    memory : str
        The most of Java's heap, where this starts the session.
    baseline : str, optional
        The contender that ratios are taken to. Default: the first of ours.
    say : function
        Is told what happens.

    Returns
    -------
    dict
        As from `alscore.bench.sweep`; the statistics are of seconds an iteration. "expected_shuffle_bytes" are those
        of the factors that blocks need of each other in an iteration. Besides, each result has "setup", seconds of a
        fit beyond its iterations, with the factors read once; "shuffle_bytes", written to the shuffle in an iteration;
        "jvm_bytes", the peak of Java's heap, garbage included, and "python_bytes", of the resident memory of the Python
        workers at work, together, both during a fit; the float64 "objective" after 1 + iterations; and "top_seconds"
        and "top_ratio", of recommending.

    Raises
    ------
    ImportError
        pyspark is not installed.
    RuntimeError
        There is no Java, or an old one.
    ValueError
        No such contender or baseline.
    """
    unknown = [name for name in contenders if name not in CONTENDERS]
    if unknown:
        raise ValueError(f"no contender is named {unknown[0]!r}; there are: {', '.join(CONTENDERS)}")
    threads = resolve_threads(threads)
    settings: dict[str, Any] = {
        "bench": "spark", "factors": factors, "threads": threads, "blocks": blocks or threads,
        "iterations": iterations, "repeats": repeats, "regularization": regularization, "alpha": alpha, "seed": seed,
        "top": top, "users": users, "memory": memory,
    }  # fmt: skip
    skipped = {"mllib": "its ids have 32 bits"} if isinstance(plays, int) and "mllib" in contenders else {}
    jobs = {name: {"package": CONTENDERS[name]} for name in contenders if name not in skipped}
    settings["baseline"] = baseline = harness.chosen_baseline(baseline, jobs)
    with session(threads, memory) as started, _table(plays, started) as table:
        settings["native_blas"] = _native_blas(started)
        trial = _Trial(started, plays, table, settings)
        warm, failed = harness.alternate(jobs, 1, trial.warm_up, say)
        runs, later = harness.alternate(warm, repeats, trial.time, say)
        data, sent = _shape(table), 4 * factors * _rows_sent(table, settings["blocks"])
    compared = _compared(runs, baseline)
    return harness.answer(settings, runs, failed | later, skipped) | {
        "data": data,
        "expected_shuffle_bytes": sent,
        "results": [{"contender": name} | row for name, row in compared.items()],
        "noise": harness.noise(compared, baseline, repeats),
    }


def _compared(runs: dict[str, list[harness.Run]], baseline: str) -> dict[str, dict[str, Any]]:
    iterations = {name: [[one["seconds"] for one in run["measured"]] for run in mine] for name, mine in runs.items()}
    rows = harness.compare(iterations, baseline)
    for name, row in rows.items():
        row |= {key: statistics.median(run[key] for run in runs[name]) for key in ("setup", "shuffle_bytes")}
        row |= {key: max(run[key] for run in runs[name]) for key in ("jvm_bytes", "python_bytes")}
        row["objective"] = runs[name][0]["objective"]
    top = {name: [[run["top_seconds"]] for run in mine if run["top_seconds"]] for name, mine in runs.items()}
    for name, row in harness.compare({name: seconds for name, seconds in top.items() if seconds}, baseline).items():
        rows[name] |= {"top_seconds": row["median"], "top_ratio": row.get("ratio")}
    return rows


def require_java() -> None:
    """Verify that the Java that Spark would run on is there and new enough.

    Raises
    ------
    RuntimeError
        With what to do.
    """
    home = os.environ.get("JAVA_HOME")
    java = shutil.which("java", path=str(Path(home, "bin")) if home else None)
    said = subprocess.run([java, "-version"], capture_output=True, text=True, check=False).stderr if java else ""
    version = re.search(r'version "(?:1\.)?(\d+)', said)
    if not version or int(version[1]) < _JAVA:
        raise RuntimeError(
            f"Spark needs Java {_JAVA} or later, and "
            + (f"{java} is Java {version[1]}" if version else "there is none")
            + f": install one (Debian, Ubuntu: apt-get install openjdk-{_JAVA}-jre-headless), or let JAVA_HOME name it"
        )


def _native_blas(started: "SparkSession") -> bool:
    """Whether MLlib has another BLAS than Java's."""
    from py4j.protocol import Py4JJavaError

    jvm: Any = started._jvm
    try:
        jvm.dev.ludovic.netlib.blas.NativeBLAS.getInstance()
    except Py4JJavaError:
        return False
    return True


@contextlib.contextmanager
def session(threads: int, memory: str) -> "Iterator[SparkSession]":
    """The active Spark session, or one of this process for as long as this lasts."""
    try:
        from pyspark.sql import SparkSession
    except ImportError as error:
        raise ImportError("Spark is not installed: pip install 'alscore[spark]'") from error
    active = SparkSession.getActiveSession()
    if active is not None:
        yield active
        return
    require_java()
    options: dict[str, bool | float | int | str | None] = {
        "spark.driver.memory": memory,
        "spark.driver.host": "localhost",
        "spark.pyspark.python": sys.executable,
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.log.level": "ERROR",
        "spark.sql.shuffle.partitions": str(4 * threads),  # 200 by default, each a task to start
    }
    started = SparkSession.builder.master(f"local[{threads}]").config(map=options).getOrCreate()
    try:
        yield started
    finally:
        started.stop()


def made_plays(started: "SparkSession", interactions: int, seed: int = 0) -> "DataFrame":
    """About so many plays, in the proportions of Last.fm 360K and made where they are: none goes through the driver.

    49 draws a user on average, from a Zipf-Mandelbrot law whose most popular item has a fifth of the users; a pair that
    is drawn twice stays once. The ids are spread over 64 bits.

    Returns
    -------
    DataFrame
        "user" and "item" (bigint), "plays" (float); the same for the same seed, whatever the partitions.
    """
    from pyspark.sql import functions

    n_users, n_items = max(1, interactions // 49), max(1, interactions // 60)
    offset, exponent = 135, 0.55

    def uniform(purpose: str) -> Any:
        bits = functions.xxhash64(functions.lit(f"{purpose} {seed}"), "person", "draw")
        return bits.bitwiseAND(functions.lit(2**52 - 1)) / 2.0**52

    draws = 30 + functions.pmod(functions.xxhash64(functions.lit(seed), "id"), functions.lit(39))
    share = 1 - ((n_items + offset) / offset) ** -exponent
    rank = functions.floor(offset * (functions.pow(1 - uniform("item") * share, -1 / exponent) - 1)).cast("long")
    loudness = functions.sqrt(-2 * functions.log(1 - uniform("radius"))) * functions.cos(2 * np.pi * uniform("angle"))
    drawn = started.range(n_users).select(
        functions.col("id").alias("person"),
        functions.explode(functions.sequence(functions.lit(1), draws)).alias("draw"),
    )
    plays = drawn.select(
        functions.xxhash64(functions.lit("user"), "person").alias("user"),
        functions.xxhash64(functions.lit("item"), rank).alias("item"),
        functions.ceil(functions.exp(4.54 + 1.2 * loudness)).cast("float").alias("plays"),
    )
    return plays.groupBy("user", "item").agg(functions.max("plays").alias("plays"))


@contextlib.contextmanager
def _table(plays: Any, started: "SparkSession") -> "Iterator[DataFrame]":
    """The plays as a table in Spark's memory."""
    with tempfile.TemporaryDirectory() as folder:
        if isinstance(plays, int):
            table = made_plays(started, plays)
        else:
            path = Path(folder, "plays.parquet")
            _write(plays, path)
            table = started.read.parquet(str(path)).repartition(started.sparkContext.defaultParallelism)
        table = table.cache()
        table.count()
        yield table
        table.unpersist(blocking=True)


def _write(plays: Any, path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    users = np.repeat(np.arange(plays.shape[0], dtype=np.int32), np.diff(plays.indptr))
    arrays = users, plays.indices.astype(np.int32, copy=False), plays.data.astype(np.float32, copy=False)
    pq.write_table(pa.table(dict(zip(_COLUMNS.values(), arrays, strict=True))), path)


def _shape(table: "DataFrame") -> dict[str, int]:
    from pyspark.sql import functions

    counts = table.agg(functions.count_distinct("user"), functions.count_distinct("item"), functions.count("*"))
    return dict(zip(("users", "items", "entries"), counts.collect()[0], strict=True))


def _rows_sent(table: "DataFrame", blocks: int) -> float:
    """Factors that travel in an iteration, where blocks get those they need: of an item with n users to ``blocks (1 -
    (1 - 1 / blocks)^n)`` blocks of users on average, and so of users.
    """
    from pyspark.sql import functions

    needed = functions.lit(blocks) * (1 - functions.pow(functions.lit(1 - 1 / blocks), "count"))
    sums = (table.groupBy(side).count().agg(functions.sum(needed)).collect()[0][0] for side in ("user", "item"))
    return float(sum(sums))


class _Trial:
    """Fits and recommendations of any contender on one table."""

    def __init__(self, started: "SparkSession", plays: Any, table: "DataFrame", settings: dict[str, Any]) -> None:
        self.started, self.plays, self.table, self.settings = started, plays, table, settings
        self.asked = table.select("user").distinct()
        if settings["users"]:
            self.asked = self.asked.orderBy("user").limit(settings["users"])
        self.asked = self.asked.cache()
        self.asked.count()
        self.kept = self._cached()

    def warm_up(self, name: str) -> harness.Run:
        """A fit and recommendations that do not count."""
        with self._run(name) as run:
            began = time.perf_counter()
            self._recommend(self._fit(name, 1))
            run["measured"] = [{"seconds": time.perf_counter() - began}]
        return run

    def time(self, name: str) -> harness.Run:
        """The iterations of a fit, and recommendations from it."""
        with self._run(name) as run:
            before, began = self._jobs(), time.perf_counter()
            with _peaks(self.started) as peaks:
                model = self._fit(name, 1 + self.settings["iterations"])
            seconds = time.perf_counter() - began
            iterations, run["shuffle_bytes"] = self._iterations(run["package"], self._jobs()[len(before) :])
            run["measured"] = [{"seconds": each} for each in iterations]
            run["setup"] = seconds - (1 + len(iterations)) * statistics.median(iterations)
            run |= peaks
            run["top_seconds"] = self._recommend(model)
            run["objective"] = self._objective(model)
        return run

    @contextlib.contextmanager
    def _run(self, name: str) -> Iterator[harness.Run]:
        from py4j.protocol import Py4JError
        from pyspark.errors import PySparkException

        package = CONTENDERS[name]
        version = __version__ if package == harness.OURS else importlib.metadata.version(package)
        try:
            yield {"package": package, "version": version, "python": platform.python_version()}
        except (Py4JError, PySparkException) as error:
            raise RuntimeError(f"{type(error).__name__}: {str(error).strip().splitlines()[0]}") from error
        finally:
            self._forget()

    def _fit(self, name: str, iterations: int) -> Any:
        model = _estimator(name, self.settings).setMaxIter(iterations).fit(self.table)
        for factors in (model.userFactors, model.itemFactors):
            factors.write.format("noop").mode("overwrite").save()
        return model

    def _recommend(self, model: Any) -> float | None:
        n, began = self.settings["top"], time.perf_counter()
        if not n:
            return None
        some = self.settings["users"]
        best = model.recommendForUserSubset(self.asked, n) if some else model.recommendForAllUsers(n)
        best.write.format("noop").mode("overwrite").save()
        return time.perf_counter() - began

    def _objective(self, model: Any) -> float | None:
        if isinstance(self.plays, int):
            return None
        plays = self.plays
        X, Y = (_dense(frame, n) for frame, n in zip((model.userFactors, model.itemFactors), plays.shape, strict=True))
        return calculate_loss(
            plays, X, Y, self.settings["regularization"], self.settings["alpha"], regularization_exponent=1,
            regularization_count="entries",
        )  # fmt: skip

    @property
    def _store(self) -> Any:
        """Spark's own account of what it has run, complete."""
        context = self.started.sparkContext._jsc.sc()
        context.listenerBus().waitUntilEmpty()
        return context.statusStore()

    def _jobs(self) -> list[Any]:
        """All jobs of the session, in order."""
        jobs = self._store.jobsList(None)
        return sorted((jobs.apply(at) for at in range(jobs.size())), key=lambda job: job.jobId())

    def _iterations(self, package: str, jobs: list[Any]) -> tuple[list[float], float]:
        """Seconds of the iterations of a fit with these jobs, after the first; bytes that one writes to the shuffle."""
        name, wanted = _HALF_SWEEP[package], 1 + 2 * self.settings["iterations"]
        timed = [job for job in jobs if job.name().startswith(name)][-wanted:]
        if len(timed) < wanted:
            raise RuntimeError(
                f"fewer than {wanted} jobs are named {name!r}: iterations cannot be told from each other"
            )
        ends = [job.completionTime().get().getTime() / 1000 for job in timed]
        first, last = timed[0].jobId(), timed[-1].jobId()
        within = [job.stageIds() for job in jobs if first < job.jobId() <= last]
        stages = {ids.apply(at) for ids in within for at in range(ids.size())}
        written = sum(self._store.lastStageAttempt(stage).shuffleWriteBytes() for stage in stages)
        return [end - begin for begin, end in zip(ends[:-2:2], ends[2::2], strict=True)], written / self.settings[
            "iterations"
        ]

    def _cached(self) -> dict[int, Any]:
        return dict(self.started.sparkContext._jsc.getPersistentRDDs())

    def _forget(self) -> None:
        """Free what a fit has cached."""
        for number, cached in self._cached().items():
            if number not in self.kept:
                cached.unpersist(True)


def _estimator(name: str, settings: dict[str, Any]) -> Any:
    from pyspark.ml import recommendation

    from alscore.spark import ALS

    options: dict[str, Any] = _COLUMNS | {
        "rank": settings["factors"], "regParam": settings["regularization"], "alpha": settings["alpha"],
        "implicitPrefs": True, "seed": settings["seed"],
        "numUserBlocks": settings["blocks"], "numItemBlocks": settings["blocks"],
    }  # fmt: skip
    if name == "mllib":
        return recommendation.ALS(**options)
    return ALS(**options, solver=name.removeprefix("alscore-"))


def _dense(frame: "DataFrame", n: int) -> Floats:
    """Factors in rows by id, which are codes; 0 for ids that are not there."""
    found = frame.toArrow()
    factors = found["features"].combine_chunks().flatten().to_numpy().reshape(len(found), -1)
    dense = np.zeros((n, factors.shape[1]), np.float32)
    dense[found["id"].to_numpy()] = factors
    return dense


@contextlib.contextmanager
def _peaks(started: "SparkSession") -> Iterator[dict[str, int]]:
    """Peaks of memory while the block runs: of Java's heap, and of the Python workers that Java has started."""
    java: Any = started.sparkContext._jvm
    java = java.java.lang
    java.System.gc()
    pools = [
        pool for pool in java.management.ManagementFactory.getMemoryPoolMXBeans() if pool.getType().name() == "HEAP"
    ]
    for pool in pools:
        pool.resetPeakUsage()
    over, peaks = threading.Event(), {"jvm_bytes": 0, "python_bytes": 0}
    root = java.ProcessHandle.current().pid()
    idle = _below(root)

    def sample() -> None:
        while not over.wait(_SAMPLED):
            busy = [resident for process, (used, resident) in _below(root).items() if used > idle.get(process, (0,))[0]]
            peaks["python_bytes"] = max(peaks["python_bytes"], sum(busy))

    sampling = threading.Thread(target=sample, daemon=True)
    sampling.start()
    try:
        yield peaks
    finally:
        over.set()
        sampling.join()
        peaks["jvm_bytes"] = sum(pool.getPeakUsage().getUsed() for pool in pools)


def _below(root: int) -> dict[int, tuple[int, int]]:
    """(processor time in ticks, resident bytes) of every process that descends from one."""
    found = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has ended
            fields = [int(field) for field in stat.read_text().rpartition(")")[2].split()[1:]]
            found[int(stat.parent.name)] = fields[0], (fields[10] + fields[11], fields[20] * os.sysconf("SC_PAGESIZE"))
    below = {root}
    for _ in range(3):  # Java starts a daemon, which starts workers
        below |= {process for process, (parent, _) in found.items() if parent in below}
    return {process: used for process, (_, used) in found.items() if process in below - {root}}
