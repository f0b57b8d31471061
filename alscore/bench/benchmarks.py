"""All benchmarks: what each one measures, its contenders, its options and the columns of its table.

The keyword arguments of the functions in `alscore.bench`, the options of ``alscore bench`` and the printed tables are
made from these classes. This module imports no numpy, because the command line imports it for ``alscore --help``.
"""

import dataclasses
import enum
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

Say = Callable[[str], Any]
OURS = "alscore"  # the package of our contenders


class Kind(enum.Enum):
    """The values that an option takes. The command line has a reader for each kind."""

    AT_LEAST_1 = "integer of at least 1"
    AT_LEAST_0 = "integer of at least 0"
    ABOVE_ZERO = "finite number above 0"
    NOT_NEGATIVE = "finite number of at least 0"
    TEXT = "text"
    FLAG = "true or false"
    KERNEL_SETS = "names of kernel sets"
    INTERPRETERS = "path of an interpreter, by the beginning of contenders' names"


class Option(NamedTuple):
    """An option that one or several benchmarks have.

    The keyword argument `one_by_one` is ``--one-by-one`` on the command line. The outcome of a benchmark states the
    values of all options that are `reported`.
    """

    kind: Kind
    default: Any
    help: str
    metavar: str | None = None
    reported: bool = True

    def field(self, default: Any = None) -> Any:
        """Return the field of a benchmark; `default` replaces the default of the option."""
        default = self.default if default is None else default
        return dataclasses.field(default=default, metadata={"option": self})


FACTORS = Option(Kind.AT_LEAST_1, 128, "length of the factors")
THREADS = Option(Kind.AT_LEAST_0, 0, "number of threads; 0: all CPUs that this process may use")
SEED = Option(Kind.AT_LEAST_0, 0, "seed of the initial factors, and of random samples")
REPEATS = Option(Kind.AT_LEAST_1, 3, "number of timed processes of each contender")
REGULARIZATION = Option(Kind.NOT_NEGATIVE, 0.01, "λ")
ALPHA = Option(Kind.ABOVE_ZERO, 1.0, "weight of the plays in the confidence")
TOP = Option(Kind.AT_LEAST_1, 10, "number of items for each user")
USERS = Option(Kind.AT_LEAST_1, None, "number of users in a random sample; default: all users", reported=False)
ONE_BY_ONE = Option(Kind.FLAG, False, "each user in a separate call")
RANDOM_FACTORS = Option(Kind.FLAG, False, "standard normal factors instead of trained ones: a search cannot prune them")
TIMED_SWEEPS = Option(Kind.AT_LEAST_1, 2, "number of timed sweeps in each process, after one to warm up")
SWEEPS = Option(Kind.AT_LEAST_1, 15, "number of sweeps in each process")
FIT_SWEEPS = Option(Kind.AT_LEAST_1, 15, "number of sweeps of a fit")
REFERENCE_SWEEPS = Option(Kind.AT_LEAST_1, 30, "number of exact sweeps whose lowest objective is the reference")
ITERATIONS = Option(Kind.AT_LEAST_1, 2, "number of timed iterations of a fit, after one to warm up")
BLOCKS = Option(Kind.AT_LEAST_0, 0, "number of blocks of users, and of blocks of items; 0: the number of threads")
MEMORY = Option(Kind.TEXT, "8g", "maximum heap of Java, for example 12g")
SPARK_USERS = Option(
    Kind.AT_LEAST_1, None, "number of users to recommend to, those with the lowest ids; default: all users"
)  # fmt: skip
SPARK_TOP = TOP._replace(kind=Kind.AT_LEAST_0, help="number of items for each user; 0: do not time recommending")
ISA = Option(Kind.KERNEL_SETS, (), "kernel sets: each contender of ours runs with each of them", "SETS", reported=False)
PYTHON = Option(
    Kind.INTERPRETERS, None, "interpreter of the contenders whose names begin with NAME; may be repeated", "NAME=PATH",
    reported=False,
)  # fmt: skip
BASELINE = Option(
    Kind.TEXT, None, "contender that ratios are relative to; default: the first of ours", "NAME", reported=False
)  # fmt: skip


class Column(NamedTuple):
    """A column of a table."""

    heading: str
    key: str  # of the contender's result
    text: Callable[[Any], str]


def _in_units_of(unit: float) -> Callable[[float], str]:
    return lambda value: f"{value / unit:,.0f}"


SECONDS = tuple(Column(name, name, "{:.3f}".format) for name in ("median", "min", "max"))
_PEAK = Column("peak MB", "peak_bytes", _in_units_of(1e6))
_USERS_PER_SECOND = Column("users/s", "users_per_second", _in_units_of(1))
_FIRST_CALL = Column("first call", "first", "{:.3f}".format)
_OBJECTIVE = Column("objective", "objective", _in_units_of(1))


def _silent(message: str) -> None:
    pass


@dataclasses.dataclass(frozen=True, kw_only=True)
class Benchmark:
    """A benchmark with the values of its options: a field with an `Option` is a keyword and a command line option.

    `say` is called with a message for each process that has ended and for each contender that is left out.
    """

    name: ClassVar[str]
    measured: ClassVar[str]  # what the seconds are of: the help, the line above the table, the axis of the plot
    columns: ClassVar[tuple[Column, ...]] = ()  # of the table, after the columns of the seconds
    peers: ClassVar[tuple[str, ...]]  # contenders that can be added to ours
    against: ClassVar[tuple[str, ...]] = ()  # the peers that are measured by default
    solvers: ClassVar[tuple[str, ...]] = ()  # default solvers of our contenders; if empty, "alscore" is the only one

    repeats: int = REPEATS.field()
    baseline: str | None = BASELINE.field()
    say: Say = _silent

    @classmethod
    def contenders(cls, solvers: Sequence[str] | None = None, against: Sequence[str] | None = None) -> tuple[str, ...]:
        """Return the names of our contenders, then those of the peers. None stands for the default ones."""
        solvers = cls.solvers if solvers is None else solvers
        ours = [f"{OURS}-{solver}" for solver in solvers] if cls.solvers else [OURS]
        return (*ours, *(cls.against if against is None else against))

    @classmethod
    def options(cls) -> dict[str, tuple[Option, Any]]:
        """Return each option by its keyword, with its default in this benchmark."""
        fields = (field for field in dataclasses.fields(cls) if "option" in field.metadata)
        return {field.name: (field.metadata["option"], field.default) for field in fields}

    def reported(self) -> dict[str, Any]:
        """Return the name of the benchmark and the values of its reported options."""
        reported = {
            keyword: getattr(self, keyword) for keyword, (option, _) in self.options().items() if option.reported
        }
        return {"bench": self.name} | reported


@dataclasses.dataclass(frozen=True, kw_only=True)
class InProcesses(Benchmark):
    """Each contender runs in a process of its own, under an interpreter of its own if there is one."""

    python: Mapping[str, str] | None = PYTHON.field()


@dataclasses.dataclass(frozen=True, kw_only=True)
class OnFactors(Benchmark):
    """All contenders use factors of the same length, on the same number of threads."""

    factors: int = FACTORS.field()
    threads: int = THREADS.field()
    seed: int = SEED.field()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task(OnFactors, InProcesses):
    """The contenders do something with trained factors."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Training(OnFactors, InProcesses):
    """The contenders train."""

    solvers = "cholesky", "cg", "auto"
    peers = (
        "implicit-cholesky", "implicit-cg", "irspack-cholesky", "irspack-cg", "irspack-ialspp", "cmfrec-cholesky",
        "cmfrec-cg", "lenskit", "buffalo-cholesky", "buffalo-cg", "buffalo-ialspp",
    )  # fmt: skip

    regularization: float = REGULARIZATION.field()
    alpha: float = ALPHA.field()
    isa: Sequence[str] = ISA.field()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sweep(Training):
    """Sweeps of training."""

    name = "sweep"
    measured = "seconds of a sweep, users and items"
    columns = (
        Column("GFLOP/s", "flops", _in_units_of(1e9)),
        Column("of FMA peak", "fma_share", "{:.0%}".format),
        Column("least gather of peak", "gather_share", "{:.0%}".format),
        _PEAK,
        Column("last objective", "objective", lambda values: f"{values[-1]:,.0f}"),
    )

    sweeps: int = TIMED_SWEEPS.field()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Converge(Training):
    """Training until the objective is low. The table has columns for each target."""

    name = "converge"
    measured = "seconds until the objective is as low as a target"

    sweeps: int = SWEEPS.field()
    reference_sweeps: int = REFERENCE_SWEEPS.field()


@dataclasses.dataclass(frozen=True, kw_only=True)
class TopN(Task):
    """Recommendations from given factors."""

    name = "topn"
    measured = "seconds to recommend items to users"
    peers = against = "implicit", "numpy"
    columns = _USERS_PER_SECOND, _FIRST_CALL, Column("same ids", "same_ids", "{:.3%}".format)

    top: int = TOP.field()
    users: int | None = USERS.field()
    one_by_one: bool = ONE_BY_ONE.field()
    random_factors: bool = RANDOM_FACTORS.field()


@dataclasses.dataclass(frozen=True, kw_only=True)
class FoldIn(Task):
    """User factors from the users' rows."""

    name = "foldin"
    measured = "seconds to solve users from their rows"
    peers = "alscore-half-sweep", "implicit"
    against = ("implicit",)
    columns = _USERS_PER_SECOND, _FIRST_CALL

    users: int | None = USERS.field()
    one_by_one: bool = ONE_BY_ONE.field()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Update(Task):
    """A trained model and new entries."""

    name = "update"
    measured = "seconds to take in new plays, one in twenty"
    peers = against = "alscore-2-sweeps", "alscore-fit"
    columns = (_OBJECTIVE,)

    sweeps: int = FIT_SWEEPS.field()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Load(InProcesses):
    """A file of plays, read into a sparse matrix."""

    name = "load"
    measured = "seconds to read a file"
    peers = against = "pandas", "bytes", "saved"
    columns = Column("rows/s", "rows_per_second", _in_units_of(1)), Column("entries", "entries", _in_units_of(1)), _PEAK


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluate(Task):
    """Metrics of a model on held-out entries."""

    name = "evaluate"
    measured = "seconds to rank, and to evaluate on held-out plays"
    peers = against = ("implicit",)
    columns = (
        _USERS_PER_SECOND,
        Column("NDCG", "ndcg", "{:.4f}".format),
        Column("recall", "recall", "{:.4f}".format),
    )

    top: int = TOP.field()
    users: int | None = USERS.field()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Spark(OnFactors):
    """Training and recommending on Apache Spark. All contenders run in one session."""

    name = "spark"
    measured = "seconds of an iteration on Apache Spark, users and items"
    solvers = ("cholesky",)
    peers = against = ("mllib",)
    columns = (
        Column("setup", "setup", "{:.1f}".format),
        Column("shuffle MB", "shuffle_bytes", _in_units_of(1e6)),
        Column("JVM MB", "jvm_bytes", _in_units_of(1e6)),
        Column("Python MB", "python_bytes", _in_units_of(1e6)),
        _OBJECTIVE,
        Column("top-N", "top_seconds", "{:.1f}".format),
        Column("top-N ratio", "top_ratio", "{:.2f}".format),
    )

    regularization: float = REGULARIZATION.field(0.1)
    alpha: float = ALPHA.field()
    blocks: int = BLOCKS.field()
    iterations: int = ITERATIONS.field()
    top: int = SPARK_TOP.field()
    users: int | None = SPARK_USERS.field()
    memory: str = MEMORY.field()


BENCHMARKS: dict[str, type[Benchmark]] = {
    each.name: each for each in (Sweep, Converge, TopN, FoldIn, Update, Load, Evaluate, Spark)
}
