"""``alscore bench``: the benchmarks of `alscore.bench`, with options made from their descriptions."""

import argparse
import contextlib
import functools
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from alscore.bench.benchmarks import BENCHMARKS, Benchmark, Kind, Option
from alscore.cli import console

_ISAS = "avx512", "avx2", "neon", "generic"  # kernel sets
_FULL_SHAPE = 358_868, 292_385  # users and items of Last.fm 360K, which --scale multiplies
_DEFAULT_SCALE = 0.1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``alscore bench``."""
    kinds = parser.add_subparsers(metavar="KIND", required=True, dest="kind")
    for name, benchmark in BENCHMARKS.items():
        kind = kinds.add_parser(name, help=benchmark.measured, description=benchmark.measured)
        _add_data_options(kind, name)
        _add_contenders(kind, benchmark)
        for keyword, (option, default) in benchmark.options().items():
            _add_option(kind, keyword, option, default)
        kind.add_argument(
            "--json", metavar="FILE", nargs="?", const="-",
            help="write one JSON document to FILE, or print it instead of the table",
        )  # fmt: skip
        kind.add_argument("--plot", metavar="FILE", help="draw a PNG; needs matplotlib")


def _add_data_options(parser: argparse.ArgumentParser, name: str) -> None:
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--data", metavar="PATH", help="Last.fm 360K file; default: synthetic plays of its shape")
    source.add_argument(
        "--scale", type=console.above_zero,
        help=f"size of the synthetic data, 1: {_FULL_SHAPE[0]:,} x {_FULL_SHAPE[1]:,}; default: {_DEFAULT_SCALE}",
    )  # fmt: skip
    if name == "spark":
        parser.add_argument(
            "--interactions", type=console.at_least_1,
            help="number of plays that Spark itself makes, instead of --scale; without MLlib",
        )  # fmt: skip


def _add_contenders(parser: argparse.ArgumentParser, benchmark: type[Benchmark]) -> None:
    if benchmark.solvers:
        default = ",".join(benchmark.solvers)
        parser.add_argument(
            "--solver",
            metavar="NAMES",
            type=console.names,
            default=default,
            help=f"solvers of alscore; default: {default}",
        )
    default = ",".join(benchmark.against)
    parser.add_argument(
        "--against", metavar="NAMES", type=console.names, default=default,
        help=f"contenders to compare with, of {','.join(benchmark.peers)}; default: {default or 'none'}",
    )  # fmt: skip


def _add_option(parser: argparse.ArgumentParser, keyword: str, option: Option, default: Any) -> None:
    flag, help = f"--{keyword.replace('_', '-')}", option.help
    if option.kind is Kind.FLAG:
        parser.add_argument(flag, action="store_true", help=help)
        return
    settings: dict[str, Any] = {"type": _READERS[option.kind], "default": default, "metavar": option.metavar}
    if option.kind is Kind.INTERPRETERS:
        settings |= {"action": "append", "default": []}
    elif option.kind is Kind.KERNEL_SETS:
        help += f"; of {','.join(_ISAS)}"
    elif default is not None:
        help += f"; default: {default}"
    parser.add_argument(flag, help=help, **settings)


def _isas(text: str) -> list[str]:
    if unknown := set(console.names(text)) - set(_ISAS):
        raise argparse.ArgumentTypeError(f"must be some of {','.join(_ISAS)}, not {','.join(sorted(unknown))!r}")
    return console.names(text)


def _interpreter(text: str) -> tuple[str, str]:
    name, _, path = text.partition("=")
    if not name or not path:
        raise argparse.ArgumentTypeError(f"must be NAME=PATH, such as buffalo=/path/to/python, not {text!r}")
    return name, path


_READERS: dict[Kind, Callable[[str], Any]] = {
    Kind.AT_LEAST_1: console.at_least_1,
    Kind.AT_LEAST_0: console.at_least_0,
    Kind.ABOVE_ZERO: console.above_zero,
    Kind.NOT_NEGATIVE: console.not_negative,
    Kind.TEXT: str,
    Kind.KERNEL_SETS: _isas,
    Kind.INTERPRETERS: _interpreter,
}


def run(args: argparse.Namespace) -> None:
    """Run a benchmark; print its table or its JSON document."""
    from alscore import bench
    from alscore._support.files import atomic_writer
    from alscore.bench import presentation

    if args.plot:
        console.require_matplotlib()
    benchmark = BENCHMARKS[args.kind]
    solvers = args.solver if benchmark.solvers else None
    ours = benchmark.contenders(solvers, against=())
    options = {keyword: getattr(args, keyword) for keyword in benchmark.options()}
    if "python" in options:
        options["python"] = dict(args.python)
    # The output files are opened first: a path that cannot be written to fails before the measurement.
    with (
        atomic_writer(args.plot) if args.plot else contextlib.nullcontext() as plot,
        atomic_writer(args.json) if args.json and args.json != "-" else contextlib.nullcontext() as document,
        tempfile.TemporaryDirectory() as folder,
    ):
        data, description = _data(args, folder)
        measure = getattr(bench, args.kind)
        say = functools.partial(print, file=sys.stderr, flush=True)
        outcome = measure(data, benchmark.contenders(solvers, args.against), say=say, **options)
        outcome["settings"]["data"] = description
        if plot:
            presentation.plot(outcome, plot)
        if document:
            document.write((console.to_json(outcome) + "\n").encode())
    if args.json == "-":
        console.print_json(outcome)
    else:
        print(*presentation.above(outcome), sep="\n")
        console.print_table(*presentation.table(outcome))
        for line in presentation.below(outcome):
            print(line)
    if failed := [name for name in outcome["failed"] if name.partition("@")[0] in ours]:
        raise RuntimeError(f"{', '.join(failed)} failed")


def _data(args: argparse.Namespace, folder: str) -> tuple[Any, str]:
    """Return what the benchmark measures on and its description: a file for `load`, otherwise a matrix."""
    from alscore import datasets

    if getattr(args, "interactions", None):
        for name in ("data", "scale"):
            if getattr(args, name) is not None:
                raise ValueError(f"--interactions lets Spark make the plays: leave out --{name}, or --interactions")
        return args.interactions, f"made by Spark ({args.interactions:,} interactions, seed 0)"
    if args.data:
        return args.data if args.kind == "load" else datasets.lastfm_360k(args.data).matrix, args.data
    scale = _DEFAULT_SCALE if args.scale is None else args.scale
    description = f"synthetic (scale {scale:g}, seed 0)"
    n_users, n_items = (max(1, round(size * scale)) for size in _FULL_SHAPE)
    interactions = datasets.synthetic(n_users, n_items, seed=0)
    if args.kind != "load":
        return interactions.matrix, description
    path = Path(folder, "plays.tsv")
    datasets.write_lastfm_360k(interactions, path)
    return path, description
