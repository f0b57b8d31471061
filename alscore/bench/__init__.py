"""Benchmarks: several contenders on one machine in one run, in turn, each in a process of its own.

`sweep` and `converge` time training. All contenders train on the same interactions, from the same initial factors, and
minimise the same objective. `topn` times recommending, `foldin` new users, `update` new plays, `load` reading, and
`evaluate` ranking. `spark` times training and recommending on Apache Spark, with all contenders in one session.

Each function takes data, names of contenders, and as keywords the options that `alscore.bench.benchmarks` describes. It
returns a dict with every measurement, which `alscore.bench.presentation` turns into a table or a plot.

The contenders in training are in `alscore.bench.contenders.CONTENDERS`, those on Spark in
`alscore.bench.on_spark.CONTENDERS`, all others in `alscore.bench.task_contenders.CONTENDERS`.
"""

import importlib
from typing import TYPE_CHECKING, Any

# The module and the name of each function. They are imported on first use: ``alscore --help`` imports this package, and
# must not wait for numpy.
_HOMES = {
    "sweep": ("alscore.bench.sweeps", "sweep"),
    "converge": ("alscore.bench.sweeps", "converge"),
    "topn": ("alscore.bench.tasks", "topn"),
    "foldin": ("alscore.bench.tasks", "foldin"),
    "update": ("alscore.bench.tasks", "update"),
    "load": ("alscore.bench.tasks", "load"),
    "evaluate": ("alscore.bench.tasks", "evaluate"),
    "spark": ("alscore.bench.on_spark", "spark"),
}
__all__ = [*_HOMES]

if TYPE_CHECKING:  # the same names, in the form that type checkers treat as public
    from alscore.bench.on_spark import spark as spark
    from alscore.bench.sweeps import converge as converge
    from alscore.bench.sweeps import sweep as sweep
    from alscore.bench.tasks import evaluate as evaluate
    from alscore.bench.tasks import foldin as foldin
    from alscore.bench.tasks import load as load
    from alscore.bench.tasks import topn as topn
    from alscore.bench.tasks import update as update


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'alscore.bench' has no attribute {name!r}")
    module, function = _HOMES[name]
    return getattr(importlib.import_module(module), function)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
