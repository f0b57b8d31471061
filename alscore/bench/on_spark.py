"""Training and recommending on Apache Spark: ours and MLlib's in one session, on the same plays."""

import contextlib
import dataclasses
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
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from alscore._support.arrays import Floats
from alscore._support.version import __version__
from alscore.bench import harness
from alscore.bench.benchmarks import OURS, Spark
from alscore.solvers.loss import calculate_loss

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

CONTENDERS = {"alscore-cholesky": OURS, "alscore-cg": OURS, "alscore-auto": OURS, "mllib": "pyspark"}
_COLUMNS = {"userCol": "user", "itemCol": "item", "ratingCol": "plays"}
_HALF_SWEEP_JOBS = {OURS: "runJob at ", "pyspark": "aggregate at ALS.scala"}  # how the names of these Spark jobs begin
_JAVA_VERSION = 17  # the oldest that Spark 4 runs on
_SAMPLING_SECONDS = 0.05  # between two readings of the memory of Spark's Python workers

InspectFactors = Callable[[str, Floats, Floats], Any]


def spark(
    plays: Any,
    contenders: Sequence[str] = Spark.contenders(),
    *,
    inspect: InspectFactors = lambda contender, X, Y: None,
    **options: Any,
) -> dict[str, Any]:
    """Time iterations and recommendations of several contenders in one Spark session, in turn, `repeats` times.

    All contenders minimise the same objective, that of `pyspark.ml.recommendation.ALS` with implicitPrefs: the
    regularization of a row is multiplied by the number of its entries.

    Each half-sweep is a job of Spark. An iteration lasts from the end of one such job to the end of the job after the
    next, by Spark's own clock. The first iteration of a fit does not count. Before the measurement each contender
    trains and recommends once, to warm up Java's compiler and the Python workers.

    MLlib takes a third to a half of the time where Java finds a native BLAS, such as Debian's libopenblas0-pthread,
    that runs on one thread (OPENBLAS_NUM_THREADS=1). "native_blas" in the settings says whether it did.

    Parameters
    ----------
    plays : sparse matrix, shape (n_users, n_items), or int
        An int is the approximate number of interactions that Spark itself makes (`made_plays`). MLlib is then left out,
        because its ids have 32 bits, and there is no objective.
    contenders : sequence of str
        Keys of `CONTENDERS`.
    inspect : function
        Called with the contender's name and its user and item factors after each timed fit on a matrix.
    **options
        Fields of `alscore.bench.benchmarks.Spark`. `factors`, `regularization`, `alpha` and `seed` hold for every
        contender, in MLlib's terms. `threads` and `memory` have an effect only if this function starts the session. The
        sample of `users` holds for recommending.

    Returns
    -------
    dict
        As from `alscore.bench.sweep`; the statistics are of the seconds of an iteration. "expected_shuffle_bytes" is
        the size of the factors that blocks need of each other in an iteration. Each result also has:

        - "setup": seconds of a fit outside its iterations, with the factors read once;
        - "shuffle_bytes": written to the shuffle in an iteration;
        - "jvm_bytes": peak of Java's heap during a fit, garbage included;
        - "python_bytes": peak during a fit of the resident memory of all Python workers at work;
        - "objective": in float64, after 1 + `iterations` iterations;
        - "top_seconds" and "top_ratio", of recommending.

    Raises
    ------
    ImportError
        pyspark is not installed.
    RuntimeError
        There is no Java, or its version is too old.
    TypeError
        The benchmark has no such option.
    ValueError
        No such contender or baseline.
    """
    unknown = [name for name in contenders if name not in CONTENDERS]
    if unknown:
        raise ValueError(f"no contender is named {unknown[0]!r}; there are: {', '.join(CONTENDERS)}")
    settings = harness.settings_of(Spark, options)
    settings = dataclasses.replace(settings, blocks=settings.blocks or settings.threads)
    skipped = {"mllib": "its ids have 32 bits"} if isinstance(plays, int) and "mllib" in contenders else {}
    jobs = {name: {"package": CONTENDERS[name]} for name in contenders if name not in skipped}
    baseline = harness.chosen_baseline(settings.baseline, jobs)
    with session(settings.threads, settings.memory) as spark_session, _table(plays, spark_session) as table:
        native_blas = _native_blas(spark_session)
        trial = _Trial(spark_session, plays, table, settings, inspect)
        warm, failed = harness.alternate(jobs, 1, trial.warm_up, settings.say)
        runs, failed_later = harness.alternate(warm, settings.repeats, trial.time, settings.say)
        data, sent_bytes = _shape(table), 4 * settings.factors * _rows_sent(table, settings.blocks)
    compared = _compared(runs, baseline)
    conditions = settings.reported() | {"baseline": baseline, "native_blas": native_blas}
    return harness.outcome(conditions, runs, failed | failed_later, skipped) | {
        "data": data,
        "expected_shuffle_bytes": sent_bytes,
        "results": [{"contender": name} | row for name, row in compared.items()],
        "noise": harness.noise(compared, baseline, settings.repeats),
    }


def _compared(runs: dict[str, list[harness.Run]], baseline: str) -> dict[str, dict[str, Any]]:
    iterations = {name: [[at["seconds"] for at in run["measured"]] for run in each] for name, each in runs.items()}
    rows = harness.compare(iterations, baseline)
    for name, row in rows.items():
        row |= {key: statistics.median(run[key] for run in runs[name]) for key in ("setup", "shuffle_bytes")}
        row |= {key: max(run[key] for run in runs[name]) for key in ("jvm_bytes", "python_bytes")}
        row["objective"] = runs[name][0]["objective"]
    top = {name: [[run["top_seconds"]] for run in each if run["top_seconds"]] for name, each in runs.items()}
    for name, row in harness.compare({name: seconds for name, seconds in top.items() if seconds}, baseline).items():
        rows[name] |= {"top_seconds": row["median"], "top_ratio": row.get("ratio")}
    return rows


def require_java() -> None:
    """Verify that there is a Java for Spark, and that it is new enough.

    Raises
    ------
    RuntimeError
        There is no Java, or its version is too old. The message says what to do.
    """
    home = os.environ.get("JAVA_HOME")
    java = shutil.which("java", path=str(Path(home, "bin")) if home else None)
    output = subprocess.run([java, "-version"], capture_output=True, text=True, check=False).stderr if java else ""
    version = re.search(r'version "(?:1\.)?(\d+)', output)
    if not version or int(version[1]) < _JAVA_VERSION:
        raise RuntimeError(
            f"Spark needs Java {_JAVA_VERSION} or later, and "
            + (f"{java} is Java {version[1]}" if version else "there is none")
            + f": install one (Debian, Ubuntu: apt-get install openjdk-{_JAVA_VERSION}-jre-headless), or set JAVA_HOME"
        )


def _native_blas(spark_session: "SparkSession") -> bool:
    """Return whether MLlib uses a native BLAS instead of the one written in Java."""
    from py4j.protocol import Py4JJavaError

    jvm: Any = spark_session._jvm
    try:
        jvm.dev.ludovic.netlib.blas.NativeBLAS.getInstance()
    except Py4JJavaError:
        return False
    return True


@contextlib.contextmanager
def session(threads: int, memory: str) -> "Iterator[SparkSession]":
    """Give the active Spark session, or start one and stop it at the end of the block."""
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
        "spark.sql.shuffle.partitions": str(4 * threads),  # Spark's default is 200, each of which is a task to start
    }
    spark_session = SparkSession.builder.master(f"local[{threads}]").config(map=options).getOrCreate()
    try:
        yield spark_session
    finally:
        spark_session.stop()


def made_plays(spark_session: "SparkSession", interactions: int, seed: int = 0) -> "DataFrame":
    """Make plays in the proportions of Last.fm 360K on Spark's workers, without the driver.

    A user has 49 draws on average, from a Zipf-Mandelbrot law whose most popular item has a fifth of the users. A pair
    that is drawn twice is one row. The ids are spread over 64 bits.

    Parameters
    ----------
    spark_session : SparkSession
    interactions : int
        Approximate number of rows.
    seed : int
        The same seed gives the same table, for any number of partitions.

    Returns
    -------
    DataFrame
        Columns "user" and "item" (bigint), "plays" (float).
    """
    from pyspark.sql import functions

    n_users, n_items = max(1, interactions // 49), max(1, interactions // 60)
    offset, exponent = 135, 0.55

    def uniform(purpose: str) -> Any:
        bits = functions.xxhash64(functions.lit(f"{purpose} {seed}"), "number", "draw")
        return bits.bitwiseAND(functions.lit(2**52 - 1)) / 2.0**52

    draws = 30 + functions.pmod(functions.xxhash64(functions.lit(seed), "id"), functions.lit(39))
    share = 1 - ((n_items + offset) / offset) ** -exponent
    rank = functions.floor(offset * (functions.pow(1 - uniform("item") * share, -1 / exponent) - 1)).cast("long")
    normal = functions.sqrt(-2 * functions.log(1 - uniform("radius"))) * functions.cos(2 * np.pi * uniform("angle"))
    drawn = spark_session.range(n_users).select(
        functions.col("id").alias("number"),
        functions.explode(functions.sequence(functions.lit(1), draws)).alias("draw"),
    )
    plays = drawn.select(
        functions.xxhash64(functions.lit("user"), "number").alias("user"),
        functions.xxhash64(functions.lit("item"), rank).alias("item"),
        functions.ceil(functions.exp(4.54 + 1.2 * normal)).cast("float").alias("plays"),
    )
    return plays.groupBy("user", "item").agg(functions.max("plays").alias("plays"))


@contextlib.contextmanager
def _table(plays: Any, spark_session: "SparkSession") -> "Iterator[DataFrame]":
    """Yield the plays as a cached DataFrame. If `plays` is an int, Spark makes about that many."""
    with tempfile.TemporaryDirectory() as folder:
        if isinstance(plays, int):
            table = made_plays(spark_session, plays)
        else:
            path = Path(folder, "plays.parquet")
            _write(plays, path)
            table = spark_session.read.parquet(str(path)).repartition(spark_session.sparkContext.defaultParallelism)
        table = table.cache()
        table.count()
        yield table
        table.unpersist(blocking=True)


def _write(plays: Any, path: Path) -> None:
    users = np.repeat(np.arange(plays.shape[0], dtype=np.int32), np.diff(plays.indptr))
    arrays = users, plays.indices.astype(np.int32, copy=False), plays.data.astype(np.float32, copy=False)
    pq.write_table(pa.table(dict(zip(_COLUMNS.values(), arrays, strict=True))), path)


def _shape(table: "DataFrame") -> dict[str, int]:
    from pyspark.sql import functions

    counts = table.agg(functions.count_distinct("user"), functions.count_distinct("item"), functions.count("*"))
    return dict(zip(("users", "items", "entries"), counts.collect()[0], strict=True))


def _rows_sent(table: "DataFrame", blocks: int) -> float:
    """Return the expected number of rows of factors that are sent in an iteration if each block gets those it needs.

    The factors of an item with n users go to ``blocks (1 - (1 - 1 / blocks)^n)`` blocks of users on average. The same
    holds for the factors of users.
    """
    from pyspark.sql import functions

    needed = functions.lit(blocks) * (1 - functions.pow(functions.lit(1 - 1 / blocks), "count"))
    sums = (table.groupBy(side).count().agg(functions.sum(needed)).collect()[0][0] for side in ("user", "item"))
    return float(sum(sums))


class _Trial:
    """Fits and recommendations of any contender on one table."""

    def __init__(
        self, spark_session: "SparkSession", plays: Any, table: "DataFrame", settings: Spark, inspect: InspectFactors
    ) -> None:
        self.spark_session, self.plays, self.table = spark_session, plays, table
        self.settings, self.inspect = settings, inspect
        queries = table.select("user").distinct()
        if settings.users:
            queries = queries.orderBy("user").limit(settings.users)
        self.queries = queries.cache()
        self.queries.count()
        self.needed = self._cached()

    def warm_up(self, name: str) -> harness.Run:
        """Train and recommend once; the caller does not count the seconds."""
        with self._run(name) as run:
            began = time.perf_counter()
            self._recommend(self._fit(name, 1))
            run["measured"] = [{"seconds": time.perf_counter() - began}]
        return run

    def time(self, name: str) -> harness.Run:
        """Time the iterations of a fit, and recommendations from it."""
        with self._run(name) as run:
            before, began = self._jobs(), time.perf_counter()
            with _peaks(self.spark_session) as peaks:
                model = self._fit(name, 1 + self.settings.iterations)
            seconds = time.perf_counter() - began
            iterations, run["shuffle_bytes"] = self._iterations(run["package"], self._jobs()[len(before) :])
            run["measured"] = [{"seconds": each} for each in iterations]
            run["setup"] = seconds - (1 + len(iterations)) * statistics.median(iterations)
            run |= peaks
            run["top_seconds"] = self._recommend(model)
            run["objective"] = self._objective(name, model)
        return run

    @contextlib.contextmanager
    def _run(self, name: str) -> Iterator[harness.Run]:
        from py4j.protocol import Py4JError
        from pyspark.errors import PySparkException

        package = CONTENDERS[name]
        version = __version__ if package == OURS else importlib.metadata.version(package)
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
        n, began = self.settings.top, time.perf_counter()
        if not n:
            return None
        sampled = bool(self.settings.users)
        best = model.recommendForUserSubset(self.queries, n) if sampled else model.recommendForAllUsers(n)
        best.write.format("noop").mode("overwrite").save()
        return time.perf_counter() - began

    def _objective(self, name: str, model: Any) -> float | None:
        if isinstance(self.plays, int):
            return None
        plays = self.plays
        X, Y = (_dense(frame, n) for frame, n in zip((model.userFactors, model.itemFactors), plays.shape, strict=True))
        self.inspect(name, X, Y)
        return calculate_loss(
            plays, X, Y, self.settings.regularization, self.settings.alpha, regularization_exponent=1,
            regularization_count="entries",
        )  # fmt: skip

    @property
    def _store(self) -> Any:
        """Spark's record of its jobs and stages, up to date."""
        context = self.spark_session.sparkContext._jsc.sc()
        context.listenerBus().waitUntilEmpty()
        return context.statusStore()

    def _jobs(self) -> list[Any]:
        """Return all jobs of the session, in the order of their start."""
        jobs = self._store.jobsList(None)
        return sorted((jobs.apply(at) for at in range(jobs.size())), key=lambda job: job.jobId())

    def _iterations(self, package: str, jobs: list[Any]) -> tuple[list[float], float]:
        """Return the seconds of each timed iteration of a fit, and the mean shuffle bytes per iteration.

        `jobs` are those of the fit.
        """
        prefix, n_jobs = _HALF_SWEEP_JOBS[package], 1 + 2 * self.settings.iterations
        timed = [job for job in jobs if job.name().startswith(prefix)][-n_jobs:]
        if len(timed) < n_jobs:
            raise RuntimeError(
                f"the names of fewer than {n_jobs} jobs begin with {prefix!r}: cannot tell iterations from each other"
            )
        ends = [job.completionTime().get().getTime() / 1000 for job in timed]
        first, last = timed[0].jobId(), timed[-1].jobId()
        within = [job.stageIds() for job in jobs if first < job.jobId() <= last]
        stages = {ids.apply(at) for ids in within for at in range(ids.size())}
        written = sum(self._store.lastStageAttempt(stage).shuffleWriteBytes() for stage in stages)
        seconds = [end - begin for begin, end in zip(ends[:-2:2], ends[2::2], strict=True)]
        return seconds, written / self.settings.iterations

    def _cached(self) -> dict[int, Any]:
        return dict(self.spark_session.sparkContext._jsc.getPersistentRDDs())

    def _forget(self) -> None:
        """Free the tables that a fit has cached."""
        for number, cached in self._cached().items():
            if number not in self.needed:
                cached.unpersist(True)


def _estimator(name: str, settings: Spark) -> Any:
    from pyspark.ml import recommendation

    from alscore.spark import ALS

    options: dict[str, Any] = _COLUMNS | {
        "rank": settings.factors, "regParam": settings.regularization, "alpha": settings.alpha, "implicitPrefs": True,
        "seed": settings.seed, "numUserBlocks": settings.blocks, "numItemBlocks": settings.blocks,
    }  # fmt: skip
    if name == "mllib":
        return recommendation.ALS(**options)
    return ALS(**options, solver=name.removeprefix("alscore-"))


def _dense(frame: "DataFrame", n: int) -> Floats:
    """Return the factors as an array (n, k) whose rows are ids; rows of ids that `frame` lacks are 0."""
    table = frame.toArrow()
    factors = table["features"].combine_chunks().flatten().to_numpy().reshape(len(table), -1)
    dense = np.zeros((n, factors.shape[1]), np.float32)
    dense[table["id"].to_numpy()] = factors
    return dense


@contextlib.contextmanager
def _peaks(spark_session: "SparkSession") -> Iterator[dict[str, int]]:
    """Give peaks of memory while the block runs: of Java's heap, and of the Python workers that Java has started."""
    java: Any = spark_session.sparkContext._jvm
    java = java.java.lang
    java.System.gc()
    pools = [
        pool for pool in java.management.ManagementFactory.getMemoryPoolMXBeans() if pool.getType().name() == "HEAP"
    ]
    for pool in pools:
        pool.resetPeakUsage()
    ended, peaks = threading.Event(), {"jvm_bytes": 0, "python_bytes": 0}
    root = java.ProcessHandle.current().pid()
    before = _descendants(root)

    def sample() -> None:
        while not ended.wait(_SAMPLING_SECONDS):
            now = _descendants(root)
            at_work = [resident for process, (used, resident) in now.items() if used > before.get(process, (0,))[0]]
            peaks["python_bytes"] = max(peaks["python_bytes"], sum(at_work))

    sampling = threading.Thread(target=sample, daemon=True)
    sampling.start()
    try:
        yield peaks
    finally:
        ended.set()
        sampling.join()
        peaks["jvm_bytes"] = sum(pool.getPeakUsage().getUsed() for pool in pools)


def _descendants(root: int) -> dict[int, tuple[int, int]]:
    """Return (processor time in ticks, resident bytes) of every process that descends from the process `root`."""
    processes = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # the process has ended
            fields = [int(field) for field in stat.read_text().rpartition(")")[2].split()[1:]]
            processes[int(stat.parent.name)] = (
                fields[0],
                (fields[10] + fields[11], fields[20] * os.sysconf("SC_PAGESIZE")),
            )
    family = {root}
    for _ in range(3):  # Java starts a daemon, which starts workers
        family |= {process for process, (parent, _) in processes.items() if parent in family}
    return {process: usage for process, (_, usage) in processes.items() if process in family - {root}}
