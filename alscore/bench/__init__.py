"""Benchmarks: contenders on one machine in one run, each in a process of its own, in alternation.

`sweep` and `converge` time training, on the same interactions, from the same start, minimising the same objective;
`topn`, `foldin`, `update`, `load` and `evaluate` time recommending, new users, new plays, reading, ranking; `spark`
times training and recommending on Apache Spark, all contenders in one session. Each gives a dict that holds every
measurement and that `alscore.bench.presentation` turns into a table or a plot.

A contender in training is an entry of `alscore.bench.contenders.CONTENDERS`; on Spark, of
`alscore.bench.on_spark.CONTENDERS`; in the others, of `alscore.bench.task_contenders.CONTENDERS`.
"""

from alscore.bench.on_spark import spark
from alscore.bench.sweeps import converge, sweep
from alscore.bench.tasks import evaluate, foldin, load, topn, update

__all__ = ["converge", "evaluate", "foldin", "load", "spark", "sweep", "topn", "update"]
